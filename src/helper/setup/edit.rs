//! Changes a `config.toml`. The rest of the file stays as it is, comments included.

use toml_edit::{Array, DocumentMut, Item, Table, TomlError, Value, value};

use super::plan::{Change, Set, Setting};
use crate::doctor::unified;

/// Returns the keys that `text` itself sets.
pub(super) fn set(text: &str) -> Result<Set, TomlError> {
    let file: DocumentMut = text.parse()?;
    let domain = |key: &str| file.get("domain").and_then(|domain| domain.get(key));
    let base_dn = domain("base_dn").and_then(Item::as_str).map(str::to_owned);
    Ok(Set { base_dn, servers: domain("servers").is_some() })
}

/// Returns `text` with these changes. It must not set any of their keys.
pub(super) fn with(text: &str, changes: &[Change]) -> Result<String, TomlError> {
    changes.iter().try_fold(text.to_owned(), |text, change| with_one(&text, change))
}

fn with_one(text: &str, change: &Change) -> Result<String, TomlError> {
    let mut file: DocumentMut = text.parse()?;
    let table = file.entry(change.table).or_insert_with(|| Item::Table(Table::new()));
    if let Some(table) = table.as_table_like_mut() {
        table.insert(change.key, item(change));
    }
    // Below the key's explanation in the shipped file, if that is still there and the settings are the same.
    let beside = beside_its_example(text, change);
    let is_same = beside.as_ref().is_some_and(|beside| {
        toml::from_str::<toml::Table>(beside).ok() == toml::from_str(&file.to_string()).ok()
    });
    Ok(beside.filter(|_| is_same).unwrap_or_else(|| file.to_string()))
}

fn item(change: &Change) -> Item {
    match &change.value {
        Setting::Text(text) => value(text),
        Setting::List(list) => value(list.iter().collect::<Array>()),
    }
}

/// Returns the line that sets the key.
pub(super) fn line(change: &Change) -> String {
    let value = item(change).into_value().unwrap_or_else(|_| Value::from(""));
    format!("{} = {}", change.key, value.to_string().trim())
}

/// Returns `text` with the key's line below its commented-out example, in the key's table. Uncomments the
/// header of that table if necessary.
fn beside_its_example(text: &str, change: &Change) -> Option<String> {
    let (header, example) = (format!("[{}]", change.table), format!("#{} = ", change.key));
    let opened = match text.lines().any(|line| line.trim_end() == header) {
        true => text.to_owned(),
        false => text.replacen(&format!("\n#{header}\n"), &format!("\n{header}\n"), 1),
    };
    let mut table = "";
    let mut end = 0;
    for line in opened.split_inclusive('\n') {
        end += line.len();
        if line.starts_with('[') || line.starts_with("#[") {
            table = line.trim_end();
        } else if table == header && line.starts_with(&example) {
            let (before, after) = opened.split_at_checked(end)?;
            let break_ = if before.ends_with('\n') { "" } else { "\n" };
            return Some(format!("{before}{break_}{}\n{after}", self::line(change)));
        }
    }
    None
}

/// The unified diff of the file `name`, in the format of diff(1) and patch(1); empty if nothing changes.
pub(super) fn diff(name: &str, old: &str, new: &str) -> String {
    unified(name, old, new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    fn base_dn(dn: &str) -> Change {
        let value = Setting::Text(dn.to_owned());
        Change { table: "domain", key: "base_dn", value, reason: String::new() }
    }

    fn servers() -> Change {
        let value = Setting::List(vec!["ad.acme.com".into(), "ad2.acme.com".into()]);
        Change { table: "domain", key: "servers", value, reason: String::new() }
    }

    #[test]
    fn a_key_comes_to_stand_below_its_explanation() {
        let shipped = keys::example();
        let changed = with(&shipped, &[base_dn("ou=user,dc=acme,dc=com"), servers()]).unwrap();
        assert_eq!(
            diff("config.toml", &shipped, &changed),
            "--- config.toml\n+++ config.toml\n\
             @@ -8,7 +8,7 @@\n \
             #   /usr/libexec/motion-ad/motion-ad-broker --check-config\n \n \
             # The domain that this host is joined to.\n\
             -#[domain]\n\
             +[domain]\n \n \
             # The joined domain. Any other domain is an error.\n \
             # DNS name. Default: ad_domain in sssd.conf.\n\
             @@ -25,6 +25,7 @@\n # The domain controllers, in the order to try; \"_srv_\" stands for those \
             that DNS knows. An empty list queries DNS.\n # List of DNS names. Default: ad_server in \
             sssd.conf, else found by DNS SRV.\n #servers = [\"ad.acme.com\", \"ad2.acme.com\"]\n\
             +servers = [\"ad.acme.com\", \"ad2.acme.com\"]\n \n \
             # The site of this host. Those domain controllers of DNS that serve it are tried first.\n \
             # AD site. Default: ad_site in sssd.conf, else what a domain controller answers.\n\
             @@ -33,6 +34,7 @@\n \
             # Only accounts below it are found. It must be inside the domain.\n \
             # Distinguished name. Default: the whole domain.\n \
             #base_dn = \"dc=acme,dc=com\"\n\
             +base_dn = \"ou=user,dc=acme,dc=com\"\n \n # How the connections that carry users' passwords \
             are verified. There is no switch to turn that off.\n #[tls]\n"
        );
        assert_eq!(
            set(&changed).unwrap(),
            Set { base_dn: Some("ou=user,dc=acme,dc=com".into()), servers: true }
        );
        assert_eq!(set(&shipped).unwrap(), Set::default());
    }

    #[test]
    fn whatever_the_file_looks_like_only_the_key_is_added() {
        let cases = [
            ("", "[domain]\nbase_dn = \"ou=ü\\\"\"\n"),
            (
                "# mine\n[tls] # x\nmode = 'ldaps'\n",
                "# mine\n[tls] # x\nmode = 'ldaps'\n\n[domain]\nbase_dn = \"ou=ü\\\"\"\n",
            ),
            (
                "[domain]\nsite = \"Milano\" # not Rome\n[pool]\n",
                "[domain]\nsite = \"Milano\" # not Rome\nbase_dn = \"ou=ü\\\"\"\n[pool]\n",
            ),
            ("domain = { site = \"Milano\" }\n", "domain = { site = \"Milano\" , base_dn = \"ou=ü\\\"\" }\n"),
            ("domain.site = \"Milano\"\n", "domain.site = \"Milano\"\ndomain.base_dn = \"ou=ü\\\"\"\n"),
            ("[domain]\n#base_dn = \"x\"", "[domain]\n#base_dn = \"x\"\nbase_dn = \"ou=ü\\\"\"\n"),
            // A line that only looks like the example.
            (
                "[domain]\nnetbios = '''\n#base_dn = \"x\"\n'''\n",
                "[domain]\nnetbios = '''\n#base_dn = \"x\"\n'''\nbase_dn = \"ou=ü\\\"\"\n",
            ),
        ];
        for (text, expected) in cases {
            let changed = with(text, &[base_dn("ou=ü\"")]).unwrap();
            // Both kinds of string literal have the same value.
            let plain = |text: &str| text.replace("'ou=ü\"'", "\"ou=ü\\\"\"");
            assert_eq!(plain(&changed), expected, "{text:?}");
        }
        assert!(with("[domain", &[base_dn("x")]).is_err());
        assert_eq!(diff("x", "a\n", "a\n"), "");
    }
}
