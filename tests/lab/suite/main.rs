//! The lab's suite: the installed package on a joined host, against a real Active Directory.
//!
//! `make test` runs it with `--suite`, `make test-failover` with `--failover`, `make test-sessions` with
//! `--sessions`, `make test-doctor` with `--doctor`, `make test-clients` with `--clients`, `make test-bridge`
//! with `--bridge`, `make test-syscalls` with `--syscalls`, `make soak` with `--soak`, `make bench` with
//! `--bench`, `make demo` with `--demo`, `make pictures` with `--pictures` and the folder to write to. A word
//! after one of the first seven chooses the chapters whose names contain it. The suite has separate labs
//! (`LAB_NAME`, default `suite`; the parts of `--suite` add their number) and removes them when it ends, for
//! whatever reason;
//! `MOTION_AD_KEEP_LAB=1` keeps the last lab of each name.
#![allow(missing_docs)]
// These are tests, though none is marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ansible;
mod answers;
mod app;
mod application;
mod audit;
mod before_after;
mod bench;
mod bridge;
mod bridge_faults;
mod cast;
mod clients;
mod commands;
mod config;
mod demo;
mod demo_bridge;
mod doctor;
mod documents;
mod failover;
mod faults;
mod forged;
mod fresh;
mod hardening;
mod health;
mod hostile;
mod hosts;
mod join;
mod lab;
mod libraries;
mod load;
mod login_page;
mod login_rate;
mod machine;
mod methods;
mod npm;
mod observe;
mod one_account;
mod package;
mod pam;
mod passwords;
mod people;
mod pictures;
mod piecewise;
mod process;
mod ready;
mod register;
mod report;
mod repository;
mod restrictions;
mod row;
mod secrets;
mod sessions;
mod setup;
mod shared;
mod side_by_side;
mod soak;
mod soak_bounds;
mod soak_events;
mod strace;
mod strangers;
mod syscalls;
mod talk;
mod warnings;
mod watching;
mod xcally;

use std::process::ExitCode;

use lab::{Lab, Size};
use report::{Report, Sum};

