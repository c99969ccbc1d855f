//! Readiness of the directory: reads ahead what every login reads, to find out if one can succeed now.

use std::time::SystemTime;

use ldap3::Scope;
use time::{Date, Month, OffsetDateTime};
use tokio::time::Instant;

use super::machine::{MachineError, Search};
use crate::directory::machine::{Machine, Place, base_search};
use crate::directory::people::{Directory, DirectoryError, GROUPS, remembered};

/// State of the directory as a login would find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Seconds that this host's clock is ahead of the domain controller's; `None` if that does not report its
    /// time.
    pub ahead: Result<Option<i64>, DirectoryError>,
    /// `domain.base_dn` exists and is readable for the machine account.
    pub base: Result<(), DirectoryError>,
    /// `login.allow_groups` and `login.deny_groups` have SIDs.
    pub groups: Result<(), DirectoryError>,
    /// `sessions.exempt_groups` has SIDs.
    pub exempt: Result<(), DirectoryError>,
}

impl Readiness {
    /// Returns true if a query had no answer before the deadline.
    pub fn is_late(&self) -> bool {
        let errors = [self.ahead.as_ref().err(), self.base.as_ref().err(), self.groups.as_ref().err()];
        errors.into_iter().chain([self.exempt.as_ref().err()]).flatten().any(DirectoryError::is_late)
    }
}

impl<M: Machine> Directory<M> {
    /// Reads what logins of all accounts depend on, in one round trip. Groups are cached as for logins.
    pub async fn readiness(&self, deadline: Instant) -> Readiness {
        let now = SystemTime::now();
        let groups = remembered(&self.rules, GROUPS, self.read_group_rules(deadline), deadline);
        let exempt = remembered(&self.exempt_groups, GROUPS, self.read_exempt(deadline), deadline);
        let (clock, base, groups, exempt) = tokio::join!(
            self.clock(deadline),
            self.base_exists(deadline),
            async { if self.has_group_rules() { groups.await.map(drop) } else { Ok(()) } },
            async { if self.exempt.is_empty() { Ok(()) } else { exempt.await.map(drop) } },
        );
        let ahead = clock.map(|theirs| theirs.map(|theirs| seconds_between(now, theirs)));
        Readiness { ahead, base, groups, exempt }
    }

    /// Returns the domain controller's time (RFC 4512 extension of AD: `currentTime`, MS-ADTS 3.1.1.3.2.4).
    async fn clock(&self, deadline: Instant) -> Result<Option<OffsetDateTime>, DirectoryError> {
        let search = base_search(String::new(), vec!["currentTime".to_owned()]);
        let entries = self.machine.search(&search, deadline).await?;
        let text = entries.first().map(|entry| entry.text("currentTime")).transpose()?.flatten();
        Ok(text.and_then(generalized_time))
    }

    async fn base_exists(&self, deadline: Instant) -> Result<(), DirectoryError> {
        let search = Search {
            place: Place::Own,
            base: self.base.clone(),
            scope: Scope::Base,
            filter: "(objectClass=*)".to_owned(),
            attributes: vec!["objectClass".to_owned()],
            limit: 1,
        };
        match self.machine.search(&search, deadline).await {
            Ok(entries) if entries.is_empty() => Err(MachineError::NoSuchObject(self.base.clone()).into()),
            other => Ok(other.map(drop)?),
        }
    }
}

/// Reads `YYYYMMDDHHMMSS.0Z`, AD's form of GeneralizedTime (MS-ADTS 3.1.1.2.2.2).
fn generalized_time(text: &str) -> Option<OffsetDateTime> {
    let digits = text.get(..14).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number = |from: usize| digits.get(from..from.checked_add(2)?)?.parse::<u8>().ok();
    let year = digits.get(..4)?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(number(4)?).ok()?, number(6)?).ok()?;
    Some(date.with_hms(number(8)?, number(10)?, number(12)?).ok()?.assume_utc())
}

fn seconds_between(now: SystemTime, theirs: OffsetDateTime) -> i64 {
    OffsetDateTime::from(now).unix_timestamp().saturating_sub(theirs.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::entry::Entry;
    use crate::directory::people::groups::GroupError;
    use crate::directory::scripted::{Scripted, config, unreachable};

    fn root(time: &str) -> Entry {
        Entry::new("").with("currentTime", [time])
    }

    async fn seen(login: &str, answers: Vec<super::super::scripted::Answer>) -> Readiness {
        let directory = Directory::new(Scripted::new(answers), &config(&format!("[login]\n{login}")));
        let seen = directory.readiness(Instant::now() + Duration::from_secs(5)).await;
        directory.machine().is_finished();
        seen
    }

    #[tokio::test]
    async fn each_thing_that_every_login_needs_is_told_by_itself() {
        let clock = || ("own  (", Ok(vec![root("20200101000000.0Z")]));
        let base = || ("own dc=acme,dc=com (objectClass=*)", Ok(vec![Entry::new("DC=acme,DC=com")]));
        let fine = seen("", vec![clock(), base()]).await;
        assert!(fine.ahead.clone().unwrap().unwrap() > 86_400, "{fine:?}");
        assert_eq!((fine.base, fine.groups, fine.exempt), (Ok(()), Ok(()), Ok(())));

        let group = ("sAMAccountName=Aliens", Ok(vec![]));
        let found = seen("allow_groups = ['Aliens']", vec![clock(), base(), group]).await;
        assert_eq!(found.groups, Err(GroupError::Unknown("Aliens".into()).into()));

        let gone = ("own dc=acme,dc=com (objectClass=*)", Err(MachineError::NoSuchObject("x".into())));
        let found = seen("", vec![("own  (", Err(unreachable())), gone]).await;
        assert_eq!(found.ahead, Err(unreachable().into()));
        assert_eq!(found.base, Err(MachineError::NoSuchObject("x".into()).into()));
    }

    #[test]
    fn a_time_of_ad_is_read_and_any_other_text_is_none() {
        let at = generalized_time("20261128210434.0Z").unwrap();
        assert_eq!(at.unix_timestamp(), 1_795_899_874);
        for text in ["", "2026", "20261328210434.0Z", "99999999999999Z", "ää202611282104"] {
            assert_eq!(generalized_time(text), None, "{text}");
        }
    }
}
