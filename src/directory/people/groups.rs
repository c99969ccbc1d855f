//! Configured groups, found once and from then on compared by SID.

use ldap3::{Scope, ldap_escape};
use tokio::time::Instant;

use crate::directory::forest::is_inside;
use crate::directory::machine::{MachineError, Search};
use crate::directory::machines::Place;
use crate::directory::sid::Sid;
use crate::directory::{Directory, DirectoryError, Entry, Machine};
use crate::name::fold;

/// `groupType` (MS-ADTS 2.2.12): a group that AD puts into tokens, and one that it puts only into those of its own
/// domain.
const SECURITY_ENABLED: u32 = 0x8000_0000;
const DOMAIN_LOCAL: u32 = 0x4;

/// Why a configured group has no SID, or says nothing about somebody.
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
    /// No domain of the forest has this name.
    #[error("the group {0:?} is of no domain of this forest; name it by its SID")]
    Domain(String),
    /// Whether somebody from another domain is in it, that domain does not tell.
    #[error("the group {0:?} is domain local and hides its members from other domains; make it universal")]
    Local(String),
}

/// How a group may be written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written<'a> {
    Sid(Sid),
    Dn(&'a str),
    /// Its `sAMAccountName`, and the domain before the backslash, by its NetBIOS or its DNS name.
    Name(Option<&'a str>, &'a str),
}

fn read(group: &str) -> Written<'_> {
    if let Ok(sid) = group.parse() {
        return Written::Sid(sid);
    }
    match group.split_once('\\') {
        // A distinguished name may hold backslashes, too.
        _ if group.contains('=') => Written::Dn(group),
        Some((domain, name)) => Written::Name(Some(domain), name),
        None => Written::Name(None, group),
    }
}

fn group_search(place: Place, base: &str, scope: Scope, name: &str) -> Search {
    Search {
        place,
        base: base.to_owned(),
        scope,
        filter: format!("(&(objectCategory=group){name})"),
        attributes: ["objectSid", "groupType"].map(str::to_owned).to_vec(),
        limit: 2,
    }
}

/// A group as AD has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    sid: Sid,
    is_local: bool,
}

/// The only group among `entries`.
fn group_of(group: &str, entries: &[Entry]) -> Result<Group, GroupError> {
    let [entry] = entries else {
        return Err(match entries {
            [] => GroupError::Unknown(group.to_owned()),
            _ => GroupError::Several(group.to_owned()),
        });
    };
    let flags = entry.flags("groupType").ok().flatten().unwrap_or_default();
    if flags & SECURITY_ENABLED == 0 {
        return Err(GroupError::Distribution(group.to_owned()));
    }
    let sid = entry.bytes("objectSid").ok().flatten().and_then(|bytes| Sid::try_from(bytes).ok());
    let sid = sid.ok_or_else(|| GroupError::Unknown(group.to_owned()))?;
    Ok(Group { sid, is_local: flags & DOMAIN_LOCAL != 0 })
}

/// What a login needs to know about configured groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules {
    /// `login.allow_groups`; empty allows everybody.
    pub allow: Vec<Sid>,
    /// `login.deny_groups`.
    pub deny: Vec<Sid>,
    /// Those of `login.deny_groups` that are domain local, as they are written, and where they are.
    local: Vec<(String, Place)>,
}

impl GroupRules {
    /// Whether the groups that a person has in `place` tell all that the rules ask.
    ///
    /// # Errors
    /// Somebody may be in a denied group without its being seen there. An allowed group that is not seen denies by
    /// itself.
    pub(in crate::directory) fn can_judge(&self, place: &Place) -> Result<(), GroupError> {
        match self.local.iter().find(|(_, home)| home != place) {
            Some((group, _)) => Err(GroupError::Local(group.clone())),
            None => Ok(()),
        }
    }
}

impl<M: Machine> Directory<M> {
    /// The configured groups by SID, as AD has them now.
    ///
    /// # Errors
    /// AD was not reached, or one of them has none.
    pub(in crate::directory) async fn read_group_rules(
        &self,
        deadline: Instant,
    ) -> Result<GroupRules, DirectoryError> {
        let mut rules = GroupRules::default();
        for group in &self.allow {
            rules.allow.push(self.group(group, deadline).await?.0.sid);
        }
        for name in &self.deny {
            let (group, place) = self.group(name, deadline).await?;
            rules.deny.push(group.sid);
            if let Some(place) = place.filter(|_| group.is_local) {
                rules.local.push((name.clone(), place));
            }
        }
        Ok(rules)
    }

