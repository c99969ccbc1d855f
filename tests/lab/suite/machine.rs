//! The tests of the machine connection (`tests/machine.rs`) on the joined host, where there is an AD to ask.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::lab::Lab;
use crate::report::Report;

const ON_HOST: &str = "/var/tmp/machine-test";

const ENVIRONMENT: [&str; 4] = [
    "MOTION_AD_TEST_DC=ad.acme.com",
    "MOTION_AD_TEST_SEARCHES=2000",
    "KRB5_CLIENT_KTNAME=/etc/krb5.keytab",
    "KRB5CCNAME=MEMORY:test",
];

/// Tests that do nothing here: those that another test runs as its child, and those that want minutes or a DC that
/// is restarted meanwhile.
const ELSEWHERE: [&str; 3] = ["child_", "a_restart_of_the_domain_controller", "tickets_are_renewed"];

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let binary = built()?;
    std::fs::copy(&binary, lab.path(ON_HOST)).map_err(|e| format!("{ON_HOST}: {e}"))?;
    let mut command = vec!["env"];
    command.extend(ENVIRONMENT);
    // One after the other, as some measure time and memory.
    command.extend([ON_HOST, "--test-threads=1"]);
    command.extend(ELSEWHERE.iter().flat_map(|name| ["--skip", name]));
    let ran = lab.host("root", &command, "");
    let results: Vec<_> = ran.stdout.lines().filter_map(result).collect();
    for (name, result) in &results {
        report.check(name, || match *result {
            "ok" => Ok(()),
            other => Err(format!("{other}\n{}{}", ran.stdout, ran.stderr)),
        });
    }
    std::fs::remove_file(lab.path(ON_HOST)).map_err(|e| format!("{ON_HOST}: {e}"))?;
    match (results.is_empty(), ran.code, results.iter().all(|(_, result)| *result == "ok")) {
        (false, 0, _) | (false, _, false) => Ok(()),
        _ => Err(format!("the tests ended with {}\n{}{}", ran.code, ran.stdout, ran.stderr)),
    }
}

/// The test's binary, built where it is not up to date.
fn built() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["test", "--locked", "--no-run", "--quiet", "--message-format=json", "--test", "machine"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(cargo).args(arguments).current_dir(root).output().map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages
        .filter(|message| message["target"]["name"] == "machine")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    executables
        .next()
        .ok_or_else(|| format!("cargo built no test:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// A line `test NAME ... RESULT`.
fn result(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}
