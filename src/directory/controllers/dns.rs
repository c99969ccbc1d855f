//! What DNS and the domain controllers' own pings tell about where domain controllers are.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use once_cell::sync::OnceCell;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::directory::Entry;
use crate::directory::machine::BoxFuture;
use crate::directory::netlogon;
use crate::directory::servers::LDAP;
use crate::ldap;

/// One question to one DNS server.
const DNS_TIMEOUT: Duration = Duration::from_secs(1);
/// A name that DNS does not know is asked for again after this time. Its servers say how long they want it to be
/// believed, an hour as a rule: so long a record that is there again would be missed.
const ABSENT: Duration = Duration::from_secs(10);
/// One ping.
const PING: Duration = Duration::from_millis(500);
/// The longest datagram that is read; an answer has some 200 bytes.
const DATAGRAM: usize = 4096;

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is contacted first.
    pub priority: u16,
    /// Share of the chances among records of one priority.
    pub weight: u16,
    /// Target, in lower case and without its final dot.
    pub host: String,
}

/// An answer, and until when it is good.
pub type Timed<T> = (T, Instant);

/// Who is asked where domain controllers are; the errors are for people.
pub trait Names: Send + Sync + 'static {
    /// The SRV records of `name`; never none.
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>>;
    /// The addresses of `host`; never none.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>>;
    /// The site that we are in, as the first of `addresses` to answer a netlogon ping for `domain` says; empty where
    /// AD knows none.
    fn site<'a>(&'a self, domain: &'a str, addresses: Vec<IpAddr>) -> BoxFuture<'a, Option<String>>;
}

/// The system's DNS (`/etc/resolv.conf`), and pings by CLDAP.
#[derive(Default)]
pub struct Network {
    /// Made when it is first needed. It follows no change of `/etc/resolv.conf`: the broker starts again then.
    resolver: OnceCell<TokioResolver>,
}

impl Network {
    fn resolver(&self) -> Result<&TokioResolver, String> {
        self.resolver.get_or_try_init(|| {
            let text = |e| format!("/etc/resolv.conf: {e}");
            let mut builder = TokioResolver::builder_tokio().map_err(text)?;
            builder.options_mut().timeout = DNS_TIMEOUT;
            builder.options_mut().negative_max_ttl = Some(ABSENT);
            builder.build().map_err(text)
        })
    }
}

impl Names for Network {
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Timed<Vec<Srv>>, String>> {
        Box::pin(async move {
            let answer = self.resolver()?.srv_lookup(absolute(name)).await;
            let answer = answer.map_err(|e| format!("no SRV records {name}: {}", words(&e)))?;
            let record = |data: &RData| match data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_utf8().trim_end_matches('.').to_lowercase(),
                }),
                _ => None,
            };
            // A target of "." says that there is no such service (RFC 2782).
            let records = answer.answers().iter().filter_map(|answer| record(&answer.data));
            let records: Vec<_> = records.filter(|srv| !srv.host.is_empty()).collect();
            match records.is_empty() {
                true => Err(format!("DNS has no SRV records {name}")),
                false => Ok((records, Instant::from_std(answer.valid_until()))),
            }
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Timed<Vec<IpAddr>>, String>> {
        Box::pin(async move {
            let answer = self.resolver()?.lookup_ip(absolute(host)).await;
            let answer = answer.map_err(|e| format!("no address of {host}: {}", words(&e)))?;
            Ok((answer.iter().collect(), Instant::from_std(answer.valid_until())))
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
}

/// The DNS servers of `/etc/resolv.conf`, in order.
///
/// # Errors
/// The file names none or cannot be read; the text is for people.
pub fn configured() -> Result<Vec<IpAddr>, String> {
    let (config, _) = read_system_conf().map_err(|e| format!("/etc/resolv.conf: {e}"))?;
    let mut servers: Vec<_> = config.name_servers().iter().map(|server| server.ip).collect();
    servers.dedup();
    Ok(servers)
}

/// Whether the DNS server `server` by itself knows `domain`.
///
/// # Errors
/// It did not answer; the text is for people.
pub async fn knows(server: IpAddr, domain: &str) -> Result<bool, String> {
    let config = ResolverConfig::from_name_servers(vec![NameServerConfig::udp_and_tcp(server)]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    (builder.options_mut().timeout, builder.options_mut().attempts) = (DNS_TIMEOUT, 1);
    let resolver = builder.build().map_err(|e| e.to_string())?;
    match resolver.lookup(absolute(domain), RecordType::SOA).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_no_records_found() => Ok(false),
        Err(error) => Err(words(&error)),
    }
}

/// One ping (MS-ADTS 6.3.3): a search of the rootDSE over UDP.
fn ping(domain: String, address: SocketAddr) -> impl Future<Output = Option<String>> {
    const ID: i64 = 1;
    async move {
        let request = ldap::root_search(ID, &netlogon::filter(&domain), &["Netlogon"]).ok()?;
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        // The kernel drops what comes from elsewhere.
        socket.connect(address).await.ok()?;
        socket.send(&request).await.ok()?;
        let mut datagram = vec![0; DATAGRAM];
        let length = socket.recv(&mut datagram).await.ok()?;
        let entry = Entry::decode(ldap::entry_of_datagram(datagram.get(..length)?, ID).ok()?).ok()?;
        netlogon::client_site(entry.bytes("Netlogon").ok()??)
    }
}

/// What a failed lookup means to an administrator. The library's own text shows its data structures.
fn words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "DNS does not know the name".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "DNS knows the name without such a record".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server answers \"{code}\""),
        NetError::Timeout => "no DNS server answers".to_owned(),
        NetError::NoConnections => "no DNS server can be reached".to_owned(),
        NetError::Io(error) => format!("no DNS server can be reached: {error}"),
        other => other.to_string(),
    }
}

/// With its final dot, so that no search domain of `resolv.conf` is tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::Name;

    use super::*;

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
            (NetError::Timeout, "no DNS server answers"),
            (NetError::Io(unreachable.into()), "no DNS server can be reached: connection refused"),
        ] {
            assert_eq!(words(&error), expected);
        }
    }
}
