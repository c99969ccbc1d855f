//! State that the attempts of one login at several domain controllers share, and the error if none of them
//! answers.

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::PoolError;
use crate::patience::Sending;

/// Maximum number of binds sent for one login. AD may have counted a bind that got no answer, so few are
/// repeated.
const BINDS: usize = 3;

/// State that the attempts of a login at several domain controllers share.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) sending: Sending,
    pub(super) tried: Mutex<Tried>,
}

/// The attempts of a login so far.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) binds: usize,
    /// Domain controllers that got a bind and have not answered it.
    pub(super) unanswered: Vec<String>,
    /// Domain controllers that got a bind, with the time.
    pub(super) sent: Vec<(String, Instant)>,
    pub(super) causes: Vec<String>,
    pub(super) no_tls: bool,
    /// True if a domain controller takes no simple binds.
    pub(super) blocked: bool,
    /// Binds that were answered without a check of the password.
    pub(super) uncounted: usize,
}

impl Tried {
    /// Notes that a bind goes to `host`; returns false if the maximum was already sent.
    pub(super) fn send(&mut self, host: &str) -> bool {
        if self.binds == BINDS {
            return false;
        }
        self.binds += 1;
        self.unanswered.push(host.to_owned());
        self.sent.push((host.to_owned(), Instant::now()));
        true
    }

    /// Notes that `host` answered its last bind.
    pub(super) fn answered(&mut self, host: &str) {
        if let Some(at) = self.unanswered.iter().rposition(|known| known == host) {
            self.unanswered.remove(at);
        }
    }

    /// Returns the time when `host` last got a bind.
    pub(super) fn sent(&self, host: &str) -> Option<Instant> {
        self.sent.iter().rev().find(|(known, _)| known == host).map(|(_, at)| *at)
    }

    pub(super) fn error(self) -> PoolError {
        let causes = match self.causes.is_empty() {
            true => "the deadline had passed".to_owned(),
            false => self.causes.join("; "),
        };
        // No domain controller may have counted the password.
        let is_unsent = self.binds == self.uncounted;
        match (is_unsent, self.blocked, self.no_tls) {
            (true, true, _) => PoolError::NoBinds(causes),
            (true, false, true) if self.binds == 0 => PoolError::NoTls(causes),
            _ => PoolError::Unanswered(causes),
        }
    }
}

pub(super) fn lock(attempts: &Attempts) -> MutexGuard<'_, Tried> {
    attempts.tried.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_is_only_said_where_no_bind_was_sent() {
        let tried =
            |binds, no_tls| Tried { binds, no_tls, causes: vec!["x".into()], ..Tried::default() }.error();
        assert_eq!(tried(0, true), PoolError::NoTls("x".into()));
        assert_eq!(tried(1, true), PoolError::Unanswered("x".into()));
        assert_eq!(tried(0, false), PoolError::Unanswered("x".into()));
    }
}
