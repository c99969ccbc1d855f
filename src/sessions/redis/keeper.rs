//! Keeps the connections to a Redis: makes them, notices when they fail, and makes them again.
//!
//! Two connections live and die together: one for every call, and one that waits for events. The second one
//! gets a reply from the server at least every [`BLOCK`], so that a dead server is noticed without a login.
//! While there is no connection, every call fails at once with the cause.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue as _, ParsingError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::change::{Change, Loss, Tell};
use super::connection::{Access, Connector, Heard, Line, in_time};
use super::event_cursor;
use super::script::{self, BEGIN, EVENTS_KEY, READ};
use super::trouble::{FOREIGN, Kind, Trouble};
use crate::config::Server;

/// Maximum time for one attempt to connect, including the queries to Sentinels and two handshakes.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// Maximum silence of the server while a reply is due, after which it counts as dead. While other replies
/// arrive, it is only busy.
pub(super) const ANSWER: Duration = Duration::from_millis(1500);
/// Maximum time for one reply of a busy server to a check of this file.
const BUSY: Duration = Duration::from_secs(15);
/// Time for which the server waits for an event before it replies that there is none.
const BLOCK: Duration = Duration::from_secs(2);
/// Maximum number of events that are read at a time; they only show that something changed.
const AT_A_TIME: usize = 100;
/// Pause before the first attempt to connect again; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Maximum pause.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Minimum lifetime of a connection that resets the pauses.
const STEADY: Duration = Duration::from_secs(1);
/// An attempt that fails within this time is so quick that the next call can wait for another one.
const QUICK: Duration = Duration::from_millis(100);

/// The connection for calls.
#[derive(Clone)]
pub(super) struct Link {
    number: u64,
    pub(super) server: Server,
    pub(super) connection: MultiplexedConnection,
    pub(super) heard: Heard,
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Starting,
    Up(Link),
    Down(Down),
}

#[derive(Clone)]
struct Down {
    trouble: Trouble,
    /// Time when an attempt to connect last failed; `None` until the first one has.
    tried: Option<Instant>,
    /// True if the next attempt is likely to end soon, whether it succeeds or not.
    quick: bool,
}

/// The register as this broker last saw it.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    /// The beginning of the register.
    birth: String,
    /// The cursor of its newest event.
    newest: String,
}

/// Keeps the connections.
pub(super) struct Keeper {
    connector: Arc<Connector>,
    state: watch::Sender<State>,
    /// Notified when a call waits for the next attempt.
    wanted: Notify,
    changes: watch::Sender<()>,
    seen: Mutex<Option<Seen>>,
    pub(super) tell: Tell,
}

impl Keeper {
    pub(super) fn new(connector: Connector, tell: Tell) -> Self {
        Keeper {
            connector: Arc::new(connector),
            state: watch::Sender::new(State::Starting),
            wanted: Notify::new(),
            changes: watch::Sender::new(()),
            seen: Mutex::default(),
            tell,
        }
    }

    /// Returns a receiver that is marked when there may be events.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Returns the cursor of the newest event that this broker has seen.
    #[cfg(test)]
    pub(super) fn newest(&self) -> Option<String> {
        self.seen.lock().as_ref().map(|seen| seen.newest.clone())
    }

