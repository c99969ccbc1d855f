//! `pam_sm_chauthtok`: changes a password, in libpam's two calls.
//!
//! The first call asks for the present password, because libpam wipes the passwords of earlier calls, and the
//! broker probes it. The second call asks for the new password, and the broker changes it, once. The handle
//! keeps the result of the first call. libpam makes the second call even after this module has rejected the
//! first, if another line of the stack says so, and a wrong password must not be sent twice.

use std::ffi::CStr;

use pam::constants::{PAM_CHANGE_EXPIRED_AUTHTOK, PamFlag};

use super::code::{self, Code, Phase};
use super::handle::{Handle, Priority, Text};
use super::memory::{Probe, Probed, Subject};
use super::question::{Ask, Broker};
use super::session;
use super::texts;
use super::{AUTHENTICATE, Answer, EntryPoint, decide, user};
use crate::protocol::{Operation, PasswordError, Passwords, Secret};
use crate::texts::Language;
use crate::verdict::{Conclusion, Outcome, Verdict};

/// libpam's flag for the second call (security/pam_modules.h). A call without it changes nothing.
const PAM_UPDATE_AUTHTOK: PamFlag = 0x2000;

/// Texts are shown without the argument `messages`: the user cannot choose a better password without the
/// reason for the rejection. An application that calls chauthtok has a conversation, or it could not ask for
/// passwords.
const CHAUTHTOK: EntryPoint =
    EntryPoint { name: "chauthtok", explains: true, observes: false, ..AUTHENTICATE };

/// Implements `pam_sm_chauthtok`: changes the password, or, in the first of libpam's two calls, checks
/// whether it can.
pub fn chauthtok<H: Handle>(pam: &mut H, ask: impl Ask, args: &[&CStr], flags: PamFlag) -> Code {
    decide(pam, &CHAUTHTOK, ask, args, flags, |pam, broker| {
        let user = user(pam)?;
        let change = Change { user: &user, expired_only: flags & PAM_CHANGE_EXPIRED_AUTHTOK != 0 };
        if flags & PAM_UPDATE_AUTHTOK == 0 { change.probe(pam, broker) } else { change.make(pam, broker) }
    })
}

/// A requested change.
struct Change<'a> {
    user: &'a str,
    /// True if the application wants a change only if the password has expired.
    expired_only: bool,
}

