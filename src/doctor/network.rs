//! DNS: its servers, what they say of the domain, and this host's own name.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use super::command;
use super::facts::{Facts, beside};
use super::finding::{Finding, Level, Part, quote};
use crate::directory::discovery::{BY_DNS, Role};
use crate::directory::dns;
use crate::directory::domains::dns_name;

/// What puts the records of domain controllers into DNS again.
const REGISTER: (&str, &str) = ("nltest /dsregdns", "samba_dnsupdate --use-samba-tool");

/// Every server is asked by itself: where the first is dead, each look-up waits for it.
pub(super) async fn resolver(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let domain = &config.domain.name;
    let mend = |finding: Finding, address: Option<String>| match address {
        Some(address) => {
            finding.mend(format!("printf 'search {domain}\\nnameserver {address}\\n' >/etc/resolv.conf"))
        }
        None => finding,
    };
    let servers = match dns::configured() {
        Ok(servers) => servers,
        Err(cause) => return mend(Finding::failure(cause), known_address(facts).await),
    };
    let asking = servers.iter().map(|server| {
        let (server, domain) = (*server, domain.clone());
        async move { (server, dns::knows(server, &domain).await) }
    });
    let parts = beside(asking.collect::<Vec<_>>()).await.into_iter().map(|(server, answer)| {
        let (level, seen) = match answer {
            Ok(true) => (Level::Ok, format!("knows {domain}")),
            Ok(false) => (Level::Failure, format!("answers and does not know {domain}")),
            Err(cause) => (Level::Failure, format!("does not answer: {cause}")),
        };
        Part { subject: server.to_string(), level, seen }
    });
    let finding = Finding::of_parts(parts.collect());
    match finding.level {
        Level::Ok => finding,
        // The one that works is the one to keep.
        Level::Warning => {
            let good =
                finding.parts.iter().find(|part| part.level == Level::Ok).map(|part| part.subject.clone());
            mend(finding, good)
        }
        _ => mend(finding, known_address(facts).await),
    }
}

/// An address of a domain controller, which is a DNS server too as a rule: as the broker or SSSD last knew it.
async fn known_address(facts: &Facts) -> Option<String> {
    if let Ok(status) = facts.status().await
        && let Some(address) = status.servers.list.iter().flat_map(|server| &server.addresses).next()
    {
        return Some(address.clone());
    }
    let realm = &facts.config().await?.domain.realm;
    let kept = std::fs::read_to_string(facts.path(format!("/var/lib/sss/pubconf/kdcinfo.{realm}"))).ok()?;
    let first = kept.lines().next()?.trim();
    let plain = first.parse::<IpAddr>().ok().or_else(|| first.parse::<SocketAddr>().ok().map(|at| at.ip()));
    plain.map(|ip| ip.to_string())
}

/// The records by which the broker finds the domain controllers.
pub(super) async fn srv_ldap(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let servers = &config.domain.servers;
    let needed = servers.is_empty() || servers.iter().any(|server| server == BY_DNS);
    let finding = srv(facts, &Role::Domain.srv(&config.domain.name, None), needed).await;
    let plain = Role::Domain.plain_srv(&config.domain.name, None);
    match (finding.level, facts.names().srv(&plain).await) {
        // The broker takes them instead.
        (Level::Failure, Ok(_)) => {
            let seen = format!("{}; {plain} is there and used instead", finding.seen);
            Finding { level: Level::Warning, seen, ..finding }
        }
        _ => finding,
    }
}

/// Those by which SSSD, adcli and kinit find a KDC. The broker asks the domain controllers that it knows.
pub(super) async fn srv_kerberos(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    srv(facts, &format!("_kerberos._tcp.{}", config.domain.name), false).await
}

/// Those of the global catalogues, where people of the forest's other domains are found.
pub(super) async fn srv_gc(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let root = facts.answering().await.into_iter().find_map(|survey| survey.root.as_ref().ok());
    let forest = root.map(|root| dns_name(&root.forest)).filter(|forest| !forest.is_empty());
    let forest = forest.unwrap_or_else(|| config.domain.name.clone());
    srv(facts, &Role::GlobalCatalogue.srv(&forest, None), false).await
}

async fn srv(facts: &Facts, name: &str, needed: bool) -> Finding {
    match facts.names().srv(name).await {
        Ok((records, _)) => {
            let hosts = records.into_iter().map(|record| record.host).collect::<Vec<_>>();
            Finding::ok(hosts.join(", "))
        }
        Err(cause) => {
            let finding = if needed { Finding::failure(cause) } else { Finding::warning(cause) };
            finding.mend_there(REGISTER.0, REGISTER.1)
        }
    }
}

/// Every domain controller that is named has an address.
pub(super) async fn addresses(facts: &Facts) -> Finding {
    let controllers = match facts.controllers().await {
        Ok(controllers) => controllers,
        Err(cause) => return Finding::failure(cause).mend_there(REGISTER.0, REGISTER.1),
    };
    let parts = controllers.iter().map(|controller| {
        let addresses = controller.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let (level, seen) = match addresses.is_empty() {
            true => (Level::Failure, "DNS knows no address".to_owned()),
            false => (Level::Ok, addresses.join(", ")),
        };
        Part { subject: controller.host.clone(), level, seen }
    });
    let finding = Finding::of_parts(parts.collect());
    match finding.level {
        Level::Ok => finding,
        _ => finding.mend_there("ipconfig /registerdns", REGISTER.1),
    }
}

/// Not needed by the broker; but much that is run by administrators goes by it.
pub(super) async fn own_name(facts: &Facts) -> Finding {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default().to_owned();
    let domain = facts.domain().await;
    let full = if name.contains('.') { name.clone() } else { format!("{name}.{domain}") };
    let Some(address) = own_address(facts).await else {
        return Finding::skipped("no domain controller is known to reach from here");
    };
    let getent = |what: String| async move {
        let answer = command::ask("getent", &["hosts", &what]).await;
        answer.map(|answer| answer.out).unwrap_or_default()
    };
    let mend = format!("printf '%s\\n' {} >>/etc/hosts", quote(&format!("{address} {full} {short}")));
    if getent(full.clone()).await.trim().is_empty() {
        return Finding::warning(format!("{full}, this host's own name, does not resolve")).mend(mend);
    }
    let reverse = getent(address.to_string()).await;
    let names: Vec<_> = reverse.split_whitespace().skip(1).map(str::to_lowercase).collect();
    match names.iter().any(|known| *known == full.to_lowercase() || *known == short.to_lowercase()) {
        true => Finding::ok(format!("{full} is {address}, and back")),
        false if names.is_empty() => {
            Finding::warning(format!("{address}, this host's own address, has no name")).mend(mend)
        }
        false => Finding::warning(format!(
            "{address}, this host's own address, is {}, not {full}",
            names.join(", ")
        ))
        .mend(mend),
    }
}

/// The address that this host has towards the first domain controller. Nothing is sent.
async fn own_address(facts: &Facts) -> Option<IpAddr> {
    let controllers = facts.controllers().await.as_deref().ok()?;
    let theirs = controllers.iter().flat_map(|controller| &controller.addresses).next()?;
    let any = if theirs.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(SocketAddr::new(*theirs, 389)).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}
