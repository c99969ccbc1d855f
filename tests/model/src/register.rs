//! The register as the scripts in `src/sessions/redis` change it: one function for each script.
//!
//! All sessions are those of one user, because users do not affect each other. An id is a small number.

use super::rule::{Admission, Decision};

/// Id of a session.
pub type Id = usize;

/// Reason for the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// This session took its place.
    Replaced(Id),
    /// An administrator ended it.
    Kicked,
    /// The application closed it.
    Closed,
    /// Its process is gone.
    ProcessGone,
    /// It is older than `sessions.max_age`.
    TooOld,
    /// Its application never learned of it.
    Unconfirmed,
}

impl End {
    /// Returns true if the application must be told, as `EndReason::is_eviction` does.
    pub fn is_eviction(self) -> bool {
        matches!(self, End::Replaced(_) | End::Kicked | End::TooOld)
    }
}

/// State of a session in the register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Known {
    /// Nothing.
    #[default]
    Never,
    /// It is open since the event with this number.
    Open(u8),
    /// It has ended.
    Ended(End),
}

/// Position in the events: a number, and the mark of the change that made it.
///
/// A real mark is random. Here it is the number of the history, and differs between two histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Number of the event.
    pub number: u8,
    /// Its mark.
    pub mark: u8,
}

/// Stored position of a server in the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bookmark {
    /// Nothing, or it was lost with the register.
    #[default]
    Absent,
    /// The server has no command (`NO_COMMAND`): events until now are not for the next one.
    NoCommand,
    /// The commands for all events up to here have ended.
    At(Cursor),
}

/// Position from which events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// From the oldest event that is kept.
    Oldest,
    /// After this event.
    After(Cursor),
}

/// An event: a session began, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Its mark.
    pub mark: u8,
    /// The session.
    pub id: Id,
    /// The end; `None` for the beginning.
    pub end: Option<End>,
}

/// The register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// The cursor before the first event that this register had.
    pub birth: Cursor,
    /// The events that are kept, one more than is shown.
    pub events: Vec<Event>,
    /// Number of the first of these.
    pub first: u8,
    /// Each session by its id.
    pub known: Vec<Known>,
    /// The bookmark of each server.
    pub bookmarks: [Bookmark; 2],
}

/// Outcome of `open.lua`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// Registered; these ended for it.
    Registered(Vec<Id>),
    /// Denied, because these are open.
    Denied(Vec<Id>),
}

/// Outcome of `close.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// It ended now.
    Now,
    /// It had ended already.
    Earlier,
    /// It is unknown.
    Unknown,
}

/// Answer of `events.lua`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// True if events after the given cursor are no longer kept.
    pub gap: bool,
    /// The events with their cursors.
    pub list: Vec<(Cursor, Event)>,
    /// The cursor to go on at.
    pub cursor: Cursor,
}

impl Register {
    /// Creates the register of a new history, for sessions with ids below `sessions`.
    pub fn new(mark: u8, sessions: usize) -> Self {
        Register {
            birth: Cursor { number: 0, mark },
            events: Vec::new(),
            first: 1,
            known: vec![Known::Never; sessions],
            bookmarks: [Bookmark::Absent; 2],
        }
    }

    /// Returns the open sessions in the order in which they were registered.
    pub fn open_now(&self) -> Vec<Id> {
        let number = |id: &Id| match self.known.get(*id) {
            Some(Known::Open(number)) => Some(*number),
            _ => None,
        };
        let mut open: Vec<Id> = (0..self.known.len()).filter(|id| number(id).is_some()).collect();
        open.sort_by_key(number);
        open
    }

    /// Returns the state of a session.
    pub fn known(&self, id: Id) -> Known {
        self.known.get(id).copied().unwrap_or_default()
    }

    fn set(&mut self, id: Id, known: Known) {
        if let Some(place) = self.known.get_mut(id) {
            *place = known;
        }
    }

    /// Returns the cursor of the newest event: `newest` in `common.lua`.
    pub fn newest(&self) -> Cursor {
        match self.events.last() {
            Some(event) => Cursor { number: self.first + self.kept() - 1, mark: event.mark },
            None => self.birth,
        }
    }

    /// Returns true if this register made the cursor, as far as it can tell: `is_known` in `common.lua`.
    pub fn is_known(&self, cursor: Cursor) -> bool {
        let event = cursor.number.checked_sub(self.first).and_then(|at| self.events.get(usize::from(at)));
        event.map_or(self.birth == cursor, |event| event.mark == cursor.mark)
    }