impl Change<'_> {
    /// Handles the first call.
    fn probe<H: Handle>(&self, pam: &mut H, broker: &mut Broker<'_, impl Ask>) -> Result<Answer, Answer> {
        let probed = self.probed(pam, broker);
        let refused = |refusal: &Answer| Probed::Refused(refusal.code, refusal.outcome);
        let result = probed.as_ref().map_or_else(refused, |result| *result);
        pam.note(|memory| memory.probe = Some(Probe { subject: self.subject(broker), result }));
        Ok(match probed? {
            Probed::NotExpired => Answer::not_expired(),
            Probed::Ready | Probed::Refused(..) => Answer {
                outcome: Some(Outcome::Success),
                ..Answer::new(Code::Success, "the present password may be changed")
            },
        })
    }

    fn probed<H: Handle>(&self, pam: &mut H, broker: &mut Broker<'_, impl Ask>) -> Result<Probed, Answer> {
        if self.expired_only && !self.has_expired(pam, broker, Phase::Probe)? {
            return Ok(Probed::NotExpired);
        }
        let present = present(pam)?;
        let request = broker.request(pam, Operation::ProbePassword, self.user);
        let verdict = broker.ask(pam, &request, &present);
        match code::change(verdict.outcome, Phase::Probe) {
            Code::Success => Ok(Probed::Ready),
            code => Err(Answer::verdict(code, &verdict)),
        }
    }

    /// Handles the second call. The first one may be missing: libpam omits it behind a `sufficient` line.
    fn make<H: Handle>(&self, pam: &mut H, broker: &mut Broker<'_, impl Ask>) -> Result<Answer, Answer> {
        let probed = pam.recall().probed(self.user, &broker.arguments.socket);
        pam.note(|memory| memory.probe = None);
        match probed {
            Some(Probed::Refused(code, outcome)) => {
                return Ok(Answer { outcome, ..Answer::new(code, "same outcome as in the first phase") });
            }
            Some(Probed::NotExpired) if self.expired_only => return Ok(Answer::not_expired()),
            Some(Probed::Ready) => {}
            Some(Probed::NotExpired) | None => {
                if self.expired_only && !self.has_expired(pam, broker, Phase::Change)? {
                    return Ok(Answer::not_expired());
                }
            }
        }
        let present = present(pam)?;
        let language = broker.arguments.language;
        let answer = new(pam, language).and_then(|new| self.send(pam, broker, &Passwords { present, new }));
        if !matches!(answer, Ok(Answer { code: Code::Success, .. })) {
            // A module that follows must not take the rejected password for the new one.
            pam.forget_new_password();
        }
        answer
    }

    /// Sends the change to the broker, once.
    fn send<H: Handle>(
        &self,
        pam: &mut H,
        broker: &mut Broker<'_, impl Ask>,
        passwords: &Passwords,
    ) -> Result<Answer, Answer> {
        let impossible = |error: PasswordError| Answer::new(Code::AuthtokErr, error.to_string());
        let both = passwords.to_secret().map_err(impossible)?;
        // The earlier outcome for the account is no longer valid.
        pam.note(|memory| memory.login = None);
        let request = broker.request(pam, Operation::ChangePassword, self.user);
        let verdict = broker.ask(pam, &request, &both);
        let code = code::change(verdict.outcome, Phase::Change);
        if code == Code::Success && pam.recall().owes(self.user, &broker.arguments.socket) {
            // The password is changed even if this fails; acct_mgmt and open_session try again.
            let outcome = session::register(pam, broker, self.user).outcome;
            if !outcome.is_success() {
                pam.log(
                    Priority::Error,
                    &format!("the password was changed, but no session registered: {outcome}"),
                );
            }
        }
        Ok(Answer::verdict(code, &verdict))
    }

    /// Returns true if the password has expired or must be changed.
    ///
    /// # Errors
    /// Returns an error if the broker does not know, or if the account may not log in for another reason:
    /// such a user cannot change the password.
    fn has_expired<H: Handle>(
        &self,
        pam: &mut H,
        broker: &mut Broker<'_, impl Ask>,
        phase: Phase,
    ) -> Result<bool, Answer> {
        let known = pam.recall().account(self.user, &broker.arguments.socket, pam.now());
        let verdict = match known {
            Some((outcome, text)) => Verdict { text, ..Verdict::new(outcome, "same outcome as before") },
            None => {
                let account = broker.account(pam, self.user);
                let request = broker.request(pam, Operation::Account { account, warn: false }, self.user);
                broker.ask(pam, &request, &Secret::default())
            }
        };
        match verdict.outcome.conclusion() {
            Conclusion::Yes => Ok(false),
            Conclusion::Renew => Ok(true),
            Conclusion::No | Conclusion::Undecided | Conclusion::Unknown => {
                Err(Answer::verdict(code::change(verdict.outcome, phase), &verdict))
            }
        }
    }

    fn subject<A>(&self, broker: &Broker<'_, A>) -> Subject {
        Subject { user: self.user.to_owned(), socket: broker.arguments.socket.clone() }
    }
}

impl Answer {
    /// Returns PAM_SUCCESS, because nothing is left to do. PAM_IGNORE would become PAM_PERM_DENIED in a
    /// service without another line.
    fn not_expired() -> Self {
        Answer::new(Code::Success, "the password has not expired")
    }
}

/// Returns the present password, if it is well-formed.
fn present<H: Handle>(pam: &mut H) -> Result<Secret, Answer> {
    let password = pam.present_password().map_err(|code| Answer::new(code, "no present password"))?;
    password.password().map_err(|error| Answer::new(Code::AuthtokRecoveryErr, error.to_string()))?;
    Ok(password)
}

