//! The PAM handle as this module sees it.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pam::constants::{PAM_ERROR_MSG, PAM_TEXT_INFO, PamResultCode};
use pam::conv::Conv;
use pam::items::{RHost, Service, Tty, User};
use pam::module::PamHandle;

use super::code::Code;
use super::ffi;
use super::memory::Memory;
use crate::protocol::{Secret, monotonic};
use crate::verdict::Outcome;

/// The items that a request carries, for the broker's audit line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// PAM_SERVICE
    pub service: String,
    /// PAM_RHOST
    pub rhost: String,
    /// PAM_TTY
    pub tty: String,
}

/// How loud a line in the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody must mend something.
    Error,
    /// Only with the argument `debug`.
    Debug,
}

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Why something was refused: PAM_ERROR_MSG.
    Error(String),
    /// What is good to know: PAM_TEXT_INFO.
    Info(String),
}

/// The variable of the handle's environment in which the application finds the id of its session.
pub const SESSION: &str = "MOTION_AD_SESSION";

/// The variable of the handle's environment in which the application finds the name of the outcome, with the argument
/// `outcome`.
pub const OUTCOME: &str = "MOTION_AD_OUTCOME";

/// What the module asks of PAM. Tests put a script in its place.
pub trait Handle {
    /// PAM_USER, asked for by libpam when it is not set.
    ///
    /// # Errors
    /// The code to answer: the application does not say who it is.
    fn user(&mut self) -> Result<Vec<u8>, Code>;

    /// PAM_AUTHTOK, asked for with `prompt` when it is not set.
    ///
    /// # Errors
    /// The code to answer: there is no password.
    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code>;

    /// PAM_OLDAUTHTOK, asked for when it is not set: the password that is to be changed.
    ///
    /// # Errors
    /// The code to answer: there is no such password.
    fn present_password(&mut self) -> Result<Secret, Code>;

    /// PAM_AUTHTOK while a password is changed: the new one, asked for twice when it is not set.
    ///
    /// # Errors
    /// The code to answer: there is no such password, or it was typed differently the second time.
    fn new_password(&mut self) -> Result<Secret, Code>;

    /// Unsets PAM_AUTHTOK.
    fn forget_new_password(&mut self);

    /// Where the login comes from.
    fn items(&self) -> Items;

    /// Shows a text to the person, if the application can.
    fn tell(&mut self, text: &Text);

    /// Tells the application the id of its session ([`SESSION`]), or that it has none.
    fn name_session(&mut self, id: Option<&str>);

    /// Tells the application the outcome by its name ([`OUTCOME`]), or that there is none.
    fn name_outcome(&mut self, outcome: Option<Outcome>);

    /// Keeps `memory` on the handle, in place of what was there.
    fn remember(&mut self, memory: Memory);

    /// What is kept on the handle.
    fn recall(&self) -> Memory;

    /// Changes what is kept on the handle.
    fn note<T>(&mut self, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.recall();
        let result = change(&mut memory);
        self.remember(memory);
        result
    }

    /// Writes one line to the system's log.
    fn log(&self, priority: Priority, line: &str);

    /// Now, by the monotonic clock.
    fn now(&self) -> Duration;
}

/// The real one.
pub struct Libpam<'a>(pub &'a mut PamHandle);

impl Libpam<'_> {
    /// Sets a variable of the handle's environment, or unsets it.
    fn set(&mut self, name: &str, value: Option<&str>) {
        let variable = value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
        if let Ok(variable) = CString::new(variable) {
            ffi::putenv(self.0, &variable);
        }
    }
}

/// What the application is asked for.
#[derive(Clone, Copy)]
enum Question {
    /// Name and password of somebody who logs in.
    Login,
    /// The password that is to be changed.
    Present,
    /// The one that takes its place.
    New,
}

/// libpam's code for a failed question to the application, as an answer of the entry point that asked it.
///
/// `pam_get_authtok` says PAM_AUTHTOK_ERR for every failed conversation, which pam_sm_chauthtok(3) means for new
/// passwords alone; PAM_CONV_AGAIN would promise that the call can be resumed.
fn unanswered(question: Question, code: &PamResultCode) -> Code {
    match (question, code) {
        (_, PamResultCode::PAM_BUF_ERR) => Code::BufErr,
        (_, PamResultCode::PAM_SYSTEM_ERR) => Code::SystemErr,
        (Question::Login, PamResultCode::PAM_AUTH_ERR) => Code::AuthErr,
        (Question::New, PamResultCode::PAM_TRY_AGAIN) => Code::TryAgain,
        (Question::Login, _) => Code::ConvErr,
        (Question::Present, _) => Code::AuthtokRecoveryErr,
        (Question::New, _) => Code::AuthtokErr,
    }
}

