//! Faults in system calls of the broker, of the LDAP bridge and of an application that has loaded the module:
//! no descriptors, no memory, no disk, no threads, interrupted calls, and reads and writes of a few bytes.
//!
//! While a fault lasts, a right password gives access or a clear code in time, and a wrong password and a
//! disabled account give none. No process ends or panics, the log names the cause with its advice, and
//! afterwards users log in without a restart. No login makes a call that [`Unneeded`] stands for.
//!
//! Why strace(1): it attaches to a running process and leaves it again. A filter of seccomp stays until the
//! process ends, and a library of LD_PRELOAD misses the calls that rustix makes without libc. strace invents
//! the results, so an error is in the table only where the kernel could return it, too: a socket with data
//! never returns EAGAIN, and a call that never waits never returns EINTR. An invented short read would hand
//! out bytes that were never sent, so [`pieces`] makes the kernel return short reads and short writes.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::app::{App, Call, Job};
use crate::bridge::{self as ldap, URL, WRONG};
use crate::cast::{Person, person};
use crate::lab::{Lab, LogPosition, wait};
use crate::pam::pam;
use crate::piecewise::Piecewise;
use crate::ready::{ready, restart};
use crate::report::{Check, Report, contains, equal};
use crate::row::{Counts, Method};
use crate::secrets::outer_pid;
use crate::strace::Strace;

/// A service whose module waits three seconds.
const SERVICE: &str = "motion-calls";
const DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of the module at the service `motion`, which the bridge uses.
const DEFAULT: Duration = Duration::from_secs(5);
/// Seconds after which the LDAP client gives up, and its exit code then.
const PATIENCE: &str = "7";
/// A service whose requests go to the broker through a proxy.
const PIECEWISE: &str = "motion-pieces";
const PROXY: &str = "/var/tmp/broker-in-pieces.sock";
const BRIDGE_PROXY: &str = "127.0.0.1:3893";
const BRIDGE_PROXY_URL: &str = "ldap://127.0.0.1:3893";
/// The broker's socket.
const SOCKET: &str = "/run/motion-ad/broker.sock";
/// Number of reads of one byte that a login makes at least.
const ENOUGH: usize = 50;
/// Minimum, usual and maximum size of a TCP buffer in bytes.
const SMALL: &str = "4096 4096 4096";
/// Time after a login in which its session is written back, twice over.
const WRITTEN_BACK: Duration = Duration::from_secs(2);
/// Time without work after which tokio ends a thread, unless it is told otherwise, and two seconds.
const REST: Duration = Duration::from_secs(12);
/// Maximum time until a user logs in after a fault.
const BACK: Duration = Duration::from_secs(15);

/// Users by key: their right password, a wrong one, and a disabled account.
const RIGHT: &str = "john";
const WRONGED: &str = "wendy";
const DISABLED: &str = "dora";
const USERS: [&str; 3] = [RIGHT, WRONGED, DISABLED];
/// Rounds of logins while a process is stopped and continued.
const ROUNDS: usize = 5;
/// strace's `when=` for every call.
const ALL: &str = "1+";
/// The same for the first call of each thread.
const FIRST: &str = "1";
/// The same for every second call, so that it succeeds when it is repeated.
const SECOND: &str = "1+2";
/// The unit of the bridge.
const UNIT: &str = "motion-ad-ldap.service";
/// Words in the journal about a process that crashed, or about code that panicked.
const CRASHES: &[&str] =
    &["event=panic", "panicked at", "Panicked {", "dumped core", "Main process exited", "segfault"];
/// Parts of the lines that the processes under test write.
const OURS: &[&str] = &["motion-ad-broker[", "motion-ad-ldap[", "pam_motion_ad("];

/// Codes of PAM, or result codes of LDAP.
type Codes = &'static [&'static str];

/// A process that takes part in a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Broker,
    Bridge,
    Application,
}
use Process::*;

impl Process {
    /// Codes of a right password, a wrong one, and a disabled account.
    fn usual(self) -> [Codes; 3] {
        match self {
            Broker | Application => [&["PAM_SUCCESS"], &["PAM_AUTH_ERR"], &["PAM_PERM_DENIED"]],
            Bridge => [&["0"], &["49"], &["49"]],
        }
    }

    /// Maximum time of a login: twice the deadline of the module, because all of this runs on a busy machine.
    fn limit(self) -> Duration {
        match self {
            Broker | Application => DEADLINE * 2,
            Bridge => DEFAULT * 2,
        }
    }
}

