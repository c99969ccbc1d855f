//! The machine account's connection, through which the broker reads the directory.
//!
//! All searches share it. One task connects when a search first needs it, however many searches wait. The
//! connection is replaced when it breaks, when it stops answering, before its ticket ends and after many
//! searches.

mod alias;
mod connecting;
mod link;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use ldap3::Scope;

use self::link::{Failure, Link};
use super::entry::{Entry, EntryError};
use crate::kerberos::{Kerberos, KerberosError, LdapService};
use crate::net::BoxFuture;
use crate::patience::first_of;

/// Maximum number of searches under way. ldap3 does not read while it writes, so all requests that are sent
/// before the first answer must fit into the sockets' buffers.
const IN_FLIGHT: usize = 256;

/// A domain controller to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its LDAP service, as named in Kerberos.
    pub service: LdapService,
    /// Addresses and ports of the service, in the order to try.
    pub addresses: Vec<SocketAddr>,
}

/// Source of the domain controllers, and receiver of their failures.
pub trait Servers: Send + Sync + 'static {
    /// Returns the domain controllers in the order to try; the error says why there are none.
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>>;

    /// Notes that `host` did not answer, or rejected the machine account.
    fn failed(&self, host: &str, cause: &str) {
        let _ = (host, cause);
    }

    /// Notes that `host` has fallen silent.
    fn silent(&self, host: &str, cause: &str) {
        self.failed(host, cause);
    }

    /// Notes that `host` is slow or silent: others come first until a probe shows which.
    fn doubted(&self, host: &str, cause: &str) {
        let _ = (host, cause);
    }

    /// Notes that `host` worked.
    fn answered(&self, host: &str) {
        let _ = host;
    }

    /// Returns true if `host` is contacted before `other`.
    fn is_preferred(&self, host: &str, other: &str) -> bool {
        let _ = (host, other);
        false
    }

    /// Returns true if the caller should keep waiting for `host`, which was queried at `since`: it has
    /// answered another request since then, or there is no other domain controller.
    fn is_worth_waiting_for(&self, host: &str, since: Instant) -> bool {
        let _ = (host, since);
        true
    }
}

/// Bounds of a [`MachineConnection`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time limit for finding a domain controller, connecting and binding together. A search with a longer
    /// deadline waits that long.
    pub connect: Duration,
    /// Time for one address of one domain controller before the next one is tried in parallel.
    pub attempt: Duration,
    /// Time without a received byte after which a waiting search has the connection probed.
    pub silence: Duration,
    /// Time in which a probed connection has to show a sign of life.
    pub probe: Duration,
    /// Number of searches after which the connection is replaced.
    pub searches: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            connect: Duration::from_secs(10),
            attempt: Duration::from_millis(800),
            silence: Duration::from_millis(400),
            probe: Duration::from_millis(400),
            searches: 20_000,
        }
    }
}

/// The part of the directory that a search runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The domain of this host.
    #[default]
    Own,
    /// Another domain of the forest, by DNS name in lower case.
    Domain(String),
    /// The global catalogue: a part of every object of the forest (MS-ADTS 1.1).
    GlobalCatalogue,
}

/// One search (RFC 4511, 4.5.1). The caller escapes values in `filter` (`ldap3::ldap_escape`).
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The domain controllers to query.
    pub place: Place,
    /// Distinguished name, or `<GUID=…>` or `<SID=…>` (MS-ADTS 3.1.1.3.1.2.4).
    pub base: String,
    /// Depth below the base.
    pub scope: Scope,
    /// Filter string (RFC 4515).
    pub filter: String,
    /// Attributes to return; if empty, all but the constructed ones.
    pub attributes: Vec<String>,
    /// Maximum number of entries in a valid answer; more are [`MachineError::TooMany`].
    pub limit: usize,
}

/// Creates a search that reads one object.
pub(in crate::directory) fn base_search(base: String, attributes: Vec<String>) -> Search {
    let filter = "(objectClass=*)".to_owned();
    Search { place: Place::Own, base, scope: Scope::Base, filter, attributes, limit: 1 }
}

