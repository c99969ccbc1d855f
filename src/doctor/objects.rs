//! What the configuration names in AD: the base, the groups, and the accounts of the name map.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::configuration::forget;
use super::facts::Facts;
use super::finding::{Finding, quote};
use super::pam::comment_out;
use crate::config::{Config, Method, root_of};
use crate::directory::machine::{MachineError, Scope, Search};
use crate::directory::machines::Place;
use crate::directory::sid::Sid;
use crate::directory::{DirectoryError, GroupError};
use crate::name::fold;

/// The most accounts of the name map that are looked for; `motion-ad audit` looks for any number.
const TARGETS: usize = 300;
/// All of them together.
const LOOKING: Duration = Duration::from_secs(3);

pub(super) async fn base(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("config-file");
    };
    let base = &config.domain.base_dn;
    let search = Search {
        place: Place::Own,
        base: base.clone(),
        scope: Scope::Base,
        filter: "(objectClass=*)".to_owned(),
        attributes: vec!["objectClass".to_owned()],
        limit: 1,
    };
    match ad.machine.search(&search, facts.deadline()).await {
        Ok(_) => Finding::ok(base),
        Err(MachineError::NoSuchObject(_)) => Finding::failure(format!(
            "AD has no object {base}, or this host may not see it: nobody is found; without it the whole domain is \
             searched"
        ))
        .mend_with(forget(facts, "domain", "base_dn")),
        Err(e) => Finding::failure(e.to_string()),
    }
}

/// Returns what shows that this host may read the property set that `logonHours` and `userWorkstations` belong to
/// (User-Logon, MS-ADTS 5.1.3.2.1): any account has some attribute of it once its user has logged in.
pub(super) async fn restrictions(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("config-file");
    };
    let set =
        ["logonCount", "lastLogon", "lastLogonTimestamp", "badPwdCount", "logonHours", "userWorkstations"];
    let present: String = set.iter().map(|attribute| format!("({attribute}=*)")).collect();
    let search = Search {
        place: Place::Own,
        base: config.domain.base_dn.clone(),
        scope: Scope::Subtree,
        filter: format!("(&(objectCategory=person)(objectClass=user)(|{present}))"),
        attributes: vec!["objectGUID".to_owned()],
        limit: 1,
    };
    let seen = match ad.machine.search(&search, facts.deadline()).await {
        Ok(found) if found.is_empty() => {
            "this host sees nobody's logonHours and userWorkstations, so that it takes every account for unrestricted: by \
             Kerberos and for acct_mgmt alone such a restriction is not enforced"
        }
        Ok(_) | Err(MachineError::TooMany(_)) => {
            return Finding::ok("this host may read logonHours and userWorkstations");
        }
        Err(e) => return Finding::failure(e.to_string()),
    };
    let finding = match config.login.method {
        Method::Kerberos => Finding::failure(seen),
        Method::Auto | Method::Ldap => Finding::warning(seen),
    };
    let root = root_of(&config.domain.name);
    // DC is the SDDL's word for the domain's computers; the GUIDs are those of User-Logon and of the class user.
    finding.mend_there(
        format!(
            "dsacls {} /I:S /G {}",
            quote(&root),
            quote(&format!("{}\\Domain Computers:RP;Logon Information;user", config.names.netbios))
        ),
        format!(
            "samba-tool dsacl set --objectdn={} --sddl='(OA;CIIO;RP;5f202010-79a5-11d0-9020-00c04fc2d4cf;\
             bf967aba-0de6-11d0-a285-00aa003049e2;DC)'",
            quote(&root)
        ),
    )
}

pub(super) async fn groups(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("config-file");
    };
    let login = config.login.allow_groups.iter().chain(&config.login.deny_groups);
    let groups = login.map(|group| (group, "login"));
    let groups: Vec<_> =
        groups.chain(config.sessions.exempt_groups.iter().map(|group| (group, "session"))).collect();
    let count = groups.len();
    for (group, what) in groups {
        let error = match ad.directory.check_group(group, facts.deadline()).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        return denies(group, what, &error, config);
    }
    match count {
        0 => Finding::ok("none is configured: everybody whom AD lets in may log in"),
        _ => Finding::ok(format!("{count} groups are known to AD")),
    }
}

