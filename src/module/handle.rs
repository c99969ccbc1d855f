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

/// Priority of a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// An administrator must fix something.
    Error,
    /// Written only with the argument `debug`.
    Debug,
}

/// A text for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Reason for a rejection: PAM_ERROR_MSG.
    Error(String),
    /// Information: PAM_TEXT_INFO.
    Info(String),
}

/// Name of the variable in the handle's environment that holds the id of the application's session.
pub const SESSION: &str = "MOTION_AD_SESSION";

/// Name of the variable in the handle's environment that holds the name of the outcome, with the argument
/// `outcome`.
pub const OUTCOME: &str = "MOTION_AD_OUTCOME";

/// Name of the variable in the handle's environment that holds the seconds until the password expires, with
/// the argument `messages`, if the user is warned.
pub const EXPIRES_IN: &str = "MOTION_AD_EXPIRES_IN";

/// The operations of PAM that the module uses. Tests implement it with a script.
pub trait Handle {
    /// Returns PAM_USER; libpam asks the application if it is not set.
    ///
    /// # Errors
    /// Returns the code for PAM if the application does not give a name.
    fn user(&mut self) -> Result<Vec<u8>, Code>;

    /// Returns PAM_AUTHTOK; libpam asks the application with `prompt` if it is not set.
    ///
    /// # Errors
    /// Returns the code for PAM if there is no password.
    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code>;

    /// Returns PAM_OLDAUTHTOK, the password to change; libpam asks the application if it is not set.
    ///
    /// # Errors
    /// Returns the code for PAM if there is no such password.
    fn present_password(&mut self) -> Result<Secret, Code>;

    /// Returns PAM_AUTHTOK during a change, the new password; libpam asks the application twice if it is not
    /// set.
    ///
    /// # Errors
    /// Returns the code for PAM if there is no such password or the two answers differ.
    fn new_password(&mut self) -> Result<Secret, Code>;

    /// Unsets PAM_AUTHTOK.
    fn forget_new_password(&mut self);

    /// Returns the items that describe the origin of the login.
    fn items(&self) -> Items;

    /// Shows a text to the user, if the application can.
    fn tell(&mut self, text: &Text);

    /// Gives the application the id of its session ([`SESSION`]), or removes it.
    fn name_session(&mut self, id: Option<&str>);

    /// Gives the application the name of the outcome ([`OUTCOME`]), or removes it.
    fn name_outcome(&mut self, outcome: Option<Outcome>);

    /// Gives the application the seconds until the password expires ([`EXPIRES_IN`]).
    fn name_expiry(&mut self, seconds: u64);

    /// Stores `memory` on the handle and replaces any earlier one.
    fn remember(&mut self, memory: Memory);

    /// Returns the memory on the handle.
    fn recall(&self) -> Memory;

    /// Changes the memory on the handle.
    fn note<T>(&mut self, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.recall();
        let result = change(&mut memory);
        self.remember(memory);
        result
    }

    /// Writes one line to the system's log.
    fn log(&self, priority: Priority, line: &str);

    /// Returns the present time of the monotonic clock.
    fn now(&self) -> Duration;
}

/// A handle of libpam.
pub struct Libpam<'a>(pub &'a mut PamHandle);

impl Libpam<'_> {
    /// Sets a variable of the handle's environment, or unsets it.
    fn set(&mut self, name: &str, value: Option<&str>) {
        let variable = value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
        let Ok(variable) = CString::new(variable) else { return };
        // libpam logs an error if a variable is unset that is not set.
        if value.is_some() || ffi::has_variable(self.0, &variable) {
            ffi::putenv(self.0, &variable);
        }
    }
}

/// A question to the application.
#[derive(Clone, Copy)]
enum Question {
    /// Name and password for a login.
    Login,
    /// The password to change.
    Present,
    /// The new password.
    New,
}

/// Maps libpam's code for a failed question to the application to a code of the entry point.
///
/// `pam_get_authtok` returns PAM_AUTHTOK_ERR for every failed conversation, but pam_sm_chauthtok(3) reserves
/// it for new passwords. PAM_CONV_AGAIN would promise that the call can be resumed.
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
            // pam-bindings returns PAM_SYSTEM_ERR for a name that is not UTF-8. The caller rejects such a
            // name.
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
        // Many applications cannot show texts and return a failure of the conversation. The PAM code
        // suffices.
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

    fn name_expiry(&mut self, seconds: u64) {
        self.set(EXPIRES_IN, Some(&seconds.to_string()));
    }

    fn remember(&mut self, memory: Memory) {
        // If the memory cannot be stored, later calls ask the broker again.
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

/// Maximum length of an item that is sent to the broker, in bytes. Host names are shorter; other items may
/// not be.
const MAX_ITEM: usize = 255;

/// Converts an item to text for the audit line.
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
            // libpam's code, then the code for a login, for the present password and for the new one.
            (Pam::PAM_AUTHTOK_ERR, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            (Pam::PAM_CONV_AGAIN, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            (Pam::PAM_SUCCESS, Code::ConvErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            // `use_first_pass` without a password.
            (Pam::PAM_AUTH_ERR, Code::AuthErr, Code::AuthtokRecoveryErr, Code::AuthtokErr),
            // The second answer differs from the first.
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
