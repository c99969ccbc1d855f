//! Logins that were only observed (the module's argument `observe`): how many, and since when.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Metrics;
use crate::login::local_time::local;
use crate::protocol::report;
use crate::verdict::Outcome;

/// Time after the last observed login for which `status` and `ready` report it.
const REPORTED: Duration = Duration::from_secs(86400);

/// The observed logins without a pause of [`REPORTED`], by times in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Observed {
    since: u64,
    last: u64,
    logins: u64,
}

impl Observed {
    fn is_recent(&self, now: u64) -> bool {
        now.saturating_sub(self.last) < REPORTED.as_secs()
    }
}

impl Metrics {
    /// Counts a login or an account check that was only observed.
    pub fn observed(&self, outcome: Outcome, now: SystemTime) {
        if let Some(count) = self.observed.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let now = seconds(now);
        let mut observing = self.observing.lock();
        let before = observing.take().filter(|before| before.is_recent(now));
        let before = before.unwrap_or(Observed { since: now, last: now, logins: 0 });
        *observing = Some(Observed { last: now, logins: before.logins.saturating_add(1), ..before });
    }

    /// Returns the number of observed logins and account checks for each outcome.
    pub fn observed_outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let counts = self.observed.iter().map(|count| count.load(Ordering::Relaxed));
        Outcome::ALL.iter().copied().zip(counts)
    }

    /// Returns the report about observed logins, if the last one was within a day.
    pub fn observing(&self, now: SystemTime) -> Option<report::Observed> {
        let observing = self.observing.lock().clone();
        let Observed { since, last, logins } = observing.filter(|seen| seen.is_recent(seconds(now)))?;
        let at = |time: u64| local(UNIX_EPOCH + Duration::from_secs(time), now);
        let several = match logins {
            1 => "1 login was".to_owned(),
            count => format!("{count} logins were"),
        };
        let text = format!(
            "{several} only observed since {}, the last one at {}: another module decides (argument observe)",
            at(since),
            at(last)
        );
        Some(report::Observed { logins, since, last, text })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observed_logins_are_counted_since_the_first_one_until_a_day_without_any() {
        let (metrics, hour) = (Metrics::default(), Duration::from_secs(3600));
        let start = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        assert_eq!(metrics.observing(start), None);
        metrics.observed(Outcome::Success, start);
        let of = |now| metrics.observing(now).map(|seen| (seen.logins, seen.since, seen.last));
        let first = seconds(start);
        assert_eq!(of(start + hour), Some((1, first, first)));
        assert!(metrics.observing(start).unwrap().text.starts_with("1 login was only observed since "));
        metrics.observed(Outcome::Disabled, start + 23 * hour);
        assert_eq!(of(start + 46 * hour), Some((2, first, seconds(start + 23 * hour))));
        assert_eq!(of(start + 47 * hour), None);
        // A new period, while the counters go on.
        metrics.observed(Outcome::Success, start + 48 * hour);
        let again = seconds(start + 48 * hour);
        assert_eq!(of(start + 48 * hour), Some((1, again, again)));
        let counted: Vec<_> = metrics.observed_outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Outcome::Success, 2), (Outcome::Disabled, 1)]);
        let restored = Metrics::restored(&metrics.saved());
        assert_eq!(restored.observing(start + 48 * hour), metrics.observing(start + 48 * hour));
        assert!(restored.observed_outcomes().eq(metrics.observed_outcomes()));
    }
}
