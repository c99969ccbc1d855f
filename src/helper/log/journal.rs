//! The broker's lines in the journal, read by `journalctl` as a child process.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use serde::Deserialize;

use super::line::{Field, parse};
use crate::helper::Failure;

/// The program that reads the journal.
const PROGRAM: &str = "journalctl";
/// Selects what processes of the broker's unit wrote, by the kernel's word: any user may write a line with
/// the broker's name.
const UNIT: &str = "_SYSTEMD_UNIT=motion-ad.service";
/// Longest record of the journal, in bytes; longer ones are skipped.
const RECORD: usize = 262_144;
/// Longest complaint of `journalctl` that is read, in bytes.
const COMPLAINT: u64 = 16 * 1024;
/// Parts of its complaints that say that this user may not read the system's journal.
const DENIED: [&str; 2] = ["insufficient permissions", "not seeing messages from other users"];
/// The same for a host without a journal, and for a time that it cannot read.
const NO_JOURNAL: &str = "No journal files were found";
const NO_TIME: &str = "Failed to parse timestamp";

/// A line of the broker with the time at which the journal received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Microseconds since 1970-01-01 UTC.
    pub(super) at: u64,
    pub(super) fields: Vec<Field>,
}

impl Record {
    /// Returns the value of a field; empty if it has none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}

/// A running `journalctl`, which ends with this value.
pub(super) struct Journal {
    child: Child,
    out: ChildStdout,
    complaints: File,
    decoder: Decoder,
}

impl Journal {
    /// Starts `journalctl` with these arguments. `told` is the cursor of a record that is not returned
    /// again.
    pub(super) fn open(arguments: &[String], told: Option<&str>) -> Result<Self, Failure> {
        let missing = |error: io::Error| Failure::Journal(format!("{PROGRAM} cannot be run: {error}"));
        let complaints = tempfile::tempfile().map_err(missing)?;
        let mut command = command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(complaints.try_clone().map_err(missing)?).spawn().map_err(missing)?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| Failure::Journal(format!("{PROGRAM} has no output")))?;
        let decoder = Decoder { told: told.map(str::to_owned), ..Decoder::default() };
        Ok(Journal { child, out, complaints, decoder })
    }

    /// Waits for output and returns its records, perhaps none; `None` after the end.
    pub(super) fn read(&mut self) -> Result<Option<Vec<Record>>, Failure> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.out.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => return Ok(Some(self.decoder.feed(buffer.get(..length).unwrap_or_default()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Journal(format!("{PROGRAM}: {error}"))),
            }
        }
    }

    /// The output, to wait for.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.out.as_fd()
    }

    /// Returns the cursor of the last record.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.decoder.cursor.as_deref()
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// Returns the reason if it could not read the whole journal.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let (status, complaints) = self.end()?;
        judge(status, &complaints)
    }

    /// Waits for the end of a program that should have gone on, and returns the reason for the end.
    pub(super) fn fault(self) -> Failure {
        let (status, complaints) = match self.end() {
            Ok(end) => end,
            Err(failure) => return failure,
        };
        let unexpected = || Failure::Journal(format!("{PROGRAM} has ended: {}", said(status, &complaints)));
        judge(status, &complaints).err().unwrap_or_else(unexpected)
    }

    /// Waits for the end, and returns the exit status and the complaints.
    fn end(mut self) -> Result<(ExitStatus, String), Failure> {
        let failed = |error: io::Error| Failure::Journal(format!("{PROGRAM}: {error}"));
        let status = self.child.wait().map_err(failed)?;
        let mut text = Vec::new();
        self.complaints.rewind().map_err(failed)?;
        (&mut self.complaints).take(COMPLAINT).read_to_end(&mut text).map_err(failed)?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It may have ended by itself, and then both calls fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the call of `journalctl` for the broker's lines.
fn command(arguments: &[String]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["--no-pager", "--all", "--output=json"]).args(arguments).arg(UNIT);
    // Its complaints are compared with English ones.
    command.env("LC_ALL", "C");
    command
}

