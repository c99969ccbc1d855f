//! The lines of XCALLY's `.env` that point its integration at the LDAP bridge, and back. Pure: text in,
//! changes out.

use crate::config::Config;
use crate::config::admin::{LocalAdmin, NAME};
use crate::config::xcally;
use crate::config::xcally::change::{has, quoted, value, written};

/// URL of the bridge.
pub(super) const URL: &str = "ldap://127.0.0.1:3890";
/// Properties that may change, without their common prefix.
const PROPERTIES: [&str; 5] = ["URL", "ADMIN", "PASSWORD", "BASE_DN", "DOMAIN"];
/// Values that are as good as none.
const EMPTY: [&str; 4] = ["", "''", "\"\"", "``"];

/// A property that gets another value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Its name without the prefix.
    pub(super) short: &'static str,
    /// The new value as written, with quotes; `None` removes the property.
    pub(super) new: Option<String>,
    /// The old value, as shown to the administrator; `becomes` is the new one.
    pub(super) was: String,
    pub(super) becomes: String,
}

pub(super) fn name(short: &str) -> String {
    format!("{}{short}", xcally::PREFIX)
}

/// Returns true if XCALLY binds as an administrator before it searches for a user.
pub(super) fn needs_admin(text: &str) -> bool {
    !is_missing(text, "ADMIN") || !is_missing(text, "PASSWORD")
}

fn is_missing(text: &str, short: &str) -> bool {
    written(text, &name(short)).is_none_or(|raw| EMPTY.contains(&raw))
}

/// Returns true if the file names the bridge, or did before it was edited: it holds the local admin's name or
/// secret, or XCALLY needs no administrator and the URL names this host. Such a file is no original.
pub(super) fn is_bridged(text: &str, admin: Option<&LocalAdmin>) -> bool {
    match needs_admin(text) {
        true => is_own(text, "ADMIN", admin) || is_own(text, "PASSWORD", admin),
        false => value(text, &name("URL")).is_some_and(|url| xcally::port_here(url).is_some()),
    }
}

/// Returns true if the property has the value that points XCALLY at the bridge.
fn is_own(text: &str, short: &str, admin: Option<&LocalAdmin>) -> bool {
    let is = |value: &[u8]| has(text, &name(short), value);
    match short {
        "URL" => is(URL.as_bytes()),
        "ADMIN" => is(NAME.as_bytes()) || admin.is_some_and(|admin| is(admin.name.as_bytes())),
        "PASSWORD" => admin.is_some_and(|admin| is(admin.secret.bytes())),
        _ => false,
    }
}

/// Returns true if a change overwrites a value that setup did not write.
pub(super) fn overwrites(changes: &[Change], text: &str, admin: Option<&LocalAdmin>) -> bool {
    changes.iter().any(|Change { short, new, .. }| {
        // Of these two, setup adds only a missing one.
        let is_added =
            ["BASE_DN", "DOMAIN"].contains(short) && new.as_deref().is_none_or(|new| EMPTY.contains(&new));
        !is_missing(text, short) && !is_own(text, short, admin) && !is_added
    })
}

/// Returns the changes that point XCALLY at the bridge.
pub(super) fn changes(text: &str, config: &Config, admin: &LocalAdmin) -> Vec<Change> {
    let secret = String::from_utf8_lossy(admin.secret.bytes()).into_owned();
    let mut wanted = vec![("URL", URL.to_owned())];
    if needs_admin(text) {
        wanted.extend([("ADMIN", admin.name.clone()), ("PASSWORD", secret)]);
    }
    if is_missing(text, "BASE_DN") {
        wanted.push(("BASE_DN", config.domain.base_dn.clone()));
    }
    if is_missing(text, "DOMAIN") {
        wanted.push(("DOMAIN", config.domain.name.clone()));
    }
    let wanted = wanted.into_iter().filter(|(short, value)| !has(text, &name(short), value.as_bytes()));
    let change = |(short, value): (&'static str, String)| {
        let new = quoted(&value)?;
        let becomes = if short == "PASSWORD" { "a secret of this host".to_owned() } else { new.clone() };
        Some(Change { short, new: Some(new), was: told(text, short), becomes })
    };
    wanted.filter_map(change).collect()
}

/// Returns the changes that restore the properties as written in `old`.
pub(super) fn back(text: &str, old: &str) -> Vec<Change> {
    let is_other = |short: &&str| written(text, &name(short)) != written(old, &name(short));
    let change = |short| {
        let becomes = match written(old, &name(short)) {
            Some(_) => told(old, short),
            None => "not set".to_owned(),
        };
        Change { short, new: written(old, &name(short)).map(str::to_owned), was: told(text, short), becomes }
    };
    PROPERTIES.into_iter().filter(is_other).map(change).collect()
}

