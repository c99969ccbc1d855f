//! The register in a Redis that several servers share.
//!
//! Each change is one script on the Redis, so that it is one step for all of them; the scripts say what is kept where.
//! A call whose answer is lost is made once more on the next connection, which changes nothing where the first one did
//! it already.
//!
//! What a master has answered and not yet handed to a replica is lost when it dies and Sentinels choose the replica.
//! `WAIT` would not prevent that, only tell of it, and would hold up everybody on the connection for as long as a
//! replica is away; `min-replicas-to-write` of the server refuses writes then. Watchers are told by [`Events::gap`]
//! where what they saw was lost.

mod change;
mod connection;
mod keeper;
mod script;
mod trouble;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Script, cmd};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::change::{Change, Loss, Tell};
use self::connection::{Access, Connector};
use self::keeper::{ANSWER, Keeper};
use self::script::{BOOKMARKS_KEY, CLOSE, KNOWN_KEY, LIST, OPEN, OPEN_KEY, READ};
use self::trouble::{Kind, Trouble};
use super::rule::Admission;
use super::store::{Answer, Closed, ENDED, Listed, Opened, Page, Position, Store, StoreError, Which};
use crate::config;
use crate::directory::dns::Names;
use crate::protocol::report::{EndReason, Ended, Event, Events, Session};
use crate::supervise;

/// Calls on their way; more wait.
const IN_FLIGHT: usize = 256;
/// One call, lost ones included.
const ATTEMPTS: usize = 2;
/// Numbers have no more digits.
const DIGITS: usize = 16;

/// The register in a Redis.
pub struct Redis {
    name: String,
    keeper: Arc<Keeper>,
    in_flight: Semaphore,
    /// Ends with this.
    _keeping: JoinSet<()>,
}

impl Redis {
    /// The register in `redis`, whose addresses `names` knows. Connects in the background; each change is said by
    /// `tell`.
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

    /// Whether the files that `redis` names can be used.
    ///
    /// # Errors
    /// What is wrong with one, and what to do.
    pub fn check(redis: &config::Redis) -> Result<(), String> {
        Access::read(redis).map(drop).map_err(|trouble| trouble.to_string())
    }

    async fn call<T: FromRedisValue>(&self, ask: Ask, deadline: Instant) -> Result<T, StoreError> {
        let late = |cause: &str| StoreError::Timeout(format!("{}: {cause}", self.name));
        if Instant::now() >= deadline {
            return Err(late("it was not asked, because the deadline had passed"));
        }
        let Ok(Ok(_permit)) = timeout_at(deadline, self.in_flight.acquire()).await else {
            return Err(late("it was not asked, because too many calls wait for it"));
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
            let until = deadline.min(Instant::now() + ANSWER);
            let trouble = match timeout_at(until, ask.put(&mut link.connection)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Trouble::from(error),
                Err(_) => Trouble::silent(),
            };
            why = trouble.of(&link.server);
            match why.kind {
                // With so little time it may have been the caller who was impatient.
                Kind::Silent if Instant::now() >= deadline => {
                    return Err(StoreError::Timeout(why.to_string()));
                }
                Kind::Silent | Kind::Lost => {
                    self.keeper.cut(&link, why.clone());
                    lost = Some(why.clone());
                }
                Kind::NotHere => self.keeper.cut(&link, why.clone()),
                Kind::Damaged => {
                    let _ = timeout_at(until, self.keeper.mend(&mut link.connection)).await;
                }
                Kind::Refused | Kind::Barred => break,
            }
        }
        Err(match lost {
            // What came after that does not say that it was not done.
            Some(lost) => StoreError::Timeout(lost.to_string()),
            None => StoreError::Unavailable(why.to_string()),
        })
    }

    /// What a record of the register says.
    fn read(&self, record: &str) -> Result<Session, StoreError> {
        let (session, ended) = record.split_once('\n').map_or((record, None), |(one, two)| (one, Some(two)));
        let read = || {
            let session: Session = serde_json::from_str(session)?;
            Ok(Session { ended: ended.map(serde_json::from_str).transpose()?, ..session })
        };
        read().map_err(|error: serde_json::Error| self.malformed(&error.to_string()))
    }

