//! An application on the host, running as XCALLY's user. It is this program with other arguments, which keeps
//! PAM handles open and reports the results.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Child;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

pub use crate::application::{Call, Done, Job, Style};
use crate::lab::Lab;
use crate::talk;

/// First argument of this program when it runs as that application.
pub const APPLICATION: &str = "--application";
/// Maximum duration of a job's calls, each with a separate deadline, while hundreds of jobs share two cores.
const LONGEST: Duration = Duration::from_secs(180);

/// A running application. Dropping it makes it crash.
pub struct App {
    child: Child,
    /// The pid on the host.
    pub pid: u32,
    done: Receiver<Done>,
}

impl App {
    /// Starts an application as XCALLY's user.
    pub fn start(lab: &Lab) -> Result<Self, String> {
        Self::start_as(lab, "motion")
    }

    /// Starts an application as `user`.
    pub fn start_as(lab: &Lab, user: &str) -> Result<Self, String> {
        let mut child = lab.host_child(user, &[lab.program()?, APPLICATION])?;
        let mut lines = talk::lines(&mut child)?;
        let first = lines.next().ok_or("the application did not start")?.map_err(|e| e.to_string())?;
        let pid = first.strip_prefix("started ").and_then(|pid| pid.parse().ok());
        let pid = pid.ok_or_else(|| format!("the application said {first:?}"))?;
        Ok(App { child, pid, done: talk::answers(lines) })
    }

    /// Starts these jobs at once.
    pub fn begin(&mut self, jobs: &[Job]) -> Result<(), String> {
        let mut text = String::new();
        for job in jobs {
            text += &serde_json::to_string(job).map_err(|e| e.to_string())?;
            text += "\n";
        }
        text += "\n";
        let stdin = self.child.stdin.as_mut().ok_or("no standard input")?;
        stdin.write_all(text.as_bytes()).map_err(|e| format!("the application: {e}"))
    }

    /// Returns the results of the next `count` finished jobs, by handle.
    pub fn finish(&mut self, count: usize) -> Result<BTreeMap<String, Done>, String> {
        let begun = Instant::now();
        let mut all = BTreeMap::new();
        while all.len() < count {
            let left = LONGEST.saturating_sub(begun.elapsed());
            let done = self.done.recv_timeout(left);
            let done = done.map_err(|e| format!("{} of {count} jobs are done: {e}", all.len()))?;
            all.insert(done.handle.clone(), done);
        }
        Ok(all)
    }

    /// Runs one job.
    pub fn run(&mut self, job: Job) -> Result<Done, String> {
        let handle = job.handle.clone();
        self.begin(&[job])?;
        self.finish(1)?.remove(&handle).ok_or_else(|| format!("no result for {handle}"))
    }

    /// Kills the application, so that its handles' sessions have no process.
    pub fn kill(self, lab: &Lab) -> Result<(), String> {
        lab.host_sh(&format!("kill -9 {}", self.pid)).ok().map(drop)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Done {
    /// Returns the code of the last call.
    pub fn code(&self) -> &str {
        self.codes.last().map_or("", String::as_str)
    }

    /// Returns the messages of this style.
    pub fn said(&self, style: Style) -> Vec<&str> {
        self.said.iter().filter(|said| said.style == style).map(|said| said.text.as_str()).collect()
    }
}
