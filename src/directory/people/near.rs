//! Suggestions for unknown names: the account that a name may mean.
//!
//! A suggestion is only shown to administrators; no access depends on it. There is one only if exactly one
//! account matches in the strongest of the ways below. Each way is a search by an indexed attribute.

use ldap3::ldap_escape;
use tokio::time::Instant;
use uuid::Uuid;

use crate::directory::entry::Entry;
use crate::directory::machine::{Machine, MachineError, Place};
use crate::directory::people::account::DISABLED;
use crate::directory::people::person::{CANDIDATES, named, people_of, people_search};
use crate::directory::people::{Directory, DirectoryError};
use crate::name::{Principal, Rules, fold};

/// Maximum number of domains and UPN suffixes that are tried.
const SUFFIXES: usize = 16;
/// Minimum number of letters of a surname after an initial: "jdo" could mean too many users.
const SURNAME: usize = 3;

/// Attributes that are compared, in addition to those that are read for every account.
const ATTRIBUTES: [&str; 4] = ["mail", "givenName", "sn", "displayName"];

/// The only account that resembles a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// A name that the account can log in by.
    pub principal: Principal,
    /// Its `objectGUID`.
    pub guid: Uuid,
    /// The resemblance.
    pub why: String,
}

/// A possible meaning of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// The same name with another domain or UPN suffix.
    Upn(String),
    /// The part of a mail address before the @.
    Mail(String),
    /// Given name and surname, in either order.
    Names { given: String, surname: String },
    /// The display name.
    Shown(String),
    /// The initial of the given name, and the surname.
    Initial { initial: String, surname: String },
}

impl Way {
    /// Returns all ways for `user`, the strongest first.
    fn all(user: &str, suffixes: &[String]) -> Vec<Self> {
        let mut ways: Vec<_> = suffixes.iter().map(|suffix| Way::Upn(format!("{user}@{suffix}"))).collect();
        ways.extend(suffixes.iter().map(|suffix| Way::Mail(format!("{user}@{suffix}"))));
        let words: Vec<_> = user.split(['.', '_', '-', ' ']).filter(|word| !word.is_empty()).collect();
        let initial = |initial: &str, surname: &str| {
            (surname.chars().count() >= SURNAME)
                .then(|| Way::Initial { initial: initial.to_owned(), surname: surname.to_owned() })
        };
        match *words.as_slice() {
            [word] => {
                let (mut front, mut back) = (word.chars(), word.chars());
                let (first, last) = (front.next().map(String::from), back.next_back().map(String::from));
                ways.extend(first.and_then(|first| initial(&first, front.as_str())));
                ways.extend(last.and_then(|last| initial(&last, back.as_str())));
            }
            [one, other] if one.chars().count() == 1 => ways.extend(initial(one, other)),
            [one, other] if other.chars().count() == 1 => ways.extend(initial(other, one)),
            [first, .., last] => {
                let before = words.split_last().map(|(_, before)| before.join(" ")).unwrap_or_default();
                let after = words.split_first().map(|(_, after)| after.join(" ")).unwrap_or_default();
                ways.push(Way::Names { given: before, surname: last.to_owned() });
                ways.push(Way::Names { given: after, surname: first.to_owned() });
                ways.push(Way::Shown(words.join(" ")));
            }
            [] => {}
        }
        ways
    }

    /// Returns the rank of this way, 0 for the strongest; equally good ways have the same rank.
    fn strength(&self) -> u8 {
        match self {
            Way::Upn(_) => 0,
            Way::Mail(_) => 1,
            Way::Names { .. } | Way::Shown(_) => 2,
            Way::Initial { .. } => 3,
        }
    }

    /// Returns the filter for AD.
    fn filter(&self) -> String {
        match self {
            Way::Upn(upn) => named("userPrincipalName", upn),
            Way::Mail(mail) => named("mail", mail),
            Way::Names { given, surname } => {
                format!("(&{}{})", named("sn", surname), named("givenName", given))
            }
            Way::Shown(name) => named("displayName", name),
            Way::Initial { initial, surname } => {
                format!("(&{}(givenName={}*))", named("sn", surname), ldap_escape(initial.as_str()))
            }
        }
    }

