//! The store that keeps the sessions, and the promises of every kind of store.
//!
//! Several servers may share a store. Each change is one atomic step for all of them and includes its event:
//! no reader sees one without the other. Sessions and events are in the order in which the store took the
//! changes. Clocks decide nothing, except where a time that is passed in says so.
//!
//! Every call replies by its deadline, never much later, and blocks no thread of the runtime. A future may be
//! dropped, but the store may still make the change.

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod suite;

use tokio::sync::watch;
use tokio::time::Instant;

use super::rule::Admission;
use crate::net::BoxFuture;
use crate::protocol::report::{Ended, Events, Session};

/// Maximum number of events that a store keeps; the oldest are removed first.
pub const EVENTS: u64 = 10_000;
/// Time for which a session that ended can still be queried, in milliseconds.
pub const ENDED: u64 = 86_400_000;

/// The future result of a call of a [`Store`].
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Reason why a call of a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The deadline passed while the store waited for this. The change may have been made, or may still be
    /// made: a caller that must know calls again or undoes it.
    #[error("the register of sessions did not answer in time: {0}")]
    Timeout(String),
    /// The store cannot be read or written now, and nothing was changed; the cause names the file or server.
    #[error("the register of sessions cannot be used: {0}")]
    Unavailable(String),
    /// The cursor is not one of this kind of store. A cursor that is too old is valid: see [`Events::gap`].
    #[error("{0:?} is no cursor of this register")]
    Cursor(String),
}

/// Outcome of registering a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Registered, now or by an earlier call with the same id. The list holds the sessions that ended for it,
    /// the oldest first, as they are after their end. It is empty if the registered session has ended in the
    /// meantime.
    Registered(Vec<Session>),
    /// Not registered, now or later, because these sessions are open.
    Denied(Vec<Session>),
}

/// Outcome of ending a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This call ended the session, which is now as given.
    Now(Session),
    /// The session had ended already and is unchanged.
    Earlier(Session),
    /// The session is unknown: it never existed, or it ended longer ago than [`ENDED`].
    Unknown,
}

/// Outcome of undoing a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The end of the session; never [`Closed::Unknown`].
    pub closed: Closed,
    /// The sessions that had ended for it, if it was open until now.
    pub evicted: Vec<Session>,
}

/// Selection of open sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All open sessions.
    All,
    /// The sessions of one account, by [`Session::guid`].
    Guid(String),
    /// The sessions with this [`Session::principal`].
    Principal(String),
    /// The sessions of one machine, by [`Session::machine`].
    Machine(String),
}

/// A part of a list of open sessions, in the order in which they were registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The sessions, each with the cursor after which the list continues.
    pub list: Vec<Listed>,
    /// True if there are more sessions after the last one.
    pub more: bool,
}

/// An open session, and the cursor after which the list continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The cursor, which stays valid when the session ends.
    pub cursor: String,
    /// The session.
    pub session: Session,
}

/// Position in the events from which they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// After the newest event: the reply is empty, and its cursor is this position.
    Now,
    /// From the oldest event that is kept.
    Oldest,
    /// After the event with this cursor.
    After(String),
}

/// A register of sessions.
pub trait Store: Send + Sync + 'static {
    /// Returns its kind and place for administrators, without a password:
    /// `sqlite /var/lib/motion-ad/sessions.db`.
    fn name(&self) -> String;

    /// Returns true if other servers may use the store, too.
    fn is_shared(&self) -> bool;

    /// Registers the open session `session` if `admission` permits it for the number of open sessions with
    /// the same [`Session::guid`]; see [`Admission::decide`].
    ///
    /// This is one atomic step. First, the oldest of those sessions end with [`EndReason::Replaced`],
    /// `session.since` as their time and `session.id` as detail. Each end gives an event, in the order in
    /// which the sessions were registered. Then `session` is registered, which gives an event. If it is
    /// denied, nothing changes and there is no event, except that the store may undo the session as by
    /// [`Store::undo`], so that no lost call opens it later. A session whose id is known, open or ended,
    /// changes nothing and counts as registered.
    ///
    /// The store may remove events beyond [`EVENTS`], and sessions that ended more than [`ENDED`] before
    /// `session.since`.
    ///
    /// # Errors
    /// Returns [`StoreError::Timeout`] if the session may be registered, now or later, and
    /// [`StoreError::Unavailable`] if it is not.
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
    /// The store may remove events beyond [`EVENTS`], and other sessions that ended more than [`ENDED`]
    /// before `ended.at`.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::open`].
    fn close<'a>(&'a self, id: &'a str, ended: &'a Ended, deadline: Instant) -> Answer<'a, Closed>;

    /// Ensures that `session` is not open and stays so, although a call that opens it may still be on its
    /// way. A known session ends as by [`Store::close`]; an unknown one is stored as ended, which gives one
    /// event too.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::open`].
    fn undo<'a>(&'a self, session: &'a Session, ended: &'a Ended, deadline: Instant) -> Answer<'a, Undone>;

    /// Returns the session `id`, open or ended.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    fn get<'a>(&'a self, id: &'a str, deadline: Instant) -> Answer<'a, Option<Session>>;

    /// Returns at most `limit` (at least 1) open sessions after the cursor `after`. Sessions that are opened
    /// while a client reads page by page come last; sessions that stay open are neither omitted nor listed
    /// twice.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    fn list<'a>(
        &'a self,
        which: &'a Which,
        after: Option<&'a str>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<'a, Page>;

    /// Returns the number of open sessions.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    fn count(&self, deadline: Instant) -> Answer<'_, u64>;

    /// Returns at most `limit` (at least 1) events from `position` on, in order. Does not wait: the list is
    /// empty if there are none. [`Events::cursor`] is that of the last event in the list, else the one that
    /// was passed in, else the end of the kept events. [`Events::gap`] says that events after the given
    /// cursor are no longer kept; the list then begins with the oldest event that is. A cursor from before
    /// the store lost its contents is such a gap, too. It is never taken for a present cursor, because
    /// cursors are never used again.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    fn events<'a>(&'a self, position: &'a Position, limit: usize, deadline: Instant) -> Answer<'a, Events>;

    /// Returns a receiver that is marked as changed soon after each event, also one of another server. It is
    /// marked after a time in which events may have been missed, too, and it may be marked without an event.
    fn changes(&self) -> watch::Receiver<()>;

    /// Returns the last cursor that [`Store::bookmark`] kept under this name.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    fn bookmarked<'a>(&'a self, name: &'a str, deadline: Instant) -> Answer<'a, Option<String>>;

    /// Keeps the cursor of a reader of events under its name, for its next start.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    fn bookmark<'a>(&'a self, name: &'a str, cursor: &'a str, deadline: Instant) -> Answer<'a, ()>;
}
