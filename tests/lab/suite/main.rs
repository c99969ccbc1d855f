//! The lab's suite: the installed package on a really joined host, against a real Active Directory.
//!
//! `make test` runs it with `--suite`, `make demo` with `--demo`; a word after it chooses the chapters whose name
//! contains it. Without `MOTION_AD_LAB=1` it does nothing, so that `cargo test` needs neither root nor a lab.
//! The lab is its own (`LAB_NAME`, default `suite`) and goes away with the run, however that ends;
//! `MOTION_AD_KEEP_LAB=1` keeps it.
#![allow(missing_docs)]
// These are tests, though none is marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cast;
mod commands;
mod config;
mod demo;
mod faults;
mod hostile;
mod join;
mod lab;
mod machine;
mod package;
mod pam;
mod people;
mod ready;
mod report;
mod row;
mod secrets;

use std::process::ExitCode;

use lab::Lab;
use report::Report;

/// A part of the suite. Chapters run in this order and each leaves the host as it found it: joined, with the package
/// installed and `config.toml` as [`Lab::configure`] writes it.
type Chapter = (&'static str, fn(&Lab, &mut Report) -> Result<(), String>);

const SUITE: &[Chapter] = &[
    ("package-before-join", package::before_join),
    ("join", join::chapter),
    ("people", people::chapter),
    ("config", config::chapter),
    ("commands", commands::chapter),
    ("machine", machine::chapter),
    ("faults", faults::chapter),
    ("hostile", hostile::chapter),
    ("secrets", secrets::chapter),
    ("package-lifecycle", package::lifecycle),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [hostile::ATTACK, attack @ ..] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    {
        return if hostile::attacker(attack).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
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
        "--suite" => suite(filter),
        "--demo" if filter.is_empty() => demo::run(),
        _ => Err("usage: lab --suite [CHAPTER] | --demo".to_owned()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn suite(filter: &str) -> Result<ExitCode, String> {
    let lab = Lab::up()?;
    let mut report = Report::new();
    // Whatever is chosen stands on the join.
    for (name, chapter) in SUITE.iter().filter(|(name, _)| *name == "join" || name.contains(filter)) {
        report.chapter(name);
        if let Err(error) = chapter(&lab, &mut report) {
            report.broken(name, &error);
            // Every check after it would fail for the same reason.
            if *name == "join" {
                break;
            }
        }
    }
    drop(lab);
    Ok(report.finish())
}
