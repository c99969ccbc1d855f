//! The commands of `motion-ad`, for administrators and scripts.
//!
//! Every command is a question, and its exit status is the answer ([`Exit`]); the output explains the answer.
//! Text that a user typed or that AD holds never reaches a terminal unescaped.

mod account;
mod audit;
mod bundle;
mod cli;
mod configuration;
mod doctor;
pub(crate) mod log;
mod map;
mod metrics;
mod passwd;
mod password;
mod sessions;
mod setup;
mod show;
mod status;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use cli::{
    Account, Audit, Cli, Command, Complete, ConfigCommand, ConfigShow, Doctor, Log, Login, Map, Metrics,
    Passwd, Sessions, SessionsEnd, SessionsKick, SessionsList, SessionsShow, SessionsWatch, Setup, Status,
};

use crate::client::{self, AskError};
use crate::config::{CONFIG, ConfigError};
use crate::protocol::{Operation, PasswordError, Reply, Request, Secret};
use crate::verdict::{Conclusion, Outcome, Verdict};

/// Exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Yes: all names are mapped, the account may log in, all is well.
    Yes = 0,
    /// No. For `doctor`: only warnings.
    No = 1,
    /// There is no answer: the configuration is invalid, AD or the broker does not answer, or the answer was
    /// lost. For `doctor`: a check has failed.
    Failed = 2,
    /// The command was not attempted: its usage or input is wrong, or the user lacks permission.
    Usage = 3,
    /// Ctrl-C at the password prompt, in the numbering of a shell (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<Option<Outcome>> for Exit {
    fn from(outcome: Option<Outcome>) -> Self {
        match outcome.map(Outcome::conclusion) {
            Some(Conclusion::Yes) => Exit::Yes,
            Some(Conclusion::Renew | Conclusion::No) => Exit::No,
            Some(Conclusion::Undecided | Conclusion::Unknown) | None => Exit::Failed,
        }
    }
}

/// Reason why a command has no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}; root may read it: use `sudo`")]
    Denied(ConfigError),
    #[error(
        "you may not query the broker: {0}; use `sudo`, or have root add the user to broker.users in {CONFIG}"
    )]
    Stranger(String),
    #[error("{0}")]
    Kept(String),
    #[error("{0}")]
    NotDone(String),
    #[error("the broker at {} could not be queried: {error}; {}", .socket.display(), .error.advice())]
    Ask { socket: PathBuf, error: AskError },
    #[error(
        "the broker's metrics at {} cannot be read: {error}; root and members of the group motion-ad-metrics \
         may read them; see `systemctl status motion-ad-metrics.socket motion-ad.service`", .socket.display()
    )]
    Metrics { socket: PathBuf, error: io::Error },
    #[error("{outcome}: {reason}")]
    Answered { outcome: Outcome, reason: String },
    #[error("{0}; nothing was sent to AD")]
    Password(#[from] PasswordError),
    #[error("the two new passwords differ; nothing was sent to AD")]
    Mismatch,
    #[error("there is no terminal to ask for the password on ({0}); scripts use --password-stdin")]
    Prompt(io::Error),
    #[error("{0}")]
    Application(String),
    #[error("interrupted")]
    Interrupted,
    #[error("standard input: {0}")]
    Input(io::Error),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    #[error("the answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{} has changed since it was read, and nothing is written; try again", .0.display())]
    Changed(PathBuf),
    #[error("{} cannot be written: {error}", .file.display())]
    Write { file: PathBuf, error: io::Error },
    #[error("DNS cannot be queried: {0}")]
    Dns(io::Error),
    #[error("{0}")]
    List(String),
    #[error("{0}")]
    SessionId(String),
    #[error("{0}: omit --after, and compare once with `motion-ad sessions list`")]
    Cursor(String),
    #[error("CSV cannot be written: {0}")]
    Csv(#[from] csv::Error),
    #[error("only root and members of the groups adm and systemd-journal may read the journal: use `sudo`")]
    NoJournalAccess,
    #[error("{0}; a time is like 2 h, yesterday 9:00, 09:00 or 2026-11-28 09:00")]
    Time(String),
    #[error("{0}")]
    Journal(String),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            // The command was no login; an outcome that rejects a login may leave its question unanswered.
            Failure::Answered { outcome: Outcome::SessionStore, .. } => Exit::Failed,
            Failure::Answered { outcome, .. } => Some(*outcome).into(),
            Failure::Interrupted => Exit::Interrupted,
            Failure::Metrics { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Exit::Usage,
            Failure::Denied(_)
            | Failure::Stranger(_)
            | Failure::NotDone(_)
            | Failure::Password(_)
            | Failure::Mismatch
            | Failure::Prompt(_)
            | Failure::Input(_)
            | Failure::SessionId(_)
            | Failure::Cursor(_)
            | Failure::List(_)
            | Failure::NoJournalAccess
            | Failure::Time(_) => Exit::Usage,
            Failure::Config(_)
            | Failure::Kept(_)
            | Failure::Ask { .. }
            | Failure::Metrics { .. }
            | Failure::Application(_)
            | Failure::Output(_)
            | Failure::Json(_)
            | Failure::Changed(_)
            | Failure::Write { .. }
            | Failure::Dns(_)
            | Failure::Csv(_)
            | Failure::Journal(_) => Exit::Failed,
        }
    }
}

