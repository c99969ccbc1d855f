//! The table of `motion-ad log`: a row for each line, with its reason below, and the advice at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::journal::Record;
use super::{Found, advice, clock, day, is_rejected, moment};
use crate::helper::show::{self, Columns};

/// Indent of a reason, in columns.
const INDENT: usize = 4;
/// Space of the table around each cell, in columns.
const AROUND: usize = 2;
/// Shortest width to which a name is cut, in columns.
const NAME: usize = 8;
/// Width of a name that a column with less to say makes room for.
const ROOM: usize = 24;

/// Returns the table for a terminal of `width` columns, or with whole lines for a file.
pub(super) fn text(found: &Found, width: Option<usize>, now: OffsetDateTime) -> String {
    let mut text = String::new();
    if found.omitted > 0 {
        text += &format!(
            "{} older lines are left out: narrow the time with --since and --until\n",
            found.omitted
        );
    }
    let (table, shown) = rows(found, width, now);
    let mut lines = table.lines();
    text += &format!("{}\n", lines.next().unwrap_or_default());
    for (record, line) in shown.zip(lines) {
        text += &format!("{line}\n");
        let reason = detail(record);
        if !reason.is_empty() {
            text += &format!("{}{}\n", " ".repeat(INDENT), show::hang(&show::escape(&reason), INDENT, width));
        }
    }
    text += &format!("\n{}\n", show::hang(&counts(found), 2, width));
    for (word, advice) in advices(found) {
        let line = format!("{word}: {advice}");
        text += &format!("{}\n", show::hang(&show::escape(&line), 2, width));
    }
    text
}

/// Returns a heading and a line for each record. Columns without a value are left out, and on a narrow
/// terminal also those that say least.
fn rows(found: &Found, width: Option<usize>, now: OffsetDateTime) -> (String, impl Iterator<Item = &Record>) {
    let is_today = found.list.iter().all(|record| day(moment(record)) == day(now));
    let time = |record: &Record| match (moment(record), is_today) {
        (at, true) => clock(at),
        (at, false) => format!("{} {}", day(at), clock(at)),
    };
    let cell = |record: &Record, name: &str| show::escape(record.get(name)).into_owned();
    let column = |heading: &'static str, value: &dyn Fn(&Record) -> String| -> (&'static str, Vec<String>) {
        (heading, found.list.iter().map(value).collect())
    };
    let mut columns = vec![
        column("TIME", &time),
        column("NAME", &|record| cell(record, "user")),
        column("OUTCOME", &|record| show::escape(outcome(record)).into_owned()),
        column("FROM", &|record| cell(record, "rhost")),
        column("DC", &|record| cell(record, "dc")),
        column("MS", &|record| cell(record, "ms")),
    ];
    columns.retain(|(_, cells)| cells.iter().any(|cell| !cell.is_empty()));
    let longest = |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or_default();
    let size = |(heading, cells): &(&str, Vec<String>)| longest(cells).max(heading.len()) + AROUND;
    if let Some(width) = width {
        for least in ["MS", "DC", "FROM"] {
            let needed = |column: &(&str, Vec<String>)| match column.0 {
                "NAME" => size(column).min(ROOM),
                _ => size(column),
            };
            if columns.iter().map(needed).sum::<usize>() > width {
                columns.retain(|(heading, _)| *heading != least);
            }
        }
        let others: usize = columns.iter().filter(|(heading, _)| *heading != "NAME").map(size).sum();
        let room = width.saturating_sub(others + AROUND).max(NAME);
        for (_, names) in columns.iter_mut().filter(|(heading, _)| *heading == "NAME") {
            names.iter_mut().for_each(|name| *name = cut(name, room).into_owned());
        }
    }
    let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
    let right = headings.iter().position(|heading| *heading == "MS");
    let mut table = Columns::of(&headings);
    for index in 0..found.list.len() {
        let cells = columns.iter().map(|(_, cells)| cells.get(index).cloned().unwrap_or_default());
        table.line(&cells.collect::<Vec<_>>());
    }
    (table.right(right).text(), found.list.iter())
}

/// Returns the first `room` characters of a name; one that is longer ends with `…`.
fn cut(name: &str, room: usize) -> Cow<'_, str> {
    match name.chars().count() > room {
        true => Cow::Owned(name.chars().take(room.saturating_sub(1)).chain(['…']).collect()),
        false => Cow::Borrowed(name),
    }
}

/// Returns the outcome of a line; of a session that ended, the reason.
pub(super) fn outcome(record: &Record) -> &str {
    match (record.get("event"), record.get("outcome")) {
        ("session_end", _) => record.get("reason"),
        (_, "") => "problem",
        (_, outcome) => outcome,
    }
}

