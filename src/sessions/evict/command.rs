//! One run of `sessions.on_evict`: its arguments, its environment and its end.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::orphans::{below, kill_all};
use crate::config::{self, Field, Piece};
use crate::protocol::report::Session;

/// The folders in which a command that is a script finds programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the command for one session. After `time`, kills it with all its processes.
///
/// `processes` holds its process until it has ended.
///
/// # Errors
/// Returns a description of the problem if the command cannot be started, fails or is killed.
pub(super) async fn run(
    command: &config::Command,
    session: &Session,
    time: Duration,
    processes: &Mutex<BTreeSet<Pid>>,
) -> Result<(), String> {
    let (mut child, running) = start(command, session, processes)?;
    match timeout(time, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // The process is not reaped yet, so its id is still valid. A child that left the group by
            // setsid(2) is still below it.
            if let Some(Running { process: group, .. }) = running {
                let below = below(group);
                let _ = killpg(group, Signal::SIGKILL);
                kill_all(&below);
            }
            let _ = child.wait().await;
            Err(format!("killed after {} s", time.as_secs_f64()))
        }
    }
}

/// Starts the command, and adds its process to `processes`.
///
/// # Errors
/// Returns the cause if the command cannot be started.
fn start<'a>(
    command: &config::Command,
    session: &Session,
    processes: &'a Mutex<BTreeSet<Pid>>,
) -> Result<(Child, Option<Running<'a>>), String> {
    // Locked until the process is listed: a child that is not listed is taken for an orphan and reaped.
    let mut all = processes.lock();
    let child = Command::new(&command.program)
        .args(command.arguments.iter().map(|pieces| argument(pieces, session)))
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // In a separate process group, so that its children are killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let process = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    all.extend(process);
    drop(all);
    Ok((child, process.map(|process| Running { process, all: processes })))
}

/// Keeps a process in the list of running ones until this is dropped.
struct Running<'a> {
    process: Pid,
    all: &'a Mutex<BTreeSet<Pid>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.process);
    }
}

/// Returns an argument with the session's values in place of its placeholders. A value that the user or the
/// application chose never makes it an option, and never ends it early.
fn argument(pieces: &[Piece], session: &Session) -> String {
    let mut argument = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => argument.push_str(text),
            Piece::Field(field) => {
                let value = value(*field, session).replace('\0', "\u{fffd}");
                match value.strip_prefix('-').filter(|_| argument.is_empty()) {
                    Some(rest) => argument.extend(["_", rest]),
                    None => argument.push_str(&value),
                }
            }
        }
    }
    argument
}

fn value(field: Field, session: &Session) -> String {
    let ended = session.ended.as_ref();
    match field {
        Field::Id => session.id.clone(),
        Field::User => session.user.clone(),
        Field::Principal => session.principal.clone(),
        Field::Service => session.service.clone(),
        Field::Rhost => session.rhost.clone(),
        Field::Tty => session.tty.clone(),
        Field::Pid => session.pid.to_string(),
        Field::Host => session.host.clone(),
        Field::Reason => ended.map(|ended| ended.reason.name().to_owned()).unwrap_or_default(),
        Field::At => ended.map(|ended| (ended.at / 1000).to_string()).unwrap_or_default(),
        Field::Detail => ended.map(|ended| ended.detail.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::sessions::now;
    use crate::sessions::store::suite::session;

    /// Creates a shell script, and returns its command and its folder.
    pub fn script(text: &str) -> (config::Command, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, text).unwrap();
        let field = Piece::Field;
        let arguments = vec![
            vec![Piece::Text(path.display().to_string())],
            vec![field(Field::Id)],
            vec![field(Field::User)],
            vec![
                Piece::Text("why=".into()),
                field(Field::Reason),
                Piece::Text(":".into()),
                field(Field::Detail),
            ],
        ];
        (config::Command { program: "/bin/sh".into(), arguments }, folder)
    }

    /// A script that writes its arguments as a line of `log`, in its own folder.
    // In one write, because commands run at the same time.
    pub const NOTE: &str = "cd \"$(dirname \"$0\")\"; line=$(for a; do printf '%s|' \"$a\"; done); \
                            printf '%s\\n' \"$line\" >>log\n";

    pub fn noted(folder: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    pub fn here(id: &str, person: &str) -> Session {
        Session { host: "here".into(), ..session(id, person, now()) }
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_is_named_and_ends() {
        let time = Duration::from_millis(500);
        let john = here("a", "john");
        let (fails, _keep) = script("exit 3");
        assert!(run(&fails, &john, time, &Mutex::default()).await.unwrap_err().contains("exit status: 3"));
        let missing = config::Command { program: "/nonexistent/kick".into(), arguments: vec![] };
        assert!(run(&missing, &john, time, &Mutex::default()).await.unwrap_err().contains("No such file"));
        // The child that it waits for is killed, too.
        for begins in ["sleep 60 &", "setsid sleep 60 &"] {
            let (hangs, folder) = script(&format!("cd \"$(dirname \"$0\")\"; {begins} echo $! >log; wait"));
            let processes = Mutex::default();
            let killed = run(&hangs, &john, time, &processes).await.unwrap_err();
            assert_eq!(killed, "killed after 0.5 s");
            assert!(processes.lock().is_empty());
            let sleeping: i32 = noted(folder.path())[0].parse().unwrap();
            let begun = std::time::Instant::now();
            while nix::sys::signal::kill(Pid::from_raw(sleeping), None).is_ok()
                && std::fs::read_to_string(format!("/proc/{sleeping}/stat"))
                    .is_ok_and(|stat| !stat.contains(") Z "))
            {
                assert!(begun.elapsed() < Duration::from_secs(10), "{begins} goes on");
            }
        }
    }

    #[tokio::test]
    async fn it_runs_without_input_and_without_our_environment() {
        let (command, folder) = script("cd \"$(dirname \"$0\")\"; { env; cat; pwd -P; } >log");
        run(&command, &here("a", "john"), Duration::from_secs(10), &Mutex::default()).await.unwrap();
        let allowed = |line: &String| {
            ["PATH=", "PWD=", "OLDPWD=", "_=", "/", "SHLVL="].iter().any(|a| line.starts_with(a))
        };
        let noted = noted(folder.path());
        assert!(noted.len() > 1 && noted.iter().all(allowed), "{noted:?}");
    }

    #[test]
    fn what_somebody_typed_is_no_option_and_ends_no_argument() {
        let typed = |user: &str| Session { user: user.into(), ..here("a", "john") };
        let user = || Piece::Field(Field::User);
        let text = |text: &str| Piece::Text(text.into());
        let cases = [
            (vec![user()], "john", "john"),
            (vec![user()], "-rf", "_rf"),
            (vec![user()], "--help", "_-help"),
            (vec![user(), user()], "-x", "_x-x"),
            (vec![text("user="), user()], "-x", "user=-x"),
            (vec![text("--user="), user()], "-x", "--user=-x"),
            (vec![user()], "a\0b", "a\u{fffd}b"),
            (vec![user()], "; rm -rf / $(x) `y`", "; rm -rf / $(x) `y`"),
            (vec![user()], "", ""),
            (vec![text("")], "john", ""),
        ];
        for (pieces, name, expected) in cases {
            assert_eq!(argument(&pieces, &typed(name)), expected, "{pieces:?} {name}");
        }
    }
}
