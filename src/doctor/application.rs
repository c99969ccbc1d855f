//! What the application's user can do: load the module, reach the broker, log somebody in.
//!
//! Each is done for real, in a process of that user: `motion-ad` starts itself again by setpriv(1), with the command
//! `as-application`, which nobody needs to know.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::User;
use serde::{Deserialize, Serialize};

use super::command::{self, Answer};
use super::facts::{Facts, Login, SERVICE};
use super::libpam::{self, Talk};
use super::stack::Value;
use crate::protocol::Secret;

/// One login: two calls of a module that waits for a minute at most, and what others of the service take.
const LOGIN: Duration = Duration::from_secs(125);
/// One question to the broker, from the start of the program on.
const REACH: Duration = Duration::from_secs(5);
/// The exit status of `motion-ad` that says that the broker could not be asked.
const UNREACHABLE: i32 = 3;

/// What PAM answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// To authenticate.
    pub authenticate: String,
    /// To acct_mgmt, where authenticate succeeded.
    pub account: Option<String>,
    /// What the person would have been shown.
    pub texts: Vec<String>,
}

/// Loads the module as libpam does and looks for its entry points, in this process.
///
/// # Errors
/// What the dynamic linker says, or which entry point is missing.
pub fn load_here(path: &Path) -> Result<(), String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    libpam::load(&path)
}

/// Logs `name` in at the application's service, in this process, as whoever runs it. The password is given out once,
/// whoever asks for it again.
///
/// # Errors
/// PAM could not be begun.
pub fn login_here(name: &str, password: &Secret) -> Result<Answers, String> {
    let service = CString::new(SERVICE).map_err(|e| e.to_string())?;
    let user = CString::new(name).map_err(|e| e.to_string())?;
    let mut talk = Talk::new(&user, password);
    let (authenticate, account) = libpam::login(&service, &user, &mut talk)?;
    let name = |code: i32| Value::of(code).map_or_else(|| code.to_string(), Value::name);
    Ok(Answers { authenticate: name(authenticate), account: account.map(name), texts: talk.into_texts() })
}

/// Loads the module as the application's user; says as whom.
pub(super) async fn load(facts: &Facts, path: &Path) -> Result<String, String> {
    let path = path.display().to_string();
    let arguments = ["as-application", "load", &path];
    let (answer, who) = match facts.application().await {
        Ok(user) if facts.is_root() => {
            (command::ask_as(&user, &ourselves()?, &arguments, &[], command::ASK).await, user.name)
        }
        _ => (command::ask(&ourselves()?, &arguments).await, "this user".to_owned()),
    };
    succeeded(answer).map(|_| who)
}

/// Asks the broker as `user`.
pub(super) async fn reaches(facts: &Facts, user: &User) -> Result<(), String> {
    let socket = facts.options().socket.display().to_string();
    let arguments = ["--socket", &socket, "--timeout", "4", "status", "--json"];
    let answer = command::ask_as(user, &ourselves()?, &arguments, &[], REACH).await;
    match answer {
        Ok(answer) if answer.status.code().is_some_and(|code| code < UNREACHABLE) => Ok(()),
        other => succeeded(other).map(drop),
    }
}

/// Logs somebody in as `user`.
pub(super) async fn login(user: &User, login: &Login) -> Result<Answers, String> {
    let arguments = ["as-application", "login", "--", login.name.as_str()];
    let answer = command::ask_as(user, &ourselves()?, &arguments, login.password.bytes(), LOGIN).await;
    serde_json::from_str(&succeeded(answer)?.out).map_err(|e| e.to_string())
}

fn ourselves() -> Result<String, String> {
    let path = std::env::current_exe().map_err(|e| e.to_string())?;
    path.into_os_string().into_string().map_err(|_| "the path of motion-ad is not UTF-8".to_owned())
}

fn succeeded(answer: io::Result<Answer>) -> Result<Answer, String> {
    match answer {
        Ok(answer) if answer.status.success() => Ok(answer),
        Ok(answer) if !answer.complaint().is_empty() => {
            Err(answer.complaint().strip_prefix("motion-ad: ").unwrap_or(answer.complaint()).to_owned())
        }
        Ok(answer) => Err(answer.status.to_string()),
        Err(e) => Err(e.to_string()),
    }
}
