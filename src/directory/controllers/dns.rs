//! Locating domain controllers: DNS records, and the domain controllers' replies to netlogon pings.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use parking_lot::Mutex;
use tokio::net::{TcpStream, UdpSocket};
use tokio::pin;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::{Source, Sources};
use crate::directory::controllers::netlogon;
use crate::directory::entry::Entry;
use crate::ldap;
use crate::ldap::LDAP;
use crate::net::BoxFuture;

/// Time limit of one query to one DNS server.
const DNS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time after which a name that DNS does not know is queried again. The zone's own TTL for negative answers
/// is usually an hour, so a record that has returned would be missed for that time.
const ABSENT: Duration = Duration::from_secs(10);
/// Time to wait for the other address family after the first answer (RFC 8305, 3). A DNS server that never
/// answers one of the two queries costs no more than this.
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// File that names the DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// File with names that need no DNS server.
const HOSTS: &str = "/etc/hosts";
/// The DNS server if none is named (resolv.conf(5)).
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Time limit of a netlogon ping.
const PING: Duration = Duration::from_millis(500);
/// Time in which a host with several addresses has to accept a connection at one of them.
const REACH: Duration = Duration::from_millis(300);
/// Maximum length in bytes of a datagram that is read; an answer has about 200.
const DATAGRAM: usize = 4096;

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Records with a lower priority are contacted first.
    pub priority: u16,
    /// Share of the chances among records of one priority.
    pub weight: u16,
    /// Target, in lower case and without its final dot.
    pub host: String,
}

impl Srv {
    /// Reads a record of an answer. A target of "." means that there is no such service (RFC 2782).
    pub(crate) fn of(data: &RData) -> Option<Self> {
        let RData::SRV(srv) = data else { return None };
        let host = srv.target.to_utf8().trim_end_matches('.').to_lowercase();
        (!host.is_empty()).then_some(Srv { priority: srv.priority, weight: srv.weight, host })
    }
}

/// An answer, and the time until which it is valid.
pub type Timed<T> = (T, Instant);

/// Source of the locations of domain controllers; the errors are texts for the administrator.
pub trait Names: Send + Sync + 'static {
    /// Returns the SRV records of `name`; never an empty list.
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>>;
    /// Returns the SRV records of `name`, or those of `other` if DNS answers that `name` has none. The error
    /// is that of `name`.
    fn srv_or<'a>(&'a self, name: &'a str, other: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
        Box::pin(async move {
            match self.srv(name).await {
                Err(cause) => self.srv(other).await.map_err(|_| cause),
                found => found,
            }
        })
    }
    /// Returns the addresses of `host`; never an empty list.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>>;
    /// Returns the site of this host, from the first of `addresses` that answers a netlogon ping for
    /// `domain`; empty if AD knows none.
    fn site<'a>(&'a self, domain: &'a str, addresses: Vec<IpAddr>) -> BoxFuture<'a, Option<String>>;
    /// Returns the first of `addresses`, all of one host, that accepts a connection; they are tried
    /// concurrently.
    fn reached(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, Option<IpAddr>>;
}

/// The system's DNS (`/etc/hosts`, `/etc/resolv.conf`) and CLDAP pings. It follows changes of both files.
pub struct Network {
    /// File that names the DNS servers.
    resolv: PathBuf,
    hosts: PathBuf,
    current: Mutex<Current>,
    /// The two files as [`Network::changed`] last saw them.
    watched: Mutex<Sources>,
}

#[derive(Default)]
struct Current {
    /// The files that the resolvers were made from.
    files: Sources,
    /// Made when they are first needed.
    resolvers: Option<Arc<Resolvers>>,
}

/// One resolver for each address family, so that neither waits for the other.
struct Resolvers {
    /// The DNS servers that they query.
    servers: Vec<IpAddr>,
    v4: TokioResolver,
    v6: TokioResolver,
}

