//! Calls of system programs, each with a time limit and without a shell.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::User;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// Time limit of one call of a program.
pub(super) const ASK: Duration = Duration::from_secs(3);

/// Search path of a child, for programs that a module of the PAM service runs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Result of a program.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) out: String,
    pub(super) err: String,
}

impl Answer {
    /// Returns the last line of its standard error.
    pub(super) fn complaint(&self) -> &str {
        self.err.lines().last().unwrap_or_default().trim()
    }
}

/// Runs a program with an empty standard input.
pub(super) async fn ask(program: &str, arguments: &[&str]) -> io::Result<Answer> {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, &[], ASK).await
}

/// Runs `motion-ad as-application` with `input` as its standard input. The child becomes `user` by itself
/// (see [`super::child`]); without a `user`, it stays as it is.
pub(super) async fn ask_ourselves(
    user: Option<&User>,
    task: &[&str],
    input: &[u8],
    bound: Duration,
) -> io::Result<Answer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("as-application");
    if let Some(user) = user {
        command.arg("--uid").arg(user.uid.to_string()).arg("--gid").arg(user.gid.to_string());
        command.arg("--name").arg(&user.name);
        command.env_clear().env("PATH", PATH).env("HOME", &user.dir).env("SHELL", &user.shell);
        command.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    command.args(task);
    run(command, input, bound).await
}

async fn run(mut command: Command, input: &[u8], bound: Duration) -> io::Result<Answer> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.env("LC_ALL", "C.UTF-8").current_dir("/").kill_on_drop(true);
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let running = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A child that ends early does not need the rest.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(bound, running).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { status: output.status, out: text(&output.stdout), err: text(&output.stderr) })
}