/// A part of the suite. Chapters run in this order. Each restores the host: joined, with the package
/// installed and `config.toml` as [`Lab::configure`] writes it.
type Chapter = (&'static str, fn(&Lab, &mut Report) -> Result<(), String>);

/// Chapters that share a lab of this size.
type Part = (Size, &'static [Chapter]);

const ONE_OF_EACH: Size = Size { dcs: 1, hosts: 1, crowd: false, clients: false };
const TWO_DCS: Size = Size { dcs: 2, ..ONE_OF_EACH };
const TWO_HOSTS: Size = Size { hosts: 2, ..ONE_OF_EACH };
const WITH_CLIENTS: Size = Size { clients: true, ..ONE_OF_EACH };

/// Precondition of every chapter.
const JOIN: Chapter = ("join", join::chapter);

const SUITE: &[Part] = &[
    (
        ONE_OF_EACH,
        &[
            ("package-before-join", package::before_join),
            JOIN,
            ("people", people::chapter),
            ("config", config::chapter),
            ("commands", commands::chapter),
            ("setup", setup::chapter),
            ("audit", audit::chapter),
            ("machine", machine::chapter),
            ("hosts", hosts::chapter),
            ("hostile", hostile::chapter),
            ("secrets", secrets::chapter),
            ("fresh", fresh::chapter),
            ("methods", methods::chapter),
        ],
    ),
    (
        ONE_OF_EACH,
        &[
            JOIN,
            ("faults", faults::chapter),
            ("forged", forged::chapter),
            ("answers", answers::chapter),
            ("strangers", strangers::short),
            ("doctor", doctor::short),
            ("warnings", warnings::chapter),
            ("one-account", one_account::chapter),
            ("observe", observe::chapter),
            ("bridge", bridge::chapter),
            ("watching", watching::chapter),
            ("health", health::short),
            ("hardening", hardening::chapter),
            ("restrictions", restrictions::chapter),
        ],
    ),
    (
        ONE_OF_EACH,
        &[
            JOIN,
            ("passwords", passwords::short),
            ("sessions", sessions::short),
            ("documents", documents::chapter),
            ("package-lifecycle", package::lifecycle),
        ],
    ),
    (TWO_DCS, &[JOIN, ("not-replicated", failover::not_replicated), ("failover", failover::short)]),
];

/// Parts of [`SUITE`] that run next to each other, by their place in it. The last part has the machine for
/// itself: its logins come at a rate that two cores only just carry.
const GROUPS: &[&[usize]] = &[&[0, 1, 2], &[3]];

/// Logins with every kind of domain, and while domain controllers fail.
const FAILOVER: &[Part] = &[
    (
        ONE_OF_EACH,
        &[
            JOIN,
            ("fresh", fresh::chapter),
            ("people", people::chapter),
            ("methods", methods::chapter),
            ("forged", forged::chapter),
            ("answers", answers::chapter),
            ("strangers", strangers::chapter),
        ],
    ),
    (TWO_DCS, &[JOIN, ("not-replicated", failover::not_replicated), ("failover", failover::full)]),
];

/// All tests of passwords and sessions.
const SESSIONS: &[Part] = &[
    (
        ONE_OF_EACH,
        &[
            JOIN,
            ("passwords", passwords::full),
            ("warnings", warnings::chapter),
            ("sessions", sessions::full),
        ],
    ),
    (TWO_DCS, &[JOIN, ("passwords-failover", passwords::failover)]),
    (TWO_HOSTS, &[JOIN, ("sessions-redis", shared::chapter)]),
];

/// All faults that the doctor must report.
const DOCTOR: &[Part] = &[
    (ONE_OF_EACH, &[JOIN, ("health", health::full), ("doctor", doctor::full)]),
    (TWO_DCS, &[JOIN, ("doctor-two", doctor::two)]),
];

/// Third-party applications, and a login page with a browser.
const CLIENTS: &[Part] = &[(
    WITH_CLIENTS,
    &[
        JOIN,
        ("clients", clients::chapter),
        ("npm", npm::chapter),
        ("login-page", login_page::chapter),
        ("ansible", ansible::chapter),
    ],
)];

/// Third-party LDAP libraries at the bridge, and XCALLY's own integration before and after it.
const BRIDGE: &[Part] = &[(
    WITH_CLIENTS,
    &[
        JOIN,
        ("bridge", bridge::chapter),
        ("bridge-faults", bridge_faults::chapter),
        ("bridge-sessions", bridge_faults::sessions),
        ("libraries", libraries::chapter),
        ("xcally", xcally::chapter),
    ],
)];

/// An hour of faults.
const SOAK: &[Part] = &[(TWO_DCS, &[JOIN, ("soak", soak::chapter)])];

/// Faults in system calls.
const SYSCALLS: &[Part] = &[(
    ONE_OF_EACH,
    &[
        JOIN,
        ("control", syscalls::control),
        ("broker", syscalls::broker),
        ("bridge", syscalls::bridge),
        ("application", syscalls::application),
        ("pieces", syscalls::pieces),
    ],
)];

/// The apt repository of a release.
const REPOSITORY: &[Part] = &[(ONE_OF_EACH, &[JOIN, ("repository", repository::chapter)])];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(done) = another_program(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        return done;
    }
    if let [mode, number, filter] = arguments.as_slice()
        && mode == side_by_side::PART
    {
        return part(number, filter);
    }
    let (mode, filter) = match arguments.as_slice() {
        [mode] => (mode.as_str(), ""),
        [mode, filter] => (mode.as_str(), filter.as_str()),
        _ => ("", ""),
    };
    let done = match mode {
        "--suite" => Ok(groups(filter)),
        "--failover" => suite(FAILOVER, filter),
        "--sessions" => suite(SESSIONS, filter),
        "--doctor" => suite(DOCTOR, filter),
        "--clients" => suite(CLIENTS, filter),
        "--bridge" => suite(BRIDGE, filter),
        "--syscalls" => suite(SYSCALLS, filter),
        "--repository" => suite(REPOSITORY, filter),
        "--soak" if filter.is_empty() => suite(SOAK, filter),
        "--bench" if filter.is_empty() => bench::run(),
        "--demo" if filter.is_empty() => demo::run(),
        "--pictures" if !filter.is_empty() => pictures::run(filter),
        _ => Err(
            "usage: lab --suite|--failover|--sessions|--doctor|--clients|--bridge|--syscalls|--repository \
                  [CHAPTER] | --soak | --bench | --demo | --pictures FOLDER"
                .to_owned(),
        ),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab suite: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the programs that the suite starts from its own binary, on the host or next to it.
fn another_program(arguments: &[&str]) -> Option<ExitCode> {
    let done = match arguments {
        // The attacker prints its own report.
        [hostile::ATTACK, attack @ ..] => hostile::attacker(attack).map_err(|_| String::new()),
        [app::APPLICATION] => application::run(),
        [load::LOGIN_RATE, logins @ ..] => login_rate::run(logins),
        [answers::SCRIPTED, script @ ..] => answers::scripted(script),
        [piecewise::PIECEWISE, from, to] => piecewise::run(from, to),
        [hosts::NO_AAAA] => hosts::dns_without_aaaa(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn suite(parts: &[Part], filter: &str) -> Result<ExitCode, String> {
    let mut report = Report::new();
    for part in parts.iter().filter(|part| is_chosen(part, filter)) {
        run(part, filter, &mut report)?;
    }
    Ok(report.finish())
}

/// Returns true if the filter chooses one of the part's chapters.
fn is_chosen((_, chapters): &Part, filter: &str) -> bool {
    chapters.iter().any(|(name, _)| name.contains(filter))
}

fn run((size, chapters): &Part, filter: &str, report: &mut Report) -> Result<(), String> {
    let lab = Lab::up(*size)?;
    for (name, chapter) in chapters.iter().filter(|(name, _)| *name == JOIN.0 || name.contains(filter)) {
        report.chapter(name);
        if let Err(error) = chapter(&lab, report) {
            report.broken(name, &error);
            // Every check after it would fail for the same reason.
            if *name == JOIN.0 {
                break;
            }
        }
    }
    Ok(())
}

/// Runs the groups of [`SUITE`] one after the other.
fn groups(filter: &str) -> ExitCode {
    let report = Report::new();
    let mut sum = Sum::default();
    for group in GROUPS {
        let chosen: Vec<_> = group.iter().copied().filter(|part| is_chosen(&SUITE[*part], filter)).collect();
        sum.add(side_by_side::run(&chosen, filter));
    }
    report.finish_with(sum)
}

/// Runs one part of [`SUITE`] in this process, as [`side_by_side::run`] starts it.
fn part(number: &str, filter: &str) -> ExitCode {
    let Some(part) = number.parse().ok().and_then(|number: usize| SUITE.get(number)) else {
        eprintln!("lab suite: there is no part {number}");
        return ExitCode::FAILURE;
    };
    let mut report = Report::new();
    match run(part, filter, &mut report) {
        Ok(()) => report.hand_over(),
        Err(error) => {
            eprintln!("lab suite: {error}");
            ExitCode::FAILURE
        }
    }
}
