//! What a check finds: how bad it is, what was seen, and the command that mends it.

use serde::Serialize;

/// How bad it is; the worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not looked at, and why.
    Skipped,
    /// Logins work, and somebody should look at it.
    Warning,
    /// Logins do not work, or not for long, or not safely.
    Failure,
}

/// Where a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On this host, as root.
    Here,
    /// On a domain controller that runs Windows, in PowerShell as a domain administrator.
    Windows,
    /// On a domain controller that runs Samba, as root.
    Samba,
}

/// A command that mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// Where.
    pub place: Place,
    /// For a shell, as it stands.
    pub command: String,
}

/// The same of one of several things that a check looks at: a domain controller, mostly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Which.
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub seen: String,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was seen, in words.
    pub seen: String,
    /// Commands that mend it: all of one place, one after the other; where places differ, the one that fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mend: Vec<Mend>,
    /// Of a check that was skipped: the check whose failure is the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'static str>,
    /// What was seen of each, where a check looks at several things.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

impl Finding {
    fn new(level: Level, seen: impl Into<String>) -> Self {
        Finding { level, seen: seen.into(), mend: Vec::new(), because: None, parts: Vec::new() }
    }

    /// As it should be.
    pub fn ok(seen: impl Into<String>) -> Self {
        Finding::new(Level::Ok, seen)
    }

    /// Logins work, and somebody should look at it.
    pub fn warning(seen: impl Into<String>) -> Self {
        Finding::new(Level::Warning, seen)
    }

    /// Logins do not work, or not for long, or not safely.
    pub fn failure(seen: impl Into<String>) -> Self {
        Finding::new(Level::Failure, seen)
    }

    /// Not looked at, and why.
    pub fn skipped(seen: impl Into<String>) -> Self {
        Finding::new(Level::Skipped, seen)
    }

    /// Not looked at, because of what the check `id` found.
    pub fn because(id: &'static str) -> Self {
        Finding { because: Some(id), ..Finding::skipped(format!("because of {id}")) }
    }

    /// The same with a command for this host.
    #[must_use]
    pub fn mend(self, command: impl Into<String>) -> Self {
        self.mend_at(Place::Here, command)
    }

    /// The same with a command for this host, where there is one.
    #[must_use]
    pub fn mend_with(self, command: Option<String>) -> Self {
        match command {
            Some(command) => self.mend(command),
            None => self,
        }
    }

    /// The same with a command for a domain controller, as Windows and as Samba has it.
    #[must_use]
    pub fn mend_there(self, windows: impl Into<String>, samba: impl Into<String>) -> Self {
        self.mend_at(Place::Windows, windows).mend_at(Place::Samba, samba)
    }

    fn mend_at(mut self, place: Place, command: impl Into<String>) -> Self {
        self.mend.push(Mend { place, command: command.into() });
        self
    }

    /// What becomes of the findings about several things of one kind, of which one that works is enough: as bad as
    /// the worst, but a warning where logins go on by another.
    pub fn of_parts(parts: Vec<Part>) -> Self {
        let worst = parts.iter().map(|part| part.level).max().unwrap_or(Level::Skipped);
        let works = parts.iter().any(|part| matches!(part.level, Level::Ok | Level::Warning));
        let level = if worst == Level::Failure && works { Level::Warning } else { worst };
        // Those that tell the level; where all is well, all of them.
        let telling = parts.iter().filter(|part| part.level == worst);
        let seen = telling.map(|part| format!("{}: {}", part.subject, part.seen)).collect::<Vec<_>>();
        Finding { parts, ..Finding::new(level, seen.join("; ")) }
    }
}

/// `text` as one word of a shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(subject: &str, level: Level) -> Part {
        Part { subject: subject.into(), level, seen: format!("{level:?}") }
    }

    #[test]
    fn one_that_works_makes_a_failure_a_warning() {
        use Level::*;
        let cases: [(&[Level], Level, &str); 5] = [
            (&[Ok, Ok], Ok, "dc1: Ok; dc2: Ok"),
            (&[Failure, Ok], Warning, "dc1: Failure"),
            (&[Failure, Warning], Warning, "dc1: Failure"),
            (&[Failure, Failure], Failure, "dc1: Failure; dc2: Failure"),
            (&[Failure, Skipped], Failure, "dc1: Failure"),
        ];
        for (levels, level, seen) in cases {
            let parts = levels.iter().zip(["dc1", "dc2"]).map(|(level, dc)| part(dc, *level)).collect();
            let finding = Finding::of_parts(parts);
            assert_eq!((finding.level, finding.seen.as_str()), (level, seen), "{levels:?}");
        }
    }

    #[test]
    fn a_word_stays_one_word_for_a_shell() {
        for (text, word) in [
            ("/etc/krb5.keytab", "/etc/krb5.keytab"),
            ("XCALLY Agents", "'XCALLY Agents'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("XCALLY$", "'XCALLY$'"),
            ("", "''"),
        ] {
            assert_eq!(quote(text), word);
        }
    }
}
