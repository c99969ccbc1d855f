//! Start and end of an account's lock, as shown to users and administrators; no login depends on them.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::account::time_of;
use crate::config::root_of;
use crate::directory::machine::{Machine, Search, base_search};
use crate::directory::people::person::Person;
use crate::directory::people::{Directory, DirectoryError};

/// The time of the lock; 0 if there is none (MS-ADA1, lockoutTime).
const SINCE: &str = "lockoutTime";
/// The fine-grained policy in force (MS-ADTS 3.1.1.4.5.36), computed for each account.
const RESULTANT: &str = "msDS-ResultantPSO";
/// Duration of a lock, in a domain (MS-ADA1) and in a fine-grained policy (MS-ADA2).
const DOMAIN: &str = "lockoutDuration";
const FINE: &str = "msDS-LockoutDuration";

/// A lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Time when it began.
    pub since: SystemTime,
    /// Time when it ends.
    pub until: Until,
}

/// The end of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    At(SystemTime),
    /// When an administrator unlocks the account.
    Unlocked,
    /// Unknown: the machine account may not read a fine-grained policy, which only administrators can.
    Unknown,
}

impl<M: Machine> Directory<M> {
    /// Returns the lock of `person`; `None` if there is none at the domain controller that is read.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn lockout(
        &self,
        person: &Person,
        deadline: Instant,
    ) -> Result<Option<Lockout>, DirectoryError> {
        let (entry, domain) = tokio::join!(
            self.read(person, &[SINCE, RESULTANT], deadline),
            // Concurrently, because few accounts have a separate policy.
            self.duration(person, root_of(&person.domain), DOMAIN, deadline),
        );
        let entry = entry?;
        let Some(since) = entry.integer(SINCE)?.and_then(time_of) else { return Ok(None) };
        let ticks = match entry.text(RESULTANT)? {
            Some(policy) => self.duration(person, policy.to_owned(), FINE, deadline).await,
            None => domain,
        };
        Ok(Some(Lockout { since, until: ticks.map_or(Until::Unknown, |ticks| end(since, ticks)) }))
    }

    async fn duration(
        &self,
        person: &Person,
        base: String,
        attribute: &str,
        deadline: Instant,
    ) -> Option<i64> {
        let search = base_search(base, vec![attribute.to_owned()]);
        let search = Search { place: self.place(&person.domain), ..search };
        let entries = self.machine.search(&search, deadline).await.ok()?;
        entries.first()?.integer(attribute).ok()?
    }
}

/// Returns the end of a lock. `ticks` is its duration as a negative number of 100 ns; 0 and the minimum mean
/// for ever.
pub(crate) fn end(since: SystemTime, ticks: i64) -> Until {
    match ticks {
        0 | i64::MIN => Until::Unlocked,
        ticks => {
            let length = Duration::from_secs(ticks.min(0).unsigned_abs() / 10_000_000);
            since.checked_add(length).map_or(Until::Unlocked, Until::At)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::directory::entry::Entry;
    use crate::directory::scripted::{Answer, Scripted, config, guid, unreachable};

    const BY_GUID: &str = "own <GUID=";
    const HEAD: &str = "own dc=acme,dc=com";
    const PSO: &str = "CN=Strict,CN=System,DC=acme,DC=com";

    async fn read(answers: impl IntoIterator<Item = Answer>) -> Result<Option<Lockout>, DirectoryError> {
        let directory = Directory::new(Scripted::new(answers), &config(""));
        let john = Person {
            dn: "CN=John".into(),
            guid: guid(1),
            sam: "john".into(),
            upn: None,
            domain: "acme.com".into(),
        };
        let lockout = directory.lockout(&john, Instant::now() + Duration::from_secs(5)).await;
        directory.machine().is_finished();
        lockout
    }

    proptest::proptest! {
        /// Any time and any duration that AD may hold: no sum overflows, and no lock ends before it begins.
        #[test]
        fn any_lock_has_an_end(since: i64, ticks: i64) {
            let Some(since) = time_of(since) else { return Ok(()) };
            for ticks in [ticks, 0, -1, i64::MIN, i64::MIN + 1, i64::MAX] {
                match end(since, ticks) {
                    Until::At(at) => assert!(at >= since && ticks != 0 && ticks != i64::MIN, "{ticks}"),
                    until => assert_eq!(until, Until::Unlocked, "{ticks}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_lock_has_a_beginning_and_an_end_as_far_as_they_can_be_read() {
        let since = UNIX_EPOCH + Duration::from_secs(1_725_526_400);
        let locked = || Entry::new("CN=John").with("lockoutTime", ["133700000000000000"]);
        let fine = || locked().with("msDS-ResultantPSO", [PSO]);
        let head =
            |ticks: &str| (HEAD, Ok(vec![Entry::new("dc=acme,dc=com").with("lockoutDuration", [ticks])]));
        let policy =
            |ticks: &str| ("own CN=Strict", Ok(vec![Entry::new(PSO).with("msDS-LockoutDuration", [ticks])]));
        let minutes = |minutes: u64| Until::At(since + Duration::from_secs(60 * minutes));
        let half_an_hour = "-18000000000";
        for (answers, until) in [
            (vec![(BY_GUID, Ok(vec![locked()])), head(half_an_hour)], minutes(30)),
            (vec![(BY_GUID, Ok(vec![locked()])), head("-9223372036854775808")], Until::Unlocked),
            (vec![(BY_GUID, Ok(vec![locked()])), head("0")], Until::Unlocked),
            (vec![(BY_GUID, Ok(vec![locked()])), (HEAD, Err(unreachable()))], Until::Unknown),
            (vec![(BY_GUID, Ok(vec![fine()])), head(half_an_hour), policy("-600000000")], minutes(1)),
            // The domain's policy does not apply to this account.
            (
                vec![(BY_GUID, Ok(vec![fine()])), head(half_an_hour), ("own CN=Strict", Ok(vec![]))],
                Until::Unknown,
            ),
        ] {
            assert_eq!(read(answers).await, Ok(Some(Lockout { since, until })), "{until:?}");
        }
        let open = Entry::new("CN=John").with("lockoutTime", ["0"]);
        assert_eq!(read([(BY_GUID, Ok(vec![open])), head(half_an_hour)]).await, Ok(None));
        assert!(read([(BY_GUID, Err(unreachable())), head(half_an_hour)]).await.is_err());
    }
}
