//! Files of the administrator.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use crate::config::file::File;
use crate::config::join::{Access, Join};
use crate::config::keys::{KEYS, TABLES};
use crate::config::sssd::Sssd;
use crate::config::xcally::{self, change};
use crate::config::{Config, samba, text};
use crate::doctor::stack::{Kind, Rule, Service, Value, decide};
use crate::libpam;

fn join() -> Join {
    Join { domain: Some("acme.com".into()), ..Join::default() }
}

/// A `config.toml`. The values that are shown are a file with the same meaning.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = text::decode(data) else { return };
    let load = |text: String| -> Result<Config, String> {
        let file = File::parse(Path::new("config.toml"), text).map_err(|problem| problem.to_string())?;
        file.complete(&join()).map_err(|error| error.to_string())
    };
    let Ok(config) = load(text.to_owned()) else { return };
    let mut written = String::new();
    for (table, _) in TABLES {
        written += &format!("[{table}]\n");
        for key in KEYS.iter().filter(|key| key.table == *table) {
            let value = (key.show)(&config);
            if !value.is_empty() {
                written += &format!("{} = {value}\n", key.name);
            }
        }
    }
    assert_eq!(load(written.clone()).as_ref(), Ok(&config), "{written}");
}

/// A `sssd.conf`, and the same text as a `smb.conf`. Comments change nothing.
pub(super) fn sssd(data: &[u8]) {
    let Ok(text) = text::decode(data) else { return };
    let read = |text: &str| {
        let mut sssd = Sssd::default();
        sssd.parse(Path::new("sssd.conf"), text).map(|()| sssd)
    };
    samba::realm_in(text);
    let Ok(sssd) = read(text) else { return };
    for domain in [None, Some("acme.com")] {
        let join = Join::of(&sssd, domain);
        let _ = Access::of(&sssd, domain);
        if let Ok(commented) = read(&format!("# a comment\n; another\n\n{text}")) {
            match (&join, &Join::of(&commented, domain)) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (one, other) => assert!(one.is_err() && other.is_err()),
            }
        }
    }
}

/// XCALLY's `.env`. A value that is set can be read, and the other lines stay as they are.
pub(super) fn env(data: &[u8]) {
    let mut bytes = data.to_vec();
    let text = xcally::as_text(&mut bytes);
    for property in xcally::parse(text) {
        if property.is_secret() {
            assert_eq!(property.value, xcally::Value::Unread);
        }
    }
    let name = "XC_ACTIVEDIRECTORY_URL";
    for value in ["ldap://127.0.0.1:3890", "o'brien # x"] {
        let Some(changed) = change::set(text, name, change::quoted(value).as_deref()) else { continue };
        assert!(change::has(&changed, name, value.as_bytes()), "{text:?} -> {changed:?}");
        let others = |text: &str| -> Vec<(String, String)> {
            let all = xcally::assignments(text).filter(|(found, _)| *found != name);
            all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(others(&changed), others(text), "{text:?} -> {changed:?}");
    }
}

/// Modules that do nothing but answer.
const MODULES: [&str; 3] = ["pam_permit", "pam_deny", "pam_debug"];

/// Returns true if libpam loads none but [`MODULES`] because of this text, and reads no other file.
fn is_harmless(text: &str) -> bool {
    let is_known = |(at, _): (usize, &str)| {
        MODULES.iter().any(|known| {
            text[..at]
                .strip_suffix(known)
                .is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t', '\n']))
        })
    };
    text.len() < 1000
        && !text.contains(['/', '\0'])
        && !text.to_ascii_lowercase().contains("include")
        && !text.to_ascii_lowercase().contains("substack")
        && text.match_indices(".so").all(is_known)
}

/// A PAM service: the doctor reads it and decides as libpam does.
pub(super) fn pam_service(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let service = Service::load("motion", &|path| match path.ends_with("motion") {
        true => Ok(text.to_owned()),
        false => Err(io::ErrorKind::NotFound.into()),
    });
    let answer = |rule: &Rule| match rule.module.as_str() {
        "pam_permit.so" => Value::SUCCESS,
        "pam_deny.so" => Value::AUTH_ERR,
        "pam_debug.so" => rule.arguments.iter().find_map(|word| debugged(word)).unwrap_or(Value::SUCCESS),
        _ => Value::MODULE_UNKNOWN,
    };
    let stack = service.stack(Kind::Auth);
    let decided = decide(&stack, &answer).value;
    if !is_harmless(text) {
        return;
    }
    static FOLDER: LazyLock<(tempfile::TempDir, CString)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("other"),
            "auth required pam_deny.so\naccount required pam_permit.so\n",
        )
        .unwrap();
        let path = CString::new(folder.path().to_str().unwrap()).unwrap();
        (folder, path)
    });
    std::fs::write(FOLDER.0.path().join("motion"), text).unwrap();
    let application = libpam::Application { folder: Some(&FOLDER.1), ..libpam::Application::new(c"motion") };
    let theirs = libpam::login(&application, c"john", libpam::Talk::new(c"john", &[b""]));
    let is_fatal = service.faults.iter().any(|fault| fault.is_fatal);
    match theirs {
        Err(_) => assert!(is_fatal, "libpam does not start: {text:?} {service:?}"),
        // The service `other`.
        Ok(theirs) if stack.is_empty() => assert_eq!(theirs.authenticate, 7, "{text:?}"),
        Ok(theirs) => {
            assert!(!is_fatal, "libpam starts: {text:?} {service:?}");
            assert_eq!(Value::of(theirs.authenticate), Some(decided), "{text:?} {service:?}");
        }
    }
}

/// The answer of pam_debug by an argument `auth=NAME`; any other name is a success.
fn debugged(argument: &str) -> Option<Value> {
    let name = argument.strip_prefix("auth=")?;
    let named =
        (0..32).filter_map(Value::of).find(|value| value.name()["PAM_".len()..].to_lowercase() == name);
    Some(named.unwrap_or(Value::SUCCESS))
}
