//! Ends of sessions that the register did not take: each is made as soon as the register can be reached
//! again.
//!
//! A login that was rejected because the register did not answer may have a session all the same, and a user
//! who logs out while the register is away keeps one. Under `policy = "deny"` either session locks the user
//! out. Owed ends are kept in memory, while the broker runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::store::{Closed, StoreError, Which};
use super::{CALL, Register, newest};
use crate::log::{Level, Line};
use crate::protocol::Peer;
use crate::protocol::Request;
use crate::protocol::report::{Ended, Session};
use crate::supervise;

/// Maximum number of ends that are kept.
const MOST: usize = 10_000;
/// Maximum time between two attempts.
const PAUSE: Duration = Duration::from_secs(10);

/// An end that the register did not take.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// The session with this id ends.
    End(String, Ended),
    /// This session must not be open, nor may a call that is still on its way open it.
    Undo(Box<Session>, Ended),
    /// The session that a request without an id meant ends, if it was open then.
    Leave(Box<Left>),
}

/// A logout without the id of a session.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) request: Request,
    pub(super) which: Which,
    pub(super) peer: Peer,
    pub(super) ended: Ended,
}

/// All ends that are owed.
#[derive(Default)]
pub(super) struct Owed {
    due: Mutex<BTreeMap<Key, Due>>,
    /// Number of logouts without an id so far.
    leaves: AtomicU64,
    added: Notify,
}

/// Identifies an owed end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The id of the session: an end that is repeated is owed once.
    Session(String),
    /// The number of a logout without an id. Two of them may mean two sessions, even in the same
    /// millisecond.
    Leave(u64),
}

impl Owed {
    fn key(&self, due: &Due) -> Key {
        match due {
            Due::End(id, _) => Key::Session(id.clone()),
            Due::Undo(session, _) => Key::Session(session.id.clone()),
            Due::Leave(_) => Key::Leave(self.leaves.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Register {
    /// Keeps an end until the register takes it.
    pub(super) fn owe(&self, due: Due) {
        let mut all = self.owed.due.lock();
        let key = self.owed.key(&due);
        // `Undo` includes `End`: the session must not be open at all.
        let is_less = matches!((&due, all.get(&key)), (Due::End(..), Some(Due::Undo(..))));
        if all.len() >= MOST && !all.contains_key(&key) {
            let line = Line::new("sessions")
                .with("problem", format!("{MOST} ends of sessions wait for the register already"))
                .with(
                    "advice",
                    "if `motion-ad sessions list` shows sessions that are over, end them with `motion-ad \
                     sessions end`",
                );
            self.log.complain(Level::Error, "owed", line);
        } else if !is_less {
            all.insert(key, due);
        }
        drop(all);
        self.owed.added.notify_one();
    }

    /// Makes the owed ends until the register rejects one. Returns true if none is left.
    pub(super) async fn settle(&self) -> bool {
        let keys: Vec<Key> = self.owed.due.lock().keys().cloned().collect();
        for key in keys {
            let Some(due) = self.owed.due.lock().get(&key).cloned() else { continue };
            if self.make(&due).await.is_err() {
                return false;
            }
            self.owed.due.lock().remove(&key);
        }
        self.owed.due.lock().is_empty()
    }

    /// Returns the number of owed ends.
    #[cfg(test)]
    pub(super) fn owed_now(&self) -> usize {
        self.owed.due.lock().len()
    }

    async fn make(&self, due: &Due) -> Result<(), StoreError> {
        let deadline = Instant::now() + CALL;
        let (id, ended) = match due {
            Due::Undo(session, ended) => {
                let undone = self.written(self.store.undo(session, ended, deadline).await)?;
                undone.evicted.iter().for_each(|session| self.tell(session));
                self.tell_end(&undone.closed, ended);
                return Ok(());
            }
            Due::End(id, ended) => (Some(id.clone()), ended),
            Due::Leave(left) => {
                let mut open = self.all(&left.which, deadline).await?;
                // This logout cannot mean a session that was opened later.
                open.retain(|session| session.since <= left.ended.at);
                (newest(open, &left.request, &left.peer, |session| self.is_ours(session)), &left.ended)
            }
        };
        if let Some(id) = id {
            let closed = self.written(self.store.close(&id, ended, deadline).await)?;
            self.tell_end(&closed, ended);
        }
        Ok(())
    }

    /// Logs the end of a session once, and returns true if this end is the one that counts. An earlier call,
    /// whose reply was lost, may have made it.
    pub(super) fn tell_end(&self, closed: &Closed, ended: &Ended) -> bool {
        match closed {
            Closed::Now(session) => self.tell(session),
            Closed::Earlier(session) if session.ended.as_ref() == Some(ended) => self.tell(session),
            Closed::Earlier(_) | Closed::Unknown => return false,
        }
        true
    }
}

/// Makes owed ends until the broker stops: when one is added, and whenever the register is reachable again.
pub(super) async fn keep(register: Arc<Register>) -> supervise::Ended {
    let mut changes = register.store.changes();
    loop {
        changes.mark_unchanged();
        if register.settle().await {
            register.owed.added.notified().await;
            continue;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = sleep(PAUSE) => {}
        }
    }
}
