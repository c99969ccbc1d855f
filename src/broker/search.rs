//! Searches of the LDAP bridge's clients: few at once, no longer than a login page waits, and on a separate
//! connection, so that logins do not wait for them.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Broker;
use crate::log::{Level, Line};
use crate::protocol::search::{Found, Search, code};
use crate::protocol::{Peer, Reply};

/// Maximum number of concurrent searches.
pub(super) const AT_ONCE: usize = 8;
/// Maximum duration of one search, whatever the deadline of its request.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest time that a search waits for its turn.
const TURN: Duration = Duration::from_secs(2);

impl Broker {
    /// Runs `search` in the directory.
    pub(super) async fn search(&self, search: &Search, deadline: Instant, peer: &Peer) -> Reply {
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
                    Found::failed(code::BUSY, format!("{AT_ONCE} searches are running already"))
                }
            },
        };
        // Only faults of the server are logged: a client sees its own errors, and an empty result is no
        // fault.
        if let code::TIME_LIMIT_EXCEEDED | code::BUSY | code::UNAVAILABLE | code::OTHER = found.code {
            let line = Line::new("search").with("peer", peer).with("problem", &found.text);
            let line = line.with("base", &search.base).with("ldap_result", found.code);
            self.log.complain(Level::Warning, &format!("search {}", found.code), line);
        }
        Reply::Found(Box::new(found))
    }
}
