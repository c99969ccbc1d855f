//! The PAM side: ask the application, ask the broker, answer PAM.
//!
//! | File | Subject |
//! |---|---|
//! | [`hooks`] | the six entry points, exported from the shared object |
//! | this file | what each entry point does |
//! | [`arguments`] | the arguments on the module's line |
//! | [`handle`] | the PAM handle as the module sees it; tests script it |
//! | [`memory`] | what is kept on the handle between authenticate and acct_mgmt |
//! | [`code`] | outcome to PAM code |
//! | `ffi` | what `pam-bindings` lacks, and all the unsafe code |
//!
//! The module lives in other people's processes: it starts no threads, writes to no stream, reads no
//! environment, touches no signals, and keeps nothing but a verdict on the handle.

pub mod arguments;
pub mod code;
mod ffi;
pub mod handle;
pub mod hooks;
pub mod memory;
#[cfg(test)]
mod script;

use std::ffi::CStr;
use std::path::Path;

use pam::constants::{PAM_SILENT, PamFlag};

use crate::client::{self, AskError};
use crate::protocol::{MAX_USER, Operation, Request, Secret};
use crate::verdict::{Outcome, Verdict};
use arguments::Arguments;
use code::Code;
use handle::{Handle, Priority};
use memory::Memory;

/// What the person is asked. FreeRADIUS and OpenVPN look for it.
const PROMPT: &CStr = c"Password: ";

/// The flag of the first of libpam's two calls for a password change, which changes nothing.
const PAM_PRELIM_CHECK: PamFlag = 0x4000;

/// What an entry point found out: the code for the application, and why, for the log.
struct Answer {
    code: Code,
    text: Option<&'static str>,
    why: String,
}

impl Answer {
    fn new(code: Code, why: impl Into<String>) -> Self {
        Answer { code, text: None, why: why.into() }
    }

    fn outcome(code: Code, outcome: Outcome, why: String) -> Self {
        // Somebody who is let in for now is told when acct_mgmt refuses.
        let text = outcome.text().filter(|_| code != Code::Success);
        Answer { code, text, why }
    }
}

/// `pam_sm_authenticate`: whether this password lets this person in.
pub fn authenticate<H: Handle>(
    pam: &mut H,
    ask: impl FnOnce(&Path, &Request, &Secret) -> Result<Verdict, AskError>,
    args: &[&CStr],
    flags: PamFlag,
) -> Code {
    decide(pam, "authenticate", args, flags, |pam, arguments| {
        // Whatever happens now, an earlier verdict no longer counts.
        pam.remember(None);
        let user = user(pam)?;
        let password = pam.password(PROMPT).map_err(|code| Answer::new(code, "no password"))?;
        password.password().map_err(|error| Answer::new(Code::AuthErr, error.to_string()))?;
        let verdict = question(pam, ask, arguments, Operation::Authenticate, &user, &password)?;
        let outcome = verdict.outcome;
        pam.remember(Some(Memory { user, socket: arguments.socket.clone(), outcome, at: pam.now() }));
        Ok(Answer::outcome(code::authenticate(outcome, arguments.expired), outcome, described(&verdict)))
    })
}

/// `pam_sm_acct_mgmt`: whether this person, who proved the identity before, may come in.
pub fn acct_mgmt<H: Handle>(
    pam: &mut H,
    ask: impl FnOnce(&Path, &Request, &Secret) -> Result<Verdict, AskError>,
    args: &[&CStr],
    flags: PamFlag,
) -> Code {
    decide(pam, "acct_mgmt", args, flags, |pam, arguments| {
        let user = user(pam)?;
        let remembered = pam.recall().and_then(|memory| memory.answers(&user, &arguments.socket, pam.now()));
        let (outcome, why) = match remembered {
            Some(outcome) => (outcome, format!("{outcome}, as authenticate was told")),
            None => {
                let verdict = question(pam, ask, arguments, Operation::Account, &user, &Secret::default())?;
                (verdict.outcome, described(&verdict))
            }
        };
        Ok(Answer::outcome(code::account(outcome), outcome, why))
    })
}

/// `pam_sm_chauthtok`: refuses, before anything is asked, because this module changes no passwords.
///
/// PAM_TRY_AGAIN in the first phase ends the whole stack before any other module changes something.
pub fn chauthtok<H: Handle>(pam: &mut H, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, "chauthtok", args, flags, |pam, _| {
        let code = if flags & PAM_PRELIM_CHECK != 0 { Code::TryAgain } else { Code::AuthtokErr };
        // Another module of the stack may change the password nevertheless.
        pam.remember(None);
        pam.log(Priority::Error, "passwords cannot be changed here: nothing was changed; change it in AD");
        Ok(Answer::new(code, "not supported"))
    })
}

