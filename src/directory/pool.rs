//! Connections for users' binds.
//!
//! A bind on an open connection costs a fifth of one that opens its own. A connection carries one bind at a
//! time and may be bound again and again, because each bind replaces the identity (RFC 4513, 4). The pool grows on
//! demand to a bound and replaces what is idle for long or broken.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::bind::BindConnection;
use super::refusal::Answer;
use super::servers::{LDAP, ServerList};
use super::trust::Trust;
use crate::config::{self, TlsMode};
use crate::protocol::report;
use crate::verdict::Outcome;

/// TLS from the first byte.
const LDAPS: u16 = 636;
/// One TCP connection.
const CONNECT: Duration = Duration::from_secs(1);
/// One TLS handshake, StartTLS included.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A bind that got no answer may have met the account all the same, so few are sent again.
const BINDS: usize = 3;

/// The connections for users' binds.
pub struct Pool {
    servers: Arc<ServerList>,
    trust: Trust,
    mode: TlsMode,
    settings: config::Pool,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// The last LDAPS port did not answer and StartTLS did.
    starttls_first: AtomicBool,
}

struct Connection {
    bind: BindConnection,
    host: String,
    used: Instant,
}

/// A bind that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What the domain controller decided.
    pub outcome: Outcome,
    /// Its answer, for the log; empty after a success.
    pub reason: String,
    /// Its DNS name.
    pub dc: String,
    /// What it took to have a connection; `None` where one was open.
    pub connect: Option<Duration>,
    /// What the bind took.
    pub bind: Duration,
}

/// No domain controller answered the bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every connection was busy until the deadline.
    #[error("all {0} connections to the domain controllers are busy (pool.connections)")]
    Busy(usize),
    /// The deadline passed, or every domain controller failed; why, one after the other.
    #[error("no domain controller answered the bind: {0}")]
    Unanswered(String),
}

enum Failure {
    /// The deadline passed while the bind was on its way; to whom.
    Silent(String),
    /// The connection broke, or the domain controller is in trouble.
    Next(String),
}

impl Pool {
    /// A pool whose connections are verified by `trust`.
    pub fn new(servers: Arc<ServerList>, trust: Trust, mode: TlsMode, settings: config::Pool) -> Arc<Self> {
        let pool = Arc::new(Pool {
            servers,
            trust,
            mode,
            permits: Semaphore::new(settings.connections),
            settings,
            idle: Mutex::default(),
            starttls_first: AtomicBool::new(false),
        });
        tokio::spawn(reap(Arc::downgrade(&pool)));
        pool
    }

    /// Binds as `dn` (RFC 4511, 4.2). Neither may be empty: a bind without a password succeeds for everybody.
    ///
    /// # Errors
    /// No domain controller answered until the deadline.
    pub async fn bind(&self, dn: &str, password: &str, deadline: Instant) -> Result<Bound, PoolError> {
        let busy = || PoolError::Busy(self.settings.connections);
        let _permit =
            timeout_at(deadline, self.permits.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let mut causes = Vec::new();
        let mut binds = 0;
        while binds < BINDS
            && let Some(connection) = self.take()
        {
            binds += 1;
            match self.try_bind(connection, dn, password, deadline, None).await {
                Ok(bound) => return Ok(bound),
                Err(Failure::Silent(cause)) => return Err(unanswered(causes, &cause)),
                Err(Failure::Next(cause)) => causes.push(cause),
            }
        }
        let hosts = match timeout_at(deadline, self.servers.hosts()).await {
            Ok(Ok(hosts)) => hosts,
            Ok(Err(cause)) => return Err(unanswered(causes, &cause)),
            Err(_) => return Err(unanswered(causes, "DNS did not answer in time")),
        };
        for host in hosts {
            if binds == BINDS {
                break;
            }
            let begun = Instant::now();
            let connection = match timeout_at(deadline, self.connect(&host)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(cause)) => {
                    self.servers.failed(&host, &cause);
                    causes.push(cause);
                    continue;
                }
                Err(_) => {
                    self.servers.failed(&host, "no connection in time");
                    return Err(unanswered(causes, &format!("{host}: no connection in time")));
                }
            };
            binds += 1;
            match self.try_bind(connection, dn, password, deadline, Some(begun.elapsed())).await {
                Ok(bound) => return Ok(bound),
                Err(Failure::Silent(cause)) => return Err(unanswered(causes, &cause)),
                Err(Failure::Next(cause)) => causes.push(cause),
            }
        }
        Err(unanswered(causes, ""))
    }

