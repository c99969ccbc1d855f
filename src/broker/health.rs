//! The broker's health, whether a login can succeed now, for `status`, `ready`, the metrics and systemd's
//! line of state.
//!
//! The broker looks in the background, and immediately when an administrator asks. A look queries AD for
//! everything that a login depends on, and probes each service of a domain controller that has been quiet. No
//! probe can show without a password that AD rejects every bind; that comes from the logins themselves.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::Broker;
use super::service::{Service, probe};
use crate::checked::Method;
use crate::directory::controllers::discovery::Role;
use crate::directory::controllers::health::Service as Part;
use crate::directory::machine::MachineError;
use crate::directory::people::DirectoryError;
use crate::directory::readiness::Readiness;
use crate::login::decision::Decision;
use crate::protocol::{DEADLINE, report};
use crate::sessions::Register;
use crate::supervise::{self, Ended};
use crate::verdict::Conclusion;

/// Time between two looks in the background.
const EVERY: Duration = Duration::from_secs(10);
/// Maximum time that one look waits for DNS, probes of domain controllers and the register of sessions.
const LOOKING: Duration = Duration::from_secs(2);
/// Time that the reply to an administrator keeps of the request's deadline.
const REPLYING: Duration = Duration::from_millis(500);
/// Maximum age of a look that also answers concurrent requests.
const FRESH: Duration = Duration::from_millis(500);
/// A service that has not answered for this time is probed in the background, …
const QUIET: Duration = Duration::from_secs(10);
/// … and after this time when an administrator asks.
const ASKED: Duration = Duration::from_secs(1);
/// Maximum number of domain controllers that one look probes, in the order in which logins use them.
const PROBED: usize = 8;
/// A look older than this is worthless: the background task does not run.
const OLD: Duration = Duration::from_secs(60);
/// Time for which a login that AD did not answer counts against a good look.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Clock difference from which Kerberos rejects tickets (MS-KILE: MaxClockSkew), in seconds.
const MAX_SKEW: u64 = 300;
/// Problem of a broker that has not looked yet.
const STARTING: &str = "the broker has just started and is looking for Active Directory";

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The event and its place.
    pub text: String,
    /// True if it makes every login fail.
    pub stops_logins: bool,
}

impl Problem {
    fn stops(text: impl Into<String>) -> Self {
        Problem { text: text.into(), stops_logins: true }
    }

    fn hurts(text: impl Into<String>) -> Self {
        Problem { text: text.into(), stops_logins: false }
    }
}

/// The result of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Present problems, those that make every login fail first.
    pub problems: Vec<Problem>,
    /// Remarks on a state that is no problem.
    pub notes: Vec<String>,
}

impl Health {
    /// Returns true if a login can succeed now.
    pub fn is_serving(&self) -> bool {
        !self.problems.iter().any(|problem| problem.stops_logins)
    }

    /// Adds `problem`, unless another one contains its text.
    fn add(&mut self, problem: Problem) {
        if !self.problems.iter().any(|known| known.text.contains(&problem.text)) {
            self.problems.push(problem);
        }
    }

    /// Completes a look that ended too early to decide: what stopped logins at the `last` one still does.
    /// Before the first look that decides, no login is known to succeed.
    fn take_over(&mut self, last: Option<&Health>) {
        match last {
            None => self.add(Problem::stops(STARTING)),
            Some(last) => {
                let stopping = last.problems.iter().filter(|problem| problem.stops_logins);
                stopping.for_each(|problem| self.add(problem.clone()));
            }
        }
        self.problems.sort_by_key(|problem| !problem.stops_logins);
    }

    fn sorted(mut self) -> Self {
        self.problems.sort_by_key(|problem| !problem.stops_logins);
        self
    }
}

/// The last look, and the last failed login.
#[derive(Default)]
pub(super) struct Watch {
    seen: Mutex<Option<Seen>>,
    /// Held by the look in progress, so that concurrent requests share it.
    looking: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
}

