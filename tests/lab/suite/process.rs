//! Processes of the lab's machines, as the kernel of this machine sees them.

use std::fs;
use std::path::Path;

use crate::lab::Lab;

/// A process in a machine of the lab.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its pid on this machine.
    pub pid: u32,
    pub command: String,
    /// CPU seconds, including those of ended children.
    pub cpu: f64,
    /// Resident memory in KiB: now, and at most until now.
    pub resident: u64,
    pub peak: u64,
    pub descriptors: usize,
    pub threads: usize,
}

/// Returns the host's processes of these programs.
pub fn ours(lab: &Lab, programs: &[&str]) -> Result<Vec<Process>, String> {
    let host = lab.host_pid()?.to_string();
    let mut found = processes(&host)?;
    found.retain(|process| programs.iter().any(|program| process.command.contains(program)));
    Ok(found)
}

/// Returns the processes in the same pid namespace as `leader`.
pub fn processes(leader: &str) -> Result<Vec<Process>, String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(leader).ok_or("the machine is down")?;
    let entries = fs::read_dir("/proc").map_err(|e| e.to_string())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(pids.filter(|pid| namespace(pid).as_ref() == Some(&wanted)).filter_map(|pid| process(&pid)).collect())
}

/// Reads a process; returns `None` if it has just ended (proc(5)).
fn process(pid: &str) -> Option<Process> {
    let folder = Path::new("/proc").join(pid);
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let stat = text("stat")?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // utime, stime, cutime and cstime, in ticks of 10 ms.
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let status = text("status")?;
    let number =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let kib = |name: &str| number(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Process {
        pid: pid.parse().ok()?,
        command: text("cmdline")?.replace('\0', " "),
        cpu: ticks as f64 / 100.0,
        resident: kib("VmRSS:"),
        peak: kib("VmHWM:"),
        descriptors: fs::read_dir(folder.join("fd")).map_or(0, Iterator::count),
        threads: number("Threads:").and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}
