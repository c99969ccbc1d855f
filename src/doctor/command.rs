//! Programs of the system that are asked, each with a bound and without a shell.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::User;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// One question to a program of this host.
pub(super) const ASK: Duration = Duration::from_secs(3);

/// What a program answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) out: String,
    pub(super) err: String,
}

impl Answer {
    /// The last line that it complained with.
    pub(super) fn complaint(&self) -> &str {
        self.err.lines().last().unwrap_or_default().trim()
    }
}

/// Runs a program with nothing on its standard input.
pub(super) async fn ask(program: &str, arguments: &[&str]) -> io::Result<Answer> {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, &[], ASK).await
}

/// The same as the user `user`, with the groups that user has; `input` is its standard input.
pub(super) async fn ask_as(
    user: &User,
    program: &str,
    arguments: &[&str],
    input: &[u8],
    bound: Duration,
) -> io::Result<Answer> {
    let mut command = Command::new("setpriv");
    command.arg("--reuid").arg(user.uid.to_string()).arg("--regid").arg(user.gid.to_string());
    command.args(["--init-groups", "--reset-env", "--", program]).args(arguments);
    run(command, input, bound).await
}

async fn run(mut command: Command, input: &[u8], bound: Duration) -> io::Result<Answer> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.env("LC_ALL", "C.UTF-8").current_dir("/").kill_on_drop(true);
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let running = async {
        if let Some(mut stdin) = child.stdin.take() {
            // Who ends before it has read all does not want it.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(bound, running).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { status: output.status, out: text(&output.stdout), err: text(&output.stderr) })
}