/// What the last logins showed.
#[derive(Default)]
struct Last {
    /// Time when AD last decided a login.
    decided: Option<Instant>,
    /// Time when a login last succeeded.
    succeeded: Option<Instant>,
    /// The last login that failed, if AD has decided none since.
    failed: Option<Failed>,
}

/// A look that has ended.
#[derive(Clone)]
struct Seen {
    /// Time when it began.
    begun: Instant,
    at: Instant,
    health: Health,
    /// False if it gave up before a login would have.
    is_decided: bool,
}

/// The last login that failed through no fault of its user.
struct Failed {
    at: Instant,
    reason: String,
    /// True if AD rejects every bind, which only another bind can disprove.
    binds_off: bool,
}

impl Watch {
    /// Records the decision on a login that `took` so long, if it shows a fault that affects every user, or
    /// that AD decides again. A login that failed shows no fault if AD decided another one while it waited.
    pub(super) fn login(&self, decision: &Decision, took: Duration) {
        let Decision { verdict, method, binds_off, .. } = decision;
        let is_service = verdict.outcome.conclusion() == Conclusion::Undecided;
        let at = Instant::now();
        let mut last = self.last.lock();
        let is_disproved = || last.decided.is_some_and(|decided| decided + took > at);
        if *binds_off || is_service && !is_disproved() {
            let reason = verdict.reason.clone();
            last.failed = Some(Failed { at, reason, binds_off: *binds_off });
        } else if !is_service && method.is_some() {
            let succeeded = if verdict.outcome.is_success() { Some(at) } else { last.succeeded };
            *last = Last { decided: Some(at), succeeded, failed: None };
        }
    }

    /// Returns true if `seen` reports that no login can succeed, although one has since it began. What it saw
    /// may be older than that login, so only another look decides. A login that succeeded before a look
    /// proves nothing against it.
    fn disproves(&self, seen: &Seen) -> bool {
        !seen.health.is_serving() && self.last.lock().succeeded.is_some_and(|at| at >= seen.begun)
    }

    /// Returns true if the last look answers a request from the time `begun`, without another one.
    fn has_answer(&self, begun: Instant) -> bool {
        let seen = self.seen.lock().clone();
        seen.is_some_and(|seen| seen.at + FRESH > begun && seen.is_decided && !self.disproves(&seen))
    }

    /// Returns the problem that the last failed login shows, for a look that finds none.
    fn failure(&self) -> Option<Problem> {
        let last = self.last.lock();
        let failed = last.failed.as_ref()?;
        let age = failed.at.elapsed();
        match failed.binds_off {
            true => Some(Problem::stops(format!("{}. Last login: {} s ago", failed.reason, age.as_secs()))),
            false if age < REMEMBERED => Some(Problem::stops(format!(
                "the last login, {} s ago, failed: {}",
                age.as_secs(),
                failed.reason
            ))),
            false => None,
        }
    }
}

/// Looks at regular intervals until the broker ends.
pub async fn keep(broker: Arc<Broker>) -> Ended {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        broker.look(QUIET, None).await;
    }
}

impl Broker {
    /// Returns the present health, after a new look unless the last one was just now. The look leaves time
    /// for a reply before `deadline`. If a login succeeds during a look that finds that none can, another
    /// look decides.
    pub(super) async fn look_now(&self, deadline: Instant) -> Health {
        let until = deadline.checked_sub(REPLYING);
        self.look(ASKED, until).await;
        let is_disproved = self.watch.seen.lock().clone().is_some_and(|seen| self.watch.disproves(&seen));
        if is_disproved && until.is_some_and(|until| until > Instant::now() + LOOKING) {
            self.look(ASKED, until).await;
        }
        self.health()
    }

    /// Returns the health of the last look. If there was none yet, it waits for the first, for at most
    /// [`LOOKING`].
    pub(super) async fn health_seen(&self) -> Health {
        if self.watch.seen.lock().is_none() {
            self.look(QUIET, Some(Instant::now() + LOOKING)).await;
        }
        self.health()
    }

