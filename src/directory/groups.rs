//! Configured groups, found once and from then on compared by SID.

use ldap3::{Scope, ldap_escape};

use super::machine::Search;
use super::sid::Sid;
use super::{Entry, Machine};
use crate::name::fold;

/// `groupType` of a group that AD puts into tokens (MS-ADTS 2.2.12).
const SECURITY_ENABLED: u32 = 0x8000_0000;

/// Why a configured group has no SID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// AD has no such group.
    #[error("the group {0:?} does not exist in AD")]
    Unknown(String),
    /// AD has several.
    #[error("the group {0:?} exists more than once in AD; name it by its distinguished name or its SID")]
    Several(String),
    /// AD never puts it into a token, so that nobody would ever be in it.
    #[error("the group {0:?} is a distribution group; AD counts only members of security groups")]
    Distribution(String),
    /// Its domain is another one.
    #[error("the group {0:?} is not of this domain; name it by its SID")]
    Domain(String),
}

/// How a group may be written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written<'a> {
    Sid(Sid),
    Dn(&'a str),
    Name(&'a str),
}

fn read<'a>(group: &'a str, netbios: &str) -> Result<Written<'a>, GroupError> {
    if let Ok(sid) = group.parse() {
        return Ok(Written::Sid(sid));
    }
    match group.split_once('\\') {
        // A distinguished name may hold backslashes, too.
        _ if group.contains('=') => Ok(Written::Dn(group)),
        Some((domain, name)) if fold(domain) == fold(netbios) => Ok(Written::Name(name)),
        Some(_) => Err(GroupError::Domain(group.to_owned())),
        None => Ok(Written::Name(group)),
    }
}

/// The search that finds `group`, or its SID where that is what was written.
pub(super) fn search(group: &str, netbios: &str, base: &str) -> Result<Result<Sid, Search>, GroupError> {
    let attributes = ["objectSid", "groupType"].map(str::to_owned).to_vec();
    Ok(match read(group, netbios)? {
        Written::Sid(sid) => Ok(sid),
        Written::Dn(dn) => Err(Search {
            base: dn.to_owned(),
            scope: Scope::Base,
            filter: "(objectCategory=group)".to_owned(),
            attributes,
            limit: 1,
        }),
        Written::Name(name) => Err(Search {
            base: base.to_owned(),
            scope: Scope::Subtree,
            filter: format!("(&(objectCategory=group)(sAMAccountName={}))", ldap_escape(name)),
            attributes,
            limit: 2,
        }),
    })
}

/// The SID of the only group among `entries`.
pub(super) fn sid_of(group: &str, entries: &[Entry]) -> Result<Sid, GroupError> {
    let [entry] = entries else {
        return Err(match entries {
            [] => GroupError::Unknown(group.to_owned()),
            _ => GroupError::Several(group.to_owned()),
        });
    };
    if entry.flags("groupType").ok().flatten().is_none_or(|flags| flags & SECURITY_ENABLED == 0) {
        return Err(GroupError::Distribution(group.to_owned()));
    }
    let sid = entry.bytes("objectSid").ok().flatten().and_then(|bytes| Sid::try_from(bytes).ok());
    sid.ok_or_else(|| GroupError::Unknown(group.to_owned()))
}

/// What a login needs to know about configured groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules {
    /// `login.allow_groups`; empty allows everybody.
    pub allow: Vec<Sid>,
    /// `login.deny_groups`.
    pub deny: Vec<Sid>,
}

impl<M: Machine> super::Directory<M> {
    /// The SIDs of `groups`, in their order.
    ///
    /// # Errors
    /// AD was not reached, or one of them has none.
    pub(super) async fn sids(
        &self,
        groups: &[String],
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Sid>, super::DirectoryError> {
        let mut sids = Vec::with_capacity(groups.len());
        for group in groups {
            sids.push(match search(group, &self.netbios, &self.base)? {
                Ok(sid) => sid,
                Err(search) => match self.machine.search(&search, deadline).await {
                    Ok(entries) => sid_of(group, &entries)?,
                    Err(super::MachineError::NoSuchObject(_)) => {
                        return Err(GroupError::Unknown(group.clone()).into());
                    }
                    Err(super::MachineError::TooMany(_)) => {
                        return Err(GroupError::Several(group.clone()).into());
                    }
                    Err(e) => return Err(e.into()),
                },
            });
        }
        Ok(sids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(flags: &str) -> Entry {
        let sid = vec![1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        Entry::new("CN=Agents,DC=acme,DC=com").with("groupType", [flags]).with("objectSid", [sid])
    }

    #[test]
    fn a_group_may_be_written_in_four_ways() {
        let read = |group| read(group, "ACME");
        assert_eq!(read("S-1-5-32-544"), Ok(Written::Sid("S-1-5-32-544".parse().unwrap())));
        assert_eq!(read("CN=A\\, B,DC=x"), Ok(Written::Dn("CN=A\\, B,DC=x")));
        assert_eq!(read("acme\\Agents"), Ok(Written::Name("Agents")));
        assert_eq!(read("Agents (Night)"), Ok(Written::Name("Agents (Night)")));
        assert_eq!(read("OTHER\\Agents"), Err(GroupError::Domain("OTHER\\Agents".into())));
    }

    #[test]
    fn a_name_cannot_change_the_filter() {
        let Ok(Err(search)) = search("x)(objectClass=*", "ACME", "dc=acme,dc=com") else { panic!() };
        assert_eq!(search.base, "x)(objectClass=*", "an equals sign makes it a distinguished name");
        let Ok(Err(search)) = super::search("x)(*", "ACME", "dc=acme,dc=com") else { panic!() };
        assert_eq!(search.filter, "(&(objectCategory=group)(sAMAccountName=x\\29\\28\\2a))");
    }

    #[test]
    fn exactly_one_security_group_has_a_sid() {
        assert_eq!(sid_of("g", &[group("-2147483646")]).unwrap().to_string(), "S-1-5-32-544");
        assert_eq!(sid_of("g", &[]), Err(GroupError::Unknown("g".into())));
        assert_eq!(sid_of("g", &[group("-2147483646"), group("2")]), Err(GroupError::Several("g".into())));
        assert_eq!(sid_of("g", &[group("2")]), Err(GroupError::Distribution("g".into())));
    }
}