/// The first entries of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The entries, at most the requested number.
    pub entries: Vec<Entry>,
    /// True if there are more.
    pub is_cut: bool,
}

/// Reads the directory as the machine account.
pub trait Machine: Send + Sync {
    /// Runs one search; see [`MachineConnection::search`].
    fn search(
        &self,
        search: &Search,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Entry>, MachineError>> + Send;

    /// Runs one search for a client of the LDAP bridge; see [`MachineConnection::search_part`]. Such searches
    /// never delay those of logins.
    fn search_part(
        &self,
        search: &Search,
        bytes: usize,
        deadline: Instant,
    ) -> impl Future<Output = Result<Part, MachineError>> + Send {
        let _ = bytes;
        async move { self.search(search, deadline).await.map(|entries| Part { entries, is_cut: false }) }
    }

    /// Returns the domain controller that answers searches at `place` now, if known.
    fn host(&self, place: &Place) -> Option<String> {
        let _ = place;
        None
    }
}

impl Machine for MachineConnection {
    async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        MachineConnection::search(self, search, deadline).await
    }

    fn host(&self, _: &Place) -> Option<String> {
        self.state().dc
    }
}

/// The rootDSE of a domain controller (RFC 4512, 5.1; MS-ADTS 3.1.1.3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootDse {
    /// Distinguished name of the domain.
    pub default_naming_context: String,
    /// Distinguished name of the configuration partition.
    pub configuration_naming_context: String,
    /// Distinguished name of the schema.
    pub schema_naming_context: String,
    /// Distinguished name of the forest root domain.
    pub root_domain_naming_context: String,
    /// DNS name of the domain controller.
    pub dns_host_name: String,
}

impl RootDse {
    const ATTRIBUTES: [&str; 5] = [
        "defaultNamingContext",
        "configurationNamingContext",
        "schemaNamingContext",
        "rootDomainNamingContext",
        "dnsHostName",
    ];

    pub(crate) fn from_entry(entry: &Entry) -> Result<Self, EntryError> {
        let [default, configuration, schema, root, host] =
            Self::ATTRIBUTES.map(|name| entry.text(name).map(|text| text.unwrap_or_default().to_owned()));
        Ok(RootDse {
            default_naming_context: default?,
            configuration_naming_context: configuration?,
            schema_naming_context: schema?,
            root_domain_naming_context: root?,
            dns_host_name: host?,
        })
    }
}

/// Failure of a search.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The machine account has no ticket.
    #[error("{0}")]
    Kerberos(#[from] KerberosError),
    /// No domain controller is known.
    #[error("no domain controller is known: {0}")]
    NoServer(String),
    /// Every domain controller failed; the text lists the causes.
    #[error("no domain controller accepts the machine account: {0}")]
    Unreachable(String),
    /// The deadline passed; the text names the step that was under way.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// The connection broke, and so did the next one.
    #[error("the connection to the domain controller broke: {0}")]
    Broken(String),
    /// The base of the search does not exist, or the machine may not see it.
    #[error("the directory has no object {0}")]
    NoSuchObject(String),
    /// More entries than the caller accepts.
    #[error("the directory has more than {0} matching entries")]
    TooMany(usize),
    /// The filter is malformed.
    #[error("the search filter is malformed")]
    Filter,
    /// The directory refused the search.
    #[error("the directory refused a search (LDAP result {code}: {text})")]
    Refused {
        /// LDAP result code (RFC 4511, 4.1.9).
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The directory sent something malformed.
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// [`MachineConnection::close`] was called.
    #[error("the machine connection was closed")]
    Closed,
}

impl MachineError {
    /// Returns true if another attempt in a moment may succeed without an administrator's fix.
    fn is_passing(&self) -> bool {
        match self {
            MachineError::Kerberos(error) => !error.needs_an_administrator(),
            _ => true,
        }
    }

    /// Returns true if the deadline passed before an answer: with more time there might be one.
    pub fn is_late(&self) -> bool {
        matches!(self, MachineError::Timeout(_) | MachineError::Kerberos(KerberosError::Stalled(_)))
    }
}

/// State of the connection, as shown to the administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// True if searches can be sent now.
    pub connected: bool,
    /// Host of the present connection, or of the last one.
    pub dc: Option<String>,
    /// Its address.
    pub address: Option<SocketAddr>,
    /// The machine account.
    pub principal: Option<String>,
    /// Remaining validity of the connection's ticket.
    pub ticket: Option<Duration>,
    /// The last failure; cleared by a new connection.
    pub last_error: Option<String>,
    /// Connections made so far.
    pub connects: u64,
    /// Searches on the present connection.
    pub searches: u64,
}

