//! The commands of `motion-ad`, for people and scripts.
//!
//! Every command is a question whose answer is its exit status ([`Exit`]); what it prints explains the answer.
//! What somebody typed or AD holds never reaches a terminal unescaped.

mod account;
mod cli;
mod doctor;
mod map;
mod password;
mod show;
mod status;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
pub use cli::{Account, Cli, Command, Doctor, Login, Map, Status};

use crate::client::{self, AskError};
use crate::config::ConfigError;
use crate::protocol::{Operation, PasswordError, Reply, Request, Secret};
use crate::verdict::Outcome;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Yes: all names are mapped, the account may log in, all is well.
    Yes = 0,
    /// No.
    No = 1,
    /// Usage or configuration is wrong, and so there is no answer. To `doctor` a failure is one.
    Usage = 2,
    /// AD or the broker could not be reached, and so there is no answer.
    Unreachable = 3,
    /// Ctrl-C at the password prompt, as a shell reports it (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<Option<Outcome>> for Exit {
    fn from(outcome: Option<Outcome>) -> Self {
        match outcome {
            Some(Outcome::Success) => Exit::Yes,
            Some(Outcome::Misconfigured) => Exit::Usage,
            Some(Outcome::Unavailable) | None => Exit::Unreachable,
            Some(_) => Exit::No,
        }
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}; root may read it: use `sudo`")]
    Denied(ConfigError),
    #[error("the broker at {} could not be asked: {error}; {}", .socket.display(), .error.advice())]
    Ask { socket: PathBuf, error: AskError },
    #[error("{0}; nothing was sent to AD")]
    Password(#[from] PasswordError),
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
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Ask { .. } => Exit::Unreachable,
            Failure::Interrupted => Exit::Interrupted,
            _ => Exit::Usage,
        }
    }
}

/// What a command prints, and how it ends.
#[derive(Debug)]
struct Page {
    text: String,
    exit: Exit,
}

/// Does what the arguments ask for.
pub fn run(cli: &Cli) -> Exit {
    let done = match &cli.command {
        Command::Map(args) => map::run(cli, args),
        Command::Check(args) => account::check(cli, args).and_then(print),
        Command::Login(args) => account::login(cli, args).and_then(print),
        Command::Status(args) => status::status(cli, args).and_then(print),
        Command::Doctor(args) => doctor::doctor(cli, args).and_then(print),
        Command::AsApplication(args) => doctor::as_application(args).and_then(print),
    };
    done.unwrap_or_else(|failure| {
        complain(&failure.to_string());
        match (&cli.command, failure.exit()) {
            (Command::Doctor(_), Exit::Usage) => DOCTOR_MISUSED,
            (_, exit) => exit,
        }
    })
}

/// `doctor` says by 2 that something has failed, and by this that it could not look.
const DOCTOR_MISUSED: Exit = Exit::Unreachable;

/// How a command line ends that was not understood.
pub fn misused() -> Exit {
    let read = Cli::command().ignore_errors(true).try_get_matches();
    match read.as_ref().is_ok_and(|read| read.subcommand_name() == Some("doctor")) {
        true => DOCTOR_MISUSED,
        false => Exit::Usage,
    }
}

/// A request of the command `service`.
fn request(cli: &Cli, service: &str, operation: Operation, user: &str) -> Request {
    Request { service: service.into(), ..client::request(operation, user, cli.timeout()) }
}

/// Asks the broker; `answer` takes what it replies, if that is an answer to the question.
fn ask<T>(
    cli: &Cli,
    request: &Request,
    secret: &Secret,
    answer: impl FnOnce(Reply) -> Option<T>,
) -> Result<T, Failure> {
    client::ask(&cli.socket, request, secret)
        .and_then(|reply| answer(reply).ok_or(AskError::Unexpected))
        .map_err(|error| Failure::Ask { socket: cli.socket.clone(), error })
}

fn print(page: Page) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(page.text.as_bytes()).and_then(|()| out.flush()) {
        // A reader like `head` has seen enough; the answer is the same.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(page.exit),
    }
}

fn complain(text: &str) {
    // Nobody is left to be told when not even this can be written.
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
                Outcome::Misconfigured => Exit::Usage,
                Outcome::Unavailable => Exit::Unreachable,
                _ => Exit::No,
            };
            assert_eq!(Exit::from(Some(outcome)), expected, "{outcome}");
        }
        assert_eq!(Exit::from(None), Exit::Unreachable);
    }
}
