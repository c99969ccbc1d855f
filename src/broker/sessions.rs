//! Requests about sessions: opens and closes them, and replies to queries.

use std::time::Instant as Begun;

use tokio::time::Instant;

use super::Broker;
use super::service::Service;
use crate::config::OnStoreFailure;
use crate::log::{Level, Line, Log};
use crate::login::decision::Decision;
use crate::login::refusal::Refusal;
use crate::protocol::Peer;
use crate::protocol::report::Session;
use crate::protocol::{Reply, Request};
use crate::sessions::store::{Closed, StoreError, Which};
use crate::sessions::{Newcomer, NotOpened};
use crate::verdict::{Outcome, Step, Verdict};

/// Maximum number of sessions that the reason for a denial names.
const NAMED: usize = 5;

impl Service {
    /// Registers the session of the user whom `decision` grants access. If that fails, `decision` becomes a
    /// rejection.
    pub(super) async fn open_session(
        &self,
        mut decision: Decision,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
        log: &Log,
    ) -> Decision {
        let begun = Begun::now();
        let opened = self.try_open(&decision, request, peer, deadline).await;
        let verdict = &mut decision.verdict;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        verdict.steps.push(Step { name: "session".to_owned(), micros });
        let refusal = match opened {
            Ok(session) => {
                verdict.session = Some(session.id);
                return decision;
            }
            Err(refusal) => refusal,
        };
        let is_allowed = self.register.settings().on_store_failure == OnStoreFailure::Allow;
        match refusal.outcome == Outcome::SessionStore && is_allowed {
            true => {
                let line = Line::new("session_open").with("user", &request.user);
                let line = line.with("principal", verdict.principal.as_deref().unwrap_or_default());
                let line = line.with("problem", refusal.reason);
                let line = line
                    .with("consequence", "access was granted without a session (sessions.on_store_failure)");
                log.write(Level::Error, &line);
            }
            false => {
                verdict.outcome = refusal.outcome;
                verdict.reason = refusal.reason;
            }
        }
        decision
    }

