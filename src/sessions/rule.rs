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
    use proptest::prelude::*;

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

    /// What happens to the sessions of one user.
    #[derive(Clone, Debug)]
    enum Step {
        Open(Admission),
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let limit = (1_usize..5).prop_map(|limit| NonZeroUsize::new(limit).unwrap());
        let admission = prop_oneof![
            limit.clone().prop_map(Admission::Replace),
            limit.prop_map(Admission::Deny),
            Just(Admission::Unlimited),
        ];
        prop::collection::vec(prop_oneof![3 => admission.prop_map(Step::Open), 1 => Just(Step::Close)], 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn after_every_login_the_limit_holds_and_no_session_ends_needlessly(steps in steps()) {
            let mut open = 0_usize;
            for step in steps {
                let before = open;
                match step {
                    Step::Close => open = open.saturating_sub(1),
                    Step::Open(admission) => match admission.decide(before) {
                        Decision::Enter { evict } => {
                            prop_assert!(evict <= before);
                            open = before - evict + 1;
                            match admission {
                                Admission::Replace(limit) => {
                                    prop_assert_eq!(open, limit.get().min(before + 1));
                                }
                                Admission::Deny(limit) => {
                                    prop_assert!(evict == 0 && open <= limit.get());
                                }
                                Admission::Unlimited => prop_assert_eq!(evict, 0),
                            }
                        }
                        // Only Deny denies, and only at the limit.
                        Decision::Denied => match admission {
                            Admission::Deny(limit) => prop_assert!(before >= limit.get()),
                            other => prop_assert!(false, "{:?} denied", other),
                        },
                    },
                }
            }
        }
    }
}
