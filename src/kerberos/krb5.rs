//! The few functions of libkrb5 that GSSAPI has no word for: the default realm, what a keytab holds, and
//! forgetting the tickets. No crate offers them.
//!
//! Declared by hand from MIT's `krb5.h` (1.20); every function here is in the library since 1.11 at the
//! latest. One context per call: a context belongs to one thread.

// A C library's functions cannot be called otherwise; each block says why it is sound.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::KerberosError;

type Code = i32;

#[repr(C)]
struct RawKeyblock {
    magic: i32,
    enctype: i32,
    length: c_uint,
    contents: *mut u8,
}

#[repr(C)]
struct RawEntry {
    magic: i32,
    principal: *mut c_void,
    timestamp: i32,
    vno: c_uint,
    key: RawKeyblock,
}

#[link(name = "krb5")]
unsafe extern "C" {
    fn krb5_init_context(context: *mut *mut c_void) -> Code;
    fn krb5_free_context(context: *mut c_void);
    fn krb5_get_error_message(context: *mut c_void, code: Code) -> *const c_char;
    fn krb5_free_error_message(context: *mut c_void, message: *const c_char);
    fn krb5_get_default_realm(context: *mut c_void, realm: *mut *mut c_char) -> Code;
    fn krb5_free_default_realm(context: *mut c_void, realm: *mut c_char);
    fn krb5_kt_resolve(context: *mut c_void, name: *const c_char, keytab: *mut *mut c_void) -> Code;
    fn krb5_kt_client_default(context: *mut c_void, keytab: *mut *mut c_void) -> Code;
    fn krb5_kt_get_name(context: *mut c_void, keytab: *mut c_void, name: *mut c_char, length: c_uint)
    -> Code;
    fn krb5_kt_close(context: *mut c_void, keytab: *mut c_void) -> Code;
    fn krb5_kt_start_seq_get(context: *mut c_void, keytab: *mut c_void, cursor: *mut *mut c_void) -> Code;
    fn krb5_kt_next_entry(
        context: *mut c_void,
        keytab: *mut c_void,
        entry: *mut RawEntry,
        cursor: *mut *mut c_void,
    ) -> Code;
    fn krb5_kt_end_seq_get(context: *mut c_void, keytab: *mut c_void, cursor: *mut *mut c_void) -> Code;
    fn krb5_free_keytab_entry_contents(context: *mut c_void, entry: *mut RawEntry) -> Code;
    fn krb5_unparse_name(context: *mut c_void, principal: *const c_void, name: *mut *mut c_char) -> Code;
    fn krb5_free_unparsed_name(context: *mut c_void, name: *mut c_char);
    fn krb5_cc_default(context: *mut c_void, cache: *mut *mut c_void) -> Code;
    fn krb5_cc_destroy(context: *mut c_void, cache: *mut c_void) -> Code;
}

/// The keytab has no further entry (`krb5.h`).
const KRB5_KT_END: Code = -1765328202;
/// There is no ticket cache yet (`krb5.h`).
const KRB5_FCC_NOFILE: Code = -1765328189;

/// One key of a keytab; the key itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeytabEntry {
    /// Whose key it is: `XCALLY$@ACME.COM`.
    pub principal: String,
    /// The key's version, which AD raises with each password change (`msDS-KeyVersionNumber`).
    pub version: u32,
    /// The encryption type's number (RFC 3961, 8): 18 is AES-256, 17 AES-128, 23 RC4.
    pub encryption: i32,
}

/// What a keytab holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keytab {
    /// Its name, a path without the `FILE:` before it.
    pub name: String,
    /// Its keys in their order.
    pub entries: Vec<KeytabEntry>,
}

/// The default realm of `krb5.conf`.
///
/// # Errors
/// `krb5.conf` is broken or names none.
pub fn default_realm() -> Result<String, KerberosError> {
    let context = Context::new()?;
    let mut realm = ptr::null_mut();
    // SAFETY: the context is valid, and `realm` is written on success only.
    context.check(unsafe { krb5_get_default_realm(context.0, &mut realm) }).map_err(Failure::other)?;
    // SAFETY: on success `realm` is a C string that we own until it is freed in the next line.
    let name = unsafe { CStr::from_ptr(realm) }.to_string_lossy().into_owned();
    // SAFETY: freed once, by the function that belongs to it.
    unsafe { krb5_free_default_realm(context.0, realm) };
    Ok(name)
}

