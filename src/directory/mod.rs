//! The directory: what AD knows, and how it is asked.
//!
//! Users' passwords are checked on pooled TLS connections ([`pool`]); everything that is read is read on the machine
//! account's own connection ([`machine`]), because a rejected bind leaves a connection with whatever rights the
//! server sees fit.

pub mod account;
mod bind;
pub mod entry;
pub mod groups;
pub mod machine;
pub mod pool;
pub mod refusal;
pub mod servers;
pub mod sid;
pub mod trust;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldap3::{Scope, ldap_escape};
use lru::LruCache;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::account::Account;
pub use self::entry::{Entry, EntryError};
pub use self::groups::{GroupError, GroupRules};
pub use self::machine::{MachineConnection, MachineError, Search};
use crate::config::Config;
use crate::name::{Principal, fold};

/// How long a principal's account is remembered. Its state never is.
const REMEMBERED: Duration = Duration::from_secs(300);
/// So many principals are remembered.
const PRINCIPALS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// How long the SIDs of the configured groups are good.
const GROUPS: Duration = Duration::from_secs(600);

/// `userAccountControl` of accounts that are no people: interdomain, workstation and server trusts
/// (MS-ADTS 2.2.16).
const TRUSTS: u32 = 0x800 | 0x1000 | 0x2000;

/// More accounts than this under one name are as ambiguous as two.
const CANDIDATES: usize = 8;

/// Who reads the directory as the machine account.
pub trait Machine: Send + Sync {
    /// Runs one search; see [`MachineConnection::search`].
    fn search(
        &self,
        search: &Search,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Entry>, MachineError>> + Send;
}

impl Machine for MachineConnection {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        MachineConnection::search(self, search, deadline).await
    }
}

/// One account, by the names that do not change while somebody logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Distinguished name, which the bind uses.
    pub dn: String,
    /// `objectGUID`, which survives renaming and moving.
    pub guid: Uuid,
    /// `sAMAccountName`.
    pub sam: String,
    /// Explicit `userPrincipalName`.
    pub upn: Option<String>,
}

