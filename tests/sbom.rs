//! The software bill of materials of the package: it is complete, and valid CycloneDX.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../packaging/sbom.rs"]
mod sbom;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    cargo
}

fn output(command: &mut Command) -> String {
    let ran = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(ran.status.success(), "{command:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn bom() -> Value {
    serde_json::from_str(&sbom::document("amd64", TARGET).unwrap()).unwrap()
}

fn texts<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap()).collect()
}

#[test]
fn every_crate_that_is_linked_is_listed_once_and_no_other() {
    let bom = bom();
    let tree =
        ["tree", "--locked", "--target", TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none"];
    let packages = sbom::PACKAGES.iter().flat_map(|package| ["--package", package]);
    let tree = output(cargo(&tree).args(packages).args(["--format", "{p}"]));
    let linked: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("pkg:cargo/{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
        })
        .filter(|purl| !sbom::PACKAGES.iter().any(|own| purl.starts_with(&format!("pkg:cargo/{own}@"))))
        .collect();
    let listed = texts(&bom["components"], "purl");
    assert_eq!(listed, linked.iter().map(String::as_str).collect());
    assert_eq!(bom["components"].as_array().unwrap().len(), listed.len());
    assert!(listed.len() > 100, "{}", listed.len());
}

/// A crate with other features is compiled again: the tests and the lab's suite have the same ones.
#[test]
fn the_suite_compiles_no_crate_again_that_the_tests_have_compiled() {
    let crates = |package: &str, edges: &str| -> BTreeSet<String> {
        let tree = ["tree", "--locked", "--target", TARGET, "--prefix", "none", "--format", "{p} {f}"];
        let tree = output(cargo(&tree).args(["--package", package, "--edges", edges]));
        let lines = tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
        lines.filter(|line| !line.starts_with("motion-ad-lab ")).collect()
    };
    let (tests, suite) = (crates("motion-ad", "normal,build,dev"), crates("motion-ad-lab", "normal,build"));
    let again: Vec<_> = suite.difference(&tests).collect();
    assert!(again.is_empty() && suite.len() > 100, "see tests/support/Cargo.toml: {again:#?}");
}

#[test]
fn it_is_cyclonedx_with_a_checksum_and_a_licence_of_each() {
    let bom = bom();
    assert_eq!((bom["bomFormat"].as_str(), bom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let own = bom["metadata"]["component"]["bom-ref"].as_str().unwrap();
    assert_eq!(own, format!("pkg:deb/libpam-motion-ad@{}?arch=amd64", env!("CARGO_PKG_VERSION")));
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    for component in bom["components"].as_array().unwrap() {
        assert_eq!(component["type"], "library");
        let sum = component["hashes"][0]["content"].as_str().unwrap();
        assert!(sum.len() == 64 && lock.contains(&format!("checksum = \"{sum}\"")), "{component}");
        let licence = component["licenses"][0]["expression"].as_str().unwrap();
        assert!(!licence.is_empty() && !licence.contains('/'), "{component}");
    }
    // Both ends of every dependency are in the list, and all components are reachable from the package.
    let mut known = texts(&bom["components"], "bom-ref");
    known.insert(own);
    assert_eq!(texts(&bom["dependencies"], "ref"), known);
    let (mut reached, mut next) = (BTreeSet::new(), vec![own]);
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            let of = bom["dependencies"].as_array().unwrap().iter().find(|one| one["ref"] == name).unwrap();
            next.extend(of["dependsOn"].as_array().unwrap().iter().map(|on| on.as_str().unwrap()));
        }
    }
    assert_eq!(reached, known);
}

/// Returns true if a licence expression (SPDX) is satisfied by licences of `allowed` alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let text = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = text.split_whitespace().peekable();
    fn any<'a>(words: &mut Words<'a>, allowed: &BTreeSet<&str>) -> bool {
        let mut result = all(words, allowed);
        while words.next_if_eq(&"OR").is_some() {
            result |= all(words, allowed);
        }
        result
    }
    fn all<'a>(words: &mut Words<'a>, allowed: &BTreeSet<&str>) -> bool {
        let mut result = one(words, allowed);
        while words.next_if_eq(&"AND").is_some() {
            result &= one(words, allowed);
        }
        result
    }
    fn one<'a>(words: &mut Words<'a>, allowed: &BTreeSet<&str>) -> bool {
        let word = words.next().unwrap();
        if word == "(" {
            let result = any(words, allowed);
            assert_eq!(words.next(), Some(")"));
            return result;
        }
        // An exception is a licence of its own here: deny.toml would have to name it.
        match words.next_if_eq(&"WITH") {
            Some(_) => allowed.contains(format!("{word} WITH {}", words.next().unwrap()).as_str()),
            None => allowed.contains(word),
        }
    }
    let result = any(&mut words, allowed);
    assert_eq!(words.next(), None, "{expression}");
    result
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

#[test]
fn licences_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "ISC"].into();
    let cases = [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(MIT OR GPL-3.0) AND (ISC OR GPL-3.0)", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("MIT WITH exception", false),
        ("GPL-3.0 WITH exception OR ISC", true),
    ];
    for (expression, expected) in cases {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

/// The rules of `deny.toml` that need no other tool, for `cargo test` alone. `make test` checks all of them
/// by cargo-deny, for every architecture.
#[test]
fn every_crate_obeys_the_rules_for_licences_sources_and_bans() {
    let read =
        |name: &str| std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rules: toml::Table = read("deny.toml").parse().unwrap();
    let list = |table: &str, key: &str| rules[table][key].as_array().unwrap().clone();
    let allowed = list("licenses", "allow");
    let allowed: BTreeSet<_> = allowed.iter().map(|licence| licence.as_str().unwrap()).collect();
    let banned = list("bans", "deny");
    let banned: BTreeSet<_> = banned.iter().map(|one| one["crate"].as_str().unwrap()).collect();
    assert!(!allowed.is_empty() && !banned.is_empty());
    let arguments = ["metadata", "--locked", "--offline", "--all-features", "--format-version", "1"];
    let metadata = output(cargo(&arguments).args(["--filter-platform", TARGET]));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let used: BTreeSet<_> = texts(&metadata["resolve"]["nodes"], "id");
    for package in metadata["packages"].as_array().unwrap() {
        let (id, name) = (package["id"].as_str().unwrap(), package["name"].as_str().unwrap());
        if used.contains(id) {
            let licence = package["license"].as_str().unwrap_or("none");
            assert!(is_allowed(licence, &allowed), "{id}: {licence}");
            assert!(!banned.contains(name), "{id}");
        }
        if sbom::PACKAGES.contains(&name) {
            for dependency in package["dependencies"].as_array().unwrap() {
                assert_ne!(dependency["req"], "*", "{dependency}");
            }
        }
    }
    assert!(used.len() > 200, "{}", used.len());
    let registry = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let lock = read("Cargo.lock");
    assert!(lock.lines().filter(|line| line.starts_with("source = ")).all(|line| line == registry));
}
