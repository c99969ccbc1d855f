//! Tests against real servers. Each starts its own on the loopback; the program comes with redis-tools.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::super::store::suite::{Made, ONE, all_events, keeps_its_promises, listed, session, soon};
use super::super::tests::{here, settings};
use super::super::{NotOpened, Register, closed_now, identity, now, owed, sweep};
use super::keeper::CONNECT;
use super::*;
use crate::config::{DEFAULT_USER, RIGHTS, RedisAt, SENTINEL_RIGHTS};
use crate::directory::controllers::dns::Network;
use crate::log::Log;

const NOW: u64 = 1_784_000_000_000;
const PASSWORD: &str = "hunter2";

/// A Redis or a Sentinel of a test, which ends when this is dropped.
struct Server {
    folder: TempDir,
    port: u16,
    options: String,
    sentinel: bool,
    child: Option<Child>,
}

/// Returns the server's program. Debian's redis-tools has it as `redis-check-rdb`, and starts no daemon.
fn program() -> Command {
    let is_there = |name: &str| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok();
    let mut command = match is_there("redis-server") {
        true => Command::new("redis-server"),
        false => Command::new("redis-check-rdb"),
    };
    command.arg0("redis-server");
    command
}

/// Returns a free port below those that the kernel gives to connections (ip(7), ip_local_port_range), so that
/// none of this machine's takes it before the server listens, or while the server is stopped.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % 200 * 100;
    (0..20_000)
        .map(|_| 10_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("every port is in use")
}

impl Server {
    /// Starts a Redis that keeps its data, with `options`.
    fn start(options: &str) -> Self {
        Server::begin(false, options)
    }

