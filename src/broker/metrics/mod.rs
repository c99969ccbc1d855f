//! The broker's counters, in OpenMetrics 1.0 over a separate socket.
//!
//! Counting costs a login a few atomic additions; everything else is read at a scrape. No counter is per
//! user: the labels are outcomes, domain controllers and the like, of which there are few.

mod collect;
mod families;
pub mod http;
mod observed;
mod saved;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

pub use self::families::{Family, Kind};
use self::observed::Observed;
pub use self::saved::Saved;
use crate::checked::Method;
use crate::verdict::Outcome;

/// Upper bounds of the durations of logins, in milliseconds. A bind on an open connection takes a few; the
/// broker leaves a domain controller after 800, and the module waits for 5000 by default.
const BOUNDS: [u32; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// A request with a decision, counted by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A login with a password.
    Login,
    /// A login of a user who was authenticated elsewhere.
    Account,
    /// A check of the present password, ahead of its change.
    PasswordProbe,
    /// A change of a password.
    PasswordChange,
    /// A new session.
    SessionOpen,
    /// The end of a session by its application.
    SessionClose,
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 6] = [
        Event::Login,
        Event::Account,
        Event::PasswordProbe,
        Event::PasswordChange,
        Event::SessionOpen,
        Event::SessionClose,
    ];

    /// Returns its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Event::Login => "login",
            Event::Account => "account",
            Event::PasswordProbe => "password_probe",
            Event::PasswordChange => "password",
            Event::SessionOpen => "session_open",
            Event::SessionClose => "session_close",
        }
    }

    fn family(self) -> Family {
        match self {
            Event::Login => Family::Logins,
            Event::Account => Family::AccountChecks,
            Event::PasswordProbe => Family::PasswordProbes,
            Event::PasswordChange => Family::PasswordChanges,
            Event::SessionOpen => Family::SessionOpens,
            Event::SessionClose => Family::SessionCloses,
        }
    }
}

/// The reason why a request was not processed, or its answer lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The peer is neither root nor in `broker.users`.
    Stranger,
    /// The frame was no request of this version.
    Malformed,
    /// The request was read only after its deadline.
    Overloaded,
    /// The peer did not receive the answer.
    Unanswered,
}

impl Refused {
    const ALL: [Refused; 4] =
        [Refused::Stranger, Refused::Malformed, Refused::Overloaded, Refused::Unanswered];

    fn name(self) -> &'static str {
        match self {
            Refused::Stranger => "stranger",
            Refused::Malformed => "malformed",
            Refused::Overloaded => "overloaded",
            Refused::Unanswered => "unanswered",
        }
    }
}

/// The methods by which the durations of logins are counted.
const METHODS: [Option<Method>; 3] = [Some(Method::Ldap), Some(Method::Kerberos), None];

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    decided: [[AtomicU64; Outcome::ALL.len()]; Event::ALL.len()],
    /// Logins and account checks that were only observed, by outcome.
    observed: [AtomicU64; Outcome::ALL.len()],
    observing: Mutex<Option<Observed>>,
    logins: [Times; METHODS.len()],
    refused: [AtomicU64; Refused::ALL.len()],
    started: SystemTime,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            decided: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            observed: std::array::from_fn(|_| AtomicU64::new(0)),
            observing: Mutex::default(),
            logins: std::array::from_fn(|_| Times::default()),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            started: SystemTime::now(),
        }
    }
}

impl Metrics {
    /// Counts the decision about `event`, by `method`, and the time that it `took`.
    pub fn decided(&self, event: Event, outcome: Outcome, method: Option<Method>, took: Duration) {
        let row = self.decided.get(event as usize).and_then(|row| row.get(outcome as usize));
        if let Some(count) = row {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let place = METHODS.iter().position(|known| *known == method);
        if let Some(times) = place.and_then(|place| self.logins.get(place)).filter(|_| event == Event::Login)
        {
            times.add(took);
        }
    }

    /// Counts a request that was rejected, for the reason `why`.
    pub fn refused(&self, why: Refused) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refusals(&self, why: Refused) -> u64 {
        self.refused.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Returns the number of `event`s for each outcome.
    pub fn outcomes(&self, event: Event) -> impl Iterator<Item = (Outcome, u64)> {
        let counts = self.decided.get(event as usize).into_iter().flatten();
        Outcome::ALL.iter().copied().zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Durations, counted in buckets.
#[derive(Debug, Default)]
struct Times {
    /// Counts of durations up to each bound and above the one before; the last is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Times {
    fn add(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_millis((*bound).into()) < took);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the histogram, in seconds. Its count is the sum of the buckets, so that the two agree while
    /// others are counted.
    fn histogram(&self) -> families::Histogram {
        let bounds = BOUNDS.iter().map(|bound| f64::from(*bound) / 1000.0).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let sum = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        families::Histogram { sum, buckets: bounds.zip(counts).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_its_own() {
        for (place, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(place, event as usize);
        }
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(place, *outcome as usize);
        }
        for (place, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize);
        }
    }

    #[test]
    fn logins_are_counted_by_outcome_and_nothing_else_is_timed() {
        let (metrics, took) = (Metrics::default(), Duration::from_millis(4));
        metrics.decided(Event::Login, Outcome::Success, Some(Method::Ldap), took);
        metrics.decided(Event::Login, Outcome::Success, Some(Method::Ldap), took);
        metrics.decided(Event::Login, Outcome::LockedOut, Some(Method::Kerberos), took);
        metrics.decided(Event::Login, Outcome::Unmapped, None, took);
        metrics.decided(Event::PasswordChange, Outcome::Success, Some(Method::Ldap), took);
        let counted: Vec<_> = metrics.outcomes(Event::Login).filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Outcome::Success, 2), (Outcome::Unmapped, 1), (Outcome::LockedOut, 1)]);
        let timed = metrics.logins.each_ref().map(|times| times.histogram().count());
        assert_eq!(timed, [2, 1, 1]);
    }

    #[test]
    fn a_time_on_the_bound_is_below_it_and_none_is_lost() {
        let times = Times::default();
        for micros in [0, 1000, 1001, 10_000_000, 10_000_001, u64::MAX / 2000] {
            times.add(Duration::from_micros(micros));
        }
        let histogram = times.histogram();
        assert_eq!(histogram.count(), 6);
        let filled: Vec<_> = histogram.buckets.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [&(0.001, 2), &(0.002, 1), &(10.0, 1), &(f64::INFINITY, 2)]);
    }
}
