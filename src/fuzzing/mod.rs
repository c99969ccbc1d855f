//! The fuzz targets: oracles that hold for any bytes from outside.
//!
//! Each target is a function that takes arbitrary bytes and panics if an oracle fails. `make fuzz` runs it on
//! random bytes (`fuzz/`), and the test at the end of this file on every file of its corpus. Compiled for
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

/// A fuzz target. Its corpus is the folder `fuzz/corpus/NAME`.
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
    Target { name: "certificate", run: directory::certificate },
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

    fn corpus(target: &Target) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Each file of a corpus was interesting to the fuzzer, or broke an oracle once.
    #[test]
    fn every_oracle_holds_for_its_corpus() {
        for target in TARGETS {
            let files = corpus(target);
            assert!(files.len() > 2, "{} has no corpus", target.name);
            (target.run)(b"");
            for file in files {
                let data = std::fs::read(&file).unwrap();
                let ran = std::panic::catch_unwind(|| (target.run)(&data));
                assert!(ran.is_ok(), "{} fails", file.display());
            }
        }
    }

    #[test]
    fn every_corpus_and_every_dictionary_belongs_to_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for inside in ["corpus", "dictionary"] {
            for file in std::fs::read_dir(folder.join(inside)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(target(name.trim_end_matches(".dict")).is_some(), "{inside}/{name}");
            }
        }
    }
}
