//! Names in AD that resemble a configured group or base that AD does not know.
//!
//! The names are suggestions for the administrator. Nothing changes because of them.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::facts::Ad;
use crate::config::{Config, distance};
use crate::directory::entry::Entry;
use crate::directory::machine::{Place, Scope, Search};
use crate::name::fold;

/// Maximum number of entries of one search.
const ENTRIES: usize = 500;
/// Time limit of one search.
const SEARCHING: Duration = Duration::from_secs(2);
/// Minimum number of letters of a searched word.
const WORD: usize = 3;
/// Maximum number of searched words of a name.
const WORDS: usize = 4;
/// Maximum number of suggested names.
const TOLD: usize = 3;
/// Maximum number of letters in which a distinguished name may differ.
const LETTERS: usize = 3;

/// Returns the domain's groups with names that resemble this one, nearest first.
pub(super) async fn groups(ad: &Ad, config: &Config, group: &str, deadline: Instant) -> Vec<String> {
    let wanted = plain(name_of(group));
    let words = wanted.split(' ').filter(|word| word.chars().count() >= WORD).take(WORDS);
    let parts: String = words
        .map(|word| {
            let start: String = word.chars().take(WORD).collect();
            let start = ldap3::ldap_escape(start);
            format!("(sAMAccountName=*{start}*)(cn=*{start}*)")
        })
        .collect();
    if parts.is_empty() {
        return Vec::new();
    }
    let filter = format!("(&(objectCategory=group)(|{parts}))");
    let entries = search(ad, config, filter, &["sAMAccountName", "cn"], deadline).await;
    let names = entries.iter().flat_map(|entry| {
        ["sAMAccountName", "cn"]
            .into_iter()
            .filter_map(|name| entry.text(name).ok().flatten())
            .map(str::to_owned)
    });
    nearest(&wanted, names, 2.max(wanted.chars().count() / 3))
}

/// Returns the domain's containers with distinguished names that resemble this one.
pub(super) async fn bases(ad: &Ad, config: &Config, base: &str, deadline: Instant) -> Vec<String> {
    let filter = "(|(objectClass=organizationalUnit)(objectClass=container))".to_owned();
    let entries = search(ad, config, filter, &["objectClass"], deadline).await;
    nearest(&plain(base), entries.iter().map(|entry| entry.dn().to_owned()), LETTERS)
}

async fn search(
    ad: &Ad,
    config: &Config,
    filter: String,
    attributes: &[&str],
    deadline: Instant,
) -> Vec<Entry> {
    let search = Search {
        place: Place::Own,
        base: config.domain.root(),
        scope: Scope::Subtree,
        filter,
        attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
        limit: ENTRIES,
    };
    let deadline = deadline.min(Instant::now() + SEARCHING);
    match timeout_at(deadline, ad.machine.search(&search, deadline)).await {
        Ok(Ok(entries)) => entries,
        // The finding stays valid without suggestions.
        _ => Vec::new(),
    }
}

/// Returns the name within `DOMAIN\name` or a distinguished name.
fn name_of(group: &str) -> &str {
    let name = group.rsplit('\\').next().unwrap_or(group);
    let first = name.split(',').next().unwrap_or(name);
    first.split_once('=').map_or(name, |(_, value)| value)
}

/// Normalizes a name to its look: runs of white space become one space, invisible characters are dropped.
fn plain(name: &str) -> String {
    let shown = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ad}'));
    let spaced: String = shown.map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    fold(&spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

fn nearest(wanted: &str, names: impl Iterator<Item = String>, far: usize) -> Vec<String> {
    let mut near: Vec<_> = names.map(|name| (distance(&plain(&name), wanted), name)).collect();
    near.retain(|(distance, _)| *distance <= far);
    near.sort();
    near.dedup_by(|one, other| one.1 == other.1);
    near.into_iter().take(TOLD).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["XCALLY Agents", "XCALLY Denied", "XCALLY Agents 2", "Domain Users"].map(str::to_owned);
        let near = |wanted: &str| nearest(&plain(name_of(wanted)), names.clone().into_iter(), 3);
        assert_eq!(near("XCALLY Agenst"), ["XCALLY Agents", "XCALLY Agents 2"]);
        assert_eq!(near("acme\\xcally\u{a0}agents"), ["XCALLY Agents", "XCALLY Agents 2"]);
        assert_eq!(near("CN=XCALLY Denid,OU=Groups,DC=acme,DC=com"), ["XCALLY Denied"]);
        assert!(near("Supervisors").is_empty());
    }
}