/// What was found under a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The account that the principal means.
    pub person: Person,
    /// Whether it was remembered rather than asked for.
    pub remembered: bool,
    /// Another account whose implicit name is the same and which an explicit one hides.
    pub hides: Option<String>,
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
    /// A configured group has no SID.
    #[error("login.allow_groups or login.deny_groups: {0}")]
    Group(#[from] GroupError),
    /// AD was not reached.
    #[error("{0}")]
    Machine(#[from] MachineError),
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
    allow: Vec<String>,
    deny: Vec<String>,
    people: Mutex<LruCache<Principal, (Person, Instant)>>,
    rules: tokio::sync::Mutex<Option<(GroupRules, Instant)>>,
}

impl<M: Machine> Directory<M> {
    /// The directory of `config`'s domain, read through `machine`.
    pub fn new(machine: M, config: &Config) -> Self {
        Directory {
            machine,
            domain: config.domain.name.clone(),
            netbios: config.names.netbios.clone(),
            base: config.domain.base_dn.clone(),
            allow: config.login.allow_groups.clone(),
            deny: config.login.deny_groups.clone(),
            people: Mutex::new(LruCache::new(PRINCIPALS)),
            rules: tokio::sync::Mutex::default(),
        }
    }

    /// The connection that the directory is read through.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Whether a login depends on groups.
    pub fn has_group_rules(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }

    /// The account that `principal` means: the one whose explicit `userPrincipalName` it is, else the one whose
    /// `sAMAccountName` it is in this domain, as AD itself resolves it (MS-ADTS 5.1.1.1.1).
    ///
    /// # Errors
    /// There is none or more than one, or AD was not reached until `deadline`.
    pub async fn find(&self, principal: &Principal, deadline: Instant) -> Result<Found, DirectoryError> {
        if let Some((person, until)) = self.people().get(principal)
            && *until > Instant::now()
        {
            return Ok(Found { person: person.clone(), remembered: true, hides: None });
        }
        self.find_afresh(principal, deadline).await
    }

    /// The same, but never from memory.
    ///
    /// # Errors
    /// As [`Directory::find`].
    pub async fn find_afresh(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Found, DirectoryError> {
        let in_this_domain = principal.domain() == fold(&self.domain);
        let implicit = match in_this_domain {
            true => format!("(sAMAccountName={})", ldap_escape(principal.user())),
            false => String::new(),
        };
        let explicit = ldap_escape(principal.to_string()).into_owned();
        let search = Search {
            base: self.base.clone(),
            scope: Scope::Subtree,
            filter: format!(
                "(&(objectCategory=person)(objectClass=user)(|(userPrincipalName={explicit}){implicit}))"
            ),
            attributes: ["objectGUID", "sAMAccountName", "userPrincipalName", "userAccountControl"]
                .map(str::to_owned)
                .to_vec(),
            limit: CANDIDATES,
        };
        let entries = match self.machine.search(&search, deadline).await {
            Err(MachineError::TooMany(limit)) => {
                let dns = format!("more than {limit}");
                return Err(DirectoryError::Ambiguous { principal: principal.clone(), dns });
            }
            other => other?,
        };
        let found = choose(principal, in_this_domain, people_of(&entries)?);
        match &found {
            Ok(found) => {
                let until = Instant::now() + REMEMBERED;
                self.people().put(principal.clone(), (found.person.clone(), until));
            }
            Err(_) => {
                self.people().pop(principal);
            }
        }
        found
    }

    /// Whether an object has the distinguished name `dn` now.
    ///
    /// # Errors
    /// AD was not reached until `deadline`.
    pub async fn exists(&self, dn: &str, deadline: Instant) -> Result<bool, DirectoryError> {
        match self.machine.search(&base_search(dn.to_owned(), vec!["objectGUID".to_owned()]), deadline).await
        {
            Ok(entries) => Ok(!entries.is_empty()),
            Err(MachineError::NoSuchObject(_)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The state of `person` as it is now.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, or the machine account may not read the state.
    pub async fn account(&self, person: &Person, deadline: Instant) -> Result<Account, DirectoryError> {
        let mut attributes = Account::ATTRIBUTES.map(str::to_owned).to_vec();
        if self.has_group_rules() {
            attributes.push(Account::GROUPS.to_owned());
        }
        let entry = self.read(person, attributes, deadline).await?;
        Ok(Account::from_entry(&entry)?)
    }

    /// Every group of `person`, nested ones too.
    ///
    /// # Errors
    /// As [`Directory::account`].
    pub async fn groups(&self, person: &Person, deadline: Instant) -> Result<Vec<sid::Sid>, DirectoryError> {
        let entry = self.read(person, vec![Account::GROUPS.to_owned()], deadline).await?;
        Ok(account::groups_of(&entry)?)
    }

    /// The configured groups by SID.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, or one of them does not exist.
    pub async fn group_rules(&self, deadline: Instant) -> Result<GroupRules, DirectoryError> {
        // Held over the searches, so that one asks and the others wait for the answer.
        let waited = tokio::time::timeout_at(deadline, self.rules.lock()).await;
        let mut rules = waited.map_err(|_| MachineError::Timeout("the configured groups".to_owned()))?;
        if let Some((rules, until)) = rules.as_ref()
            && *until > Instant::now()
        {
            return Ok(rules.clone());
        }
        let fresh = GroupRules {
            allow: self.sids(&self.allow, deadline).await?,
            deny: self.sids(&self.deny, deadline).await?,
        };
        *rules = Some((fresh.clone(), Instant::now() + GROUPS));
        Ok(fresh)
    }

    async fn read(
        &self,
        person: &Person,
        attributes: Vec<String>,
        deadline: Instant,
    ) -> Result<Entry, DirectoryError> {
        // By its GUID the account is found wherever it was moved (MS-ADTS 3.1.1.3.1.2.4).
        let base = format!("<GUID={}>", person.guid);
        let entries = self.machine.search(&base_search(base, attributes), deadline).await?;
        let gone = || MachineError::NoSuchObject(person.dn.clone());
        Ok(entries.into_iter().next().ok_or_else(gone)?)
    }

    fn people(&self) -> MutexGuard<'_, LruCache<Principal, (Person, Instant)>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn base_search(base: String, attributes: Vec<String>) -> Search {
    Search { base, scope: Scope::Base, filter: "(objectClass=*)".to_owned(), attributes, limit: 1 }
}

fn people_of(entries: &[Entry]) -> Result<Vec<Person>, EntryError> {
    let is_person = |entry: &&Entry| {
        entry.flags("userAccountControl").is_ok_and(|flags| flags.is_none_or(|flags| flags & TRUSTS == 0))
    };
    entries.iter().filter(is_person).map(person_of).collect()
}

fn person_of(entry: &Entry) -> Result<Person, EntryError> {
    let missing = |attribute: &str, expected| EntryError::Value {
        attribute: attribute.to_owned(),
        dn: entry.dn().to_owned(),
        expected,
    };
    let guid = entry.bytes("objectGUID")?.and_then(|bytes| bytes.try_into().ok()).map(Uuid::from_bytes_le);
    let sam = entry.text("sAMAccountName")?;
    Ok(Person {
        dn: entry.dn().to_owned(),
        guid: guid.ok_or_else(|| missing("objectGUID", "16 bytes"))?,
        sam: sam.ok_or_else(|| missing("sAMAccountName", "readable for the machine account"))?.to_owned(),
        upn: entry.text("userPrincipalName")?.map(str::to_owned),
    })
}

/// The one of `people` that bears the name. AD compares more loosely than people read (accents, spaces), so each
/// must bear it by our own comparison as well.
fn choose(principal: &Principal, in_this_domain: bool, people: Vec<Person>) -> Result<Found, DirectoryError> {
    let name = principal.to_string();
    let is_explicit = |person: &Person| person.upn.as_deref().is_some_and(|upn| fold(upn) == name);
    let (mut explicit, others): (Vec<_>, Vec<_>) = people.into_iter().partition(is_explicit);
    let is_implicit = |person: &Person| in_this_domain && fold(&person.sam) == principal.user();
    let mut implicit: Vec<_> = others.into_iter().filter(is_implicit).collect();
    let hides = implicit.first().map(|person| person.dn.clone());
    let (chosen, hides) = match explicit.is_empty() {
        true => (&mut implicit, None),
        false => (&mut explicit, hides),
    };
    match (chosen.pop(), chosen.is_empty()) {
        (Some(person), true) => Ok(Found { person, remembered: false, hides }),
        (None, _) => Err(DirectoryError::Unknown(principal.clone())),
        (Some(last), false) => {
            chosen.push(last);
            let dns = chosen.iter().map(|person| person.dn.as_str()).collect::<Vec<_>>().join(" and ");
            Err(DirectoryError::Ambiguous { principal: principal.clone(), dns })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(text: &str) -> Principal {
        Principal::parse(text).unwrap()
    }

    fn person(sam: &str, upn: Option<&str>) -> Person {
        Person { dn: format!("CN={sam}"), guid: Uuid::nil(), sam: sam.into(), upn: upn.map(str::to_owned) }
    }

    #[test]
    fn an_explicit_name_hides_an_implicit_one() {
        let people =
            vec![person("clash", Some("clash.b@acme.com")), person("clash.a", Some("Clash@acme.com"))];
        let found = choose(&principal("clash@acme.com"), true, people).unwrap();
        assert_eq!((found.person.sam.as_str(), found.hides.as_deref()), ("clash.a", Some("CN=clash")));
    }

    #[test]
    fn the_implicit_name_counts_beside_an_explicit_one() {
        let people = vec![person("John.Doe", Some("jd@acme.com"))];
        assert_eq!(
            choose(&principal("john.doe@acme.com"), true, people.clone()).unwrap().person.sam,
            "John.Doe"
        );
        let error = choose(&principal("john.doe@sales.example"), false, people).unwrap_err();
        assert!(matches!(error, DirectoryError::Unknown(_)));
    }

    #[test]
    fn two_explicit_names_are_ambiguous() {
        let people = vec![person("a", Some("x@acme.com")), person("b", Some("X@acme.com"))];
        let error = choose(&principal("x@acme.com"), true, people).unwrap_err();
        assert!(error.to_string().contains("CN=a and CN=b"), "{error}");
    }

    #[test]
    fn a_loose_match_of_the_server_is_no_match() {
        let people = vec![person("jorg.muller", None), person("Mary  Ann", None)];
        for name in ["jörg.müller@acme.com", "mary ann@acme.com"] {
            let error = choose(&principal(name), true, people.clone()).unwrap_err();
            assert!(matches!(error, DirectoryError::Unknown(_)), "{name}");
        }
    }

    #[test]
    fn trust_accounts_are_no_people() {
        let entry = |flags: &str| {
            Entry::new("CN=x")
                .with("objectGUID", [vec![7; 16]])
                .with("sAMAccountName", ["x$"])
                .with("userAccountControl", [flags])
        };
        assert_eq!(people_of(&[entry("4096"), entry("512")]).unwrap().len(), 1);
        assert!(people_of(&[Entry::new("CN=y").with("userAccountControl", ["512"])]).is_err());
    }
}
