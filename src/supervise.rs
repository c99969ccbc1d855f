//! Background tasks that must not end unnoticed: a task that ends before its work is done is reported,
//! counted and restarted.
//!
//! The list of tasks belongs to the process, like its threads: tasks start deep inside modules without access
//! to the log, and the broker's outermost layer reports all of them.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Pause before the first restart of a task; doubled for each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a restart.
const LONGEST: Duration = Duration::from_secs(60);
/// Time without a failure after which a task gets the first pause again.
const SOUND: Duration = Duration::from_secs(300);

/// How supervised work ends: `Ok` if there is nothing left to do, else the cause, which leads to a restart.
pub type Ended = Result<(), String>;

/// State of the tasks of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// How many of them run now.
    pub running: usize,
    /// How many of them wait for their restart now.
    pub waiting: usize,
    /// How many times one of them ended before its work was done.
    pub failures: u64,
    /// Cause of the last failure.
    pub cause: Option<String>,
}

/// An event for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A task ended before its work was done.
    Failed {
        /// Name of the task.
        task: &'static str,
        /// Cause of the end.
        cause: &'a str,
        /// Time until it is restarted.
        pause: Duration,
    },
    /// Code panicked, in a task or anywhere else.
    Panicked {
        /// File, line and column. The message is left out: it can quote what a user typed.
        place: &'a str,
    },
}

type Tell = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// The list of supervised tasks.
#[derive(Default)]
pub struct Tasks {
    list: Mutex<BTreeMap<&'static str, Task>>,
    tell: Mutex<Option<Tell>>,
    panics: AtomicU64,
}

static TASKS: Tasks =
    Tasks { list: Mutex::new(BTreeMap::new()), tell: Mutex::new(None), panics: AtomicU64::new(0) };

thread_local! {
    /// Place of this thread's last panic.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns the list of this process.
pub fn tasks() -> &'static Tasks {
    &TASKS
}

/// Spawns `begin()` on the runtime, and again after each failure.
pub fn spawn<F>(task: &'static str, begin: impl FnMut() -> F + Send + 'static)
where
    F: Future<Output = Ended> + Send + 'static,
{
    tokio::spawn(TASKS.keep(task, begin));
}

/// Starts a thread that runs `work`, and again after each failure.
///
/// # Errors
/// If the thread cannot be started.
pub fn thread(
    task: &'static str,
    mut work: impl FnMut() -> Ended + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(task.to_owned()).spawn(move || {
        let mut pauses = Pauses::default();
        loop {
            let running = TASKS.begin(task);
            let ended = catch_unwind(AssertUnwindSafe(&mut work)).unwrap_or_else(panicked);
            drop(running);
            let Err(cause) = ended else { return };
            let pause = pauses.next();
            let _waiting = TASKS.failed(task, &cause, pause);
            std::thread::sleep(pause);
        }
    })
}

/// Reports every panic of this process by its place, instead of printing its message.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(unknown, ToString::to_string);
        TASKS.panics.fetch_add(1, Ordering::Relaxed);
        TASKS.tell(&Event::Panicked { place: &place });
        PLACE.set(Some(place));
    }));
}

impl Tasks {
    /// Passes each event on to `tell`, which must not block or panic.
    pub fn observe(&self, tell: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        *self.tell.lock() = Some(Arc::new(tell));
    }

    /// Returns the state of every task by its name.
    pub fn report(&self) -> BTreeMap<&'static str, Task> {
        self.list.lock().clone()
    }

    /// Returns how many panics were reported.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Runs `begin()` until it returns `Ok`, and again after each failure.
    pub async fn keep<F>(&self, task: &'static str, mut begin: impl FnMut() -> F + Send)
    where
        F: Future<Output = Ended> + Send,
    {
        let mut pauses = Pauses::default();
        loop {
            let running = self.begin(task);
            let ended = match catch_unwind(AssertUnwindSafe(&mut begin)) {
                Ok(work) => caught(work).await,
                Err(panic) => panicked(panic),
            };
            drop(running);
            let Err(cause) = ended else { return };
            let pause = pauses.next();
            let _waiting = self.failed(task, &cause, pause);
            tokio::time::sleep(pause).await;
        }
    }

    fn begin(&self, task: &'static str) -> Counted<'_> {
        self.count(task, |task| &mut task.running)
    }

    fn failed(&self, task: &'static str, cause: &str, pause: Duration) -> Counted<'_> {
        let waiting = self.count(task, |task| &mut task.waiting);
        if let Some(task) = self.list.lock().get_mut(task) {
            task.failures = task.failures.saturating_add(1);
            task.cause = Some(cause.to_owned());
        }
        self.tell(&Event::Failed { task, cause, pause });
        waiting
    }

    fn count(&self, task: &'static str, number: fn(&mut Task) -> &mut usize) -> Counted<'_> {
        let mut list = self.list.lock();
        let count = number(list.entry(task).or_default());
        *count = count.saturating_add(1);
        Counted { tasks: self, task, number }
    }

    fn tell(&self, event: &Event<'_>) {
        let tell = self.tell.lock().clone();
        match tell {
            Some(tell) => tell(event),
            None => eprintln!("{event:?}"),
        }
    }
}

/// A task that counts as running or waiting until this is dropped.
struct Counted<'a> {
    tasks: &'a Tasks,
    task: &'static str,
    number: fn(&mut Task) -> &mut usize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.tasks.list.lock().get_mut(self.task) {
            let count = (self.number)(task);
            *count = count.saturating_sub(1);
        }
    }
}

/// The pauses before the restarts of one task.
#[derive(Default)]
struct Pauses {
    last: Option<(Instant, Duration)>,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = match self.last {
            Some((failed, pause)) if failed.elapsed() < pause.saturating_add(SOUND) => {
                pause.saturating_mul(2).min(LONGEST)
            }
            _ => PAUSE,
        };
        self.last = Some((Instant::now(), pause));
        pause
    }
}

