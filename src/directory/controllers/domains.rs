//! The domain controllers of the forest: a list for each domain in use, and one of the forest's global
//! catalogues.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::directory::controllers::discovery::{Controller, Role, Wanted};
use crate::directory::controllers::dns::Names;
use crate::directory::controllers::health::{Change, Service};
use crate::directory::controllers::roster::Roster;
use crate::directory::controllers::servers::{Observer, ServerList};
use crate::directory::machine::{MachineConnection, Place};
use crate::dn::Dn;
use crate::kerberos::{Kdc, Kdcs};
use crate::ldap;
use crate::name::fold;
use crate::net;
use crate::net::BoxFuture;

/// Maximum number of lists in addition to that of this host's domain. AD's own limit of domains is far above
/// what real forests have.
const DOMAINS: usize = 64;

/// The KDC's port (RFC 4120, 7.2.3).
pub(in crate::directory) const KERBEROS: u16 = 88;

/// Called on a change of a circuit, with the name of the domain.
pub type DomainObserver = Arc<dyn Fn(&str, &Change) + Send + Sync>;

/// Checks if a service of a domain controller works again; the error is a text for the administrator.
pub type DomainProbe =
    Arc<dyn Fn(&str, Role, Arc<Controller>, Service) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The lists of domain controllers, each created when it is first needed.
pub struct Domains {
    own: Arc<ServerList>,
    roster: Arc<Roster>,
    site: Option<String>,
    names: Arc<dyn Names>,
    observer: DomainObserver,
    probe: DomainProbe,
    others: Mutex<HashMap<(String, Role), Arc<ServerList>>>,
}

impl Domains {
    /// Creates the lists: `wanted` describes this host's domain, DNS finds the others, and `roster` bounds
    /// them all.
    pub fn new(
        wanted: Wanted,
        roster: Arc<Roster>,
        names: Arc<dyn Names>,
        observer: DomainObserver,
        probe: DomainProbe,
    ) -> Arc<Self> {
        let site = wanted.site.clone();
        let own = list(wanted, &roster, &names, &observer, &probe);
        Arc::new(Domains { own, roster, site, names, observer, probe, others: Mutex::default() })
    }

    /// The list of this host's domain.
    pub fn own(&self) -> &Arc<ServerList> {
        &self.own
    }

    /// The domain controllers that AD itself lists.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Returns the hosts that DNS names but AD does not list, each once.
    pub fn strangers(&self) -> BTreeSet<String> {
        self.all().iter().flat_map(|list| list.strangers()).collect()
    }

    /// Returns all lists created so far, that of this host's domain first.
    pub fn all(&self) -> Vec<Arc<ServerList>> {
        let others = self.others.lock();
        [&self.own].into_iter().chain(others.values()).cloned().collect()
    }

    /// Returns the list of `domain` for `role`. For global catalogues, `domain` is the name of the forest.
    pub fn of(&self, domain: &str, role: Role) -> Arc<ServerList> {
        let domain = fold(domain);
        if role == Role::Domain && domain == fold(self.own.domain()) {
            return self.own.clone();
        }
        let mut others = self.others.lock();
        let key = (domain, role);
        if let Some(list) = others.get(&key) {
            return list.clone();
        }
        let site = self.site.clone();
        let wanted = Wanted { domain: key.0.clone(), role, site, ..Wanted::default() };
        let list = list(wanted, &self.roster, &self.names, &self.observer, &self.probe);
        // Beyond the bound, each caller gets a separate list.
        if others.len() < DOMAINS {
            others.insert(key, list.clone());
        }
        list
    }

    /// Returns the list for `place`. `own` knows the forest's name once it is connected.
    pub fn at(&self, place: &Place, own: &MachineConnection) -> Arc<ServerList> {
        match place {
            Place::Own => self.own.clone(),
            Place::Domain(domain) => self.of(domain, Role::Domain),
            Place::GlobalCatalogue => {
                let root = own.known_root().map(|root| dns_name(&root.root_domain_naming_context));
                self.of(root.as_deref().unwrap_or(self.own.domain()), Role::GlobalCatalogue)
            }
        }
    }

    /// Returns the list of the domain that the domain controller `host` belongs to.
    fn list_with(&self, host: &str) -> Option<Arc<ServerList>> {
        if self.own.knows(host) {
            return Some(self.own.clone());
        }
        let others = self.others.lock();
        let of_domain = others.iter().filter(|((_, role), _)| *role == Role::Domain);
        of_domain.map(|(_, list)| list).find(|list| list.knows(host)).cloned()
    }
}

/// Creates a list that keeps itself fresh.
fn list(
    wanted: Wanted,
    roster: &Arc<Roster>,
    names: &Arc<dyn Names>,
    observer: &DomainObserver,
    probe: &DomainProbe,
) -> Arc<ServerList> {
    let (domain, role) = (wanted.domain.clone(), wanted.role);
    let (observer, observed) = (observer.clone(), domain.clone());
    let observer: Observer = Box::new(move |change| observer(&observed, change));
    let list = ServerList::new(wanted, names.clone(), roster.clone(), observer);
    let probe = probe.clone();
    list.keep(Arc::new(move |controller, service| probe(&domain, role, controller, service)));
    list
}

