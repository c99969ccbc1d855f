//! The client of the module and the helper, against correct and faulty brokers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// One test interrupts system calls with signals.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use motion_ad::client::{AskError, ask_verdict as ask, request};
use motion_ad::protocol::{FrameError, Operation, Reply, Request, Secret, encode, receive, send};
use motion_ad::verdict::{Outcome, Verdict};

/// A broker that serves one connection.
struct Broker {
    socket: PathBuf,
    thread: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn broker(serve: impl FnOnce(UnixStream) + Send + 'static) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("broker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    Broker { socket, thread, _folder: folder }
}

impl Broker {
    /// Sends a request and waits for the broker's thread to end. Returns the result and the duration of the
    /// request.
    fn ask(self, timeout: Duration) -> (Result<Verdict, AskError>, Duration) {
        let start = Instant::now();
        let verdict = ask(&self.socket, &question(timeout), &secret());
        let took = start.elapsed();
        self.thread.join().unwrap();
        (verdict, took)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A login without a session and a warning.
const LOGIN: Operation = Operation::Authenticate { register: false, warn: false };

fn question(timeout: Duration) -> Request {
    request(LOGIN, "john", timeout)
}

fn secret() -> Secret {
    Secret::new(b"secret".to_vec())
}

fn frame(reply: &Reply) -> Vec<u8> {
    encode(reply, &Secret::default()).unwrap()
}

fn verdict(outcome: Outcome) -> Reply {
    Reply::Verdict(Verdict::new(outcome, ""))
}

/// Returns true if `took` is a timeout of one second: not early, and late only as on a busy machine. What
/// would not end by itself takes the other side's five seconds, or for ever.
fn about_a_second(took: Duration) -> bool {
    (Duration::from_millis(900)..4 * SECOND).contains(&took)
}

fn timed_out(result: &Result<Verdict, AskError>) -> bool {
    let error = match result {
        Err(AskError::Connect(error)) => error,
        Err(AskError::Send(FrameError::Io(error)) | AskError::Receive(FrameError::Io(error))) => error,
        _ => return false,
    };
    error.kind() == std::io::ErrorKind::TimedOut
}

#[test]
fn every_verdict_arrives() {
    for &outcome in Outcome::ALL {
        let broker = broker(move |mut stream| {
            let (request, secret): (Request, Secret) = receive(&mut stream).unwrap();
            assert_eq!((request.operation, request.user.as_str()), (LOGIN, "john"));
            assert_eq!(secret.password().unwrap(), "secret");
            send(&mut stream, &verdict(outcome), &Secret::default()).unwrap();
        });
        assert_eq!(broker.ask(5 * SECOND).0.unwrap().outcome, outcome);
    }
}

#[test]
fn the_broker_is_asked_to_be_done_before_the_module_stops_waiting() {
    for seconds in [1, 5, 60] {
        let left = question(seconds * SECOND).remaining();
        assert!(left < seconds * SECOND - Duration::from_millis(150), "{left:?}");
        assert!(left > seconds * SECOND - Duration::from_millis(400), "{left:?}");
    }
    // A reply that the broker sends at the last moment still arrives.
    let broker = broker(|mut stream| {
        let (request, _): (Request, Secret) = receive(&mut stream).unwrap();
        std::thread::sleep(request.remaining());
        send(&mut stream, &verdict(Outcome::Unavailable), &Secret::default()).unwrap();
    });
    assert_eq!(broker.ask(SECOND).0.unwrap().outcome, Outcome::Unavailable);
}

#[test]
fn a_reply_in_small_pieces_is_put_together() {
    let broker = broker(|mut stream| {
        let _: (Request, Secret) = receive(&mut stream).unwrap();
        for byte in frame(&verdict(Outcome::Success)) {
            stream.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(broker.ask(5 * SECOND).0.unwrap().outcome, Outcome::Success);
}

#[test]
fn a_silent_broker_costs_the_timeout_and_no_more() {
    let broker = broker(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (result, took) = broker.ask(SECOND);
    assert!(timed_out(&result), "{result:?}");
    assert!(about_a_second(took), "{took:?}");
}

#[test]
fn a_reply_that_only_drips_costs_the_timeout_and_no_more() {
    let broker = broker(|mut stream| {
        let long = frame(&Reply::Verdict(Verdict::new(Outcome::Success, "x".repeat(1000))));
        for byte in long {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let (result, took) = broker.ask(SECOND);
    assert!(timed_out(&result), "{result:?}");
    assert!(about_a_second(took), "{took:?}");
}

#[test]
fn half_a_reply_is_no_reply() {
    for (length, whole) in [(3, false), (8, false), (20, false), (usize::MAX, true)] {
        let broker = broker(move |mut stream| {
            let _: (Request, Secret) = receive(&mut stream).unwrap();
            let frame = frame(&verdict(Outcome::Success));
            stream.write_all(&frame[..length.min(frame.len())]).unwrap();
        });
        let (result, took) = broker.ask(5 * SECOND);
        assert_eq!(result.is_ok(), whole, "{length}: {result:?}");
        assert!(took < 4 * SECOND, "{took:?}");
    }
}

#[test]
fn a_reply_of_eight_gigabytes_is_refused_by_its_header() {
    let broker = broker(|mut stream| {
        let _: (Request, Secret) = receive(&mut stream).unwrap();
        stream.write_all(&[0xff; 8]).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (result, took) = broker.ask(5 * SECOND);
    assert!(matches!(result, Err(AskError::Receive(FrameError::TooLong(_)))), "{result:?}");
    assert!(took < 4 * SECOND, "{took:?}");
}

#[test]
fn a_broker_that_hangs_up_is_an_error_at_once() {
    let before_reading = broker(drop);
    let after_reading = broker(|mut stream| drop(receive::<Request>(&mut stream).unwrap()));
    for broker in [before_reading, after_reading] {
        let (result, took) = broker.ask(5 * SECOND);
        assert!(matches!(result, Err(AskError::Send(_) | AskError::Receive(_))), "{result:?}");
        assert!(took < 4 * SECOND, "{took:?}");
    }
}

#[test]
fn a_refusal_is_read_even_if_the_broker_did_not_read_the_request() {
    let broker = broker(|mut stream| {
        send(&mut stream, &Reply::Refused("uid 7 may not ask".into()), &Secret::default()).unwrap();
    });
    let (result, _) = broker.ask(5 * SECOND);
    assert!(matches!(&result, Err(AskError::Refused(reason)) if reason == "uid 7 may not ask"), "{result:?}");
}

#[test]
fn replies_of_another_version_let_nobody_in() {
    let replies = [
        r#"{"verdict":{"outcome":"better_than_success"}}"#,
        r#"{"verdict":{}}"#,
        r#"{"verdict":"success"}"#,
        r#"{"welcome":{"outcome":"success"}}"#,
        r#"{"verdict":{"outcome":"success"}} {}"#,
        "true",
        "",
    ];
    for json in replies {
        let broker = broker(move |mut stream| {
            let _: (Request, Secret) = receive(&mut stream).unwrap();
            let length = u32::try_from(json.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &[0; 4], json.as_bytes()].concat()).unwrap();
        });
        let (result, _) = broker.ask(5 * SECOND);
        assert!(matches!(result, Err(AskError::Receive(FrameError::Malformed { .. }))), "{json}: {result:?}");
    }
}

#[test]
fn no_broker_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.sock");
    let dead = folder.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    for socket in [missing, dead] {
        let start = Instant::now();
        let result = ask(&socket, &question(5 * SECOND), &secret());
        assert!(matches!(result, Err(AskError::Connect(_))), "{result:?}");
        assert!(start.elapsed() < 4 * SECOND);
    }
}

/// Returns a listening socket at `path` with a full backlog, and the sockets that fill it.
fn full_backlog(path: &Path) -> Vec<OwnedFd> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let address = SocketAddrUnix::new(path).unwrap();
    let open = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = open(SocketFlags::CLOEXEC);
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut sockets = vec![listener];
    loop {
        let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        if connect(&socket, &address).is_err() {
            return sockets;
        }
        sockets.push(socket);
    }
}

#[test]
fn a_full_backlog_costs_the_timeout_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let _full = full_backlog(&path);
    let start = Instant::now();
    let result = ask(&path, &question(SECOND), &secret());
    assert!(matches!(result, Err(AskError::Connect(_))) && timed_out(&result), "{result:?}");
    assert!(about_a_second(start.elapsed()), "{:?}", start.elapsed());
}

/// Runs `work` and interrupts the calling thread's system calls every few milliseconds, as a profiler in the
/// application may.
fn interrupted<T>(work: impl FnOnce() -> T) -> T {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a zeroed sigaction is a valid one, without SA_RESTART; its handler does nothing. SIGUSR1 has
    // no other use in these tests.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    // SAFETY: no preconditions.
    let thread = unsafe { libc::pthread_self() };
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                // SAFETY: the thread waits for this one at the end of the scope, so it still exists.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
        });
        let result = work();
        drop(stop);
        result
    })
}

#[test]
fn signals_neither_break_nor_prolong_the_waiting() {
    let late = broker(|mut stream| {
        let _: (Request, Secret) = receive(&mut stream).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        send(&mut stream, &verdict(Outcome::Success), &Secret::default()).unwrap();
    });
    let (result, _) = interrupted(|| late.ask(5 * SECOND));
    assert_eq!(result.unwrap().outcome, Outcome::Success);

    let silent = broker(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (result, took) = interrupted(|| silent.ask(SECOND));
    assert!(timed_out(&result) && about_a_second(took), "{took:?} {result:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let _full = full_backlog(&path);
    let start = Instant::now();
    let result = interrupted(|| ask(&path, &question(SECOND), &secret()));
    assert!(timed_out(&result) && about_a_second(start.elapsed()), "{:?} {result:?}", start.elapsed());
}
