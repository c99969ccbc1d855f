//! The directory: what AD knows, and how it is asked.
//!
//! Users' passwords are checked on pooled TLS connections ([`pool`]); everything that is read is read on the machine
//! account's own connection ([`machine`]), because a rejected bind leaves a connection with whatever rights the
//! server sees fit.

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

/// So many principals are remembered.
const PRINCIPALS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// How long the SIDs of the configured groups are good.
const GROUPS: Duration = Duration::from_secs(600);

/// Who reads the directory as the machine account.
pub trait Machine: Send + Sync {
    /// Runs one search; see [`MachineConnection::search`].
    fn search(
        &self,
        search: &Search,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Entry>, MachineError>> + Send;

    /// Runs one search for a client of the LDAP bridge; see [`MachineConnection::search_part`]. Such searches never hold
    /// up those of logins.
    fn search_part(
        &self,
        search: &Search,
        bytes: usize,
        deadline: Instant,
    ) -> impl Future<Output = Result<Part, MachineError>> + Send {
        let _ = bytes;
        async move { self.search(search, deadline).await.map(|entries| Part { entries, is_cut: false }) }
    }

    /// The domain controller that searches at `place` go to now, where that is known.
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

/// Why the directory has no answer about a principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// No account bears the name.
    #[error("AD has no account {0}")]
    Unknown(Principal),
    /// Several accounts bear the name.
    #[error("{principal} is the userPrincipalName of several accounts: {dns}")]
    Ambiguous {
        /// The name.
        principal: Principal,
        /// The accounts.
        dns: String,
    },
    /// A name without a domain is the explicit name of one account and the implicit one of another.
    #[error("{0}")]
    Clash(Box<Clash>),
    /// A configured group has no SID.
    #[error("login.allow_groups or login.deny_groups: {0}")]
    Group(#[from] GroupError),
    /// The same of a group that has to do with sessions.
    #[error("sessions.exempt_groups: {0}")]
    Exempt(GroupError),
    /// AD was not reached.
    #[error("{0}")]
    Machine(#[from] MachineError),
}

/// A name without a domain that is the explicit name of one account and the implicit one of another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is the userPrincipalName of {explicit} and the sAMAccountName of {implicit}; a line in names.map decides: \
     \"{name} = {principal}\" for the first, \"{name} = {account}\" for the second",
    name = principal.user()
)]
pub struct Clash {
    /// The name.
    pub principal: Principal,
    /// The DN of the account whose userPrincipalName it is.
    pub explicit: String,
    /// The DN of the account whose sAMAccountName it is.
    pub implicit: String,
    /// The name that means the latter alone.
    pub account: String,
}

impl From<EntryError> for DirectoryError {
    fn from(error: EntryError) -> Self {
        DirectoryError::Machine(error.into())
    }
}

/// The directory as a login sees it.
pub struct Directory<M> {
    machine: M,
    domain: String,
    netbios: String,
    base: String,
    /// Where the domain itself begins.
    root: String,
    /// Whether the whole domain is searched for people.
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

/// Something that is read by one, for all who wait for it, and how long it is good.
type Slot<T> = tokio::sync::Mutex<Option<(T, Instant)>>;

impl<M: Machine> Directory<M> {
    /// The directory of `config`'s domain, read through `machine`.
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

    /// The connection that the directory is read through.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The forest, as it was read within the last hour; an older one where AD does not answer.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, and never before.
    pub async fn forest(&self, deadline: Instant) -> Result<Arc<Forest>, DirectoryError> {
        Ok(self.forest.get(&self.machine, deadline).await?)
    }

    /// Whether a login depends on groups.
    pub fn has_group_rules(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }

    /// The state of `person` as it is now.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, or the machine account may not read the state.
    pub async fn account(&self, person: &Person, deadline: Instant) -> Result<Account, DirectoryError> {
        let mut attributes = Account::ATTRIBUTES.to_vec();
        if self.has_group_rules() {
            attributes.push(Account::GROUPS);
        }
        let entry = self.read(person, &attributes, deadline).await?;
        Ok(Account::from_entry(&entry)?)
    }

    /// The configured groups by SID, which `person` is to be judged by.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, one of them does not exist, or one says nothing about `person`.
    pub async fn group_rules(
        &self,
        person: &Person,
        deadline: Instant,
    ) -> Result<GroupRules, DirectoryError> {
        let configured = remembered(&self.rules, GROUPS, self.read_group_rules(deadline), deadline).await?;
        Ok(configured.rules_in(&self.place(&person.domain))?)
    }

    /// Every group of `person`, nested ones too.
    ///
    /// # Errors
    /// As [`Directory::account`].
    pub async fn groups(&self, person: &Person, deadline: Instant) -> Result<Vec<sid::Sid>, DirectoryError> {
        let entry = self.read(person, &[Account::GROUPS], deadline).await?;
        Ok(Account::groups_of(&entry)?)
    }

    /// Whether `person` is in one of `sessions.exempt_groups`. AD is asked only where there are some.
    ///
    /// # Errors
    /// As [`Directory::group_rules`].
    pub async fn is_exempt(&self, person: &Person, deadline: Instant) -> Result<bool, DirectoryError> {
        if self.exempt.is_empty() {
            return Ok(false);
        }
        let exempt = remembered(&self.exempt_groups, GROUPS, self.read_exempt(deadline), deadline).await?;
        let exempt = groups::sids_in(&exempt, &self.place(&person.domain));
        let groups = self.groups(person, deadline).await?;
        Ok(exempt.iter().any(|sid| groups.contains(sid)))
    }

    /// These attributes of `person` as they are now.
    ///
    /// # Errors
    /// AD was not reached until `deadline`.
    pub async fn read(
        &self,
        person: &Person,
        attributes: &[&str],
        deadline: Instant,
    ) -> Result<Entry, DirectoryError> {
        // By its GUID the account is found wherever it was moved (MS-ADTS 3.1.1.3.1.2.4).
        let base = format!("<GUID={}>", person.guid);
        let attributes = attributes.iter().map(|name| (*name).to_owned()).collect();
        let search = Search { place: self.place(&person.domain), ..base_search(base, attributes) };
        let entries = self.machine.search(&search, deadline).await?;
        let gone = || MachineError::NoSuchObject(person.dn.clone());
        Ok(entries.into_iter().next().ok_or_else(gone)?)
    }

    /// Where the domain with this DNS name is read.
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

/// What `slot` holds, or what `read` gives where that is too old.
async fn remembered<T: Clone>(
    slot: &Slot<T>,
    good_for: Duration,
    read: impl Future<Output = Result<T, DirectoryError>>,
    deadline: Instant,
) -> Result<T, DirectoryError> {
    // Held over the searches, so that one asks and the others wait for the answer.
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