/// Reads the keytab at `path`.
///
/// # Errors
/// It is missing, cannot be read or holds no key.
pub fn keytab(path: &Path) -> Result<Keytab, KerberosError> {
    let name = CString::new([b"FILE:", path.as_os_str().as_bytes()].concat())
        .map_err(|_| KerberosError::KeytabMissing(path.display().to_string()))?;
    let context = Context::new()?;
    let mut raw = ptr::null_mut();
    // SAFETY: context and name are valid; `raw` is written on success only.
    context.check(unsafe { krb5_kt_resolve(context.0, name.as_ptr(), &mut raw) }).map_err(Failure::other)?;
    OpenKeytab { context: &context, raw }.read()
}

/// Reads the keytab from which this process gets its own tickets (`KRB5_CLIENT_KTNAME`, or what `krb5.conf`
/// says).
///
/// # Errors
/// It is missing, cannot be read or holds no key.
pub fn client_keytab() -> Result<Keytab, KerberosError> {
    let context = Context::new()?;
    let mut raw = ptr::null_mut();
    // SAFETY: the context is valid; `raw` is written on success only.
    context.check(unsafe { krb5_kt_client_default(context.0, &mut raw) }).map_err(Failure::other)?;
    OpenKeytab { context: &context, raw }.read()
}

/// Forgets the tickets of this process's cache, so that the next ones are fetched afresh: a domain controller
/// whose key has changed does not accept the old ones.
///
/// # Errors
/// The cache could not be emptied.
pub fn forget_tickets() -> Result<(), KerberosError> {
    let context = Context::new()?;
    let mut cache = ptr::null_mut();
    // SAFETY: the context is valid; `cache` is written on success only.
    context.check(unsafe { krb5_cc_default(context.0, &mut cache) }).map_err(Failure::other)?;
    // SAFETY: `cache` was opened just now; destroying also closes it, whatever the result.
    match context.check(unsafe { krb5_cc_destroy(context.0, cache) }) {
        Err(failure) if failure.code != KRB5_FCC_NOFILE => Err(failure.other()),
        _ => Ok(()),
    }
}

/// A code of libkrb5 and its text.
struct Failure {
    code: Code,
    text: String,
}

impl Failure {
    fn other(self) -> KerberosError {
        KerberosError::Other(self.text)
    }
}

/// A `krb5_context` of our own.
struct Context(*mut c_void);

impl Context {
    fn new() -> Result<Self, KerberosError> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is written on success only.
        match unsafe { krb5_init_context(&mut raw) } {
            0 => Ok(Context(raw)),
            code => Err(KerberosError::Other(format!("krb5.conf cannot be read (libkrb5 says {code})"))),
        }
    }

    fn check(&self, code: Code) -> Result<(), Failure> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the context is valid; the function never returns NULL.
        let message = unsafe { krb5_get_error_message(self.0, code) };
        // SAFETY: a C string that is ours until it is freed in the next line.
        let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { krb5_free_error_message(self.0, message) };
        Err(Failure { code, text })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by `new`, freed once.
        unsafe { krb5_free_context(self.0) };
    }
}

/// A keytab handle, closed when dropped.
struct OpenKeytab<'a> {
    context: &'a Context,
    raw: *mut c_void,
}

