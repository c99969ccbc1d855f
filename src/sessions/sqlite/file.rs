//! The file of the register, and its state while it is open.
//!
//! A damaged file is set aside, and an empty register replaces it. Otherwise no user could log in until an
//! administrator came, and the register grants no rights. The log reports this, and every watcher learns by
//! [`Events::gap`](crate::protocol::report::Events::gap) that it must compare with the list.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::sessions::store::StoreError;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "sessions.db";
/// Suffixes of the files that SQLite keeps (sqlite.org/tempfiles.html). Without a second process there is no
/// `-shm`.
const PARTS: [&str; 2] = ["", "-wal"];
/// Size at which the WAL is written back anyway, in pages of 4 KiB.
const WAL: u32 = 4000;
/// Minimum time before the next attempt to open a file that could not be opened.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Time for which a second broker waits for the file, which the first one releases when it stops.
const BUSY: Duration = Duration::from_millis(250);
/// Number of damaged files that are kept; the oldest are removed.
pub(super) const ASIDE: usize = 3;
/// Version of the layout of the tables: `user_version` of the file.
pub(super) const LAYOUT: i64 = 2;
/// Migration of the tables of layout 1 to the present layout.
const FROM_1: &str = "ALTER TABLE sessions RENAME COLUMN host TO machine; UPDATE sessions SET machine = '';";

/// The tables. Sessions are stored in the form in which they are shown, with columns for the searches. The
/// number of a removed row is never used again.
pub(super) const TABLES: &str = "
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

/// Reason why a call failed on the thread.
pub(super) enum Trouble {
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

    pub(super) fn text(&self) -> String {
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
pub(super) struct Keeper {
    pub(super) path: PathBuf,
    pub(super) tell: Tell,
    /// The connection, with the identity of the file that it has open and of its WAL.
    connection: Option<(Connection, (File, Option<File>))>,
    /// True if the log already says that the file is missing.
    is_missing: bool,
    failed: Option<(Instant, StoreError)>,
}

impl Keeper {
    /// Creates a keeper of the file at `path`, which is opened for the first call.
    pub(super) fn new(path: PathBuf, tell: Tell) -> Self {
        Keeper { path, tell, connection: None, is_missing: false, failed: None }
    }

    /// Checks whether the open file is still the one at its path. A deleted file is written again; a file
    /// that another one has replaced is closed.
    pub(super) fn look(&mut self) {
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
                            "{}: it was deleted while it was used, and cannot be written again: {}; the next \
                             start of the broker loses all sessions",
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

    /// Writes the WAL back.
    pub(super) fn write_back(&self) {
        if let Some((connection, _)) = &self.connection {
            // Pages that cannot be written back stay in the WAL; the next change reports a full disk.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    /// Returns the connection, and opens the file if it is closed.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
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

    /// Closes the file; the next call opens it again.
    pub(super) fn close(&mut self) {
        self.connection = None;
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

/// Returns the error of a call.
pub(super) fn unavailable(path: &Path, trouble: &Trouble) -> StoreError {
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
