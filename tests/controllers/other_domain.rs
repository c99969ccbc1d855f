//! Users of a forest with two domains. Each is bound only at a domain controller of the user's domain.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use motion_ad::checked::Method;
use motion_ad::config::Config;
use motion_ad::directory::controllers::discovery::{Role, Wanted};
use motion_ad::directory::controllers::domains::{Domains, probe_ldap};
use motion_ad::directory::controllers::health::Service;
use motion_ad::directory::entry::Entry;
use motion_ad::directory::machine::Place;
use motion_ad::directory::passwords::pool::Pool;
use motion_ad::directory::people::Directory;
use motion_ad::kerberos::Kerberos;
use motion_ad::login::decision::Decision;
use motion_ad::login::logins::Logins;
use motion_ad::login::passwords::DomainPasswords;
use motion_ad::verdict::Outcome;
use motion_ad_support::scripted::*;
use tokio::time::Instant;

use crate::network::{self, Controller, Network, Zone};

const JOHN: &str = "CN=John Doe,CN=Users,DC=acme,DC=com";
const ERNA: &str = "CN=Erna Beispiel,CN=Users,DC=emea,DC=acme,DC=com";
/// Bytes that fill the users' objectGUIDs.
const JOHN_ID: u8 = 1;
const ERNA_ID: u8 = 2;
/// Places of users from the host's domain and from the other domain.
const OWN: Place = Place::Own;
const CATALOGUE: Place = Place::GlobalCatalogue;

fn emea() -> Place {
    Place::Domain("emea.acme.com".into())
}

/// Returns an account as a search returns it.
fn person(dn: &str, id: u8, sam: &str, upn: Option<&str>) -> Vec<Entry> {
    let entry = Entry::new(dn).with("objectGUID", [vec![id; 16]]).with("sAMAccountName", [sam]);
    // Every account has these attributes.
    let state = [
        ("userAccountControl", "512"),
        ("msDS-User-Account-Control-Computed", "0"),
        ("accountExpires", "0"),
        ("pwdLastSet", "133700000000000000"),
    ];
    let entry = entry.with("userPrincipalName", upn);
    vec![state.into_iter().fold(entry, |entry, (name, value)| entry.with(name, [value]))]
}

/// Returns the forest of acme.com, emea.acme.com and apac.acme.com, whose accounts may have the suffix
/// brand.example.
fn forest() -> [(Place, &'static str, Vec<Entry>); 2] {
    let root = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
    let cross_ref = |label: &str, name: &str, dn: &str| {
        let entry = Entry::new(format!("CN={label},CN=Partitions,CN=Configuration,DC=acme,DC=com"));
        entry.with("dnsRoot", [name]).with("nETBIOSName", [label]).with("nCName", [dn])
    };
    let partitions = vec![
        Entry::new("CN=Partitions,CN=Configuration,DC=acme,DC=com").with("uPNSuffixes", ["brand.example"]),
        cross_ref("ACME", "acme.com", "DC=acme,DC=com"),
        cross_ref("EMEA", "emea.acme.com", "DC=emea,DC=acme,DC=com"),
        cross_ref("APAC", "apac.acme.com", "DC=apac,DC=acme,DC=com"),
    ];
    [(OWN, "CN=Partitions,", partitions), (OWN, " (objectClass=*)", vec![root])]
}

/// Returns the directory that the machine account reads. john is in its own domain, so the catalog is not
/// needed for him. The catalog knows erna of the other domain, but only her own domain knows her account
/// state.
fn directory() -> network::Directory {
    let john = || person(JOHN, JOHN_ID, "john", Some("john@brand.example"));
    let erna = |upn| person(ERNA, ERNA_ID, "erna", upn);
    let known = [
        (OWN, "(userPrincipalName=john@acme.com)(sAMAccountName=john)", john()),
        (OWN, "(userPrincipalName=john@brand.example)", john()),
        (OWN, "(objectCategory=person)", vec![]),
        (CATALOGUE, "DC=emea,DC=acme,DC=com (&(|", erna(None)),
        (CATALOGUE, "(objectCategory=person)", vec![]),
        (emea(), "<GUID=02020202-0202-0202-0202-020202020202>", erna(None)),
    ];
    network::Directory::new(known.into_iter().chain(forest()))
}

/// The broker's logic from name to bind, on a host in acme.com that accepts users of emea.acme.com.
struct Bench {
    logins: Logins<network::Directory, Arc<DomainPasswords>>,
    zone: Arc<Zone>,
}

impl Bench {
    fn new(network: &Network) -> Self {
        let config = config();
        let passwords = Arc::new_cyclic(|me| passwords(network, &config, me));
        Bench {
            zone: network.names(),
            logins: Logins {
                directory: Directory::new(directory(), &config),
                names: config.names,
                passwords,
                host: "XCALLY".into(),
                warn: Duration::ZERO,
                clock: std::time::SystemTime::now,
            },
        }
    }

    async fn login(&self, name: &str) -> Decision {
        self.logins.authenticate(name, "secret", false, Instant::now() + Duration::from_secs(5)).await
    }

    /// Returns the places that were searched until now.
    fn searched(&self) -> Vec<Place> {
        self.logins.directory.machine().asked().into_iter().map(|(place, _)| place).collect()
    }
}

fn config() -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[domain]\nname = \"acme.com\"\n[names]\nmap_file = \"/dev/null\"\n\
        domains = [\"emea.acme.com\"]\n\
        [login]\nmethod = \"ldap\"\n";
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path(), Path::new("/nonexistent/sssd.conf")).unwrap()
}

