//! The register of sessions: which users are logged in, and where.
//!
//! A session begins when an application opens it. It ends when the application closes it, when another login
//! of the user replaces it, when its process is gone, when it is too old, or when AD no longer grants the
//! user access, or when an administrator ends it. A session that is replaced, too old, without access or ended by an
//! administrator is evicted: the application did not end it and learns of it from the events.

mod evict;
pub mod identity;
mod owed;
pub mod process;
pub mod redis;
pub mod rule;
pub mod seat;
pub mod sqlite;
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
use crate::protocol::Peer;
use crate::protocol::report::{self, EndReason, Ended, Events, Session, Sessions};
use crate::protocol::{MAX_FRAME, Request};
use crate::supervise;

/// Maximum length of a text in a session, in bytes; longer texts are cut.
const TEXT: usize = 255;
/// Maximum number of requests that wait for events at the same time.
const WATCHERS: usize = 64;
/// Number of sessions or events that are read at a time.
const PAGE: usize = 200;
/// Maximum size of the sessions or events in a reply, in bytes of JSON; the rest of the frame holds their
/// envelope.
const ROOM: usize = MAX_FRAME - 1024;
/// Maximum duration of a call to the store that no request waits for.
pub const CALL: Duration = Duration::from_secs(10);
/// Delay after which a recheck counts as not running; at least the configured interval.
const RECHECK_LATE: Duration = Duration::from_secs(120);

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
    /// Set once the bookmark of `sessions.on_evict` is in the store.
    prepared: OnceCell<()>,
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
            started: if peer.pid == 0 { 0 } else { Process::look(peer.pid).started() },
            boot: self.boot.clone(),
            since: now(),
            ended: None,
        })
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

    /// Evicts the session `id`, because an administrator says so by the process `peer`. The event and the log name that
    /// process as the kernel knows it.
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

    /// Returns the open sessions of this server; in a file of this host these are all, under any name of the
    /// host.
    pub async fn mine(&self, deadline: Instant) -> Result<Vec<Session>, StoreError> {
        if !self.store.is_shared() {
            return self.all(&Which::All, deadline).await;
        }
        let machine = Which::Machine(self.identity.server.machine.clone());
        let mut mine = self.all(&machine, deadline).await?;
        mine.retain(|session| self.is_ours(session));
        Ok(mine)
    }

    /// Returns every open session of `which`, read page by page.
    async fn all(&self, which: &Which, deadline: Instant) -> Result<Vec<Session>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.read(self.store.list(which, after.as_deref(), PAGE, deadline).await)?;
            after = page.list.last().map(|listed| listed.cursor.clone());
            all.extend(page.list.into_iter().map(|listed| listed.session));
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns a page of open sessions, as many as fit into a reply.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    pub async fn list(
        &self,
        which: &Which,
        after: Option<&str>,
        deadline: Instant,
    ) -> Result<Sessions, StoreError> {
        let page = self.read(self.store.list(which, after, PAGE, deadline).await)?;
        let fit = fitting(page.list.iter().map(|listed| &listed.session));
        let next = page.list.get(fit.saturating_sub(1)).map(|listed| listed.cursor.clone());
        let more = page.more || fit < page.list.len();
        let list = page.list.into_iter().take(fit).map(|listed| listed.session).collect();
        Ok(Sessions { list, next: next.filter(|_| more) })
    }

    /// Returns the session `id`, whether open or recently ended.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    pub async fn show(&self, id: &str, deadline: Instant) -> Result<Sessions, StoreError> {
        let found = self.read(self.store.get(id, deadline).await)?;
        Ok(Sessions { list: found.into_iter().collect(), next: None })
    }

    /// Returns the events after `cursor`, and waits for one until `deadline`. Without a cursor, the reply is
    /// empty and says where to begin. Returns `None` if too many requests wait already.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    pub async fn watch(&self, cursor: Option<&str>, deadline: Instant) -> Result<Option<Events>, StoreError> {
        let Ok(_place) = self.watchers.try_acquire() else { return Ok(None) };
        let mut changes = self.store.changes();
        let mut ending = self.ending.subscribe();
        let position = cursor.map_or(Position::Now, |cursor| Position::After(cursor.to_owned()));
        // The last query must be answered before the deadline.
        let last = deadline - deadline.saturating_duration_since(Instant::now()) / 10;
        loop {
            changes.mark_unchanged();
            let mut events = self.read(self.store.events(&position, PAGE, deadline).await)?;
            let is_answer = !events.list.is_empty() || events.gap || position == Position::Now;
            if is_answer || *ending.borrow() || Instant::now() >= last {
                let fit = fitting(events.list.iter().map(|event| &event.session));
                events.list.truncate(fit);
                if let Some(event) = events.list.last() {
                    events.cursor.clone_from(&event.cursor);
                }
                return Ok(Some(events));
            }
            let woken = async {
                tokio::select! { changed = changes.changed() => changed, ended = ending.changed() => ended }
            };
            if let Ok(Err(_)) = timeout_at(last, woken).await {
                return Ok(Some(events));
            }
        }
    }

    /// Writes to the store and returns its problem, if any: a store on a full disk can still be read.
    pub async fn try_writing(&self, deadline: Instant) -> Option<String> {
        let _ = self.written(
            self.store
                .bookmark(&format!("health {}", self.identity.server.name), &now().to_string(), deadline)
                .await,
        );
        self.trouble()
    }

    /// Returns true if a login that cannot be registered is denied.
    pub fn denies_on_failure(&self) -> bool {
        self.settings.on_store_failure == config::OnStoreFailure::Deny
    }

    /// Notes that the accounts behind sessions were read again, or the problem that prevented it.
    pub fn note_recheck(&self, problem: Option<String>) {
        let mut rechecked = self.rechecked.lock();
        match problem {
            None => *rechecked = (Instant::now(), None),
            problem => rechecked.1 = problem,
        }
    }

    /// Returns the reason if the accounts are not read again as often as `sessions.recheck` says.
    pub fn recheck_problem(&self) -> Option<String> {
        let every = self.settings.recheck?;
        let rechecked = self.rechecked.lock();
        let age = rechecked.0.elapsed();
        match &rechecked.1 {
            Some(problem) => {
                Some(format!("accounts could not be read again, and no session ends: {problem}"))
            }
            None if age > every + every.max(RECHECK_LATE) => {
                Some(format!("accounts were last read again {} s ago", age.as_secs()))
            }
            None => None,
        }
    }

    fn trouble(&self) -> Option<String> {
        let problem = self.trouble.lock().iter().flatten().next().cloned();
        self.identity.problem().or(problem)
    }

    /// Returns the state of the register, for administrators.
    pub async fn report(&self, deadline: Instant) -> report::Register {
        let open = self.read(self.store.count(deadline).await).ok();
        report::Register { store: self.store.name(), open, problem: self.trouble() }
    }

    /// Records whether the store could be read.
    fn read<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.noted(result, |[reading, _]| reading)
    }

    /// Records whether the store could be written.
    fn written<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.noted(result, |[_, writing]| writing)
    }

    fn noted<T>(
        &self,
        result: Result<T, StoreError>,
        place: impl FnOnce(&mut [Option<String>; 2]) -> &mut Option<String>,
    ) -> Result<T, StoreError> {
        let trouble = match &result {
            Ok(_) => None,
            // The cursor is the client's mistake, not the store's.
            Err(StoreError::Cursor(_)) => return result,
            Err(error) => {
                let line = Line::new("sessions").with("problem", error).with("store", self.store.name());
                self.log.complain(Level::Error, "sessions", line);
                Some(error.to_string())
            }
        };
        *place(&mut self.trouble.lock()) = trouble;
        result
    }

    /// Returns the number of open sessions, without a log line if the store does not reply.
    pub async fn open_now(&self, deadline: Instant) -> Option<u64> {
        self.store.count(deadline).await.ok()
    }

    /// Returns the number of sessions that this broker has ended, by reason.
    pub fn ended(&self) -> impl Iterator<Item = (EndReason, u64)> {
        EndReason::ALL.into_iter().zip(self.ended.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns the number of requests that wait for events.
    pub fn watching(&self) -> usize {
        self.places.saturating_sub(self.watchers.available_permits())
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

/// Returns how many of `sessions` fit into a reply; at least one, which always fits.
fn fitting<'a>(sessions: impl Iterator<Item = &'a Session>) -> usize {
    // Space for a cursor and the JSON around it.
    const AROUND: usize = 128;
    let mut used = 0;
    let fits = |session: &&Session| {
        used += AROUND + serde_json::to_vec(session).map_or(ROOM, |json| json.len());
        used <= ROOM
    };
    sessions.take_while(fits).count().max(1)
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
pub(crate) mod tests {
    use std::num::NonZeroUsize;
    use std::task::Poll;

    use super::seat::Seat;
    use super::store::suite::{listed, session, soon};
    use super::*;
    use crate::config::Policy;
    use crate::directory::controllers::dns::Network;
    use crate::protocol::{HEADER, Operation, Reply, Secret, encode};

    pub fn settings() -> config::Sessions {
        let join = config::Join { domain: Some("acme.com".into()), ..config::Join::default() };
        config::Config::of_join(&join).unwrap().sessions
    }

    /// Creates a register of the host `here` in a new folder.
    pub fn register(settings: config::Sessions) -> (Arc<Register>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (register_in(settings, folder.path()), folder)
    }

    /// A server for tests.
    pub(in crate::sessions) fn here() -> Server {
        Server { name: "here".into(), machine: "6d61".into() }
    }

    fn register_in(settings: config::Sessions, folder: &Path) -> Arc<Register> {
        let (log, writer) = Log::open().unwrap();
        // Its log lines are discarded.
        writer.finish();
        let log = Arc::new(log);
        let store = open_store(&settings, Some(folder), Arc::new(Network::default()), &log).unwrap();
        Register::new(store, settings, here(), 8, log)
    }

    fn newcomer(person: u8) -> Newcomer {
        Newcomer {
            principal: format!("{person}@acme.com"),
            guid: Uuid::from_bytes([person; 16]),
            is_exempt: false,
        }
    }

    const OPEN: Operation = Operation::OpenSession { account: None };
    const CLOSE: Operation = Operation::CloseSession { session: None };

    fn request(operation: Operation) -> Request {
        Request { service: "motion".into(), ..Request::new(operation, "john.doe", CALL) }
    }

    fn me() -> Peer {
        Peer { uid: 998, pid: std::process::id() }
    }

    impl Register {
        /// The store itself.
        pub fn store(&self) -> &dyn Store {
            &*self.store
        }

        pub(in crate::sessions) async fn enter(self: &Arc<Self>, person: u8) -> Result<Session, NotOpened> {
            self.open(&newcomer(person), &request(OPEN), &me(), soon()).await
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_says_who_where_and_by_which_process() {
        let (register, _folder) = register(settings());
        let long = format!("{}ß", "x".repeat(TEXT - 1));
        let request = Request { rhost: long, tty: "tty1".into(), ..request(OPEN) };
        let session = register.open(&newcomer(1), &request, &me(), soon()).await.unwrap();
        assert!(session.id.parse::<Uuid>().is_ok());
        assert_eq!((session.user.as_str(), session.principal.as_str()), ("john.doe", "1@acme.com"));
        assert_eq!(session.guid, "01010101-0101-0101-0101-010101010101");
        assert_eq!((session.service.as_str(), session.tty.as_str()), ("motion", "tty1"));
        assert_eq!(session.rhost, "x".repeat(TEXT - 1));
        assert_eq!((session.host.as_str(), session.uid, session.pid), ("here", 998, std::process::id()));
        assert_eq!(session.started, Process::look(session.pid).started());
        assert_eq!(session.boot, process::boot());
        assert!(now() - session.since < 60_000);
        assert_eq!(register.show(&session.id, soon()).await.unwrap().list, [session]);
        let report = register.report(soon()).await;
        assert_eq!((report.open, report.problem), (Some(1), None));
        assert!(report.store.starts_with("sqlite /"), "{}", report.store);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_policy_decides_and_exempt_people_are_without_limit() {
        let two = NonZeroUsize::new(2).unwrap();
        for (policy, limit, exempt, remain, denied) in [
            (Policy::Replace, NonZeroUsize::MIN, false, 1, 0),
            (Policy::Replace, two, false, 2, 0),
            (Policy::Replace, NonZeroUsize::MIN, true, 3, 0),
            (Policy::Deny, NonZeroUsize::MIN, false, 1, 2),
            (Policy::Deny, two, false, 2, 1),
            (Policy::Deny, NonZeroUsize::MIN, true, 3, 0),
            (Policy::Unlimited, NonZeroUsize::MIN, false, 3, 0),
        ] {
            let (register, _folder) = register(config::Sessions { policy, limit, ..settings() });
            let newcomer = Newcomer { is_exempt: exempt, ..newcomer(1) };
            let mut refused = 0;
            for _ in 0..3 {
                match register.open(&newcomer, &request(OPEN), &me(), soon()).await {
                    Ok(_) => {}
                    Err(NotOpened::Denied(open)) => {
                        assert_eq!(open.len(), limit.get());
                        refused += 1;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            let open = listed(&*register.store, Which::All).await.len();
            assert_eq!((open, refused), (remain, denied), "{policy:?} {limit} {exempt}");
        }
    }

    #[test]
    fn without_an_id_a_process_closes_its_own_newest_session() {
        let session = |id: &str| Session {
            host: "here".into(),
            service: "motion".into(),
            rhost: "a".into(),
            tty: "t".into(),
            uid: 998,
            pid: 7,
            ..session(id, "john", 0)
        };
        let list = || {
            vec![
                session("1"),
                Session { rhost: "b".into(), ..session("2") },
                Session { pid: 8, ..session("3") },
                Session { service: "other".into(), ..session("4") },
                Session { uid: 0, ..session("5") },
                Session { host: "there".into(), ..session("6") },
            ]
        };
        let peer = |uid, pid| Peer { uid, pid };
        let asks =
            |rhost: &str, tty: &str| Request { rhost: rhost.into(), tty: tty.into(), ..request(CLOSE) };
        let cases = [
            ("the newest of the process", asks("", ""), peer(998, 7), Some("2")),
            ("of another process", asks("", ""), peer(998, 8), Some("3")),
            ("of none of the processes", asks("", ""), peer(998, 9), Some("3")),
            ("of another user", asks("", ""), peer(0, 9), Some("5")),
            ("of a stranger", asks("", ""), peer(1, 7), None),
            ("from there", asks("a", ""), peer(998, 7), Some("1")),
            ("from nowhere", asks("c", ""), peer(998, 7), None),
            ("of another terminal", asks("a", "u"), peer(998, 7), None),
        ];
        for (case, request, peer, expected) in cases {
            let found = newest(list(), &request, &peer, |session| session.host == "here");
            assert_eq!(found.as_deref(), expected, "{case}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_by_id_or_by_name_ends_it_once() {
        let (register, _folder) = register(settings());
        let [a, b] = [register.enter(1).await.unwrap(), register.enter(2).await.unwrap()];
        let closed = |closed: Closed| match closed {
            Closed::Now(session) => ("now", session.id),
            Closed::Earlier(session) => ("earlier", session.id),
            Closed::Unknown => ("unknown", String::new()),
        };
        assert_eq!(closed(register.close_for(&a.id, soon()).await.unwrap()), ("now", a.id.clone()));
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(closed(register.close_for(&a.id, soon()).await.unwrap()), ("earlier", a.id));
        let by_name = request(CLOSE);
        for expected in [("now", b.id), ("unknown", String::new())] {
            let which = Which::Principal("2@acme.com".into());
            let found = register.close_newest(which, &by_name, &me(), soon()).await.unwrap();
            assert_eq!(closed(found), expected);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_kicked_session_is_evicted_and_says_who_did_it() {
        let (register, _folder) = register(settings());
        let begin = register.watch(None, soon()).await.unwrap().unwrap();
        let session = register.enter(1).await.unwrap();
        let administrator = Peer { uid: 0, pid: 4711 };
        let Closed::Now(kicked) = register.kick(&session.id, &administrator, soon()).await.unwrap() else {
            panic!("it was open");
        };
        let ended = kicked.ended.clone().unwrap();
        assert!(ended.reason.is_eviction());
        assert_eq!((ended.reason, ended.detail.as_str()), (EndReason::Kicked, "by uid:0,pid:4711"));
        let events = register.watch(Some(&begin.cursor), soon()).await.unwrap().unwrap();
        assert_eq!(events.list.last().unwrap().session, kicked);
        assert_eq!(register.ended().find(|(reason, _)| *reason == EndReason::Kicked).unwrap().1, 1);
        // Once: a second time, and one that nobody knows.
        let again = register.kick(&session.id, &Peer { uid: 1, pid: 1 }, soon()).await.unwrap();
        assert_eq!(again, Closed::Earlier(kicked));
        assert_eq!(register.kick("x", &administrator, soon()).await.unwrap(), Closed::Unknown);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_store_did_not_take_is_made_when_it_is_back() {
        let (before, folder) = register(settings());
        let mut open = Vec::new();
        for person in 1..=4 {
            open.push(before.enter(person).await.unwrap());
        }
        // The first register holds the file as long as it exists.
        let register = register_in(settings(), folder.path());
        assert!(register.close_for(&open[0].id, soon()).await.is_err());
        let by_name = request(CLOSE);
        let which = Which::Principal("2@acme.com".into());
        assert!(register.close_newest(which, &by_name, &me(), soon()).await.is_err());
        register.undo(open[2].id.clone(), "the application did not read the answer");
        let never = Session { id: "never".into(), ..open[3].clone() };
        register.owe(Due::Undo(Box::new(never), unconfirmed("x")));
        assert!(!register.settle().await);
        assert_eq!(register.owed_now(), 4);
        drop(before);
        while !register.settle().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let left = listed(&*register.store, Which::All).await;
        assert_eq!(left, [open[3].clone()]);
        let told = |reason| register.ended().find(|(other, _)| *other == reason).unwrap().1;
        assert_eq!((told(EndReason::Closed), told(EndReason::Unconfirmed)), (2, 2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_logout_without_an_id_that_waits_ends_no_later_session() {
        let (register, _folder) = register(settings());
        let ended = closed_now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let later = register.enter(1).await.unwrap();
        let which = Which::Principal("1@acme.com".into());
        let request = request(CLOSE);
        register.owe(Due::Leave(Box::new(Left { request, which, peer: me(), ended })));
        assert!(register.settle().await);
        assert_eq!(listed(&*register.store, Which::All).await, [later]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_end_is_told_once_whichever_answer_was_lost() {
        let (register, _folder) = register(settings());
        let told = |reason| register.ended().find(|(other, _)| *other == reason).unwrap().1;
        let session = register.enter(1).await.unwrap();
        let ended = Ended { at: now(), reason: EndReason::TooOld, detail: String::new() };
        // The reply to the first attempt is lost.
        register.store.close(&session.id, &ended, soon()).await.unwrap();
        let closed = register.close(&session.id, &ended, soon()).await.unwrap();
        assert!(matches!(closed, Closed::Now(_)));
        assert_eq!(told(EndReason::TooOld), 1);
        let other = Ended { at: now() + 1, ..ended };
        let closed = register.close(&session.id, &other, soon()).await.unwrap();
        assert!(matches!(closed, Closed::Earlier(_)));
        assert_eq!(told(EndReason::TooOld), 1);
        // The reply to a login that evicted a session is lost, and the login is undone.
        register.enter(1).await.unwrap();
        let lost = register.session(&newcomer(1), &request(OPEN), &me()).unwrap();
        register.store.open(&lost, register.admission(&newcomer(1)), soon()).await.unwrap();
        assert_eq!(told(EndReason::Replaced), 0);
        register.owe(Due::Undo(Box::new(lost), unconfirmed("the register did not answer in time")));
        assert!(register.settle().await);
        assert_eq!((told(EndReason::Replaced), told(EndReason::Unconfirmed)), (1, 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_was_told_of_ends() {
        let (register, _folder) = register(settings());
        let session = register.enter(1).await.unwrap();
        tokio::spawn(owed::keep(register.clone()));
        register.undo(session.id.clone(), "the application did not read the answer");
        while register.store.count(soon()).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        let found = register.show(&session.id, soon()).await.unwrap();
        let ended = found.list[0].ended.clone().unwrap();
        assert_eq!(ended.reason, EndReason::Unconfirmed);
        assert_eq!(
            ended.detail,
            "the application did not read the answer: no application holds this session"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_login_that_is_cut_off_leaves_no_session() {
        let (register, _folder) = register(settings());
        let (stays, kept) = (register.enter(1).await.unwrap(), register.enter(2).await.unwrap());
        // During the call of the register, both before and after its reply arrives.
        for pause in [Duration::ZERO, Duration::from_millis(50)] {
            loop {
                let mut entering = Box::pin(register.enter(3));
                let first = std::future::poll_fn(|context| Poll::Ready(entering.as_mut().poll(context)));
                match first.await {
                    Poll::Pending => {
                        tokio::time::sleep(pause).await;
                        break drop(entering);
                    }
                    // On a busy machine the register's thread can be faster than this one.
                    Poll::Ready(entered) => drop(Seat::new(register.clone(), entered.unwrap().id)),
                }
                register.leave(CALL).await;
            }
            assert_eq!(register.owed_now(), 1);
            register.leave(CALL).await;
            assert_eq!((register.owed_now(), register.store.count(soon()).await), (0, Ok(2)));
        }
        // After the call, unless the application has the reply.
        Seat::new(register.clone(), stays.id.clone()).taken();
        drop(Seat::new(register.clone(), kept.id));
        register.leave(CALL).await;
        assert_eq!(listed(&*register.store, Which::All).await, [stays]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_watches_is_told_at_once_and_goes_on_where_it_was() {
        let (register, _folder) = register(settings());
        let begin = register.watch(None, soon()).await.unwrap().unwrap();
        assert_eq!((begin.list.len(), begin.gap), (0, false));
        let waiting = tokio::spawn({
            let (register, cursor) = (register.clone(), begin.cursor.clone());
            async move { register.watch(Some(&cursor), soon()).await.unwrap().unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let a = register.enter(1).await.unwrap();
        let events = waiting.await.unwrap();
        assert_eq!(events.list.iter().map(|event| &event.session).collect::<Vec<_>>(), [&a]);
        // While the client was away.
        let b = register.enter(1).await.unwrap();
        let missed = register.watch(Some(&events.cursor), soon()).await.unwrap().unwrap();
        let ended = &missed.list[0].session;
        assert_eq!((&ended.id, &ended.ended.as_ref().unwrap().detail), (&a.id, &b.id));
        assert_eq!(missed.list[1].session, b);
        // Without an event.
        let begun = Instant::now();
        let nothing = register.watch(Some(&missed.cursor), begun + Duration::from_secs(2)).await;
        assert_eq!(nothing.unwrap().unwrap(), Events { cursor: missed.cursor.clone(), ..Events::default() });
        assert!(begun.elapsed() >= Duration::from_millis(1500));
        assert!(register.watch(Some("x"), soon()).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn watchers_are_few_and_are_sent_away_when_the_broker_ends() {
        let (register, _folder) = register(settings());
        let cursor = register.watch(None, soon()).await.unwrap().unwrap().cursor;
        let mut waiting = tokio::task::JoinSet::new();
        // Half of the eight connections are left for logins.
        for _ in 0..4 {
            let (register, cursor) = (register.clone(), cursor.clone());
            waiting.spawn(async move { register.watch(Some(&cursor), soon()).await.unwrap() });
        }
        while register.watchers.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(register.watch(Some(&cursor), soon()).await.unwrap(), None);
        let begun = Instant::now();
        register.end();
        for events in waiting.join_all().await {
            assert_eq!(events.unwrap().list, []);
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_fit_a_frame_and_lose_nobody() {
        let (register, _folder) = register(config::Sessions { policy: Policy::Unlimited, ..settings() });
        // JSON writes six bytes for each of these.
        let text = "\u{1}".repeat(2 * TEXT);
        let request = Request {
            user: text.clone(),
            service: text.clone(),
            rhost: text.clone(),
            tty: text.clone(),
            ..request(OPEN)
        };
        let newcomer = Newcomer { principal: text, ..newcomer(1) };
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(register.open(&newcomer, &request, &me(), soon()).await.unwrap().id);
        }
        let is_sent =
            |reply: Reply| assert!(encode(&reply, &Secret::default()).unwrap().len() > 30_000 + HEADER);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = register.list(&Which::All, after.as_deref(), soon()).await.unwrap();
            seen.extend(page.list.iter().map(|session| session.id.clone()));
            after = page.next.clone();
            match after {
                Some(_) => is_sent(Reply::Sessions(Box::new(page))),
                None => break,
            }
        }
        assert_eq!(seen, ids);
        let mut cursor = "0".to_owned();
        let mut seen = Vec::new();
        while seen.len() < ids.len() {
            let events = register.watch(Some(&cursor), soon()).await.unwrap().unwrap();
            seen.extend(events.list.iter().map(|event| event.session.id.clone()));
            cursor.clone_from(&events.cursor);
            if seen.len() < ids.len() {
                is_sent(Reply::Events(Box::new(events)));
            }
        }
        assert_eq!(seen, ids);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_fails_is_a_problem_until_it_works_again() {
        let (register, folder) = register(settings());
        let away = folder.path().with_extension("away");
        std::fs::rename(folder.path(), &away).unwrap();
        assert!(matches!(register.enter(1).await, Err(NotOpened::Store(StoreError::Unavailable(_)))));
        let report = register.report(soon()).await;
        assert_eq!(report.open, None);
        assert!(report.problem.unwrap().contains("sessions.db"));
        std::fs::rename(&away, folder.path()).unwrap();
        while register.enter(1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(register.report(soon()).await.problem, None);
        // A store on a full disk can still be read.
        let full = Err::<(), _>(StoreError::Unavailable("the disk is full".into()));
        assert!(register.written(full).is_err());
        assert!(register.show("x", soon()).await.is_ok());
        assert!(register.report(soon()).await.problem.unwrap().contains("full"));
        register.enter(1).await.unwrap();
        assert_eq!(register.report(soon()).await.problem, None);
    }
}
