//! Configured groups, resolved once and then compared by SID.

use ldap3::{Scope, ldap_escape};
use tokio::time::Instant;

use crate::directory::entry::Entry;
use crate::directory::forest::is_inside;
use crate::directory::machine::{Machine, MachineError, Place, Search};
use crate::directory::people::{Directory, DirectoryError};
use crate::directory::sid::Sid;
use crate::name::fold;

/// `groupType` flags (MS-ADTS 2.2.12): a group that AD puts into tokens, and one that it puts only into
/// tokens of the group's domain.
const SECURITY_ENABLED: u32 = 0x8000_0000;
const DOMAIN_LOCAL: u32 = 0x4;

/// Reason why a configured group has no SID, or why membership in it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// AD has no such group.
    #[error("the group {0:?} does not exist in AD")]
    Unknown(String),
    /// AD has several such groups.
    #[error("the group {0:?} exists more than once in AD; name it by its distinguished name or its SID")]
    Several(String),
    /// AD never puts it into a token, so no account would ever count as a member.
    #[error("the group {0:?} is a distribution group; AD counts only members of security groups")]
    Distribution(String),
    /// No domain of the forest has this name.
    #[error("the group {0:?} is of no domain of this forest, and AD counts no other groups")]
    Domain(String),
    /// Other domains do not show if their accounts are members.
    #[error(
        "the group {0:?} is domain local and hides its members from other domains; make it universal, or \
         deny a universal group instead"
    )]
    Local(String),
}

/// The forms of a group's name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written<'a> {
    Sid(Sid),
    Dn(&'a str),
    /// Its `sAMAccountName`, and the domain before the backslash, as NetBIOS or DNS name.
    Name(Option<&'a str>, &'a str),
}

fn read(group: &str) -> Written<'_> {
    if let Ok(sid) = group.parse() {
        return Written::Sid(sid);
    }
    match group.split_once('\\') {
        // A distinguished name may also contain backslashes.
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
        attributes: ["objectSid", "groupType", "sAMAccountName"].map(str::to_owned).to_vec(),
        limit: 2,
    }
}

/// A configured group, as read from AD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its name in the configuration; for a SID, with the group's name.
    written: String,
    sid: Sid,
    is_local: bool,
    /// The domain that it belongs to.
    home: Place,
}

impl Group {
    /// Returns true if this SID among the groups of an account of `place` means this group, and not another
    /// domain's group with the same SID.
    fn is_meant_in(&self, place: &Place) -> bool {
        !self.sid.is_builtin() || self.home == *place
    }
}

/// Returns the SIDs that mean these `groups` among those of an account of `place`.
pub(in crate::directory) fn sids_in(groups: &[Group], place: &Place) -> Vec<Sid> {
    groups.iter().filter(|group| group.is_meant_in(place)).map(|group| group.sid.clone()).collect()
}

/// Returns the only group among `entries`, which were found in `home`.
pub(crate) fn group_of(group: &str, home: Place, entries: &[Entry]) -> Result<Group, GroupError> {
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
    let written = match (read(group), entry.text("sAMAccountName").ok().flatten()) {
        (Written::Sid(_), Some(name)) => format!("{name} ({group})"),
        _ => group.to_owned(),
    };
    Ok(Group { written, sid, is_local: flags & DOMAIN_LOCAL != 0, home })
}

/// The configured groups for the login of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules {
    /// `login.allow_groups`; `None` allows every account, an empty list allows none.
    pub allow: Option<Vec<Sid>>,
    /// `login.deny_groups`.
    pub deny: Vec<Sid>,
    /// Names of the denied groups in the configuration; for SIDs, with the groups' names.
    written: Vec<(Sid, String)>,
}

/// The configured groups, as read from AD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::directory) struct Configured {
    /// `login.allow_groups`; empty allows every account.
    allow: Vec<Group>,
    /// `login.deny_groups`.
    deny: Vec<Group>,
}

