//! Opening connections for binds: a few at a time for each domain controller, at the first port with usable
//! TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempts::Tried;
use super::{Connection, Pool, PoolError, Wait};
use crate::config::TlsMode;
use crate::directory::controllers::discovery::Controller;
use crate::directory::controllers::health::Service;
use crate::directory::passwords::bind::{BindConnection, Unusable};
use crate::ldap::{LDAP, LDAPS};
use crate::net::connect_tuned;

/// Connections that are made to one domain controller at a time. It works hardest for those: many at once
/// would make each too late for its login, and the next ones would make it worse.
const CONNECTING: usize = 4;
/// Time limit for opening one connection, even if the login that started it has given up. A login with a
/// longer deadline waits that long.
const CONNECT: Duration = Duration::from_secs(5);

impl Pool {
    /// Opens a connection before the first login, so that a broken setup is known at the start.
    ///
    /// # Errors
    /// Returns the causes if no domain controller accepts a connection before the deadline.
    pub async fn warm_up(&self, deadline: Instant) -> Result<String, PoolError> {
        let controllers = self.servers.controllers(Service::Binds).await.map_err(PoolError::Unanswered)?;
        let mut tried = Tried::default();
        for (index, controller) in controllers.iter().enumerate() {
            if let Some(answer) = self.takes_no_binds(&controller.host) {
                tried.blocked = true;
                tried.causes.push(answer);
                continue;
            }
            let rest = controllers.get(index + 1..).unwrap_or_default();
            let until = deadline.min(Instant::now() + CONNECT);
            match self.connection(&mut Wait::new(controller, rest, until)).await {
                Ok((connection, _)) => {
                    self.put_back(connection);
                    return Ok(controller.host.clone());
                }
                Err(unusable) => {
                    tried.no_tls |= unusable.lacks_tls();
                    tried.causes.push(unusable.cause().to_owned());
                }
            }
        }
        Err(tried.error())
    }

    /// Checks that `controller` accepts connections for binds; the connection is kept.
    ///
    /// # Errors
    /// Returns a text for the administrator if it does not.
    pub async fn probe(&self, controller: &Controller, deadline: Instant) -> Result<(), String> {
        let begun = Instant::now();
        let connection = match self.connect(controller, deadline).await {
            Ok(connection) => connection,
            Err(unusable) => {
                self.abandon(|connection| connection.host == controller.host && connection.used < begun);
                return Err(unusable.cause().to_owned());
            }
        };
        // Attempts that started before it worked again must not hold up new ones.
        self.connecting().remove(&controller.host);
        self.put_back(connection);
        Ok(())
    }

    /// Like [`Pool::probe`], for regular checks: the connection is kept only if no other one to `controller`
    /// is idle, so that the checks do not fill the pool.
    ///
    /// # Errors
    /// Like [`Pool::probe`].
    pub async fn look(&self, controller: &Controller, deadline: Instant) -> Result<(), String> {
        let connection = self.connect(controller, deadline).await.map_err(|e| e.cause().to_owned())?;
        if !self.idle().iter().any(|idle| idle.host == controller.host) {
            self.put_back(connection);
        }
        Ok(())
    }

    /// Returns a connection to the domain controller of `wait`: an open one, or the first that is opened or
    /// put back during the wait. The duration is that of the wait, if there was one.
    pub(super) async fn connection(
        &self,
        wait: &mut Wait<'_>,
    ) -> Result<(Connection, Option<Duration>), Unusable> {
        let controller = wait.controller;
        let host = &controller.host;
        let begun = Instant::now();
        let attempt = self.attempt(controller, wait.deadline);
        tokio::pin!(attempt);
        let mut waited = None;
        loop {
            let returned = self.returned.notified();
            tokio::pin!(returned);
            // Enabled before the check, so that a connection put back in between is not missed.
            returned.as_mut().enable();
            if let Some(connection) = self.take(host) {
                return Ok((connection, waited));
            }
            tokio::select! {
                () = returned => {}
                done = &mut attempt => {
                    done?;
                    // Another login may have taken the new connection.
                    attempt.set(self.attempt(controller, wait.deadline));
                }
                () = sleep_until(wait.until) => {
                    if !self.stays(wait) {
                        let cause = format!("{host}: no connection in time");
                        self.doubt_if_silent(wait, &cause);
                        return Err(Unusable::Unreachable(cause));
                    }
                }
            }
            waited = Some(begun.elapsed());
        }
    }

