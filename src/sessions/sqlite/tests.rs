use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::super::store::suite::{Made, ONE, all_events, keeps_its_promises, listed, session, soon};
use super::file::{ASIDE, FILE, LAYOUT, RETRY, TABLES};
use super::*;

fn silent() -> Tell {
    Arc::new(|text| panic!("{text}"))
}

async fn made() -> Option<Made> {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    Some(Made { store: Arc::new(store), keep: Box::new(folder) })
}

keeps_its_promises!(made);

const NOW: u64 = 1_784_000_000_000;

async fn open(store: &Sqlite, id: &str) -> Result<Opened, StoreError> {
    store.open(&session(id, "john", NOW), ONE, soon()).await
}

/// Opens the file in `folder`, and returns what is reported.
async fn said(folder: &Path) -> (Sqlite, Vec<String>) {
    let said = Arc::default();
    let store = telling(folder, &said);
    store.count(soon()).await.unwrap();
    let said = said.lock().unwrap().clone();
    (store, said)
}

/// Ends `store`, and returns when its thread has released the file.
async fn close(store: Sqlite) {
    let (reply, done) = oneshot::channel();
    let closing: Job = Box::new(move |keeper| {
        keeper.close();
        reply.send(()).unwrap();
    });
    assert!(store.jobs.send(closing).is_ok());
    done.await.unwrap();
}

fn files(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().contains("damaged")).count()
}

#[tokio::test]
async fn the_next_process_finds_everything_and_only_its_own_user_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    for id in ["a", "b"] {
        open(&store, id).await.unwrap();
    }
    store.bookmark("x", "7", soon()).await.unwrap();
    let events = all_events(&store).await;
    close(store).await;
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    assert_eq!(listed(&store, Which::All).await, [session("b", "john", NOW)]);
    assert_eq!(all_events(&store).await, events);
    assert_eq!(store.bookmarked("x", soon()).await.unwrap().as_deref(), Some("7"));
}

#[tokio::test]
async fn a_second_broker_does_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    open(&store, "a").await.unwrap();
    let second = Sqlite::new(folder.path(), silent()).unwrap();
    let error = open(&second, "b").await.unwrap_err();
    assert!(error.to_string().contains("locked"), "{error}");
    assert_eq!(listed(&store, Which::All).await.len(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_its_cursors_are_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    for number in 0..100 {
        open(&store, &number.to_string()).await.unwrap();
    }
    let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
    close(store).await;
    let path = folder.path().join(FILE);
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.fill(b'x'), |bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes[4096..].fill(0xff)];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let (store, said) = said(folder.path()).await;
        let [line] = said.as_slice() else { panic!("{said:?}") };
        assert!(line.contains("was damaged") && line.contains("sessions.db.damaged-2"), "{line}");
        assert_eq!(files(folder.path()), number + 1);
        assert_eq!(listed(&store, Which::All).await, []);
        let events = store.events(&Position::After(cursor.clone()), 1, soon()).await.unwrap();
        assert!(events.gap);
        for number in 0..100 {
            open(&store, &number.to_string()).await.unwrap();
        }
        let events = store.events(&Position::After(cursor.clone()), 1, soon()).await.unwrap();
        assert!(events.gap);
        assert_eq!(events.list[0].session.id, "0");
        close(store).await;
    }
}

#[tokio::test]
async fn few_damaged_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..ASIDE + 2 {
        std::fs::write(folder.path().join(FILE), "this is no database, but long enough to look like one")
            .unwrap();
        let (store, lines) = said(folder.path()).await;
        assert_eq!(lines.len(), 1);
        close(store).await;
    }
    assert_eq!(files(folder.path()), ASIDE);
}

