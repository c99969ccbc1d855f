//! Logins on the host at a fixed rate, regardless of their results. This program is the libpam client.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Lab;
pub use crate::login_rate::Login;
use crate::report::equal;

/// First argument of this program when it runs as that client.
pub const LOGIN_RATE: &str = "--login-rate";
/// Seconds for which a login may occupy its thread: the module's deadline and a margin.
pub const LONGEST: usize = 8;

/// Logins per second that no machine reaches.
const FASTEST: usize = 100_000;

/// A running series of logins.
pub struct Load {
    child: Child,
    begun: Instant,
    results: Option<JoinHandle<Result<Vec<Login>, String>>>,
}

impl Load {
    /// Starts these logins (name and password) at the service `motion`, `rate` per second, as XCALLY's user.
    pub fn start<'a>(
        lab: &Lab,
        rate: usize,
        logins: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        Load::start_with(lab, rate, rate * LONGEST, logins)
    }

    /// Makes these logins as fast as they are answered, `at_once` at a time. Returns the number of successful
    /// ones per second.
    pub fn throughput<'a>(
        lab: &Lab,
        at_once: usize,
        logins: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<f64, String> {
        let logins = Load::start_with(lab, FASTEST, at_once, logins)?.finish()?;
        let ends = logins.iter().map(|login| login.due + login.late + login.took);
        let seconds = ends.fold(0.0, f64::max) / 1000.0;
        let succeeded = logins.iter().filter(|login| login.code == "PAM_SUCCESS").count();
        equal("the logins of the control that succeeded", succeeded, logins.len())?;
        Ok(succeeded as f64 / seconds)
    }

    fn start_with<'a>(
        lab: &Lab,
        rate: usize,
        threads: usize,
        logins: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let program = lab.program()?;
        let (each_second, threads) = (rate.to_string(), threads.to_string());
        let command = [program, LOGIN_RATE, "motion", &each_second, &threads];
        let mut child = lab.host_child("motion", &command)?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let table: String =
            logins.into_iter().map(|(user, password)| format!("{user}\t{password}\n")).collect();
        stdin.write_all(table.as_bytes()).map_err(|e| format!("{program}: {e}"))?;
        drop(stdin);
        let first = lines.next().ok_or("the logins did not start")?.map_err(|e| e.to_string())?;
        equal("the first line of the logins", first.as_str(), "started")?;
        let begun = Instant::now();
        Ok(Load { child, begun, results: Some(std::thread::spawn(move || read(lines))) })
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until this time since the start.
    pub fn wait_until(&self, elapsed: Duration) {
        std::thread::sleep(elapsed.saturating_sub(self.elapsed()));
    }

    /// Waits for the last login, and returns all results in the order in which they were due.
    pub fn finish(mut self) -> Result<Vec<Login>, String> {
        let results = self.results.take().ok_or("finished already")?;
        let mut logins = results.join().map_err(|_| "the reader of the logins ended")??;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        equal("the logins ended well", status.success(), true)?;
        logins.sort_by_key(|login| login.number);
        Ok(logins)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Fails only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(lines: Lines<BufReader<ChildStdout>>) -> Result<Vec<Login>, String> {
    let login = |line: String| serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"));
    lines.map(|line| line.map_err(|e| e.to_string()).and_then(login)).collect()
}