impl Default for Network {
    fn default() -> Self {
        Network::of(Path::new(RESOLV_CONF), Path::new(HOSTS))
    }
}

impl Network {
    fn of(resolv: &Path, hosts: &Path) -> Self {
        let (resolv, hosts) = (resolv.to_owned(), hosts.to_owned());
        let network = Network { resolv, hosts, current: Mutex::default(), watched: Mutex::default() };
        *network.watched.lock() = network.files();
        network
    }

    /// Both files as they are now.
    fn files(&self) -> Sources {
        Sources::of([&self.resolv, &self.hosts].map(Source::read))
    }

    /// Returns the file that has changed since the last call or since creation, so that cached answers can be
    /// refreshed.
    pub fn changed(&self) -> Option<PathBuf> {
        let mut watched = self.watched.lock();
        let changed = watched.stale()?.to_owned();
        *watched = self.files();
        Some(changed)
    }

    /// Returns the resolvers for the present files, or the previous resolvers if a file cannot be used.
    fn resolvers(&self) -> Result<Arc<Resolvers>, String> {
        let mut current = self.current.lock();
        if let Some(resolvers) = current.resolvers.as_ref().filter(|_| current.files.stale().is_none()) {
            return Ok(resolvers.clone());
        }
        // The files are recorded before they are read, so that a change in between is noticed.
        let files = self.files();
        match Resolvers::new(&self.resolv) {
            Ok(resolvers) => {
                let resolvers = Arc::new(resolvers);
                *current = Current { files, resolvers: Some(resolvers.clone()) };
                Ok(resolvers)
            }
            Err(cause) => current.resolvers.clone().ok_or(cause),
        }
    }
}

impl Resolvers {
    fn new(file: &Path) -> Result<Self, String> {
        let resolv = resolv(file)?;
        let of = |strategy| resolv.resolver(strategy).map_err(|e| format!("{}: {e}", file.display()));
        let (v4, v6) = (of(LookupIpStrategy::Ipv4Only)?, of(LookupIpStrategy::Ipv6Only)?);
        Ok(Resolvers { servers: resolv.servers.clone(), v4, v6 })
    }
}

/// The settings of `resolv.conf(5)` that are used. Names here are always absolute, so search domains are not
/// needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolv {
    /// In order; never empty.
    servers: Vec<IpAddr>,
    attempts: Option<usize>,
}

impl Resolv {
    /// Reads the text of the file. Malformed lines are skipped, as in the C library.
    pub(crate) fn parse(text: &str) -> Self {
        let mut resolv = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A scope follows a percent sign.
                    let word = words.next().unwrap_or_default();
                    let address = word.split('%').next().and_then(|address| address.parse::<IpAddr>().ok());
                    resolv.servers.extend(address);
                }
                Some("options") => {
                    let mut attempts = words.filter_map(|word| word.strip_prefix("attempts:")?.parse().ok());
                    resolv.attempts = attempts.next_back().or(resolv.attempts);
                }
                _ => {}
            }
        }
        resolv.servers.dedup();
        if resolv.servers.is_empty() {
            resolv.servers.push(LOCAL);
        }
        resolv
    }

    fn resolver(&self, strategy: LookupIpStrategy) -> Result<TokioResolver, NetError> {
        let servers = self.servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = DNS_TIMEOUT;
        options.negative_max_ttl = Some(ABSENT);
        options.ip_strategy = strategy;
        // The C library's bounds.
        options.attempts = self.attempts.map_or(options.attempts, |attempts| attempts.clamp(1, 5));
        builder.build()
    }
}

/// Reads `resolv.conf` from `file`; without one, the DNS server is this host.
fn resolv(file: &Path) -> Result<Resolv, String> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Resolv::parse(&String::from_utf8_lossy(&bytes))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Resolv::parse("")),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

type Found = Result<Timed<Vec<IpAddr>>, NetError>;