impl GroupRules {
    /// Returns the configuration's name of a denied group.
    pub fn name<'a>(&'a self, sid: &Sid) -> Option<&'a str> {
        self.written.iter().find(|(known, _)| known == sid).map(|(_, name)| name.as_str())
    }
}

impl Configured {
    /// Returns the rules for an account of `place`.
    ///
    /// # Errors
    /// Returns [`GroupError::Local`] if the account may be in a denied group that its own domain does not
    /// show. An allowed group that is not shown needs no error: the account is rejected without it.
    pub(in crate::directory) fn rules_in(&self, place: &Place) -> Result<GroupRules, GroupError> {
        if let Some(hidden) = self.deny.iter().find(|group| group.is_local && group.home != *place) {
            return Err(GroupError::Local(hidden.written.clone()));
        }
        let allow = (!self.allow.is_empty()).then(|| sids_in(&self.allow, place));
        let written = self.deny.iter().map(|group| (group.sid.clone(), group.written.clone())).collect();
        Ok(GroupRules { allow, deny: sids_in(&self.deny, place), written })
    }
}

impl<M: Machine> Directory<M> {
    /// Reads the SIDs of the configured groups from AD.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if one of the groups has no SID.
    pub(in crate::directory) async fn read_group_rules(
        &self,
        deadline: Instant,
    ) -> Result<Configured, DirectoryError> {
        let mut configured = Configured::default();
        for group in &self.allow {
            configured.allow.push(self.group(group, deadline).await?);
        }
        for group in &self.deny {
            configured.deny.push(self.group(group, deadline).await?);
        }
        Ok(configured)
    }

    /// Checks a group of the configuration and returns its name there; for a SID, with the group's name.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`, or if the group has no SID.
    pub async fn check_group(&self, written: &str, deadline: Instant) -> Result<String, DirectoryError> {
        self.group(written, deadline).await.map(|group| group.written)
    }