/// Returns the DNS name of the domain with the distinguished name `dn` (RFC 2247).
pub fn dns_name(dn: &str) -> String {
    Dn::parse(dn).map(|dn| dn.domain()).unwrap_or_default()
}

impl Controller {
    /// Returns this domain controller as a KDC.
    pub fn kdc(&self) -> Kdc {
        let addresses = self.addresses.iter().map(|ip| SocketAddr::new(*ip, KERBEROS)).collect();
        Kdc { host: self.host.clone(), addresses }
    }
}

/// Returns the KDCs of those `controllers` that have an address.
fn kdcs(controllers: &[Arc<Controller>]) -> Vec<Kdc> {
    controllers.iter().map(|controller| controller.kdc()).filter(|kdc| !kdc.addresses.is_empty()).collect()
}

// AD's realms are its domain names in capitals (MS-KILE 3.1.5.7).
impl Kdcs for Domains {
    fn candidates<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        Box::pin(async move { Ok(kdcs(&self.of(realm, Role::Domain).controllers(Service::Kdc).await?)) })
    }

    fn for_machine<'a>(&'a self, realm: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        Box::pin(async move { Ok(kdcs(&self.of(realm, Role::Domain).named(Service::Kdc).await?)) })
    }

    fn answered(&self, host: &str) {
        if let Some(list) = self.list_with(host) {
            list.answered(host, Service::Kdc);
        }
    }

    fn failed(&self, host: &str, cause: &str) {
        if let Some(list) = self.list_with(host) {
            list.failed(host, Service::Kdc, cause);
        }
    }

    fn silent(&self, host: &str, cause: &str) {
        if let Some(list) = self.list_with(host) {
            list.doubted(host, Service::Kdc, cause);
        }
    }

    fn is_down(&self, host: &str) -> bool {
        self.list_with(host).is_some_and(|list| list.is_down(host, Service::Kdc))
    }

    fn hurry(&self, host: &str) {
        if let Some(list) = self.list_with(host) {
            list.hurry(Service::Kdc);
        }
    }

    fn answered_since(&self, host: &str, since: Instant) -> bool {
        self.list_with(host).is_some_and(|list| list.answered_since(host, Service::Kdc, since))
    }
}

/// Checks that the LDAP service of `controller` answers; neither TLS nor Kerberos is used.
///
/// # Errors
/// Returns a text for the administrator if no address answers.
pub async fn probe_ldap(controller: &Controller, role: Role, deadline: Instant) -> Result<(), String> {
    let mut addresses: Vec<_> =
        controller.addresses.iter().map(|ip| SocketAddr::new(*ip, role.port())).collect();
    let mut causes = Vec::new();
    while !addresses.is_empty() {
        let (mut tcp, address) = match net::connect(&addresses, deadline).await {
            Ok(found) => found,
            Err(failed) => {
                causes.push(failed.to_string());
                break;
            }
        };
        addresses.retain(|other| *other != address);
        let ask = async {
            let request = ldap::root_search(1, "(objectClass=*)", &["dnsHostName"]);
            let request = request.map_err(|e| e.to_string())?;
            ldap::search_one(&mut tcp, 1, request).await.map_err(|e| e.to_string())
        };
        match timeout_at(deadline, ask).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(cause)) => causes.push(format!("{address}: {cause}")),
            Err(_) => causes.push(format!("{address}: no answer in time")),
        }
    }
    Err(causes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::controllers::discovery::tests::{names, zone};

    #[tokio::test(start_paused = true)]
    async fn a_users_proof_goes_to_listed_kdcs_only_and_the_machines_to_them_first() {
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let roster = Roster::fixed([("b", false)].into_iter().collect());
        let probe: DomainProbe = Arc::new(|_, _, _, _| Box::pin(async { Ok(()) }));
        let domains = Domains::new(wanted, roster, names(zone()), Arc::new(|_, _| {}), probe);
        let hosts = |kdcs: Result<Vec<Kdc>, String>| -> Vec<String> {
            kdcs.unwrap().into_iter().map(|kdc| kdc.host).collect()
        };
        assert_eq!(hosts(domains.candidates("ACME.COM").await), ["b"]);
        let own = hosts(domains.for_machine("ACME.COM").await);
        assert_eq!((own.len(), own[0].as_str()), (3, "b"));
        assert_eq!(domains.strangers().len(), 2);
        // AD lists the host, but not as a global catalogue.
        let catalogues = domains.of("acme.com", Role::GlobalCatalogue);
        assert!(catalogues.controllers(Service::Reading).await.is_err());
    }
}
