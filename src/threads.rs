//! A runtime whose threads all start with the process, so that no login needs a new one.
//!
//! Without a thread to start, tokio panics, and Rust's standard library ends the process if a new thread gets
//! no memory for its signal stack. Here that can happen only before the process is ready.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Runtime};

/// Number of threads that run tasks.
const WORKERS: usize = 2;
/// Maximum time until all threads have started.
const START: Duration = Duration::from_secs(10);

/// Returns a runtime with `blocking` threads for work that blocks. All of them run, and none ends before the
/// runtime does. Work beyond them waits for one of them.
///
/// # Errors
/// Returns an error that names the cause if a thread cannot be started.
pub fn runtime(blocking: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(blocking).thread_keep_alive(Duration::MAX);
    let built = || {
        let runtime = builder.enable_all().build()?;
        start(&runtime, blocking).map(|()| runtime)
    };
    // tokio panics if it has no thread yet.
    catch_unwind(AssertUnwindSafe(built)).unwrap_or_else(|_| Err(missing(0, blocking)))
}

/// Starts all threads: each waits until the last one runs.
fn start(runtime: &Runtime, blocking: usize) -> io::Result<()> {
    let (runs, running) = channel();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    for _ in 0..blocking {
        let (runs, gate) = (runs.clone(), gate.clone());
        runtime.spawn_blocking(move || {
            let _ = runs.send(());
            let (is_open, opened) = &*gate;
            opened.wait_while(&mut is_open.lock(), |is_open| !*is_open);
        });
    }
    let deadline = Instant::now() + START;
    let started = (0..blocking)
        .take_while(|_| running.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok())
        .count();
    *gate.0.lock() = true;
    gate.1.notify_all();
    if started == blocking { Ok(()) } else { Err(missing(started, blocking)) }
}

fn missing(started: usize, all: usize) -> io::Error {
    io::Error::other(format!(
        "only {started} of {all} threads could be started: raise TasksMax= or LimitNPROC= of the unit, or \
         free memory"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Returns the threads that do work which needs all of them at once.
    fn threads(runtime: &Runtime, blocking: usize) -> HashSet<std::thread::ThreadId> {
        let (says, said) = channel();
        let gate = Arc::new(std::sync::Barrier::new(blocking));
        for _ in 0..blocking {
            let (says, gate) = (says.clone(), gate.clone());
            runtime.spawn_blocking(move || {
                gate.wait();
                says.send(std::thread::current().id())
            });
        }
        drop(says);
        said.iter().collect()
    }

    #[test]
    fn all_threads_run_from_the_start_and_do_the_work() {
        let runtime = runtime(5).unwrap();
        let before = threads(&runtime, 5);
        assert_eq!(before.len(), 5);
        assert_eq!(threads(&runtime, 5), before);
    }

    #[test]
    fn work_that_blocks_in_place_takes_a_thread_that_runs() {
        let runtime = runtime(3).unwrap();
        let work = |_| {
            runtime.spawn(async {
                tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(20)));
            })
        };
        let all: Vec<_> = (0..20).map(work).collect();
        runtime.block_on(async {
            for one in all {
                one.await.unwrap();
            }
        });
        assert_eq!(threads(&runtime, 3).len(), 3);
    }

    #[test]
    fn a_thread_that_is_missing_is_named_with_its_remedy() {
        let text = missing(3, 12).to_string();
        assert!(text.contains("only 3 of 12 threads") && text.contains("TasksMax="), "{text}");
    }
}