/// State in which the fault meets the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Connections to the domain controller are open.
    Usual,
    /// They are gone, and logins need new ones.
    Reconnecting,
    /// Passwords are checked by Kerberos, each with new connections.
    Kerberos,
    /// Each login registers a session.
    Sessions,
    /// There was no login for a while.
    Idle,
    /// The same, and passwords are checked by Kerberos.
    KerberosIdle,
    /// Each login registers a session, and then the register is written back.
    WritingBack,
    /// libpam reads the service and loads the module for each login.
    NewHandles,
}
use State::*;

impl State {
    fn name(self) -> &'static str {
        match self {
            Usual => "usual",
            Reconnecting => "new connections",
            Kerberos => "Kerberos",
            Sessions => "a session",
            WritingBack => "the register is written back",
            Idle => "after a pause",
            KerberosIdle => "Kerberos after a pause",
            NewHandles => "a new handle",
        }
    }
}

/// Expected result of a right password.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The user notices nothing.
    Nothing,
    /// One of these codes, and a log line with these words, if there are any. `%m` is the error's text, `%a`
    /// a word of its advice.
    Denied(Codes, &'static [&'static str]),
    /// As `Nothing`, but with a log line.
    Told(&'static [&'static str]),
    /// No login makes such a call.
    Unneeded,
    /// The user notices nothing, and it may be that no login makes such a call.
    Rare,
}
use Seen::*;

/// One row: calls of a process that fail with each of the errors in turn.
struct Fault {
    process: Process,
    state: State,
    /// Names, as strace has them.
    calls: &'static str,
    errors: &'static [&'static str],
    /// strace's `when=`: all calls, or only some of each thread.
    when: &'static str,
    seen: Seen,
}

const fn fault(
    process: Process,
    state: State,
    calls: &'static str,
    errors: &'static [&'static str],
    seen: Seen,
) -> Fault {
    Fault { process, state, calls, errors, when: ALL, seen }
}

impl Fault {
    /// Only these calls of each thread fail.
    const fn each(self, when: &'static str) -> Self {
        Fault { when, ..self }
    }
}

const UNAVAIL: Codes = &["PAM_AUTHINFO_UNAVAIL"];
/// The connection of an LDAP client was closed, or its time was over before the bridge accepted it.
const CLOSED: Codes = &["254", "255"];
const LATE: Codes = &["124"];
const AWAY: Codes = &["52"];
/// The register did not take the session; libpam could not start a handle.
const UNREGISTERED: Codes = &["PAM_SESSION_ERR"];
const ABORTED: Codes = &["pam_start: PAM_ABORT"];
const FILES: &[&str] = &["EMFILE", "ENFILE", "ENOMEM"];
const BUFFERS: &[&str] = &["ENOMEM", "ENOBUFS"];
const ENOMEM: &[&str] = &["ENOMEM"];
const EINTR: &[&str] = &["EINTR"];