    /// Returns the health of the last look, without a query or a wait.
    pub(super) fn health(&self) -> Health {
        let mut health = Health::default();
        if let Some(text) = self.problem() {
            health.add(Problem::stops(text));
        }
        if self.service.is_err() {
            return health;
        }
        match &*self.watch.seen.lock() {
            None => health.add(Problem::stops(STARTING)),
            Some(seen) if seen.at.elapsed() > OLD => {
                let age = seen.at.elapsed().as_secs();
                health.add(Problem::stops(format!("no health check has run for {age} s")));
            }
            Some(seen) => {
                health.notes.clone_from(&seen.health.notes);
                seen.health.problems.iter().for_each(|problem| health.add(problem.clone()));
            }
        }
        for (task, state) in supervise::tasks().report().into_iter().filter(|(_, state)| state.waiting > 0) {
            let cause = state.cause.unwrap_or_default();
            health.add(Problem::hurts(format!("the background task {task} does not run, because {cause}")));
        }
        if let Some(kept) = &self.kept {
            health.add(Problem::hurts(kept.problem.to_string()));
        }
        if let Some(failure) = self.watch.failure().filter(|_| health.is_serving()) {
            health.add(failure);
        }
        health.sorted()
    }

    /// Looks, at most until `until` if that is given, but for [`LOOKING`] at least.
    async fn look(&self, quiet: Duration, until: Option<Instant>) {
        let Ok(service) = &self.service else { return };
        let begun = Instant::now();
        let turn = timeout_at(until.unwrap_or(begun + OLD), self.watch.looking.lock());
        let Ok(_turn) = turn.await else { return };
        if self.watch.has_answer(begun) {
            return;
        }
        let last = self.watch.seen.lock().clone();
        let mut seen = service.look(self.problem().is_none(), quiet, until).await;
        if !seen.is_decided {
            seen.health.take_over(last.as_ref().map(|last| &last.health));
        }
        *self.watch.seen.lock() = Some(seen);
    }
}

impl Service {
    /// Checks all that a login depends on. Without a keytab, the machine account cannot query AD. The machine
    /// account is waited for as long as a login waits, or until `until` if that is earlier.
    async fn look(&self, has_keytab: bool, quiet: Duration, until: Option<Instant>) -> Seen {
        let begun = Instant::now();
        let deadline = begun + LOOKING;
        let (patience, had_time) = patience(begun, until);
        let servers = self.domains.own();
        let mut health = Health::default();
        let asked = async {
            if servers.report().list.is_empty() {
                let _ = timeout_at(deadline, servers.refresh()).await;
            }
            let is_pointless =
                || unusable(&servers.report().list, &self.logins.passwords.report(&self.domain)).is_some();
            let probes = self.probe_quiet(quiet, deadline, patience);
            while_worthwhile(self.ask_machine(has_keytab, patience), probes, is_pointless).await.flatten()
        };
        // Beside AD: DNS that is silent takes no time away from the register, which would be called slow
        // then.
        let (asked, sessions) = tokio::join!(asked, of_sessions(&self.register, deadline));
        self.choose_method(patience).await;

        let report = servers.report();
        let method = self.logins.passwords.report(&self.domain);
        health.problems.extend(unusable(&report.list, &method));
        if let Some(problem) = &report.problem {
            let text = problem.clone();
            health.add(if report.list.is_empty() { Problem::stops(text) } else { Problem::hurts(text) });
        }
        let mut is_decided = true;
        if let Some((error, readiness)) = asked {
            is_decided = had_time
                || !error.as_ref().is_some_and(MachineError::is_late)
                    && !readiness.as_ref().is_some_and(Readiness::is_late);
            // If no domain controller can be used, a problem says so already.
            if let Some(error) = error.filter(|_| health.is_serving()) {
                health.add(unread(&error, error.is_late() && !had_time));
            }
            let is_reached = health.is_serving();
            for problem in
                readiness.iter().flat_map(|readiness| unready(readiness, &method, is_reached, had_time))
            {
                health.add(problem);
            }
        }
        // Skips problems that follow from the lack of a domain controller that answers.
        let is_serving = health.is_serving();
        sessions
            .into_iter()
            .filter(|problem| is_serving || problem.stops_logins)
            .for_each(|problem| health.add(problem));
        health.notes.extend(
            self.logins
                .passwords
                .stands_in(&self.domain)
                .map(|reason| format!("logins work by Kerberos alone, because binds do not: {reason}")),
        );
        Seen { begun, at: Instant::now(), health: health.sorted(), is_decided }
    }

