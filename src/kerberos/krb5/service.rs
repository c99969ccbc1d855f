//! The TGS exchange (RFC 4120, 3.3), step by step: a ticket for a service, and the check that it is for this
//! host's key.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use super::cache::OpenCache;
use super::keytab::OpenKeytab;
use super::raw::{self, krb5_auth_context, krb5_creds, krb5_data, krb5_tkt_creds_context};
use super::{Bytes, Context, Failure, Principal, Step, single_name, step};

/// A running exchange. It follows referrals to other realms (RFC 6806, 8); each step names the next realm.
pub(in crate::kerberos) struct ServiceExchange {
    context: Context,
    raw: krb5_tkt_creds_context,
    /// The service's ticket-granting ticket, if its session key replaces the service's key.
    own: Option<krb5_creds>,
}

// SAFETY: everything in it belongs to its own context, which moves with it, and only one thread at a time
// uses it.
unsafe impl Send for ServiceExchange {}

impl ServiceExchange {
    /// Prepares an exchange for a ticket of `service`, with the tickets in `cache`, which will also hold the
    /// new one.
    ///
    /// `service` is a principal with its realm, in libkrb5's notation.
    ///
    /// # Errors
    /// Returns an error if `krb5.conf` is broken, or the cache holds no ticket-granting ticket.
    pub(in crate::kerberos) fn new(cache: &CStr, service: &str) -> Result<Self, Failure> {
        Self::begin(Context::new()?, cache, service, None)
    }

    /// Prepares an exchange for a user-to-user ticket (RFC 4120, 3.7): it is encrypted with the session key
    /// of the service's ticket-granting ticket, which `own` holds, instead of the service's key.
    ///
    /// # Errors
    /// Like [`ServiceExchange::new`], for both caches.
    pub(in crate::kerberos) fn user_to_user(
        cache: &CStr,
        service: &str,
        own: &CStr,
    ) -> Result<Self, Failure> {
        let context = Context::new()?;
        let own = ticket(&context, own, |realm| format!("krbtgt/{realm}@{realm}"))?;
        Self::begin(context, cache, service, Some(own))
    }

    fn begin(
        context: Context,
        cache: &CStr,
        service: &str,
        own: Option<krb5_creds>,
    ) -> Result<Self, Failure> {
        // From here on, dropping the value frees what it holds.
        let mut exchange = ServiceExchange { context, raw: ptr::null_mut(), own };
        let context = &exchange.context;
        let cache = OpenCache::new(context, cache)?;
        let client = cache.principal()?;
        let service = Principal::parse(context, service)?;
        let mut wanted = krb5_creds { client: client.raw, server: service.raw, ..krb5_creds::default() };
        let mut options = 0;
        if let Some(own) = &exchange.own {
            options = raw::KRB5_GC_USER_USER;
            wanted.second_ticket = krb5_data { ..own.ticket };
        }
        let mut raw = ptr::null_mut();
        // SAFETY: everything is valid; the library copies what it needs.
        let code = unsafe { raw::krb5_tkt_creds_init(context.0, cache.raw, &mut wanted, options, &mut raw) };
        context.check(code)?;
        drop((cache, client, service));
        exchange.raw = raw;
        Ok(exchange)
    }

    /// Takes the KDC's reply, empty at first, and returns the next step. If the cache already holds a ticket,
    /// the exchange is done at once.
    ///
    /// # Errors
    /// Returns an error if the exchange ends without a ticket.
    pub(in crate::kerberos) fn step(&mut self, reply: &[u8]) -> Result<Step, Failure> {
        // SAFETY: the exchange belongs to the context, and the function to the exchange.
        unsafe { step(&self.context, raw::krb5_tkt_creds_step, self.raw, reply) }
    }

