//! Health of the domain controllers as seen from this host: a circuit for each service.
//!
//! Pure: the time is passed in. A service that failed comes after the others until a probe in the background
//! finds it working again. It is never removed, because a last resort is better than none.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Time from a failure to the first probe; each further probe waits twice as long.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// Maximum time between two probes.
const LAST_PROBE: Duration = Duration::from_secs(10);
/// A service that fails within this time after it recovered did not really work: its probes stay as rare as
/// before.
const STEADY: Duration = Duration::from_secs(60);

/// A use of a domain controller. Each can fail alone: an expired certificate stops only the binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Users' binds over TLS.
    Binds,
    /// The machine account's sealed connection.
    Reading,
    /// Kerberos.
    Kdc,
}

impl Service {
    /// All services.
    pub const ALL: [Service; 3] = [Service::Binds, Service::Reading, Service::Kdc];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Binds => "binds",
            Service::Reading => "reading",
            Service::Kdc => "kdc",
        })
    }
}

/// A circuit that opened or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The domain controller.
    pub host: String,
    /// The service.
    pub service: Service,
    /// The new state.
    pub state: State,
}

/// State of a service, seen from this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works; the duration is that of the outage that has just ended. In a change without it, a doubt has
    /// ended that was never reported.
    Up(Option<Duration>),
    /// It fails, with the cause.
    Down(String),
}

/// The circuits of a set of domain controllers.
#[derive(Debug, Default)]
pub struct Health {
    /// By host, in the order of [`Service::ALL`].
    circuits: HashMap<String, [Circuit; 3]>,
}

#[derive(Debug, Default)]
struct Circuit {
    /// Time when it last worked.
    answered: Option<Instant>,
    open: Option<Open>,
    /// Time when it last closed, and the pause between probes at that time.
    closed: Option<(Instant, Duration)>,
    /// Number of times that it opened.
    outages: u64,
    /// Number of times that it was silent since it last did its work.
    silences: u32,
}

impl Circuit {
    /// Returns the time from a failure at `now` to the first probe.
    fn pause(&self, now: Instant) -> Duration {
        match self.closed {
            Some((closed, pause)) if now < closed + STEADY => (pause * 2).min(LAST_PROBE),
            _ => FIRST_PROBE,
        }
    }
}

#[derive(Debug)]
struct Open {
    since: Instant,
    cause: String,
    silence: bool,
    pause: Duration,
    probe: Instant,
    probed: Option<Instant>,
    /// It was slow, and a probe will show if it is dead: nothing has been logged or counted yet.
    doubted: bool,
}

impl Health {
    /// Notes that `service` of `host` worked.
    pub fn answered(&mut self, host: &str, service: Service, now: Instant) -> Option<Change> {
        self.circuit(host, service).silences = 0;
        self.reached(host, service, now)
    }

    /// Notes that `service` of `host` accepts connections. For binds, that does not show that it answers one.
    pub fn reached(&mut self, host: &str, service: Service, now: Instant) -> Option<Change> {
        let circuit = self.circuit(host, service);
        circuit.answered = Some(now);
        let open = circuit.open.take()?;
        circuit.closed = Some((now, open.pause));
        let state = State::Up((!open.doubted).then(|| now - open.since));
        Some(Change { host: host.to_owned(), service, state })
    }

    /// Notes that `service` of `host` failed. A further failure only changes the cause: the next probe stays
    /// as it was. `silence` makes every other service of the same host suspect.
    pub fn failed(
        &mut self,
        host: &str,
        service: Service,
        cause: &str,
        silence: bool,
        now: Instant,
    ) -> Option<Change> {
        let circuit = self.circuit(host, service);
        let cause = cause.to_owned();
        if let Some(open) = &mut circuit.open {
            (open.cause, open.silence) = (cause.clone(), silence);
            if !std::mem::take(&mut open.doubted) {
                return None;
            }
            circuit.outages += 1;
            return Some(Change { host: host.to_owned(), service, state: State::Down(cause) });
        }
        let pause = circuit.pause(now);
        let (probe, probed, doubted) = (now + pause, None, false);
        circuit.open =
            Some(Open { since: now, cause: cause.clone(), silence, pause, probe, probed, doubted });
        circuit.outages += 1;
        Some(Change { host: host.to_owned(), service, state: State::Down(cause) })
    }

