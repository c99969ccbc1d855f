//! What the configuration names in AD: the base, the groups, and the accounts of the name map.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::facts::Facts;
use super::finding::{Finding, quote};
use super::pam::comment_out;
use crate::directory::machine::{MachineError, Scope, Search};
use crate::directory::machines::Place;
use crate::directory::{DirectoryError, GroupError};

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
        .mend(format!(
            "sed -i 's/^[[:space:]]*base_dn[[:space:]]*=/#&/' {}",
            quote(&facts.options().config.display().to_string())
        )),
        Err(e) => Finding::failure(e.to_string()),
    }
}

pub(super) async fn groups(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("config-file");
    };
    let lists = [&config.login.allow_groups, &config.login.deny_groups];
    let count: usize = lists.iter().map(|list| list.len()).sum();
    for group in lists.into_iter().flatten() {
        let error = match ad.directory.check_group(group, facts.deadline()).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        let finding = Finding::failure(format!("{error}: every login is denied"));
        let name = group.rsplit('\\').next().unwrap_or_default();
        return match error {
            // Taking it off the list instead might let everybody in.
            DirectoryError::Group(GroupError::Unknown(_)) if !group.contains('=') => finding.mend(format!(
                "adcli create-group --domain={} --login-user=Administrator {}",
                quote(&config.domain.name),
                quote(name)
            )),
            DirectoryError::Group(GroupError::Distribution(_)) => finding.mend_there(
                format!("Set-ADGroup -GroupCategory Security -Identity {}", quote(name)),
                format!("samba-tool group edit {}", quote(name)),
            ),
            _ => finding,
        };
    }
    match count {
        0 => Finding::ok("none is configured: everybody whom AD lets in may log in"),
        _ => Finding::ok(format!("{count} groups are known to AD")),
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
