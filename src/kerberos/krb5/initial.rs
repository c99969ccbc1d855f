//! The AS exchange (RFC 4120, 3.1), step by step: a ticket-granting ticket for a password or a key.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::ptr;

use zeroize::Zeroizing;

use super::cache::OpenCache;
use super::keytab::OpenKeytab;
use super::raw::{
    self, krb5_ccache, krb5_creds, krb5_get_init_creds_opt, krb5_init_creds_context, krb5_keytab,
    krb5_principal,
};
use super::refused::Refused;
use super::{Cache, Context, Failure, Principal, Step, single_name, step};

/// The service that changes passwords; KDCs also issue its tickets for expired passwords (MS-KILE 3.3.5.7.1).
pub(in crate::kerberos) const CHANGE_PASSWORD: &CStr = c"kadmin/changepw";

/// The client's proof of identity.
#[derive(Clone)]
pub(in crate::kerberos) enum Key {
    /// A password and its terminating NUL.
    Password(Zeroizing<Vec<u8>>),
    /// The client's keys of one version in the host keytab.
    Keytab {
        /// The version.
        version: u32,
        /// The encryption types of the keys, best first.
        encryption: Vec<i32>,
    },
}

/// The client of an exchange.
#[derive(Clone)]
pub(in crate::kerberos) enum Client {
    /// A user. The ticket must be for the sAMAccountName; the request asks the KDC to put that into the
    /// ticket, whatever name the request uses. A KDC may prefer another account's UPN to a sAMAccountName
    /// (seen with Samba 4.17), so the request uses the UPN if there is one (RFC 6806, 5: NT-ENTERPRISE).
    Person {
        /// The sAMAccountName.
        sam: String,
        /// The explicit userPrincipalName.
        upn: Option<String>,
        /// The realm.
        realm: String,
    },
    /// A principal in libkrb5's notation; the ticket must be for the same principal.
    Written(String),
}

impl Client {
    /// The realm of the account.
    pub(in crate::kerberos) fn realm(&self) -> &str {
        match self {
            Client::Person { realm, .. } => realm,
            Client::Written(name) => name.rsplit_once('@').map_or("", |(_, realm)| realm),
        }
    }

    fn principal<'a>(&self, context: &'a Context) -> Result<Principal<'a>, Failure> {
        match self {
            Client::Person { upn: Some(upn), realm, .. } => {
                Principal::single(context, upn, realm, raw::KRB5_NT_ENTERPRISE_PRINCIPAL)
            }
            Client::Person { sam, upn: None, realm } => {
                Principal::single(context, sam, realm, raw::KRB5_NT_PRINCIPAL)
            }
            Client::Written(name) => Principal::parse(context, name),
        }
    }
}

/// A request for a ticket.
#[derive(Clone)]
pub(in crate::kerberos) struct Request {
    /// The client.
    pub(in crate::kerberos) client: Client,
    /// Requests a ticket that is only valid for changing the password.
    pub(in crate::kerberos) change_password: bool,
    /// Requested lifetime in seconds; if `None`, that of `krb5.conf`.
    pub(in crate::kerberos) lifetime: Option<i32>,
    /// The cache with the ticket that armours the exchange if the KDC offers that (FAST, RFC 6113, 5.4).
    pub(in crate::kerberos) armour: Option<CString>,
}

/// A ticket-granting ticket.
pub(in crate::kerberos) struct Granted {
    /// The cache that holds it.
    pub(in crate::kerberos) cache: Cache,
    /// Lifetime in seconds, by the KDC's clock.
    pub(in crate::kerberos) seconds: u32,
    /// Name of the account that it belongs to, if that is not the requested one.
    pub(in crate::kerberos) stranger: Option<String>,
}

/// A running exchange.
pub(in crate::kerberos) struct InitialExchange {
    context: Context,
    client: krb5_principal,
    expected: Client,
    options: *mut krb5_get_init_creds_opt,
    keytab: krb5_keytab,
    raw: krb5_init_creds_context,
    /// The cache for the ticket, until it is handed over.
    cache: Option<Cache>,
    handle: krb5_ccache,
    /// The library keeps a pointer to it.
    encryption: Vec<i32>,
}

