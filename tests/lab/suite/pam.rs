//! `pamtester` on the host, running as XCALLY's user.

use std::io::Write;
use std::time::Duration;

use crate::lab::{Lab, Ran};
use crate::report::Check;

/// Texts of libpam (pam_strerror(3)), which are all that pamtester prints, and their codes.
pub const TEXTS: &[(&str, &str)] = &[
    ("Have exhausted maximum number of retries for service", "PAM_MAXTRIES"),
    ("Authentication failure", "PAM_AUTH_ERR"),
    ("Permission denied", "PAM_PERM_DENIED"),
    ("User account has expired", "PAM_ACCT_EXPIRED"),
    ("Authentication token is no longer valid; new one required", "PAM_NEW_AUTHTOK_REQD"),
    ("User not known to the underlying authentication module", "PAM_USER_UNKNOWN"),
    ("Authentication service cannot retrieve authentication info", "PAM_AUTHINFO_UNAVAIL"),
    ("Error in service module", "PAM_SERVICE_ERR"),
    ("System error", "PAM_SYSTEM_ERR"),
    ("Conversation error", "PAM_CONV_ERR"),
    ("Authentication token manipulation error", "PAM_AUTHTOK_ERR"),
    ("Authentication information cannot be recovered", "PAM_AUTHTOK_RECOVERY_ERR"),
    ("Failed preliminary check by password service", "PAM_TRY_AGAIN"),
    ("Cannot make/remove an entry for the specified session", "PAM_SESSION_ERR"),
];

/// Text that pamtester prints for each entry point that succeeds.
const DONE: &[(&str, &str)] = &[
    ("authenticate", "successfully authenticated"),
    ("acct_mgmt", "account management done."),
    ("chauthtok", "authentication token altered successfully."),
    ("open_session", "successfully opened a session"),
    ("close_session", "session has successfully been closed."),
];

/// The module's answer to the last entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `PAM_SUCCESS`, or the code of the entry point that failed.
    pub code: String,
    /// The entry points that succeeded before.
    pub passed: Vec<String>,
    /// Everything that pamtester printed.
    pub output: String,
}

/// Runs tables of users and outcomes with a longer `timeout=` in the service `motion`. For a user with 300
/// groups, Samba computes for a second, and longer than a login waits if the machine is busy with other labs.
/// How long a login waits is tested elsewhere.
pub fn patiently(lab: &Lab, tables: impl FnOnce() -> Check) -> Check {
    let (file, kept) = ("/etc/pam.d/motion", "/root/pam-motion-kept");
    lab.host_sh(&format!("cp -p {file} {kept} && sed -i '/pam_motion_ad/s/$/ timeout=20/' {file}")).ok()?;
    let done = tables();
    lab.host_sh(&format!("mv {kept} {file}")).ok()?;
    done
}

/// Calls the entry points of `service` in order, and stops at the first failure. If there are several
/// prompts, `password` has one line for each.
pub fn pam(lab: &Lab, service: &str, user: &str, password: &str, entry_points: &[&str]) -> Answer {
    let mut command = vec!["pamtester", service, user];
    command.extend(entry_points);
    pamtester(lab, &command, password)
}

/// Runs a pamtester command line, for names that cannot be written as an argument here.
pub fn pamtester(lab: &Lab, command: &[&str], password: &str) -> Answer {
    answer(lab.host("motion", command, &format!("{password}\n")))
}

/// Pause of the user in [`slowly`]. It is long enough for all effects of the first answer.
const SLOWLY: Duration = Duration::from_secs(2);

/// Same as [`pam`] at `motion`, but the user pauses after the first line of `password`, and `meanwhile` runs
/// then.
pub fn slowly(
    lab: &Lab,
    user: &str,
    entry_point: &str,
    password: &str,
    meanwhile: impl FnOnce() -> Check,
) -> Result<Answer, String> {
    let command = ["sh", "-c", "exec pamtester motion \"$@\" 2>&1", "sh", user, entry_point];
    let mut child = lab.host_child("motion", &command)?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    let (first, rest) = password.split_once('\n').ok_or("a password of one line")?;
    let told = writeln!(stdin, "{first}").map_err(|e| e.to_string()).and_then(|()| {
        std::thread::sleep(SLOWLY);
        meanwhile()?;
        writeln!(stdin, "{rest}").map_err(|e| e.to_string())
    });
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    told?;
    Ok(answer(Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::new(),
    }))
}

fn answer(ran: Ran) -> Answer {
    let output = ran.stdout + &ran.stderr;
    let passed: Vec<_> =
        DONE.iter().filter(|(_, text)| output.contains(text)).map(|(e, _)| (*e).to_owned()).collect();
    let known = TEXTS.iter().find(|(text, _)| output.contains(text)).map(|(_, code)| *code);
    let code = match (ran.code, known) {
        (0, _) => "PAM_SUCCESS",
        (_, Some(code)) => code,
        (_, None) => "?",
    };
    Answer { code: code.to_owned(), passed, output }
}

/// Authenticates at the service `motion`.
pub fn authenticate(lab: &Lab, user: &str, password: &str) -> Answer {
    pam(lab, "motion", user, password, &["authenticate"])
}
