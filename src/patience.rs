//! A login's patience with one domain controller: when it tries the next one in parallel, and which of the
//! two may send the password. No I/O.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Time for one domain controller, from the first packet to the answer, if there is another one to try.
pub const ATTEMPT: Duration = Duration::from_millis(800);

/// Number of checks that decide the usual time of one: the weight of each is one of so many parts.
const SMOOTHING: u32 = 8;

/// The other domain controllers that a login could turn to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// There are none.
    None,
    /// There are some, but each is known to have failed.
    Failed,
    /// At least one of them is worth the change.
    Better,
}

impl Others {
    /// Compares the present domain controller, which has `failed` or not, with the same fact about each of
    /// `others`.
    pub fn new(failed: bool, others: impl IntoIterator<Item = bool>) -> Self {
        let mut found = Others::None;
        for other_failed in others {
            // If all have failed, none is better, but the present one has had its chance.
            if failed || !other_failed {
                return Others::Better;
            }
            found = Others::Failed;
        }
        found
    }
}

/// Returns true if a login keeps waiting for a domain controller that has not answered for [`ATTEMPT`], and
/// checks again after the same time. `left` is the time until the deadline. A domain controller that answers
/// other logins is slow, not dead.
pub fn stays(answers_others: bool, others: Others, left: Duration) -> bool {
    match others {
        _ if left.is_zero() => false,
        Others::None => true,
        _ if answers_others => true,
        Others::Better => false,
        // The last moments belong to those that failed before: one of them may be back. At the next check,
        // less than the time for an attempt would be left.
        Others::Failed => left > ATTEMPT * 2,
    }
}

/// The usual time of a check, as the last ones took. While more logins arrive than the domain controllers
/// carry, each one waits for its turn. If those whose time is nearly over took a turn, none would end in
/// time.
#[derive(Default)]
struct Pace(Mutex<Duration>);

impl Pace {
    /// Notes that a check took so long.
    fn took(&self, time: Duration) {
        let mut usual = self.0.lock();
        *usual = (*usual * (SMOOTHING - 1) + time) / SMOOTHING;
    }

    /// Returns true if a check that begins now ends before `deadline` even if it takes half as long again as
    /// usual. The login whose turn it is has just this time left while too many arrive, so without a margin
    /// every second one would be late.
    fn fits(&self, deadline: Instant) -> bool {
        Instant::now() + *self.0.lock() * 3 / 2 < deadline
    }
}

/// The logins at one place, of which few run at once, and their usual time.
pub struct Queue {
    turns: Arc<Semaphore>,
    pace: Pace,
}

impl Queue {
    /// Returns a queue that gives out so many turns at once.
    pub fn new(turns: usize) -> Self {
        Queue { turns: Arc::new(Semaphore::new(turns)), pace: Pace::default() }
    }

    /// Waits for a turn. Returns `None` if there is none before `deadline`, or if it comes too late for a
    /// login of the usual time: one that gives up costs the domain controller as much as another one. A turn
    /// that is free needs no prediction.
    pub async fn turn(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        let turn = timeout_at(deadline, self.turns.clone().acquire_owned()).await.ok()?.ok()?;
        self.pace.fits(deadline).then_some(turn)
    }

    /// Notes that a login took so long from its turn to its end.
    pub fn took(&self, time: Duration) {
        self.pace.took(time);
    }

    /// Returns the number of turns that are free.
    pub fn free(&self) -> usize {
        self.turns.available_permits()
    }
}

/// Waits for the first attempt of a login to end, and returns its index and its result.
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

/// The right to send the password of one login, which its attempts share. While one domain controller has the
/// password, another one gets it only after [`ATTEMPT`]: a wrong password sent to two slow ones at once would
/// count twice.
#[derive(Default)]
pub struct Sending {
    /// Time of sending, for each attempt that waits for the answer.
    since: Mutex<Vec<Instant>>,
    ended: Notify,
}

impl Sending {
    /// Waits until the password may be sent. It counts as under way until the turn is dropped.
    pub async fn turn(&self) -> Turn<'_> {
        loop {
            let mut ended = pin!(self.ended.notified());
            // Enabled before the check, so that an end in between is not missed.
            ended.as_mut().enable();
            let now = Instant::now();
            let free = {
                let mut since = self.since.lock();
                match since.iter().map(|since| *since + ATTEMPT).max().filter(|free| *free > now) {
                    Some(free) => free,
                    None => {
                        since.push(now);
                        return Turn { sending: self, since: now };
                    }
                }
            };
            tokio::select! {
                () = ended => {}
                () = sleep_until(free) => {}
            }
        }
    }
}

