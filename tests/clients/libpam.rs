//! libpam as an application calls it (security/pam_appl.h).

use std::ffi::{c_char, c_int, c_void};

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
