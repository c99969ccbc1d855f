//! Compares a store with the register of the model (`tests/model`), so that the results of the model are true
//! of the store, too.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::suite::{listed, session, soon};
use super::*;
use crate::protocol::report::{EndReason, Event};
// The model's files import the rule from beside them.
use crate::sessions::rule;

#[allow(dead_code)]
#[path = "../../../tests/model/src/register.rs"]
mod register;

use self::register::{Cursor, End, Id, Register};

/// Number of sessions of the one user.
const SESSIONS: usize = 3;
/// Number of changes in a row.
const CHANGES: usize = 4;
/// Number of events that the model keeps, more than [`CHANGES`] changes make.
const KEEP: u8 = 100;
/// Some time in July 2026.
const NOW: u64 = 1_784_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Change {
    Open(Id),
    Close(Id),
    Undo(Id),
}

/// Outcome of a change, and the sessions that it names.
type Said = (&'static str, Vec<Id>);
/// An event: the session, and the reason and the successor of its end.
type Told = (Id, Option<(EndReason, Option<Id>)>);

/// Makes every change in every state of the register that fewer than [`CHANGES`] changes lead to.
pub async fn it_changes_as_the_register_of_the_model(store: Arc<dyn Store>) {
    let limit = |number| NonZeroUsize::new(number).unwrap();
    for admission in [Admission::Replace(limit(1)), Admission::Replace(limit(2)), Admission::Deny(limit(1))] {
        let (mut seen, mut next) = (HashSet::new(), VecDeque::from([(Register::new(0, SESSIONS), vec![])]));
        let mut runs = 0;
        while let Some((before, way)) = next.pop_front() {
            for change in changes() {
                let mut after: Register = before.clone();
                let said = model(&mut after, change, admission);
                let way: Vec<Change> = way.iter().copied().chain([change]).collect();
                runs += 1;
                let account = format!("{admission:?} {runs}");
                let (theirs, events, cursors) = replay(&*store, &account, &way, admission).await;
                assert_eq!(theirs, said, "{admission:?} {way:?}");
                assert_eq!(events, told(&after), "{admission:?} {way:?}");
                let mine = after_each_cursor(&after);
                let theirs = read_after(&*store, &cursors).await;
                assert_eq!(theirs, mine, "{admission:?} {way:?}");
                is_a_gap_after_another_history(&*store, &after).await;
                let open = listed(&*store, Which::Guid(account.clone())).await;
                let open: Vec<Id> = open.iter().map(|session| id_of(&session.id)).collect();
                assert_eq!(open, after.open_now(), "{admission:?} {way:?}");
                if way.len() < CHANGES && seen.insert(after.clone()) {
                    next.push_back((after, way));
                }
            }
        }
        assert!(runs > 300, "{runs}");
    }
}

fn changes() -> impl Iterator<Item = Change> {
    (0..SESSIONS).flat_map(|id| [Change::Open(id), Change::Close(id), Change::Undo(id)])
}

fn model(register: &mut Register, change: Change, admission: Admission) -> Said {
    let closed = |closed| match closed {
        register::Closed::Now => "now",
        register::Closed::Earlier => "earlier",
        register::Closed::Unknown => "unknown",
    };
    match change {
        Change::Open(id) => match register.open(id, admission, 0, KEEP) {
            register::Opened::Registered(gone) => ("registered", gone),
            register::Opened::Denied(open) => ("denied", open),
        },
        Change::Close(id) => (closed(register.close(id, End::Closed, 0, KEEP)), vec![]),
        Change::Undo(id) => {
            let (outcome, gone) = register.undo(id, 0, KEEP);
            (closed(outcome), gone)
        }
    }
}

/// Returns the events of the model.
fn told(register: &Register) -> Vec<Told> {
    let end = |end| match end {
        End::Replaced(id) => (EndReason::Replaced, Some(id)),
        End::Closed => (EndReason::Closed, None),
        _ => (EndReason::Unconfirmed, None),
    };
    register.events.iter().map(|event| (event.id, event.end.map(end))).collect()
}

/// What follows a cursor: whether there is a gap, and the sessions of the events.
type After = (bool, Vec<Id>);

/// Returns what follows the model's beginning, and what follows each of its events.
fn after_each_cursor(register: &Register) -> Vec<After> {
    let after = |cursor| {
        let events = register.events(register::Position::After(cursor), KEEP);
        (events.gap, events.list.iter().map(|(_, event)| event.id).collect())
    };
    let events = register.events(register::Position::Oldest, KEEP).list;
    std::iter::once(register.birth).chain(events.into_iter().map(|(cursor, _)| cursor)).map(after).collect()
}

/// Returns what follows each of these cursors of `store`.
async fn read_after(store: &dyn Store, cursors: &[String]) -> Vec<After> {
    let mut all = Vec::new();
    for cursor in cursors {
        let events = store.events(&Position::After(cursor.clone()), 1000, soon()).await.unwrap();
        all.push((events.gap, events.list.iter().map(|event| id_of(&event.session.id)).collect()));
    }
    all
}

/// Checks that model and store know that they have not made a cursor of another history. A number alone is
/// taken for a cursor of this history unless it is higher than all of its numbers.
async fn is_a_gap_after_another_history(store: &dyn Store, register: &Register) {
    let Cursor { number, mark } = register.newest();
    let newest = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    let (ours, theirs) = match newest.split_once('-') {
        Some((number_there, mark_there)) => {
            let theirs = format!("{number_there}-{}", "0".repeat(mark_there.len()));
            (Cursor { number, mark: mark + 1 }, theirs)
        }
        None => {
            let theirs = newest.parse::<u64>().unwrap() + 1;
            (Cursor { number: number + 1, mark }, theirs.to_string())
        }
    };
    assert!(register.events(register::Position::After(ours), KEEP).gap, "{ours:?}");
    assert!(store.events(&Position::After(theirs.clone()), 1, soon()).await.unwrap().gap, "{theirs}");
}

/// Makes the changes in `store` for a separate user. Returns the outcome of the last one, the events, and the
/// cursors of the beginning and of each event.
async fn replay(
    store: &dyn Store,
    account: &str,
    way: &[Change],
    admission: Admission,
) -> (Said, Vec<Told>, Vec<String>) {
    let begin = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    let mut said = ("", vec![]);
    for change in way {
        said = made(store, account, *change, admission).await;
    }
    let events = store.events(&Position::After(begin.clone()), 1000, soon()).await.unwrap();
    assert!(!events.gap);
    let each = events.list.iter().map(|event| event.cursor.clone());
    let cursors = std::iter::once(begin).chain(each).collect();
    let end = |ended: Ended| {
        let by = (ended.reason == EndReason::Replaced).then(|| id_of(&ended.detail));
        (ended.reason, by)
    };
    let events =
        events.list.into_iter().map(|Event { session, .. }| (id_of(&session.id), session.ended.map(end)));
    (said, events.collect(), cursors)
}

async fn made(store: &dyn Store, account: &str, change: Change, admission: Admission) -> Said {
    let of = |id: Id| session(&format!("{account}/{id}"), account, NOW);
    let ids = |sessions: Vec<Session>| sessions.iter().map(|session| id_of(&session.id)).collect();
    let how = |reason| Ended { at: NOW, reason, detail: String::new() };
    let closed = |closed| match closed {
        Closed::Now(_) => "now",
        Closed::Earlier(_) => "earlier",
        Closed::Unknown => "unknown",
    };
    match change {
        Change::Open(id) => match store.open(&of(id), admission, soon()).await.unwrap() {
            Opened::Registered(gone) => ("registered", ids(gone)),
            Opened::Denied(open) => ("denied", ids(open)),
        },
        Change::Close(id) => {
            let ended = how(EndReason::Closed);
            (closed(store.close(&of(id).id, &ended, soon()).await.unwrap()), vec![])
        }
        Change::Undo(id) => {
            let undone = store.undo(&of(id), &how(EndReason::Unconfirmed), soon()).await.unwrap();
            (closed(undone.closed), ids(undone.evicted))
        }
    }
}

fn id_of(id: &str) -> Id {
    id.rsplit('/').next().unwrap().parse().unwrap()
}
