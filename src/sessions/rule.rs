//! The limit on sessions per user: whether a new session is admitted, and which ones end for it. Pure.

use std::num::NonZeroUsize;

/// The rule for one new session: `sessions.policy` with `sessions.limit`, after exemptions are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Admits the session, however many are open.
    Unlimited,
    /// Admits the session and ends the oldest, so that at most this many are open.
    Replace(NonZeroUsize),
    /// Admits the session while fewer than this many are open.
    Deny(NonZeroUsize),
}

/// Decision about a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The session is admitted, and the oldest of the user's open sessions end.
    Enter {
        /// Number of sessions that end.
        evict: usize,
    },
    /// The session is rejected.
    Denied,
}

impl Admission {
    /// Decides about a new session of a user who has `open` sessions already.
    pub fn decide(self, open: usize) -> Decision {
        match self {
            Admission::Unlimited => Decision::Enter { evict: 0 },
            // More than one ends if the limit was lowered in the meantime.
            Admission::Replace(limit) => Decision::Enter { evict: (open + 1).saturating_sub(limit.get()) },
            Admission::Deny(limit) if open < limit.get() => Decision::Enter { evict: 0 },
            Admission::Deny(_) => Decision::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wins_or_is_denied_as_the_policy_says() {
        let limit = |number| NonZeroUsize::new(number).unwrap();
        let enter = |evict| Decision::Enter { evict };
        let cases = [
            (Admission::Unlimited, 0, enter(0)),
            (Admission::Unlimited, 1000, enter(0)),
            (Admission::Replace(limit(1)), 0, enter(0)),
            (Admission::Replace(limit(1)), 1, enter(1)),
            (Admission::Replace(limit(1)), 3, enter(3)),
            (Admission::Replace(limit(2)), 1, enter(0)),
            (Admission::Replace(limit(2)), 2, enter(1)),
            (Admission::Replace(limit(2)), 5, enter(4)),
            (Admission::Deny(limit(1)), 0, enter(0)),
            (Admission::Deny(limit(1)), 1, Decision::Denied),
            (Admission::Deny(limit(3)), 2, enter(0)),
            (Admission::Deny(limit(3)), 3, Decision::Denied),
            (Admission::Deny(limit(1)), 3, Decision::Denied),
        ];
        for (admission, open, decision) in cases {
            assert_eq!(admission.decide(open), decision, "{admission:?}, {open} open");
        }
    }
}
