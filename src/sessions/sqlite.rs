//! The register in a file of this host: SQLite in WAL mode (sqlite.org/wal.html).
//!
//! A separate thread with one connection makes all calls in order. A commit is written but not flushed
//! (`synchronous = NORMAL`). The death of the broker loses nothing. A power cut loses the last moments, but
//! no session that counts, because the application's processes are gone, too.
//!
//! A damaged file is set aside, and an empty register replaces it. Otherwise no user could log in until an
//! administrator came, and the register grants no rights. The log reports this, and every watcher learns by
//! [`Events::gap`] that it must compare with the list.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params,
};
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::rule::{Admission, Decision};
use super::store::{
    Answer, Closed, ENDED, EVENTS, Listed, Opened, Page, Position, Store, StoreError, Undone, Which,
};
use crate::protocol::report::{EndReason, Ended, Event, Events, Session};
use crate::supervise;

/// Name of the file in the state directory.
const FILE: &str = "sessions.db";
/// Suffixes of the files that SQLite keeps (sqlite.org/tempfiles.html). Without a second process there is no
/// `-shm`.
const PARTS: [&str; 2] = ["", "-wal"];
/// Maximum number of calls that wait for the thread.
const QUEUE: usize = 1024;
/// Time without a call after which the WAL is written back, so that hardly any login waits for that.
const IDLE: Duration = Duration::from_secs(1);
/// Size at which the WAL is written back anyway, in pages of 4 KiB.
const WAL: u32 = 4000;
/// Minimum time before the next attempt to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(1);
/// Time for which a second broker waits for the file, which the first one releases when it stops.
const BUSY: Duration = Duration::from_millis(250);
/// Number of damaged files that are kept; the oldest are removed.
const ASIDE: usize = 3;
/// Maximum number of sessions with unreadable records that one call sets aside.
const ROWS: usize = 100;
/// Number of characters of an unreadable record that are logged.
const ROW: usize = 300;
/// Version of the layout of the tables: `user_version` of the file.
const LAYOUT: i64 = 2;
/// Migration of the tables of layout 1 to the present layout.
const FROM_1: &str = "ALTER TABLE sessions RENAME COLUMN host TO machine; UPDATE sessions SET machine = '';";

/// The tables. Sessions are stored in the form in which they are shown, with columns for the searches. The
/// number of a removed row is never used again.
const TABLES: &str = "
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        guid TEXT NOT NULL,
        principal TEXT NOT NULL,
        machine TEXT NOT NULL,
        ended INTEGER,
        session TEXT NOT NULL
    ) STRICT;
    CREATE INDEX open ON sessions (number) WHERE ended IS NULL;
    CREATE INDEX open_by_guid ON sessions (guid, number) WHERE ended IS NULL;
    CREATE INDEX open_by_principal ON sessions (principal, number) WHERE ended IS NULL;
    CREATE INDEX open_by_host ON sessions (machine, number) WHERE ended IS NULL;
    CREATE INDEX ended ON sessions (ended) WHERE ended IS NOT NULL;
    CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL) STRICT;
    CREATE TABLE bookmarks (name TEXT PRIMARY KEY, cursor TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Function that reports the damage of a file and its consequence.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// The register in a file.
pub struct Sqlite {
    path: PathBuf,
    jobs: SyncSender<Job>,
    changes: Arc<watch::Sender<()>>,
}

type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

impl Sqlite {
    /// Creates the register in the state directory `folder`. Its file is opened for the first call, and again
    /// after a failure.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn new(folder: &Path, tell: Tell) -> std::io::Result<Self> {
        let path = folder.join(FILE);
        let (jobs, waiting) = sync_channel(QUEUE);
        let mut keeper =
            Keeper { path: path.clone(), tell, connection: None, is_missing: false, failed: None };
        supervise::thread("sessions", move || keep(&mut keeper, &waiting))?;
        Ok(Sqlite { path, jobs, changes: Arc::new(watch::Sender::new(())) })
    }

    /// Queues `work` for the thread, which skips it if the caller has stopped waiting.
    fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Fn(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Answer<'static, T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |keeper| {
            if !reply.is_closed() && Instant::now() < deadline {
                let _ = reply.send(keeper.run(work));
            }
        });
        let queued = self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Unavailable(format!("{QUEUE} calls wait for it already")),
            TrySendError::Disconnected(_) => StoreError::Unavailable("its thread has ended".to_owned()),
        });
        let late = format!("{} is slow", self.path.display());
        Box::pin(async move {
            queued?;
            match timeout_at(deadline, answer).await {
                Ok(Ok(result)) => result,
                // Skipped, because its deadline had passed.
                Ok(Err(_)) | Err(_) => Err(StoreError::Timeout(late)),
            }
        })
    }
}

