//! Functions that `pam-bindings` lacks, and the only unsafe code of this module: `pam_get_authtok` and its
//! variants, `pam_getenv`, `pam_putenv`, `pam_syslog`, unsetting an item, and the data on the handle, which C
//! returns without its type.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null;

use pam::constants::PamResultCode;
use pam::items::AuthTok;
use pam::module::{PamHandle, PamResult};

use super::memory::Memory;
use crate::protocol::Secret;

/// Key of the memory on the handle. It is private to this file and contains the version: two versions of the
/// module on one handle must not read each other's memory.
const KEY: &str = concat!("motion-ad ", env!("CARGO_PKG_VERSION"));

const PAM_AUTHTOK: c_int = 6;
const PAM_OLDAUTHTOK: c_int = 7;

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_get_authtok(
        pamh: *mut PamHandle,
        item: c_int,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_get_authtok_noverify(
        pamh: *mut PamHandle,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_get_authtok_verify(
        pamh: *mut PamHandle,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_set_item(pamh: *mut PamHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_putenv(pamh: *mut PamHandle, name_value: *const c_char) -> c_int;
    fn pam_syslog(pamh: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

/// Returns the password, PAM_AUTHTOK. If there is none and `use_first_pass` does not forbid it, libpam asks
/// the application with `prompt`, and the answer becomes PAM_AUTHTOK for the modules that follow.
pub(super) fn authtok(pamh: &mut PamHandle, prompt: &CStr) -> PamResult<Secret> {
    let mut authtok = null();
    // SAFETY: `pamh` is libpam's own handle, borrowed for this call; `authtok` and `prompt` outlive it, and
    // libpam copies the prompt.
    let code = unsafe { pam_get_authtok(pamh, PAM_AUTHTOK, &raw mut authtok, prompt.as_ptr()) };
    // SAFETY: `authtok` is what libpam just answered about `pamh`.
    unsafe { taken(pamh, code, authtok) }
}

/// Returns the present password during a change: PAM_OLDAUTHTOK, or the application's answer to libpam's own
/// prompt for it, as in [`authtok`].
pub(super) fn old_authtok(pamh: &mut PamHandle) -> PamResult<Secret> {
    let mut authtok = null();
    // SAFETY: as in `authtok`; without a prompt libpam takes its own.
    let code = unsafe { pam_get_authtok(pamh, PAM_OLDAUTHTOK, &raw mut authtok, null()) };
    // SAFETY: `authtok` is what libpam just answered about `pamh`.
    unsafe { taken(pamh, code, authtok) }
}

/// Returns the new password during a change: PAM_AUTHTOK. If there is none and neither `use_authtok` nor
/// `use_first_pass` forbids it, libpam asks the application twice, with its own prompts.
///
/// `pam_get_authtok` asks twice by itself. But in libpam 1.5 it neither wipes nor frees the first answer if
/// the second one fails.
pub(super) fn new_authtok(pamh: &mut PamHandle) -> PamResult<Secret> {
    // The module that set it has verified it.
    let is_known = pamh.get_item::<AuthTok>()?.is_some();
    let mut authtok = null();
    // SAFETY: as in `authtok`; without a prompt libpam takes its own.
    let mut code = unsafe { pam_get_authtok_noverify(pamh, &raw mut authtok, null()) };
    if code == PamResultCode::PAM_SUCCESS as c_int && !is_known {
        // SAFETY: the same; `authtok` still points to what libpam keeps, which is compared with the second
        // answer.
        code = unsafe { pam_get_authtok_verify(pamh, &raw mut authtok, null()) };
    }
    // SAFETY: `authtok` is what libpam just answered about `pamh`.
    unsafe { taken(pamh, code, authtok) }
}

/// Copies a password that libpam returned.
///
/// # Safety
/// libpam has just answered `code` and, where that is a success, `authtok` about `pamh`.
unsafe fn taken(_pamh: &mut PamHandle, code: c_int, authtok: *const c_char) -> PamResult<Secret> {
    match PamResultCode::try_from(code) {
        Ok(PamResultCode::PAM_SUCCESS) if !authtok.is_null() => {
            // SAFETY: on success libpam points us to a NUL-terminated string, which it keeps until the item
            // is set again; the handle is borrowed mutably, so nobody does that before the copy is made.
            let bytes = unsafe { CStr::from_ptr(authtok) }.to_bytes();
            Ok(Secret::new(bytes.to_vec()))
        }
        Ok(PamResultCode::PAM_SUCCESS) | Err(_) => Err(PamResultCode::PAM_SYSTEM_ERR),
        Ok(error) => Err(error),
    }
}

/// Unsets PAM_AUTHTOK, which libpam wipes, so that no module that follows takes it for the new password.
pub(super) fn forget_authtok(pamh: &mut PamHandle) {
    // SAFETY: `pamh` is libpam's own handle, borrowed for this call; NULL unsets an item. It fails only for
    // callers that are no modules.
    unsafe { pam_set_item(pamh, PAM_AUTHTOK, null()) };
}

/// Returns true if the handle's environment has the variable `name`.
pub(super) fn has_variable(pamh: &mut PamHandle, name: &CStr) -> bool {
    // SAFETY: `pamh` is libpam's own handle, borrowed for this call, and `name` outlives it. The value is not
    // read.
    !unsafe { pam_getenv(pamh, name.as_ptr()) }.is_null()
}

/// Sets a variable of the handle's environment (`NAME=value`), or unsets it (`NAME`).
pub(super) fn putenv(pamh: &mut PamHandle, name_value: &CStr) {
    // SAFETY: `pamh` is libpam's own handle, borrowed for this call, and `name_value` outlives it; libpam
    // copies it. Without memory for it the application does not learn it.
    unsafe { pam_putenv(pamh, name_value.as_ptr()) };
}

/// Writes one line to the system's log, as AUTHPRIV and with the names of module and service before it.
pub(super) fn syslog(pamh: &PamHandle, priority: c_int, line: &str) {
    // Our lines hold no NUL: what others typed is escaped. A line that did would not be cut, but lost.
    let Ok(line) = CString::new(line) else { return };
    // SAFETY: the format has one `%s`, its one argument is a NUL-terminated string, and both outlive the
    // call.
    unsafe { pam_syslog(pamh, priority, c"%s".as_ptr(), line.as_ptr()) }
}

/// Stores `memory` on the handle and replaces any earlier one.
pub(super) fn remember(pamh: &mut PamHandle, memory: Memory) -> PamResult<()> {
    pamh.set_data(KEY, Box::new(memory))
}

/// Returns the memory that [`remember`] stored.
pub(super) fn recall(pamh: &PamHandle) -> Option<&Memory> {
    // SAFETY: only `remember` stores anything under KEY, and it always stores a `Memory`.
    unsafe { pamh.get_data::<Memory>(KEY) }.ok()
}
