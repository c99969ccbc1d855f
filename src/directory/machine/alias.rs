//! Detects names of domain controllers that are only aliases or addresses.
//!
//! Kerberos and TLS know a domain controller by one name, so the administrator has to replace such a name by
//! that one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::{Inner, Server};
use crate::directory::entry::Entry;
use crate::kerberos::Credential;
use crate::ldap;

/// Time limit for finding the domain controller's own name.
const LOOK: Duration = Duration::from_millis(1500);

/// Returns the name of the domain controller at `address`, after the KDC did not know the name in `server`. A
/// host may claim any name, so the name counts only if the machine account can bind there to the domain
/// controller of that name.
pub(super) async fn owner(
    server: &Server,
    address: SocketAddr,
    credential: &Credential,
    machine: &Arc<Inner>,
    deadline: Instant,
) -> Option<String> {
    let until = deadline.min(Instant::now() + LOOK);
    let name = timeout_at(until, called(address)).await.ok()??;
    let service = server.service.at(&name);
    if service.host == server.service.host {
        return None;
    }
    let named = Server { service, addresses: vec![address] };
    Link::connect(&named, address, credential.clone(), machine, until).await.ok()?;
    Some(name)
}

/// Returns the name that the host at `address` claims (`dnsHostName` of its rootDSE, MS-ADTS 3.1.1.3.2).
async fn called(address: SocketAddr) -> Option<String> {
    let mut tcp = TcpStream::connect(address).await.ok()?;
    let request = ldap::root_search(1, "(objectClass=*)", &["dnsHostName"]).ok()?;
    let answer = ldap::search_one(&mut tcp, 1, request).await.ok()?;
    let root = Entry::decode(answer).ok()?;
    Some(root.text("dnsHostName").ok()??.to_lowercase())
}
