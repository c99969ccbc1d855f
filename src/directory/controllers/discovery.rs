//! Discovery of domain controllers, and the order in which they are contacted.
//!
//! The configuration names them, otherwise DNS SRV (MS-ADTS 6.3.6); those of this host's site come first. The
//! site is configured, or a domain controller reports it in a netlogon ping.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config;
use crate::directory::controllers::dns::{Names, Srv, Timed};
use crate::ldap::LDAP;

/// Placeholder in `ad_server` of sssd.conf(5) for the domain controllers that DNS knows.
pub const BY_DNS: &str = "_srv_";

/// Maximum number of domain controllers in a list; no login tries more.
const CONTROLLERS: usize = 32;
/// Maximum number of addresses of one host, former ones included.
const ADDRESSES: usize = 8;
/// Number of domain controllers that are pinged at once for this host's site.
const PINGS: usize = 3;
/// Maximum time for which a list is used before DNS is queried again.
const FRESH: Duration = Duration::from_secs(3600);
/// Minimum of that time, whatever the TTL.
const BUSY: Duration = Duration::from_secs(30);

/// The purpose of a list of domain controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// One domain.
    #[default]
    Domain,
    /// The whole forest, in part (MS-ADTS 3.1.1.1.14).
    GlobalCatalogue,
}

impl Role {
    /// The port of its LDAP service (MS-ADTS 3.1.1.3.1.10 and 5.1.1).
    pub fn port(self) -> u16 {
        match self {
            Role::Domain => LDAP,
            Role::GlobalCatalogue => 3268,
        }
    }

    /// Returns the name of the SRV records that only domain controllers register (MS-ADTS 6.3.2.3).
    pub fn srv(self, domain: &str, site: Option<&str>) -> String {
        let role = match self {
            Role::Domain => "dc",
            Role::GlobalCatalogue => "gc",
        };
        match site {
            Some(site) => format!("_ldap._tcp.{site}._sites.{role}._msdcs.{domain}"),
            None => format!("_ldap._tcp.{role}._msdcs.{domain}"),
        }
    }

    /// Returns the name of the SRV records for LDAP clients of every kind, which exist even if no DNS server
    /// serves the zone `_msdcs`.
    pub fn plain_srv(self, domain: &str, site: Option<&str>) -> String {
        let service = match self {
            Role::Domain => "_ldap._tcp",
            Role::GlobalCatalogue => "_gc._tcp",
        };
        match site {
            Some(site) => format!("{service}.{site}._sites.{domain}"),
            None => format!("{service}.{domain}"),
        }
    }
}

/// The domain controllers to discover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// DNS name of the domain; of the forest for the global catalogue.
    pub domain: String,
    /// Purpose of the list.
    pub role: Role,
    /// Names, in order; [`BY_DNS`] stands for those that DNS knows. If empty, DNS decides.
    pub servers: Vec<String>,
    /// The same, for use when none of the others works.
    pub backup: Vec<String>,
    /// This host's site, if it is configured.
    pub site: Option<String>,
}

impl Wanted {
    /// Returns true if `host` may be one of them: DNS decides, or the administrator names it.
    pub(in crate::directory) fn may_name(&self, host: &str) -> bool {
        let mut named = self.servers.iter().chain(&self.backup);
        self.is_by_dns() || named.any(|name| name == BY_DNS || name.to_lowercase() == host)
    }

    fn is_by_dns(&self) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|server| server == BY_DNS)
    }
}

impl From<&config::Domain> for Wanted {
    /// Takes the settings for this host's domain.
    fn from(domain: &config::Domain) -> Self {
        Wanted {
            domain: domain.name.clone(),
            role: Role::Domain,
            servers: domain.servers.clone(),
            backup: domain.backup.clone(),
            site: domain.site.clone(),
        }
    }
}

/// A domain controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// DNS name.
    pub host: String,
    /// Its addresses; empty if DNS knows none at the moment.
    pub addresses: Vec<IpAddr>,
    /// True if DNS lists it for this host's site.
    pub in_site: bool,
}

/// The domain controllers to contact, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The domain controllers; never empty.
    pub controllers: Vec<Arc<Controller>>,
    /// This host's site, if known.
    pub site: Option<String>,
    /// Time of the next DNS query.
    pub until: Instant,
}

