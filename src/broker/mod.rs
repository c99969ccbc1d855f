//! The broker: answers requests of the module and the helper.
//!
//! It is started at boot, or by its socket, also on a host that is not joined yet or has a broken
//! configuration: then it denies every login and gives the reason. When a file that it was started from
//! changes, it finishes the requests in progress and ends, and systemd starts it again with fresh
//! credentials.

mod audit;
pub mod cli;
mod handover;
pub mod health;
pub mod metrics;
pub mod peers;
mod place;
pub mod pulse;
mod recheck;
mod search;
pub mod server;
mod service;
mod sessions;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant as Deadline;

use self::handover::{Handover, InPlace, Loaded};
use self::metrics::{Event, Metrics, Refused};
use self::peers::{BRIDGE, Nss, Peers};
use self::place::Place;
use self::service::Service;
use crate::config::kept::LastGood;
use crate::config::{self, Config, ConfigError, Credentials, Source, Sources};
use crate::directory::trust::SYSTEM_ROOTS;
use crate::log::{self, Level, Line, Log};
use crate::login::decision::Decision;
use crate::login::refusal::Refusal;
use crate::protocol::{Operation, Passwords, Peer, Reply, Request, Secret, VERSION};
use crate::scarce;
use crate::sessions::seat::Seat;
use crate::verdict::{Outcome, Severity, Verdict};

/// Longest time that the broker waits for AD, whatever the deadline of a request.
const LONGEST: Duration = Duration::from_secs(60);

/// Everything that answers requests.
pub struct Broker {
    service: Result<Service, ConfigError>,
    /// The reason why the machine account cannot work: there is no keytab.
    no_keytab: Option<String>,
    /// Maximum number of concurrent connections from applications.
    pub connections: usize,
    peers: Peers,
    sources: Sources,
    log: Arc<Log>,
    begun: Instant,
    metrics: Metrics,
    /// The places for connections from applications.
    room: Arc<Semaphore>,
    /// Number of turns of the loop that accepts connections.
    turns: AtomicU64,
    /// The reason why no application reaches the socket for logins.
    unreachable: Mutex<Option<String>>,
    /// Held by the one audit in progress.
    auditing: tokio::sync::Mutex<()>,
    /// The places for searches of the LDAP bridge.
    searching: Semaphore,
    /// The last known answer to whether a login can succeed.
    watch: health::Watch,
    /// The reason why the configuration in force differs from the files, if it does.
    kept: Option<InPlace>,
    /// The configuration for the next broker, if its files are broken.
    last_good: Option<LastGood>,
}

/// The inputs of the broker.
pub struct Start {
    /// `config.toml`.
    pub config: PathBuf,
    /// The join's secrets.
    pub credentials: Credentials,
    /// The log.
    pub log: Log,
}

