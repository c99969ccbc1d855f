//! DNS: its servers, their records of the domain, and this host's own name.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::command;
use super::commands;
use super::commands::Place;
use super::facts::{Facts, beside};
use super::finding::{Finding, Level, Part};
use crate::directory::controllers::discovery::{BY_DNS, Role};
use crate::directory::controllers::dns;
use crate::directory::controllers::domains::dns_name;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Ports of which at least one answers on a host that is up: DNS, Kerberos, LDAP.
const PORTS: [u16; 3] = [53, 88, 389];
/// Time that a host has to accept or refuse a connection.
const REACHED: Duration = Duration::from_secs(1);

/// Queries each DNS server separately, because every lookup waits for the first one if that is dead.
pub(super) async fn resolver(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let domain = &config.domain.name;
    let servers = match dns::configured() {
        Ok(servers) => servers,
        Err(cause) => return Finding::failure(cause).advise(Place::Here, set_servers(facts, domain)),
    };
    let asking = servers.iter().map(|server| {
        let (server, domain) = (*server, domain.clone());
        async move {
            let answer = dns::knows(server, &domain).await;
            let is_there = answer.is_ok() || is_there(server).await;
            (server, answer, is_there)
        }
    });
    let asked = beside(asking.collect::<Vec<_>>()).await;
    let gone = asked.iter().find(|(_, _, is_there)| !is_there).map(|(server, ..)| server.to_string());
    let parts = asked.into_iter().map(|(server, answer, is_there)| {
        let (level, seen) = match answer {
            Ok(true) => (Level::Ok, format!("knows {domain}")),
            Ok(false) => (Level::Failure, format!("answers and does not know {domain}")),
            Err(_) if !is_there => {
                (Level::Failure, "does not answer: network or firewall between this host and it".to_owned())
            }
            Err(cause) => (Level::Failure, format!("the host is there, its DNS does not answer: {cause}")),
        };
        Part { subject: server.to_string(), level, seen }
    });
    let finding = Finding::of_parts(parts.collect());
    if finding.level == Level::Ok {
        return finding;
    }
    let finding = match &gone {
        Some(server) => finding.command(&commands::SHOW_WAY, server).advise(
            Place::Network,
            format!(
                "let this host reach {server} on port 53, and on AD's ports if it is a domain controller"
            ),
        ),
        None => finding.command(&commands::SHOW_DNS, ""),
    };
    finding.advise(
        Place::Here,
        format!("if {} is not the DNS server of this domain: {}", named(&gone), set_servers(facts, domain)),
    )
}

fn named(server: &Option<String>) -> &str {
    server.as_deref().unwrap_or("one of them")
}

/// Returns true if anything answers at the address.
async fn is_there(server: IpAddr) -> bool {
    let connecting = PORTS.map(|port| async move {
        match timeout(REACHED, TcpStream::connect((server, port))).await {
            Ok(Ok(_)) => true,
            // Only a host that is up refuses a connection.
            Ok(Err(e)) => e.kind() == io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    });
    beside(connecting).await.contains(&true)
}

/// Advises where to set the DNS servers: in the settings of the program that writes resolv.conf; in that file
/// only if no such program is known.
fn set_servers(facts: &Facts, domain: &str) -> String {
    let path = facts.path(RESOLV_CONF);
    let target = fs::read_link(&path).unwrap_or_default().display().to_string();
    let text = fs::read_to_string(&path).unwrap_or_default();
    let whose = match () {
        () if target.contains("systemd/resolve") => {
            "in the settings of systemd-resolved (DNS= in resolved.conf, or the link's)"
        }
        () if target.contains("resolvconf") || text.contains("resolvconf") => {
            "where resolvconf takes them from (dns-nameservers in /etc/network/interfaces)"
        }
        () if text.contains("NetworkManager") => "in NetworkManager's settings of the connection (ipv4.dns)",
        () if text.contains("dhclient") || text.contains("dhcpcd") => {
            "at the DHCP server, or in the DHCP client's settings"
        }
        () => "in /etc/resolv.conf, of which you keep a copy, unless another program writes it",
    };
    format!("set the DNS servers of {domain} {whose}")
}

/// Checks the records by which the broker finds the domain controllers.
pub(super) async fn srv_ldap(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let servers = &config.domain.servers;
    let needed = servers.is_empty() || servers.iter().any(|server| server == BY_DNS);
    let finding = srv(facts, &Role::Domain.srv(&config.domain.name, None), needed).await;
    let plain = Role::Domain.plain_srv(&config.domain.name, None);
    match (finding.level, facts.names().srv(&plain).await) {
        // The broker uses them instead.
        (Level::Failure, Ok(_)) => {
            let seen = format!("{}; {plain} is there and used instead", finding.seen);
            Finding { level: Level::Warning, seen, ..finding }
        }
        _ => finding,
    }
}

/// Checks the records by which SSSD, adcli and kinit find a KDC. The broker queries the domain controllers
/// that it knows.
pub(super) async fn srv_kerberos(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    srv(facts, &format!("_kerberos._tcp.{}", config.domain.name), false).await
}

/// Checks the records of global catalogues, which know the users of the forest's other domains.
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
            finding.there(&commands::REGISTER_WINDOWS, &commands::REGISTER_SAMBA, "")
        }
    }
}

