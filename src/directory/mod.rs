//! Access to AD.
//!
//! Users' passwords are checked on pooled TLS connections ([`pool`]). Everything that is read is read on the
//! machine account's connection ([`machine`]), because after a rejected bind the server decides which rights
//! are left on a connection.

mod configuration;
mod controllers;
pub mod entry;
pub mod forest;
mod kept;
mod lookup;
pub mod machine;
mod passwords;
mod people;
pub mod readiness;
#[cfg(test)]
pub(crate) mod scripted;
pub mod sid;
pub mod trust;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldap3::Scope;
use lru::LruCache;
use tokio::time::Instant;

use self::controllers::lasting;
pub use self::controllers::{discovery, dns, domains, health, netlogon, roster, servers, survey};
pub use self::entry::{Entry, EntryError};
pub use self::forest::Forest;
pub use self::lookup::Part;
pub use self::machine::machines;
pub use self::machine::machines::{Machines, Place};
pub use self::machine::{MachineConnection, MachineError, Search};
use self::passwords::bind;
pub use self::passwords::bind::Unusable;
pub use self::passwords::last_set::LastSet;
pub use self::passwords::{change, policy, pool, refusal};
pub use self::people::account::{self, Account};
pub use self::people::groups::{self, GroupError, GroupRules};
pub use self::people::lockout;
pub use self::people::standing::{self, Standing};
pub use self::people::{Found, Membership, Near, Person, Seen, TOGETHER};
use crate::config::{Base, Config, root_of};
use crate::name::{Principal, fold};

/// Maximum number of remembered principals.
const PRINCIPALS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// Time for which the SIDs of the configured groups are cached.
const GROUPS: Duration = Duration::from_secs(600);

/// Reads the directory as the machine account.
pub trait Machine: Send + Sync {
    /// Runs one search; see [`MachineConnection::search`].
    fn search(
        &self,
        search: &Search,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Entry>, MachineError>> + Send;

    /// Runs one search for a client of the LDAP bridge; see [`MachineConnection::search_part`]. Such searches
    /// never delay those of logins.
    fn search_part(
        &self,
        search: &Search,
        bytes: usize,
        deadline: Instant,
    ) -> impl Future<Output = Result<Part, MachineError>> + Send {
        let _ = bytes;
        async move { self.search(search, deadline).await.map(|entries| Part { entries, is_cut: false }) }
    }

    /// Returns the domain controller that answers searches at `place` now, if known.
    fn host(&self, place: &Place) -> Option<String> {
        let _ = place;
        None
    }
}

impl Machine for MachineConnection {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        MachineConnection::search(self, search, deadline).await
    }

    fn host(&self, _: &Place) -> Option<String> {
        self.state().dc
    }
}

/// Reason why the directory has no answer about a principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// No account has the name.
    #[error("AD has no account {0}")]
    Unknown(Principal),
    /// Several accounts have the name.
    #[error("{principal} is the userPrincipalName of several accounts: {dns}")]
    Ambiguous {
        /// The name.
        principal: Principal,
        /// The accounts.
        dns: String,
    },
    /// The explicit name of one account is the implicit name of another.
    #[error("{0}")]
    Clash(Box<Clash>),
    /// A configured group has no SID.
    #[error("login.allow_groups or login.deny_groups: {0}")]
    Group(#[from] GroupError),
    /// A group of `sessions.exempt_groups` has no SID.
    #[error("sessions.exempt_groups: {0}")]
    Exempt(GroupError),
    /// AD was not reached.
    #[error("{0}")]
    Machine(#[from] MachineError),
}

/// A name without a domain that is the explicit name of one account and the implicit name of another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is the userPrincipalName of {explicit} and the sAMAccountName of {implicit}; a line in names.map decides: \
     \"{name} = {principal}\" for the first, \"{name} = {account}\" for the second",
    name = principal.user()
)]
pub struct Clash {
    /// The name.
    pub principal: Principal,
    /// DN of the account with this userPrincipalName.
    pub explicit: String,
    /// DN of the account with this sAMAccountName.
    pub implicit: String,
    /// The name that means only the latter account.
    pub account: String,
}

impl From<EntryError> for DirectoryError {
    fn from(error: EntryError) -> Self {
        DirectoryError::Machine(error.into())
    }
}

/// The directory as logins use it.
pub struct Directory<M> {
    machine: M,
    domain: String,
    netbios: String,
    base: String,
    /// Distinguished name of the domain itself.
    root: String,
    /// True if users are searched for in the whole domain.
    is_whole: bool,
    allow: Vec<String>,
    deny: Vec<String>,
    exempt: Vec<String>,
    people: Mutex<LruCache<Principal, (Person, Instant)>>,
    lookups: people::Lookups,
    forest: forest::Remembered,
    rules: Slot<groups::Configured>,
    nested: Slot<Option<people::Inside>>,
    exempt_groups: Slot<Vec<groups::Group>>,
}

/// A cached value with its expiry. One caller reads it; the others wait.
type Slot<T> = tokio::sync::Mutex<Option<(T, Instant)>>;

