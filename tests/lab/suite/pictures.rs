//! `make pictures`: what the pictures of README.md show, as `tests/lab/pictures` draws it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::join;
use crate::lab::Lab;
use crate::login_page;
use crate::ready::ready;
use crate::report::{Check, Report, contains};

/// A configuration with a key that the doctor corrects.
const MISSPELT: &str = "[login]\nalow_groups = [\"XCALLY Agents\"]\n";
/// Command of the pictured terminal.
const COMMAND: &str = "stty columns 80 && env -u NO_COLOR motion-ad doctor";
/// Parts of the doctor's report: two checks with a finding, and the fix of the first one.
const REPORTED: [&str; 3] = ["config-file", "+allow_groups", "env-password"];

/// Writes `login-page.png` and `doctor.txt`, the doctor's output with its colours, to `folder`.
pub fn run(folder: &str) -> Result<ExitCode, String> {
    let folder = Path::new(folder);
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let lab = Lab::up(crate::WITH_CLIENTS)?;
    let mut setup = Report::quiet();
    join::chapter(&lab, &mut setup)?;
    setup.all_passed()?;
    doctor(&lab, &folder.join("doctor.txt"))?;
    login_page::picture(&lab, &folder.join("login-page.png"))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the doctor on a terminal, on a host with a misspelt key and with XCALLY's own password in `.env`.
fn doctor(lab: &Lab, file: &Path) -> Check {
    ready(lab)?;
    lab.configure(MISSPELT)?;
    let terminal = ["script", "--quiet", "--return", "--command", COMMAND, "/dev/null"];
    let ran = lab.host("root", &terminal, "");
    REPORTED.iter().try_for_each(|part| contains("the doctor's report", &ran.stdout, part))?;
    fs::write(file, &ran.stdout).map_err(|e| format!("{}: {e}", file.display()))?;
    lab.configure("")?;
    ready(lab)
}
