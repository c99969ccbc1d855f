//! The state of the model, and the bounds within which it is explored.

use std::num::NonZeroUsize;

use crate::register::{Bookmark, Cursor, End, Id, Position, Register};
use crate::rule::Admission;
use crate::wrong::Wrong;

/// Number of a server: 0 or 1.
pub type Server = usize;
/// Number of a copy of the register: 0 is the first master, 1 its replica.
pub type Copy = usize;

/// Change of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// There is one copy.
    None,
    /// The master dies, and the replica takes its place with the changes that it has got.
    Crash,
    /// The master is cut off with the second server, and the replica takes its place. With
    /// `min-replicas-to-write` the old master rejects changes before that.
    Isolation {
        /// True if `min-replicas-to-write` is set.
        min_replicas: bool,
    },
}

/// Maximum number of each fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A broker is killed. It is started again.
    pub kills: u8,
    /// A call or its answer is lost, or comes too late for the broker.
    pub lost_calls: u8,
    /// An application goes away before it has the answer of its login.
    pub departures: u8,
    /// The register loses all that it holds, with or without the bookmarks.
    pub wipes: u8,
}

/// A scenario: who logs in where, and what may go wrong.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name in the output.
    pub name: &'static str,
    /// The server of each login of the user. A login is made once, at any time.
    pub logins: Vec<Server>,
    /// `sessions.policy` and `sessions.limit`.
    pub admission: Admission,
    /// True if `sessions.on_store_failure` is `allow`.
    pub allow: bool,
    /// Number of events that the register keeps.
    pub keep: u8,
    /// Number of sessions that an administrator may evict.
    pub kicks: u8,
    /// True if users may log out.
    pub logouts: bool,
    /// True if the process of a session may end.
    pub deaths: bool,
    /// The bookmark of both servers at the beginning.
    pub bookmark: Bookmark,
    /// Number of servers with `sessions.on_evict`: each one has a position in the events.
    pub followers: usize,
    /// True if the model follows which events a broker has seen. That alone has many states.
    pub listens: bool,
    /// The faults.
    pub faults: Faults,
    /// The change of the master.
    pub failover: Failover,
    /// The part of the code that is wrong, to show that the model notices.
    pub wrong: Option<Wrong>,
}

impl Scenario {
    /// Creates a scenario without faults, in which the newest session replaces the older ones.
    pub fn new(name: &'static str, logins: &[Server]) -> Self {
        Scenario {
            name,
            logins: logins.to_vec(),
            admission: Admission::Replace(NonZeroUsize::MIN),
            allow: false,
            keep: 100,
            kicks: 0,
            logouts: false,
            deaths: false,
            followers: 2,
            listens: false,
            bookmark: Bookmark::At(Cursor::default()),
            faults: Faults::default(),
            failover: Failover::None,
            wrong: None,
        }
    }

    /// Returns true if the model has this mistake.
    pub fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    /// Returns the limit of open sessions, if there is one.
    pub fn limit(&self) -> Option<usize> {
        match self.admission {
            Admission::Unlimited => None,
            Admission::Replace(limit) | Admission::Deny(limit) => Some(limit.get()),
        }
    }

    /// Returns the server of a login.
    pub fn home(&self, id: Id) -> Server {
        self.logins.get(id).copied().unwrap_or_default()
    }

    /// Returns the logins of a server.
    pub fn logins_at(&self, server: Server) -> impl Iterator<Item = Id> + '_ {
        (0..self.logins.len()).filter(move |id| self.home(*id) == server)
    }
}

/// State of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Login {
    /// The user has not come yet.
    Ahead,
    /// The call that opens the session is on its way to this copy, as this attempt.
    Calling(Copy, u8),
    /// Only [`Wrong::CountsFirst`]: the register has decided that so many sessions end.
    Decided(Copy, u8, usize),
    /// The register has carried the call out, and its answer is on its way: true if it was registered.
    Answering(Copy, u8, bool),
    /// The first attempt is lost, and the second one needs a connection.
    Again,
    /// The register has registered the session; the broker has not replied yet.
    Replying,
    /// The application has the session.
    Held,
    /// The application was granted access without a session.
    Unregistered,
    /// The login was rejected, or its application is gone.
    Rejected,
    /// The application has closed its session.
    Left,
}