/// Finds the domain controllers that are `wanted`. `below` returns a random number from 0 to below its
/// argument.
///
/// # Errors
/// Returns the cause if neither DNS nor the configuration names any, or if none of them has an address.
pub async fn discover(
    names: &Arc<dyn Names>,
    wanted: &Wanted,
    below: fn(u32) -> u32,
) -> Result<List, String> {
    let now = Instant::now();
    let mut until = now + FRESH;
    let mut site = wanted.site.clone();
    let by_dns = match wanted.is_by_dns() {
        true => {
            let (found, found_site) = by_dns(names, wanted, below, &mut until).await?;
            site = found_site;
            found
        }
        false => Vec::new(),
    };
    let configured = |servers: &[String]| -> Vec<(String, bool)> {
        let place = |server: &String| match server == BY_DNS {
            true => by_dns.clone(),
            false => vec![(server.to_lowercase(), false)],
        };
        servers.iter().flat_map(place).collect()
    };
    let mut hosts = match wanted.servers.is_empty() {
        true => by_dns.clone(),
        false => configured(&wanted.servers),
    };
    hosts.extend(configured(&wanted.backup));
    let mut controllers = resolve(names, unique(hosts), &mut until).await?;
    reach(names, &mut controllers, wanted.role.port()).await;
    let controllers = controllers.into_iter().map(Arc::new).collect();
    Ok(List { controllers, site, until: until.max(now + BUSY) })
}

impl List {
    /// Keeps from `last` what has no better replacement. The former addresses of a host stay unless one of
    /// the new ones is the first to accept a connection. If DNS names no `admitted` domain controller, the
    /// former ones stay.
    pub async fn keeping(
        mut self,
        last: &List,
        names: &Arc<dyn Names>,
        port: u16,
        admitted: impl Fn(&str) -> bool,
    ) -> List {
        for controller in &mut self.controllers {
            let known = last.controllers.iter().find(|known| known.host == controller.host);
            let former = |ip: &&IpAddr| !controller.addresses.contains(ip);
            let former: Vec<_> =
                known.iter().flat_map(|known| &known.addresses).filter(former).copied().collect();
            if former.is_empty() {
                continue;
            }
            let mut addresses = [controller.addresses.as_slice(), &former].concat();
            let places = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            // Stable: the others keep their order.
            match names.reached(places).await {
                Some(first) if controller.addresses.contains(&first) => continue,
                Some(first) => addresses.sort_by_key(|ip| *ip != first),
                None => {}
            }
            addresses.truncate(ADDRESSES);
            *controller = Arc::new(Controller { addresses, ..Controller::clone(controller) });
        }
        if !self.controllers.iter().any(|controller| admitted(&controller.host)) {
            let kept = last.controllers.iter().filter(|controller| admitted(&controller.host));
            self.controllers.extend(kept.cloned());
        }
        self
    }
}

/// Returns the hosts that DNS names, in order, each with whether it is in the site, and the site.
async fn by_dns(
    names: &Arc<dyn Names>,
    wanted: &Wanted,
    below: fn(u32) -> u32,
    until: &mut Instant,
) -> Result<(Vec<(String, bool)>, Option<String>), String> {
    let (records, good) = srv_of(names, wanted, None).await?;
    *until = good.min(*until);
    let all = order(records, below);
    let site = match &wanted.site {
        Some(site) => Some(site.clone()),
        None => our_site(names, &wanted.domain, &all).await,
    };
    let mut hosts = Vec::new();
    if let Some(site) = &site
        // A site without domain controllers has no such records.
        && let Ok((records, good)) = srv_of(names, wanted, Some(site)).await
    {
        *until = good.min(*until);
        hosts.extend(order(records, below).into_iter().map(|host| (host, true)));
    }
    hosts.extend(all.into_iter().map(|host| (host, false)));
    Ok((hosts, site))
}

/// Returns the SRV records of `site`. The hosts prove themselves later, so the plain records suffice.
async fn srv_of(
    names: &Arc<dyn Names>,
    wanted: &Wanted,
    site: Option<&str>,
) -> Result<Timed<Vec<Srv>>, String> {
    let (name, plain) = (wanted.role.srv(&wanted.domain, site), wanted.role.plain_srv(&wanted.domain, site));
    names.srv_or(&name, &plain).await
}

/// Returns the site of this host, from the first of `hosts` that answers.
async fn our_site(names: &Arc<dyn Names>, domain: &str, hosts: &[String]) -> Option<String> {
    let mut addresses = Vec::new();
    for (_, answer) in addresses_of(names, hosts.iter().take(PINGS).cloned().collect()).await {
        addresses.extend(answer.map(|(addresses, _)| addresses).unwrap_or_default());
    }
    names.site(domain, addresses).await.filter(|site| !site.is_empty())
}

