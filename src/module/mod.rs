//! The PAM side: asks the application, queries the broker, and returns a code to PAM.
//!
//! | File | Subject |
//! |---|---|
//! | [`hooks`] | the six entry points, exported from the shared object |
//! | this file | authenticate, acct_mgmt, setcred, and what all entry points share |
//! | [`password`] | chauthtok |
//! | [`session`] | open_session, close_session |
//! | [`question`] | the questions of one call to the broker |
//! | [`arguments`] | the arguments on the module's line |
//! | [`handle`] | the PAM handle as the module sees it; tests script it |
//! | [`memory`] | the memory on the handle between the entry points |
//! | [`code`] | outcome to PAM code |
//! | `warning` | the text for a password that expires soon |
//! | `texts` | the texts without an answer of the broker, in other languages |
//! | `ffi` | functions that `pam-bindings` lacks, and all the unsafe code |
//!
//! The module runs in the processes of applications: it starts no threads, writes to no stream, reads no
//! environment, changes no signals, and keeps nothing but a [`memory::Memory`] on the handle.

pub mod arguments;
pub mod code;
mod ffi;
pub mod handle;
pub mod hooks;
pub mod memory;
pub mod password;
pub mod question;
#[cfg(test)]
mod script;
pub mod session;
mod texts;
mod warning;

use std::ffi::CStr;

use pam::constants::{PAM_SILENT, PamFlag};

use crate::protocol::{MAX_USER, Operation, Secret};
use crate::verdict::{Outcome, Verdict};
use arguments::{Arguments, Register};
use code::Code;
use handle::{Handle, Priority, Text};
use memory::{Login, Proved, Subject};
use question::{Ask, Broker};

/// The prompt for the password. FreeRADIUS and OpenVPN search for it.
const PROMPT: &CStr = c"Password: ";

/// The properties of an entry point.
struct EntryPoint {
    /// Its name, for the log.
    name: &'static str,
    /// Its code for malformed arguments.
    malformed: Code,
    /// True if it shows texts without the argument `messages`.
    explains: bool,
    /// True if the argument `outcome` applies to it.
    names_outcome: bool,
    /// True if it can only observe (the argument `observe`).
    observes: bool,
}

const AUTHENTICATE: EntryPoint = EntryPoint {
    name: "authenticate",
    malformed: Code::ServiceErr,
    explains: false,
    names_outcome: true,
    observes: true,
};
const ACCT_MGMT: EntryPoint = EntryPoint { name: "acct_mgmt", ..AUTHENTICATE };

/// The result of an entry point: the code for the application, and the reason for the log.
struct Answer {
    code: Code,
    text: Option<Text>,
    why: String,
    /// For the argument `outcome`; `None` if the broker was not queried.
    outcome: Option<Outcome>,
}

impl Answer {
    fn new(code: Code, why: impl Into<String>) -> Self {
        Answer { code, text: None, why: why.into(), outcome: None }
    }

    fn verdict(code: Code, verdict: &Verdict) -> Self {
        let text = match code {
            // If access is granted for now, acct_mgmt shows the text when it rejects the user.
            Code::Success => None,
            _ => verdict.text.as_deref().or(verdict.outcome.text()).map(printable).map(Text::Error),
        };
        Answer { code, text, why: described(verdict), outcome: Some(verdict.outcome) }
    }
}