    /// Whether the group that is written so in the configuration can be used.
    ///
    /// # Errors
    /// AD was not reached until `deadline`, or it has no SID.
    pub async fn check_group(&self, written: &str, deadline: Instant) -> Result<(), DirectoryError> {
        self.group(written, deadline).await.map(drop)
    }

    /// `sessions.exempt_groups` by SID, as AD has them now. Somebody whose domain hides that they are in one is not
    /// exempt.
    ///
    /// # Errors
    /// As [`Directory::read_group_rules`].
    pub(in crate::directory) async fn read_exempt(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Sid>, DirectoryError> {
        let mut sids = Vec::new();
        for name in &self.exempt {
            let (group, _) = self.group(name, deadline).await.map_err(|error| match error {
                DirectoryError::Group(error) => DirectoryError::Exempt(error),
                other => other,
            })?;
            sids.push(group.sid);
        }
        Ok(sids)
    }

    /// The group that is written so, and where it was found; a SID is taken as it is.
    async fn group(
        &self,
        written: &str,
        deadline: Instant,
    ) -> Result<(Group, Option<Place>), DirectoryError> {
        let search = match read(written) {
            Written::Sid(sid) => return Ok((Group { sid, is_local: false }, None)),
            Written::Dn(dn) => group_search(self.place_of_object(dn, deadline).await?, dn, Scope::Base, ""),
            Written::Name(domain, name) => {
                let (place, base) = self.named_domain(written, domain, deadline).await?;
                let name = format!("(sAMAccountName={})", ldap_escape(name));
                group_search(place, &base, Scope::Subtree, &name)
            }
        };
        match self.machine.search(&search, deadline).await {
            Ok(entries) => Ok((group_of(written, &entries)?, Some(search.place))),
            Err(MachineError::NoSuchObject(_)) => Err(GroupError::Unknown(written.to_owned()).into()),
            Err(MachineError::TooMany(_)) => Err(GroupError::Several(written.to_owned()).into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Where a group with `domain` before its name is looked for. Of this domain nothing has to be asked.
    async fn named_domain(
        &self,
        group: &str,
        domain: Option<&str>,
        deadline: Instant,
    ) -> Result<(Place, String), DirectoryError> {
        let Some(domain) = domain.filter(|domain| fold(domain) != fold(&self.netbios)) else {
            return Ok((Place::Own, self.base.clone()));
        };
        let forest = self.forest(deadline).await?;
        let found = forest.by_netbios(domain).or_else(|| forest.by_name(domain));
        let found = found.ok_or_else(|| GroupError::Domain(group.to_owned()))?;
        Ok((self.place(&found.name), found.dn.clone()))
    }

    /// Where an object is read. What lies below this domain may be of another one.
    async fn place_of_object(&self, dn: &str, deadline: Instant) -> Result<Place, DirectoryError> {
        match self.forest(deadline).await {
            Ok(forest) => Ok(forest.of_object(dn).map_or(Place::Own, |domain| self.place(&domain.name))),
            Err(_) if is_inside(dn, &self.root) => Ok(Place::Own),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::Person;
    use crate::directory::scripted::{Answer, Scripted, config, forest, unreachable};

    fn group(flags: &str) -> Entry {
        let sid = vec![1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        Entry::new("CN=Agents,DC=acme,DC=com").with("groupType", [flags]).with("objectSid", [sid])
    }

    #[test]
    fn a_group_may_be_written_in_four_ways() {
        assert_eq!(read("S-1-5-32-544"), Written::Sid("S-1-5-32-544".parse().unwrap()));
        assert_eq!(read("CN=A\\, B,DC=x"), Written::Dn("CN=A\\, B,DC=x"));
        assert_eq!(read("acme\\Agents"), Written::Name(Some("acme"), "Agents"));
        assert_eq!(read("Agents (Night)"), Written::Name(None, "Agents (Night)"));
    }

    #[test]
    fn exactly_one_security_group_has_a_sid() {
        let global = group_of("g", &[group("-2147483646")]).unwrap();
        assert_eq!((global.sid.to_string().as_str(), global.is_local), ("S-1-5-32-544", false));
        assert!(group_of("g", &[group("-2147483644")]).unwrap().is_local);
        assert_eq!(group_of("g", &[]), Err(GroupError::Unknown("g".into())));
        assert_eq!(group_of("g", &[group("-2147483646"), group("2")]), Err(GroupError::Several("g".into())));
        assert_eq!(group_of("g", &[group("2")]), Err(GroupError::Distribution("g".into())));
    }

    fn person(domain: &str) -> Person {
        Person {
            dn: "CN=x".into(),
            guid: uuid::Uuid::nil(),
            sam: "x".into(),
            upn: None,
            domain: domain.into(),
        }
    }

    /// The rules that this configuration makes for somebody of `domain`.
    async fn rules(
        login: &str,
        domain: &str,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<GroupRules, DirectoryError> {
        let directory = Directory::new(Scripted::new(answers), &config(&format!("[login]\n{login}")));
        let rules = directory.group_rules(&person(domain), Instant::now() + Duration::from_secs(5)).await;
        directory.machine().is_finished();
        rules
    }

    const GLOBAL: &str = "-2147483646";
    const LOCAL: &str = "-2147483644";

    #[tokio::test]
    async fn a_group_is_looked_for_in_the_domain_that_it_names() {
        let cases = [
            ("Agents", "own dc=acme,dc=com (&(objectCategory=group)(sAMAccountName=Agents))", false),
            ("acme\\Agents", "own dc=acme,dc=com (&(objectCategory=group)(sAMAccountName=Agents))", false),
            ("x)(*", "own dc=acme,dc=com (&(objectCategory=group)(sAMAccountName=x\\29\\28\\2a))", false),
            (
                "emea\\Agents",
                "emea.acme.com DC=emea,DC=acme,DC=com (&(objectCategory=group)(sAMAccountName=Agents))",
                true,
            ),
            ("emea.acme.com\\Agents", "emea.acme.com DC=emea,DC=acme,DC=com", true),
            ("CN=A,DC=acme,DC=com", "own CN=A,DC=acme,DC=com (&(objectCategory=group))", true),
            ("CN=A,DC=emea,DC=acme,DC=com", "emea.acme.com CN=A,DC=emea,DC=acme,DC=com", true),
        ];
        for (written, search, asks_forest) in cases {
            let forest = forest().into_iter().filter(|_| asks_forest);
            let answers = forest.chain([(search, Ok(vec![group(GLOBAL)]))]);
            let found = rules(&format!("allow_groups = ['{written}']"), "acme.com", answers).await;
            assert_eq!(found.unwrap().allow, ["S-1-5-32-544".parse().unwrap()], "{written}");
        }
        let error = rules("allow_groups = ['EVIL\\Agents']", "acme.com", forest()).await.unwrap_err();
        assert_eq!(error, GroupError::Domain("EVIL\\Agents".into()).into());
    }

    #[tokio::test]
    async fn a_forest_that_cannot_be_read_spoils_no_group_of_this_domain() {
        let silent = || ("own  ", Err(unreachable()));
        let here = "allow_groups = ['CN=A,DC=acme,DC=com']";
        rules(here, "acme.com", [silent(), ("own CN=A", Ok(vec![group(GLOBAL)]))]).await.unwrap();
        let there = "allow_groups = ['CN=A,DC=other,DC=example']";
        let error = rules(there, "acme.com", [silent()]).await.unwrap_err();
        assert_eq!(error, unreachable().into());
    }

    #[tokio::test]
    async fn a_denied_group_that_hides_its_members_denies() {
        let answers = |flags| [("sAMAccountName=Blocked", Ok(vec![group(flags)]))];
        let cases = [
            (GLOBAL, "acme.com", true),
            (GLOBAL, "emea.acme.com", true),
            (LOCAL, "acme.com", true),
            (LOCAL, "emea.acme.com", false),
        ];
        for (flags, domain, judged) in cases {
            let denied = rules("deny_groups = ['Blocked']", domain, answers(flags)).await;
            assert_eq!(denied.is_ok(), judged, "{flags} {domain}");
            // Who is not seen in an allowed group stays out without that.
            assert!(rules("allow_groups = ['Blocked']", domain, answers(flags)).await.is_ok());
        }
    }
}