    /// Notes that `service` of `host` is slow or dead. It comes after others until a probe, due at once,
    /// shows which.
    pub fn doubted(&mut self, host: &str, service: Service, cause: &str, now: Instant) {
        let circuit = self.circuit(host, service);
        if circuit.open.is_none() {
            let (since, probed) = (now, None);
            let (cause, silence, doubted) = (cause.to_owned(), false, true);
            circuit.open =
                Some(Open { since, cause, silence, pause: FIRST_PROBE, probe: now, probed, doubted });
        }
    }

    /// Notes that `service` of `host` did not answer at all, which makes every other service of the same host
    /// suspect. The first time it may be slow: a probe shows that. One that is silent again before it has
    /// done its work has failed, although probes find it working.
    pub fn silent(&mut self, host: &str, service: Service, cause: &str, now: Instant) -> Option<Change> {
        let circuit = self.circuit(host, service);
        if circuit.open.is_some() {
            return None;
        }
        circuit.silences += 1;
        if circuit.silences > 1 {
            return self.failed(host, service, cause, true, now);
        }
        let pause = circuit.pause(now);
        let (cause, probe) = (cause.to_owned(), now + pause);
        circuit.open =
            Some(Open { since: now, cause, silence: true, pause, probe, probed: None, doubted: true });
        None
    }

    /// Returns whether `service` of `host` has failed, and whether the host is suspect: silent at any
    /// service, or for reading, without an answer from its KDC. Sorting by it puts the best first.
    ///
    /// The machine account asks the KDC before it connects. A dead host that has already cost it a wait there
    /// does not cost it another one.
    pub fn rank(&self, host: &str, service: Service) -> (bool, bool) {
        let open = |service| self.get(host, service).and_then(|circuit| circuit.open.as_ref());
        let silent = |service| open(service).is_some_and(|open| open.silence);
        let lacks_kdc = service == Service::Reading && open(Service::Kdc).is_some();
        (open(service).is_some(), lacks_kdc || Service::ALL.into_iter().any(silent))
    }

    /// Returns true if `service` of `host` failed and has not worked since.
    pub fn is_down(&self, host: &str, service: Service) -> bool {
        self.get(host, service).is_some_and(|circuit| circuit.open.is_some())
    }

    /// Returns true if the server behind `service` of `host` (LDAP or Kerberos) answered any request at or
    /// after `since`: then it is slow and not dead.
    pub fn answered_since(&self, host: &str, service: Service, since: Instant) -> bool {
        let alike: &[Service] = match service {
            Service::Binds | Service::Reading => &[Service::Binds, Service::Reading],
            Service::Kdc => &[Service::Kdc],
        };
        let answered = |service: &Service| self.get(host, *service).and_then(|circuit| circuit.answered);
        alike.iter().filter_map(answered).any(|answered| answered >= since)
    }

    /// Notes that a probe of `service` of `host`, which began at `begun`, failed. If the service has answered
    /// a login since then, it is slow and not dead: the probe proves nothing.
    pub fn probe_failed(
        &mut self,
        host: &str,
        service: Service,
        cause: &str,
        begun: Instant,
        now: Instant,
    ) -> Option<Change> {
        let circuit = self.circuit(host, service);
        let silence = circuit.open.as_ref().is_some_and(|open| open.silence);
        match circuit.answered.is_some_and(|answered| answered >= begun) {
            true => None,
            false => self.failed(host, service, cause, silence, now),
        }
    }

    /// Returns the services to probe at `now`; each is due again after twice the time.
    pub fn due(&mut self, now: Instant) -> Vec<(String, Service)> {
        let mut due = Vec::new();
        for (host, circuits) in &mut self.circuits {
            for (service, circuit) in Service::ALL.into_iter().zip(circuits) {
                if let Some(open) = circuit.open.as_mut().filter(|open| open.probe <= now) {
                    open.pause = (open.pause * 2).min(LAST_PROBE);
                    open.probe = now + open.pause;
                    open.probed = Some(now);
                    due.push((host.clone(), service));
                }
            }
        }
        due
    }

    /// Makes every failed `service` due for a probe at `now`, unless it was probed a moment ago.
    pub fn hurry(&mut self, service: Service, now: Instant) {
        for circuits in self.circuits.values_mut() {
            let circuit = circuits.get_mut(service as usize).and_then(|circuit| circuit.open.as_mut());
            if let Some(open) = circuit.filter(|open| open.probed.is_none_or(|at| at + FIRST_PROBE <= now)) {
                open.probe = now;
            }
        }
    }

