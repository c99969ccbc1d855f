//! The six entry points of a PAM module.
//!
//! `pam_hooks!` exports them and catches panics: an unwinding panic would be undefined behaviour in the
//! application, and an abort would end it. Only the shared object exports them, not our own programs.

use std::ffi::CStr;

use pam::constants::{PamFlag, PamResultCode};
use pam::module::{PamHandle, PamHooks};

use super::handle::Libpam;
use super::password::chauthtok;
use super::session::{close_session, open_session};
use super::{acct_mgmt, authenticate, setcred};
use crate::client::ask_verdict;

/// The module, for `pam_hooks!`.
pub struct Hooks;

#[cfg(not(feature = "broker"))]
mod exported {
    use super::Hooks;
    pam::pam_hooks!(Hooks);
}

impl PamHooks for Hooks {
    fn sm_authenticate(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        quiet_panics();
        authenticate(&mut Libpam(pamh), ask_verdict, &args, flags).into()
    }

    fn acct_mgmt(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        quiet_panics();
        acct_mgmt(&mut Libpam(pamh), ask_verdict, &args, flags).into()
    }

    fn sm_chauthtok(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        quiet_panics();
        chauthtok(&mut Libpam(pamh), ask_verdict, &args, flags).into()
    }

    fn sm_setcred(pamh: &mut PamHandle, args: Vec<&CStr>, _flags: PamFlag) -> PamResultCode {
        quiet_panics();
        setcred(&mut Libpam(pamh), &args).into()
    }

    fn sm_open_session(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        quiet_panics();
        open_session(&mut Libpam(pamh), ask_verdict, &args, flags).into()
    }

    fn sm_close_session(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        quiet_panics();
        close_session(&mut Libpam(pamh), ask_verdict, &args, flags).into()
    }
}

/// Empties the panic hook. The default hook writes to the application's stderr. With RUST_BACKTRACE in the
/// environment, it takes 94 ms and 35 MB each time. In the shared object, the hook belongs to its own copy of
/// std. In a program that links this crate, it is the program's hook and is left unchanged.
fn quiet_panics() {
    #[cfg(not(feature = "broker"))]
    std::panic::set_hook(Box::new(|_| {}));
}
