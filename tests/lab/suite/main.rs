//! The lab's suite: the installed package on a really joined host, against a real Active Directory.
//!
//! `make test` runs it with `--suite`, `make test-failover` with `--failover`, `make test-sessions` with `--sessions`,
//! `make test-doctor` with `--doctor`, `make test-clients` with `--clients`, `make test-bridge` with `--bridge`, `make bench`
//! with `--bench`, `make demo` with `--demo`; a word after one of the first six chooses the chapters whose name contains it. Without `MOTION_AD_LAB=1` it
//! does nothing, so that `cargo test` needs neither root nor a lab. The labs are its own (`LAB_NAME`, default `suite`) and
//! go away with the run, however that ends; `MOTION_AD_KEEP_LAB=1` keeps the last one.
#![allow(missing_docs)]
// These are tests, though none is marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod app;
#[path = "../../clients/application.rs"]
mod application;
mod audit;
mod bench;
mod blocks;
mod bridge;
mod cast;
mod clients;
mod commands;
mod config;
mod demo;
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
#[path = "../../clients/libpam.rs"]
#[allow(dead_code)]
mod libpam;
mod libraries;
mod load;
mod login_page;
#[path = "../../clients/login_rate.rs"]
mod login_rate;
mod machine;
mod methods;
mod one_account;
#[path = "../../openmetrics/mod.rs"]
mod openmetrics;
mod package;
mod pam;
mod passwords;
mod people;
#[path = "../../clients/bench/plan.rs"]
mod plan;
mod ready;
mod register;
mod report;
mod row;
#[path = "../../scripted/mod.rs"]
mod scripted;
mod secrets;
mod sessions;
mod setup;
mod shared;
mod strangers;
mod talk;
mod warnings;
mod watching;

use std::process::ExitCode;

use lab::{Lab, Size};
use report::Report;

/// A part of the suite. Chapters run in this order and each leaves the host as it found it: joined, with the package
/// installed and `config.toml` as [`Lab::configure`] writes it.
type Chapter = (&'static str, fn(&Lab, &mut Report) -> Result<(), String>);

/// Chapters that share a lab of this size.
type Part = (Size, &'static [Chapter]);

const ONE_OF_EACH: Size = Size { dcs: 1, hosts: 1, crowd: false, clients: false };
const TWO_DCS: Size = Size { dcs: 2, ..ONE_OF_EACH };
const TWO_HOSTS: Size = Size { hosts: 2, ..ONE_OF_EACH };
const WITH_CLIENTS: Size = Size { clients: true, ..ONE_OF_EACH };

/// What every chapter stands on.
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
            ("faults", faults::chapter),
            ("hostile", hostile::chapter),
            ("secrets", secrets::chapter),
            ("fresh", fresh::chapter),
            ("methods", methods::chapter),
            ("forged", forged::chapter),
            ("answers", answers::chapter),
            ("strangers", strangers::short),
            ("doctor", doctor::short),
            ("passwords", passwords::short),
            ("warnings", warnings::chapter),
            ("sessions", sessions::short),
            ("one-account", one_account::chapter),
            ("bridge", bridge::chapter),
            ("watching", watching::chapter),
            ("health", health::short),
            ("hardening", hardening::chapter),
            ("documents", documents::chapter),
            ("package-lifecycle", package::lifecycle),
        ],
    ),
    (TWO_DCS, &[JOIN, ("failover", failover::short)]),
];

/// Whatever the domain looks like and whichever domain controller dies.
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
    (TWO_DCS, &[JOIN, ("failover", failover::full)]),
];

/// Passwords and sessions, in full.
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

/// Every way to break a host that the doctor is to name.
const DOCTOR: &[Part] = &[
    (ONE_OF_EACH, &[JOIN, ("health", health::full), ("doctor", doctor::full)]),
    (TWO_DCS, &[JOIN, ("doctor-two", doctor::two)]),
];

/// Applications that nobody here wrote, and a login page with a browser.
const CLIENTS: &[Part] =
    &[(WITH_CLIENTS, &[JOIN, ("clients", clients::chapter), ("login-page", login_page::chapter)])];

/// The LDAP bridge under libraries that nobody here wrote.
const BRIDGE: &[Part] =
    &[(WITH_CLIENTS, &[JOIN, ("bridge", bridge::chapter), ("libraries", libraries::chapter)])];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(done) = another_program(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        return done;
    }
    if std::env::var("MOTION_AD_LAB").as_deref() != Ok("1") {
        println!("The lab's suite was not run: it needs root and a lab. `make test` runs it.");
        return ExitCode::SUCCESS;
    }
    let (mode, filter) = match arguments.as_slice() {
        [mode] => (mode.as_str(), ""),
        [mode, filter] => (mode.as_str(), filter.as_str()),
        _ => ("", ""),
    };
    let done = match mode {
        "--suite" => suite(SUITE, filter),
        "--failover" => suite(FAILOVER, filter),
        "--sessions" => suite(SESSIONS, filter),
        "--doctor" => suite(DOCTOR, filter),
        "--clients" => suite(CLIENTS, filter),
        "--bridge" => suite(BRIDGE, filter),
        "--bench" if filter.is_empty() => bench::run(),
        "--demo" if filter.is_empty() => demo::run(),
        _ => Err("usage: lab --suite|--failover|--sessions|--doctor|--clients|--bridge [CHAPTER] | --bench | --demo"
            .to_owned()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab suite: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the suite starts of itself elsewhere: on the host, or beside it.
fn another_program(arguments: &[&str]) -> Option<ExitCode> {
    let done = match arguments {
        // It says itself what it met with.
        [hostile::ATTACK, attack @ ..] => hostile::attacker(attack).map_err(|_| String::new()),
        [app::APPLICATION] => application::run(),
        [load::LOGIN_RATE, logins @ ..] => login_rate::run(logins),
        [answers::SCRIPTED, script @ ..] => answers::scripted(script),
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
    for (size, chapters) in parts {
        let is_chosen = |name: &str| name.contains(filter);
        if !chapters.iter().any(|(name, _)| is_chosen(name)) {
            continue;
        }
        let lab = Lab::up(*size)?;
        for (name, chapter) in chapters.iter().filter(|(name, _)| *name == JOIN.0 || is_chosen(name)) {
            report.chapter(name);
            if let Err(error) = chapter(&lab, &mut report) {
                report.broken(name, &error);
                // Every check after it would fail for the same reason.
                if *name == JOIN.0 {
                    break;
                }
            }
        }
    }
    Ok(report.finish())
}
