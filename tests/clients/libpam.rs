//! libpam's interface for applications (security/pam_appl.h).
// libpam's interface is C.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};

/// Message styles (security/_pam_types.h).
pub const PAM_PROMPT_ECHO_OFF: c_int = 1;
pub const PAM_PROMPT_ECHO_ON: c_int = 2;
pub const PAM_ERROR_MSG: c_int = 3;
pub const PAM_TEXT_INFO: c_int = 4;

/// Names of the return codes, by number.
#[rustfmt::skip]
const CODES: [&str; 32] = [
    "PAM_SUCCESS", "PAM_OPEN_ERR", "PAM_SYMBOL_ERR", "PAM_SERVICE_ERR", "PAM_SYSTEM_ERR", "PAM_BUF_ERR",
    "PAM_PERM_DENIED", "PAM_AUTH_ERR", "PAM_CRED_INSUFFICIENT", "PAM_AUTHINFO_UNAVAIL", "PAM_USER_UNKNOWN",
    "PAM_MAXTRIES", "PAM_NEW_AUTHTOK_REQD", "PAM_ACCT_EXPIRED", "PAM_SESSION_ERR", "PAM_CRED_UNAVAIL",
    "PAM_CRED_EXPIRED", "PAM_CRED_ERR", "PAM_NO_MODULE_DATA", "PAM_CONV_ERR", "PAM_AUTHTOK_ERR",
    "PAM_AUTHTOK_RECOVERY_ERR", "PAM_AUTHTOK_LOCK_BUSY", "PAM_AUTHTOK_DISABLE_AGING", "PAM_TRY_AGAIN", "PAM_IGNORE",
    "PAM_ABORT", "PAM_AUTHTOK_EXPIRED", "PAM_MODULE_UNKNOWN", "PAM_BAD_ITEM", "PAM_CONV_AGAIN", "PAM_INCOMPLETE",
];

/// Returns the name of a return code.
pub fn name(code: c_int) -> String {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    known.map_or_else(|| format!("PAM code {code}"), |name| (*name).to_owned())
}

#[repr(C)]
pub struct Message {
    pub style: c_int,
    pub text: *const c_char,
}

#[repr(C)]
pub struct Response {
    pub text: *mut c_char,
    pub code: c_int,
}

#[repr(C)]
pub struct Conversation {
    pub function: extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int,
    pub data: *mut c_void,
}

impl Conversation {
    /// Returns a conversation that answers every password prompt with `password`, which must outlive it.
    pub fn password(password: &CStr) -> Self {
        Conversation { function: type_password, data: password.as_ptr().cast_mut().cast() }
    }
}

extern "C" fn type_password(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    password: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: libpam hands over `count` messages, as Linux does: pointers in a row. It frees the array and each text
    // with free(3). `password` is the string of `Conversation::password`.
    unsafe {
        let array = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        for index in 0..count {
            if (**messages.add(index)).style == PAM_PROMPT_ECHO_OFF {
                (*array.add(index)).text = libc::strdup(password.cast());
            }
        }
        *responses = array;
    }
    0
}

#[link(name = "pam")]
unsafe extern "C" {
    pub fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut c_void,
    ) -> c_int;
    pub fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        folder: *const c_char,
        handle: *mut *mut c_void,
    ) -> c_int;
    pub fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
    pub fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_setcred(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_open_session(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_close_session(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_chauthtok(handle: *mut c_void, flags: c_int) -> c_int;
    pub fn pam_set_item(handle: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    pub fn pam_get_item(handle: *const c_void, item: c_int, value: *mut *const c_void) -> c_int;
    pub fn pam_getenv(handle: *mut c_void, name: *const c_char) -> *const c_char;
}
