use std::num::NonZeroUsize;
use std::task::Poll;

use super::seat::Seat;
use super::store::suite::{listed, session, soon};
use super::*;
use crate::config::Policy;
use crate::directory::controllers::dns::Network;
use crate::protocol::report::Events;
use crate::protocol::{HEADER, Operation, Reply, Secret, encode};

pub fn settings() -> config::Sessions {
    let join = config::Join { domain: Some("acme.com".into()), ..config::Join::default() };
    config::Config::of_join(&join).unwrap().sessions
}

/// Creates a register of the host `here` in a new folder.
pub fn register(settings: config::Sessions) -> (Arc<Register>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (register_in(settings, folder.path()), folder)
}

/// A server for tests.
pub(in crate::sessions) fn here() -> Server {
    Server { name: "here".into(), machine: "6d61".into() }
}

fn register_in(settings: config::Sessions, folder: &Path) -> Arc<Register> {
    let (log, writer) = Log::open().unwrap();
    // Its log lines are discarded.
    writer.finish();
    let log = Arc::new(log);
    let store = open_store(&settings, Some(folder), Arc::new(Network::default()), &log).unwrap();
    Register::new(store, settings, here(), 8, log)
}

fn newcomer(person: u8) -> Newcomer {
    Newcomer {
        principal: format!("{person}@acme.com"),
        guid: Uuid::from_bytes([person; 16]),
        is_exempt: false,
    }
}

const OPEN: Operation = Operation::OpenSession { account: None };
const CLOSE: Operation = Operation::CloseSession { session: None };

fn request(operation: Operation) -> Request {
    Request { service: "motion".into(), ..Request::new(operation, "john.doe", CALL) }
}

fn me() -> Peer {
    Peer { uid: 998, pid: std::process::id() }
}

