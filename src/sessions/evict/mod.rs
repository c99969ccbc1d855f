//! Runs `sessions.on_evict` for the evictions of this server's sessions.
//!
//! It follows the events, not the calls that caused them. So it also runs the command for an eviction by
//! another server of a shared store, or one while this broker was away; the server of the session runs it.
//! Each command runs at least once: the store keeps the position up to which all commands have ended, and
//! after a kill the broker starts again there. A running broker runs no command twice, even if the store has
//! lost its contents and events are repeated.

mod command;
mod orphans;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::orphans::Orphans;
use super::store::{EVENTS, Position, StoreError};
use super::{CALL, Register, now};
use crate::config;
use crate::log::{Level, Line};
use crate::protocol::report::{Event, Session};
use crate::supervise;

/// Maximum number of events that are read at a time.
const PAGE: usize = 200;
/// Maximum number of commands that run at the same time.
const AT_ONCE: usize = 16;
/// Maximum number of commands that start while an earlier one still runs: after a kill, the broker runs at
/// most these again.
const AHEAD: usize = 100;
/// Maximum duration of a command, which is then killed with all its processes.
const TIME: Duration = Duration::from_secs(10);
/// Age from which an eviction no longer gets a command.
const AGE: Duration = Duration::from_secs(3600);
/// Number of events after which the bookmark moves even if none of them was an eviction of this server.
const UNMARKED: usize = 1000;
/// Pause after the store could not be reached.
const RETRY: Duration = Duration::from_secs(5);
/// Interval between two checks of the processes that commands have left behind.
const LOOK: Duration = Duration::from_secs(1);
/// The bookmark of a server without a command: events before a command is set do not count for it.
const NO_COMMAND: &str = "";

/// Writes the bookmark of a command that was not set before, once per broker. Every end of a session that
/// this broker decides waits for it: an eviction in the first moments after a start, by the sweep or by a
/// login, comes after the bookmark.
///
/// # Errors
/// Returns the store's error; the next call tries again.
pub(super) async fn prepare(register: &Register, deadline: Instant) -> Result<(), StoreError> {
    match register.settings.on_evict {
        Some(_) => prepared(register, deadline).await.map(drop),
        None => Ok(()),
    }
}

/// Returns the position of the bookmark as this broker found it, or as it wrote it.
async fn prepared(register: &Register, deadline: Instant) -> Result<&Position, StoreError> {
    let write = async || match found(register, deadline).await? {
        Some(position) => Ok(position),
        None => Ok(Position::After(start(register, deadline).await?)),
    };
    register.prepared.get_or_try_init(write).await
}

/// Name of this server's bookmark in the store.
fn bookmark_name(register: &Register) -> String {
    match register.store.is_shared() {
        true => format!("on_evict {}/{}", register.identity.server.machine, register.identity.server.name),
        false => "on_evict".to_owned(),
    }
}

/// Returns the position of the bookmark; `None` if there was no command.
///
/// Without a bookmark, the position is the oldest event: the server has no events yet, or the bookmark was
/// lost with the newest changes of the register, and evictions of sessions opened since must not be missed.
async fn found(register: &Register, deadline: Instant) -> Result<Option<Position>, StoreError> {
    let name = bookmark_name(register);
    Ok(match register.read(register.store.bookmarked(&name, deadline).await)? {
        None => Some(Position::Oldest),
        Some(cursor) if cursor != NO_COMMAND => Some(Position::After(cursor)),
        Some(_) => None,
    })
}

/// Writes the bookmark.
async fn write(register: &Register, cursor: &str, deadline: Instant) -> Result<(), StoreError> {
    register.written(register.store.bookmark(&bookmark_name(register), cursor, deadline).await)
}

/// Writes a bookmark after all events so far, because a command is not meant for those before it was set, and
/// returns its cursor.
async fn start(register: &Register, deadline: Instant) -> Result<String, StoreError> {
    let now = register.read(register.store.events(&Position::Now, 1, deadline).await)?.cursor;
    write(register, &now, deadline).await?;
    Ok(now)
}

