//! A network of scripted domain controllers that needs no lab. Each has a separate loopback address, the
//! ports of a real one, a certificate from the test's authority, and an entry in a table that replaces DNS.
//!
//! ```ignore
//! let Some(network) = Network::new() else { return };
//! let dc = network.controller("dc1.acme.com", |script| script.on(Event::bind(), [success()])).await;
//! // … `network.names()` finds it and `network.trust()` trusts it. Then check what it received:
//! assert_eq!(dc.log().binds(), 1);
//! ```

use std::collections::HashMap;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motion_ad::directory::controllers::dns::{Names, Srv, Timed};
use motion_ad::directory::controllers::roster::{Listed, Roster};
use motion_ad::directory::entry::Entry;
use motion_ad::directory::machine::{Machine, MachineError, Place, Search};
use motion_ad::directory::trust::Trust;
use motion_ad::net::BoxFuture;
use motion_ad_support::scripted::{
    Action, Authority, Event, Identity, Log, Script, Security, Server, done, entry,
};
use motion_ad_support::skipped;
use tempfile::NamedTempFile;
use tokio::time::Instant;

/// The ports for LDAP with StartTLS, and for LDAP over TLS from the first byte.
pub const LDAP: u16 = 389;
pub const LDAPS: u16 = 636;
/// Lifetime of DNS answers, longer than any test.
const TTL: Duration = Duration::from_secs(3600);
/// LDAP_CAP_ACTIVE_DIRECTORY_OID (MS-ADTS 3.1.1.3.4.3.1).
const ACTIVE_DIRECTORY: &[u8] = b"1.2.840.113556.1.4.800";

/// Returns a root DSE with additional `supportedCapabilities` and this `isSynchronized`.
pub fn root_dse(capabilities: &[&str], is_synchronized: &str) -> [Action; 2] {
    let mut all = vec![ACTIVE_DIRECTORY];
    all.extend(capabilities.iter().map(|oid| oid.as_bytes()));
    let attributes: [(&str, &[&[u8]]); 2] =
        [("supportedCapabilities", &all), ("isSynchronized", &[is_synchronized.as_bytes()])];
    [entry("", &attributes), done()]
}

/// The domain controllers of a test, with the DNS and the authority that clients need.
pub struct Network {
    authority: Authority,
    zone: Arc<Zone>,
}

impl Network {
    /// Returns a network without domain controllers, or `None` if this process may not bind port 389, which
    /// only root may do (ip(7), `ip_unprivileged_port_start`).
    pub fn new() -> Option<Self> {
        match TcpListener::bind((address(), LDAP)) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                skipped(format_args!("port {LDAP} is for root: {e}"));
                None
            }
            _ => Some(Network { authority: authority(), zone: Arc::default() }),
        }
    }

    /// Adds a domain controller for the parent domain of `host`. DNS lists domain controllers by their
    /// creation. `script` adds rules to an empty script. The rule for a healthy root DSE follows them.
    pub async fn controller(&self, host: &str, script: impl FnOnce(Script) -> Script) -> Controller {
        let mut controller = self.silent(host, script);
        controller.listen(LDAPS).await;
        controller.listen(LDAP).await;
        controller
    }

    /// Same as [`Network::controller`], but without a listener.
    pub fn silent(&self, host: &str, script: impl FnOnce(Script) -> Script) -> Controller {
        let script = script(Script::default()).on(Event::root_dse("objectClass"), root_dse(&[], "TRUE"));
        let address = address();
        let (_, domain) = host.split_once('.').unwrap();
        self.zone.add(domain, host, address);
        Controller {
            host: host.to_owned(),
            address,
            identity: self.authority.issue(&[host]).unwrap(),
            server: Server::new(script),
        }
    }

    /// Adds a host that DNS names as a domain controller of `domain`, but that AD does not list. It has a
    /// certificate for its own name from the same authority.
    pub async fn stranger(
        &self,
        domain: &str,
        host: &str,
        script: impl FnOnce(Script) -> Script,
    ) -> Controller {
        let controller = self.controller(host, script).await;
        self.zone.add(domain, host, controller.address);
        self.zone.strangers.lock().unwrap().push(host.to_owned());
        controller
    }

    /// Returns the domain controllers that AD lists: all that exist now, without the strangers.
    pub fn roster(&self) -> Arc<Roster> {
        Roster::fixed(self.listed())
    }

    /// Same, with a state directory, in which a broker keeps what the next one begins with.
    pub fn roster_in(&self, state: &Path) -> Arc<Roster> {
        Roster::fixed_in(self.listed(), state)
    }

    fn listed(&self) -> Listed {
        let hosts = self.zone.hosts.lock().unwrap();
        let strangers = self.zone.strangers.lock().unwrap();
        let listed = hosts.values().flatten().filter(|(host, _)| !strangers.contains(host));
        listed.map(|(host, _)| (host.clone(), true)).collect()
    }

    /// Returns the authority that signs the domain controllers' certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns trust in that authority and no other.
    pub fn trust(&self) -> Arc<Trust> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.authority.pem().as_bytes()).unwrap();
        Arc::new(Trust::load(Some(file.path()), None).unwrap())
    }

    /// Returns the network's DNS.
    pub fn names(&self) -> Arc<Zone> {
        self.zone.clone()
    }
}

