//! "Locked out since 14:02, until 14:32": details of a lock for the administrator, in addition to AD's bare
//! refusal.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::decision::Decision;
use super::local_time::local;
use super::logins::Logins;
use crate::directory::machine::Machine;
use crate::directory::people::lockout::{Lockout, Until};
use crate::directory::people::person::Person;
use crate::verdict::Outcome;

/// Longest time that a refusal waits for the lock's details.
const READING: Duration = Duration::from_millis(500);

impl<M: Machine, P> Logins<M, P> {
    /// Adds the start and the end of the lock to the refusal of a locked account. If they cannot be read, the
    /// refusal stays as it is.
    pub async fn tell_lock(&self, decision: &mut Decision, deadline: Instant) {
        if let (Outcome::LockedOut, Some(person)) = (decision.verdict.outcome, &decision.person)
            && let Some(lock) = self.lock(person, deadline).await
        {
            let reason = &mut decision.verdict.reason;
            *reason = if reason.is_empty() { lock } else { format!("{lock}; {reason}") };
        }
    }

    /// Describes the lock of `person`, if it can be read.
    pub async fn lock(&self, person: &Person, deadline: Instant) -> Option<String> {
        let deadline = deadline.min(Instant::now() + READING);
        let read = timeout_at(deadline, self.directory.lockout(person, deadline)).await;
        let lock = read.ok()?.ok()??;
        Some(format!("locked out {}", span(&lock, (self.clock)())))
    }
}

/// Formats the start and the end of a lock in this host's local time.
fn span(lock: &Lockout, now: SystemTime) -> String {
    let since = local(lock.since, now);
    match lock.until {
        Until::At(at) => format!("since {since}, until {}", local(at, now)),
        Until::Unlocked => format!("since {since}, until an administrator unlocks the account"),
        Until::Unknown => {
            format!(
                "since {since}, until when is not known: this host may not read the account's password policy"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_in_words() {
        let now = SystemTime::now();
        let since = now - Duration::from_secs(60);
        let shown = |at| local(at, now);
        let later = now + Duration::from_secs(600);
        for (until, end) in [
            (Until::At(later), format!("until {}", shown(later))),
            (Until::Unlocked, "until an administrator unlocks the account".to_owned()),
        ] {
            assert_eq!(span(&Lockout { since, until }, now), format!("since {}, {end}", shown(since)));
        }
        assert!(span(&Lockout { since, until: Until::Unknown }, now).contains("until when is not known"));
    }
}
