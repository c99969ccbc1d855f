//! The domain controllers: which there are, where they are, and which of them answer.
//!
//! They come from the configuration, else from DNS SRV (MS-ADTS 6.3.6). A domain controller that failed is tried
//! last for a while; it is never forgotten, because a last resort is better than none.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use once_cell::sync::OnceCell;
use tokio::time::Instant;

use super::machine::{BoxFuture, Server, Servers};
use crate::protocol::report;

/// Plain LDAP, with StartTLS or sealed by Kerberos.
pub(super) const LDAP: u16 = 389;

/// How long a domain controller that failed is tried last.
const PENALTY: Duration = Duration::from_secs(15);
/// How long the last good list is used while DNS does not answer.
const STALE: Duration = Duration::from_secs(30);
/// The longest time for which a list is used without asking DNS again.
const FRESH: Duration = Duration::from_secs(3600);
/// One question to one DNS server.
const DNS_TIMEOUT: Duration = Duration::from_secs(1);

/// The domain controllers of one domain.
pub struct ServerList {
    domain: String,
    configured: Vec<String>,
    /// Made when it is first needed. It follows no change of `/etc/resolv.conf`: the broker starts again then.
    resolver: OnceCell<TokioResolver>,
    found: tokio::sync::Mutex<Option<Found>>,
    marks: Mutex<HashMap<String, Mark>>,
}

