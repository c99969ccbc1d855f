//! `motion-ad log --follow`: a line for each login as it happens. On a terminal, the last row sums up the
//! last minute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::journal::{Journal, Record};
use super::table::{detail, outcome};
use super::{Wanted, clock, is_rejected, json, moment, read};
use crate::helper::{Exit, Failure, Log, show};

/// Time that the last row covers.
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of logins that the last row counts.
const MOST: usize = 100_000;
/// Ends of `journalctl` in a row, without a new record, after which it is not started again.
const ENDS: u32 = 5;
/// A `journalctl` that has run for this time has worked, even without a new record.
const WORKED: Duration = Duration::from_secs(60);
/// Time after which the last row is written again without a login, and `journalctl` starts again after its
/// end.
const REFRESH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Moves the cursor up by one row and clears that row (ECMA-48, CUU and EL).
const UP: &str = "\u{1b}[1A\u{1b}[2K";

/// Prints each login until the reader of the output is gone.
pub(super) fn follow(args: &Log, wanted: &Wanted) -> Result<Exit, Failure> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let mut screen =
        Screen { has_footer: !args.json && io::stdout().is_terminal() && !is_dumb, is_drawn: false };
    let mut summary = Summary::default();
    let begun = now() / 1_000_000;
    let (found, cursor) = read(args, wanted)?;
    let mut new: Vec<_> = found.list.into();
    let mut source = Source { cursor, begun, journal: None, opened: Instant::now(), ends: Ends::default() };
    source.open()?;
    loop {
        let mut lines = String::new();
        for record in &new {
            summary.add(record);
            if wanted.fits(record) {
                lines += &line(record, args.json)?;
            }
        }
        let footer = summary.text(now());
        match screen.write(&lines, &footer) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Yes),
            written => written?,
        }
        new = match wait(source.journal.as_ref())? {
            Woken::Journal => source.read()?,
            Woken::Reader => return Ok(Exit::Yes),
            Woken::Clock => {
                source.open()?;
                Vec::new()
            }
        };
    }
}

/// The journal from a place on. `journalctl` can end although it follows the journal: a signal, an error
/// while a file is rotated or removed, or no inotify instance left (it then prints what there is and ends
/// with status 0). It starts again at the last record.
struct Source {
    /// Cursor of the last record.
    cursor: Option<String>,
    /// Second since 1970 from which records are new, as long as there is no cursor.
    begun: u64,
    /// `None` from its end until it starts again.
    journal: Option<Journal>,
    /// Time when it last started.
    opened: Instant,
    ends: Ends,
}

impl Source {
    /// Starts `journalctl` unless it runs.
    fn open(&mut self) -> Result<(), Failure> {
        if self.journal.is_some() {
            return Ok(());
        }
        // With `--after-cursor`, journalctl 252 skips the first record if that of the cursor was removed.
        let position = match &self.cursor {
            Some(cursor) => format!("--cursor={cursor}"),
            None => format!("--since=@{}", self.begun),
        };
        let arguments = ["--follow".to_owned(), "--no-tail".to_owned(), position];
        self.opened = Instant::now();
        self.journal = Some(Journal::open(&arguments, self.cursor.as_deref())?);
        Ok(())
    }

    /// Returns the records that have arrived. After the end of `journalctl` there are none, and the next
    /// call of `open` starts it again.
    ///
    /// # Errors
    /// If it has ended too often in a row, or for a reason that stays.
    fn read(&mut self) -> Result<Vec<Record>, Failure> {
        let Some(journal) = &mut self.journal else { return Ok(Vec::new()) };
        if let Some(records) = journal.read()? {
            if let Some(cursor) = journal.cursor().filter(|cursor| self.cursor.as_deref() != Some(cursor)) {
                self.cursor = Some(cursor.to_owned());
                self.ends = Ends::default();
            }
            return Ok(records);
        }
        match self.journal.take().map(Journal::fault) {
            Some(Failure::Journal(cause)) if self.ends.may_start_again(self.opened.elapsed()) => {
                eprintln!("motion-ad: {cause}; reading on");
                Ok(Vec::new())
            }
            Some(Failure::Journal(cause)) => Err(Failure::Journal(format!(
                "the journal cannot be followed, after {ENDS} attempts: {cause}"
            ))),
            Some(failure) => Err(failure),
            None => Ok(Vec::new()),
        }
    }
}

