//! `motion-ad doctor`: checks everything between the application and AD, one thing at a time.
//!
//! [`CHECKS`] is the table of checks; the help, the manual and the tests are generated from it. A check is a
//! function that returns a finding. All checks run concurrently. A check that depends on another one waits
//! for it, and is skipped if that one failed, so that the first failure is the cause.
//!
//! The doctor works without the broker: it reads the same files and queries the same domain controllers with
//! the same code, in its own process. It needs no user's password. It queries AD as the broker does, with the
//! machine's own key. That key is tried only once, because a wrong key counts at the KDC as a wrong password.
//!
//! | File | Subject |
//! |---|---|
//! | `table.rs` | every check: its name, its subject, its dependencies |
//! | `finding.rs` | the result of a check |
//! | `facts.rs` | facts that several checks need, gathered once |
//! | `command.rs` | calls of system programs |
//! | `fix.rs` | the fixes of a finding, as data |
//! | `edit.rs`, `repair.rs` | a change of one of our files; of the PAM service, pure |
//! | `commands.rs` | every command that an administrator runs |
//! | `evidence.rs` | what the checks have seen of the network, for `--bundle` |
//! | `near.rs` | names in AD that resemble one that AD does not know |
//! | `visitors.rs` | users that a PAM service admits; pure |
//! | `stack.rs` | a PAM service as libpam reads it; pure |
//! | `application.rs` | steps that run as the application's user: loading the module, one login |
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
mod evidence;
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
mod observe;
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

pub use commands::Place;
#[cfg(test)]
pub(crate) use commands::{REGISTER_SAMBA, REGISTER_WINDOWS};
pub use edit::Edit;
pub use facts::{Facts, Login, Options, Way};
pub use finding::{Finding, Level, Part};
pub use fix::{Fix, Run, Shown, diff, unified};
#[cfg(test)]
pub(crate) use fix::{Unit, Verb};
pub use table::{CHECKS, Check, Group};

/// Time limit of all checks together, the requested login excepted. Each step has a shorter limit; with a
/// dead domain controller, all checks together take about four seconds.
const WHOLE: Duration = Duration::from_secs(8);
/// Added to [`WHOLE`] for a step that exceeds its own limit.
const GRACE: Duration = Duration::from_secs(1);

/// The findings, in the order of the table.
pub type Findings = Vec<(&'static Check, Finding)>;

/// Runs every check, and the login if one is requested.
pub async fn examine(options: Options) -> Findings {
    run(Arc::new(Facts::new(options, Instant::now() + WHOLE))).await
}

/// What a support case needs to know, apart from files.
pub struct Evidence {
    /// The findings of all checks.
    pub found: Findings,
    /// The answers of DNS about the domain.
    pub dns: String,
    /// The certificates of the domain controllers, and the trusted roots.
    pub certificates: String,
}

/// Runs every check, and describes what the checks have seen of the network.
pub async fn gather(options: Options) -> Evidence {
    let facts = Arc::new(Facts::new(options, Instant::now() + WHOLE));
    let found = run(facts.clone()).await;
    Evidence { found, dns: evidence::dns(&facts).await, certificates: evidence::certificates(&facts).await }
}

async fn run(facts: Arc<Facts>) -> Findings {
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

/// A check, and its finding once the check has run.
type Slot = (&'static Check, watch::Sender<Option<Finding>>);

/// Runs one check after those that it depends on.
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

/// Runs the check on a separate task, so that a panic ends no other check.
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
