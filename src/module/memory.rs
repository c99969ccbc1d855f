//! What a PAM handle remembers between authenticate and acct_mgmt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::code::settles_account;
use crate::verdict::Outcome;

/// How long `acct_mgmt` may repeat what authenticate was told.
const VALIDITY: Duration = Duration::from_secs(60);

/// The outcome of the last authentication on this handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// PAM_USER as it was then; the application may change it between the calls.
    pub user: String,
    /// The broker that was asked; another line of the stack may name another one.
    pub socket: PathBuf,
    /// What it answered.
    pub outcome: Outcome,
    /// When, by the monotonic clock.
    pub at: Duration,
}

impl Memory {
    /// The outcome, if it still answers the question that `acct_mgmt` asks.
    pub fn answers(&self, user: &str, socket: &Path, now: Duration) -> Option<Outcome> {
        let fresh = now.checked_sub(self.at).is_some_and(|age| age <= VALIDITY);
        (fresh && self.user == user && self.socket == socket && settles_account(self.outcome))
            .then_some(self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn memory(outcome: Outcome) -> Memory {
        Memory { user: "john".into(), socket: "/run/a".into(), outcome, at: 100 * SECOND }
    }

    #[test]
    fn it_answers_for_the_same_person_and_broker_for_a_minute() {
        let (socket, memory) = (Path::new("/run/a"), memory(Outcome::Success));
        assert_eq!(memory.answers("john", socket, 100 * SECOND), Some(Outcome::Success));
        assert_eq!(memory.answers("john", socket, 160 * SECOND), Some(Outcome::Success));
        assert_eq!(memory.answers("john", socket, 161 * SECOND), None);
        assert_eq!(memory.answers("john", socket, 99 * SECOND), None, "from the future");
        assert_eq!(memory.answers("John", socket, 100 * SECOND), None);
        assert_eq!(memory.answers("john", Path::new("/run/b"), 100 * SECOND), None);
    }

    #[test]
    fn a_wrong_password_says_nothing_about_the_account() {
        let socket = Path::new("/run/a");
        assert_eq!(memory(Outcome::WrongPassword).answers("john", socket, 100 * SECOND), None);
        assert_eq!(memory(Outcome::Disabled).answers("john", socket, 100 * SECOND), Some(Outcome::Disabled));
    }
}