/// Implements `pam_sm_authenticate`: decides whether the password gives the user access.
pub fn authenticate<H: Handle>(pam: &mut H, ask: impl Ask, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, &AUTHENTICATE, ask, args, flags, |pam, broker| {
        // From here on, an earlier verdict no longer counts.
        pam.note(|memory| (memory.login, memory.owed, memory.proved) = (None, None, None));
        let user = user(pam)?;
        let password = pam.password(PROMPT).map_err(|code| Answer::new(code, "no password"))?;
        password.password().map_err(|error| Answer::new(Code::AuthErr, error.to_string()))?;
        let arguments = broker.arguments;
        let register = arguments.session == Register::Auth && !arguments.observe;
        let warn = may_warn(pam, arguments, flags, &user);
        let request = broker.request(pam, Operation::Authenticate { register, warn }, &user);
        let verdict = broker.ask(pam, &request, &password);
        let outcome = verdict.outcome;
        let code = code::authenticate(outcome, arguments.expired);
        let subject = Subject { user: user.clone(), socket: arguments.socket.clone() };
        let text = verdict.text.clone().filter(|_| !outcome.is_success());
        let login = Login { subject: subject.clone(), outcome, text, at: pam.now() };
        // A user who must change the password first gets no session before that.
        let owes = register && code == Code::Success && !outcome.is_success();
        let proved = proved(&subject, &verdict);
        pam.note(|memory| {
            (memory.login, memory.owed, memory.proved) = (Some(login), owes.then_some(subject), proved);
        });
        if register && outcome.is_success() {
            session::keep(pam, broker, &user, &verdict);
        }
        Ok(warning(pam, &user, &verdict, warn).unwrap_or_else(|| Answer::verdict(code, &verdict)))
    })
}

/// Implements `pam_sm_acct_mgmt`: decides whether a user who was authenticated before gets access.
pub fn acct_mgmt<H: Handle>(pam: &mut H, ask: impl Ask, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, &ACCT_MGMT, ask, args, flags, |pam, broker| {
        let user = user(pam)?;
        let arguments = broker.arguments;
        let memory = pam.recall();
        let mut warn = false;
        let mut verdict = match memory.account(&user, &arguments.socket, pam.now()) {
            Some((outcome, text)) => {
                Verdict { text, ..Verdict::new(outcome, "same outcome as authenticate") }
            }
            None => {
                warn = may_warn(pam, arguments, flags, &user);
                let account = broker.account(pam, &user);
                let is_known = account.is_some();
                let request = broker.request(pam, Operation::Account { account, warn }, &user);
                let verdict = broker.ask(pam, &request, &Secret::default());
                let subject = Subject { user: user.clone(), socket: arguments.socket.clone() };
                if let (false, Some(proved)) = (is_known, proved(&subject, &verdict)) {
                    pam.note(|memory| memory.proved = Some(proved));
                }
                verdict
            }
        };
        if verdict.outcome.is_success() && memory.owes(&user, &arguments.socket) && !arguments.observe {
            let Verdict { expires_in, text, .. } = verdict;
            let registered = session::register(pam, broker, &user);
            verdict = Verdict { expires_in, text: registered.text.clone().or(text), ..registered };
        }
        let answer = || Answer::verdict(code::account(verdict.outcome), &verdict);
        Ok(warning(pam, &user, &verdict, warn).unwrap_or_else(answer))
    })
}

/// Implements `pam_sm_setcred`: there are no credentials to set, and a failure would make the login fail.
pub fn setcred<H: Handle>(pam: &mut H, args: &[&CStr]) -> Code {
    // These are the arguments of the auth line, whose problems authenticate has logged already.
    if Arguments::parse(args).0.debug {
        pam.log(Priority::Debug, "setcred: PAM_SUCCESS");
    }
    Code::Success
}

