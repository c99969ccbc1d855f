//! Many accounts at once, for an audit: by the rules of [`Directory::find`], with one search for a hundred
//! names.
//!
//! `tokenGroups` needs a search for each account. If the forest has only one domain, the groups inside a
//! configured group are found first. Then one search for each hundred accounts finds the members of these
//! groups. All groups are named by SID.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ldap3::Scope;
use tokio::time::Instant;
use uuid::Uuid;

use crate::directory::entry::{Entry, EntryError};
use crate::directory::machine::{Machine, MachineError, Place, Search};
use crate::directory::people::account::Account;
use crate::directory::people::find::choose;
use crate::directory::people::groups::GroupRules;
use crate::directory::people::person::{ATTRIBUTES, CANDIDATES, Person, people_of, people_search};
use crate::directory::people::standing::{any_of, guid_of};
use crate::directory::people::{Directory, DirectoryError, remembered};
use crate::directory::sid::{PROTECTED_USERS, Sid};
use crate::name::{Principal, fold};

/// Number of names in one search. A domain controller answered it in about 40 ms, and a login that reads on
/// the same connection waits no longer than that.
pub const TOGETHER: usize = 100;

/// Maximum number of groups inside the configured ones; beyond it, `tokenGroups` is read for each account.
const NESTED: usize = 200;

/// Time for which the groups inside the configured ones are cached. No login depends on them.
const INSIDE: Duration = Duration::from_secs(60);

/// Attributes for the primary group, which has no member list (MS-ADTS 3.1.1.4.5.19).
const PRIMARY: [&str; 2] = ["objectSid", "primaryGroupID"];

/// An account as an audit sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The account's names.
    pub person: Person,
    /// Its state.
    pub account: Account,
    /// Membership in the configured groups; if `None`, [`Account::groups`] tells, or no groups are
    /// configured.
    pub membership: Option<Membership>,
}

/// An account's membership in the configured groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// True if it is a member of one of `login.allow_groups`, or if there are none.
    pub allowed: bool,
    /// True if it is a member of one of `login.deny_groups`.
    pub denied: bool,
}

/// The configured groups, and those inside them.
#[derive(Clone, Debug)]
pub(in crate::directory) struct Inside {
    allow: Vec<Sid>,
    deny: Vec<Sid>,
}

/// An account of this host's domain and the SID of its primary group.
struct Read {
    person: Person,
    account: Account,
    primary: Option<Sid>,
}

