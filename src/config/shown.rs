//! Every key with the value in force and the source of that value.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::file::{File, line_of};
use super::kept::Kept;
use super::keys::{KEYS, Key};
use super::text;
use super::{Config, ConfigError, Join, Problem};
use crate::protocol::report::Setting;

/// Returns the keys of `config`, completed from the join's `sssd`, in the order of the shipped file. A value
/// comes from a line of the file, from the realm join, or is the default.
///
/// # Errors
/// Returns the same errors as [`Config::load`].
pub fn shown(config: &Path, sssd: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = text::read(config).map_err(|error| error.of(config))?;
    let file = File::parse(config, text.clone())?;
    let join = Join::load(sssd, file.domain_name()).map_err(Problem::from)?;
    let known = file.complete(&join)?;
    // A value that a host has with only the name of its domain does not come from the join.
    let plain = Join { domain: Some(known.domain.name.clone()), ..Join::default() };
    let plain = Config::of_join(&plain)?;
    let (document, _) = DeTable::parse_recoverable(&text);
    Ok(KEYS
        .iter()
        .map(|key| {
            let value = (key.show)(&known);
            let from = match line(document.get_ref(), &text, key.table, key.name) {
                Some(line) => format!("{}, line {line}", config.display()),
                None if (key.table, key.name) == ("domain", "name") => sssd.display().to_string(),
                None if value != (key.show)(&plain) => sssd.display().to_string(),
                None => "default".to_owned(),
            };
            Setting { key: key.path(), value, from }
        })
        .collect())
}

/// Returns the keys of a configuration that stays in force in place of the unusable file `config`.
pub fn kept(kept: &Kept, config: &Path) -> Vec<Setting> {
    let from = |key: &str| match key {
        "names.refuse" if !kept.withheld.is_empty() => {
            format!("the last good configuration and {}", kept.config.map_file.display())
        }
        key if kept.stricter.iter().any(|stricter| stricter == key) => {
            format!("{}, whose value is stricter", config.display())
        }
        _ => "the last good configuration".to_owned(),
    };
    let setting =
        |key: &Key| Setting { key: key.path(), value: (key.show)(&kept.config), from: from(&key.path()) };
    KEYS.iter().map(setting).collect()
}

/// Returns the line that sets a key.
fn line(document: &DeTable<'_>, text: &str, table: &str, name: &str) -> Option<usize> {
    let DeValue::Table(keys) = document.iter().find(|(key, _)| key.get_ref() == table)?.1.get_ref() else {
        return None;
    };
    let (key, _) = keys.iter().find(|(key, _)| key.get_ref() == name)?;
    Some(line_of(text, key.span().start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_shown_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (config, sssd) = (dir.path().join("config.toml"), dir.path().join("sssd.conf"));
        std::fs::write(&config, "[login]\nwarn_days = 14\n[sessions]\non_evict = ['/bin/kick', '{id}']\n")
            .unwrap();
        std::fs::write(
            &sssd,
            "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\nad_domain = acme.com\n\
             krb5_realm = ACME.COM\nad_server = ad.acme.com\nldap_tls_cacert = /etc/ca.pem\n",
        )
        .unwrap();
        let shown = shown(&config, &sssd).unwrap();
        assert_eq!(shown.len(), KEYS.len());
        let is = |key: &str, value: &str, from: &str| {
            let found = shown.iter().find(|shown| shown.key == key).unwrap();
            assert_eq!((found.value.as_str(), found.from.as_str()), (value, from), "{key}");
        };
        let (file, join) = (config.display().to_string(), sssd.display().to_string());
        is("login.warn_days", "14", &format!("{file}, line 2"));
        is("sessions.on_evict", "[\"/bin/kick\", \"{id}\"]", &format!("{file}, line 4"));
        is("domain.name", "\"acme.com\"", &join);
        is("domain.servers", "[\"ad.acme.com\"]", &join);
        is("tls.ca_file", "\"/etc/ca.pem\"", &join);
        is("domain.realm", "\"ACME.COM\"", "default");
        is("pool.connections", "32", "default");
        is("sessions.store", "\"sqlite\"", "default");
        for key in shown.iter().filter(|key| {
            !["domain.site", "sessions.password_file", "sessions.ca_file"].contains(&key.key.as_str())
        }) {
            assert_ne!(key.value, "", "{}", key.key);
        }
    }
}
