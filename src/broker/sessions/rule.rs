//! How many sessions a person may have: whether a newcomer comes in, and who has to go. Pure.

use std::num::NonZeroUsize;

/// What holds for one newcomer: `sessions.policy` with `sessions.limit`, the exemptions already applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Comes in, whatever is open.
    Unlimited,
    /// Comes in, and takes the place of the oldest above so many.
    Replace(NonZeroUsize),
    /// Comes in while fewer than so many are open.
    Deny(NonZeroUsize),
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Comes in, and so many of the person's open sessions end, those that were opened first.
    Enter {
        /// How many.
        evict: usize,
    },
    /// Does not come in.
    Denied,
}

impl Admission {
    /// Decides about a newcomer who has `open` sessions already.
    pub fn decide(self, open: usize) -> Decision {
        match self {
            Admission::Unlimited => Decision::Enter { evict: 0 },
            // A limit that was lowered meanwhile ends more than one.
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
