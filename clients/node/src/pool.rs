//! A bounded number of threads for PAM, and a bounded queue for them. libuv's own threads stay free for the
//! file and DNS calls of the application.
//!
//! A thread that was started stays. When a thread ends, it runs the destructors of modules that libpam has
//! unmapped before, and some modules crash the process then.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::call::{Call, Work};
use crate::libpam::Handle;

/// Calls of PAM at once, unless the application configures another number.
const THREADS: u32 = 16;
/// Calls that wait for a thread, unless the application configures another number.
const QUEUE: u32 = 256;

struct Pool {
    queue: VecDeque<Arc<Call>>,
    threads: u32,
    /// Threads that make a call now.
    busy: u32,
    most_busy: u32,
    most_waiting: u32,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { queue: VecDeque::new(), threads: 0, busy: 0, most_busy: THREADS, most_waiting: QUEUE });
static NEWS: Condvar = Condvar::new();

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    fn is_full(&self) -> bool {
        self.waiting().saturating_add(self.busy) >= self.most_busy.saturating_add(self.most_waiting)
    }

    /// Starts a thread if the idle ones are fewer than the waiting calls. Returns false if there is no thread
    /// at all.
    fn grow(&mut self) -> bool {
        let idle = self.threads.saturating_sub(self.busy);
        let is_wanted = self.waiting() > idle && self.threads < self.most_busy;
        if is_wanted && thread::Builder::new().name("motion-ad-client".to_owned()).spawn(work).is_ok() {
            self.threads = self.threads.saturating_add(1);
        }
        self.threads > 0
    }
}

/// Queues a call. One that finds the queue full, or no thread, ends as failed; the end of a session is always
/// queued.
pub fn submit(call: &Arc<Call>) {
    let must_be_made = call.must_be_made();
    let mut pool = pool();
    if pool.is_full() && !must_be_made {
        drop(pool);
        return call.fail();
    }
    pool.queue.push_back(Arc::clone(call));
    if !pool.grow() {
        pool.queue.pop_back();
        drop(pool);
        return call.fail();
    }
    NEWS.notify_one();
}

/// Ends the handle of a session that the application did not close.
pub fn end(handle: Handle) {
    submit(&Arc::new(Call::without_answer(Work::End { handle })));
}

/// Removes a call that was cancelled.
pub fn remove(call: &Arc<Call>) {
    pool().queue.retain(|waiting| !Arc::ptr_eq(waiting, call));
}

/// Sets the limits.
pub fn configure(threads: u32, queue: u32) {
    let mut pool = pool();
    (pool.most_busy, pool.most_waiting) = (threads.max(1), queue);
    NEWS.notify_all();
}

/// Returns the number of threads.
pub fn threads() -> u32 {
    pool().threads
}

fn work() {
    let mut state = pool();
    loop {
        let is_allowed = state.busy < state.most_busy;
        let Some(call) = is_allowed.then(|| state.queue.pop_front()).flatten() else {
            state = NEWS.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.busy = state.busy.saturating_add(1);
        drop(state);
        // A panic is a fault of this package; the call's answer is `failed`, and the thread goes on.
        drop(catch_unwind(AssertUnwindSafe(|| call.run())));
        drop(call);
        state = pool();
        state.busy = state.busy.saturating_sub(1);
    }
}