/// Follows the events until the broker ends.
pub(super) async fn keep(register: Arc<Register>) -> supervise::Ended {
    let Some(command) = register.settings.on_evict.clone() else {
        while forget(&register).await.is_err() {
            sleep(RETRY).await;
        }
        return Ok(());
    };
    Orphans::adopt();
    let mut reader = Reader::new(command);
    let mut changes = register.store.changes();
    loop {
        changes.mark_unchanged();
        let pause = match reader.follow(&register).await {
            Ok(()) => None,
            Err(_) => Some(RETRY),
        };
        tokio::select! {
            changed = changes.changed(), if pause.is_none() => if changed.is_err() { return Ok(()) },
            () = sleep(pause.unwrap_or(LOOK)), if pause.is_some() || reader.is_busy() => {}
            Some(ended) = reader.running.join_next() => reader.ended(ended.unwrap_or_default()),
        }
        reader.clean();
    }
}

/// Records that there is no command.
async fn forget(register: &Register) -> Result<(), StoreError> {
    write(register, NO_COMMAND, Instant::now() + CALL).await
}

/// The position in the events, and the commands that were started.
struct Reader {
    command: config::Command,
    /// Maximum duration of a command.
    time: Duration,
    position: Option<Position>,
    /// The running commands; each returns the number of its eviction.
    running: JoinSet<u64>,
    /// For each eviction whose command runs, by its number: the cursor before it, if there is one.
    begun: BTreeMap<u64, Option<String>>,
    /// Number of evictions whose commands were started; reset when the bookmark has passed them all.
    met: u64,
    told: Told,
    /// The processes of the commands.
    processes: Arc<Mutex<BTreeSet<Pid>>>,
    orphans: Orphans,
    /// The bookmark in the store, and the number of events read since it was written.
    marked: (String, usize),
}

impl Reader {
    fn new(command: config::Command) -> Self {
        Reader {
            command,
            time: TIME,
            position: None,
            running: JoinSet::new(),
            begun: BTreeMap::new(),
            met: 0,
            told: Told::default(),
            processes: Arc::default(),
            orphans: Orphans::default(),
            marked: Default::default(),
        }
    }