#[tokio::test]
async fn a_file_of_another_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", LAYOUT + 1).unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    let error = open(&store, "a").await.unwrap_err();
    assert!(error.to_string().contains("another version of motion-ad"), "{error}");
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test]
async fn one_row_that_cannot_be_read_bars_nobody() {
    let spoils = ["'{'", "'{}'", "CAST(x'ff' AS TEXT)", "json_remove(session, '$.since')"];
    for (policy, spoil) in spoils.into_iter().flat_map(|spoil| [(ONE, spoil), (deny(), spoil)]) {
        let folder = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let store = Sqlite::new(folder.path(), {
            let said = said.clone();
            Arc::new(move |text: &str| said.lock().unwrap().push(text.to_owned()))
        });
        let store = store.unwrap();
        open(&store, "a").await.unwrap();
        store.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
        let cursor = store.events(&Position::Now, 1, soon()).await.unwrap().cursor;
        let sql = format!("UPDATE sessions SET session = {spoil} WHERE id = 'a'");
        store.ask(soon(), move |connection| Ok(connection.execute(&sql, [])?)).await.unwrap();
        // By lists, by the sweep and by the login of its own user.
        if spoil == "'{'" {
            assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW)]);
        }
        let newcomer = session("c", "john", NOW);
        let opened = store.open(&newcomer, policy, soon()).await.unwrap();
        assert_eq!(opened, Opened::Registered(vec![]), "{spoil}");
        assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW), newcomer]);
        let said = said.lock().unwrap().clone();
        assert!(matches!(said.as_slice(), [line] if line.contains("the session a in")), "{said:?}");
        let events = store.events(&Position::After(cursor), 10, soon()).await.unwrap();
        let ended = &events.list[0].session;
        assert_eq!((ended.id.as_str(), ended.guid.as_str(), ended.machine.as_str()), ("a", "john", "6d61"));
        assert_eq!(ended.ended.as_ref().unwrap().reason, EndReason::Refused);
        assert_eq!((events.gap, events.list.len()), (false, 2));
        assert_eq!(store.get("a", soon()).await.unwrap().as_ref(), Some(ended));
    }
}

fn deny() -> Admission {
    Admission::Deny(std::num::NonZeroUsize::MIN)
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_a_gap_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    for id in ["a", "b", "c"] {
        open(&store, id).await.unwrap();
    }
    let sql = "UPDATE events SET session = 'x' WHERE number = (SELECT min(number) + 1 FROM events)";
    store.ask(soon(), move |connection| Ok(connection.execute(sql, [])?)).await.unwrap();
    let events = store.events(&Position::Oldest, 10, soon()).await.unwrap();
    assert_eq!((events.gap, events.list.len()), (true, 4));
    let one = store.events(&Position::Oldest, 2, soon()).await.unwrap();
    assert_eq!((one.gap, one.list.len()), (true, 1));
    let next = store.events(&Position::After(one.cursor), 10, soon()).await.unwrap();
    assert_eq!((next.gap, next.list.len()), (false, 3));
}

