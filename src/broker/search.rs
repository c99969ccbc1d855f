//! Searches of the LDAP bridge's clients: few at once, for no longer than a login page waits, and on a connection of their
//! own, so that logins do not wait for them.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Broker;
use super::log::{Level, Line};
use super::peers::Peer;
use crate::protocol::search::{Found, code};
use crate::protocol::{Reply, Request};

/// Searches that are answered at the same time.
pub(super) const AT_ONCE: usize = 8;
/// One search, whatever the deadline of its request says.
const LONGEST: Duration = Duration::from_secs(10);
/// A search waits for its turn.
const TURN: Duration = Duration::from_secs(2);

impl Broker {
    /// What the directory has for `request.search`.
    pub(super) async fn search(&self, request: &Request, deadline: Instant, peer: &Peer) -> Reply {
        let Some(search) = &request.search else {
            return Reply::Refused("the request says nothing to search for".to_owned());
        };
        let now = Instant::now();
        let deadline = deadline.min(now + LONGEST);
        let found = match (&self.service, self.problem()) {
            (Err(error), _) => Found::failed(code::UNAVAILABLE, error.to_string()),
            (Ok(_), Some(problem)) => Found::failed(code::UNAVAILABLE, problem),
            (Ok(service), None) => match timeout_at(deadline.min(now + TURN), self.searching.acquire()).await
            {
                Ok(Ok(_turn)) => {
                    let logins = &service.logins;
                    logins.directory.lookup(&logins.names, search, deadline).await
                }
                Ok(Err(_)) | Err(_) => {
                    Found::failed(code::BUSY, format!("{AT_ONCE} searches are on their way"))
                }
            },
        };
        // What the client got wrong is the client's to see, and what it does not find is no fault.
        if let code::TIME_LIMIT_EXCEEDED | code::BUSY | code::UNAVAILABLE | code::OTHER = found.code {
            let line = Line::new("search").with("peer", peer).with("problem", &found.text);
            let line = line.with("base", &search.base).with("ldap_result", found.code);
            self.log.complain(Level::Warning, &format!("search {}", found.code), line);
        }
        Reply::Found(Box::new(found))
    }
}
