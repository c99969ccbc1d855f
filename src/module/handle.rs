//! The PAM handle as this module sees it.

use std::ffi::CStr;
use std::time::Duration;

use pam::constants::{PAM_ERROR_MSG, PamResultCode};
use pam::conv::Conv;
use pam::items::{RHost, Service, Tty, User};
use pam::module::PamHandle;

use super::code::Code;
use super::ffi;
use super::memory::Memory;
use crate::protocol::{Secret, monotonic};

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

    /// Where the login comes from.
    fn items(&self) -> Items;

    /// Shows a text to the person, if the application can.
    fn tell(&mut self, text: &str);

    /// Keeps `memory` on the handle, in place of what was there.
    fn remember(&mut self, memory: Option<Memory>);

    /// What is kept on the handle.
    fn recall(&self) -> Option<Memory>;

    /// Writes one line to the system's log.
    fn log(&self, priority: Priority, line: &str);

    /// Now, by the monotonic clock.
    fn now(&self) -> Duration;
}

/// The real one.
pub struct Libpam<'a>(pub &'a mut PamHandle);

/// libpam's code for a failed question to the application, as an answer of an entry point.
fn unanswered(code: PamResultCode) -> Code {
    match code {
        PamResultCode::PAM_AUTH_ERR => Code::AuthErr,
        PamResultCode::PAM_BUF_ERR => Code::BufErr,
        PamResultCode::PAM_SYSTEM_ERR => Code::SystemErr,
        // pam_get_authtok says PAM_AUTHTOK_ERR for every failed conversation, which is about changing passwords;
        // PAM_CONV_AGAIN would promise that the call can be resumed.
        _ => Code::ConvErr,
    }
}

impl Handle for Libpam<'_> {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        match self.0.get_user(None) {
            // pam-bindings answers PAM_SYSTEM_ERR for a name that is not UTF-8: that is for the caller to refuse.
            Ok(_) | Err(PamResultCode::PAM_SYSTEM_ERR) => {}
            Err(error) => return Err(unanswered(error)),
        }
        match self.0.get_item::<User>() {
            Ok(Some(user)) => Ok(user.to_bytes().to_vec()),
            _ => Err(Code::SystemErr),
        }
    }

    fn password(&mut self, prompt: &CStr) -> Result<Secret, Code> {
        ffi::authtok(self.0, prompt).map_err(unanswered)
    }

    fn items(&self) -> Items {
        Items {
            service: text(self.0.get_item::<Service>().ok().flatten().as_deref()),
            rhost: text(self.0.get_item::<RHost>().ok().flatten().as_deref()),
            tty: text(self.0.get_item::<Tty>().ok().flatten().as_deref()),
        }
    }

    fn tell(&mut self, text: &str) {
        // Many applications cannot show texts and say that the conversation failed. The code speaks for itself.
        if let Ok(Some(conversation)) = self.0.get_item::<Conv>() {
            drop(conversation.send(PAM_ERROR_MSG, text));
        }
    }

    fn remember(&mut self, memory: Option<Memory>) {
        // What cannot be remembered is asked again.
        drop(ffi::remember(self.0, memory));
    }

    fn recall(&self) -> Option<Memory> {
        ffi::recall(self.0).cloned()
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
    fn a_failed_question_is_never_answered_with_a_code_for_changing_passwords() {
        assert_eq!(unanswered(PamResultCode::PAM_AUTHTOK_ERR), Code::ConvErr);
        assert_eq!(unanswered(PamResultCode::PAM_CONV_AGAIN), Code::ConvErr);
        assert_eq!(unanswered(PamResultCode::PAM_SUCCESS), Code::ConvErr);
        assert_eq!(
            unanswered(PamResultCode::PAM_AUTH_ERR),
            Code::AuthErr,
            "use_first_pass without a password"
        );
    }
}