    fn read_all(&self, records: &[String]) -> Result<Vec<Session>, StoreError> {
        records.iter().map(|record| self.read(record)).collect()
    }

    /// Somebody else has written there.
    fn malformed(&self, what: &str) -> StoreError {
        StoreError::Unavailable(format!("{} holds what motion-ad did not write: {what}", self.name))
    }
}

/// What Redis is asked.
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

/// JSON, which of these types never fails.
fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// The time before which an end is forgotten at `now`.
fn forgotten(now: u64) -> String {
    now.saturating_sub(ENDED).to_string()
}

/// Digits only, few enough to be exact for Lua.
fn number(text: &str) -> Option<&str> {
    let is_number = (1..=DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(text)
}

/// `NUMBER-MARK`.
fn event_cursor(cursor: &str) -> Result<(&str, &str), StoreError> {
    let parts = cursor.split_once('-').and_then(|(text, mark)| Some((number(text)?, mark)));
    let is_mark = |mark: &str| mark.len() == 16 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.filter(|(_, mark)| is_mark(mark)).ok_or_else(|| StoreError::Cursor(cursor.to_owned()))
}

impl Store for Redis {
    fn name(&self) -> String {
        self.name.clone()
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
            let answer: Vec<String> = self.call(Ask::Script(&OPEN, arguments), deadline).await?;
            match answer.split_first() {
                Some((word, gone)) if word == "registered" => Ok(Opened::Registered(self.read_all(gone)?)),
                Some((word, open)) if word == "denied" => Ok(Opened::Denied(self.read_all(open)?)),
                _ => Err(self.malformed("an answer")),
            }
        })
    }

    fn close<'a>(&'a self, id: &'a str, ended: &'a Ended, deadline: Instant) -> Answer<'a, Closed> {
        Box::pin(async move {
            let arguments = vec![id.to_owned(), json(ended)?, ended.at.to_string(), forgotten(ended.at)];
            let answer: Vec<String> = self.call(Ask::Script(&CLOSE, arguments), deadline).await?;
            match answer.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["now", record] => Ok(Closed::Now(self.read(record)?)),
                ["earlier", record] => Ok(Closed::Earlier(self.read(record)?)),
                ["unknown"] => Ok(Closed::Unknown),
                _ => Err(self.malformed("an answer")),
            }
        })
    }

    fn get<'a>(&'a self, id: &'a str, deadline: Instant) -> Answer<'a, Option<Session>> {
        Box::pin(async move {
            let mut command = cmd("HGET");
            command.arg(KNOWN_KEY).arg(id);
            let record: Option<String> = self.call(Ask::Command(command), deadline).await?;
            record.map(|record| self.read(&record)).transpose()
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
                Which::Host(host) => ("h", host.as_str()),
            };
            // One more than is asked for says whether there are more.
            let more = limit.saturating_add(1).to_string();
            let arguments = vec![kind.to_owned(), value.to_owned(), after.to_owned(), more];
            let (numbers, records): (Vec<String>, Vec<String>) =
                self.call(Ask::Script(&LIST, arguments), deadline).await?;
            let sessions = records.iter().take(limit).map(|record| self.read(record));
            let list = numbers.into_iter().zip(sessions);
            let list = list.map(|(cursor, session)| Ok(Listed { cursor, session: session? }));
            Ok(Page { list: list.collect::<Result<_, StoreError>>()?, more: records.len() > limit })
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
            let (gap, end, cursors, records): (bool, String, Vec<String>, Vec<String>) =
                self.call(Ask::Script(&READ, arguments), deadline).await?;
            let sessions = self.read_all(&records)?;
            let list = cursors.into_iter().zip(sessions).map(|(cursor, session)| Event { cursor, session });
            let list: Vec<_> = list.collect();
            let cursor = list.last().map_or(end, |event| event.cursor.clone());
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
