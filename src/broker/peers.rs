//! Access to the broker: root, the users that applications run as, and, for logins and searches, the LDAP
//! bridge.
//!
//! The name service can hang or fail: it may query another host, or need a descriptor when none is left. So a
//! single thread queries it, one question at a time. A user with access keeps it, and a stranger uses no
//! thread and delays no other peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::CONFIG;
use crate::protocol::{Operation, Peer};
use crate::supervise::{self, Ended};

/// Age from which the uids of the configured users are looked up again. They stay in use until then.
const FRESH: Duration = Duration::from_secs(60);
/// A rejected peer causes a new lookup, because its user may be new, but no more often than this.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest time that an unknown peer waits for a lookup, from the start of that lookup.
const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum number of strangers' names that are kept for the log.
const STRANGERS: usize = 64;
/// The system user of the LDAP bridge, which the package creates.
pub const BRIDGE: &str = "motion-ad-ldap";
/// The cause of an unknown user while the name service hangs.
const SILENT: &str = "the name service does not answer";
/// Maximum number of questions that wait for the thread.
const QUEUE: usize = 4;

/// Access of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The peer gets an answer.
    Granted,
    /// It is neither root nor one of the configured users.
    Stranger,
    /// The peer gets no answer, because the name service did not identify the configured users; with the
    /// cause.
    Unknown(String),
}

/// The name service (nsswitch.conf(5)).
pub trait NameService: Send {
    /// Returns the uid of the user `name`, `None` if there is no such user.
    ///
    /// # Errors
    /// Returns the cause if the name service cannot answer.
    fn uid(&self, name: &str) -> Result<Option<u32>, String>;

    /// Returns the name of the user `uid`, if there is one and the name service says so.
    fn name(&self, uid: u32) -> Option<String>;
}

/// The host's name service.
pub struct Nss;

impl NameService for Nss {
    fn uid(&self, name: &str) -> Result<Option<u32>, String> {
        let user = User::from_name(name).map_err(|error| error.desc().to_owned())?;
        Ok(user.map(|user| user.uid.as_raw()))
    }

    fn name(&self, uid: u32) -> Option<String> {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
    }
}

/// A question for the thread.
enum Question {
    /// The uids of the configured users.
    Users,
    /// The name of this uid.
    Stranger(u32),
}

/// The peers that have access.
pub struct Peers {
    /// The users that are configured as numbers.
    uids: Vec<u32>,
    /// True if [`BRIDGE`] is configured as well.
    is_bridge_named: bool,
    known: Arc<watch::Sender<Known>>,
    questions: SyncSender<Question>,
}

#[derive(Default)]
struct Known {
    /// The uids of the configured names, as far as the name service ever returned them.
    uids: BTreeMap<String, u32>,
    /// Time at which the last lookup ended.
    looked: Option<Instant>,
    /// Time at which the lookup in progress began.
    begun: Option<Instant>,
    /// Reason why the last lookup was incomplete.
    problem: Option<String>,
    /// The stranger whose name is being looked up: one at a time, so that the queue has room for the users.
    naming: Option<u32>,
    /// Names of strangers, and the times of their lookups.
    strangers: BTreeMap<u32, (Instant, Option<String>)>,
}

impl Peers {
    /// Grants access to root and to `users`, which are names or numbers.
    ///
    /// # Errors
    /// Returns the cause if the thread cannot be started.
    pub fn new(users: Vec<String>, service: impl NameService + 'static) -> std::io::Result<Self> {
        let (uids, names): (Vec<_>, Vec<_>) =
            users.into_iter().map(|user| user.parse().map_err(|_| user)).partition(Result::is_ok);
        let uids = uids.into_iter().filter_map(Result::ok).collect();
        let mut names: Vec<_> = names.into_iter().filter_map(Result::err).collect();
        let is_bridge_named = names.iter().any(|name| name == BRIDGE);
        if !is_bridge_named {
            names.push(BRIDGE.to_owned());
        }
        let known = Arc::new(watch::Sender::new(Known::default()));
        let (questions, asked) = sync_channel(QUEUE);
        let answered = known.clone();
        supervise::thread("peers", move || answer(&service, &names, &asked, &answered))?;
        let peers = Peers { uids, is_bridge_named, known, questions };
        // Ahead of the first peer.
        peers.known.send_if_modified(|known| peers.look(known).is_some());
        Ok(peers)
    }