// SAFETY: everything in it belongs to its own context, which moves with it, and only one thread at a time
// uses it.
unsafe impl Send for InitialExchange {}

impl InitialExchange {
    /// Prepares an exchange; nothing is sent yet.
    ///
    /// # Errors
    /// Returns an error if `krb5.conf` is broken, the keytab cannot be opened, or the password holds a NUL.
    pub(in crate::kerberos) fn new(request: &Request, key: Key) -> Result<Self, Failure> {
        let context = Context::new()?;
        let client = request.client.principal(&context)?.into_raw();
        // From here on, dropping the value frees all pointers that are not null.
        let mut exchange = InitialExchange {
            context,
            client,
            expected: request.client.clone(),
            options: ptr::null_mut(),
            keytab: ptr::null_mut(),
            raw: ptr::null_mut(),
            cache: None,
            handle: ptr::null_mut(),
            encryption: match &key {
                Key::Keytab { encryption, .. } => encryption.clone(),
                Key::Password(_) => Vec::new(),
            },
        };
        exchange.set_options(request)?;
        exchange.begin(request, key)?;
        Ok(exchange)
    }

    fn set_options(&mut self, request: &Request) -> Result<(), Failure> {
        let context = &self.context;
        // SAFETY: the context is valid; `options` is written on success only.
        context.check(unsafe { raw::krb5_get_init_creds_opt_alloc(context.0, &mut self.options) })?;
        let cache = self.cache.insert(Cache::new()?);
        self.handle = OpenCache::new(context, cache.name())?.into_raw();
        // SAFETY: the options are valid, and so is everything they point to until `drop`; the library reads
        // only the name of the armour's cache.
        unsafe {
            raw::krb5_get_init_creds_opt_set_forwardable(self.options, 0);
            raw::krb5_get_init_creds_opt_set_proxiable(self.options, 0);
            raw::krb5_get_init_creds_opt_set_renew_life(self.options, 0);
            if matches!(request.client, Client::Person { .. }) {
                raw::krb5_get_init_creds_opt_set_canonicalize(self.options, 1);
            }
            if let Some(seconds) = request.lifetime {
                raw::krb5_get_init_creds_opt_set_tkt_life(self.options, seconds);
            }
            if let Ok(length @ 1..) = c_int::try_from(self.encryption.len()) {
                let types = self.encryption.as_mut_ptr();
                raw::krb5_get_init_creds_opt_set_etype_list(self.options, types, length);
            }
            let code = raw::krb5_get_init_creds_opt_set_out_ccache(context.0, self.options, self.handle);
            context.check(code)?;
            if let Some(name) = &request.armour {
                let armour = OpenCache::new(context, name)?;
                let code = raw::krb5_get_init_creds_opt_set_fast_ccache(context.0, self.options, armour.raw);
                context.check(code)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, request: &Request, key: Key) -> Result<(), Failure> {
        let context = &self.context;
        // SAFETY: client and options are valid, the options until the exchange is freed; without a prompter
        // the library prompts no user.
        context.check(unsafe {
            raw::krb5_init_creds_init(
                context.0,
                self.client,
                None,
                ptr::null_mut(),
                0,
                self.options,
                &mut self.raw,
            )
        })?;
        match key {
            Key::Password(password) => {
                let password = CStr::from_bytes_with_nul(&password)
                    .map_err(|_| Failure::own("a password holds a NUL"))?;
                // SAFETY: the library copies the text, and wipes its copy when the exchange is freed.
                context.check(unsafe {
                    raw::krb5_init_creds_set_password(context.0, self.raw, password.as_ptr())
                })?;
            }
            Key::Keytab { version, .. } => {
                self.keytab = OpenKeytab::host(context)?.of_version(self.client, version)?.into_raw();
                // SAFETY: the keytab stays open until the exchange is freed.
                let code = unsafe { raw::krb5_init_creds_set_keytab(context.0, self.raw, self.keytab) };
                context.check(code)?;
            }
        }
        if request.change_password {
            // SAFETY: the library copies the name.
            context.check(unsafe {
                raw::krb5_init_creds_set_service(context.0, self.raw, CHANGE_PASSWORD.as_ptr())
            })?;
        }
        Ok(())
    }

    /// Takes the KDC's reply, empty at first, and returns the next step.
    ///
    /// # Errors
    /// Returns an error if the exchange ends without a ticket; [`InitialExchange::refused`] returns the KDC's
    /// refusal, if there was one.
    pub(in crate::kerberos) fn step(&mut self, reply: &[u8]) -> Result<Step, Failure> {
        // SAFETY: the exchange belongs to the context, and the function to the exchange.
        unsafe { step(&self.context, raw::krb5_init_creds_step, self.raw, reply) }
    }

    /// Returns the refusal in the last reply, without its armour.
    pub(in crate::kerberos) fn refused(&self) -> Option<Refused> {
        let mut error = ptr::null_mut();
        // SAFETY: everything is valid; `error` is written on success only, and is then ours.
        let code = unsafe { raw::krb5_init_creds_get_error(self.context.0, self.raw, &mut error) };
        // SAFETY: as above.
        (code == 0 && !error.is_null()).then(|| unsafe { Refused::take(&self.context, error) })
    }

    /// Returns the ticket when the exchange is done.
    ///
    /// # Errors
    /// Returns an error if the exchange is not done.
    pub(in crate::kerberos) fn finish(mut self) -> Result<Granted, Failure> {
        let seconds = self.creds(|creds| {
            creds.times.endtime.cast_unsigned().saturating_sub(creds.times.authtime.cast_unsigned())
        })?;
        let stranger = self.stranger()?;
        let cache = self.cache.take().ok_or_else(|| Failure::own("there is no cache"))?;
        Ok(Granted { cache, seconds, stranger })
    }

    /// Returns the name of the ticket's account, if it is not the requested one.
    fn stranger(&self) -> Result<Option<String>, Failure> {
        match &self.expected {
            Client::Person { sam, realm, .. } => self.creds(|creds| {
                // SAFETY: the library's principal is valid while the closure runs.
                let (of, name) = unsafe { single_name(creds.client) };
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                let same = of == realm.as_bytes() && name.to_lowercase() == sam.to_lowercase();
                (!same).then_some(name)
            }),
            Client::Written(_) => self.creds(|creds| {
                // SAFETY: both principals are valid while the closure runs.
                let same = unsafe { raw::krb5_principal_compare(self.context.0, creds.client, self.client) };
                (same == 0).then(String::new)
            }),
        }
    }

    fn creds<T>(&self, look: impl FnOnce(&krb5_creds) -> T) -> Result<T, Failure> {
        let mut creds = krb5_creds::default();
        // SAFETY: everything is valid; `creds` is filled on success only.
        let code = unsafe { raw::krb5_init_creds_get_creds(self.context.0, self.raw, &mut creds) };
        self.context.check(code)?;
        let result = look(&creds);
        // SAFETY: filled by the library just now, freed once; it wipes the session key.
        unsafe { raw::krb5_free_cred_contents(self.context.0, &mut creds) };
        Ok(result)
    }
}

impl Drop for InitialExchange {
    fn drop(&mut self) {
        // SAFETY: each was made by the library for us and is freed once, the exchange before what it uses;
        // freeing a null exchange or null options does nothing.
        unsafe {
            raw::krb5_init_creds_free(self.context.0, self.raw);
            if !self.options.is_null() {
                raw::krb5_get_init_creds_opt_free(self.context.0, self.options);
            }
            if !self.keytab.is_null() {
                let _ = raw::krb5_kt_close(self.context.0, self.keytab);
            }
            if !self.handle.is_null() {
                let _ = raw::krb5_cc_close(self.context.0, self.handle);
            }
            raw::krb5_free_principal(self.context.0, self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use super::*;

    /// libkrb5 asks no user anything: the parameter has no value but C's null pointer.
    #[test]
    fn the_library_can_get_no_prompter() {
        let only: raw::krb5_prompter_fct = None;
        match only {
            None => assert_eq!(size_of_val(&only), size_of::<*const c_void>()),
            Some(never) => match *never {},
        }
        let declarations = include_str!("raw.rs");
        assert!(declarations.contains("        prompter: krb5_prompter_fct,\n"));
        assert_eq!(declarations.matches("prompter:").count(), 1);
    }
}
