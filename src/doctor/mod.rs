//! `motion-ad doctor`: everything that stands between the application and AD, looked at one by one.
//!
//! [`CHECKS`] is the table of checks, from which the help, the manual and the tests are made too. Each is a function
//! that returns a finding, and all run beside each other; one that depends on another waits for it, and is skipped
//! where that one failed, so that the first failure is the cause.
//!
//! It works when the broker does not: it reads the same files and asks the same domain controllers with the same
//! parts, in its own process. No password of anybody is needed. Of AD it asks what the broker asks, with the machine's
//! own key, and that once: a wrong key counts at the KDC as a wrong password.
//!
//! | File | Subject |
//! |---|---|
//! | `table.rs` | every check: its name, what it is about, what it depends on |
//! | `finding.rs` | what a check finds |
//! | `facts.rs` | what several checks look at, found out once |
//! | `command.rs` | programs of the system that are asked |
//! | `fix.rs` | what can be done about it, as data |
//! | `edit.rs`, `repair.rs` | a change of one of our files; of the PAM service, pure |
//! | `commands.rs` | every command for a person |
//! | `near.rs` | what was meant by a name that AD does not know |
//! | `visitors.rs` | who is let in by a PAM service; pure |
//! | `stack.rs` | a PAM service as libpam reads it; pure |
//! | `application.rs` | what is done as the application's user: loading the module, one login through PAM |
//! | the others | the checks, a file for each subject |

pub mod application;
mod bridge;
mod broker;
pub mod child;
mod command;
mod commands;
mod configuration;
mod controllers;
mod edit;
mod facts;
mod finding;
mod fix;
mod join;
mod login;
mod machine;
mod module;
mod near;
mod network;
mod objects;
mod pam;
mod repair;
mod sessions;
pub mod stack;
mod table;
mod visitors;
mod xcally;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

#[cfg(test)]
pub(crate) use commands::{REGISTER_SAMBA, REGISTER_WINDOWS};
pub use edit::Edit;
pub use facts::{Facts, Login, Options};
pub use finding::{Finding, Level, Part};
pub use fix::{Fix, Place, Run, Shown, diff, unified};
#[cfg(test)]
pub(crate) use fix::{Unit, Verb};
pub use table::{CHECKS, Check, Group};

/// All checks but the login that was asked for. Each step has a bound of its own below it; with a domain controller
/// that is dead the whole takes some four seconds.
const WHOLE: Duration = Duration::from_secs(8);
/// On top of it, for a step that does not keep its bound.
const GRACE: Duration = Duration::from_secs(1);

/// Runs every check, and the login where one is asked for; the findings come in the order of the table.
pub async fn examine(options: Options) -> Vec<(&'static Check, Finding)> {
    let facts = Arc::new(Facts::new(options, Instant::now() + WHOLE));
    let wanted = |check: &&Check| !check.on_demand || facts.login().is_some();
    let chosen: Vec<&'static Check> = CHECKS.iter().filter(wanted).collect();
    let slots: Arc<[Slot]> = chosen.iter().map(|check| (*check, watch::Sender::new(None))).collect();
    let mut running = JoinSet::new();
    for index in 0..slots.len() {
        running.spawn(settle(slots.clone(), index, facts.clone()));
    }
    running.join_all().await;
    let missing = || Finding::failure("the check ended without a finding");
    slots.iter().map(|(check, slot)| (*check, slot.borrow().clone().unwrap_or_else(missing))).collect()
}

/// A check, and its finding once it is there.
type Slot = (&'static Check, watch::Sender<Option<Finding>>);

/// Runs one check when those that it needs are done.
async fn settle(slots: Arc<[Slot]>, index: usize, facts: Arc<Facts>) {
    let Some((check, slot)) = slots.get(index) else { return };
    let mut obstacle = None;
    for (needed, other) in slots.iter().filter(|(other, _)| check.needs(other)) {
        let mut receiver = other.subscribe();
        if let Ok(found) = receiver.wait_for(Option::is_some).await
            && let Some(found) = found.as_ref()
        {
            obstacle = obstacle.or_else(|| check.hindrance(needed.id, found));
        }
    }
    let finding = match obstacle {
        Some(finding) => finding,
        None => look(check, facts).await,
    };
    slot.send_replace(Some(finding));
}

/// Looks, on a task of its own, so that a check that panics takes no other with it.
async fn look(check: &'static Check, facts: Arc<Facts>) -> Finding {
    let bound = if check.on_demand { Duration::MAX } else { left(&facts) + GRACE };
    match tokio::spawn(async move { timeout(bound, (check.run)(&facts)).await }).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(_)) => Finding::failure(format!("no answer within {} seconds", WHOLE.as_secs())),
        Err(_) => Finding::failure("the check itself failed"),
    }
}

fn left(facts: &Facts) -> Duration {
    facts.deadline().saturating_duration_since(Instant::now())
}