/// Builds the pools of all domains as the broker does.
fn passwords(network: &Network, config: &Config, me: &Weak<DomainPasswords>) -> DomainPasswords {
    let wanted = Wanted { domain: config.domain.name.clone(), ..Wanted::default() };
    let me = me.clone();
    let domains = Domains::new(
        wanted,
        network.roster(),
        network.names(),
        Arc::new(|_, _| {}),
        Arc::new(move |domain, role, controller, service| {
            let (me, domain) = (me.clone(), domain.to_owned());
            Box::pin(async move {
                let deadline = Instant::now() + Duration::from_secs(2);
                match service {
                    Service::Binds => match me.upgrade() {
                        Some(passwords) => passwords.pool(&domain).probe(&controller, deadline).await,
                        None => Err("the test is over".to_owned()),
                    },
                    _ => probe_ldap(&controller, role, deadline).await,
                }
            })
        }),
    );
    let kerberos = Arc::new(Kerberos::new(domains.clone()));
    let (trust, mode, settings) = (network.trust(), config.tls.mode, config.pool.clone());
    let pools = Box::new(move |domain: &str| {
        let renew = Box::new(|_| -> motion_ad::net::BoxFuture<'static, ()> { Box::pin(async {}) });
        Pool::new(domains.of(domain, Role::Domain), trust.clone(), mode, settings.clone(), renew)
    });
    DomainPasswords::new(config.login.method, kerberos, pools, Arc::new(|_, _, _| {}))
}

/// Adds a domain controller that accepts only `dn`.
async fn controller(network: &Network, host: &str, dn: &str) -> Controller {
    let script =
        |script: Script| script.on(Event::bind_as(dn), [success()]).on(Event::bind(), [refused(0x525)]);
    network.controller(host, script).await
}

fn decided(decision: &Decision) -> (Outcome, Option<&str>) {
    (decision.verdict.outcome, decision.dc.as_deref())
}

#[tokio::test]
async fn who_lives_in_another_domain_is_bound_there() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let emea_dc = controller(&network, "dc7.emea.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    for (name, binds) in [("erna@emea.acme.com", 1), ("Erna@EMEA.acme.com", 2), ("EMEA\\erna", 3)] {
        let decision = bench.login(name).await;
        assert_eq!(decided(&decision), (Outcome::Success, Some("dc7.emea.acme.com")), "{name}: {decision:?}");
        assert_eq!(decision.verdict.principal.as_deref(), Some("erna@emea.acme.com"));
        assert_eq!(decision.method, Some(Method::Ldap));
        assert_eq!((emea_dc.log().binds_as(ERNA), emea_dc.log().binds()), (binds, binds), "{name}");
    }
    assert_eq!(acme.log().connections(), 0, "{:?}", acme.log().all());
    // Only that domain's records were queried, and only once.
    assert_eq!(bench.zone.asked(), ["_ldap._tcp.dc._msdcs.emea.acme.com"]);
    // The catalog identifies her. Her own domain gives her account state.
    assert_eq!(bench.searched().last(), Some(&emea()));
    assert!(bench.searched().contains(&CATALOGUE));
}

