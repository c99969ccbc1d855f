//! The register of sessions: which users are logged in, and where.
//!
//! A session begins when an application opens it. It ends when the application closes it, when another login
//! of the user replaces it, when its process is gone, when it is too old, or when AD no longer grants the
//! user access, or when an administrator ends it. A session that is replaced, too old, without access or
//! ended by an administrator is evicted: the application did not end it and learns of it from the events.

mod evict;
pub mod identity;
mod owed;
pub mod process;
mod reading;
pub mod redis;
pub mod rule;
pub mod seat;
pub mod sqlite;
mod state;
pub mod store;
mod sweep;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::identity::{Identity, Server};
use self::owed::{Due, Left, Owed};
use self::process::Process;
use self::redis::{Change, Redis};
use self::rule::Admission;
use self::seat::Opening;
use self::sqlite::Sqlite;
use self::store::{Closed, Opened, Position, Store, StoreError, Which};
use crate::config;
use crate::directory::controllers::dns::Names;
use crate::log::{Level, Line, Log};
use crate::protocol::report::{EndReason, Ended, Session};
use crate::protocol::{Peer, Request};
use crate::scarce;
use crate::supervise;

/// Maximum length of a text in a session, in bytes; longer texts are cut.
const TEXT: usize = 255;
/// Maximum number of requests that wait for events at the same time.
const WATCHERS: usize = 64;
/// Maximum duration of a call to the store that no request waits for.
pub const CALL: Duration = Duration::from_secs(10);

/// The account that a session is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// `user@domain`.
    pub principal: String,
    /// `objectGUID` of the account.
    pub guid: Uuid,
    /// True if `sessions.exempt_groups` allows the user any number of sessions.
    pub is_exempt: bool,
}

/// Reason why a user has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The policy rejects the session because these are open.
    Denied(Vec<Session>),
    /// The store did not register the session.
    Store(StoreError),
}

/// The register of sessions.
pub struct Register {
    store: Arc<dyn Store>,
    settings: config::Sessions,
    /// This server, which marks its sessions.
    identity: Identity,
    /// The id of this boot.
    boot: String,
    log: Arc<Log>,
    /// The last problems with the store, reading and writing: a store on a full disk can still be read.
    trouble: Mutex<[Option<String>; 2]>,
    watchers: Semaphore,
    /// Maximum number of requests that may wait for events.
    places: usize,
    ending: watch::Sender<bool>,
    /// Ends that the store has not taken yet.
    owed: Owed,
    /// Position of the bookmark of `sessions.on_evict`, set once the bookmark is in the store.
    prepared: OnceCell<Position>,
    /// Sessions that were ended from here, by reason.
    ended: [AtomicU64; EndReason::ALL.len()],
    /// Time of the last complete recheck of the accounts, and the problem that has prevented another since.
    rechecked: Mutex<(Instant, Option<String>)>,
}

/// Opens the store that the configuration names; `names` resolves the addresses of servers.
///
/// # Errors
/// Returns the reason if the store cannot be created.
pub fn open_store(
    settings: &config::Sessions,
    state: Option<&Path>,
    names: Arc<dyn Names>,
    log: &Arc<Log>,
) -> Result<Arc<dyn Store>, String> {
    match &settings.store {
        config::Store::Sqlite => {
            // Without a state directory, as in a start by hand, only calls that need the register fail, and
            // they say so.
            let folder = state.unwrap_or(Path::new("/nonexistent/STATE_DIRECTORY is not set"));
            let log = log.clone();
            let tell = Arc::new(move |text: &str| {
                log.write(Level::Error, &Line::new("sessions").with("problem", text));
            });
            let store =
                Sqlite::new(folder, tell).map_err(|error| format!("no thread for sessions: {error}"))?;
            Ok(Arc::new(store))
        }
        config::Store::Redis(redis) => {
            let (log, store) = (log.clone(), redis.to_string());
            let tell = Arc::new(move |change: &Change| {
                let (level, line) = change.line(&store);
                log.write(level, &line);
            });
            Ok(Arc::new(Redis::new(redis.clone(), names, tell)))
        }
    }
}

impl Register {
    /// Creates the register in `store`, for the sessions of `server`.
    pub fn new(
        store: Arc<dyn Store>,
        settings: config::Sessions,
        server: Server,
        connections: usize,
        log: Arc<Log>,
    ) -> Arc<Self> {
        // A watcher holds a connection for a long time; some connections must stay free for logins.
        let places = WATCHERS.min(connections / 2);
        let identity = Identity::new(server, !store.is_shared());
        Arc::new(Register {
            store,
            settings,
            identity,
            boot: process::boot(),
            log,
            trouble: Mutex::default(),
            watchers: Semaphore::new(places),
            places,
            ending: watch::Sender::new(false),
            owed: Owed::default(),
            prepared: OnceCell::new(),
            ended: std::array::from_fn(|_| AtomicU64::new(0)),
            rechecked: Mutex::new((Instant::now(), None)),
        })
    }

