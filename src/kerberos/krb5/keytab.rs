//! The content of a keytab.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_uint};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::raw::{self, KRB5_KT_END, krb5_keytab, krb5_keytab_entry, krb5_kt_cursor, krb5_principal};
use super::{Context, Failure, text};
use crate::kerberos::KerberosError;
use crate::name::fold;

/// One entry of a keytab; the key itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeytabEntry {
    /// The principal of the key, for example `XCALLY$@ACME.COM`.
    pub principal: String,
    /// The key's version, which AD raises with each password change (`msDS-KeyVersionNumber`).
    pub version: u32,
    /// The encryption type's number (RFC 3961, 8): 18 is AES-256, 17 AES-128, 23 RC4.
    pub encryption: i32,
}

/// The content of a keytab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keytab {
    /// Its path, without the `FILE:` prefix.
    pub name: String,
    /// Its entries in order.
    pub entries: Vec<KeytabEntry>,
}

impl Keytab {
    /// Returns this host's principal. One of `realm` comes before one of another realm, a computer account
    /// (its `sAMAccountName` ends in `$`) before a `host/…` service, and the account named after `host`
    /// before another. Among equals the first counts. A keytab that outlived a rename or another join holds
    /// several.
    pub fn machine(&self, realm: Option<&str>, host: &str) -> Option<&str> {
        // A NetBIOS name has at most 15 characters, and adcli truncates the host's name to them.
        let label = host.split('.').next().unwrap_or_default();
        let own = label.chars().take(15).chain(['$']).collect::<String>();
        let rank = |principal: &str| {
            let (name, of) = principal.rsplit_once('@')?;
            let is_account = name.ends_with('$') && !name.contains('/');
            if !is_account && !name.starts_with("host/") {
                return None;
            }
            let is_here = realm.is_some_and(|realm| fold(of) == fold(realm));
            Some((!is_here, !is_account, fold(name) != fold(&own)))
        };
        let names = self.entries.iter().map(|entry| entry.principal.as_str());
        names.filter_map(|name| Some((rank(name)?, name))).min_by_key(|(rank, _)| *rank).map(|(_, name)| name)
    }
}

/// Reads the keytab at `path`.
///
/// # Errors
/// Returns an error if the keytab is missing, cannot be read or holds no key.
pub fn keytab(path: &Path) -> Result<Keytab, KerberosError> {
    let name = CString::new([b"FILE:", path.as_os_str().as_bytes()].concat())
        .map_err(|_| KerberosError::KeytabMissing(path.display().to_string()))?;
    let context = Context::new().map_err(Failure::other)?;
    OpenKeytab::named(&context, &name).map_err(Failure::other)?.read()
}

/// Reads this host's keytab (from `KRB5_KTNAME`, or as `krb5.conf` configures it).
///
/// # Errors
/// Returns an error if the keytab is missing, cannot be read or holds no key.
pub fn host_keytab() -> Result<Keytab, KerberosError> {
    let context = Context::new().map_err(Failure::other)?;
    OpenKeytab::host(&context).map_err(Failure::other)?.read()
}

/// A keytab handle, closed when dropped.
pub(super) struct OpenKeytab<'a> {
    context: &'a Context,
    pub(super) raw: krb5_keytab,
}

impl<'a> OpenKeytab<'a> {
    /// Opens this host's keytab.
    pub(super) fn host(context: &'a Context) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the context is valid; `raw` is written on success only.
        context.check(unsafe { raw::krb5_kt_default(context.0, &mut raw) })?;
        Ok(OpenKeytab { context, raw })
    }

    fn named(context: &'a Context, name: &CStr) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: context and name are valid; `raw` is written on success only.
        context.check(unsafe { raw::krb5_kt_resolve(context.0, name.as_ptr(), &mut raw) })?;
        Ok(OpenKeytab { context, raw })
    }

