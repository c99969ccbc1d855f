//! What a check finds: how bad it is, what was seen, and what can be done about it.

use serde::Serialize;

use super::commands::Command;
use super::edit::Edit;
use super::fix::{Fix, Place, Run};

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
    /// What can be done about it; of commands for different places, the one that fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<Fix>,
    /// Of a check that was skipped: the check whose failure is the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'static str>,
    /// What was seen of each, where a check looks at several things.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

impl Finding {
    fn new(level: Level, seen: impl Into<String>) -> Self {
        Finding { level, seen: seen.into(), fix: Vec::new(), because: None, parts: Vec::new() }
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

    fn fix(mut self, fix: Fix) -> Self {
        self.fix.push(fix);
        self
    }

    /// The finding with a change of a file of ours.
    #[must_use]
    pub fn edit(self, edit: Edit) -> Self {
        self.fix(Fix::Edit(edit))
    }

    /// The finding with a command on what is ours.
    #[must_use]
    pub fn run(self, run: Run) -> Self {
        self.fix(Fix::Run(run))
    }

    /// The finding with a command on what is ours, where there is one.
    #[must_use]
    pub fn run_with(self, run: Option<Run>) -> Self {
        match run {
            Some(run) => self.run(run),
            None => self,
        }
    }

    /// The finding with a command for a person, and what stands in it for `{}`.
    #[must_use]
    pub fn command(self, command: &'static Command, parameter: &str) -> Self {
        self.fix(Fix::Command { command, parameter: parameter.to_owned() })
    }

    /// The finding with two of them, for Windows and for Samba.
    #[must_use]
    pub fn there(self, windows: &'static Command, samba: &'static Command, parameter: &str) -> Self {
        self.command(windows, parameter).command(samba, parameter)
    }

    /// Both findings as one, as bad as the worse: what one check has found is fixed at once, because a fix after which
    /// the check does not pass is taken back.
    #[must_use]
    pub fn and(mut self, other: Finding) -> Self {
        self.level = self.level.max(other.level);
        self.seen = format!("{}; {}", self.seen, other.seen);
        self.fix.extend(other.fix);
        self
    }

    /// The finding with what a person does, in words.
    #[must_use]
    pub fn advise(self, place: Place, text: impl Into<String>) -> Self {
        self.fix(Fix::Advice { place, text: text.into() })
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