/// Output and exit status of a command.
#[derive(Debug)]
struct Page {
    text: String,
    exit: Exit,
}

/// Runs the command of the arguments.
pub fn run(cli: &Cli) -> Exit {
    let done = match &cli.command {
        Command::Map(args) => map::run(cli, args),
        Command::Check(args) => account::check(cli, args).and_then(print),
        Command::Login(args) => account::login(cli, args).and_then(print),
        Command::Passwd(args) => passwd::passwd(cli, args).and_then(print),
        Command::Status(args) => status::status(cli, args).and_then(print),
        Command::Ready => status::ready(cli).and_then(print),
        Command::Version => print(version()),
        Command::Log(args) => log::log(cli, args),
        Command::Metrics(args) => metrics::metrics(cli, args).and_then(print),
        Command::Sessions(Sessions::List(args)) => sessions::list(cli, args).and_then(print),
        Command::Sessions(Sessions::Show(args)) => sessions::show(cli, args).and_then(print),
        Command::Sessions(Sessions::End(args)) => sessions::end(cli, args).and_then(print),
        Command::Sessions(Sessions::Kick(args)) => sessions::kick(cli, args).and_then(print),
        Command::Sessions(Sessions::Watch(args)) => sessions::watch(cli, args),
        Command::Audit(args) => audit::audit(cli, args).and_then(print),
        Command::Config(ConfigCommand::Check) => configuration::check(cli).and_then(print),
        Command::Config(ConfigCommand::Show(args)) => configuration::show(cli, args),
        Command::Setup(args) => setup::setup(cli, args).and_then(print),
        Command::Doctor(args) => doctor::doctor(cli, args).and_then(print),
        Command::Complete(args) => print(sessions::complete(cli, args)),
        Command::AsApplication(args) => doctor::as_application(args).and_then(print),
    };
    done.unwrap_or_else(|failure| {
        complain(&failure.to_string());
        failure.exit()
    })
}

/// Builds a request of the command `service`.
fn request(cli: &Cli, service: &str, operation: Operation, user: &str) -> Request {
    Request { service: service.into(), ..client::request(operation, user, cli.timeout()) }
}

/// Sends a request to the broker. `answer` extracts the reply, or returns `None` if that is of a wrong kind.
fn ask<T>(
    cli: &Cli,
    request: &Request,
    secret: &Secret,
    answer: impl FnOnce(Reply) -> Option<T>,
) -> Result<T, Failure> {
    client::ask(&cli.socket, request, secret)
        .and_then(|reply| answer(reply).ok_or(AskError::Unexpected))
        .map_err(|error| unanswered(cli, error))
}

/// Returns the failure of a request without a reply.
fn unanswered(cli: &Cli, error: AskError) -> Failure {
    match error {
        // The broker's advice addresses the administrator that reads its log, and is cut off here.
        AskError::Refused(reason) if reason.contains("neither root nor in broker.users") => {
            let stranger = reason.split("; if it is the application").next().unwrap_or_default();
            Failure::Stranger(stranger.to_owned())
        }
        error => Failure::Ask { socket: cli.socket.clone(), error },
    }
}

/// Sends a request that the broker answers with a verdict.
fn ask_verdict(cli: &Cli, request: &Request, secret: &Secret) -> Result<Verdict, Failure> {
    ask(cli, request, secret, |reply| if let Reply::Verdict(verdict) = reply { Some(verdict) } else { None })
}

fn print(page: Page) -> Result<Exit, Failure> {
    let text = match show::is_terminal() {
        true => show::for_terminal(&page.text, show::columns().into(), show::has_colour()),
        false => page.text,
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader like `head` may close the pipe early; the answer stays the same.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(page.exit),
    }
}

/// Returns true if permissions keep this user from reading the file.
fn is_denied(file: &Path) -> bool {
    File::open(file).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

fn version() -> Page {
    Page { text: concat!("motion-ad ", env!("CARGO_PKG_VERSION"), "\n").to_owned(), exit: Exit::Yes }
}

fn complain(text: &str) {
    // If this fails, there is no way to report it.
    let _ = writeln!(io::stderr(), "motion-ad: {}", show::escape(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_yes_and_only_an_unanswered_question_is_neither_yes_nor_no() {
        for &outcome in Outcome::ALL {
            let expected = match outcome {
                Outcome::Success => Exit::Yes,
                Outcome::Misconfigured | Outcome::Unavailable | Outcome::ChangeUnknown => Exit::Failed,
                _ => Exit::No,
            };
            assert_eq!(Exit::from(Some(outcome)), expected, "{outcome}");
        }
        assert_eq!(Exit::from(None), Exit::Failed);
    }
}