/// The machine's connection to the directory. Cloning it shares it.
#[derive(Clone)]
pub struct MachineConnection {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Arc<dyn Servers>,
    kerberos: Arc<Kerberos>,
    settings: Settings,
    in_flight: Semaphore,
    slot: Mutex<Slot>,
}

type Outcome = Result<Arc<Link>, MachineError>;

#[derive(Default)]
struct Slot {
    current: Option<Arc<Link>>,
    /// Receives the outcome of the connecting task, while its sender lives.
    connecting: Option<watch::Receiver<Option<Outcome>>>,
    /// The step that the connecting task is waiting for.
    doing: String,
    failed: Option<(Instant, MachineError)>,
    last_error: Option<String>,
    connects: u64,
    closed: bool,
}

impl MachineConnection {
    /// Creates a connection that is opened when it is first needed.
    pub fn new(servers: Arc<dyn Servers>, kerberos: Arc<Kerberos>, settings: Settings) -> Self {
        let (in_flight, slot) = (Semaphore::new(IN_FLIGHT), Mutex::default());
        MachineConnection { inner: Arc::new(Inner { servers, kerberos, settings, in_flight, slot }) }
    }

    /// Searches the directory. Referrals are dropped. The future may be dropped at any time.
    ///
    /// # Errors
    /// Returns an error if there is no connection or no answer before `deadline`, or if the answer is an
    /// error. Part of an answer is never returned.
    pub async fn search(&self, search: &Search, deadline: Instant) -> Result<Vec<Entry>, MachineError> {
        let part = self.run(search, None, deadline).await?;
        match part.is_cut {
            true => Err(MachineError::TooMany(search.limit)),
            false => Ok(part.entries),
        }
    }