/// Runs the common part of the deciding entry points: parses the arguments before, and shows the text and
/// logs after.
fn decide<H: Handle, A: Ask>(
    pam: &mut H,
    entry_point: &EntryPoint,
    ask: A,
    args: &[&CStr],
    flags: PamFlag,
    decision: impl FnOnce(&mut H, &mut Broker<'_, A>) -> Result<Answer, Answer>,
) -> Code {
    let (arguments, errors) = Arguments::parse(args);
    for error in &errors {
        pam.log(Priority::Error, &error.to_string());
    }
    let Answer { code, text, why, outcome } = if errors.iter().any(|error| error.is_fatal()) {
        Answer::new(entry_point.malformed, "malformed arguments")
    } else if arguments.observe && !entry_point.observes {
        // A success that observed nothing would admit a user whom the register rejects.
        let line = format!("observe is for auth and account lines: {} rejected", entry_point.name);
        pam.log(Priority::Error, &line);
        Answer::new(entry_point.malformed, "nothing to observe")
    } else {
        decision(pam, &mut Broker::new(ask, &arguments)).unwrap_or_else(|early| early)
    };
    let code = if arguments.observe { code.observed() } else { code };
    if arguments.outcome && entry_point.names_outcome && !arguments.observe {
        pam.name_outcome(outcome);
    }
    let shows = (arguments.messages || entry_point.explains) && flags & PAM_SILENT == 0 && !arguments.observe;
    if let Some(text) = text.filter(|_| shows) {
        pam.tell(&text);
    }
    if arguments.debug {
        pam.log(Priority::Debug, &format!("{}: {}: {why}", entry_point.name, code.name()));
    }
    code
}

/// Returns PAM_USER, if it can be the name of a user.
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

/// Returns the account behind `subject`, which later calls on the handle are about.
fn proved(subject: &Subject, verdict: &Verdict) -> Option<Proved> {
    let account = verdict.account.clone()?;
    Some(Proved { subject: subject.clone(), account })
}

/// Returns true if the user can see a warning and has not seen one on this handle.
fn may_warn(pam: &impl Handle, arguments: &Arguments, flags: PamFlag, user: &str) -> bool {
    arguments.messages
        && !arguments.observe
        && flags & PAM_SILENT == 0
        && pam.recall().warned.as_deref() != Some(user)
}

/// Returns the answer for a user who gets access and whose password expires soon.
fn warning(pam: &mut impl Handle, user: &str, verdict: &Verdict, warn: bool) -> Option<Answer> {
    let seconds = verdict.expires_in.filter(|_| warn && verdict.outcome.is_success())?;
    pam.note(|memory| memory.warned = Some(user.to_owned()));
    pam.name_expiry(seconds);
    let told = verdict.text.as_deref().map(printable);
    let text = Some(Text::Info(told.unwrap_or_else(|| warning::text(seconds))));
    Some(Answer { text, ..Answer::verdict(Code::Success, verdict) })
}

/// Makes a text of the broker safe to show to a user at a terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Describes a verdict in one line, with strings from outside escaped.
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

    use super::script::{
        Item, Question, Script, Step, account, complaint, decided, expiring, informed, john, login, password,
        told, undecided,
    };
    use super::*;
    use crate::client::AskError;
    use crate::texts::Language;

    /// Runs authenticate on a new handle.
    fn authenticated(
        args: &[&CStr],
        flags: PamFlag,
        steps: impl IntoIterator<Item = Step>,
    ) -> (Code, Script) {
        let mut script = Script::new();
        (script.call(authenticate, args, flags, steps), script)
    }

    /// Runs authenticate on a new handle, up to the broker's reply.
    fn logged_in(args: &[&CStr], outcome: Outcome) -> Script {
        authenticated(args, 0, [john(), password(), login().says(outcome)]).1
    }

    fn absent() -> AskError {
        AskError::Connect(std::io::ErrorKind::NotFound.into())
    }

    #[test]
    fn every_outcome_is_answered_with_its_code_and_without_a_word() {
        for &outcome in Outcome::ALL {
            let steps = [john(), password(), login().says(outcome)];
            let (code, _) = authenticated(&[], PAM_DISALLOW_NULL_AUTHTOK, steps);
            assert_eq!(code, code::account(outcome), "{outcome}");
        }
    }

    #[test]
    fn names_that_nobody_has_are_refused_before_a_password_is_asked_for() {
        let long = &[b'x'; MAX_USER + 1];
        for name in [b"", b"\xff".as_slice(), b"jo\nhn", b"jo\x7fhn", b"jo\xc2\x85hn", long] {
            let (code, _) = authenticated(&[], 0, [Step::Want(Item::User, Ok(name))]);
            assert_eq!(code, Code::UserUnknown, "{name:?}");
        }
    }

    #[test]
    fn passwords_that_can_never_be_right_are_not_sent() {
        let long = &[b'x'; crate::protocol::MAX_PASSWORD + 1];
        for wrong in [b"".as_slice(), b"\xff", long] {
            let (code, _) = authenticated(&[], 0, [john(), Step::Want(Item::Password, Ok(wrong))]);
            assert_eq!(code, Code::AuthErr);
        }
    }

    #[test]
    fn a_failed_conversation_ends_the_call() {
        let fails = |item| Step::Want(item, Err(Code::ConvErr));
        assert_eq!(authenticated(&[], 0, [fails(Item::User)]).0, Code::ConvErr);
        assert_eq!(authenticated(&[], 0, [john(), fails(Item::Password)]).0, Code::ConvErr);
    }

    #[test]
    fn texts_are_told_when_wanted_and_the_application_is_not_silent() {
        let text = Outcome::Disabled.text().unwrap();
        let quiet = || [john(), password(), login().says(Outcome::Disabled)];
        let asked = login().wants_warning().says(Outcome::Disabled);
        let steps = [john(), password(), asked, told(text)];
        assert_eq!(authenticated(&[c"messages"], 0, steps).0, Code::PermDenied);
        assert_eq!(authenticated(&[c"messages"], PAM_SILENT, quiet()).0, Code::PermDenied);
        assert_eq!(authenticated(&[], 0, quiet()).0, Code::PermDenied);
        let untold = [john(), password(), login().wants_warning().says(Outcome::WrongPassword)];
        assert_eq!(authenticated(&[c"messages"], 0, untold).0, Code::AuthErr);
    }

    #[test]
    fn what_the_broker_says_to_the_person_is_told_in_place_of_the_usual_text() {
        let text = Some("You are logged in\nat front\x1b-desk.".to_owned());
        let verdict = Verdict { text, ..Verdict::new(Outcome::SessionDenied, "") };
        let asked = login().wants_warning().replies(verdict);
        let steps = [john(), password(), asked, told("You are logged in at front -desk.")];
        assert_eq!(authenticated(&[c"messages"], 0, steps).0, Code::PermDenied);
    }

    #[test]
    fn texts_are_in_the_language_of_the_line() {
        let args = [c"messages", c"lang=it"];
        let asked = || login().wants_warning().reads(Language::Italian);
        let says = |outcome, text: &str| Verdict { text: Some(text.into()), ..Verdict::new(outcome, "") };
        let disabled = "Il Suo account è disabilitato.";
        let reply = asked().replies(says(Outcome::Disabled, disabled));
        let (code, mut script) = authenticated(&args, 0, [john(), password(), reply, told(disabled)]);
        assert_eq!(code, Code::PermDenied);
        // acct_mgmt repeats the text with the outcome.
        assert_eq!(script.call(acct_mgmt, &args, 0, [john(), told(disabled)]), Code::PermDenied);
        let soon = "La Sua password scade tra 3 giorni.";
        let warning = Verdict { text: Some(soon.into()), ..expires_in(3) };
        let steps = [john(), password(), asked().replies(warning), expiring(3 * 86_400), informed(soon)];
        let (code, mut script) = authenticated(&args, 0, steps);
        assert_eq!(code, Code::Success);
        // The warning is no refusal, and a later one of another kind has its own text.
        assert_eq!(script.call(acct_mgmt, &args, 0, [john()]), Code::Success);
        // Without an answer, the text is the module's own.
        let own = "Il servizio di accesso non riesce a raggiungere Active Directory. Riprovi tra poco.";
        let steps = [john(), password(), asked().fails(absent()), complaint(&["broker.sock"]), told(own)];
        assert_eq!(authenticated(&args, 0, steps).0, Code::AuthinfoUnavail);
        // An older broker answers in English, and a wrong password has no text in any language.
        let steps =
            [john(), password(), asked().says(Outcome::Disabled), told(Outcome::Disabled.text().unwrap())];
        assert_eq!(authenticated(&args, 0, steps).0, Code::PermDenied);
        let steps = [john(), password(), asked().says(Outcome::WrongPassword)];
        assert_eq!(authenticated(&args, 0, steps).0, Code::AuthErr);
    }

    #[test]
    fn an_observed_login_admits_no_user_and_shows_nothing() {
        let args = [c"observe", c"messages", c"outcome", c"session=auth"];
        for &outcome in Outcome::ALL {
            let expected = match code::account(outcome) {
                // Whatever the control of the line does with a success.
                Code::Success | Code::NewAuthtokReqd => Code::PermDenied,
                code => code,
            };
            let asked = login().observed().says_of(outcome, "one");
            let (code, mut script) = authenticated(&args, 0, [john(), password(), asked]);
            assert_eq!(code, expected, "{outcome}");
            let asks = Question::about("john").observed().of_account("one").says(outcome);
            let asks = (!code::settles_account(outcome)).then_some(asks);
            let steps = [john()].into_iter().chain(asks);
            assert_eq!(script.call(acct_mgmt, &args, 0, steps), expected, "{outcome}");
        }
        let steps = [john(), password(), login().observed().fails(absent()), complaint(&["broker.sock"])];
        assert_eq!(authenticated(&args, 0, steps).0, Code::AuthinfoUnavail);
        // The warning of a password that expires is a text as well.
        let steps = [john(), password(), login().observed().replies(expires_in(3))];
        assert_eq!(authenticated(&args, 0, steps).0, Code::PermDenied);
    }

    #[test]
    fn an_observing_line_registers_no_session_that_another_line_owes() {
        let steps = [john(), password(), login().registers().says(Outcome::MustChange)];
        let deciding = [c"session=auth", c"expired=account"];
        let (code, mut script) = authenticated(&deciding, 0, steps);
        assert_eq!(code, Code::Success);
        let asks = Question::about("john").observed().says(Outcome::Success);
        script.wait(61);
        assert_eq!(script.call(acct_mgmt, &[c"observe"], 0, [john(), asks]), Code::PermDenied);
    }

    #[test]
    fn what_cannot_be_observed_is_refused() {
        let refused = || complaint(&["observe is for auth and account lines"]);
        let args = [c"observe"];
        assert_eq!(Script::new().call(session::open_session, &args, 0, [refused()]), Code::SessionErr);
        assert_eq!(Script::new().call(session::close_session, &args, 0, [refused()]), Code::SessionErr);
        for flags in [0x4000, 0x2000] {
            assert_eq!(Script::new().call(password::chauthtok, &args, flags, [refused()]), Code::ServiceErr);
        }
    }

    #[test]
    fn the_application_that_asks_for_it_learns_the_outcome() {
        for &outcome in Outcome::ALL {
            let steps = [john(), password(), login().says(outcome), decided(outcome)];
            let (code, mut script) = authenticated(&[c"outcome"], 0, steps);
            assert_eq!(code, code::account(outcome), "{outcome}");
            let asks = (!code::settles_account(outcome)).then(|| account(outcome));
            let steps = [john()].into_iter().chain(asks).chain([decided(outcome)]);
            assert_eq!(script.call(acct_mgmt, &[c"outcome"], 0, steps), code::account(outcome), "{outcome}");
        }
        // A call that does not query the broker removes the outcome of an earlier call.
        let unasked = [john(), Step::Want(Item::Password, Ok(b"")), undecided()];
        assert_eq!(authenticated(&[c"outcome"], 0, unasked).0, Code::AuthErr);
        let malformed = [complaint(&["timeout=0"]), undecided()];
        assert_eq!(authenticated(&[c"outcome", c"timeout=0"], 0, malformed).0, Code::ServiceErr);
    }

    #[test]
    fn an_absent_broker_is_logged_once_and_told() {
        let logged = || complaint(&["/run/motion-ad/broker.sock", "not found", "motion-ad.socket"]);
        let steps = [john(), password(), login().fails(absent()), logged()];
        assert_eq!(authenticated(&[], 0, steps).0, Code::AuthinfoUnavail);
        let text = told(Outcome::Unavailable.text().unwrap());
        let steps = [john(), password(), login().wants_warning().fails(absent()), logged(), text];
        assert_eq!(authenticated(&[c"messages"], 0, steps).0, Code::AuthinfoUnavail);
    }

    #[test]
    fn what_a_refusing_broker_says_is_logged_escaped() {
        let refused = login().fails(AskError::Refused("uid 7\nmay not ask".into()));
        let steps =
            [john(), password(), refused, complaint(&["uid 7\\nmay not ask", "do as the broker says"])];
        assert_eq!(authenticated(&[], 0, steps).0, Code::AuthinfoUnavail);
    }

    #[test]
    fn acct_mgmt_repeats_what_authenticate_was_told() {
        for &outcome in Outcome::ALL {
            let mut script = logged_in(&[], outcome);
            if code::settles_account(outcome) {
                let code = script.call(acct_mgmt, &[], 0, [john()]);
                assert_eq!(code, code::account(outcome), "{outcome}");
            } else {
                let code = script.call(acct_mgmt, &[], 0, [john(), account(Outcome::Success)]);
                assert_eq!(code, Code::Success, "{outcome}");
            }
        }
    }

    #[test]
    fn acct_mgmt_asks_on_a_fresh_handle() {
        for &outcome in Outcome::ALL {
            let code = Script::new().call(acct_mgmt, &[], 0, [john(), account(outcome)]);
            assert_eq!(code, code::account(outcome), "{outcome}");
        }
    }

    #[test]
    fn acct_mgmt_asks_again_about_another_person_another_broker_and_later() {
        let success = || logged_in(&[], Outcome::Success);
        let jane = Question::about("jane").says(Outcome::Denied);
        let steps = [Step::Want(Item::User, Ok(b"jane")), jane];
        assert_eq!(success().call(acct_mgmt, &[], 0, steps), Code::PermDenied);
        let denied = || [john(), account(Outcome::Denied)];
        assert_eq!(success().call(acct_mgmt, &[c"socket=/run/other"], 0, denied()), Code::PermDenied);
        let mut script = success();
        script.wait(61);
        assert_eq!(script.call(acct_mgmt, &[], 0, denied()), Code::PermDenied);
    }

    #[test]
    fn a_second_authenticate_forgets_the_first() {
        let mut script = logged_in(&[], Outcome::Success);
        let steps = [john(), Step::Want(Item::Password, Ok(b""))];
        assert_eq!(script.call(authenticate, &[], 0, steps), Code::AuthErr);
        assert_eq!(script.call(acct_mgmt, &[], 0, [john(), account(Outcome::Denied)]), Code::PermDenied);
    }

    #[test]
    fn expired_account_leaves_an_old_password_to_acct_mgmt() {
        for outcome in [Outcome::PasswordExpired, Outcome::MustChange] {
            let args = [c"expired=account", c"messages"];
            let asked = login().wants_warning().says(outcome);
            let (code, mut script) = authenticated(&args, 0, [john(), password(), asked]);
            assert_eq!(code, Code::Success);
            let steps = [john(), told(outcome.text().unwrap())];
            assert_eq!(script.call(acct_mgmt, &args, 0, steps), Code::NewAuthtokReqd);
            let (code, _) = authenticated(&[], 0, [john(), password(), login().says(outcome)]);
            assert_eq!(code, Code::NewAuthtokReqd);
        }
    }

    /// Creates a success for a user whose password expires in `days` days.
    fn expires_in(days: u64) -> Verdict {
        Verdict { expires_in: Some(days * 86_400), ..Verdict::new(Outcome::Success, "") }
    }

    fn warned() -> [Step; 2] {
        [expiring(3 * 86_400), informed("Your password expires in 3 days.")]
    }

    #[test]
    fn whose_password_expires_soon_is_told_once_on_a_handle() {
        let args = [c"messages"];
        let asked = login().wants_warning().replies(expires_in(3));
        let (code, mut script) =
            authenticated(&args, 0, [john(), password(), asked].into_iter().chain(warned()));
        assert_eq!(code, Code::Success);
        assert_eq!(script.call(acct_mgmt, &args, 0, [john()]), Code::Success);
        // A later call on the same handle does not warn again.
        script.wait(61);
        assert_eq!(script.call(acct_mgmt, &args, 0, [john(), account(Outcome::Success)]), Code::Success);
        let again = [john(), password(), login().replies(expires_in(3))];
        assert_eq!(script.call(authenticate, &args, 0, again), Code::Success);
        // Another user is warned, too.
        let jane = Question::about("jane").wants_warning().replies(expires_in(3));
        let steps = [Step::Want(Item::User, Ok(b"jane")), jane].into_iter().chain(warned());
        assert_eq!(script.call(acct_mgmt, &args, 0, steps), Code::Success);
    }

    #[test]
    fn acct_mgmt_alone_warns_as_well() {
        let asked = || Question::about("john");
        let asked_to_warn = asked().wants_warning().replies(expires_in(3));
        let steps = [john(), asked_to_warn].into_iter().chain(warned());
        assert_eq!(Script::new().call(acct_mgmt, &[c"messages"], 0, steps), Code::Success);
        for (args, flags) in [(vec![], 0), (vec![c"messages"], PAM_SILENT)] {
            // Text that the module did not request is not shown.
            let steps = [john(), asked().replies(expires_in(3))];
            assert_eq!(Script::new().call(acct_mgmt, &args, flags, steps), Code::Success);
        }
    }

    #[test]
    fn who_does_not_come_in_is_told_why_and_not_warned() {
        let verdict = Verdict { expires_in: Some(86_400), ..Verdict::new(Outcome::Disabled, "") };
        let asked = login().wants_warning().replies(verdict);
        let steps = [john(), password(), asked, told(Outcome::Disabled.text().unwrap())];
        assert_eq!(authenticated(&[c"messages"], 0, steps).0, Code::PermDenied);
    }

    #[test]
    fn malformed_arguments_let_nobody_in_and_unknown_ones_are_only_logged() {
        let malformed = || complaint(&["timeout=0"]);
        assert_eq!(authenticated(&[c"timeout=0"], 0, [malformed()]).0, Code::ServiceErr);
        let code = Script::new().call(acct_mgmt, &[c"timeout=0"], 0, [malformed()]);
        assert_eq!(code, Code::ServiceErr);
        let unknown = complaint(&["\"nullok\" ignored"]);
        let steps = [unknown, john(), password(), login().says(Outcome::Success)];
        assert_eq!(authenticated(&[c"nullok"], 0, steps).0, Code::Success);
    }

    #[test]
    fn debug_logs_one_line_per_call() {
        let line = |words| Step::Log(Priority::Debug, words);
        let args = [c"debug"];
        let denied = line(&["authenticate: PAM_PERM_DENIED: disabled"]);
        authenticated(&args, 0, [john(), password(), login().says(Outcome::Disabled), denied]);
        let set = |script: &mut Script, _, args: &[&CStr], _| setcred(script, args);
        Script::new().call(set, &args, 0, [line(&["setcred: PAM_SUCCESS"])]);
    }

    #[test]
    fn credentials_succeed_whatever_the_arguments() {
        let set = |script: &mut Script, _, args: &[&CStr], _| setcred(script, args);
        assert_eq!(Script::new().call(set, &[c"timeout=0"], 0, []), Code::Success);
    }
}