    /// The settings of the configuration.
    pub fn settings(&self) -> &config::Sessions {
        &self.settings
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Starts the background tasks: the sweep, the command for evictions, the owed ends, the server's count.
    pub fn start(self: &Arc<Self>) {
        let [swept, followed, owed, here] = [(); 4].map(|()| self.clone());
        supervise::spawn("sweep", move || sweep::keep(swept.clone()));
        supervise::spawn("on_evict", move || evict::keep(followed.clone()));
        supervise::spawn("owed", move || owed::keep(owed.clone()));
        supervise::spawn("identity", move || identity::keep(here.clone()));
    }

    /// Makes the owed ends, such as those of logins that were cut off, for at most `time`: the broker is
    /// stopping.
    pub async fn leave(&self, time: Duration) {
        let _ = timeout_at(Instant::now() + time, self.settle()).await;
    }

    /// Answers every request that waits for events, because the broker is stopping.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Registers a session of `newcomer`, whom `request` of `peer` has logged in.
    ///
    /// # Errors
    /// Returns the reason if no session was registered. A session that may be registered after a
    /// timeout is undone in the background.
    pub async fn open(
        &self,
        newcomer: &Newcomer,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Session, NotOpened> {
        if let Some(problem) = self.identity.problem() {
            return Err(NotOpened::Store(StoreError::Unavailable(problem)));
        }
        evict::prepare(self, deadline).await.map_err(NotOpened::Store)?;
        let session = self.session(newcomer, request, peer).map_err(NotOpened::Store)?;
        let opening = Opening::new(self, session.clone());
        let opened = self.written(self.store.open(&session, self.admission(newcomer), deadline).await);
        match opened {
            Ok(Opened::Registered(evicted)) => {
                opening.answered();
                evicted.iter().for_each(|session| self.tell(session));
                Ok(session)
            }
            Ok(Opened::Denied(open)) => {
                opening.answered();
                Err(NotOpened::Denied(open))
            }
            Err(error) => {
                if let Some(session) = opening.answered()
                    && matches!(error, StoreError::Timeout(_))
                {
                    let ended = unconfirmed("the register did not answer in time");
                    self.owe(Due::Undo(Box::new(session), ended));
                }
                Err(NotOpened::Store(error))
            }
        }
    }

    fn admission(&self, newcomer: &Newcomer) -> Admission {
        match self.settings.policy {
            _ if newcomer.is_exempt => Admission::Unlimited,
            config::Policy::Unlimited => Admission::Unlimited,
            config::Policy::Replace => Admission::Replace(self.settings.limit),
            config::Policy::Deny => Admission::Deny(self.settings.limit),
        }
    }

    fn session(&self, newcomer: &Newcomer, request: &Request, peer: &Peer) -> Result<Session, StoreError> {
        let mut id = [0; 16];
        let failed = |_| StoreError::Unavailable("the kernel gives no random numbers".to_owned());
        SystemRandom::new().fill(&mut id).map_err(failed)?;
        let started = match peer.pid {
            0 => 0,
            pid => self.identify(pid),
        };
        Ok(Session {
            id: uuid::Builder::from_random_bytes(id).into_uuid().to_string(),
            user: cut(&request.user),
            principal: cut(&newcomer.principal),
            guid: newcomer.guid.to_string(),
            service: cut(&request.service),
            rhost: cut(&request.rhost),
            tty: cut(&request.tty),
            host: self.identity.server.name.clone(),
            machine: self.identity.server.machine.clone(),
            uid: peer.uid,
            pid: peer.pid,
            started,
            boot: self.boot.clone(),
            since: now(),
            ended: None,
        })
    }

    /// Returns the start time of a session's process; 0 if it is unknown. Then the session ends when no
    /// process has that id, or by its age.
    fn identify(&self, pid: u32) -> u64 {
        let (started, problem) = Process::identify(pid);
        if let Some(error) = problem {
            let line = Line::new("sessions")
                .with("problem", format!("the process {pid} of a session cannot be identified: {error}"))
                .with(
                    "consequence",
                    "if another process gets its id, the session ends by sessions.max_age only",
                )
                .with("advice", scarce::advice(&error).unwrap_or_default());
            self.log.complain(Level::Warning, &format!("process {error}"), line);
        }
        started
    }

    /// Ends a session that its application does not know of, as soon as the store can be reached.
    pub fn undo(&self, id: String, why: &str) {
        self.owe(Due::End(id, unconfirmed(why)));
    }

    /// Ends the session `id`; see [`Store::close`]. If the reply to the end may be lost, the end is
    /// repeated in the background, so that it is logged.
    ///
    /// # Errors
    /// Returns an error if the store did not end the session.
    pub async fn close(&self, id: &str, ended: &Ended, deadline: Instant) -> Result<Closed, StoreError> {
        if ended.reason.is_eviction() {
            evict::prepare(self, deadline).await?;
        }
        let closed = self.written(self.store.close(id, ended, deadline).await).inspect_err(|error| {
            if matches!(error, StoreError::Timeout(_)) {
                self.owe(Due::End(id.to_owned(), ended.clone()));
            }
        })?;
        let is_told = self.tell_end(&closed, ended);
        Ok(match closed {
            // A first attempt ended it, and its reply was lost.
            Closed::Earlier(session) if is_told => Closed::Now(session),
            closed => closed,
        })
    }

    /// Ends the session `id`, which its application closes.
    ///
    /// # Errors
    /// Returns an error if the store did not end the session; it ends when the store can be reached again.
    pub async fn close_for(&self, id: &str, deadline: Instant) -> Result<Closed, StoreError> {
        let ended = closed_now();
        let closed = self.close(id, &ended, deadline).await;
        closed.inspect_err(|_| self.owe(Due::End(id.to_owned(), ended)))
    }

    /// Evicts the session `id`, because an administrator says so by the process `peer`. The event and the log
    /// name that process as the kernel knows it.
    ///
    /// # Errors
    /// Returns an error if the store did not end the session.
    pub async fn kick(&self, id: &str, peer: &Peer, deadline: Instant) -> Result<Closed, StoreError> {
        let ended = Ended { at: now(), reason: EndReason::Kicked, detail: format!("by {peer}") };
        self.close(id, &ended, deadline).await
    }

    /// Ends the newest session of `which` that `peer`'s process opened by the same service, else the newest
    /// one of another process of `peer`'s user. A remote host or terminal that `request` names must match the
    /// session, so that each of two browsers closes its own session.
    ///
    /// # Errors
    /// Returns an error if the store did not end the session; it ends when the store can be reached again.
    pub async fn close_newest(
        &self,
        which: Which,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Closed, StoreError> {
        let ended = closed_now();
        let open = self.all(&which, deadline).await.inspect_err(|_| {
            let left = Left { request: request.clone(), which, peer: *peer, ended: ended.clone() };
            self.owe(Due::Leave(Box::new(left)));
        })?;
        let Some(id) = newest(open, request, peer, |session| self.is_ours(session)) else {
            return Ok(Closed::Unknown);
        };
        let closed = self.close(&id, &ended, deadline).await;
        closed.inspect_err(|_| self.owe(Due::End(id, ended)))
    }

    /// Returns true if a session belongs to this server.
    fn is_ours(&self, session: &Session) -> bool {
        !self.store.is_shared() || self.identity.is_ours(session)
    }

    /// Returns true if a login that cannot be registered is denied.
    pub fn denies_on_failure(&self) -> bool {
        self.settings.on_store_failure == config::OnStoreFailure::Deny
    }

    /// Returns the number of sessions that this broker has ended, by reason.
    pub fn ended(&self) -> impl Iterator<Item = (EndReason, u64)> {
        EndReason::ALL.into_iter().zip(self.ended.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Counts and logs a session that ended. A close by the application is logged with its request.
    fn tell(&self, session: &Session) {
        let Some(ended) = &session.ended else { return };
        if let Some(count) = self.ended.get(ended.reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if ended.reason == EndReason::Closed && ended.detail.is_empty() {
            return;
        }
        let line = Line::new("session_end")
            .with("session", &session.id)
            .with("user", &session.user)
            .with("principal", &session.principal)
            .with("reason", ended.reason.name())
            .with("detail", &ended.detail)
            .with("host", &session.host)
            .with("pid", session.pid);
        self.log.write(Level::Info, &line);
    }
}

/// Returns the id of the newest session in `open` that `request` of `peer` may mean.
fn newest(
    open: Vec<Session>,
    request: &Request,
    peer: &Peer,
    is_ours: impl Fn(&Session) -> bool,
) -> Option<String> {
    let fits = |session: &Session| {
        is_ours(session)
            && session.service == cut(&request.service)
            && session.uid == peer.uid
            && (request.rhost.is_empty() || session.rhost == cut(&request.rhost))
            && (request.tty.is_empty() || session.tty == cut(&request.tty))
    };
    let mut open: Vec<_> = open.into_iter().filter(fits).collect();
    let own = open.iter().rposition(|session| session.pid == peer.pid);
    match own {
        Some(at) => Some(open.swap_remove(at).id),
        None => open.pop().map(|session| session.id),
    }
}

/// Returns the beginning of `text`, at most [`TEXT`] bytes.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(TEXT)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.get(..end).unwrap_or_default().to_owned()
}

/// Creates the end of a session that its application never learned of; see [`EndReason::Unconfirmed`].
fn unconfirmed(why: &str) -> Ended {
    let detail = format!("{why}: no application holds this session");
    Ended { at: now(), reason: EndReason::Unconfirmed, detail }
}

/// Creates the end of a session that its application closes now.
fn closed_now() -> Ended {
    Ended { at: now(), reason: EndReason::Closed, detail: String::new() }
}

/// Returns the milliseconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