    /// Returns true if `account` matches in this way. AD's own comparison is looser than that of readers.
    fn is_of(&self, account: &Entry) -> bool {
        let is = |attribute: &str, value: &str| {
            account.text(attribute).ok().flatten().is_some_and(|text| fold(text) == fold(value))
        };
        match self {
            Way::Upn(upn) => is("userPrincipalName", upn),
            Way::Mail(mail) => is("mail", mail),
            Way::Names { given, surname } => is("givenName", given) && is("sn", surname),
            Way::Shown(name) => is("displayName", name),
            Way::Initial { initial, surname } => {
                let given = account.text("givenName").ok().flatten().unwrap_or_default();
                is("sn", surname) && fold(given).starts_with(&fold(initial))
            }
        }
    }

    fn why(&self) -> &'static str {
        match self {
            Way::Upn(_) => "the same name with another UPN suffix",
            Way::Mail(_) => "its mail address begins with this name",
            Way::Names { .. } => "its given name and surname",
            Way::Shown(_) => "its display name",
            Way::Initial { .. } => "initial and surname",
        }
    }
}

impl<M: Machine> Directory<M> {
    /// Returns for each of these unknown names the account that it may mean.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`.
    pub async fn near(
        &self,
        rules: &Rules,
        users: &[&str],
        deadline: Instant,
    ) -> Result<Vec<Option<Near>>, DirectoryError> {
        let suffixes = self.suffixes(rules, deadline).await?;
        let ways: Vec<_> = users.iter().map(|user| Way::all(user, &suffixes)).collect();
        let filters: String = ways.iter().flatten().map(Way::filter).collect();
        if filters.is_empty() {
            return Ok(Vec::new());
        }
        let mut search = people_search(Place::Own, &self.base, &filters, users.len() * CANDIDATES);
        search.attributes.extend(ATTRIBUTES.map(str::to_owned));
        let entries = match self.machine.search(&search, deadline).await {
            // With this many matches no suggestion is useful.
            Err(MachineError::TooMany(_)) => return Ok(users.iter().map(|_| None).collect()),
            other => other?,
        };
        Ok(ways.iter().map(|ways| self.only_one(ways, &entries)).collect())
    }

    /// Returns the only account that matches in the strongest way with any match.
    fn only_one(&self, ways: &[Way], entries: &[Entry]) -> Option<Near> {
        let alike = |way: &Way| entries.iter().filter(|entry| way.is_of(entry)).collect::<Vec<_>>();
        let strongest = ways.iter().filter(|way| !alike(way).is_empty()).map(Way::strength).min()?;
        let mut near = None;
        for way in ways.iter().filter(|way| way.strength() == strongest) {
            for entry in alike(way) {
                let found = self.near_of(entry, way)?;
                match &near {
                    Some(Near { guid, .. }) if *guid != found.guid => return None,
                    Some(_) => {}
                    None => near = Some(found),
                }
            }
        }
        near
    }

    /// Returns the suggestion, unless the account is disabled or not a user's.
    fn near_of(&self, entry: &Entry, way: &Way) -> Option<Near> {
        let is_disabled =
            entry.flags("userAccountControl").ok().flatten().is_none_or(|flags| flags & DISABLED != 0);
        let person = people_of(std::slice::from_ref(entry), |_| self.own_domain()).ok()?.pop();
        let person = person.filter(|_| !is_disabled)?;
        let explicit = person.upn.as_deref().and_then(|upn| Principal::parse(upn).ok());
        let implicit = || Principal::parse(&format!("{}@{}", person.sam, self.domain)).ok();
        let why = format!("{}: {}", way.why(), person.dn);
        Some(Near { principal: explicit.or_else(implicit)?, guid: person.guid, why })
    }

