//! The arguments on the module's line in `/etc/pam.d`.
//!
//! [`ARGUMENTS`] is their table: the parser reads it, and the man page is generated from it.
//!
//! The module never asks again for a password that the user has typed. As in pam_unix, `pam_get_authtok(3)`
//! decides, so `try_first_pass` is the default. If AD rejects the first password, the module does not ask for
//! a second, because each attempt counts towards AD's lockout.
//!
//! An unknown argument is logged as an error and ignored, as the module writers' guide requires. A known
//! argument with a malformed value is logged, and every decision is PAM_SERVICE_ERR: the administrator's
//! intention is unknown, and the default may be the opposite.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::SocketAddrUnix;

use crate::protocol::{DEADLINE, SOCKET};
use crate::texts::Language;

/// The entry point that rejects an expired password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// `pam_sm_authenticate`, which also suits applications that call no other entry point.
    Auth,
    /// `pam_sm_acct_mgmt`, as pam_unix does, for applications that offer a password change.
    Account,
}

/// The entry point that registers a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// `pam_sm_open_session`, as PAM intends.
    Pam,
    /// `pam_sm_authenticate`, for applications that open no sessions.
    Auth,
}

/// The arguments of the administrator, or their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `socket=`
    pub socket: PathBuf,
    /// `timeout=`
    pub timeout: Duration,
    /// `expired=`
    pub expired: Expired,
    /// `session=`
    pub session: Register,
    /// `messages`
    pub messages: bool,
    /// `lang=`
    pub language: Language,
    /// `outcome`
    pub outcome: bool,
    /// `observe`
    pub observe: bool,
    /// `debug`
    pub debug: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments {
            socket: PathBuf::from(SOCKET),
            timeout: DEADLINE,
            expired: Expired::Auth,
            session: Register::Pam,
            messages: false,
            language: Language::default(),
            outcome: false,
            observe: false,
            debug: false,
        }
    }
}

/// Problem with an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The argument is unknown and ignored.
    #[error("unknown argument {0:?} ignored")]
    Unknown(String),
    /// The value of a known argument is malformed, and every login is rejected.
    #[error("argument {argument:?} refused, and every login with it: {expected}")]
    Malformed {
        /// The argument as written.
        argument: String,
        /// The expected form.
        expected: &'static str,
    },
}

impl ArgumentError {
    /// Returns true if the module may decide nothing with this argument.
    pub fn is_fatal(&self) -> bool {
        matches!(self, ArgumentError::Malformed { .. })
    }
}

/// An argument: its parser and its documentation.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// The value after its `=`, for the documentation; empty if it takes none.
    pub value: &'static str,
    /// The behaviour without it.
    pub default: &'static str,
    /// The entry points whose behaviour it changes.
    pub entry_points: &'static str,
    /// Its effect, for the documentation.
    pub text: &'static str,
    /// The first version that has it.
    pub since: &'static str,
    /// Its cost: time, a call, a line in the log.
    pub cost: &'static str,
    read: Read,
}

/// The parser of an argument.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// The argument has no value.
    Flag(fn(&mut Arguments)),
    /// The argument has a value, for which the function returns `None` if it is malformed; the text is the
    /// expected form.
    Value(fn(&mut Arguments, &[u8]) -> Option<()>, &'static str),
}