    /// Opens a connection to `controller` and puts it back, when it is its turn. Once started, it finishes
    /// even if its login has given up: the next logins will need the connection. It has [`CONNECT`], or the
    /// time until the login's `deadline` if that is longer.
    async fn attempt(&self, controller: &Arc<Controller>, deadline: Instant) -> Result<(), Unusable> {
        let failed = |text: &str| Unusable::Unreachable(format!("{}: {text}", controller.host));
        let turn = self.turns(&controller.host).acquire_owned().await;
        let turn = turn.map_err(|_| failed("no more connections are allowed"))?;
        let (pool, controller) = (self.me.upgrade(), Arc::clone(controller));
        let pool = pool.ok_or_else(|| failed("the pool is gone"))?;
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let connected = pool.connect(&controller, deadline.max(begun + CONNECT)).await;
            drop(turn);
            match connected {
                Ok(connection) => {
                    pool.servers.reached(&controller.host, Service::Binds);
                    pool.put_back(connection);
                    Ok(())
                }
                Err(unusable) => {
                    // If it answered other requests it is slow, not dead. Having no TLS is an answer.
                    if unusable.is_final()
                        || unusable.lacks_tls()
                        || !pool.servers.answered_since(&controller.host, Service::Binds, begun)
                    {
                        pool.fail(&controller, unusable.cause());
                    }
                    Err(unusable)
                }
            }
        });
        task.await.unwrap_or_else(|_| Err(failed("the connecting task failed")))
    }

    fn turns(&self, host: &str) -> Arc<Semaphore> {
        let mut connecting = self.connecting();
        let turns = connecting.entry(host.to_owned());
        turns.or_insert_with(|| Arc::new(Semaphore::new(CONNECTING))).clone()
    }

    /// Connects to `controller` at the first port with usable TLS.
    async fn connect(&self, controller: &Controller, until: Instant) -> Result<Connection, Unusable> {
        let host = &controller.host;
        let mut ports = match self.mode {
            TlsMode::Ldaps => vec![LDAPS],
            TlsMode::Starttls => vec![LDAP],
            TlsMode::Auto if self.starttls().contains(host) => vec![LDAP, LDAPS],
            TlsMode::Auto => vec![LDAPS, LDAP],
        };
        let mut causes: Vec<Unusable> = Vec::new();
        let mut renewed = false;
        while !ports.is_empty() {
            let addresses = |port| controller.addresses.iter().map(move |ip| SocketAddr::new(*ip, port));
            let addresses: Vec<_> = ports.iter().flat_map(|port| addresses(*port)).collect();
            let (stream, port) = match connect_tuned(&addresses, until).await {
                Ok((stream, address)) => (stream, address.port()),
                Err(cause) => {
                    causes.push(Unusable::Unreachable(cause));
                    break;
                }
            };
            ports.retain(|other| *other != port);
            let config = self.trust.config();
            let failure = match self.secure(stream, host, port, config.clone(), until).await {
                Ok(bind) => {
                    match port {
                        LDAP => self.starttls().insert(host.clone()),
                        _ => self.starttls().remove(host),
                    };
                    return Ok(Connection { bind, host: host.clone(), used: Instant::now() });
                }
                Err(failure) => failure,
            };
            // The domain controller's certificate may come from a CA that the forest has only recently begun
            // to trust. The roots may also have arrived during the handshake, as at a first start.
            if matches!(failure, Unusable::Unverified { unknown_issuer: true, .. }) && !renewed {
                (self.renew)(until).await;
                if !Arc::ptr_eq(&config, &self.trust.config()) {
                    (renewed, ports) = (true, vec![port]);
                    continue;
                }
            }
            let is_final = failure.is_final();
            causes.push(failure);
            if is_final {
                break;
            }
        }
        Err(summary(host, causes))
    }

    async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
        port: u16,
        config: Arc<ClientConfig>,
        until: Instant,
    ) -> Result<BindConnection, Unusable> {
        let opening = BindConnection::open(stream, host, config, port == LDAP);
        let late = || Unusable::Unreachable("no answer in time".to_owned());
        let opened = timeout_at(until, opening).await.unwrap_or_else(|_| Err(late()));
        let roots = |failure: &Unusable| match failure {
            Unusable::Unverified { .. } => format!(" (trusted roots: {})", self.trust.source()),
            _ => String::new(),
        };
        if let Some(ends) = opened.as_ref().ok().and_then(BindConnection::certificate_ends) {
            let mut known = self.certificates.lock();
            known.insert(host.to_owned(), ends);
        }
        opened.map_err(|failure| {
            let roots = roots(&failure);
            failure.map(|cause| format!("port {port}: {cause}{roots}"))
        })
    }
}

/// Combines the failures of all ports of `host`: an answer from one port says more than silence from another.
fn summary(host: &str, causes: Vec<Unusable>) -> Unusable {
    let text = causes.iter().map(Unusable::cause).collect::<Vec<_>>().join("; ");
    let telling = |failure: &&Unusable| !matches!(failure, Unusable::Unreachable(_));
    let kind = causes.iter().find(telling).or(causes.first()).cloned();
    kind.unwrap_or(Unusable::Unreachable(String::new())).map(|_| format!("{host}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_it_answers_says_more_than_that_a_port_does_not() {
        let unreachable = || Unusable::Unreachable("port 636: refused".into());
        let no_tls = || Unusable::NoTls("port 389: no StartTLS".into());
        let both = Unusable::NoTls("ad: port 636: refused; port 389: no StartTLS".into());
        assert_eq!(summary("ad", vec![unreachable(), no_tls()]), both);
        assert!(!summary("ad", vec![unreachable(), unreachable()]).lacks_tls());
        assert!(summary("ad", vec![no_tls(), unreachable()]).lacks_tls());
    }
}