/// `pam_sm_setcred`: there are no credentials to set, and a failure would fail the login.
pub fn setcred<H: Handle>(pam: &mut H, args: &[&CStr]) -> Code {
    // The arguments are those of the auth line: authenticate has complained about them already.
    if Arguments::parse(args).0.debug {
        pam.log(Priority::Debug, "setcred: PAM_SUCCESS");
    }
    Code::Success
}

/// `pam_sm_open_session` and `pam_sm_close_session`: nothing to do, so nothing can fail.
pub fn session<H: Handle>(pam: &mut H, args: &[&CStr], entry_point: &str) -> Code {
    let (arguments, errors) = Arguments::parse(args);
    for error in errors {
        pam.log(Priority::Error, &error.to_string());
    }
    if arguments.debug {
        pam.log(Priority::Debug, &format!("{entry_point}: PAM_SUCCESS"));
    }
    Code::Success
}

/// What the deciding entry points share: arguments before, text and log line after.
fn decide<H: Handle>(
    pam: &mut H,
    entry_point: &str,
    args: &[&CStr],
    flags: PamFlag,
    decision: impl FnOnce(&mut H, &Arguments) -> Result<Answer, Answer>,
) -> Code {
    let (arguments, errors) = Arguments::parse(args);
    for error in &errors {
        pam.log(Priority::Error, &error.to_string());
    }
    let Answer { code, text, why } = if errors.iter().any(|error| error.is_fatal()) {
        Answer::new(Code::ServiceErr, "malformed arguments")
    } else {
        decision(pam, &arguments).unwrap_or_else(|early| early)
    };
    if let Some(text) = text.filter(|_| arguments.messages && flags & PAM_SILENT == 0) {
        pam.tell(text);
    }
    if arguments.debug {
        pam.log(Priority::Debug, &format!("{entry_point}: {}: {why}", code.name()));
    }
    code
}

/// PAM_USER, if it can be anybody's name.
fn user(pam: &mut impl Handle) -> Result<String, Answer> {
    let bytes = pam.user().map_err(|code| Answer::new(code, "no user name"))?;
    let refused = |why| Err(Answer::new(Code::UserUnknown, why));
    match String::from_utf8(bytes) {
        Ok(user) if user.is_empty() => refused("the user name is empty"),
        Ok(user) if user.len() > MAX_USER => refused("the user name is too long"),
        Ok(user) if user.chars().any(char::is_control) => refused("the user name holds control characters"),
        Ok(user) => Ok(user),
        Err(_) => refused("the user name is not UTF-8"),
    }
}

/// Asks the broker. Without an answer nobody comes in, and the log says what to mend.
fn question(
    pam: &impl Handle,
    ask: impl FnOnce(&Path, &Request, &Secret) -> Result<Verdict, AskError>,
    arguments: &Arguments,
    operation: Operation,
    user: &str,
    password: &Secret,
) -> Result<Verdict, Answer> {
    let items = pam.items();
    let request = Request {
        service: items.service,
        rhost: items.rhost,
        tty: items.tty,
        ..client::request(operation, user, arguments.timeout)
    };
    ask(&arguments.socket, &request, password).map_err(|error| {
        let line =
            format!("the broker at {:?} could not be asked: {error}; {}", arguments.socket, error.advice());
        pam.log(Priority::Error, &line);
        let outcome = Outcome::Unavailable;
        Answer::outcome(code::account(outcome), outcome, "no answer".into())
    })
}

/// A verdict in one line. What others wrote is escaped.
fn described(Verdict { outcome, principal, reason, .. }: &Verdict) -> String {
    let mut line = outcome.to_string();
    if let Some(principal) = principal {
        line += &format!(", principal {principal:?}");
    }
    if !reason.is_empty() {
        line += &format!(", reason {reason:?}");
    }
    line
}

#[cfg(test)]
mod tests {
    use pam::constants::PAM_DISALLOW_NULL_AUTHTOK;

    use super::script::{Script, Step};
    use super::*;

    fn john() -> Step {
        Step::User(Ok(b"john"))
    }

    fn password() -> Step {
        Step::Password(Ok(b"secret"))
    }

    fn asked(outcome: Outcome) -> Step {
        Step::Ask {
            operation: Operation::Authenticate,
            user: "john",
            password: b"secret",
            reply: Ok(outcome),
        }
    }

    fn account(outcome: Outcome) -> Step {
        Step::Ask { operation: Operation::Account, user: "john", password: b"", reply: Ok(outcome) }
    }

