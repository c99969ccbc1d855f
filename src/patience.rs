//! How long a login waits for one domain controller before it asks the next one beside it. Without I/O and clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// One domain controller has so long, from the first packet to the answer, while there is another to ask.
pub const ATTEMPT: Duration = Duration::from_millis(800);

/// Those that a login could still turn to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// There are none.
    None,
    /// There are some, and each is known to have failed.
    Failed,
    /// One of them is worth the change.
    Better,
}

impl Others {
    /// By whether the one that is waited for, and each of `others`, is known to have failed.
    pub fn new(failed: bool, others: impl IntoIterator<Item = bool>) -> Self {
        let mut found = Others::None;
        for other_failed in others {
            // Of two that failed neither is better, but the first had its chance.
            if failed || !other_failed {
                return Others::Better;
            }
            found = Others::Failed;
        }
        found
    }
}

/// Whether a login stays with a domain controller that has not answered it for [`ATTEMPT`], and looks again after as
/// long; `left` is what is left until the deadline. One that answers other logins meanwhile is slow and not dead.
pub fn stays(answers_others: bool, others: Others, left: Duration) -> bool {
    match others {
        _ if left.is_zero() => false,
        Others::None => true,
        _ if answers_others => true,
        Others::Better => false,
        // The last moments belong to those that failed before: one of them may be back.
        Others::Failed => left > ATTEMPT,
    }
}

/// The first of the attempts of one login that ends: its place, and what became of it.
pub async fn first_of<A, F: Future>(
    attempts: &mut [A],
    future: impl Fn(&mut A) -> &mut Pin<Box<F>>,
) -> (usize, F::Output) {
    poll_fn(|context| {
        let ended = attempts.iter_mut().enumerate().find_map(|(index, attempt)| {
            match future(attempt).as_mut().poll(context) {
                Poll::Ready(result) => Some((index, result)),
                Poll::Pending => None,
            }
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_is_better_and_so_is_anybody_after_a_failure() {
        let cases: [(bool, &[bool], Others); 7] = [
            (false, &[], Others::None),
            (true, &[], Others::None),
            (false, &[false], Others::Better),
            (false, &[true], Others::Failed),
            (false, &[true, true, false], Others::Better),
            (true, &[true], Others::Better),
            (true, &[false], Others::Better),
        ];
        for (failed, others, expected) in cases {
            assert_eq!(Others::new(failed, others.iter().copied()), expected, "{failed} {others:?}");
        }
    }

    #[test]
    fn silence_is_left_for_who_works_and_in_the_end_for_anybody() {
        let (much, little) = (ATTEMPT * 3, ATTEMPT);
        let cases = [
            (false, Others::None, much, true),
            (false, Others::None, little, true),
            (false, Others::Better, much, false),
            (true, Others::Better, little, true),
            (false, Others::Failed, much, true),
            (false, Others::Failed, little, false),
            (true, Others::Failed, little, true),
            (true, Others::None, Duration::ZERO, false),
        ];
        for (answers_others, others, left, expected) in cases {
            assert_eq!(stays(answers_others, others, left), expected, "{answers_others} {others:?} {left:?}");
        }
    }
}