/// Combines two lookups: the addresses of the first usable answer, and those of the other if it follows soon.
async fn usable(one: impl Future<Output = Found>, other: impl Future<Output = Found>) -> Found {
    pin!(one, other);
    let (first, second) = tokio::select! {
        first = &mut one => {
            let second = late(&first, other).await;
            (first, second)
        }
        first = &mut other => {
            let second = late(&first, one).await;
            (first, second)
        }
    };
    match (first, second) {
        (Ok((mut addresses, until)), Some(Ok((more, also)))) => {
            addresses.extend(more);
            Ok((addresses, until.min(also)))
        }
        (Ok(first), _) => Ok(first),
        (Err(_), Some(second)) => second,
        (Err(error), None) => Err(error),
    }
}

async fn late(first: &Found, second: impl Future<Output = Found>) -> Option<Found> {
    match first {
        Ok(_) => timeout(OTHER_FAMILY, second).await.ok(),
        Err(_) => Some(second.await),
    }
}

async fn addresses_by(resolver: &TokioResolver, host: &str) -> Found {
    let answer = resolver.lookup_ip(absolute(host)).await?;
    Ok((answer.iter().collect(), Instant::from_std(answer.valid_until())))
}

impl Network {
    /// Returns the SRV records of `name`; the error is the cause, and whether DNS answered that there are
    /// none.
    async fn records(&self, name: &str) -> Result<Timed<Vec<Srv>>, (String, bool)> {
        let resolvers = self.resolvers().map_err(|cause| (cause, false))?;
        let answer = resolvers.v4.srv_lookup(absolute(name)).await;
        let none = |why: &str| format!("no SRV records {name}: {why}");
        let answer = answer.map_err(|e| (none(&words(&e, &resolvers.servers)), e.is_no_records_found()))?;
        let records: Vec<_> = answer.answers().iter().filter_map(|answer| Srv::of(&answer.data)).collect();
        match records.is_empty() {
            true => Err((none("DNS says that there is no such service"), true)),
            false => Ok((records, Instant::from_std(answer.valid_until()))),
        }
    }
}

impl Names for Network {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
        Box::pin(async move { self.records(name).await.map_err(|(cause, _)| cause) })
    }

    fn srv_or<'a>(&'a self, name: &'a str, other: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
        Box::pin(async move {
            match self.records(name).await {
                // If DNS did not answer, it is not queried a second time.
                Err((cause, is_absent)) if is_absent => self.records(other).await.map_err(|_| cause),
                found => found.map_err(|(cause, _)| cause),
            }
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>> {
        Box::pin(async move {
            let resolvers = self.resolvers()?;
            let Resolvers { servers, v4, v6 } = resolvers.as_ref();
            let found = usable(addresses_by(v4, host), addresses_by(v6, host)).await;
            found.map_err(|e| format!("no address of {host}: {}", words(&e, servers)))
        })
    }

    fn site<'a>(&'a self, domain: &'a str, addresses: Vec<IpAddr>) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            let mut asked = JoinSet::new();
            for ip in addresses {
                asked.spawn(ping(domain.to_owned(), SocketAddr::new(ip, LDAP)));
            }
            let first = async {
                while let Some(answer) = asked.join_next().await {
                    if let Ok(Some(site)) = answer {
                        return Some(site);
                    }
                }
                None
            };
            timeout(PING, first).await.ok().flatten()
        })
    }

    fn reached(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, Option<IpAddr>> {
        let mut trying = JoinSet::new();
        for address in addresses {
            trying.spawn(async move { TcpStream::connect(address).await.map(|_| address.ip()) });
        }
        Box::pin(async move {
            let first = async {
                while let Some(tried) = trying.join_next().await {
                    if let Ok(Ok(ip)) = tried {
                        return Some(ip);
                    }
                }
                None
            };
            timeout(REACH, first).await.ok().flatten()
        })
    }
}

/// Returns the DNS servers of `/etc/resolv.conf` in order, or this host if the file names none.
///
/// # Errors
/// Returns a text for the administrator if the file exists but cannot be read.
pub fn configured() -> Result<Vec<IpAddr>, String> {
    Ok(resolv(Path::new(RESOLV_CONF))?.servers)
}

