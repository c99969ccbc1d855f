//! Connections for users' binds.
//!
//! A bind on an open connection costs a fifth of one that opens its own. A connection carries one bind at a
//! time and may be bound again and again, because each bind replaces the identity (RFC 4513, 4). The pool grows on
//! demand to a bound and replaces what is idle for long or broken. A domain controller that does not answer is left
//! for the next one within the same login.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::bind::{BindConnection, Unusable};
use super::discovery::Controller;
use super::health::Service;
use super::machine::BoxFuture;
use super::refusal::Answer;
use super::servers::{LDAP, ServerList};
use super::trust::Trust;
use crate::config::{self, TlsMode};
use crate::kerberos::sealing;
use crate::ldap::ExchangeError;
use crate::protocol::report;
use crate::verdict::Outcome;

/// TLS from the first byte.
pub(super) const LDAPS: u16 = 636;
/// One domain controller within one login, from the first packet to the answer, while there is another to ask.
const ATTEMPT: Duration = Duration::from_millis(800);
/// One address or port has so long before the next is tried beside it.
const LEAD: Duration = Duration::from_millis(250);
/// Connections that are made to one domain controller at a time. It works hardest for those: many at once would make
/// each too late for its login, and the next ones would make it worse.
const CONNECTING: usize = 4;
/// One connection, whatever becomes of the login that it was begun for.
const CONNECT: Duration = Duration::from_secs(5);
/// A bind that got no answer may have met the account all the same, so few are sent again.
const BINDS: usize = 3;

/// Has the trusted roots read again; whether there are others now.
pub type Renew = Box<dyn Fn(Instant) -> BoxFuture<'static, bool> + Send + Sync>;

/// The connections for users' binds to one domain.
pub struct Pool {
    servers: Arc<ServerList>,
    trust: Arc<Trust>,
    renew: Renew,
    mode: TlsMode,
    settings: config::Pool,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// A connection was put back.
    returned: Notify,
    /// Who may connect, by host.
    connecting: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// For the tasks that outlive a login.
    me: Weak<Pool>,
    /// Hosts whose LDAPS port did not answer when StartTLS did.
    starttls: Mutex<HashSet<String>>,
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
    /// Those that got the bind before and did not answer: each may have counted it too.
    pub unanswered: Vec<String>,
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
    /// No domain controller that answers has TLS that can be verified; why, one after the other. No bind was sent.
    #[error("no domain controller offers TLS that can be verified: {0}")]
    NoTls(String),
    /// The deadline passed, or every domain controller failed; why, one after the other.
    #[error("no domain controller answered the bind: {0}")]
    Unanswered(String),
}

/// Why a bind got no answer.
enum Failure {
    /// The connection broke without a word: the domain controller may have ended it long ago.
    Broken(String),
    /// The domain controller says that it cannot answer now: it has counted nothing.
    Unwilling(String),
    /// The domain controller is in trouble: it talks nonsense.
    Trouble(String),
    /// It says nothing.
    Silence(String),
}

impl Failure {
    /// Whether the bind may have reached the account.
    fn may_have_counted(&self) -> bool {
        !matches!(self, Failure::Unwilling(_))
    }
}

/// What a login has tried so far.
#[derive(Default)]
struct Tried {
    binds: usize,
    unanswered: Vec<String>,
    causes: Vec<String>,
    no_tls: bool,
}

impl Tried {
    fn error(self) -> PoolError {
        let causes = match self.causes.is_empty() {
            true => "the deadline had passed".to_owned(),
            false => self.causes.join("; "),
        };
        match self.no_tls && self.binds == 0 {
            true => PoolError::NoTls(causes),
            false => PoolError::Unanswered(causes),
        }
    }
}