#[tokio::test]
async fn her_account_is_read_in_her_domain() {
    let Some(network) = Network::new() else { return };
    let emea_dc = controller(&network, "dc7.emea.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    let deadline = Instant::now() + Duration::from_secs(5);
    let decision = bench.logins.account("erna@emea.acme.com", false, deadline).await;
    assert_eq!(decision.verdict.outcome, Outcome::Success, "{decision:?}");
    assert_eq!(emea_dc.log().connections(), 0);
    let asked = bench.logins.directory.machine().asked();
    let elsewhere = asked.iter().filter(|(place, asked)| asked.contains("<GUID=") && *place != emea());
    assert_eq!(elsewhere.count(), 0, "{asked:?}");
}

#[tokio::test]
async fn a_wrong_password_costs_one_attempt_there() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let wrong = |script: Script| script.on(Event::bind(), [refused(0x52e)]);
    let emea_dc = network.controller("dc7.emea.acme.com", wrong).await;
    let spare = network.controller("dc8.emea.acme.com", wrong).await;
    let bench = Bench::new(&network);
    let decision = bench.login("erna@emea.acme.com").await;
    assert_eq!(decided(&decision), (Outcome::WrongPassword, Some("dc7.emea.acme.com")), "{decision:?}");
    assert_eq!((emea_dc.log().binds(), spare.log().binds(), acme.log().connections()), (1, 0, 0));
}

#[tokio::test]
async fn whose_domain_controller_fails_goes_to_another_one_of_the_same_domain() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let _dead = network.silent("dc7.emea.acme.com", |script| script);
    let spare = controller(&network, "dc8.emea.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    let decision = bench.login("erna@emea.acme.com").await;
    assert_eq!(decided(&decision), (Outcome::Success, Some("dc8.emea.acme.com")), "{decision:?}");
    drop(spare);
    // With no domain controller of her domain left, the login waits for no other.
    let decision = bench.login("erna@emea.acme.com").await;
    assert_eq!(decided(&decision), (Outcome::Unavailable, None), "{decision:?}");
    assert_eq!(acme.log().connections(), 0, "{:?}", acme.log().all());
}

#[tokio::test]
async fn who_lives_in_this_domain_is_bound_here_whatever_the_suffix() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let emea_dc = controller(&network, "dc7.emea.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    for name in ["john", "john@acme.com", "john@brand.example"] {
        let decision = bench.login(name).await;
        assert_eq!(decided(&decision), (Outcome::Success, Some("dc1.acme.com")), "{name}: {decision:?}");
    }
    assert_eq!((acme.log().binds_as(JOHN), acme.log().binds()), (3, 3));
    assert_eq!(emea_dc.log().connections(), 0);
    assert_eq!(bench.zone.asked(), ["_ldap._tcp.dc._msdcs.acme.com"]);
    let is_own = |place: &Place| *place == OWN;
    assert!(bench.searched().iter().all(is_own), "{:?}", bench.searched());
}

#[tokio::test]
async fn for_a_domain_that_is_not_accepted_nothing_is_sent() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let emea_dc = controller(&network, "dc7.emea.acme.com", ERNA).await;
    let apac = controller(&network, "dc9.apac.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    // In the forest or not: only names.domains decides.
    for name in ["erna@apac.acme.com", "APAC\\erna", "erna@evil.example", "erna@acme.com.evil.example"] {
        let decision = bench.login(name).await;
        assert_eq!(decided(&decision), (Outcome::Unmapped, None), "{name}: {decision:?}");
    }
    for controller in [&acme, &emea_dc, &apac] {
        assert_eq!(controller.log().connections(), 0, "{}", controller.host);
    }
    assert_eq!(bench.zone.asked(), Vec::<String>::new());
    let people = bench.logins.directory.machine().asked();
    assert!(!people.iter().any(|(_, asked)| asked.contains("objectCategory=person")), "{people:?}");
}

#[tokio::test]
async fn nobody_of_her_name_is_known_here_or_there() {
    let Some(network) = Network::new() else { return };
    let acme = controller(&network, "dc1.acme.com", JOHN).await;
    let emea_dc = controller(&network, "dc7.emea.acme.com", ERNA).await;
    let bench = Bench::new(&network);
    // The broker also compares the catalog's answer with the typed name.
    for name in ["nobody@emea.acme.com", "erna@acme.com", "nobody@brand.example"] {
        let decision = bench.login(name).await;
        assert_eq!(decided(&decision), (Outcome::UnknownUser, None), "{name}: {decision:?}");
    }
    assert_eq!((acme.log().connections(), emea_dc.log().connections()), (0, 0));
}
