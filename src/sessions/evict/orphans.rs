//! Processes that a command of `sessions.on_evict` leaves behind.
//!
//! The broker is the reaper of its descendants (`PR_SET_CHILD_SUBREAPER`, prctl(2)): a process whose parents
//! have ended becomes its child, in whatever session or process group it is. Such a process may run as
//! long as a command and is then killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

/// Maximum number of generations that one search covers; the next search finds the rest.
const DEEP: usize = 64;

/// The children that belong to no running command, and the time when each was first seen.
#[derive(Default)]
pub(super) struct Orphans {
    seen: BTreeMap<Pid, Instant>,
}

impl Orphans {
    /// Makes this process the parent of orphaned descendants.
    pub(super) fn adopt() {
        // On an old kernel this fails; then only processes below the command or in its group are killed.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }

    /// Reaps the orphans that have ended, and kills those that were first seen longer than `time` ago.
    ///
    /// `commands` are the children that other code waits for.
    pub(super) fn look(&mut self, commands: &BTreeSet<Pid>, time: Duration) {
        let now = Instant::now();
        let children: BTreeSet<Pid> = children(Pid::this()).difference(commands).copied().collect();
        self.seen.retain(|child, _| children.contains(child));
        for child in children {
            // A child that is seen for the first time may be a command that has just been started.
            let since = *self.seen.entry(child).or_insert(now);
            if since == now || waitpid(child, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s.pid().is_some()) {
                continue;
            }
            if now.duration_since(since) >= time {
                let below = below(child);
                let _ = kill(child, Signal::SIGKILL);
                kill_all(&below);
            }
        }
    }

    /// Returns true if no orphan is left.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// Returns the processes below `parent`, in any process group.
pub(super) fn below(parent: Pid) -> BTreeSet<Pid> {
    let mut all = BTreeSet::new();
    let mut generation = BTreeSet::from([parent]);
    for _ in 0..DEEP {
        generation = generation.into_iter().flat_map(children).filter(|child| all.insert(*child)).collect();
        if generation.is_empty() {
            break;
        }
    }
    all
}

pub(super) fn kill_all(processes: &BTreeSet<Pid>) {
    for process in processes {
        let _ = kill(*process, Signal::SIGKILL);
    }
}

/// Returns the children of all threads of a process: `/proc/PID/task/TID/children` (proc_pid_task(5)).
fn children(parent: Pid) -> BTreeSet<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let ids = lists.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    ids.filter_map(|id| id.parse().ok().map(Pid::from_raw)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn is_there(process: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    /// Marks the process that runs the test itself.
    const ALONE: &str = "MOTION_AD_TEST_ORPHANS";

    /// Runs in a separate process, so that it does not touch children of other tests.
    #[test]
    fn what_left_its_group_and_its_parent_ends_and_commands_do_not() {
        if std::env::var_os(ALONE).is_some() {
            return alone();
        }
        let name =
            "sessions::evict::orphans::tests::what_left_its_group_and_its_parent_ends_and_commands_do_not";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let status = command.args(["--exact", "--nocapture", name]).env(ALONE, "1").status();
        assert!(status.unwrap().success());
    }

    fn alone() {
        Orphans::adopt();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // The shell between them ends at once, so that no chain of parents leads from the command to the
        // process.
        let script = format!("(setsid sh -c 'sleep 600; true' & echo $! >{})", file.display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let mut command = Command::new("sleep").arg("600").spawn().unwrap();
        let commands = BTreeSet::from([Pid::from_raw(command.id().try_into().unwrap())]);
        let orphan = Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap());
        assert!(children(Pid::this()).contains(&orphan) && is_there(orphan));
        while below(orphan).is_empty() {
            std::thread::yield_now();
        }
        let all = below(orphan);
        let mut orphans = Orphans::default();
        let long = Duration::from_secs(600);
        for time in [long, long] {
            orphans.look(&commands, time);
            assert!(is_there(orphan) && orphans.seen.contains_key(&orphan));
        }
        let begun = Instant::now();
        while !orphans.is_empty() {
            orphans.look(&commands, Duration::ZERO);
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?} go on", orphans.seen);
        }
        assert!(!is_there(orphan) && all.iter().all(|process| !is_there(*process)));
        assert!(command.try_wait().unwrap().is_none());
        command.kill().unwrap();
        command.wait().unwrap();
    }
}
