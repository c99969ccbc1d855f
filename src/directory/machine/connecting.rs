//! Opening the machine connection: the domain controllers in their order, and the next one in addition to one
//! that is slow.

use std::iter::Peekable;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::alias;
use super::link::Link;
use super::{Inner, MachineError, Outcome, Server};
use crate::kerberos::error::TransportError;
use crate::kerberos::{Credential, KerberosError};
use crate::net::LEAD;
use crate::patience::first_of;

/// LDAP result code invalidCredentials (RFC 4511, 4.1.9).
const INVALID_CREDENTIALS: u32 = 49;

impl Inner {
    /// Connects to the first domain controller that accepts the machine account. It has until `deadline` if
    /// that is later than its usual time.
    pub(super) async fn connect(self: &Arc<Self>, deadline: Instant) -> Outcome {
        let deadline = deadline.max(Instant::now() + self.settings.connect);
        let dns = "the search for domain controllers in DNS";
        self.slot.lock().doing = dns.to_owned();
        let candidates = timeout_at(deadline, self.servers.candidates())
            .await
            .map_err(|_| MachineError::Timeout(dns.to_owned()))?
            .map_err(MachineError::NoServer)?;
        self.slot.lock().doing = "the KDC's ticket for the machine account".to_owned();
        let credential = self.kerberos.credential(deadline).await?;
        // A host whose KDC was silent in the meantime now comes after the others, so that a dead host is
        // waited for once and not twice.
        let candidates = match timeout_at(deadline, self.servers.candidates()).await {
            Ok(Ok(again)) => again,
            _ => candidates,
        };
        let mut race = Race::new(&candidates);
        loop {
            if let Some((server, address)) = race.waiting.next() {
                self.slot.lock().doing =
                    format!("the machine account at {} ({address})", server.service.host);
                let future = Box::pin(self.attempt(server, address, &credential, deadline));
                race.running.push(Attempt { server, address, future });
            }
            if race.running.is_empty() || Instant::now() >= deadline {
                break;
            }
            // One that is slow is waited for while the next one is tried beside it; another address of the
            // same host soon.
            let (until, is_same) = match (race.waiting.peek(), race.running.last()) {
                (Some((next, _)), Some(last)) if next.service.host == last.server.service.host => {
                    (deadline.min(Instant::now() + LEAD), true)
                }
                (Some(_), _) => (deadline.min(Instant::now() + self.settings.attempt), false),
                (None, _) => (deadline, false),
            };
            let ended = first_of(&mut race.running, |attempt| &mut attempt.future);
            match timeout_at(until, ended).await {
                Ok((index, Ok(link))) => {
                    self.servers.answered(&race.running.remove(index).server.service.host);
                    return Ok(Arc::new(link));
                }
                Ok((index, Err(error))) => {
                    let Attempt { server, address, .. } = race.running.remove(index);
                    let cause = self.refused(server, address, error, &credential, deadline).await;
                    race.causes.push(format!("{} ({address}): {cause}", server.service.host));
                }
                Err(_) if is_same => {}
                Err(_) => {
                    if let Some(last) = race.running.last() {
                        self.servers.doubted(&last.server.service.host, "no answer in time");
                    }
                }
            }
        }
        for Attempt { server, address, .. } in race.running {
            let (host, cause) = (&server.service.host, TransportError::Timeout.to_string());
            self.servers.silent(host, &cause);
            race.causes.push(format!("{host} ({address}): {cause}"));
        }
        match race.causes.is_empty() {
            true => Err(MachineError::NoServer("none of those found has an address".to_owned())),
            false => Err(MachineError::Unreachable(race.causes.join("; "))),
        }
    }

    /// Reports why `server` was unusable at `address`, and returns the cause as a text for the administrator.
    async fn refused(
        self: &Arc<Self>,
        server: &Server,
        address: SocketAddr,
        error: TransportError,
        credential: &Credential,
        deadline: Instant,
    ) -> String {
        let host = &server.service.host;
        let mut cause = error.to_string();
        if let TransportError::Kerberos(KerberosError::ServiceUnknown(_)) = error
            && let Some(own) = alias::owner(server, address, credential, self, deadline).await
        {
            cause += &format!("; {host} is only an alias or an address of {own}: name {own} instead");
        }
        match error {
            TransportError::Timeout => self.servers.silent(host, &cause),
            _ => self.servers.failed(host, &cause),
        }
        cause
    }

    async fn attempt(
        self: &Arc<Self>,
        server: &Server,
        address: SocketAddr,
        credential: &Credential,
        deadline: Instant,
    ) -> Result<Link, TransportError> {
        let connect = |credential| Link::connect(server, address, credential, self, deadline);
        match connect(credential.clone()).await {
            // The server may have a new key since its ticket was issued (its password changed, it was
            // restored or reinstalled), or the ticket has too little time left: try again with fresh tickets.
            Err(
                TransportError::Refused { code: INVALID_CREDENTIALS, .. }
                | TransportError::Kerberos(KerberosError::TicketEnded(_)),
            ) => {
                self.kerberos.forget(credential);
                connect(self.kerberos.credential(deadline).await?).await
            }
            other => other,
        }
    }
}

/// The addresses still to try, the attempts under way, and the causes of those that failed.
struct Race<'a, F> {
    waiting: Peekable<std::vec::IntoIter<(&'a Server, SocketAddr)>>,
    running: Vec<Attempt<'a, F>>,
    causes: Vec<String>,
}

struct Attempt<'a, F> {
    server: &'a Server,
    address: SocketAddr,
    future: Pin<Box<F>>,
}

impl<'a, F> Race<'a, F> {
    fn new(candidates: &'a [Server]) -> Self {
        let places = |server: &'a Server| server.addresses.iter().map(move |address| (server, *address));
        let waiting: Vec<_> = candidates.iter().flat_map(places).collect();
        Race { waiting: waiting.into_iter().peekable(), running: Vec::new(), causes: Vec::new() }
    }
}