impl Register {
    /// The store itself.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(in crate::sessions) async fn enter(self: &Arc<Self>, person: u8) -> Result<Session, NotOpened> {
        self.open(&newcomer(person), &request(OPEN), &me(), soon()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_says_who_where_and_by_which_process() {
    let (register, _folder) = register(settings());
    let long = format!("{}ß", "x".repeat(TEXT - 1));
    let request = Request { rhost: long, tty: "tty1".into(), ..request(OPEN) };
    let session = register.open(&newcomer(1), &request, &me(), soon()).await.unwrap();
    assert!(session.id.parse::<Uuid>().is_ok());
    assert_eq!((session.user.as_str(), session.principal.as_str()), ("john.doe", "1@acme.com"));
    assert_eq!(session.guid, "01010101-0101-0101-0101-010101010101");
    assert_eq!((session.service.as_str(), session.tty.as_str()), ("motion", "tty1"));
    assert_eq!(session.rhost, "x".repeat(TEXT - 1));
    assert_eq!((session.host.as_str(), session.uid, session.pid), ("here", 998, std::process::id()));
    assert_eq!(session.started, Process::look(session.pid).started());
    assert_eq!(session.boot, process::boot());
    assert!(now() - session.since < 60_000);
    assert_eq!(register.show(&session.id, soon()).await.unwrap().list, [session]);
    let report = register.report(soon()).await;
    assert_eq!((report.open, report.problem), (Some(1), None));
    assert!(report.store.starts_with("sqlite /"), "{}", report.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_and_exempt_people_are_without_limit() {
    let two = NonZeroUsize::new(2).unwrap();
    for (policy, limit, exempt, remain, denied) in [
        (Policy::Replace, NonZeroUsize::MIN, false, 1, 0),
        (Policy::Replace, two, false, 2, 0),
        (Policy::Replace, NonZeroUsize::MIN, true, 3, 0),
        (Policy::Deny, NonZeroUsize::MIN, false, 1, 2),
        (Policy::Deny, two, false, 2, 1),
        (Policy::Deny, NonZeroUsize::MIN, true, 3, 0),
        (Policy::Unlimited, NonZeroUsize::MIN, false, 3, 0),
    ] {
        let (register, _folder) = register(config::Sessions { policy, limit, ..settings() });
        let newcomer = Newcomer { is_exempt: exempt, ..newcomer(1) };
        let mut refused = 0;
        for _ in 0..3 {
            match register.open(&newcomer, &request(OPEN), &me(), soon()).await {
                Ok(_) => {}
                Err(NotOpened::Denied(open)) => {
                    assert_eq!(open.len(), limit.get());
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        let open = listed(&*register.store, Which::All).await.len();
        assert_eq!((open, refused), (remain, denied), "{policy:?} {limit} {exempt}");
    }
}

#[test]
fn without_an_id_a_process_closes_its_own_newest_session() {
    let session = |id: &str| Session {
        host: "here".into(),
        service: "motion".into(),
        rhost: "a".into(),
        tty: "t".into(),
        uid: 998,
        pid: 7,
        ..session(id, "john", 0)
    };
    let list = || {
        vec![
            session("1"),
            Session { rhost: "b".into(), ..session("2") },
            Session { pid: 8, ..session("3") },
            Session { service: "other".into(), ..session("4") },
            Session { uid: 0, ..session("5") },
            Session { host: "there".into(), ..session("6") },
        ]
    };
    let peer = |uid, pid| Peer { uid, pid };
    let asks = |rhost: &str, tty: &str| Request { rhost: rhost.into(), tty: tty.into(), ..request(CLOSE) };
    let cases = [
        ("the newest of the process", asks("", ""), peer(998, 7), Some("2")),
        ("of another process", asks("", ""), peer(998, 8), Some("3")),
        ("of none of the processes", asks("", ""), peer(998, 9), Some("3")),
        ("of another user", asks("", ""), peer(0, 9), Some("5")),
        ("of a stranger", asks("", ""), peer(1, 7), None),
        ("from there", asks("a", ""), peer(998, 7), Some("1")),
        ("from nowhere", asks("c", ""), peer(998, 7), None),
        ("of another terminal", asks("a", "u"), peer(998, 7), None),
    ];
    for (case, request, peer, expected) in cases {
        let found = newest(list(), &request, &peer, |session| session.host == "here");
        assert_eq!(found.as_deref(), expected, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_by_id_or_by_name_ends_it_once() {
    let (register, _folder) = register(settings());
    let [a, b] = [register.enter(1).await.unwrap(), register.enter(2).await.unwrap()];
    let closed = |closed: Closed| match closed {
        Closed::Now(session) => ("now", session.id),
        Closed::Earlier(session) => ("earlier", session.id),
        Closed::Unknown => ("unknown", String::new()),
    };
    assert_eq!(closed(register.close_for(&a.id, soon()).await.unwrap()), ("now", a.id.clone()));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(closed(register.close_for(&a.id, soon()).await.unwrap()), ("earlier", a.id));
    let by_name = request(CLOSE);
    for expected in [("now", b.id), ("unknown", String::new())] {
        let which = Which::Principal("2@acme.com".into());
        let found = register.close_newest(which, &by_name, &me(), soon()).await.unwrap();
        assert_eq!(closed(found), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_session_is_evicted_and_says_who_did_it() {
    let (register, _folder) = register(settings());
    let begin = register.watch(None, soon()).await.unwrap().unwrap();
    let session = register.enter(1).await.unwrap();
    let administrator = Peer { uid: 0, pid: 4711 };
    let Closed::Now(kicked) = register.kick(&session.id, &administrator, soon()).await.unwrap() else {
        panic!("it was open");
    };
    let ended = kicked.ended.clone().unwrap();
    assert!(ended.reason.is_eviction());
    assert_eq!((ended.reason, ended.detail.as_str()), (EndReason::Kicked, "by uid:0,pid:4711"));
    let events = register.watch(Some(&begin.cursor), soon()).await.unwrap().unwrap();
    assert_eq!(events.list.last().unwrap().session, kicked);
    assert_eq!(register.ended().find(|(reason, _)| *reason == EndReason::Kicked).unwrap().1, 1);
    // Once: a second time, and one that nobody knows.
    let again = register.kick(&session.id, &Peer { uid: 1, pid: 1 }, soon()).await.unwrap();
    assert_eq!(again, Closed::Earlier(kicked));
    assert_eq!(register.kick("x", &administrator, soon()).await.unwrap(), Closed::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_did_not_take_is_made_when_it_is_back() {
    let (before, folder) = register(settings());
    let mut open = Vec::new();
    for person in 1..=4 {
        open.push(before.enter(person).await.unwrap());
    }
    // The first register holds the file as long as it exists.
    let register = register_in(settings(), folder.path());
    assert!(register.close_for(&open[0].id, soon()).await.is_err());
    let by_name = request(CLOSE);
    let which = Which::Principal("2@acme.com".into());
    assert!(register.close_newest(which, &by_name, &me(), soon()).await.is_err());
    register.undo(open[2].id.clone(), "the application did not read the answer");
    let never = Session { id: "never".into(), ..open[3].clone() };
    register.owe(Due::Undo(Box::new(never), unconfirmed("x")));
    assert!(!register.settle().await);
    assert_eq!(register.owed_now(), 4);
    drop(before);
    while !register.settle().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left = listed(&*register.store, Which::All).await;
    assert_eq!(left, [open[3].clone()]);
    let told = |reason| register.ended().find(|(other, _)| *other == reason).unwrap().1;
    assert_eq!((told(EndReason::Closed), told(EndReason::Unconfirmed)), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_without_an_id_that_waits_ends_no_later_session() {
    let (register, _folder) = register(settings());
    let ended = closed_now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let later = register.enter(1).await.unwrap();
    let which = Which::Principal("1@acme.com".into());
    let request = request(CLOSE);
    register.owe(Due::Leave(Box::new(Left { request, which, peer: me(), ended })));
    assert!(register.settle().await);
    assert_eq!(listed(&*register.store, Which::All).await, [later]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_logouts_without_an_id_in_one_millisecond_end_two_sessions() {
    let (register, _folder) = register(config::Sessions { policy: Policy::Unlimited, ..settings() });
    let from = |rhost: &str, operation| Request { rhost: rhost.into(), ..request(operation) };
    for rhost in ["a", "b"] {
        register.open(&newcomer(1), &from(rhost, OPEN), &me(), soon()).await.unwrap();
    }
    let ended = closed_now();
    for rhost in ["a", "b"] {
        let (which, ended) = (Which::Principal("1@acme.com".into()), ended.clone());
        let request = from(rhost, CLOSE);
        register.owe(Due::Leave(Box::new(Left { request, which, peer: me(), ended })));
    }
    assert_eq!(register.owed_now(), 2);
    assert!(register.settle().await);
    assert_eq!(listed(&*register.store, Which::All).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_once_whichever_answer_was_lost() {
    let (register, _folder) = register(settings());
    let told = |reason| register.ended().find(|(other, _)| *other == reason).unwrap().1;
    let session = register.enter(1).await.unwrap();
    let ended = Ended { at: now(), reason: EndReason::TooOld, detail: String::new() };
    // The reply to the first attempt is lost.
    register.store.close(&session.id, &ended, soon()).await.unwrap();
    let closed = register.close(&session.id, &ended, soon()).await.unwrap();
    assert!(matches!(closed, Closed::Now(_)));
    assert_eq!(told(EndReason::TooOld), 1);
    let other = Ended { at: now() + 1, ..ended };
    let closed = register.close(&session.id, &other, soon()).await.unwrap();
    assert!(matches!(closed, Closed::Earlier(_)));
    assert_eq!(told(EndReason::TooOld), 1);
    // The reply to a login that evicted a session is lost, and the login is undone.
    register.enter(1).await.unwrap();
    let lost = register.session(&newcomer(1), &request(OPEN), &me()).unwrap();
    register.store.open(&lost, register.admission(&newcomer(1)), soon()).await.unwrap();
    assert_eq!(told(EndReason::Replaced), 0);
    register.owe(Due::Undo(Box::new(lost), unconfirmed("the register did not answer in time")));
    assert!(register.settle().await);
    assert_eq!((told(EndReason::Replaced), told(EndReason::Unconfirmed)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_was_told_of_ends() {
    let (register, _folder) = register(settings());
    let session = register.enter(1).await.unwrap();
    tokio::spawn(owed::keep(register.clone()));
    register.undo(session.id.clone(), "the application did not read the answer");
    while register.store.count(soon()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    let found = register.show(&session.id, soon()).await.unwrap();
    let ended = found.list[0].ended.clone().unwrap();
    assert_eq!(ended.reason, EndReason::Unconfirmed);
    assert_eq!(ended.detail, "the application did not read the answer: no application holds this session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_cut_off_leaves_no_session() {
    let (register, _folder) = register(settings());
    let (stays, kept) = (register.enter(1).await.unwrap(), register.enter(2).await.unwrap());
    // During the call of the register, both before and after its reply arrives.
    for pause in [Duration::ZERO, Duration::from_millis(50)] {
        loop {
            let mut entering = Box::pin(register.enter(3));
            let first = std::future::poll_fn(|context| Poll::Ready(entering.as_mut().poll(context)));
            match first.await {
                Poll::Pending => {
                    tokio::time::sleep(pause).await;
                    break drop(entering);
                }
                // On a busy machine the register's thread can be faster than this one.
                Poll::Ready(entered) => drop(Seat::new(register.clone(), entered.unwrap().id)),
            }
            register.leave(CALL).await;
        }
        assert_eq!(register.owed_now(), 1);
        register.leave(CALL).await;
        assert_eq!((register.owed_now(), register.store.count(soon()).await), (0, Ok(2)));
    }
    // After the call, unless the application has the reply.
    Seat::new(register.clone(), stays.id.clone()).taken();
    drop(Seat::new(register.clone(), kept.id));
    register.leave(CALL).await;
    assert_eq!(listed(&*register.store, Which::All).await, [stays]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_at_once_and_goes_on_where_it_was() {
    let (register, _folder) = register(settings());
    let begin = register.watch(None, soon()).await.unwrap().unwrap();
    assert_eq!((begin.list.len(), begin.gap), (0, false));
    let waiting = tokio::spawn({
        let (register, cursor) = (register.clone(), begin.cursor.clone());
        async move { register.watch(Some(&cursor), soon()).await.unwrap().unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let a = register.enter(1).await.unwrap();
    let events = waiting.await.unwrap();
    assert_eq!(events.list.iter().map(|event| &event.session).collect::<Vec<_>>(), [&a]);
    // While the client was away.
    let b = register.enter(1).await.unwrap();
    let missed = register.watch(Some(&events.cursor), soon()).await.unwrap().unwrap();
    let ended = &missed.list[0].session;
    assert_eq!((&ended.id, &ended.ended.as_ref().unwrap().detail), (&a.id, &b.id));
    assert_eq!(missed.list[1].session, b);
    // Without an event.
    let begun = Instant::now();
    let nothing = register.watch(Some(&missed.cursor), begun + Duration::from_secs(2)).await;
    assert_eq!(nothing.unwrap().unwrap(), Events { cursor: missed.cursor.clone(), ..Events::default() });
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert!(register.watch(Some("x"), soon()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_few_and_are_sent_away_when_the_broker_ends() {
    let (register, _folder) = register(settings());
    let cursor = register.watch(None, soon()).await.unwrap().unwrap().cursor;
    let mut waiting = tokio::task::JoinSet::new();
    // Half of the eight connections are left for logins.
    for _ in 0..4 {
        let (register, cursor) = (register.clone(), cursor.clone());
        waiting.spawn(async move { register.watch(Some(&cursor), soon()).await.unwrap() });
    }
    while register.watchers.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(register.watch(Some(&cursor), soon()).await.unwrap(), None);
    let begun = Instant::now();
    register.end();
    for events in waiting.join_all().await {
        assert_eq!(events.unwrap().list, []);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_fit_a_frame_and_lose_nobody() {
    let (register, _folder) = register(config::Sessions { policy: Policy::Unlimited, ..settings() });
    // JSON writes six bytes for each of these.
    let text = "\u{1}".repeat(2 * TEXT);
    let request = Request {
        user: text.clone(),
        service: text.clone(),
        rhost: text.clone(),
        tty: text.clone(),
        ..request(OPEN)
    };
    let newcomer = Newcomer { principal: text, ..newcomer(1) };
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(register.open(&newcomer, &request, &me(), soon()).await.unwrap().id);
    }
    let is_sent = |reply: Reply| assert!(encode(&reply, &Secret::default()).unwrap().len() > 30_000 + HEADER);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = register.list(&Which::All, after.as_deref(), soon()).await.unwrap();
        seen.extend(page.list.iter().map(|session| session.id.clone()));
        after = page.next.clone();
        match after {
            Some(_) => is_sent(Reply::Sessions(Box::new(page))),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let mut cursor = "0".to_owned();
    let mut seen = Vec::new();
    while seen.len() < ids.len() {
        let events = register.watch(Some(&cursor), soon()).await.unwrap().unwrap();
        seen.extend(events.list.iter().map(|event| event.session.id.clone()));
        cursor.clone_from(&events.cursor);
        if seen.len() < ids.len() {
            is_sent(Reply::Events(Box::new(events)));
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_a_problem_until_it_works_again() {
    let (register, folder) = register(settings());
    let away = folder.path().with_extension("away");
    std::fs::rename(folder.path(), &away).unwrap();
    assert!(matches!(register.enter(1).await, Err(NotOpened::Store(StoreError::Unavailable(_)))));
    let report = register.report(soon()).await;
    assert_eq!(report.open, None);
    assert!(report.problem.unwrap().contains("sessions.db"));
    std::fs::rename(&away, folder.path()).unwrap();
    while register.enter(1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(register.report(soon()).await.problem, None);
    // A store on a full disk can still be read.
    let full = Err::<(), _>(StoreError::Unavailable("the disk is full".into()));
    assert!(register.written(full).is_err());
    assert!(register.show("x", soon()).await.is_ok());
    assert!(register.report(soon()).await.problem.unwrap().contains("full"));
    register.enter(1).await.unwrap();
    assert_eq!(register.report(soon()).await.problem, None);
}
