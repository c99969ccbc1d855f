//! Sessions over the real socket: the register outlives its broker, and applications learn of every event.

use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use motion_ad::protocol::report::Session;
use motion_ad::sessions::process::{self as processes, Process};
use motion_ad::sessions::rule::Admission;
use motion_ad::sessions::sqlite::Sqlite;
use motion_ad::sessions::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gethostname};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Broker, DOMAIN};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A process that represents the application.
struct Application(Child);

impl Application {
    fn start() -> Self {
        Application(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// Returns a session that the application opened `seconds` seconds ago.
    fn session(&self, id: &str, person: &str, seconds: u64) -> Session {
        let pid = self.0.id();
        Session {
            id: id.into(),
            user: person.into(),
            principal: format!("{person}@acme.example"),
            guid: person.into(),
            service: "motion".into(),
            rhost: "192.0.2.7".into(),
            host: gethostname().unwrap().into_string().unwrap(),
            uid: 998,
            pid,
            started: Process::look(pid).started(),
            boot: processes::boot(),
            since: now() - 1000 * seconds,
            ..Session::default()
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Registers sessions directly in the file. A broker without a reachable domain could not register them.
fn register(folder: &Path, sessions: &[Session]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Sqlite::new(folder, Arc::new(|text| panic!("{text}"))).unwrap();
        for session in sessions {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            store.open(session, Admission::Replace(NonZeroUsize::MIN), deadline).await.unwrap();
        }
    });
    // The store's thread closes the file a moment later. A broker waits for that.
}

fn folder() -> Rc<TempDir> {
    Rc::new(tempfile::tempdir().unwrap())
}

fn helper(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motion-ad"));
    command.arg("sessions").args(arguments).arg("--socket").arg(broker.socket());
    command
}

/// Returns the exit code and the output of a command.
fn run(broker: &Broker, arguments: &[&str]) -> (i32, String) {
    let output = helper(broker, arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn ids(broker: &Broker) -> Vec<String> {
    let (code, text) = run(broker, &["list", "--json"]);
    assert_eq!(code, 0, "{text}");
    let list: Vec<Session> = serde_json::from_str(&text).unwrap();
    list.into_iter().map(|session| session.id).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running `motion-ad sessions watch`, as an application starts it.
struct Watch {
    process: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(broker: &Broker, arguments: &[&str]) -> Self {
        let mut process = helper(broker, &[&["watch"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Some(BufReader::new(process.stdout.take().unwrap()));
        Watch { process, lines }
    }

    /// Returns the next line, its event, and the id of its session.
    fn next(&mut self) -> (Value, String, String) {
        let mut line = String::new();
        self.lines.as_mut().unwrap().read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let event = line["event"].as_str().unwrap().to_owned();
        let id = line["session"]["id"].as_str().unwrap_or_default().to_owned();
        (line, event, id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn sessions_outlive_the_broker_and_watchers_miss_nothing() {
    let folder = folder();
    let application = Application::start();
    let session = |id: &str, person: &str| application.session(id, person, 5);
    register(folder.path(), &[session("a", "john"), session("b", "jane"), session("c", "john")]);
    let mut broker = Broker::start_in(folder.clone(), DOMAIN);
    assert_eq!(ids(&broker), ["b", "c"]);
    let (code, text) = run(&broker, &["show", "a"]);
    assert!(code == 1 && text.contains("replaced"), "{text}");
    let (code, text) = run(&broker, &["list", "--user", "john"]);
    assert!(code == 0 && text.contains(" c ") && !text.contains(" b "), "{text}");
    let (code, text) = run(&broker, &["list", "--user", "root"]);
    assert!(code == 1 && text.contains("unmapped"), "{text}");

    let mut watch = Watch::start(&broker, &[]);
    let (ready, event, _) = watch.next();
    assert_eq!(event, "ready");
    assert_eq!(
        run(&broker, &["end", "b", "b", "x"]),
        (
            1,
            "b: ended\nb: had ended already\nx: no such session; one that has ended is known by its whole \
             id\n\
             no user is disconnected: `motion-ad sessions kick` does that\n"
                .into()
        )
    );
    let (first, event, id) = watch.next();
    assert_eq!((event.as_str(), id.as_str(), first["evicted"].as_bool()), ("ended", "b", Some(false)));

    broker.process.kill().unwrap();
    broker.process.wait().unwrap();
    register(folder.path(), &[session("d", "john")]);
    let broker = Broker::start_in(folder, DOMAIN);
    assert_eq!(ids(&broker), ["d"]);
    let (second, event, id) = watch.next();
    assert_eq!((event.as_str(), id.as_str(), second["evicted"].as_bool()), ("ended", "c", Some(true)));
    assert_eq!(second["session"]["ended"]["detail"], "d");
    assert_eq!(watch.next().1, "opened");

    // A second process of the application resumes at a cursor of the first.
    let cursor = |line: &Value| line["cursor"].as_str().unwrap().to_owned();
    for (after, events) in [(&ready, vec!["b", "c", "d"]), (&first, vec!["c", "d"])] {
        let mut watch = Watch::start(&broker, &["--after", &cursor(after)]);
        for id in events {
            assert_eq!(watch.next().2, id);
        }
    }
    let mut watch = Watch::start(&broker, &["--after", "1"]);
    assert_eq!(watch.next().1, "gap");
    assert_eq!(watch.next().2, "a");
    let (code, text) = run(&broker, &["watch", "--after", "yesterday"]);
    assert!(code == 3 && text.contains("is no cursor"), "{text}");
}

#[test]
fn an_administrator_evicts_sessions_by_id_or_by_name() {
    let folder = folder();
    let application = Application::start();
    let session = |id: &str, person: &str| application.session(id, person, 5);
    register(folder.path(), &[session("aaaaaaaa-1", "john"), session("bbbbbbbb-1", "jane")]);
    let broker = Broker::start_in(folder, DOMAIN);
    let mut watch = Watch::start(&broker, &[]);
    assert_eq!(watch.next().1, "ready");
    assert_eq!(run(&broker, &["kick", "aaaa"]), (0, "aaaaaaaa-1: evicted\n".into()));
    let (line, event, id) = watch.next();
    assert_eq!((event.as_str(), id.as_str(), line["evicted"].as_bool()), ("ended", "aaaaaaaa-1", Some(true)));
    let ended = &line["session"]["ended"];
    assert_eq!(ended["reason"], "kicked");
    let by = format!("by uid:{},pid:", nix::unistd::getuid());
    assert!(ended["detail"].as_str().unwrap().starts_with(&by), "{ended}");

    assert_eq!(run(&broker, &["kick", "--user", "JANE"]), (0, "bbbbbbbb-1: evicted\n".into()));
    assert_eq!(run(&broker, &["kick", "--user", "jane"]), (1, "jane: no session is open\n".into()));
    let (code, text) = run(&broker, &["kick", "bbbb"]);
    assert!(code == 1 && text.contains("bbbb: no such session"), "{text}");
    let (code, text) = run(&broker, &["kick", "--user", "root"]);
    assert!(code == 1 && text.contains("unmapped"), "{text}");
    for arguments in [&["kick"][..], &["kick", "a", "--user", "john"]] {
        assert_eq!(run(&broker, arguments).0, 3, "{arguments:?}");
    }
    assert_eq!(ids(&broker), [""; 0]);
}

#[test]
fn a_watcher_ends_with_its_reader_and_keeps_no_broker_from_ending() {
    let mut broker = Broker::start(DOMAIN);
    let end = |broker: &mut Broker| {
        let begun = Instant::now();
        kill(Pid::from_raw(broker.process.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(broker.ended(), Some(0));
        begun.elapsed()
    };
    // For comparison: the end of a broker without watchers.
    let usual = end(&mut Broker::start(DOMAIN));
    let mut gone = Watch::start(&broker, &[]);
    let mut stays = Watch::start(&broker, &[]);
    assert_eq!((gone.next().1, stays.next().1), ("ready".into(), "ready".into()));
    gone.lines = None;
    let begun = Instant::now();
    while gone.process.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it waits for nobody");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(gone.process.wait().unwrap().code(), Some(0));
    let took = end(&mut broker);
    assert!(took < usual + Duration::from_millis(1500), "{took:?}, without watchers {usual:?}");
}

#[test]
fn what_is_over_is_swept_at_the_start_and_evictions_are_told_by_a_command() {
    let folder = folder();
    let application = Application::start();
    let gone = Application::start();
    let sessions = [
        application.session("stays", "john", 30),
        application.session("old", "jane", 90),
        gone.session("gone", "jim", 30),
        // The file belongs to this host alone, even if the host had another name when the session began.
        Session { host: "earlier".into(), ..application.session("renamed", "joe", 90) },
    ];
    register(folder.path(), &sessions);
    drop(gone);
    let script = folder.path().join("kick");
    std::fs::write(&script, "#!/bin/sh\nprintf '%s ' \"$@\" >>\"${0%/*}/kicked\"\n").unwrap();
    let run_by = format!(
        "[sessions]\nmax_age = 60\non_evict = [\"/bin/sh\", {:?}, \"{{id}}\", \"{{user}}\", \"{{reason}}\"]\n\
         {DOMAIN}",
        script
    );
    let broker = Broker::start_in(folder.clone(), &run_by);
    until("they are swept", || ids(&broker) == ["stays"]);
    let kicked = || std::fs::read_to_string(folder.path().join("kicked")).unwrap_or_default();
    let told = ["old jane too_old ", "renamed joe too_old "];
    let is_told = |text: &str| text.len() == told.concat().len() && told.iter().all(|one| text.contains(one));
    until("the command is run", || is_told(&kicked()));
    let (_, text) = run(&broker, &["show", "gone"]);
    assert!(text.contains("process_gone"), "{text}");
    // No command runs twice.
    drop(broker);
    let broker = Broker::start_in(folder.clone(), &run_by);
    assert_eq!(ids(&broker), ["stays"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_told(&kicked()), "{}", kicked());
}

#[test]
fn a_register_that_cannot_be_used_is_no_answer_and_a_problem() {
    let folder = folder();
    // A folder where the file should be.
    std::fs::create_dir(folder.path().join("sessions.db")).unwrap();
    let broker = Broker::start_in(folder, DOMAIN);
    for arguments in [vec!["list"], vec!["show", "a"], vec!["end", "a"], vec!["kick", "a"]] {
        let (code, text) = run(&broker, &arguments);
        assert!(code == 2 && text.contains("session_store") && text.contains("sessions.db"), "{code} {text}");
    }
    let status = Command::new(env!("CARGO_BIN_EXE_motion-ad"))
        .args(["status", "--json", "--socket"])
        .arg(broker.socket())
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["sessions"]["problem"].as_str().unwrap().contains("sessions.db"), "{status}");
    assert_eq!(status["well"], false);
}