    /// Queries the machine connection. Returns `None` without a keytab, else the connection's error and the
    /// state that was read over it.
    async fn ask_machine(
        &self,
        has_keytab: bool,
        deadline: Instant,
    ) -> Option<(Option<MachineError>, Option<Readiness>)> {
        if !has_keytab {
            return None;
        }
        let root = self.machine.root(deadline).await;
        let readiness = match &root {
            Ok(_) => Some(Box::pin(self.logins.directory.readiness(deadline)).await),
            Err(_) => None,
        };
        Some((root.err(), readiness))
    }

    /// Probes quiet services until `deadline`, so that a domain controller that fell silent is known before a
    /// login uses it. One without an alternative has until `patience`, as a login would wait for it.
    async fn probe_quiet(&self, quiet: Duration, deadline: Instant, patience: Instant) {
        let servers = self.domains.own();
        let begun = Instant::now();
        let Some(since) = begun.checked_sub(quiet) else { return };
        let mut probes = JoinSet::new();
        for (controller, part) in servers.quiet(&Part::ALL, since, PROBED) {
            let until = if servers.has_other(&controller.host, part) { deadline } else { patience };
            let probe = probe(&self.parts, &self.domain, Role::Domain, controller.clone(), part, until);
            let pool = self.logins.passwords.pool(&self.domain);
            probes.spawn(async move {
                let look = async {
                    match part {
                        Part::Binds => pool.look(&controller, until).await,
                        Part::Reading | Part::Kdc => probe.await,
                    }
                };
                let done = timeout_at(until, look).await;
                let done = done.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                let is_slow = until < patience && Instant::now() >= until;
                (controller, part, is_slow, done)
            });
        }
        while let Some(done) = probes.join_next().await {
            match done {
                Ok((controller, part, _, Ok(()))) => {
                    servers.reached(&controller.host, part);
                    if part == Part::Binds {
                        self.logins.passwords.settled(&self.domain, &controller.host);
                    }
                }
                // A service that answered a login in the meantime is slow, not dead.
                Ok((controller, part, is_slow, Err(cause)))
                    if !servers.answered_since(&controller.host, part, begun) =>
                {
                    match is_slow {
                        // It had less time than a login: another probe decides.
                        true => servers.doubted(&controller.host, part, &cause),
                        false => servers.failed(&controller.host, part, &cause),
                    }
                }
                _ => {}
            }
        }
    }

    /// Chooses the method as the next login would, if it is open or no longer works.
    async fn choose_method(&self, deadline: Instant) {
        let method = self.logins.passwords.report(&self.domain);
        let list = self.domains.own().report().list;
        let is_open = method.name.is_empty() || !list.iter().any(|server| server.is_usable(&method));
        if is_open && !list.is_empty() {
            // The state of the domain controllers shows the reason for a failure.
            let _ = timeout_at(deadline, self.logins.passwords.warm_up(&self.domain, deadline)).await;
        }
    }
}

/// Returns the time until which a look waits for what a login waits for as well, and whether that is as long
/// as a login waits. That is the longest time, as long as a domain controller can be used.
fn patience(begun: Instant, until: Option<Instant>) -> (Instant, bool) {
    let full = begun + DEADLINE;
    let patience = until.map_or(full, |until| until.clamp(begun + LOOKING, full));
    (patience, patience == full)
}

