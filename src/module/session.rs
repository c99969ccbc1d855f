//! Sessions: which users are logged in, and where, according to the broker's register.
//!
//! A handle has one session, the last one that was registered on it. With `session=pam`, open_session
//! registers it, and with `session=auth`, authenticate does; close_session ends it in both cases.

use std::ffi::CStr;

use pam::constants::PamFlag;

use super::arguments::Register;
use super::code::{self, Code};
use super::handle::{Handle, Priority};
use super::memory::Session;
use super::question::{Ask, Broker};
use super::{AUTHENTICATE, Answer, EntryPoint, decide, user};
use crate::protocol::{Operation, Secret};
use crate::verdict::Verdict;

const OPEN: EntryPoint = EntryPoint { name: "open_session", ..SESSION };
const CLOSE: EntryPoint = EntryPoint { name: "close_session", ..SESSION };
const SESSION: EntryPoint =
    EntryPoint { malformed: Code::SessionErr, names_outcome: false, observes: false, ..AUTHENTICATE };

/// Implements `pam_sm_open_session`: registers a session.
pub fn open_session<H: Handle>(pam: &mut H, ask: impl Ask, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, &OPEN, ask, args, flags, |pam, broker| {
        let user = user(pam).map_err(failed)?;
        let arguments = broker.arguments;
        if arguments.session == Register::Auth && !pam.recall().owes(&user, &arguments.socket) {
            return Ok(Answer::new(Code::Success, "authenticate registers sessions"));
        }
        // The auth line has `session=auth` and the session line does not. A second session of the same login
        // would replace the first one, or be denied because of it.
        if pam.recall().is_registered(&user, &arguments.socket) {
            return Ok(Answer::new(Code::Success, "authenticate has registered the session"));
        }
        let verdict = register(pam, broker, &user);
        Ok(Answer::verdict(code::session(verdict.outcome), &verdict))
    })
}

/// Implements `pam_sm_close_session`: ends the session of this handle, or of this user at this application.
pub fn close_session<H: Handle>(pam: &mut H, ask: impl Ask, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, &CLOSE, ask, args, flags, |pam, broker| {
        let socket = &broker.arguments.socket;
        let (user, id) = match pam.recall().sessions.remove(socket) {
            Some(session) => (session.user, Some(session.id)),
            // The session was opened on another handle, and the broker finds it by user, service and process.
            None => (user(pam).map_err(failed)?, None),
        };
        let verdict = end(pam, broker, &user, id);
        if verdict.outcome.is_success() && pam.note(|memory| memory.sessions.remove(socket)).is_some() {
            pam.name_session(None);
        }
        Ok(Answer::verdict(code::session(verdict.outcome), &verdict))
    })
}

/// Maps a failure before the request to the code of the session entry points.
fn failed(answer: Answer) -> Answer {
    Answer { code: Code::SessionErr, ..answer }
}

/// Registers a session of `user`, who has access.
pub(super) fn register<H: Handle>(pam: &mut H, broker: &mut Broker<'_, impl Ask>, user: &str) -> Verdict {
    let account = broker.account(pam, user);
    let request = broker.request(pam, Operation::OpenSession { account }, user);
    let verdict = broker.ask(pam, &request, &Secret::default());
    if verdict.outcome.is_success() {
        keep(pam, broker, user, &verdict);
    }
    verdict
}

/// Keeps the session that was just registered, for close_session and for the application.
///
/// An earlier session of the handle ends, because no call could end it any more after the user has logged in
/// again. It ends only after the new one is registered, so that a second attempt that fails leaves the user
/// logged in.
pub(super) fn keep<H: Handle>(pam: &mut H, broker: &mut Broker<'_, impl Ask>, user: &str, verdict: &Verdict) {
    let by_auth = broker.arguments.session == Register::Auth;
    // Without an id there is no session: the register failed, and the broker grants access nevertheless.
    let session = verdict.session.clone().map(|id| Session { user: user.to_owned(), id, by_auth });
    let socket = broker.arguments.socket.clone();
    let before = pam.note(|memory| {
        memory.owed = None;
        session.clone().and_then(|session| memory.sessions.insert(socket, session))
    });
    let Some(session) = session else { return };
    pam.name_session(Some(&session.id));
    if let Some(before) = before.filter(|before| before.id != session.id) {
        let outcome = end(pam, broker, &before.user, Some(before.id.clone())).outcome;
        if !outcome.is_success() {
            let line = format!(
                "session {:?} of {:?} was left and could not be ended: {outcome}",
                before.id, before.user
            );
            pam.log(Priority::Error, &line);
        }
    }
}

