//! The tests that need an AD to ask (`tests/machine.rs`, `tests/kerberos.rs`, `tests/forest.rs`,
//! `tests/impostor.rs`), on the joined host.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::cast::person;
use crate::lab::{Lab, repository};
use crate::report::{Check, Report};

const ON_HOST: &str = "/var/tmp/test";
const PEOPLE: &str = "/var/tmp/people";
/// An SPN of the host for LDAP.
const MEMBER: &str = "ldap/xcally.acme.com";

/// A test's name, its environment, and its cases that do not run here. Some are children of other cases;
/// others take minutes, or need a restarted or a forged domain controller.
const TESTS: &[(&str, &[&str], &[&str])] = &[
    (
        "machine",
        &["MOTION_AD_TEST_DC=ad.acme.com", "MOTION_AD_TEST_SEARCHES=2000"],
        &["child_", "a_restart_of_the_domain_controller", "tickets_are_renewed"],
    ),
    (
        "kerberos",
        &[
            "MOTION_AD_TEST_KDC=ad.acme.com=10.73.0.10:88",
            "MOTION_AD_TEST_REALM=ACME.COM",
            "MOTION_AD_TEST_PEOPLE=/var/tmp/people",
            "MOTION_AD_TEST_LOGINS=20",
        ],
        &["a_forged_kdc"],
    ),
    ("forest", &["MOTION_AD_TEST_DC=ad.acme.com", "MOTION_AD_TEST_ROOTS=1"], &[]),
    ("impostor", &["MOTION_AD_TEST_DC=ad.acme.com", "MOTION_AD_TEST_MEMBER=xcally.acme.com"], &[]),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let binaries = built()?;
    lab.write(PEOPLE, &people())?;
    lab.run(&["ca", "publish"]).ok()?;
    // Any computer account can set such an SPN on itself. AD rejects SPNs with three parts.
    lab.dc(&["samba-tool", "spn", "add", MEMBER, "XCALLY$"]).ok()?;
    for (test, environment, elsewhere) in TESTS {
        let (_, binary) =
            binaries.iter().find(|(name, _)| name == test).ok_or_else(|| format!("no test {test}"))?;
        std::fs::copy(binary, lab.path(ON_HOST)).map_err(|e| format!("{ON_HOST}: {e}"))?;
        run(lab, report, test, environment, elsewhere)?;
    }
    lab.dc(&["samba-tool", "spn", "delete", MEMBER, "XCALLY$"]).ok()?;
    lab.run(&["ca", "unpublish"]).ok()?;
    lab.run(&["cast", "reset"]).ok()?;
    [ON_HOST, PEOPLE]
        .iter()
        .try_for_each(|path| std::fs::remove_file(lab.path(path)).map_err(|e| format!("{path}: {e}")))
}

fn run(lab: &Lab, report: &mut Report, test: &str, environment: &[&str], elsewhere: &[&str]) -> Check {
    let mut command = vec!["env", "KRB5_KTNAME=/etc/krb5.keytab"];
    command.extend(environment);
    // One after the other, because some measure time and memory.
    command.extend([ON_HOST, "--test-threads=1"]);
    command.extend(elsewhere.iter().flat_map(|name| ["--skip", name]));
    let ran = lab.host("root", &command, "");
    let results: Vec<_> = ran.stdout.lines().filter_map(result).collect();
    for (name, result) in &results {
        report.check(&format!("{test}: {name}"), || match *result {
            "ok" => Ok(()),
            other => Err(format!("{other}\n{}{}", ran.stdout, ran.stderr)),
        });
    }
    match (results.is_empty(), ran.code, results.iter().all(|(_, result)| *result == "ok")) {
        (false, 0, _) | (false, _, false) => Ok(()),
        _ => Err(format!("{test} ended with {}\n{}{}", ran.code, ran.stdout, ran.stderr)),
    }
}

/// Returns a user of each kind in the format of `tests/kerberos.rs`. With armor, Samba 4.17 reports only that
/// an account may not log in, but no reason.
fn people() -> String {
    let expected = [
        ("john", "", "success"),
        ("wendy", "not hers", "wrong_password"),
        ("joerg", "", "success"),
        ("miles", "", "success"),
        ("dora", "", "refused?"),
        ("lou", "", "refused?"),
        ("max", "", "password_expired?"),
    ];
    let line = |(key, password, outcome): (&str, &str, &str)| {
        let person = person(key);
        let password = if password.is_empty() { person.password } else { password };
        format!("{}\t{}\t{password}\t{outcome}\n", person.sam, person.upn)
    };
    expected.map(line).concat()
}

/// Returns the tests' binaries by name, and builds outdated ones.
fn built() -> Result<Vec<(String, PathBuf)>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = repository();
    let tests = TESTS.iter().flat_map(|(name, ..)| ["--test", *name]);
    let arguments =
        ["test", "--locked", "--no-run", "--quiet", "--message-format=json"].into_iter().chain(tests);
    let output =
        Command::new(cargo).args(arguments).current_dir(root).output().map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built: Vec<_> = messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect();
    match built.is_empty() {
        true => Err(format!("cargo built no test:\n{}", String::from_utf8_lossy(&output.stderr))),
        false => Ok(built),
    }
}

/// Parses a line `test NAME ... RESULT`.
fn result(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}
