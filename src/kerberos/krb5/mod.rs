//! libkrb5, wrapped: the messages of the Kerberos exchanges and the cryptography in them.
//!
//! libkrb5 builds a message and reads its reply; [`super::kdc`] carries both. Here it never contacts a KDC
//! itself. No crate offers that: GSSAPI has no password check, and its bindings have no single steps.
//!
//! | File | Subject |
//! |---|---|
//! | `raw.rs` | libkrb5's declarations, made by bindgen |
//! | `keytab.rs` | the content of a keytab |
//! | `cache.rs` | tickets in memory, and GSSAPI's access to them |
//! | `initial.rs` | the AS exchange, step by step |
//! | `service.rs` | the TGS exchange, step by step, and the check that a ticket is for this host's key |
//! | `change.rs` | the change of a password; `changepw.rs` is the service's side in tests |
//! | `refused.rs` | KRB-ERROR |
//!
//! Each value has a separate context, because two threads must not use one at once. Values refer to each
//! other by the name of a cache, which is valid in the whole process.

// A C library's functions cannot be called otherwise; each block says why it is sound.
#![allow(unsafe_code)]

mod cache;
pub(crate) mod change;
#[cfg(any(test, fuzzing))]
pub(crate) mod changepw;
mod initial;
mod keytab;
mod raw;
pub(crate) mod refused;
mod service;

use std::ffi::{CStr, CString, c_char, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

pub(super) use cache::{Cache, GssFailure, gss_credential};
pub(super) use change::ChangeExchange;
pub(super) use initial::{Client, Granted, InitialExchange, Key, Request};
pub use keytab::{Keytab, KeytabEntry, host_keytab, keytab};
pub(super) use refused::Refused;
pub(super) use service::ServiceExchange;

use self::raw::{KRB5_KDC_UNREACH, krb5_context, krb5_data, krb5_error_code, krb5_principal};
use super::KerberosError;

/// Returns the default realm of `krb5.conf`.
///
/// # Errors
/// Returns an error if `krb5.conf` is broken or names no default realm.
pub fn default_realm() -> Result<String, KerberosError> {
    let context = Context::new().map_err(Failure::other)?;
    let mut realm = ptr::null_mut();
    // SAFETY: the context is valid, and `realm` is written on success only.
    context.check(unsafe { raw::krb5_get_default_realm(context.0, &mut realm) }).map_err(Failure::other)?;
    // SAFETY: on success `realm` is a C string that we own until it is freed in the next line.
    let name = unsafe { text(realm) };
    // SAFETY: freed once, by the function that belongs to it.
    unsafe { raw::krb5_free_default_realm(context.0, realm) };
    Ok(name)
}

/// An error code of libkrb5 and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// 0 if the failure is not libkrb5's.
    pub(super) code: krb5_error_code,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn other(self) -> KerberosError {
        KerberosError::Other(self.text)
    }

    fn own(text: &str) -> Self {
        Failure { code: 0, text: text.to_owned() }
    }
}

/// The next step of an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this message to a KDC of `realm`, and pass the reply to the next step.
    Send { realm: String, message: Vec<u8> },
    /// The ticket is available.
    Done,
}

/// A function that makes one step of an exchange.
type StepFn<Exchange> = unsafe extern "C" fn(
    context: krb5_context,
    exchange: Exchange,
    reply: *mut krb5_data,
    request: *mut krb5_data,
    realm: *mut krb5_data,
    flags: *mut c_uint,
) -> krb5_error_code;

/// The flag of a step after which there is another one, the same in both exchanges.
const CONTINUE: c_uint = raw::KRB5_INIT_CREDS_STEP_FLAG_CONTINUE;
const _: () = assert!(CONTINUE == raw::KRB5_TKT_CREDS_STEP_FLAG_CONTINUE);

/// Passes the KDC's reply to an exchange, empty at first, and returns the next step.
///
/// # Safety
/// `exchange` was made with `context`.
unsafe fn step<Exchange>(
    context: &Context,
    call: StepFn<Exchange>,
    exchange: Exchange,
    reply: &[u8],
) -> Result<Step, Failure> {
    let mut reply = input(reply)?;
    let (mut message, mut realm) = (Bytes::empty(context), Bytes::empty(context));
    let mut flags = 0;
    // SAFETY: everything is valid; the reply is only read, and what is written is freed by `Bytes`.
    let code = unsafe { call(context.0, exchange, &mut reply, &mut message.raw, &mut realm.raw, &mut flags) };
    context.check(code)?;
    if flags & CONTINUE == 0 {
        return Ok(Step::Done);
    }
    let realm = String::from_utf8_lossy(realm.as_slice()).into_owned();
    Ok(Step::Send { realm, message: message.as_slice().to_vec() })
}

/// An owned `krb5_context`.
struct Context(krb5_context);

// SAFETY: a context is bound to no thread. Two threads must not use it at once, and it is not `Sync`.
unsafe impl Send for Context {}

