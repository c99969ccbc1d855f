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
    use crate::directory::entry::Entry;
    use crate::directory::machine::{MachineError, Place, Search};
    use crate::directory::people::Directory;
    use crate::directory::scripted::{Answer, Scripted, Slow, config, unreachable};
    use crate::login::refusal::Refusal;

    fn john() -> Person {
        let guid = uuid::Uuid::from_bytes([1; 16]);
        Person { dn: "CN=John".into(), guid, sam: "john".into(), upn: None, domain: "acme.com".into() }
    }

    fn logins<M: Machine>(machine: M) -> Logins<M, ()> {
        let config = config("");
        Logins {
            directory: Directory::new(machine, &config),
            names: config.names,
            passwords: (),
            host: "XCALLY".into(),
            warn: Duration::ZERO,
            clock: || SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_060),
        }
    }

    /// A lock that began at 1,700,000,000 seconds of Unix, in AD's ticks, or a number of its own.
    fn locked(since: &'static str) -> [Answer; 2] {
        let head = Entry::new("DC=acme,DC=com").with("lockoutDuration", ["0"]);
        let entry = Entry::new("CN=John").with("lockoutTime", [since]);
        [("<GUID=", Ok(vec![entry])), ("own dc=acme,dc=com", Ok(vec![head]))]
    }

    const SINCE: &str = "133444736000000000";

    #[tokio::test]
    async fn a_lock_is_added_to_the_reason_of_a_locked_account_alone() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let now = since + Duration::from_secs(60);
        let lock =
            format!("locked out since {}, until an administrator unlocks the account", local(since, now));
        let cases = [
            (Outcome::LockedOut, "", Some(SINCE), lock.clone()),
            (Outcome::LockedOut, "AD says so", Some(SINCE), format!("{lock}; AD says so")),
            // The domain controller that is read has no lock, or does not answer.
            (Outcome::LockedOut, "AD says so", Some("0"), "AD says so".to_owned()),
            (Outcome::LockedOut, "AD says so", None, "AD says so".to_owned()),
            (Outcome::Disabled, "AD says so", Some(SINCE), "AD says so".to_owned()),
        ];
        for (outcome, reason, since, expected) in cases {
            let answers = match since {
                Some(since) => locked(since),
                None => [("<GUID=", Err(unreachable())), ("own dc=acme,dc=com", Err(unreachable()))],
            };
            let logins = logins(Scripted::new(answers));
            let mut decision = Decision::from(Refusal::new(outcome, reason));
            decision.person = Some(john());
            logins.tell_lock(&mut decision, Instant::now() + Duration::from_secs(5)).await;
            assert_eq!(decision.verdict.reason, expected, "{outcome}");
            assert_eq!(decision.verdict.outcome, outcome);
        }
    }

    /// A directory that never answers.
    struct Silent;

    impl Machine for Silent {
        async fn search(&self, _: &Search, _: Instant) -> Result<Vec<Entry>, MachineError> {
            std::future::pending().await
        }
        fn host(&self, _: &Place) -> Option<String> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_waits_a_moment_for_the_lock_and_no_longer() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let slow = Slow(Scripted::new(locked(SINCE)), READING / 2);
        assert!(logins(slow).lock(&john(), deadline).await.is_some());
        let begun = Instant::now();
        assert_eq!(logins(Silent).lock(&john(), deadline).await, None);
        assert_eq!(begun.elapsed(), READING);
    }

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
