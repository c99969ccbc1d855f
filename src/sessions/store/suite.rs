//! Tests for the promises of every store. A store runs them all by `keeps_its_promises!`, with a function
//! that creates an empty one.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::time::{Instant, timeout};

pub use super::model::it_changes_as_the_register_of_the_model;
use super::*;
use crate::protocol::report::EndReason;

/// An empty store, and a value that must live as long as the store.
pub struct Made {
    pub store: Arc<dyn Store>,
    pub keep: Box<dyn Any + Send>,
}

/// Generates a test for each promise. `$make` is an `async fn() -> Option<Made>`; `None` skips the test if a
/// program that the store needs is not installed.
macro_rules! keeps_its_promises {
    ($make:path) => {
        keeps_its_promises! { $make:
            the_newest_takes_the_place_of_the_oldest
            a_limit_that_was_lowered_ends_more_than_one
            a_newcomer_is_denied_while_the_limit_is_reached
            without_a_limit_all_stay
            people_do_not_count_for_each_other
            the_same_session_twice_changes_nothing
            a_session_ends_once
            every_reason_for_an_end_comes_back_with_its_event
            an_undone_session_is_gone_and_says_whom_it_had_replaced
            an_undone_session_that_comes_later_changes_nothing
            lists_are_by_account_name_or_machine_and_in_order
            pages_lose_nobody_who_stays
            events_resume_after_a_cursor
            what_is_no_longer_kept_is_a_gap
            a_malformed_cursor_is_refused
            a_change_wakes_who_waits
            at_the_same_instant_exactly_one_remains
            at_the_same_instant_no_more_than_the_limit_come_in
            any_order_of_logins_and_logouts_leaves_no_more_than_the_limit
            a_bookmark_stays_until_the_next
            it_changes_as_the_register_of_the_model
            texts_come_back_as_they_were
            a_passed_deadline_is_no_answer
        }
    };
    ($make:path: $($promise:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $promise() {
            if let Some(made) = $make().await {
                $crate::sessions::store::suite::$promise(made.store).await;
                drop(made.keep);
            }
        })+
    };
}
pub(in super::super) use keeps_its_promises;

/// Returns a deadline that is long enough for a busy machine.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Creates a session that began at `since`.
pub fn session(id: &str, guid: &str, since: u64) -> Session {
    Session {
        id: id.into(),
        user: guid.into(),
        principal: format!("{guid}@acme.com"),
        guid: guid.into(),
        service: "motion".into(),
        rhost: "192.0.2.7".into(),
        tty: "motion".into(),
        host: "xcally".into(),
        machine: "6d61".into(),
        uid: 998,
        pid: 4711,
        started: 123_456,
        boot: "0b5d7ab1-1d8b-4e0c-9a4f-3f3f5f1d2c11".into(),
        since,
        ended: None,
    }
}

/// Some time in July 2026.
const NOW: u64 = 1_784_000_000_000;

pub const ONE: Admission = Admission::Replace(NonZeroUsize::MIN);

fn two() -> NonZeroUsize {
    NonZeroUsize::new(2).unwrap()
}

async fn open(store: &dyn Store, session: &Session, admission: Admission) -> Opened {
    store.open(session, admission, soon()).await.unwrap()
}

fn replaced(session: &Session, by: &Session) -> Session {
    let ended = Ended { at: by.since, reason: EndReason::Replaced, detail: by.id.clone() };
    Session { ended: Some(ended), ..session.clone() }
}

/// Returns every event from the oldest on.
pub async fn all_events(store: &dyn Store) -> Vec<Session> {
    let mut position = Position::Oldest;
    let mut all = Vec::new();
    loop {
        let events = store.events(&position, 1000, soon()).await.unwrap();
        assert!(!events.gap);
        if events.list.is_empty() {
            return all;
        }
        all.extend(events.list.into_iter().map(|event| event.session));
        position = Position::After(events.cursor);
    }
}

/// Returns every open session of `which`.
pub async fn listed(store: &dyn Store, which: Which) -> Vec<Session> {
    let page = store.list(&which, None, 10_000, soon()).await.unwrap();
    assert!(!page.more);
    page.list.into_iter().map(|listed| listed.session).collect()
}

