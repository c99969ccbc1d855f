//! The accounts and groups of AD, read as the machine account.

pub mod account;
mod clashes;
pub mod find;
pub mod groups;
pub mod lockout;
mod lookups;
pub mod many;
pub mod near;
pub mod person;
pub mod standing;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::account::Account;
use self::groups::{GroupError, GroupRules};
use self::person::Person;
use super::entry::{Entry, EntryError};
use super::forest::{self, Forest};
use super::machine::{Machine, MachineError, Place, Search, base_search};
use super::sid::Sid;
use crate::config::{Base, Config, root_of};
use crate::name::{Principal, fold};

/// Maximum number of remembered principals.
const PRINCIPALS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// Time for which the SIDs of the configured groups are cached.
pub(in crate::directory) const GROUPS: Duration = Duration::from_secs(600);

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

impl DirectoryError {
    /// Returns true if the deadline passed before an answer: with more time there might be one.
    pub fn is_late(&self) -> bool {
        matches!(self, DirectoryError::Machine(error) if error.is_late())
    }
}

/// A name without a domain that is the explicit name of one account and the implicit name of another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is the userPrincipalName of {explicit} and the sAMAccountName of {implicit}; a line in names.map \
     decides: \"{name} = {principal}\" for the first, \"{name} = {account}\" for the second",
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
    pub(in crate::directory) machine: M,
    pub(in crate::directory) domain: String,
    pub(in crate::directory) netbios: String,
    pub(in crate::directory) base: String,
    /// Distinguished name of the domain itself.
    pub(in crate::directory) root: String,
    /// True if users are searched for in the whole domain.
    pub(in crate::directory) is_whole: bool,
    pub(in crate::directory) allow: Vec<String>,
    pub(in crate::directory) deny: Vec<String>,
    pub(in crate::directory) exempt: Vec<String>,
    pub(in crate::directory) people: Mutex<LruCache<Principal, (Person, Instant)>>,
    pub(in crate::directory) lookups: lookups::Lookups,
    pub(in crate::directory) forest: forest::Remembered,
    pub(in crate::directory) rules: Slot<groups::Configured>,
    pub(in crate::directory) nested: Slot<Option<many::Inside>>,
    pub(in crate::directory) exempt_groups: Slot<Vec<groups::Group>>,
}

/// A cached value with its expiry. One caller reads it; the others wait.
pub(in crate::directory) type Slot<T> = tokio::sync::Mutex<Option<(T, Instant)>>;

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
            lookups: lookups::Lookups::default(),
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
    /// Returns an error if AD does not answer before `deadline`, or if one of the groups does not exist. Also
    /// if the domain of `person` does not show membership in a denied group.
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
    pub async fn groups(&self, person: &Person, deadline: Instant) -> Result<Vec<Sid>, DirectoryError> {
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
    pub(in crate::directory) fn place(&self, domain: &str) -> Place {
        match self.is_own(domain) {
            true => Place::Own,
            false => Place::Domain(fold(domain)),
        }
    }

    pub(in crate::directory) fn is_own(&self, domain: &str) -> bool {
        fold(domain) == fold(&self.domain)
    }

    pub(in crate::directory) fn own_domain(&self) -> String {
        fold(&self.domain)
    }
}

/// Returns the value in `slot`, or calls `read` if that is too old.
pub(in crate::directory) async fn remembered<T: Clone>(
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