/// Runs the jobs on the thread until the last handle is dropped.
fn keep(keeper: &mut Keeper, waiting: &Receiver<Job>) -> supervise::Ended {
    // After a panic, the state of the connection is unknown.
    keeper.connection = None;
    let mut worked = false;
    loop {
        let job = match worked {
            true => waiting.recv_timeout(IDLE),
            false => waiting.recv().map_err(RecvTimeoutError::from),
        };
        worked = job.is_ok();
        match job {
            Ok(job) => job(keeper),
            Err(RecvTimeoutError::Timeout) => keeper.write_back(),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Reason why a call failed on the thread.
enum Trouble {
    Cursor(String),
    Sqlite(rusqlite::Error),
    /// The contents of the tables are inconsistent.
    Content(String),
    /// The record of the session with this id cannot be read; the cause.
    Row(String, String),
    /// Another version made the file, with this layout.
    Layout(i64),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

impl Trouble {
    fn is_damage(&self) -> bool {
        match self {
            Trouble::Sqlite(error) => {
                matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                )
            }
            Trouble::Content(_) => true,
            Trouble::Cursor(_) | Trouble::Row(..) | Trouble::Layout(_) => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Trouble::Cursor(cursor) => cursor.clone(),
            Trouble::Sqlite(error) => error.to_string(),
            Trouble::Content(text) => text.clone(),
            Trouble::Row(id, text) => format!("the session {id} cannot be read: {text}"),
            Trouble::Layout(layout) => format!("another version of motion-ad made it (layout {layout})"),
        }
    }
}

/// The file, and its connection while it is open.
struct Keeper {
    path: PathBuf,
    tell: Tell,
    /// The connection, with the identity of the file that it has open and of its WAL.
    connection: Option<(Connection, (File, Option<File>))>,
    /// True if the log already says that the file is missing.
    is_missing: bool,
    failed: Option<(Instant, StoreError)>,
}

impl Keeper {
    fn run<T>(&mut self, work: impl Fn(&mut Connection) -> Result<T, Trouble>) -> Result<T, StoreError> {
        let path = self.path.clone();
        self.look();
        for _ in 0..ROWS {
            let connection = self.connection()?;
            let trouble = match work(connection) {
                Ok(done) => return Ok(done),
                Err(Trouble::Cursor(cursor)) => return Err(StoreError::Cursor(cursor)),
                Err(Trouble::Row(id, why)) => match set_row_aside(connection, &id) {
                    Ok(text) => {
                        (self.tell)(&format!(
                            "the session {id} in {} could not be read ({why}) and has ended; its record was {text:?}",
                            path.display()
                        ));
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            // On a full disk the connection can still read. After any other error the file is opened again.
            let is_full = matches!(&trouble, Trouble::Sqlite(error)
                if error.sqlite_error_code() == Some(ErrorCode::DiskFull));
            if !is_full {
                self.connection = None;
            }
            return Err(unavailable(&path, &trouble));
        }
        Err(StoreError::Unavailable(format!("{}: {ROWS} sessions cannot be read", path.display())))
    }

    /// Checks whether the open file is still the one at its path. A deleted file is written again; a file
    /// that another one has replaced is closed.
    fn look(&mut self) {
        let Some((connection, file)) = &self.connection else { return };
        let problem = match of(&self.path) {
            Ok(now) if now == file.0 => return,
            // A WAL that was left next to the new file belongs to the old one.
            Ok(_) if of(&wal(&self.path)).ok() == file.1 && remove(&wal(&self.path)).is_err() => return,
            Ok(_) => {
                "another file took its place; the sessions in that count, and the others are lost".to_owned()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match write_again(connection, &self.path) {
                    Ok(()) => "it was deleted, and was written again with all that it held".to_owned(),
                    // The open file holds everything as long as the broker runs.
                    Err(trouble) if self.is_missing => {
                        let _ = trouble;
                        return;
                    }
                    Err(trouble) => {
                        self.is_missing = true;
                        (self.tell)(&format!(
                            "{}: it was deleted while it was used, and cannot be written again: {}; the next start \
                             of the broker loses all sessions",
                            self.path.display(),
                            trouble.text()
                        ));
                        return;
                    }
                }
            }
            Err(_) => return,
        };
        self.is_missing = false;
        self.connection = None;
        (self.tell)(&format!("{}: while it was used, {problem}", self.path.display()));
    }

    fn write_back(&self) {
        if let Some((connection, _)) = &self.connection {
            // Pages that cannot be written back stay in the WAL; the next change reports a full disk.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            if let Some((until, error)) = self.failed.take_if(|(until, _)| Instant::now() < *until) {
                self.failed = Some((until, error.clone()));
                return Err(error);
            }
            match self.open() {
                Ok(connection) => match of(&self.path) {
                    Ok(file) => self.connection = Some((connection, (file, of(&wal(&self.path)).ok()))),
                    Err(error) => return Err(unavailable(&self.path, &Trouble::Content(error.to_string()))),
                },
                Err(trouble) => {
                    let error = unavailable(&self.path, &trouble);
                    self.failed = Some((Instant::now() + RETRY, error.clone()));
                    return Err(error);
                }
            }
        }
        let connection = self.connection.as_mut().map(|(connection, _)| connection);
        connection.ok_or_else(|| StoreError::Unavailable("it is closed".to_owned()))
    }

    fn open(&self) -> Result<Connection, Trouble> {
        match open(&self.path) {
            Err(trouble) if trouble.is_damage() => {
                let damage = trouble.text();
                let aside = set_aside(&self.path).map_err(|error| {
                    Trouble::Content(format!("{damage}; and it cannot be renamed: {error}"))
                })?;
                let connection = open(&self.path)?;
                (self.tell)(&format!(
                    "{} was damaged ({damage}) and is {} now; an empty register took its place",
                    self.path.display(),
                    aside.display()
                ));
                Ok(connection)
            }
            other => other,
        }
    }
}

/// Identity of a file: its device and inode.
type File = (u64, u64);

/// Returns the path of the WAL of a database (sqlite.org/wal.html).
fn wal(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> Result<(), Trouble> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::Content(error.to_string()))
        }
        _ => Ok(()),
    }
}

fn of(path: &Path) -> std::io::Result<File> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Writes the contents of `connection` to `path`, where no file is.
fn write_again(connection: &Connection, path: &Path) -> Result<(), Trouble> {
    let new = beside(path, ".new");
    remove(&new)?;
    connection.execute("VACUUM INTO ?1", [new.to_string_lossy()])?;
    // This WAL belongs to the deleted file.
    remove(&wal(path))?;
    std::fs::rename(&new, path).map_err(|error| Trouble::Content(error.to_string()))
}

/// Ends a session whose record cannot be read, with the data in its columns. Returns the record.
fn set_row_aside(connection: &mut Connection, id: &str) -> Result<String, Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "SELECT guid, principal, machine, ended, CAST(session AS BLOB) FROM sessions WHERE id = ?1";
    let row = |row: &Row| {
        let text = |place| -> rusqlite::Result<String> {
            Ok(String::from_utf8_lossy(row.get_ref(place)?.as_bytes()?).into_owned())
        };
        Ok((text(0)?, text(1)?, text(2)?, row.get::<_, Option<i64>>(3)?, text(4)?))
    };
    let (guid, principal, machine, ended, record) = transaction.query_row(sql, [id], row)?;
    let user = principal.clone();
    let session = Session { id: id.to_owned(), user, principal, guid, machine, ..Session::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let at = ended.map_or(u64::try_from(now).unwrap_or(u64::MAX), i64::unsigned_abs);
    let detail = "its record in the register could not be read".to_owned();
    let how = Ended { at, reason: EndReason::Refused, detail };
    match ended {
        None => drop(end(&transaction, session, how)?),
        Some(_) => {
            let text = written(&Session { ended: Some(how), ..session })?;
            transaction.execute("UPDATE sessions SET session = ?2 WHERE id = ?1", params![id, text])?;
        }
    }
    transaction.commit()?;
    Ok(record.chars().take(ROW).collect())
}

fn unavailable(path: &Path, trouble: &Trouble) -> StoreError {
    StoreError::Unavailable(format!("{}: {}", path.display(), trouble.text()))
}

/// Opens the file, creates its tables if there are none, and checks its integrity.
fn open(path: &Path) -> Result<Connection, Trouble> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // A second broker must not write. Without one, there is no shared memory that a full disk could damage.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(Trouble::Content(found));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match transaction.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        LAYOUT => {}
        1 => {
            transaction.execute_batch(FROM_1)?;
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
        0 => {
            transaction.execute_batch(TABLES)?;
            // A new file counts on from the present time in microseconds, and an event takes longer than one
            // of them. So no earlier file reached these numbers, and a cursor of one is older than all events
            // here.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let first = i64::try_from(now.as_micros()).unwrap_or_default();
            for table in ["sessions", "events"] {
                transaction.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                    params![table, first],
                )?;
            }
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
        other => return Err(Trouble::Layout(other)),
    }
    transaction.commit()?;
    Ok(connection)
}

/// Renames the file and its WAL, and removes the oldest of the files that were renamed before.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = OffsetDateTime::now_utc();
    let (date, time) = (now.date(), now.time());
    let stamp = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    );
    let aside = beside(path, &format!(".damaged-{stamp}"));
    for suffix in PARTS {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let prefix = format!("{FILE}.damaged-");
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut earlier: Vec<_> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|found| {
            let name = found.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&prefix) && !name.ends_with("-wal")
        })
        .collect();
    earlier.sort();
    for old in earlier.iter().rev().skip(ASIDE) {
        for suffix in PARTS {
            // A file that cannot be removed does no harm.
            let _ = std::fs::remove_file(beside(old, suffix));
        }
    }
    Ok(aside)
}