impl<M: Machine> Directory<M> {
    /// Finds the accounts of at most [`TOGETHER`] principals, with their state, in the same order; for each
    /// without an account, the error is the reason.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if a configured group has no SID.
    pub async fn find_many(
        &self,
        principals: &[Principal],
        deadline: Instant,
    ) -> Result<Vec<Result<Seen, DirectoryError>>, DirectoryError> {
        let read = self.read_many(principals, deadline).await?;
        let memberships = self.memberships(&read, deadline).await?;
        let read = self.with_protection(read, deadline).await?;
        let index = Index::new(&read);
        let mut found = Vec::with_capacity(principals.len());
        for principal in principals {
            let place = index.candidates(principal);
            let people = place.iter().filter_map(|at| Some(read.get(*at)?.person.clone())).collect();
            found.push(match choose(&self.netbios, principal, people) {
                Ok(chosen) => {
                    let at = place
                        .into_iter()
                        .find(|at| read.get(*at).is_some_and(|read| read.person.guid == chosen.person.guid));
                    self.seen(at.and_then(|at| read.get(at)), &memberships, chosen.person, deadline).await
                }
                Err(DirectoryError::Unknown(_)) => match self.find_elsewhere(principal, deadline).await {
                    Ok(found) => self.seen(None, &memberships, found.person, deadline).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            });
        }
        Ok(found)
    }

    /// Returns the state and groups of an account that was found; reads them individually if the shared
    /// searches do not have them.
    async fn seen(
        &self,
        read: Option<&Read>,
        memberships: &Option<HashMap<Uuid, Membership>>,
        person: Person,
        deadline: Instant,
    ) -> Result<Seen, DirectoryError> {
        let membership = memberships.as_ref().and_then(|known| known.get(&person.guid).copied());
        match read {
            Some(read) if membership.is_some() || !self.has_group_rules() => {
                Ok(Seen { person, account: read.account.clone(), membership })
            }
            _ => {
                let account = self.account(&person, deadline).await?;
                Ok(Seen { person, account, membership: None })
            }
        }
    }

    /// Reads all accounts of this host's domain that have one of these names.
    async fn read_many(
        &self,
        principals: &[Principal],
        deadline: Instant,
    ) -> Result<Vec<Read>, DirectoryError> {
        let mut names = String::new();
        for principal in principals {
            names += &self.named_here(principal);
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut search = people_search(Place::Own, &self.base, &names, principals.len() * CANDIDATES);
        let further = Account::ATTRIBUTES.iter().chain(&PRIMARY);
        search
            .attributes
            .extend(further.filter(|name| !ATTRIBUTES.contains(name)).map(|name| (*name).to_owned()));
        let entries = self.machine.search(&search, deadline).await?;
        let mut read = Vec::with_capacity(entries.len());
        for entry in &entries {
            // Empty if it is not a user's account.
            if let Some(person) = people_of(std::slice::from_ref(entry), |_| self.own_domain())?.pop() {
                let account = Account::from_entry(entry)?;
                read.push(Read { person, account, primary: primary(entry)? });
            }
        }
        Ok(read)
    }

    /// Returns the membership of these accounts in the configured groups; `None` if it has to be read for
    /// each individually.
    async fn memberships(
        &self,
        read: &[Read],
        deadline: Instant,
    ) -> Result<Option<HashMap<Uuid, Membership>>, DirectoryError> {
        let Some(first) = read.first().filter(|_| self.has_group_rules()) else { return Ok(None) };
        let rules = self.group_rules(&first.person, deadline).await?;
        // The member lists of this domain do not show groups of other domains.
        if self.forest(deadline).await?.has_further(&self.domain) {
            return Ok(None);
        }
        let inside = remembered(&self.nested, INSIDE, self.all_inside(&rules, deadline), deadline).await?;
        let Some(groups) = inside else { return Ok(None) };
        let allowed = self.members(read, &groups.allow, deadline).await?;
        let denied = self.members(read, &groups.deny, deadline).await?;
        let membership = |guid: &Uuid| Membership {
            allowed: rules.allow.is_none() || allowed.contains(guid),
            denied: denied.contains(guid),
        };
        Ok(Some(read.iter().map(|read| (read.person.guid, membership(&read.person.guid))).collect()))
    }

    /// Returns the groups of `rules` and those inside them; `None` if there are too many.
    async fn all_inside(
        &self,
        rules: &GroupRules,
        deadline: Instant,
    ) -> Result<Option<Inside>, DirectoryError> {
        let allow = self.inside(rules.allow.as_deref().unwrap_or_default(), deadline).await?;
        let deny = self.inside(&rules.deny, deadline).await?;
        Ok(allow.zip(deny).map(|(allow, deny)| Inside { allow, deny }))
    }

    /// Notes which of these accounts are in the group Protected Users of this host's domain.
    async fn with_protection(
        &self,
        mut read: Vec<Read>,
        deadline: Instant,
    ) -> Result<Vec<Read>, DirectoryError> {
        let Some(primary) = read.iter().find_map(|read| read.primary.as_ref()) else { return Ok(read) };
        let group = [primary.sibling(PROTECTED_USERS)];
        let Some(groups) = self.inside(&group, deadline).await? else { return Ok(read) };
        let members = self.members(&read, &groups, deadline).await?;
        for read in &mut read {
            read.account.protected = Some(members.contains(&read.person.guid));
        }
        Ok(read)
    }

    /// Returns these groups and every security group inside them; `None` if there are more than [`NESTED`].
    async fn inside(&self, groups: &[Sid], deadline: Instant) -> Result<Option<Vec<Sid>>, DirectoryError> {
        let (mut all, mut level) = (groups.to_vec(), groups.to_vec());
        while !level.is_empty() {
            // 1.2.840.113556.1.4.803: all of these bits are set (MS-ADTS 3.1.1.3.4.4.1).
            let filter = format!(
                "(&(objectCategory=group)(groupType:1.2.840.113556.1.4.803:=2147483648)(|{}))",
                member_of(&level)
            );
            let search = search(&self.root, filter, "objectSid", NESTED);
            let entries = match self.machine.search(&search, deadline).await {
                Err(MachineError::TooMany(_)) => return Ok(None),
                other => other?,
            };
            let sids = entries.iter().filter_map(|entry| Sid::try_from(entry.bytes("objectSid").ok()??).ok());
            level = sids.filter(|sid| !all.contains(sid)).collect();
            all.extend(level.iter().cloned());
            if all.len() > NESTED {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// Returns the accounts that are members of one of these groups.
    async fn members(
        &self,
        read: &[Read],
        groups: &[Sid],
        deadline: Instant,
    ) -> Result<HashSet<Uuid>, DirectoryError> {
        let is_primary = |read: &&Read| read.primary.as_ref().is_some_and(|primary| groups.contains(primary));
        let mut members: HashSet<_> = read.iter().filter(is_primary).map(|read| read.person.guid).collect();
        let rest: Vec<_> =
            read.iter().map(|read| read.person.guid).filter(|guid| !members.contains(guid)).collect();
        if rest.is_empty() || groups.is_empty() {
            return Ok(members);
        }
        let filter = format!("(&{}(|{}))", any_of(&rest), member_of(groups));
        let search = search(&self.root, filter, "objectGUID", read.len());
        members.extend(self.machine.search(&search, deadline).await?.iter().filter_map(guid_of));
        Ok(members)
    }
}

fn search(base: &str, filter: String, attribute: &str, limit: usize) -> Search {
    let attributes = vec![attribute.to_owned()];
    Search { place: Place::Own, base: base.to_owned(), scope: Scope::Subtree, filter, attributes, limit }
}

/// Returns the filter for direct members of these groups, which are named by SID (MS-ADTS 3.1.1.3.1.2.4).
fn member_of(groups: &[Sid]) -> String {
    groups.iter().map(|sid| format!("(memberOf=<SID={sid}>)")).collect()
}

/// Returns the SID of an account's primary group; `None` if one of [`PRIMARY`] is missing.
///
/// # Errors
/// Returns an error if one of them is malformed.
pub(crate) fn primary(entry: &Entry) -> Result<Option<Sid>, EntryError> {
    let own = entry.bytes("objectSid")?.and_then(|bytes| Sid::try_from(bytes).ok());
    Ok(own.zip(entry.flags("primaryGroupID")?).map(|(own, rid)| own.sibling(rid)))
}

/// Positions of accounts by their names.
struct Index {
    explicit: HashMap<String, Vec<usize>>,
    implicit: HashMap<String, Vec<usize>>,
}

impl Index {
    fn new(read: &[Read]) -> Self {
        let mut index = Index { explicit: HashMap::new(), implicit: HashMap::new() };
        for (at, read) in read.iter().enumerate() {
            index.implicit.entry(fold(&read.person.sam)).or_default().push(at);
            if let Some(upn) = &read.person.upn {
                index.explicit.entry(fold(upn)).or_default().push(at);
            }
        }
        index
    }

    fn candidates(&self, principal: &Principal) -> Vec<usize> {
        let explicit = self.explicit.get(&principal.to_string());
        let implicit = self.implicit.get(principal.user());
        let mut places: Vec<_> = explicit.into_iter().chain(implicit).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::scripted::{Answer, Scripted, config, forest, state};
    use crate::verdict::Outcome;

    const DOMAIN: &str = "S-1-5-21-1-2-3";

    fn sid(text: &str) -> Vec<u8> {
        let parts: Vec<u32> = text.split('-').skip(3).map(|part| part.parse().unwrap()).collect();
        let mut bytes = vec![1, u8::try_from(parts.len()).unwrap(), 0, 0, 0, 0, 0, 5];
        parts.iter().for_each(|part| bytes.extend(part.to_le_bytes()));
        bytes
    }

    /// An account of acme.com; its number fills the GUID and ends the SID.
    fn account(number: u8, sam: &str, upn: Option<&str>, flags: &str) -> Entry {
        let entry = Entry::new(format!("CN={sam},DC=acme,DC=com"))
            .with("objectGUID", [vec![number; 16]])
            .with("objectSid", [sid(&format!("{DOMAIN}-{number}"))])
            .with("primaryGroupID", ["513"])
            .with("sAMAccountName", [sam])
            .with("userPrincipalName", upn)
            .with("userAccountControl", [flags]);
        state(entry)
    }

    fn group(rid: u32, flags: &str) -> Entry {
        Entry::new(format!("CN={rid}"))
            .with("objectSid", [sid(&format!("{DOMAIN}-{rid}"))])
            .with("groupType", [flags])
    }

    fn member(number: u8) -> Entry {
        Entry::new("CN=x").with("objectGUID", [vec![number; 16]])
    }

    /// Looks up these names on a host with this `[login]`.
    async fn find(
        login: &str,
        names: &[&str],
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<Vec<Result<Seen, DirectoryError>>, DirectoryError> {
        let directory = Directory::new(Scripted::new(answers), &config(&format!("[login]\n{login}")));
        let principals: Vec<_> = names.iter().map(|name| Principal::parse(name).unwrap()).collect();
        let found = directory.find_many(&principals, Instant::now() + Duration::from_secs(5)).await;
        directory.machine().is_finished();
        found
    }

    #[tokio::test]
    async fn one_search_finds_everybody_as_a_login_would() {
        let everybody = vec![
            account(1, "john.doe", Some("John.Doe@acme.com"), "512"),
            account(2, "clash", Some("clash.b@acme.com"), "514"),
            account(3, "clash.a", Some("clash@acme.com"), "512"),
            account(4, "twin.a", Some("twin@brand.example"), "512"),
            account(5, "twin.b", Some("Twin@brand.example"), "512"),
            account(6, "mary  ann", None, "512"),
            account(7, "HOST$", None, "4096"),
        ];
        let names = [
            "john.doe@acme.com",
            "clash@acme.com",
            "twin@brand.example",
            "mary ann@acme.com",
            "host$@acme.com",
            "clash.b@acme.com",
        ];
        let search = "own dc=acme,dc=com (&\
            (|(userPrincipalName=john.doe@acme.com)(sAMAccountName=john.doe)\
            (userPrincipalName=clash@acme.com)(sAMAccountName=clash)\
            (userPrincipalName=twin@brand.example)\
            (userPrincipalName=mary ann@acme.com)(sAMAccountName=mary ann)\
            (userPrincipalName=host$@acme.com)(sAMAccountName=host$)\
            (userPrincipalName=clash.b@acme.com)(sAMAccountName=clash.b))\
            (objectCategory=person)(objectClass=user))";
        let found = find("", &names, [(search, Ok(everybody))]).await.unwrap();
        let who = |found: &Result<Seen, DirectoryError>| match found {
            Ok(seen) => seen.person.sam.clone(),
            Err(DirectoryError::Unknown(_)) => "nobody".to_owned(),
            Err(DirectoryError::Ambiguous { dns, .. }) => dns.clone(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(
            found.iter().map(who).collect::<Vec<_>>(),
            [
                "john.doe",
                "clash.a",
                "CN=twin.a,DC=acme,DC=com and CN=twin.b,DC=acme,DC=com",
                "nobody",
                "nobody",
                "clash"
            ]
        );
        let state =
            |at: usize| found[at].as_ref().unwrap().account.refusal(std::time::SystemTime::now(), "X");
        assert_eq!((state(1), state(5)), (None, Some(Outcome::Disabled)));
        assert_eq!(find("", &[], []).await, Ok(Vec::new()));
    }

    /// A forest of one domain.
    fn alone() -> [Answer; 2] {
        let [root, (search, partitions)] = forest();
        let partitions = partitions.map(|all| all.into_iter().take(2).collect());
        [root, (search, partitions)]
    }

    const RULES: &str = "allow_groups = ['Agents']\ndeny_groups = ['Denied']";

    fn configured() -> [Answer; 2] {
        [
            ("sAMAccountName=Agents", Ok(vec![group(1000, "-2147483646")])),
            ("sAMAccountName=Denied", Ok(vec![group(2000, "-2147483646")])),
        ]
    }

    fn three() -> Vec<Entry> {
        let primary = |entry: Entry, rid: &str| {
            let kept: Vec<_> = entry
                .attributes()
                .filter(|(name, _)| *name != "primarygroupid")
                .map(|(name, values)| (name.to_owned(), values.to_vec()))
                .collect();
            let entry =
                kept.into_iter().fold(Entry::new(entry.dn()), |new, (name, values)| new.with(&name, values));
            entry.with("primaryGroupID", [rid])
        };
        vec![
            account(1, "direct", None, "512"),
            primary(account(2, "primary", None, "512"), "1001"),
            account(3, "denied", None, "512"),
            account(4, "outside", None, "512"),
        ]
    }

    const NAMES: [&str; 4] = ["direct@acme.com", "primary@acme.com", "denied@acme.com", "outside@acme.com"];

    #[tokio::test]
    async fn groups_count_with_what_is_inside_them_and_with_the_primary_group() {
        let inside = [
            // 1001 is in 1000, 1002 in 1001, and 1000 in 1002 in turn.
            (
                "(&(objectCategory=group)(groupType:1.2.840.113556.1.4.803:=2147483648)\
                 (|(memberOf=<SID=S-1-5-21-1-2-3-1000>)))",
                Ok(vec![group(1001, "")]),
            ),
            ("(|(memberOf=<SID=S-1-5-21-1-2-3-1001>)))", Ok(vec![group(1002, "")])),
            ("(|(memberOf=<SID=S-1-5-21-1-2-3-1002>)))", Ok(vec![group(1000, "")])),
            ("(|(memberOf=<SID=S-1-5-21-1-2-3-2000>)))", Ok(vec![])),
        ];
        let members = [
            // A primary group needs no search.
            (
                "(&(|(objectGUID=\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01\\01)\
                 (objectGUID=\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03\\03)\
                 (objectGUID=\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04\\04))\
                 (|(memberOf=<SID=S-1-5-21-1-2-3-1000>)(memberOf=<SID=S-1-5-21-1-2-3-1001>)\
                 (memberOf=<SID=S-1-5-21-1-2-3-1002>)))",
                Ok(vec![member(1), member(3)]),
            ),
            ("(|(memberOf=<SID=S-1-5-21-1-2-3-2000>)))", Ok(vec![member(3)])),
        ];
        let answers = [("userPrincipalName=direct", Ok(three()))].into_iter();
        let answers = answers.chain(configured()).chain(alone()).chain(inside).chain(members);
        let found = find(RULES, &NAMES, answers).await.unwrap();
        let seen: Vec<_> = found.iter().map(|found| found.as_ref().unwrap().membership.unwrap()).collect();
        let membership = |allowed, denied| Membership { allowed, denied };
        assert_eq!(
            seen,
            [
                membership(true, false),
                membership(true, false),
                membership(true, true),
                membership(false, false)
            ]
        );
    }

    #[tokio::test]
    async fn where_member_lists_do_not_tell_each_account_is_asked() {
        let token = |number: u8| {
            account(number, "x", None, "512").with("tokenGroups", [sid(&format!("{DOMAIN}-1000"))])
        };
        let each = || {
            [
                ("<GUID=01010101", Ok(vec![token(1)])),
                ("<GUID=02020202", Ok(vec![token(2)])),
                ("<GUID=03030303", Ok(vec![token(3)])),
                ("<GUID=04040404", Err(MachineError::NoSuchObject("CN=outside".into()))),
            ]
        };
        let first = || [("userPrincipalName=direct", Ok(three()))].into_iter().chain(configured());
        // Another domain in the forest; too many groups.
        let further = first().chain(forest()).chain(each());
        let many = [("(|(memberOf=<SID=S-1-5-21-1-2-3-1000>)))", Err(MachineError::TooMany(NESTED)))];
        let deny = [("(|(memberOf=<SID=S-1-5-21-1-2-3-2000>)))", Ok(vec![]))];
        let many = first().chain(alone()).chain(many).chain(deny).chain(each());
        for found in [find(RULES, &NAMES, further).await, find(RULES, &NAMES, many).await] {
            let found = found.unwrap();
            for seen in found.iter().take(3).map(|found| found.as_ref().unwrap()) {
                assert_eq!(seen.membership, None);
                assert_eq!(seen.account.groups.as_ref().map(Vec::len), Some(1));
            }
            assert!(found[3].is_err());
        }
    }

    #[tokio::test]
    async fn a_group_that_does_not_exist_leaves_nobody_judged() {
        let answers = [("userPrincipalName=direct", Ok(three())), ("sAMAccountName=Agents", Ok(vec![]))];
        let error = find("allow_groups = ['Agents']", &NAMES, answers).await.unwrap_err();
        assert!(matches!(error, DirectoryError::Group(_)), "{error}");
    }

    #[tokio::test]
    async fn somebody_of_another_domain_is_found_and_read_there() {
        let mary = || account(7, "mary", Some("m.rossi@brand.example"), "512");
        let answers = [
            ("own dc=acme,dc=com", Ok(vec![])),
            ("catalogue  ", Ok(vec![mary()])),
            ("emea.acme.com <GUID=07070707", Ok(vec![mary()])),
            ("emea.acme.com <GUID=07070707", Ok(vec![mary()])),
        ];
        // In the catalogue, the distinguished name shows the account's domain.
        let answers = answers.map(|(search, entries): Answer| {
            let moved = |entry: Entry| {
                let attributes: Vec<_> =
                    entry.attributes().map(|(name, values)| (name.to_owned(), values.to_vec())).collect();
                let there = Entry::new("CN=mary,DC=emea,DC=acme,DC=com");
                attributes.into_iter().fold(there, |new, (name, values)| new.with(&name, values))
            };
            (search, entries.map(|entries| entries.into_iter().map(moved).collect()))
        });
        let found = find("", &["m.rossi@brand.example"], answers.into_iter().chain(forest())).await.unwrap();
        assert_eq!(found[0].as_ref().unwrap().person.domain, "emea.acme.com");
    }
}