/// The password under way to one domain controller.
pub struct Turn<'a> {
    sending: &'a Sending,
    since: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut since = self.sending.since.lock();
        if let Some(at) = since.iter().position(|since| *since == self.since) {
            since.remove(at);
        }
        drop(since);
        self.sending.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::Builder;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_password_is_on_its_way_to_one_at_a_time_unless_that_one_is_silent() {
        let sending = Sending::default();
        let begun = Instant::now();
        let first = sending.turn().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let second = sending.turn().await;
        assert_eq!(begun.elapsed(), ATTEMPT, "the first one is silent");
        // Its answer lets the next one send at once.
        let waiting = async {
            drop(sending.turn().await);
            begun.elapsed()
        };
        let ending = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop((first, second));
        };
        assert_eq!(tokio::join!(waiting, ending).0, ATTEMPT + Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_begins_only_if_the_last_ones_would_have_ended_in_time() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert!(pace.fits(now + Duration::from_millis(1)), "nothing is known yet");
        assert!(!pace.fits(now));
        for _ in 0..64 {
            pace.took(Duration::from_secs(1));
        }
        assert!(
            pace.fits(now + Duration::from_millis(1501)) && !pace.fits(now + Duration::from_millis(1400))
        );
        // A single slow one says little.
        let pace = Pace::default();
        pace.took(Duration::from_secs(4));
        assert!(pace.fits(now + Duration::from_millis(751)));
    }

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
            (false, Others::Failed, ATTEMPT * 2, false),
            (true, Others::Failed, little, true),
            (true, Others::None, Duration::ZERO, false),
        ];
        for (answers_others, others, left, expected) in cases {
            assert_eq!(stays(answers_others, others, left), expected, "{answers_others} {others:?} {left:?}");
        }
    }

    #[test]
    fn whoever_failed_before_gets_the_time_of_an_attempt_in_the_end() {
        // The module's deadline, shorter and longer ones, and those next to a check.
        for whole in [1600, 1601, 2000, 2399, 2400, 2401, 5000, 30_000].map(Duration::from_millis) {
            let mut left = whole - ATTEMPT;
            while stays(false, Others::Failed, left) {
                left -= ATTEMPT;
            }
            assert!((ATTEMPT..=ATTEMPT * 2).contains(&left), "{left:?} of {whole:?}");
        }
    }

    /// Attempts of one login: when each wants to send, and how long it then waits for its answer, in
    /// milliseconds.
    fn attempts() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let time = prop_oneof![0_u64..2000, Just(0), Just(799), Just(800), Just(801)];
        prop::collection::vec((time.clone(), time), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_password_is_under_way_once_until_its_domain_controller_was_silent(attempts in attempts()) {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let mut sent = runtime.block_on(async {
                let sending = Arc::new(Sending::default());
                let mut running = JoinSet::new();
                for (wait, answer) in attempts {
                    let sending = sending.clone();
                    running.spawn(async move {
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        let turn = sending.turn().await;
                        let begun = Instant::now();
                        tokio::time::sleep(Duration::from_millis(answer)).await;
                        drop(turn);
                        (begun, begun + Duration::from_millis(answer))
                    });
                }
                running.join_all().await
            });
            sent.sort_unstable();
            for (first, second) in sent.iter().zip(sent.iter().skip(1)) {
                prop_assert!(second.0 >= first.1.min(first.0 + ATTEMPT), "{:?}", sent);
            }
        }

        #[test]
        fn the_order_of_the_others_does_not_matter(
            failed: bool, mut others in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let answer = Others::new(failed, others.iter().copied());
            others.sort_unstable();
            prop_assert_eq!(Others::new(failed, others.iter().copied()), answer);
            others.reverse();
            prop_assert_eq!(Others::new(failed, others.iter().copied()), answer);
            prop_assert_eq!(answer == Others::None, others.is_empty());
        }

        /// Whoever stays with more time left may leave with less, and never the other way round.
        #[test]
        fn patience_only_shrinks_with_the_time_left(
            answers: bool, which in 0..3, one in 0_u64..5000, other in 0_u64..5000,
        ) {
            let others = match which { 0 => Others::None, 1 => Others::Failed, _ => Others::Better };
            let (less, more) = (Duration::from_millis(one.min(other)), Duration::from_millis(one.max(other)));
            prop_assert!(!stays(answers, others, less) || stays(answers, others, more));
            prop_assert!(!stays(answers, others, Duration::ZERO));
        }
    }
}