    /// Runs authenticate and sees that the script was followed to its end.
    fn login(args: &[&CStr], flags: PamFlag, steps: impl IntoIterator<Item = Step>) -> (Code, Script) {
        let mut script = Script::new(steps);
        let ask = script.broker();
        let code = authenticate(&mut script, ask, args, flags);
        script.finished();
        (code, script)
    }

    fn check(script: &mut Script, args: &[&CStr], steps: impl IntoIterator<Item = Step>) -> Code {
        script.expect(steps);
        let ask = script.broker();
        let code = acct_mgmt(script, ask, args, 0);
        script.finished();
        code
    }

    #[test]
    fn every_outcome_is_answered_with_its_code_and_without_a_word() {
        for &outcome in Outcome::ALL {
            let (code, _) = login(&[], PAM_DISALLOW_NULL_AUTHTOK, [john(), password(), asked(outcome)]);
            assert_eq!(code, code::account(outcome), "{outcome}");
        }
    }

    #[test]
    fn names_that_nobody_has_are_refused_before_a_password_is_asked_for() {
        let long = "x".repeat(MAX_USER + 1).leak().as_bytes();
        for name in [b"", b"\xff".as_slice(), b"jo\nhn", b"jo\x7fhn", b"jo\xc2\x85hn", long] {
            let (code, _) = login(&[], 0, [Step::User(Ok(name))]);
            assert_eq!(code, Code::UserUnknown, "{name:?}");
        }
    }

    #[test]
    fn passwords_that_can_never_be_right_are_not_sent() {
        let long: &[u8] = "x".repeat(crate::protocol::MAX_PASSWORD + 1).leak().as_bytes();
        for wrong in [b"".as_slice(), b"\xff", long] {
            let (code, _) = login(&[], 0, [john(), Step::Password(Ok(wrong))]);
            assert_eq!(code, Code::AuthErr);
        }
    }

    #[test]
    fn a_failed_conversation_ends_the_call() {
        assert_eq!(login(&[], 0, [Step::User(Err(Code::ConvErr))]).0, Code::ConvErr);
        assert_eq!(login(&[], 0, [john(), Step::Password(Err(Code::ConvErr))]).0, Code::ConvErr);
    }

    #[test]
    fn texts_are_told_when_wanted_and_the_application_is_not_silent() {
        let text = Outcome::Disabled.text().unwrap();
        let steps = || [john(), password(), asked(Outcome::Disabled)];
        let told = steps().into_iter().chain([Step::Tell(text)]);
        assert_eq!(login(&[c"messages"], 0, told).0, Code::PermDenied);
        assert_eq!(login(&[c"messages"], PAM_SILENT, steps()).0, Code::PermDenied);
        assert_eq!(login(&[], 0, steps()).0, Code::PermDenied);
        let quiet = [john(), password(), asked(Outcome::WrongPassword)];
        assert_eq!(login(&[c"messages"], 0, quiet).0, Code::AuthErr);
    }

    #[test]
    fn an_absent_broker_is_logged_once_and_told() {
        let absent = || Step::Ask {
            operation: Operation::Authenticate,
            user: "john",
            password: b"secret",
            reply: Err(AskError::Connect(std::io::ErrorKind::NotFound.into())),
        };
        let logged =
            || Step::Log(Priority::Error, &["/run/motion-ad/broker.sock", "not found", "motion-ad.socket"]);
        let (code, _) = login(&[], 0, [john(), password(), absent(), logged()]);
        assert_eq!(code, Code::AuthinfoUnavail);
        let told = Step::Tell(Outcome::Unavailable.text().unwrap());
        let (code, _) = login(&[c"messages"], 0, [john(), password(), absent(), logged(), told]);
        assert_eq!(code, Code::AuthinfoUnavail);
    }

    #[test]
    fn what_a_refusing_broker_says_is_logged_escaped() {
        let steps = [
            john(),
            password(),
            Step::Ask {
                operation: Operation::Authenticate,
                user: "john",
                password: b"secret",
                reply: Err(AskError::Refused("uid 7\nmay not ask".into())),
            },
            Step::Log(Priority::Error, &["uid 7\\nmay not ask", "journalctl"]),
        ];
        assert_eq!(login(&[], 0, steps).0, Code::AuthinfoUnavail);
    }