    /// Decides the access of `uid`. A user with access never waits.
    pub async fn access(&self, uid: u32) -> Access {
        if uid == 0 || self.uids.contains(&uid) {
            return Access::Granted;
        }
        let mut changes = self.known.subscribe();
        let mut wait = None;
        let mut decided = None;
        self.known.send_if_modified(|known| {
            let age = known.looked.map(|looked| looked.elapsed());
            if known.has(uid) {
                if age.is_none_or(|age| age >= FRESH) {
                    self.look(known);
                }
                decided = Some(Access::Granted);
            } else if known.begun.is_none() && age.is_some_and(|age| age < AGAIN) {
                decided = Some(known.stranger());
            } else {
                wait = self.look(known).map(|begun| (begun, known.looked));
            }
            false
        });
        match (decided, wait) {
            (Some(access), _) => access,
            (None, None) => Access::Unknown(SILENT.to_owned()),
            (None, Some((begun, looked))) => {
                let answered = changes.wait_for(|known| known.looked != looked);
                match timeout_at(begun + PATIENCE, answered).await {
                    Ok(Ok(known)) if known.has(uid) => Access::Granted,
                    Ok(Ok(known)) => known.stranger(),
                    Ok(Err(_)) | Err(_) => Access::Unknown(SILENT.to_owned()),
                }
            }
        }
    }

    /// Returns true if `uid`, which has access, may request `operation`. The bridge's user may authenticate
    /// users, open and close their sessions, search and query the status; applications may do anything but
    /// search.
    pub fn may(&self, uid: u32, operation: &Operation) -> bool {
        let is_bridge = || self.known.borrow().uids.get(BRIDGE) == Some(&uid);
        let is_application = || self.uids.contains(&uid) || self.is_bridge_named || self.is_named(uid);
        match operation {
            Operation::Authenticate { .. }
            | Operation::Account { .. }
            | Operation::OpenSession { .. }
            | Operation::CloseSession { .. }
            | Operation::Status => true,
            Operation::Search(_) => uid == 0 || is_bridge(),
            Operation::Check
            | Operation::ProbePassword
            | Operation::ChangePassword
            | Operation::KickSession { .. }
            | Operation::ListSessions { .. }
            | Operation::ShowSession { .. }
            | Operation::WatchSessions { .. }
            | Operation::Audit { .. } => uid == 0 || !is_bridge() || is_application(),
        }
    }

    /// Returns true if one of the configured names has this uid.
    fn is_named(&self, uid: u32) -> bool {
        let known = self.known.borrow();
        known.uids.iter().any(|(name, known)| name != BRIDGE && *known == uid)
    }

    /// Describes a stranger to the administrator: user, uid and program, as far as they are known soon.
    pub async fn describe(&self, peer: &Peer) -> String {
        let uid = peer.uid;
        let fresh = |known: &Known| {
            known
                .strangers
                .get(&uid)
                .filter(|(looked, _)| looked.elapsed() < FRESH)
                .map(|(_, name)| name.clone())
        };
        let remembered = fresh(&self.known.borrow());
        let name = match remembered {
            Some(name) => name,
            None if !self.names_stranger(uid) => None,
            None => {
                let mut changes = self.known.subscribe();
                let answered = changes.wait_for(|known| fresh(known).is_some());
                let told = timeout_at(Instant::now() + PATIENCE, answered).await;
                told.ok().and_then(Result::ok).and_then(|known| fresh(&known)).flatten()
            }
        };
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        let program = program(peer.pid).map(|program| format!(", program {program}")).unwrap_or_default();
        format!("the user{name} (uid {uid}{program})")
    }

    /// Begins to look up the name of a stranger; returns false if another one's is under way.
    fn names_stranger(&self, uid: u32) -> bool {
        let mut naming = None;
        self.known.send_if_modified(|known| {
            if known.naming.is_none() && self.questions.try_send(Question::Stranger(uid)).is_ok() {
                known.naming = Some(uid);
            }
            naming = known.naming;
            false
        });
        naming == Some(uid)
    }

    /// Starts a lookup unless one is in progress. Returns when that one began, or `None` if the queue is
    /// full.
    fn look(&self, known: &mut Known) -> Option<Instant> {
        if known.begun.is_none() && self.questions.try_send(Question::Users).is_ok() {
            known.begun = Some(Instant::now());
        }
        known.begun
    }
}

impl Known {
    fn has(&self, uid: u32) -> bool {
        self.uids.values().any(|known| *known == uid)
    }

