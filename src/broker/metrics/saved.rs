//! The counters for the next broker, stored by name, so that another version understands them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::observed::Observed;
use super::{Event, METHODS, Metrics, Refused};

/// The counters of a broker that restarts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// By event and outcome.
    decided: BTreeMap<String, BTreeMap<String, u64>>,
    refused: BTreeMap<String, u64>,
    /// By outcome.
    #[serde(default)]
    observed: BTreeMap<String, u64>,
    #[serde(default)]
    observing: Option<Observed>,
    /// By method: the counts of each bucket, and the sum in microseconds.
    logins: BTreeMap<String, (Vec<u64>, u64)>,
}

impl Metrics {
    /// Returns the present counters.
    pub fn saved(&self) -> Saved {
        let decided = Event::ALL.into_iter().map(|event| {
            let counts = self.outcomes(event).filter(|(_, count)| *count > 0);
            let counts = counts.map(|(outcome, count)| (outcome.name().to_owned(), count)).collect();
            (event.name().to_owned(), counts)
        });
        let logins = METHODS.iter().zip(&self.logins).map(|(method, times)| {
            let buckets = times.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            (name(*method), (buckets, times.micros.load(Ordering::Relaxed)))
        });
        let refused = Refused::ALL.into_iter().map(|why| (why.name().to_owned(), self.refusals(why)));
        let observed = self.observed_outcomes().filter(|(_, count)| *count > 0);
        let observed = observed.map(|(outcome, count)| (outcome.name().to_owned(), count));
        Saved {
            decided: decided.collect(),
            refused: refused.collect(),
            observed: observed.collect(),
            observing: self.observing.lock().clone(),
            logins: logins.collect(),
        }
    }

    /// Creates counters that continue from `saved`.
    pub fn restored(saved: &Saved) -> Self {
        let metrics = Metrics::default();
        for (event, row) in Event::ALL.into_iter().zip(&metrics.decided) {
            let Some(counts) = saved.decided.get(event.name()) else { continue };
            for (outcome, count) in crate::verdict::Outcome::ALL.iter().zip(row) {
                count.store(counts.get(outcome.name()).copied().unwrap_or_default(), Ordering::Relaxed);
            }
        }
        for (why, count) in Refused::ALL.into_iter().zip(&metrics.refused) {
            count.store(saved.refused.get(why.name()).copied().unwrap_or_default(), Ordering::Relaxed);
        }
        for (outcome, count) in crate::verdict::Outcome::ALL.iter().zip(&metrics.observed) {
            count.store(saved.observed.get(outcome.name()).copied().unwrap_or_default(), Ordering::Relaxed);
        }
        metrics.observing.lock().clone_from(&saved.observing);
        for (method, times) in METHODS.iter().zip(&metrics.logins) {
            // Buckets of another version with other bounds are dropped.
            let Some((counts, micros)) = saved.logins.get(&name(*method)) else { continue };
            if counts.len() == times.buckets.len() {
                times.buckets.iter().zip(counts).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
                times.micros.store(*micros, Ordering::Relaxed);
            }
        }
        metrics
    }
}

fn name(method: Option<super::Method>) -> String {
    method.map_or_else(|| "none".to_owned(), |method| method.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Method;
    use super::*;
    use crate::verdict::Outcome;

    #[test]
    fn the_next_broker_counts_on() {
        let metrics = Metrics::default();
        metrics.decided(Event::Login, Outcome::Success, Some(Method::Ldap), Duration::from_millis(4));
        metrics.decided(Event::SessionClose, Outcome::Success, None, Duration::ZERO);
        metrics.refused(Refused::Stranger);
        let saved: Saved = serde_json::from_slice(&serde_json::to_vec(&metrics.saved()).unwrap()).unwrap();
        let next = Metrics::restored(&saved);
        assert_eq!(next.saved(), metrics.saved());
        next.decided(Event::Login, Outcome::Success, Some(Method::Ldap), Duration::from_millis(4));
        assert_eq!(
            next.outcomes(Event::Login).find(|(outcome, _)| *outcome == Outcome::Success),
            Some((Outcome::Success, 2))
        );
        assert_eq!(next.refusals(Refused::Stranger), 1);
        assert_eq!(Metrics::restored(&Saved::default()).saved(), Metrics::default().saved());
    }
}