impl Pool {
    /// A pool whose connections are verified by `trust`, which `renew` brings up to date.
    pub fn new(
        servers: Arc<ServerList>,
        trust: Arc<Trust>,
        mode: TlsMode,
        settings: config::Pool,
        renew: Renew,
    ) -> Arc<Self> {
        let pool = Arc::new_cyclic(|me| Pool {
            servers,
            trust,
            renew,
            mode,
            permits: Semaphore::new(settings.connections),
            settings,
            idle: Mutex::default(),
            returned: Notify::new(),
            connecting: Mutex::default(),
            me: me.clone(),
            starttls: Mutex::default(),
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
        let controllers = match timeout_at(deadline, self.servers.controllers(Service::Binds)).await {
            Ok(controllers) => controllers.map_err(PoolError::Unanswered)?,
            Err(_) => return Err(PoolError::Unanswered("DNS did not answer in time".to_owned())),
        };
        let mut tried = Tried::default();
        for (index, controller) in controllers.iter().enumerate() {
            let rest = controllers.get(index + 1..).unwrap_or_default();
            while tried.binds < BINDS && Instant::now() < deadline {
                let until = self.patience(controller, rest, deadline);
                let (connection, connect) = match self.connection(controller, until, deadline).await {
                    Ok(connection) => connection,
                    Err(unusable) => {
                        tried.no_tls |= unusable.lacks_tls();
                        tried.causes.push(unusable.cause().to_owned());
                        break;
                    }
                };
                tried.binds += 1;
                let fresh = connect.is_some();
                let result = self.try_bind(connection, dn, password, until, deadline).await;
                if result.as_ref().is_err_and(Failure::may_have_counted) {
                    tried.unanswered.push(controller.host.clone());
                }
                match result {
                    Ok(answered) => {
                        return Ok(Bound { connect, unanswered: tried.unanswered, ..answered });
                    }
                    // An idle connection that was ended says nothing against a fresh one. The others have idled
                    // for longer: what ended this one has most likely ended them.
                    Err(Failure::Broken(cause)) if !fresh => {
                        self.abandon_idle(&controller.host);
                        tried.causes.push(cause);
                    }
                    Err(Failure::Broken(cause) | Failure::Unwilling(cause) | Failure::Trouble(cause)) => {
                        tried.causes.push(self.fail(controller, &cause));
                        break;
                    }
                    Err(Failure::Silence(cause)) => {
                        tried.causes.push(self.give_up(controller, &cause));
                        break;
                    }
                }
            }
        }
        Err(tried.error())
    }

    /// Opens a first connection ahead of the first login, so that a broken one is known at the start.
    ///
    /// # Errors
    /// Why no domain controller lets itself be connected to until the deadline.
    pub async fn warm_up(&self, deadline: Instant) -> Result<String, PoolError> {
        let controllers = self.servers.controllers(Service::Binds).await.map_err(PoolError::Unanswered)?;
        let mut tried = Tried::default();
        for (index, controller) in controllers.iter().enumerate() {
            let rest = controllers.get(index + 1..).unwrap_or_default();
            let until = self.patience(controller, rest, deadline);
            match self.connection(controller, until, deadline).await {
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

    /// Whether `controller` can be bound to; the connection that shows it is kept.
    ///
    /// # Errors
    /// The cause, for people.
    pub async fn probe(&self, controller: &Controller, deadline: Instant) -> Result<(), String> {
        let connection = self.connect(controller, deadline).await.map_err(|e| e.cause().to_owned())?;
        // What was begun before it worked again is in nobody's way.
        self.connecting().remove(&controller.host);
        self.put_back(connection);
        Ok(())
    }

    /// Closes the connections that wait for work.
    pub fn clear(&self) {
        self.idle().clear();
    }

    /// The pool as it is now.
    pub fn report(&self) -> report::Pool {
        report::Pool {
            idle: self.idle().len(),
            busy: self.settings.connections - self.permits.available_permits(),
            max: self.settings.connections,
        }
    }

    /// How long a login stays with `controller` when `rest` comes after it. Who works is not left for somebody who
    /// is known not to.
    fn patience(&self, controller: &Controller, rest: &[Arc<Controller>], deadline: Instant) -> Instant {
        let is_down = |controller: &Controller| self.servers.is_down(&controller.host, Service::Binds);
        let better = match is_down(controller) {
            true => !rest.is_empty(),
            false => rest.iter().any(|other| !is_down(other)),
        };
        if better { deadline.min(Instant::now() + ATTEMPT) } else { deadline }
    }

    /// Notes the failure, and closes whatever else is open to the same host.
    fn fail(&self, controller: &Controller, cause: &str) -> String {
        self.abandon_idle(&controller.host);
        self.servers.failed(&controller.host, Service::Binds, cause);
        cause.to_owned()
    }

    /// The same where the host did not answer at all.
    fn give_up(&self, controller: &Controller, cause: &str) -> String {
        self.abandon_idle(&controller.host);
        self.servers.silent(&controller.host, Service::Binds, cause);
        cause.to_owned()
    }

    /// Ends the connections to `host` that wait for work.
    fn abandon_idle(&self, host: &str) {
        for connection in self.idle().extract_if(.., |connection| connection.host == host) {
            connection.bind.abandon();
        }
    }

    async fn try_bind(
        &self,
        mut connection: Connection,
        dn: &str,
        password: &str,
        until: Instant,
        deadline: Instant,
    ) -> Result<Bound, Failure> {
        let begun = Instant::now();
        let host = connection.host.clone();
        let answer = {
            let bind = connection.bind.bind(dn, password);
            tokio::pin!(bind);
            let mut until = until;
            loop {
                match timeout_at(until, &mut bind).await {
                    Ok(answer) => break Some(answer),
                    // Slow, not dead: it answered others while this one waited.
                    Err(_)
                        if until < deadline && self.servers.answered_since(&host, Service::Binds, begun) =>
                    {
                        until = deadline.min(until + ATTEMPT);
                    }
                    Err(_) => break None,
                }
            }
        };
        let answer = match answer {
            Some(Ok(answer)) => Answer::read(answer.code, &answer.text),
            Some(Err(e)) => {
                connection.bind.abandon();
                let cause = format!("{host}: {e}");
                return Err(match e {
                    ExchangeError::Io(_) | ExchangeError::Closed => Failure::Broken(cause),
                    // It has received the bind and said something else.
                    ExchangeError::Truncated | ExchangeError::Notice { .. } | ExchangeError::Malformed => {
                        Failure::Trouble(cause)
                    }
                });
            }
            None => {
                connection.bind.abandon();
                return Err(Failure::Silence(format!("{host}: no answer to a bind in time")));
            }
        };
        match answer {
            Answer::Decided(outcome, reason) => {
                self.servers.answered(&host, Service::Binds);
                self.put_back(connection);
                let (connect, bind) = (None, begun.elapsed());
                Ok(Bound { outcome, reason, dc: host, unanswered: Vec::new(), connect, bind })
            }
            Answer::Trouble(cause) => Err(Failure::Unwilling(format!("{host}: {cause}"))),
        }
    }

    /// A connection to `controller`: an open one, or the first that is made or put back until `until`, and until
    /// `deadline` where the domain controller answers others meanwhile; what it took, where there was none.
    async fn connection(
        &self,
        controller: &Arc<Controller>,
        until: Instant,
        deadline: Instant,
    ) -> Result<(Connection, Option<Duration>), Unusable> {
        let host = &controller.host;
        let (begun, mut until) = (Instant::now(), until);
        let attempt = self.attempt(controller);
        tokio::pin!(attempt);
        let mut waited = None;
        loop {
            let returned = self.returned.notified();
            tokio::pin!(returned);
            // From here on, so that none is missed that is put back before it is waited for.
            returned.as_mut().enable();
            if let Some(connection) = self.take(host) {
                return Ok((connection, waited));
            }
            tokio::select! {
                () = returned => {}
                done = &mut attempt => {
                    done?;
                    // For the case that somebody else has taken the one that was made.
                    attempt.set(self.attempt(controller));
                }
                () = sleep_until(until) => {
                    if until >= deadline || !self.servers.answered_since(host, Service::Binds, begun) {
                        let cause = format!("{host}: no connection in time");
                        return Err(Unusable::Unreachable(self.give_up(controller, &cause)));
                    }
                    until = deadline.min(until + ATTEMPT);
                }
            }
            waited = Some(begun.elapsed());
        }
    }

    /// Has a connection made to `controller` and put back, in its turn. Once begun it is made for whoever needs it,
    /// also when the login that it was begun for has given up: the next ones will need it.
    async fn attempt(&self, controller: &Arc<Controller>) -> Result<(), Unusable> {
        let failed = |text: &str| Unusable::Unreachable(format!("{}: {text}", controller.host));
        let turn = self.turns(&controller.host).acquire_owned().await;
        let turn = turn.map_err(|_| failed("nobody may connect"))?;
        let (pool, controller) = (self.me.upgrade(), Arc::clone(controller));
        let pool = pool.ok_or_else(|| failed("the pool is gone"))?;
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let connected = pool.connect(&controller, begun + CONNECT).await;
            drop(turn);
            match connected {
                Ok(connection) => {
                    pool.servers.answered(&controller.host, Service::Binds);
                    pool.put_back(connection);
                    Ok(())
                }
                Err(unusable) => {
                    // Slow, not dead, where it answered others.
                    if unusable.is_final()
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

    /// Connects to `controller` at the first port that leads to TLS.
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
            let (stream, port) = match race(controller, &ports, until).await {
                Ok(connected) => connected,
                Err(cause) => {
                    causes.push(Unusable::Unreachable(cause));
                    break;
                }
            };
            ports.retain(|other| *other != port);
            let failure = match self.secure(stream, host, port, until).await {
                Ok(bind) => {
                    match port {
                        LDAP => self.starttls().insert(host.clone()),
                        _ => self.starttls().remove(host),
                    };
                    return Ok(Connection { bind, host: host.clone(), used: Instant::now() });
                }
                Err(failure) => failure,
            };
            // The DC may have a certificate of a CA that the forest has come to trust since.
            if matches!(failure, Unusable::Unverified { unknown_issuer: true, .. })
                && !renewed
                && (self.renew)(until).await
            {
                (renewed, ports) = (true, vec![port]);
                continue;
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
        until: Instant,
    ) -> Result<BindConnection, Unusable> {
        let opening = BindConnection::open(stream, host, self.trust.config(), port == LDAP);
        let late = || Unusable::Unreachable("no answer in time".to_owned());
        let opened = timeout_at(until, opening).await.unwrap_or_else(|_| Err(late()));
        let roots = |failure: &Unusable| match failure {
            Unusable::Unverified { .. } => format!(" (trusted roots: {})", self.trust.source()),
            _ => String::new(),
        };
        opened.map_err(|failure| {
            let roots = roots(&failure);
            failure.map(|cause| format!("port {port}: {cause}{roots}"))
        })
    }

    /// An open connection to `host`.
    fn take(&self, host: &str) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(at) = idle.iter().rposition(|connection| connection.host == host) {
            let mut connection = idle.swap_remove(at);
            if connection.used.elapsed() < self.settings.idle && connection.bind.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn put_back(&self, mut connection: Connection) {
        connection.used = Instant::now();
        self.idle().push(connection);
        self.returned.notify_waiters();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connecting(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.connecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starttls(&self) -> MutexGuard<'_, HashSet<String>> {
        self.starttls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all the ports of `host` together say: that it answers says more than that one port does not.
fn summary(host: &str, causes: Vec<Unusable>) -> Unusable {
    let text = causes.iter().map(Unusable::cause).collect::<Vec<_>>().join("; ");
    let telling = |failure: &&Unusable| !matches!(failure, Unusable::Unreachable(_));
    let kind = causes.iter().find(telling).or(causes.first()).cloned();
    kind.unwrap_or(Unusable::Unreachable(String::new())).map(|_| format!("{host}: {text}"))
}

/// Connects to the first port of `ports` that answers at the first address that does. Each is tried a little after the
/// one before it, so that silence at one costs no more than that (RFC 8305, 5).
pub(super) async fn race(
    controller: &Controller,
    ports: &[u16],
    until: Instant,
) -> Result<(TcpStream, u16), String> {
    let mut waiting = ports
        .iter()
        .flat_map(|port| controller.addresses.iter().map(|ip| SocketAddr::new(*ip, *port)))
        .collect::<Vec<_>>()
        .into_iter();
    let mut trying = JoinSet::new();
    let mut causes = Vec::new();
    let mut silent = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            silent.push(address);
            trying.spawn(async move { (address, TcpStream::connect(address).await) });
        } else if trying.is_empty() {
            break;
        }
        let next = if waiting.len() > 0 { until.min(Instant::now() + LEAD) } else { until };
        match timeout_at(next, trying.join_next()).await {
            Ok(Some(Ok((address, Ok(stream))))) => {
                // Untuned it works as well, only less so.
                let _ = sealing::tune(&stream);
                return Ok((stream, address.port()));
            }
            Ok(Some(Ok((address, Err(e))))) => {
                silent.retain(|other| *other != address);
                causes.push(format!("{address}: {e}"));
            }
            Ok(_) => {}
            Err(_) if Instant::now() >= until => break,
            Err(_) => {}
        }
    }
    if controller.addresses.is_empty() {
        causes.push("DNS knows no address".to_owned());
    }
    causes.extend(silent.into_iter().map(|address| format!("{address}: no answer in time")));
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::discovery::Wanted;
    use super::super::discovery::tests::{names, zone};
    use super::*;

    fn controller(addresses: &[[u8; 4]]) -> Controller {
        let addresses = addresses.iter().map(|octets| (*octets).into()).collect();
        Controller { host: "ad.acme.com".into(), addresses, in_site: false }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn the_first_port_and_address_that_answers_is_taken() {
        let open = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = open.local_addr().unwrap().port();
        // Port 1 (tcpmux) is closed wherever this runs.
        let closed = 1;
        let here = controller(&[[127, 0, 0, 1]]);
        assert_eq!(race(&here, &[closed, port], soon()).await.unwrap().1, port);
        let both = controller(&[[127, 0, 0, 9], [127, 0, 0, 1]]);
        assert_eq!(race(&both, &[port], soon()).await.unwrap().1, port);
        let error = race(&here, &[closed], soon()).await.unwrap_err();
        assert!(error.contains("127.0.0.1:1: ") && error.contains("refused"), "{error}");
        let nowhere = race(&controller(&[]), &[port], soon()).await.unwrap_err();
        assert_eq!(nowhere, "DNS knows no address");
    }

    #[test]
    fn that_it_answers_says_more_than_that_a_port_does_not() {
        let unreachable = || Unusable::Unreachable("port 636: refused".into());
        let no_tls = || Unusable::NoTls("port 389: no StartTLS".into());
        let both = Unusable::NoTls("ad: port 636: refused; port 389: no StartTLS".into());
        assert_eq!(summary("ad", vec![unreachable(), no_tls()]), both);
        assert!(!summary("ad", vec![unreachable(), unreachable()]).lacks_tls());
        assert!(summary("ad", vec![no_tls(), unreachable()]).lacks_tls());
    }

    #[test]
    fn without_tls_is_only_said_where_no_bind_was_sent() {
        let tried =
            |binds, no_tls| Tried { binds, no_tls, causes: vec!["x".into()], ..Tried::default() }.error();
        assert_eq!(tried(0, true), PoolError::NoTls("x".into()));
        assert_eq!(tried(1, true), PoolError::Unanswered("x".into()));
        assert_eq!(tried(0, false), PoolError::Unanswered("x".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_is_not_left_for_who_does_not() {
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let servers = ServerList::new(wanted, names(zone()), Box::new(|_| {}));
        let [a, b, c] = servers.controllers(Service::Binds).await.unwrap().try_into().unwrap();
        let trust = Arc::new(Trust::load(None, None).unwrap());
        let settings = config::Pool { connections: 1, idle: Duration::from_secs(1) };
        let renew: Renew = Box::new(|_| Box::pin(async { false }));
        let pool = Pool::new(servers.clone(), trust, TlsMode::Auto, settings, renew);
        let deadline = soon();
        let is_hurried = |controller: &Arc<Controller>, rest: &[Arc<Controller>]| {
            pool.patience(controller, rest, deadline) < deadline
        };
        assert!(is_hurried(&a, &[b.clone(), c.clone()]));
        assert!(!is_hurried(&c, &[]));
        servers.failed(&b.host, Service::Binds, "refused");
        assert!(is_hurried(&a, &[c.clone(), b.clone()]));
        assert!(!is_hurried(&a, std::slice::from_ref(&b)));
        // Of those that do not work none is worth the whole time while there is another.
        servers.failed(&a.host, Service::Binds, "silent");
        assert!(is_hurried(&a, &[b]));
        assert!(!is_hurried(&a, &[]));
    }
}
