//! Separate threads for libkrb5's work, which is milliseconds of cryptography.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// Maximum number of threads, enough to keep several processors busy. A queued call waits only for
/// milliseconds, because none of this work waits for the network.
pub const THREADS: usize = 8;

static GATE: Semaphore = Semaphore::const_new(THREADS);

/// Reason why the work has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// The deadline passed.
    Late,
    /// It panicked, or the runtime is ending.
    Failed,
}

/// Runs `work` outside the runtime. It finishes even if the caller has given up.
pub(super) async fn run<T, F>(deadline: Instant, work: F) -> Result<T, Unfinished>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let turn = async {
        let permit = GATE.acquire().await.map_err(|_| Unfinished::Failed)?;
        let thread = spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        thread.await.map_err(|_| Unfinished::Failed)
    };
    timeout_at(deadline, turn).await.unwrap_or(Err(Unfinished::Late))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_beyond_the_threads_waits_and_everybody_keeps_the_deadline() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let hang = || {
            RUNNING.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
        };
        let deadline = Instant::now() + Duration::from_millis(50);
        let all: Vec<_> = (0..2 * THREADS).map(|_| tokio::spawn(run(deadline, hang))).collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Err(Unfinished::Late));
        }
        assert_eq!(RUNNING.load(Ordering::SeqCst), THREADS);
        let later = Instant::now() + Duration::from_secs(5);
        assert_eq!(run(later, || 7).await, Ok(7));
    }
}
