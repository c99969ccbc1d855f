//! The arguments on the module's line in `/etc/pam.d`.
//!
//! | Argument | Default | Meaning |
//! |---|---|---|
//! | `socket=PATH` | `/run/motion-ad/broker.sock` | where the broker listens; absolute |
//! | `timeout=SECONDS` | 5 | how long one call may wait for the broker, 1 to 60 |
//! | `expired=auth` | yes | an expired password is refused by authenticate |
//! | `expired=account` | no | it is refused by acct_mgmt, which the application must then call |
//! | `messages` | no | tell the person why the account was refused |
//! | `use_first_pass` | no | never ask: use the password that an earlier module asked for, or refuse |
//! | `try_first_pass` | yes | use an earlier module's password, ask when there is none |
//! | `debug` | no | log one line per call |
//!
//! A password that was typed once is never asked for again: as in pam_unix, `pam_get_authtok(3)` decides, so
//! `try_first_pass` is what happens anyway. A first password that AD refuses is not followed by a prompt
//! for a second, because each attempt counts towards AD's lockout.
//!
//! An unknown argument is logged as an error and ignored, as the module writers' guide has it. A known argument
//! with a broken value is logged, and every decision is refused with PAM_SERVICE_ERR: what the administrator
//! asked for is unknown, and the default may be the opposite.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::SocketAddrUnix;

use crate::protocol::SOCKET;

/// Who refuses an expired password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// `pam_sm_authenticate`: also right for applications that call nothing else.
    Auth,
    /// `pam_sm_acct_mgmt`, as pam_unix does, for applications that offer a password change.
    Account,
}

/// What the administrator wrote, or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `socket=`
    pub socket: PathBuf,
    /// `timeout=`
    pub timeout: Duration,
    /// `expired=`
    pub expired: Expired,
    /// `messages`
    pub messages: bool,
    /// `debug`
    pub debug: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments {
            socket: PathBuf::from(SOCKET),
            timeout: Duration::from_secs(5),
            expired: Expired::Auth,
            messages: false,
            debug: false,
        }
    }
}

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// No such argument; it is ignored.
    #[error("unknown argument {0:?} ignored")]
    Unknown(String),
    /// A known argument whose value makes no sense; nobody is let in.
    #[error("argument {argument:?} refused, and every login with it: {expected}")]
    Malformed {
        /// The argument as written.
        argument: String,
        /// What it should have been.
        expected: &'static str,
    },
}

impl ArgumentError {
    /// Whether nothing may be decided while this stands.
    pub fn is_fatal(&self) -> bool {
        matches!(self, ArgumentError::Malformed { .. })
    }
}

impl Arguments {
    /// Reads the arguments. Of an argument given twice the last one counts.
    pub fn parse(args: &[&CStr]) -> (Self, Vec<ArgumentError>) {
        let mut arguments = Arguments::default();
        let errors = args.iter().filter_map(|arg| arguments.take(arg.to_bytes()).err()).collect();
        (arguments, errors)
    }

    fn take(&mut self, argument: &[u8]) -> Result<(), ArgumentError> {
        let (name, value) = match argument.iter().position(|byte| *byte == b'=') {
            Some(at) => (&argument[..at], Some(&argument[at + 1..])),
            None => (argument, None),
        };
        let text = || String::from_utf8_lossy(argument).into_owned();
        let malformed = |expected| ArgumentError::Malformed { argument: text(), expected };
        match (name, value) {
            (b"socket", value) => {
                self.socket = value.and_then(socket).ok_or(malformed("socket= takes an absolute path"))?;
            }
            (b"timeout", value) => {
                self.timeout = value.and_then(seconds).ok_or(malformed("timeout= takes 1 to 60 seconds"))?;
            }
            (b"expired", Some(b"auth")) => self.expired = Expired::Auth,
            (b"expired", Some(b"account")) => self.expired = Expired::Account,
            (b"expired", _) => return Err(malformed("expired= takes auth or account")),
            (b"messages", None) => self.messages = true,
            (b"debug", None) => self.debug = true,
            // libpam reads these two itself, in pam_get_authtok.
            (b"use_first_pass" | b"try_first_pass", None) => {}
            (b"messages" | b"debug" | b"use_first_pass" | b"try_first_pass", Some(_)) => {
                return Err(malformed("it takes no value"));
            }
            _ => return Err(ArgumentError::Unknown(text())),
        }
        Ok(())
    }
}

/// An absolute path that fits into a socket address.
fn socket(value: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(value));
    (path.is_absolute() && SocketAddrUnix::new(path).is_ok()).then(|| path.to_owned())
}

fn seconds(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let seconds = digits.parse().ok().filter(|seconds| (1..=60).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(Arguments::parse(&[]), (Arguments::default(), Vec::new()));
    }

    #[test]
    fn every_argument_is_understood() {
        let (arguments, errors) = Arguments::parse(&[
            c"socket=/run/other.sock",
            c"timeout=60",
            c"expired=account",
            c"messages",
            c"use_first_pass",
            c"try_first_pass",
            c"debug",
        ]);
        assert_eq!(errors, []);
        let expected = Arguments {
            socket: "/run/other.sock".into(),
            timeout: Duration::from_secs(60),
            expired: Expired::Account,
            messages: true,
            debug: true,
        };
        assert_eq!(arguments, expected);
    }

    #[test]
    fn of_two_the_last_counts() {
        let (arguments, errors) =
            Arguments::parse(&[c"expired=account", c"timeout=9", c"expired=auth", c"timeout=1"]);
        assert_eq!(errors, []);
        assert_eq!((arguments.expired, arguments.timeout), (Expired::Auth, Duration::from_secs(1)));
    }

    #[test]
    fn broken_values_of_known_arguments_are_fatal() {
        let long = std::ffi::CString::new(format!("socket=/{}", "x".repeat(200))).unwrap();
        let cases = [
            c"socket",
            c"socket=",
            c"socket=run/broker.sock",
            &long,
            c"timeout",
            c"timeout=",
            c"timeout=0",
            c"timeout=61",
            c"timeout=+5",
            c"timeout=5s",
            c"timeout=0.5",
            c"timeout=-1",
            c"timeout=99999999999999999999",
            c"expired",
            c"expired=",
            c"expired=never",
            c"expired=Account",
            c"messages=no",
            c"debug=",
            c"use_first_pass=0",
            c"try_first_pass=1",
        ];
        for case in cases {
            let (_, errors) = Arguments::parse(&[case]);
            assert!(matches!(errors.as_slice(), [error] if error.is_fatal()), "{case:?}: {errors:?}");
        }
    }

    #[test]
    fn unknown_arguments_are_reported_and_harmless() {
        for case in [c"", c"=", c"nullok", c"Socket=/x", c"timeouts=5", c"\xff\n"] {
            let (arguments, errors) = Arguments::parse(&[case]);
            assert!(matches!(errors.as_slice(), [error] if !error.is_fatal()), "{case:?}: {errors:?}");
            assert_eq!(arguments, Arguments::default());
            assert!(!errors[0].to_string().contains('\n'));
        }
    }
}