/// Parses the record of the session `id`.
fn read(id: &str, record: &[u8]) -> Result<Session, Trouble> {
    serde_json::from_slice(record).map_err(|error| Trouble::Row(id.to_owned(), error.to_string()))
}

/// Returns the bytes of a text column, which may not be UTF-8.
fn bytes(row: &Row, place: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(row.get_ref(place)?.as_bytes()?.to_vec())
}

fn written(session: &Session) -> Result<String, Trouble> {
    serde_json::to_string(session).map_err(|error| Trouble::Content(error.to_string()))
}

fn number(cursor: &str) -> Result<i64, Trouble> {
    let digits = Some(cursor).filter(|cursor| cursor.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| Trouble::Cursor(cursor.to_owned()))
}

/// Converts milliseconds for SQLite; a time beyond its range becomes its maximum.
fn signed(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX)
}

/// Ends an open session, with an event.
fn end(transaction: &Transaction, mut session: Session, ended: Ended) -> Result<Session, Trouble> {
    let at = signed(ended.at);
    session.ended = Some(ended);
    let text = written(&session)?;
    transaction
        .prepare_cached("UPDATE sessions SET ended = ?2, session = ?3 WHERE id = ?1")?
        .execute(params![session.id, at, text])?;
    tell(transaction, &text)?;
    Ok(session)
}

