//! Many people at once, for an audit: by the rules of [`Directory::find`], with one search for a hundred names.
//!
//! `tokenGroups` wants a search for each account. Where the forest is one domain, the groups inside a configured group
//! are found first, and each hundred accounts is then asked for once: who of them is a member of one of these. All of
//! them are named by SID.

use std::collections::{HashMap, HashSet};

use ldap3::Scope;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ATTRIBUTES, CANDIDATES, choose, named, people_of, people_search};
use crate::directory::account::Account;
use crate::directory::entry::{Entry, EntryError};
use crate::directory::machine::{MachineError, Search};
use crate::directory::machines::Place;
use crate::directory::sid::Sid;
use crate::directory::{Directory, DirectoryError, Machine, Person};
use crate::name::{Principal, fold};

/// So many names go into one search: a domain controller has answered it in some 40 ms, and no login that reads on the
/// same connection waits longer.
pub const TOGETHER: usize = 100;

/// The most groups inside the configured ones; with more, each account is asked for its own.
const NESTED: usize = 200;

/// The primary group is no member list (MS-ADTS 3.1.1.4.5.19).
const PRIMARY: [&str; 2] = ["objectSid", "primaryGroupID"];

/// An account as an audit has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who it is.
    pub person: Person,
    /// Its state.
    pub account: Account,
    /// What the configured groups say; `None`: [`Account::groups`] tells, or there are none.
    pub membership: Option<Membership>,
}

/// What the configured groups say of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// A member of one of `login.allow_groups`, or there are none.
    pub allowed: bool,
    /// A member of one of `login.deny_groups`.
    pub denied: bool,
}

/// An account of this host's domain and the SID of its primary group.
struct Read {
    person: Person,
    account: Account,
    primary: Option<Sid>,
}

impl<M: Machine> Directory<M> {
    /// The accounts that at most [`TOGETHER`] principals mean, with their state, in the same order; for each why there
    /// is none.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, or a configured group has no SID.
    pub async fn find_many(
        &self,
        principals: &[Principal],
        deadline: Instant,
    ) -> Result<Vec<Result<Seen, DirectoryError>>, DirectoryError> {
        let read = self.read_many(principals, deadline).await?;
        let memberships = self.memberships(&read, deadline).await?;
        let index = Index::new(&read);
        let mut found = Vec::with_capacity(principals.len());
        for principal in principals {
            let place = index.candidates(principal);
            let people = place.iter().filter_map(|at| Some(read.get(*at)?.person.clone())).collect();
            found.push(match choose(principal, people) {
                Ok(chosen) => {
                    let at = place.into_iter().find(|at| {
                        read.get(*at).is_some_and(|read| read.person.guid == chosen.person.guid)
                    });
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

    /// What there is to know of somebody who was found; read by itself where the searches for many do not tell.
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

    /// Everybody of this host's domain who bears one of these names.
    async fn read_many(&self, principals: &[Principal], deadline: Instant) -> Result<Vec<Read>, DirectoryError> {
        let mut names = String::new();
        for principal in principals {
            names += &named("userPrincipalName", &principal.to_string());
            if self.is_own(principal.domain()) {
                names += &named("sAMAccountName", principal.user());
            }
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut search = people_search(Place::Own, &self.base, &names, principals.len() * CANDIDATES);
        let further = Account::ATTRIBUTES.iter().chain(&PRIMARY);
        search.attributes.extend(further.filter(|name| !ATTRIBUTES.contains(name)).map(|name| (*name).to_owned()));
        let entries = self.machine.search(&search, deadline).await?;
        let mut read = Vec::with_capacity(entries.len());
        for entry in &entries {
            // None, where it is no person.
            if let Some(person) = people_of(std::slice::from_ref(entry), |_| self.own_domain())?.pop() {
                let account = Account::from_entry(entry)?;
                read.push(Read { person, account, primary: primary(entry)? });
            }
        }
        Ok(read)
    }

    /// What the configured groups say of these accounts; `None` where that is to be asked for each by itself.
    async fn memberships(
        &self,
        read: &[Read],
        deadline: Instant,
    ) -> Result<Option<HashMap<Uuid, Membership>>, DirectoryError> {
        let Some(first) = read.first().filter(|_| self.has_group_rules()) else { return Ok(None) };
        let rules = self.group_rules(&first.person, deadline).await?;
        // Groups of other domains do not show in the member lists of this one.
        if self.forest(deadline).await?.has_further(&self.domain) {
            return Ok(None);
        }
        let (allow, deny) = (self.inside(&rules.allow, deadline).await?, self.inside(&rules.deny, deadline).await?);
        let (Some(allow), Some(deny)) = (allow, deny) else { return Ok(None) };
        let allowed = self.members(read, &allow, deadline).await?;
        let denied = self.members(read, &deny, deadline).await?;
        let membership = |guid: &Uuid| Membership {
            allowed: rules.allow.is_empty() || allowed.contains(guid),
            denied: denied.contains(guid),
        };
        Ok(Some(read.iter().map(|read| (read.person.guid, membership(&read.person.guid))).collect()))
    }

    /// These groups and every security group inside them; `None`: more than [`NESTED`].
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

    /// Who of these is a member of one of these groups.
    async fn members(
        &self,
        read: &[Read],
        groups: &[Sid],
        deadline: Instant,
    ) -> Result<HashSet<Uuid>, DirectoryError> {
        let is_primary = |read: &&Read| read.primary.as_ref().is_some_and(|primary| groups.contains(primary));
        let mut members: HashSet<_> = read.iter().filter(is_primary).map(|read| read.person.guid).collect();
        let rest: String =
            read.iter().filter(|read| !members.contains(&read.person.guid)).map(|read| by_guid(&read.person)).collect();
        if rest.is_empty() || groups.is_empty() {
            return Ok(members);
        }
        let filter = format!("(&(|{rest})(|{}))", member_of(groups));
        let search = search(&self.root, filter, "objectGUID", read.len());
        for entry in self.machine.search(&search, deadline).await? {
            let guid = entry.bytes("objectGUID")?.and_then(|bytes| bytes.try_into().ok());
            members.extend(guid.map(Uuid::from_bytes_le));
        }
        Ok(members)
    }
}

fn search(base: &str, filter: String, attribute: &str, limit: usize) -> Search {
    let attributes = vec![attribute.to_owned()];
    Search { place: Place::Own, base: base.to_owned(), scope: Scope::Subtree, filter, attributes, limit }
}

/// Direct members of these groups, which stand there by SID (MS-ADTS 3.1.1.3.1.2.4).
fn member_of(groups: &[Sid]) -> String {
    groups.iter().map(|sid| format!("(memberOf=<SID={sid}>)")).collect()
}

fn by_guid(person: &Person) -> String {
    let bytes: String = person.guid.to_bytes_le().iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(objectGUID={bytes})")
}

fn primary(entry: &Entry) -> Result<Option<Sid>, EntryError> {
    let own = entry.bytes("objectSid")?.and_then(|bytes| Sid::try_from(bytes).ok());
    Ok(own.zip(entry.flags("primaryGroupID")?).map(|(own, rid)| own.sibling(rid)))
}

/// Where somebody stands who bears a name.
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
