//! The last good configuration, which stays in force while the files on disk cannot be used.
//!
//! A typo in a file must not stop logins, and it must not undo a stricter rule. If the unusable file shows
//! that a key which decides about access became stricter, the stricter value counts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use super::file::File;
use super::keys::KEYS;
use super::text::{self, invisible_beside_comments};
use super::{Config, ConfigError, Join, Problem, load_map};
use crate::name::{NameMap, Principal, fold};

/// The texts of a usable configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// The text of `config.toml`.
    pub config: String,
    /// The text of the name map.
    pub map: String,
    /// The time from which it was in force, in seconds since 1970-01-01 UTC.
    pub since: u64,
}

/// A configuration that replaces the unusable files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The settings.
    pub config: Config,
    /// Keys with the stricter value of the unusable file.
    pub stricter: Vec<String>,
    /// Names that are refused because the unusable name map changes them.
    pub withheld: Vec<String>,
}

impl LastGood {
    /// Returns the texts that `config` was just read from; `None` if a file has changed since.
    pub fn of(path: &Path, config: &Config, since: u64) -> Option<Self> {
        let last =
            LastGood { config: text::read(path).ok()?, map: text::read(&config.map_file).ok()?, since };
        (NameMap::parse(&last.map).ok()? == config.names.map).then_some(last)
    }

    /// Returns the configuration that stays in force while the file at `path`, or its name map, cannot be
    /// used. `is_usable` checks the files that a configuration names.
    ///
    /// # Errors
    /// Returns `ConfigError` if the last good configuration no longer fits the join, or if the unusable file
    /// changes a rule so that neither its value nor the last good one is the stricter.
    pub fn keep(
        &self,
        path: &Path,
        sssd: &Path,
        is_usable: impl Fn(&Config) -> bool,
    ) -> Result<Kept, ConfigError> {
        let file = File::parse(path, self.config.clone())?;
        let join = Join::load(sssd, file.domain_name()).map_err(Problem::from)?;
        let mut config = file.complete(&join)?;
        let map = NameMap::parse(&self.map);
        config.names.map = map.map_err(|error| conflict(path, format!("the last good name map: {error}")))?;
        let mut stricter = Vec::new();
        if let Ok(text) = text::read(path) {
            match File::parse(path, text.clone())
                .map_err(ConfigError::from)
                .and_then(|file| file.complete(&join))
            {
                // The new file is usable and only the name map is not, so every key of the new file counts.
                Ok(new) if new.map_file == config.map_file && is_usable(&new) => {
                    let map = std::mem::take(&mut config.names.map);
                    config = new;
                    config.names.map = map;
                }
                _ => stricter = tighten(&mut config, path, &text, &join, is_usable)?,
            }
        }
        let withheld = match text::read(&config.map_file) {
            Ok(text) if load_map(&config.map_file).is_err() => withheld(&config.names.map, &text),
            _ => Vec::new(),
        };
        config.names.refuse.extend_from_slice(&withheld);
        Ok(Kept { config, stricter, withheld })
    }
}

fn conflict(path: &Path, text: String) -> ConfigError {
    Problem { file: path.to_owned(), line: None, text }.into()
}

/// Adopts the values of the unusable `text` that are stricter, and returns their names.
fn tighten(
    config: &mut Config,
    path: &Path,
    text: &str,
    join: &Join,
    is_usable: impl Fn(&Config) -> bool,
) -> Result<Vec<String>, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(text);
    // Each key is parsed separately, as if the host were joined to the last good domain.
    let joined = Join { domain: Some(config.domain.name.clone()), ..join.clone() };
    let mut stricter = Vec::new();
    for key in KEYS {
        let Some(take_stricter) = key.stricter else { continue };
        let line = match find(table.get_ref(), key.table, key.name) {
            Some(span) => match text.get(span) {
                Some(value) => format!("[{}]\n{} = {value}\n", key.table, key.name),
                None => continue,
            },
            // The key may stand in the part that cannot be parsed.
            None if !errors.is_empty() => continue,
            None => String::new(),
        };
        // If the value cannot be used, the last good one counts.
        let join = if (key.table, key.name) == ("domain", "name") { join } else { &joined };
        let new = File::parse(path, line).map_err(ConfigError::from).and_then(|file| file.complete(join));
        let Ok(new) = new else {
            continue;
        };
        if (key.table, key.name) == ("tls", "ca_file") && !is_usable(&new) {
            continue;
        }
        let before = config.clone();
        if !take_stricter(config, &new) {
            let text = format!(
                "{} was changed, and of the old and the new value neither is the stricter, so that the last \
                 good configuration cannot be kept",
                key.path()
            );
            return Err(conflict(path, text));
        }
        if *config != before {
            stricter.push(key.path());
        }
    }
    Ok(stricter)
}