pub async fn the_newest_takes_the_place_of_the_oldest(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b, c] = ["a", "b", "c"].map(|id| session(id, "john", NOW));
    assert_eq!(open(store, &a, ONE).await, Opened::Registered(vec![]));
    let b = Session { since: NOW + 5, ..b };
    assert_eq!(open(store, &b, ONE).await, Opened::Registered(vec![replaced(&a, &b)]));
    // The session that was registered first is the oldest, whatever its clock said.
    let c = Session { since: NOW - 5, ..c };
    assert_eq!(open(store, &c, Admission::Replace(two())).await, Opened::Registered(vec![]));
    let d = session("d", "john", NOW + 10);
    assert_eq!(open(store, &d, Admission::Replace(two())).await, Opened::Registered(vec![replaced(&b, &d)]));
    assert_eq!(listed(store, Which::All).await, [c.clone(), d.clone()]);
    assert_eq!(store.get("a", soon()).await.unwrap(), Some(replaced(&a, &b)));
    assert_eq!(store.count(soon()).await.unwrap(), 2);
    let told = [a.clone(), replaced(&a, &b), b.clone(), c, replaced(&b, &d), d];
    assert_eq!(all_events(store).await, told);
}

pub async fn a_limit_that_was_lowered_ends_more_than_one(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|id| session(id, "john", NOW));
    for session in [&a, &b, &c] {
        open(store, session, Admission::Unlimited).await;
    }
    let gone = [&a, &b, &c].map(|old| replaced(old, &d)).to_vec();
    assert_eq!(open(store, &d, ONE).await, Opened::Registered(gone.clone()));
    assert_eq!(all_events(store).await[3..], [gone, vec![d]].concat());
}

pub async fn a_newcomer_is_denied_while_the_limit_is_reached(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b, c] = ["a", "b", "c"].map(|id| session(id, "john", NOW));
    let deny = Admission::Deny(two());
    assert_eq!(open(store, &a, deny).await, Opened::Registered(vec![]));
    assert_eq!(open(store, &b, deny).await, Opened::Registered(vec![]));
    assert_eq!(open(store, &c, deny).await, Opened::Denied(vec![a.clone(), b.clone()]));
    assert_eq!(store.get("c", soon()).await.unwrap(), None);
    assert_eq!(all_events(store).await, [a.clone(), b.clone()]);
    let ended = Ended { at: NOW, reason: EndReason::Closed, detail: String::new() };
    store.close("a", &ended, soon()).await.unwrap();
    assert_eq!(open(store, &c, deny).await, Opened::Registered(vec![]));
    assert_eq!(listed(store, Which::All).await, [b, c]);
}

pub async fn without_a_limit_all_stay(store: Arc<dyn Store>) {
    for number in 0..20 {
        let session = session(&number.to_string(), "john", NOW);
        assert_eq!(open(&*store, &session, Admission::Unlimited).await, Opened::Registered(vec![]));
    }
    assert_eq!(store.count(soon()).await.unwrap(), 20);
}

pub async fn people_do_not_count_for_each_other(store: Arc<dyn Store>) {
    let john = session("a", "john", NOW);
    // Another account with the same name, as after a user's return.
    let other = Session { guid: "other".into(), ..session("b", "john", NOW) };
    for session in [&john, &other] {
        assert_eq!(open(&*store, session, ONE).await, Opened::Registered(vec![]));
    }
    // The same account with another name.
    let renamed = Session { guid: "john".into(), ..session("c", "johnny", NOW) };
    assert_eq!(open(&*store, &renamed, ONE).await, Opened::Registered(vec![replaced(&john, &renamed)]));
    assert_eq!(listed(&*store, Which::All).await, [other, renamed]);
}

pub async fn the_same_session_twice_changes_nothing(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b] = ["a", "b"].map(|id| session(id, "john", NOW));
    open(store, &a, ONE).await;
    assert_eq!(open(store, &a, ONE).await, Opened::Registered(vec![]));
    assert_eq!(open(store, &a, Admission::Deny(NonZeroUsize::MIN)).await, Opened::Registered(vec![]));
    open(store, &b, ONE).await;
    assert_eq!(open(store, &a, ONE).await, Opened::Registered(vec![]));
    // The reply to the first call may have been lost, and with it the list of replaced sessions.
    assert_eq!(open(store, &b, ONE).await, Opened::Registered(vec![replaced(&a, &b)]));
    assert_eq!(listed(store, Which::All).await, from_ref(&b));
    assert_eq!(all_events(store).await, [a.clone(), replaced(&a, &b), b]);
}

