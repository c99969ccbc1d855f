//! The result of a check: its severity, the observation, and the fixes.
//!
//! An observation and a step in words are phrases without a full stop at the end: the report joins them by
//! semicolons, and sets them in a list.

use serde::Serialize;

use super::commands::Command;
use super::commands::Place;
use super::edit::Edit;
use super::fix::{Fix, Run};

/// Severity; the worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not checked; the finding has the reason.
    Skipped,
    /// Logins work, but the administrator should look at the problem.
    Warning,
    /// Logins fail, will soon fail, or are unsafe.
    Failure,
}

/// The result for one of several things that a check examines, mostly a domain controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Name of the thing.
    pub subject: String,
    /// Severity.
    pub level: Level,
    /// Observation.
    pub seen: String,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Severity.
    pub level: Level,
    /// Observation, in words.
    pub seen: String,
    /// Fixes. Of commands for different places, the administrator runs the one that fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<Fix>,
    /// The check whose failure is the cause, if this one was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'static str>,
    /// Result for each thing, if a check examines several.
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

    /// Logins work, but the administrator should look at the problem.
    pub fn warning(seen: impl Into<String>) -> Self {
        Finding::new(Level::Warning, seen)
    }

    /// Logins fail, will soon fail, or are unsafe.
    pub fn failure(seen: impl Into<String>) -> Self {
        Finding::new(Level::Failure, seen)
    }

    /// Not checked; `seen` is the reason.
    pub fn skipped(seen: impl Into<String>) -> Self {
        Finding::new(Level::Skipped, seen)
    }

    /// Not checked, because of the result of the check `id`.
    pub fn because(id: &'static str) -> Self {
        Finding { because: Some(id), ..Finding::skipped(format!("because of {id}")) }
    }

    fn fix(mut self, fix: Fix) -> Self {
        self.fix.push(fix);
        self
    }

    /// Adds a change of a file of ours.
    #[must_use]
    pub fn edit(self, edit: Edit) -> Self {
        self.fix(Fix::Edit(edit))
    }

    /// Adds a command on a file or unit of ours.
    #[must_use]
    pub fn run(self, run: Run) -> Self {
        self.fix(Fix::Run(run))
    }

    /// Adds a command on a file or unit of ours, if there is one.
    #[must_use]
    pub fn run_with(self, run: Option<Run>) -> Self {
        match run {
            Some(run) => self.run(run),
            None => self,
        }
    }

    /// Adds a command for the administrator, with its parameter.
    #[must_use]
    pub fn command(self, command: &'static Command, parameter: &str) -> Self {
        self.fix(Fix::Command { command, parameter: parameter.to_owned() })
    }

    /// Adds two commands for the administrator, one for Windows and one for Samba.
    #[must_use]
    pub fn there(self, windows: &'static Command, samba: &'static Command, parameter: &str) -> Self {
        self.command(windows, parameter).command(samba, parameter)
    }

    /// Merges two findings; the result has the worse level. All fixes of a check are applied together,
    /// because a fix after which the check still fails is undone.
    #[must_use]
    pub fn and(mut self, other: Finding) -> Self {
        self.level = self.level.max(other.level);
        self.seen = format!("{}; {}", self.seen, other.seen);
        self.fix.extend(other.fix);
        self
    }

    /// Adds a step for the administrator, in words.
    #[must_use]
    pub fn advise(self, place: Place, text: impl Into<String>) -> Self {
        self.fix(Fix::Advice { place, text: text.into() })
    }

    /// Combines the results for several things of one kind, of which one that works is enough: the worst
    /// level, but a warning instead of a failure if one of them works.
    pub fn of_parts(parts: Vec<Part>) -> Self {
        let worst = parts.iter().map(|part| part.level).max().unwrap_or(Level::Skipped);
        let works = parts.iter().any(|part| matches!(part.level, Level::Ok | Level::Warning));
        let level = if worst == Level::Failure && works { Level::Warning } else { worst };
        // Those of the worst level; all of them if all is well.
        let telling = parts.iter().filter(|part| part.level == worst);
        let seen = telling.map(|part| format!("{}: {}", part.subject, part.seen)).collect::<Vec<_>>();
        Finding { parts, ..Finding::new(level, seen.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The texts of `table.rs` are sentences, as its own tests require.
    #[test]
    fn no_observation_and_no_step_ends_with_a_full_stop() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor");
        let mut seen = 0;
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_dir() || file.ends_with("table.rs") {
                continue;
            }
            let source = fs::read_to_string(&file).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let sentence = line.split(".\"").next().filter(|before| *before != line);
                let words = sentence.map(|before| before.rsplit('"').next().unwrap_or_default());
                assert!(!words.is_some_and(|words| words.contains(' ')), "{}: {line}", file.display());
                seen += 1;
            }
        }
        assert!(seen > 3000, "{seen}");
    }

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
}