fn tell(transaction: &Transaction, session: &str) -> Result<(), Trouble> {
    transaction.prepare_cached("INSERT INTO events (session) VALUES (?1)")?.execute([session])?;
    Ok(())
}

/// Removes events and sessions that are no longer kept at `now`.
fn tidy(transaction: &Transaction, now: u64) -> Result<(), Trouble> {
    transaction
        .prepare_cached("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?1")?
        .execute([signed(EVENTS)])?;
    transaction
        .prepare_cached("DELETE FROM sessions WHERE ended < ?1")?
        .execute([signed(now.saturating_sub(ENDED))])?;
    Ok(())
}

fn find(connection: &Connection, id: &str) -> Result<Option<Session>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT session FROM sessions WHERE id = ?1")?;
    let record = statement.query_row([id], |row| bytes(row, 0)).optional()?;
    record.map(|record| read(id, &record)).transpose()
}

fn register(
    connection: &mut Connection,
    session: &Session,
    admission: Admission,
) -> Result<(Opened, bool), Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(known) = find(&transaction, &session.id)? {
        let evicted = if known.ended.is_none() { evicted_by(&transaction, &session.id)? } else { Vec::new() };
        return Ok((Opened::Registered(evicted), false));
    }
    let open = {
        let mut statement = transaction.prepare_cached(
            "SELECT id, session FROM sessions WHERE guid = ?1 AND ended IS NULL ORDER BY number",
        )?;
        let found = statement.query_map([&session.guid], |row| Ok((row.get(0)?, bytes(row, 1)?)))?;
        found.collect::<Result<Vec<(String, Vec<u8>)>, _>>()?
    };
    let open = open.iter().map(|(id, record)| read(id, record)).collect::<Result<Vec<_>, _>>()?;
    let evict = match admission.decide(open.len()) {
        Decision::Enter { evict } => evict,
        Decision::Denied => return Ok((Opened::Denied(open), false)),
    };
    let mut gone = Vec::new();
    for old in open.into_iter().take(evict) {
        let ended = Ended { at: session.since, reason: EndReason::Replaced, detail: session.id.clone() };
        gone.push(end(&transaction, old, ended)?);
    }
    add(&transaction, session)?;
    tidy(&transaction, session.since)?;
    transaction.commit()?;
    Ok((Opened::Registered(gone), true))
}

/// Stores a session that was unknown, open or ended, with an event.
fn add(transaction: &Transaction, session: &Session) -> Result<(), Trouble> {
    let text = written(session)?;
    let ended = session.ended.as_ref().map(|ended| signed(ended.at));
    transaction
        .prepare_cached(
            "INSERT INTO sessions (id, guid, principal, machine, ended, session) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![session.id, session.guid, session.principal, session.machine, ended, text])?;
    tell(transaction, &text)
}

/// Returns the sessions that ended for the session `id`, if their events are still kept.
fn evicted_by(connection: &Connection, id: &str) -> Result<Vec<Session>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT session FROM events WHERE CASE WHEN json_valid(session)
            THEN session ->> '$.ended.reason' = 'replaced' AND session ->> '$.ended.detail' = ?1 END
            ORDER BY number",
    )?;
    let records = statement.query_map([id], |row| bytes(row, 0))?.collect::<Result<Vec<_>, _>>()?;
    // Readers of events see an unreadable one as a gap.
    Ok(records.iter().filter_map(|record| serde_json::from_slice(record).ok()).collect())
}

/// Undoes `session`, and returns whether something changed, too.
fn undo(connection: &mut Connection, session: &Session, ended: Ended) -> Result<(Undone, bool), Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = ended.at;
    let (closed, evicted) = match find(&transaction, &session.id)? {
        Some(known) if known.ended.is_some() => {
            return Ok((Undone { closed: Closed::Earlier(known), evicted: Vec::new() }, false));
        }
        Some(known) => (end(&transaction, known, ended)?, evicted_by(&transaction, &session.id)?),
        None => {
            let never = Session { ended: Some(ended), ..session.clone() };
            add(&transaction, &never)?;
            (never, Vec::new())
        }
    };
    tidy(&transaction, now)?;
    transaction.commit()?;
    Ok((Undone { closed: Closed::Now(closed), evicted }, true))
}

