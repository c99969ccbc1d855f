//! The password policy in force for an account, as far as the machine account may read it.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use tokio::time::Instant;

use crate::config::root_of;
use crate::directory::entry::{Entry, EntryError};
use crate::directory::machine::{Machine, MachineError, Search, base_search};
use crate::directory::passwords::policy::{COMPLEX, Policy, Subject};
use crate::directory::people::account::time_of;
use crate::directory::people::person::Person;
use crate::directory::people::{Directory, DirectoryError};

/// The fine-grained policy in force (MS-ADTS 3.1.1.4.5.36), computed for each account.
const RESULTANT: &str = "msDS-ResultantPSO";
/// Minimum length, history and minimum age in a fine-grained policy (MS-ADA2), and in a domain (MS-ADA1 to
/// MS-ADA3).
pub(crate) const FINE: [&str; 3] =
    ["msDS-MinimumPasswordLength", "msDS-PasswordHistoryLength", "msDS-MinimumPasswordAge"];
pub(crate) const DOMAIN: [&str; 3] = ["minPwdLength", "pwdHistoryLength", "minPwdAge"];
/// Complexity requirement: a Boolean in a fine-grained policy, a flag in a domain.
pub(crate) const FINE_COMPLEX: &str = "msDS-PasswordComplexityEnabled";
pub(crate) const DOMAIN_PROPERTIES: &str = "pwdProperties";

impl<M: Machine> Directory<M> {
    /// Reads the facts about `person` that a new password is measured by, and the policy. If the policy is
    /// unreadable, its name is returned: only administrators may read a fine-grained one, unless they have
    /// allowed others to.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn password_rules(
        &self,
        person: &Person,
        deadline: Instant,
    ) -> Result<(Subject, Result<Policy, String>), DirectoryError> {
        let attributes = ["sAMAccountName", "displayName", "pwdLastSet", RESULTANT];
        let entry = self.read(person, &attributes, deadline).await?;
        let subject = Subject {
            sam: entry.text("sAMAccountName")?.unwrap_or(&person.sam).to_owned(),
            display: entry.text("displayName")?.unwrap_or_default().to_owned(),
            set: entry.integer("pwdLastSet")?.and_then(time_of),
        };
        let (base, names, complex) = match entry.text(RESULTANT)? {
            Some(dn) => (dn.to_owned(), FINE, FINE_COMPLEX),
            None => (root_of(&person.domain), DOMAIN, DOMAIN_PROPERTIES),
        };
        let attributes = names.into_iter().chain([complex]).map(str::to_owned).collect();
        let search = Search { place: self.place(&person.domain), ..base_search(base.clone(), attributes) };
        let policy = match self.machine.search(&search, deadline).await {
            Ok(entries) => {
                entries.first().map(|entry| policy_of(entry, names, complex)).transpose()?.flatten()
            }
            Err(MachineError::NoSuchObject(_)) => None,
            Err(e) => return Err(e.into()),
        };
        Ok((subject, policy.ok_or(base)))
    }
}

/// Returns the policy in `entry`; `None` if a part of it is unreadable.
pub(crate) fn policy_of(
    entry: &Entry,
    names: [&str; 3],
    complex: &str,
) -> Result<Option<Policy>, EntryError> {
    let [length, history, age] = names.map(|name| entry.integer(name));
    let number = |value: Option<i64>| value.map(|value| u32::try_from(value).unwrap_or_default());
    let complex = match complex {
        FINE_COMPLEX => entry.text(FINE_COMPLEX)?.map(|text| text == "TRUE"),
        flags => entry.flags(flags)?.map(|flags| flags & COMPLEX != 0),
    };
    let (Some(length), Some(history), Some(age), Some(complex)) =
        (number(length?), number(history?), age?, complex)
    else {
        return Ok(None);
    };
    Ok(Some(Policy { length, history, complex, age: duration_of(age) }))
}

