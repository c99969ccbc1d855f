//! Connections for users' binds.
//!
//! A bind on an open connection costs a fifth of one that opens its own. A connection carries one bind at a
//! time and can be reused many times, because each bind replaces the identity (RFC 4513, 4). The pool grows
//! on demand to a bound, and replaces connections that are broken or idle for long. If a domain controller
//! does not answer, the same login tries the next one.

mod attempts;
mod connecting;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::attempts::{Attempts, lock};
use crate::checked::Checked;
use crate::config::{self, TlsMode};
use crate::directory::controllers::discovery::Controller;
use crate::directory::controllers::health::Service;
use crate::directory::controllers::servers::ServerList;
use crate::directory::passwords::bind::BindConnection;
use crate::directory::passwords::refusal::{self, Undecided};
use crate::directory::trust::Trust;
use crate::ldap::{ExchangeError, Response};
use crate::net::BoxFuture;
use crate::patience::{ATTEMPT, Others, Queue, first_of, stays};
use crate::protocol::report;
use crate::supervise::{self, Ended};
use crate::verdict::Outcome;

/// Time after which a domain controller that takes no simple binds gets one again. It has counted nothing,
/// but each bind costs its login time.
const BLOCKED: Duration = Duration::from_secs(60);

/// Has the trusted roots read again.
pub type Renew = Box<dyn Fn(Instant) -> BoxFuture<'static, ()> + Send + Sync>;

/// The connections for users' binds to one domain.
pub struct Pool {
    servers: Arc<ServerList>,
    trust: Arc<Trust>,
    renew: Renew,
    mode: TlsMode,
    settings: config::Pool,
    queue: Queue,
    idle: Mutex<Vec<Connection>>,
    /// Notified when a connection is put back.
    returned: Notify,
    /// Permits for opening connections, by host.
    connecting: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Reference for the tasks that outlive a login.
    me: Weak<Pool>,
    /// Hosts that answered StartTLS but not on the LDAPS port.
    starttls: Mutex<HashSet<String>>,
    /// Hosts that take no simple binds: the time of the last one, and the answer.
    blocked: Mutex<HashMap<String, (Instant, String)>>,
    /// Ends of the hosts' certificates, in seconds since 1970-01-01 UTC.
    certificates: Mutex<BTreeMap<String, u64>>,
    /// Number of logins that found every connection busy.
    refused: AtomicU64,
}

struct Connection {
    bind: BindConnection,
    host: String,
    used: Instant,
}

/// Result of a password change that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The domain controller answered.
    Answered(Response),
    /// There was no answer, so the change may have been made; the text is the cause.
    Lost(String),
}

/// No domain controller answered the bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every connection was busy until the deadline.
    #[error("all {0} connections to the domain controllers are busy (pool.connections)")]
    Busy(usize),
    /// No domain controller that answers has trustworthy TLS; the text lists the causes. No bind was sent.
    #[error("no domain controller offers TLS that can be verified: {0}")]
    NoTls(String),
    /// Domain controllers answered that they take no simple binds, and no other one can be used; the text
    /// lists the causes. AD has counted nothing.
    #[error(
        "no domain controller takes simple binds: {0}; login.method = \"auto\" or \"kerberos\" does without"
    )]
    NoBinds(String),
    /// The deadline passed, or every domain controller failed; the text lists the causes.
    #[error("no domain controller answered the bind: {0}")]
    Unanswered(String),
}

/// Reason why a bind got no answer.
enum Failure {
    /// The connection broke without an answer: the domain controller may have closed it long ago.
    Broken(String),
    /// The domain controller reports that it cannot answer now: it has counted nothing.
    Unwilling(String),
    /// The domain controller takes no simple binds: it has counted nothing.
    Blocked(String),
    /// The domain controller has a problem: its answer makes no sense.
    Trouble(String),
    /// The domain controller is silent.
    Silence(String),
}

impl Failure {
    /// Returns true if the bind may have reached the account.
    fn may_have_counted(&self) -> bool {
        !matches!(self, Failure::Unwilling(_) | Failure::Blocked(_))
    }
}

/// A login's wait for one domain controller.
struct Wait<'a> {
    controller: &'a Arc<Controller>,
    /// The domain controllers after it.
    rest: &'a [Arc<Controller>],
    /// Start of the wait for a connection, or for the answer to a bind.
    begun: Instant,
    /// The same, or the time of the last check.
    since: Instant,
    /// Time of the next check if the wait is worthwhile.
    until: Instant,
    deadline: Instant,
}