impl<M: Machine> Directory<M> {
    /// Creates the directory of `config`'s domain, read through `machine`.
    pub fn new(machine: M, config: &Config) -> Self {
        let root = root_of(&config.domain.name);
        Directory {
            machine,
            is_whole: Base::of(&config.domain.base_dn, &config.domain.name) == Base::Whole,
            root,
            domain: config.domain.name.clone(),
            netbios: config.names.netbios.clone(),
            base: config.domain.base_dn.clone(),
            allow: config.login.allow_groups.clone(),
            deny: config.login.deny_groups.clone(),
            exempt: config.sessions.exempt_groups.clone(),
            people: Mutex::new(LruCache::new(PRINCIPALS)),
            lookups: people::Lookups::default(),
            forest: forest::Remembered::default(),
            rules: Slot::default(),
            nested: Slot::default(),
            exempt_groups: Slot::default(),
        }
    }

    /// Returns the connection that the directory is read through.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Returns the forest as read within the last hour, or an older one if AD does not answer.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline` and the forest was never read.
    pub async fn forest(&self, deadline: Instant) -> Result<Arc<Forest>, DirectoryError> {
        Ok(self.forest.get(&self.machine, deadline).await?)
    }

    /// Returns true if logins depend on groups.
    pub fn has_group_rules(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }

    /// Reads the present state of `person`.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if the machine account may not read the
    /// state.
    pub async fn account(&self, person: &Person, deadline: Instant) -> Result<Account, DirectoryError> {
        let mut attributes = Account::ATTRIBUTES.to_vec();
        if self.has_group_rules() {
            attributes.push(Account::GROUPS);
        }
        let entry = self.read(person, &attributes, deadline).await?;
        Ok(Account::from_entry(&entry)?)
    }

    /// Returns the SIDs of the configured groups that apply to `person`.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if one of the groups does not exist. Also if
    /// the domain of `person` does not show membership in a denied group.
    pub async fn group_rules(
        &self,
        person: &Person,
        deadline: Instant,
    ) -> Result<GroupRules, DirectoryError> {
        let configured = remembered(&self.rules, GROUPS, self.read_group_rules(deadline), deadline).await?;
        Ok(configured.rules_in(&self.place(&person.domain))?)
    }

    /// Returns every group of `person`, including nested ones.
    ///
    /// # Errors
    /// Like [`Directory::account`].
    pub async fn groups(&self, person: &Person, deadline: Instant) -> Result<Vec<sid::Sid>, DirectoryError> {
        let entry = self.read(person, &[Account::GROUPS], deadline).await?;
        Ok(Account::groups_of(&entry)?)
    }

    /// Returns true if `person` is in one of `sessions.exempt_groups`. AD is queried only if there are any.
    ///
    /// # Errors
    /// Like [`Directory::group_rules`].
    pub async fn is_exempt(&self, person: &Person, deadline: Instant) -> Result<bool, DirectoryError> {
        if self.exempt.is_empty() {
            return Ok(false);
        }
        let exempt = remembered(&self.exempt_groups, GROUPS, self.read_exempt(deadline), deadline).await?;
        let exempt = groups::sids_in(&exempt, &self.place(&person.domain));
        let groups = self.groups(person, deadline).await?;
        Ok(exempt.iter().any(|sid| groups.contains(sid)))
    }

    /// Reads the present values of these attributes of `person`.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn read(
        &self,
        person: &Person,
        attributes: &[&str],
        deadline: Instant,
    ) -> Result<Entry, DirectoryError> {
        // The GUID finds the account wherever it was moved (MS-ADTS 3.1.1.3.1.2.4).
        let base = format!("<GUID={}>", person.guid);
        let attributes = attributes.iter().map(|name| (*name).to_owned()).collect();
        let search = Search { place: self.place(&person.domain), ..base_search(base, attributes) };
        let entries = self.machine.search(&search, deadline).await?;
        let gone = || MachineError::NoSuchObject(person.dn.clone());
        Ok(entries.into_iter().next().ok_or_else(gone)?)
    }

    /// Returns the place to read the domain with this DNS name.
    fn place(&self, domain: &str) -> Place {
        match self.is_own(domain) {
            true => Place::Own,
            false => Place::Domain(fold(domain)),
        }
    }

    fn is_own(&self, domain: &str) -> bool {
        fold(domain) == fold(&self.domain)
    }

    fn own_domain(&self) -> String {
        fold(&self.domain)
    }
}

/// Returns the value in `slot`, or calls `read` if that is too old.
async fn remembered<T: Clone>(
    slot: &Slot<T>,
    good_for: Duration,
    read: impl Future<Output = Result<T, DirectoryError>>,
    deadline: Instant,
) -> Result<T, DirectoryError> {
    // Locked during the searches, so that one caller reads and the others wait for the answer.
    let waited = tokio::time::timeout_at(deadline, slot.lock()).await;
    let mut slot = waited.map_err(|_| MachineError::Timeout("the configured groups".to_owned()))?;
    match slot.as_ref() {
        Some((known, until)) if *until > Instant::now() => Ok(known.clone()),
        _ => {
            let fresh = read.await?;
            *slot = Some((fresh.clone(), Instant::now() + good_for));
            Ok(fresh)
        }
    }
}

fn base_search(base: String, attributes: Vec<String>) -> Search {
    let filter = "(objectClass=*)".to_owned();
    Search { place: Place::Own, base, scope: Scope::Base, filter, attributes, limit: 1 }
}