/// Every argument.
pub const ARGUMENTS: &[Argument] = &[
    Argument {
        name: "socket",
        value: "PATH",
        default: SOCKET,
        entry_points: "all but setcred",
        text: "Socket of the broker: an absolute path.",
        since: "0.1.0",
        cost: "none",
        read: Read::Value(
            |arguments, value| socket(value).map(|socket| arguments.socket = socket),
            "socket= takes an absolute path",
        ),
    },
    Argument {
        name: "timeout",
        value: "SECONDS",
        default: "5",
        entry_points: "all but setcred",
        text: "How long one call may wait for the broker, 1 to 60. The application waits as long. The \
               broker's own deadline is 0.2 seconds earlier, so that its \"AD did not answer\" still \
               arrives.",
        since: "0.1.0",
        cost: "a thread of the application is busy for at most this time",
        read: Read::Value(
            |arguments, value| seconds(value).map(|seconds| arguments.timeout = seconds),
            "timeout= takes 1 to 60 seconds",
        ),
    },
    Argument {
        name: "expired",
        value: "auth|account",
        default: "auth",
        entry_points: "authenticate",
        text: "Which function rejects an expired password, or one that must be changed. With `auth` it is \
               authenticate: right for every application. With `account` authenticate succeeds, given the \
               right password, and acct_mgmt answers PAM_NEW_AUTHTOK_REQD: for applications that offer a \
               password change, never for one that calls authenticate only.",
        since: "0.1.0",
        cost: "none",
        read: Read::Value(
            |arguments, value| expired(value).map(|expired| arguments.expired = expired),
            "expired= takes auth or account",
        ),
    },
    Argument {
        name: "session",
        value: "pam|auth",
        default: "pam",
        entry_points: "authenticate, open_session, close_session",
        text: "What registers a session. With `pam` it is open_session. With `auth` it is a successful \
               authenticate, and open_session registers no second one: for applications that open no \
               sessions. Write it on the auth line and on the session line.",
        since: "0.1.0",
        cost: "with `auth` one write to the register at each login, which is denied where that fails",
        read: Read::Value(
            |arguments, value| register(value).map(|session| arguments.session = session),
            "session= takes pam or auth",
        ),
    },
    Argument {
        name: "messages",
        value: "",
        default: "no message",
        entry_points: "authenticate, acct_mgmt, open_session, close_session",
        text: "Tell the user why the account was rejected, as a PAM_ERROR_MSG, and when the password \
               expires soon, as a PAM_TEXT_INFO and for the application in seconds in the variable \
               MOTION_AD_EXPIRES_IN, unless the application asks for silence (PAM_SILENT). Some applications \
               fail the login on any message. chauthtok gives the reason anyway.",
        since: "0.1.0",
        cost: "one more call of the conversation; with `login.warn_days` one more query to AD, in addition \
               to the login's own",
        read: Read::Flag(|arguments| arguments.messages = true),
    },
    Argument {
        name: "lang",
        value: "en|it|de|es|fr|pt",
        default: "en",
        entry_points: "authenticate, acct_mgmt, chauthtok, open_session, close_session",
        text: "The language of the texts for users: English, Italian, German, Spanish, French or Portuguese \
               (of Brazil). It changes neither who sees a text nor what the text reveals, and no line of the \
               log. The prompts for passwords are libpam's and follow the locale of the application.",
        since: "0.2.0",
        cost: "none",
        read: Read::Value(
            |arguments, value| language(value).map(|language| arguments.language = language),
            "lang= takes en, it, de, es, fr or pt",
        ),
    },
    Argument {
        name: "outcome",
        value: "",
        default: "no variable",
        entry_points: "authenticate, acct_mgmt, chauthtok",
        text: "Put the name of the outcome into the environment of the PAM handle, as MOTION_AD_OUTCOME: the \
               names are those of the table of outcomes. The application reads it with pam_getenv(3) after \
               the call, and learns more than the PAM code says: which of several reasons refused an \
               account. Where the module refuses a name or a password without asking the broker, the \
               variable is not set. It is for the application alone: do not show it to a user whose password \
               was wrong.",
        since: "0.1.0",
        cost: "none",
        read: Read::Flag(|arguments| arguments.outcome = true),
    },
    Argument {
        name: "observe",
        value: "",
        default: "the answer decides",
        entry_points: "authenticate, acct_mgmt",
        text: "Only observe, for the time before motion-ad decides: write it with the control \
               `[default=ignore]` before the lines that decide today. The login is checked and logged as \
               usual, with `mode=observe`, and the control ignores the code. The code never gives access: \
               where the login would succeed, it is PAM_PERM_DENIED. No session is registered, no text is \
               shown, no variable is set, and the password stays for the next module. A password or session \
               line with the argument rejects every call.",
        since: "0.2.0",
        cost: "the time of a check, at most `timeout=`; a wrong password counts in AD, and twice if the line \
               that decides queries AD, too",
        read: Read::Flag(|arguments| arguments.observe = true),
    },
    Argument {
        name: "use_first_pass",
        value: "",
        default: "ask where there is no password",
        entry_points: "authenticate, chauthtok",
        text: "Never ask: use the passwords that an earlier module asked for. If there is none, authenticate \
               refuses with PAM_AUTH_ERR, chauthtok with PAM_AUTHTOK_RECOVERY_ERR or PAM_AUTHTOK_ERR.",
        since: "0.1.0",
        cost: "none",
        // libpam itself reads this argument and the next three, in pam_get_authtok.
        read: Read::Flag(|_| {}),
    },
    Argument {
        name: "try_first_pass",
        value: "",
        default: "what happens anyway",
        entry_points: "authenticate, chauthtok",
        text: "Use an earlier module's password, and ask where there is none. A first password that AD \
               refuses is not followed by a prompt for a second, because each attempt counts towards AD's \
               lockout.",
        since: "0.1.0",
        cost: "none",
        read: Read::Flag(|_| {}),
    },
    Argument {
        name: "use_authtok",
        value: "",
        default: "ask where there is none",
        entry_points: "chauthtok",
        text: "Never ask for the new password: use the one that an earlier password line asked for, or \
               refuse with PAM_AUTHTOK_ERR.",
        since: "0.1.0",
        cost: "none",
        read: Read::Flag(|_| {}),
    },
    Argument {
        name: "authtok_type",
        value: "WORD",
        default: "no word",
        entry_points: "chauthtok",
        text: "A word for the prompts: \"New WORD password: \".",
        since: "0.1.0",
        cost: "none",
        read: Read::Value(|_, _| Some(()), "authtok_type= takes a word"),
    },
    Argument {
        name: "debug",
        value: "",
        default: "errors only",
        entry_points: "all",
        text: "One line per call in the log (AUTHPRIV): the code that was answered, and why.",
        since: "0.1.0",
        cost: "a line in the log for each call",
        read: Read::Flag(|arguments| arguments.debug = true),
    },
];

