//! A change of one of this package's files. Only constructors that check its safety can make one.

use std::path::{Path, PathBuf};

use super::repair::{self, Host};
use crate::config::{Config, mended};

/// The application's PAM service.
pub(super) const PAM_SERVICE: &str = "/etc/pam.d/motion";

/// The PAM service as shipped.
const SHIPPED: &str = include_str!("../../pam.d/motion");

/// A change of one of this package's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    file: PathBuf,
    before: Option<String>,
    after: String,
}

impl Edit {
    /// Any change, for tests of applying and undoing one.
    #[cfg(test)]
    pub(crate) fn any(file: &Path, before: Option<&str>, after: &str) -> Self {
        Edit { file: file.to_owned(), before: before.map(str::to_owned), after: after.to_owned() }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its present text; `None` if it is missing.
    pub fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }

    /// Its new text.
    pub fn after(&self) -> &str {
        &self.after
    }

    /// Returns the application's PAM service as [`repair::repair`] makes it; if it is missing, as shipped.
    pub(super) fn service(before: Option<&str>, host: &Host<'_>) -> Option<Self> {
        let after = match before {
            Some(text) => repair::repair(text, host).filter(|after| after != text)?,
            None => SHIPPED.to_owned(),
        };
        Some(Edit { file: PAM_SERVICE.into(), before: before.map(str::to_owned), after })
    }

    /// Changes arguments on our lines of a PAM service. Each change has a line number, the argument as
    /// written, and its replacement, if any. The lines stay ours.
    pub(super) fn arguments(before: &str, changes: &[(usize, &str, Option<&str>)]) -> Option<Self> {
        let mut lines: Vec<_> = before.lines().map(str::to_owned).collect();
        for (number, argument, by) in changes {
            let written = lines.get_mut(number.checked_sub(1)?)?;
            *written = argument_replaced(written, argument, *by)?;
        }
        let after = lines.into_iter().map(|line| line + "\n").collect::<String>();
        (after != before).then(|| Edit { file: PAM_SERVICE.into(), before: Some(before.to_owned()), after })
    }

    /// Corrects a `config.toml`: a misspelt key gets its right name, and a table that is opened twice becomes
    /// one. No setting is lost, and the result is valid.
    pub(super) fn meant(file: &Path, before: &str, sssd: &Path) -> Option<Self> {
        let after = mended(before)?;
        Edit::config(file, before, after, sssd)
    }

    /// Adds the domain to a `config.toml`, if nothing else on the host names it.
    pub(super) fn domain(file: &Path, before: &str, domain: &str, sssd: &Path) -> Option<Self> {
        let line = format!("name = {domain:?}\n");
        let mut after = String::new();
        let mut is_in = false;
        for written in before.split_inclusive('\n') {
            after += written;
            if written.trim() == "[domain]" && !is_in {
                if !after.ends_with('\n') {
                    after.push('\n');
                }
                after += &line;
                is_in = true;
            }
        }
        if !is_in {
            if !after.is_empty() && !after.ends_with('\n') {
                after.push('\n');
            }
            after += &format!("\n[domain]\n{line}");
        }
        Edit::config(file, before, after, sssd)
    }

    fn config(file: &Path, before: &str, after: String, sssd: &Path) -> Option<Self> {
        let is_usable = Config::load_text(file, after.clone(), sssd).is_ok();
        (is_usable && keeps_settings(before, &after) && after != before).then(|| Edit {
            file: file.to_owned(),
            before: Some(before.to_owned()),
            after,
        })
    }
}

/// Replaces an argument on a line of ours.
fn argument_replaced(written: &str, argument: &str, by: Option<&str>) -> Option<String> {
    let start = written.find(argument).filter(|_| written.contains(super::visitors::MODULE))?;
    let (head, rest) = written.split_at_checked(start)?;
    let tail = rest.strip_prefix(argument)?;
    let is_word = head.ends_with(char::is_whitespace) && !tail.starts_with(|c: char| !c.is_whitespace());
    let (head, by) = match by {
        Some(by) => (head, by),
        None => (head.trim_end(), ""),
    };
    is_word.then(|| format!("{head}{by}{tail}"))
}

