//! Tickets in this process's memory, under a unique name, and GSSAPI's access to them.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::ptr;

use libgssapi::credential::Cred;
use libgssapi::error::{Error as GssError, MajorFlags};

use super::raw::{self, krb5_ccache};
use super::{Context, Failure, Principal};

/// The type of cache that never touches a file.
const KIND: &CStr = c"MEMORY";

/// A ticket cache, destroyed when dropped.
pub(crate) struct Cache {
    context: Context,
    raw: krb5_ccache,
    /// `MEMORY:…`; every context of this process resolves it to the same tickets.
    name: CString,
}

// SAFETY: the handle moves with its context, and the library locks the tickets behind it.
unsafe impl Send for Cache {}
// SAFETY: a shared reference gives access to nothing but the name.
unsafe impl Sync for Cache {}

impl Cache {
    /// Creates a cache with a unique name.
    pub(in crate::kerberos) fn new() -> Result<Self, Failure> {
        let context = Context::new()?;
        let mut raw = ptr::null_mut();
        // SAFETY: context and type are valid; `raw` is written on success only.
        context.check(unsafe { raw::krb5_cc_new_unique(context.0, KIND.as_ptr(), ptr::null(), &mut raw) })?;
        let mut cache = Cache { context, raw, name: CString::default() };
        let mut name = ptr::null_mut();
        // SAFETY: context and cache are valid; `name` is written on success only.
        cache.context.check(unsafe { raw::krb5_cc_get_full_name(cache.context.0, cache.raw, &mut name) })?;
        // SAFETY: a C string that is ours until it is freed in the next line.
        cache.name = unsafe { CStr::from_ptr(name) }.to_owned();
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { raw::krb5_free_string(cache.context.0, name) };
        Ok(cache)
    }

    /// The name that other contexts open it by.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: made by `new`; destroying also closes it.
        let _ = unsafe { raw::krb5_cc_destroy(self.context.0, self.raw) };
    }
}

/// A handle on a cache in another context, closed when dropped.
pub(super) struct OpenCache<'a> {
    context: &'a Context,
    pub(super) raw: krb5_ccache,
}

impl<'a> OpenCache<'a> {
    pub(super) fn new(context: &'a Context, name: &CStr) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: context and name are valid; `raw` is written on success only.
        context.check(unsafe { raw::krb5_cc_resolve(context.0, name.as_ptr(), &mut raw) })?;
        Ok(OpenCache { context, raw })
    }

    /// Returns the principal that its tickets belong to.
    pub(super) fn principal(&self) -> Result<Principal<'a>, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: context and cache are valid; `raw` is written on success only.
        self.context.check(unsafe { raw::krb5_cc_get_principal(self.context.0, self.raw, &mut raw) })?;
        Ok(Principal { context: self.context, raw })
    }

    /// Returns the handle, which the caller has to close.
    pub(super) fn into_raw(self) -> krb5_ccache {
        ManuallyDrop::new(self).raw
    }
}

impl Drop for OpenCache<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by `new`, closed once.
        let _ = unsafe { raw::krb5_cc_close(self.context.0, self.raw) };
    }
}

/// Creates GSSAPI's credential for the owner of the tickets in the cache, from existing tickets only.
pub(in crate::kerberos) fn gss_credential(name: &CStr) -> Result<Cred, GssFailure> {
    let context = Context::new().map_err(GssFailure::Cache)?;
    let cache = OpenCache::new(&context, name).map_err(GssFailure::Cache)?;
    let (mut minor, mut cred) = (0, ptr::null_mut());
    // SAFETY: the cache is valid and is duplicated by the library; `cred` is written on success only.
    let major = unsafe {
        raw::gss_krb5_import_cred(&mut minor, cache.raw, ptr::null_mut(), ptr::null_mut(), &mut cred)
    };
    if major != 0 {
        return Err(GssFailure::Gss(GssError { major: MajorFlags::from_bits_retain(major), minor }));
    }
    // SAFETY: GSSAPI has just made it for this call, and nothing else holds it.
    Ok(unsafe { Cred::from_c(cred.cast()) })
}

/// Reason why there is no credential.
pub(in crate::kerberos) enum GssFailure {
    Cache(Failure),
    Gss(GssError),
}

#[cfg(test)]
mod tests {
    use super::super::changepw::Service;
    use super::*;

    #[test]
    fn tickets_are_in_memory_alone_and_gone_with_their_cache() {
        let service = Service::new();
        let name = service.cache.name().to_owned();
        assert!(name.to_bytes().starts_with(b"MEMORY:"), "{name:?}");
        let context = Context::new().unwrap();
        let has_tickets = || OpenCache::new(&context, &name).unwrap().principal().is_ok();
        assert!(has_tickets());
        drop(service);
        assert!(!has_tickets());
    }
}