/// Runs `work` to its end, or to its panic.
async fn caught(work: impl Future<Output = Ended>) -> Ended {
    let mut work = Box::pin(work);
    let poll = |work: Pin<&mut _>, context: &mut Context<'_>| {
        catch_unwind(AssertUnwindSafe(|| Future::poll(work, context)))
            .unwrap_or_else(|panic| Poll::Ready(panicked(panic)))
    };
    poll_fn(|context| poll(work.as_mut(), context)).await
}

/// Returns the cause of a failure by a panic of this thread. The panic's message is left out: it can quote
/// what a user typed.
fn panicked(_said: Box<dyn Any + Send>) -> Ended {
    Err(format!("it panicked at {}", PLACE.take().unwrap_or_else(unknown)))
}

fn unknown() -> String {
    "an unknown place".to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn told(tasks: &Tasks) -> Arc<Mutex<Vec<String>>> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        tasks.observe(move |event| log.lock().push(format!("{event:?}")));
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_reported_counted_and_started_again() {
        let tasks = Tasks::default();
        let (told, begun) = (told(&tasks), AtomicUsize::new(0));
        let work = || async {
            let turn = begun.fetch_add(1, Ordering::SeqCst);
            assert_eq!(tasks.report()["recheck"].running, 1);
            tokio::task::yield_now().await;
            match turn {
                // What a value of AD did: a date beyond the year 9999.
                0 => drop(time::OffsetDateTime::from(
                    std::time::UNIX_EPOCH + Duration::from_secs(900_000_000_000),
                )),
                1 => return Err("the listener is unusable".to_owned()),
                _ => {}
            }
            Ok(())
        };
        tasks.keep("recheck", work).await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        let report = tasks.report();
        let cause = Some("the listener is unusable".to_owned());
        assert_eq!(report["recheck"], Task { running: 0, waiting: 0, failures: 2, cause });
        let told = told.lock();
        assert!(told[0].contains("it panicked at") && told[0].contains("pause: 1s"), "{told:?}");
        assert!(told[1].contains("the listener is unusable") && told[1].contains("pause: 2s"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_its_restart_is_seen_and_one_that_is_dropped_is_not() {
        let tasks = Tasks::default();
        let told = told(&tasks);
        {
            let kept = tasks.keep("sweep", || async { Err("again".to_owned()) });
            assert!(tokio::time::timeout(Duration::from_millis(1500), kept).await.is_err());
            let cause = Some("again".to_owned());
            assert_eq!(tasks.report()["sweep"], Task { running: 0, waiting: 0, failures: 2, cause });
        }
        let mut kept = Box::pin(tasks.keep("sweep", || async { Err("again".to_owned()) }));
        let poll = poll_fn(|context| Poll::Ready(kept.as_mut().poll(context).is_ready())).await;
        assert!(!poll);
        assert_eq!(tasks.report()["sweep"].waiting, 1);
        drop(kept);
        assert_eq!(tasks.report()["sweep"].waiting, 0);
        assert_eq!(told.lock().len(), 3);
    }

    #[test]
    fn a_thread_that_panics_goes_on_with_what_it_had() {
        let mut jobs = vec!["good", "panics", "good"].into_iter();
        let done = Arc::new(AtomicUsize::new(0));
        let counted = done.clone();
        let work = move || {
            for job in jobs.by_ref() {
                assert_eq!(job, "good");
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        };
        thread("a thread of a test", work).unwrap().join().unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 2);
        assert_eq!(tasks().report()["a thread of a test"].failures, 1);
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut pauses = Pauses::default();
        let seconds: Vec<_> = (0..8).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        pauses.last = Instant::now().checked_sub(SOUND + LONGEST).map(|failed| (failed, LONGEST));
        assert!(pauses.last.is_none() || pauses.next() == PAUSE);
    }
}
