//! strace(1) on a process of the host, from outside: system calls fail as if the kernel had rejected them, or
//! are only watched.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::lab::{Lab, wait};
use crate::report::{Check, contains};
use crate::secrets::outer_pid;

/// Maximum time until strace has attached to every thread.
const ATTACHED: Duration = Duration::from_secs(10);
/// Text of strace after a call that it let fail.
const INJECTED: &str = "(INJECTED)";

/// strace, attached to a process with all its threads, also later ones. Dropping it detaches it.
pub struct Strace {
    child: Child,
    folder: TempDir,
}

impl Strace {
    /// Attaches to the host's process `pid`, with these values of `-e`.
    pub fn attach(lab: &Lab, pid: u32, expressions: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let said = File::create(folder.path().join("said")).map_err(|e| e.to_string())?;
        let mut command = Command::new("strace");
        // No bytes of the calls: they hold passwords.
        command.args(["-f", "-s", "0", "-e", "signal=none", "-o"]).arg(folder.path().join("calls"));
        for expression in expressions {
            command.args(["-e", expression]);
        }
        command.arg("-p").arg(outer_pid(lab, pid)?.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.spawn().map_err(|e| format!("strace: {e}; `make test-syscalls` installs it"))?;
        let strace = Strace { child, folder };
        wait(ATTACHED, || contains("strace", &strace.read("said")?, " attached"))?;
        Ok(strace)
    }

    fn read(&self, file: &str) -> Result<String, String> {
        let bytes = fs::read(self.folder.path().join(file)).map_err(|e| format!("strace: {file}: {e}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the calls so far, one on each line.
    pub fn calls(&self) -> Result<String, String> {
        self.read("calls")
    }

    /// Returns the number of calls that strace let fail so far.
    pub fn injected(&self) -> Result<usize, String> {
        Ok(self.calls()?.matches(INJECTED).count())
    }

    /// Detaches. Returns all calls.
    pub fn detach(mut self) -> Result<String, String> {
        self.end()?;
        self.calls()
    }

    /// SIGKILL would leave a call that is being injected without a result.
    fn end(&mut self) -> Check {
        let io = |e: std::io::Error| format!("strace: {e}");
        if self.child.try_wait().map_err(io)?.is_none() {
            Command::new("kill").arg(self.child.id().to_string()).status().map_err(io)?;
            self.child.wait().map_err(io)?;
        }
        Ok(())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