/// Returns the new password, if it is well-formed.
fn new<H: Handle>(pam: &mut H, language: Language) -> Result<Secret, Answer> {
    let password = pam.new_password().map_err(|code| Answer::new(code, "no new password"))?;
    password.password().map_err(|error| {
        let text = texts::new_password(error, language);
        Answer { text: Some(Text::Error(text)), ..Answer::new(Code::AuthtokErr, error.to_string()) }
    })?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use pam::constants::PAM_SILENT;

    use super::super::script::{
        Item, Question, Script, Step, account, complaint, forgotten, john, login, named, password, told,
    };
    use super::super::{acct_mgmt, authenticate};
    use super::*;
    use crate::client::AskError;
    use crate::protocol::{FrameError, MAX_PASSWORD};

    const PRELIM: PamFlag = 0x4000;
    const UPDATE: PamFlag = PAM_UPDATE_AUTHTOK;
    const EXPIRED: PamFlag = PAM_CHANGE_EXPIRED_AUTHTOK;

    fn present() -> Step {
        Step::Want(Item::Present, Ok(b"old secret"))
    }

    fn new() -> Step {
        Step::Want(Item::New, Ok(b"new secret"))
    }

    fn probe() -> Question {
        Question::new(Operation::ProbePassword, "john").with(b"old secret")
    }

    fn change() -> Question {
        // The format of two passwords in a request: the length of the first one, and both.
        Question::new(Operation::ChangePassword, "john").with(b"\0\x0aold secretnew secret")
    }

    /// Runs both phases of a change whose first phase succeeds.
    fn changed(args: &[&CStr], flags: PamFlag, update: impl IntoIterator<Item = Step>) -> (Code, Script) {
        let mut script = Script::new();
        let steps = [john(), present(), probe().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, args, PRELIM | flags, steps), Code::Success);
        (script.call(chauthtok, args, UPDATE | flags, update), script)
    }

    fn lost() -> AskError {
        AskError::Receive(FrameError::Io(std::io::ErrorKind::TimedOut.into()))
    }

    #[test]
    fn the_first_phase_probes_and_the_second_one_changes() {
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(changed(&[], 0, steps).0, Code::Success);
    }

    #[test]
    fn every_outcome_of_a_probe_has_its_code_and_its_text_unless_silence_is_wanted() {
        for &outcome in Outcome::ALL {
            let asked = || [john(), present(), probe().says(outcome)];
            let steps = asked().into_iter().chain(outcome.text().map(told));
            let expected = code::change(outcome, Phase::Probe);
            assert_eq!(Script::new().call(chauthtok, &[], PRELIM, steps), expected, "{outcome}");
            let code = Script::new().call(chauthtok, &[], PRELIM | PAM_SILENT, asked());
            assert_eq!(code, expected, "{outcome}");
        }
    }

    #[test]
    fn every_outcome_of_a_change_has_its_code_and_its_text_and_a_refused_password_is_forgotten() {
        for &outcome in Outcome::ALL {
            let steps = [john(), present(), new(), change().says(outcome)].into_iter();
            let steps = steps.chain((!outcome.is_success()).then(forgotten));
            let steps = steps.chain(outcome.text().map(told));
            assert_eq!(changed(&[], 0, steps).0, code::change(outcome, Phase::Change), "{outcome}");
        }
    }

    #[test]
    fn why_ad_refuses_is_told_in_its_own_words() {
        let text = Some("It was used before.".to_owned());
        let verdict = Verdict { text, ..Verdict::new(Outcome::PasswordRefused, "0000052D") };
        let steps = [john(), present(), new(), change().replies(verdict), forgotten()];
        let steps = steps.into_iter().chain([told("It was used before.")]);
        assert_eq!(changed(&[], 0, steps).0, Code::AuthtokErr);
    }

    #[test]
    fn a_change_whose_answer_is_lost_is_unknown_and_not_failed() {
        let text = || told(Outcome::ChangeUnknown.text().unwrap());
        let io = |kind: std::io::ErrorKind| FrameError::Io(kind.into());
        let unknown = [
            lost(),
            AskError::Receive(FrameError::Closed),
            AskError::Receive(io(std::io::ErrorKind::UnexpectedEof)),
            AskError::Unexpected,
        ];
        for error in unknown {
            let logged = complaint(&["whether the password was changed is unknown"]);
            let steps = [john(), present(), new(), change().fails(error), logged, forgotten(), text()];
            assert_eq!(changed(&[], 0, steps).0, Code::AuthinfoUnavail);
        }
        // A broker that did not get the whole request has changed nothing.
        let not_sent = [
            AskError::Connect(std::io::ErrorKind::NotFound.into()),
            AskError::Send(io(std::io::ErrorKind::BrokenPipe)),
            AskError::Refused("uid 7 may not ask".into()),
        ];
        for error in not_sent {
            let text = told(Outcome::Unavailable.text().unwrap());
            let steps = [john(), present(), new(), change().fails(error), complaint(&[]), forgotten(), text];
            assert_eq!(changed(&[], 0, steps).0, Code::AuthtokErr);
        }
    }

    #[test]
    fn a_probe_without_an_answer_may_be_repeated() {
        let text = told(Outcome::Unavailable.text().unwrap());
        let steps = [john(), present(), probe().fails(lost()), complaint(&["no valid reply"]), text];
        assert_eq!(Script::new().call(chauthtok, &[], PRELIM, steps), Code::TryAgain);
    }

    #[test]
    fn passwords_that_can_never_be_right_go_nowhere() {
        let long = &[b'x'; MAX_PASSWORD + 1];
        let cases: [(&[u8], &str); 3] = [
            (b"", "Your new password was not accepted: the password is empty."),
            (b"\xff", "Your new password was not accepted: the password is not UTF-8."),
            (long, "Your new password was not accepted: the password is longer than 1024 bytes."),
        ];
        for (wrong, text) in cases {
            let steps = [john(), Step::Want(Item::Present, Ok(wrong))];
            assert_eq!(Script::new().call(chauthtok, &[], PRELIM, steps), Code::AuthtokRecoveryErr);
            let steps = [john(), present(), Step::Want(Item::New, Ok(wrong)), forgotten(), told(text)];
            assert_eq!(changed(&[], 0, steps).0, Code::AuthtokErr);
        }
    }

    #[test]
    fn a_change_is_told_in_the_language_of_the_line() {
        let args = [c"lang=de"];
        let german = |question: Question| question.reads(Language::German);
        let probe = || [john(), present(), german(probe()).says(Outcome::Success)];
        let update = |steps: Vec<Step>| {
            let mut script = Script::new();
            assert_eq!(script.call(chauthtok, &args, PRELIM, probe()), Code::Success);
            script.call(chauthtok, &args, UPDATE, [john(), present()].into_iter().chain(steps))
        };
        let text = "Ihr neues Kennwort muss mindestens 12 Zeichen haben.";
        let verdict =
            Verdict { text: Some(text.into()), ..Verdict::new(Outcome::PasswordRefused, "0000052D") };
        let steps = vec![new(), german(change()).replies(verdict), forgotten(), told(text)];
        assert_eq!(update(steps), Code::AuthtokErr);
        let unknown = "Es ist nicht sicher, ob Ihr Kennwort geändert wurde. Versuchen Sie, sich mit dem \
                       neuen anzumelden.";
        let steps = vec![new(), german(change()).fails(lost()), complaint(&[]), forgotten(), told(unknown)];
        assert_eq!(update(steps), Code::AuthinfoUnavail);
        let empty = Step::Want(Item::New, Ok(b""));
        assert_eq!(update(vec![empty, forgotten(), told("Ihr neues Kennwort ist leer.")]), Code::AuthtokErr);
    }

    #[test]
    fn a_failed_conversation_ends_the_call() {
        let steps = [Step::Want(Item::User, Err(Code::ConvErr))];
        assert_eq!(Script::new().call(chauthtok, &[], PRELIM, steps), Code::ConvErr);
        let steps = [john(), Step::Want(Item::Present, Err(Code::AuthtokRecoveryErr))];
        assert_eq!(Script::new().call(chauthtok, &[], PRELIM, steps), Code::AuthtokRecoveryErr);
        for code in [Code::AuthtokErr, Code::TryAgain] {
            let steps = [john(), present(), Step::Want(Item::New, Err(code)), forgotten()];
            assert_eq!(changed(&[], 0, steps).0, code);
        }
    }

    #[test]
    fn a_wrong_password_is_sent_once_although_the_stack_goes_on() {
        let mut script = Script::new();
        let steps = [john(), present(), probe().says(Outcome::WrongPassword)];
        assert_eq!(script.call(chauthtok, &[], PRELIM, steps), Code::AuthtokRecoveryErr);
        assert_eq!(script.call(chauthtok, &[], UPDATE, [john()]), Code::AuthtokRecoveryErr);
        // The next attempt starts again.
        let steps = [john(), present(), probe().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], PRELIM, steps), Code::Success);
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], UPDATE, steps), Code::Success);
    }

    #[test]
    fn the_second_phase_works_without_the_first() {
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(Script::new().call(chauthtok, &[], UPDATE, steps), Code::Success);
        let steps = [john(), account(Outcome::Success)];
        assert_eq!(Script::new().call(chauthtok, &[], UPDATE | EXPIRED, steps), Code::Success);
        // A first phase for another user, or with another broker, does not count.
        let mut script = Script::new();
        let steps = [john(), present(), probe().says(Outcome::WrongPassword)];
        script.call(chauthtok, &[c"socket=/run/other"], PRELIM, steps);
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], UPDATE, steps), Code::Success);
    }

    #[test]
    fn whatever_comes_without_the_flag_for_it_changes_nothing() {
        for flags in [0, PRELIM, EXPIRED] {
            let expired = (flags == EXPIRED).then(|| account(Outcome::MustChange));
            let steps = [john()].into_iter().chain(expired);
            let steps = steps.chain([present(), probe().says(Outcome::Success)]);
            assert_eq!(Script::new().call(chauthtok, &[], flags, steps), Code::Success);
        }
    }

    #[test]
    fn a_password_that_has_not_expired_is_left_alone_where_only_expired_ones_are_wanted() {
        let mut script = Script::new();
        let steps = [john(), account(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], PRELIM | EXPIRED, steps), Code::Success);
        assert_eq!(script.call(chauthtok, &[], UPDATE | EXPIRED, [john()]), Code::Success);
        // The next change starts again.
        assert_eq!(
            script.call(chauthtok, &[], PRELIM | EXPIRED, [john(), account(Outcome::Success)]),
            Code::Success
        );
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], UPDATE, steps), Code::Success);
        // The outcome of authenticate suffices, too.
        let mut script = Script::new();
        script.call(authenticate, &[], 0, [john(), password(), login().says(Outcome::Success)]);
        assert_eq!(script.call(chauthtok, &[], PRELIM | EXPIRED, [john()]), Code::Success);
    }

    #[test]
    fn whether_it_has_expired_must_be_known() {
        for &outcome in Outcome::ALL {
            if outcome.leads_to_access() {
                continue;
            }
            let steps = [john(), account(outcome)].into_iter().chain(outcome.text().map(told));
            let code = Script::new().call(chauthtok, &[], PRELIM | EXPIRED, steps);
            assert_eq!(code, code::change(outcome, Phase::Probe), "{outcome}");
        }
    }

    #[test]
    fn both_questions_of_a_phase_share_its_time() {
        let expired = Question::about("john").takes(3).says(Outcome::PasswordExpired);
        let steps = [john(), expired, present(), probe().within(2).says(Outcome::Success)];
        assert_eq!(Script::new().call(chauthtok, &[], PRELIM | EXPIRED, steps), Code::Success);
    }

    #[test]
    fn an_expired_password_is_changed_on_the_handle_that_was_let_in_with_it() {
        for outcome in [Outcome::PasswordExpired, Outcome::MustChange] {
            let args = [c"expired=account"];
            let mut script = Script::new();
            let steps = [john(), password(), login().says(outcome)];
            assert_eq!(script.call(authenticate, &args, 0, steps), Code::Success);
            assert_eq!(script.call(acct_mgmt, &args, 0, [john()]), Code::NewAuthtokReqd);
            // The broker is not queried for the account again.
            let steps = [john(), present(), probe().says(Outcome::Success)];
            assert_eq!(script.call(chauthtok, &args, PRELIM | EXPIRED, steps), Code::Success);
            let steps = [john(), present(), new(), change().says(Outcome::Success)];
            assert_eq!(script.call(chauthtok, &args, UPDATE | EXPIRED, steps), Code::Success);
            // It is now.
            let steps = [john(), account(Outcome::Success)];
            assert_eq!(script.call(acct_mgmt, &args, 0, steps), Code::Success);
        }
    }

    #[test]
    fn an_expired_password_is_changed_on_a_handle_that_authenticate_refused() {
        let mut script = Script::new();
        let steps = [john(), password(), login().says(Outcome::MustChange)];
        assert_eq!(script.call(authenticate, &[], 0, steps), Code::NewAuthtokReqd);
        let steps = [john(), present(), probe().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], PRELIM | EXPIRED, steps), Code::Success);
        let steps = [john(), present(), new(), change().says(Outcome::Success)];
        assert_eq!(script.call(chauthtok, &[], UPDATE | EXPIRED, steps), Code::Success);
    }

    #[test]
    fn what_was_known_of_the_account_is_forgotten_whatever_comes_of_the_change() {
        for outcome in [Outcome::Success, Outcome::PasswordRefused, Outcome::ChangeUnknown] {
            let mut script = Script::new();
            script.call(authenticate, &[], 0, [john(), password(), login().says(Outcome::Success)]);
            script.call(chauthtok, &[], PRELIM, [john(), present(), probe().says(Outcome::Success)]);
            let steps = [john(), present(), new(), change().says(outcome)].into_iter();
            let steps = steps.chain((!outcome.is_success()).then(forgotten));
            script.call(chauthtok, &[], UPDATE | PAM_SILENT, steps);
            assert_eq!(script.call(acct_mgmt, &[], 0, [john(), account(Outcome::Denied)]), Code::PermDenied);
        }
    }

    #[test]
    fn who_was_let_in_to_change_the_password_gets_the_session_then() {
        let args = [c"session=auth", c"expired=account"];
        let prepared = || {
            let mut script = Script::new();
            let steps = [john(), password(), login().registers().says(Outcome::MustChange)];
            assert_eq!(script.call(authenticate, &args, 0, steps), Code::Success);
            let steps = [john(), present(), probe().says(Outcome::Success)];
            assert_eq!(script.call(chauthtok, &args, PRELIM, steps), Code::Success);
            script
        };
        let open = || Question::new(Operation::OpenSession { account: None }, "john");
        let made = || [john(), present(), new(), change().says(Outcome::Success)].into_iter();

        let mut script = prepared();
        let steps = made().chain([open().says_session("a"), named("a")]);
        assert_eq!(script.call(chauthtok, &args, UPDATE, steps), Code::Success);
        assert_eq!(script.call(session::open_session, &args, 0, [john()]), Code::Success);

        // The password is changed although there is no session; the next entry point registers it.
        let mut script = prepared();
        let denied = [open().says(Outcome::SessionDenied), complaint(&["no session", "session_denied"])];
        assert_eq!(script.call(chauthtok, &args, UPDATE, made().chain(denied)), Code::Success);
        let steps = [john(), open().says_session("a"), named("a")];
        assert_eq!(script.call(session::open_session, &args, 0, steps), Code::Success);
    }

    #[test]
    fn malformed_arguments_change_nothing_and_debug_logs_one_line() {
        for flags in [PRELIM, UPDATE] {
            let code = Script::new().call(chauthtok, &[c"timeout=0"], flags, [complaint(&["timeout=0"])]);
            assert_eq!(code, Code::ServiceErr);
        }
        let line = Step::Log(Priority::Debug, &["chauthtok: PAM_AUTHTOK_RECOVERY_ERR: wrong_password"]);
        let steps = [john(), present(), probe().says(Outcome::WrongPassword), line];
        assert_eq!(Script::new().call(chauthtok, &[c"debug"], PRELIM, steps), Code::AuthtokRecoveryErr);
    }
}