    /// Searches the directory for the first entries: at most [`Search::limit`] of them with at most `bytes`
    /// bytes. The request tells the domain controller to stop at `deadline`.
    ///
    /// # Errors
    /// Like [`MachineConnection::search`].
    pub async fn search_part(
        &self,
        search: &Search,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Part, MachineError> {
        self.run(search, Some(bytes), deadline).await
    }

    /// Runs a search; the result is cut at [`Search::limit`], and also at `bytes` if given.
    async fn run(
        &self,
        search: &Search,
        bytes: Option<usize>,
        deadline: Instant,
    ) -> Result<Part, MachineError> {
        let _turn = timeout_at(deadline, self.inner.in_flight.acquire())
            .await
            .map_err(|_| MachineError::Timeout("too many searches are waiting".to_owned()))?
            .map_err(|_| MachineError::Closed)?;
        // A repeated search does no harm, and the connection may have just died. Each repetition leaves the
        // connection twice as long in peace, so that a slow domain controller is not given ever more work.
        let repeat = Notify::new();
        let mut silence = self.inner.settings.silence;
        let mut attempt = || {
            let attempt = Box::pin(self.inner.search_once(search, bytes, deadline, silence, &repeat));
            silence = silence.saturating_mul(2);
            attempt
        };
        let mut running = vec![attempt()];
        let mut has_broken = false;
        loop {
            let ended = tokio::select! {
                () = repeat.notified() => {
                    running.push(attempt());
                    continue;
                }
                (index, ended) = first_of(&mut running, |attempt| attempt) => {
                    drop(running.swap_remove(index));
                    ended
                }
            };
            match ended {
                Ok(part) => return Ok(part),
                Err(Ended::Answer(error) | Ended::Unconnected(error @ MachineError::Closed)) => {
                    return Err(error);
                }
                Err(Ended::Broken(link)) if !has_broken || link.is_retired() => {
                    // Closed explicitly, so that the next attempt gets another connection.
                    link.close("the connection broke");
                    has_broken = true;
                    running.push(attempt());
                }
                Err(Ended::Broken(link)) if running.is_empty() => {
                    return Err(MachineError::Broken(link.end()));
                }
                Err(Ended::Unconnected(error)) if running.is_empty() => return Err(error),
                // An earlier attempt may still be answered.
                Err(Ended::Broken(_) | Ended::Unconnected(_)) => {}
            }
        }
    }

    /// Returns the rootDSE of the domain controller, read when the connection was made.
    ///
    /// # Errors
    /// Returns an error if there is no connection before `deadline`.
    pub async fn root(&self, deadline: Instant) -> Result<Arc<RootDse>, MachineError> {
        Ok(self.inner.link(deadline).await?.root.clone())
    }

    /// Returns the state of the connection.
    pub fn state(&self) -> MachineState {
        let slot = self.inner.slot.lock();
        let link = slot.current.as_ref();
        let connected = link.is_some_and(|link| link.is_usable());
        let ticket = |link: &Arc<Link>| link.expires.saturating_duration_since(Instant::now());
        MachineState {
            connected,
            dc: link.map(|link| link.host.clone()),
            address: link.map(|link| link.address),
            principal: link.map(|link| link.principal.clone()),
            ticket: link.filter(|_| connected).map(ticket),
            last_error: slot
                .last_error
                .clone()
                .or_else(|| link.filter(|_| !connected).map(|link| link.end())),
            connects: slot.connects,
            searches: link.map_or(0, |link| link.searches()),
        }
    }

    /// Has the next search open a new connection, because the keytab or the domain controllers have changed.
    /// Searches under way keep the old one.
    pub fn renew(&self) {
        let mut slot = self.inner.slot.lock();
        slot.current = None;
        slot.failed = None;
    }

    /// Notes that `host` works again. If it is preferred to the connected one, the next search starts a
    /// connection to it; the present connection stays in use until then.
    pub fn prefer(&self, host: &str) {
        let slot = self.inner.slot.lock();
        if let Some(link) = slot.current.as_ref().filter(|l| self.inner.servers.is_preferred(host, &l.host)) {
            link.supersede();
        }
    }

    /// Returns the rootDSE if a connection has been made.
    pub fn known_root(&self) -> Option<Arc<RootDse>> {
        Some(self.inner.slot.lock().current.as_ref()?.root.clone())
    }

    /// Closes the connection permanently; searches under way fail.
    pub fn close(&self) {
        let link = {
            let mut slot = self.inner.slot.lock();
            slot.closed = true;
            slot.current.take()
        };
        if let Some(link) = link {
            link.close("the broker stops");
        }
    }
}

impl fmt::Debug for MachineConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MachineConnection").field(&self.state()).finish()
    }
}

