//! Reads the present state of many accounts at once, by objectGUID, for users who logged in earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ldap3::Scope;
use tokio::time::Instant;
use uuid::Uuid;

use crate::directory::entry::Entry;
use crate::directory::machine::{Machine, MachineError, Place, Search, base_search};
use crate::directory::people::account::Account;
use crate::directory::people::person::{Person, person_of};
use crate::directory::people::{Directory, DirectoryError};

/// Number of accounts in one search: its filter has 14 KB, and AD returns up to 1000 entries without paging
/// (MaxPageSize, MS-ADTS 3.1.1.3.4.6).
pub const BATCH: usize = 200;

/// The attribute that accounts are searched for by.
const GUID: &str = "objectGUID";

/// The present state of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It exists, with this state.
    There(Person, Box<Account>),
    /// It exists, but its state is unreadable; the text is the cause.
    Unreadable(String),
    /// AD no longer has such an account.
    Gone,
}

impl<M: Machine> Directory<M> {
    /// Returns the present state of these accounts, at most [`BATCH`]. An account with contradictory answers
    /// from AD is left out.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`; never part of a result.
    pub async fn standing(
        &self,
        guids: &BTreeSet<Uuid>,
        deadline: Instant,
    ) -> Result<BTreeMap<Uuid, Standing>, DirectoryError> {
        let own = self.own_domain();
        let mut standing = self.standing_in(Place::Own, &self.root, &own, guids, deadline).await?;
        let missing = missing(guids, &standing);
        if missing.is_empty() {
            return Ok(standing);
        }
        let forest = self.forest(deadline).await?;
        let (place, base) = match forest.has_further(&self.domain) {
            // The catalogue tells their domain; their state is read there.
            true => (Place::GlobalCatalogue, String::new()),
            false => (Place::Own, self.root.clone()),
        };
        if place == Place::GlobalCatalogue {
            let search = search_for(place.clone(), &base, &missing, [GUID]);
            let mut homes: BTreeMap<String, (String, BTreeSet<Uuid>)> = BTreeMap::new();
            for entry in self.machine.search(&search, deadline).await? {
                let domain = forest.of_object(entry.dn()).filter(|domain| !self.is_own(&domain.name));
                if let (Some(domain), Some(guid)) = (domain, guid_of(&entry)) {
                    homes
                        .entry(domain.name.clone())
                        .or_insert_with(|| (domain.dn.clone(), BTreeSet::new()))
                        .1
                        .insert(guid);
                }
            }
            for (name, (dn, guids)) in homes {
                standing.extend(self.standing_in(self.place(&name), &dn, &name, &guids, deadline).await?);
            }
        }
        for guid in self::missing(guids, &standing) {
            // Checked individually: an account missing in a long list is not yet proved to be gone.
            let search = base_search(format!("<GUID={guid}>"), vec![GUID.to_owned()]);
            match self.machine.search(&Search { place: place.clone(), ..search }, deadline).await {
                Ok(entries) if !entries.is_empty() => {}
                Ok(_) | Err(MachineError::NoSuchObject(_)) => {
                    standing.insert(guid, Standing::Gone);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(standing)
    }

    /// Returns the state of those of `guids` that are in one domain.
    async fn standing_in(
        &self,
        place: Place,
        base: &str,
        domain: &str,
        guids: &BTreeSet<Uuid>,
        deadline: Instant,
    ) -> Result<BTreeMap<Uuid, Standing>, DirectoryError> {
        let attributes = Account::ATTRIBUTES.into_iter().chain([GUID, "userPrincipalName"]);
        let search = search_for(place, base, guids, attributes);
        let entries = self.machine.search(&search, deadline).await?;
        let known = entries.iter().filter_map(|entry| Some((guid_of(entry)?, standing_of(entry, domain))));
        Ok(known.collect())
    }
}

fn missing(guids: &BTreeSet<Uuid>, standing: &BTreeMap<Uuid, Standing>) -> BTreeSet<Uuid> {
    guids.iter().filter(|guid| !standing.contains_key(guid)).copied().collect()
}

fn search_for<'a>(
    place: Place,
    base: &str,
    guids: &BTreeSet<Uuid>,
    attributes: impl IntoIterator<Item = &'a str>,
) -> Search {
    Search {
        place,
        base: base.to_owned(),
        scope: Scope::Subtree,
        filter: any_of(guids),
        attributes: attributes.into_iter().map(str::to_owned).collect(),
        limit: guids.len(),
    }
}

/// Returns the filter for accounts with these objectGUIDs.
pub(in crate::directory) fn any_of<'a>(guids: impl IntoIterator<Item = &'a Uuid>) -> String {
    let mut filter = String::from("(|");
    for guid in guids {
        let _ = write!(filter, "({GUID}=");
        for byte in guid.to_bytes_le() {
            let _ = write!(filter, "\\{byte:02x}");
        }
        filter.push(')');
    }
    filter + ")"
}

/// Returns the objectGUID of an account.
pub(in crate::directory) fn guid_of(entry: &Entry) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(entry.bytes(GUID).ok()??.try_into().ok()?))
}