/// A domain controller. Dropping it removes it from the network, but not from DNS.
pub struct Controller {
    /// DNS name.
    pub host: String,
    address: IpAddr,
    identity: Identity,
    server: Server,
}

impl Controller {
    /// Starts to listen on `port`: TLS on the LDAPS port, StartTLS on others.
    pub async fn listen(&mut self, port: u16) {
        let identity = self.identity.clone();
        let security = if port == LDAPS { Security::Ldaps(identity) } else { Security::StartTls(identity) };
        self.server.listen((self.address, port), security).await.unwrap();
    }

    /// Returns the log of received messages.
    pub fn log(&self) -> &Log {
        self.server.log()
    }
}

/// Creates an authority with a unique name. A client would report another key under a known name as a bad
/// signature.
fn authority() -> Authority {
    static COUNT: AtomicU16 = AtomicU16::new(1);
    Authority::new(&format!("Acme Root CA {}", COUNT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

/// Returns a loopback address that no other test uses: from the process id and a counter.
fn address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 1 << 10, "this process needs more addresses than it has");
    let process = std::process::id() & 0x1fff;
    // Avoids 127.0.x.y to 127.127.x.y, where services of the machine may listen.
    Ipv4Addr::from_bits(0x7f80_0000 | process << 10 | u32::from(number)).into()
}

/// A DNS table of SRV records and addresses.
#[derive(Default)]
pub struct Zone {
    hosts: Mutex<HashMap<String, Vec<(String, IpAddr)>>>,
    strangers: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
}

impl Zone {
    fn add(&self, domain: &str, host: &str, address: IpAddr) {
        self.hosts.lock().unwrap().entry(domain.to_owned()).or_default().push((host.to_owned(), address));
    }

    /// Returns the names whose SRV records were queried.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Names for Zone {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let hosts = self.hosts.lock().unwrap();
        let found = name.strip_prefix("_ldap._tcp.dc._msdcs.").and_then(|domain| hosts.get(domain));
        let records = found.into_iter().flatten().zip(0..);
        let records: Vec<_> =
            records.map(|((host, _), priority)| Srv { priority, weight: 0, host: host.clone() }).collect();
        Box::pin(async move {
            match records.is_empty() {
                true => Err(format!("no {name}")),
                false => Ok((records, Instant::now() + TTL)),
            }
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>> {
        let hosts = self.hosts.lock().unwrap();
        let found = hosts.values().flatten().find(|(known, _)| known == host);
        let answer = found.map(|(_, ip)| vec![*ip]).ok_or_else(|| format!("no {host}"));
        Box::pin(async move { Ok((answer?, Instant::now() + TTL)) })
    }

    fn site<'a>(&'a self, _: &'a str, _: Vec<IpAddr>) -> BoxFuture<'a, Option<String>> {
        Box::pin(async { None })
    }

    fn reached(&self, _: Vec<SocketAddr>) -> BoxFuture<'_, Option<IpAddr>> {
        Box::pin(async { None })
    }
}

/// A scripted directory. A search gets the entries of the first answer for its place whose text is in
/// `BASE FILTER`.
pub struct Directory {
    answers: Vec<(Place, &'static str, Vec<Entry>)>,
    asked: Mutex<Vec<(Place, String)>>,
}

impl Directory {
    /// Creates a directory. Each answer serves any number of searches; the first match is used.
    pub fn new(answers: impl IntoIterator<Item = (Place, &'static str, Vec<Entry>)>) -> Self {
        Directory { answers: answers.into_iter().collect(), asked: Mutex::default() }
    }

    /// Returns all searches until now, each with its place.
    pub fn asked(&self) -> Vec<(Place, String)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Machine for Directory {
    async fn search(&self, search: &Search, _: Instant) -> Result<Vec<Entry>, MachineError> {
        let asked = format!("{} {}", search.base, search.filter);
        self.asked.lock().unwrap().push((search.place.clone(), asked.clone()));
        let is_meant = |place: &Place, part: &str| *place == search.place && asked.contains(part);
        let found = self.answers.iter().find(|(place, part, _)| is_meant(place, part));
        let unexpected = || MachineError::NoServer(format!("nobody expected {asked}"));
        found.map(|(.., entries)| entries.clone()).ok_or_else(unexpected)
    }
}
