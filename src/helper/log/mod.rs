//! `motion-ad log`: the logins that the journal holds, as a table or as they happen.

mod journal;
pub(crate) mod line;
mod live;
mod table;

use std::collections::VecDeque;

use serde_json::{Map, Number, Value};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

use self::journal::{Journal, Record};
use super::{Cli, Exit, Failure, Log, Page, map, print, show};
use crate::protocol::report::EndReason;
use crate::verdict::Outcome;

/// Default of `--since`, and the same with `--follow`.
const SINCE: &str = "24 h";
const FOLLOWED: &str = "10 min";
/// Maximum number of lines that are shown; the newest stay.
const MOST: usize = 10_000;
/// Units of time that a `--since` of the form `2 h` may have. systemd reads them, too.
const UNITS: [&str; 5] = ["s", "min", "h", "d", "w"];

/// Shows the logins of the arguments.
pub(super) fn log(cli: &Cli, args: &Log) -> Result<Exit, Failure> {
    let wanted = Wanted::new(cli, args);
    if args.follow {
        return live::follow(args, &wanted);
    }
    let found = read(args, &wanted)?.0;
    let exit = if found.list.is_empty() { Exit::No } else { Exit::Yes };
    let text = match args.json {
        true => show::json(&found.list.iter().map(json).collect::<Vec<_>>())?,
        false if found.list.is_empty() => wanted.nothing(args),
        false => table::text(&found, show::width(), local(OffsetDateTime::now_utc())),
    };
    print(Page { text, exit })
}

/// The lines that the journal holds.
#[derive(Default)]
struct Found {
    /// The oldest first.
    list: VecDeque<Record>,
    /// Number of older lines that were left out.
    omitted: usize,
}

/// Reads the lines until now, and returns them with the journal's cursor after the last one.
fn read(args: &Log, wanted: &Wanted) -> Result<(Found, Option<String>), Failure> {
    let now = local(OffsetDateTime::now_utc());
    let default = if args.follow { FOLLOWED } else { SINCE };
    let mut arguments = vec![format!("--since={}", when(args.since.as_deref().unwrap_or(default), now))];
    arguments.extend(args.until.as_deref().map(|until| format!("--until={}", when(until, now))));
    let mut journal = Journal::open(&arguments, None)?;
    let mut found = Found::default();
    while let Some(records) = journal.read()? {
        found.list.extend(records.into_iter().filter(|record| wanted.fits(record)));
        while found.list.len() > MOST {
            found.list.pop_front();
            found.omitted = found.omitted.saturating_add(1);
        }
    }
    let cursor = journal.cursor().map(str::to_owned);
    journal.finish()?;
    Ok((found, cursor))
}

/// The lines that the arguments select.
struct Wanted {
    /// The name, and the principal that it maps to now; both in small letters.
    name: Option<(String, Option<String>)>,
    /// True if only rejections are selected.
    failed: bool,
}

impl Wanted {
    fn new(cli: &Cli, args: &Log) -> Self {
        let name = args.name.as_deref().map(|name| {
            // Without a configuration that can be read, the name still selects what was typed.
            let principal = map::rules(cli).ok().and_then(|rules| rules.principal(name).ok());
            (name.to_lowercase(), principal.map(|principal| principal.to_string().to_lowercase()))
        });
        Wanted { name, failed: args.failed }
    }

    fn fits(&self, record: &Record) -> bool {
        let is_named = self.name.as_ref().is_none_or(|(name, principal)| {
            let (user, account) = (record.get("user").to_lowercase(), record.get("principal").to_lowercase());
            user == *name || account == *name || (!account.is_empty() && principal.as_ref() == Some(&account))
        });
        is_named && is_shown(record) && (!self.failed || is_rejected(record))
    }

    /// Returns the text for a journal without such a line.
    fn nothing(&self, args: &Log) -> String {
        let of = match &self.name {
            Some((name, Some(principal))) if name != principal => format!(" of {name} ({principal})"),
            Some((name, _)) => format!(" of {name}"),
            None => String::new(),
        };
        let what = if self.failed { "rejected login" } else { "login" };
        let since = args.since.as_deref().unwrap_or(SINCE);
        show::escape(&format!("no {what}{of} in the journal since {since}")).into_owned() + "\n"
    }
}

/// Returns true for a line that says how a login, a password change or a session turned out. Steps that
/// follow a login and succeed are left out, and so are sessions that their application ends.
fn is_shown(record: &Record) -> bool {
    match record.get("event") {
        "login" | "password" => true,
        "account" | "password_probe" | "session_open" => record.get("outcome") != Outcome::Success.name(),
        "session_end" => {
            let reason = record.get("reason");
            EndReason::ALL.into_iter().any(|known| known.name() == reason && known.is_eviction())
        }
        _ => false,
    }
}

/// Returns true if a login or a change was rejected.
fn is_rejected(record: &Record) -> bool {
    let outcome = record.get("outcome");
    !outcome.is_empty() && outcome != Outcome::Success.name()
}

/// Returns the advice about a line: its own, or else that of its outcome.
fn advice(record: &Record) -> &str {
    match record.get("advice") {
        "" => {
            let outcome = Outcome::ALL.iter().find(|outcome| outcome.name() == record.get("outcome"));
            outcome.map_or("", |outcome| outcome.advice())
        }
        advice => advice,
    }
}