/// Words of the line about a login that the broker could not decide.
const UNDECIDED: &[&str] = &["event=login", "outcome=unavailable", "%m"];
const SCARCE: &[&str] = &["event=login", "outcome=unavailable", "%m", "%a"];
const KEYTAB: &[&str] = &["event=login", "outcome=unavailable", "keytab", "%m", "%a"];
/// The session opens, although its process is not identified.
const PROCESS: &[&str] = &["event=sessions", "cannot be identified", "%m", "%a"];
const REGISTER: &[&str] = &["event=session_open", "outcome=session_store", "sessions.db"];
const REFUSED: &[&str] = &["event=refused", "%m", "%a"];
const NO_PEER: &[&str] = &["event=refused", "the kernel does not say who connects", "%m", "%a"];
const ACCEPT: &[&str] = &["event=accept", "%m", "%a"];
const BIND: &[&str] = &["event=bind", "outcome=unavailable", "result=52"];
const MODULE: &[&str] = &["pam_motion_ad(", "/run/motion-ad/broker.sock", "%m", "%a"];
/// The broker accepts no connection in time.
const FULL: &[&str] = &["pam_motion_ad(", "no connection: timed out"];

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    fault(Broker, Usual, "accept4", &["EMFILE", "ENFILE"], Denied(UNAVAIL, ACCEPT)),
    fault(Broker, Usual, "epoll_wait", EINTR, Nothing).each(SECOND),
    fault(Broker, Usual, "getrandom", EINTR, Nothing).each(SECOND),
    fault(Broker, Usual, "ppoll", ENOMEM, Nothing),
    fault(Broker, Usual, "statx", ENOMEM, Nothing),
    fault(Broker, Usual, "recvfrom", ENOMEM, Denied(UNAVAIL, REFUSED)),
    fault(Broker, Usual, "sendto", BUFFERS, Denied(UNAVAIL, SCARCE)),
    fault(Broker, Usual, "writev", ENOMEM, Denied(UNAVAIL, SCARCE)),
    fault(Broker, Usual, "epoll_ctl", &["ENOMEM", "ENOSPC"], Denied(UNAVAIL, ACCEPT)),
    fault(Broker, Reconnecting, "socket", FILES, Denied(UNAVAIL, SCARCE)),
    fault(Broker, Reconnecting, "connect", &["EADDRNOTAVAIL", "ENOMEM"], Denied(UNAVAIL, UNDECIDED)),
    fault(Broker, Sessions, "pwrite64", &["ENOSPC", "EDQUOT", "EIO"], Denied(UNREGISTERED, REGISTER)),
    fault(Broker, Sessions, "openat", FILES, Told(PROCESS)),
    fault(Broker, WritingBack, "pread64", &["EIO"], Nothing),
    fault(Broker, WritingBack, "fdatasync", &["EIO", "ENOSPC"], Nothing),
    fault(Broker, WritingBack, "ftruncate", &["EIO"], Nothing),
    fault(Broker, Kerberos, "socket", FILES, Denied(UNAVAIL, SCARCE)),
    fault(Broker, Kerberos, "connect", &["EADDRNOTAVAIL"], Denied(UNAVAIL, UNDECIDED)),
    fault(Broker, Kerberos, "openat", FILES, Denied(UNAVAIL, KEYTAB)),
    fault(Broker, Kerberos, "read", &["EIO"], Denied(UNAVAIL, KEYTAB)),
    fault(Broker, Kerberos, "getrandom", EINTR, Nothing).each(SECOND),
    fault(Broker, KerberosIdle, "clone3", &["EAGAIN"], Unneeded),
    fault(Broker, KerberosIdle, "mmap", ENOMEM, Rare),
    fault(Broker, KerberosIdle, "mprotect", ENOMEM, Rare),

    fault(Bridge, Usual, "accept4", &["EMFILE"], Denied(LATE, ACCEPT)),
    fault(Bridge, Usual, "epoll_wait", EINTR, Nothing).each(SECOND),
    fault(Bridge, Usual, "epoll_ctl", &["ENOMEM", "ENOSPC"], Denied(CLOSED, ACCEPT)),
    fault(Bridge, Usual, "socket", FILES, Denied(CLOSED, NO_PEER)),
    fault(Bridge, Usual, "sendto", BUFFERS, Denied(CLOSED, NO_PEER)),
    fault(Bridge, Usual, "recvfrom", ENOMEM, Denied(CLOSED, NO_PEER)),
    fault(Bridge, Usual, "connect", &["EAGAIN", "ENOMEM"], Denied(AWAY, BIND)),
    fault(Bridge, Usual, "connect", EINTR, Nothing).each(SECOND),
    fault(Bridge, Usual, "sendmsg", ENOMEM, Denied(AWAY, MODULE)),
    fault(Bridge, Usual, "ppoll", EINTR, Nothing).each(SECOND),
    fault(Bridge, Usual, "ppoll", ENOMEM, Denied(AWAY, MODULE)),
    fault(Bridge, Usual, "openat", FILES, Denied(AWAY, &["outcome=misconfigured"])),
    // libpam finds no line in a service that it cannot read, and denies.
    fault(Bridge, Usual, "read", &["EIO"], Denied(AWAY, &["event=bind", "result=52", "no module"])),
    fault(Bridge, Idle, "clone3", &["EAGAIN"], Unneeded),
    fault(Bridge, Idle, "mprotect", ENOMEM, Rare),
    fault(Bridge, Idle, "mmap", ENOMEM, Rare),

    // libpam's audit needs a socket, too, and syslog as well, so no line names the cause.
    fault(Application, Usual, "socket", FILES, Denied(&["PAM_SYSTEM_ERR"], &[])),
    fault(Application, Usual, "socket", FILES, Denied(UNAVAIL, MODULE)).each(FIRST),
    fault(Application, Usual, "connect", &["EAGAIN"], Denied(UNAVAIL, FULL)).each(FIRST),
    fault(Application, Usual, "connect", ENOMEM, Denied(UNAVAIL, MODULE)).each(FIRST),
    fault(Application, Usual, "connect", EINTR, Nothing).each(SECOND),
    fault(Application, Usual, "sendmsg", ENOMEM, Denied(UNAVAIL, MODULE)),
    fault(Application, Usual, "recvfrom", ENOMEM, Denied(UNAVAIL, MODULE)).each(FIRST),
    fault(Application, Usual, "recvfrom", &["EAGAIN"], Nothing).each(SECOND),
    fault(Application, Usual, "ppoll", EINTR, Nothing).each(SECOND),
    fault(Application, Usual, "ppoll", ENOMEM, Denied(UNAVAIL, MODULE)),
    fault(Application, Usual, "openat", FILES, Nothing),
    fault(Application, NewHandles, "openat", FILES, Denied(ABORTED, &[])),
    fault(Application, NewHandles, "mmap,mprotect", ENOMEM, Nothing),
];

