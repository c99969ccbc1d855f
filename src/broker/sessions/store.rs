//! Where sessions are kept: what every kind of store promises.
//!
//! A store may be shared by several servers. Each change is one atomic step for all of them, and so is the event that
//! tells of it: nobody sees one without the other. Events and sessions have an order, the one in which the store took
//! the changes; no clock decides anything but what `now` says it does.
//!
//! Every call is answered by its deadline, never much later, and blocks no thread of the runtime. A future may be
//! dropped; what it asked for may happen all the same.

#[cfg(test)]
pub(super) mod suite;

use tokio::sync::watch;
use tokio::time::Instant;

use super::rule::Admission;
use crate::kerberos::BoxFuture;
use crate::protocol::report::{Ended, Events, Session};

/// A store keeps so many events, the newest.
pub const EVENTS: u64 = 10_000;
/// A session that ended is kept for so many milliseconds, so that it can still be asked for.
pub const ENDED: u64 = 86_400_000;

/// What a call of a [`Store`] is answered with.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Why a store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The deadline passed; what was waited for. A change may have been made, or may still be: who must know asks
    /// again, or undoes it.
    #[error("the register of sessions did not answer in time: {0}")]
    Timeout(String),
    /// It cannot be read or written now, and nothing was changed; the cause, in words that name the file or server.
    #[error("the register of sessions cannot be used: {0}")]
    Unavailable(String),
    /// The cursor is not one of this kind of store. One that is too old is none of these: see [`Events::gap`].
    #[error("{0:?} is no cursor of this register")]
    Cursor(String),
}

/// What became of a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Registered, now or by an earlier call with the same id; these had to go for it, the oldest first, each as it is
    /// after that. An earlier call whose session has ended meanwhile yields none.
    Registered(Vec<Session>),
    /// Not registered: these are in the way.
    Denied(Vec<Session>),
}

/// What became of the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It ended by this call; how it is after that.
    Now(Session),
    /// It had ended already, and stays as it was.
    Earlier(Session),
    /// No such session is known: there never was one, or it ended longer ago than [`ENDED`].
    Unknown,
}

/// What became of a session that must not be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Its end; never [`Closed::Unknown`].
    pub closed: Closed,
    /// The sessions that had gone for it, where it was open until now.
    pub evicted: Vec<Session>,
}

/// Which open sessions are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those of one account, by [`Session::guid`].
    Guid(String),
    /// Those with this [`Session::principal`].
    Principal(String),
    /// Those of one machine, by [`Session::machine`].
    Machine(String),
}

/// A part of a list of open sessions, in the order in which they were registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Each with a cursor, from which the list goes on after it.
    pub list: Vec<Listed>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// An open session, and where a list goes on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Stays good when the session itself ends.
    pub cursor: String,
    /// The session.
    pub session: Session,
}

/// Where events are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// After everything so far: the answer is empty, and its cursor says where that is.
    Now,
    /// From the oldest that is kept.
    Oldest,
    /// After the event with this cursor.
    After(String),
}

/// A register of sessions.
pub trait Store: Send + Sync + 'static {
    /// What it is and where, for people: `sqlite /var/lib/motion-ad/sessions.db`. No password.
    fn name(&self) -> String;

    /// Whether other servers may use it, too.
    fn is_shared(&self) -> bool;

    /// Registers `session`, which is open, as `admission` decides by the number of open sessions with the same
    /// [`Session::guid`]; see [`Admission::decide`].
    ///
    /// In one atomic step: the oldest of those sessions end with [`EndReason::Replaced`], `session.since` as their
    /// time and `session.id` as detail; each of them gives an event, in the order in which they were registered; then
    /// the newcomer is registered, which gives an event. Denied, nothing changes and there is no event. A session
    /// whose id is known already, open or ended, changes nothing either and counts as registered.
    ///
    /// What is beyond [`EVENTS`], and sessions that ended more than [`ENDED`] before `session.since`, may be removed.
    ///
    /// # Errors
    /// [`StoreError::Timeout`]: it may be registered, now or in a moment. [`StoreError::Unavailable`]: it is not.
    ///
    /// [`EndReason::Replaced`]: crate::protocol::report::EndReason::Replaced
    fn open<'a>(
        &'a self,
        session: &'a Session,
        admission: Admission,
        deadline: Instant,
    ) -> Answer<'a, Opened>;

    /// Ends the session `id`, which gives one event if it was open.
    ///
    /// What is beyond [`EVENTS`], and sessions that ended more than [`ENDED`] before `ended.at`, may be removed; not
    /// this one.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn close<'a>(&'a self, id: &'a str, ended: &'a Ended, deadline: Instant) -> Answer<'a, Closed>;

    /// Sees to it that `session` is not open and will not be, although a call that opens it may still be on its way: it
    /// ends as by [`Store::close`]; where it is not known, it is kept as one that has ended, which gives one event too.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn undo<'a>(&'a self, session: &'a Session, ended: &'a Ended, deadline: Instant) -> Answer<'a, Undone>;

    /// The session `id`, open or ended.
    ///
    /// # Errors
    /// The store was not reached.
    fn get<'a>(&'a self, id: &'a str, deadline: Instant) -> Answer<'a, Option<Session>>;

    /// Open sessions, from the first one after the cursor `after` on, at most `limit` (at least 1). What is opened
    /// while somebody turns pages comes last; what stays open is neither left out nor listed twice.
    ///
    /// # Errors
    /// The store was not reached, or the cursor is malformed.
    fn list<'a>(
        &'a self,
        which: &'a Which,
        after: Option<&'a str>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<'a, Page>;

    /// How many sessions are open.
    ///
    /// # Errors
    /// The store was not reached.
    fn count(&self, deadline: Instant) -> Answer<'_, u64>;

    /// Events from `position` on, at most `limit` (at least 1), in order; none where nothing happened since: it does
    /// not wait. [`Events::cursor`] is that of the last one in the list, else what was asked for, else the end of
    /// what is kept. [`Events::gap`] says that events after the cursor that was asked for are no longer kept; then
    /// the list begins with the oldest that is. A cursor of an earlier life of the store, which has lost what it
    /// held, is such a gap, too; it must not be taken for one of the present life: cursors never come again.
    ///
    /// # Errors
    /// The store was not reached, or the cursor is malformed.
    fn events<'a>(&'a self, position: &'a Position, limit: usize, deadline: Instant) -> Answer<'a, Events>;

    /// Is marked as changed soon after each event, also after another server's, and after a time in which events may
    /// have been missed. It may be marked without an event.
    fn changes(&self) -> watch::Receiver<()>;

    /// The cursor that [`Store::bookmark`] kept last under this name.
    ///
    /// # Errors
    /// The store was not reached.
    fn bookmarked<'a>(&'a self, name: &'a str, deadline: Instant) -> Answer<'a, Option<String>>;

    /// Keeps the cursor of a reader of events under its name, for its next start.
    ///
    /// # Errors
    /// The store was not reached.
    fn bookmark<'a>(&'a self, name: &'a str, cursor: &'a str, deadline: Instant) -> Answer<'a, ()>;
}
