//! What a support case needs to know about the network: the answers of DNS and the certificates, as text.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::facts::Facts;
use crate::directory::controllers::discovery::Role;
use crate::directory::controllers::dns::Names;
use crate::directory::passwords::bind::Unusable;

/// Time limit of one query to DNS.
const QUERY: Duration = Duration::from_secs(3);

/// Returns the SRV records of the domain and the addresses of the hosts that they name.
pub(super) async fn dns(facts: &Facts) -> String {
    let domain = facts.domain().await;
    let names = [
        Role::Domain.srv(&domain, None),
        Role::Domain.plain_srv(&domain, None),
        Role::GlobalCatalogue.srv(&domain, None),
        format!("_kerberos._tcp.{domain}"),
        format!("_kpasswd._tcp.{domain}"),
    ];
    let mut text = String::new();
    let mut hosts = Vec::new();
    for (name, answer) in all(facts.names(), names, records).await {
        let _ = writeln!(text, "SRV {name}");
        match answer {
            Ok(records) => {
                for (line, host) in records {
                    let _ = writeln!(text, "  {line}");
                    hosts.push(host);
                }
            }
            Err(cause) => {
                let _ = writeln!(text, "  {cause}");
            }
        }
    }
    hosts.sort();
    hosts.dedup();
    for (host, answer) in all(facts.names(), hosts, addresses).await {
        let _ = writeln!(text, "A, AAAA {host}\n  {}", answer.unwrap_or_else(|cause| cause));
    }
    text
}

/// Queries for each name at the same time, and returns the answers in the order of the names.
async fn all<T, F>(
    dns: &Arc<dyn Names>,
    names: impl IntoIterator<Item = String>,
    query: impl Fn(Arc<dyn Names>, String) -> F,
) -> Vec<(String, Result<T, String>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (place, name) in names.into_iter().enumerate() {
        let query = query(dns.clone(), name.clone());
        running.spawn(async move {
            let answer = timeout(QUERY, query).await;
            (place, name, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
    }
    let mut answers = running.join_all().await;
    answers.sort_by_key(|(place, ..)| *place);
    answers.into_iter().map(|(_, name, answer)| (name, answer)).collect()
}

/// Returns each SRV record with its host.
async fn records(dns: Arc<dyn Names>, name: String) -> Result<Vec<(String, String)>, String> {
    let (records, _) = dns.srv(&name).await?;
    let line = |srv: &crate::directory::controllers::dns::Srv| {
        format!("{} {} {}", srv.priority, srv.weight, srv.host)
    };
    Ok(records.iter().map(|srv| (line(srv), srv.host.clone())).collect())
}

async fn addresses(dns: Arc<dyn Names>, host: String) -> Result<String, String> {
    let (addresses, _) = dns.addresses(&host).await?;
    Ok(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Returns the certificate that each domain controller showed, and the roots that the broker trusts.
pub(super) async fn certificates(facts: &Facts) -> String {
    let mut text = String::new();
    for (host, tls) in facts.tls().await {
        let _ = writeln!(text, "{host}");
        if let Some(certificate) = &tls.certificate {
            let _ = writeln!(text, "  subject     {}", certificate.subject);
            let _ = writeln!(text, "  issuer      {}", certificate.issuer);
            let _ = writeln!(text, "  names       {}", certificate.names.join(", "));
            let _ = writeln!(text, "  not before  {}", moment(certificate.not_before));
            let _ = writeln!(text, "  not after   {}", moment(certificate.not_after));
        }
        let problem = tls.problem.as_ref().map_or("none", Unusable::cause);
        let _ = writeln!(text, "  problem     {problem}");
    }
    match facts.status().await {
        Ok(status) => {
            let _ = writeln!(text, "roots of the broker: {}", status.trust.source);
            for root in &status.trust.roots {
                let seconds = |at: u64| moment(i64::try_from(at).unwrap_or(i64::MAX));
                let _ = writeln!(
                    text,
                    "  {}\n    SHA-256     {}\n    not before  {}\n    not after   {}",
                    root.subject,
                    root.sha256,
                    seconds(root.not_before),
                    seconds(root.not_after)
                );
            }
        }
        Err(error) => {
            let _ = writeln!(text, "roots of the broker: {error}");
        }
    }
    text
}

fn moment(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "after the year 9999".to_owned())
}