/// Returns a word of the advice for an error.
fn advice(error: &str) -> &'static str {
    match error {
        "EIO" => "check its owner",
        "EMFILE" => "LimitNOFILE=",
        "ENFILE" => "fs.file-max",
        "ENOBUFS" | "ENOMEM" => "there is no memory left",
        "ENOSPC" => "fs.epoll.max_user_watches",
        other => panic!("{other} has no advice here"),
    }
}

/// Returns the text of an error in a log line.
fn text(error: &str) -> &'static str {
    match error {
        "EADDRNOTAVAIL" => "Cannot assign requested address",
        "EIO" => "Input/output error",
        "EMFILE" => "Too many open files",
        "ENFILE" => "Too many open files in system",
        "ENOBUFS" => "No buffer space available",
        "ENOMEM" => "Cannot allocate memory",
        "ENOSPC" => "No space left on device",
        other => panic!("{other} has no text here"),
    }
}

pub fn control(lab: &Lab, report: &mut Report) -> Check {
    within(lab, || controls(lab, report))
}

pub fn broker(lab: &Lab, report: &mut Report) -> Check {
    of(lab, report, Broker)
}

pub fn bridge(lab: &Lab, report: &mut Report) -> Check {
    of(lab, report, Bridge)
}

pub fn application(lab: &Lab, report: &mut Report) -> Check {
    of(lab, report, Application)
}

pub fn pieces(lab: &Lab, report: &mut Report) -> Check {
    within(lab, || in_pieces(lab, report))
}

/// Runs the rows of one process.
fn of(lab: &Lab, report: &mut Report, process: Process) -> Check {
    let mut rows = || {
        for fault in FAULTS.iter().filter(|fault| fault.process == process) {
            let method =
                if matches!(fault.state, Kerberos | KerberosIdle) { Method::Kerberos } else { Method::Ldap };
            if method != lab.method() {
                lab.set_method(method);
                configure(lab)?;
            }
            for error in fault.errors {
                let Fault { state, calls, when, .. } = fault;
                let which = if *when == ALL { String::new() } else { format!(", when={when}") };
                let name = format!("{calls} {error}, {}{which}", state.name());
                report.check_exercised(&name, || check(lab, fault, error));
            }
        }
        lab.set_method(Method::Ldap);
        configure(lab)?;
        report.check("stopped and continued hundreds of times a second", || stopped(lab, process));
        Ok(())
    };
    within(lab, &mut rows)
}

/// Has broker and bridge use another configuration now, not while a row runs.
fn configure(lab: &Lab) -> Check {
    lab.configure("")?;
    restart(lab)?;
    lab.host_sh(&format!("systemctl restart {UNIT}")).ok()?;
    wait(BACK, || ldap::logs_in(lab))
}

/// Prepares the host, and restores it.
fn within(lab: &Lab, rows: impl FnOnce() -> Check) -> Check {
    begin(lab)?;
    let done = rows();
    end(lab).and(done)
}