async fn resolve(
    names: &Arc<dyn Names>,
    hosts: Vec<(String, bool)>,
    until: &mut Instant,
) -> Result<Vec<Controller>, String> {
    let mut answers = addresses_of(names, hosts.iter().map(|(host, _)| host.clone()).collect()).await;
    let mut causes = Vec::new();
    let mut controllers = Vec::new();
    for (host, in_site) in hosts {
        let at = answers.iter().position(|(answered, _)| *answered == host);
        let addresses = match at.map(|at| answers.swap_remove(at).1) {
            Some(Ok((addresses, good))) => {
                *until = good.min(*until);
                addresses
            }
            Some(Err(cause)) => {
                causes.push(cause);
                Vec::new()
            }
            None => Vec::new(),
        };
        controllers.push(Controller { host, addresses, in_site });
    }
    match controllers.iter().all(|controller| controller.addresses.is_empty()) {
        true => Err(causes.join("; ")),
        false => Ok(controllers),
    }
}

/// Moves the address that answers to the front if a host has several, so that a dead address before it delays
/// no login. All hosts are tried at once.
async fn reach(names: &Arc<dyn Names>, controllers: &mut [Controller], port: u16) {
    let mut trying = JoinSet::new();
    for (at, controller) in controllers.iter().enumerate() {
        if controller.addresses.len() > 1 {
            let addresses = controller.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            let names = Arc::clone(names);
            trying.spawn(async move { (at, names.reached(addresses).await) });
        }
    }
    while let Some(tried) = trying.join_next().await {
        if let Ok((at, Some(first))) = tried
            && let Some(controller) = controllers.get_mut(at)
        {
            // Stable: the others keep their order.
            controller.addresses.sort_by_key(|ip| *ip != first);
        }
    }
}

type Addresses = Result<Timed<Vec<IpAddr>>, String>;

