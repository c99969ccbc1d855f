//! The forest: its domains and its UPN suffixes, as every domain controller knows them.
//!
//! Only users that the host's own domain does not find depend on it. It is read when it is first needed and
//! then once an hour. If it cannot be read, the previous data stays valid.

use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::configuration::{naming_context, search_below};
use super::entry::{Entry, EntryError};
use super::machine::MachineError;
use crate::directory::machine::Machine;
use crate::dn::{Dn, Place};
use crate::name::{Known, fold, is_domain};

/// Maximum number of domains of a forest.
pub(super) const DOMAINS: usize = 200;

/// Time after which the forest is read again.
const FRESH: Duration = Duration::from_secs(3600);
/// Minimum time after a failure until the next attempt, if an older answer is known.
const RETRY: Duration = Duration::from_secs(30);
/// Maximum time that a login waits for a refresh, if an older answer is known.
const PATIENCE: Duration = Duration::from_secs(1);

/// The objects below `CN=Partitions`: the container with the suffixes (MS-ADTS 6.1.1.2.1), and a crossRef for
/// each domain. Other partitions lack FLAG_CR_NTDS_DOMAIN, 0x2, and one that is not enabled is only intended
/// (MS-ADTS 3.1.1.5.2.7).
const FILTER: &str = "(|(objectClass=crossRefContainer)\
    (&(objectClass=crossRef)(systemFlags:1.2.840.113556.1.4.803:=2)(!(enabled=FALSE))))";

/// One domain of the forest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// `dnsRoot`: its DNS name, in lower case.
    pub name: String,
    /// `nETBIOSName`.
    pub netbios: String,
    /// `nCName`: the distinguished name that its objects are below.
    pub dn: String,
}

/// The content of the partitions container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forest {
    domains: Vec<Domain>,
    known: Known,
}

impl Forest {
    /// Reads the forest through `machine`.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if a domain is malformed.
    pub async fn read<M: Machine>(machine: &M, deadline: Instant) -> Result<Self, MachineError> {
        let configuration = naming_context(machine, deadline).await?;
        let search = search_below(
            format!("CN=Partitions,{configuration}"),
            Scope::Subtree,
            FILTER,
            &["uPNSuffixes", "dnsRoot", "nETBIOSName", "nCName"],
            // One more for the container.
            DOMAINS + 1,
        );
        Ok(Forest::of(&machine.search(&search, deadline).await?)?)
    }

    pub(crate) fn of(entries: &[Entry]) -> Result<Self, EntryError> {
        let mut forest = Forest::default();
        for entry in entries {
            let suffixes = entry.texts("uPNSuffixes")?.into_iter().filter(|suffix| is_domain(suffix));
            forest.known.suffixes.extend(suffixes.map(fold));
            // The container has neither attribute.
            let names = (entry.text("nCName")?, entry.texts("dnsRoot")?.first().copied());
            let (Some(dn), Some(name)) = names else { continue };
            let netbios = entry.text("nETBIOSName")?.unwrap_or_default();
            forest.domains.push(Domain { name: fold(name), netbios: netbios.to_owned(), dn: dn.to_owned() });
        }
        let short = forest.domains.iter().filter(|domain| !domain.netbios.is_empty());
        forest.known.netbios = short.map(|domain| (domain.netbios.clone(), domain.name.clone())).collect();
        Ok(forest)
    }

    /// Every domain.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Returns what the forest adds to the rules for names.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The domain with this DNS name.
    pub fn by_name(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name == fold(name))
    }

    /// The domain with this NetBIOS name.
    pub fn by_netbios(&self, netbios: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| !netbios.is_empty() && fold(&domain.netbios) == fold(netbios))
    }

    /// Returns the domain that holds the object `dn`: the innermost, because a child domain's name lies
    /// inside its parent's.
    pub fn of_object(&self, dn: &str) -> Option<&Domain> {
        let holding = self.domains.iter().filter(|domain| is_inside(dn, &domain.dn));
        holding.max_by_key(|domain| domain.dn.len())
    }

    /// Returns true if there are domains other than `own`.
    pub(super) fn has_further(&self, own: &str) -> bool {
        self.domains.iter().any(|domain| domain.name != fold(own))
    }
}

/// Returns true if `dn` is `root` or below it; false if one of them is malformed.
pub(super) fn is_inside(dn: &str, root: &str) -> bool {
    match (Dn::parse(dn), Dn::parse(root)) {
        (Ok(dn), Ok(root)) => dn.place(&root) != Place::Outside,
        _ => false,
    }
}