impl Inner {
    /// Opens another connection next to the one in use; if that fails, the future never completes.
    async fn fresh(self: &Arc<Self>) -> Arc<Link> {
        let mut connecting = self.slot.lock().connecting(self, Instant::now());
        let made = match connecting.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match made {
            Some(Ok(link)) => link,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Runs a search on the present connection; see [`Link::search`].
    async fn search_once(
        self: &Arc<Self>,
        search: &Search,
        bytes: Option<usize>,
        deadline: Instant,
        silence: Duration,
        repeat: &Notify,
    ) -> Result<Part, Ended> {
        let link = self.link(deadline).await.map_err(Ended::Unconnected)?;
        match timeout_at(deadline, link.search(search, bytes, deadline, silence, repeat)).await {
            Ok(Ok(part)) => {
                if link.is_retired() {
                    // It was only slow, not dead.
                    self.servers.answered(&link.host);
                }
                Ok(part)
            }
            Ok(Err(Failure::Answer(error))) => Err(Ended::Answer(error)),
            Ok(Err(Failure::Broken)) => Err(Ended::Broken(link)),
            Err(_) => {
                // A probe soon shows if the search was slow or the connection is dead.
                link.probe();
                Err(Ended::Answer(MachineError::Timeout(format!("{} did not answer a search", link.host))))
            }
        }
    }

    /// Returns the present connection, or waits for the one under way.
    async fn link(self: &Arc<Self>, deadline: Instant) -> Outcome {
        // A passing failure is worth another attempt within the deadline, because its cause may be fixed by
        // now. That holds for an earlier failure, and once for an attempt that another search had started.
        let mut again = true;
        loop {
            let entrance = self.slot.lock().enter(self, deadline)?;
            let (mut connecting, joined) = match entrance {
                Entrance::Open(link) => return Ok(link),
                Entrance::Failed(error, until) if !error.is_passing() || until >= deadline => {
                    return Err(error);
                }
                Entrance::Failed(_, until) => {
                    sleep_until(until).await;
                    continue;
                }
                Entrance::Connecting { receiver, joined } => (receiver, joined),
            };
            let outcome = match timeout_at(deadline, connecting.wait_for(Option::is_some)).await {
                Ok(Ok(outcome)) => outcome.clone(),
                Ok(Err(_)) => None,
                Err(_) => return Err(MachineError::Timeout(self.slot.lock().doing.clone())),
            };
            match outcome {
                Some(Err(error)) if joined && again && error.is_passing() => again = false,
                Some(outcome) => return outcome,
                None => return Err(MachineError::Unreachable("the connecting task failed".to_owned())),
            }
        }
    }
}

/// Why an attempt of a search has no result.
enum Ended {
    /// The answer is an error, or the deadline has passed.
    Answer(MachineError),
    /// There is no connection.
    Unconnected(MachineError),
    /// The connection broke before the answer.
    Broken(Arc<Link>),
}

/// State of the connection, as found by a search that needs it.
enum Entrance {
    Open(Arc<Link>),
    /// No new attempt is made before this time.
    Failed(MachineError, Instant),
    Connecting {
        receiver: watch::Receiver<Option<Outcome>>,
        /// The attempt was under way already.
        joined: bool,
    },
}

impl Slot {
    fn enter(&mut self, inner: &Arc<Inner>, deadline: Instant) -> Result<Entrance, MachineError> {
        if self.closed {
            return Err(MachineError::Closed);
        }
        if let Some(link) = self.current.clone().filter(|link| link.is_usable()) {
            // A successor is opened in parallel; if that fails, this search still succeeds.
            if link.is_due() && self.recent_failure().is_none() {
                self.connecting(inner, deadline);
            }
            return Ok(Entrance::Open(link));
        }
        if let Some((error, until)) = self.recent_failure() {
            return Ok(Entrance::Failed(error, until));
        }
        let joined = self.connecting.is_some();
        Ok(Entrance::Connecting { receiver: self.connecting(inner, deadline), joined })
    }

    /// Returns the connecting task, which is started if none is running. No caller owns it, so a search that
    /// gives up does not cancel it for the others. It has until `deadline` if that is later than its usual
    /// time.
    fn connecting(&mut self, inner: &Arc<Inner>, deadline: Instant) -> watch::Receiver<Option<Outcome>> {
        if let Some(receiver) = self.connecting.as_ref().filter(|receiver| receiver.has_changed().is_ok()) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(None);
        self.connecting = Some(receiver.clone());
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            let outcome = inner.connect(deadline).await;
            inner.slot.lock().settle(&outcome);
            let _ = sender.send(Some(outcome));
        });
        receiver
    }

    fn settle(&mut self, outcome: &Outcome) {
        self.connecting = None;
        match outcome {
            Ok(link) if self.closed => link.close("the broker stops"),
            Ok(link) => {
                self.current = Some(Arc::clone(link));
                self.failed = None;
                self.last_error = None;
                self.connects += 1;
            }
            Err(error) => {
                self.failed = Some((Instant::now(), error.clone()));
                self.last_error = Some(error.to_string());
            }
        }
    }