    async fn try_open(
        &self,
        decision: &Decision,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Session, Refusal> {
        let (Some(person), Some(principal)) = (&decision.person, &decision.verdict.principal) else {
            return Err(Refusal::new(Outcome::Unavailable, "the account of this session is unknown"));
        };
        let is_exempt = self.logins.directory.is_exempt(person, deadline).await?;
        let newcomer = Newcomer { principal: principal.clone(), guid: person.guid, is_exempt };
        let opened = self.register.open(&newcomer, request, peer, deadline).await;
        opened.map_err(|error| match error {
            NotOpened::Denied(open) => Refusal::new(Outcome::SessionDenied, in_the_way(&open)),
            NotOpened::Store(error) => error.into(),
        })
    }

    /// Ends the session with this id; without one, the newest session that `request` means.
    pub(super) async fn close_session(
        &self,
        session: Option<&str>,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
    ) -> Decision {
        let closed = match session {
            Some(id) => self.register.close_for(id, deadline).await.map_err(Refusal::from),
            None => self.close_newest(request, peer, deadline).await,
        };
        Decision { verdict: told(closed), text: None, dc: None, method: None, person: None, binds_off: false }
    }

    async fn close_newest(
        &self,
        request: &Request,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Closed, Refusal> {
        let by_name = Which::Principal(self.principal(&request.user, deadline).await?);
        let closed = self.register.close_newest(by_name, request, peer, deadline).await?;
        if closed != Closed::Unknown {
            return Ok(closed);
        }
        // The session may have been opened under another name of the account.
        let Decision { person, verdict, .. } = self.logins.identify(&request.user, half(deadline)).await;
        match person {
            Some(person) => {
                let by_account = Which::Guid(person.guid.to_string());
                Ok(self.register.close_newest(by_account, request, peer, deadline).await?)
            }
            None if verdict.outcome == Outcome::UnknownUser => Ok(Closed::Unknown),
            None => {
                let reason = format!(
                    "no session is open under this name, and it is unknown whether one is open under \
                     another name of the account: {}",
                    verdict.reason
                );
                Err(Refusal::new(verdict.outcome, reason))
            }
        }
    }

    async fn principal(&self, name: &str, deadline: Instant) -> Result<String, Refusal> {
        let logins = &self.logins;
        Ok(logins.directory.principal(&logins.names, name, deadline).await??.to_string())
    }

    /// Returns the selection for a list: all sessions, or those of the account that `user` names. If AD does
    /// not know the name or does not reply, selects the sessions with the same principal.
    async fn which(&self, user: &str, deadline: Instant) -> Result<Which, Refusal> {
        if user.is_empty() {
            return Ok(Which::All);
        }
        match self.logins.identify(user, half(deadline)).await.person {
            Some(person) => Ok(Which::Guid(person.guid.to_string())),
            None => Ok(Which::Principal(self.principal(user, half(deadline)).await?)),
        }
    }
}

impl Broker {
    /// Evicts a session. The register logs the eviction, as it logs every other one.
    pub(super) async fn kick_session(&self, session: &str, peer: &Peer, deadline: Instant) -> Reply {
        let service = match &self.service {
            Ok(service) => service,
            Err(error) => return Reply::Verdict(Decision::from(error).verdict),
        };
        let closed = service.register.kick(session, peer, deadline).await;
        Reply::Verdict(told(closed.map_err(Refusal::from)))
    }

    /// Replies with a page of the open sessions, after `cursor`: of `user`, or of all if that is empty.
    pub(super) async fn list_sessions(&self, user: &str, cursor: Option<&str>, deadline: Instant) -> Reply {
        let service = match &self.service {
            Ok(service) => service,
            Err(error) => return Reply::Verdict(Decision::from(error).verdict),
        };
        let which = match service.which(user, deadline).await {
            Ok(which) => which,
            Err(refusal) => return Reply::Verdict(Verdict::new(refusal.outcome, refusal.reason)),
        };
        let page = service.register.list(&which, cursor, deadline).await;
        page.map_or_else(failed, |page| Reply::Sessions(Box::new(page)))
    }

    /// Replies with one session, open or ended.
    pub(super) async fn show_session(&self, id: &str, deadline: Instant) -> Reply {
        match &self.service {
            Ok(service) => {
                let found = service.register.show(id, deadline).await;
                found.map_or_else(failed, |found| Reply::Sessions(Box::new(found)))
            }
            Err(error) => Reply::Verdict(Decision::from(error).verdict),
        }
    }

    /// Replies with the next events of sessions, after `cursor`.
    pub(super) async fn watch_sessions(&self, cursor: Option<&str>, deadline: Instant) -> Reply {
        let service = match &self.service {
            Ok(service) => service,
            Err(error) => return Reply::Verdict(Decision::from(error).verdict),
        };
        match service.register.watch(cursor, deadline).await {
            Ok(Some(events)) => Reply::Events(Box::new(events)),
            Ok(None) => {
                let reason = "too many requests wait for events of sessions already";
                Reply::Verdict(Verdict::new(Outcome::Unavailable, reason))
            }
            Err(error) => failed(error),
        }
    }
}

/// Returns the reply to a query that the register did not answer.
fn failed(error: StoreError) -> Reply {
    match error {
        StoreError::Cursor(_) => Reply::Refused(error.to_string()),
        error => {
            let refusal = Refusal::from(error);
            Reply::Verdict(Verdict::new(refusal.outcome, refusal.reason))
        }
    }
}

/// Returns the deadline for AD, which may be silent: the other half of the time is for the register.
fn half(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// Returns the verdict on the end of a session; it names no session if there is none with that id.
fn told(closed: Result<Closed, Refusal>) -> Verdict {
    match closed {
        Ok(Closed::Now(session)) => ended(session, ""),
        Ok(Closed::Earlier(session)) => ended(session, "it had ended already"),
        Ok(Closed::Unknown) => Verdict::new(Outcome::Success, "no such session is open"),
        Err(refusal) => Verdict::new(refusal.outcome, refusal.reason),
    }
}

fn ended(session: Session, reason: &str) -> Verdict {
    Verdict {
        principal: Some(session.principal),
        session: Some(session.id),
        ..Verdict::new(Outcome::Success, reason)
    }
}

/// Returns the reason why a session is denied. It names only a few sessions: a reply must fit into a frame.
fn in_the_way(open: &[Session]) -> String {
    let place = |session: &Session| format!("{} on {} by {}", session.id, session.host, session.service);
    let places: Vec<_> = open.iter().take(NAMED).map(place).collect();
    let more = match open.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("logged in already: {}{more}", places.join(", "))
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::new(Outcome::SessionStore, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Secret, encode};

    fn session(id: usize, text: &str) -> Session {
        Session { id: id.to_string(), host: text.into(), service: text.into(), ..Session::default() }
    }

    #[test]
    fn a_denial_names_a_few_sessions_and_counts_the_others() {
        let open: Vec<_> = (1..=7).map(|id| session(id, "x")).collect();
        assert_eq!(in_the_way(&open[..2]), "logged in already: 1 on x by x, 2 on x by x");
        assert!(in_the_way(&open).ends_with("5 on x by x and 2 more"), "{}", in_the_way(&open));
        // A control character is the longest one in JSON.
        let open: Vec<_> = (0..5000).map(|id| session(id, &"\u{1}".repeat(255))).collect();
        let verdict = Verdict::new(Outcome::SessionDenied, in_the_way(&open));
        assert!(encode(&Reply::Verdict(verdict), &Secret::default()).is_ok());
    }
}
