//! Checks whether the process that opened a session still exists.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fs;
use std::io::ErrorKind;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::protocol::report::Session;

/// The variable with the boot id, which systemd sets (`%b`, systemd.unit(5)): its sandbox hides the kernel's
/// file.
const BOOT: &str = "BOOT_ID";
/// The kernel's file, for a broker that is started by hand (random(4)).
const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the id of this boot, without hyphens; empty if it is unknown.
pub fn boot() -> String {
    let told = std::env::var(BOOT).ok().or_else(|| fs::read_to_string(BOOT_FILE).ok());
    told.unwrap_or_default().trim().replace('-', "")
}

/// State of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The process runs and was started at this time: `starttime` of proc_pid_stat(5).
    Since(u64),
    /// The process may exist, but its start time is hidden.
    Hidden,
    /// The process does not exist.
    Gone,
}

impl Process {
    /// Returns the present state of the process with this id.
    pub fn look(pid: u32) -> Self {
        Self::seen(read(pid), || Self::exists(pid)).unwrap_or(Process::Hidden)
    }

    /// Returns the state that `stat`, the content of the process's file, shows. Without the file, `exists`
    /// decides.
    fn seen(stat: std::io::Result<Vec<u8>>, exists: impl FnOnce() -> Self) -> std::io::Result<Self> {
        match stat {
            Ok(stat) => Ok(parse(&stat).unwrap_or(Process::Hidden)),
            // /proc may hide processes of other users (hidepid, proc(5)).
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) || is_no_process(&error) => {
                Ok(exists())
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Process::Hidden),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the process exists: kill(2) reports it for a hidden one, too.
    fn exists(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw);
        match pid.map(|pid| kill(pid, None)) {
            Some(Err(Errno::ESRCH)) => Process::Gone,
            _ => Process::Hidden,
        }
    }

    /// Returns the start time of the process with this id. 0 stands for an unknown one, with the cause unless
    /// /proc hides the process for good.
    pub fn identify(pid: u32) -> (u64, Option<std::io::Error>) {
        match Self::seen(read(pid), || Self::exists(pid)) {
            Ok(process) => (process.started(), None),
            Err(error) => (0, Some(error)),
        }
    }

    /// Returns the start time; 0 if it is unknown.
    pub fn started(self) -> u64 {
        match self {
            Process::Since(started) => started,
            Process::Hidden | Process::Gone => 0,
        }
    }
}

fn read(pid: u32) -> std::io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/stat"))
}

/// Returns true if the process ended while its file was read.
fn is_no_process(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// Parses the third, 20th and 22nd field: `state`, `num_threads` and `starttime`. The second field, in
/// parentheses, may hold anything.
pub(crate) fn parse(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end.checked_add(1)?..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let threads: i64 = fields.nth(16)?.parse().ok()?;
    // A zombie does nothing but wait for its parent, unless only its first thread has ended.
    if is_dead && threads <= 1 {
        return Some(Process::Gone);
    }
    Some(Process::Since(fields.nth(1)?.parse().ok()?))
}

/// Returns true if the process of a session of this host is certainly gone. `look` returns the state of a
/// process.
pub fn is_gone(session: &Session, boot: &str, look: impl FnOnce(u32) -> Process) -> bool {
    // No process survives its boot; afterwards another process may have its id and even its start time.
    if !session.boot.is_empty() && !boot.is_empty() && session.boot != boot {
        return true;
    }
    // The application runs in a container, where processes have other ids.
    if session.pid == 0 {
        return false;
    }
    match look(session.pid) {
        Process::Gone => true,
        Process::Since(started) => session.started != 0 && session.started != started,
        Process::Hidden => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = std::process::id();
        let Process::Since(started) = Process::look(me) else { panic!("{:?}", Process::look(me)) };
        assert!(started > 0);
        assert_eq!(Process::look(me), Process::Since(started));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let Process::Since(later) = Process::look(pid) else { panic!("{:?}", Process::look(pid)) };
        assert!(later >= started);
        child.kill().unwrap();
        // Until its parent waits for it, a dead child is a zombie.
        while Process::look(pid) != Process::Gone {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(Process::look(pid), Process::Gone);
        // A process of another user, which works even if the tests do not run as root.
        assert!(matches!(Process::look(1), Process::Since(_) | Process::Hidden));
    }

    #[test]
    fn only_a_file_that_could_be_there_is_missed() {
        let seen = |code: Errno| {
            let error = std::io::Error::from_raw_os_error(code as i32);
            Process::seen(Err(error), || Process::Gone).map_err(|error| error.raw_os_error())
        };
        assert_eq!(seen(Errno::ENOENT), Ok(Process::Gone));
        assert_eq!(seen(Errno::ESRCH), Ok(Process::Gone));
        assert_eq!(seen(Errno::EACCES), Ok(Process::Hidden));
        for code in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert_eq!(seen(code), Err(Some(code as i32)));
        }
        let (started, problem) = Process::identify(std::process::id());
        assert!(started > 0 && problem.is_none());
    }

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let stat = |name: &str, state: &str, threads: u32| {
            format!("42 ({name}) {state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 777 9 10")
        };
        let cases = [
            (stat("node", "S", 11), Some(Process::Since(777))),
            (stat("a) Z 1 (b", "R", 1), Some(Process::Since(777))),
            (stat("node", "Z", 1), Some(Process::Gone)),
            (stat("node", "Z", 10), Some(Process::Since(777))),
            ("42 (node) S 1".to_owned(), None),
            (String::new(), None),
        ];
        for (stat, expected) in cases {
            assert_eq!(parse(stat.as_bytes()), expected, "{stat}");
        }
    }

    #[test]
    fn only_what_is_certain_ends_a_session() {
        let session =
            |pid, started, boot: &str| Session { pid, started, boot: boot.into(), ..Session::default() };
        let cases = [
            ("it runs", session(7, 100, "now"), Process::Since(100), false),
            ("it ended", session(7, 100, "now"), Process::Gone, true),
            ("another got its id", session(7, 100, "now"), Process::Since(200), true),
            ("it is hidden", session(7, 100, "now"), Process::Hidden, false),
            ("its start was not known", session(7, 0, "now"), Process::Since(200), false),
            ("it ended, its start was not known", session(7, 0, "now"), Process::Gone, true),
            ("in a container", session(0, 0, "now"), Process::Gone, false),
            ("before the boot", session(7, 100, "then"), Process::Since(100), true),
            ("in a container before the boot", session(0, 0, "then"), Process::Gone, true),
            ("the boot was not known", session(7, 100, ""), Process::Since(100), false),
        ];
        for (case, session, process, gone) in cases {
            assert_eq!(is_gone(&session, "now", |_| process), gone, "{case}");
        }
        assert!(!is_gone(&session(7, 100, "then"), "", |_| Process::Since(100)));
        assert!(!boot().is_empty());
    }
}