    /// Returns the connection for calls. If there is none, waits only if an attempt is about to end.
    ///
    /// # Errors
    /// Returns the reason if there is no connection.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Link, Trouble> {
        let mut state = self.state.subscribe();
        let mut until = deadline;
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) => return Ok(link.clone()),
                State::Starting => {}
                State::Down(down) => {
                    let just_tried = down.tried.is_some_and(|tried| tried.elapsed() < FIRST_PAUSE);
                    if !down.quick || just_tried || Instant::now() >= until {
                        return Err(down.trouble.clone());
                    }
                    until = until.min(Instant::now() + QUICK);
                    self.wanted.notify_one();
                }
            }
            if timeout_at(until, state.changed()).await.is_err() {
                return match &*state.borrow() {
                    State::Up(link) => Ok(link.clone()),
                    State::Down(down) => Err(down.trouble.clone()),
                    State::Starting => Err(Trouble::silent()),
                };
            }
        }
    }

    /// Gives up `link`, if it is still the present connection.
    pub(super) fn cut(&self, link: &Link, trouble: Trouble) {
        self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Up(now) if now.number == link.number);
            if is_it {
                let quick = trouble.kind != Kind::Silent;
                *state = State::Down(Down { trouble, tried: None, quick });
            }
            is_it
        });
    }

    /// Connects, and connects again, until the task ends.
    pub(super) async fn keep(&self) {
        let mut pause = FIRST_PAUSE;
        // Time since when there has been no connection, once that is reported.
        let mut down: Option<Instant> = None;
        for number in 0.. {
            let begun = Instant::now();
            match self.attempt(begun + CONNECT).await {
                Ok(session) => {
                    (self.tell)(&Change::Up(
                        session.server.to_string(),
                        down.take().map(|since| since.elapsed()),
                    ));
                    let begun = Instant::now();
                    let trouble = self.serve(session, number).await;
                    self.say_down(&mut down, &trouble);
                    let quick = trouble.kind != Kind::Silent;
                    self.state.send_replace(State::Down(Down { trouble, tried: None, quick }));
                    if begun.elapsed() >= STEADY {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                }
                Err(trouble) => {
                    self.say_down(&mut down, &trouble);
                    let quick = matches!(trouble.kind, Kind::Lost | Kind::NotHere) && begun.elapsed() < QUICK;
                    self.state.send_replace(State::Down(Down {
                        trouble,
                        tried: Some(Instant::now()),
                        quick,
                    }));
                }
            }
            let ended = Instant::now();
            sleep_until(ended + FIRST_PAUSE).await;
            tokio::select! {
                () = sleep_until(ended + pause) => {}
                () = self.wanted.notified() => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Reports once that there is no connection.
    fn say_down(&self, down: &mut Option<Instant>, trouble: &Trouble) {
        if down.is_none() {
            *down = Some(Instant::now());
            (self.tell)(&Change::Down(trouble.cause.clone(), trouble.advice));
        }
    }

    /// Makes both connections to the master.
    async fn attempt(&self, until: Instant) -> Result<Session, Trouble> {
        let access = self.connector.access().await?;
        let servers = in_time(until, self.connector.servers(&access)).await?;
        let mut trouble = None;
        for server in servers {
            match in_time(until, self.begin(&server, &access, until)).await {
                Ok(session) => return Ok(session),
                Err(failed) => trouble = trouble.or(Some(failed.of(&server))),
            }
        }
        Err(trouble.unwrap_or_else(|| Trouble::lost("there is no server to ask")))
    }

    async fn begin(&self, server: &Server, access: &Access, until: Instant) -> Result<Session, Trouble> {
        let mut calls = self.connector.connect(server, access, until).await?;
        // A server that rejects a client says so in reply to this; after a longer command it only closes the
        // connection.
        ping(&mut calls.connection).await?;
        let newest = self.mended(&mut calls.connection).await?;
        let mut events = self.connector.connect(server, access, until).await?;
        read(&mut events.connection, newest.as_deref(), None).await?;
        Ok(Session { server: server.clone(), calls, events, newest })
    }

    /// Calls [`Keeper::mend`]; returns `None` if the server rejects writes at the moment, because it can
    /// still be read.
    async fn mended(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, Trouble> {
        match self.mend(connection).await {
            Ok(newest) => Ok(Some(newest)),
            Err(trouble) if trouble.kind == Kind::Refused => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Creates the register if it is missing or incomplete, and reports lost data. Returns the cursor of its
    /// newest event.
    pub(super) async fn mend(&self, connection: &mut MultiplexedConnection) -> Result<String, Trouble> {
        let asked = self.seen.lock().clone();
        let (number, mark) = asked.as_ref().and_then(|seen| seen.newest.split_once('-')).unwrap_or_default();
        let arguments = [number.to_owned(), mark.to_owned()];
        let (emptied, is_lost, newest, birth): (bool, bool, String, String) =
            script::run(&BEGIN, &arguments, connection).await?;
        let now = Seen { birth: birth.clone(), newest: newest.clone() };
        let before = self.seen.lock().replace(now);
        let loss = match &before {
            _ if emptied => Some(Loss::Keys),
            Some(before) if before.birth != birth => Some(Loss::All),
            // Another call may have reported it in the meantime.
            Some(_) if is_lost && before == asked => Some(Loss::Newest),
            _ => None,
        };
        if let Some(loss) = loss {
            (self.tell)(&Change::Lost(loss));
            self.changes.send_replace(());
        }
        Ok(newest)
    }

    /// Provides `session` for calls until it fails, and returns the reason.
    async fn serve(&self, mut session: Session, number: u64) -> Trouble {
        let (server, connection) = (session.server.clone(), session.calls.connection.clone());
        let mut state = self.state.subscribe();
        let heard = session.calls.heard.clone();
        self.state.send_replace(State::Up(Link { number, server, connection, heard }));
        // Events may have been missed while there was no connection.
        self.changes.send_replace(());
        let cut = async {
            let _ = state.wait_for(|state| !matches!(state, State::Up(_))).await;
        };
        let of = |line: &Line| (line.connection.clone(), line.heard.clone());
        let (events, calls) = (of(&session.events), of(&session.calls));
        let trouble = tokio::select! {
            trouble = self.listen(events, calls, session.newest) => trouble,
            () = session.events.ended() => Trouble::lost("the connection was closed"),
            () = session.calls.ended() => Trouble::lost("the connection was closed"),
            () = cut => match &*self.state.borrow() {
                State::Down(down) => return down.trouble.clone(),
                State::Up(_) | State::Starting => Trouble::lost("the connection was given up"),
            },
        };
        trouble.of(&session.server)
    }

    /// Marks the changes that the server reports, and compares the register with what was last seen of it.
    ///
    /// The server only reports events with higher numbers than the last one. If older data or a new register
    /// replaces the register under this connection, numbers go back, and only the comparison notices.
    async fn listen(
        &self,
        (mut events, events_heard): (MultiplexedConnection, Heard),
        (mut calls, calls_heard): (MultiplexedConnection, Heard),
        mut newest: Option<String>,
    ) -> Trouble {
        let soon = || Instant::now() + BUSY;
        let mut compared = Instant::now();
        loop {
            let event = read(&mut events, newest.as_deref(), Some(BLOCK));
            match events_heard.in_time(soon(), BLOCK + ANSWER, event).await {
                Ok(Some(cursor)) => {
                    if let Some(seen) = self.seen.lock().as_mut() {
                        seen.newest.clone_from(&cursor);
                    }
                    newest = Some(cursor);
                    self.changes.send_replace(());
                }
                Ok(None) => {}
                Err(trouble) => return trouble,
            }
            if compared.elapsed() >= BLOCK {
                let comparing = self.compare(&mut calls, newest.as_deref());
                match calls_heard.in_time(soon(), ANSWER, comparing).await {
                    Ok(true) => {}
                    Ok(false) => {
                        let mending = self.mended(&mut calls);
                        match calls_heard.in_time(soon(), ANSWER, mending).await {
                            Ok(mended) => {
                                newest = mended;
                                self.changes.send_replace(());
                            }
                            Err(trouble) => return trouble,
                        }
                    }
                    Err(trouble) => return trouble,
                }
                compared = Instant::now();
            }
        }
    }

    /// Returns true if the event with the cursor `newest` is still part of the register.
    async fn compare(
        &self,
        calls: &mut MultiplexedConnection,
        newest: Option<&str>,
    ) -> Result<bool, Trouble> {
        let Some((number, mark)) = newest.and_then(|newest| newest.split_once('-')) else { return Ok(false) };
        let arguments = ["after", number, mark, "1"].map(str::to_owned);
        let (gap, ..): (bool, String, Vec<String>, Value) = script::run(&READ, &arguments, calls).await?;
        Ok(!gap)
    }
}

/// Both connections to a server.
struct Session {
    server: Server,
    calls: Line,
    events: Line,
    /// The cursor of the newest event, if it is known.
    newest: Option<String>,
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Trouble> {
    Ok(cmd("PING").query_async(connection).await?)
}

/// Returns the cursor of the last event after the cursor `after`, or after now. Returns `None` if there is
/// none and none comes within `block`.
async fn read(
    connection: &mut MultiplexedConnection,
    after: Option<&str>,
    block: Option<Duration>,
) -> Result<Option<String>, Trouble> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(AT_A_TIME);
    if let Some(block) = block {
        command.arg("BLOCK").arg(block.as_millis().to_string());
    }
    let number = after.map_or("$", |cursor| cursor.split('-').next().unwrap_or(cursor));
    command.arg("STREAMS").arg(EVENTS_KEY).arg(number);
    let answer: Value = command.query_async(connection).await?;
    newest_of(&answer).map_err(|_| {
        let cause = format!("{EVENTS_KEY} holds an event that motion-ad did not write");
        Trouble::new(Kind::Lost, cause, FOREIGN)
    })
}

/// Returns the cursor of the last event in a reply to XREAD; `None` if there is no event. The reply has the
/// name and events of each stream, and the id and fields of each event: m (mark), r (record).
///
/// # Errors
/// Returns an error if the last event has no number or no mark: motion-ad did not write it.
pub(crate) fn newest_of(answer: &Value) -> Result<Option<String>, ParsingError> {
    let events = at(answer, 0).and_then(|stream| at(stream, 1)).and_then(Value::as_sequence);
    let Some(event) = events.and_then(<[_]>::last) else { return Ok(None) };
    let text = |value: Option<&Value>| String::from_redis_value_ref(value.unwrap_or(&Value::Nil));
    let (id, mark) = (text(at(event, 0))?, text(at(event, 1).and_then(|fields| at(fields, 1)))?);
    let cursor = format!("{}-{mark}", id.split('-').next().unwrap_or_default());
    match event_cursor(&cursor) {
        Ok(_) => Ok(Some(cursor)),
        Err(_) => Err(ParsingError::from("no cursor")),
    }
}

fn at(value: &Value, place: usize) -> Option<&Value> {
    value.as_sequence()?.get(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to XREAD with this id and these fields of the last event.
    fn reply(id: &str, fields: &[&str]) -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let event = |id: &str, fields: &[&str]| {
            Value::Array(vec![text(id), Value::Array(fields.iter().map(|field| text(field)).collect())])
        };
        let earlier = event("6-0", &["m", "00000000000000ff", "r", "{}"]);
        let stream = vec![text(EVENTS_KEY), Value::Array(vec![earlier, event(id, fields)])];
        Value::Array(vec![Value::Array(stream)])
    }

    #[test]
    fn the_newest_event_of_a_reply_has_a_cursor() {
        let mark = "0123456789abcdef";
        let read = newest_of(&reply("7-0", &["m", mark, "r", "{}"]));
        assert_eq!(read.unwrap().as_deref(), Some("7-0123456789abcdef"));
        for none in [Value::Nil, Value::Array(vec![])] {
            assert_eq!(newest_of(&none).unwrap(), None);
        }
        let foreign: [(&str, &[&str]); 6] = [
            ("7-0", &[]),
            ("7-0", &["m"]),
            ("7-0", &["m", "x"]),
            ("7-0", &["m", "0123456789abcdef-0"]),
            ("", &["m", mark]),
            ("x-0", &["m", mark]),
        ];
        for (id, fields) in foreign {
            assert!(newest_of(&reply(id, fields)).is_err(), "{id} {fields:?}");
        }
    }
}