fn close(connection: &mut Connection, id: &str, ended: Ended) -> Result<Closed, Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let closed = match find(&transaction, id)? {
        None => return Ok(Closed::Unknown),
        Some(session) if session.ended.is_some() => return Ok(Closed::Earlier(session)),
        Some(session) => {
            let now = ended.at;
            let closed = end(&transaction, session, ended)?;
            tidy(&transaction, now)?;
            closed
        }
    };
    transaction.commit()?;
    Ok(Closed::Now(closed))
}

/// Returns `limit` plus one: the additional row shows whether there are more.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX)
}

fn list(connection: &Connection, which: &Which, after: Option<&str>, limit: usize) -> Result<Page, Trouble> {
    let after = after.map(number).transpose()?.unwrap_or(0);
    let (condition, value) = match which {
        Which::All => ("", None),
        Which::Guid(guid) => ("guid = ?3 AND", Some(guid)),
        Which::Principal(principal) => ("principal = ?3 AND", Some(principal)),
        Which::Machine(machine) => ("machine = ?3 AND", Some(machine)),
    };
    let sql = format!(
        "SELECT number, id, session FROM sessions WHERE {condition} ended IS NULL AND number > ?1 ORDER BY number LIMIT ?2"
    );
    let limited = one_more(limit);
    let mut values: Vec<&dyn ToSql> = vec![&after, &limited];
    values.extend(value.map(|value| value as &dyn ToSql));
    let mut statement = connection.prepare_cached(&sql)?;
    let row = |row: &Row| Ok((row.get(0)?, row.get(1)?, bytes(row, 2)?));
    let found = statement.query_map(values.as_slice(), row)?.collect::<Result<Vec<(i64, String, _)>, _>>()?;
    let more = found.len() > limit;
    let list = found
        .iter()
        .take(limit)
        .map(|(number, id, record)| Ok(Listed { cursor: number.to_string(), session: read(id, record)? }));
    Ok(Page { list: list.collect::<Result<_, Trouble>>()?, more })
}

fn events(connection: &Connection, position: &Position, limit: usize) -> Result<Events, Trouble> {
    let newest = || -> Result<i64, Trouble> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
        Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    };
    let oldest: Option<i64> =
        connection.prepare_cached("SELECT min(number) FROM events")?.query_row([], |row| row.get(0))?;
    let newest = newest()?;
    let oldest = oldest.unwrap_or(newest.saturating_add(1));
    let after = match position {
        Position::Now => {
            return Ok(Events { list: Vec::new(), cursor: newest.to_string(), gap: false });
        }
        Position::Oldest => oldest.saturating_sub(1),
        Position::After(cursor) => number(cursor)?,
    };
    // A cursor from the future comes from a file that was made while the clock was ahead.
    let gap = after < oldest.saturating_sub(1) || after > newest;
    let after = if gap { oldest.saturating_sub(1) } else { after };
    let sql = "SELECT number, session FROM events WHERE number > ?1 ORDER BY number LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let row = |row: &Row| Ok((row.get::<_, i64>(0)?, bytes(row, 1)?));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = statement.query_map(params![after, limit], row)?.collect::<Result<Vec<_>, _>>()?;
    let cursor = found.last().map_or(after, |(number, _)| *number).to_string();
    let count = found.len();
    let read = found.into_iter().filter_map(|(number, record)| {
        Some(Event { cursor: number.to_string(), session: serde_json::from_slice(&record).ok()? })
    });
    let list: Vec<_> = read.collect();
    // An event that cannot be read is skipped, and the gap says so.
    let gap = gap || list.len() < count;
    Ok(Events { list, cursor, gap })
}