/// Checks that every named domain controller has an address.
pub(super) async fn addresses(facts: &Facts) -> Finding {
    let controllers = match facts.controllers().await {
        Ok(controllers) => controllers,
        // srv-ldap reports what DNS lacks.
        Err(_) => return Finding::because("srv-ldap"),
    };
    if facts.dns_silence().await.is_some() {
        let hosts = controllers.iter().map(|controller| controller.host.as_str()).collect::<Vec<_>>();
        return Finding::warning(format!("as the broker knew them last: {}", hosts.join(", ")));
    }
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
        _ => finding.there(&commands::ADDRESSES_WINDOWS, &commands::REGISTER_SAMBA, ""),
    }
}

/// Checks this host's own name. The broker does not need it, but many administrative programs do.
pub(super) async fn own_name(facts: &Facts) -> Finding {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default().to_owned();
    let domain = facts.domain().await;
    let full = if name.contains('.') { name.clone() } else { format!("{name}.{domain}") };
    let Some(address) = own_address(facts).await else {
        return Finding::skipped("no domain controller is known, so neither is this host's own address");
    };
    let hosts = format!(
        "register {full} with {address} in DNS, or name them in a line of /etc/hosts: {address} {full} \
         {short}"
    );
    if !resolves(&full).await {
        return Finding::warning(format!("{full}, this host's own name, does not resolve"))
            .advise(Place::Here, hosts);
    }
    let reverse = getent("hosts", &address.to_string()).await;
    let names: Vec<_> = reverse.split_whitespace().skip(1).map(str::to_lowercase).collect();
    match names.iter().any(|known| *known == full.to_lowercase() || *known == short.to_lowercase()) {
        true => Finding::ok(format!("{full} is {address}, forward and reverse")),
        // As Debian's installer leaves it: the name has 127.0.1.1 in /etc/hosts, DNS has no reverse record.
        false if names.is_empty() => {
            Finding::ok(format!("{full} resolves; {address} has no name, and needs none"))
        }
        false => Finding::warning(format!(
            "{address}, this host's own address, is {}, not {full}",
            names.join(", ")
        ))
        .advise(Place::Here, hosts),
    }
}

/// Returns true if the system's resolver knows an address of `name`. Both families are queried at the same
/// time: a DNS server that never answers for one of them delays nothing.
async fn resolves(name: &str) -> bool {
    let of = |family| async move { !getent(family, name).await.trim().is_empty() };
    let (v4, v6) = (pin!(of("ahostsv4")), pin!(of("ahostsv6")));
    tokio::select! {
        true = v4 => true,
        true = v6 => true,
        else => false,
    }
}

/// Returns what the system's resolver says about `key`; empty if it does not know it or does not answer.
async fn getent(database: &str, key: &str) -> String {
    let answer = command::ask("getent", &[database, key]).await;
    answer.map(|answer| answer.out).unwrap_or_default()
}

/// Returns this host's address on the route to the first domain controller. Sends nothing.
async fn own_address(facts: &Facts) -> Option<IpAddr> {
    let controllers = facts.controllers().await.as_deref().ok()?;
    let theirs = controllers.iter().flat_map(|controller| &controller.addresses).next()?;
    let any = if theirs.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(SocketAddr::new(*theirs, 389)).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}