struct Found {
    records: Vec<Srv>,
    until: Instant,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Srv {
    priority: u16,
    weight: u16,
    host: String,
}

#[derive(Clone)]
enum Mark {
    Answers,
    Failed { until: Instant, cause: String },
}

impl ServerList {
    /// The domain controllers of `domain`: `configured` in its order, or what DNS says where it is empty.
    pub fn new(domain: &str, configured: &[String]) -> Self {
        ServerList {
            domain: domain.to_owned(),
            configured: configured.to_vec(),
            resolver: OnceCell::new(),
            found: tokio::sync::Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// The domain controllers by DNS name in the order to try.
    ///
    /// # Errors
    /// DNS names none and none is configured; the text says why.
    pub async fn hosts(&self) -> Result<Vec<String>, String> {
        let mut hosts = match self.configured.is_empty() {
            true => order(self.discover().await?, |below| fastrand::u32(..below)),
            false => self.configured.clone(),
        };
        let (marks, now) = (self.marks(), Instant::now());
        let failed =
            |host: &String| matches!(marks.get(host), Some(Mark::Failed { until, .. }) if *until > now);
        hosts.sort_by_key(failed);
        Ok(hosts)
    }

    /// The addresses of `host`.
    ///
    /// # Errors
    /// DNS does not know it.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let found = self.resolver()?.lookup_ip(absolute(host)).await;
        Ok(found.map_err(|e| format!("DNS does not resolve {host}: {e}"))?.iter().collect())
    }

    /// `host` did not answer, or not as a domain controller should.
    pub fn failed(&self, host: &str, cause: &str) {
        let mark = Mark::Failed { until: Instant::now() + PENALTY, cause: cause.to_owned() };
        self.marks().insert(host.to_owned(), mark);
    }

    /// `host` answered.
    pub fn answered(&self, host: &str) {
        if !matches!(self.marks().get(host), Some(Mark::Answers)) {
            self.marks().insert(host.to_owned(), Mark::Answers);
        }
    }

    /// Every known domain controller, for people.
    pub async fn report(&self) -> Vec<report::Server> {
        let mut hosts = self.configured.clone();
        if hosts.is_empty()
            && let Ok(found) = self.found.try_lock()
        {
            hosts.extend(found.iter().flat_map(|found| &found.records).map(|record| record.host.clone()));
        }
        let marks = self.marks();
        let state = |host: &String| match marks.get(host) {
            None => "unknown".to_owned(),
            Some(Mark::Answers) => "ok".to_owned(),
            Some(Mark::Failed { cause, .. }) => cause.clone(),
        };
        hosts.into_iter().map(|host| report::Server { state: state(&host), host }).collect()
    }

    async fn discover(&self) -> Result<Vec<Srv>, String> {
        // Held over the question, so that one asks and the others wait for the answer.
        let mut found = self.found.lock().await;
        let now = Instant::now();
        if let Some(found) = found.as_ref().filter(|found| found.until > now) {
            return Ok(found.records.clone());
        }
        match self.ask_dns().await {
            Ok(fresh) => {
                let records = fresh.records.clone();
                *found = Some(fresh);
                Ok(records)
            }
            Err(cause) => match found.as_mut() {
                Some(last) => {
                    last.until = now + STALE;
                    Ok(last.records.clone())
                }
                None => Err(cause),
            },
        }
    }

    async fn ask_dns(&self) -> Result<Found, String> {
        let name = format!("_ldap._tcp.dc._msdcs.{}", self.domain);
        let answer = self.resolver()?.srv_lookup(absolute(&name)).await;
        let answer = answer.map_err(|e| format!("DNS has no SRV records {name}: {e}"))?;
        let records: Vec<_> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_utf8().trim_end_matches('.').to_lowercase(),
                }),
                _ => None,
            })
            // A target of "." says that there is no such service (RFC 2782).
            .filter(|srv| !srv.host.is_empty())
            .collect();
        if records.is_empty() {
            return Err(format!("DNS has no SRV records {name}"));
        }
        let until = Instant::from_std(answer.valid_until()).min(Instant::now() + FRESH);
        Ok(Found { records, until })
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        self.resolver.get_or_try_init(|| {
            let text = |e| format!("/etc/resolv.conf: {e}");
            let mut builder = TokioResolver::builder_tokio().map_err(text)?;
            builder.options_mut().timeout = DNS_TIMEOUT;
            builder.build().map_err(text)
        })
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<String, Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Servers for ServerList {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        Box::pin(async {
            let mut servers = Vec::new();
            let mut causes = Vec::new();
            for host in self.hosts().await? {
                match self.addresses(&host).await {
                    Ok(addresses) => {
                        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, LDAP)).collect();
                        servers.push(Server { host, addresses });
                    }
                    Err(cause) => {
                        self.failed(&host, &cause);
                        causes.push(cause);
                    }
                }
            }
            if servers.is_empty() { Err(causes.join("; ")) } else { Ok(servers) }
        })
    }

    fn failed(&self, server: &Server, cause: &str) {
        ServerList::failed(self, &server.host, cause);
    }
}

/// With its final dot, so that no search domain of `resolv.conf` is tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

/// The order in which a client contacts the targets (RFC 2782): by priority, and by chance in proportion to their
/// weight within one. `below` is a source of random numbers from 0 to below its argument.
fn order(mut records: Vec<Srv>, mut below: impl FnMut(u32) -> u32) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::with_capacity(records.len());
    while let Some(priority) = records.iter().map(|record| record.priority).min() {
        let peers = || records.iter().enumerate().filter(|(_, record)| record.priority == priority);
        // One more than its weight each, so that weight 0 keeps a small chance.
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
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, host: &str) -> Srv {
        Srv { priority, weight, host: host.to_owned() }
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

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_is_tried_last_for_a_while() {
        let hosts = ["a", "b", "c"].map(str::to_owned);
        let list = ServerList::new("acme.com", &hosts);
        list.answered("b");
        list.failed("a", "refused");
        assert_eq!(list.hosts().await.unwrap(), ["b", "c", "a"]);
        let states: Vec<_> = list.report().await.into_iter().map(|server| server.state).collect();
        assert_eq!(states, ["refused", "ok", "unknown"]);
        tokio::time::advance(PENALTY).await;
        assert_eq!(list.hosts().await.unwrap(), ["a", "b", "c"]);
    }
}