/// Looks up all hosts at once.
async fn addresses_of(names: &Arc<dyn Names>, hosts: Vec<String>) -> Vec<(String, Addresses)> {
    let mut asked = JoinSet::new();
    for host in hosts {
        let names = Arc::clone(names);
        asked.spawn(async move {
            let answer = match host.parse() {
                Ok(ip) => Ok((vec![ip], Instant::now() + FRESH)),
                Err(_) => names.addresses(&host).await,
            };
            (host, answer)
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer);
    }
    answers
}

fn unique(hosts: Vec<(String, bool)>) -> Vec<(String, bool)> {
    let mut kept: Vec<(String, bool)> = Vec::new();
    for host in hosts {
        if kept.len() < CONTROLLERS && !kept.iter().any(|(known, _)| *known == host.0) {
            kept.push(host);
        }
    }
    kept
}

/// Returns the targets in the order in which a client contacts them (RFC 2782): by priority, and within one
/// priority by chance in proportion to the weight.
fn order(mut records: Vec<Srv>, mut below: impl FnMut(u32) -> u32) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::with_capacity(records.len());
    while let Some(priority) = records.iter().map(|record| record.priority).min() {
        let peers = || records.iter().enumerate().filter(|(_, record)| record.priority == priority);
        // Each share is the weight plus one, so that weight 0 keeps a small chance.
        let share = |record: &Srv| u32::from(record.weight) + 1;
        let mut point = below(peers().map(|(_, record)| share(record)).sum());
        let chosen = peers().find(|(_, record)| match point.checked_sub(share(record)) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        });
        let Some((index, _)) = chosen else { break };
        let host = records.remove(index).host;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::net::BoxFuture;

    /// A DNS zone for a test. Names in neither map do not exist.
    #[derive(Default)]
    pub struct Zone {
        pub srv: HashMap<String, Vec<Srv>>,
        pub addresses: HashMap<String, Vec<IpAddr>>,
        /// The site that pings report.
        pub site: Option<String>,
        /// Addresses that accept no connection.
        pub dead: Vec<IpAddr>,
        /// No query is answered.
        pub silent: bool,
        pub asked: Vec<String>,
    }

    pub struct Scripted(pub Mutex<Zone>);

    const TTL: Duration = Duration::from_secs(600);

    impl Names for Scripted {
        fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
            let mut zone = self.0.lock();
            zone.asked.push(name.to_owned());
            let found = zone.srv.get(name).filter(|_| !zone.silent).cloned();
            let found = found.map(|records| (records, Instant::now() + TTL));
            Box::pin(async move { found.ok_or_else(|| format!("no {name}")) })
        }

        fn srv_or<'a>(
            &'a self,
            name: &'a str,
            other: &'a str,
        ) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
            let silent = self.0.lock().silent;
            Box::pin(async move {
                match self.srv(name).await {
                    Err(cause) if !silent => self.srv(other).await.map_err(|_| cause),
                    found => found,
                }
            })
        }

        fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>> {
            let zone = self.0.lock();
            let found = zone.addresses.get(host).filter(|_| !zone.silent).cloned();
            let found = found.map(|addresses| (addresses, Instant::now() + TTL));
            Box::pin(async move { found.ok_or_else(|| format!("no {host}")) })
        }

        fn site<'a>(&'a self, _: &'a str, addresses: Vec<IpAddr>) -> BoxFuture<'a, Option<String>> {
            let site = self.0.lock().site.clone().filter(|_| !addresses.is_empty());
            Box::pin(async move { site })
        }

        fn reached(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, Option<IpAddr>> {
            let zone = self.0.lock();
            let first = addresses.iter().map(SocketAddr::ip).find(|ip| !zone.dead.contains(ip));
            Box::pin(async move { first })
        }
    }

    pub fn srv(priority: u16, weight: u16, host: &str) -> Srv {
        Srv { priority, weight, host: host.to_owned() }
    }

    /// A zone whose domain has the domain controllers a, b and c, b in the site Ulm.
    pub fn zone() -> Zone {
        let records = vec![srv(0, 0, "a"), srv(0, 0, "b"), srv(1, 0, "c")];
        let addresses = ["a", "b", "c", "x"].map(|host| (host.to_owned(), vec![[10, 0, 0, 1].into()]));
        Zone {
            srv: HashMap::from([
                ("_ldap._tcp.dc._msdcs.acme.com".to_owned(), records),
                ("_ldap._tcp.Ulm._sites.dc._msdcs.acme.com".to_owned(), vec![srv(0, 0, "b")]),
                ("_ldap._tcp.gc._msdcs.acme.com".to_owned(), vec![srv(0, 0, "c")]),
            ]),
            addresses: HashMap::from(addresses),
            ..Zone::default()
        }
    }

    pub fn names(zone: Zone) -> Arc<dyn Names> {
        Arc::new(Scripted(Mutex::new(zone)))
    }

    fn wanted(servers: &[&str], backup: &[&str]) -> Wanted {
        let list = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        Wanted {
            domain: "acme.com".into(),
            servers: list(servers),
            backup: list(backup),
            ..Wanted::default()
        }
    }

    async fn hosts(zone: Zone, wanted: &Wanted) -> Result<Vec<String>, String> {
        let list = discover(&names(zone), wanted, |_| 0).await?;
        Ok(list.controllers.iter().map(|controller| controller.host.clone()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn dns_decides_unless_the_configuration_does() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&[], &[], &["a", "b", "c"]),
            (&["c", "A"], &[], &["c", "a"]),
            (&["x", "_srv_"], &[], &["x", "a", "b", "c"]),
            (&["_srv_", "x"], &["c"], &["a", "b", "c", "x"]),
            (&["b"], &["_srv_", "x"], &["b", "x"]),
            (&[], &["x"], &["a", "b", "c", "x"]),
        ];
        for (servers, backup, expected) in cases {
            let found = hosts(zone(), &wanted(servers, backup)).await.unwrap();
            assert_eq!(found, expected, "{servers:?} {backup:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_our_site_come_first() {
        let told = Zone { site: Some("Ulm".into()), ..zone() };
        assert_eq!(hosts(told, &wanted(&[], &[])).await.unwrap(), ["b", "a", "c"]);
        let configured = Wanted { site: Some("Ulm".into()), ..wanted(&[], &[]) };
        let elsewhere = Zone { site: Some("Bonn".into()), ..zone() };
        assert_eq!(hosts(elsewhere, &configured).await.unwrap(), ["b", "a", "c"]);
        let alone = Zone { site: Some("Bonn".into()), ..zone() };
        assert_eq!(hosts(alone, &wanted(&[], &[])).await.unwrap(), ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_comes_before_one_that_does_not() {
        let [dead, good, other] = [9, 1, 2].map(|end| IpAddr::from([10, 0, 0, end]));
        let first = async |closed: &[IpAddr]| {
            let mut zone = Zone { dead: closed.to_vec(), ..zone() };
            zone.addresses.insert("a".to_owned(), vec![dead, good, other]);
            let list = discover(&names(zone), &wanted(&["a"], &[]), |_| 0).await.unwrap();
            list.controllers[0].addresses.clone()
        };
        assert_eq!(first(&[dead]).await, [good, dead, other]);
        assert_eq!(first(&[]).await, [dead, good, other]);
        // If no address answers, the order is that of DNS.
        assert_eq!(first(&[dead, good, other]).await, [dead, good, other]);
        // A server that is configured as an address needs no DNS.
        let list = discover(&names(zone()), &wanted(&["10.0.0.7"], &[]), |_| 0).await.unwrap();
        assert_eq!(list.controllers[0].addresses, [IpAddr::from([10, 0, 0, 7])]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_global_catalogue_has_names_of_its_own() {
        let catalogue = Wanted { role: Role::GlobalCatalogue, ..wanted(&[], &[]) };
        assert_eq!(hosts(zone(), &catalogue).await.unwrap(), ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_msdcs_the_plain_records_will_do() {
        let plain = |name: &str, hosts: &[&str]| {
            (name.to_owned(), hosts.iter().map(|host| srv(0, 0, host)).collect::<Vec<_>>())
        };
        let bare = Zone {
            srv: HashMap::from([
                plain("_ldap._tcp.acme.com", &["a", "b"]),
                plain("_ldap._tcp.Ulm._sites.acme.com", &["b"]),
                plain("_gc._tcp.acme.com", &["c"]),
            ]),
            site: Some("Ulm".into()),
            ..zone()
        };
        let bare = || Zone {
            srv: bare.srv.clone(),
            addresses: bare.addresses.clone(),
            site: bare.site.clone(),
            ..zone()
        };
        assert_eq!(hosts(bare(), &wanted(&[], &[])).await.unwrap(), ["b", "a"]);
        let catalogue = Wanted { role: Role::GlobalCatalogue, site: None, ..wanted(&[], &[]) };
        assert_eq!(hosts(Zone { site: None, ..bare() }, &catalogue).await.unwrap(), ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_dns_or_addresses_the_cause_is_named() {
        let silent = Zone { silent: true, ..zone() };
        let error = hosts(silent, &wanted(&[], &[])).await.unwrap_err();
        assert_eq!(error, "no _ldap._tcp.dc._msdcs.acme.com");
        assert_eq!(hosts(zone(), &wanted(&["y", "z"], &[])).await.unwrap_err().len(), "no y; no z".len());
        // A host that DNS does not know now may be known later.
        assert_eq!(hosts(zone(), &wanted(&["y", "a"], &[])).await.unwrap(), ["y", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_good_as_long_as_its_records() {
        let begun = Instant::now();
        let list = discover(&names(zone()), &wanted(&[], &[]), |_| 0).await.unwrap();
        assert_eq!(list.until, begun + TTL);
    }

    #[test]
    fn priority_decides_before_weight() {
        let records = vec![srv(10, 100, "c"), srv(0, 0, "a"), srv(5, 1, "b"), srv(10, 0, "a")];
        assert_eq!(order(records, |_| 0), ["a", "b", "c"]);
    }

    #[test]
    fn weight_is_a_share_of_the_chances() {
        let records = || vec![srv(0, 0, "a"), srv(0, 9, "b"), srv(0, 89, "c")];
        let mut first = HashMap::new();
        for point in 0..101 {
            let mut points = [point, 0, 0].into_iter();
            let hosts = order(records(), |below| points.next().unwrap_or(0).min(below - 1));
            assert_eq!(hosts.len(), 3);
            *first.entry(hosts[0].clone()).or_insert(0) += 1;
        }
        assert_eq!((first["a"], first["b"], first["c"]), (1, 10, 90));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_target_comes_once_and_none_before_a_lower_priority(
            records in prop::collection::vec((0_u16..3, any::<u16>(), 0_u8..5), 0..20),
            chance: u32,
        ) {
            let records: Vec<_> = records
                .into_iter()
                .map(|(priority, weight, host)| Srv { priority, weight, host: host.to_string() })
                .collect();
            let order = order(records.clone(), |below| chance % below);
            let first = |host: &String| {
                let own = records.iter().filter(|record| record.host == *host);
                own.map(|record| record.priority).min().unwrap()
            };
            prop_assert!(order.is_sorted_by_key(first), "{:?}", order);
            let all: std::collections::BTreeSet<_> = records.iter().map(|record| &record.host).collect();
            prop_assert_eq!(order.iter().collect::<std::collections::BTreeSet<_>>(), all.clone());
            prop_assert_eq!(order.len(), all.len());
        }
    }
}