impl Broker {
    /// Creates a broker for `start`. A broken configuration is no error: the broker denies every login, and
    /// each answer names the fault.
    ///
    /// # Errors
    /// Returns the cause if a thread cannot be started.
    pub fn new(start: Start) -> std::io::Result<Arc<Self>> {
        let Start { config: path, credentials, log } = start;
        let log = Arc::new(log);
        log::report_tasks(&log);
        // Only a read shows which files there are. After each was recorded, the configuration is read again,
        // so that a change in between is noticed.
        // Those of DNS are followed without a new start (`service.rs`).
        let mut files = vec![path.clone(), PathBuf::from("/etc/krb5.conf")];
        let Handover { counters, last_good, .. } = Handover::take(service::state_directory().as_deref());
        let first = handover::load(&path, &credentials, last_good.clone());
        files.extend(files_of(&first.config));
        files.extend(files_of(&first.broken));
        let files = files.into_iter().map(Source::read).collect::<Vec<_>>();
        let Loaded { config, kept, last_good, .. } = handover::load(&path, &credentials, last_good);
        let asked =
            config.as_ref().map_or_else(|_| config::Broker::default(), |config| config.broker.clone());
        let broker = Broker {
            service: config.and_then(|config| Service::new(config, &log)),
            no_keytab: credentials.problem(),
            connections: asked.connections,
            peers: Peers::new(asked.users, Nss)?,
            sources: Sources::new(&credentials, files),
            log,
            begun: Instant::now(),
            metrics: Metrics::restored(&counters),
            room: Arc::new(Semaphore::new(asked.connections)),
            turns: AtomicU64::new(0),
            unreachable: Mutex::default(),
            auditing: tokio::sync::Mutex::default(),
            searching: Semaphore::new(search::AT_ONCE),
            watch: health::Watch::default(),
            kept,
            last_good,
        };
        Ok(Arc::new(broker))
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the changed file that requires a restart.
    pub fn stale(&self) -> Option<String> {
        self.sources.stale().map(|path| path.display().to_string())
    }

    /// Leaves the counters and the last good configuration to the broker that replaces this one.
    pub fn hand_over(&self) {
        let Some(folder) = service::state_directory() else { return };
        if let Err(error) = Handover::leave(self.metrics.saved(), self.last_good.clone(), &folder) {
            let line = Line::new("restart").with("problem", format!("{}: {error}", folder.display()));
            let line =
                line.with("consequence", "counters begin at zero, and a broken file denies every login");
            self.log.write(Level::Warning, &line);
        }
    }

    /// Describes the present problem for a reader; `None` if there is none.
    pub fn problem(&self) -> Option<String> {
        let broken = || self.service.as_ref().err().map(ToString::to_string);
        broken().or_else(|| self.no_keytab.clone()).or_else(|| self.unreachable.lock().clone())
    }

    /// Records whether the socket for logins is where applications expect it, and logs a change.
    fn look_for(&self, place: &Place) {
        let (problem, mut known) = (place.problem(), self.unreachable.lock());
        if *known != problem {
            let line = Line::new("socket").with("problem", problem.as_deref().unwrap_or_default());
            self.log.write(Level::Error, &line);
            *known = problem;
        }
    }

    /// Connects to AD ahead of the first login, and logs the broker's resources.
    pub async fn warm_up(&self) {
        if let Some(kept) = &self.kept {
            self.log.write(Level::Error, &Line::new("config").with("problem", &kept.problem));
        }
        let service = match (&self.service, self.problem()) {
            (Ok(service), None) => service,
            (_, problem) => {
                let line = Line::new("start").with("problem", problem.unwrap_or_default());
                self.log.write(Level::Error, &line.with("consequence", "every login is denied"));
                return;
            }
        };
        service.warm_up(&self.log).await;
    }

    /// Answers one request of `peer`.
    pub async fn answer<'a>(&'a self, request: &'a Request, secret: &Secret, peer: &'a Peer) -> Answer<'a> {
        if request.version != VERSION {
            self.metrics.refused(Refused::Malformed);
            let reason = format!("the broker speaks version {VERSION}, not {}", request.version);
            return Reply::Refused(reason).into();
        }
        if !self.peers.may(peer.uid, &request.operation) {
            return self.forbid(&request.operation, peer).into();
        }
        let can_be_observed =
            matches!(request.operation, Operation::Authenticate { .. } | Operation::Account { .. });
        if request.observe && !can_be_observed {
            self.metrics.refused(Refused::Malformed);
            return Reply::Refused("only logins and account checks can be observed".to_owned()).into();
        }
        let deadline = Deadline::now() + request.remaining().min(LONGEST);
        let begin =
            |event| Record { broker: self, event, request, peer, begun: Instant::now(), decided: None };
        match &request.operation {
            Operation::Authenticate { register, warn } => {
                let record = begin(Event::Login);
                let register = *register && !request.observe;
                record.answer(self.authenticate(request, secret, register, *warn, peer, deadline).await)
            }
            Operation::Account { account, warn } => {
                let record = begin(Event::Account);
                let account = self.account(request, account.as_deref(), *warn, deadline);
                record.answer(account.await)
            }
            Operation::ProbePassword => {
                let record = begin(Event::PasswordProbe);
                record.answer(self.probe_password(request, secret, deadline).await)
            }
            Operation::ChangePassword => {
                let record = begin(Event::PasswordChange);
                record.answer(self.change_password(request, secret, deadline).await)
            }
            Operation::OpenSession { account } => {
                let record = begin(Event::SessionOpen);
                let session = self.open_session(request, account.as_deref(), peer, deadline);
                record.answer(session.await)
            }
            Operation::CloseSession { session } => {
                let record = begin(Event::SessionClose);
                let end = self.close_session(request, session.as_deref(), peer, deadline);
                record.answer(end.await)
            }
            Operation::Status => Reply::Status(Box::new(self.status(deadline).await)).into(),
            Operation::Check => Reply::Check(Box::new(self.check(&request.user, deadline).await)).into(),
            Operation::KickSession { session } => self.kick_session(session, peer, deadline).await.into(),
            Operation::Audit { names } => self.audit(names, deadline, peer).await.into(),
            Operation::Search(search) => self.search(search, deadline, peer).await.into(),
            Operation::ListSessions { cursor } => {
                self.list_sessions(&request.user, cursor.as_deref(), deadline).await.into()
            }
            Operation::ShowSession { session } => self.show_session(session, deadline).await.into(),
            Operation::WatchSessions { cursor } => {
                self.watch_sessions(cursor.as_deref(), deadline).await.into()
            }
        }
    }

    /// Rejects an operation that the peer may not request, although it has access.
    fn forbid(&self, operation: &Operation, peer: &Peer) -> Reply {
        self.metrics.refused(Refused::Stranger);
        let reason = match matches!(operation, Operation::Search(_)) {
            true => format!("only root and the user {BRIDGE} search the directory"),
            false => format!("the user {BRIDGE} may ask for logins and searches only"),
        };
        let line = Line::new("refused").with("peer", peer).with("reason", &reason);
        self.log.complain(Level::Warning, &format!("forbidden {}", peer.uid), line);
        Reply::Refused(reason)
    }

    /// Returns the session that `request` has opened, which ends unless its application receives the answer.
    fn seat(&self, request: &Request, decision: &Decision) -> Option<Seat> {
        let service = self.service.as_ref().ok()?;
        let id = decision.verdict.session.clone().filter(|_| registers(&request.operation))?;
        Some(Seat::new(service.register.clone(), id))
    }

    /// Undoes the sessions of requests that were cut off, in at most `time`.
    pub async fn leave(&self, time: Duration) {
        if let Ok(service) = &self.service {
            service.register.leave(time).await;
        }
    }

    /// Stops every wait for events of sessions, because the broker is about to end.
    pub fn end(&self) {
        if let Ok(service) = &self.service {
            service.register.end();
        }
    }

    /// Returns the parts that a request about AD needs.
    ///
    /// # Errors
    /// Returns a refusal if they do not work, or if `deadline` has passed.
    fn ready(&self, deadline: Deadline) -> Result<&Service, Refusal> {
        let service = self.service.as_ref()?;
        if let Some(problem) = &self.no_keytab {
            return Err(Refusal::new(Outcome::Unavailable, problem));
        }
        if deadline <= Deadline::now() {
            self.metrics.refused(Refused::Overloaded);
            let reason = "the deadline had passed before the request was read; the broker is overloaded";
            return Err(Refusal::new(Outcome::Unavailable, reason));
        }
        Ok(service)
    }

    async fn authenticate(
        &self,
        request: &Request,
        secret: &Secret,
        register: bool,
        warn: bool,
        peer: &Peer,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        let (service, password) = (self.ready(deadline)?, secret.password()?);
        let login = service.logins.authenticate(&request.user, password, warn, deadline);
        let mut decision = Box::pin(login).await;
        complete(service, &mut decision, None, deadline).await;
        Ok(match register && decision.verdict.outcome.is_success() {
            true => service.open_session(decision, request, peer, deadline, &self.log).await,
            false => decision,
        })
    }

    async fn account(
        &self,
        request: &Request,
        account: Option<&str>,
        warn: bool,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        let service = self.ready(deadline)?;
        let mut decision = service.logins.account(&request.user, warn, deadline).await;
        complete(service, &mut decision, account, deadline).await;
        Ok(decision)
    }

    async fn probe_password(
        &self,
        request: &Request,
        secret: &Secret,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        let (service, present) = (self.ready(deadline)?, secret.password()?);
        let mut decision = service.logins.probe_password(&request.user, present, deadline).await;
        complete(service, &mut decision, None, deadline).await;
        Ok(decision)
    }

    async fn change_password(
        &self,
        request: &Request,
        secret: &Secret,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        let (service, passwords) = (self.ready(deadline)?, two_passwords(secret)?);
        let mut decision = service.logins.change_password(&request.user, &passwords, deadline).await;
        complete(service, &mut decision, None, deadline).await;
        Ok(decision)
    }

    async fn open_session(
        &self,
        request: &Request,
        account: Option<&str>,
        peer: &Peer,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        let service = self.ready(deadline)?;
        let mut decision = service.logins.identify(&request.user, deadline).await;
        complete(service, &mut decision, account, deadline).await;
        Ok(match decision.verdict.outcome.is_success() {
            true => service.open_session(decision, request, peer, deadline, &self.log).await,
            false => decision,
        })
    }

    /// Ends a session, which needs no query of AD.
    async fn close_session(
        &self,
        request: &Request,
        session: Option<&str>,
        peer: &Peer,
        deadline: Deadline,
    ) -> Result<Decision, Refusal> {
        Ok(self.service.as_ref()?.close_session(session, request, peer, deadline).await)
    }

    fn record(&self, event: Event, request: &Request, decision: &Decision, peer: &Peer, took: Duration) {
        let Decision { verdict, dc, method, .. } = decision;
        self.metrics.decided(event, verdict.outcome, *method, took);
        if request.observe {
            self.metrics.observed(verdict.outcome, SystemTime::now());
        }
        let line = Line::new(event.name())
            .with("user", &request.user)
            .with("principal", verdict.principal.as_deref().unwrap_or_default())
            .with("outcome", verdict.outcome)
            .with("reason", &verdict.reason)
            .with("text", verdict.text.as_deref().unwrap_or_default())
            .with("mode", if request.observe { "observe" } else { "" })
            .with("method", method.map(|method| method.to_string()).unwrap_or_default())
            .with("dc", dc.as_deref().unwrap_or_default())
            .with("peer", peer)
            .with("service", &request.service)
            .with("rhost", &request.rhost)
            .with("tty", &request.tty)
            .with("session", verdict.session.as_deref().unwrap_or_default())
            .with("ms", format!("{:.1}", took.as_secs_f64() * 1000.0));
        let (level, advice) = match verdict.outcome.severity() {
            Severity::Error => (Level::Error, verdict.outcome.advice()),
            Severity::Warning => (Level::Warning, verdict.outcome.advice()),
            Severity::Info => (Level::Info, ""),
        };
        let advice = match verdict.outcome {
            Outcome::Unavailable | Outcome::SessionStore => {
                scarce::advice_for(&verdict.reason).unwrap_or(advice)
            }
            _ => advice,
        };
        self.log.write(level, &line.with("advice", advice));
    }
}