fn end<H: Handle>(
    pam: &H,
    broker: &mut Broker<'_, impl Ask>,
    user: &str,
    session: Option<String>,
) -> Verdict {
    let request = broker.request(pam, Operation::CloseSession { session }, user);
    broker.ask(pam, &request, &Secret::default())
}

#[cfg(test)]
mod tests {
    use pam::constants::PAM_SILENT;

    use super::super::script::{
        Item, Question, Script, Step, account, complaint, john, login, named, password, told, unnamed,
    };
    use super::super::{acct_mgmt, authenticate};
    use super::*;
    use crate::client::AskError;
    use crate::verdict::Outcome;

    const AUTH: &CStr = c"session=auth";

    fn open() -> Question {
        Question::new(Operation::OpenSession { account: None }, "john")
    }

    fn close(id: &'static str) -> Question {
        let session = Some(id.to_owned()).filter(|id| !id.is_empty());
        Question::new(Operation::CloseSession { session }, "john")
    }

    /// Creates a handle on which john has the session `a`.
    fn opened() -> Script {
        let mut script = Script::new();
        let steps = [john(), open().says_session("a"), named("a")];
        assert_eq!(script.call(open_session, &[], 0, steps), Code::Success);
        script
    }

    /// Creates the same by `session=auth`.
    fn registered() -> Script {
        let mut script = Script::new();
        let steps = [john(), password(), login().registers().says_session("a"), named("a")];
        assert_eq!(script.call(authenticate, &[AUTH], 0, steps), Code::Success);
        script
    }