    /// Copies the keys of this `version` of a principal into a keytab in memory. From a keytab with several
    /// versions, libkrb5 uses the newest. Closing the copy wipes it.
    ///
    /// # Errors
    /// Returns an error if the keytab cannot be read, or holds no such key.
    pub(super) fn of_version(&self, principal: krb5_principal, version: u32) -> Result<Self, Failure> {
        /// Number of copies so far: each has a separate name, because names are valid in the whole process.
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let name = format!("MEMORY:motion-ad-{}", COPIES.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|_| Failure::own("a keytab's name holds a NUL"))?;
        let (context, copy) = (self.context, OpenKeytab::named(self.context, &name)?);
        let mut found = false;
        self.each(|entry| {
            // SAFETY: context and both principals are valid.
            let is_own = unsafe { raw::krb5_principal_compare(context.0, entry.principal, principal) } != 0;
            if !is_own || entry.vno != version {
                return Ok(());
            }
            found = true;
            // SAFETY: context, copy and entry are valid; the library copies the entry.
            context.check(unsafe { raw::krb5_kt_add_entry(context.0, copy.raw, entry) })
        })?;
        match found {
            true => Ok(copy),
            false => Err(Failure::own("the key that was chosen has left the keytab")),
        }
    }

    /// Returns the handle, which the caller has to close.
    pub(super) fn into_raw(self) -> krb5_keytab {
        ManuallyDrop::new(self).raw
    }

    fn read(&self) -> Result<Keytab, KerberosError> {
        let name = self.name()?;
        let mut entries = Vec::new();
        let read = self.each(|entry| {
            let principal = self.unparse(entry.principal)?;
            entries.push(KeytabEntry { principal, version: entry.vno, encryption: entry.key.enctype });
            Ok(())
        });
        match read {
            Ok(()) if entries.is_empty() => Err(KerberosError::KeytabEmpty(name)),
            Ok(()) => Ok(Keytab { name, entries }),
            Err(failure) if failure.code == libc::ENOENT => Err(KerberosError::KeytabMissing(name)),
            // An empty file lacks even the format's version.
            Err(_) if std::fs::metadata(&name).is_ok_and(|m| m.len() == 0) => {
                Err(KerberosError::KeytabEmpty(name))
            }
            Err(failure) => Err(KerberosError::KeytabUnreadable { path: name, cause: failure.text }),
        }
    }

    /// Passes each entry to `visit`, which may read it during the call.
    fn each(&self, visit: impl FnMut(&mut krb5_keytab_entry) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut cursor = ptr::null_mut();
        // SAFETY: context and keytab are valid; `cursor` is written on success only.
        let started = unsafe { raw::krb5_kt_start_seq_get(self.context.0, self.raw, &mut cursor) };
        self.context.check(started)?;
        let visited = self.visit(&mut cursor, visit);
        // SAFETY: `cursor` was started above and is ended once.
        let _ = unsafe { raw::krb5_kt_end_seq_get(self.context.0, self.raw, &mut cursor) };
        visited
    }

    fn visit(
        &self,
        cursor: &mut krb5_kt_cursor,
        mut visit: impl FnMut(&mut krb5_keytab_entry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let mut entry = krb5_keytab_entry::default();
            // SAFETY: context, keytab and cursor are valid; `entry` is filled on success only.
            let code = unsafe { raw::krb5_kt_next_entry(self.context.0, self.raw, &mut entry, cursor) };
            if code == KRB5_KT_END {
                return Ok(());
            }
            self.context.check(code)?;
            let visited = visit(&mut entry);
            // SAFETY: filled by the library just now and freed once; it wipes the key.
            unsafe { raw::krb5_free_keytab_entry_contents(self.context.0, &mut entry) };
            visited?;
        }
    }

    fn unparse(&self, principal: krb5_principal) -> Result<String, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the principal belongs to an entry that is still alive; `raw` is written on success only.
        self.context.check(unsafe { raw::krb5_unparse_name(self.context.0, principal, &mut raw) })?;
        // SAFETY: a C string that is ours until it is freed in the next line.
        let name = unsafe { text(raw) };
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { raw::krb5_free_unparsed_name(self.context.0, raw) };
        Ok(name)
    }

    fn name(&self) -> Result<String, KerberosError> {
        let mut buffer = [0_u8; 4096];
        let length = c_uint::try_from(buffer.len()).unwrap_or(0);
        // SAFETY: the library writes at most `length` bytes, the NUL included.
        let code =
            unsafe { raw::krb5_kt_get_name(self.context.0, self.raw, buffer.as_mut_ptr().cast(), length) };
        self.context.check(code).map_err(Failure::other)?;
        let name = CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_string_lossy();
        Ok(name.strip_prefix("FILE:").unwrap_or(&name).to_owned())
    }
}