/// A reply, and its record for the log.
pub struct Answer<'a> {
    /// The reply to the peer.
    pub reply: Reply,
    record: Option<Record<'a>>,
    seat: Option<Seat>,
}

impl Answer<'_> {
    /// Writes the request's line into the log. Returns the session that ends unless the peer receives the
    /// answer.
    pub(super) fn logged(&mut self) -> Option<Seat> {
        self.record = None;
        self.seat.take()
    }
}

impl From<Reply> for Answer<'_> {
    fn from(reply: Reply) -> Self {
        Answer { reply, record: None, seat: None }
    }
}

/// Writes the log line of a request when it is dropped, however the request ends. The line follows the reply,
/// so that the client does not wait for the log. It has no decision if the broker ends, or panics, while a
/// domain controller has the password.
struct Record<'a> {
    broker: &'a Broker,
    event: Event,
    request: &'a Request,
    peer: &'a Peer,
    begun: Instant,
    decided: Option<(Decision, Duration)>,
}

impl<'a> Record<'a> {
    /// Makes the answer of the decision, which also becomes the log line.
    fn answer(mut self, decision: Result<Decision, Refusal>) -> Answer<'a> {
        let decision = decision.unwrap_or_else(Decision::from);
        let reply = Reply::Verdict(decision.verdict_in(self.request.language));
        let seat = self.broker.seat(self.request, &decision);
        let took = self.begun.elapsed();
        self.watched(&decision, took);
        self.decided = Some((decision, took));
        Answer { reply, record: Some(self), seat }
    }

    /// Reports a login to the watch over the broker's health, before the reply: a client that has the answer
    /// and then asks for the state finds the login counted.
    fn watched(&self, decision: &Decision, took: Duration) {
        if self.event == Event::Login {
            self.broker.watch.login(decision, took);
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let (decision, took) = self.decided.take().unwrap_or_else(|| {
            let (decision, took) = (undecided(self.event).into(), self.begun.elapsed());
            self.watched(&decision, took);
            (decision, took)
        });
        self.broker.record(self.event, self.request, &decision, self.peer, took);
    }
}

