//! The register in a file of this host: SQLite in WAL mode (sqlite.org/wal.html).
//!
//! A separate thread with one connection makes all calls in order. A commit is written but not flushed
//! (`synchronous = NORMAL`). The death of the broker loses nothing. A power cut loses the last moments, but
//! no session that counts, because the application's processes are gone, too.
//!
//! This file has the thread and the calls; `file.rs` has the file, which may be damaged, deleted or replaced.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use self::file::{FILE, Keeper, Tell, Trouble, unavailable};
use super::rule::{Admission, Decision};
use super::store::{
    Answer, Closed, ENDED, EVENTS, Listed, Opened, Page, Position, Store, StoreError, Undone, Which,
};
use crate::protocol::report::{EndReason, Ended, Event, Events, Session};
use crate::supervise;

/// Maximum number of calls that wait for the thread.
const QUEUE: usize = 1024;
/// Time without a call after which the WAL is written back, so that hardly any login waits for that.
const IDLE: Duration = Duration::from_secs(1);
/// Maximum number of sessions with unreadable records that one call sets aside.
const ROWS: usize = 100;
/// Number of characters of an unreadable record that are logged.
const ROW: usize = 300;

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
        let mut keeper = Keeper::new(path.clone(), tell);
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
                let _ = reply.send(run(keeper, work));
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
    keeper.close();
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

/// Runs `work` on the open file. A record that cannot be read is set aside, and `work` begins again.
fn run<T>(
    keeper: &mut Keeper,
    work: impl Fn(&mut Connection) -> Result<T, Trouble>,
) -> Result<T, StoreError> {
    let path = keeper.path.clone();
    keeper.look();
    for _ in 0..ROWS {
        let connection = keeper.connection()?;
        let trouble = match work(connection) {
            Ok(done) => return Ok(done),
            Err(Trouble::Cursor(cursor)) => return Err(StoreError::Cursor(cursor)),
            Err(Trouble::Row(id, why)) => match set_row_aside(connection, &id) {
                Ok(text) => {
                    (keeper.tell)(&format!(
                        "the session {id} in {} could not be read ({why}) and has ended; its record was \
                         {text:?}",
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
            keeper.close();
        }
        return Err(unavailable(&path, &trouble));
    }
    Err(StoreError::Unavailable(format!("{}: {ROWS} sessions cannot be read", path.display())))
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
            "INSERT INTO sessions (id, guid, principal, machine, ended, session) VALUES (?1, ?2, ?3, ?4, ?5, \
             ?6)",
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
        "SELECT number, id, session FROM sessions WHERE {condition} ended IS NULL AND number > ?1 ORDER BY \
         number LIMIT ?2"
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
mod tests;