    /// Returns the time of the next probe.
    pub fn next(&self) -> Option<Instant> {
        self.circuits.values().flatten().filter_map(|circuit| Some(circuit.open.as_ref()?.probe)).min()
    }

    /// Returns the state of `service` of `host`, if known.
    pub fn state(&self, host: &str, service: Service) -> Option<State> {
        let circuit = self.get(host, service)?;
        match &circuit.open {
            Some(open) if !open.doubted || circuit.answered.is_none() => {
                Some(State::Down(open.cause.clone()))
            }
            Some(_) | None => circuit.answered.map(|_| State::Up(None)),
        }
    }

    /// Returns the seconds since `service` of `host` last worked, and the seconds since it began to fail.
    pub fn ages(&self, host: &str, service: Service, now: Instant) -> (Option<u64>, Option<u64>) {
        let Some(circuit) = self.get(host, service) else { return (None, None) };
        let age = |at: Instant| now.saturating_duration_since(at).as_secs();
        (circuit.answered.map(age), circuit.open.as_ref().map(|open| age(open.since)))
    }

    /// Returns true if `service` of `host` is not known to fail and has not answered since `since`. One that
    /// is doubted is not known to fail, whenever it answered.
    pub fn is_quiet(&self, host: &str, service: Service, since: Instant) -> bool {
        self.get(host, service).is_none_or(|circuit| match &circuit.open {
            Some(open) => open.doubted,
            None => circuit.answered.is_none_or(|at| at < since),
        })
    }

    /// Returns how often `service` of `host` began to fail since this host was first seen.
    pub fn outages(&self, host: &str, service: Service) -> u64 {
        self.get(host, service).map_or(0, |circuit| circuit.outages)
    }

