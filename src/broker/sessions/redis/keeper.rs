//! Keeps the connections to a Redis: makes them, sees them fail, makes them again.
//!
//! There are two that live and die together: one for every call, and one that waits for events. The second one hears
//! from the server every [`BLOCK`], so that a dead one is noticed without a login. While there are none every call is
//! answered at once with the cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::change::{Change, Loss, Tell};
use super::connection::{Access, Connector, Line, in_time};
use super::script::{self, BEGIN, EVENTS_KEY};
use super::trouble::{Kind, Trouble};
use crate::config::Server;

/// One attempt to connect, the question to the Sentinels and two handshakes included.
const CONNECT: Duration = Duration::from_secs(3);
/// One answer of the server. One connection is answered in order, so that a later one would not come sooner.
pub(super) const ANSWER: Duration = Duration::from_millis(1500);
/// How long the server waits for an event before it says that there is none.
const BLOCK: Duration = Duration::from_secs(2);
/// Events that are taken from the server at a time; they only say that there are some.
const AT_A_TIME: usize = 100;
/// The first attempt to connect again comes so long after the last one; each further one after twice the time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that lived so long was no mistake: after it the pauses begin anew.
const STEADY: Duration = Duration::from_secs(1);
/// Where an attempt fails so soon, the next call may as well wait for one.
const QUICK: Duration = Duration::from_millis(100);

/// The connection for calls.
#[derive(Clone)]
pub(super) struct Link {
    number: u64,
    pub(super) server: Server,
    pub(super) connection: MultiplexedConnection,
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
    /// When an attempt to connect has failed; `None` until the first one has.
    tried: Option<Instant>,
    /// Whether the next attempt is going to end soon, however it ends.
    quick: bool,
}

/// Keeps the connections.
pub(super) struct Keeper {
    connector: Arc<Connector>,
    state: watch::Sender<State>,
    /// Somebody waits for the next attempt.
    wanted: Notify,
    changes: watch::Sender<()>,
    /// The register as it was last: where it begins, and the number of its newest event.
    seen: Mutex<Option<(String, u64)>>,
    tell: Tell,
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

    /// Marked when there may be events.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The connection for calls. Where there is none it is waited for only if an attempt is about to end.
    ///
    /// # Errors
    /// Why there is none.
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

    /// `link` is of no more use.
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

    /// Connects, and connects again, for ever.
    pub(super) async fn keep(&self) {
        let mut pause = FIRST_PAUSE;
        // Since when there has been no connection, once that was said.
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

    /// Says once that there is no connection.
    fn say_down(&self, down: &mut Option<Instant>, trouble: &Trouble) {
        if down.is_none() {
            *down = Some(Instant::now());
            (self.tell)(&Change::Down(trouble.cause.clone(), trouble.advice));
        }
    }

    /// Both connections, to the server that is the one to ask.
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
        // Who is not let in is told so here; of a longer question the server would only close the connection.
        ping(&mut calls.connection).await?;
        let newest = match self.mend(&mut calls.connection).await {
            Ok(newest) => newest,
            // It can still be read; and who wants to write is told.
            Err(trouble) if trouble.kind == Kind::Refused => "$".to_owned(),
            Err(trouble) => return Err(trouble),
        };
        let mut events = self.connector.connect(server, access, until).await?;
        read(&mut events.connection, &newest, None).await?;
        Ok(Session { server: server.clone(), calls, events, newest })
    }

    /// Sees to it that there is a register, and that it is whole; the number of its newest event.
    pub(super) async fn mend(&self, connection: &mut MultiplexedConnection) -> Result<String, Trouble> {
        let (emptied, newest, birth): (bool, String, String) = script::run(&BEGIN, &[], connection).await?;
        let now = number(&newest);
        let loss = match self.seen().replace((birth.clone(), now)) {
            _ if emptied => Some(Loss::Keys),
            Some((before, _)) if before != birth => Some(Loss::All),
            Some((_, before)) if before > now => Some(Loss::Newest),
            _ => None,
        };
        if let Some(loss) = loss {
            (self.tell)(&Change::Lost(loss));
            self.changes.send_replace(());
        }
        Ok(newest)
    }

    fn seen(&self) -> MutexGuard<'_, Option<(String, u64)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets calls use `session` until it is of no more use; why.
    async fn serve(&self, mut session: Session, number: u64) -> Trouble {
        let (server, connection) = (session.server.clone(), session.calls.connection.clone());
        let mut state = self.state.subscribe();
        self.state.send_replace(State::Up(Link { number, server, connection }));
        // Events may have been missed meanwhile.
        self.changes.send_replace(());
        let cut = async {
            let _ = state.wait_for(|state| !matches!(state, State::Up(_))).await;
        };
        let (events, calls) = (session.events.connection.clone(), session.calls.connection.clone());
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

    /// Marks the changes that the server tells of, and asks for signs of life.
    async fn listen(
        &self,
        mut events: MultiplexedConnection,
        mut calls: MultiplexedConnection,
        mut newest: String,
    ) -> Trouble {
        let mut alive = Instant::now();
        loop {
            match in_time(Instant::now() + BLOCK + ANSWER, read(&mut events, &newest, Some(BLOCK))).await {
                Ok(Some(id)) => {
                    if let Some((_, seen)) = self.seen().as_mut() {
                        *seen = number(&id);
                    }
                    newest = id;
                    self.changes.send_replace(());
                }
                Ok(None) => {}
                Err(trouble) => return trouble,
            }
            if alive.elapsed() >= BLOCK {
                if let Err(trouble) = in_time(Instant::now() + ANSWER, ping(&mut calls)).await {
                    return trouble;
                }
                alive = Instant::now();
            }
        }
    }
}

/// Both connections to a server.
struct Session {
    server: Server,
    calls: Line,
    events: Line,
    /// The number of the newest event.
    newest: String,
}

/// The number of the event whose id in the stream is `id`.
fn number(id: &str) -> u64 {
    id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Trouble> {
    Ok(cmd("PING").query_async(connection).await?)
}

/// The number of the last event of those after the one with the number `after`; `None` where there is none, nor
/// has come for the time `block`.
async fn read(
    connection: &mut MultiplexedConnection,
    after: &str,
    block: Option<Duration>,
) -> Result<Option<String>, Trouble> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(AT_A_TIME);
    if let Some(block) = block {
        command.arg("BLOCK").arg(block.as_millis().to_string());
    }
    command.arg("STREAMS").arg(EVENTS_KEY).arg(after);
    // Of each stream its name and its events, of each event its id and its fields.
    let answer: Value = command.query_async(connection).await?;
    let last = |value: &Value, place: usize| Some(value.as_sequence()?.get(place)?.clone());
    let id = last(&answer, 0)
        .and_then(|stream| last(&stream, 1))
        .and_then(|events| events.as_sequence()?.last().cloned())
        .and_then(|event| last(&event, 0));
    Ok(id.map(redis::from_redis_value).transpose().map_err(redis::RedisError::from)?)
}
