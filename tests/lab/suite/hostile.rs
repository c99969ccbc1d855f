//! Every user on the host may connect to the broker's socket. The broker rejects unauthorized or idle clients
//! in time, logs this once, and continues to serve logins.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use motion_ad::protocol::{Operation, Reply, Request, Secret, receive, send};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use crate::lab::{Lab, wait};
use crate::ready::{john, ready, restart};
use crate::report::{Check, Report, equal};

/// First argument of this program when it runs as the attacker.
pub const ATTACK: &str = "--attack";
const NOBODY: u32 = 65534;
/// Time after which the broker drops a client that has not sent a whole request.
const DROPPED: Duration = Duration::from_secs(2);

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let motion = lab.host("root", &["id", "-u", "motion"], "").ok()?;
    let motion: u32 = motion.trim().parse().map_err(|e| format!("{motion}: {e}"))?;
    let broker = |reason: &'static str| [format!("peer=uid:{motion}"), reason.to_owned()];
    let stranger = [format!("peer=uid:{NOBODY}"), "neither root nor in broker.users".to_owned()];

    report.check("a stranger is refused, and told why", || attack(lab, "stranger", 1, NOBODY, &stranger));
    report.check("2000 strangers", || attack(lab, "stranger", 2000, NOBODY, &stranger));
    report.check("2000 strangers who send nothing and stay", || {
        attack(lab, "silent-stranger", 2000, NOBODY, &stranger)
    });
    report.check("a frame of 8 GiB", || attack(lab, "huge", 20, motion, &broker("is over the limit")));
    report.check("half a frame, then silence", || {
        attack(lab, "half", 20, motion, &broker("no whole request in time"))
    });
    report.check("a byte now and then", || {
        attack(lab, "drip", 20, motion, &broker("no whole request in time"))
    });
    report.check("half a frame, then the end", || {
        attack(lab, "cut", 200, motion, &broker("unexpected end of file"))
    });
    report.check("HTTP", || attack(lab, "http", 200, motion, &broker("is over the limit")));
    report.check("a frame of the right length without a request in it", || {
        attack(lab, "rubbish", 200, motion, &broker("no valid message"))
    });
    report.check("1000 connections that say nothing", || {
        attack(lab, "silent", 1000, motion, &broker("no whole request in time"))
    });
    report.check("300 who ask and never read the answer", || attack(lab, "deaf", 300, motion, &[]));
    report.check("300 who ask and leave before the answer", || {
        attack(lab, "leave", 300, motion, &broker("event=unanswered"))
    });
    Ok(())
}

/// Starts the attack while John logs in. Checks that the broker ends it in time and logs it once.
fn attack(lab: &Lab, kind: &str, times: usize, uid: u32, words: &[String]) -> Check {
    // A new broker has not logged anything yet.
    restart(lab)?;
    john(lab)?;
    // For comparison: the duration of a login without an attack.
    let usual = john(lab)?;
    let open = descriptors(lab)?;
    let position = lab.log_position()?;
    let mut attacker = Attacker::start(lab, kind, times, uid)?;
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(john(lab)?);
    }
    took.sort();
    let finished = attacker.finish()?;
    wait(Duration::from_secs(5), || {
        let now = descriptors(lab)?;
        if now <= open + 2 {
            Ok(())
        } else {
            Err(format!("the broker has {now} descriptors, before it had {open}"))
        }
    })?;
    println!("         logins took {took:.2?}, without an attack {usual:.2?}; {finished}");
    // A login behind the attack would wait until the attacker is dropped. A busy machine delays only single
    // logins.
    if took[2] > usual + DROPPED / 2 {
        return Err(format!("logins took {took:?}, without an attack {usual:?}"));
    }
    let lines = lab.log_since(&position)?;
    let about: Vec<_> = lines.iter().filter(|line| !line.contains("event=login")).collect();
    let telling = about.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    // A client that does not read its answer causes no log line: the answer is in the socket buffer.
    let expected = usize::from(!words.is_empty());
    if (about.len(), telling) != (expected, expected) {
        return Err(format!("expected {expected} line with {words:?}:\n{}", lines.join("\n")));
    }
    Ok(())
}

/// Returns the number of files that the broker has open.
fn descriptors(lab: &Lab) -> Result<usize, String> {
    let count = lab.host_sh(&format!("ls /proc/{}/fd | wc -l", lab.broker()?)).ok()?;
    count.trim().parse().map_err(|e| format!("{count}: {e}"))
}