/// The ends of `journalctl` in a row.
#[derive(Default)]
struct Ends(u32);

impl Ends {
    /// Counts an end after this time, and returns true if `journalctl` may start again.
    fn may_start_again(&mut self, ran: Duration) -> bool {
        self.0 = if ran >= WORKED { 1 } else { self.0.saturating_add(1) };
        self.0 < ENDS
    }
}

enum Woken {
    /// The journal has output, or has ended.
    Journal,
    /// The reader of the output is gone.
    Reader,
    /// Nothing happened for [`REFRESH`].
    Clock,
}

/// Waits for the journal, unless it has ended, and for the end of the output's reader.
fn wait(journal: Option<&Journal>) -> Result<Woken, Failure> {
    let out = io::stdout();
    // poll reports errors and hang-ups even if no event is requested (poll(2)).
    let mut files = vec![PollFd::new(&out, PollFlags::empty())];
    files.extend(journal.map(|journal| PollFd::from_borrowed_fd(journal.descriptor(), PollFlags::IN)));
    match poll(&mut files, Some(&REFRESH)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(Woken::Clock),
        Ok(_) => match files.first() {
            Some(ours) if !ours.revents().is_empty() => Ok(Woken::Reader),
            _ => Ok(Woken::Journal),
        },
        Err(error) => Err(Failure::Journal(error.to_string())),
    }
}

/// Formats a record as one line; for a terminal, no longer than its width.
fn line(record: &Record, is_json: bool) -> Result<String, Failure> {
    if is_json {
        return show::json_line(&json(record));
    }
    Ok(format!("{}\n", clip(&text(record), show::width())))
}

fn text(record: &Record) -> String {
    let detail = detail(record);
    let from = record.get("rhost");
    let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
    let colon = if detail.is_empty() { "" } else { ": " };
    let text = format!(
        "{}  {}{from}  {}{colon}{detail}",
        clock(moment(record)),
        record.get("user"),
        outcome(record)
    );
    show::escape(&text).into_owned()
}

/// Cuts `text` between two words so that it has at most `width` columns.
fn clip(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| text.chars().count() > *width) else { return text.to_owned() };
    let begin: String = text.chars().take(width.saturating_sub(1)).collect();
    match begin.rsplit_once(' ') {
        Some((whole, _)) => format!("{} …", whole.trim_end()),
        None => begin + "…",
    }
}

/// The output: lines, and on a terminal a last row that stays below them.
struct Screen {
    has_footer: bool,
    is_drawn: bool,
}

impl Screen {
    fn write(&mut self, lines: &str, footer: &str) -> io::Result<()> {
        let mut text = String::new();
        if std::mem::replace(&mut self.is_drawn, self.has_footer) {
            text += UP;
        }
        text += lines;
        if self.has_footer {
            // A row of the whole width would fold on some terminals.
            text += &format!("{}\n", clip(footer, show::width().map(|width| width.saturating_sub(1))));
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }
}

/// The logins of the last minute, and the services of domain controllers that failed.
#[derive(Default)]
struct Summary {
    logins: VecDeque<Login>,
    down: BTreeMap<String, BTreeSet<String>>,
}

struct Login {
    at: u64,
    ms: Option<f64>,
    is_rejected: bool,
    dc: String,
}

impl Summary {
    fn add(&mut self, record: &Record) {
        match (record.get("event"), record.get("state")) {
            ("login", _) => {
                if self.logins.len() >= MOST {
                    self.logins.pop_front();
                }
                self.logins.push_back(Login {
                    at: record.at,
                    ms: record.get("ms").parse().ok(),
                    is_rejected: is_rejected(record),
                    dc: record.get("dc").to_owned(),
                });
            }
            ("dc", "down") => {
                let services = self.down.entry(record.get("host").to_owned()).or_default();
                services.insert(record.get("service").to_owned());
            }
            ("dc", "up") => {
                if let Some(services) = self.down.get_mut(record.get("host")) {
                    services.remove(record.get("service"));
                }
                self.down.retain(|_, services| !services.is_empty());
            }
            _ => {}
        }
    }