    /// Starts the command for every new eviction, as soon as there is room for it.
    async fn follow(&mut self, register: &Arc<Register>) -> Result<(), StoreError> {
        loop {
            let position = match &self.position {
                Some(position) => position.clone(),
                None => self.begin(register).await?,
            };
            let deadline = Instant::now() + CALL;
            let events = match register.read(register.store.events(&position, PAGE, deadline).await) {
                // Another kind of store wrote the bookmark.
                Err(StoreError::Cursor(_)) => {
                    self.position = Some(self.start(register).await?);
                    continue;
                }
                events => events?,
            };
            if events.gap {
                let line = Line::new("on_evict")
                    .with("problem", "events were lost, and perhaps evictions among them");
                register.log.write(Level::Error, &line);
            }
            let is_end = events.list.is_empty();
            let mut before = match position {
                Position::After(cursor) => Some(cursor),
                Position::Now | Position::Oldest => None,
            };
            self.marked.1 += events.list.len();
            for Event { cursor, session } in events.list {
                if register.is_ours(&session) && is_due(&session) && self.told.is_new(&session.id) {
                    self.room().await;
                    self.run(register, session, std::mem::take(&mut before));
                }
                before = Some(cursor.clone());
                self.position = Some(Position::After(cursor));
            }
            self.position = Some(Position::After(events.cursor));
            self.mark(register, events.gap).await?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Returns the position of a new process.
    ///
    /// If the bookmark says that there was no command, a master has died and the bookmark with it: this
    /// broker has written one, and evictions since then need the command.
    async fn begin(&mut self, register: &Register) -> Result<Position, StoreError> {
        let deadline = Instant::now() + CALL;
        let prepared = prepared(register, deadline).await?;
        let position = match found(register, deadline).await? {
            Some(position) => position,
            None => {
                if let Position::After(cursor) = prepared {
                    write(register, cursor, deadline).await?;
                }
                prepared.clone()
            }
        };
        self.marked = match &position {
            Position::After(cursor) => (cursor.clone(), 0),
            Position::Now | Position::Oldest => Default::default(),
        };
        Ok(position)
    }

    /// Passes over all events so far.
    async fn start(&mut self, register: &Register) -> Result<Position, StoreError> {
        let now = start(register, Instant::now() + CALL).await?;
        self.marked = (now.clone(), 0);
        Ok(Position::After(now))
    }

    /// Moves the bookmark to the position before the oldest running command, or after all events that were
    /// read.
    async fn mark(&mut self, register: &Register, at_once: bool) -> Result<(), StoreError> {
        let cursor = match (self.begun.values().next(), &self.position) {
            (Some(before), _) => before.clone(),
            (None, Some(Position::After(cursor))) => Some(cursor.clone()),
            (None, _) => None,
        };
        let Some(cursor) = cursor else { return Ok(()) };
        let is_due = at_once || self.met > 0 || self.marked.1 >= UNMARKED;
        if is_due && cursor != self.marked.0 {
            let deadline = Instant::now() + CALL;
            write(register, &cursor, deadline).await?;
            self.marked = (cursor, 0);
            if self.begun.is_empty() {
                self.met = 0;
            }
        }
        Ok(())
    }

    /// Waits until another command may start.
    async fn room(&mut self) {
        let is_ahead = |reader: &Self| {
            let oldest = reader.begun.keys().next().copied().unwrap_or(reader.met);
            reader.met.saturating_sub(oldest) >= AHEAD as u64
        };
        while self.running.len() >= AT_ONCE || is_ahead(self) {
            match self.running.join_next().await {
                Some(ended) => self.ended(ended.unwrap_or_default()),
                None => return,
            }
        }
    }

    fn run(&mut self, register: &Register, session: Session, before: Option<String>) {
        self.met += 1;
        self.begun.insert(self.met, before);
        let (number, time, command) = (self.met, self.time, self.command.clone());
        let (log, processes) = (register.log.clone(), self.processes.clone());
        self.running.spawn(async move {
            if let Err(problem) = command::run(&command, &session, time, &processes).await {
                let line = Line::new("on_evict").with("session", &session.id).with("user", &session.user);
                let line = line.with("command", command.program.display()).with("problem", problem);
                log.write(Level::Error, &line);
            }
            number
        });
    }

    fn ended(&mut self, number: u64) {
        self.begun.remove(&number);
    }

    /// Reaps and kills the processes that commands have left behind.
    fn clean(&mut self) {
        if self.running.is_empty() {
            self.begun.clear();
        }
        let commands = self.processes.lock().clone();
        self.orphans.look(&commands, self.time);
    }

    /// Returns true if commands or their processes need care even without events.
    fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.orphans.is_empty()
    }
}

/// The evictions whose commands were started, as long as events can repeat them.
#[derive(Default)]
struct Told {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Told {
    /// Records the end of a session; returns false if it is known already, because a session ends once.
    fn is_new(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() as u64 > EVENTS {
            self.order.pop_front().map(|oldest| self.ids.remove(&oldest));
        }
        true
    }
}

/// Returns true if an event is an eviction that is recent enough for a command.
fn is_due(session: &Session) -> bool {
    session.ended.as_ref().is_some_and(|ended| {
        ended.reason.is_eviction() && u128::from(now().saturating_sub(ended.at)) < AGE.as_millis()
    })
}

#[cfg(test)]
mod tests {
    use super::super::process::Process;
    use super::super::store::suite::{ONE, soon};
    use super::super::tests::{register, settings};
    use super::command::tests::{NOTE, here, noted, script};
    use super::*;
    use crate::protocol::report::{EndReason, Ended};

    fn reader(command: &config::Command) -> Reader {
        Reader::new(command.clone())
    }

    impl Reader {
        /// Follows the events, and waits for the commands.
        async fn through(&mut self, register: &Arc<Register>) {
            self.follow(register).await.unwrap();
            while let Some(ended) = self.running.join_next().await {
                self.ended(ended.unwrap());
            }
            self.follow(register).await.unwrap();
        }
    }

    async fn open(register: &Register, session: Session) {
        register.store.open(&session, ONE, soon()).await.unwrap();
    }

    async fn close(register: &Register, id: &str, reason: EndReason) {
        let ended = Ended { at: now(), reason, detail: "x y".into() };
        register.store.close(id, &ended, soon()).await.unwrap();
    }