    /// Verifies that the ticket is encrypted with a key of `service` in this host's keytab, or with the
    /// session key. It presents the ticket to this host itself (as `krb5_verify_init_creds` does). No replay
    /// cache is used, because no replay is possible.
    ///
    /// # Errors
    /// Returns an error if it is encrypted with another key, or if the keytab has no such key.
    pub(in crate::kerberos) fn verify(&mut self, service: &str) -> Result<(), Failure> {
        let own = self.own.as_mut().map(|own| &raw mut own.keyblock);
        let context = &self.context;
        let service = Principal::parse(context, service)?;
        let keytab = OpenKeytab::host(context)?;
        let request = self.present()?;
        let mut auth = Authentication { context, raw: ptr::null_mut() };
        // SAFETY: everything is valid; flags of 0 leave replays and the order of messages unchecked.
        context.check(unsafe {
            let code = raw::krb5_auth_con_init(context.0, &mut auth.raw);
            if code == 0 { raw::krb5_auth_con_setflags(context.0, auth.raw, 0) } else { code }
        })?;
        if let Some(key) = own {
            // SAFETY: everything is valid; the library copies the key.
            context.check(unsafe { raw::krb5_auth_con_setuseruserkey(context.0, auth.raw, key) })?;
        }
        // SAFETY: everything is valid; the null pointers request neither options nor the ticket.
        context.check(unsafe {
            raw::krb5_rd_req(
                context.0,
                &mut auth.raw,
                &request.raw,
                service.raw,
                keytab.raw,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        })
    }

    /// Builds the AP-REQ (RFC 4120, 5.5.1) that presents the ticket to its service.
    fn present(&self) -> Result<Bytes<'_>, Failure> {
        let context = &self.context;
        let mut creds = krb5_creds::default();
        // SAFETY: everything is valid; `creds` is filled on success only.
        context.check(unsafe { raw::krb5_tkt_creds_get_creds(context.0, self.raw, &mut creds) })?;
        let mut auth = Authentication { context, raw: ptr::null_mut() };
        let mut request = Bytes::empty(context);
        // SAFETY: everything is valid; the library makes `auth` and fills `request`.
        let code = unsafe {
            raw::krb5_mk_req_extended(
                context.0,
                &mut auth.raw,
                0,
                ptr::null_mut(),
                &mut creds,
                &mut request.raw,
            )
        };
        let result = context.check(code);
        // SAFETY: filled by the library above, freed once; it wipes the session key.
        unsafe { raw::krb5_free_cred_contents(context.0, &mut creds) };
        result.map(|()| request)
    }
}

impl Drop for ServiceExchange {
    fn drop(&mut self) {
        // SAFETY: made by the library for us or null, which it accepts; freed once, before its context.
        unsafe { raw::krb5_tkt_creds_free(self.context.0, self.raw) };
        if let Some(own) = &mut self.own {
            // SAFETY: filled by the library, freed once; it wipes the session key.
            unsafe { raw::krb5_free_cred_contents(self.context.0, own) };
        }
    }
}

/// Returns the cached ticket for the service of this name in the cache's own realm; the caller has to free
/// it.
pub(super) fn ticket(
    context: &Context,
    cache: &CStr,
    service: impl FnOnce(&str) -> String,
) -> Result<krb5_creds, Failure> {
    let cache = OpenCache::new(context, cache)?;
    let client = cache.principal()?;
    // SAFETY: the principal is valid until the end of this function.
    let (realm, _) = unsafe { single_name(client.raw) };
    let realm = String::from_utf8_lossy(realm);
    let service = Principal::parse(context, &service(&realm))?;
    let mut wanted = krb5_creds { client: client.raw, server: service.raw, ..krb5_creds::default() };
    let mut creds = krb5_creds::default();
    // SAFETY: everything is valid; `creds` is filled on success only.
    context.check(unsafe { raw::krb5_cc_retrieve_cred(context.0, cache.raw, 0, &mut wanted, &mut creds) })?;
    Ok(creds)
}

/// A `krb5_auth_context`, freed when dropped.
struct Authentication<'a> {
    context: &'a Context,
    raw: krb5_auth_context,
}

impl Drop for Authentication<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the library or null, which it accepts; freed once.
        let _ = unsafe { raw::krb5_auth_con_free(self.context.0, self.raw) };
    }
}