impl<'a> Wait<'a> {
    fn new(controller: &'a Arc<Controller>, rest: &'a [Arc<Controller>], deadline: Instant) -> Self {
        let now = Instant::now();
        Wait { controller, rest, begun: now, since: now, until: deadline.min(now + ATTEMPT), deadline }
    }
}

/// An attempt of a login at one domain controller that has not ended yet.
struct Running<F> {
    controller: Arc<Controller>,
    future: Pin<Box<F>>,
    /// Start of the attempt, or of its last check.
    since: Instant,
    /// Time when the login next checks if the wait is worthwhile.
    until: Instant,
}

impl<F> Running<F> {
    fn new(controller: &Arc<Controller>, attempt: F) -> Self {
        let since = Instant::now();
        Running { controller: controller.clone(), future: Box::pin(attempt), since, until: since + ATTEMPT }
    }
}

/// A connection with a bind under way. Dropping it resets the connection, because another domain controller
/// has answered.
struct Busy(Option<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.bind.abandon();
        }
    }
}

impl Pool {
    /// Creates a pool with connections that `trust` verifies; `renew` refreshes the roots.
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
            queue: Queue::new(settings.connections),
            settings,
            idle: Mutex::default(),
            returned: Notify::new(),
            connecting: Mutex::default(),
            me: me.clone(),
            starttls: Mutex::default(),
            blocked: Mutex::default(),
            certificates: Mutex::default(),
            refused: AtomicU64::new(0),
        });
        let reaped = Arc::downgrade(&pool);
        supervise::spawn("reaper", move || reap(reaped.clone()));
        pool
    }

    /// Binds as `dn` (RFC 4511, 4.2). Neither argument may be empty: a bind without a password succeeds for
    /// every user.
    ///
    /// # Errors
    /// Returns an error if no domain controller answers before the deadline.
    pub async fn bind(&self, dn: &str, password: &str, deadline: Instant) -> Result<Checked, PoolError> {
        let (bound, connection, _turn) = self.bound(dn, password, deadline).await?;
        self.put_back(connection);
        Ok(bound)
    }

    /// Binds as `dn` with the `present` password and, if that succeeds, changes it to `new` on the same
    /// connection, in a single attempt. No change was sent if the result has no [`Sent`].
    ///
    /// # Errors
    /// Returns an error if no domain controller answers the bind before the deadline; then no change was
    /// sent.
    pub async fn change_password(
        &self,
        dn: &str,
        present: &str,
        new: &str,
        deadline: Instant,
    ) -> Result<(Checked, Option<Sent>), PoolError> {
        let (bound, mut connection, _turn) = self.bound(dn, present, deadline).await?;
        if bound.outcome != Outcome::Success {
            self.put_back(connection);
            return Ok((bound, None));
        }
        let change = connection.bind.change_password(dn, present, new);
        let cause = match timeout_at(deadline, change).await {
            Ok(Ok(response)) => {
                // The next bind replaces the identity.
                self.put_back(connection);
                return Ok((bound, Some(Sent::Answered(response))));
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => "no answer to the change in time".to_owned(),
        };
        connection.bind.abandon();
        let cause = format!("{}: {cause}", bound.dc);
        Ok((bound, Some(Sent::Lost(cause))))
    }

    /// Returns an answered bind, its connection, and the turn that belongs to it.
    async fn bound(
        &self,
        dn: &str,
        password: &str,
        deadline: Instant,
    ) -> Result<(Checked, Connection, OwnedSemaphorePermit), PoolError> {
        let busy = || {
            self.refused.fetch_add(1, Ordering::Relaxed);
            PoolError::Busy(self.settings.connections)
        };
        let turn = self.queue.turn(deadline).await.ok_or_else(busy)?;
        let begun = Instant::now();
        let controllers = match timeout_at(deadline, self.servers.controllers(Service::Binds)).await {
            Ok(controllers) => controllers.map_err(PoolError::Unanswered)?,
            Err(_) => return Err(PoolError::Unanswered(self.servers.awaited().to_owned())),
        };
        let tried = Attempts::default();
        let mut waiting = controllers.as_slice();
        let mut running = Vec::new();
        let mut is_next_due = true;
        loop {
            if let (true, [controller, rest @ ..]) = (is_next_due && Instant::now() < deadline, waiting) {
                running
                    .push(Running::new(controller, self.bind_at(controller, dn, password, deadline, &tried)));
                waiting = rest;
            }
            let Some(last) = running.last() else { break };
            let is_last = waiting.is_empty() || Instant::now() >= deadline;
            let until = if is_last { None } else { Some(last.until) };
            let ended = first_of(&mut running, |running| &mut running.future);
            let ended = match until {
                Some(until) => timeout_at(until, ended).await.ok(),
                // This attempt ends at the deadline.
                None => Some(ended.await),
            };
            is_next_due = match ended {
                Some((_, Some((answered, connection)))) => {
                    self.queue.took(begun.elapsed());
                    let unanswered = std::mem::take(&mut lock(&tried).unanswered);
                    return Ok((Checked { unanswered, ..answered }, connection, turn));
                }
                Some((index, None)) => {
                    drop(running.remove(index));
                    true
                }
                None => !self.goes_on(&mut running, waiting, deadline, &tried),
            };
        }
        drop(running);
        Err(tried.tried.into_inner().error())
    }

    /// Returns true if the login waits for the last `running` attempt alone, although that has been silent
    /// for [`ATTEMPT`]. If false, the caller starts another attempt in parallel.
    fn goes_on<F>(
        &self,
        running: &mut [Running<F>],
        waiting: &[Arc<Controller>],
        deadline: Instant,
        tried: &Attempts,
    ) -> bool {
        let Some(last) = running.last_mut() else { return false };
        let host = last.controller.host.clone();
        let sent = lock(tried).sent(&host);
        // A successful connection does not show that binds work.
        let since = sent.map_or(last.since, |sent| sent.max(last.since));
        let answers_others = self.servers.answered_since(&host, Service::Binds, since);
        let others = self.others(&last.controller, waiting);
        if others == Others::Failed && !answers_others {
            self.servers.hurry(Service::Binds);
        }
        let now = Instant::now();
        (last.since, last.until) = (now, deadline.min(last.until + ATTEMPT));
        if now >= deadline || stays(answers_others, others, deadline.saturating_duration_since(now)) {
            return true;
        }
        let what = if sent.is_some() { "no answer to a bind" } else { "no connection" };
        self.doubt(&last.controller, &format!("{host}: {what} in time"), since);
        false
    }

    /// Binds at one domain controller; `None` if it has not answered, with the cause in `tried`.
    async fn bind_at(
        &self,
        controller: &Arc<Controller>,
        dn: &str,
        password: &str,
        deadline: Instant,
        tried: &Attempts,
    ) -> Option<(Checked, Connection)> {
        while Instant::now() < deadline {
            if let Some(answer) = self.takes_no_binds(&controller.host) {
                let mut tried = lock(tried);
                tried.blocked = true;
                tried.causes.push(answer);
                return None;
            }
            // The caller decides if another one is tried in parallel.
            let mut wait = Wait::new(controller, &[], deadline);
            let (connection, connect) = match self.connection(&mut wait).await {
                Ok(connection) => connection,
                Err(unusable) => {
                    let mut tried = lock(tried);
                    tried.no_tls |= unusable.lacks_tls();
                    tried.causes.push(unusable.cause().to_owned());
                    return None;
                }
            };
            let turn = timeout_at(deadline, tried.sending.turn()).await;
            if turn.is_err() || !lock(tried).send(&controller.host) {
                self.put_back(connection);
                return None;
            }
            let fresh = connect.is_some();
            let result = self.try_bind(connection, dn, password, &mut wait).await;
            let mut tried = lock(tried);
            if !result.as_ref().is_err_and(Failure::may_have_counted) {
                tried.answered(&controller.host);
            }
            match result {
                Ok((answered, connection)) => {
                    self.blocked().remove(&controller.host);
                    return Some((Checked { connect, ..answered }, connection));
                }
                // Its TLS works, so it is not down.
                Err(Failure::Blocked(cause)) => {
                    tried.uncounted += 1;
                    tried.blocked = true;
                    tried.causes.push(cause.clone());
                    self.blocked().insert(controller.host.clone(), (Instant::now(), cause));
                    return None;
                }
                // A closed idle connection does not mean that a new one would fail. The others have been idle
                // for longer, so the same cause has most likely closed them as well.
                Err(Failure::Broken(cause)) if !fresh => {
                    self.abandon_idle(&controller.host);
                    tried.causes.push(cause);
                }
                Err(Failure::Unwilling(cause)) => {
                    tried.uncounted += 1;
                    tried.causes.push(self.fail(controller, &cause));
                    return None;
                }
                Err(Failure::Broken(cause) | Failure::Trouble(cause)) => {
                    tried.causes.push(self.fail(controller, &cause));
                    return None;
                }
                Err(Failure::Silence(cause)) => {
                    self.doubt_if_silent(&wait, &cause);
                    tried.causes.push(cause);
                    return None;
                }
            }
        }
        None
    }

    /// Closes the idle connections.
    pub fn clear(&self) {
        self.idle().clear();
    }

    /// Reports the state of the pool.
    pub fn report(&self) -> report::Pool {
        report::Pool {
            idle: self.idle().len(),
            busy: self.settings.connections - self.queue.free(),
            max: self.settings.connections,
        }
    }

    /// Number of logins that found every connection busy until their deadline.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the end of each domain controller's certificate, in seconds since 1970-01-01 UTC, as last
    /// verified.
    pub fn certificates(&self) -> Vec<(String, u64)> {
        let mut known = self.certificates.lock();
        known.retain(|host, _| self.servers.knows(host));
        known.iter().map(|(host, ends)| (host.clone(), *ends)).collect()
    }

    /// Returns the answer of `host` if it took no simple bind within the last [`BLOCKED`].
    fn takes_no_binds(&self, host: &str) -> Option<String> {
        let blocked = self.blocked();
        blocked.get(host).filter(|(at, _)| at.elapsed() < BLOCKED).map(|(_, answer)| answer.clone())
    }

    /// Returns true if the last bind that `host` answered was rejected because it takes no simple binds.
    pub fn is_blocked(&self, host: &str) -> bool {
        self.blocked().contains_key(host)
    }

    /// Returns true if domain controllers took no simple binds, and it is time to send them one again.
    pub fn is_due(&self) -> bool {
        let blocked = self.blocked();
        !blocked.is_empty() && blocked.values().all(|(at, _)| at.elapsed() >= BLOCKED)
    }

    fn blocked(&self) -> MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.blocked.lock()
    }

    /// Returns the domain controllers that a login could turn to instead of `controller`.
    fn others(&self, controller: &Controller, rest: &[Arc<Controller>]) -> Others {
        let is_down = |controller: &Controller| self.servers.is_down(&controller.host, Service::Binds);
        Others::new(is_down(controller), rest.iter().map(|other| is_down(other)))
    }

    /// Returns true if a login keeps waiting. Then `wait` has the time of the next check.
    fn stays(&self, wait: &mut Wait) -> bool {
        // Counted since the last check: an answer just before it fell silent does not make it slow for ever.
        let answers_others = self.servers.answered_since(&wait.controller.host, Service::Binds, wait.since);
        wait.since = Instant::now();
        let others = self.others(wait.controller, wait.rest);
        if others == Others::Failed && !answers_others {
            self.servers.hurry(Service::Binds);
        }
        let stays = stays(answers_others, others, wait.deadline.saturating_duration_since(Instant::now()));
        wait.until = wait.deadline.min(wait.until + ATTEMPT);
        stays
    }

    /// Notes the failure, and closes the idle connections to the host.
    fn fail(&self, controller: &Controller, cause: &str) -> String {
        self.abandon_idle(&controller.host);
        self.servers.failed(&controller.host, Service::Binds, cause);
        cause.to_owned()
    }

    /// Notes that a host which got a request at `since` is slow or dead: a probe shows which. The idle
    /// connections that have not answered since may be dead even if the host is not.
    fn doubt(&self, controller: &Controller, cause: &str, since: Instant) {
        self.abandon(|connection| connection.host == controller.host && connection.used < since);
        self.servers.silent(&controller.host, Service::Binds, cause);
    }

    /// Notes the same at the end of a login's wait, unless that was too short to show anything.
    fn doubt_if_silent(&self, wait: &Wait, cause: &str) {
        let host = &wait.controller.host;
        let is_long = wait.begun.elapsed() >= ATTEMPT;
        if is_long && !self.servers.answered_since(host, Service::Binds, wait.begun) {
            self.doubt(wait.controller, cause, wait.begun);
        }
    }

    /// Closes the idle connections to `host`.
    fn abandon_idle(&self, host: &str) {
        self.abandon(|connection| connection.host == host);
    }

    fn abandon(&self, is_meant: impl Fn(&Connection) -> bool) {
        for connection in self.idle().extract_if(.., |connection| is_meant(connection)) {
            connection.bind.abandon();
        }
    }

    async fn try_bind(
        &self,
        connection: Connection,
        dn: &str,
        password: &str,
        wait: &mut Wait<'_>,
    ) -> Result<(Checked, Connection), Failure> {
        let begun = Instant::now();
        // A successful connection does not show that binds work.
        (wait.begun, wait.since) = (begun, begun);
        let host = connection.host.clone();
        let mut busy = Busy(Some(connection));
        let answer = {
            let Some(connection) = busy.0.as_mut() else { return Err(Failure::Broken(host)) };
            let bind = connection.bind.bind(dn, password);
            tokio::pin!(bind);
            loop {
                match timeout_at(wait.until, &mut bind).await {
                    Ok(answer) => break Some(answer),
                    Err(_) if self.stays(wait) => {}
                    Err(_) => break None,
                }
            }
        };
        let answer = match answer {
            Some(Ok(answer)) => refusal::read(answer.code, &answer.text),
            Some(Err(e)) => {
                let cause = format!("{host}: {e}");
                return Err(match e {
                    ExchangeError::Io(_) | ExchangeError::Closed => Failure::Broken(cause),
                    // It has received the bind, but answered something else.
                    ExchangeError::Truncated | ExchangeError::Notice { .. } | ExchangeError::Malformed => {
                        Failure::Trouble(cause)
                    }
                });
            }
            None => {
                return Err(Failure::Silence(format!("{host}: no answer to a bind in time")));
            }
        };
        match answer {
            Ok(decided) => {
                self.servers.answered(&host, Service::Binds);
                let bound = decided.by_ldap(host.clone(), begun.elapsed());
                busy.0.take().map(|connection| (bound, connection)).ok_or(Failure::Broken(host))
            }
            // The bind was answered, and the connection is as good as before.
            Err(Undecided::Blocked(answer)) => {
                if let Some(connection) = busy.0.take() {
                    self.put_back(connection);
                }
                self.servers.answered(&host, Service::Binds);
                Err(Failure::Blocked(format!("{host}: {answer}")))
            }
            Err(Undecided::Trouble(trouble)) => Err(Failure::Unwilling(format!("{host}: {trouble}"))),
        }
    }

    /// Takes an open connection to `host`.
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
        self.idle.lock()
    }

    fn connecting(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.connecting.lock()
    }

    fn starttls(&self) -> MutexGuard<'_, HashSet<String>> {
        self.starttls.lock()
    }
}