    #[test]
    fn what_was_opened_is_named_for_the_application_and_closed() {
        let mut script = opened();
        let steps = [close("a").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[], 0, steps), Code::Success);
        // A second call closes as on a fresh handle.
        let steps = [john(), close("").says(Outcome::Success)];
        assert_eq!(script.call(close_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn a_fresh_handle_leaves_it_to_the_broker_which_session_ends() {
        let steps = [john(), close("").says_session("b")];
        assert_eq!(Script::new().call(close_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn every_outcome_has_its_code_and_no_password_is_asked_for() {
        for &outcome in Outcome::ALL {
            let code = Script::new().call(open_session, &[], 0, [john(), open().says(outcome)]);
            assert_eq!(code, code::session(outcome), "{outcome}");
            let code = Script::new().call(close_session, &[], 0, [john(), close("").says(outcome)]);
            assert_eq!(code, code::session(outcome), "{outcome}");
        }
    }

    #[test]
    fn who_is_logged_in_elsewhere_is_told_when_wanted() {
        let text = Outcome::SessionDenied.text().unwrap();
        let denied = || [john(), open().says(Outcome::SessionDenied)];
        let with_text = denied().into_iter().chain([told(text)]);
        assert_eq!(Script::new().call(open_session, &[c"messages"], 0, with_text), Code::PermDenied);
        assert_eq!(Script::new().call(open_session, &[c"messages"], PAM_SILENT, denied()), Code::PermDenied);
        assert_eq!(Script::new().call(open_session, &[], 0, denied()), Code::PermDenied);
    }

    #[test]
    fn whatever_else_goes_wrong_is_a_session_error() {
        let absent = || AskError::Connect(std::io::ErrorKind::NotFound.into());
        let logged = || complaint(&["motion-ad.socket"]);
        type Call = fn(&mut Script, super::super::script::Broker, &[&CStr], PamFlag) -> Code;
        let calls: [(Call, Question); 2] = [(open_session, open()), (close_session, close(""))];
        for (call, question) in calls {
            let steps = [john(), question.fails(absent()), logged()];
            assert_eq!(Script::new().call(call, &[], 0, steps), Code::SessionErr);
            let steps = [Step::Want(Item::User, Err(Code::ConvErr))];
            assert_eq!(Script::new().call(call, &[], 0, steps), Code::SessionErr);
            let steps = [Step::Want(Item::User, Ok(b""))];
            assert_eq!(Script::new().call(call, &[], 0, steps), Code::SessionErr);
            let steps = [complaint(&["session=maybe"])];
            assert_eq!(Script::new().call(call, &[c"session=maybe"], 0, steps), Code::SessionErr);
        }
    }

    #[test]
    fn a_session_that_could_not_be_closed_can_be_closed_again() {
        let mut script = opened();
        assert_eq!(
            script.call(close_session, &[], 0, [close("a").says(Outcome::SessionStore)]),
            Code::SessionErr
        );
        let steps = [close("a").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn a_session_is_closed_for_who_opened_it_at_the_broker_that_knows_it() {
        let mut script = opened();
        let elsewhere = [Step::Want(Item::User, Ok(b"john")), close("").says(Outcome::Success)];
        assert_eq!(script.call(close_session, &[c"socket=/run/other"], 0, elsewhere), Code::Success);
        // The application may have changed PAM_USER, which the module does not read here.
        let steps = [close("a").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn with_session_auth_authenticate_registers_and_open_session_does_not() {
        let mut script = registered();
        assert_eq!(script.call(acct_mgmt, &[AUTH], 0, [john()]), Code::Success);
        assert_eq!(script.call(open_session, &[AUTH], 0, [john()]), Code::Success);
        let steps = [close("a").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[AUTH], 0, steps), Code::Success);
        // With a separate handle for the session.
        assert_eq!(Script::new().call(open_session, &[AUTH], 0, [john()]), Code::Success);
        let steps = [john(), close("").says(Outcome::Success)];
        assert_eq!(Script::new().call(close_session, &[AUTH], 0, steps), Code::Success);
    }

    #[test]
    fn a_session_line_without_the_argument_opens_no_second_session_of_the_same_login() {
        let mut script = registered();
        assert_eq!(script.call(open_session, &[], 0, [john()]), Code::Success);
        // For another user, and at another broker, there is no session yet.
        let jane = [Step::Want(Item::User, Ok(b"jane"))];
        let opened =
            Question::new(Operation::OpenSession { account: None }, "jane").says(Outcome::SessionDenied);
        assert_eq!(script.call(open_session, &[], 0, jane.into_iter().chain([opened])), Code::PermDenied);
        let steps = [john(), open().says(Outcome::SessionDenied)];
        assert_eq!(script.call(open_session, &[c"socket=/run/other"], 0, steps), Code::PermDenied);
        let steps = [close("a").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[], 0, steps), Code::Success);
        // After that, open_session registers a new one.
        let steps = [john(), open().says_session("b"), named("b")];
        assert_eq!(script.call(open_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn with_session_auth_authenticate_denies_who_is_logged_in_elsewhere() {
        let mut script = Script::new();
        let steps = [john(), password(), login().registers().says(Outcome::SessionDenied)];
        assert_eq!(script.call(authenticate, &[AUTH], 0, steps), Code::PermDenied);
        let text = told(Outcome::SessionDenied.text().unwrap());
        let asked = login().registers().wants_warning().says(Outcome::SessionDenied);
        let steps = [john(), password(), asked, text];
        assert_eq!(script.call(authenticate, &[AUTH, c"messages"], 0, steps), Code::PermDenied);
    }

    #[test]
    fn a_register_that_is_out_of_order_lets_in_where_the_broker_says_so() {
        let mut script = Script::new();
        let steps = [john(), password(), login().registers().says(Outcome::Success)];
        assert_eq!(script.call(authenticate, &[AUTH], 0, steps), Code::Success);
        assert_eq!(script.call(open_session, &[AUTH], 0, [john()]), Code::Success);
    }

    #[test]
    fn the_session_is_that_of_the_account_that_proved_itself() {
        let proved = || {
            let mut script = Script::new();
            let steps = [john(), password(), login().says_of(Outcome::Success, "one")];
            assert_eq!(script.call(authenticate, &[], 0, steps), Code::Success);
            script
        };
        let opened = || open().of_account("one").says_session("a");
        assert_eq!(proved().call(open_session, &[], 0, [john(), opened(), named("a")]), Code::Success);
        // Time does not matter; the state is that of the same account.
        let mut script = proved();
        script.wait(3600);
        let asked = Question::about("john").of_account("one");
        assert_eq!(script.call(acct_mgmt, &[], 0, [john(), asked.says(Outcome::Success)]), Code::Success);
        assert_eq!(script.call(open_session, &[], 0, [john(), opened(), named("a")]), Code::Success);
        // The broker reports that the name now belongs to another account.
        let steps = [john(), open().of_account("one").says(Outcome::UnknownUser)];
        assert_eq!(proved().call(open_session, &[], 0, steps), Code::SessionErr);
        // Another user, another broker and a user who was rejected since then are not authenticated.
        let jane = [Step::Want(Item::User, Ok(b"jane"))];
        let hers = Question::new(Operation::OpenSession { account: None }, "jane").says_session("b");
        assert_eq!(
            proved().call(open_session, &[], 0, jane.into_iter().chain([hers, named("b")])),
            Code::Success
        );
        let steps = [john(), open().says_session("b"), named("b")];
        assert_eq!(proved().call(open_session, &[c"socket=/run/other"], 0, steps), Code::Success);
        let mut script = proved();
        let steps = [john(), password(), login().says(Outcome::WrongPassword)];
        assert_eq!(script.call(authenticate, &[], 0, steps), Code::AuthErr);
        let steps = [john(), open().says_session("b"), named("b")];
        assert_eq!(script.call(open_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn without_a_password_the_session_is_that_of_the_account_that_was_judged() {
        let mut script = Script::new();
        let judged = Question::about("john");
        let steps = [john(), judged.says_of(Outcome::Success, "one")];
        assert_eq!(script.call(acct_mgmt, &[], 0, steps), Code::Success);
        let steps = [john(), open().of_account("one").says_session("a"), named("a")];
        assert_eq!(script.call(open_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn who_logs_in_again_on_a_handle_leaves_the_session_before() {
        // A failed attempt does not end it.
        let mut script = registered();
        let steps = [john(), password(), login().registers().says(Outcome::WrongPassword)];
        assert_eq!(script.call(authenticate, &[AUTH], 0, steps), Code::AuthErr);
        let again = login().registers().says_session("b");
        let steps = [john(), password(), again, named("b"), close("a").says(Outcome::Success)];
        assert_eq!(script.call(authenticate, &[AUTH], 0, steps), Code::Success);
        let steps = [close("b").says(Outcome::Success), unnamed()];
        assert_eq!(script.call(close_session, &[AUTH], 0, steps), Code::Success);

        // A failure to end the earlier session is logged and does not affect the new one.
        let mut script = opened();
        let steps = [
            john(),
            open().takes(3).says_session("b"),
            named("b"),
            close("a").within(2).says(Outcome::SessionStore),
            complaint(&["\"a\"", "could not be ended", "session_store"]),
        ];
        assert_eq!(script.call(open_session, &[], 0, steps), Code::Success);
    }

    #[test]
    fn a_session_that_an_expired_password_delayed_is_registered_once_it_is_changed() {
        let args = [AUTH, c"expired=account"];
        let expired = || {
            let mut script = Script::new();
            let steps = [john(), password(), login().registers().says(Outcome::MustChange)];
            assert_eq!(script.call(authenticate, &args, 0, steps), Code::Success);
            script
        };
        // The password was changed elsewhere.
        let mut script = expired();
        script.wait(61);
        let steps = [john(), account(Outcome::Success), open().says_session("a"), named("a")];
        assert_eq!(script.call(acct_mgmt, &args, 0, steps), Code::Success);
        assert_eq!(script.call(open_session, &args, 0, [john()]), Code::Success);

        let mut script = expired();
        assert_eq!(script.call(acct_mgmt, &args, 0, [john()]), Code::NewAuthtokReqd);
        script.wait(61);
        let steps = [john(), account(Outcome::Success), open().says(Outcome::SessionDenied)];
        assert_eq!(script.call(acct_mgmt, &args, 0, steps), Code::PermDenied);
        let steps = [john(), open().says_session("a"), named("a")];
        assert_eq!(script.call(open_session, &args, 0, steps), Code::Success);
    }

    #[test]
    fn debug_logs_one_line() {
        let line = Step::Log(super::super::Priority::Debug, &["open_session: PAM_SUCCESS: success"]);
        let steps = [john(), open().says(Outcome::Success), line];
        assert_eq!(Script::new().call(open_session, &[c"debug"], 0, steps), Code::Success);
    }
}