/// Returns true if the DNS server `server` itself knows `domain`.
///
/// # Errors
/// Returns a text for the administrator if the server did not answer.
pub async fn knows(server: IpAddr, domain: &str) -> Result<bool, String> {
    let config = ResolverConfig::from_name_servers(vec![NameServerConfig::udp_and_tcp(server)]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    (builder.options_mut().timeout, builder.options_mut().attempts) = (DNS_TIMEOUT, 1);
    let resolver = builder.build().map_err(|e| e.to_string())?;
    match resolver.lookup(absolute(domain), RecordType::SOA).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_no_records_found() => Ok(false),
        Err(error) => Err(words(&error, &[server])),
    }
}

/// Sends one netlogon ping (MS-ADTS 6.3.3): a search of the rootDSE over UDP.
fn ping(domain: String, address: SocketAddr) -> impl Future<Output = Option<String>> {
    const ID: i64 = 1;
    async move {
        let request = ldap::root_search(ID, &netlogon::filter(&domain), &["Netlogon"]).ok()?;
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        // The kernel drops datagrams from other addresses.
        socket.connect(address).await.ok()?;
        socket.send(&request).await.ok()?;
        let mut datagram = vec![0; DATAGRAM];
        let length = socket.recv(&mut datagram).await.ok()?;
        let entry = Entry::decode(ldap::entry_of_datagram(datagram.get(..length)?, ID).ok()?).ok()?;
        netlogon::client_site(entry.bytes("Netlogon").ok()??)
    }
}

/// Explains a failed lookup at `servers` to an administrator. The library's own text shows its data
/// structures.
fn words(error: &NetError, servers: &[IpAddr]) -> String {
    let named = || {
        let list = servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        format!("{} {list}", if servers.len() == 1 { "the DNS server" } else { "none of the DNS servers" })
    };
    let answers = if servers.len() == 1 { "does not answer" } else { "answers" };
    let reached = if servers.len() == 1 { "cannot be reached" } else { "can be reached" };
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "DNS does not know the name".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "DNS knows the name without such a record".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server answers \"{code}\""),
        NetError::Timeout => format!("{} {answers}", named()),
        NetError::NoConnections => format!("{} {reached}", named()),
        NetError::Io(error) => format!("{} {reached}: {error}", named()),
        other => other.to_string(),
    }
}