/// Returns the refusal for a request that was cut off. AD may have counted its password, or made its change.
fn undecided(event: Event) -> Refusal {
    let outcome = match event == Event::PasswordChange {
        true => Outcome::ChangeUnknown,
        false => Outcome::Unavailable,
    };
    let reason = match std::thread::panicking() {
        true => "cut off by a fault in the broker (event=panic); AD may have counted the password",
        false => "cut off by the end of the broker; AD may have counted the password",
    };
    Refusal::new(outcome, reason)
}

/// Completes a decision for a request about `account`: restricts it to that account, and says until when the
/// account is locked.
async fn complete(service: &Service, decision: &mut Decision, account: Option<&str>, deadline: Deadline) {
    restrict(decision, account);
    if decision.verdict.outcome == Outcome::LockedOut {
        service.logins.tell_lock(decision, deadline).await;
    }
}

/// Restricts a decision to the account that was authenticated on the PAM handle: it must still bear the name.
/// The decision names the account, so that later requests of the module are about the same one.
fn restrict(decision: &mut Decision, account: Option<&str>) {
    let bearer = decision.person.as_ref().map(|person| person.guid.to_string());
    let may_lead_in = decision.verdict.outcome.leads_to_access();
    match account {
        Some(proved) if bearer.as_deref() != Some(proved) && (bearer.is_some() || may_lead_in) => {
            let dn = decision.person.as_ref().map_or("another account", |person| person.dn.as_str());
            let reason = format!(
                "the name is now that of {dn}; the account that logged in does not bear it any more: log in \
                 again"
            );
            let principal = decision.verdict.principal.take();
            decision.verdict = Verdict { principal, ..Verdict::new(Outcome::UnknownUser, reason) };
        }
        _ if may_lead_in => decision.verdict.account = bearer,
        _ => {}
    }
}