/// The forest as it was last read.
#[derive(Default)]
pub(super) struct Remembered {
    last: Mutex<Option<Arc<Forest>>>,
    /// Time of the next reading. Locked during a reading, so that one caller reads and the others wait for
    /// the answer.
    next: tokio::sync::Mutex<Option<Instant>>,
}

impl Remembered {
    /// Returns the forest as last read, without waiting.
    pub(super) fn last(&self) -> Option<Arc<Forest>> {
        self.last.lock().clone()
    }

    /// Returns the forest, which is read again if it is too old.
    pub(super) async fn get<M: Machine>(
        &self,
        machine: &M,
        deadline: Instant,
    ) -> Result<Arc<Forest>, MachineError> {
        let waited = timeout_at(deadline, self.next.lock()).await;
        let mut next = waited.map_err(|_| MachineError::Timeout("the domains of the forest".to_owned()))?;
        let (last, now) = (self.last(), Instant::now());
        let bound = match &last {
            Some(last) if next.is_some_and(|next| now < next) => return Ok(last.clone()),
            Some(_) => deadline.min(now + PATIENCE),
            None => deadline,
        };
        match (Forest::read(machine, bound).await, last) {
            (Ok(forest), _) => {
                let forest = Arc::new(forest);
                *self.last.lock() = Some(forest.clone());
                *next = Some(now + FRESH);
                Ok(forest)
            }
            (Err(_), Some(last)) => {
                *next = Some(now + RETRY);
                Ok(last)
            }
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{self, Scripted, unreachable};
    use super::*;

    fn cross_ref(name: &str, netbios: &str, dn: &str) -> Entry {
        Entry::new(format!("CN={netbios},CN=Partitions"))
            .with("dnsRoot", [name])
            .with("nETBIOSName", [netbios])
            .with("nCName", [dn])
    }

    fn read() -> Forest {
        let [_, (_, partitions)] = scripted::forest();
        Forest::of(&partitions.unwrap()).unwrap()
    }

    #[test]
    fn the_partitions_container_names_domains_and_suffixes() {
        let forest = read();
        assert_eq!(forest.known().suffixes, ["brand.example"]);
        assert_eq!(forest.by_netbios("emea").unwrap().name, "emea.acme.com");
        assert_eq!(forest.by_name("Emea.acme.COM").unwrap().netbios, "EMEA");
        assert_eq!(forest.by_netbios(""), None);
        assert!(forest.has_further("acme.com"));
        let alone = Forest::of(&[cross_ref("acme.com", "ACME", "DC=acme,DC=com")]).unwrap();
        assert!(!alone.has_further("ACME.com"));
        assert!(Forest::of(&[Entry::new("CN=x").with("nCName", ["a", "b"])]).is_err());
    }

    #[test]
    fn an_object_is_in_the_innermost_domain_that_holds_it() {
        let forest = read();
        let cases = [
            ("CN=John,CN=Users,DC=acme,DC=com", Some("acme.com")),
            ("CN=Mary,cn=users,dc=EMEA,dc=acme,dc=com", Some("emea.acme.com")),
            ("DC=emea,DC=acme,DC=com", Some("emea.acme.com")),
            // One component with a comma in its value, and one that ends with a backslash.
            ("CN=x\\,DC=emea,DC=acme,DC=com", Some("acme.com")),
            ("CN=x\\\\,DC=emea,DC=acme,DC=com", Some("emea.acme.com")),
            ("CN=x,DC=notacme,DC=com", None),
            ("CN=x,DC=xDC=acme,DC=com", None),
            ("CN=x", None),
        ];
        for (dn, domain) in cases {
            assert_eq!(forest.of_object(dn).map(|domain| domain.name.as_str()), domain, "{dn}");
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_last_stays_good_while_ad_does_not_answer() {
        let remembered = Remembered::default();
        let failing = || Scripted::new([("own  ", Err(unreachable()))]);
        assert_eq!(remembered.get(&failing(), soon()).await, Err(unreachable()));
        assert_eq!(remembered.last(), None);

        let known = remembered.get(&Scripted::new(scripted::forest()), soon()).await.unwrap();
        // AD is not queried within the hour.
        assert_eq!(remembered.get(&Scripted::default(), soon()).await, Ok(known.clone()));
        tokio::time::advance(FRESH).await;
        let machine = failing();
        assert_eq!(remembered.get(&machine, soon()).await, Ok(known.clone()));
        machine.is_finished();
        assert_eq!(remembered.get(&Scripted::default(), soon()).await, Ok(known.clone()));
        tokio::time::advance(RETRY).await;
        let machine = Scripted::new(scripted::forest());
        assert_eq!(remembered.get(&machine, soon()).await, Ok(known));
        machine.is_finished();
    }
}