/// Decides from the complaints whether the journal was read.
fn judge(status: ExitStatus, complaints: &str) -> Result<(), Failure> {
    let text = said(status, complaints);
    if DENIED.iter().any(|part| text.contains(part)) {
        return Err(Failure::NoJournalAccess);
    }
    match status.success() {
        _ if text.contains(NO_JOURNAL) => Err(Failure::Journal(
            "this host keeps no journal; the lines of motion-ad-broker are in the files of its syslog \
             daemon, such as /var/log/auth.log"
                .into(),
        )),
        true => Ok(()),
        false if text.contains(NO_TIME) => Err(Failure::Time(text)),
        false => Err(Failure::Journal(format!("{PROGRAM} failed: {text}"))),
    }
}

/// Returns the complaints in one line, or the exit status if there are none.
fn said(status: ExitStatus, complaints: &str) -> String {
    // The hint is folded to the width of a terminal.
    match complaints.split_whitespace().collect::<Vec<_>>().join(" ") {
        text if text.is_empty() => status.to_string(),
        text => text,
    }
}

/// Returns true if two cursors are those of one entry. The journal numbers an entry again when it moves the
/// entry from memory to disk, so the numbers (`s` and `i`) do not count.
fn is_same(one: &str, other: &str) -> bool {
    let stays = |part: &&str| !part.starts_with("s=") && !part.starts_with("i=");
    one.split(';').filter(stays).eq(other.split(';').filter(stays))
}

/// Divides the output into records.
#[derive(Default)]
struct Decoder {
    pending: Vec<u8>,
    /// True while the rest of a record that is too long arrives.
    is_skipping: bool,
    cursor: Option<String>,
    /// Cursor of a record that was returned before; the first record may be that one.
    told: Option<String>,
}

impl Decoder {
    /// Returns the records that `bytes` complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_skipping || self.pending.len().saturating_add(part.len()) > RECORD {
                self.pending.clear();
                self.is_skipping = !part.ends_with(b"\n");
                continue;
            }
            self.pending.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let text = std::mem::take(&mut self.pending);
                records.extend(self.record(&text));
            }
        }
        records
    }

    fn record(&mut self, json: &[u8]) -> Option<Record> {
        let raw: Raw = serde_json::from_slice(json).ok()?;
        let told = self.told.take();
        if told.zip(raw.cursor.as_deref()).is_some_and(|(told, cursor)| is_same(&told, cursor)) {
            return None;
        }
        self.cursor = raw.cursor.or(self.cursor.take());
        let message = match raw.message? {
            Message::Text(text) => text,
            // The journal's way to write a text with control characters.
            Message::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let fields = parse(&message);
        let is_ours = fields.first().is_some_and(|(name, _)| name == "event");
        is_ours.then_some(Record { at: raw.at.parse().ok()?, fields })
    }
}

