//! Names of two accounts: the explicit userPrincipalName of one, the sAMAccountName of another.
//!
//! A filter cannot compare two attributes, so every account is read, in ranges of `uSNChanged`. A range is
//! halved until it has no more accounts than AD returns at once. That needs neither paging nor memory for
//! pages.

use std::collections::HashMap;

use ldap3::Scope;
use tokio::time::Instant;

use crate::directory::machine::{Machine, MachineError, Place, Search, base_search};
use crate::directory::people::person::{ATTRIBUTES, Person, people_of};
use crate::directory::people::{Directory, DirectoryError};
use crate::name::fold;

/// Maximum number of accounts in one search (MaxPageSize, MS-ADTS 3.1.1.3.4.6).
const TOGETHER: usize = 1000;

/// Result of the search among the accounts of this host's domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clashes {
    /// Each name with the account that has it as userPrincipalName, and the one that has it as
    /// sAMAccountName; sorted by name.
    pub list: Vec<(String, Person, Person)>,
    /// The number of accounts that were read.
    pub read: usize,
    /// True if all accounts were read.
    pub is_whole: bool,
}

impl<M: Machine> Directory<M> {
    /// Finds the names of this host's domain that two accounts have, among the accounts that can be read
    /// before `deadline`.
    ///
    /// # Errors
    /// Returns an error if AD does not answer, or if an account is malformed.
    pub async fn clashes(&self, deadline: Instant) -> Result<Clashes, DirectoryError> {
        let newest = "highestCommittedUSN";
        let root = base_search(String::new(), vec![newest.to_owned()]);
        let root = self.machine.search(&root, deadline).await?;
        let newest = root.first().map(|root| root.integer(newest)).transpose()?.flatten();
        let (mut people, mut is_whole) = (Vec::new(), true);
        let mut ranges = vec![(0, newest.unwrap_or(i64::MAX))];
        while let Some((first, last)) = ranges.pop() {
            match self.changed_between(first, last, deadline).await {
                Ok(found) => people.extend(found),
                // A range of one number is an account that AD returns more than once: it is left out.
                Err(DirectoryError::Machine(MachineError::TooMany(_))) if first < last => {
                    let middle = first.midpoint(last);
                    ranges.extend([(middle + 1, last), (first, middle)]);
                }
                Err(DirectoryError::Machine(MachineError::TooMany(_) | MachineError::Timeout(_))) => {
                    is_whole = false;
                    if Instant::now() >= deadline {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Clashes { list: clashes(&people, &self.own_domain()), read: people.len(), is_whole })
    }

    async fn changed_between(
        &self,
        first: i64,
        last: i64,
        deadline: Instant,
    ) -> Result<Vec<Person>, DirectoryError> {
        let search = Search {
            place: Place::Own,
            base: self.base.clone(),
            scope: Scope::Subtree,
            filter: format!(
                "(&(uSNChanged>={first})(uSNChanged<={last})(objectCategory=person)(objectClass=user))"
            ),
            attributes: ATTRIBUTES.map(str::to_owned).to_vec(),
            limit: TOGETHER,
        };
        let entries = self.machine.search(&search, deadline).await?;
        Ok(people_of(&entries, |_| self.own_domain())?)
    }
}

/// Returns the names in `domain` that two of these accounts have.
fn clashes(people: &[Person], domain: &str) -> Vec<(String, Person, Person)> {
    let by_sam: HashMap<_, _> = people.iter().map(|person| (fold(&person.sam), person)).collect();
    let clash = |person: &Person| {
        let upn = fold(person.upn.as_deref()?);
        let (user, suffix) = upn.rsplit_once('@')?;
        let other = by_sam.get(user).filter(|other| suffix == domain && other.guid != person.guid)?;
        Some((user.to_owned(), person.clone(), (*other).clone()))
    };
    let mut found: Vec<_> = people.iter().filter_map(clash).collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::entry::Entry;
    use crate::directory::scripted::{Scripted, config, unreachable};

    fn account(number: u8, sam: &str, upn: Option<&str>) -> Entry {
        let entry = Entry::new(format!("CN={sam}")).with("objectGUID", [vec![number; 16]]);
        let entry = entry.with("sAMAccountName", [sam]).with("userAccountControl", ["512"]);
        entry.with("userPrincipalName", upn)
    }

    fn root() -> Entry {
        Entry::new("").with("highestCommittedUSN", ["4000"])
    }

    #[tokio::test]
    async fn names_of_two_accounts_are_found_however_many_accounts_there_are() {
        let answers = [
            ("own  (objectClass=*)", Ok(vec![root()])),
            ("(uSNChanged>=0)(uSNChanged<=4000)", Err(MachineError::TooMany(TOGETHER))),
            (
                "(uSNChanged>=0)(uSNChanged<=2000)",
                Ok(vec![
                    account(1, "ceo", Some("the.boss@acme.com")),
                    account(2, "john", Some("john@acme.com")),
                    account(3, "jdoe", Some("jane.doe@acme.com")),
                    account(4, "mary", None),
                ]),
            ),
            (
                "(uSNChanged>=2001)(uSNChanged<=4000)",
                Ok(vec![
                    account(5, "helped", Some("CEO@acme.com")),
                    account(6, "other", Some("mary@brand.example")),
                ]),
            ),
        ];
        let directory = Directory::new(Scripted::new(answers), &config(""));
        let found = directory.clashes(Instant::now() + Duration::from_secs(5)).await.unwrap();
        directory.machine().is_finished();
        assert_eq!((found.read, found.is_whole), (6, true));
        let [(name, explicit, implicit)] = &found.list[..] else { panic!("{found:?}") };
        assert_eq!((name.as_str(), explicit.sam.as_str(), implicit.sam.as_str()), ("ceo", "helped", "ceo"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_in_time_is_said() {
        let late = Err(MachineError::Timeout("people".into()));
        let answers = [("own  (objectClass=*)", Ok(vec![root()])), ("(uSNChanged>=0)", late)];
        let directory = Directory::new(Scripted::new(answers), &config(""));
        let found = directory.clashes(Instant::now()).await.unwrap();
        assert_eq!(found, Clashes::default());
        let answers = [("own  (objectClass=*)", Err(unreachable()))];
        let directory = Directory::new(Scripted::new(answers), &config(""));
        assert!(directory.clashes(Instant::now()).await.is_err());
    }
}