impl Handle for Libpam<'_> {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        match self.0.get_user(None) {
            // pam-bindings answers PAM_SYSTEM_ERR for a name that is not UTF-8: that is for the caller to refuse.
            Ok(_) | Err(PamResultCode::PAM_SYSTEM_ERR) => {}
            Err(error) => return Err(unanswered(Question::Login, &error)),
        }
        match self.0.get_item::<User>() {
            Ok(Some(user)) => Ok(user.to_bytes().to_vec()),
            _ => Err(Code::SystemErr),
        }
    }

    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code> {
        ffi::authtok(self.0, prompt).map_err(|code| unanswered(Question::Login, &code))
    }

    fn present_password(&mut self) -> Result<Secret, Code> {
        ffi::old_authtok(self.0).map_err(|code| unanswered(Question::Present, &code))
    }

    fn new_password(&mut self) -> Result<Secret, Code> {
        ffi::new_authtok(self.0).map_err(|code| unanswered(Question::New, &code))
    }

    fn forget_new_password(&mut self) {
        ffi::forget_authtok(self.0);
    }

    fn items(&self) -> Items {
        Items {
            service: text(self.0.get_item::<Service>().ok().flatten().as_deref()),
            rhost: text(self.0.get_item::<RHost>().ok().flatten().as_deref()),
            tty: text(self.0.get_item::<Tty>().ok().flatten().as_deref()),
        }
    }

    fn tell(&mut self, text: &Text) {
        let (style, text) = match text {
            Text::Error(text) => (PAM_ERROR_MSG, text),
            Text::Info(text) => (PAM_TEXT_INFO, text),
        };
        // Many applications cannot show texts and say that the conversation failed. The code speaks for itself.
        if let Ok(Some(conversation)) = self.0.get_item::<Conv>() {
            drop(conversation.send(style, text));
        }
    }

    fn name_session(&mut self, id: Option<&str>) {
        self.set(SESSION, id);
    }

    fn name_outcome(&mut self, outcome: Option<Outcome>) {
        self.set(OUTCOME, outcome.map(Outcome::name));
    }

    fn remember(&mut self, memory: Memory) {
        // What cannot be remembered is asked again.
        drop(ffi::remember(self.0, memory));
    }

    fn recall(&self) -> Memory {
        ffi::recall(self.0).cloned().unwrap_or_default()
    }

    fn log(&self, priority: Priority, line: &str) {
        let priority = match priority {
            Priority::Error => libc::LOG_ERR,
            Priority::Debug => libc::LOG_DEBUG,
        };
        ffi::syslog(self.0, priority, line);
    }

    fn now(&self) -> Duration {
        monotonic()
    }
}

/// The longest item that is passed on, in bytes. Host names are shorter; the application may hold anything.
const MAX_ITEM: usize = 255;

/// An item as text for the audit line.
fn text(item: Option<&&CStr>) -> String {
    let mut text = item.map(|item| item.to_string_lossy().into_owned()).unwrap_or_default();
    let cut = (0..=MAX_ITEM.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(cut.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_cut_between_characters() {
        assert_eq!(text(None), "");
        assert_eq!(text(Some(&c"tty1")), "tty1");
        assert_eq!(text(Some(&c"\xff")), "\u{fffd}");
        let long = std::ffi::CString::new("\u{fc}".repeat(1000)).unwrap();
        assert_eq!(text(Some(&long.as_c_str())), "\u{fc}".repeat(127));
    }

    #[test]
    fn a_failed_question_is_answered_with_a_code_of_the_entry_point() {
        use PamResultCode as Pam;
        let cases = [
            // What libpam says; for a login, for the present password, for the new one.
            (Pam::PAM_AUTHTOK_ERR, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            (Pam::PAM_CONV_AGAIN, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            (Pam::PAM_SUCCESS, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            // `use_first_pass` without a password.
            (Pam::PAM_AUTH_ERR, Code::AuthErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            // Typed differently the second time.
            (Pam::PAM_TRY_AGAIN, Code::ConvErr, Code::AuthtokRecoveryErr, Code::TryAgain),
            (Pam::PAM_BUF_ERR, Code::BufErr, Code::BufErr, Code::BufErr),
            (Pam::PAM_SYSTEM_ERR, Code::SystemErr, Code::SystemErr, Code::SystemErr),
        ];
        for (pam, login, present, new) in cases {
            assert_eq!(unanswered(Question::Login, &pam), login, "{pam:?}");
            assert_eq!(unanswered(Question::Present, &pam), present, "{pam:?}");
            assert_eq!(unanswered(Question::New, &pam), new, "{pam:?}");
        }
    }
}