    /// Returns a failure that is too recent for another attempt, and the time of the next one. The KDC counts
    /// a wrong key as a wrong password, so that failure has a longer pause.
    fn recent_failure(&self) -> Option<(MachineError, Instant)> {
        let (when, error) = self.failed.as_ref()?;
        let pause = if error.is_passing() { Duration::from_millis(500) } else { Duration::from_secs(10) };
        let again = *when + pause;
        (again > Instant::now()).then(|| (error.clone(), again))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::kerberos::{Kdc, Kdcs};

    /// Finds no server, after a pause.
    struct Nowhere {
        pause: Duration,
        asked: AtomicU32,
    }

    impl Servers for Nowhere {
        fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async {
                sleep(self.pause).await;
                Err("DNS knows none".to_owned())
            })
        }
    }

    impl Kdcs for Nowhere {
        fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
            Box::pin(async { Ok(vec![]) })
        }
        fn answered(&self, _: &str) {}
        fn failed(&self, _: &str, _: &str) {}
    }

    fn nowhere(milliseconds: u64) -> (Arc<Nowhere>, MachineConnection) {
        let servers =
            Arc::new(Nowhere { pause: Duration::from_millis(milliseconds), asked: AtomicU32::new(0) });
        let settings = Settings { connect: Duration::from_millis(300), ..Settings::default() };
        let kerberos = Arc::new(Kerberos::new(servers.clone()));
        (servers.clone(), MachineConnection::new(servers, kerberos, settings))
    }

    fn within(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn many_wait_for_one_attempt_and_all_hear_its_error() {
        let (servers, machine) = nowhere(50);
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let machine = machine.clone();
            waiting.spawn(async move { machine.root(within(400)).await });
        }
        while let Some(answer) = waiting.join_next().await {
            assert_eq!(answer.unwrap(), Err(MachineError::NoServer("DNS knows none".into())));
        }
        assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
        assert_eq!(machine.state().last_error.unwrap(), "no domain controller is known: DNS knows none");
    }

    #[tokio::test]
    async fn a_failure_is_not_repeated_at_once_but_soon() {
        let (servers, machine) = nowhere(0);
        for _ in 0..10 {
            machine.root(within(300)).await.unwrap_err();
        }
        assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
        // A caller with enough time waits for the next attempt.
        machine.root(within(5000)).await.unwrap_err();
        assert_eq!(servers.asked.load(Ordering::SeqCst), 2);
        machine.renew();
        machine.root(within(5000)).await.unwrap_err();
        assert_eq!(servers.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn who_gives_up_takes_the_attempt_from_nobody() {
        let (servers, machine) = nowhere(100);
        let impatient = machine.root(within(20)).await;
        assert!(matches!(impatient, Err(MachineError::Timeout(_))), "{impatient:?}");
        // Too short for a second attempt.
        let patient = machine.root(within(400)).await;
        assert_eq!(patient, Err(MachineError::NoServer("DNS knows none".into())));
        assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_failure_of_an_attempt_that_others_began_is_not_the_last_word() {
        let (servers, machine) = nowhere(100);
        let first = tokio::spawn({
            let machine = machine.clone();
            async move { machine.root(within(5000)).await }
        });
        sleep(Duration::from_millis(20)).await;
        machine.root(within(5000)).await.unwrap_err();
        first.await.unwrap().unwrap_err();
        assert_eq!(servers.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_attempt_has_an_end_of_its_own() {
        let (servers, machine) = nowhere(60_000);
        let answer = machine.root(within(20)).await;
        assert!(matches!(answer, Err(MachineError::Timeout(_))), "{answer:?}");
        // The next search waits until then, and for an attempt of its own.
        let answer = machine.root(within(5000)).await;
        assert!(matches!(answer, Err(MachineError::Timeout(_))), "{answer:?}");
        assert_eq!(servers.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_attempt_lasts_as_long_as_the_search_that_needs_it() {
        let (servers, machine) = nowhere(600);
        let answer = machine.root(within(60_000)).await;
        assert_eq!(answer, Err(MachineError::NoServer("DNS knows none".into())));
        assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn after_close_nothing_is_asked() {
        let (servers, machine) = nowhere(0);
        machine.close();
        assert_eq!(machine.root(within(5000)).await, Err(MachineError::Closed));
        assert_eq!(servers.asked.load(Ordering::SeqCst), 0);
    }
}
