//! The pool of connections for users' binds against scripted domain controllers: when it changes to another
//! one, the delay that this costs, and the passwords that it never sends.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motion_ad::checked::Checked;
use motion_ad::config::{Pool as Settings, TlsMode};
use motion_ad::directory::controllers::discovery::Wanted;
use motion_ad::directory::controllers::health::{Change, Service, State};
use motion_ad::directory::controllers::servers::ServerList;
use motion_ad::directory::entry::Entry;
use motion_ad::directory::machine::Place;
use motion_ad::directory::passwords::pool::{Pool, PoolError, Renew};
use motion_ad::directory::trust::{Refreshed, Trust};
use motion_ad::patience::ATTEMPT;
use motion_ad::verdict::Outcome;
use motion_ad_support::scripted::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::network::{Controller, Directory, LDAP, LDAPS, Network, root_dse};

const JOHN: &str = "CN=john.doe,OU=People,DC=acme,DC=com";
const MARY: &str = "CN=mary.roe,OU=People,DC=acme,DC=com";
const DC1: &str = "dc1.acme.com";
const DC2: &str = "dc2.acme.com";

/// Maximum wait of the first login that meets a silent domain controller, in attempts at a silent one: it
/// waits for one attempt, and not for a second one. [`Control`] tells how much of its time was a wait.
const FIRST: u32 = 2;
/// Same for the logins after it, which wait for none.
const LATER: u32 = 1;
/// Time in which a test expects a probe to succeed, far more than the pauses between the first probes.
const RECOVERY: Duration = Duration::from_secs(60);
/// Pause between two logins of [`Control`].
const PAUSE: Duration = Duration::from_millis(50);
/// Number of concurrent logins, and maximum number of connections.
const LOGINS: usize = 50;
/// Concurrent connection attempts to one domain controller, as in src/directory/pool.rs.
const CONNECTING: usize = 4;
/// Time limit of the pool for one attempt, as in the same file.
const CONNECT: Duration = Duration::from_secs(5);
/// LDAP_CAP_ACTIVE_DIRECTORY_PARTIAL_SECRETS_OID (MS-ADTS 3.1.1.3.4.3.6).
const READ_ONLY: &str = "1.2.840.113556.1.4.1920";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A pool over the domain controllers of acme.com, with the changes that it reported.
struct Bench {
    pool: Arc<Pool>,
    servers: Arc<ServerList>,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl Bench {
    fn new(network: &Network) -> Self {
        Bench::with(network, TlsMode::Auto, network.trust(), Box::new(|_| Box::pin(async {})))
    }

    fn with(network: &Network, mode: TlsMode, trust: Arc<Trust>, renew: Renew) -> Self {
        Bench::of(network, mode, trust, LOGINS, renew)
    }

    fn of(network: &Network, mode: TlsMode, trust: Arc<Trust>, connections: usize, renew: Renew) -> Self {
        let (told, changes) = mpsc::unbounded_channel();
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let observer = Box::new(move |change: &Change| {
            let _ = told.send(change.clone());
        });
        let servers = ServerList::new(wanted, network.names(), network.roster(), observer);
        let settings = Settings { connections, idle: Duration::from_secs(60) };
        Bench { pool: Pool::new(servers.clone(), trust, mode, settings, renew), servers, changes }
    }

    /// Binds as John, and returns the result and the time it took.
    async fn bind(&self) -> (Result<Checked, PoolError>, Duration) {
        let begun = Instant::now();
        (self.pool.bind(JOHN, "secret", soon()).await, begun.elapsed())
    }

    /// Makes [`LOGINS`] binds at once, all of which `host` must answer. Returns the total time.
    async fn logins_at(&self, host: &str) -> Duration {
        let begun = Instant::now();
        let mut logins = JoinSet::new();
        for _ in 0..LOGINS {
            let pool = self.pool.clone();
            logins.spawn(async move { pool.bind(JOHN, "secret", soon()).await });
        }
        for answer in logins.join_all().await {
            assert_eq!(
                answer.map(|bound| (bound.outcome, bound.dc)),
                Ok((Outcome::Success, host.to_owned()))
            );
        }
        begun.elapsed()
    }

    /// Lets the list probe the domain controllers that failed.
    fn keep(&self) {
        let pool = self.pool.clone();
        self.servers.keep(Arc::new(move |controller, service| {
            assert_eq!(service, Service::Binds);
            let pool = pool.clone();
            Box::pin(async move { pool.probe(&controller, soon()).await })
        }));
    }

    /// Waits until binds at `host` work, as far as this host knows.
    async fn up(&self, host: &str) {
        while self.servers.is_down(host, Service::Binds) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the changes reported since the last call. The end of a doubt is none that the log has.
    fn told(&mut self) -> Vec<Change> {
        let changes = std::iter::from_fn(|| self.changes.try_recv().ok());
        changes.filter(|change| change.state != State::Up(None)).collect()
    }
}

/// Logins that meet no trouble, one after the other, while a test runs. A busy machine delays these as well,
/// so that they tell how much of another login's time was a wait for a domain controller.
struct Control {
    /// The slowest so far, and the start of the present one.
    seen: Arc<Mutex<(Duration, Instant)>>,
    task: AbortHandle,
}

impl Control {
    /// Returns `None` where [`Network::new`] does.
    fn start() -> Option<Self> {
        let network = Network::new()?;
        let seen = Arc::new(Mutex::new((Duration::ZERO, Instant::now())));
        let told = seen.clone();
        let task = tokio::spawn(async move {
            let _dc = network.controller(DC1, |script| script.on(Event::bind(), [success()])).await;
            loop {
                told.lock().unwrap().1 = Instant::now();
                // Part of the measured time: the machine may be busy in the pause.
                sleep(PAUSE).await;
                let answer = Bench::new(&network).bind().await;
                assert!(success_at(&answer, DC1), "the control: {answer:?}");
                let mut seen = told.lock().unwrap();
                seen.0 = seen.0.max(seen.1.elapsed());
            }
        });
        Some(Control { seen, task: task.abort_handle() })
    }

    /// Returns true if a login that took so long waited for fewer than `attempts` attempts at a silent domain
    /// controller.
    fn allows(&self, took: Duration, attempts: u32) -> bool {
        let (slowest, begun) = *self.seen.lock().unwrap();
        took < slowest.max(begun.elapsed()) + ATTEMPT * attempts
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn success_at(bound: &(Result<Checked, PoolError>, Duration), host: &str) -> bool {
    bound.0.as_ref().is_ok_and(|bound| bound.outcome == Outcome::Success && bound.dc == host)
}

/// A domain controller that fails once, before another one that works.
struct Scenario {
    name: &'static str,
    /// The rules that make it fail; empty if it does not listen.
    fails: fn() -> Vec<Rule>,
    /// True if it receives a bind.
    is_bound: bool,
    /// True if it may have counted that bind, as far as the client can tell.
    in_doubt: bool,
    /// Text that the reported cause contains.
    says: &'static str,
    /// True if it is only silent: it may be slow, and nothing is reported before a probe fails.
    is_silent: bool,
}

const fn unbound(name: &'static str, fails: fn() -> Vec<Rule>, says: &'static str) -> Scenario {
    Scenario { name, fails, is_bound: false, in_doubt: false, says, is_silent: false }
}

const fn bound(name: &'static str, fails: fn() -> Vec<Rule>, says: &'static str) -> Scenario {
    Scenario { name, fails, is_bound: true, in_doubt: true, says, is_silent: false }
}

/// A scenario in which it answers that it cannot decide.
const fn declined(name: &'static str, fails: fn() -> Vec<Rule>, says: &'static str) -> Scenario {
    Scenario { name, fails, is_bound: true, in_doubt: false, says, is_silent: false }
}

impl Scenario {
    const fn silent(self) -> Self {
        Scenario { is_silent: true, ..self }
    }
}

fn once(event: Event, actions: impl IntoIterator<Item = Action>) -> Vec<Rule> {
    vec![Rule::new(event, actions).once()]
}

/// Returns the rules for both ports.
fn handshakes(action: Action) -> Vec<Rule> {
    vec![Rule::new(Event::ClientHello, [action]).times(2)]
}

fn binds(actions: impl IntoIterator<Item = Action>) -> Vec<Rule> {
    once(Event::bind(), actions)
}

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    unbound("refuses",                  Vec::new,                                                "refused"),
    unbound("swallows",                 || once(Event::Connected, [Action::Silence]),            "no connection in time").silent(),
    unbound("silent in the handshake",  || once(Event::ClientHello, [Action::Silence]),          "no connection in time").silent(),
    unbound("silent in its middle",     || once(Event::ClientHello, [Action::HalfServerHello, Action::Silence]), "no connection in time").silent(),
    unbound("silent after it",          || once(Event::root_dse(""), [Action::Silence]),         "no connection in time").silent(),
    unbound("breaks handshakes off",    || handshakes(Action::Close),                            "TLS failed"),
    unbound("resets handshakes",        || handshakes(Action::Reset),                            "TLS failed"),
    unbound("read-only",                || once(Event::root_dse(""), root_dse(&[READ_ONLY], "TRUE")), "read-only"),
    unbound("not synchronized",         || once(Event::root_dse(""), root_dse(&[], "FALSE")),    "not synchronized"),
    bound("silent after the bind",      || binds([Action::Silence]),                             "no answer to a bind in time").silent(),
    bound("late after the bind",        || binds([Action::Delay(Duration::from_secs(4)), refused(0x52e)]), "no answer to a bind in time").silent(),
    bound("silent in its answer",       || binds([refused(0x52e).cut(6), Action::Silence]),      "no answer to a bind in time").silent(),
    bound("resets",                     || binds([Action::Reset]),                               "reset"),
    bound("closes",                     || binds([Action::Close]),                               "closed"),
    declined("busy",                    || binds([busy()]),                                      "LDAP result 51"),
    declined("unavailable",             || binds([unavailable()]),                               "LDAP result 52"),
    declined("being demoted",           || binds([unwilling()]),                                 "LDAP result 53"),
    bound("notice of disconnection",    || binds([notice(52, "shutting down"), Action::Close]),  "LDAP result 52"),
];

/// The attacker controls a DNS answer, and has a certificate for another name from an authority that is
/// trusted.
#[tokio::test]
async fn a_host_that_dns_names_and_ad_does_not_list_gets_no_password() {
    for is_alone in [false, true] {
        let Some(network) = Network::new() else { return };
        let welcome = |script: Script| script.on(Event::bind(), [success()]);
        let attacker = network.stranger("acme.com", "mail.attacker.example", welcome).await;
        let dc = match is_alone {
            true => None,
            false => Some(network.controller(DC1, |script| script.on(Event::bind(), [refused(0x52e)])).await),
        };
        let bench = Bench::new(&network);
        let (answer, _) = bench.bind().await;
        match (answer, &dc) {
            (Ok(bound), Some(_)) => {
                assert_eq!((bound.outcome, bound.dc.as_str()), (Outcome::WrongPassword, DC1))
            }
            (Err(error), None) => assert!(error.to_string().contains("AD lists"), "{error}"),
            (answer, _) => panic!("{is_alone}: {answer:?}"),
        }
        assert_eq!((attacker.log().connections(), attacker.log().binds()), (0, 0));
    }
}

#[tokio::test]
async fn who_fails_is_left_within_the_call_and_taken_back() {
    let Some(control) = Control::start() else { return };
    let control = Arc::new(control);
    let mut running = JoinSet::new();
    for scenario in SCENARIOS {
        let Some(network) = Network::new() else { return };
        running.spawn(left_and_taken_back(network, scenario, control.clone()));
    }
    let results = running.join_all().await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

async fn left_and_taken_back(
    network: Network,
    scenario: &Scenario,
    control: Arc<Control>,
) -> Result<(), String> {
    let Scenario { name, fails, is_bound, in_doubt, says, is_silent } = scenario;
    let fails = fails();
    let refuses = fails.is_empty();
    let script = |script| fails.into_iter().fold(script, Script::rule).on(Event::bind(), [success()]);
    let mut first = network.silent(DC1, script);
    if !refuses {
        first.listen(LDAPS).await;
        first.listen(LDAP).await;
    }
    let second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let mut bench = Bench::new(&network);
    let check = |what: &str, holds: bool, seen: &dyn std::fmt::Debug| match holds {
        true => Ok(()),
        false => Err(format!("{name}: {what}: {seen:?}\n  {DC1}: {:?}", first.log().all())),
    };

    let answer = bench.bind().await;
    check("the other one decides", success_at(&answer, DC2) && control.allows(answer.1, FIRST), &answer)?;
    check("it received a bind", first.log().binds() == usize::from(*is_bound), &is_bound)?;
    check("the other one received one", second.log().binds() == 1, &second.log().all())?;
    let unanswered = answer.0.map(|bound| bound.unanswered).unwrap_or_default();
    check(
        "whether it may have counted is told",
        unanswered == vec![DC1; usize::from(*in_doubt)],
        &unanswered,
    )?;
    let told = bench.told();
    let is_down = |change: &Change| {
        change.host == DC1
            && change.service == Service::Binds
            && matches!(&change.state, State::Down(cause) if cause.contains(says))
    };
    match is_silent {
        true => check("it may be slow: nothing is told", told.is_empty(), &told)?,
        false => {
            check("its failure is told once", matches!(told.as_slice(), [change] if is_down(change)), &told)?;
        }
    }
    check("it comes after the other one", bench.servers.is_down(DC1, Service::Binds), &told)?;

    let connections = first.log().connections();
    let answer = bench.bind().await;
    check(
        "the other one decides at once",
        success_at(&answer, DC2) && control.allows(answer.1, LATER),
        &answer,
    )?;
    check("it is left alone", first.log().connections() == connections, &connections)?;

    if refuses {
        first.listen(LDAPS).await;
    }
    bench.keep();
    let is_up = |change: &Change| change.host == DC1 && matches!(change.state, State::Up(Some(_)));
    let taken_back = timeout(RECOVERY, bench.up(DC1)).await;
    let (told, log) = (bench.told(), first.log().all());
    let is_told_well = match is_silent {
        true => told.is_empty(),
        false => matches!(told.as_slice(), [change] if is_up(change)),
    };
    if taken_back.is_err() || !is_told_well {
        return Err(format!("{name}: it is not taken back: {told:?}\n  {DC1}: {log:?}"));
    }
    let answer = bench.bind().await;
    match success_at(&answer, DC1) && bench.told().is_empty() {
        true => Ok(()),
        false => Err(format!("{name}: it is not asked again: {answer:?}")),
    }
}

#[tokio::test]
async fn one_that_stays_silent_is_told_of_once_and_taken_back() {
    let Some(network) = Network::new() else { return };
    // The first login and the first two probes meet silence.
    let silent = Rule::new(Event::ClientHello, [Action::Silence]).times(3);
    let _first = network.controller(DC1, |script| script.rule(silent).on(Event::bind(), [success()])).await;
    let _second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let mut bench = Bench::new(&network);
    bench.keep();
    assert!(success_at(&bench.bind().await, DC2));
    let mut states = Vec::new();
    for _ in 0..2 {
        states.push(timeout(RECOVERY, bench.changes.recv()).await.unwrap().unwrap().state);
    }
    assert!(matches!(states.as_slice(), [State::Down(_), State::Up(Some(_))]), "{states:?}");
    assert!(success_at(&bench.bind().await, DC1));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn a_login_with_little_time_says_nothing_about_a_domain_controller_and_leaves_the_connections() {
    let Some(network) = Network::new() else { return };
    let slow = [Action::Delay(Duration::from_millis(600)), success()];
    let first = network.controller(DC1, |script| script.on(Event::bind(), slow)).await;
    let mut bench = Bench::new(&network);
    let [controller] = bench.servers.controllers(Service::Binds).await.unwrap().try_into().unwrap();
    for _ in 0..3 {
        bench.pool.probe(&controller, soon()).await.unwrap();
    }
    let late = bench.pool.bind(JOHN, "secret", Instant::now() + Duration::from_millis(100)).await;
    assert!(matches!(late, Err(PoolError::Unanswered(_))), "{late:?}");
    assert!(!bench.servers.is_down(DC1, Service::Binds));
    // The one that had the bind is closed.
    assert_eq!((bench.pool.report().idle, first.log().connections()), (2, 3));
    assert!(success_at(&bench.bind().await, DC1));
    assert_eq!((first.log().connections(), bench.told()), (3, Vec::new()));
}

#[tokio::test]
async fn more_logins_than_it_serves_in_time_do_not_fail_as_a_whole() {
    const SERVES: Duration = Duration::from_millis(400);
    const CONNECTIONS: usize = 4;
    const TIMES: usize = 4;
    let Some(network) = Network::new() else { return };
    let bind = [Action::Delay(SERVES), success()];
    let first = network.controller(DC1, |script| script.on(Event::bind(), bind)).await;
    let renew: Renew = Box::new(|_| Box::pin(async {}));
    let mut bench = Bench::of(&network, TlsMode::Auto, network.trust(), CONNECTIONS, renew);
    // Several times as many as the connections carry, for three times as long as each one waits.
    let deadline = SERVES * 5;
    let carried = CONNECTIONS * 5 * 3;
    let mut logins = JoinSet::new();
    let begun = Instant::now();
    for number in 0..carried * TIMES {
        let (pool, due) = (bench.pool.clone(), deadline * 3 * number as u32 / (carried * TIMES) as u32);
        logins.spawn(async move {
            tokio::time::sleep_until(begun + due).await;
            pool.bind(JOHN, "secret", Instant::now() + deadline).await
        });
    }
    let answers = logins.join_all().await;
    let succeeded = answers.iter().filter(|answer| answer.is_ok()).count();
    let busy = answers.iter().filter(|answer| matches!(answer, Err(PoolError::Busy(_)))).count();
    let binds = first.log().binds();
    let seen = format!("{succeeded} of {carried} succeeded, {busy} found no connection, {binds} binds");
    assert!(succeeded > carried / 3, "{seen}");
    // Few binds were given up.
    assert!(binds <= succeeded + succeeded / 3 + CONNECTIONS, "{seen}");
    assert_eq!(bench.told(), []);
    assert!(!bench.servers.is_down(DC1, Service::Binds), "{seen}");
}

#[tokio::test]
async fn a_connection_that_was_given_up_says_nothing_later() {
    let Some(network) = Network::new() else { return };
    let silent = || Rule::new(Event::ClientHello, [Action::Silence]).once();
    let _first = network.controller(DC1, |script| script.rule(silent())).await;
    let _second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let mut bench = Bench::new(&network);
    assert!(success_at(&bench.bind().await, DC2));
    bench.keep();
    timeout(RECOVERY, bench.up(DC1)).await.unwrap();
    sleep(CONNECT).await;
    assert_eq!(bench.told(), []);
    assert!(!bench.servers.is_down(DC1, Service::Binds));
}

#[tokio::test]
async fn an_idle_connection_that_ended_is_replaced() {
    let Some(control) = Control::start() else { return };
    let Some(network) = Network::new() else { return };
    // The first connection ends after its first bind, the second one in place of an answer to its second
    // bind.
    let ends = |number, actions: Vec<Action>| Rule::new(Event::bind(), actions).connection(number);
    let script = |script: Script| {
        script
            .rule(ends(1, vec![success(), Action::Close]))
            .rule(ends(2, vec![success()]).once())
            .rule(ends(2, vec![Action::Reset]))
            .on(Event::bind(), [success()])
    };
    let first = network.controller(DC1, script).await;
    let second = network.controller(DC2, |script| script).await;
    let mut bench = Bench::new(&network);
    for _ in 0..4 {
        let answer = bench.bind().await;
        assert!(
            success_at(&answer, DC1) && control.allows(answer.1, LATER),
            "{answer:?} {:?}",
            first.log().all()
        );
    }
    assert_eq!((first.log().connections(), second.log().connections()), (3, 0));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn a_firewall_that_forgot_the_idle_connections_fails_nobody() {
    let Some(control) = Control::start() else { return };
    const IDLE: u64 = 6;
    let Some(network) = Network::new() else { return };
    let forgotten = |number| Rule::new(Event::bind(), [Action::Reset]).connection(number);
    let script = |script| (1..=IDLE).map(forgotten).fold(script, Script::rule).on(Event::bind(), [success()]);
    let first = network.controller(DC1, script).await;
    let mut bench = Bench::new(&network);
    let [controller] = bench.servers.controllers(Service::Binds).await.unwrap().try_into().unwrap();
    for _ in 0..IDLE {
        bench.pool.probe(&controller, soon()).await.unwrap();
    }
    assert_eq!(bench.pool.report().idle, 6);
    let answer = bench.bind().await;
    assert!(success_at(&answer, DC1) && control.allows(answer.1, LATER), "{answer:?}");
    assert_eq!(first.log().binds(), 2, "{:?}", first.log().all());
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn looking_again_and_again_does_not_fill_the_pool() {
    let Some(network) = Network::new() else { return };
    let _first = network.controller(DC1, |script| script).await;
    let bench = Bench::new(&network);
    let [controller] = bench.servers.controllers(Service::Binds).await.unwrap().try_into().unwrap();
    for _ in 0..4 {
        bench.pool.look(&controller, soon()).await.unwrap();
        assert_eq!(bench.pool.report().idle, 1);
    }
}

/// Returns the maximum number of connections in progress at once. Each counts from its acceptance to the
/// search that follows the handshake.
fn made_at_once(controller: &Controller) -> usize {
    let mut making = HashSet::new();
    let mut most = 0;
    for Record { connection, received } in controller.log().all() {
        match received {
            Received::Connected => _ = making.insert(connection),
            Received::Search { .. } | Received::Ended => _ = making.remove(&connection),
            _ => {}
        }
        most = most.max(making.len());
    }
    most
}

#[tokio::test]
async fn a_cold_pool_serves_many_at_once_and_makes_few_connections_at_a_time() {
    let Some(network) = Network::new() else { return };
    let slow = Action::Delay(Duration::from_millis(200));
    let script = |script: Script| script.on(Event::ClientHello, [slow]).on(Event::bind(), [success()]);
    let first = network.controller(DC1, script).await;
    let second = network.controller(DC2, |script| script).await;
    let mut bench = Bench::new(&network);
    bench.logins_at(DC1).await;
    let most = made_at_once(&first);
    assert!((2..=CONNECTING).contains(&most), "{most}");
    assert_eq!((first.log().binds(), second.log().connections()), (LOGINS, 0));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn many_at_once_leave_one_that_is_silent_until_a_probe_finds_it_working() {
    let Some(network) = Network::new() else { return };
    let silent = Rule::new(Event::ClientHello, [Action::Silence]).times(CONNECTING);
    // If all logins shared one connection, this delay would use up their time.
    let bind = [Action::Delay(Duration::from_millis(100)), success()];
    let first = network.controller(DC1, |script| script.rule(silent).on(Event::bind(), bind)).await;
    let second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let mut bench = Bench::new(&network);
    // The same logins where every domain controller works.
    let Some(network) = Network::new() else { return };
    let bind = [Action::Delay(Duration::from_millis(100)), success()];
    let _well = network.controller(DC1, |script| script.on(Event::bind(), bind)).await;
    let control = Bench::new(&network);
    let (took, usual) = tokio::join!(bench.logins_at(DC2), control.logins_at(DC1));
    assert!(took < usual + ATTEMPT * FIRST, "{took:?} {usual:?}");
    assert_eq!(
        (first.log().connections(), first.log().binds(), second.log().binds()),
        (CONNECTING, 0, LOGINS)
    );
    assert!(bench.servers.is_down(DC1, Service::Binds));
    bench.keep();
    timeout(RECOVERY, bench.up(DC1)).await.unwrap();
    // It was slow and not dead.
    assert_eq!(bench.told(), []);
    // Connection attempts that still wait for the silent handshakes delay no login.
    let control = Bench::new(&network);
    let (took, usual) = tokio::join!(bench.logins_at(DC1), control.logins_at(DC1));
    assert!(took < usual + ATTEMPT * FIRST, "{took:?} {usual:?}");
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn who_is_slow_and_answers_others_is_not_left() {
    let Some(network) = Network::new() else { return };
    // Longer than one attempt. The pool would leave DC1 if it answered no other login, as the scenario "late"
    // shows.
    let slow = [Action::Delay(Duration::from_millis(1500)), success()];
    let script = |script: Script| script.on(Event::bind_as(MARY), slow).on(Event::bind(), [success()]);
    let first = network.controller(DC1, script).await;
    let second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let mut bench = Bench::new(&network);
    let answer = {
        let slow = bench.pool.bind(MARY, "secret", soon());
        tokio::pin!(slow);
        loop {
            tokio::select! {
                answer = &mut slow => break answer,
                () = sleep(Duration::from_millis(50)) => {
                    let other = bench.bind().await;
                    assert!(success_at(&other, DC1), "{other:?}");
                }
            }
        }
    };
    assert_eq!(answer.map(|bound| (bound.outcome, bound.dc)), Ok((Outcome::Success, DC1.to_owned())));
    assert_eq!((first.log().binds_as(MARY), second.log().connections()), (1, 0));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn who_answered_somebody_and_then_fell_silent_is_left() {
    let Some(control) = Control::start() else { return };
    let Some(network) = Network::new() else { return };
    let script =
        |script: Script| script.on(Event::bind_as(JOHN), [Action::Silence]).on(Event::bind(), [success()]);
    let _first = network.controller(DC1, script).await;
    let _second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let bench = Bench::new(&network);
    let mary = async {
        sleep(Duration::from_millis(200)).await;
        bench.pool.bind(MARY, "secret", soon()).await
    };
    let (john, mary) = tokio::join!(bench.bind(), mary);
    assert_eq!(mary.map(|bound| bound.dc), Ok(DC1.to_owned()));
    // DC1 answers Mary within John's first attempt, so that he leaves it after his second one.
    assert!(success_at(&john, DC2) && control.allows(john.1, 3), "{john:?}");
}

#[tokio::test]
async fn who_failed_before_is_asked_where_nobody_else_answers() {
    let Some(control) = Control::start() else { return };
    for is_probed in [true, false] {
        let Some(network) = Network::new() else { return };
        let _first = network.controller(DC1, |script| script.on(Event::bind(), [success()])).await;
        let second = network.controller(DC2, |script| script.on(Event::bind(), [Action::Silence])).await;
        let bench = Bench::new(&network);
        bench.servers.failed(DC1, Service::Binds, "refused");
        if is_probed {
            bench.keep();
        }
        let answer = bench.bind().await;
        assert!(success_at(&answer, DC1), "{answer:?}");
        assert_eq!(answer.0.unwrap().unanswered, [DC2]);
        assert_eq!(second.log().binds(), 1);
        // With probes the answer comes after the first success. Without them it comes in the last attempt
        // before the deadline of five seconds.
        match is_probed {
            true => assert!(control.allows(answer.1, 4), "{:?}", answer.1),
            false => assert!(answer.1 > ATTEMPT * 5, "{:?}", answer.1),
        }
    }
}

#[tokio::test]
async fn without_tls_anywhere_nothing_is_sent() {
    let Some(control) = Control::start() else { return };
    type Case = (&'static str, &'static [u16], fn() -> Rule);
    const CASES: [Case; 3] = [
        // Windows and Samba without a certificate do this.
        ("StartTLS is refused", &[LDAP], || Rule::new(Event::StartTls, [unavailable()])),
        ("handshakes are broken off", &[LDAPS, LDAP], || Rule::new(Event::ClientHello, [Action::Close])),
        ("handshakes are reset", &[LDAPS, LDAP], || Rule::new(Event::ClientHello, [Action::Reset])),
    ];
    for (name, ports, rule) in CASES {
        let Some(network) = Network::new() else { return };
        let mut controllers = [DC1, DC2]
            .map(|host| network.silent(host, |script| script.rule(rule()).on(Event::bind(), [success()])));
        for controller in &mut controllers {
            for port in ports {
                controller.listen(*port).await;
            }
        }
        let bench = Bench::new(&network);
        let (answer, took) = bench.bind().await;
        let cause = match answer {
            Err(PoolError::NoTls(cause)) => cause,
            other => panic!("{name}: {other:?}"),
        };
        assert!(cause.contains(DC1) && cause.contains(DC2), "{name}: {cause}");
        assert!(control.allows(took, FIRST), "{name}: {took:?}");
        for controller in &controllers {
            assert!(controller.log().connections() > 0, "{name}: {}", controller.host);
            assert_eq!(controller.log().binds(), 0, "{name}: {}", controller.host);
        }
    }
}

/// The answers of domain controllers on which NTLM is off: Samba's, and the one that MS-ERREF has for
/// Windows.
const NO_BINDS: [u32; 2] = [0x418, 0x791];

#[tokio::test]
async fn who_takes_no_simple_binds_has_counted_nothing_and_is_spared_for_a_while() {
    for data in NO_BINDS {
        let Some(network) = Network::new() else { return };
        let takes_none = |script: Script| script.on(Event::bind(), [refused(data)]);
        let first = network.controller(DC1, takes_none).await;
        let second = network.controller(DC2, takes_none).await;
        let mut bench = Bench::new(&network);
        for _ in 0..2 {
            let cause = match bench.bind().await.0 {
                Err(PoolError::NoBinds(cause)) => cause,
                other => panic!("{data:x}: {other:?}"),
            };
            assert!(cause.contains(DC1) && cause.contains(DC2), "{cause}");
            assert!(cause.contains(&format!("NTLM is off (data {data:x})")), "{cause}");
        }
        assert_eq!((first.log().binds(), second.log().binds()), (1, 1));
        assert!(bench.pool.is_blocked(DC1) && !bench.pool.is_due());
        // Its TLS works: it is not down, and no probe brings it back.
        assert_eq!(bench.told(), []);
        assert!(matches!(bench.pool.warm_up(soon()).await, Err(PoolError::NoBinds(_))));
    }
}

#[tokio::test]
async fn one_that_takes_simple_binds_is_enough() {
    let Some(network) = Network::new() else { return };
    let first = network.controller(DC1, |script| script.on(Event::bind(), [refused(0x418)])).await;
    let second = network.controller(DC2, |script| script.on(Event::bind(), [success()])).await;
    let bench = Bench::new(&network);
    for _ in 0..2 {
        assert!(success_at(&bench.bind().await, DC2));
    }
    assert_eq!((first.log().binds(), second.log().binds()), (1, 2));
}

#[tokio::test]
async fn who_may_have_counted_the_password_leaves_no_other_way() {
    let Some(network) = Network::new() else { return };
    let _first = network.controller(DC1, |script| script.on(Event::bind(), [Action::Close])).await;
    let _second = network.controller(DC2, |script| script.on(Event::bind(), [refused(0x418)])).await;
    let answer = Bench::new(&network).bind().await.0;
    assert!(matches!(answer, Err(PoolError::Unanswered(_))), "{answer:?}");
}

#[tokio::test]
async fn that_there_is_no_tls_is_an_answer_also_of_one_that_answers_searches_meanwhile() {
    let Some(network) = Network::new() else { return };
    let late = Action::Delay(Duration::from_millis(20));
    let refuses = move || Rule::new(Event::StartTls, [late.clone(), unavailable()]);
    let mut controller = network.silent(DC1, |script| script.rule(refuses()));
    controller.listen(LDAP).await;
    let mut bench = Bench::new(&network);
    let servers = bench.servers.clone();
    let searches = tokio::spawn(async move {
        loop {
            servers.answered(DC1, Service::Reading);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let (answer, _) = bench.bind().await;
    searches.abort();
    assert!(matches!(answer, Err(PoolError::NoTls(_))), "{answer:?}");
    // The pool marks it as down, so that a probe finds its certificate later.
    assert!(bench.servers.is_down(DC1, Service::Binds), "{:?}", bench.told());
}

#[tokio::test]
async fn one_that_has_tls_is_enough() {
    let Some(control) = Control::start() else { return };
    let Some(network) = Network::new() else { return };
    let first = network.controller(DC1, |script| script.on(Event::ClientHello, [Action::Close])).await;
    let mut second = network.silent(DC2, |script| script.on(Event::bind(), [success()]));
    second.listen(LDAP).await;
    let bench = Bench::new(&network);
    let answer = bench.bind().await;
    assert!(success_at(&answer, DC2) && control.allows(answer.1, FIRST), "{answer:?}");
    assert_eq!((first.log().binds(), second.log().binds()), (0, 1));
}

#[tokio::test]
async fn once_a_bind_was_sent_nobody_says_that_none_was() {
    let Some(network) = Network::new() else { return };
    let first = network.controller(DC1, |script| script.on(Event::bind(), [Action::Silence])).await;
    let second = network.controller(DC2, |script| script.on(Event::ClientHello, [Action::Close])).await;
    let bench = Bench::new(&network);
    let (answer, _) = bench.bind().await;
    assert!(matches!(&answer, Err(PoolError::Unanswered(_))), "{answer:?}");
    assert_eq!((first.log().binds(), second.log().binds()), (1, 0));
}

#[tokio::test]
async fn one_that_is_slow_is_waited_for_where_the_other_refuses_and_gets_one_bind() {
    for seconds in [1, 2, 4] {
        let Some(network) = Network::new() else { return };
        let late = [Action::Delay(Duration::from_secs(seconds)), success()];
        let first = network.controller(DC1, |script| script.on(Event::bind(), late)).await;
        // It does not listen.
        let _second = network.silent(DC2, |script| script);
        let bench = Bench::new(&network);
        let bound = bench.pool.bind(JOHN, "secret", Instant::now() + Duration::from_secs(8)).await;
        let bound = bound.map(|bound| (bound.outcome, bound.dc, bound.unanswered));
        assert_eq!(bound, Ok((Outcome::Success, DC1.to_owned(), Vec::new())), "{seconds} s");
        assert_eq!(first.log().binds(), 1);
    }
}

#[tokio::test]
async fn a_login_with_a_long_deadline_waits_for_a_connection_until_then() {
    // TLS begins later than any other login would wait for.
    let late = || [Action::Delay(CONNECT + Duration::from_secs(1))];
    let mut logins = JoinSet::new();
    for seconds in [5, 60] {
        let Some(network) = Network::new() else { return };
        logins.spawn(async move {
            let first = network.controller(DC1, |script| {
                script.on(Event::ClientHello, late()).on(Event::bind(), [success()])
            });
            let first = first.await;
            let bench = Bench::new(&network);
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let bound = bench.pool.bind(JOHN, "secret", deadline).await;
            (seconds, bound.is_ok_and(|bound| bound.dc == DC1), first.log().binds())
        });
    }
    let mut seen = logins.join_all().await;
    seen.sort_unstable();
    assert_eq!(seen, [(5, false, 0), (60, true, 1)]);
}

#[tokio::test]
async fn a_first_login_after_a_start_meets_none_of_five_that_were_dead() {
    let Some(network) = Network::new() else { return };
    let mut dead = Vec::new();
    for number in 1..=5 {
        let swallows = |script: Script| script.on(Event::Connected, [Action::Silence]);
        dead.push(network.controller(&format!("dead{number}.acme.com"), swallows).await);
    }
    let works = network.controller(DC1, |script| script.on(Event::bind(), [success()])).await;
    let state = tempfile::tempdir().unwrap();
    let start = || {
        let (told, changes) = mpsc::unbounded_channel();
        let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
        let observer = Box::new(move |change: &Change| _ = told.send(change.clone()));
        let servers = ServerList::new(wanted, network.names(), network.roster_in(state.path()), observer);
        let settings = Settings { connections: LOGINS, idle: Duration::from_secs(60) };
        let renew: Renew = Box::new(|_| Box::pin(async {}));
        Bench {
            pool: Pool::new(servers.clone(), network.trust(), TlsMode::Auto, settings, renew),
            servers,
            changes,
        }
    };
    let met = |dead: &[Controller]| dead.iter().map(|host| host.log().connections()).sum::<usize>();

    // The first broker tries them one after the other.
    let first = start();
    let bound = first.pool.bind(JOHN, "secret", Instant::now() + Duration::from_secs(60)).await;
    assert_eq!(bound.map(|bound| bound.dc), Ok(DC1.to_owned()));
    assert!(met(&dead) >= 5);
    first.servers.keep(Arc::new(|_, _| Box::pin(async { Err("no answer in time".to_owned()) })));
    let file = state.path().join("last-domain-acme.com.json");
    let kept = async {
        while std::fs::read_to_string(&file).unwrap_or_default().matches("\"binds\"").count() < 5 {
            sleep(PAUSE).await;
        }
    };
    timeout(RECOVERY, kept).await.unwrap();
    drop(first);

    // The next one begins with the one that worked, without a query of DNS.
    let (met_before, asked) = (met(&dead), network.names().asked().len());
    let next = start();
    let answer = next.bind().await;
    assert!(success_at(&answer, DC1), "{answer:?}");
    assert_eq!((met(&dead), network.names().asked().len()), (met_before, asked));
    assert_eq!(works.log().binds(), 2);
}

#[tokio::test]
async fn two_slow_ones_do_not_get_the_password_at_once() {
    // The second one is tried after 0.8 s and has the bind from then on. The first one is ready for it 0.2 s
    // later, and the second one refuses after another 0.3 s. At 1.6 s the first one would get the bind as
    // well.
    for _ in 0..5 {
        let Some(network) = Network::new() else { return };
        let [entry, done] = root_dse(&[], "TRUE");
        let late = [Action::Delay(Duration::from_millis(1000)), entry, done];
        let refuses = || [Action::Delay(Duration::from_millis(500)), refused(0x52e)];
        let first = network
            .controller(DC1, |script| script.on(Event::root_dse(""), late).on(Event::bind(), refuses()))
            .await;
        let second = network.controller(DC2, |script| script.on(Event::bind(), refuses())).await;
        let bench = Bench::new(&network);
        let begun = Instant::now();
        let bound = bench.pool.bind(JOHN, "wrong", begun + Duration::from_secs(8)).await;
        // A busy machine can be late; then the first one may have it.
        if begun.elapsed() > Duration::from_millis(1500) {
            continue;
        }
        let bound = bound.map(|bound| (bound.outcome, bound.dc, bound.unanswered));
        assert_eq!(bound, Ok((Outcome::WrongPassword, DC2.to_owned(), Vec::new())));
        assert_eq!((first.log().binds(), second.log().binds()), (0, 1));
        return;
    }
    panic!("the machine was late five times");
}

/// Returns a directory whose forest trusts the authority of `network`.
fn forest_that_trusts(network: &Network) -> Directory {
    let root = CertificateDer::from_pem_slice(network.authority().pem().as_bytes()).unwrap();
    let own = |part, entries| (Place::Own, part, entries);
    let root_dse = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
    Directory::new([
        own(
            "CN=Certification Authorities",
            vec![Entry::new("CN=Acme").with("cACertificate", [root.to_vec()])],
        ),
        own("CN=CDP", vec![]),
        own("(objectClass=*)", vec![root_dse]),
    ])
}

/// Reads the forest's authorities, counts that, and checks whether `trust` changed.
fn reading(asked: &Arc<AtomicUsize>, trust: &Arc<Trust>, directory: &Arc<Directory>, changes: bool) -> Renew {
    let (asked, trust, directory) = (asked.clone(), trust.clone(), directory.clone());
    Box::new(move |deadline| {
        asked.fetch_add(1, Ordering::SeqCst);
        let (trust, directory) = (trust.clone(), directory.clone());
        Box::pin(async move {
            let done = trust.refresh(&*directory, deadline).await;
            assert_eq!(done == Ok(Refreshed::Changed), changes, "{done:?}");
        })
    })
}

#[tokio::test]
async fn a_new_authority_of_the_forest_is_asked_for_once() {
    let Some(control) = Control::start() else { return };
    let Some(network) = Network::new() else { return };
    let first = network.controller(DC1, |script| script.on(Event::bind(), [success()])).await;
    // The system's store, which contains no authority of a test.
    let trust = Arc::new(Trust::load(None, None).unwrap());
    let (asked, directory) = (Arc::new(AtomicUsize::new(0)), Arc::new(forest_that_trusts(&network)));
    let renew = reading(&asked, &trust, &directory, true);
    let mut bench = Bench::with(&network, TlsMode::Auto, trust, renew);
    for _ in 0..2 {
        let answer = bench.bind().await;
        assert!(success_at(&answer, DC1) && control.allows(answer.1, LATER), "{answer:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!((first.log().connections(), first.log().binds()), (2, 2));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn roots_that_arrive_during_the_handshake_count() {
    let Some(network) = Network::new() else { return };
    let slow = Rule::new(Event::ClientHello, [Action::Delay(Duration::from_millis(300))]).once();
    let script = |script: Script| script.rule(slow).on(Event::bind(), [success()]);
    let first = network.controller(DC1, script).await;
    let trust = Arc::new(Trust::load(None, None).unwrap());
    let directory = forest_that_trusts(&network);
    // AD is read for another reason, so that this login does not have it read.
    let renew: Renew = Box::new(|_| Box::pin(async {}));
    let mut bench = Bench::with(&network, TlsMode::Auto, trust.clone(), renew);
    let read = async {
        first.log().wait_for(|received| *received == Received::ClientHello).await;
        assert_eq!(trust.refresh(&directory, soon()).await, Ok(Refreshed::Changed));
    };
    let (answer, ()) = tokio::join!(bench.bind(), read);
    assert!(success_at(&answer, DC1), "{answer:?}");
    assert_eq!((first.log().connections(), first.log().binds()), (2, 1));
    assert_eq!(bench.told(), []);
}

#[tokio::test]
async fn an_authority_that_nobody_knows_gets_no_password() {
    let Some(control) = Control::start() else { return };
    // The directory is asked only once, whether or not it has other roots.
    for (mode, upgrades, has_others, connections) in [
        (TlsMode::Auto, 0, false, 1),
        (TlsMode::Auto, 0, true, 2),
        (TlsMode::Starttls, 1, false, 1),
        (TlsMode::Starttls, 2, true, 2),
    ] {
        let (Some(network), Some(elsewhere)) = (Network::new(), Network::new()) else { return };
        let first = network.controller(DC1, |script| script.on(Event::bind(), [success()])).await;
        let trust = if has_others { Arc::new(Trust::load(None, None).unwrap()) } else { elsewhere.trust() };
        let (asked, directory) = (Arc::new(AtomicUsize::new(0)), Arc::new(forest_that_trusts(&elsewhere)));
        let renew = reading(&asked, &trust, &directory, has_others);
        let bench = Bench::with(&network, mode, trust, renew);
        let (answer, took) = bench.bind().await;
        assert!(
            matches!(&answer, Err(PoolError::NoTls(_))) && control.allows(took, FIRST),
            "{mode:?}: {answer:?} {took:?}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!((first.log().connections(), first.log().binds()), (connections, 0), "{mode:?}");
        let upgraded = first.log().count(|received| *received == Received::StartTls);
        assert_eq!(upgraded, upgrades, "{mode:?}");
    }
}