    /// Returns the access of a peer that is none of the known users.
    fn stranger(&self) -> Access {
        self.problem.clone().map_or(Access::Stranger, Access::Unknown)
    }
}

/// Answers questions until the last handle is gone.
fn answer(
    service: &impl NameService,
    names: &[String],
    questions: &Receiver<Question>,
    known: &watch::Sender<Known>,
) -> Ended {
    // After a panic no lookup is in progress.
    known.send_modify(|known| (known.begun, known.naming) = (None, None));
    while let Ok(question) = questions.recv() {
        match question {
            Question::Users => {
                let told: Vec<_> = names.iter().map(|name| (name, service.uid(name))).collect();
                known.send_modify(|known| known.learn(told));
            }
            Question::Stranger(uid) => {
                let name = service.name(uid);
                known.send_modify(|known| known.meet(uid, name));
            }
        }
    }
    Ok(())
}

impl Known {
    /// Stores the name service's answers on the configured users. A failed lookup leaves the known uid.
    fn learn(&mut self, told: Vec<(&String, Result<Option<u32>, String>)>) {
        self.problem = None;
        for (name, uid) in told {
            match uid {
                Ok(Some(uid)) => drop(self.uids.insert(name.clone(), uid)),
                // Users that do not exist (yet) cannot ask.
                Ok(None) => drop(self.uids.remove(name)),
                Err(cause) => {
                    let problem = || format!("the name service cannot say who {name} is: {cause}");
                    self.problem.get_or_insert_with(problem);
                }
            }
        }
        self.begun = None;
        self.looked = Some(Instant::now());
    }

    fn meet(&mut self, uid: u32, name: Option<String>) {
        self.naming = None;
        if self.strangers.len() >= STRANGERS {
            self.strangers.retain(|_, (looked, _)| looked.elapsed() < FRESH);
        }
        if self.strangers.len() < STRANGERS {
            self.strangers.insert(uid, (Instant::now(), name));
        }
    }
}

/// Returns the name of the program that the process `pid` runs (proc_pid_comm(5)).
fn program(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().chars().filter(|c| !c.is_control()).collect())
}