/// Returns true if every value of `before` is also in `after`, under any key.
fn keeps_settings(before: &str, after: &str) -> bool {
    let settings = |text: &str| {
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
        let mut values: Vec<_> = lines
            .map(|line| line.split_once('=').map_or(line, |(_, value)| value).trim().to_owned())
            .collect();
        values.sort_unstable();
        values
    };
    let mut kept = settings(after);
    settings(before).iter().all(|value| {
        let at = kept.iter().position(|kept| kept == value);
        at.map(|at| kept.swap_remove(at)).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sssd(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("sssd.conf");
        std::fs::write(&path, text).unwrap();
        path
    }

    const JOINED: &str = "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n";

    #[test]
    fn a_configuration_says_what_it_was_meant_to_say_and_loses_no_rule() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("names.map");
        std::fs::write(&map, "").unwrap();
        let head = format!("names.map_file = {map:?}\n");
        let sssd = sssd(folder.path(), JOINED);
        let cases = [
            ("[login]\nalow_groups = [\"A\"]\n", Some("[login]\nallow_groups = [\"A\"]\n")),
            (
                "[login]\n# mine\nwarn_days = 3\n[tls]\n[login]\nallow_groups = [\"A\"] # these\n\
                 deny_groups = [\"B\"]\n",
                Some(
                    "[login]\n# mine\nwarn_days = 3\nallow_groups = [\"A\"] # these\ndeny_groups = [\"B\"]\n\
                     [tls]\n",
                ),
            ),
            ("[login]\nallow_groups = [\"A\"]\n[login]\nallow_groups = [\"B\"]\n", None),
            ("[login]\nnonsense = 1\n", None),
            ("nonsense\n", None),
            ("[pool]\nconnections = 0\n", None),
        ];
        for (before, after) in cases {
            let edit = Edit::meant(Path::new("config.toml"), &format!("{head}{before}"), &sssd);
            let expected = after.map(|after| format!("{head}{after}"));
            assert_eq!(edit.map(|edit| edit.after), expected, "{before}");
        }
    }

    #[test]
    fn the_domain_is_named_where_nothing_else_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("names.map");
        std::fs::write(&map, "").unwrap();
        let head = format!("[names]\nmap_file = {map:?}\n");
        let none = sssd(folder.path(), "");
        let of = |before: &str| {
            Edit::domain(Path::new("config.toml"), before, "acme.com", &none).map(|edit| edit.after)
        };
        assert_eq!(of(&head), Some(format!("{head}\n[domain]\nname = \"acme.com\"\n")));
        let opened = format!("{head}[domain]\n# x\n");
        assert_eq!(of(&opened), Some(format!("{head}[domain]\nname = \"acme.com\"\n# x\n")));
        // If another domain is already named, nothing changes.
        assert_eq!(of(&format!("{head}[domain]\nname = \"other.com\"\n")), None);
    }

    #[test]
    fn one_argument_of_a_line_of_ours_changes() {
        let text = "auth required pam_motion_ad.so timeout=5s debug\nauth required pam_env.so timeout=5s\n";
        let changed =
            |line, argument, by| Edit::arguments(text, &[(line, argument, by)]).map(|edit| edit.after);
        let rest = "auth required pam_env.so timeout=5s\n";
        assert_eq!(
            changed(1, "timeout=5s", Some("timeout=5")),
            Some(format!("auth required pam_motion_ad.so timeout=5 debug\n{rest}"))
        );
        assert_eq!(
            changed(1, "timeout=5s", None),
            Some(format!("auth required pam_motion_ad.so debug\n{rest}"))
        );
        assert_eq!(changed(1, "timeout=5", None), None);
        assert_eq!(changed(2, "timeout=5s", None), None);
        // Several at once, or none of them.
        let both = [(1, "timeout=5s", Some("timeout=5")), (1, "debug", None)];
        let edit = Edit::arguments(text, &both).unwrap();
        assert_eq!(edit.after, format!("auth required pam_motion_ad.so timeout=5\n{rest}"));
        assert_eq!(Edit::arguments(text, &[both[0], (2, "timeout=5s", None)]), None);
    }

    #[test]
    fn a_setting_that_goes_is_noticed() {
        assert!(keeps_settings("a = 1\n[x]\nb=2\n", "[x]\nbb = 2\n\na = 1\nc = 3\n"));
        assert!(!keeps_settings("a = 1\nb = 1\n", "a = 1\n"));
        assert!(!keeps_settings("refuse = [\"root\"]\n", "# refuse = [\"root\"]\n"));
    }
}