    /// Reads `sessions.exempt_groups` from AD. An account is not exempt if its domain does not show its
    /// membership.
    ///
    /// # Errors
    /// Like [`Directory::read_group_rules`].
    pub(in crate::directory) async fn read_exempt(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Group>, DirectoryError> {
        let mut groups = Vec::new();
        for name in &self.exempt {
            let group = self.group(name, deadline).await.map_err(|error| match error {
                DirectoryError::Group(error) => DirectoryError::Exempt(error),
                other => other,
            })?;
            groups.push(group);
        }
        Ok(groups)
    }

    /// Finds the group with this name in the configuration.
    async fn group(&self, written: &str, deadline: Instant) -> Result<Group, DirectoryError> {
        let search = match read(written) {
            Written::Sid(sid) => return self.group_with(&sid, written, deadline).await,
            Written::Dn(dn) => group_search(self.place_of_object(dn, deadline).await?, dn, Scope::Base, ""),
            Written::Name(domain, name) => {
                let (place, base) = self.named_domain(written, domain, deadline).await?;
                let name = format!("(sAMAccountName={})", ldap_escape(name));
                group_search(place, &base, Scope::Subtree, &name)
            }
        };
        match self.machine.search(&search, deadline).await {
            Ok(entries) => Ok(group_of(written, search.place, &entries)?),
            Err(MachineError::NoSuchObject(_)) => Err(GroupError::Unknown(written.to_owned()).into()),
            Err(MachineError::TooMany(_)) => Err(GroupError::Several(written.to_owned()).into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Finds the group with this SID, or the one that had it in the domain that it was migrated from
    /// (sIDHistory): in this domain, or in the domain of the forest that the catalogue names. A BUILTIN group
    /// is always this domain's.
    async fn group_with(&self, sid: &Sid, written: &str, deadline: Instant) -> Result<Group, DirectoryError> {
        let name = format!("(|(objectSid={0})(sIDHistory={0}))", sid.in_filter());
        let search = |place, base: &str| group_search(place, base, Scope::Subtree, &name);
        let mut entries = self.machine.search(&search(Place::Own, &self.root), deadline).await?;
        let mut home = Place::Own;
        if entries.is_empty() && !sid.is_builtin() {
            let forest = self.forest(deadline).await?;
            if forest.has_further(&self.domain) {
                entries = self.machine.search(&search(Place::GlobalCatalogue, ""), deadline).await?;
                let domain = entries.first().and_then(|entry| forest.of_object(entry.dn()));
                home = domain.map_or(Place::Own, |domain| self.place(&domain.name));
            }
        }
        // Tokens hold the configured SID.
        Ok(Group { sid: sid.clone(), ..group_of(written, home, &entries)? })
    }

    /// Returns the place and base for a group with `domain` before its name. For this domain no search is
    /// needed. `domain.base_dn` limits accounts, not groups.
    async fn named_domain(
        &self,
        group: &str,
        domain: Option<&str>,
        deadline: Instant,
    ) -> Result<(Place, String), DirectoryError> {
        let Some(domain) = domain.filter(|domain| fold(domain) != fold(&self.netbios)) else {
            return Ok((Place::Own, self.root.clone()));
        };
        let forest = self.forest(deadline).await?;
        let found = forest.by_netbios(domain).or_else(|| forest.by_name(domain));
        let found = found.ok_or_else(|| GroupError::Domain(group.to_owned()))?;
        Ok((self.place(&found.name), found.dn.clone()))
    }

    /// Returns the place to read an object. One below this domain's name may belong to another domain.
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
    use crate::directory::people::person::Person;
    use crate::directory::scripted::{Answer, Scripted, config, forest, unreachable};

    /// BUILTIN\\Administrators.
    const BUILTIN: &str = "S-1-5-32-544";
    const BUILTIN_FILTER: &str =
        "(objectSid=\\01\\02\\00\\00\\00\\00\\00\\05\\20\\00\\00\\00\\20\\02\\00\\00)";

    fn group(flags: &str) -> Entry {
        let sid = vec![1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        Entry::new("CN=Agents,DC=acme,DC=com").with("groupType", [flags]).with("objectSid", [sid])
    }

    /// A group that exists in only one domain: S-1-5-21-1-1000.
    fn unique(dn: &str, flags: &str) -> Entry {
        let sid = vec![1, 3, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 0xe8, 3, 0, 0];
        Entry::new(dn).with("groupType", [flags]).with("objectSid", [sid])
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
        let group_of = |entries: &[Entry]| group_of("g", Place::Own, entries);
        let global = group_of(&[group("-2147483646")]).unwrap();
        assert_eq!((global.sid.to_string().as_str(), global.is_local), ("S-1-5-32-544", false));
        assert!(group_of(&[group("-2147483644")]).unwrap().is_local);
        assert_eq!(group_of(&[]), Err(GroupError::Unknown("g".into())));
        assert_eq!(group_of(&[group("-2147483646"), group("2")]), Err(GroupError::Several("g".into())));
        assert_eq!(group_of(&[group("2")]), Err(GroupError::Distribution("g".into())));
    }

    /// A log line about a denied group names it as the configuration does, and a SID also by its name.
    #[tokio::test]
    async fn a_group_is_named_as_it_is_written_and_a_sid_also_by_its_name() {
        let named = || unique("CN=Agents", GLOBAL).with("sAMAccountName", ["Agents"]);
        let answers = |search| [(search, Ok(vec![named()]))];
        let own = "own dc=acme,dc=com (&(objectCategory=group)";
        let sid: Sid = UNIQUE.parse().unwrap();
        let by_sid = format!("Agents ({UNIQUE})");
        for (written, name) in [("Agents", "Agents"), (UNIQUE, by_sid.as_str())] {
            let rules =
                rules(&format!("deny_groups = ['{written}']"), "acme.com", answers(own)).await.unwrap();
            assert_eq!(rules.name(&sid), Some(name));
            assert_eq!(rules.name(&BUILTIN.parse().unwrap()), None);
            let directory = Directory::new(Scripted::new(answers(own)), &config(""));
            let checked = directory.check_group(written, Instant::now() + Duration::from_secs(5)).await;
            assert_eq!(checked.as_deref(), Ok(name));
        }
        let directory = Directory::new(Scripted::new([(own, Ok(Vec::new()))]), &config(""));
        let error = directory.check_group("Agents", Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(error, Err(GroupError::Unknown("Agents".into()).into()));
    }

    #[tokio::test]
    async fn who_is_exempt_from_the_session_limit_is_a_member_of_an_exempt_group() {
        let exempt = "[sessions]\nexempt_groups = ['Supervisors']";
        let group = || ("sAMAccountName=Supervisors", Ok(vec![unique("CN=Supervisors", GLOBAL)]));
        let member_of = |sid: Vec<u8>| ("<GUID=", Ok(vec![Entry::new("CN=x").with("tokenGroups", [sid])]));
        let mine = unique("", GLOBAL).bytes("objectSid").unwrap().unwrap().to_vec();
        let other = vec![1, 1, 0, 0, 0, 0, 0, 5, 9, 0, 0, 0];
        for (sid, is_exempt) in [(mine, true), (other, false)] {
            let directory = Directory::new(Scripted::new([group(), member_of(sid)]), &config(exempt));
            let until = Instant::now() + Duration::from_secs(5);
            assert_eq!(directory.is_exempt(&person("acme.com"), until).await, Ok(is_exempt));
            directory.machine().is_finished();
        }
        let unknown = Scripted::new([("sAMAccountName=Supervisors", Ok(Vec::new()))]);
        let directory = Directory::new(unknown, &config(exempt));
        let error = directory.is_exempt(&person("acme.com"), Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(error, Err(DirectoryError::Exempt(GroupError::Unknown("Supervisors".into()))));
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

    /// The rules of this configuration for an account of `domain`.
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

    const UNIQUE: &str = "S-1-5-21-1-1000";
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
            let answers = forest.chain([(search, Ok(vec![unique("CN=Agents", GLOBAL)]))]);
            let found = rules(&format!("allow_groups = ['{written}']"), "acme.com", answers).await;
            assert_eq!(found.unwrap().allow, Some(vec![UNIQUE.parse().unwrap()]), "{written}");
        }
        let error = rules("allow_groups = ['EVIL\\Agents']", "acme.com", forest()).await.unwrap_err();
        assert_eq!(error, GroupError::Domain("EVIL\\Agents".into()).into());
    }

    #[tokio::test]
    async fn the_base_of_the_accounts_does_not_limit_the_groups() {
        let own = "own dc=acme,dc=com (&(objectCategory=group)(sAMAccountName=Agents))";
        for written in ["Agents", "ACME\\Agents"] {
            let more = format!("base_dn = 'ou=People,dc=acme,dc=com'\n[login]\nallow_groups = ['{written}']");
            let answers = Scripted::new([(own, Ok(vec![unique("CN=Agents,OU=Groups", GLOBAL)]))]);
            let directory = Directory::new(answers, &config(&more));
            let until = Instant::now() + Duration::from_secs(5);
            let found = directory.group_rules(&person("acme.com"), until).await;
            assert_eq!(found.unwrap().allow, Some(vec![UNIQUE.parse().unwrap()]), "{written}");
        }
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
            // An account without a visible allowed group is rejected anyway.
            assert!(rules("allow_groups = ['Blocked']", domain, answers(flags)).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_builtin_group_counts_for_accounts_of_its_own_domain_alone() {
        let builtin: Sid = BUILTIN.parse().unwrap();
        let own = || ("own dc=acme,dc=com (&(objectCategory=group)", Ok(vec![group(LOCAL)]));
        let theirs = || ("emea.acme.com DC=emea", Ok(vec![group(LOCAL)]));
        for written in ["Administrators", BUILTIN] {
            let allow = format!("allow_groups = ['{written}']");
            let here = rules(&allow, "acme.com", [own()]).await.unwrap();
            assert_eq!(here.allow, Some(vec![builtin.clone()]), "{written}");
            // An account of another domain has the same SID from another group, so no group allows it.
            let there = rules(&allow, "emea.acme.com", [own()]).await.unwrap();
            assert_eq!(there.allow, Some(Vec::new()), "{written}");
            // Its own domain does not show if it is in this group.
            let deny = format!("deny_groups = ['{written}']");
            assert_eq!(rules(&deny, "acme.com", [own()]).await.unwrap().deny, vec![builtin.clone()]);
            let error = rules(&deny, "emea.acme.com", [own()]).await.unwrap_err();
            assert_eq!(error, GroupError::Local(written.into()).into());
        }
        let emea = "allow_groups = ['EMEA\\Administrators']";
        let answers = || forest().into_iter().chain([theirs()]);
        assert_eq!(rules(emea, "acme.com", answers()).await.unwrap().allow, Some(Vec::new()));
        assert_eq!(rules(emea, "emea.acme.com", answers()).await.unwrap().allow, Some(vec![builtin]));
    }

    #[tokio::test]
    async fn a_sid_is_looked_up_and_one_that_nothing_has_is_misconfigured() {
        let unique: Sid = UNIQUE.parse().unwrap();
        let nothing = || ("own dc=acme,dc=com (&(objectCategory=group)(|(objectSid=", Ok(Vec::new()));
        let catalogue =
            |dn, flags| ("catalogue  (&(objectCategory=group)", Ok(vec![self::unique(dn, flags)]));
        let (emea, here) = ("CN=A,DC=emea,DC=acme,DC=com", "CN=A,DC=acme,DC=com");
        for key in ["allow_groups", "deny_groups"] {
            let config = format!("{key} = ['{UNIQUE}']");
            let sids =
                |rules: GroupRules| rules.allow.into_iter().flatten().chain(rules.deny).collect::<Vec<_>>();
            let own = ("own dc=acme,dc=com", Ok(vec![self::unique(here, GLOBAL)]));
            assert_eq!(sids(rules(&config, "acme.com", [own]).await.unwrap()), vec![unique.clone()]);
            let far = forest().into_iter().chain([nothing(), catalogue(emea, GLOBAL)]);
            assert_eq!(sids(rules(&config, "acme.com", far).await.unwrap()), vec![unique.clone()]);
            // A group that was migrated has another SID by now, and tokens have the configured one, too.
            let migrated = ("own dc=acme,dc=com", Ok(vec![group(GLOBAL)]));
            assert_eq!(sids(rules(&config, "acme.com", [migrated]).await.unwrap()), vec![unique.clone()]);
            let none = forest().into_iter().chain([nothing(), ("catalogue  (&", Ok(Vec::new()))]);
            let error = rules(&config, "acme.com", none).await.unwrap_err();
            assert_eq!(error, GroupError::Unknown(UNIQUE.into()).into());
            let config = format!("{key} = ['{BUILTIN}']");
            let error = rules(&config, "acme.com", [(BUILTIN_FILTER, Ok(Vec::new()))]).await.unwrap_err();
            assert_eq!(error, GroupError::Unknown(BUILTIN.into()).into());
        }
        // The checks are those of a group by name: its kind, and its visibility.
        let deny = format!("deny_groups = ['{UNIQUE}']");
        let list = ("own dc=acme,dc=com", Ok(vec![self::unique(here, "2")]));
        let error = rules(&deny, "acme.com", [list]).await.unwrap_err();
        assert_eq!(error, GroupError::Distribution(UNIQUE.into()).into());
        let hidden = forest().into_iter().chain([nothing(), catalogue(emea, LOCAL)]);
        let error = rules(&deny, "acme.com", hidden).await.unwrap_err();
        assert_eq!(error, GroupError::Local(UNIQUE.into()).into());
    }
}
