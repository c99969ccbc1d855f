//! Explores the scenarios: the protocol keeps its promises, and no wrong variant of it does.
//!
//! `MODEL_BOUNDS=large` explores more logins and more faults (`make model`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mistakes;
mod scenarios;

use std::time::Instant;

use motion_ad_model::world::Scenario;
use stateright::{Checker, HasDiscoveries, Model};

/// True if the larger bounds are explored.
fn is_large() -> bool {
    std::env::var("MODEL_BOUNDS").is_ok_and(|bounds| bounds == "large")
}

/// Explores every state of `scenario`, or those until a promise is broken: `wanted`, else any.
fn explore(scenario: &Scenario, wanted: Option<&'static str>) -> Explored {
    let begun = Instant::now();
    let found = wanted.map_or(HasDiscoveries::AnyFailures, |promise| HasDiscoveries::AnyOf([promise].into()));
    let checker = scenario.clone().checker().threads(2).finish_when(found);
    let checker = checker.spawn_bfs().join();
    let broken = checker.discoveries().into_iter().map(|(promise, path)| {
        let steps: Vec<_> = path.clone().into_actions().iter().map(|step| format!("{step:?}")).collect();
        (promise, format!("{}\n{:#?}", steps.join(", "), path.last_state()))
    });
    let broken = broken.collect();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    Explored { broken, states, depth, seconds: begun.elapsed().as_secs_f64() }
}

/// Result of an exploration.
struct Explored {
    /// The broken promises, each with the steps that lead there and the state at their end.
    broken: Vec<(&'static str, String)>,
    states: usize,
    depth: usize,
    seconds: f64,
}