/// Returns true if a success of `operation` begins a session.
fn registers(operation: &Operation) -> bool {
    matches!(operation, Operation::OpenSession { .. } | Operation::Authenticate { register: true, .. })
}

/// Returns the two passwords of a change.
fn two_passwords(secret: &Secret) -> Result<Passwords, Refusal> {
    Passwords::of_secret(secret).ok_or_else(|| Refusal::new(Outcome::Refused, "there are no two passwords"))
}

/// Returns the files that a configuration was completed from; for a broken one, the file that needs the fix.
fn files_of(config: &Result<Config, ConfigError>) -> Vec<PathBuf> {
    match config {
        Ok(config) => {
            let roots = config.tls.ca_file.clone().unwrap_or_else(|| SYSTEM_ROOTS.into());
            // The files of a Redis are read again for each of its connections.
            vec![config.map_file.clone(), roots]
        }
        Err(ConfigError::Broken(problem)) => vec![problem.file.clone()],
        Err(ConfigError::NotJoined) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::directory::people::person::Person;

    #[test]
    fn a_name_that_passes_to_another_account_between_two_calls_opens_nothing() {
        let person = |byte: u8| Person {
            dn: format!("CN={byte}"),
            guid: Uuid::from_bytes([byte; 16]),
            sam: "john".into(),
            upn: None,
            domain: "acme.com".into(),
        };
        let decided = |outcome, bearer: Option<u8>| Decision {
            person: bearer.map(person),
            ..Refusal::new(outcome, "as AD says").into()
        };
        let ask = |proved: Option<u8>, outcome, bearer| {
            let mut decision = decided(outcome, bearer);
            restrict(&mut decision, proved.map(|byte| person(byte).guid.to_string()).as_deref());
            let verdict = decision.verdict;
            (verdict.outcome, verdict.account.map(|account| account.starts_with("01010101")))
        };
        use Outcome::{Denied, MustChange, Success, Unavailable, UnknownUser};
        for (proved, outcome, bearer, expected) in [
            (None, Success, Some(1), (Success, Some(true))),
            (None, MustChange, Some(1), (MustChange, Some(true))),
            (None, Denied, Some(1), (Denied, None)),
            (Some(1), Success, Some(1), (Success, Some(true))),
            (Some(1), Denied, Some(1), (Denied, None)),
            (Some(1), Success, Some(2), (UnknownUser, None)),
            (Some(1), MustChange, Some(2), (UnknownUser, None)),
            (Some(1), Denied, Some(2), (UnknownUser, None)),
            // The account could not be identified.
            (Some(1), Success, None, (UnknownUser, None)),
            (Some(1), Unavailable, None, (Unavailable, None)),
        ] {
            assert_eq!(ask(proved, outcome, bearer), expected, "{proved:?} {outcome} {bearer:?}");
        }
    }

    #[test]
    fn a_change_needs_two_passwords() {
        assert_eq!(two_passwords(&Secret::default()).unwrap_err().outcome, Outcome::Refused);
        let both = two_passwords(&Secret::new(b"\0\x03oldnew".to_vec())).unwrap();
        assert_eq!((both.present.bytes(), both.new.bytes()), (&b"old"[..], &b"new"[..]));
    }

    #[tokio::test]
    async fn a_request_that_is_cut_off_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let (log, writer) = Log::open().unwrap();
        let credentials = Credentials::find(Some(folder.path()));
        let broker =
            Broker::new(Start { config: folder.path().join("config.toml"), credentials, log }).unwrap();
        let peer = Peer { uid: 0, pid: 0 };
        for (operation, event, outcome) in [
            (Operation::Authenticate { register: false, warn: false }, Event::Login, Outcome::Unavailable),
            (Operation::Account { account: None, warn: false }, Event::Account, Outcome::Unavailable),
            (Operation::ChangePassword, Event::PasswordChange, Outcome::ChangeUnknown),
        ] {
            let request = Request::new(operation, "john", Duration::from_secs(5));
            let counted = || broker.metrics.outcomes(event).find(|(_, count)| *count > 0);
            assert_eq!(counted(), None, "{event:?}");
            drop(Record {
                broker: &broker,
                event,
                request: &request,
                peer: &peer,
                begun: Instant::now(),
                decided: None,
            });
            assert_eq!(counted(), Some((outcome, 1)), "{event:?}");
        }
        writer.finish();
    }
}
