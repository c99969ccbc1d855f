//! Calls that block on the KDC, one at a time.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::KerberosError;

/// libkrb5 waits up to half a minute for a KDC that does not answer, and cannot be interrupted. The permit
/// stays with the running call, not with whoever waits for it, so that a hanging KDC holds one thread and not
/// one for every login that gave up.
static GATE: Semaphore = Semaphore::const_new(1);

/// Runs `work` on a thread of its own.
///
/// # Errors
/// [`KerberosError::Stalled`] when it is not done by the deadline, or did not get its turn until then.
pub(super) async fn blocking<T, F>(deadline: Instant, work: F) -> Result<T, KerberosError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let turn = async {
        let permit = GATE.acquire().await.map_err(|e| KerberosError::Other(e.to_string()))?;
        let thread = spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        thread.await.map_err(|e| KerberosError::Other(format!("a Kerberos call failed: {e}")))
    };
    timeout_at(deadline, turn).await.unwrap_or(Err(KerberosError::Stalled))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_hanging_call_costs_one_thread_and_everybody_keeps_the_deadline() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let hang = || {
            RUNNING.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
        };
        let deadline = Instant::now() + Duration::from_millis(50);
        for _ in 0..5 {
            assert_eq!(blocking(deadline, hang).await, Err(KerberosError::Stalled));
        }
        assert!(Instant::now() < deadline + Duration::from_millis(100));
        assert_eq!(RUNNING.load(Ordering::SeqCst), 1);
        let later = Instant::now() + Duration::from_secs(5);
        assert_eq!(blocking(later, || 7).await, Ok(7));
    }
}