    async fn bookmark(register: &Register) -> Option<String> {
        register.store.bookmarked("on_evict", soon()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_eviction_of_this_server_is_told_once() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let mut first = reader(&command);
        first.through(&register).await;
        open(&register, here("a", "john")).await;
        open(&register, here("b", "john")).await;
        open(&register, here("c", "jane")).await;
        close(&register, "c", EndReason::Closed).await;
        open(&register, here("d", "jane")).await;
        close(&register, "d", EndReason::ProcessGone).await;
        open(&register, here("f", "jim")).await;
        first.through(&register).await;
        assert_eq!(noted(folder.path()), ["a|john|why=replaced:b|"]);
        close(&register, "f", EndReason::Refused).await;
        first.through(&register).await;
        let both = ["a|john|why=replaced:b|", "f|jim|why=refused:x y|"];
        assert_eq!(noted(folder.path()), both);

        // The next process continues here, and includes the events from the time without a process.
        open(&register, here("g", "jim")).await;
        close(&register, "g", EndReason::TooOld).await;
        reader(&command).through(&register).await;
        assert_eq!(noted(folder.path()), [both[0], both[1], "g|jim|why=too_old:x y|"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_happened_before_there_was_a_command_or_long_ago_is_past() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let replace = async |id: &str, since: u64| {
            open(&register, Session { since, ..here(id, "john") }).await;
        };
        for id in ["a", "b"] {
            replace(id, now()).await;
        }
        // The command is removed; then one is set on a running broker, which starts at the present events.
        forget(&register).await.unwrap();
        for id in ["c", "d"] {
            replace(id, now()).await;
        }
        let mut reader = reader(&command);
        reader.through(&register).await;
        for id in ["e", "f"] {
            replace(id, now() - 2 * 3_600_000).await;
        }
        replace("g", now()).await;
        reader.through(&register).await;
        assert_eq!(noted(folder.path()), ["f|john|why=replaced:g|"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_eviction_before_the_events_are_followed_is_run() {
        let (command, folder) = script(NOTE);
        let settings = config::Sessions {
            on_evict: Some(command.clone()),
            max_age: Some(Duration::from_secs(60)),
            ..settings()
        };
        let (register, _keep) = register(settings);
        let pid = std::process::id();
        let (started, boot) = (Process::look(pid).started(), register.boot.clone());
        for (id, age) in [("old", 90_000), ("young", 1_000)] {
            let session = Session { pid, started, boot: boot.clone(), ..here(id, id) };
            open(&register, Session { since: now() - age, ..session }).await;
        }
        // The sweep of the first moment is faster than the task that follows the events.
        super::super::sweep::sweep(&register, now()).await.unwrap();
        Reader::new(command).through(&register).await;
        let noted = noted(folder.path());
        assert!(noted.len() == 1 && noted[0].starts_with("old|old|why=too_old:"), "{noted:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_eviction_is_told_although_a_first_bookmark_was_lost_with_a_master() {
        let (command, folder) = script(NOTE);
        let (register, _keep) = register(config::Sessions { on_evict: Some(command.clone()), ..settings() });
        forget(&register).await.unwrap();
        open(&register, here("before", "jane")).await;
        close(&register, "before", EndReason::Refused).await;
        prepare(&register, soon()).await.unwrap();
        // The replica that has taken the master's place did not have the bookmark.
        forget(&register).await.unwrap();
        open(&register, here("a", "john")).await;
        close(&register, "a", EndReason::Refused).await;
        reader(&command).through(&register).await;
        assert_eq!(noted(folder.path()), ["a|john|why=refused:x y|"]);
        assert!(!matches!(bookmark(&register).await.as_deref(), None | Some(NO_COMMAND)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_eviction_is_told_although_the_bookmark_was_lost() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        // As after a kill, if the register has lost the bookmark.
        for id in ["a", "b", "c"] {
            open(&register, here(id, "john")).await;
        }
        assert_eq!(bookmark(&register).await, None);
        // While a command runs that no cursor comes before, there is no bookmark to write.
        let mut first = reader(&command);
        first.position = Some(Position::After("2".into()));
        first.begun.insert(1, None);
        first.mark(&register, true).await.unwrap();
        assert_eq!(bookmark(&register).await, None);
        reader(&command).through(&register).await;
        assert_eq!(noted(folder.path()), ["a|john|why=replaced:b|", "b|john|why=replaced:c|"]);
        let marked = Position::After(bookmark(&register).await.unwrap());
        assert_eq!(register.store.events(&marked, 9, soon()).await.unwrap().list, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bookmark_moves_with_what_was_read_although_nothing_is_an_eviction_here() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let mut first = reader(&command);
        first.through(&register).await;
        let begin = bookmark(&register).await;
        for number in 0..UNMARKED / 2 + 1 {
            let id = format!("s{number}");
            open(&register, here(&id, "john")).await;
            close(&register, &id, EndReason::Closed).await;
        }
        first.through(&register).await;
        assert_ne!(bookmark(&register).await, begin);
        // After so few events it stays, so that a login does not cost a write.
        let moved = bookmark(&register).await;
        open(&register, here("z", "jane")).await;
        first.through(&register).await;
        assert_eq!(bookmark(&register).await, moved);
        assert_eq!(noted(folder.path()), Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_that_come_again_run_nothing_again() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let mut reader = reader(&command);
        reader.through(&register).await;
        for id in ["a", "b", "c"] {
            open(&register, here(id, "john")).await;
        }
        reader.through(&register).await;
        let both = ["a|john|why=replaced:b|", "b|john|why=replaced:c|"];
        assert_eq!(noted(folder.path()), both);
        // As after a gap, when the list begins with the oldest event that is kept.
        reader.position = Some(Position::After("0".into()));
        open(&register, here("d", "john")).await;
        reader.through(&register).await;
        assert_eq!(noted(folder.path()), [both[0], both[1], "c|john|why=replaced:d|"]);
        // The same if the store failed in between.
        reader.position = None;
        reader.through(&register).await;
        assert_eq!(noted(folder.path()).len(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_command_that_hangs_delays_no_other_and_is_run_again_after_a_crash() {
        let (register, _keep) = register(settings());
        // The command for a hangs.
        let (command, folder) = script(&format!("case $1 in a) exec sleep 600;; esac; {NOTE}"));
        let mut reader = reader(&command);
        reader.through(&register).await;
        let before = bookmark(&register).await;
        for number in 0..2 * AT_ONCE {
            let id = if number == 0 { "a".to_owned() } else { format!("s{number:02}") };
            open(&register, here(&id, "john")).await;
        }
        reader.follow(&register).await.unwrap();
        while reader.running.len() > 1 {
            let ended = reader.running.join_next().await.unwrap();
            reader.ended(ended.unwrap());
        }
        assert_eq!(noted(folder.path()).len(), 2 * AT_ONCE - 2);
        reader.follow(&register).await.unwrap();
        // The bookmark is before the end of a, the eviction whose command hangs.
        let marked = Position::After(bookmark(&register).await.unwrap());
        let next = register.store.events(&marked, 1, soon()).await.unwrap().list;
        assert_eq!((next[0].session.id.as_str(), next[0].session.ended.is_some()), ("a", true));
        assert_ne!(bookmark(&register).await, before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn commands_at_once_and_ahead_of_one_that_runs_are_bounded() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(&format!("case $1 in a) sleep 3;; esac; {NOTE}"));
        let mut reader = reader(&command);
        reader.through(&register).await;
        for number in 0..AHEAD + 20 {
            let id = if number == 0 { "a".to_owned() } else { format!("s{number:03}") };
            open(&register, here(&id, "john")).await;
        }
        reader.follow(&register).await.unwrap();
        // An eviction that comes this long after the first one has to wait for its end.
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let order: Vec<_> = text.lines().map(|line| line.split('|').next().unwrap()).collect();
        let first = order.iter().position(|id| *id == "a").expect("the first one has not ended");
        assert!(first <= AHEAD, "{first}");
        assert!(!reader.running.is_empty() || order.len() == AHEAD + 19);
    }

    #[test]
    fn what_was_told_is_remembered_as_long_as_events_are_kept() {
        let mut told = Told::default();
        for id in 0..EVENTS {
            assert!(told.is_new(&id.to_string()));
        }
        assert!(!told.is_new("0"));
        assert!(told.is_new("one more") && told.is_new("0"));
        assert_eq!((told.ids.len() as u64, told.order.len() as u64), (EVENTS, EVENTS));
    }
}