/// Returns the setting that gives a stranger access.
pub fn advice() -> String {
    format!("if it is the application, name it in `users` of the section [broker] in {CONFIG}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const PEERS: [&str; 3] = ["daemon", "4711", "nobody-of-that-name"];

    fn users() -> Vec<String> {
        PEERS.map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn root_and_the_named_users_are_answered() {
        let peers = Peers::new(users(), Nss).unwrap();
        for (uid, access) in [
            (0, Access::Granted),
            (1, Access::Granted),
            (4711, Access::Granted),
            (2, Access::Stranger),
            (u32::MAX, Access::Stranger),
        ] {
            assert_eq!(peers.access(uid).await, access, "{uid}");
        }
        let me = Peer { uid: 2, pid: std::process::id() };
        let described = peers.describe(&me).await;
        assert!(described.starts_with("the user bin (uid 2, program "), "{described}");
        assert_eq!(peers.describe(&Peer { uid: 4_000_000, pid: 0 }).await, "the user (uid 4000000)");
    }

    #[tokio::test]
    async fn only_the_bridge_and_root_search_and_the_bridge_does_little_else() {
        let peers = Peers::new(users(), Scripted::default()).unwrap();
        for uid in [0, 1, 4711, BRIDGE_UID] {
            assert_eq!(peers.access(uid).await, Access::Granted, "{uid}");
        }
        assert_eq!(peers.access(BRIDGE_UID + 1).await, Access::Stranger);
        let all = [
            Operation::Authenticate { register: true, warn: true },
            Operation::Account { account: None, warn: false },
            Operation::OpenSession { account: None },
            Operation::CloseSession { session: None },
            Operation::Status,
        ];
        for uid in [0, 1, 4711, BRIDGE_UID] {
            assert!(all.iter().all(|operation| peers.may(uid, operation)), "{uid}");
        }
        let others = [
            Operation::Check,
            Operation::ProbePassword,
            Operation::ChangePassword,
            Operation::ListSessions { cursor: None },
            Operation::ShowSession { session: "s1".into() },
            Operation::WatchSessions { cursor: None },
            Operation::Audit { names: vec!["john".into()] },
        ];
        for operation in others {
            let may = [0, 1, 4711, BRIDGE_UID].map(|uid| peers.may(uid, &operation));
            assert_eq!(may, [true, true, true, false], "{operation:?}");
        }
        let search = Operation::Search(Box::default());
        let may = [0, 1, 4711, BRIDGE_UID].map(|uid| peers.may(uid, &search));
        assert_eq!(may, [true, false, false, true]);
        // If the administrator names it, the bridge's user is an application as well.
        let named = Peers::new(vec![BRIDGE.to_owned()], Scripted::default()).unwrap();
        assert_eq!(named.access(BRIDGE_UID).await, Access::Granted);
        assert!(named.may(BRIDGE_UID, &Operation::Check) && named.may(BRIDGE_UID, &search));
    }

    const BRIDGE_UID: u32 = 990;

    /// A name service that knows daemon, john and the bridge, and fails or hangs on request.
    #[derive(Clone, Default)]
    struct Scripted {
        fails: Arc<AtomicBool>,
        hangs: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl NameService for Scripted {
        fn uid(&self, name: &str) -> Result<Option<u32>, String> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            while self.hangs.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            match (self.fails.load(Ordering::SeqCst), name) {
                (true, _) => Err("Too many open files".to_owned()),
                (false, "daemon") => Ok(Some(1)),
                (false, "john") => Ok(Some(1000)),
                (false, BRIDGE) => Ok(Some(BRIDGE_UID)),
                (false, _) => Ok(None),
            }
        }

        fn name(&self, _: u32) -> Option<String> {
            None
        }
    }

    impl Peers {
        /// Makes the known uids older than [`FRESH`].
        fn age(&self) {
            self.known.send_modify(|known| known.looked = Instant::now().checked_sub(2 * FRESH));
        }
    }

    #[tokio::test]
    async fn a_stranger_is_described_by_user_uid_and_program() {
        let peers = Peers::new(users(), Nss).unwrap();
        let program = std::fs::read_to_string("/proc/self/comm").unwrap();
        let here = Peer { uid: 2, pid: std::process::id() };
        let described = format!("the user bin (uid 2, program {})", program.trim_end());
        assert_eq!(peers.describe(&here).await, described);
        // Neither a user without a name nor a process that is gone has more than a uid.
        assert_eq!(peers.describe(&Peer { uid: 4_000_000, pid: 0 }).await, "the user (uid 4000000)");
        assert!(advice().contains("`users` of the section [broker] in /etc/motion-ad/config.toml"));
    }

    #[tokio::test]
    async fn an_error_keeps_who_was_permitted() {
        let service = Scripted::default();
        let peers = Peers::new(users(), service.clone()).unwrap();
        assert_eq!(peers.access(1).await, Access::Granted);
        service.fails.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            peers.age();
            // A stranger causes a lookup, and its failure does not revoke the access of a known user.
            let Access::Unknown(cause) = peers.access(7).await else { panic!("no cause") };
            assert!(cause.contains("daemon is: Too many open files"), "{cause}");
            assert_eq!(peers.access(1).await, Access::Granted);
        }
        service.fails.store(false, Ordering::SeqCst);
        peers.age();
        assert_eq!(peers.access(7).await, Access::Stranger);
    }

    #[tokio::test]
    async fn while_the_name_service_hangs_the_permitted_are_answered_and_strangers_wait_once() {
        let service = Scripted::default();
        let peers = Arc::new(Peers::new(users(), service.clone()).unwrap());
        assert_eq!(peers.access(1).await, Access::Granted);
        service.hangs.store(true, Ordering::SeqCst);
        let asked = service.asked.load(Ordering::SeqCst);
        peers.age();
        let mut strangers = tokio::task::JoinSet::new();
        for uid in 2000..3000 {
            let peers = peers.clone();
            strangers.spawn(async move { peers.access(uid).await });
        }
        // They wait together, and none of them in a thread of the runtime.
        assert_eq!(peers.access(1).await, Access::Granted);
        assert!(strangers.join_all().await.iter().all(|access| matches!(access, Access::Unknown(_))));
        // From then on no peer waits.
        let late = std::time::Instant::now();
        for uid in 3000..4000 {
            assert!(matches!(peers.access(uid).await, Access::Unknown(_)));
        }
        // A thousand that wait would take a thousand times as long as one.
        assert!(late.elapsed() < 20 * PATIENCE, "{:?}", late.elapsed());
        assert_eq!(service.asked.load(Ordering::SeqCst), asked + 1, "one question at a time");
        service.hangs.store(false, Ordering::SeqCst);
        while peers.access(7).await != Access::Stranger {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