#[tokio::test]
async fn a_file_that_is_deleted_while_it_is_used_is_written_again() {
    for parts in [&["", "-wal"][..], &[""], &["-wal", ""]] {
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let store = telling(folder.path(), &told);
        for id in ["a", "b"] {
            open(&store, id).await.unwrap();
        }
        let events = all_events(&store).await;
        for part in parts {
            let _ = std::fs::remove_file(folder.path().join(format!("{FILE}{part}")));
        }
        assert_eq!(listed(&store, Which::All).await, [session("b", "john", NOW)]);
        let lines = told.lock().unwrap().clone();
        assert!(matches!(lines.as_slice(), [line] if line.contains("was deleted")), "{lines:?}");
        close(store).await;
        let store = telling(folder.path(), &told);
        assert_eq!(all_events(&store).await, events);
        open(&store, "z").await.unwrap();
        assert_eq!(told.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn another_file_in_its_place_is_said_and_used() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let store = telling(folder.path(), &told);
    open(&store, "a").await.unwrap();
    let (second, _) = said(other.path()).await;
    second.open(&session("b", "jane", NOW), ONE, soon()).await.unwrap();
    close(second).await;
    std::fs::rename(other.path().join(FILE), folder.path().join(FILE)).unwrap();
    assert_eq!(listed(&store, Which::All).await, [session("b", "jane", NOW)]);
    let lines = told.lock().unwrap().clone();
    assert!(matches!(lines.as_slice(), [line] if line.contains("another file took its place")), "{lines:?}");
}

/// Creates a store in `folder`, which writes into `told` what it reports.
fn telling(folder: &Path, told: &Arc<Mutex<Vec<String>>>) -> Sqlite {
    let told = told.clone();
    Sqlite::new(folder, Arc::new(move |text: &str| told.lock().unwrap().push(text.to_owned()))).unwrap()
}

#[tokio::test]
async fn a_file_of_the_layout_before_is_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(folder.path().join(FILE)).unwrap();
    let before = TABLES.replace("machine", "host");
    connection.execute_batch(&before).unwrap();
    let a = r#"{"id":"a","user":"john","principal":"john@acme.com","guid":"john","service":"motion",
        "rhost":"","tty":"",
        "host":"xcally","uid":998,"pid":1,"started":1,"boot":"b","since":1,"ended":null}"#;
    let insert = "INSERT INTO sessions (id, guid, principal, host, session) VALUES ('a', 'john', \
                  'john@acme.com', 'xcally', ?1)";
    connection.execute(insert, [a]).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    for _ in 0..2 {
        let store = Sqlite::new(folder.path(), silent()).unwrap();
        let [open] = listed(&store, Which::All).await.try_into().unwrap();
        assert_eq!((open.id.as_str(), open.host.as_str(), open.machine.as_str()), ("a", "xcally", ""));
        close(store).await;
    }
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    let Opened::Registered(gone) = open(&store, "b").await.unwrap() else { panic!("denied") };
    assert_eq!(gone[0].id, "a");
    assert_eq!(listed(&store, Which::Machine("6d61".into())).await.len(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("later");
    let store = Sqlite::new(&place, silent()).unwrap();
    for _ in 0..2 {
        let error = open(&store, "a").await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("later")), "{error}");
    }
    std::fs::create_dir(&place).unwrap();
    tokio::time::sleep(RETRY).await;
    open(&store, "a").await.unwrap();
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    open(&store, "a").await.unwrap();
    let limit = |pages: i64| {
        store.ask(soon(), move |connection| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Ok(())
        })
    };
    limit(1).await.unwrap();
    let mut kept = None;
    for number in 0..1000 {
        match open(&store, &format!("b{number}")).await {
            Ok(_) => kept = Some(format!("b{number}")),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                assert!(error.to_string().contains("full"), "{error}");
                break;
            }
        }
    }
    // The last user who was logged in still is; a user who was rejected is not.
    let open_now = listed(&store, Which::All).await;
    assert_eq!(open_now.len(), 1);
    assert_eq!(Some(&open_now[0].id), kept.as_ref());
    assert!(open(&store, "late").await.is_err());
    limit(1_000_000).await.unwrap();
    open(&store, "later").await.unwrap();
    assert_eq!(listed(&store, Which::All).await[0].id, "later");
}

/// The variable with the folder that a child process writes into.
const CHILD: &str = "MOTION_AD_TEST_SESSIONS";

#[tokio::test(flavor = "multi_thread")]
async fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = Arc::new(Sqlite::new(Path::new(&folder), silent()).unwrap());
    let id = || uuid::Uuid::from_u128(fastrand::u128(..)).to_string();
    // The file has a session of the round before: only this one shows that the round has written.
    open(&store, &id()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            loop {
                open(&store, &id()).await.unwrap();
            }
        });
    }
    println!("begun");
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_survives_being_killed_in_the_middle_of_writing() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = 0;
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "sessions::sqlite::tests::writes_until_it_is_killed"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let (mut said, mut byte) = (String::new(), [0]);
        while !said.contains("begun") {
            output.read_exact(&mut byte).unwrap();
            said.push(char::from(byte[0]));
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..200)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        let store = Sqlite::new(folder.path(), silent()).unwrap();
        let whole = store.ask(soon(), |connection| {
            Ok(connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?)
        });
        assert_eq!(whole.await.unwrap(), "ok");
        assert_eq!(listed(&store, Which::All).await.len(), 1);
        let now: i64 = store.events(&Position::Now, 1, soon()).await.unwrap().cursor.parse().unwrap();
        assert!(now > events, "nothing was written");
        events = now;
        close(store).await;
    }
}

/// Measures the cost of one login: `cargo test --release --lib speed -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a measurement"]
async fn speed() {
    const COUNT: u32 = 20_000;
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let store = Sqlite::new(folder.path(), silent()).unwrap();
    let begun = std::time::Instant::now();
    let mut worst = Duration::ZERO;
    for number in 0..COUNT {
        let one = std::time::Instant::now();
        open(&store, &number.to_string()).await.unwrap();
        worst = worst.max(one.elapsed());
    }
    println!("{:?} for each, at most {worst:?}", begun.elapsed() / COUNT);
}