/// One that cannot be used. Taking it off the list might let everybody in, so it is made in AD, or made usable there.
fn denies(group: &str, what: &str, error: &DirectoryError, config: &Config) -> Finding {
    let finding = Finding::failure(format!("{error}: every {what} is denied"));
    let DirectoryError::Group(error) = error else { return finding };
    let identity = quote(group.rsplit('\\').next().unwrap_or_default());
    let is_here = match group.split_once('\\') {
        _ if group.contains('=') || group.parse::<Sid>().is_ok() => false,
        Some((domain, _)) => {
            fold(domain) == fold(&config.names.netbios) || fold(domain) == config.domain.name
        }
        None => true,
    };
    match error {
        GroupError::Unknown(_) if is_here => finding.mend(format!(
            "adcli create-group --domain={} --login-user=Administrator {identity}",
            quote(&config.domain.name)
        )),
        GroupError::Distribution(_) => finding.mend_there(
            format!("Set-ADGroup -GroupCategory Security -Identity {identity}"),
            format!("samba-tool group edit {identity}"),
        ),
        GroupError::Local(_) => finding.mend_there(
            format!("Set-ADGroup -GroupScope Universal -Identity {identity}"),
            format!("samba-tool group edit {identity}"),
        ),
        GroupError::Unknown(_) | GroupError::Several(_) | GroupError::Domain(_) => finding,
    }
}

/// Every account that a line of the name map leads to exists, once.
pub(super) async fn targets(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("names-map");
    };
    let mut wanted = BTreeMap::new();
    for (line, name, principal) in config.names.map.lines() {
        wanted.entry(principal).or_insert((line, name));
    }
    let deadline = facts.deadline().min(Instant::now() + LOOKING);
    let mut wrong = Vec::new();
    let mut looked = 0;
    for (principal, (line, name)) in wanted.iter().take(TARGETS) {
        let found = timeout_at(deadline, ad.directory.find(principal, deadline)).await;
        match found {
            Ok(Ok(_)) => {}
            Ok(Err(error @ (DirectoryError::Unknown(_) | DirectoryError::Ambiguous { .. }))) => {
                wrong.push((*line, format!("{name}: {error}")));
            }
            Ok(Err(DirectoryError::Machine(MachineError::Timeout(_)))) | Err(_) => break,
            Ok(Err(error)) => return Finding::failure(error.to_string()),
        }
        looked += 1;
    }
    wrong.sort_unstable();
    let file = config.map_file.display().to_string();
    match wrong.as_slice() {
        [] if looked < wanted.len() => {
            Finding::ok(format!("{looked} of {} accounts looked for, all exist", wanted.len()))
        }
        [] => Finding::ok(format!("{looked} accounts, all exist")),
        [(line, text), rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" ({} more)", rest.len()) };
            Finding::warning(format!("{file}, line {line}: {text}{more}")).mend(comment_out(&file, *line))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_group_that_is_missing_is_made_where_that_is_certain() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "names.map_file = \"/dev/null\"\ndomain.name = \"acme.com\"\n").unwrap();
        let config = Config::load(file.path(), Path::new("/nonexistent/sssd.conf")).unwrap();
        let create = "adcli create-group --domain=acme.com --login-user=Administrator 'XCALLY Agents'";
        let cases = [
            ("XCALLY Agents", create),
            ("acme\\XCALLY Agents", create),
            ("EMEA\\XCALLY Agents", ""),
            ("CN=XCALLY Agents,DC=acme,DC=com", ""),
        ];
        for (group, command) in cases {
            let found = denies(group, "login", &GroupError::Unknown(group.into()).into(), &config);
            assert_eq!(found.mend.first().map_or("", |mend| mend.command.as_str()), command, "{group}");
        }
    }
}