/// An end that the register has not taken yet: `Due` in `src/sessions/owed.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Due {
    /// It must not be open, nor may a call that is on its way open it.
    Undo,
    /// It ends.
    End(End),
}

/// Progress of `evict::prepare`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prepared {
    /// Nothing.
    #[default]
    No,
    /// The bookmark says that there was no command.
    Missing,
    /// And this is the newest event.
    Located(Cursor),
    /// An eviction from now on comes after the bookmark, which is here.
    Yes(Position),
}

impl Prepared {
    /// Returns true if sessions may be opened and evicted.
    pub fn is_done(self) -> bool {
        matches!(self, Prepared::Yes(_))
    }
}

/// A broker. Being killed makes it a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broker {
    /// True if it runs.
    pub up: bool,
    /// The copy of the register that it is connected to.
    pub link: Option<Copy>,
    /// The newest event that it has seen (`Keeper::seen`).
    pub seen: Option<Cursor>,
    /// Its bookmark.
    pub prepared: Prepared,
    /// The position of `on_evict` in the events.
    pub position: Option<Position>,
    /// The bookmark as it was last written or read.
    pub marked: Option<Cursor>,
    /// True if there was a gap, so that the bookmark is written at once.
    pub at_once: bool,
    /// True if commands were started that the bookmark has not passed.
    pub met: bool,
    /// The evictions whose commands were started.
    pub told: Vec<Id>,
    /// The evictions whose commands run, each with the cursor before it, if there is one.
    pub begun: Vec<(Id, Option<Cursor>)>,
    /// The ends that the register has not taken.
    pub owed: Vec<(Id, Due)>,
}

/// State of a master that may be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The master has its replica.
    No,
    /// It has lost its replica, and does not know yet.
    Fresh,
    /// It rejects changes, if `min-replicas-to-write` is set.
    Noticed,
    /// The replica has taken its place.
    Promoted,
}

/// Past of one session. It is for the promises alone: no step depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The register has registered it at some time.
    pub registered: bool,
    /// Its command has ended: the application knows of the eviction.
    pub told: bool,
    /// The log has reported a gap in the events after it was evicted.
    pub gap: bool,
    /// Its registration was lost with a copy of the register.
    pub lost: bool,
    /// Its end was lost with a copy of the register.
    pub reopened: bool,
    /// The broker was killed while it was responsible for the session.
    pub orphaned: bool,
    /// The broker was killed after a master had died with the first bookmark of its server.
    pub unmarked: bool,
    /// Its process has ended.
    pub dead: bool,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The copies of the register. As long as the replica has every change of the master, there is one.
    pub copies: [Option<Register>; 2],
    /// The copy that is the master.
    pub master: Copy,
    /// Number of the present history; the next one has a higher number.
    pub history: u8,
    /// State of the first master.
    pub cut: Cut,
    /// The brokers.
    pub brokers: [Broker; 2],
    /// The logins.
    pub logins: Vec<Login>,
    /// Calls of login `.0` on their way to copy `.1`, for which no broker waits.
    pub late: Vec<(Id, Copy)>,
    /// Each session's past.
    pub past: Vec<History>,
    /// True for each server whose broker has seen an event that was lost, and has not reported it.
    pub unreported: [bool; 2],
    /// True if a master has accepted a change after another copy had taken its place.
    pub split: bool,
    /// The faults that may still happen.
    pub faults: Faults,
    /// The number of sessions that may still be evicted.
    pub kicks: u8,
}

impl World {
    /// Returns the beginning of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let count = scenario.logins.len();
        let mut register = Register::new(0, count);
        let mut broker = Broker { up: true, ..Broker::default() };
        register.bookmarks = [scenario.bookmark; 2];
        if let Bookmark::At(start) = scenario.bookmark {
            (broker.link, broker.prepared) = (Some(0), Prepared::Yes(Position::After(start)));
            (broker.position, broker.marked) = (Some(Position::After(start)), Some(start));
            broker.seen = Some(start).filter(|_| scenario.listens);
        }
        World {
            copies: [Some(register), None],
            master: 0,
            history: 0,
            cut: Cut::No,
            brokers: [broker.clone(), broker],
            logins: vec![Login::Ahead; count],
            late: Vec::new(),
            past: vec![History::default(); count],
            unreported: [false; 2],
            split: false,
            faults: scenario.faults,
            kicks: scenario.kicks,
        }
    }
}
