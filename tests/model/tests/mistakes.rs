//! No step of the protocol is there in vain: a variant without it breaks a promise.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use motion_ad_model::promises::{FREE, GONE, LIMIT, ONE_MASTER, REGISTERED, REJECTED, REPORTED, TOLD};
use motion_ad_model::register::Bookmark;
use motion_ad_model::rule::Admission;
use motion_ad_model::world::{Failover, Faults, Scenario};
use motion_ad_model::wrong::Wrong;

use crate::explore;

/// Returns every mistake with the promise that it breaks, and a scenario in which it does.
fn all() -> Vec<(Wrong, &'static str, Scenario)> {
    let none = Faults::default();
    let plain = || Scenario::new("plain", &[0, 1]);
    let deny = || Scenario { admission: Admission::Deny(NonZeroUsize::MIN), logouts: true, ..plain() };
    let kill = || Scenario { faults: Faults { kills: 1, ..none }, ..plain() };
    let lost = || Scenario { faults: Faults { lost_calls: 2, ..none }, ..plain() };
    let departing = || Scenario { faults: Faults { departures: 1, ..none }, ..deny() };
    let crash = |scenario| Scenario { failover: Failover::Crash, ..scenario };
    let few = |keep, scenario| Scenario { keep, ..scenario };
    let three = |scenario| Scenario { logins: vec![0, 1, 1], ..scenario };
    vec![
        (Wrong::CountsFirst, LIMIT, plain()),
        (Wrong::AllowsOneMore, LIMIT, plain()),
        (Wrong::EndsSilently, TOLD, plain()),
        (Wrong::MarksTooEarly, TOLD, kill()),
        (Wrong::NumbersOnly, TOLD, crash(Scenario { logouts: true, followers: 1, ..three(plain()) })),
        (Wrong::HidesGaps, TOLD, few(1, three(kill()))),
        (Wrong::SkipsAfterGap, TOLD, few(2, kill())),
        (Wrong::OpensBeforeBookmark, TOLD, Scenario { bookmark: Bookmark::NoCommand, ..kill() }),
        (Wrong::StartsAtNewest, TOLD, Scenario { bookmark: Bookmark::Absent, ..crash(kill()) }),
        (Wrong::ForgetsItsBookmark, TOLD, Scenario { bookmark: Bookmark::NoCommand, ..crash(plain()) }),
        (Wrong::NeverSweeps, GONE, Scenario { deaths: true, ..plain() }),
        (Wrong::ForgetsTheLost, REJECTED, lost()),
        (Wrong::TrustsTheLastError, REJECTED, lost()),
        (Wrong::TrustsTheDenial, FREE, Scenario { faults: lost().faults, ..deny() }),
        (Wrong::UndoesOpenOnly, REJECTED, lost()),
        (Wrong::OpensAgain, REJECTED, lost()),
        (Wrong::ForgetsTheCut, FREE, departing()),
        (Wrong::ForgetsTheUnread, FREE, departing()),
        (Wrong::ForgetsLogouts, FREE, crash(deny())),
        (Wrong::GrantsOnFailure, REGISTERED, lost()),
        (Wrong::NeverCompares, REPORTED, crash(Scenario { listens: true, ..plain() })),
        (
            Wrong::PromotesEarly,
            ONE_MASTER,
            Scenario { failover: Failover::Isolation { min_replicas: true }, ..plain() },
        ),
    ]
}

#[test]
fn a_protocol_without_one_of_its_steps_breaks_a_promise() {
    let (mut explored, mut unbroken) = (BTreeSet::new(), Vec::new());
    for (wrong, promise, scenario) in all() {
        if explored.insert(format!("{scenario:?}")) {
            let right = explore(&scenario, None);
            assert!(right.broken.is_empty(), "without {wrong:?}: {:?}", right.broken);
            println!("{:60} {:>9} states, {:>6.2} s", "the right code", right.states, right.seconds);
        }
        let broken = explore(&Scenario { wrong: Some(wrong), ..scenario }, Some(promise)).broken;
        match broken.iter().find(|(broken, _)| *broken == promise) {
            Some((_, how)) => println!("{wrong:?}: {promise}, after {}", how.lines().next().unwrap()),
            None => unbroken.push(format!("{wrong:?} does not break {promise:?}: {broken:?}")),
        }
    }
    assert!(unbroken.is_empty(), "{}", unbroken.join("\n"));
}