/// Adds the final dot, so that no search domain of `resolv.conf` is tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::Name;

    use super::*;

    #[test]
    fn both_files_are_followed_and_one_that_cannot_be_read_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [resolv, hosts] = ["resolv.conf", "hosts"].map(|name| folder.path().join(name));
        std::fs::write(&resolv, "nameserver 192.0.2.1\n").unwrap();
        let network = Network::of(&resolv, &hosts);
        assert_eq!(network.changed(), None);
        let first = network.resolvers().unwrap();
        assert!(Arc::ptr_eq(&first, &network.resolvers().unwrap()));
        for (file, text) in [(&resolv, "nameserver 192.0.2.22\n"), (&hosts, "192.0.2.3 ad\n")] {
            let before = network.resolvers().unwrap();
            std::fs::write(file, text).unwrap();
            assert_eq!(network.changed().as_ref(), Some(file));
            assert_eq!(network.changed(), None, "told once");
            assert!(!Arc::ptr_eq(&before, &network.resolvers().unwrap()), "{}", file.display());
        }
        let last = network.resolvers().unwrap();
        std::fs::remove_file(&resolv).unwrap();
        std::fs::create_dir(&resolv).unwrap();
        assert!(network.changed().is_some());
        assert!(Arc::ptr_eq(&last, &network.resolvers().unwrap()));
        assert!(Network::of(&resolv, &hosts).resolvers().is_err());
    }

    #[test]
    fn what_dns_says_is_told_in_words() {
        let none = |code| {
            let name = Name::from_ascii("_ldap._tcp.dc._msdcs.acme.com.").unwrap();
            NetError::Dns(DnsError::NoRecordsFound(NoRecords::new(Query::query(name, RecordType::SRV), code)))
        };
        let unreachable = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for (error, expected) in [
            (none(ResponseCode::NXDomain), "DNS does not know the name"),
            (none(ResponseCode::NoError), "DNS knows the name without such a record"),
            (
                NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)),
                "the DNS server answers \"Server Failure\"",
            ),
            (NetError::Timeout, "the DNS server 8.8.8.8 does not answer"),
            (
                NetError::Io(unreachable.into()),
                "the DNS server 8.8.8.8 cannot be reached: connection refused",
            ),
        ] {
            assert_eq!(words(&error, &["8.8.8.8".parse().unwrap()]), expected);
        }
        let two = ["8.8.8.8".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let expected = "none of the DNS servers 8.8.8.8, 10.0.0.1 answers";
        assert_eq!(words(&NetError::Timeout, &two), expected);
    }

    #[test]
    fn resolv_conf_is_read_as_its_manual_says() {
        let of = |servers: &[&str]| servers.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (text, servers) in [
            ("", of(&["127.0.0.1"])),
            ("search acme.com\n", of(&["127.0.0.1"])),
            ("search acme..com -x- --\nnameserver 10.0.0.1\n", of(&["10.0.0.1"])),
            (
                "domain acme..com\nnameserver 10.0.0.1 # dc\nnameserver fe80::1%eth0\n",
                of(&["10.0.0.1", "fe80::1"]),
            ),
            (
                "; x\n#nameserver 10.0.0.9\nnameserver dc1\nnameserver\nnameserver 10.0.0.2\r\n",
                of(&["10.0.0.2"]),
            ),
        ] {
            assert_eq!(Resolv::parse(text).servers, servers, "{text}");
        }
        assert_eq!(Resolv::parse("options rotate attempts:3 unheard-of\n").attempts, Some(3));
        Resolv::parse("search acme..com\n").resolver(LookupIpStrategy::Ipv4Only).unwrap();
    }

    type Answer = fn() -> Found;

    fn found(address: &str, seconds: u64) -> Found {
        Ok((vec![address.parse().unwrap()], Instant::now() + Duration::from_secs(seconds)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_usable_answer_wins_and_the_other_family_may_follow_soon() {
        let begun = Instant::now();
        let soon = |answer: Answer, ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            answer()
        };
        let (v4, v6): (Answer, Answer) = (|| found("10.0.0.1", 9), || found("fd00::1", 5));
        let none: Answer = || Err(NetError::Timeout);
        let ips = |found: Found| found.unwrap().0.iter().map(IpAddr::to_string).collect::<Vec<_>>();

        // The AAAA query is never answered; then the A query is not.
        assert_eq!(ips(usable(ready(v4()), pending()).await), ["10.0.0.1"]);
        assert_eq!(ips(usable(pending(), ready(v6())).await), ["fd00::1"]);
        assert_eq!(begun.elapsed(), 2 * OTHER_FAMILY);
        let both = usable(soon(v4, 10), soon(v6, 40)).await;
        assert_eq!(ips(both), ["10.0.0.1", "fd00::1"]);
        assert_eq!(ips(usable(soon(v4, 900), soon(v6, 10)).await), ["fd00::1"]);
        // An answer without addresses does not end the wait for the other family.
        assert_eq!(ips(usable(soon(v4, 900), ready(none())).await), ["10.0.0.1"]);
        assert_eq!(ips(usable(ready(none()), soon(v6, 900)).await), ["fd00::1"]);
        assert!(usable(soon(none, 900), ready(none())).await.is_err());
        let until = usable(ready(v4()), ready(v6())).await.unwrap().1;
        assert_eq!(until, Instant::now() + Duration::from_secs(5));
    }
}