impl Context {
    fn new() -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is written on success only.
        match unsafe { raw::krb5_init_context(&mut raw) } {
            0 => {
                // SAFETY: the context was just made; the hook has the type of the declaration and needs no
                // data.
                unsafe { raw::krb5_set_kdc_send_hook(raw, Some(unreachable_kdc), ptr::null_mut()) };
                Ok(Context(raw))
            }
            code => Err(Failure { code, text: format!("krb5.conf cannot be read (libkrb5 says {code})") }),
        }
    }

    fn check(&self, code: krb5_error_code) -> Result<(), Failure> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the context is valid; the function never returns NULL.
        let message = unsafe { raw::krb5_get_error_message(self.0, code) };
        // SAFETY: a C string that is ours until it is freed in the next line.
        let text = unsafe { text(message) };
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { raw::krb5_free_error_message(self.0, message) };
        Err(Failure { code, text })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by `new`, freed once.
        unsafe { raw::krb5_free_context(self.0) };
    }
}

/// Contacts no KDC, so that libkrb5 never sends anything itself.
unsafe extern "C" fn unreachable_kdc(
    _: krb5_context,
    _: *mut c_void,
    _: *const krb5_data,
    _: *const krb5_data,
    _: *mut *mut krb5_data,
    _: *mut *mut krb5_data,
) -> krb5_error_code {
    KRB5_KDC_UNREACH
}

/// A `krb5_principal`, freed when dropped.
struct Principal<'a> {
    context: &'a Context,
    raw: krb5_principal,
}

impl<'a> Principal<'a> {
    /// A name of one component with any characters, of this type (RFC 4120, 6.2; RFC 6806, 5).
    fn single(context: &'a Context, name: &str, realm: &str, kind: i32) -> Result<Self, Failure> {
        let length =
            |text: &str| c_uint::try_from(text.len()).map_err(|_| Failure::own("a principal is too long"));
        let mut raw = ptr::null_mut();
        let end: c_uint = 0;
        // SAFETY: context and both texts are valid for the lengths given; 0 ends the components.
        let code = unsafe {
            raw::krb5_build_principal_ext(
                context.0,
                &mut raw,
                length(realm)?,
                realm.as_ptr().cast::<c_char>(),
                length(name)?,
                name.as_ptr().cast::<c_char>(),
                end,
            )
        };
        context.check(code)?;
        // SAFETY: the library has just made it, and nothing else holds it.
        unsafe { (*raw).type_ = kind };
        Ok(Principal { context, raw })
    }

    /// A principal in libkrb5's notation; only for names whose characters are known.
    fn parse(context: &'a Context, name: &str) -> Result<Self, Failure> {
        let name = CString::new(name).map_err(|_| Failure::own("a principal holds a NUL"))?;
        let mut raw = ptr::null_mut();
        // SAFETY: context and name are valid; `raw` is written on success only.
        context.check(unsafe { raw::krb5_parse_name(context.0, name.as_ptr(), &mut raw) })?;
        Ok(Principal { context, raw })
    }

    /// Returns the principal, which the caller has to free.
    fn into_raw(self) -> krb5_principal {
        ManuallyDrop::new(self).raw
    }
}

impl Drop for Principal<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the library for us, freed once.
        unsafe { raw::krb5_free_principal(self.context.0, self.raw) };
    }
}

/// `krb5_data` that the library allocated.
struct Bytes<'a> {
    context: &'a Context,
    raw: krb5_data,
}

impl<'a> Bytes<'a> {
    fn empty(context: &'a Context) -> Self {
        Bytes { context, raw: krb5_data::default() }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: filled by the library, or empty, and not changed while it is borrowed.
        unsafe { slice(&self.raw) }
    }
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        // SAFETY: filled by the library, or empty; freed once.
        unsafe { raw::krb5_free_data_contents(self.context.0, &mut self.raw) };
    }
}

/// Wraps `bytes` as the library's input. The library does not change it, although C does not declare that.
fn input(bytes: &[u8]) -> Result<krb5_data, Failure> {
    let length = c_uint::try_from(bytes.len()).map_err(|_| Failure::own("a message is too long"))?;
    Ok(krb5_data { magic: 0, length, data: bytes.as_ptr().cast_mut().cast() })
}

/// # Safety
/// `data` was filled by the library, and lives as long as the result.
unsafe fn slice(data: &krb5_data) -> &[u8] {
    let length = usize::try_from(data.length).unwrap_or(0);
    if data.data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { std::slice::from_raw_parts(data.data.cast::<u8>(), length) }
}

/// Returns the realm of a principal, and its name if that has one component.
///
/// # Safety
/// `raw` is a valid principal, and lives as long as the result.
unsafe fn single_name<'a>(raw: krb5_principal) -> (&'a [u8], Option<&'a [u8]>) {
    // SAFETY: guaranteed by the caller; a length of 1 means that there is one component.
    unsafe {
        let principal = &*raw;
        let name = (principal.length == 1 && !principal.data.is_null()).then(|| slice(&*principal.data));
        (slice(&principal.realm), name)
    }
}

/// # Safety
/// `raw` is a valid C string.
unsafe fn text(raw: *const c_char) -> String {
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}