/// Awaits the answer of the `machine` account and the `probes`. After the probes, the machine account is only
/// waited for if that is not `is_pointless`, because no domain controller can be used.
async fn while_worthwhile<T>(
    machine: impl Future<Output = T>,
    probes: impl Future<Output = ()>,
    is_pointless: impl Fn() -> bool,
) -> Option<T> {
    let (mut machine, mut probes) = (pin!(machine), pin!(probes));
    tokio::select! {
        answer = &mut machine => {
            probes.await;
            return Some(answer);
        }
        () = &mut probes => {}
    }
    match is_pointless() {
        true => None,
        false => Some(machine.await),
    }
}

/// Returns the problem that the machine account could not query AD. If it `is_undecided`, a login that waits
/// longer than this look did may succeed.
fn unread(error: &impl fmt::Display, is_undecided: bool) -> Problem {
    match is_undecided {
        true => Problem::hurts(format!("the machine account is slow: {error}")),
        false => Problem::stops(format!("machine account: {error}")),
    }
}

/// Returns the problem that a login can use no domain controller, with the causes.
fn unusable(list: &[report::Server], method: &report::Method) -> Option<Problem> {
    if list.is_empty() || list.iter().any(|server| server.is_usable(method)) {
        return None;
    }
    let cause = |server: &report::Server| {
        if server.is_stranger {
            return vec![format!(
                "{}: DNS names it, AD does not list it as a domain controller",
                server.host
            )];
        }
        let failed = server
            .services
            .iter()
            .filter(|(service, state)| server.is_needed(service, method) && !report::is_up(state));
        let said =
            |cause: &str| cause.strip_prefix(&format!("{}: ", server.host)).unwrap_or(cause).to_owned();
        let told = failed.map(|(service, cause)| format!("{}, {service}: {}", server.host, said(cause)));
        told.collect::<Vec<_>>()
    };
    let causes: Vec<_> = list.iter().flat_map(cause).collect();
    Some(Problem::stops(format!("no domain controller can be used: {}", causes.join("; "))))
}

/// Returns the problems that AD's data causes for every login. A failed query is reported once, and not if it
/// is already known that no domain controller `is_reached`. A query that was late decides nothing unless it
/// `had_time` as a login has.
fn unready(readiness: &Readiness, method: &report::Method, is_reached: bool, had_time: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut is_told = !is_reached;
    let mut silent = |error: &DirectoryError, what: &str| {
        let is_undecided = error.is_late() && !had_time;
        let problem = (!is_told).then(|| unread(&format!("{what}{error}"), is_undecided));
        is_told = true;
        problem
    };
    match &readiness.ahead {
        Ok(Some(ahead)) if ahead.unsigned_abs() > MAX_SKEW => {
            let side = if *ahead > 0 { "ahead of" } else { "behind" };
            let text = format!(
                "this host's clock is {} s {side} the domain controller's: synchronise it (NTP); Kerberos \
                 allows {MAX_SKEW} s",
                ahead.unsigned_abs()
            );
            problems.push(Problem { text, stops_logins: method.name == Method::Kerberos.to_string() });
        }
        Ok(_) => {}
        Err(error) => problems.extend(silent(error, "")),
    }
    match &readiness.base {
        Err(DirectoryError::Machine(MachineError::NoSuchObject(base))) => {
            problems.push(Problem::stops(format!(
                "domain.base_dn: AD has no object {base}, or this host may not see it: no account is found"
            )))
        }
        Err(error) => problems.extend(silent(error, "")),
        Ok(()) => {}
    }
    let groups = [&readiness.groups, &readiness.exempt];
    for error in groups.into_iter().filter_map(|groups| groups.as_ref().err()) {
        // While the exemptions are unknown, only logins that open a session are denied; the register serves
        // those.
        problems.extend(match error {
            DirectoryError::Group(_) | DirectoryError::Exempt(_) => Some(Problem::stops(error.to_string())),
            other => silent(other, "the configured groups cannot be read: "),
        });
    }
    problems
}