impl Drop for OpenKeytab<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by the creator of this value, closed once.
        let _: c_int = unsafe { raw::krb5_kt_close(self.context.0, self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kerberos::krb5::Principal;

    /// Builds a keytab in MIT's file format 0x502: each entry has its length, then components, realm, names,
    /// type, time, version, and the key.
    fn written(principals: &[(&[&str], &str)]) -> Vec<u8> {
        let third: Vec<_> = principals.iter().map(|(components, realm)| (*components, *realm, 3)).collect();
        versions(&third)
    }

    /// The same with the version of each entry.
    fn versions(principals: &[(&[&str], &str, u8)]) -> Vec<u8> {
        fn counted(text: &str) -> Vec<u8> {
            [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
        }
        let mut file = vec![5, 2];
        for (components, realm, version) in principals {
            let mut entry = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
            entry.extend(counted(realm));
            entry.extend(components.iter().flat_map(|c| counted(c)));
            entry.extend(1_u32.to_be_bytes());
            entry.extend(0_u32.to_be_bytes());
            entry.push(*version);
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
    fn a_copy_holds_one_version_of_one_principal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keytab");
        let (own, other): (&[&str], &[&str]) = (&["XCALLY$"], &["host", "xcally"]);
        let file = [(own, "ACME.COM", 3), (own, "ACME.COM", 2), (own, "B", 2), (other, "ACME.COM", 2)];
        std::fs::write(&path, versions(&file)).unwrap();
        let context = Context::new().unwrap();
        let name = CString::new(format!("FILE:{}", path.display())).unwrap();
        let whole = OpenKeytab::named(&context, &name).unwrap();
        let principal = Principal::parse(&context, "XCALLY$@ACME.COM").unwrap();
        let copies: Vec<_> =
            [2, 3].map(|version| whole.of_version(principal.raw, version).unwrap()).into_iter().collect();
        for (copy, version) in copies.iter().zip([2, 3]) {
            let entry = KeytabEntry { principal: "XCALLY$@ACME.COM".into(), version, encryption: 18 };
            assert_eq!(copy.read().unwrap().entries, [entry]);
        }
        let failure = whole.of_version(principal.raw, 4).err().unwrap();
        assert_eq!(failure.text, "the key that was chosen has left the keytab");
        // The file is as it was.
        assert_eq!(whole.read().unwrap().entries.len(), file.len());
    }

    #[test]
    fn this_host_is_the_account_of_its_realm_and_its_name() {
        let cases: [(&[&str], &str); 9] = [
            (&["XCALLY$@ACME.COM", "host/XCALLY@ACME.COM"], "XCALLY$@ACME.COM"),
            (
                &["host/XCALLY@ACME.COM", "host/xcally.acme.com@ACME.COM", "XCALLY$@ACME.COM"],
                "XCALLY$@ACME.COM",
            ),
            (&["HTTP/x@ACME.COM", "host/x.acme.com@ACME.COM"], "host/x.acme.com@ACME.COM"),
            (&["host/x$y@ACME.COM"], "host/x$y@ACME.COM"),
            (&["OLDNAME$@ACME.COM", "XCALLY$@ACME.COM"], "XCALLY$@ACME.COM"),
            (&["XCALLY$@OTHER.EXAMPLE", "XCALLY$@ACME.COM"], "XCALLY$@ACME.COM"),
            (&["XCALLY$@OTHER.EXAMPLE", "OLDNAME$@ACME.COM"], "OLDNAME$@ACME.COM"),
            // A host named differently from its account, and one that changed its realm.
            (&["VOICE01$@ACME.COM", "VOICE02$@ACME.COM"], "VOICE01$@ACME.COM"),
            (&["XCALLY$@OTHER.EXAMPLE"], "XCALLY$@OTHER.EXAMPLE"),
        ];
        for (principals, chosen) in cases {
            let entry =
                |name: &&str| KeytabEntry { principal: (*name).to_owned(), version: 1, encryption: 18 };
            let keytab = Keytab { name: "k".into(), entries: principals.iter().map(entry).collect() };
            assert_eq!(keytab.machine(Some("acme.com"), "xcally.acme.com"), Some(chosen), "{principals:?}");
        }
        let long = KeytabEntry { principal: "CALLCENTERHAMBU$@A".into(), version: 1, encryption: 18 };
        let other = KeytabEntry { principal: "OLD$@A".into(), ..long.clone() };
        let keytab = Keytab { name: "k".into(), entries: vec![other, long] };
        assert_eq!(keytab.machine(None, "callcenterhamburg"), Some("CALLCENTERHAMBU$@A"));
        assert_eq!(Keytab { name: "k".into(), entries: Vec::new() }.machine(None, "x"), None);
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