/// A record in `journalctl`'s JSON. A field that occurs several times is an array of values, and is no record
/// of the broker.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at: String,
    #[serde(rename = "__CURSOR")]
    cursor: Option<String>,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// A record at a second since 1970.
    pub fn record(second: u64, line: &str) -> Record {
        Record { at: second * 1_000_000, fields: parse(line) }
    }

    #[test]
    fn records_are_read_however_they_arrive() {
        let text = "{\"__CURSOR\":\"c1\",\"__REALTIME_TIMESTAMP\":\"1000000\",\"MESSAGE\":\"event=login \
                    user=john\"}\n\
                    {\"__REALTIME_TIMESTAMP\":\"2\",\"MESSAGE\":\"Started the unit.\"}\n\
                    {\"__REALTIME_TIMESTAMP\":\"3\",\"MESSAGE\":null}\n\
                    {\"__REALTIME_TIMESTAMP\":\"3\",\"MESSAGE\":[\"event=a\",\"event=b\"]}\n\
                    rubbish\n\
                    {\"__CURSOR\":\"c2\",\"__REALTIME_TIMESTAMP\":\"2000000\",\"MESSAGE\":[101,118,101,110,\
                    116,61,255]}\n";
        for size in [1, 7, 100, text.len()] {
            let mut decoder = Decoder::default();
            let records: Vec<_> = text.as_bytes().chunks(size).flat_map(|part| decoder.feed(part)).collect();
            assert_eq!(records, [record(1, "event=login user=john"), record(2, "event=\u{fffd}")], "{size}");
            assert_eq!(decoder.cursor.as_deref(), Some("c2"));
        }
    }

    #[test]
    fn only_the_unit_of_the_broker_is_read() {
        let command = command(&["--since=-1h".to_owned()]);
        let arguments: Vec<_> = command.get_args().filter_map(|argument| argument.to_str()).collect();
        assert_eq!(arguments.last(), Some(&"_SYSTEMD_UNIT=motion-ad.service"));
        // Another filter with a plus or a tag of syslog would select lines of other processes.
        assert!(arguments.iter().rev().skip(1).all(|argument| argument.starts_with("--")), "{arguments:?}");
        assert!(!arguments.iter().any(|argument| argument.starts_with("--identifier")), "{arguments:?}");
    }

    #[test]
    fn a_record_without_end_is_skipped() {
        let mut decoder = Decoder::default();
        for _ in 0..10 {
            assert_eq!(decoder.feed(&[b'x'; RECORD]), []);
            assert!(decoder.pending.len() <= RECORD);
        }
        let next = "\n{\"__REALTIME_TIMESTAMP\":\"1000000\",\"MESSAGE\":\"event=login\"}\n";
        assert_eq!(decoder.feed(next.as_bytes()), [record(1, "event=login")]);
    }

    #[test]
    fn a_record_that_was_returned_before_is_skipped_and_its_successor_never() {
        let entry = |number: u32, time: u32| format!("s=ab{number};i={number};b=cd;m={time};t={time};x=ef");
        let json = |cursor: &str, time: u32| {
            format!(
                "{{\"__CURSOR\":\"{cursor}\",\"__REALTIME_TIMESTAMP\":\"{time}000000\",\"MESSAGE\":\
                 \"event=login\"}}\n"
            )
        };
        let read = |text: String| {
            let mut decoder = Decoder { told: Some(entry(1, 1)), ..Decoder::default() };
            let times: Vec<_> = decoder.feed(text.as_bytes()).iter().map(|record| record.at).collect();
            (times, decoder.cursor)
        };
        let second = Some(entry(2, 2));
        let both = json(&entry(1, 1), 1) + &json(&entry(2, 2), 2);
        assert_eq!(read(both.clone()), (vec![2_000_000], second.clone()));
        // The journal was moved to disk meanwhile.
        assert_eq!(read(both.replacen("s=ab1;i=1", "s=99;i=9", 1)), (vec![2_000_000], second.clone()));
        // The record that was returned is no longer kept.
        assert_eq!(read(json(&entry(2, 2), 2)), (vec![2_000_000], second));
        // A record that is skipped is no progress.
        assert_eq!(read(json(&entry(1, 1), 1)), (vec![], None));
    }

    #[test]
    fn a_journal_that_was_not_read_is_no_empty_one() {
        let hint = "Hint: You are currently not seeing messages from other users and the system.\n      \
                    Users in groups 'adm', 'systemd-journal' can see all messages. Pass -q to\n      turn \
                    off this notice.\n";
        for (is_success, complaints, expected) in [
            (true, "", None),
            (true, hint, Some("may read the journal")),
            (
                false,
                "No journal files were opened due to insufficient permissions.\n",
                Some("may read the journal"),
            ),
            (true, "No journal files were found.\n", Some("keeps no journal")),
            (false, "Failed to parse timestamp: x\n", Some("timestamp: x")),
            (false, "Bad message\n", Some("journalctl failed: Bad message")),
            (false, "", Some("journalctl failed: exit status: 1")),
        ] {
            let status = ExitStatus::from_raw(if is_success { 0 } else { 1 << 8 });
            let said = judge(status, complaints).map_err(|failure| failure.to_string());
            match expected {
                None => assert_eq!(said, Ok(())),
                Some(part) => assert!(said.as_ref().is_err_and(|text| text.contains(part)), "{said:?}"),
            }
        }
    }
}
