//! The result of an audit, for administrators, scripts and spreadsheets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use time::OffsetDateTime;

use super::names::Row;
use crate::helper::show::{self, Columns};
use crate::helper::{Exit, Failure};
use crate::name::NameMap;
use crate::protocol::report::Audited;
use crate::verdict::Outcome;

const DAY: u64 = 86_400;

/// Result of the whole audit.
pub(super) struct Findings<'a> {
    people: Vec<Person<'a>>,
    /// Limit for [`Person::expires_soon`], in days.
    soon: u32,
}

/// One name of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Person<'a> {
    line: u64,
    name: &'a str,
    principal: Option<&'a str>,
    may_log_in: bool,
    outcome: Outcome,
    reason: &'a str,
    mapped: bool,
    password_expires: Option<String>,
    account_expires: Option<String>,
    /// The password or the account, if it expires soon, with the remaining days.
    expires_soon: Option<String>,
    /// Earlier line with the same name.
    repeats_line: Option<u64>,
    /// An earlier name of the same account.
    same_account_as: Option<&'a str>,
    suggestion: Option<Suggestion<'a>>,
}

/// A suggested line for names.map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Suggestion<'a> {
    line: String,
    why: &'a str,
}

/// Number of names of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    names: usize,
    may_log_in: usize,
    mapped: usize,
    expires_soon: usize,
    repeated: usize,
    same_account: usize,
    suggestions: usize,
    outcomes: BTreeMap<&'static str, usize>,
}

impl<'a> Findings<'a> {
    /// Evaluates the list. `answers` are by name; a name that is not among them got no answer.
    pub(super) fn new(
        rows: &'a [Row],
        answers: &'a HashMap<&'a str, Audited>,
        soon: u32,
        now: SystemTime,
    ) -> Self {
        let mut people = Vec::with_capacity(rows.len());
        let (mut lines, mut accounts) = (HashMap::new(), HashMap::new());
        for row in rows {
            let name = row.name.as_str();
            let answer = answers.get(name);
            let repeats_line = lines.get(name).copied();
            lines.entry(name).or_insert(row.line);
            let guid = answer.and_then(|audited| audited.guid.as_deref());
            let first = guid.map(|guid| *accounts.entry(guid).or_insert(name));
            people.push(Person {
                line: row.line,
                name,
                principal: answer.and_then(|audited| audited.principal.as_deref()),
                may_log_in: answer.is_some_and(|audited| audited.outcome.is_success()),
                outcome: answer.map_or(Outcome::Unmapped, |audited| audited.outcome),
                reason: answer.map_or(row.problem.as_deref().unwrap_or_default(), |audited| &audited.reason),
                mapped: answer.is_some_and(|audited| audited.mapped),
                password_expires: answer.and_then(|audited| audited.password_expires).map(day),
                account_expires: answer.and_then(|audited| audited.account_expires).map(day),
                expires_soon: answer.and_then(|audited| expires_soon(audited, soon, now)),
                repeats_line,
                same_account_as: first.filter(|first| *first != name),
                suggestion: None,
            });
        }
        suggest(&mut people, answers, &accounts);
        Findings { people, soon }
    }

    pub(super) fn exit(&self) -> Exit {
        let is = |outcome| self.people.iter().any(|person| person.outcome == outcome);
        if is(Outcome::Unavailable) || is(Outcome::Misconfigured) {
            Exit::Failed
        } else if self.people.iter().all(|person| person.may_log_in) {
            Exit::Yes
        } else {
            Exit::No
        }
    }