/// Returns the problems of the register and of the work for its sessions.
async fn of_sessions(register: &Register, deadline: Instant) -> Vec<Problem> {
    let writing = register.try_writing(deadline).await.map(|text| Problem {
        text: format!("sessions: {text}"),
        stops_logins: register.denies_on_failure(),
    });
    let recheck = register.recheck_problem().map(|text| Problem::hurts(format!("sessions.recheck: {text}")));
    writing.into_iter().chain(recheck).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::passwords::pool::PoolError;
    use crate::directory::people::groups::GroupError;
    use crate::login::refusal::Refusal;
    use crate::protocol::report::{Method as Chosen, Server};
    use crate::verdict::Outcome;

    fn server(host: &str, binds: &str, kdc: &str) -> Server {
        let services = [("binds", binds), ("reading", "ok"), ("kdc", kdc)];
        let services = services.map(|(name, state)| (name.to_owned(), state.to_owned())).into();
        Server { host: host.into(), services, ..Server::default() }
    }

    fn chosen(name: &str) -> Chosen {
        Chosen { name: name.into(), ..Chosen::default() }
    }

    #[test]
    fn one_usable_domain_controller_is_enough_and_only_what_the_method_needs_counts() {
        let (good, expired) = (server("a", "ok", "ok"), server("b", "certificate expired", "ok"));
        let kerberos_only = server("c", "refused", "ok");
        assert_eq!(unusable(&[], &chosen("ldap")), None, "that there is none has a cause of its own");
        assert_eq!(unusable(&[expired.clone(), good], &chosen("ldap")), None);
        assert_eq!(unusable(std::slice::from_ref(&kerberos_only), &chosen("kerberos")), None);
        let problem = unusable(&[expired, kerberos_only], &chosen("ldap")).unwrap();
        assert!(problem.stops_logins);
        assert_eq!(
            problem.text,
            "no domain controller can be used: b, binds: certificate expired; c, binds: refused"
        );
    }

    fn ready() -> Readiness {
        Readiness { ahead: Ok(Some(0)), base: Ok(()), groups: Ok(()), exempt: Ok(()) }
    }

    #[test]
    fn whatever_every_login_would_meet_with_is_a_problem() {
        let aliens = || GroupError::Unknown("Aliens".into());
        let no_base = MachineError::NoSuchObject("ou=x".into());
        let cases = [
            (ready(), "ldap", "", true),
            (Readiness { ahead: Ok(Some(300)), ..ready() }, "kerberos", "", true),
            (Readiness { ahead: Ok(None), ..ready() }, "ldap", "", true),
            (Readiness { ahead: Ok(Some(301)), ..ready() }, "ldap", "clock is 301 s ahead of", true),
            (Readiness { ahead: Ok(Some(-900)), ..ready() }, "kerberos", "clock is 900 s behind", false),
            (
                Readiness { base: Err(no_base.into()), ..ready() },
                "ldap",
                "domain.base_dn: AD has no object ou=x",
                false,
            ),
            (
                Readiness { groups: Err(aliens().into()), ..ready() },
                "ldap",
                "\"Aliens\" does not exist",
                false,
            ),
            (
                Readiness { exempt: Err(DirectoryError::Exempt(aliens())), ..ready() },
                "ldap",
                "sessions.exempt_groups",
                false,
            ),
        ];
        for (readiness, method, text, serving) in cases {
            let problems = unready(&readiness, &chosen(method), true, true);
            let health = Health { problems, ..Health::default() };
            assert_eq!(health.is_serving(), serving, "{readiness:?}");
            match text {
                "" => assert_eq!(health.problems, [], "{readiness:?}"),
                text => assert!(health.problems[0].text.contains(text), "{health:?}"),
            }
        }
    }

    #[test]
    fn a_look_that_had_less_time_than_a_login_does_not_say_that_logins_fail() {
        let late = || MachineError::Timeout("the machine account at ad.acme.com (192.0.2.1:389)".into());
        let dead = || MachineError::Unreachable("ad.acme.com (192.0.2.1:389): refused".into());
        for (error, had_time, stops) in
            [(late(), false, false), (late(), true, true), (dead(), false, true), (dead(), true, true)]
        {
            let readiness = Readiness {
                ahead: Err(error.clone().into()),
                base: Err(error.clone().into()),
                groups: Err(error.clone().into()),
                exempt: Err(error.clone().into()),
            };
            assert_eq!(readiness.is_late(), error.is_late());
            let problems = unready(&readiness, &chosen("ldap"), true, had_time);
            assert!(matches!(problems.as_slice(), [one] if one.stops_logins == stops), "{problems:?}");
            assert!(problems[0].text.contains("ad.acme.com"), "{problems:?}");
        }
        // What was decided before a late answer counts.
        let no_base = DirectoryError::Machine(MachineError::NoSuchObject("ou=x".into()));
        let readiness = Readiness { ahead: Err(late().into()), base: Err(no_base), ..ready() };
        let problems = unready(&readiness, &chosen("ldap"), true, false);
        assert_eq!(problems.iter().filter(|problem| problem.stops_logins).count(), 1, "{problems:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_has_the_time_of_a_login_unless_its_caller_has_less() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(patience(begun, None), (after(5), true));
        assert_eq!(patience(begun, Some(after(9))), (after(5), true));
        assert_eq!(patience(begun, Some(after(4))), (after(4), false));
        assert_eq!(patience(begun, Some(begun)), (after(2), false));
    }

    #[test]
    fn a_look_without_a_decision_keeps_the_last_one() {
        let undecided = || Health {
            problems: vec![Problem::hurts("the machine account is slow: …")],
            ..Health::default()
        };
        let after = |last: Option<Vec<Problem>>| {
            let mut health = undecided();
            health.take_over(last.map(|problems| Health { problems, ..Health::default() }).as_ref());
            (health.is_serving(), health.problems.len())
        };
        assert_eq!(after(Some(vec![])), (true, 1));
        assert_eq!(after(Some(vec![Problem::hurts("a slow register")])), (true, 1));
        assert_eq!(after(Some(vec![Problem::stops("no base DN")])), (false, 2));
        assert_eq!(after(None), (false, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_machine_account_has_the_time_of_a_login_unless_no_domain_controller_can_be_used() {
        let answers = async |machine: u64, probes: u64, is_pointless: bool| {
            let begun = Instant::now();
            let machine = async {
                tokio::time::sleep(Duration::from_secs(machine)).await;
            };
            let probes = tokio::time::sleep(Duration::from_secs(probes));
            let answer = while_worthwhile(machine, probes, || is_pointless).await;
            (answer.is_some(), begun.elapsed().as_secs())
        };
        assert_eq!(answers(4, 2, false).await, (true, 4));
        assert_eq!(answers(4, 2, true).await, (false, 2));
        // The probes are never cut off, because the next login profits from them.
        assert_eq!(answers(1, 2, true).await, (true, 2));
    }

    #[test]
    fn the_same_is_said_once() {
        let mut health = Health::default();
        health.add(Problem::stops("no domain controller can be used: dc1: refused"));
        health.add(Problem::hurts("dc1: refused"));
        health.add(Problem::hurts("something else"));
        assert_eq!(health.problems.len(), 2);
    }

    fn decided(outcome: Outcome, reason: &str, method: Option<Method>) -> Decision {
        Decision { method, ..Refusal::new(outcome, reason).into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_ad_did_not_answer_counts_until_ad_decides_one_or_half_a_minute_has_passed() {
        let watch = Watch::default();
        assert_eq!(watch.failure(), None);
        watch.login(&decided(Outcome::Unavailable, "no domain controller answered", None), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(12)).await;
        let failure = watch.failure().unwrap();
        assert!(failure.text.starts_with("the last login, 12 s ago, failed: no domain"), "{}", failure.text);
        watch.login(&decided(Outcome::WrongPassword, "data 52e", Some(Method::Ldap)), Duration::ZERO);
        assert_eq!(watch.failure(), None);
        watch.login(&decided(Outcome::Unavailable, "x", None), Duration::ZERO);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(watch.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_failed_while_ad_decided_another_one_does_not_count() {
        let watch = Watch::default();
        let five = Duration::from_secs(5);
        tokio::time::advance(five).await;
        watch.login(&decided(Outcome::Success, "", Some(Method::Ldap)), Duration::from_millis(20));
        tokio::time::advance(Duration::from_secs(3)).await;
        // It began before the other one ended.
        watch.login(&decided(Outcome::Unavailable, "no domain controller answered", None), five);
        assert_eq!(watch.failure(), None);
        // It began after that.
        watch.login(
            &decided(Outcome::Unavailable, "no domain controller answered", None),
            Duration::from_secs(2),
        );
        assert!(watch.failure().is_some());
        // A name that nobody has is no proof, and a decision of AD is.
        watch.login(&decided(Outcome::UnknownUser, "", None), five);
        assert!(watch.failure().is_some());
        watch.login(&decided(Outcome::Success, "", Some(Method::Kerberos)), five);
        assert_eq!(watch.failure(), None);
    }

    /// A look that took this many milliseconds until now, and found this problem.
    fn looked(milliseconds: u64, problem: Option<Problem>) -> Seen {
        let at = Instant::now();
        let health = Health { problems: problem.into_iter().collect(), ..Health::default() };
        Seen { begun: at - Duration::from_millis(milliseconds), at, health, is_decided: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_succeeded_disproves_an_older_look_and_no_newer_one() {
        let watch = Watch::default();
        let pass = async |milliseconds| tokio::time::advance(Duration::from_millis(milliseconds)).await;
        let see = |milliseconds, problem| *watch.seen.lock() = Some(looked(milliseconds, problem));
        let login = |outcome| watch.login(&decided(outcome, "", Some(Method::Ldap)), Duration::ZERO);
        let is_answered = || watch.has_answer(Instant::now());
        let down = || Some(Problem::stops("no domain controller can be used"));
        pass(10_000).await;
        assert!(!is_answered(), "the broker has not looked yet");

        // The look met a domain controller in its restart, and the next request gets its result …
        see(20, down());
        pass(100).await;
        assert!(is_answered());
        // … unless a login has succeeded since. A rejection does not show that a login can succeed.
        login(Outcome::WrongPassword);
        assert!(is_answered());
        login(Outcome::Success);
        assert!(!is_answered());
        // A look that began after that login decides, even if it finds the same.
        pass(100).await;
        see(20, down());
        assert!(is_answered());

        // The login succeeded while the look went on: what it saw may be older.
        login(Outcome::Success);
        pass(10).await;
        see(20, down());
        assert!(!is_answered());
        pass(100).await;
        see(20, down());
        assert!(is_answered());

        // A look that found that logins can succeed is disproved by none, and is as old as before.
        see(20, Some(Problem::hurts("dc2: refused")));
        login(Outcome::Success);
        assert!(is_answered());
        pass(500).await;
        assert!(!is_answered());
    }

    #[tokio::test(start_paused = true)]
    async fn that_binds_are_switched_off_counts_until_a_bind_is_decided() {
        let watch = Watch::default();
        watch
            .login(&decided(Outcome::AccountRestriction, "… (data 52f)", Some(Method::Ldap)), Duration::ZERO);
        assert_eq!(watch.failure(), None, "that is about one account");
        let no_binds = PoolError::NoBinds("dc1: NTLM is off (data 418)".to_owned());
        watch.login(&Refusal::from(no_binds).into(), Duration::ZERO);
        tokio::time::advance(REMEMBERED * 10).await;
        // A name that cannot be mapped proves nothing about binds.
        watch.login(&decided(Outcome::Unmapped, "", None), Duration::ZERO);
        assert!(watch.failure().unwrap().text.contains("login.method = \"auto\""));
        watch.login(&decided(Outcome::Success, "", Some(Method::Ldap)), Duration::ZERO);
        assert_eq!(watch.failure(), None);
    }
}
