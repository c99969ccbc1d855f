//! Every key with the value in force and the source of that value.

use std::path::Path;
use std::time::Duration;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::file::{File, line_of};
use super::kept::Kept;
use super::keys::KEYS;
use super::text;
use super::{Config, ConfigError, Join, Method, OnStoreFailure, Policy, Problem, Store, TlsMode};
use crate::protocol::report::Setting;

/// Returns the keys of `config`, completed from the join's `sssd`, in the order of the shipped file. A value comes from
/// a line of the file, from the realm join, or is the default.
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
            let value = value(&known, key.table, key.name);
            let from = match line(document.get_ref(), &text, key.table, key.name) {
                Some(line) => format!("{}, line {line}", config.display()),
                None if (key.table, key.name) == ("domain", "name") => sssd.display().to_string(),
                None if value != self::value(&plain, key.table, key.name) => sssd.display().to_string(),
                None => "default".to_owned(),
            };
            Setting { key: format!("{}.{}", key.table, key.name), value, from }
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
    let named = KEYS.iter().map(|key| (format!("{}.{}", key.table, key.name), key));
    named
        .map(|(name, key)| Setting {
            value: value(&kept.config, key.table, key.name),
            from: from(&name),
            key: name,
        })
        .collect()
}

/// Returns the line that sets a key.
fn line(document: &DeTable<'_>, text: &str, table: &str, name: &str) -> Option<usize> {
    let DeValue::Table(keys) = document.iter().find(|(key, _)| key.get_ref() == table)?.1.get_ref() else {
        return None;
    };
    let (key, _) = keys.iter().find(|(key, _)| key.get_ref() == name)?;
    Some(line_of(text, key.span().start))
}

/// Returns the value of a key as TOML.
pub(crate) fn value(config: &Config, table: &str, name: &str) -> String {
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    let list = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect()).to_string();
    let path = |path: Option<&Path>| path.map(|path| quoted(&path.display().to_string())).unwrap_or_default();
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs().to_string();
    let (domain, sessions) = (&config.domain, &config.sessions);
    let redis = match &sessions.store {
        Store::Redis(redis) => Some(redis),
        Store::Sqlite => None,
    };
    match (table, name) {
        ("domain", "name") => quoted(&domain.name),
        ("domain", "realm") => quoted(&domain.realm),
        ("domain", "netbios") => quoted(&config.names.netbios),
        ("domain", "servers") => list(&domain.servers),
        ("domain", "site") => domain.site.as_deref().map(quoted).unwrap_or_default(),
        ("domain", "base_dn") => quoted(&domain.base_dn),
        ("tls", "mode") => quoted(match config.tls.mode {
            TlsMode::Auto => "auto",
            TlsMode::Ldaps => "ldaps",
            TlsMode::Starttls => "starttls",
        }),
        ("tls", "ca_file") => path(config.tls.ca_file.as_deref()),
        ("names", "map_file") => path(Some(&config.map_file)),
        ("names", "domains") => list(&config.names.domains),
        ("names", "refuse") => list(&config.names.refuse),
        ("login", "method") => quoted(match config.login.method {
            Method::Auto => "auto",
            Method::Ldap => "ldap",
            Method::Kerberos => "kerberos",
        }),
        ("login", "allow_groups") => list(&config.login.allow_groups),
        ("login", "deny_groups") => list(&config.login.deny_groups),
        ("login", "warn_days") => (config.login.warn.as_secs() / 86_400).to_string(),
        ("broker", "users") => list(&config.broker.users),
        ("broker", "connections") => config.broker.connections.to_string(),
        ("bridge", "service") => quoted(&config.bridge.service),
        ("bridge", "certificate") => path(Some(&config.bridge.certificate)),
        ("bridge", "key") => path(Some(&config.bridge.key)),
        ("pool", "connections") => config.pool.connections.to_string(),
        ("pool", "idle") => config.pool.idle.as_secs().to_string(),
        ("sessions", "policy") => quoted(match sessions.policy {
            Policy::Replace => "replace",
            Policy::Deny => "deny",
            Policy::Unlimited => "unlimited",
        }),
        ("sessions", "limit") => sessions.limit.to_string(),
        ("sessions", "exempt_groups") => list(&sessions.exempt_groups),
        ("sessions", "store") => quoted(&redis.map_or_else(|| "sqlite".to_owned(), ToString::to_string)),
        ("sessions", "password_file") => path(redis.and_then(|redis| redis.password_file.as_deref())),
        ("sessions", "ca_file") => path(redis.and_then(|redis| redis.ca_file.as_deref())),
        ("sessions", "on_store_failure") => quoted(match sessions.on_store_failure {
            OnStoreFailure::Deny => "deny",
            OnStoreFailure::Allow => "allow",
        }),
        ("sessions", "max_age") => seconds(sessions.max_age),
        ("sessions", "recheck") => seconds(sessions.recheck),
        ("sessions", "on_evict") => match &sessions.on_evict {
            Some(command) => list(&command.words()),
            None => list(&[]),
        },
        _ => String::new(),
    }
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