    fn begin(sentinel: bool, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let options = format!(
            "save \"\"\nbind 127.0.0.1\ndir {}\nrepl-diskless-sync-delay 0\n{options}\n",
            folder.path().display()
        );
        let mut server = Server { folder, port, options, sentinel, child: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let port = match self.options.contains("tls-port") {
            true => "port 0".to_owned(),
            false => format!("port {}", self.port),
        };
        let options = format!("{port}\n{}", self.options).replace("PORT", &self.port.to_string());
        let file = self.folder.path().join("redis.conf");
        if !file.exists() {
            std::fs::write(&file, options).unwrap();
        }
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = program();
        command.arg(&file).args(self.sentinel.then_some("--sentinel")).stdin(Stdio::null()).stdout(log);
        let child = command.spawn().expect("no Redis is installed: `make deps` as root brings redis-tools");
        self.child = Some(child);
        // While the server reads its data, it accepts connections and does not reply.
        let is_ready = || self.sentinel || self.log().contains("Ready to accept connections");
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() && is_ready() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not listen: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    /// Kills the server, as in a crash.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn at(&self) -> config::Redis {
        let server = config::Server { host: "127.0.0.1".into(), port: self.port };
        config::Redis {
            at: RedisAt::Server(server),
            tls: false,
            user: None,
            database: 0,
            password_file: None,
            ca_file: None,
        }
    }

    /// Writes a password file with the contents `text`.
    fn password(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("password");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        path
    }

    /// Runs a command on the server over a separate connection, as another client would.
    async fn does(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (name, arguments) = command.split_first().unwrap();
        cmd(name).arg(arguments).query_async(&mut connection).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The changes that a store has reported.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Change>>>);

impl Said {
    fn all(&self) -> Vec<Change> {
        self.0.lock().unwrap().clone()
    }

    fn tell(&self) -> Tell {
        let said = self.clone();
        Arc::new(move |change| said.0.lock().unwrap().push(change.clone()))
    }

    /// Waits for the first change that `wanted` accepts.
    async fn find<T>(&self, wanted: impl Fn(&Change) -> Option<T>) -> T {
        for _ in 0..1000 {
            if let Some(found) = self.all().iter().find_map(&wanted) {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("that was not said: {:?}", self.all());
    }

    fn losses(&self) -> Vec<Loss> {
        let loss = |change| if let Change::Lost(loss) = change { Some(loss) } else { None };
        self.all().into_iter().filter_map(loss).collect()
    }

    async fn down(&self) -> (String, &'static str) {
        let down = |change: &Change| match change {
            Change::Down(cause, advice) => Some((cause.clone(), *advice)),
            _ => None,
        };
        self.find(down).await
    }
}

fn store_of(redis: config::Redis) -> (Redis, Said) {
    let said = Said::default();
    (Redis::new(redis, Arc::new(Network::default()), said.tell()), said)
}

/// Waits until the waiting connection of `store` has received every event.
async fn received(store: &Redis) {
    let newest = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    for _ in 0..1000 {
        if store.keeper.newest().as_ref() == Some(&newest) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{newest} was not received: {:?}", store.keeper.newest());
}

fn store(server: &Server) -> Redis {
    store_of(server.at()).0
}

async fn made() -> Option<Made> {
    let server = Server::start("appendonly yes");
    Some(Made { store: Arc::new(store(&server)), keep: Box::new(server) })
}

mod with_few_rights {
    use super::*;

    async fn made() -> Option<Made> {
        let server = Server::start(&format!("{DEFAULT_USER}\nuser motion on >{PASSWORD} {RIGHTS}"));
        let redis = config::Redis {
            user: Some("motion".into()),
            password_file: Some(server.password("hunter2\n")),
            database: 3,
            ..server.at()
        };
        Some(Made { store: Arc::new(store_of(redis).0), keep: Box::new(server) })
    }

    keeps_its_promises!(made);
}

keeps_its_promises!(made);

async fn open(store: &Redis, id: &str) -> Result<Opened, StoreError> {
    store.open(&session(id, "john", NOW), ONE, soon()).await
}

/// Makes a call that fails, and returns the error and its duration.
async fn failing(store: &Redis) -> (StoreError, Duration) {
    let begun = Instant::now();
    let error = open(store, "x").await.unwrap_err();
    (error, begun.elapsed())
}

/// Repeats a call that must fail until the register is unavailable for a reason with the words `text`. The
/// first call can meet its connection in the moment in which the server closes it.
async fn fails_saying(store: &Redis, text: &str) {
    let begun = Instant::now();
    loop {
        let (error, _) = failing(store).await;
        if matches!(&error, StoreError::Unavailable(why) if why.contains(text)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `store` has connected again: an attempt that failed a moment ago is not repeated at once.
async fn answers(store: &Redis) {
    for _ in 0..1000 {
        if store.list(&Which::All, None, 1, soon()).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not answer again");
}

/// Repeats a call until it succeeds.
async fn in_a_while(store: &Redis, id: &str) {
    let begun = Instant::now();
    while let Err(error) = open(store, id).await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_on_two_servers_at_once_exactly_one_remains_and_both_are_told() {
    const MANY: usize = 200;
    let mut server = Server::start("appendonly yes\nappendfsync always");
    let stores = [Arc::new(store(&server)), Arc::new(store(&server))];
    let watches = stores.each_ref().map(|store| store.changes());
    let gate = Arc::new(tokio::sync::Barrier::new(MANY));
    let mut tasks = JoinSet::new();
    for number in 0..MANY {
        let (store, gate) = (stores[number % 2].clone(), gate.clone());
        tasks.spawn(async move {
            gate.wait().await;
            open(&store, &number.to_string()).await.unwrap()
        });
    }
    tasks.join_all().await;
    for mut watch in watches {
        timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }
    let events = all_events(&*stores[0]).await;
    assert_eq!(all_events(&*stores[1]).await, events);
    assert_eq!(events.len(), 2 * MANY - 1);
    let [last] = listed(&*stores[1], Which::All).await.try_into().unwrap();
    assert_eq!(events.last(), Some(&last));
    // The same holds after a crash.
    server.kill();
    server.run();
    for store in &stores {
        answers(store).await;
    }
    assert_eq!(listed(&*stores[0], Which::All).await, [last]);
    assert_eq!(all_events(&*stores[1]).await, events);
}

/// Carries the replies of `server` at this rate, in bytes per second, as if it were busy. Returns the port.
async fn slow(server: &Server, rate: u32) -> u16 {
    const PIECE: usize = 512;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), server.port);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut piece = [0; PIECE];
                while let Ok(length @ 1..) = from_server.read(&mut piece).await {
                    sleep(Duration::from_secs(1) * u32::try_from(length).unwrap() / rate).await;
                    if to_client.write_all(&piece[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_busy_with_many_calls_is_not_taken_for_dead() {
    const MANY: usize = 100;
    let server = Server::start("");
    let at = RedisAt::Server(config::Server { host: "127.0.0.1".into(), port: slow(&server, 8192).await });
    let (store, said) = store_of(config::Redis { at, ..server.at() });
    answers(&store).await;
    let begun = Instant::now();
    let store = Arc::new(store);
    let mut calls = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        calls.spawn(async move { open(&store, &number.to_string()).await });
    }
    for answer in calls.join_all().await {
        assert!(matches!(answer, Ok(Opened::Registered(_))), "{answer:?}");
    }
    // The last reply waited for the others, for longer than a server may be silent.
    assert!(begun.elapsed() > 2 * ANSWER, "{:?}", begun.elapsed());
    let down = said.all().into_iter().find(|change| matches!(change, Change::Down(..)));
    assert_eq!(down, None);
    assert_eq!(listed(&*store, Which::All).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_server_is_killed_again_and_again_whoever_was_let_in_is_registered_once() {
    // Without these options, Redis on a slow disk replies before it has written.
    let mut server = Server::start("appendonly yes\nappendfsync always");
    let stores = [Arc::new(store(&server)), Arc::new(store(&server))];
    let begin = stores[0].events(&Position::Now, 1, soon()).await.unwrap().cursor;
    let mut tasks = JoinSet::new();
    for worker in 0..8 {
        let store = stores[worker % 2].clone();
        tasks.spawn(async move {
            let mut registered = Vec::new();
            for turn in 0..40 {
                let id = format!("{worker}-{turn}");
                match open(&store, &id).await {
                    Ok(Opened::Registered(_)) => registered.push(id),
                    Ok(Opened::Denied(_)) => panic!("denied"),
                    Err(StoreError::Unavailable(_) | StoreError::Timeout(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
            registered
        });
    }
    for _ in 0..4 {
        sleep(Duration::from_millis(150)).await;
        server.kill();
        server.run();
    }
    let registered = tasks.join_all().await.concat();
    let events = all_events(&*stores[0]).await;
    let since = stores[1].events(&Position::After(begin), 1000, soon()).await.unwrap();
    assert!(!since.gap);
    assert_eq!(since.list.into_iter().map(|event| event.session).collect::<Vec<_>>(), events);
    let mut here: Vec<String> = Vec::new();
    for event in &events {
        match event.ended {
            None => {
                assert!(here.is_empty() && events.iter().filter(|other| other.id == event.id).count() <= 2);
                here.push(event.id.clone());
            }
            Some(_) => assert_eq!(here.pop().as_ref(), Some(&event.id)),
        }
    }
    assert_eq!(listed(&*stores[0], Which::All).await.len(), 1);
    for id in &registered {
        assert!(events.iter().any(|event| event.id == *id), "{id} was registered");
    }
    assert!(registered.len() > 20, "{}", registered.len());
}

#[tokio::test]
async fn a_dead_server_costs_nothing_and_the_first_call_after_it_is_back_works() {
    // By default the server delays a write of its file while the disk is busy, and a kill then loses events.
    let mut server = Server::start("appendonly yes\nappendfsync always");
    let (store, said) = store_of(server.at());
    open(&store, "a").await.unwrap();
    let mut changes = store.changes();
    server.kill();
    for _ in 0..20 {
        let (error, took) = failing(&store).await;
        let (StoreError::Unavailable(cause) | StoreError::Timeout(cause)) = &error else { panic!("{error}") };
        assert!(cause.contains("127.0.0.1"), "{cause}");
        assert!(took < ANSWER, "it waited for an answer: {took:?}");
    }
    let (error, _) = failing(&store).await;
    assert!(error.to_string().contains("refused"), "{error}");
    changes.mark_unchanged();
    server.run();
    // An attempt to connect that failed a moment ago is not made again at once.
    sleep(Duration::from_millis(60)).await;
    open(&store, "b").await.unwrap();
    // Events may have been missed.
    timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    let said = said.all();
    let [Change::Up(at, None), Change::Down(..), Change::Up(again, Some(_))] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert_eq!((at, at), (again, &format!("127.0.0.1:{}", server.port)));
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_costs_one_answer_and_then_nothing() {
    let server = Server::start("");
    let (store, said) = store_of(server.at());
    open(&store, "a").await.unwrap();
    server.signal(Signal::SIGSTOP);
    let (error, took) = failing(&store).await;
    assert!(matches!(error, StoreError::Timeout(_)), "{error}");
    assert!((ANSWER..2 * ANSWER).contains(&took), "{took:?}");
    for _ in 0..20 {
        let (error, took) = failing(&store).await;
        assert!(
            matches!(&error, StoreError::Unavailable(cause) if cause.contains("no answer in time")),
            "{error}"
        );
        assert!(took < ANSWER, "it waited for an answer, too: {took:?}");
    }
    assert!(said.down().await.0.contains("no answer in time"));
    server.signal(Signal::SIGCONT);
    in_a_while(&store, "b").await;
}

#[tokio::test]
async fn a_dead_server_is_noticed_without_any_call() {
    let server = Server::start("");
    let (store, said) = store_of(server.at());
    open(&store, "a").await.unwrap();
    server.signal(Signal::SIGSTOP);
    assert!(said.down().await.0.contains("no answer in time"));
}

#[tokio::test]
async fn who_is_silent_from_the_start_is_bounded() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = config::Server { host: "127.0.0.1".into(), port: silent.local_addr().unwrap().port() };
    let redis = config::Redis { at: RedisAt::Server(server), ..Server::start("").at() };
    let (store, _) = store_of(redis);
    let begun = Instant::now();
    let late = store.count(begun + Duration::from_millis(300)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(begun.elapsed() < ANSWER, "it waited longer than its deadline");
    let (error, _) = failing(&store).await;
    assert!(error.to_string().contains("no answer in time"), "{error}");
    assert!(failing(&store).await.1 < ANSWER, "it waited for an answer, too");
}

#[tokio::test]
async fn what_keeps_it_from_being_used_is_said_with_advice_and_without_the_password() {
    let server = Server::start(&format!(
        "user default off\nuser motion on >{PASSWORD} {RIGHTS}\nuser other on >{PASSWORD} ~other:* +@all\n\
         user reader on >{PASSWORD} ~motion-ad:* +@read +@connection +@scripting"
    ));
    let with = |user: &str, text: &str| config::Redis {
        user: Some(user.into()),
        password_file: Some(server.password(text)),
        ..server.at()
    };
    let cases = [
        (with("motion", "hunter3"), "WRONGPASS", "compare sessions.password_file"),
        (server.at(), "NOAUTH", "name that as sessions.password_file"),
        (with("other", PASSWORD), "NOPERM", "motion-ad.toml(5)"),
        (with("reader", PASSWORD), "executing the script", "motion-ad.toml(5)"),
        (
            config::Redis { database: 99, ..with("motion", PASSWORD) },
            "out of range",
            "no database of the number",
        ),
        (
            config::Redis { password_file: None, ..with("motion", "") },
            "there is no password",
            "put it into a file",
        ),
        (config::Redis { tls: true, ..with("motion", PASSWORD) }, "no answer to TLS", "tls-port"),
        (with("motion", ""), "is empty", "its first line"),
    ];
    for (redis, cause, advice) in cases {
        // All cases share one password file.
        if let (Some(file), Some(user)) = (&redis.password_file, &redis.user) {
            let text = match (cause, user.as_str()) {
                ("WRONGPASS", _) => "hunter3",
                ("is empty", _) => "\n",
                _ => PASSWORD,
            };
            std::fs::write(file, text).unwrap();
        }
        let (store, said) = store_of(redis);
        let (error, _) = failing(&store).await;
        let (down, told) = said.down().await;
        assert!(error.to_string().contains(cause) && error.to_string().contains(advice), "{cause}: {error}");
        assert!(down.contains(cause) && told.contains(advice), "{down}; {told}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
    let public = with("motion", PASSWORD);
    let file = public.password_file.clone().unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (error, _) = failing(&store_of(public).0).await;
    assert!(error.to_string().contains("every user may read the password file"), "{error}");
}

#[tokio::test]
async fn a_new_password_needs_no_new_start() {
    let mut server = Server::start("requirepass one");
    let file = server.password("one\n");
    let (store, said) = store_of(config::Redis { password_file: Some(file.clone()), ..server.at() });
    open(&store, "a").await.unwrap();
    server.kill();
    // With a byte order mark and CRLF, as an editor of Windows saves it.
    std::fs::write(&file, "\u{feff}two\r\n").unwrap();
    std::fs::write(
        server.folder.path().join("redis.conf"),
        format!("port {}\nbind 127.0.0.1\nrequirepass two\n", server.port),
    )
    .unwrap();
    server.run();
    in_a_while(&store, "b").await;
    assert!(said.all().iter().all(|change| !format!("{change:?}").contains("WRONGPASS")), "{:?}", said.all());
}

#[tokio::test]
async fn a_replica_is_refused_with_advice_and_a_master_that_becomes_one_is_left() {
    let master = Server::start("");
    let replica = Server::start(&format!("replicaof 127.0.0.1 {}", master.port));
    fails_saying(&store(&replica), "name the master").await;
    let used = store(&master);
    open(&used, "a").await.unwrap();
    master.does(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]).await.unwrap();
    fails_saying(&used, "name the master").await;
    master.does(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    in_a_while(&used, "b").await;
}

#[tokio::test]
async fn a_full_server_takes_no_more_and_can_still_be_read() {
    let server = Server::start("");
    let store = store(&server);
    open(&store, "a").await.unwrap();
    server.does(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    let (error, _) = failing(&store).await;
    let text = error.to_string();
    assert!(matches!(error, StoreError::Unavailable(_)) && text.contains("raise maxmemory"), "{text}");
    for store in [&store, &store_of(server.at()).0] {
        assert_eq!(listed(store, Which::All).await, [session("a", "john", NOW)]);
        assert_eq!(all_events(store).await, [session("a", "john", NOW)]);
    }
    server.does(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    open(&store, "b").await.unwrap();
}

#[tokio::test]
async fn a_cursor_of_what_was_lost_is_a_gap_also_where_its_number_came_again() {
    let server = Server::start("");
    let (store, _) = store_of(server.at());
    let events =
        async |cursor: &str| store.events(&Position::After(cursor.into()), 10, soon()).await.unwrap();
    let begin = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    open(&store, "a").await.unwrap();
    let snapshot = server.does(&["DUMP", script::EVENTS_KEY]).await.unwrap();
    let redis::Value::BulkString(snapshot) = snapshot else { panic!("{snapshot:?}") };
    let first = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    store.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
    let seen = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    // As after a failover to a replica that did not have the second event yet.
    let client = redis::Client::open(server.url()).unwrap();
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    let restore = cmd("RESTORE").arg(script::EVENTS_KEY).arg(0).arg(snapshot).arg("REPLACE").clone();
    restore.exec_async(&mut other).await.unwrap();
    assert!(events(&seen).await.gap, "it is not there");
    store.open(&session("c", "jim", NOW), ONE, soon()).await.unwrap();
    let again = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    assert_eq!(again.split('-').next(), seen.split('-').next(), "the number came again");
    assert!(events(&seen).await.gap);
    assert!(!events(&first).await.gap);
    assert_eq!(events(&begin).await.list.len(), 2);
    // The same after the loss of the whole register, while a watcher waits.
    let mut changes = store.changes();
    server.does(&["FLUSHALL"]).await.unwrap();
    changes.mark_unchanged();
    open(&store, "d").await.unwrap();
    timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    for cursor in [begin, first, seen, again] {
        let late = events(&cursor).await;
        assert!(late.gap);
        assert_eq!(late.list.len(), 1);
    }
}

/// The keys of the register, without its bookmarks.
const PARTS: [&str; 6] = ["birth", "events", "known", "open", "index", "ended"];

#[tokio::test(flavor = "multi_thread")]
async fn a_register_that_goes_back_under_a_live_connection_is_noticed_and_its_events_are_told() {
    let server = Server::start("");
    let (store, said) = store_of(server.at());
    let other = store_of(server.at()).0;
    open(&store, "a").await.unwrap();
    for key in PARTS {
        let key = format!("motion-ad:{{sessions}}:{key}");
        server.does(&["COPY", &key, &key, "DB", "1"]).await.unwrap();
    }
    for (id, person) in [("b", "jane"), ("c", "jim")] {
        store.open(&session(id, person, NOW), ONE, soon()).await.unwrap();
    }
    let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    received(&store).await;
    received(&other).await;
    let mut watches = [store.changes(), other.changes()];
    server.does(&["SWAPDB", "0", "1"]).await.unwrap();
    watches.iter_mut().for_each(|watch| watch.mark_unchanged());
    let evicted = open(&other, "d").await.unwrap();
    assert!(matches!(evicted, Opened::Registered(gone) if gone[0].id == "a"));
    for watch in &mut watches {
        timeout(Duration::from_secs(8), watch.changed()).await.expect("nobody was told").unwrap();
    }
    assert!(store.events(&Position::After(cursor), 10, soon()).await.unwrap().gap);
    // From then on events are reported at once again, although their numbers were used before.
    received(&store).await;
    received(&other).await;
    watches.iter_mut().for_each(|watch| watch.mark_unchanged());
    open(&other, "e").await.unwrap();
    for watch in &mut watches {
        timeout(Duration::from_secs(8), watch.changed()).await.expect("nobody was told").unwrap();
    }
    assert_eq!(said.losses(), [Loss::Newest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_decides_where_a_register_begins() {
    let server = Server::start("");
    // A server whose clock was ahead by centuries created the previous register.
    let ahead = "2-99999999999999-0123456789abcdef";
    server.does(&["SET", "motion-ad:{sessions}:birth", ahead]).await.unwrap();
    let (store, said) = store_of(server.at());
    open(&store, "a").await.unwrap();
    received(&store).await;
    let mut changes = store.changes();
    server.does(&["FLUSHALL"]).await.unwrap();
    changes.mark_unchanged();
    open(&store, "b").await.unwrap();
    timeout(Duration::from_secs(8), changes.changed()).await.expect("nobody was told").unwrap();
    in_a_while(&store, "c").await;
    assert_eq!(said.losses(), [Loss::All]);
    let began = server.does(&["GET", "motion-ad:{sessions}:birth"]).await.unwrap();
    let began: String = redis::from_redis_value(began).unwrap();
    assert!(began.starts_with("2-0-"), "{began}");
}

#[tokio::test]
async fn a_register_that_is_no_longer_whole_is_begun_anew_and_that_is_said() {
    let server = Server::start("");
    let (store, said) = store_of(server.at());
    for (turn, key) in ["birth", "events", "known", "open", "index"].into_iter().enumerate() {
        open(&store, &format!("{turn}a")).await.unwrap();
        let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
        server.does(&["DEL", &format!("motion-ad:{{sessions}}:{key}")]).await.unwrap();
        open(&store, &format!("{turn}b")).await.unwrap();
        assert_eq!(said.losses(), vec![Loss::Keys; turn + 1], "{key}");
        assert_eq!(listed(&store, Which::All).await, [session(&format!("{turn}b"), "john", NOW)], "{key}");
        assert!(store.events(&Position::After(cursor), 1, soon()).await.unwrap().gap, "{key}");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_without_what_it_held_is_noticed() {
    let mut server = Server::start("appendonly yes\nappendfsync always");
    let (store, said) = store_of(server.at());
    open(&store, "a").await.unwrap();
    let log = server.folder.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let earlier = std::fs::read(&log).unwrap();
    open(&store, "b").await.unwrap();
    received(&store).await;
    server.kill();
    std::fs::write(&log, earlier).unwrap();
    server.run();
    in_a_while(&store, "c").await;
    assert_eq!(said.losses(), [Loss::Newest]);
    server.kill();
    std::fs::remove_dir_all(server.folder.path().join("appendonlydir")).unwrap();
    server.run();
    in_a_while(&store, "d").await;
    assert_eq!(said.losses(), [Loss::Newest, Loss::All]);
}

#[tokio::test]
async fn the_user_default_is_off_and_a_restart_loses_nothing() {
    // When the server reads its log without these rights, it omits the changes of scripts
    // (redis/redis#14541).
    let mut server = Server::start(&format!(
        "{DEFAULT_USER}\nuser motion on >{PASSWORD} {RIGHTS}\nappendonly yes\nappendfsync always"
    ));
    let user = Some("motion".into());
    let redis = config::Redis { user, password_file: Some(server.password(PASSWORD)), ..server.at() };
    let (store, said) = store_of(redis);
    let begin = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    open(&store, "a").await.unwrap();
    server.kill();
    server.run();
    in_a_while(&store, "b").await;
    let events = store.events(&Position::After(begin), 10, soon()).await.unwrap();
    assert_eq!((events.gap, events.list.len()), (false, 3));
    assert_eq!(said.losses(), []);
}

#[tokio::test]
async fn a_register_of_another_layout_is_left_alone() {
    let server = Server::start("");
    let birth = "motion-ad:{sessions}:birth";
    server.does(&["SET", birth, "3-1-0123456789abcdef"]).await.unwrap();
    let (error, _) = failing(&store(&server)).await;
    assert!(error.to_string().contains("the same version of motion-ad"), "{error}");
    let kept = server.does(&["GET", birth]).await.unwrap();
    assert_eq!(kept, redis::Value::BulkString(b"3-1-0123456789abcdef".to_vec()));
}

#[tokio::test]
async fn one_record_that_cannot_be_read_bars_nobody() {
    let mut without = serde_json::to_value(session("a", "john", NOW)).unwrap();
    without.as_object_mut().unwrap().remove("since");
    let without = without.to_string();
    let spoils = [&b"{"[..], &b"{}"[..], &b"\xff\xfe"[..], without.as_bytes()];
    let deny = Admission::Deny(std::num::NonZeroUsize::MIN);
    for (policy, spoil) in spoils.into_iter().flat_map(|spoil| [(ONE, spoil), (deny, spoil)]) {
        let server = Server::start("");
        let (store, said) = store_of(server.at());
        open(&store, "a").await.unwrap();
        store.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
        let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
        let client = redis::Client::open(server.url()).unwrap();
        let mut other = client.get_multiplexed_async_connection().await.unwrap();
        cmd("HSET").arg(script::KNOWN_KEY).arg("a").arg(spoil).exec_async(&mut other).await.unwrap();
        // By lists, by the sweep and by the login of its own user.
        if spoil == b"{" {
            assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW)]);
        }
        let newcomer = session("c", "john", NOW);
        let opened = store.open(&newcomer, policy, soon()).await.unwrap();
        assert_eq!(opened, Opened::Registered(vec![]), "{spoil:?}");
        assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW), newcomer]);
        let told = |change: &Change| matches!(change, Change::Unreadable(..));
        assert_eq!(said.all().iter().filter(|change| told(change)).count(), 1, "{:?}", said.all());
        let events = store.events(&Position::After(cursor), 10, soon()).await.unwrap();
        assert!(events.list.iter().any(|event| event.session.id == "c"));
        store.open(&session("d", "john", NOW), ONE, soon()).await.unwrap();
        assert_eq!(said.losses(), []);
    }
}

#[tokio::test]
async fn a_register_of_the_layout_before_is_carried_over() {
    let server = Server::start("");
    let (store, said) = store_of(server.at());
    let old = Session { machine: "xcally".into(), ..session("a", "john", NOW) };
    store.open(&old, ONE, soon()).await.unwrap();
    // As older versions wrote it: without a machine, and indexed by the name of the host.
    let mut record = serde_json::to_value(&old).unwrap();
    record.as_object_mut().unwrap().remove("machine");
    server.does(&["HSET", script::KNOWN_KEY, "a", &record.to_string()]).await.unwrap();
    let birth = "motion-ad:{sessions}:birth";
    let now: String = redis::from_redis_value(server.does(&["GET", birth]).await.unwrap()).unwrap();
    server.does(&["SET", birth, &now.replacen('2', "1", 1)]).await.unwrap();
    let store = store_of(server.at()).0;
    let Opened::Registered(gone) = open(&store, "b").await.unwrap() else { panic!("denied") };
    assert_eq!(gone[0].id, "a");
    open(&store, "c").await.unwrap();
    assert_eq!(listed(&store, Which::All).await, [session("c", "john", NOW)]);
    assert_eq!(server.does(&["GET", birth]).await.unwrap(), redis::Value::BulkString(now.into_bytes()));
    assert_eq!(said.losses(), []);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_and_nothing_else_stays_behind() {
    let server = Server::start("");
    let store = store(&server);
    for number in 0..50 {
        let one = session(&number.to_string(), "john", NOW);
        store.open(&one, ONE, soon()).await.unwrap();
    }
    let late = session("late", "jane", NOW + ENDED + 1);
    store.open(&late, ONE, soon()).await.unwrap();
    assert_eq!(store.get("0", soon()).await.unwrap(), None);
    assert_eq!(store.get("49", soon()).await.unwrap(), Some(session("49", "john", NOW)));
    for (key, count) in [("known", "HLEN"), ("open", "ZCARD"), ("ended", "ZCARD"), ("index", "ZCARD")] {
        let found = server.does(&[count, &format!("motion-ad:{{sessions}}:{key}")]).await.unwrap();
        let expected = match key {
            "known" | "open" => 2,
            "ended" => 0,
            _ => 6,
        };
        assert_eq!(found, redis::Value::Int(expected), "{key}");
    }
    let keys = server.does(&["KEYS", "*"]).await.unwrap();
    assert_eq!(keys.as_sequence().unwrap().len(), 5, "{keys:?}");
}

/// Creates a CA, and a server's options for a certificate that it issued.
fn tls(folder: &TempDir, host: &str) -> (PathBuf, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let ca_file = write("ca.pem", ca.pem());
    let files = [write("cert.pem", certificate.pem()), write("key.pem", key.serialize_pem())];
    let options = format!(
        "tls-port PORT\ntls-auth-clients no\ntls-replication yes\ntls-ca-cert-file {}\ntls-cert-file {}\n\
         tls-key-file {}",
        ca_file.display(),
        files[0].display(),
        files[1].display()
    );
    (ca_file, options)
}

#[tokio::test]
async fn tls_wants_a_certificate_of_the_named_ca_for_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_file, options) = tls(&folder, "127.0.0.1");
    let server = Server::start(&options);
    let with = |ca_file: Option<PathBuf>| config::Redis { tls: true, ca_file, ..server.at() };
    let good = store_of(with(Some(ca_file.clone()))).0;
    open(&good, "a").await.unwrap();
    assert_eq!(good.name(), format!("rediss://127.0.0.1:{}", server.port));
    let other = tempfile::tempdir().unwrap();
    let cases = [
        (with(Some(tls(&other, "x").0)), "no trusted root vouches"),
        (with(None), "no trusted root vouches"),
        (with(Some(folder.path().join("key.pem"))), "no usable CA certificates"),
        (with(Some(folder.path().join("absent"))), "no usable CA certificates"),
        (server.at(), "the connection was closed"),
    ];
    for (redis, cause) in cases {
        let (error, _) = failing(&store_of(redis).0).await;
        assert!(error.to_string().contains(cause), "{error}");
    }
    let (ca_file, options) = tls(&other, "redis.acme.com");
    let misnamed = Server::start(&options);
    let redis = config::Redis { tls: true, ca_file: Some(ca_file), ..misnamed.at() };
    let (error, _) = failing(&store_of(redis).0).await;
    assert!(error.to_string().contains("its certificate is not valid"), "{error}");
}

/// Creates a register over `store` for this server.
fn register_of(store: Redis, server: identity::Server, settings: config::Sessions) -> Arc<Register> {
    let (log, writer) = Log::open().unwrap();
    // Its log lines are discarded.
    writer.finish();
    Register::new(Arc::new(store), settings, server, 8, Arc::new(log))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_a_stalled_server_had_refused_has_no_session_once_it_goes_on() {
    let server = Server::start("");
    let settings = config::Sessions { policy: config::Policy::Deny, ..settings() };
    let register = register_of(store(&server), here(), settings);
    tokio::spawn(owed::keep(register.clone()));
    register.close(&register.enter(1).await.unwrap().id, &closed_now(), soon()).await.unwrap();
    server.signal(Signal::SIGSTOP);
    let refused = register.enter(1).await.unwrap_err();
    assert!(matches!(refused, NotOpened::Store(StoreError::Timeout(_))), "{refused:?}");
    server.signal(Signal::SIGCONT);
    let begun = Instant::now();
    let told = || register.ended().find(|(reason, _)| *reason == EndReason::Unconfirmed).unwrap().1;
    while told() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it was not undone");
        sleep(Duration::from_millis(20)).await;
    }
    register.enter(1).await.unwrap();
    assert_eq!(register.store.count(soon()).await.unwrap(), 1);
}

/// Carries calls to `server`. The first one with `word` is kept until the second notice, after which it is
/// delivered, and the connection that it came by is closed at once. Returns the port and the notices: one
/// that delivers, and one of the delivery.
async fn keeping(server: &Server, word: &'static str) -> (u16, [Arc<tokio::sync::Notify>; 2]) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), server.port);
    let notices: [Arc<tokio::sync::Notify>; 2] = Default::default();
    let [deliver, delivered] = notices.clone();
    let is_kept = Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            let (deliver, delivered, is_kept) = (deliver.clone(), delivered.clone(), is_kept.clone());
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let replies =
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut piece = [0; 65536];
                while let Ok(length @ 1..) = from_client.read(&mut piece).await {
                    let has_word = String::from_utf8_lossy(&piece[..length]).contains(word);
                    if has_word && !is_kept.swap(true, std::sync::atomic::Ordering::SeqCst) {
                        replies.abort();
                        let _ = replies.await;
                        drop(from_client);
                        deliver.notified().await;
                        to_server.write_all(&piece[..length]).await.unwrap();
                        sleep(Duration::from_millis(300)).await;
                        return delivered.notify_one();
                    }
                    if to_server.write_all(&piece[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, notices)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_call_opens_no_session_after_the_next_one_was_denied() {
    const DENY: Admission = Admission::Deny(std::num::NonZeroUsize::MIN);
    let server = Server::start("");
    let (port, [deliver, delivered]) = keeping(&server, "the late one").await;
    let at = RedisAt::Server(config::Server { host: "127.0.0.1".into(), port });
    let (store, _) = store_of(config::Redis { at, ..server.at() });
    let first = session("first", "john", NOW);
    store.open(&first, DENY, soon()).await.unwrap();
    let late = session("the late one", "john", NOW + 1);
    assert_eq!(store.open(&late, DENY, soon()).await, Ok(Opened::Denied(vec![first])));
    store.close("first", &closed_now(), soon()).await.unwrap();
    // What the first attempt has sent arrives now.
    deliver.notify_one();
    timeout(Duration::from_secs(10), delivered.notified()).await.unwrap();
    assert_eq!(listed(&store, Which::All).await, []);
    // Without a lost call, a denial changes nothing.
    store.open(&session("second", "john", NOW + 2), DENY, soon()).await.unwrap();
    let before = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    store.open(&session("third", "john", NOW + 3), DENY, soon()).await.unwrap();
    assert_eq!(store.events(&Position::Now, 1, soon()).await.unwrap().cursor, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_one_name_leave_each_others_sessions_alone_and_a_renamed_one_finds_its_own() {
    let server = Server::start("");
    let other = identity::Server { machine: "6d62".into(), ..here() };
    let renamed = identity::Server { name: "there".into(), ..here() };
    let [first, second, third] =
        [here(), other, renamed].map(|one| register_of(store(&server), one, settings()));
    // As if opened on another host, whose processes do not exist here.
    let gone = |id: &str| {
        let identity::Server { name, machine } = here();
        Session { host: name, machine, pid: 4_000_000, boot: String::new(), ..session(id, id, now()) }
    };
    let open = async || {
        let open = listed(&*first.store, Which::All).await;
        open.into_iter().map(|session| session.id).collect::<Vec<_>>()
    };
    first.store.open(&gone("a"), ONE, soon()).await.unwrap();
    // The first server runs, because it counts.
    first.store.bookmark("server 6d61/here", "x 1", soon()).await.unwrap();
    for count in 2..5 {
        for register in [&second, &third] {
            sweep::sweep(register, now()).await.unwrap();
        }
        assert_eq!(open().await, ["a"]);
        first.store.bookmark("server 6d61/here", &format!("x {count}"), soon()).await.unwrap();
    }
    // It no longer counts there, because it has the other name now.
    for _ in 0..2 {
        sweep::sweep(&second, now()).await.unwrap();
        sweep::sweep(&third, now()).await.unwrap();
    }
    assert_eq!(open().await, [""; 0]);
    first.store.open(&gone("b"), ONE, soon()).await.unwrap();
    sweep::sweep(&second, now()).await.unwrap();
    assert_eq!(open().await, ["b"]);
    sweep::sweep(&first, now()).await.unwrap();
    assert_eq!(open().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_refused_and_says_why_and_the_original_goes_on() {
    let server = Server::start("");
    let [original, clone] = [(); 2].map(|()| register_of(store(&server), here(), settings()));
    tokio::spawn(identity::keep(original.clone()));
    timeout(Duration::from_secs(30), original.identity.is_certain()).await.unwrap();
    tokio::spawn(identity::keep(clone.clone()));
    let begun = Instant::now();
    let refused = loop {
        match clone.enter(1).await {
            Err(NotOpened::Store(error)) => break error.to_string(),
            _ => assert!(begun.elapsed() < Duration::from_secs(60), "it was not refused"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    assert!(
        refused.contains("another server that runs has the machine-id and the name of this one"),
        "{refused}"
    );
    assert!(clone.report(soon()).await.problem.unwrap().contains("machine-id"));
    original.enter(2).await.unwrap();
    assert_eq!(original.report(soon()).await.problem, None);
    assert!(timeout(Duration::from_secs(1), clone.identity.is_certain()).await.is_err());
}

/// Measures how long logins are rejected after a master has died, and with which messages:
/// `cargo test --lib how_long_a_failover -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a measurement"]
async fn how_long_a_failover_takes_with_replicas_that_must_be_there() {
    let mut watched = Watched::start("");
    let lab = "user lab on >secret ~* &* +@all\nmasteruser lab\nmasterauth secret\nmin-replicas-to-write 1\n\
               min-replicas-max-lag 5";
    let motion = format!("{DEFAULT_USER}\nuser motion on >{PASSWORD} {RIGHTS}");
    let third = Server::start(&format!(
        "{lab}\n{motion}\nappendonly yes\nreplicaof 127.0.0.1 {}",
        watched.servers[0].port
    ));
    for one in &watched.servers {
        let client = redis::Client::open(format!("redis://lab:secret@127.0.0.1:{}", one.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for (key, value) in [("min-replicas-to-write", "1"), ("min-replicas-max-lag", "5")] {
            cmd("CONFIG").arg("SET").arg(key).arg(value).exec_async(&mut connection).await.unwrap();
        }
    }
    let (store, _) = store_of(watched.redis());
    in_a_while(&store, "a").await;
    // Wait until all Sentinels have seen both replicas.
    let sees = |one: &Server| one.log().matches("+slave slave").count() == 2;
    while !watched.sentinels.iter().all(sees) {
        sleep(Duration::from_millis(100)).await;
    }
    watched.settled().await;
    watched.servers[0].kill();
    let begun = Instant::now();
    let mut before = String::new();
    for number in 0.. {
        let said = match open(&store, &format!("n{number}")).await {
            Ok(_) => "registered".to_owned(),
            Err(error) => error.to_string(),
        };
        if said != before {
            println!("{:6} ms  {said}", begun.elapsed().as_millis());
        }
        if said == "registered" {
            break;
        }
        before = said;
        sleep(Duration::from_millis(20)).await;
    }
    drop(third);
}

/// A master, its replica and three Sentinels.
struct Watched {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

impl Watched {
    fn start(more: &str) -> Self {
        let lab = "user lab on >secret ~* &* +@all\nmasteruser lab\nmasterauth secret";
        let motion = format!("{DEFAULT_USER}\nuser motion on >{PASSWORD} {RIGHTS}");
        let options = format!("{lab}\n{motion}\nappendonly yes");
        let master = Server::start(&options);
        let replica = Server::start(&format!("{options}\nreplicaof 127.0.0.1 {}", master.port));
        let watch = format!(
            "sentinel monitor motion 127.0.0.1 {} 2\nsentinel auth-user motion lab\n\
             sentinel auth-pass motion secret\n\
             sentinel down-after-milliseconds motion 500\nsentinel failover-timeout motion 3000\n{more}",
            master.port
        );
        let sentinels = (0..3).map(|_| Server::begin(true, &watch)).collect();
        Watched { servers: [master, replica], sentinels }
    }

    fn redis(&self) -> config::Redis {
        let server = |server: &Server| config::Server { host: "127.0.0.1".into(), port: server.port };
        let sentinels = self.sentinels.iter().map(server).collect();
        config::Redis {
            at: RedisAt::Sentinel { sentinels, service: "motion".into() },
            user: Some("motion".into()),
            password_file: Some(self.servers[0].password(PASSWORD)),
            ..self.servers[0].at()
        }
    }

    /// Waits until a failover can succeed.
    async fn settled(&self) {
        let found = |text: &str| self.sentinels.iter().all(|sentinel| sentinel.log().contains(text));
        for _ in 0..3000 {
            let knows = self.sentinels.iter().all(|one| one.log().matches("+sentinel sentinel").count() == 2);
            if knows && found("+slave slave") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("they do not know each other: {}", self.sentinels[0].log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_leads_to_the_new_master() {
    // Sentinels without a password, with the same password, and with the same user.
    let known = format!("user default off\nuser motion on >{PASSWORD} {SENTINEL_RIGHTS}");
    let manners = ["", "requirepass hunter2", &known];
    for manner in &manners[1..] {
        let watched = Watched::start(manner);
        open(&store_of(watched.redis()).0, "a").await.unwrap();
    }
    let mut watched = Watched::start(manners[0]);
    let (store, said) = store_of(watched.redis());
    open(&store, "a").await.unwrap();
    watched.settled().await;
    let [master, replica] = &mut watched.servers;
    master.kill();
    let (error, took) = failing(&store).await;
    assert!(took < 2 * ANSWER, "{took:?} {error}");
    in_a_while(&store, "b").await;
    let said = said.all();
    let mut up = said.iter().filter_map(|change| match change {
        Change::Up(server, _) => Some(server.clone()),
        _ => None,
    });
    assert_eq!(up.next_back(), Some(format!("127.0.0.1:{}", replica.port)));
    assert_eq!(listed(&store, Which::All).await.len(), 1);
    // The former master comes back as a master for a moment.
    master.run();
    for number in 0..30 {
        open(&store, &number.to_string()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn sentinels_that_are_gone_or_know_nothing_say_so() {
    let sentinel = Server::begin(true, "");
    let server = |port| config::Server { host: "127.0.0.1".into(), port };
    let redis = |ports: &[u16]| config::Redis {
        at: RedisAt::Sentinel {
            sentinels: ports.iter().map(|port| server(*port)).collect(),
            service: "motion".into(),
        },
        ..sentinel.at()
    };
    let (error, _) = failing(&store_of(redis(&[1, sentinel.port])).0).await;
    assert!(
        error.to_string().contains("it knows no motion") && error.to_string().contains("refused"),
        "{error}"
    );
    let (error, _) = failing(&store_of(redis(&[1])).0).await;
    assert!(error.to_string().contains("Sentinel 127.0.0.1:1"), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (error, took) = failing(&store_of(redis(&[silent.local_addr().unwrap().port()])).0).await;
    assert!(error.to_string().contains("no answer in time") && took < CONNECT, "{error} {took:?}");
}
