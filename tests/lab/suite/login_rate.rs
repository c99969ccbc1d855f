//! Logs in through PAM at a fixed rate from one process, as a busy login page does, regardless of the
//! results.
//!
//! The arguments are `SERVICE RATE THREADS`. Each line on standard input is a login: user, tab, password.
//! Login n begins n/RATE seconds after the first, unless all THREADS wait for earlier ones. Standard output
//! begins with a line `started`. A line of JSON follows for each finished login. At the end, a total is
//! printed to standard error.
//!
//! It is part of the lab's suite, which starts itself on the joined host with these arguments.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use motion_ad_support::libpam::{self, Handle, Password};
use serde::{Deserialize, Serialize};

/// Maximum number of threads: enough for logins of 20 seconds at 100 per second.
const MOST_THREADS: usize = 2000;

/// Result of one login. Times are in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// Its index in the input, from 0.
    pub number: usize,
    pub user: String,
    /// Time at which it was due, since the first login.
    pub due: f64,
    /// Delay of its start because no thread was free.
    pub late: f64,
    /// Duration.
    pub took: f64,
    /// The name of authenticate's return code, or of acct_mgmt's if authenticate succeeded.
    pub code: String,
}

/// Runs the logins and prints their results.
///
/// # Errors
/// If the arguments or the input are malformed.
pub fn run(arguments: &[&str]) -> Result<(), String> {
    let usage = || "usage: SERVICE RATE THREADS <LOGINS".to_owned();
    let [service, rate, threads] = arguments else { return Err(usage()) };
    let service = c_string(service)?;
    let rate: f64 = rate.parse().ok().filter(|rate| *rate > 0.0).ok_or_else(usage)?;
    let threads: usize = threads.parse().ok().filter(|n| (1..=MOST_THREADS).contains(n)).ok_or_else(usage)?;
    let logins = std::io::stdin().lock().lines().map(|line| {
        let line = line.map_err(|e| e.to_string())?;
        let (user, password) = line.split_once('\t').ok_or("a line without a tab")?;
        Ok((c_string(user)?, c_string(password)?))
    });
    let logins = logins.collect::<Result<Vec<_>, String>>()?;
    println!("started");
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(logins.len()) {
            let (service, logins, next, done) = (&service, &logins, &next, done.clone());
            scope.spawn(move || {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && let Some((user, password)) = logins.get(number)
                {
                    let due = Duration::from_secs_f64(number as f64 / rate);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    let start = begun.elapsed();
                    let code = login(service, user, password);
                    let login = Login {
                        number,
                        user: user.to_string_lossy().into_owned(),
                        due: milliseconds(due),
                        late: milliseconds(start.saturating_sub(due)),
                        took: milliseconds(begun.elapsed() - start),
                        code: libpam::name(code),
                    };
                    // A separate thread prints, so that a slow reader slows no login.
                    let _ = done.send(login);
                }
            });
        }
        drop(done);
        print(&results)
    })
}

fn print(results: &mpsc::Receiver<Login>) -> Result<(), String> {
    let (mut codes, mut slowest, mut latest) = (BTreeMap::new(), 0.0_f64, 0.0_f64);
    let mut out = std::io::stdout().lock();
    for login in results {
        let line = serde_json::to_string(&login).map_err(|e| e.to_string())?;
        writeln!(out, "{line}").map_err(|e| e.to_string())?;
        (slowest, latest) = (slowest.max(login.took), latest.max(login.late));
        *codes.entry(login.code).or_insert(0) += 1;
    }
    let codes: Vec<_> = codes.iter().map(|(code, count)| format!("{code} {count}")).collect();
    eprintln!("{}; the slowest took {slowest:.0} ms, the latest began {latest:.0} ms late", codes.join(", "));
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|e| format!("{text:?}: {e}"))
}

/// Logs in as a login page does: authenticate and acct_mgmt on one handle.
fn login(service: &CStr, user: &CStr, password: &CStr) -> c_int {
    let handle = match Handle::start(service, user, None, Password(password)) {
        Ok(handle) => handle,
        Err(code) => return code,
    };
    match handle.authenticate(0) {
        libpam::PAM_SUCCESS => handle.acct_mgmt(0),
        code => code,
    }
}
