//! What `pam-bindings` does not offer, and the only unsafe code of this module: `pam_get_authtok`,
//! `pam_syslog`, and the data on the handle, which C hands back without its type.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};

use pam::constants::PamResultCode;
use pam::module::{PamHandle, PamResult};

use super::memory::Memory;
use crate::protocol::Secret;

/// What the verdict is kept under. Private to this file, and with the version in it: two versions of the module
/// on one handle must not read each other's memory.
const KEY: &str = concat!("motion-ad ", env!("CARGO_PKG_VERSION"));

const PAM_AUTHTOK: c_int = 6;

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_get_authtok(
        pamh: *mut PamHandle,
        item: c_int,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_syslog(pamh: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

/// The password: PAM_AUTHTOK, or, when there is none and `use_first_pass` does not forbid it, what the
/// application answers to `prompt`, which then is PAM_AUTHTOK for the modules that follow.
pub(super) fn authtok(pamh: &mut PamHandle, prompt: &CStr) -> PamResult<Secret> {
    let mut authtok = std::ptr::null();
    // SAFETY: `pamh` is libpam's own handle, borrowed for this call; `authtok` and `prompt` outlive it, and
    // libpam copies the prompt.
    let code = unsafe { pam_get_authtok(pamh, PAM_AUTHTOK, &raw mut authtok, prompt.as_ptr()) };
    match PamResultCode::try_from(code) {
        Ok(PamResultCode::PAM_SUCCESS) if !authtok.is_null() => {
            // SAFETY: on success libpam points us to a NUL-terminated string, which it keeps until the item is
            // set again; `pamh` is borrowed mutably, so nobody does that before the copy is made.
            let bytes = unsafe { CStr::from_ptr(authtok) }.to_bytes();
            Ok(Secret::new(bytes.to_vec()))
        }
        Ok(PamResultCode::PAM_SUCCESS) | Err(_) => Err(PamResultCode::PAM_SYSTEM_ERR),
        Ok(error) => Err(error),
    }
}

/// Writes one line to the system's log, as AUTHPRIV and with the names of module and service before it.
pub(super) fn syslog(pamh: &PamHandle, priority: c_int, line: &str) {
    // Our lines hold no NUL: what others typed is escaped. A line that did would not be cut, but lost.
    let Ok(line) = CString::new(line) else { return };
    // SAFETY: the format has one `%s`, its one argument is a NUL-terminated string, and both outlive the call.
    unsafe { pam_syslog(pamh, priority, c"%s".as_ptr(), line.as_ptr()) }
}

/// Keeps `memory` on the handle, in place of what was there.
pub(super) fn remember(pamh: &mut PamHandle, memory: Option<Memory>) -> PamResult<()> {
    pamh.set_data(KEY, Box::new(memory))
}

/// What [`remember`] kept.
pub(super) fn recall(pamh: &PamHandle) -> Option<&Memory> {
    // SAFETY: only `remember` stores anything under KEY, and it always stores an `Option<Memory>`.
    unsafe { pamh.get_data::<Option<Memory>>(KEY) }.ok().and_then(Option::as_ref)
}
