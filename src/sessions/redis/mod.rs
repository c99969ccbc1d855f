//! The register in a Redis that several servers share.
//!
//! Each change is one script in the Redis, and so one step for all servers; the scripts document the keys. A
//! call whose reply is lost is made a second time on the next connection. If the first call made the change,
//! the second one changes nothing. If the second one is denied, the session is undone, because the server may
//! still carry out the first one.
//!
//! A master may die after it has replied and before a replica has the change. If Sentinels then promote the
//! replica, the change is lost. `WAIT` would report such a loss but not prevent it, and it would delay all
//! calls on the connection while a replica is away. The server's `min-replicas-to-write` rejects writes then.
//! Watchers learn by [`Events::gap`] that events they have seen were lost.

mod change;
pub(crate) mod connection;
pub(crate) mod keeper;
mod script;
mod trouble;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, ParsingError, RedisError, Script, Value, cmd};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::change::{Change, Loss, Tell};
use self::connection::{Access, Connector};
use self::keeper::{ANSWER, Keeper};
use self::script::{ASIDE, BOOKMARKS_KEY, CLOSE, KNOWN_KEY, LIST, OPEN, OPEN_KEY, READ, UNDO};
use self::trouble::{Kind, Trouble};
use super::now;
use super::rule::Admission;
use super::store::{Answer, Closed, ENDED, Listed, Opened, Page, Position, Store, StoreError, Undone, Which};
use super::unconfirmed;
use crate::config;
use crate::directory::controllers::dns::Names;
use crate::protocol::report::{EndReason, Ended, Event, Events, Session};
use crate::supervise;

/// Maximum number of calls on their way; further calls wait.
const IN_FLIGHT: usize = 256;
/// Attempts of one call, including those whose reply is lost.
const ATTEMPTS: usize = 2;
/// Maximum number of sessions with unreadable records that one call sets aside.
const ROWS: usize = 100;
/// Number of characters of an unreadable record that are logged.
const RECORD: usize = 300;
/// Maximum number of digits of an event's number.
const DIGITS: usize = 16;

/// The register in a Redis.
pub struct Redis {
    name: String,
    keeper: Arc<Keeper>,
    in_flight: Semaphore,
    /// Maintains the connections, and ends when this is dropped.
    _keeping: JoinSet<()>,
}

impl Redis {
    /// Opens the register in `redis`; `names` resolves the addresses. It connects in the background and
    /// reports each change to `tell`.
    pub fn new(redis: config::Redis, names: Arc<dyn Names>, tell: Tell) -> Self {
        let name = redis.to_string();
        let keeper = Arc::new(Keeper::new(Connector { redis, names }, tell));
        let mut keeping = JoinSet::new();
        keeping.spawn({
            let keeper = keeper.clone();
            supervise::tasks().keep("redis", move || {
                let keeper = keeper.clone();
                async move {
                    keeper.keep().await;
                    Ok(())
                }
            })
        });
        Redis { name, keeper, in_flight: Semaphore::new(IN_FLIGHT), _keeping: keeping }
    }

    /// Checks whether the files that `redis` names can be used.
    ///
    /// # Errors
    /// Returns the problem with one of them, and the advice.
    pub fn check(redis: &config::Redis) -> Result<(), String> {
        Access::read(redis).map(drop).map_err(|trouble| trouble.to_string())
    }

    async fn call<T: FromRedisValue>(&self, ask: Ask, deadline: Instant) -> Result<T, StoreError> {
        self.answered(ask, deadline).await.map(|(answer, _)| answer)
    }