    /// Forgets every domain controller that `keep` rejects.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.circuits.retain(|host, _| keep(host));
    }

    fn get(&self, host: &str, service: Service) -> Option<&Circuit> {
        self.circuits.get(host)?.get(service as usize)
    }

    fn circuit(&mut self, host: &str, service: Service) -> &mut Circuit {
        let [binds, reading, kdc] = self.circuits.entry(host.to_owned()).or_default();
        match service {
            Service::Binds => binds,
            Service::Reading => reading,
            Service::Kdc => kdc,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const B: Service = Service::Binds;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once() {
        let (mut health, now) = (Health::default(), Instant::now());
        let later = now + Duration::from_secs(9);
        assert_eq!(health.answered("a", B, now), None, "nothing changed");
        let down = health.failed("a", B, "refused", false, now).unwrap();
        assert_eq!(down.state, State::Down("refused".into()));
        assert_eq!(health.failed("a", B, "silent", true, now), None);
        assert_eq!(health.state("a", B), Some(State::Down("silent".into())));
        let up = health.answered("a", B, later).unwrap();
        assert_eq!(up.state, State::Up(Some(Duration::from_secs(9))));
        assert_eq!(health.answered("a", B, later), None);
        assert_eq!((health.state("a", B), health.state("b", B)), (Some(State::Up(None)), None));
        assert_eq!((health.outages("a", B), health.outages("b", B)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_is_left_for_others_and_told_of_only_once_it_is_dead() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.answered("a", B, now);
        health.doubted("a", B, "slow", now);
        assert!(health.is_down("a", B) && health.rank("a", B) > health.rank("b", B));
        assert_eq!((health.state("a", B), health.outages("a", B)), (Some(State::Up(None)), 0));
        // A probe is due at once. If it passes, there was no outage.
        assert_eq!(health.due(now), [("a".to_owned(), B)]);
        assert_eq!(health.answered("a", B, now).map(|change| change.state), Some(State::Up(None)));
        assert_eq!(health.answered("a", B, now), None);
        assert!(!health.is_down("a", B));
        // A probe that fails is reported.
        health.doubted("a", B, "slow", now);
        health.doubted("a", B, "slow", now);
        let down = health.failed("a", B, "no answer in time", false, now).unwrap();
        assert_eq!((down.state, health.outages("a", B)), (State::Down("no answer in time".into()), 1));
        // A service that is known to be dead is not doubted.
        health.doubted("a", B, "slow", now);
        assert_eq!(health.state("a", B), Some(State::Down("no answer in time".into())));
        assert!(matches!(health.answered("a", B, now), Some(Change { state: State::Up(Some(_)), .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_accepts_connections_and_answers_no_bind_is_told_of_and_probed_ever_more_rarely() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let (mut told, mut gaps) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            told.extend(health.silent("a", B, "no answer to a bind in time", now));
            assert_eq!(health.silent("a", B, "no answer to a bind in time", now), None);
            assert!(health.rank("a", Service::Reading).1, "the host is suspect");
            let next = health.next().unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            told.extend(health.reached("a", B, now));
        }
        assert_eq!(gaps, [1, 2, 4, 8]);
        let down = told.iter().filter(|change| matches!(change.state, State::Down(_))).count();
        assert_eq!((down, health.outages("a", B)), (3, 3), "the first time it may have been slow: {told:?}");
        // One that answers binds in between is slow.
        for _ in 0..4 {
            now += STEADY;
            health.answered("a", B, now);
            assert_eq!(health.silent("a", B, "no connection in time", now), None);
        }
        assert_eq!(health.outages("a", B), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_late_while_logins_were_answered_proves_nothing() {
        let (mut health, begun) = (Health::default(), Instant::now());
        let [answered, ended] = [3, 5].map(|seconds| begun + Duration::from_secs(seconds));
        health.doubted("a", B, "slow", begun);
        health.answered("a", B, answered);
        assert_eq!(health.probe_failed("a", B, "no answer in time", begun, ended), None);
        assert!(!health.is_down("a", B));
        // Nothing has answered since the next probe began.
        let change = health.probe_failed("a", B, "no answer in time", ended, ended + LAST_PROBE);
        assert_eq!(change.map(|change| change.state), Some(State::Down("no answer in time".into())));
        // Another service of the same host is no proof for this one.
        health.answered("b", Service::Reading, answered);
        assert!(health.probe_failed("b", B, "no answer in time", begun, ended).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_ranks_last_and_what_is_suspected_before_it() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed("bad", B, "refused", false, now);
        health.failed("odd", Service::Kdc, "silent", true, now);
        health.failed("no-kdc", Service::Kdc, "refused", false, now);
        let mut hosts = ["bad", "odd", "no-kdc", "good"];
        hosts.sort_by_key(|host| health.rank(host, B));
        assert_eq!(hosts, ["no-kdc", "good", "odd", "bad"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_whose_kdc_was_silent_is_not_waited_for_again_by_the_machine_account() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.doubted("dead", Service::Kdc, "no answer in time", now);
        health.failed("no-ldap", Service::Reading, "refused", false, now);
        let order = |service| {
            let mut hosts = ["no-ldap", "dead", "good"];
            hosts.sort_by_key(|host| health.rank(host, service));
            hosts
        };
        assert_eq!(order(Service::Reading), ["good", "dead", "no-ldap"]);
        // A slow KDC says nothing about binds.
        assert_eq!(order(B), ["no-ldap", "dead", "good"]);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_come_ever_more_rarely_but_never_end() {
        let (mut health, begun) = (Health::default(), Instant::now());
        health.failed("a", B, "refused", false, begun);
        let mut gaps = Vec::new();
        let mut now = begun;
        for _ in 0..8 {
            let next = health.next().unwrap();
            assert_eq!(health.due(next - Duration::from_millis(1)), []);
            assert_eq!(health.due(next), [("a".to_owned(), B)]);
            gaps.push((next - now).as_secs());
            now = next;
            // A further failure changes nothing.
            health.failed("a", B, "refused", false, now);
        }
        assert_eq!(gaps, [1, 2, 4, 8, 10, 10, 10, 10]);
        health.answered("a", B, now);
        assert_eq!((health.next(), health.due(now + LAST_PROBE)), (None, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_seems_to_work_is_probed_ever_more_rarely_too() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut gaps = Vec::new();
        for _ in 0..7 {
            health.failed("a", B, "silent", true, now);
            let next = health.next().unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            health.answered("a", B, now);
        }
        assert_eq!(gaps, [1, 2, 4, 8, 10, 10, 10]);
        now += STEADY;
        health.failed("a", B, "silent", true, now);
        assert_eq!(health.next(), Some(now + FIRST_PROBE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_needed_is_probed_at_once_but_not_all_the_time() {
        let (mut health, begun) = (Health::default(), Instant::now());
        let a = || vec![("a".to_owned(), B)];
        health.failed("a", B, "refused", false, begun);
        health.failed("b", Service::Kdc, "refused", false, begun);
        health.hurry(B, begun);
        assert_eq!(health.due(begun), a());
        let soon = begun + FIRST_PROBE / 2;
        health.hurry(B, soon);
        assert_eq!(health.due(soon), []);
        let later = begun + FIRST_PROBE;
        health.hurry(B, later);
        assert!(health.due(later).contains(&a()[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_answered_for_a_while_is_quiet_and_its_age_is_known() {
        let (mut health, begun) = (Health::default(), Instant::now());
        let later = begun + Duration::from_secs(12);
        assert!(health.is_quiet("a", B, begun));
        assert_eq!(health.ages("a", B, begun), (None, None));
        health.answered("a", B, begun);
        assert!(!health.is_quiet("a", B, begun));
        assert!(health.is_quiet("a", B, later));
        assert_eq!(health.ages("a", B, later), (Some(12), None));
        health.failed("a", B, "refused", false, later);
        assert!(!health.is_quiet("a", B, later), "its probes are under way");
        assert_eq!(health.ages("a", B, later + Duration::from_secs(3)), (Some(15), Some(3)));
        // Whether a doubted one works is not known, so a look asks it itself.
        health.answered("b", B, later);
        health.doubted("b", B, "it did not answer before the broker started", later);
        assert!(health.is_quiet("b", B, later) && health.is_quiet("b", B, begun));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_is_not_dead() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.answered_since("a", B, now));
        health.answered("a", Service::Reading, now);
        assert!(health.answered_since("a", B, now));
        assert!(!health.answered_since("a", B, now + Duration::from_millis(1)));
        assert!(!health.answered_since("a", Service::Kdc, now), "another program answers there");
        health.answered("a", Service::Kdc, now);
        assert!(health.answered_since("a", Service::Kdc, now));
        health.failed("b", B, "refused", false, now);
        health.retain(|host| host == "a");
        assert_eq!(health.state("b", B), None);
    }

    /// What happens, and how many milliseconds later.
    fn history() -> impl Strategy<Value = Vec<(u64, u8, usize, usize)>> {
        let pause = prop_oneof![0_u64..2000, Just(10_000), Just(60_000)];
        prop::collection::vec((pause, 0_u8..6, 0_usize..3, 0_usize..3), 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_the_working_come_first_and_the_others_are_probed(history in history()) {
            const HOSTS: [&str; 3] = ["a", "b", "c"];
            let (mut health, mut now) = (Health::default(), Instant::now());
            for (pause, kind, host, service) in history {
                now += Duration::from_millis(pause);
                let (host, service) = (HOSTS[host], Service::ALL[service]);
                match kind {
                    0 => {
                        let was_down = health.is_down(host, service);
                        let change = health.answered(host, service, now);
                        prop_assert!(change.is_none() || was_down);
                        prop_assert!(!health.is_down(host, service));
                        prop_assert!(health.answered_since(host, service, now));
                    }
                    1 => drop(health.failed(host, service, "refused", false, now)),
                    2 => {
                        health.failed(host, service, "silent", true, now);
                        // Every service of a silent host is suspect.
                        prop_assert!(Service::ALL.iter().all(|other| health.rank(host, *other).1));
                    }
                    3 => health.doubted(host, service, "slow", now),
                    4 => health.hurry(service, now),
                    _ => {
                        for (host, service) in health.due(now) {
                            prop_assert!(health.is_down(&host, service));
                        }
                        prop_assert_eq!(health.due(now), []);
                    }
                }
                for service in Service::ALL {
                    let mut order = HOSTS;
                    order.sort_by_key(|host| health.rank(host, service));
                    prop_assert!(order.is_sorted_by_key(|host| health.is_down(host, service)));
                }
                // None that failed waits longer than the longest pause, and none that works is probed.
                let is_down = |host: &&str| Service::ALL.iter().any(|service| health.is_down(host, *service));
                prop_assert_eq!(health.next().is_some(), HOSTS.iter().any(is_down));
                prop_assert!(health.next().is_none_or(|next| next <= now + LAST_PROBE));
            }
        }
    }
}