    /// Returns the last row at a time in microseconds since 1970.
    fn text(&mut self, now: u64) -> String {
        let window = u64::try_from(WINDOW.as_micros()).unwrap_or(u64::MAX);
        self.logins.retain(|login| login.at >= now.saturating_sub(window));
        let rejected = self.logins.iter().filter(|login| login.is_rejected).count();
        let mut text =
            format!("last {} s: {} logins, {rejected} rejected", WINDOW.as_secs(), self.logins.len());
        let mut times: Vec<f64> = self.logins.iter().filter_map(|login| login.ms).collect();
        times.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            text += &format!(", p50 {median:.1} ms");
        }
        let mut controllers = BTreeMap::new();
        for login in self.logins.iter().filter(|login| !login.dc.is_empty()) {
            *controllers.entry(short(&login.dc)).or_insert(0_usize) += 1;
        }
        let controllers: Vec<_> =
            controllers.into_iter().map(|(dc, count)| format!("{dc} {count}")).collect();
        if !controllers.is_empty() {
            text += &format!("; {}", controllers.join(", "));
        }
        for (host, services) in &self.down {
            let services: Vec<_> = services.iter().map(String::as_str).collect();
            text += &format!("; {} down: {}", short(host), services.join(", "));
        }
        show::escape(&text).into_owned()
    }
}

/// Returns a host's name without its domain.
fn short(host: &str) -> &str {
    host.split_once('.').map_or(host, |(name, _)| name)
}

/// Returns the microseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::*;

    #[test]
    fn the_last_row_sums_up_the_last_minute() {
        let mut summary = Summary::default();
        assert_eq!(summary.text(0), "last 60 s: 0 logins, 0 rejected");
        for (second, line) in [
            (1, "event=login outcome=success dc=old.acme.com ms=900"),
            (50, "event=login outcome=success dc=ad.acme.com ms=4.0"),
            (51, "event=login outcome=wrong_password dc=ad.acme.com ms=6.0"),
            (52, "event=login outcome=success dc=dc2.acme.com ms=8.25"),
            (52, "event=login outcome=unmapped"),
            (53, "event=dc host=dc2.acme.com service=binds state=down cause=x"),
            (53, "event=dc host=dc2.acme.com service=kdc state=down cause=x"),
            (54, "event=dc host=dc2.acme.com service=kdc state=up"),
            (54, "event=account outcome=disabled ms=1"),
        ] {
            summary.add(&record(second, line));
        }
        assert_eq!(
            summary.text(70_000_000),
            "last 60 s: 4 logins, 2 rejected, p50 6.0 ms; ad 2, dc2 1; dc2 down: binds"
        );
        summary.add(&record(71, "event=dc host=dc2.acme.com service=binds state=up"));
        assert_eq!(summary.text(900_000_000), "last 60 s: 0 logins, 0 rejected");
    }

    #[test]
    fn journalctl_starts_again_unless_it_ends_too_often_in_a_row() {
        let mut ends = Ends::default();
        let short = Duration::from_secs(1);
        for _ in 1..ENDS {
            assert!(ends.may_start_again(short));
        }
        assert!(!ends.may_start_again(short));
        // The last one had worked.
        assert!(ends.may_start_again(WORKED));
        assert!(ends.may_start_again(short));
    }

    #[test]
    fn a_line_is_cut_between_words_and_is_one_line() {
        let line = "event=login user=\"x\\u{a}\\u{1b}[2J\" outcome=wrong_password reason=\"AD says: the \
                    password is wrong\" rhost=192.0.2.7";
        let text = text(&record(1_784_000_000, line));
        assert!(
            text.ends_with("x\\n\\u{1b}[2J from 192.0.2.7  wrong_password: AD says: the password is wrong"),
            "{text}"
        );
        for width in [60, 80] {
            let clipped = clip(&text, Some(width));
            assert!(clipped.chars().count() <= width, "{clipped}");
            let whole = clipped.trim_end_matches(" …");
            assert!(
                text.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')),
                "{clipped}"
            );
        }
        assert_eq!(clip("one two", Some(7)), "one two");
        assert_eq!(clip("one two three", Some(8)), "one …");
        assert_eq!(clip("one two three", None), "one two three");
    }
}