pub async fn a_session_ends_once(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let a = session("a", "john", NOW);
    open(store, &a, ONE).await;
    let gone = Ended { at: NOW + 9, reason: EndReason::Refused, detail: "disabled".into() };
    let after = Session { ended: Some(gone.clone()), ..a.clone() };
    assert_eq!(store.close("a", &gone, soon()).await.unwrap(), Closed::Now(after.clone()));
    let again = Ended { at: NOW + 10, reason: EndReason::Closed, detail: String::new() };
    assert_eq!(store.close("a", &again, soon()).await.unwrap(), Closed::Earlier(after.clone()));
    assert_eq!(store.close("b", &again, soon()).await.unwrap(), Closed::Unknown);
    assert_eq!(store.get("a", soon()).await.unwrap(), Some(after.clone()));
    assert_eq!(all_events(store).await, [a, after]);
    for which in [Which::All, Which::Guid("john".into()), Which::Machine("6d61".into())] {
        assert_eq!(listed(store, which).await, []);
    }
    assert_eq!(store.count(soon()).await.unwrap(), 0);
}

pub async fn every_reason_for_an_end_comes_back_with_its_event(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let mut events = Vec::new();
    for reason in EndReason::ALL {
        let one = session(reason.name(), "john", NOW);
        open(store, &one, Admission::Unlimited).await;
        let ended = Ended { at: NOW + 9, reason, detail: "by uid:0,pid:4711".into() };
        let after = Session { ended: Some(ended.clone()), ..one.clone() };
        assert_eq!(store.close(&one.id, &ended, soon()).await.unwrap(), Closed::Now(after.clone()));
        assert_eq!(store.get(&one.id, soon()).await.unwrap(), Some(after.clone()));
        events.extend([one, after]);
    }
    assert_eq!(all_events(store).await, events);
}

pub async fn an_undone_session_is_gone_and_says_whom_it_had_replaced(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b, c] = ["a", "b", "c"].map(|id| session(id, "john", NOW));
    for session in [&a, &b] {
        open(store, session, Admission::Unlimited).await;
    }
    open(store, &c, ONE).await;
    let ended = Ended { at: NOW + 9, reason: EndReason::Unconfirmed, detail: "late".into() };
    let after = Session { ended: Some(ended.clone()), ..c.clone() };
    let gone = vec![replaced(&a, &c), replaced(&b, &c)];
    let undone = store.undo(&c, &ended, soon()).await.unwrap();
    assert_eq!(undone, Undone { closed: Closed::Now(after.clone()), evicted: gone.clone() });
    let undone = store.undo(&c, &ended, soon()).await.unwrap();
    assert_eq!(undone, Undone { closed: Closed::Earlier(after.clone()), evicted: vec![] });
    assert_eq!(listed(store, Which::All).await, []);
    assert_eq!(all_events(store).await[2..], [gone, vec![c, after]].concat());
}

pub async fn an_undone_session_that_comes_later_changes_nothing(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let [a, b] = ["a", "b"].map(|id| session(id, "john", NOW));
    let ended = Ended { at: NOW + 9, reason: EndReason::Unconfirmed, detail: "late".into() };
    let never = Session { ended: Some(ended.clone()), ..b.clone() };
    let undone = store.undo(&b, &ended, soon()).await.unwrap();
    assert_eq!(undone, Undone { closed: Closed::Now(never.clone()), evicted: vec![] });
    open(store, &a, ONE).await;
    assert_eq!(open(store, &b, ONE).await, Opened::Registered(vec![]));
    assert_eq!(listed(store, Which::All).await, from_ref(&a));
    assert_eq!(all_events(store).await, [never.clone(), a]);
    assert_eq!(store.get("b", soon()).await.unwrap(), Some(never));
}