impl OpenKeytab<'_> {
    fn read(&self) -> Result<Keytab, KerberosError> {
        let name = self.name()?;
        let mut cursor = ptr::null_mut();
        // SAFETY: context and keytab are valid; `cursor` is written on success only.
        let started = unsafe { krb5_kt_start_seq_get(self.context.0, self.raw, &mut cursor) };
        match self.context.check(started) {
            Ok(()) => {}
            Err(failure) if failure.code == libc::ENOENT => return Err(KerberosError::KeytabMissing(name)),
            // A file of no length has not even the format's version.
            Err(_) if std::fs::metadata(&name).is_ok_and(|m| m.len() == 0) => {
                return Err(KerberosError::KeytabEmpty(name));
            }
            Err(failure) => return Err(KerberosError::KeytabUnreadable { path: name, cause: failure.text }),
        }
        let entries = self.entries(&mut cursor);
        // SAFETY: `cursor` was started above and is ended once.
        let _ = unsafe { krb5_kt_end_seq_get(self.context.0, self.raw, &mut cursor) };
        match entries {
            Ok(entries) if entries.is_empty() => Err(KerberosError::KeytabEmpty(name)),
            Ok(entries) => Ok(Keytab { name, entries }),
            Err(failure) => Err(KerberosError::KeytabUnreadable { path: name, cause: failure.text }),
        }
    }

    fn entries(&self, cursor: &mut *mut c_void) -> Result<Vec<KeytabEntry>, Failure> {
        let mut entries = Vec::new();
        loop {
            let mut raw = RawEntry {
                magic: 0,
                principal: ptr::null_mut(),
                timestamp: 0,
                vno: 0,
                key: RawKeyblock { magic: 0, enctype: 0, length: 0, contents: ptr::null_mut() },
            };
            // SAFETY: context, keytab and cursor are valid; `raw` is filled on success only.
            let code = unsafe { krb5_kt_next_entry(self.context.0, self.raw, &mut raw, cursor) };
            if code == KRB5_KT_END {
                return Ok(entries);
            }
            self.context.check(code)?;
            let principal = self.unparse(raw.principal);
            entries.push(KeytabEntry {
                principal: String::new(),
                version: raw.vno,
                encryption: raw.key.enctype,
            });
            // SAFETY: filled by the library just now and freed once; it wipes the key.
            unsafe { krb5_free_keytab_entry_contents(self.context.0, &mut raw) };
            if let Some(entry) = entries.last_mut() {
                entry.principal = principal?;
            }
        }
    }

    fn unparse(&self, principal: *const c_void) -> Result<String, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the principal belongs to an entry that is still alive; `raw` is written on success only.
        self.context.check(unsafe { krb5_unparse_name(self.context.0, principal, &mut raw) })?;
        // SAFETY: a C string that is ours until it is freed in the next line.
        let name = unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned();
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { krb5_free_unparsed_name(self.context.0, raw) };
        Ok(name)
    }

    fn name(&self) -> Result<String, KerberosError> {
        let mut buffer = [0_u8; 4096];
        let length = c_uint::try_from(buffer.len()).unwrap_or(0);
        // SAFETY: the library writes at most `length` bytes, the NUL included.
        let code = unsafe { krb5_kt_get_name(self.context.0, self.raw, buffer.as_mut_ptr().cast(), length) };
        self.context.check(code).map_err(Failure::other)?;
        let name = CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_string_lossy();
        Ok(name.strip_prefix("FILE:").unwrap_or(&name).to_owned())
    }
}

impl Drop for OpenKeytab<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by whoever made this value, closed once.
        let _: c_int = unsafe { krb5_kt_close(self.context.0, self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keytab in MIT's file format 0x502: per entry its length, then components, realm, names, type, time,
    /// version, and the key.
    fn written(principals: &[(&[&str], &str)]) -> Vec<u8> {
        fn counted(text: &str) -> Vec<u8> {
            [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
        }
        let mut file = vec![5, 2];
        for (components, realm) in principals {
            let mut entry = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
            entry.extend(counted(realm));
            entry.extend(components.iter().flat_map(|c| counted(c)));
            entry.extend(1_u32.to_be_bytes());
            entry.extend(0_u32.to_be_bytes());
            entry.push(3);
            entry.extend(18_u16.to_be_bytes());
            entry.extend(32_u16.to_be_bytes());
            entry.extend([7; 32]);
            file.extend(u32::try_from(entry.len()).unwrap().to_be_bytes());
            file.extend(entry);
        }
        file
    }

    #[test]
    fn a_keytab_lists_its_principals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keytab");
        std::fs::write(&path, written(&[(&["host", "xcally"], "ACME.COM"), (&["XCALLY$"], "ACME.COM")]))
            .unwrap();
        let keytab = keytab(&path).unwrap();
        assert_eq!(keytab.name, path.to_str().unwrap());
        let entry = |principal: &str| KeytabEntry { principal: principal.into(), version: 3, encryption: 18 };
        assert_eq!(keytab.entries, [entry("host/xcally@ACME.COM"), entry("XCALLY$@ACME.COM")]);
    }

    #[test]
    fn broken_keytabs_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keytab");
        let name = path.to_str().unwrap().to_owned();
        assert_eq!(keytab(&path), Err(KerberosError::KeytabMissing(name.clone())));
        for empty in [&b""[..], &[5, 2]] {
            std::fs::write(&path, empty).unwrap();
            assert_eq!(keytab(&path), Err(KerberosError::KeytabEmpty(name.clone())));
        }
        std::fs::write(&path, b"this is no keytab").unwrap();
        assert!(matches!(keytab(&path), Err(KerberosError::KeytabUnreadable { .. })));
        let whole = written(&[(&["XCALLY$"], "ACME.COM")]);
        for length in 3..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(keytab(&path).is_err() || length > whole.len() - 40, "{length}");
        }
        assert!(matches!(keytab(folder.path()), Err(KerberosError::KeytabUnreadable { .. })));
    }
}