impl Store for Sqlite {
    fn name(&self) -> String {
        format!("sqlite {}", self.path.display())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn open<'a>(
        &'a self,
        session: &'a Session,
        admission: Admission,
        deadline: Instant,
    ) -> Answer<'a, Opened> {
        let (session, changes) = (session.clone(), self.changes.clone());
        self.ask(deadline, move |connection| {
            let (opened, changed) = register(connection, &session, admission)?;
            if changed {
                changes.send_replace(());
            }
            Ok(opened)
        })
    }

    fn close<'a>(&'a self, id: &'a str, ended: &'a Ended, deadline: Instant) -> Answer<'a, Closed> {
        let (id, ended, changes) = (id.to_owned(), ended.clone(), self.changes.clone());
        self.ask(deadline, move |connection| {
            let closed = close(connection, &id, ended.clone())?;
            if matches!(closed, Closed::Now(_)) {
                changes.send_replace(());
            }
            Ok(closed)
        })
    }

    fn undo<'a>(&'a self, session: &'a Session, ended: &'a Ended, deadline: Instant) -> Answer<'a, Undone> {
        let (session, ended, changes) = (session.clone(), ended.clone(), self.changes.clone());
        self.ask(deadline, move |connection| {
            let (undone, changed) = undo(connection, &session, ended.clone())?;
            if changed {
                changes.send_replace(());
            }
            Ok(undone)
        })
    }

    fn get<'a>(&'a self, id: &'a str, deadline: Instant) -> Answer<'a, Option<Session>> {
        let id = id.to_owned();
        self.ask(deadline, move |connection| find(connection, &id))
    }

    fn list<'a>(
        &'a self,
        which: &'a Which,
        after: Option<&'a str>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<'a, Page> {
        let (which, after) = (which.clone(), after.map(str::to_owned));
        self.ask(deadline, move |connection| list(connection, &which, after.as_deref(), limit))
    }

    fn count(&self, deadline: Instant) -> Answer<'_, u64> {
        self.ask(deadline, |connection| {
            let sql = "SELECT count(*) FROM sessions WHERE ended IS NULL";
            let count: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    fn events<'a>(&'a self, position: &'a Position, limit: usize, deadline: Instant) -> Answer<'a, Events> {
        let position = position.clone();
        self.ask(deadline, move |connection| events(connection, &position, limit))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn bookmarked<'a>(&'a self, name: &'a str, deadline: Instant) -> Answer<'a, Option<String>> {
        let name = name.to_owned();
        self.ask(deadline, move |connection| {
            let sql = "SELECT cursor FROM bookmarks WHERE name = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([&name], |row| row.get(0)).optional()?)
        })
    }

    fn bookmark<'a>(&'a self, name: &'a str, cursor: &'a str, deadline: Instant) -> Answer<'a, ()> {
        let (name, cursor) = (name.to_owned(), cursor.to_owned());
        self.ask(deadline, move |connection| {
            let sql = "INSERT INTO bookmarks (name, cursor) VALUES (?1, ?2)
                ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor";
            connection.prepare_cached(sql)?.execute([&name, &cursor])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::sync::Mutex;

    use super::super::store::suite::{Made, ONE, all_events, keeps_its_promises, listed, session, soon};
    use super::*;

    fn silent() -> Tell {
        Arc::new(|text| panic!("{text}"))
    }

    async fn made() -> Option<Made> {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        Some(Made { store: Arc::new(store), keep: Box::new(folder) })
    }

    keeps_its_promises!(made);

    const NOW: u64 = 1_784_000_000_000;

    async fn open(store: &Sqlite, id: &str) -> Result<Opened, StoreError> {
        store.open(&session(id, "john", NOW), ONE, soon()).await
    }

    /// Opens the file in `folder`, and returns what is reported.
    async fn said(folder: &Path) -> (Sqlite, Vec<String>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let store = Sqlite::new(folder, {
            let said = said.clone();
            Arc::new(move |text| said.lock().unwrap().push(text.to_owned()))
        });
        let store = store.unwrap();
        store.count(soon()).await.unwrap();
        let said = said.lock().unwrap().clone();
        (store, said)
    }

    fn files(folder: &Path) -> usize {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().contains("damaged")).count()
    }

    #[tokio::test]
    async fn the_next_process_finds_everything_and_only_its_own_user_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        for id in ["a", "b"] {
            open(&store, id).await.unwrap();
        }
        store.bookmark("x", "7", soon()).await.unwrap();
        let events = all_events(&store).await;
        drop(store);
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        assert_eq!(listed(&store, Which::All).await, [session("b", "john", NOW)]);
        assert_eq!(all_events(&store).await, events);
        assert_eq!(store.bookmarked("x", soon()).await.unwrap().as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn a_second_broker_does_not_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        open(&store, "a").await.unwrap();
        let second = Sqlite::new(folder.path(), silent()).unwrap();
        let error = open(&second, "b").await.unwrap_err();
        assert!(error.to_string().contains("locked"), "{error}");
        assert_eq!(listed(&store, Which::All).await.len(), 1);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_its_cursors_are_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        for number in 0..100 {
            open(&store, &number.to_string()).await.unwrap();
        }
        let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
        drop(store);
        let path = folder.path().join(FILE);
        let damages: [fn(&mut Vec<u8>); 3] = [
            |bytes| bytes.fill(b'x'),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes[4096..].fill(0xff),
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            // Wait until the thread has closed the file.
            while Connection::open(&path)
                .unwrap()
                .query_row("SELECT 1 FROM sessions", [], |_| Ok(()))
                .is_err()
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let (store, said) = said(folder.path()).await;
            let [line] = said.as_slice() else { panic!("{said:?}") };
            assert!(line.contains("was damaged") && line.contains("sessions.db.damaged-2"), "{line}");
            assert_eq!(files(folder.path()), number + 1);
            assert_eq!(listed(&store, Which::All).await, []);
            let events = store.events(&Position::After(cursor.clone()), 1, soon()).await.unwrap();
            assert!(events.gap);
            for number in 0..100 {
                open(&store, &number.to_string()).await.unwrap();
            }
            let events = store.events(&Position::After(cursor.clone()), 1, soon()).await.unwrap();
            assert!(events.gap);
            assert_eq!(events.list[0].session.id, "0");
        }
    }

    #[tokio::test]
    async fn few_damaged_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..ASIDE + 2 {
            std::fs::write(folder.path().join(FILE), "this is no database, but long enough to look like one")
                .unwrap();
            assert_eq!(said(folder.path()).await.1.len(), 1);
            // Wait until the thread has released the file.
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(files(folder.path()), ASIDE);
    }

    #[tokio::test]
    async fn a_file_of_another_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", LAYOUT + 1).unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        let error = open(&store, "a").await.unwrap_err();
        assert!(error.to_string().contains("another version of motion-ad"), "{error}");
        assert_eq!(files(folder.path()), 0);
    }

    #[tokio::test]
    async fn one_row_that_cannot_be_read_bars_nobody() {
        let spoils = ["'{'", "'{}'", "CAST(x'ff' AS TEXT)", "json_remove(session, '$.since')"];
        for (policy, spoil) in spoils.into_iter().flat_map(|spoil| [(ONE, spoil), (deny(), spoil)]) {
            let folder = tempfile::tempdir().unwrap();
            let said = Arc::new(Mutex::new(Vec::new()));
            let store = Sqlite::new(folder.path(), {
                let said = said.clone();
                Arc::new(move |text: &str| said.lock().unwrap().push(text.to_owned()))
            });
            let store = store.unwrap();
            open(&store, "a").await.unwrap();
            store.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
            let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
            let sql = format!("UPDATE sessions SET session = {spoil} WHERE id = 'a'");
            store.ask(soon(), move |connection| Ok(connection.execute(&sql, [])?)).await.unwrap();
            // By lists, by the sweep and by the login of its own user.
            if spoil == "'{'" {
                assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW)]);
            }
            let newcomer = session("c", "john", NOW);
            let opened = store.open(&newcomer, policy, soon()).await.unwrap();
            assert_eq!(opened, Opened::Registered(vec![]), "{spoil}");
            assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW), newcomer]);
            let said = said.lock().unwrap().clone();
            assert!(matches!(said.as_slice(), [line] if line.contains("the session a in")), "{said:?}");
            let events = store.events(&Position::After(cursor), 10, soon()).await.unwrap();
            let ended = &events.list[0].session;
            assert_eq!(
                (ended.id.as_str(), ended.guid.as_str(), ended.machine.as_str()),
                ("a", "john", "6d61")
            );
            assert_eq!(ended.ended.as_ref().unwrap().reason, EndReason::Refused);
            assert_eq!((events.gap, events.list.len()), (false, 2));
            assert_eq!(store.get("a", soon()).await.unwrap().as_ref(), Some(ended));
        }
    }

    fn deny() -> Admission {
        Admission::Deny(std::num::NonZeroUsize::MIN)
    }

    #[tokio::test]
    async fn an_event_that_cannot_be_read_is_a_gap_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        for id in ["a", "b", "c"] {
            open(&store, id).await.unwrap();
        }
        let sql = "UPDATE events SET session = 'x' WHERE number = (SELECT min(number) + 1 FROM events)";
        store.ask(soon(), move |connection| Ok(connection.execute(sql, [])?)).await.unwrap();
        let events = store.events(&Position::Oldest, 10, soon()).await.unwrap();
        assert_eq!((events.gap, events.list.len()), (true, 4));
        let one = store.events(&Position::Oldest, 2, soon()).await.unwrap();
        assert_eq!((one.gap, one.list.len()), (true, 1));
        let next = store.events(&Position::After(one.cursor), 10, soon()).await.unwrap();
        assert_eq!((next.gap, next.list.len()), (false, 3));
    }

    #[tokio::test]
    async fn a_file_that_is_deleted_while_it_is_used_is_written_again() {
        for parts in [&["", "-wal"][..], &[""], &["-wal", ""]] {
            let folder = tempfile::tempdir().unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            let store = until_free(folder.path(), &told).await;
            for id in ["a", "b"] {
                open(&store, id).await.unwrap();
            }
            let events = all_events(&store).await;
            for part in parts {
                let _ = std::fs::remove_file(folder.path().join(format!("{FILE}{part}")));
            }
            assert_eq!(listed(&store, Which::All).await, [session("b", "john", NOW)]);
            let lines = told.lock().unwrap().clone();
            assert!(matches!(lines.as_slice(), [line] if line.contains("was deleted")), "{lines:?}");
            drop(store);
            let store = until_free(folder.path(), &told).await;
            assert_eq!(all_events(&store).await, events);
            open(&store, "z").await.unwrap();
            assert_eq!(told.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn another_file_in_its_place_is_said_and_used() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let store = until_free(folder.path(), &told).await;
        open(&store, "a").await.unwrap();
        let (second, _) = said(other.path()).await;
        second.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
        drop(second);
        drop(until_free(other.path(), &told).await);
        std::thread::sleep(Duration::from_millis(100));
        std::fs::rename(other.path().join(FILE), folder.path().join(FILE)).unwrap();
        assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW)]);
        let lines = told.lock().unwrap().clone();
        assert!(
            matches!(lines.as_slice(), [line] if line.contains("another file took its place")),
            "{lines:?}"
        );
    }

    /// Opens a store in `folder` after the previous one has released the file.
    async fn until_free(folder: &Path, told: &Arc<Mutex<Vec<String>>>) -> Sqlite {
        let told = told.clone();
        let store =
            Sqlite::new(folder, Arc::new(move |text: &str| told.lock().unwrap().push(text.to_owned())));
        let store = store.unwrap();
        while store.count(soon()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        store
    }

    #[tokio::test]
    async fn a_file_of_the_layout_before_is_carried_over() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join(FILE)).unwrap();
        let before = TABLES.replace("machine", "host");
        connection.execute_batch(&before).unwrap();
        let a = r#"{"id":"a","user":"john","principal":"john@acme.com","guid":"john","service":"motion","rhost":"","tty":"",
            "host":"xcally","uid":998,"pid":1,"started":1,"boot":"b","since":1,"ended":null}"#;
        let insert = "INSERT INTO sessions (id, guid, principal, host, session) VALUES ('a', 'john', 'john@acme.com', 'xcally', ?1)";
        connection.execute(insert, [a]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        drop(connection);
        for _ in 0..2 {
            let store = Sqlite::new(folder.path(), silent()).unwrap();
            let [open] = listed(&store, Which::All).await.try_into().unwrap();
            assert_eq!((open.id.as_str(), open.host.as_str(), open.machine.as_str()), ("a", "xcally", ""));
            // Wait until the thread has released the file.
            drop(store);
            std::thread::sleep(Duration::from_millis(200));
        }
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        let Opened::Registered(gone) = open(&store, "b").await.unwrap() else { panic!("denied") };
        assert_eq!(gone[0].id, "a");
        assert_eq!(listed(&store, Which::Machine("6d61".into())).await.len(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("later");
        let store = Sqlite::new(&place, silent()).unwrap();
        for _ in 0..2 {
            let error = open(&store, "a").await.unwrap_err();
            assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("later")), "{error}");
        }
        std::fs::create_dir(&place).unwrap();
        tokio::time::sleep(RETRY).await;
        open(&store, "a").await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_changes_nothing_and_is_survived() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        open(&store, "a").await.unwrap();
        let limit = |pages: i64| {
            store.ask(soon(), move |connection| {
                connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
                Ok(())
            })
        };
        limit(1).await.unwrap();
        let mut kept = None;
        for number in 0..1000 {
            match open(&store, &format!("b{number}")).await {
                Ok(_) => kept = Some(format!("b{number}")),
                Err(error) => {
                    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                    assert!(error.to_string().contains("full"), "{error}");
                    break;
                }
            }
        }
        // The last user who was logged in still is; a user who was rejected is not.
        let open_now = listed(&store, Which::All).await;
        assert_eq!(open_now.len(), 1);
        assert_eq!(Some(&open_now[0].id), kept.as_ref());
        assert!(open(&store, "late").await.is_err());
        limit(1_000_000).await.unwrap();
        open(&store, "later").await.unwrap();
        assert_eq!(listed(&store, Which::All).await[0].id, "later");
    }

    /// The variable with the folder that a child process writes into.
    const CHILD: &str = "MOTION_AD_TEST_SESSIONS";

    #[tokio::test(flavor = "multi_thread")]
    async fn writes_until_it_is_killed() {
        let Some(folder) = std::env::var_os(CHILD) else { return };
        let store = Arc::new(Sqlite::new(Path::new(&folder), silent()).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                loop {
                    open(&store, &uuid::Uuid::from_u128(fastrand::u128(..)).to_string()).await.unwrap();
                }
            });
        }
        while store.count(soon()).await.unwrap() == 0 {}
        println!("begun");
        tasks.join_all().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_survives_being_killed_in_the_middle_of_writing() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = 0;
        for _ in 0..4 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "sessions::sqlite::tests::writes_until_it_is_killed"])
                .env(CHILD, folder.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = child.stdout.take().unwrap();
            let (mut said, mut byte) = (String::new(), [0]);
            while !said.contains("begun") {
                output.read_exact(&mut byte).unwrap();
                said.push(char::from(byte[0]));
            }
            std::thread::sleep(Duration::from_millis(fastrand::u64(20..200)));
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));

            let store = Sqlite::new(folder.path(), silent()).unwrap();
            let whole = store.ask(soon(), |connection| {
                Ok(connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?)
            });
            assert_eq!(whole.await.unwrap(), "ok");
            assert_eq!(listed(&store, Which::All).await.len(), 1);
            let now: i64 = store.events(&Position::Now, 1, soon()).await.unwrap().cursor.parse().unwrap();
            assert!(now > events, "nothing was written");
            events = now;
            drop(store);
        }
    }

    /// Measures the cost of one login: `cargo test --release --lib speed -- --ignored --nocapture`.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "prints a measurement"]
    async fn speed() {
        const COUNT: u32 = 20_000;
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        let begun = std::time::Instant::now();
        let mut worst = Duration::ZERO;
        for number in 0..COUNT {
            let one = std::time::Instant::now();
            open(&store, &number.to_string()).await.unwrap();
            worst = worst.max(one.elapsed());
        }
        println!("{:?} for each, at most {worst:?}", begun.elapsed() / COUNT);
    }
}