/// Returns the position of the value of a key.
fn find(document: &DeTable<'_>, table: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let table = document.iter().find(|(key, _)| key.get_ref() == table)?.1;
    let DeValue::Table(keys) = table.get_ref() else { return None };
    Some(keys.iter().find(|(key, _)| key.get_ref() == name)?.1.span())
}

/// Returns the names that the unusable `text` of a map maps differently than `map` does, or no longer
/// contains. A name at the beginning of an unreadable line is not one of them, because that line is the typo.
fn withheld(map: &NameMap, text: &str) -> Vec<String> {
    let mut readable: Vec<(String, Principal)> = Vec::new();
    let mut unreadable = Vec::new();
    for line in text.lines() {
        match NameMap::parse(line) {
            _ if invisible_beside_comments(line).is_some() => unreadable.push(fold(line.trim())),
            Ok(one) => {
                readable.extend(one.lines().into_iter().map(|(_, name, to)| (name.to_owned(), to.clone())))
            }
            Err(_) => unreadable.push(fold(line.trim())),
        }
    }
    let is_kept = |name: &str, to: &Principal| {
        let mut lines = readable.iter().filter(|(known, _)| known == name).peekable();
        match lines.peek() {
            Some(_) => lines.all(|(_, new)| new == to),
            None => unreadable.iter().any(|line| line.starts_with(name)),
        }
    };
    let names = map.lines().into_iter().filter(|(_, name, to)| !is_kept(name, to));
    names.map(|(_, name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::*;

    /// Returns the result of `old` and then the unusable `new`, each below a common head.
    fn kept(old: &str, new: &str) -> Result<Kept, ConfigError> {
        kept_with_map(old, new, MAP)
    }

    const MAP: &str = "jd = john.doe@acme.com\n";
    const NAME: &str = "domain.name = \"acme.com\"\n";

    fn kept_with_map(old: &str, new: &str, new_map: &str) -> Result<Kept, ConfigError> {
        kept_of(&format!("{NAME}{old}"), &format!("{NAME}{new}"), new_map)
    }

    fn kept_of(old: &str, new: &str, new_map: &str) -> Result<Kept, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let (path, map) = (dir.path().join("config.toml"), dir.path().join("names.map"));
        let head = format!("names.map_file = {map:?}\n");
        let old_map = "jd = john.doe@acme.com\nboss = jane@acme.com\nmia = mia.m@acme.com\n";
        std::fs::write(&path, format!("{head}{old}")).unwrap();
        std::fs::write(&map, old_map).unwrap();
        let sssd = dir.path().join("sssd.conf");
        let config = Config::load(&path, &sssd).unwrap();
        let last = LastGood::of(&path, &config, 0).unwrap();
        std::fs::write(&path, format!("{head}{new}")).unwrap();
        std::fs::write(&map, new_map).unwrap();
        last.keep(&path, &sssd, |_| true)
    }

    const TYPO: &str = "login.alow_groups = [\"x\"]\n";

    #[test]
    fn a_typo_keeps_what_was_in_force() {
        for typo in [TYPO, "[login\n", "pool.connections = 0\n", "login.allow_groups = [\"A\n", "\u{0}"] {
            let kept = kept("login.allow_groups = [\"Agents\"]\nlogin.warn_days = 3\n", typo).unwrap();
            assert_eq!(kept.config.login.allow_groups, ["Agents"], "{typo:?}");
            assert_eq!(kept.config.login.warn.as_secs(), 3 * 86_400);
            assert_eq!(kept.config.names.principal("jd").unwrap().to_string(), "john.doe@acme.com");
        }
    }

    #[test]
    fn every_key_that_decides_about_access_is_stricter_and_never_looser() {
        type Case = (&'static str, &'static str, fn(&Config) -> String, &'static str);
        let cases: &[Case] = &[
            ("", "login.deny_groups = ['X']", |c| c.login.deny_groups.join(","), "X"),
            ("login.deny_groups = ['X']", "", |c| c.login.deny_groups.join(","), "X"),
            (
                "login.deny_groups = ['X']",
                "login.deny_groups = ['Y']",
                |c| c.login.deny_groups.join(","),
                "X,Y",
            ),
            ("", "login.allow_groups = ['A']", |c| c.login.allow_groups.join(","), "A"),
            (
                "login.allow_groups = ['A']",
                "login.allow_groups = []",
                |c| c.login.allow_groups.join(","),
                "A",
            ),
            (
                "login.allow_groups = ['A', 'B']",
                "login.allow_groups = ['b', 'C']",
                |c| c.login.allow_groups.join(","),
                "B",
            ),
            ("login.allow_groups = ['A']", "login.allow_groups = 7", |c| c.login.allow_groups.join(","), "A"),
            ("names.refuse = []", "", |c| c.names.refuse.join(","), "root,motion"),
            ("names.refuse = ['a']", "names.refuse = []", |c| c.names.refuse.join(","), "a"),
            (
                "names.domains = ['a.b', 'c.d']",
                "names.domains = ['a.b', 'e.f']",
                |c| c.names.domains.join(","),
                "a.b",
            ),
            ("broker.users = ['motion', 'www']", "", |c| c.broker.users.join(","), "motion"),
            ("", "broker.users = ['www']", |c| c.broker.users.join(","), ""),
            (
                "",
                "domain.base_dn = 'ou=p,dc=acme,dc=com'",
                |c| c.domain.base_dn.clone(),
                "ou=p,dc=acme,dc=com",
            ),
            (
                "domain.base_dn = 'ou=p,dc=acme,dc=com'",
                "",
                |c| c.domain.base_dn.clone(),
                "ou=p,dc=acme,dc=com",
            ),
            (
                "domain.servers = ['a.acme.com', 'b.acme.com']",
                "domain.servers = ['b.acme.com']",
                |c| c.domain.servers.join(","),
                "b.acme.com",
            ),
            ("tls.ca_file = '/a'", "", |c| format!("{:?}", c.tls.ca_file), "Some(\"/a\")"),
            ("tls.ca_file = '/a'", "tls.ca_file = '/b'", |c| format!("{:?}", c.tls.ca_file), "Some(\"/b\")"),
            (
                "sessions.policy = 'unlimited'",
                "sessions.policy = 'deny'",
                |c| format!("{:?}", c.sessions.policy),
                "Deny",
            ),
            ("sessions.policy = 'deny'", "", |c| format!("{:?}", c.sessions.policy), "Deny"),
            ("sessions.limit = 3", "sessions.limit = 9", |c| c.sessions.limit.to_string(), "3"),
            ("sessions.limit = 3", "", |c| c.sessions.limit.to_string(), "1"),
            (
                "sessions.exempt_groups = ['A', 'B']",
                "sessions.exempt_groups = ['B']",
                |c| c.sessions.exempt_groups.join(","),
                "B",
            ),
            ("sessions.exempt_groups = ['A']", "", |c| c.sessions.exempt_groups.join(","), ""),
            (
                "sessions.on_store_failure = 'allow'",
                "",
                |c| format!("{:?}", c.sessions.on_store_failure),
                "Deny",
            ),
            (
                "sessions.max_age = 0",
                "sessions.max_age = 60",
                |c| format!("{:?}", c.sessions.max_age),
                "Some(60s)",
            ),
            (
                "sessions.max_age = 60",
                "sessions.max_age = 0",
                |c| format!("{:?}", c.sessions.max_age),
                "Some(60s)",
            ),
            (
                "sessions.recheck = 60",
                "sessions.recheck = 10",
                |c| format!("{:?}", c.sessions.recheck),
                "Some(10s)",
            ),
            // A key that does not decide about access keeps its last good value.
            ("pool.connections = 3", "pool.connections = 9", |c| c.pool.connections.to_string(), "3"),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for (old, new, value, expected) in cases {
            let kept = kept(old, &format!("{TYPO}{new}\n")).unwrap();
            assert_eq!(value(&kept.config), *expected, "{old} -> {new}");
            for text in [old, new] {
                seen.insert(text.split(' ').next().unwrap_or_default().to_owned());
            }
        }
        let rules = KEYS.iter().filter(|key| key.stricter.is_some()).map(Key::path);
        for rule in rules.filter(|rule| rule != "domain.name") {
            assert!(seen.contains(&rule), "{rule} is not tested");
        }
    }

    #[test]
    fn where_neither_value_is_the_stricter_nothing_is_kept() {
        let cases = [
            ("login.allow_groups = ['A']", "login.allow_groups = ['B']", "login.allow_groups was changed"),
            (
                "domain.base_dn = 'ou=a,dc=acme,dc=com'",
                "domain.base_dn = 'ou=b,dc=acme,dc=com'",
                "domain.base_dn",
            ),
            ("domain.servers = ['a.acme.com']", "domain.servers = ['b.acme.com']", "domain.servers"),
        ];
        let moved =
            kept_of("domain.name = \"acme.com\"\n", "domain.name = \"other.com\"\nlogin.x = 1\n", MAP);
        assert!(moved.unwrap_err().to_string().contains("domain.name was changed"));
        for (old, new, text) in cases {
            let error = kept(old, &format!("{TYPO}{new}\n")).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_loosens_nothing_and_the_rest_still_tightens() {
        let old = "broker.users = ['motion', 'www']\nlogin.allow_groups = ['A']\n";
        let kept = kept(old, "[login]\ndeny_groups = ['X']\nallow_groups = [\n").unwrap();
        assert_eq!(kept.config.login.deny_groups, ["X"]);
        assert_eq!(kept.config.login.allow_groups, ["A"]);
        assert_eq!(kept.config.broker.users, ["motion", "www"], "it may stand in what cannot be read");
        assert_eq!(kept.stricter, ["login.deny_groups"]);
    }

    #[test]
    fn a_broken_map_keeps_the_lines_that_it_does_not_change() {
        let map = "jd = john.doe@acme.com\nboss = somebody.else@acme.com\nmia : mia.m@acme.com\n";
        let kept = kept_with_map("", "", map).unwrap();
        let name = |name: &str| kept.config.names.principal(name).map(|to| to.to_string()).ok();
        assert_eq!(name("jd").as_deref(), Some("john.doe@acme.com"));
        assert_eq!(name("mia").as_deref(), Some("mia.m@acme.com"), "its line is the typo");
        assert_eq!(name("boss"), None, "its line was changed");
        let unseen =
            kept_with_map("", "", "jd\u{a0}= dora@acme.com\nboss = jane@acme.com\nmia = mia.m@acme.com\n")
                .unwrap();
        assert_eq!(unseen.config.names.principal("jd").unwrap().to_string(), "john.doe@acme.com");
        assert_eq!(unseen.stricter, [""; 0]);
        assert_eq!(name("carl").as_deref(), Some("carl@acme.com"));
        assert_eq!((kept.stricter, kept.withheld), (vec![], vec!["boss".to_owned()]));
        let gone = kept_with_map("", "", "nonsense\n").unwrap();
        assert!(gone.config.names.principal("jd").is_err(), "its line was removed");
    }

    #[test]
    fn with_a_broken_map_the_new_configuration_counts() {
        let kept =
            kept_with_map("login.warn_days = 3\n", "login.warn_days = 9\n", "jd = john.doe@acme.com\nx\n")
                .unwrap();
        assert_eq!(kept.config.login.warn.as_secs(), 9 * 86_400);
        assert_eq!(kept.config.names.principal("jd").unwrap().to_string(), "john.doe@acme.com");
    }
}
