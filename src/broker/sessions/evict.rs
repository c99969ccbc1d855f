//! Runs `sessions.on_evict` for the evictions of this server's sessions.
//!
//! It follows the events, not the calls that caused them: an eviction by another server of a shared store, or one
//! that was made while this broker was away, is run as well, by the server where the session was. How far it came is
//! kept in the store after the commands have ended, so that each is run at least once.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::store::{Position, StoreError};
use super::{CALL, Register, now};
use crate::broker::log::{Level, Line};
use crate::config::{self, Field, Piece};
use crate::protocol::report::Session;
use crate::supervise::Ended;

/// So many events are read at a time: after a crash the commands for so many may be run once more.
const PAGE: usize = 16;
/// Commands at once.
const AT_ONCE: usize = 4;
/// A command is killed after this time, with what it began.
const TIME: Duration = Duration::from_secs(10);
/// An eviction that is older is not worth a command any more.
const AGE: Duration = Duration::from_secs(3600);
/// After the store could not be reached.
const RETRY: Duration = Duration::from_secs(5);
/// Where programs are looked for by a command that is a script.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Follows the events until the broker ends.
pub(super) async fn keep(register: Arc<Register>) -> Ended {
    let mut reader = Reader { name: format!("on_evict {}", register.host), position: None };
    let Some(command) = register.settings.on_evict.clone() else {
        // Who sets a command later does not mean what happened before.
        while reader.pass(&register).await.is_err() {
            sleep(RETRY).await;
        }
        return Ok(());
    };
    let mut changes = register.store.changes();
    loop {
        changes.mark_unchanged();
        match reader.run(&register, &command).await {
            Ok(()) if changes.changed().await.is_err() => return Ok(()),
            Ok(()) => {}
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// How far the events were read.
struct Reader {
    name: String,
    position: Option<Position>,
}

impl Reader {
    /// Runs the command for every eviction that is new.
    async fn run(&mut self, register: &Register, command: &config::Command) -> Result<(), StoreError> {
        let deadline = || Instant::now() + CALL;
        let store = &register.store;
        let mut position = match self.position.take() {
            Some(position) => position,
            None => {
                let kept = register.read(store.bookmarked(&self.name, deadline()).await)?;
                kept.map_or(Position::Oldest, Position::After)
            }
        };
        loop {
            let events = match register.read(store.events(&position, PAGE, deadline()).await) {
                // Another kind of store was configured before.
                Err(StoreError::Cursor(_)) => {
                    position = Position::Oldest;
                    continue;
                }
                events => events?,
            };
            if events.gap {
                let line = Line::new("on_evict")
                    .with("problem", "events were lost, and perhaps evictions among them");
                register.log.write(Level::Error, &line);
            }
            position = Position::After(events.cursor.clone());
            let at_end = events.list.is_empty();
            let due: Vec<_> = events
                .list
                .into_iter()
                .map(|event| event.session)
                .filter(|s| is_due(s, &register.host))
                .collect();
            if !due.is_empty() {
                run_all(register, command, due).await;
                register.written(store.bookmark(&self.name, &events.cursor, deadline()).await)?;
            }
            if at_end {
                self.position = Some(position);
                return Ok(());
            }
        }
    }

    /// Passes over everything so far.
    async fn pass(&self, register: &Register) -> Result<(), StoreError> {
        let deadline = Instant::now() + CALL;
        let events = register.read(register.store.events(&Position::Now, 1, deadline).await)?;
        register.written(register.store.bookmark(&self.name, &events.cursor, deadline).await)
    }
}

/// Whether an event is an eviction that this server has to tell of.
fn is_due(session: &Session, host: &str) -> bool {
    session.host == host
        && session.ended.as_ref().is_some_and(|ended| {
            ended.reason.is_eviction() && u128::from(now().saturating_sub(ended.at)) < AGE.as_millis()
        })
}

async fn run_all(register: &Register, command: &config::Command, sessions: Vec<Session>) {
    let mut running = JoinSet::new();
    for session in sessions {
        if running.len() >= AT_ONCE {
            running.join_next().await;
        }
        let (command, log) = (command.clone(), register.log.clone());
        running.spawn(async move {
            if let Err(problem) = run(&command, &session, TIME).await {
                let line = Line::new("on_evict").with("session", &session.id).with("user", &session.user);
                let line = line.with("command", command.program.display()).with("problem", problem);
                log.write(Level::Error, &line);
            }
        });
    }
    running.join_all().await;
}

/// Runs the command for one session.
async fn run(command: &config::Command, session: &Session, time: Duration) -> Result<(), String> {
    let mut child = Command::new(&command.program)
        .args(command.arguments.iter().map(|pieces| argument(pieces, session)))
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that it is killed with what it began.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    match timeout(time, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // Not waited for yet, so its id is still its own.
            group.map(|group| killpg(group, Signal::SIGKILL));
            let _ = child.wait().await;
            Err(format!("killed after {} s", time.as_secs_f64()))
        }
    }
}

/// An argument with the session's values in place of its placeholders. What the person or the application chose never
/// makes it an option, nor ends it early.
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
        Field::Detail => ended.map(|ended| ended.detail.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::store::suite::{ONE, session, soon};
    use super::super::tests::{register, settings};
    use super::*;
    use crate::protocol::report::{EndReason, Ended};

    /// A script of a shell, and the folder that it is in.
    fn script(text: &str) -> (config::Command, tempfile::TempDir) {
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

    /// Notes each argument on a line of `log` beside itself.
    const NOTE: &str = "cd \"$(dirname \"$0\")\"; for a; do printf '%s|' \"$a\"; done >>log; echo >>log\n";

    fn noted(folder: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn here(id: &str, person: &str) -> Session {
        Session { host: "here".into(), ..session(id, person, now()) }
    }

    fn reader() -> Reader {
        Reader { name: "on_evict here".into(), position: None }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_eviction_of_this_server_is_told_once() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let open = async |session: Session| {
            register.store.open(&session, ONE, soon()).await.unwrap();
        };
        let close = async |id: &str, reason| {
            let ended = Ended { at: now(), reason, detail: "x y".into() };
            register.store.close(id, &ended, soon()).await.unwrap();
        };
        open(here("a", "john")).await;
        open(here("b", "john")).await;
        open(here("c", "jane")).await;
        close("c", EndReason::Closed).await;
        open(here("d", "jane")).await;
        close("d", EndReason::ProcessGone).await;
        open(Session { host: "there".into(), ..here("e", "jim") }).await;
        open(here("f", "jim")).await;
        let mut first = reader();
        first.run(&register, &command).await.unwrap();
        assert_eq!(noted(folder.path()), ["a|john|why=replaced:b|"]);
        close("f", EndReason::Refused).await;
        first.run(&register, &command).await.unwrap();
        let both = ["a|john|why=replaced:b|", "f|jim|why=refused:x y|"];
        assert_eq!(noted(folder.path()), both);

        // The next process goes on where this one was, with what happened while there was none.
        open(here("g", "jim")).await;
        close("g", EndReason::TooOld).await;
        reader().run(&register, &command).await.unwrap();
        assert_eq!(noted(folder.path()), [both[0], both[1], "g|jim|why=too_old:x y|"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_happened_before_there_was_a_command_or_long_ago_is_past() {
        let (register, _keep) = register(settings());
        let (command, folder) = script(NOTE);
        let replace = async |id: &str, since: u64| {
            let session = Session { since, ..here(id, "john") };
            register.store.open(&session, ONE, soon()).await.unwrap();
        };
        for id in ["a", "b"] {
            replace(id, now()).await;
        }
        reader().pass(&register).await.unwrap();
        for id in ["c", "d"] {
            replace(id, now() - 2 * 3_600_000).await;
        }
        replace("e", now()).await;
        reader().run(&register, &command).await.unwrap();
        assert_eq!(noted(folder.path()), ["d|john|why=replaced:e|"]);
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_is_named_and_ends() {
        let time = Duration::from_millis(500);
        let john = here("a", "john");
        let (fails, _keep) = script("exit 3");
        assert!(run(&fails, &john, time).await.unwrap_err().contains("exit status: 3"));
        let missing = config::Command { program: "/nonexistent/kick".into(), arguments: vec![] };
        assert!(run(&missing, &john, time).await.unwrap_err().contains("No such file"));
        // The child that it waits for is killed, too.
        let (hangs, folder) = script("cd \"$(dirname \"$0\")\"; sleep 60 & echo $! >log; wait");
        assert_eq!(run(&hangs, &john, time).await.unwrap_err(), "killed after 0.5 s");
        let sleeping: i32 = noted(folder.path())[0].parse().unwrap();
        let begun = std::time::Instant::now();
        while nix::sys::signal::kill(Pid::from_raw(sleeping), None).is_ok()
            && std::fs::read_to_string(format!("/proc/{sleeping}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
        }
    }

    #[tokio::test]
    async fn it_runs_without_input_and_without_our_environment() {
        let (command, folder) = script("cd \"$(dirname \"$0\")\"; { env; cat; pwd -P; } >log");
        run(&command, &here("a", "john"), TIME).await.unwrap();
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
