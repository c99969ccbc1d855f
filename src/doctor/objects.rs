//! Objects in AD that the configuration names: the base, the groups, and the accounts of the name map.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::commands;
use super::commands::Place as At;
use super::configuration::place_of;
use super::facts::{Ad, Facts};
use super::finding::Finding;
use super::near;
use crate::config::{Config, Method, root_of};
use crate::directory::machine::{MachineError, Place, Scope, Search};
use crate::directory::people::DirectoryError;
use crate::directory::people::groups::GroupError;
use crate::directory::sid::Sid;
use crate::name::{Form, Principal};

/// Maximum number of the name map's accounts to look up; `motion-ad audit` has no such limit.
const TARGETS: usize = 300;
/// Maximum number of clashing names in a finding.
const CLASHES: usize = 20;
/// Time limit of all lookups together.
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
        Err(MachineError::NoSuchObject(_)) => {
            let near = did_you_mean(&near::bases(ad, config, base, facts.deadline()).await);
            Finding::failure(format!(
                "AD has no object {base}, or this host may not see it: no account can be found{near}"
            ))
            .advise(At::Here, format!("correct {}", place_of(facts, "domain", "base_dn")))
        }
        Err(e) => Finding::failure(e.to_string()),
    }
}

/// Checks that this host may read `logonHours` and `userWorkstations`, by their property set (User-Logon,
/// MS-ADTS 5.1.3.2.1): after the first login of its user, every account has an attribute of that set.
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
            "this host cannot read logonHours and userWorkstations, so every account looks unrestricted: by \
             Kerberos, and for acct_mgmt alone, these restrictions are not enforced"
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
    let computers = format!("{}\\Domain Computers:RP;Logon Information;user", config.names.netbios);
    finding.there(&commands::READ_WINDOWS, &commands::READ_SAMBA, &format!("{root}\n{computers}"))
}

pub(super) async fn groups(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("config-file");
    };
    let (login, sessions) = (&config.login, &config.sessions);
    let lists = [
        ("login", "allow_groups", &login.allow_groups),
        ("login", "deny_groups", &login.deny_groups),
        ("sessions", "exempt_groups", &sessions.exempt_groups),
    ];
    let mut named: Vec<(&str, &str, &String)> = Vec::new();
    for (table, key, list) in lists {
        named.extend(list.iter().map(|group| (table, key, group)));
    }
    let mut known = Vec::new();
    for (table, key, group) in &named {
        let error = match ad.directory.check_group(group, facts.deadline()).await {
            Ok(name) => {
                known.push(name);
                continue;
            }
            Err(error) => error,
        };
        let near = match error {
            DirectoryError::Group(GroupError::Unknown(_)) if group.parse::<Sid>().is_err() => {
                near::groups(ad, config, group, facts.deadline()).await
            }
            _ => Vec::new(),
        };
        return denies(group, &place_of(facts, table, key), &error, &near);
    }
    match known.as_slice() {
        [] => Finding::ok("no group is configured: every user whom AD accepts may log in"),
        known => Finding::ok(format!("known to AD: {}", known.join(", "))),
    }
}

/// Returns the end of a sentence with the names that may have been meant.
fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => {
            let names = near.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>();
            format!("; did you mean {}?", names.join(" or "))
        }
    }
}

/// Reports a group that cannot be used. No fix creates it in AD or takes it off the list, which might then
/// admit every user.
fn denies(group: &str, place: &str, error: &DirectoryError, near: &[String]) -> Finding {
    let what = if place.starts_with("sessions.") { "session" } else { "login" };
    // `place` already names the list.
    let cause = match error {
        DirectoryError::Group(error) | DirectoryError::Exempt(error) => error.to_string(),
        other => other.to_string(),
    };
    let finding = Finding::failure(format!("{cause}: every {what} is denied{}; {place}", did_you_mean(near)));
    let DirectoryError::Group(error) = error else { return finding };
    let identity = group.rsplit('\\').next().unwrap_or_default();
    match error {
        GroupError::Distribution(_) => finding
            .advise(At::Windows, "make it a security group: a distribution group says nothing about access")
            .there(&commands::GROUP_WINDOWS, &commands::GROUP_SAMBA, identity),
        GroupError::Local(_) => finding
            .advise(At::Windows, "make it a universal or a global group, or name another one")
            .there(&commands::GROUP_WINDOWS, &commands::GROUP_SAMBA, identity),
        GroupError::Unknown(_) | GroupError::Several(_) | GroupError::Domain(_) => finding.advise(
            At::Here,
            format!(
                "write the group as AD has it now in {place}; a SID stays the same when a group is renamed"
            ),
        ),
    }
}