/// Returns the value of a property for display, but never the password.
pub(super) fn told(text: &str, short: &str) -> String {
    match (written(text, &name(short)), short) {
        (None, _) => "not set".to_owned(),
        (Some(raw), _) if EMPTY.contains(&raw) => "empty".to_owned(),
        (Some(_), "PASSWORD") => "a password, which is not shown".to_owned(),
        (Some(raw), _) => raw.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::xcally::change::set;
    use crate::protocol::Secret;

    const SECRET: &str = "feedfeedfeedfeedfeedfeedfeedfeed";

    fn admin() -> LocalAdmin {
        LocalAdmin { name: "motion-ad".into(), secret: Secret::new(SECRET.into()) }
    }

    fn config() -> Config {
        let text = "names.map_file = \"/dev/null\"\ndomain.name = \"acme.com\"\n".to_owned();
        Config::load_text("config.toml".as_ref(), text, "/nonexistent".as_ref()).unwrap()
    }

    fn apply(text: &str, changes: &[Change]) -> String {
        changes.iter().fold(text.to_owned(), |text, change| {
            set(&text, &name(change.short), change.new.as_deref()).unwrap()
        })
    }

    const FULL: &str = "# AD\nXC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson\n\
        XC_ACTIVEDIRECTORY_ADMIN='cn=admin,dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_PASSWORD='Hush-1' # secret\nXC_ACTIVEDIRECTORY_BASE_DN='ou=user,dc=acme,dc=com'\n\
        XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\nXC_ACTIVEDIRECTORY_DOMAIN='acme.com'\nXC_PORT=80\n";

    #[test]
    fn of_all_properties_three_change_and_go_back() {
        let changes = changes(FULL, &config(), &admin());
        let new = apply(FULL, &changes);
        let expected = FULL
            .replace("cn=admin,dc=acme,dc=com", "motion-ad")
            .replace("Hush-1", SECRET)
            .replace("ldap://ad.acme.com", URL);
        assert_eq!(new, expected);
        assert_eq!(super::changes(&new, &config(), &admin()), []);
        let back = back(&new, FULL);
        assert_eq!(back.iter().map(|change| change.short).collect::<Vec<_>>(), ["URL", "ADMIN", "PASSWORD"]);
        assert_eq!(apply(&new, &back), FULL);
        // Other changes of the file stay.
        assert_eq!(apply(&new.replace("=80", "=81"), &back), FULL.replace("=80", "=81"));
        for change in changes.iter().chain(&back) {
            let said = format!("{} {}", change.was, change.becomes);
            assert!(!said.contains("Hush") && !said.contains(SECRET), "{said}");
        }
    }

    #[test]
    fn without_an_administrator_one_line_changes_and_what_is_missing_is_added() {
        let page = "XC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'\n\
            XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com'\n\
            XC_ACTIVEDIRECTORY_DOMAIN='acme.com'\n";
        let new = apply(page, &changes(page, &config(), &admin()));
        assert_eq!(new, page.replace("ldap://ad.acme.com", URL));
        let new = apply(
            "XC_ACTIVEDIRECTORY_DOMAIN=''",
            &changes("XC_ACTIVEDIRECTORY_DOMAIN=''", &config(), &admin()),
        );
        let expected = format!(
            "XC_ACTIVEDIRECTORY_DOMAIN='acme.com'\nXC_ACTIVEDIRECTORY_URL='{URL}'\n\
             XC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'\n"
        );
        assert_eq!(new, expected);
        assert_eq!(
            apply(&new, &back(&new, "XC_ACTIVEDIRECTORY_DOMAIN=''")),
            "XC_ACTIVEDIRECTORY_DOMAIN=''\n"
        );
    }

    #[test]
    fn a_new_secret_is_a_change_of_the_password_alone() {
        let new = apply(FULL, &changes(FULL, &config(), &admin()));
        let other = LocalAdmin { secret: Secret::new(b"beefbeefbeefbeefbeefbeef".to_vec()), ..admin() };
        let changes = changes(&new, &config(), &other);
        assert_eq!(changes.iter().map(|change| change.short).collect::<Vec<_>>(), ["PASSWORD"]);
    }

    #[test]
    fn an_edited_file_is_no_original_and_an_administrators_is() {
        let (admin, bridged) = (admin(), apply(FULL, &changes(FULL, &config(), &admin())));
        let none = "XC_ACTIVEDIRECTORY_URL=";
        let is = |text: &str| is_bridged(text, Some(&admin));
        for text in [
            bridged.clone(),
            bridged.replace("3890", "389"),
            bridged.replace(URL, "ldap://ad.acme.com"),
            bridged.replace(SECRET, "another"),
            bridged.replace("motion-ad", "cn=admin"),
            format!("{none}'{URL}'"),
            format!("{none}ldap://LOCALHOST/"),
            format!("{none}\"ldap://[::1]\""),
            format!("{none}ldaps://[::1]:636"),
        ] {
            assert!(is(&text), "{text}");
        }
        assert!(is_bridged(&bridged, None));
        for text in [
            FULL.to_owned(),
            FULL.replace("ldap://ad.acme.com", URL),
            format!("{none}ldap://ad.acme.com"),
            format!("{none}ldap://127.0.0.1.evil.example:3890"),
            none.to_owned(),
            String::new(),
        ] {
            assert!(!is(&text), "{text}");
        }
    }

    #[test]
    fn a_value_that_setup_did_not_write_is_told_apart() {
        let (admin, config) = (admin(), config());
        let bridged = apply(FULL, &changes(FULL, &config, &admin));
        let goes_back = |text: &str| overwrites(&back(text, FULL), text, Some(&admin));
        assert!(!goes_back(&bridged));
        for (from, to) in [(URL, "ldap://ad2"), (SECRET, "Hush-2"), ("ou=user", "ou=staff")] {
            assert!(goes_back(&bridged.replace(from, to)), "{to}");
        }
        for page in ["", "XC_ACTIVEDIRECTORY_DOMAIN=''\n"] {
            let added = apply(page, &changes(page, &config, &admin));
            assert!(!overwrites(&back(&added, page), &added, Some(&admin)), "{added}");
        }
    }
}
