//! The forest's published configuration, read from a real Active Directory.
//!
//! Runs only if the environment names a domain controller, as root on a joined host:
//!
//! ```text
//! MOTION_AD_TEST_DC=ad.acme.com  its DNS name; everything is skipped without it
//! MOTION_AD_TEST_ROOTS=1         the CA of its certificate is published in AD
//! KRB5_KTNAME=/etc/krb5.keytab
//! ```

#![cfg(feature = "broker")]
// clippy's exemption covers functions marked #[test] only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use motion_ad::directory::forest::Forest;
use motion_ad::directory::machine::{
    Machine, MachineConnection, Place, Scope, Search, Server, Servers, Settings,
};
use motion_ad::directory::machines::Machines;
use motion_ad::directory::trust::verifier::Distrust;
use motion_ad::directory::trust::{Refreshed, Trust};
use motion_ad::kerberos::{Kdc, Kdcs, Kerberos, LdapService};
use motion_ad::net::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Ports of Kerberos-sealed LDAP: the domain's, then the global catalog's.
const LDAP: u16 = 389;
const CATALOGUE: u16 = 3268;
const LDAPS: u16 = 636;
const KERBEROS: u16 = 88;

/// Returns the domain controller that the environment names; `None` skips the test.
fn dc() -> Option<String> {
    let host = std::env::var("MOTION_AD_TEST_DC").ok();
    if host.is_none() {
        println!("skipped: MOTION_AD_TEST_DC names no domain controller");
    }
    host
}

/// A server list of one domain controller at one port.
struct Fixed(String, u16);

impl Fixed {
    fn addresses(&self) -> Vec<SocketAddr> {
        (self.0.as_str(), self.1).to_socket_addrs().unwrap().collect()
    }
}

impl Servers for Fixed {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        let (_, domain) = self.0.split_once('.').unwrap();
        let service = match self.1 {
            CATALOGUE => LdapService::of_catalogue(&self.0, domain, domain),
            _ => LdapService::of_domain(&self.0, domain),
        };
        let addresses = self.addresses();
        Box::pin(async move { Ok(vec![Server { service, addresses }]) })
    }
}

impl Kdcs for Fixed {
    fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        let (host, addresses) = (self.0.clone(), self.addresses());
        Box::pin(async move { Ok(vec![Kdc { host, addresses }]) })
    }
    fn answered(&self, _: &str) {}
    fn failed(&self, _: &str, _: &str) {}
}

fn machines(host: &str) -> Machines {
    let kerberos = Arc::new(Kerberos::new(Arc::new(Fixed(host.to_owned(), KERBEROS))));
    let connection = move |host: &str, port| {
        let servers = Arc::new(Fixed(host.to_owned(), port));
        MachineConnection::new(servers, kerberos.clone(), Settings::default())
    };
    let dc = host.to_owned();
    Machines::new(connection(host, LDAP), move |place| match place {
        Place::GlobalCatalogue => connection(&dc, CATALOGUE),
        _ => connection(&dc, LDAP),
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn the_forest_names_its_domains() {
    let Some(host) = dc() else { return };
    let machines = machines(&host);
    let forest = Forest::read(&machines, soon()).await.unwrap();
    let root = machines.own().root(soon()).await.unwrap();
    let own = forest.of_object(&root.default_naming_context).unwrap();
    assert!(host.ends_with(&own.name), "{own:?}");
    assert!(!own.netbios.is_empty(), "{own:?}");
    println!("{forest:?}");
}

#[tokio::test]
async fn the_catalogue_knows_people_by_what_they_are_looked_for_by() {
    let Some(host) = dc() else { return };
    let machines = machines(&host);
    let forest = Forest::read(&machines, soon()).await.unwrap();
    let search = Search {
        place: Place::GlobalCatalogue,
        base: String::new(),
        scope: Scope::Subtree,
        filter: "(&(objectCategory=person)(objectClass=user)(sAMAccountName=Administrator))".to_owned(),
        attributes: ["objectGUID", "userAccountControl"].map(str::to_owned).to_vec(),
        limit: forest.domains().len(),
    };
    let found = machines.search(&search, soon()).await.unwrap();
    assert_eq!(found.len(), forest.domains().len(), "{found:?}");
    for entry in &found {
        assert!(forest.of_object(entry.dn()).is_some(), "{entry:?}");
        assert_eq!(entry.bytes("objectGUID").unwrap().unwrap().len(), 16);
        assert!(entry.flags("userAccountControl").unwrap().is_some());
    }
    assert_eq!(machines.further().len(), 1);
}

#[tokio::test]
async fn the_published_roots_verify_the_domain_controller() {
    let Some(host) = dc() else { return };
    if std::env::var_os("MOTION_AD_TEST_ROOTS").is_none() {
        println!("skipped: MOTION_AD_TEST_ROOTS does not say that AD publishes a CA");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let trust = Trust::load(None, Some(state.path())).unwrap();
    assert_eq!(handshake(&host, &trust).await, Err(Some(Distrust::UnknownIssuer)));
    assert_eq!(trust.refresh(&machines(&host), soon()).await, Ok(Refreshed::Changed));
    println!("{:?}", trust.report());
    assert_eq!(handshake(&host, &trust).await, Ok(()));
    let kept = Trust::load(None, Some(state.path())).unwrap();
    assert_eq!(handshake(&host, &kept).await, Ok(()));
}

async fn handshake(host: &str, trust: &Trust) -> Result<(), Option<Distrust>> {
    let tcp = TcpStream::connect((host, LDAPS)).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connected = TlsConnector::from(trust.config()).connect(name, tcp).await;
    connected.map(drop).map_err(|error| Distrust::of(&error))
}
