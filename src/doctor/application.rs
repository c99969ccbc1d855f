//! Steps that run as the application's user: load the module, reach the broker, log a user in.
//!
//! Each step really happens, in a process of that user: `motion-ad` starts itself again with the
//! hidden command `as-application`.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::User;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::command::{self, Answer};
use super::facts::{Facts, Login, SERVICE};
use super::stack::Value;
use crate::client;
use crate::ldap;
use crate::libpam::{self, Talk};
use crate::protocol::{MAX_PASSWORD, Operation, Secret};

/// Time limit of one login: two calls of a module that waits up to a minute each, and other modules.
const LOGIN: Duration = Duration::from_secs(125);
/// Time limit of one query to the broker, from the start of the program.
const REACH: Duration = Duration::from_secs(5);
/// The same without the start of the program.
const STATUS: Duration = Duration::from_secs(4);

/// PAM's results for one login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Result of authenticate.
    pub authenticate: String,
    /// Result of acct_mgmt, which runs only if authenticate succeeded.
    pub account: Option<String>,
    /// Texts that the user would have seen.
    pub texts: Vec<String>,
}

/// An LDAP server's result of one bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// LDAP result code.
    pub code: u32,
    /// The server's text.
    pub text: String,
}

/// Loads the module as libpam does and resolves its entry points, in this process.
///
/// # Errors
/// Returns the dynamic linker's message, or the name of a missing entry point.
pub fn load_here(path: &Path) -> Result<(), String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    libpam::load(&path)
}

/// Queries the broker for its state, in this process.
///
/// # Errors
/// If the broker does not answer this user.
pub fn reach_here(socket: &Path) -> Result<(), String> {
    let request = client::request(Operation::Status, "", STATUS);
    match client::ask(socket, &request, &Secret::default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the broker at {}: {error}", socket.display())),
    }
}

/// Opens a file for reading, in this process.
///
/// # Errors
/// If this user may not read it.
pub fn read_here(path: &Path) -> Result<(), String> {
    // Opening a FIFO must not wait for its other end.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(drop).map_err(|error| error.to_string())
}

/// Logs `name` in at the application's service, in this process, as the user that runs it. The password
/// answers only the first prompt.
///
/// # Errors
/// If PAM cannot be started.
pub fn login_here(name: &str, password: &Secret) -> Result<Answers, String> {
    let service = CString::new(SERVICE).map_err(|e| e.to_string())?;
    let user = CString::new(name).map_err(|e| e.to_string())?;
    let talk = Talk::new(&user, &[password.bytes()]);
    let mut answer =
        libpam::login(&libpam::Application::new(&service), &user, talk).map_err(|e| e.to_string())?;
    let name = |code: i32| Value::of(code).map_or_else(|| code.to_string(), Value::name);
    Ok(Answers {
        authenticate: name(answer.authenticate),
        account: answer.account.map(name),
        texts: answer.handle.texts().into_iter().map(|shown| shown.text).collect(),
    })
}

/// Binds once at an LDAP server of this host, in this process, with the password on standard input. Waits as
/// long as the process lives.
///
/// # Errors
/// If there is no answer, or no valid password on standard input.
pub fn bind_here(address: SocketAddr, name: &str) -> Result<Bound, String> {
    // std's own handle would keep a copy of the password in its buffer.
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let mut bytes = Vec::with_capacity(MAX_PASSWORD + 1);
    let read = File::from(input).take(MAX_PASSWORD as u64).read_to_end(&mut bytes).map_err(|e| e.to_string());
    let secret = Secret::new(bytes);
    read?;
    let password = std::str::from_utf8(secret.bytes()).map_err(|e| e.to_string())?;
    let request = ldap::simple_bind(1, name, password).map_err(|e| e.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let answered = runtime.block_on(async {
        let mut stream = TcpStream::connect(address).await.map_err(|e| format!("{address}: {e}"))?;
        let exchanged = ldap::exchange(&mut stream, 1, request, ldap::BIND_RESPONSE).await;
        exchanged.map_err(|e| format!("{address}: {e}"))
    });
    answered.map(|response| Bound { code: response.code, text: response.text })
}

/// Binds at an LDAP server of this host as `user`.
///
/// # Errors
/// If there is no answer.
pub fn bind_as(user: &User, address: SocketAddr, name: &str, secret: &Secret) -> Result<Bound, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(bind(Some(user), address, name, secret, REACH))
}

async fn bind(
    user: Option<&User>,
    address: SocketAddr,
    name: &str,
    secret: &Secret,
    bound: Duration,
) -> Result<Bound, String> {
    let task = ["bind", "--", &address.to_string(), name];
    let answer = command::ask_ourselves(user, &task, secret.bytes(), bound).await;
    if answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return Err(format!("{address} does not answer"));
    }
    serde_json::from_str(&succeeded(answer)?.out).map_err(|e| e.to_string())
}

/// Loads the module as the application's user. Returns the name of that user.
pub(super) async fn load(facts: &Facts, path: &Path) -> Result<String, String> {
    let path = path.display().to_string();
    let user = facts.application().await.ok().filter(|_| facts.is_root());
    let answer = command::ask_ourselves(user.as_ref(), &["load", &path], &[], command::ASK).await;
    succeeded(answer).map(|_| user.map_or_else(|| "this user".to_owned(), |user| user.name))
}

/// Queries the broker as `user`.
pub(super) async fn reaches(facts: &Facts, user: &User) -> Result<(), String> {
    let socket = facts.options().socket.display().to_string();
    succeeded(command::ask_ourselves(Some(user), &["reach", &socket], &[], REACH).await).map(drop)
}

/// Opens a file for reading as `user`.
pub(super) async fn reads(user: &User, path: &str) -> Result<(), String> {
    succeeded(command::ask_ourselves(Some(user), &["read", path], &[], command::ASK).await).map(drop)
}

/// Runs one login as `user`.
pub(super) async fn login(user: &User, login: &Login) -> Result<Answers, String> {
    let task = ["login", "--", login.name.as_str()];
    let answer = command::ask_ourselves(Some(user), &task, login.password.bytes(), LOGIN).await;
    serde_json::from_str(&succeeded(answer)?.out).map_err(|e| e.to_string())
}

/// Runs one login through the LDAP bridge as `user`.
pub(super) async fn login_by_bridge(
    user: &User,
    login: &Login,
    address: SocketAddr,
) -> Result<Bound, String> {
    bind(Some(user), address, &login.name, &login.password, LOGIN).await
}

/// Binds without a password at the LDAP bridge, which refuses that before it queries the broker. As `user`,
/// or without one as this process's user.
pub(super) async fn bind_unproved(user: Option<&User>, address: SocketAddr) -> Result<Bound, String> {
    bind(user, address, "motion-ad-doctor", &Secret::default(), REACH).await
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
