//! The log: syslog with facility AUTHPRIV, logfmt, one line per event.
//!
//! A separate thread writes, so that a slow syslog delays no login; lines that do not fit into its queue are
//! counted and reported. Values are escaped: no user input can begin a new line or a new field.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::supervise::{self, Ended};

/// Maximum number of lines that wait for the writer.
const QUEUE: usize = 4096;
/// The longest value, in characters; journald and syslog daemons cut long lines.
const LONGEST: usize = 512;
/// Interval in which a repeated complaint is summed up once.
const QUIET: Duration = Duration::from_secs(60);
/// Maximum number of different complaints in memory.
const COMPLAINTS: usize = 1024;

/// The urgency of a line (syslog(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A fault that the administrator must fix.
    Error,
    /// A state that the administrator should check.
    Warning,
    /// An event to record, such as every login.
    Info,
}

/// One line: fields in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(String);

impl Line {
    /// Creates a line about `event`.
    pub fn new(event: &str) -> Self {
        Line::default().with("event", event)
    }

    /// Adds a field; an empty value is omitted.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Display) -> Self {
        let value = value.to_string();
        if value.is_empty() {
            return self;
        }
        let separator = if self.0.is_empty() { "" } else { " " };
        let _ = write!(self.0, "{separator}{field}={}", escape(&value));
        self
    }

    /// Returns the line's text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Escapes a value for logfmt: a plain word stays as it is, any other value is quoted.
fn escape(value: &str) -> String {
    let cut: String = value.chars().take(LONGEST).collect();
    let more = if cut.len() < value.len() { "…" } else { "" };
    let plain = |c: char| c.is_alphanumeric() || "._-@:/$+,{}<>()*&!?~^|;#%".contains(c);
    if more.is_empty() && cut.chars().all(plain) {
        return cut;
    }
    let mut text = String::from("\"");
    for c in cut.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' ' => text.push(' '),
            // Escapes invisible characters and those that change the direction of writing, too.
            c if c.is_control() || c.is_whitespace() || is_format(c) => {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push_str(more);
    text.push('"');
    text
}

/// Returns true for zero-width and bidirectional formatting characters.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The queue to the writer.
pub struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    complaints: Mutex<HashMap<String, Complaint>>,
}

struct Complaint {
    since: Instant,
    repeated: u64,
}

/// A message to the writer.
enum Message {
    Line(Level, String),
    End,
}

/// The handle that ends the writer when the broker ends.
pub struct Writer {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Returns when every line so far is written. Later lines are lost.
    pub fn finish(self) {
        let _ = self.queue.send(Message::End);
        let _ = self.thread.join();
    }
}

impl Log {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// Returns the cause if the thread cannot be started.
    pub fn open() -> std::io::Result<(Self, Writer)> {
        Log::open_as("motion-ad-broker")
    }

    /// Opens the log under another program's name.
    ///
    /// # Errors
    /// Returns the cause if the thread cannot be started.
    pub fn open_as(program: &'static str) -> std::io::Result<(Self, Writer)> {
        let (queue, lines) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let thread = supervise::thread("log", move || write_all(program, &lines, &counter))?;
        let writer = Writer { queue: queue.clone(), thread };
        Ok((Log { queue, lost, complaints: Mutex::default() }, writer))
    }

