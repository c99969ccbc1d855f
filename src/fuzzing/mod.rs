//! The fuzz targets: oracles that hold for any bytes from outside.
//!
//! Each target is a function that takes arbitrary bytes and panics if an oracle fails. `make fuzz` runs it on
//! random bytes (`fuzz/`), and the test at the end of this file on every input that is kept. Compiled for
//! tests and for the fuzzer (`cfg(fuzzing)`), never into what is shipped.

// A failed oracle is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bridge;
mod directory;
mod files;
mod frames;
mod kerberos;
mod names;
mod sockets;
mod trust;

/// A fuzz target. Its corpus is the folder `fuzz/corpus/NAME`: real inputs, and those that broke an oracle
/// once. The file `fuzz/minimised/NAME` has what the fuzzer found in addition.
pub struct Target {
    pub name: &'static str,
    /// Panics if an oracle fails.
    pub run: fn(&[u8]),
}

/// Returns the target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "request", run: frames::request },
    Target { name: "reply", run: frames::reply },
    Target { name: "ldap_answer", run: directory::ldap_answer },
    Target { name: "sealed", run: directory::sealed },
    Target { name: "entry", run: directory::entry },
    Target { name: "attributes", run: directory::attributes },
    Target { name: "sid", run: directory::sid },
    Target { name: "netlogon", run: directory::ping },
    Target { name: "kdc_error", run: kerberos::kdc_error },
    Target { name: "edata", run: kerberos::edata },
    Target { name: "kpasswd", run: kerberos::kpasswd },
    Target { name: "refusal", run: kerberos::refused },
    Target { name: "certificate", run: trust::certificate },
    Target { name: "crl", run: trust::crl },
    Target { name: "dns", run: directory::dns },
    Target { name: "names_map", run: names::names_map },
    Target { name: "name", run: names::name },
    Target { name: "dn", run: names::dn },
    Target { name: "filter", run: names::filter },
    Target { name: "bridge", run: bridge::bridge_message },
    Target { name: "config", run: files::config },
    Target { name: "sssd", run: files::sssd },
    Target { name: "env", run: files::env },
    Target { name: "pam_service", run: files::pam_service },
    Target { name: "metrics", run: sockets::metrics },
    Target { name: "redis", run: sockets::redis },
    Target { name: "record", run: sockets::record },
    Target { name: "kernel", run: sockets::kernel },
    Target { name: "words", run: sockets::words },
    Target { name: "log", run: sockets::log },
];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    /// The inputs of a target in its corpus, each with the name of its file.
    fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
        let files = std::fs::read_dir(folder().join("corpus").join(target.name)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files.map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect()
    }

    /// The inputs that the fuzzer kept for a target, each with its line.
    fn minimised(target: &Target) -> Vec<(String, Vec<u8>)> {
        let digits = |line: &str| {
            let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
            (0..line.len()).step_by(2).map(byte).collect()
        };
        let file = format!("minimised/{}", target.name);
        let text = std::fs::read_to_string(folder().join(&file)).unwrap();
        text.lines().enumerate().map(|(at, line)| (format!("{file}:{}", at + 1), digits(line))).collect()
    }

    /// Each input reached code that no other one did, or broke an oracle once.
    #[test]
    fn every_oracle_holds_for_its_corpus() {
        for target in TARGETS {
            let corpus = corpus(target);
            assert!(corpus.len() > 2, "{} has no corpus", target.name);
            (target.run)(b"");
            for (name, data) in corpus.into_iter().chain(minimised(target)) {
                let ran = std::panic::catch_unwind(|| (target.run)(&data));
                assert!(ran.is_ok(), "{name} fails");
            }
        }
    }

    #[test]
    fn every_corpus_and_every_dictionary_belongs_to_a_target() {
        for inside in ["corpus", "dictionary", "minimised"] {
            for file in std::fs::read_dir(folder().join(inside)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(target(name.trim_end_matches(".dict")).is_some(), "{inside}/{name}");
            }
        }
    }
}
