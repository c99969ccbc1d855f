//! The protocol as it is keeps every promise.

use std::num::NonZeroUsize;

use motion_ad_model::register::Bookmark;
use motion_ad_model::rule::Admission;
use motion_ad_model::world::{Failover, Faults, Scenario};

use crate::{explore, is_large};

fn limit(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

/// Returns the scenarios, which differ in what goes wrong.
pub fn all() -> Vec<Scenario> {
    let mut all = without_faults();
    all.extend(with_lost_calls());
    all.extend(with_kills());
    all.extend(with_failovers());
    all
}

/// The user logs in so often, on both servers.
fn logins(number: usize) -> Vec<usize> {
    (0..number + usize::from(is_large())).map(|login| login % 2).collect()
}

/// Returns the number of servers with a command in the scenarios that have the most states.
fn followers() -> usize {
    1 + usize::from(is_large())
}

fn deny() -> Scenario {
    let admission = Admission::Deny(limit(1));
    Scenario { admission, logouts: true, ..Scenario::new("", &logins(2)) }
}

fn without_faults() -> Vec<Scenario> {
    let replace = |name| Scenario { logouts: true, ..Scenario::new(name, &logins(3)) };
    vec![
        Scenario { kicks: 1, ..replace("replace") },
        Scenario { admission: Admission::Replace(limit(2)), ..replace("replace-two") },
        Scenario { admission: Admission::Unlimited, kicks: 1, ..replace("unlimited") },
        Scenario { deaths: true, ..Scenario::new("processes-end", &logins(3)) },
        Scenario { name: "deny", logins: logins(3), deaths: true, ..deny() },
    ]
}

fn with_lost_calls() -> Vec<Scenario> {
    let faults = Faults { lost_calls: 2, departures: 1, ..Faults::default() };
    let replace = |name| Scenario { faults, ..Scenario::new(name, &logins(2)) };
    let once = Faults { lost_calls: 1, ..faults };
    let followers = followers();
    vec![
        Scenario { logouts: true, ..replace("replace-lost-calls") },
        Scenario { name: "deny-lost-calls", faults, ..deny() },
        Scenario {
            faults: once,
            failover: Failover::Crash,
            followers,
            ..replace("replace-lost-calls-failover")
        },
        Scenario { allow: true, faults: once, failover: Failover::Crash, followers, ..replace("allow") },
    ]
}

fn with_kills() -> Vec<Scenario> {
    let faults = Faults { kills: 1 + u8::from(is_large()), ..Faults::default() };
    let kills = |name, number| Scenario { faults, ..Scenario::new(name, &logins(number)) };
    let lost = Faults { lost_calls: 1, ..faults };
    vec![
        kills("kills", 3),
        Scenario { kicks: 1, deaths: true, ..kills("kills-kick", 2) },
        Scenario { keep: 1, ..kills("kills-few-events-kept", 3) },
        Scenario { faults: lost, ..kills("kills-lost-calls", 2) },
        Scenario { name: "deny-kills", faults: lost, deaths: true, ..deny() },
        Scenario { bookmark: Bookmark::NoCommand, ..kills("kills-first-command", 2) },
    ]
}

fn with_failovers() -> Vec<Scenario> {
    let kill = Faults { kills: 1, ..Faults::default() };
    let followers = followers();
    let crash = |name, number| Scenario { failover: Failover::Crash, ..Scenario::new(name, &logins(number)) };
    let cut = |name, min_replicas| {
        let failover = Failover::Isolation { min_replicas };
        Scenario { failover, listens: is_large(), ..Scenario::new(name, &logins(2)) }
    };
    vec![
        Scenario { followers, ..crash("failover", 3) },
        Scenario { logouts: true, listens: true, ..crash("failover-noticed", 2) },
        Scenario { faults: kill, ..crash("failover-kill", 2) },
        Scenario { faults: kill, bookmark: Bookmark::Absent, followers, ..crash("failover-first-start", 2) },
        Scenario { bookmark: Bookmark::NoCommand, followers, ..crash("failover-first-command", 2) },
        Scenario {
            faults: kill,
            bookmark: Bookmark::NoCommand,
            followers,
            ..crash("failover-kill-first-command", 2)
        },
        Scenario { failover: Failover::Crash, name: "deny-failover", deaths: true, followers, ..deny() },
        cut("cut-off-with-min-replicas", true),
        cut("cut-off", false),
        Scenario { faults: Faults { wipes: 1, ..kill }, followers, ..Scenario::new("wiped", &logins(2)) },
        Scenario {
            faults: Faults { wipes: 1, ..Faults::default() },
            listens: true,
            logouts: true,
            ..Scenario::new("wiped-noticed", &logins(2))
        },
    ]
}

#[test]
fn every_promise_is_kept_in_every_state() {
    let (mut states, mut seconds, mut broken) = (0, 0.0, Vec::new());
    let only = std::env::var("MODEL").unwrap_or_default();
    for scenario in all().into_iter().filter(|scenario| scenario.name.contains(&only)) {
        let explored = explore(&scenario, None);
        println!(
            "{:28} {:>9} states, depth {:>2}, {:>6.2} s {}",
            scenario.name,
            explored.states,
            explored.depth,
            explored.seconds,
            explored
                .broken
                .iter()
                .map(|(p, h)| format!("{p}: {}", h.lines().next().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join("; ")
        );
        states += explored.states;
        seconds += explored.seconds;
        broken.extend(
            explored
                .broken
                .into_iter()
                .map(|(promise, how)| format!("{}: {promise}, after {how}", scenario.name)),
        );
    }
    println!("{:28} {states:>9} states, {:>18.2} s", "all", seconds);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