    /// Writes one line.
    pub fn write(&self, level: Level, line: &Line) {
        if self.queue.try_send(Message::Line(level, line.text().to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of lines lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a line that the same cause may repeat: once now, then once a minute with a count.
    pub fn complain(&self, level: Level, cause: &str, line: Line) {
        let now = Instant::now();
        let repeated = {
            let mut complaints = self.complaints.lock();
            if complaints.len() >= COMPLAINTS {
                complaints.retain(|_, complaint| now - complaint.since < QUIET);
            }
            let full = complaints.len() >= COMPLAINTS;
            match complaints.get_mut(cause) {
                Some(complaint) if now - complaint.since < QUIET => {
                    complaint.repeated += 1;
                    return;
                }
                // Complaints beyond the maximum are dropped: a flood must not fill the disk.
                None if full => return,
                _ => {
                    let new = Complaint { since: now, repeated: 0 };
                    complaints.insert(cause.to_owned(), new).map_or(0, |old| old.repeated)
                }
            }
        };
        let repeated = if repeated == 0 { String::new() } else { repeated.to_string() };
        self.write(level, &line.with("repeated", repeated));
    }
}

/// Logs the events of supervised tasks into `log`.
pub fn report_tasks(log: &Arc<Log>) {
    let log = log.clone();
    supervise::tasks().observe(move |event| {
        let line = match event {
            supervise::Event::Failed { task, cause, pause } => Line::new("task")
                .with("task", task)
                .with("problem", cause)
                .with("consequence", format!("it starts again in {} s", pause.as_secs())),
            supervise::Event::Panicked { place } => Line::new("panic")
                .with("place", place)
                .with("thread", std::thread::current().name().unwrap_or_default())
                .with("advice", "a fault in motion-ad: report it with this line"),
        };
        log.write(Level::Error, &line);
    });
}

fn write_all(program: &'static str, lines: &Receiver<Message>, lost: &AtomicU64) -> Ended {
    let (mut logger, mut told) = (None, 0);
    while let Ok(Message::Line(level, line)) = lines.recv() {
        write_one(program, &mut logger, level, &line);
        let all = lost.load(Ordering::Relaxed);
        if all > told {
            let line =
                Line::new("log_overflow").with("lines", all - told).with("reason", "syslog is too slow");
            write_one(program, &mut logger, Level::Warning, line.text());
            told = all;
        }
    }
    Ok(())
}

/// Writes one line; without a syslog to standard error, which systemd passes to the journal.
fn write_one(
    program: &'static str,
    logger: &mut Option<Logger<LoggerBackend, Formatter3164>>,
    level: Level,
    line: &str,
) {
    // A second attempt, because the syslog daemon may have been restarted.
    for _ in 0..2 {
        let open = match logger.as_mut() {
            Some(open) => open,
            None => match syslog::unix(formatter(program)) {
                Ok(opened) => logger.insert(opened),
                Err(_) => break,
            },
        };
        let written = match level {
            Level::Error => open.err(line),
            Level::Warning => open.warning(line),
            Level::Info => open.info(line),
        };
        match written {
            Ok(()) => return,
            Err(_) => *logger = None,
        }
    }
    eprintln!("{line}");
}

fn formatter(program: &str) -> Formatter3164 {
    Formatter3164 {
        facility: Facility::LOG_AUTHPRIV,
        hostname: None,
        process: program.into(),
        pid: std::process::id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_and_everything_else_is_quoted() {
        let cases = [
            ("john.doe@acme.com", "john.doe@acme.com"),
            ("jörg", "jörg"),
            ("Mary Ann", "\"Mary Ann\""),
            ("x\" outcome=success", "\"x\\\" outcome=success\""),
            ("a=b", "\"a=b\""),
            ("ACME\\x", "\"ACME\\\\x\""),
            ("a\nb\tc", "\"a\\u{a}b\\u{9}c\""),
            ("a\u{202e}b", "\"a\\u{202e}b\""),
            ("a\u{85}b\u{2028}", "\"a\\u{85}b\\u{2028}\""),
            // The Arabic letter mark changes the direction of writing, too.
            ("a\u{61c}b", "\"a\\u{61c}b\""),
        ];
        for (value, expected) in cases {
            assert_eq!(escape(value), expected);
        }
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), LONGEST + 3);
    }

    #[test]
    fn a_line_is_fields_in_order_without_the_empty_ones() {
        let line = Line::new("login").with("user", "john doe").with("rhost", "").with("ms", 12);
        assert_eq!(line.text(), "event=login user=\"john doe\" ms=12");
    }

    #[test]
    fn a_repeated_complaint_is_written_once() {
        let (queue, lines) = sync_channel(QUEUE);
        let log = Log { queue, lost: Arc::default(), complaints: Mutex::default() };
        for _ in 0..100 {
            log.complain(Level::Warning, "stranger 4711", Line::new("refused"));
        }
        log.complain(Level::Warning, "stranger 4712", Line::new("refused"));
        assert_eq!(lines.try_iter().count(), 2);
        for n in 0..2 * COMPLAINTS {
            log.complain(Level::Warning, &n.to_string(), Line::new("refused"));
        }
        assert!(lines.try_iter().count() <= COMPLAINTS);
    }
}