pub async fn lists_are_by_account_name_or_machine_and_in_order(store: Arc<dyn Store>) {
    let on = |machine: &str, session: Session| Session { machine: machine.into(), ..session };
    let sessions = [
        session("z", "john", NOW),
        on("6d62", session("y", "john", NOW)),
        session("x", "jane", NOW - 100),
        on("6d62", Session { principal: "jd@brand.example".into(), ..session("w", "john", NOW) }),
    ];
    for session in &sessions {
        open(&*store, session, Admission::Unlimited).await;
    }
    let cases = [
        (Which::All, vec!["z", "y", "x", "w"]),
        (Which::Guid("john".into()), vec!["z", "y", "w"]),
        (Which::Guid("jim".into()), vec![]),
        (Which::Principal("john@acme.com".into()), vec!["z", "y"]),
        (Which::Principal("jd@brand.example".into()), vec!["w"]),
        (Which::Machine("6d61".into()), vec!["z", "x"]),
        (Which::Machine("6d62".into()), vec!["y", "w"]),
        (Which::Machine("xcally".into()), vec![]),
    ];
    for (which, ids) in cases {
        let found = listed(&*store, which.clone()).await;
        assert_eq!(found.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), ids, "{which:?}");
    }
}

pub async fn pages_lose_nobody_who_stays(store: Arc<dyn Store>) {
    for number in 0..10 {
        open(&*store, &session(&number.to_string(), "john", NOW), Admission::Unlimited).await;
    }
    let ended = Ended { at: NOW, reason: EndReason::Closed, detail: String::new() };
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    for turn in 0.. {
        let page = store.list(&Which::All, after.as_deref(), 3, soon()).await.unwrap();
        seen.extend(page.list.iter().map(|listed| listed.session.id.clone()));
        after = page.list.last().map(|listed| listed.cursor.clone());
        if turn == 0 {
            // The last session of the page, after whose cursor the next page begins; a later one; and a new
            // one.
            store.close("2", &ended, soon()).await.unwrap();
            store.close("4", &ended, soon()).await.unwrap();
            open(&*store, &session("10", "john", NOW), Admission::Unlimited).await;
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3", "5", "6", "7", "8", "9", "10"]);
    let past = store.list(&Which::All, after.as_deref(), 3, soon()).await.unwrap();
    assert_eq!(past, Page::default());
}

pub async fn events_resume_after_a_cursor(store: Arc<dyn Store>) {
    let store = store.as_ref();
    let begin = store.events(&Position::Now, 10, soon()).await.unwrap();
    assert_eq!((begin.list.len(), begin.gap), (0, false));
    let sessions: Vec<_> = (0..5).map(|number| session(&number.to_string(), "john", NOW)).collect();
    for session in &sessions {
        open(store, session, Admission::Unlimited).await;
    }
    let mut position = Position::After(begin.cursor.clone());
    let mut seen = Vec::new();
    loop {
        let events = store.events(&position, 2, soon()).await.unwrap();
        assert!(events.list.len() <= 2 && !events.gap);
        let Some(last) = events.list.last() else {
            assert_eq!(position, Position::After(events.cursor));
            break;
        };
        assert_eq!(events.cursor, last.cursor);
        position = Position::After(events.cursor.clone());
        seen.extend(events.list);
    }
    assert_eq!(seen.iter().map(|event| event.session.clone()).collect::<Vec<_>>(), sessions);
    let rest = store.events(&Position::After(seen[2].cursor.clone()), 10, soon()).await.unwrap();
    assert_eq!(rest.list, seen[3..]);
    assert_eq!(all_events(store).await, sessions);
    let now = store.events(&Position::Now, 10, soon()).await.unwrap();
    assert_eq!(Some(now.cursor), seen.last().map(|event| event.cursor.clone()));
}

pub async fn what_is_no_longer_kept_is_a_gap(store: Arc<dyn Store>) {
    let begin = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    let more = 7;
    let mut open = tokio::task::JoinSet::new();
    for number in 0..EVENTS + more {
        // Not all at once, because a store may reject calls if too many wait.
        while open.len() >= 64 {
            open.join_next().await.unwrap().unwrap();
        }
        let store = store.clone();
        open.spawn(async move {
            let newcomer = session(&number.to_string(), &number.to_string(), NOW);
            store.open(&newcomer, ONE, soon()).await.unwrap();
        });
    }
    while open.join_next().await.transpose().unwrap().is_some() {}
    let late = store.events(&Position::After(begin), 10, soon()).await.unwrap();
    assert!(late.gap);
    let oldest = store.events(&Position::Oldest, 10, soon()).await.unwrap();
    assert!(!oldest.gap);
    assert_eq!(late.list, oldest.list);
    let next = store.events(&Position::After(late.cursor), 10, soon()).await.unwrap();
    assert!(!next.gap);
    assert_eq!(all_events(&*store).await.len() as u64, EVENTS);
    // All of them are still logged in.
    assert_eq!(store.count(soon()).await.unwrap(), EVENTS + more);
}

pub async fn a_malformed_cursor_is_refused(store: Arc<dyn Store>) {
    for cursor in ["x", "", "-1", "1 OR 1", "99999999999999999999999999"] {
        let events = store.events(&Position::After(cursor.into()), 1, soon()).await;
        assert_eq!(events, Err(StoreError::Cursor(cursor.into())), "{cursor:?}");
        let list = store.list(&Which::All, Some(cursor), 1, soon()).await;
        assert_eq!(list, Err(StoreError::Cursor(cursor.into())), "{cursor:?}");
    }
}

pub async fn a_change_wakes_who_waits(store: Arc<dyn Store>) {
    let ended = Ended { at: NOW, reason: EndReason::Closed, detail: String::new() };
    let mut changes = store.changes();
    for turn in 0..4 {
        changes.mark_unchanged();
        let waiting = tokio::spawn(async move {
            let woken = timeout(Duration::from_secs(20), changes.changed()).await;
            woken.unwrap().unwrap();
            changes
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        match turn % 2 {
            0 => drop(store.open(&session(&turn.to_string(), "john", NOW), ONE, soon()).await.unwrap()),
            _ => drop(store.close(&(turn - 1).to_string(), &ended, soon()).await.unwrap()),
        }
        changes = waiting.await.unwrap();
    }
}

/// Opens `count` sessions of one user at once, and returns how many were registered.
async fn rush(store: &Arc<dyn Store>, count: usize, admission: Admission) -> usize {
    let gate = Arc::new(tokio::sync::Barrier::new(count));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let (store, gate) = (store.clone(), gate.clone());
        tasks.spawn(async move {
            let newcomer = session(&format!("s{number}"), "john", NOW);
            gate.wait().await;
            matches!(store.open(&newcomer, admission, soon()).await.unwrap(), Opened::Registered(_))
        });
    }
    let came_in = tasks.join_all().await;
    came_in.into_iter().filter(|came_in| *came_in).count()
}

pub async fn at_the_same_instant_exactly_one_remains(store: Arc<dyn Store>) {
    const MANY: usize = 64;
    assert_eq!(rush(&store, MANY, ONE).await, MANY);
    let open = listed(&*store, Which::Guid("john".into())).await;
    let [last] = open.as_slice() else { panic!("{} are open", open.len()) };
    // Each was opened once, and all but the last ended once, replaced by the next one.
    let mut here: BTreeMap<String, Session> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for session in all_events(&*store).await {
        match session.ended.clone() {
            None => {
                assert!(here.is_empty(), "{} is open beside {here:?}", session.id);
                here.insert(session.id.clone(), session);
            }
            Some(ended) => {
                assert_eq!(ended.reason, EndReason::Replaced);
                assert!(here.remove(&session.id).is_some());
                assert!(gone.insert(session.id));
            }
        }
    }
    assert_eq!(here.into_values().collect::<Vec<_>>(), from_ref(last));
    assert_eq!(gone.len(), MANY - 1);
}

pub async fn at_the_same_instant_no_more_than_the_limit_come_in(store: Arc<dyn Store>) {
    assert_eq!(rush(&store, 64, Admission::Deny(two())).await, 2);
    assert_eq!(listed(&*store, Which::All).await.len(), 2);
    assert_eq!(all_events(&*store).await.len(), 2);
}

pub async fn a_bookmark_stays_until_the_next(store: Arc<dyn Store>) {
    assert_eq!(store.bookmarked("on_evict xcally", soon()).await.unwrap(), None);
    for cursor in ["1", "2-3"] {
        store.bookmark("on_evict xcally", cursor, soon()).await.unwrap();
        assert_eq!(store.bookmarked("on_evict xcally", soon()).await.unwrap().as_deref(), Some(cursor));
    }
    assert_eq!(store.bookmarked("on_evict xcally2", soon()).await.unwrap(), None);
}

pub async fn texts_come_back_as_they_were(store: Arc<dyn Store>) {
    let texts = ["", "jörg \"x\" \\ 'y'; DROP TABLE", "a\0b\n\u{1b}[2J", "{\"id\": 1}", &"ß".repeat(127)];
    for (number, text) in texts.into_iter().enumerate() {
        let odd = Session {
            user: text.into(),
            service: text.into(),
            rhost: text.into(),
            tty: text.into(),
            principal: format!("{text}@acme.com"),
            uid: u32::MAX,
            started: u64::MAX,
            ..session(&number.to_string(), "john", NOW)
        };
        open(&*store, &odd, ONE).await;
        assert_eq!(store.get(&odd.id, soon()).await.unwrap(), Some(odd.clone()));
        assert_eq!(listed(&*store, Which::Principal(odd.principal.clone())).await, from_ref(&odd));
        let ended = Ended { at: NOW, reason: EndReason::Refused, detail: text.into() };
        let after = Session { ended: Some(ended.clone()), ..odd };
        assert_eq!(store.close(&after.id, &ended, soon()).await.unwrap(), Closed::Now(after));
    }
}

pub async fn a_passed_deadline_is_no_answer(store: Arc<dyn Store>) {
    let a = session("a", "john", NOW);
    let past = Instant::now() - Duration::from_secs(1);
    let begun = Instant::now();
    let late = store.open(&a, ONE, past).await;
    assert!(matches!(late, Err(StoreError::Timeout(_))), "{late:?}");
    let late = store.list(&Which::All, None, 1, past).await;
    assert!(matches!(late, Err(StoreError::Timeout(_))), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "they waited for the store");
    // A late call does not affect calls before their deadline.
    open(&*store, &session("b", "jane", NOW), ONE).await;
}

/// Compares the store with a list in memory, over random histories of two users that are the same in every
/// run.
pub async fn any_order_of_logins_and_logouts_leaves_no_more_than_the_limit(store: Arc<dyn Store>) {
    let mut runner = TestRunner::deterministic();
    let step = (0_usize..2, 0_usize..4, 1_usize..4, any::<usize>());
    let history = prop::collection::vec(step, 250).new_tree(&mut runner).unwrap().current();
    let mut open: [Vec<Session>; 2] = Default::default();
    for (number, (user, kind, limit, which)) in history.into_iter().enumerate() {
        let guid = ["john", "jane"][user];
        let since = NOW + number as u64;
        let limit = NonZeroUsize::new(limit).unwrap();
        let fresh = session(&format!("s{number:03}"), guid, since);
        let sessions = &mut open[user];
        match kind {
            0 if !sessions.is_empty() => {
                let gone = sessions.remove(which % sessions.len());
                let ended = Ended { at: since, reason: EndReason::Closed, detail: String::new() };
                let closed = store.close(&gone.id, &ended, soon()).await.unwrap();
                assert_eq!(closed, Closed::Now(Session { ended: Some(ended), ..gone }));
            }
            1 => match store.open(&fresh, Admission::Deny(limit), soon()).await.unwrap() {
                Opened::Registered(gone) => {
                    assert_eq!(gone, []);
                    sessions.push(fresh);
                    assert!(sessions.len() <= limit.get());
                }
                Opened::Denied(there) => {
                    assert_eq!(there, *sessions);
                    assert!(sessions.len() >= limit.get());
                }
            },
            _ => {
                let opened = store.open(&fresh, Admission::Replace(limit), soon()).await.unwrap();
                let surplus = (sessions.len() + 1).saturating_sub(limit.get());
                let gone = sessions.drain(..surplus).map(|session| replaced(&session, &fresh)).collect();
                assert_eq!(opened, Opened::Registered(gone));
                sessions.push(fresh);
                assert!(sessions.len() <= limit.get());
            }
        }
        assert_eq!(listed(&*store, Which::Guid(guid.into())).await, *sessions);
    }
}