/// Checks that each target of the name map is the name of exactly one account.
pub(super) async fn targets(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("names-map");
    };
    let deadline = facts.deadline().min(Instant::now() + LOOKING);
    // Without the forest, only the short name of this host's own domain is known.
    let known = ad.directory.forest(deadline).await.map(|forest| forest.known().clone()).unwrap_or_default();
    let (mut wanted, mut wrong) = (BTreeMap::new(), Vec::new());
    for (line, name, target) in config.names.map.lines() {
        match config.names.target(target, &known) {
            Ok(principal) => {
                wanted.entry(principal).or_insert((line, name));
            }
            Err(error) => wrong.push((line, format!("{name}: {error}"))),
        }
    }
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
            Finding::ok(format!("{looked} of {} accounts checked, all exist", wanted.len()))
        }
        [] => Finding::ok(format!("{looked} accounts, all exist")),
        [(line, text), rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" ({} more)", rest.len()) };
            let near =
                near_account(ad, config, wanted.iter().find(|(_, (at, _))| at == line), deadline).await;
            Finding::warning(format!("{file}, line {line}: {text}{more}{near}")).advise(
                At::Here,
                format!(
                    "correct line {line} of {file}; without it the name would follow the rule, name@domain"
                ),
            )
        }
    }
}

/// Suggests the account that a line of the name map may mean.
async fn near_account(
    ad: &Ad,
    config: &Config,
    line: Option<(&Principal, &(usize, &str))>,
    deadline: Instant,
) -> String {
    let Some((principal, _)) = line else { return String::new() };
    let user = principal.user();
    let found = timeout_at(deadline, ad.directory.near(&config.names, &[user], deadline)).await;
    let near = found.ok().and_then(Result::ok).and_then(|mut near| near.pop()).flatten();
    near.map_or_else(String::new, |near| format!("; did you mean {}? ({})", near.principal, near.why))
}

/// Reports names that two accounts share, except those that a line of the name map decides.
pub(super) async fn clashes(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("names-map");
    };
    let found = match ad.directory.clashes(facts.deadline().min(Instant::now() + LOOKING)).await {
        Ok(found) => found,
        Err(error) => return Finding::failure(error.to_string()),
    };
    let is_open = |name: &str| config.names.principal(name).is_ok_and(|found| found.form() == Form::Bare);
    let open: Vec<_> = found.list.iter().filter(|(name, ..)| is_open(name)).collect();
    let read = match found.is_whole {
        true => format!("{} accounts", found.read),
        false => format!("the {} accounts that could be read in time", found.read),
    };
    if open.is_empty() {
        return Finding::ok(format!("none among {read}"));
    }
    let named = open.iter().take(CLASHES).map(|(name, explicit, implicit)| {
        format!("{name} (userPrincipalName of {}, sAMAccountName of {})", explicit.dn, implicit.dn)
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match open.len().saturating_sub(CLASHES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Finding::ok(format!("among {read}, refused until a line of names.map decides: {named}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_unknown_is_neither_made_nor_taken_off_its_list() {
        let error = GroupError::Unknown("XCALLY Agenst".into()).into();
        let place = "login.allow_groups in /etc/motion-ad/config.toml, line 3";
        let found = denies("XCALLY Agenst", place, &error, &["XCALLY Agents".to_owned()]);
        assert!(found.seen.contains("every login is denied; did you mean 'XCALLY Agents'?"), "{found:?}");
        assert!(found.seen.ends_with(place), "{found:?}");
        assert!(found.fix.iter().all(|fix| matches!(fix, super::super::Fix::Advice { .. })), "{found:?}");
        let found = denies("X", "sessions.exempt_groups in x", &error, &[]);
        assert!(found.seen.contains("every session is denied; sessions.exempt_groups"), "{found:?}");
    }
}