pub(crate) fn standing_of(entry: &Entry, domain: &str) -> Standing {
    let read = person_of(entry, domain.to_owned())
        .and_then(|person| Ok((person, Box::new(Account::from_entry(entry)?))));
    match read {
        Ok((person, account)) => Standing::There(person, account),
        Err(error) => Standing::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::scripted::{Answer, Scripted, account, config, forest, guid, unreachable};

    async fn standing(
        guids: &[u8],
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<Vec<(u8, String)>, DirectoryError> {
        let directory = Directory::new(Scripted::new(answers), &config(""));
        let guids: BTreeSet<_> = guids.iter().map(|number| guid(*number)).collect();
        let found = directory.standing(&guids, Instant::now() + Duration::from_secs(5)).await;
        directory.machine().is_finished();
        let word = |standing: &Standing| match standing {
            Standing::There(person, _) => format!("{} in {}", person.sam, person.domain),
            Standing::Unreadable(_) => "unreadable".to_owned(),
            Standing::Gone => "gone".to_owned(),
        };
        Ok(found?.iter().map(|(guid, standing)| (guid.to_bytes_le()[0], word(standing))).collect())
    }

    fn says(list: &[(u8, &str)]) -> Vec<(u8, String)> {
        list.iter().map(|(number, word)| (*number, (*word).to_owned())).collect()
    }

    const OWN: &str = "DC=acme,DC=com";
    const EMEA: &str = "DC=emea,DC=acme,DC=com";
    /// Part of the search for the accounts 1 to 3 in a place.
    const HERE: &str = "own dc=acme,dc=com (|(objectGUID=\\01\\01";

    #[tokio::test]
    async fn those_of_this_domain_are_asked_for_at_once() {
        let unreadable = Entry::new("CN=3").with("objectGUID", [vec![3; 16]]);
        let answers = [(HERE, Ok(vec![account(1, OWN, "512"), account(2, OWN, "512"), unreadable]))];
        let found = standing(&[1, 2, 3], answers).await.unwrap();
        assert_eq!(found, says(&[(1, "u1 in acme.com"), (2, "u2 in acme.com"), (3, "unreadable")]));
    }

    #[tokio::test]
    async fn the_others_are_read_where_the_catalogue_says_that_they_live() {
        let there = |number| Entry::new(format!("CN={number},{EMEA}")).with("objectGUID", [vec![number; 16]]);
        let answers = forest().into_iter().chain([
            (HERE, Ok(vec![account(1, OWN, "512")])),
            ("catalogue  (|(objectGUID=\\02\\02", Ok(vec![there(2), there(3)])),
            (
                "emea.acme.com DC=emea,DC=acme,DC=com (|(objectGUID=\\02",
                Ok(vec![account(2, EMEA, "512"), account(3, EMEA, "512")]),
            ),
        ]);
        let found = standing(&[1, 2, 3], answers).await.unwrap();
        let expected = [(1, "u1 in acme.com"), (2, "u2 in emea.acme.com"), (3, "u3 in emea.acme.com")];
        assert_eq!(found, says(&expected));
    }

    #[tokio::test]
    async fn only_who_is_not_there_when_asked_for_alone_is_gone() {
        const ALONE: &str = "catalogue <GUID=02020202";
        let none = || MachineError::NoSuchObject("x".into());
        let gone = || Some(vec![(1, "u1 in acme.com"), (2, "gone")]);
        let cases = [
            (Err(none()), gone()),
            (Ok(vec![]), gone()),
            // Contradictory answers.
            (Ok(vec![account(2, OWN, "512")]), Some(vec![(1, "u1 in acme.com")])),
            (Err(unreachable()), None),
        ];
        for (alone, expected) in cases {
            let answers = forest().into_iter().chain([
                (HERE, Ok(vec![account(1, OWN, "512")])),
                ("catalogue  (|(objectGUID=\\02\\02", Ok(vec![])),
                (ALONE, alone),
            ]);
            let found = standing(&[1, 2], answers).await;
            assert_eq!(found.ok(), expected.map(|list| says(&list)));
        }
    }

    #[tokio::test]
    async fn without_ad_nothing_is_known_of_anybody() {
        assert_eq!(standing(&[1], [(HERE, Err(unreachable()))]).await, Err(unreachable().into()));
        let answers = [(HERE, Ok(vec![])), ("own  (objectClass=*)", Err(unreachable()))];
        assert!(standing(&[1], answers).await.is_err());
    }
}