/// Returns the fields of a line, with its local time and its advice.
fn json(record: &Record) -> Value {
    let text = |value: &str| Value::String(value.to_owned());
    let mut fields: Map<_, _> = record
        .fields
        .iter()
        .map(|(name, value)| match value.parse().ok().and_then(Number::from_f64) {
            Some(number) if name == "ms" => (name.clone(), Value::Number(number)),
            _ => (name.clone(), text(value)),
        })
        .collect();
    fields.insert("time".into(), text(&moment(record).format(&Rfc3339).unwrap_or_default()));
    let advice = advice(record);
    if !advice.is_empty() {
        fields.insert("advice".into(), text(advice));
    }
    Value::Object(fields)
}

/// Returns the local time of a line.
fn moment(record: &Record) -> OffsetDateTime {
    let at = i128::from(record.at).saturating_mul(1000);
    local(OffsetDateTime::from_unix_timestamp_nanos(at).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// Converts a time to this host's time zone; UTC if that is unknown.
fn local(at: OffsetDateTime) -> OffsetDateTime {
    let offset = UtcOffset::local_offset_at(at).ok();
    offset.and_then(|offset| at.checked_to_offset(offset)).unwrap_or(at)
}

/// Formats the day as `2026-11-28`.
fn day(at: OffsetDateTime) -> String {
    format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
}

/// Formats the time of the day.
fn clock(at: OffsetDateTime) -> String {
    format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

/// Translates a time of the arguments for `journalctl`, which does not read `2 h` and `yesterday 9:00`.
fn when(text: &str, now: OffsetDateTime) -> String {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if !number.is_empty() && UNITS.contains(&unit.trim()) {
        return format!("-{number}{}", unit.trim());
    }
    let of_day = |word: &str, before: Duration| {
        let time = text.strip_prefix(word)?.trim_start();
        (time.contains(':') && !time.starts_with(':'))
            .then(|| format!("{} {time}", day(now.saturating_sub(before))))
    };
    let day = of_day("yesterday ", Duration::DAY).or_else(|| of_day("today ", Duration::ZERO));
    day.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::journal::tests::record;
    use super::*;

    #[test]
    fn times_are_what_journalctl_reads() {
        let now = OffsetDateTime::from_unix_timestamp(1_784_000_000).unwrap();
        for (given, expected) in [
            ("2 h", "-2h"),
            ("24 h", "-24h"),
            ("10min", "-10min"),
            ("7d", "-7d"),
            ("yesterday 9:00", "2026-07-13 9:00"),
            ("today 08:30", "2026-07-14 08:30"),
            ("yesterday", "yesterday"),
            ("09:00", "09:00"),
            ("2026-11-28 09:00", "2026-11-28 09:00"),
            ("-x", "-x"),
            ("5 parsecs", "5 parsecs"),
        ] {
            assert_eq!(when(given, now), expected);
        }
    }

    #[test]
    fn a_name_selects_its_account_under_every_name() {
        let wanted = |name: &str, principal: Option<&str>| Wanted {
            name: Some((name.into(), principal.map(str::to_owned))),
            failed: false,
        };
        let typed = record(1, "event=login user=JD principal=john.doe@acme.com outcome=success");
        let other =
            record(1, "event=login user=\"ACME\\\\john.doe\" principal=john.doe@acme.com outcome=disabled");
        let unmapped = record(1, "event=login user=root outcome=unmapped");
        for (name, principal, expected) in [
            ("jd", Some("john.doe@acme.com"), [true, true, false]),
            ("john.doe@acme.com", Some("john.doe@acme.com"), [true, true, false]),
            ("jd", None, [true, false, false]),
            ("root", None, [false, false, true]),
            ("jane", Some("jane@acme.com"), [false; 3]),
        ] {
            let wanted = wanted(name, principal);
            assert_eq!([&typed, &other, &unmapped].map(|one| wanted.fits(one)), expected, "{name}");
        }
        let failed = Wanted { name: None, failed: true };
        assert_eq!([&typed, &other, &unmapped].map(|one| failed.fits(one)), [false, true, true]);
    }

    #[test]
    fn what_only_follows_a_login_is_left_out() {
        for (line, expected) in [
            ("event=login outcome=success", true),
            ("event=account outcome=success", false),
            ("event=account outcome=disabled", true),
            ("event=password_probe outcome=success", false),
            ("event=password outcome=success", true),
            ("event=session_open outcome=success", false),
            ("event=session_open problem=x consequence=y", true),
            ("event=session_close outcome=success", false),
            ("event=session_end reason=replaced", true),
            ("event=session_end reason=closed", false),
            ("event=dc host=ad state=down", false),
            ("event=start", false),
        ] {
            assert_eq!(is_shown(&record(1, line)), expected, "{line}");
        }
    }

    #[test]
    fn json_has_every_field_its_time_and_the_advice() {
        let line = "event=login user=\"a\\u{1b}\" outcome=wrong_password ms=5.2 service=1";
        let value = json(&record(1_784_000_000, line));
        assert_eq!(value["user"], "a\u{1b}");
        assert_eq!(value["ms"], 5.2);
        assert_eq!(value["service"], "1");
        assert!(value["advice"].as_str().unwrap().starts_with("ask the user"));
        let utc = local(OffsetDateTime::from_unix_timestamp(1_784_000_000).unwrap());
        assert_eq!(value["time"], utc.format(&Rfc3339).unwrap());
        assert!(!show::json(&[value]).unwrap().contains('\u{1b}'));
    }
}