fn begin(lab: &Lab) -> Check {
    let line = |argument: &str| {
        let ours = format!("required pam_motion_ad.so {argument}\n");
        ["auth ", "account ", "session "].map(|kind| format!("{kind}{ours}")).concat()
    };
    lab.write(&format!("/etc/pam.d/{SERVICE}"), &line(&format!("timeout={}", DEADLINE.as_secs())))?;
    lab.write(&format!("/etc/pam.d/{PIECEWISE}"), &line(&format!("socket={PROXY}")))?;
    ldap::enable(lab)?;
    configure(lab)?;
    ready(lab)?;
    lab.run(&["cast", "reset"]).ok().map(drop)
}

fn end(lab: &Lab) -> Check {
    ldap::disable(lab)?;
    lab.host_sh(&format!("rm -f /etc/pam.d/{SERVICE} /etc/pam.d/{PIECEWISE} {PROXY}")).ok()?;
    wait(BACK, || ready(lab))
}

/// A program that logs users in through the process under test.
enum Client {
    Pamtester {
        opens: bool,
    },
    /// OpenLDAP's client at this URL.
    Ldap(&'static str),
    /// An application that stays, at this service. It keeps a handle for each user, or starts one for each
    /// login.
    App(App, &'static str, bool),
}

/// Result of a login.
#[derive(Debug)]
struct Attempt {
    code: String,
    took: Duration,
}

impl Client {
    /// Starts the client, with a handle for each user if it keeps handles.
    fn start(lab: &Lab, process: Process, state: State) -> Result<Self, String> {
        match process {
            Broker => Ok(Client::Pamtester { opens: matches!(state, Sessions | WritingBack) }),
            Bridge => Ok(Client::Ldap(URL)),
            Application => Client::app(lab, SERVICE, state != NewHandles),
        }
    }

    /// Starts an application with a thread for each user, and a handle if it keeps them.
    fn app(lab: &Lab, service: &'static str, keeps: bool) -> Result<Self, String> {
        let mut app = App::start(lab)?;
        USERS.iter().try_for_each(|who| {
            app.run(Job { end: !keeps, ..job(service, person(who), "", &[]) }).map(drop)
        })?;
        Ok(Client::App(app, service, keeps))
    }

    fn login(&mut self, lab: &Lab, user: Person, password: &str) -> Result<Attempt, String> {
        let begun = Instant::now();
        let code = match self {
            Client::Pamtester { opens } => {
                let calls = ["authenticate", "acct_mgmt", "open_session", "close_session"];
                let calls = if *opens { &calls[..] } else { &calls[..2] };
                pam(lab, SERVICE, user.sam, password, calls).code
            }
            Client::Ldap(url) => {
                // By itself, it waits for an answer without a limit.
                let command =
                    ["timeout", PATIENCE, "ldapwhoami", "-x", "-H", url, "-D", user.upn, "-w", password];
                lab.host("motion", &command, "").code.to_string()
            }
            Client::App(app, service, keeps) => {
                let calls = [Call::Authenticate, Call::Account];
                let job = Job { end: !*keeps, ..job(service, user, password, &calls) };
                app.run(job)?.code().to_owned()
            }
        };
        Ok(Attempt { code, took: begun.elapsed() })
    }

    /// Returns the pid of the process under test, as the host sees it.
    fn pid(&self, lab: &Lab) -> Result<u32, String> {
        match self {
            Client::Pamtester { .. } => lab.broker(),
            Client::Ldap(_) => main_pid(lab, UNIT),
            Client::App(app, ..) => Ok(app.pid),
        }
    }
}

fn job(service: &str, user: Person, password: &str, calls: &[Call]) -> Job {
    Job {
        handle: user.key.to_owned(),
        service: service.to_owned(),
        user: user.sam.to_owned(),
        answers: vec![password.to_owned()],
        calls: calls.to_vec(),
        ..Job::default()
    }
}

fn main_pid(lab: &Lab, unit: &str) -> Result<u32, String> {
    let pid = lab.host_sh(&format!("systemctl show -P MainPID {unit}")).ok()?;
    pid.trim().parse().map_err(|e| format!("{unit}: {pid:?}: {e}"))
}

/// The processes and the log before a fault.
struct Before {
    position: LogPosition,
    processes: [u32; 2],
}

impl Before {
    fn of(lab: &Lab) -> Result<Self, String> {
        Ok(Before { position: lab.log_position()?, processes: Self::processes(lab)? })
    }

    fn processes(lab: &Lab) -> Result<[u32; 2], String> {
        Ok([lab.broker()?, main_pid(lab, UNIT)?])
    }

    /// Checks that no process has ended, and that no line of the log is about a panic or a crash.
    fn still_holds(&self, lab: &Lab) -> Check {
        equal("the broker and the bridge", Self::processes(lab)?, self.processes)?;
        let lines = lab.journal_since(&self.position)?;
        let is_bad = |line: &&String| CRASHES.iter().any(|word| line.contains(word));
        equal("a line about a crash", lines.iter().find(is_bad), None)
    }

    /// Returns the lines since then that the processes under test wrote.
    fn lines(&self, lab: &Lab) -> Result<Vec<String>, String> {
        let ours = |line: &String| OURS.iter().any(|ours| line.contains(ours));
        Ok(lab.journal_since(&self.position)?.into_iter().filter(ours).collect())
    }

    /// Checks that a line contains all `words`.
    fn names(&self, lab: &Lab, words: &[&str]) -> Check {
        wait(Duration::from_secs(5), || {
            let lines = self.lines(lab)?;
            match lines.iter().find(|line| words.iter().all(|word| line.contains(word))) {
                Some(_) => Ok(()),
                None => Err(format!("expected a line with {words:?} among:\n{}", lines.join("\n"))),
            }
        })
    }
}

/// Logs in with a right password, with a wrong one, and as a user whose account is disabled. Checks that only
/// the first one gives access, and that each result comes in time.
fn logins(lab: &Lab, client: &mut Client, process: Process, seen: Seen) -> Check {
    let usual = process.usual();
    let codes = |index: usize| match seen {
        Nothing | Told(_) | Unneeded | Rare => usual[index].to_vec(),
        Denied(codes, _) if index == 0 => codes.to_vec(),
        Denied(codes, _) => [usual[index], codes].concat(),
    };
    let passwords = [person(RIGHT).password, WRONG, person(DISABLED).password];
    for (index, (who, password)) in USERS.iter().zip(passwords).enumerate() {
        let Attempt { code, took } = client.login(lab, person(who), password)?;
        println!("         {:7.2} s  {who}: {code}", took.as_secs_f64());
        if !codes(index).contains(&code.as_str()) {
            return Err(format!("{who}: expected one of {:?}, saw {code}", codes(index)));
        }
        if took > process.limit() {
            return Err(format!("{who}: {took:?}"));
        }
    }
    Ok(())
}

/// Returns false if no call failed where that may be.
fn check(lab: &Lab, fault: &Fault, error: &str) -> Result<bool, String> {
    let Fault { process, state, calls, when, seen, .. } = fault;
    let inject = format!("inject={calls}:error={error}:when={when}");
    lab.run(&["cast", "reset", WRONGED]).ok()?;
    // The log repeats a complaint only after a minute, so each row has a new process.
    match process {
        Broker => restart(lab)?,
        Bridge => lab.host_sh(&format!("systemctl restart {UNIT}")).ok().map(drop)?,
        Application => {}
    }
    let mut client = Client::start(lab, *process, *state)?;
    // The first login may do more than later ones.
    recovers(lab, &mut client, *process)?;
    let (before, counters) = (Before::of(lab)?, lab.everybodys_counters()?);
    if matches!(state, Idle | KerberosIdle) {
        std::thread::sleep(REST);
    }
    let strace = Strace::attach(lab, client.pid(lab)?, &[&format!("trace={calls}"), &inject])?;
    if *state == Reconnecting {
        lab.host_sh("ss -K dst 10.73.0.10 >/dev/null").ok()?;
    }
    let done = logins(lab, &mut client, *process, *seen);
    if *state == WritingBack {
        std::thread::sleep(WRITTEN_BACK);
    }
    let injected = strace.injected();
    strace.detach()?;
    let back = recovers(lab, &mut client, *process);
    let injected = injected?;
    println!("         {injected} calls failed");
    done?;
    match seen {
        Unneeded => equal("calls that failed", injected, 0)?,
        Rare => {}
        Nothing | Denied(..) | Told(_) => equal("no call failed", injected == 0, false)?,
    }
    println!("         {:7.2} s  until a login succeeded", back?.as_secs_f64());
    before.still_holds(lab)?;
    if let Denied(_, words) | Told(words) = seen {
        let word = |word: &&'static str| match *word {
            "%m" => text(error),
            "%a" => advice(error),
            other => other,
        };
        let words: Vec<_> = words.iter().map(word).collect();
        before.names(lab, &words)?;
    }
    counted(lab, &counters)?;
    Ok(injected > 0 || !matches!(seen, Rare))
}

/// Waits until a right password gives access, and returns how long that took.
fn recovers(lab: &Lab, client: &mut Client, process: Process) -> Result<Duration, String> {
    let begun = Instant::now();
    wait(BACK, || {
        let code = client.login(lab, person(RIGHT), person(RIGHT).password)?.code;
        equal("a login without a fault", process.usual()[0].contains(&code.as_str()), true)
            .map_err(|e| format!("{e}: {code}"))
    })?;
    Ok(begun.elapsed())
}

/// Checks that AD counted the wrong password at most once, and no other one.
fn counted(lab: &Lab, before: &Counts) -> Check {
    let after = lab.everybodys_counters()?;
    let added = |sam: &str| {
        let count = |counts: &Counts| counts.get(sam).map_or(0, |counters| counters.bad_passwords);
        count(&after).saturating_sub(count(before))
    };
    let wrong = person(WRONGED).sam;
    for sam in after.keys().filter(|sam| *sam != wrong) {
        equal(&format!("counted for {sam}"), added(sam), 0)?;
    }
    equal("the wrong password counted more than once", added(wrong) > 1, false)?;
    lab.run(&["cast", "reset", WRONGED]).ok().map(drop)
}

/// Shows that the checks find what they are for.
fn controls(lab: &Lab, report: &mut Report) -> Check {
    report.check("control: strace alone changes nothing", || {
        let (before, counters) = (Before::of(lab)?, lab.everybodys_counters()?);
        for process in [Broker, Bridge, Application] {
            let mut client = Client::start(lab, process, Usual)?;
            let strace = Strace::attach(lab, client.pid(lab)?, &["trace=all"])?;
            let done = logins(lab, &mut client, process, Nothing);
            let calls = strace.detach()?;
            done?;
            lab.run(&["cast", "reset", WRONGED]).ok()?;
            let mut names: Vec<_> = calls
                .lines()
                .filter_map(|line| Some(line.split_once('(')?.0))
                .filter_map(|name| name.split_whitespace().last())
                .collect();
            names.sort_unstable();
            names.dedup();
            println!("         {process:?}: {}", names.join(" "));
        }
        before.still_holds(lab)?;
        counted(lab, &counters)
    });
    report.check("control: a fault of a call that no login makes fails the row", || {
        let fault = fault(Broker, Usual, "sethostname", &["EPERM"], Nothing);
        let error = check(lab, &fault, "EPERM").err().unwrap_or_default();
        contains("the row", &error, "no call failed")
    });
    report.check("control: a fault that a login does not notice fails a row that expects it", || {
        let fault = fault(Broker, Usual, "epoll_wait", EINTR, Denied(UNAVAIL, &[])).each(SECOND);
        let error = check(lab, &fault, "EINTR").err().unwrap_or_default();
        contains("the row", &error, "saw PAM_SUCCESS")
    });
    Ok(())
}

/// Stops and continues a process until it is dropped. The kernel then interrupts calls that wait, although no
/// signal is handled (signal(7)).
struct Stops {
    child: Child,
    /// The process, as this machine sees it.
    pid: u32,
}

impl Stops {
    /// Begins with the host's process `pid`.
    fn begin(lab: &Lab, pid: u32) -> Result<Self, String> {
        let pid = outer_pid(lab, pid)?;
        let script = format!("while kill -STOP {pid} && kill -CONT {pid}; do sleep 0.002; done");
        let child = Command::new("sh").args(["-c", &script]).spawn().map_err(|e| format!("sh: {e}"))?;
        Ok(Stops { child, pid })
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The process may be stopped at this moment, and nsenter(1), which started it, stops with it.
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
        let _ = Command::new("kill").args(["-CONT", &self.pid.to_string(), parent.trim()]).status();
    }
}

fn stopped(lab: &Lab, process: Process) -> Check {
    let mut client = Client::start(lab, process, Usual)?;
    recovers(lab, &mut client, process)?;
    let (before, counters, pid) = (Before::of(lab)?, lab.everybodys_counters()?, client.pid(lab)?);
    let strace = Strace::attach(lab, pid, &["trace=all"])?;
    let stops = Stops::begin(lab, pid)?;
    let done = (0..ROUNDS).try_for_each(|_| {
        logins(lab, &mut client, process, Nothing)
            .and_then(|()| lab.run(&["cast", "reset", WRONGED]).ok().map(drop))
    });
    drop(stops);
    let calls = strace.detach()?;
    done?;
    let interrupted =
        calls.lines().filter(|line| line.contains("EINTR") || line.contains("ERESTART")).count();
    println!("         {interrupted} calls were interrupted");
    equal("no call was interrupted", interrupted == 0, false)?;
    before.still_holds(lab)?;
    counted(lab, &counters)
}

/// Short reads and short writes.
fn in_pieces(lab: &Lab, report: &mut Report) -> Check {
    report.check("application and broker read each other one byte at a time", || {
        let _proxy = Piecewise::start(lab, PROXY, SOCKET)?;
        let (mut client, counters) = (Client::app(lab, PIECEWISE, true)?, lab.everybodys_counters()?);
        let reads = ["trace=read,recvfrom"];
        let straces = [client.pid(lab)?, lab.broker()?].map(|pid| Strace::attach(lab, pid, &reads));
        let done = logins(lab, &mut client, Application, Nothing);
        for strace in straces {
            single_bytes(&strace?.detach()?)?;
        }
        done?;
        counted(lab, &counters)
    });
    report.check("the bridge reads its client one byte at a time", || {
        let _proxy = Piecewise::start(lab, BRIDGE_PROXY, "127.0.0.1:3890")?;
        let (mut client, counters) = (Client::Ldap(BRIDGE_PROXY_URL), lab.everybodys_counters()?);
        let strace = Strace::attach(lab, client.pid(lab)?, &["trace=read,recvfrom"])?;
        let done = logins(lab, &mut client, Bridge, Nothing);
        single_bytes(&strace.detach()?)?;
        done?;
        counted(lab, &counters)
    });
    report.check("the bridge sends an answer in pieces, and it is whole", || {
        let whole = everybody_found(lab)?;
        let kept = sysctl(lab, &["-n", "net.ipv4.tcp_wmem", "net.ipv4.tcp_rmem"])?;
        let set = |values: [&str; 2]| {
            let [write, read] = values;
            let [write, read] = [format!("net.ipv4.tcp_wmem={write}"), format!("net.ipv4.tcp_rmem={read}")];
            sysctl(lab, &["-q", "-w", &write, &read]).map(drop)
        };
        let [write, read] = kept.lines().collect::<Vec<_>>()[..] else { return Err(kept) };
        set([SMALL; 2])?;
        let strace = Strace::attach(lab, main_pid(lab, UNIT)?, &["trace=write,writev,sendto,sendmsg"]);
        let found = everybody_found(lab);
        set([write, read])?;
        let calls = strace?.detach()?;
        let short = calls.lines().filter(|line| is_short(line)).count();
        println!("         {} bytes, {short} short writes", whole.len());
        equal("no write was short", short == 0, false)?;
        equal("the answer is the same", found? == whole, true)
    });
    Ok(())
}

/// Checks that a login was read byte by byte.
fn single_bytes(calls: &str) -> Check {
    let count = calls.lines().filter(|line| line.ends_with(" = 1")).count();
    println!("         {count} reads of one byte");
    equal("enough reads of one byte", count > ENOUGH, true)
}

/// Returns true for a call that wrote less than it was given: `sendto(9, ""..., 65536, …) = 4096`.
fn is_short(line: &str) -> bool {
    let given =
        line.split_once("\"\"..., ").and_then(|(_, rest)| rest.split([',', ')']).next()?.parse().ok());
    let taken = line.rsplit_once(" = ").and_then(|(_, taken)| taken.parse().ok());
    matches!((given, taken), (Some(given), Some(taken)) if 0 < taken && taken < given)
}

/// Returns all users and groups, as a search of the bridge's admin finds them.
fn everybody_found(lab: &Lab) -> Result<String, String> {
    let (admin, secret) = (ldap::ADMIN, ldap::SECRET);
    let base = ["-b", "dc=acme,dc=com", "(objectClass=*)"];
    let command = ["ldapsearch", "-x", "-LLL", "-H", URL, "-D", admin, "-w", secret];
    lab.host("motion", &[&command[..], &base].concat(), "").ok()
}

/// Runs sysctl(8) in the host's network from outside, because a container may not.
fn sysctl(lab: &Lab, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("nsenter");
    command.args(["-t", &lab.host_pid()?.to_string(), "-n", "sysctl"]).args(arguments);
    let ran = command.output().map_err(|e| format!("nsenter: {e}"))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}