    /// Opens a first connection ahead of the first login, so that a broken one is known at the start.
    ///
    /// # Errors
    /// Why no domain controller lets itself be connected to.
    pub async fn warm_up(&self) -> Result<String, String> {
        let mut causes = Vec::new();
        for host in self.servers.hosts().await? {
            match self.connect(&host).await {
                Ok(connection) => {
                    self.servers.answered(&host);
                    self.put_back(connection);
                    return Ok(host);
                }
                Err(cause) => {
                    self.servers.failed(&host, &cause);
                    causes.push(cause);
                }
            }
        }
        Err(causes.join("; "))
    }

    /// The pool as it is now.
    pub fn report(&self) -> report::Pool {
        report::Pool {
            idle: self.idle().len(),
            busy: self.settings.connections - self.permits.available_permits(),
            max: self.settings.connections,
        }
    }

    async fn try_bind(
        &self,
        mut connection: Connection,
        dn: &str,
        password: &str,
        deadline: Instant,
        connect: Option<Duration>,
    ) -> Result<Bound, Failure> {
        let begun = Instant::now();
        let host = connection.host.clone();
        let trouble = |cause: String| {
            self.servers.failed(&host, &cause);
            Failure::Next(cause)
        };
        let answer = match timeout_at(deadline, connection.bind.bind(dn, password)).await {
            Ok(Ok(answer)) => Answer::read(answer.code, &answer.text),
            Ok(Err(e)) => return Err(trouble(format!("{host}: {e}"))),
            Err(_) => {
                // Its other connections are as silent as this one.
                self.forget(&host);
                self.servers.failed(&host, "no answer to a bind");
                return Err(Failure::Silent(format!("{host}: no answer in time")));
            }
        };
        match answer {
            Answer::Decided(outcome, reason) => {
                self.servers.answered(&host);
                self.put_back(connection);
                Ok(Bound { outcome, reason, dc: host, connect, bind: begun.elapsed() })
            }
            Answer::Trouble(cause) => Err(trouble(format!("{host}: {cause}"))),
        }
    }

    async fn connect(&self, host: &str) -> Result<Connection, String> {
        let addresses = self.servers.addresses(host).await?;
        let ports = match (self.mode, self.starttls_first.load(Ordering::Relaxed)) {
            (TlsMode::Ldaps, _) => &[LDAPS][..],
            (TlsMode::Starttls, _) => &[LDAP],
            (TlsMode::Auto, false) => &[LDAPS, LDAP],
            (TlsMode::Auto, true) => &[LDAP, LDAPS],
        };
        let mut causes = Vec::new();
        for port in ports {
            match connect_tcp(&addresses, *port).await {
                Ok(stream) => {
                    let bind = self.secure(stream, host, *port).await?;
                    self.starttls_first.store(*port == LDAP, Ordering::Relaxed);
                    return Ok(Connection { bind, host: host.to_owned(), used: Instant::now() });
                }
                Err(cause) => causes.push(cause),
            }
        }
        Err(format!("{host}: {}", causes.join("; ")))
    }

    async fn secure(&self, stream: TcpStream, host: &str, port: u16) -> Result<BindConnection, String> {
        let failed = |cause: &str| {
            format!("{host}:{port}: TLS failed: {cause} (trusted roots: {})", self.trust.source)
        };
        let opening = BindConnection::open(stream, host, self.trust.config.clone(), port == LDAP);
        match timeout(HANDSHAKE, opening).await {
            Ok(opened) => opened.map_err(|cause| failed(&cause)),
            Err(_) => Err(failed("no answer in time")),
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if connection.used.elapsed() < self.settings.idle && connection.bind.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn put_back(&self, mut connection: Connection) {
        connection.used = Instant::now();
        self.idle().push(connection);
    }

    fn forget(&self, host: &str) {
        self.idle().retain(|connection| connection.host != host);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unanswered(mut causes: Vec<String>, last: &str) -> PoolError {
    if !last.is_empty() {
        causes.push(last.to_owned());
    }
    PoolError::Unanswered(causes.join("; "))
}

async fn connect_tcp(addresses: &[IpAddr], port: u16) -> Result<TcpStream, String> {
    let mut causes = Vec::new();
    for ip in addresses {
        let address = SocketAddr::new(*ip, port);
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it a bind could wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => causes.push(format!("{address}: {e}")),
            Err(_) => causes.push(format!("{address}: no answer in time")),
        }
    }
    Err(causes.join("; "))
}

async fn reap(pool: Weak<Pool>) {
    let mut tick = tokio::time::interval(Duration::from_secs(15));
    loop {
        tick.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        let limit = pool.settings.idle;
        pool.idle().retain_mut(|connection| connection.used.elapsed() < limit && connection.bind.is_open());
    }
}