/// Converts a span of time, which AD writes as a negative number of 100 ns (MS-ADA1, minPwdAge).
fn duration_of(ticks: i64) -> Duration {
    Duration::from_secs(ticks.min(0).unsigned_abs() / 10_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::directory::scripted::{Answer, Scripted, config, unreachable};

    const BY_GUID: &str = "own <GUID=00000000-0000-0000-0000-000000000000>";
    const PSO: &str = "CN=Strict,CN=Password Settings Container,CN=System,DC=acme,DC=com";

    fn john(domain: &str) -> Person {
        let guid = uuid::Uuid::nil();
        Person { dn: "CN=John".into(), guid, sam: "john".into(), upn: None, domain: domain.into() }
    }

    fn entry() -> Entry {
        Entry::new("CN=John")
            .with("sAMAccountName", ["john"])
            .with("displayName", ["John Doe"])
            .with("pwdLastSet", ["133700000000000000"])
    }

    async fn read(
        person: &Person,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<(Subject, Result<Policy, String>), DirectoryError> {
        let directory = Directory::new(Scripted::new(answers), &config(""));
        let soon = Instant::now() + Duration::from_secs(5);
        let read = directory.password_rules(person, soon).await;
        directory.machine().is_finished();
        read
    }

    #[tokio::test]
    async fn the_domains_policy_is_in_force_where_there_is_no_other() {
        let head = Entry::new("DC=acme,DC=com")
            .with("minPwdLength", ["7"])
            .with("pwdHistoryLength", ["24"])
            .with("minPwdAge", ["-864000000000"])
            .with("pwdProperties", ["1"]);
        let answers = [(BY_GUID, Ok(vec![entry()])), ("own dc=acme,dc=com", Ok(vec![head]))];
        let (subject, policy) = read(&john("acme.com"), answers).await.unwrap();
        let set = Some(UNIX_EPOCH + Duration::from_secs(1_725_526_400));
        assert_eq!(subject, Subject { sam: "john".into(), display: "John Doe".into(), set });
        let age = Duration::from_secs(86_400);
        assert_eq!(policy, Ok(Policy { length: 7, history: 24, complex: true, age }));
    }

    #[tokio::test]
    async fn a_fine_grained_policy_is_never_taken_for_the_domains() {
        let with = || entry().with("msDS-ResultantPSO", [PSO]);
        let whole = Entry::new(PSO)
            .with("msDS-MinimumPasswordLength", ["12"])
            .with("msDS-PasswordHistoryLength", ["3"])
            .with("msDS-MinimumPasswordAge", ["0"])
            .with("msDS-PasswordComplexityEnabled", ["FALSE"]);
        let policy = Policy { length: 12, history: 3, complex: false, age: Duration::ZERO };
        let cases = [
            (Ok(vec![whole]), Ok(policy)),
            // Only administrators may see the policy, or its content.
            (Err(MachineError::NoSuchObject(PSO.into())), Err(PSO.to_owned())),
            (Ok(vec![]), Err(PSO.to_owned())),
            (Ok(vec![Entry::new(PSO)]), Err(PSO.to_owned())),
        ];
        for (answer, expected) in cases {
            let answers = [(BY_GUID, Ok(vec![with()])), ("own CN=Strict", answer)];
            assert_eq!(read(&john("acme.com"), answers).await.unwrap().1, expected);
        }
        let answers = [(BY_GUID, Ok(vec![with()])), ("own CN=Strict", Err(unreachable()))];
        assert!(read(&john("acme.com"), answers).await.is_err());
    }

    #[tokio::test]
    async fn everybody_is_measured_by_the_own_domain() {
        let answers = [
            ("emea.acme.com <GUID=", Ok(vec![Entry::new("CN=John").with("pwdLastSet", ["0"])])),
            ("emea.acme.com dc=emea,dc=acme,dc=com", Ok(vec![Entry::new("DC=emea")])),
        ];
        let (subject, policy) = read(&john("emea.acme.com"), answers).await.unwrap();
        assert_eq!((subject.set, policy), (None, Err("dc=emea,dc=acme,dc=com".to_owned())));
    }
}