impl Arguments {
    /// Parses the arguments. If an argument is given twice, the last one counts.
    pub fn parse(args: &[&CStr]) -> (Self, Vec<ArgumentError>) {
        let mut arguments = Arguments::default();
        let errors = args.iter().filter_map(|arg| arguments.take(arg.to_bytes()).err()).collect();
        (arguments, errors)
    }

    fn take(&mut self, argument: &[u8]) -> Result<(), ArgumentError> {
        let mut parts = argument.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        let text = || String::from_utf8_lossy(argument).into_owned();
        let malformed = |expected| ArgumentError::Malformed { argument: text(), expected };
        let known = ARGUMENTS.iter().find(|known| known.name.as_bytes() == name);
        match (known.map(|known| known.read), value) {
            (Some(Read::Value(read, expected)), value) => {
                value.and_then(|value| read(self, value)).ok_or_else(|| malformed(expected))
            }
            (Some(Read::Flag(set)), None) => {
                set(self);
                Ok(())
            }
            (Some(Read::Flag(_)), Some(_)) => Err(malformed("it takes no value")),
            (None, _) => Err(ArgumentError::Unknown(text())),
        }
    }
}

fn expired(value: &[u8]) -> Option<Expired> {
    match value {
        b"auth" => Some(Expired::Auth),
        b"account" => Some(Expired::Account),
        _ => None,
    }
}

fn register(value: &[u8]) -> Option<Register> {
    match value {
        b"pam" => Some(Register::Pam),
        b"auth" => Some(Register::Auth),
        _ => None,
    }
}

fn language(value: &[u8]) -> Option<Language> {
    Language::of(std::str::from_utf8(value).ok()?)
}

/// Parses an absolute path that fits into a socket address.
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
    use std::ffi::CString;

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
            c"session=auth",
            c"messages",
            c"lang=it",
            c"outcome",
            c"observe",
            c"use_first_pass",
            c"try_first_pass",
            c"use_authtok",
            c"authtok_type=AD",
            c"debug",
        ]);
        assert_eq!(errors, []);
        let expected = Arguments {
            socket: "/run/other.sock".into(),
            timeout: Duration::from_secs(60),
            expired: Expired::Account,
            session: Register::Auth,
            messages: true,
            language: Language::Italian,
            outcome: true,
            observe: true,
            debug: true,
        };
        assert_eq!(arguments, expected);
    }

    #[test]
    fn the_defaults_are_those_that_people_are_told() {
        for argument in ARGUMENTS.iter().filter(|argument| !argument.value.is_empty()) {
            let written = CString::new(format!("{}={}", argument.name, argument.default)).unwrap();
            assert_eq!(Arguments::parse(&[&written]), (Arguments::default(), Vec::new()));
        }
    }

    #[test]
    fn every_language_can_be_chosen() {
        let codes: Vec<_> = Language::ALL.iter().map(|language| language.code()).collect();
        let argument = ARGUMENTS.iter().find(|argument| argument.name == "lang");
        assert_eq!(argument.map(|argument| argument.value), Some(codes.join("|").as_str()));
        for language in Language::ALL {
            let written = CString::new(format!("lang={}", language.code())).unwrap();
            let expected = Arguments { language: *language, ..Arguments::default() };
            assert_eq!(Arguments::parse(&[&written]), (expected, Vec::new()));
        }
    }

    #[test]
    fn the_shipped_service_names_every_argument() {
        let service = include_str!("../../pam.d/motion");
        for Argument { name, .. } in ARGUMENTS {
            let written = |line: &str| line.strip_prefix("#   ").is_some_and(|rest| rest.starts_with(name));
            assert!(service.lines().any(written), "{name}");
        }
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
        let long = CString::new(format!("socket=/{}", "x".repeat(200))).unwrap();
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
            c"lang",
            c"lang=",
            c"lang=IT",
            c"lang=nl",
            c"expired",
            c"expired=",
            c"expired=never",
            c"expired=Account",
            c"session",
            c"session=",
            c"session=open",
            c"session=Auth",
            c"messages=no",
            c"outcome=1",
            c"debug=",
            c"use_first_pass=0",
            c"try_first_pass=1",
            c"use_authtok=1",
            c"authtok_type",
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