    /// Returns the domains and UPN suffixes that an account's name may have.
    async fn suffixes(&self, rules: &Rules, deadline: Instant) -> Result<Vec<String>, DirectoryError> {
        let forest = self.forest(deadline).await?;
        let all = std::iter::once(&rules.domain).chain(&rules.domains).chain(&forest.known().suffixes);
        let mut suffixes = Vec::<String>::new();
        for suffix in all.map(|suffix| fold(suffix)) {
            if suffixes.len() < SUFFIXES && !suffixes.contains(&suffix) {
                suffixes.push(suffix);
            }
        }
        Ok(suffixes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::scripted::{Scripted, config, forest};

    fn account(number: u8, upn: Option<&str>, attributes: &[(&str, &str)]) -> Entry {
        let entry = Entry::new(format!("CN={number}"))
            .with("objectGUID", [vec![number; 16]])
            .with("sAMAccountName", [format!("sam{number}")])
            .with("userPrincipalName", upn);
        let flags = [("userAccountControl", "512")];
        let flags = flags.iter().filter(|(name, _)| !attributes.iter().any(|(given, _)| given == name));
        attributes.iter().chain(flags).fold(entry, |entry, (name, value)| entry.with(name, [*value]))
    }

    async fn near(
        users: &[&str],
        entries: Result<Vec<Entry>, MachineError>,
    ) -> Vec<Option<(String, String)>> {
        let search = [("(objectCategory=person)", entries)];
        let config = config("");
        let directory = Directory::new(Scripted::new(search.into_iter().chain(forest())), &config);
        let near =
            directory.near(&config.names, users, Instant::now() + Duration::from_secs(5)).await.unwrap();
        directory.machine().is_finished();
        near.into_iter().map(|near| near.map(|near| (near.principal.to_string(), near.why))).collect()
    }

    #[tokio::test]
    async fn a_name_is_near_an_account_in_a_way_that_can_be_named() {
        let doe = [("givenName", "John"), ("sn", "Doe"), ("displayName", "Doe, John")];
        let cases = [
            ("x.y", Some("x.y@brand.example"), &[][..], "the same name with another UPN suffix"),
            (
                "jd7",
                Some("d@acme.com"),
                &[("mail", "JD7@acme.com")],
                "its mail address begins with this name",
            ),
            ("john.doe", Some("d@acme.com"), &doe, "its given name and surname"),
            ("doe-john", Some("d@acme.com"), &doe, "its given name and surname"),
            ("john_doe", Some("d@acme.com"), &[("displayName", "JOHN doe")], "its display name"),
            (
                "mary.ann.lee",
                Some("d@acme.com"),
                &[("givenName", "Mary Ann"), ("sn", "Lee")],
                "its given name and surname",
            ),
            ("jdoe", Some("d@acme.com"), &doe, "initial and surname"),
            ("j.doe", Some("d@acme.com"), &doe, "initial and surname"),
            ("doej", Some("d@acme.com"), &doe, "initial and surname"),
            ("doe.j", Some("d@acme.com"), &doe, "initial and surname"),
            // Named by its implicit name, because it has no explicit one.
            ("jdoe", None, &doe, "initial and surname"),
        ];
        for (user, upn, attributes, why) in cases {
            let found = near(&[user], Ok(vec![account(1, upn, attributes)])).await;
            let principal = upn.unwrap_or("sam1@acme.com").to_owned();
            assert_eq!(found, [Some((principal, format!("{why}: CN=1")))], "{user}");
        }
    }

    #[tokio::test]
    async fn only_one_account_in_the_strongest_way_is_a_guess() {
        let doe = |number, given| account(number, None, &[("givenName", given), ("sn", "Doe")]);
        let mailed = account(3, None, &[("mail", "jdoe@acme.com"), ("sn", "Rossi")]);
        let cases = [
            // Two with that initial; one of them with the mail address; one of them disabled.
            (vec![doe(1, "John"), doe(2, "Jane")], None),
            (vec![doe(1, "John"), doe(2, "Jane"), mailed], Some("sam3@acme.com")),
            (
                vec![account(1, None, &[("givenName", "J"), ("sn", "Doe"), ("userAccountControl", "514")])],
                None,
            ),
            // AD's comparison is looser.
            (vec![account(1, None, &[("givenName", "John"), ("sn", "Doé")])], None),
            (vec![], None),
        ];
        for (entries, expected) in cases {
            let found = near(&["jdoe"], Ok(entries.clone())).await;
            let found =
                found.into_iter().map(|near| near.map(|(principal, _)| principal)).collect::<Vec<_>>();
            assert_eq!(found, [expected.map(str::to_owned)], "{entries:?}");
        }
        assert_eq!(near(&["jdoe", "x"], Err(MachineError::TooMany(16))).await, [None, None]);
    }

    #[test]
    fn what_is_typed_stays_a_value() {
        let filter: String = Way::all("a)(b.*", &["acme.com".to_owned()]).iter().map(Way::filter).collect();
        assert!(
            !filter.contains(")(b") && filter.contains("a\\29\\28b") && filter.contains("givenName=\\2a*"),
            "{filter}"
        );
        // A surname of two letters, and no name at all.
        assert_eq!(Way::all("jd", &[]), []);
        assert_eq!(Way::all("...", &[]), []);
        assert_eq!(Way::all("ß", &[]), []);
    }
}