    fn summary(&self) -> Summary {
        let count = |is: fn(&Person<'_>) -> bool| self.people.iter().filter(|person| is(person)).count();
        let mut outcomes = BTreeMap::new();
        for person in self.people.iter().filter(|person| !person.may_log_in) {
            *outcomes.entry(person.outcome.name()).or_default() += 1;
        }
        Summary {
            names: self.people.len(),
            may_log_in: count(|person| person.may_log_in),
            mapped: count(|person| person.mapped),
            expires_soon: count(|person| person.expires_soon.is_some()),
            repeated: count(|person| person.repeats_line.is_some()),
            same_account: count(|person| person.same_account_as.is_some()),
            suggestions: count(|person| person.suggestion.is_some()),
            outcomes,
        }
    }

    /// The summary, the noteworthy names (or `all`), and the suggestions for names.map.
    pub(super) fn text(&self, all: bool) -> String {
        let mut text = self.summary_text();
        let mut table = Columns::headed(["", "LINE", "NAME", "ACCOUNT", "WHAT"]);
        let mut shown = 0;
        for person in self.people.iter().filter(|person| all || person.is_worth_showing()) {
            let mark = if person.may_log_in { "" } else { "x" };
            let line = person.line.to_string();
            table.row([mark, &line, person.name, person.principal.unwrap_or_default(), &person.what()]);
            shown += 1;
        }
        if shown > 0 {
            text += &format!("\n{}", table.right([1]).text());
        }
        text + &self.suggestions()
    }

    fn summary_text(&self) -> String {
        let summary = self.summary();
        let mut counts = Columns::plain();
        let mut count = |count: usize, what: &str| {
            if count > 0 {
                counts.row([&count.to_string(), what]);
            }
        };
        count(summary.names, "names");
        count(summary.may_log_in, "may log in");
        count(summary.mapped, "lead elsewhere by names.map");
        count(
            summary.expires_soon,
            &format!("have a password or an account that expires within {} days", self.soon),
        );
        for (outcome, people) in &summary.outcomes {
            count(*people, &format!("may not: {outcome}"));
        }
        count(summary.repeated, "repeat an earlier name of the list");
        count(summary.same_account, "lead to the account of another name in the list");
        counts.right([0]).text()
    }

    fn suggestions(&self) -> String {
        let mut text = String::new();
        for suggestion in self.people.iter().filter_map(|person| person.suggestion.as_ref()) {
            if text.is_empty() {
                text += "\n# Suggestions for names.map, made from similar accounts. Check each before you \
                    use it.\n";
            }
            text += &format!("# {}\n{}\n", show::escape(suggestion.why), show::escape(&suggestion.line));
        }
        text
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        #[derive(Serialize)]
        struct Json<'a> {
            summary: Summary,
            names: &'a [Person<'a>],
        }
        show::json(&Json { summary: self.summary(), names: &self.people })
    }

    pub(super) fn csv(&self) -> Result<String, Failure> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(HEADING)?;
        for person in &self.people {
            let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            let text = |text: Option<&str>| show::escape(text.unwrap_or_default()).into_owned();
            let suggestion = person.suggestion.as_ref();
            csv.write_record([
                person.line.to_string(),
                text(Some(person.name)),
                text(person.principal),
                if person.may_log_in { "yes" } else { "no" }.to_owned(),
                person.outcome.name().to_owned(),
                text(Some(person.reason)),
                if person.mapped { "yes" } else { "" }.to_owned(),
                text(person.password_expires.as_deref()),
                text(person.account_expires.as_deref()),
                text(person.expires_soon.as_deref()),
                number(person.repeats_line),
                text(person.same_account_as),
                text(suggestion.map(|suggestion| suggestion.line.as_str())),
                text(suggestion.map(|suggestion| suggestion.why)),
            ])?;
        }
        let bytes = csv.into_inner().map_err(|e| Failure::Output(e.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// First row of [`Findings::csv`].
const HEADING: [&str; 14] = [
    "line",
    "name",
    "principal",
    "may_log_in",
    "outcome",
    "reason",
    "mapped",
    "password_expires",
    "account_expires",
    "expires_soon",
    "repeats_line",
    "same_account_as",
    "suggestion",
    "suggestion_why",
];

impl Person<'_> {
    fn is_worth_showing(&self) -> bool {
        !self.may_log_in
            || self.mapped
            || self.expires_soon.is_some()
            || self.repeats_line.is_some()
            || self.same_account_as.is_some()
    }

    fn what(&self) -> String {
        let mut what = Vec::new();
        if !self.may_log_in {
            what.push(self.outcome.name().to_owned());
        }
        what.extend([self.reason.to_owned()]);
        what.extend(self.mapped.then(|| "by names.map".to_owned()));
        what.extend(self.expires_soon.clone());
        what.extend(self.repeats_line.map(|line| format!("stands on line {line} too")));
        what.extend(self.same_account_as.map(|name| format!("the account of {name} too")));
        what.retain(|part| !part.is_empty());
        what.join("; ")
    }
}

/// Returns which of password and account expires first, and when, if an account that may log in loses either
/// within `soon` days.
fn expires_soon(audited: &Audited, soon: u32, now: SystemTime) -> Option<String> {
    if !audited.outcome.is_success() {
        return None;
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let limit = now.saturating_add(u64::from(soon).saturating_mul(DAY));
    let both = [("password", audited.password_expires), ("account", audited.account_expires)];
    let (what, at) = both.into_iter().filter_map(|(what, at)| Some((what, at?))).min_by_key(|(_, at)| *at)?;
    (at <= limit).then(|| format!("{what} expires in {} days", at.saturating_sub(now) / DAY))
}

fn day(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.map_or_else(|| "after the year 9999".to_owned(), |at| at.date().to_string())
}

/// Suggests a line if no other name in the list has the account and names.map accepts the line.
fn suggest<'a>(
    people: &mut [Person<'a>],
    answers: &'a HashMap<&'a str, Audited>,
    accounts: &HashMap<&str, &str>,
) {
    let mut suggested = HashSet::new();
    for person in people.iter_mut().filter(|person| person.repeats_line.is_none()) {
        let near = answers.get(person.name).and_then(|audited| audited.near.as_ref());
        let Some(near) = near.filter(|near| !accounts.contains_key(near.guid.as_str())) else { continue };
        let line = format!("{} = {}", person.name, near.principal);
        let is_understood = !person.name.starts_with('#') && NameMap::parse(&line).is_ok();
        // Two spellings of one name give the same line.
        if is_understood && suggested.insert(line.to_lowercase()) {
            person.suggestion = Some(Suggestion { line, why: &near.why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Near;

    const NOW: u64 = 1_795_447_800;

    fn row(line: u64, name: &str) -> Row {
        Row { line, name: name.to_owned(), problem: None }
    }

    fn fine(guid: &str) -> Audited {
        let principal = Some(format!("{guid}@acme.com"));
        Audited { principal, guid: Some(guid.to_owned()), ..Audited::new(Outcome::Success, "") }
    }

    fn near(principal: &str, guid: &str) -> Audited {
        let near =
            Near { principal: principal.into(), guid: guid.into(), why: "initial and surname: CN=x".into() };
        Audited { near: Some(near), ..Audited::new(Outcome::UnknownUser, "AD has no account") }
    }

    fn with<T>(
        rows: &[Row],
        answers: &[(&'static str, Audited)],
        test: impl FnOnce(&Findings<'_>) -> T,
    ) -> T {
        let answers = answers.iter().cloned().collect();
        test(&Findings::new(rows, &answers, 14, UNIX_EPOCH + Duration::from_secs(NOW)))
    }

    #[test]
    fn the_result_of_a_list_is_a_summary_a_table_and_lines_for_names_map() {
        let rows = [
            row(1, "john"),
            row(2, "John"),
            row(3, "john"),
            row(4, "dora"),
            row(5, "jdoe"),
            row(6, "anne"),
            row(7, "front desk"),
            Row { problem: Some("the name is not UTF-8".into()), ..row(8, "x\u{1b}") },
            row(9, "fine"),
        ];
        let answers = [
            ("john", Audited { password_expires: Some(NOW + 3 * DAY), ..fine("1") }),
            ("John", fine("1")),
            ("dora", Audited { outcome: Outcome::Disabled, ..fine("2") }),
            ("jdoe", near("jane.doe@acme.com", "9")),
            ("anne", near("dora@acme.com", "2")),
            ("front desk", Audited { mapped: true, ..fine("3") }),
            ("fine", Audited { password_expires: Some(NOW + 15 * DAY), ..fine("4") }),
        ];
        with(&rows, &answers, |findings| {
            assert_eq!(
                findings.text(false),
                " 9  names\n 5  may log in\n 1  lead elsewhere by names.map\n 2  have a password or an \
                 account that expires within 14 days\n 1  may not: disabled\n 2  may not: unknown_user\n 1  \
                 may not: unmapped\n 1  repeat an earlier name of the list\n 1  lead to the account of \
                 another name in the list\n\n    LINE  NAME        ACCOUNT     WHAT\n       1  john        \
                 1@acme.com  password expires in 3 days\n       2  John        1@acme.com  the account of \
                 john too\n       3  john        1@acme.com  password expires in 3 days; stands on line 1 \
                 too\n x     4  dora        2@acme.com  disabled\n x     5  jdoe                    \
                 unknown_user; AD has no account\n x     6  anne                    unknown_user; AD has no \
                 account\n       7  front desk  3@acme.com  by names.map\n x     8  x\\u{1b}                 \
                 unmapped; the name is not UTF-8\n\n\
                 # Suggestions for names.map, made from similar accounts. Check each before you use it.\n\
                 # initial and surname: CN=x\njdoe = jane.doe@acme.com\n"
            );
            assert!(findings.text(true).contains("  fine "), "{}", findings.text(true));
            assert_eq!(findings.exit(), Exit::No);
            let csv = findings.csv().unwrap();
            assert_eq!(csv.lines().count(), 10);
            assert_eq!(csv.lines().next().unwrap().split(',').count(), HEADING.len());
            assert!(
                csv.contains(
                    "\n1,john,1@acme.com,yes,success,,,2026-11-26,,password expires in 3 days,,,,\n"
                ),
                "{csv}"
            );
            let json: serde_json::Value = serde_json::from_str(&findings.json().unwrap()).unwrap();
            assert_eq!(json["summary"]["may_log_in"], 5);
            assert_eq!(json["names"][4]["suggestion"]["line"], "jdoe = jane.doe@acme.com");
        });
    }

    #[test]
    fn the_exit_status_is_the_worst_answer() {
        let cases = [
            (Outcome::Success, Exit::Yes),
            (Outcome::Disabled, Exit::No),
            (Outcome::Unavailable, Exit::Failed),
            (Outcome::Misconfigured, Exit::Failed),
        ];
        for (outcome, exit) in cases {
            let answers = [("a", fine("1")), ("b", Audited::new(outcome, ""))];
            assert_eq!(
                with(&[row(1, "a"), row(2, "b")], &answers, |findings| findings.exit()),
                exit,
                "{outcome}"
            );
        }
    }

    #[test]
    fn a_suggestion_that_the_map_would_not_understand_is_not_made() {
        for (name, made) in [("jdoe", true), ("#jdoe", false), ("a = b", true)] {
            let rows = [row(1, name)];
            let answers = HashMap::from([(name, near("jane.doe@acme.com", "9"))]);
            let findings = Findings::new(&rows, &answers, 14, SystemTime::now());
            assert_eq!(findings.people[0].suggestion.is_some(), made, "{name}");
        }
    }
}