/// Returns what a line is about if it is no login, the account if the name does not say it, and the reason.
pub(super) fn detail(record: &Record) -> String {
    let mut head = Vec::new();
    head.extend(match record.get("event") {
        "account" => Some("account check".to_owned()),
        "password_probe" => Some("present password of a password change".to_owned()),
        "password" => Some("password change".to_owned()),
        "session_open" => Some("session".to_owned()),
        "session_end" => Some("session ended".to_owned()),
        _ => None,
    });
    head.extend((record.get("mode") == "observe").then(|| "only observed".to_owned()));
    head.extend(account(record).map(|principal| format!("as {principal}")));
    let reason = match record.get("event") {
        "session_end" => record.get("detail"),
        _ => record.get("reason"),
    };
    let mut reasons =
        vec![reason.to_owned(), record.get("problem").to_owned(), record.get("consequence").to_owned()];
    let seen = record.get("text");
    if !seen.is_empty() {
        reasons.push(format!("the user saw: {seen}"));
    }
    reasons.retain(|reason| !reason.is_empty());
    let parts = [head.join(" "), reasons.join("; ")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// Returns the principal if it differs from what the user typed by more than the domain.
fn account(record: &Record) -> Option<&str> {
    let principal = record.get("principal");
    let typed = record.get("user").to_lowercase();
    let local = typed.split_once('\\').map_or(typed.as_str(), |(_, name)| name);
    let local = local.split_once('@').map_or(local, |(name, _)| name);
    let is_same = principal.split_once('@').is_none_or(|(name, _)| name.to_lowercase() == local);
    (!is_same).then_some(principal)
}

/// Returns the number of lines by outcome.
fn counts(found: &Found) -> String {
    let mut counts = BTreeMap::new();
    for record in &found.list {
        *counts.entry(outcome(record)).or_insert(0_usize) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<_> = counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    show::escape(&counts.join(", ")).into_owned()
}

/// Returns the advice about each outcome, in the order in which they occurred.
fn advices(found: &Found) -> Vec<(&str, &str)> {
    let mut advices: Vec<(&str, &str)> = Vec::new();
    for record in found.list.iter().filter(|record| is_rejected(record)) {
        let (word, advice) = (outcome(record), advice(record));
        if !advice.is_empty() && !advices.iter().any(|(known, _)| *known == word) {
            advices.push((word, advice));
        }
    }
    advices
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::*;
    use crate::verdict::Outcome;

    fn found(lines: &[&str]) -> Found {
        let list = lines.iter().zip(1_784_000_000..).map(|(line, at)| record(at, line)).collect();
        Found { list, omitted: 0 }
    }

    fn tomorrow() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_784_100_000).unwrap()
    }

    const LINES: &[&str] = &[
        "event=login user=john.doe principal=john.doe@acme.com outcome=success method=ldap dc=ad.acme.com \
         peer=uid:999 service=motion rhost=192.0.2.7 ms=4.2",
        "event=login user=jd principal=john.doe@acme.com outcome=wrong_password reason=\"AD says: the \
         password is wrong (data 52e)\" method=ldap dc=ad.acme.com service=motion ms=5.2",
        "event=password user=petra.expired principal=petra.expired@acme.com outcome=password_refused \
         reason=\"AD refuses the new password\" text=\"It is too short.\" ms=30.0",
        "event=session_end session=8f14e45f user=seth.seat principal=seth.seat@acme.com reason=replaced \
         detail=9f14e45f",
        "event=login user=\"evil\\u{1b}[2J\\u{202e}name that is long enough to be cut off on every \
         terminal\" outcome=unmapped reason=\"the name contains a control character\" advice=\"as the line \
         says\"",
    ];

    #[test]
    fn nothing_breaks_inside_a_word_and_nothing_moves_the_cursor() {
        for width in [Some(60), Some(80), Some(120), None] {
            let text = text(&found(LINES), width, tomorrow());
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
            assert!(!text.contains('\u{202e}'));
            for line in text.lines() {
                assert!(width.is_none_or(|width| line.chars().count() <= width), "{width:?}: {line:?}");
            }
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [
                "john.doe success",
                "as john.doe@acme.com: AD says: the password is wrong (data 52e)",
                "password change: AD refuses the new password; the user saw: It is too short.",
                "seth.seat replaced",
                "session ended: 9f14e45f",
                "unmapped: as the line says",
                "wrong_password: ask the user to type the password again; each attempt counts towards AD's \
                 lockout",
                "1 success",
            ] {
                assert!(words.contains(part), "{width:?}: no {part:?} in\n{text}");
            }
            assert_eq!(text.contains("ad.acme.com"), width.is_none_or(|width| width > 80), "{text}");
            assert_eq!(text.contains('…'), width.is_some(), "{text}");
        }
    }

    #[test]
    fn the_day_is_shown_unless_all_is_of_today() {
        let found = found(&LINES[..1]);
        let today = moment(&found.list[0]);
        assert!(text(&found, None, tomorrow()).contains(" 2026-07-1"));
        assert!(!text(&found, None, today).contains("2026-07-1"));
        assert!(text(&found, None, today).contains(&clock(today)));
    }

    #[test]
    fn every_outcome_fits_beside_a_name_of_a_narrow_terminal() {
        for outcome in Outcome::ALL {
            let line =
                format!("event=login user=maximilian.mustermann outcome={outcome} ms=5.0 rhost=192.0.2.7");
            let text = text(&found(&[&line]), Some(60), tomorrow());
            assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
            assert!(text.contains(outcome.name()), "{text}");
        }
    }
}