    /// Returns the reply, and true if an earlier attempt was lost: the server may still carry that one out.
    async fn answered<T: FromRedisValue>(
        &self,
        ask: Ask,
        deadline: Instant,
    ) -> Result<(T, bool), StoreError> {
        let late = |cause: &str| StoreError::Timeout(format!("{}: {cause}", self.name));
        if Instant::now() >= deadline {
            return Err(late("no request was sent, because the deadline had passed"));
        }
        let Ok(Ok(_permit)) = timeout_at(deadline, self.in_flight.acquire()).await else {
            return Err(late("no request was sent, because too many calls wait for it"));
        };
        let mut lost = None;
        let mut why = Trouble::new(Kind::Lost, "", "");
        for _ in 0..ATTEMPTS {
            let mut link = match self.keeper.link(deadline).await {
                Ok(link) => link,
                Err(trouble) => {
                    why = trouble;
                    break;
                }
            };
            let heard = link.heard.clone();
            let asking = async { ask.put(&mut link.connection).await.map_err(Trouble::from) };
            let trouble = match heard.in_time(deadline, ANSWER, asking).await {
                Ok(answer) => return Ok((answer, lost.is_some())),
                Err(trouble) => trouble,
            };
            why = trouble.of(&link.server);
            match why.kind {
                // With so little time left, the caller's deadline may have been the problem.
                Kind::Silent if Instant::now() >= deadline => {
                    return Err(StoreError::Timeout(why.to_string()));
                }
                Kind::Silent | Kind::Lost => {
                    self.keeper.cut(&link, why.clone());
                    lost = Some(why.clone());
                }
                Kind::NotHere => self.keeper.cut(&link, why.clone()),
                Kind::Damaged => {
                    let _ = heard.in_time(deadline, ANSWER, self.keeper.mend(&mut link.connection)).await;
                }
                Kind::Refused | Kind::Barred => break,
            }
        }
        Err(match lost {
            // A later error does not prove that the lost call changed nothing.
            Some(lost) => StoreError::Timeout(lost.to_string()),
            None => StoreError::Unavailable(why.to_string()),
        })
    }

    /// Parses the readable records and logs the others.
    fn read_all<'a>(&self, records: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Session> {
        let read = |(id, record): (&str, &str)| {
            session_of(record).or_else(|| {
                self.tell_unreadable(id, record);
                None
            })
        };
        records.into_iter().filter_map(read).collect()
    }

    fn tell_unreadable(&self, id: &str, record: &str) {
        (self.keeper.tell)(&Change::Unreadable(id.to_owned(), record.chars().take(RECORD).collect()));
    }

    /// Ends an open session whose record cannot be read.
    async fn set_aside(&self, id: &str, record: &str, deadline: Instant) -> Result<(), StoreError> {
        let now = now();
        let detail = "its record in the register could not be read".to_owned();
        let ended = Ended { at: now, reason: EndReason::Refused, detail };
        let arguments = vec![id.to_owned(), json(&ended)?, now.to_string(), forgotten(now)];
        let is_done: bool = self.call(Ask::Script(&ASIDE, arguments), deadline).await?;
        if is_done {
            self.tell_unreadable(id, record);
        }
        Ok(())
    }

    /// Returns the outcome for the session `id`, which a script ended or found ended.
    fn closed(&self, word: &str, id: &str, record: &str, ended: &Ended) -> Result<Closed, StoreError> {
        let session = self.read_all([(id, record)]).pop();
        match word {
            "now" => {
                let known =
                    || Session { id: id.to_owned(), ended: Some(ended.clone()), ..Session::default() };
                Ok(Closed::Now(session.unwrap_or_else(known)))
            }
            "earlier" => Ok(session.map_or(Closed::Unknown, Closed::Earlier)),
            _ => Err(self.malformed("an answer")),
        }
    }

    /// Runs `script`, and again after it meets and sets aside a session that cannot be read. Sets `lost` if
    /// an attempt was lost.
    async fn run(
        &self,
        script: &'static Script,
        arguments: &[String],
        deadline: Instant,
        lost: &mut bool,
    ) -> Result<Vec<String>, StoreError> {
        for _ in 0..ROWS {
            let ask = Ask::Script(script, arguments.to_vec());
            let (answer, is_lost): (Vec<Text>, bool) = self.answered(ask, deadline).await?;
            *lost |= is_lost;
            match answer.as_slice() {
                [Text(word), Text(id), Text(record)] if word == "unreadable" => {
                    self.set_aside(id, record, deadline).await?;
                }
                _ => return Ok(answer.into_iter().map(|text| text.0).collect()),
            }
        }
        Err(self.malformed("many sessions that cannot be read"))
    }

    /// Ensures that a lost attempt opens no session after another attempt was denied.
    async fn bar(&self, session: &Session, deadline: Instant) -> Result<(), StoreError> {
        let ended = unconfirmed("the policy denied it, and an earlier attempt was lost");
        match self.undo(session, &ended, deadline).await {
            Ok(_) => Ok(()),
            // The caller undoes it later.
            Err(error) => Err(StoreError::Timeout(error.to_string())),
        }
    }

    /// Returns the error for data that another program has written.
    fn malformed(&self, what: &str) -> StoreError {
        StoreError::Unavailable(format!("{} holds what motion-ad did not write: {what}", self.name))
    }
}

/// Parses a record of the register; returns `None` if it is malformed.
pub(crate) fn session_of(record: &str) -> Option<Session> {
    let (session, ended) = record.split_once('\n').map_or((record, None), |(one, two)| (one, Some(two)));
    let session: Session = serde_json::from_str(session).ok()?;
    let ended = ended.map(serde_json::from_str).transpose().ok()?;
    Some(Session { ended, ..session })
}