    #[test]
    fn acct_mgmt_repeats_what_authenticate_was_told() {
        for &outcome in Outcome::ALL {
            let (_, mut script) = login(&[], 0, [john(), password(), asked(outcome)]);
            if code::settles_account(outcome) {
                assert_eq!(check(&mut script, &[], [john()]), code::account(outcome), "{outcome}");
            } else {
                assert_eq!(
                    check(&mut script, &[], [john(), account(Outcome::Success)]),
                    Code::Success,
                    "{outcome}"
                );
            }
        }
    }

    #[test]
    fn acct_mgmt_asks_on_a_fresh_handle() {
        for &outcome in Outcome::ALL {
            let code = check(&mut Script::new([]), &[], [john(), account(outcome)]);
            assert_eq!(code, code::account(outcome), "{outcome}");
        }
    }

    #[test]
    fn acct_mgmt_asks_again_about_another_person_another_broker_and_later() {
        let success = || login(&[], 0, [john(), password(), asked(Outcome::Success)]).1;
        let jane = Step::Ask {
            operation: Operation::Account,
            user: "jane",
            password: b"",
            reply: Ok(Outcome::Denied),
        };
        assert_eq!(check(&mut success(), &[], [Step::User(Ok(b"jane")), jane]), Code::PermDenied);
        let denied = || [john(), account(Outcome::Denied)];
        assert_eq!(check(&mut success(), &[c"socket=/run/other"], denied()), Code::PermDenied);
        let mut script = success();
        script.wait(61);
        assert_eq!(check(&mut script, &[], denied()), Code::PermDenied);
    }

    #[test]
    fn a_second_authenticate_forgets_the_first() {
        let (_, mut script) = login(&[], 0, [john(), password(), asked(Outcome::Success)]);
        script.expect([john(), Step::Password(Ok(b""))]);
        let ask = script.broker();
        assert_eq!(authenticate(&mut script, ask, &[], 0), Code::AuthErr);
        script.finished();
        assert_eq!(check(&mut script, &[], [john(), account(Outcome::Denied)]), Code::PermDenied);
    }

    #[test]
    fn expired_account_leaves_an_old_password_to_acct_mgmt() {
        for outcome in [Outcome::PasswordExpired, Outcome::MustChange] {
            let args = [c"expired=account", c"messages"];
            let (code, mut script) = login(&args, 0, [john(), password(), asked(outcome)]);
            assert_eq!(code, Code::Success);
            let steps = [john(), Step::Tell(outcome.text().unwrap())];
            assert_eq!(check(&mut script, &args, steps), Code::NewAuthtokReqd);
            let (code, _) = login(&[], 0, [john(), password(), asked(outcome)]);
            assert_eq!(code, Code::NewAuthtokReqd);
        }
    }

    #[test]
    fn malformed_arguments_let_nobody_in_and_unknown_ones_are_only_logged() {
        let malformed = || Step::Log(Priority::Error, &["timeout=0"]);
        assert_eq!(login(&[c"timeout=0"], 0, [malformed()]).0, Code::ServiceErr);
        assert_eq!(check(&mut Script::new([]), &[c"timeout=0"], [malformed()]), Code::ServiceErr);
        let unknown = Step::Log(Priority::Error, &["\"nullok\" ignored"]);
        let (code, _) = login(&[c"nullok"], 0, [unknown, john(), password(), asked(Outcome::Success)]);
        assert_eq!(code, Code::Success);
    }

    #[test]
    fn debug_logs_one_line_per_call() {
        let line = Step::Log(Priority::Debug, &["authenticate: PAM_PERM_DENIED: disabled"]);
        login(&[c"debug"], 0, [john(), password(), asked(Outcome::Disabled), line]);
        let mut script = Script::new([
            Step::Log(Priority::Debug, &["setcred: PAM_SUCCESS"]),
            Step::Log(Priority::Debug, &["open_session: PAM_SUCCESS"]),
        ]);
        setcred(&mut script, &[c"debug"]);
        session(&mut script, &[c"debug"], "open_session");
        script.finished();
    }

    #[test]
    fn no_password_change_is_ever_claimed() {
        for (flags, code) in [(PAM_PRELIM_CHECK, Code::TryAgain), (0x2000, Code::AuthtokErr)] {
            let mut script = Script::new([Step::Log(Priority::Error, &["nothing was changed"])]);
            assert_eq!(chauthtok(&mut script, &[], flags), code);
            script.finished();
        }
    }

    #[test]
    fn credentials_and_sessions_succeed_whatever_the_arguments() {
        let mut script = Script::new([Step::Log(Priority::Error, &["timeout=0"])]);
        assert_eq!(setcred(&mut script, &[c"timeout=0"]), Code::Success);
        assert_eq!(session(&mut script, &[c"timeout=0"], "open_session"), Code::Success);
        script.finished();
    }
}
