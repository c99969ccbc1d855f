//! A session that a bind registered, by `session=auth` on a line of the PAM service. It stays only if the
//! bind succeeds and the client receives the reply: LDAP has no logout, so nothing else would end it.

use tokio::task::block_in_place;

use super::Bridge;
use crate::log::{Level, Line};
use crate::protocol::Peer;

/// A session that a bind registered.
#[derive(Debug)]
pub struct Session {
    /// The name that PAM checked.
    pub user: String,
    /// Its id.
    pub id: String,
}

impl Session {
    /// Ends the session, and logs that with its reason.
    pub async fn end(self, bridge: &Bridge, peer: Peer, reason: &str) {
        let _place = bridge.threads.acquire().await;
        let ended = block_in_place(|| bridge.logins.end(&self.user, &self.id));
        let line = Line::new("bridge")
            .with("session", &self.id)
            .with("user", &self.user)
            .with("reason", reason)
            .with("peer", peer);
        let (level, line) = match ended {
            Ok(()) => (Level::Info, line.with("consequence", "the session of this bind has ended")),
            Err(problem) => {
                let advice = format!(
                    "if `motion-ad sessions list` still shows it, end it with `motion-ad sessions end {}`",
                    self.id
                );
                let problem = format!("the session of this bind could not be ended: {problem}");
                (Level::Error, line.with("problem", problem).with("advice", advice))
            }
        };
        bridge.log.write(level, &line);
    }
}