/// This program running as another user.
struct Attacker {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Attacker {
    /// Starts the attack, and returns when it is under way.
    fn start(lab: &Lab, kind: &str, times: usize, uid: u32) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.args([ATTACK, kind, &times.to_string(), &uid.to_string()]);
        // The path of the socket is relative, because only root can follow the path through /proc.
        command.current_dir(lab.live_path("/run/motion-ad")?);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the attacker: {e}"))?;
        let stdout = child.stdout.take().ok_or("the attacker has no output")?;
        let mut attacker = Attacker { child, stdout: BufReader::new(stdout) };
        equal("the attacker's first line", attacker.line()?.as_str(), "attacking")?;
        Ok(attacker)
    }

    /// Returns the attacker's report.
    fn finish(&mut self) -> Result<String, String> {
        let text = self.line()?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() { Ok(text) } else { Err(format!("the attacker: {text}")) }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|e| e.to_string())?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // Fails only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as the attacker: `KIND TIMES UID`. Prints the result, and fails if it is not the expected one.
pub fn attacker(arguments: &[&str]) -> Result<(), String> {
    let [kind, times, uid] = arguments else { return Err("usage: --attack KIND TIMES UID".to_owned()) };
    let number = |text: &str| text.parse::<u32>().map_err(|e| format!("{text}: {e}"));
    let (times, uid) = (number(times)?, number(uid)?);
    let become_them = || -> nix::Result<()> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        setgroups(&[])?;
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))
    };
    become_them().map_err(|e| format!("becoming {uid}: {e}"))?;
    println!("attacking");
    let met = meet(kind, times);
    println!("{}", met.as_ref().unwrap_or_else(|error| error));
    met.map(drop)
}

fn meet(kind: &str, times: u32) -> Result<String, String> {
    let begun = Instant::now();
    let mut open = Vec::new();
    for _ in 0..times {
        let mut stream = connect().map_err(|e| format!("connect: {e}"))?;
        match say(kind, &mut stream) {
            // The broker may already have closed the connection.
            Ok(()) | Err(_) => {}
        }
        match kind {
            "leave" | "cut" => drop(stream),
            _ => open.push((stream, Instant::now())),
        }
    }
    if kind == "deaf" {
        // Longer than the broker waits for a client to read. The broker never waits, because an answer fits
        // into the socket.
        std::thread::sleep(Duration::from_secs(2));
    }
    let (mut slowest, mut refused) = (Duration::ZERO, 0);
    while !open.is_empty() {
        if kind == "drip" {
            std::thread::sleep(Duration::from_millis(300));
            for (stream, _) in &mut open {
                let _ = stream.write_all(b"\0");
            }
        }
        let mut still = Vec::new();
        for (mut stream, since) in open {
            match ended(kind, &mut stream)? {
                Some(was_refused) => {
                    refused += u32::from(was_refused);
                    slowest = slowest.max(since.elapsed());
                }
                None if since.elapsed() > DROPPED * 4 => return Err("a connection is still open".to_owned()),
                None => still.push((stream, since)),
            }
        }
        open = still;
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = kind != "leave" && kind != "cut" && kind != "deaf";
    // The broker may close the connection before it reads the whole message, but it always sends the
    // rejection.
    if told && refused != times {
        return Err(format!("{refused} of {times} were told that they are refused"));
    }
    Ok(format!(
        "{times} × {kind} in {:.2} s, the last was dropped after {:.2} s",
        begun.elapsed().as_secs_f64(),
        slowest.as_secs_f64()
    ))
}

fn connect() -> io::Result<UnixStream> {
    UnixStream::connect(Path::new("broker.sock"))
}

fn say(kind: &str, stream: &mut UnixStream) -> io::Result<()> {
    match kind {
        "silent" | "silent-stranger" => Ok(()),
        "huge" => stream.write_all(&[0xff; 8]),
        "half" | "cut" => stream.write_all(&[0, 0, 0]),
        // The start of a long message, which continues slowly.
        "drip" => stream.write_all(&[0, 0, 0x10]),
        "http" => stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "rubbish" => stream.write_all(b"\0\0\0\x04\0\0\0\0{{{{"),
        _ => {
            let request = Request::new(Operation::Status, "", Duration::from_secs(5));
            send(stream, &request, &Secret::default()).map_err(io::Error::other)
        }
    }
}

/// Returns `None` while the connection is open, then true if the broker rejected it before closing.
fn ended(kind: &str, stream: &mut UnixStream) -> Result<Option<bool>, String> {
    stream.set_nonblocking(true).map_err(|e| e.to_string())?;
    let mut first = [0; 1];
    match stream.read(&mut first) {
        Ok(0) => return Ok(Some(false)),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        // The broker closed the connection before it read all data.
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Some(false)),
        Err(e) => return Err(format!("{kind}: {e}")),
    }
    stream.set_nonblocking(false).map_err(|e| e.to_string())?;
    let reply = receive::<Reply>(&mut first.as_slice().chain(stream)).map_err(|e| format!("{kind}: {e}"))?.0;
    Ok(Some(matches!(reply, Reply::Refused(_))))
}