    /// Returns the number before the oldest event that is shown: `before_oldest` in `common.lua`.
    pub fn before_oldest(&self, keep: u8) -> u8 {
        self.newest().number - self.kept().min(keep)
    }

    fn kept(&self) -> u8 {
        u8::try_from(self.events.len()).unwrap_or(u8::MAX)
    }

    /// Adds an event and removes the oldest beyond `keep` and one: `tell` in `common.lua`.
    fn tell(&mut self, event: Event, keep: u8) -> u8 {
        if self.events.is_empty() {
            self.first = self.birth.number + 1;
        }
        self.events.push(event);
        if self.kept() > keep + 1 {
            self.events.remove(0);
            self.first += 1;
        }
        self.newest().number
    }

    fn finish(&mut self, id: Id, end: End, mark: u8, keep: u8) {
        self.tell(Event { mark, id, end: Some(end) }, keep);
        self.set(id, Known::Ended(end));
    }

    /// `open.lua`, with the rule of `src/sessions/rule.rs`.
    pub fn open(&mut self, id: Id, admission: Admission, mark: u8, keep: u8) -> Opened {
        match self.known(id) {
            Known::Never => {}
            Known::Open(_) => return Opened::Registered(self.evicted_by(id)),
            Known::Ended(_) => return Opened::Registered(Vec::new()),
        }
        let mut open = self.open_now();
        let evict = match admission.decide(open.len()) {
            Decision::Enter { evict } => evict,
            Decision::Denied => return Opened::Denied(open),
        };
        open.truncate(evict);
        for old in &open {
            self.finish(*old, End::Replaced(id), mark, keep);
        }
        self.enter(id, mark, keep);
        Opened::Registered(open)
    }

    /// Registers a session without a decision.
    pub fn enter(&mut self, id: Id, mark: u8, keep: u8) {
        let number = self.tell(Event { mark, id, end: None }, keep);
        self.set(id, Known::Open(number));
    }

    /// Returns the sessions that ended for the open session `id`: `evicted_by` in `common.lua`.
    pub fn evicted_by(&self, id: Id) -> Vec<Id> {
        let Known::Open(number) = self.known(id) else { return Vec::new() };
        let before = self.events.iter().take(usize::from(number.saturating_sub(self.first))).rev();
        let mut gone: Vec<Id> =
            before.take_while(|event| event.end == Some(End::Replaced(id))).map(|event| event.id).collect();
        gone.reverse();
        gone
    }

    /// `close.lua`.
    pub fn close(&mut self, id: Id, end: End, mark: u8, keep: u8) -> Closed {
        match self.known(id) {
            Known::Never => Closed::Unknown,
            Known::Ended(_) => Closed::Earlier,
            Known::Open(_) => {
                self.finish(id, end, mark, keep);
                Closed::Now
            }
        }
    }

    /// `undo.lua`: the session is not open afterwards, and no call that is on its way can open it.
    pub fn undo(&mut self, id: Id, mark: u8, keep: u8) -> (Closed, Vec<Id>) {
        let gone = self.evicted_by(id);
        match self.known(id) {
            Known::Ended(_) => (Closed::Earlier, Vec::new()),
            Known::Open(_) | Known::Never => {
                self.finish(id, End::Unconfirmed, mark, keep);
                (Closed::Now, gone)
            }
        }
    }

    /// `events.lua`.
    pub fn events(&self, position: Position, keep: u8) -> Events {
        let before = self.before_oldest(keep);
        let (gap, after) = match position {
            Position::Oldest => (false, before),
            Position::After(cursor) if cursor.number < before || !self.is_known(cursor) => (true, before),
            Position::After(cursor) => (false, cursor.number),
        };
        let numbered = self.events.iter().zip(self.first..);
        let list: Vec<_> = numbered
            .filter(|(_, number)| *number > after)
            .map(|(event, number)| (Cursor { number, mark: event.mark }, *event))
            .collect();
        let cursor = list.last().map_or(self.newest(), |(cursor, _)| *cursor);
        Events { gap, list, cursor }
    }

    /// The part of `begin.lua` that compares: returns true if the event that a broker saw last was lost.
    pub fn has_lost(&self, seen: Cursor, keep: u8) -> bool {
        seen.number >= self.before_oldest(keep) && !self.is_known(seen)
    }
}
