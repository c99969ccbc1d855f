//! The bounds of `make soak`: memory, descriptors and threads of the broker and the bridge, and the log.

use std::collections::BTreeMap;

use crate::lab::{Lab, of_broker};
use crate::load::LONGEST;
use crate::process::{Process, ours};
use crate::report::{Check, Report, equal};

/// A program with its bounds.
struct Bounds {
    program: &'static str,
    /// Resident memory in KiB.
    memory: u64,
    descriptors: usize,
    /// Descriptors for each login per second, in addition.
    each: usize,
    threads: usize,
}

const PROGRAMS: [Bounds; 2] = [
    Bounds {
        program: "/usr/libexec/motion-ad/motion-ad-broker",
        memory: 32 * 1024,
        // `pool.connections`, the turns of both KDCs (`TURNS` in src/kerberos/kdcs.rs), and 32 for the rest:
        // the machine's connections, the register, files. Each login that waits has its client's.
        descriptors: 32 + 2 * 32 + 32,
        each: LONGEST,
        // The main thread, two workers, log, SQLite, the name service, eight for Kerberos, four for files.
        threads: 20,
    },
    Bounds {
        program: "/usr/libexec/motion-ad/motion-ad-ldap",
        // Each of the threads has used its stack, and a part of the allocator, at some time: 13.2 MiB after
        // 1,500 binds.
        memory: 16 * 1024,
        descriptors: 32,
        each: 0,
        // The main thread, two workers, the log, the name service, 64 for logins, eight for searches.
        threads: 80,
    },
];

/// Most growth between the first round of a process and its last one: a factor for memory, and then KiB,
/// descriptors and threads. Connections to domain controllers come and go.
const GROWTH: f64 = 1.25;
const MORE: (u64, usize, usize) = (1024, 16, 2);

/// Most lines per event of a round that no request caused: domain controllers that are down or up again, the
/// register, starts.
const OTHERS: usize = 12;
/// Most bytes of the log for each request, all lines included.
const EACH: usize = 512;
/// Lines of a request.
const REQUESTS: [&str; 9] = [
    "login",
    "account",
    "password_probe",
    "password",
    "session_open",
    "session_close",
    "session_end",
    "bind",
    "search",
];

/// The processes at rest after each round, and their peaks.
#[derive(Default)]
pub struct Rest {
    rounds: Vec<Vec<Process>>,
    peaks: BTreeMap<&'static str, Process>,
}

impl Rest {
    /// Adds the state after a round.
    pub fn take(&mut self, lab: &Lab) -> Check {
        let now = self.sample(lab)?;
        for one in &now {
            println!("         {} {}", one.command, figures(one));
        }
        self.rounds.push(now);
        Ok(())
    }

    /// Reads the state, which counts for the peaks.
    pub fn sample(&mut self, lab: &Lab) -> Result<Vec<Process>, String> {
        let all = ours(lab, &PROGRAMS.map(|bounds| bounds.program))?;
        let mut now = Vec::new();
        for Bounds { program, .. } in &PROGRAMS {
            // Between two brokers there is none.
            let Some(one) = all.iter().find(|one| one.command.starts_with(program)) else { continue };
            let peak = self.peaks.entry(program).or_insert_with(|| one.clone());
            peak.peak = peak.peak.max(one.peak);
            peak.descriptors = peak.descriptors.max(one.descriptors);
            peak.threads = peak.threads.max(one.threads);
            now.push(one.clone());
        }
        Ok(now)
    }

    /// Compares the peaks with the bounds for this rate of logins, and the last process with itself after its
    /// first round.
    pub fn check(&self, report: &mut Report, rate: usize) {
        for bounds in &PROGRAMS {
            let program = bounds.program;
            report.check(
                &format!("{program}: memory, descriptors and threads are within their bounds"),
                || {
                    let peak = self.peaks.get(program).ok_or("it never ran")?;
                    let Process { peak, descriptors, threads, .. } = peak;
                    println!("         at most {peak} KiB, {descriptors} descriptors, {threads} threads");
                    within("memory in KiB", *peak, bounds.memory)?;
                    within("descriptors", *descriptors, bounds.descriptors + bounds.each * rate)?;
                    within("threads", *threads, bounds.threads)
                },
            );
            report
                .check(&format!("{program}: it has not grown since its first round"), || self.grown(program));
        }
    }

    fn grown(&self, program: &str) -> Check {
        let each = self.rounds.iter().map(|all| all.iter().find(|one| one.command.starts_with(program)));
        let all: Vec<_> = each.flatten().collect();
        let last = all.last().ok_or("it never ran")?;
        let lasting: Vec<_> = all.iter().filter(|one| one.pid == last.pid).collect();
        // The first one of several had not met all events.
        let first = lasting.get(usize::from(lasting.len() > 2)).ok_or("it never ran")?;
        println!("         from {} to {}, in {} rounds", figures(first), figures(last), lasting.len() - 1);
        let (kib, descriptors, threads) = MORE;
        within("memory in KiB", last.resident, (first.resident as f64 * GROWTH) as u64 + kib)?;
        within("descriptors", last.descriptors, first.descriptors + descriptors)?;
        within("threads", last.threads, first.threads + threads)
    }
}

fn figures(process: &Process) -> String {
    let Process { resident, descriptors, threads, .. } = process;
    format!("{resident} KiB, {descriptors} descriptors, {threads} threads")
}

fn within<T: PartialOrd + std::fmt::Display>(what: &str, seen: T, most: T) -> Check {
    if seen <= most { Ok(()) } else { Err(format!("{what}: {seen}, at most {most}")) }
}

/// Checks that no line is about a fault in the program.
pub fn marks(journal: &[String]) -> Check {
    const MARKS: [&str; 4] = ["event=panic", "event=task", "event=log_overflow", "event=accept"];
    const ENDS: [&str; 4] = ["panicked at", "code=killed", "code=dumped", "Failed with result"];
    let is_mark = |line: &&String| {
        MARKS.iter().any(|mark| line.contains(mark))
            || line.contains("motion-ad") && ENDS.iter().any(|end| line.contains(end))
    };
    equal("lines", journal.iter().filter(is_mark).collect(), Vec::<&String>::new())
}

/// Checks the number of lines that no request caused, and the size of all.
pub fn log(journal: &[String], events: usize) -> Check {
    let ours: Vec<_> = journal
        .iter()
        .filter(|line| {
            ["motion-ad-broker[", "motion-ad-ldap[", "pam_motion_ad("].iter().any(|mark| line.contains(mark))
        })
        .collect();
    let event = |line: &str| {
        let text =
            of_broker(line).unwrap_or_else(|| line.split_once("]: ").map_or("", |(_, text)| text).to_owned());
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in &ours {
        *counts.entry(event(line)).or_default() += 1;
    }
    let is_request = |name: &str| REQUESTS.iter().any(|request| name.strip_prefix("event=") == Some(request));
    let (requests, others): (Vec<_>, Vec<_>) = counts.iter().partition(|(name, _)| is_request(name));
    let sum = |all: &[(&String, &usize)]| all.iter().map(|(_, count)| **count).sum::<usize>();
    let (answered, others_sum) = (sum(&requests), sum(&others));
    let bytes: usize = ours.iter().map(|line| line.len() + 1).sum();
    println!(
        "         {answered} lines of requests, {others_sum} others, {} bytes for each request: {counts:?}",
        bytes / answered.max(1)
    );
    within("lines that no request caused", others_sum, OTHERS * events)?;
    within("bytes for each request", bytes, EACH * answered)
}