/// A text from the register, which may not be UTF-8.
pub(crate) struct Text(pub(crate) String);

impl FromRedisValue for Text {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        match value {
            Value::BulkString(bytes) => Ok(Text(String::from_utf8_lossy(&bytes).into_owned())),
            other => String::from_redis_value(other).map(Text),
        }
    }
}

/// A call to Redis.
enum Ask {
    Script(&'static Script, Vec<String>),
    Command(Cmd),
}

impl Ask {
    async fn put<T: FromRedisValue>(&self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Ask::Script(script, arguments) => script::run(script, arguments, connection).await,
            Ask::Command(command) => command.query_async(connection).await,
        }
    }
}

/// Serializes to JSON, which never fails for these types.
fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Returns the time before which ended sessions are forgotten at `now`.
fn forgotten(now: u64) -> String {
    now.saturating_sub(ENDED).to_string()
}

/// Returns `text` if it is a number that Lua represents exactly: digits only, and few of them.
fn number(text: &str) -> Option<&str> {
    let is_number = (1..=DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(text)
}

/// Splits a cursor, which has the form `NUMBER-MARK`.
pub(crate) fn event_cursor(cursor: &str) -> Result<(&str, &str), StoreError> {
    let parts = cursor.split_once('-').and_then(|(text, mark)| Some((number(text)?, mark)));
    let is_mark = |mark: &str| mark.len() == 16 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.filter(|(_, mark)| is_mark(mark)).ok_or_else(|| StoreError::Cursor(cursor.to_owned()))
}

impl Store for Redis {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn open<'a>(
        &'a self,
        session: &'a Session,
        admission: Admission,
        deadline: Instant,
    ) -> Answer<'a, Opened> {
        Box::pin(async move {
            let (policy, limit) = match admission {
                Admission::Unlimited => ("unlimited", 1),
                Admission::Replace(limit) => ("replace", limit.get()),
                Admission::Deny(limit) => ("deny", limit.get()),
            };
            let replaced =
                Ended { at: session.since, reason: EndReason::Replaced, detail: session.id.clone() };
            let arguments = vec![
                session.id.clone(),
                json(session)?,
                json(&replaced)?,
                session.since.to_string(),
                forgotten(session.since),
                session.guid.clone(),
                policy.to_owned(),
                limit.to_string(),
            ];
            let mut lost = false;
            for _ in 0..ROWS {
                let answer = self.run(&OPEN, &arguments, deadline, &mut lost).await?;
                match answer.split_first() {
                    Some((word, gone)) if word == "registered" => {
                        let gone = gone.iter().map(|record| ("", record.as_str()));
                        return Ok(Opened::Registered(self.read_all(gone)));
                    }
                    Some((word, open)) if word == "denied" => {
                        let pairs =
                            || open.chunks_exact(2).filter_map(|pair| Some((pair.first()?, pair.last()?)));
                        let Some((id, record)) = pairs().find(|(_, record)| session_of(record).is_none())
                        else {
                            if lost {
                                self.bar(session, deadline).await?;
                            }
                            return Ok(Opened::Denied(
                                self.read_all(pairs().map(|(id, r)| (id.as_str(), r.as_str()))),
                            ));
                        };
                        self.set_aside(id, record, deadline).await?;
                    }
                    _ => break,
                }
            }
            Err(self.malformed("an answer"))
        })
    }

    fn close<'a>(&'a self, id: &'a str, ended: &'a Ended, deadline: Instant) -> Answer<'a, Closed> {
        Box::pin(async move {
            let arguments = vec![id.to_owned(), json(ended)?, ended.at.to_string(), forgotten(ended.at)];
            let answer = self.run(&CLOSE, &arguments, deadline, &mut false).await?;
            match answer.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["unknown"] => Ok(Closed::Unknown),
                [word, record] => self.closed(word, id, record, ended),
                _ => Err(self.malformed("an answer")),
            }
        })
    }

    fn undo<'a>(&'a self, session: &'a Session, ended: &'a Ended, deadline: Instant) -> Answer<'a, Undone> {
        Box::pin(async move {
            let arguments = vec![
                session.id.clone(),
                json(session)?,
                json(ended)?,
                ended.at.to_string(),
                forgotten(ended.at),
            ];
            let answer = self.run(&UNDO, &arguments, deadline, &mut false).await?;
            match answer.as_slice() {
                [word, record, gone @ ..] => {
                    let closed = self.closed(word, &session.id, record, ended)?;
                    let gone = gone.iter().map(|record| ("", record.as_str()));
                    Ok(Undone { closed, evicted: self.read_all(gone) })
                }
                _ => Err(self.malformed("an answer")),
            }
        })
    }

    fn get<'a>(&'a self, id: &'a str, deadline: Instant) -> Answer<'a, Option<Session>> {
        Box::pin(async move {
            let mut command = cmd("HGET");
            command.arg(KNOWN_KEY).arg(id);
            let record: Option<Text> = self.call(Ask::Command(command.clone()), deadline).await?;
            let Some(Text(record)) = record else { return Ok(None) };
            if session_of(&record).is_none() && !record.contains('\n') {
                self.set_aside(id, &record, deadline).await?;
                let record: Option<Text> = self.call(Ask::Command(command), deadline).await?;
                return Ok(record.and_then(|Text(record)| session_of(&record)));
            }
            Ok(self.read_all([(id, record.as_str())]).pop())
        })
    }

    fn list<'a>(
        &'a self,
        which: &'a Which,
        after: Option<&'a str>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<'a, Page> {
        Box::pin(async move {
            let after = after.unwrap_or("0");
            let after = number(after).ok_or_else(|| StoreError::Cursor(after.to_owned()))?;
            let (kind, value) = match which {
                Which::All => ("", ""),
                Which::Guid(guid) => ("g", guid.as_str()),
                Which::Principal(principal) => ("p", principal.as_str()),
                Which::Machine(machine) => ("h", machine.as_str()),
            };
            // One session more than `limit` shows whether there are more.
            let more = limit.saturating_add(1).to_string();
            let arguments = vec![kind.to_owned(), value.to_owned(), after.to_owned(), more];
            for _ in 0..ROWS {
                let (numbers, ids, records): (Vec<String>, Vec<String>, Vec<Text>) =
                    self.call(Ask::Script(&LIST, arguments.clone()), deadline).await?;
                let found = || ids.iter().zip(&records).take(limit);
                if let Some((id, record)) = found().find(|(_, record)| session_of(&record.0).is_none()) {
                    self.set_aside(id, &record.0, deadline).await?;
                    continue;
                }
                let sessions = found().filter_map(|(_, record)| session_of(&record.0));
                let list = numbers.into_iter().zip(sessions);
                let list = list.map(|(cursor, session)| Listed { cursor, session }).collect();
                return Ok(Page { list, more: records.len() > limit });
            }
            Err(self.malformed("many sessions that cannot be read"))
        })
    }

    fn count(&self, deadline: Instant) -> Answer<'_, u64> {
        let mut command = cmd("ZCARD");
        command.arg(OPEN_KEY);
        Box::pin(self.call(Ask::Command(command), deadline))
    }

    fn events<'a>(&'a self, position: &'a Position, limit: usize, deadline: Instant) -> Answer<'a, Events> {
        Box::pin(async move {
            let (position, number, mark) = match position {
                Position::Now => ("now", "0", ""),
                Position::Oldest => ("oldest", "0", ""),
                Position::After(cursor) => {
                    let (number, mark) = event_cursor(cursor)?;
                    ("after", number, mark)
                }
            };
            let arguments = [position, number, mark].map(str::to_owned);
            let arguments = arguments.into_iter().chain([limit.to_string()]).collect();
            let (gap, end, cursors, records): (bool, String, Vec<String>, Vec<Text>) =
                self.call(Ask::Script(&READ, arguments), deadline).await?;
            let cursor = cursors.last().cloned().unwrap_or(end);
            let count = records.len();
            let list = cursors.into_iter().zip(records);
            let list = list
                .filter_map(|(cursor, Text(record))| Some(Event { cursor, session: session_of(&record)? }));
            let list: Vec<_> = list.collect();
            // An event that cannot be read is skipped, and the gap says so.
            let gap = gap || list.len() < count;
            Ok(Events { list, cursor, gap })
        })
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.keeper.changes()
    }

    fn bookmarked<'a>(&'a self, name: &'a str, deadline: Instant) -> Answer<'a, Option<String>> {
        let mut command = cmd("HGET");
        command.arg(BOOKMARKS_KEY).arg(name);
        Box::pin(self.call(Ask::Command(command), deadline))
    }

    fn bookmark<'a>(&'a self, name: &'a str, cursor: &'a str, deadline: Instant) -> Answer<'a, ()> {
        let mut command = cmd("HSET");
        command.arg(BOOKMARKS_KEY).arg(name).arg(cursor);
        Box::pin(self.call(Ask::Command(command), deadline))
    }
}