async fn reap(pool: Weak<Pool>) -> Ended {
    let mut tick = tokio::time::interval(Duration::from_secs(15));
    loop {
        tick.tick().await;
        let Some(pool) = pool.upgrade() else { return Ok(()) };
        let limit = pool.settings.idle;
        pool.idle().retain_mut(|connection| connection.used.elapsed() < limit && connection.bind.is_open());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::controllers::discovery::Wanted;
    use crate::directory::controllers::discovery::tests::{names, zone};
    use crate::directory::controllers::roster::Roster;

    #[tokio::test(start_paused = true)]
    async fn who_works_is_not_left_for_who_does_not() {
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let roster = Roster::fixed(["a", "b", "c"].map(|host| (host, false)).into_iter().collect());
        let servers = ServerList::new(wanted, names(zone()), roster, Box::new(|_| {}));
        let [a, b, c] = servers.controllers(Service::Binds).await.unwrap().try_into().unwrap();
        let trust = Arc::new(Trust::load(None, None).unwrap());
        let settings = config::Pool { connections: 1, idle: Duration::from_secs(1) };
        let renew: Renew = Box::new(|_| Box::pin(async {}));
        let pool = Pool::new(servers.clone(), trust, TlsMode::Auto, settings, renew);
        assert_eq!(pool.others(&a, &[b.clone(), c.clone()]), Others::Better);
        assert_eq!(pool.others(&c, &[]), Others::None);
        servers.failed(&b.host, Service::Binds, "refused");
        assert_eq!(pool.others(&a, &[c.clone(), b.clone()]), Others::Better);
        assert_eq!(pool.others(&a, std::slice::from_ref(&b)), Others::Failed);
        // If none of them works, none is worth all the time while there is another.
        servers.failed(&a.host, Service::Binds, "silent");
        assert_eq!(pool.others(&a, &[b]), Others::Better);
        assert_eq!(pool.others(&a, &[]), Others::None);
    }
}
