//! The register of sessions, read from the broker's socket.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use motion_ad::protocol::report::{EndReason, Event, Events, Session};
use motion_ad::protocol::{Operation, Reply, Request, Secret, VERSION, receive, send};

use crate::lab::{Lab, wait};
use crate::report::{Check, equal};

const SOCKET: &str = "/run/motion-ad/broker.sock";
/// Maximum time that the broker may need for a list.
const PATIENCE: Duration = Duration::from_secs(20);
/// Wait for events that already exist.
const AT_ONCE: Duration = Duration::from_millis(400);

fn ask(lab: &Lab, request: &Request) -> Result<Reply, String> {
    let io = |e: std::io::Error| format!("{SOCKET}: {e}");
    let mut stream = UnixStream::connect(lab.live_path(SOCKET)?).map_err(io)?;
    stream.set_read_timeout(Some(request.remaining() + PATIENCE)).map_err(io)?;
    equal("the protocol's version", request.version, VERSION)?;
    send(&mut stream, request, &Secret::default()).map_err(|e| e.to_string())?;
    receive(&mut stream).map(|(reply, _)| reply).map_err(|e| e.to_string())
}

/// Returns all open sessions, in the order of their opening.
pub fn open(lab: &Lab) -> Result<Vec<Session>, String> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let request = Request::new(Operation::ListSessions { cursor }, "", PATIENCE);
        match ask(lab, &request)? {
            Reply::Sessions(page) => {
                all.extend(page.list);
                cursor = page.next;
            }
            other => return Err(format!("the list of sessions is {other:?}")),
        }
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Returns the open sessions of the user with this sAMAccountName.
pub fn of(lab: &Lab, sam: &str) -> Result<Vec<Session>, String> {
    let principal = format!("{sam}@acme.com");
    Ok(open(lab)?.into_iter().filter(|session| session.principal == principal).collect())
}

/// Returns a session, open or ended.
pub fn show(lab: &Lab, id: &str) -> Result<Session, String> {
    let request = Request::new(Operation::ShowSession { session: id.to_owned() }, "", PATIENCE);
    match ask(lab, &request)? {
        Reply::Sessions(page) => page.list.into_iter().next().ok_or_else(|| format!("no session {id}")),
        other => Err(format!("session {id} is {other:?}")),
    }
}

/// Returns the reason why a session ended; `None` while it is open.
pub fn end_of(lab: &Lab, id: &str) -> Result<Option<EndReason>, String> {
    Ok(show(lab, id)?.ended.map(|ended| ended.reason))
}

/// Ends every open session.
pub fn clear(lab: &Lab) -> Check {
    for session in open(lab)? {
        lab.host("root", &["motion-ad", "sessions", "end", &session.id], "").ok()?;
    }
    equal("open sessions", open(lab)?.len(), 0)
}

/// Returns a cursor at the current end of the events.
pub fn now(lab: &Lab) -> Result<String, String> {
    Ok(watch(lab, None)?.cursor)
}

/// Returns the events after `cursor`.
pub fn since(lab: &Lab, cursor: &str) -> Result<Vec<Event>, String> {
    let (mut all, mut cursor) = (Vec::new(), cursor.to_owned());
    loop {
        let events = watch(lab, Some(cursor))?;
        equal("a gap in the events", events.gap, false)?;
        if events.list.is_empty() {
            return Ok(all);
        }
        all.extend(events.list);
        cursor = events.cursor;
    }
}

fn watch(lab: &Lab, cursor: Option<String>) -> Result<Events, String> {
    let mut last = Err("no answer".to_owned());
    // A busy machine may need more time, even for events that already exist.
    for patience in [AT_ONCE, PATIENCE] {
        let request = Request::new(Operation::WatchSessions { cursor: cursor.clone() }, "", patience);
        last = match ask(lab, &request)? {
            Reply::Events(events) => return Ok(*events),
            other => Err(format!("the events are {other:?}")),
        };
    }
    last
}

/// Waits until the session has ended, and checks the reason.
pub fn ends(lab: &Lab, id: &str, reason: EndReason, within: Duration) -> Check {
    wait(within, || match end_of(lab, id)? {
        None => Err(format!("session {id} is still open")),
        Some(seen) => Ok(seen),
    })
    .and_then(|seen| equal(id, seen, reason))
}

/// Checks the events of one user's logins that all replaced each other. Exactly one session is open, and an
/// event reported the end of each of the others. `known` are the sessions that applications received. Returns
/// the open one.
pub fn one_remains(events: &[Event], open: &[Session], known: &[String]) -> Result<String, String> {
    let [last] = open else {
        return Err(format!("{} sessions are open: {open:?}", open.len()));
    };
    let mut told = BTreeMap::new();
    let mut began = BTreeSet::new();
    let mut current: Option<&Session> = None;
    for Event { session, .. } in events {
        match &session.ended {
            // The end of a session is reported before its successor begins.
            None => {
                began.insert(&session.id);
                if let Some(before) = current.replace(session) {
                    return Err(format!("{} came in beside {}", session.id, before.id));
                }
            }
            Some(ended) => {
                // The store did not get the session, or lost it before it answered; then it was undone.
                let never_came_in = ended.reason == EndReason::Unconfirmed && !began.contains(&session.id);
                if !never_came_in {
                    equal(
                        &format!("who ends ({}) is who was in", ended.reason.name()),
                        current.take().map(|session| &session.id),
                        Some(&session.id),
                    )?;
                }
                if told.insert(session.id.clone(), ended.reason).is_some() {
                    return Err(format!("{} ended twice", session.id));
                }
            }
        }
    }
    equal("who came in last", current.map(|session| &session.id), Some(&last.id))?;
    for id in known.iter().filter(|id| **id != last.id) {
        equal(&format!("why {id} ended"), told.get(id).copied(), Some(EndReason::Replaced))?;
    }
    Ok(last.id.clone())
}
