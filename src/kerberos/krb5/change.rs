//! The change of a password (RFC 3244): the request to the service that changes passwords, and its reply.
//!
//! `krb5_change_password` would find the service, send and wait on its own. The request is version 1,
//! which contains only the new password; every domain controller accepts it, because MIT's and Heimdal's
//! `kpasswd` send it.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_uint};
use std::net::IpAddr;
use std::ptr;

use super::initial::CHANGE_PASSWORD;
use super::raw::{
    self, ADDRTYPE_INET, ADDRTYPE_INET6, krb5_address, krb5_auth_context, krb5_creds, krb5_keyblock,
};
use super::refused::Refused;
use super::service::ticket;
use super::{Bytes, Context, Failure, input};

/// The service must prove itself, and the request gets a key of its own.
const OPTIONS: i32 = raw::AP_OPTS_MUTUAL_REQUIRED | raw::AP_OPTS_USE_SUBKEY;
/// Messages are numbered: the number reveals a reply to another request.
const DO_SEQUENCE: i32 = raw::KRB5_AUTH_CONTEXT_DO_SEQUENCE;

/// The version of a request; a reply may also have the other one.
const VERSION: u16 = 1;
const OTHER_VERSION: u16 = 0xff80;
/// The highest result code (RFC 3244, 2).
const LAST_RESULT: u16 = 7;

/// A request that was built, and whose reply can be read.
pub(crate) struct ChangeExchange {
    context: Context,
    auth: krb5_auth_context,
}

// SAFETY: everything in it belongs to its own context, which moves with it, and only one thread at a time
// uses it.
unsafe impl Send for ChangeExchange {}

impl ChangeExchange {
    /// Builds the request to change the password to `new`, with the ticket in `cache`. `local` is this host's
    /// address on the connection that the request is sent over.
    ///
    /// # Errors
    /// Returns an error if the cache holds no ticket for the service, or one that is too large.
    pub(crate) fn new(cache: &CStr, new: &[u8], local: IpAddr) -> Result<(Self, Vec<u8>), Failure> {
        let mut exchange = ChangeExchange { context: Context::new()?, auth: ptr::null_mut() };
        let service = CHANGE_PASSWORD.to_string_lossy();
        let mut creds = ticket(&exchange.context, cache, |realm| format!("{service}@{realm}"))?;
        let presented = exchange.present(&mut creds);
        // SAFETY: filled by the library, freed once; it wipes the session key.
        unsafe { raw::krb5_free_cred_contents(exchange.context.0, &mut creds) };
        let message = framed(&presented?, &exchange.protect(new, local)?)?;
        Ok((exchange, message))
    }

    /// Builds the AP-REQ (RFC 4120, 5.5.1).
    fn present(&mut self, creds: &mut krb5_creds) -> Result<Vec<u8>, Failure> {
        let context = &self.context;
        // SAFETY: the context is valid; `auth` is written on success only. It is null again only in `drop`.
        context.check(unsafe { raw::krb5_auth_con_init(context.0, &mut self.auth) })?;
        // SAFETY: both are valid.
        context.check(unsafe { raw::krb5_auth_con_setflags(context.0, self.auth, DO_SEQUENCE) })?;
        let mut request = Bytes::empty(context);
        // SAFETY: everything is valid; the library fills `request`.
        context.check(unsafe {
            raw::krb5_mk_req_extended(
                context.0,
                &mut self.auth,
                OPTIONS,
                ptr::null_mut(),
                creds,
                &mut request.raw,
            )
        })?;
        Ok(request.as_slice().to_vec())
    }

    /// Builds the KRB-PRIV (RFC 4120, 5.7.1) that holds the new password.
    fn protect(&self, new: &[u8], local: IpAddr) -> Result<Vec<u8>, Failure> {
        let (kind, mut bytes) = match local {
            IpAddr::V4(ip) => (ADDRTYPE_INET, ip.octets().to_vec()),
            IpAddr::V6(ip) => (ADDRTYPE_INET6, ip.octets().to_vec()),
        };
        let length = c_uint::try_from(bytes.len()).unwrap_or(0);
        let mut local = krb5_address { magic: 0, addrtype: kind, length, contents: bytes.as_mut_ptr() };
        let context = &self.context;
        // SAFETY: everything is valid; the library copies the address.
        context.check(unsafe {
            raw::krb5_auth_con_setaddrs(context.0, self.auth, &mut local, ptr::null_mut())
        })?;
        let mut message = Bytes::empty(context);
        // SAFETY: everything is valid, the password is only read; without a flag that asks for it no replay
        // data is written.
        context.check(unsafe {
            raw::krb5_mk_priv(context.0, self.auth, &input(new)?, &mut message.raw, ptr::null_mut())
        })?;
        Ok(message.as_slice().to_vec())
    }

    /// Reads the reply: its result code (RFC 3244, 2) and the data after it.
    ///
    /// # Errors
    /// Returns an error if the reply is not trustworthy: truncated, forged, for another request, or an
    /// unprotected error that anyone could have written. Then it stays unknown whether the change was made.
    pub(crate) fn read(self, reply: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        let (proof, message) = parts(reply).ok_or_else(|| Failure::own("the reply is cut short"))?;
        if proof.is_empty() {
            return Err(unprotected(message));
        }
        let own = SubKey::of(&self.context, self.auth)?;
        self.prove(proof)?;
        // Whatever key the service offers, the reply is protected with the request's key (RFC 3244, 2).
        let context = &self.context;
        // SAFETY: everything is valid; the library copies the key.
        context.check(unsafe { raw::krb5_auth_con_setrecvsubkey(context.0, self.auth, own.raw) })?;
        let clear = self.open(message)?;
        match clear.split_first_chunk() {
            Some((code, text)) if u16::from_be_bytes(*code) <= LAST_RESULT => {
                Ok((u16::from_be_bytes(*code), text.to_vec()))
            }
            _ => Err(Failure::own("the reply has no result")),
        }
    }

    /// Checks that the sender of the AP-REP (RFC 4120, 5.5.2) could read the request.
    fn prove(&self, proof: &[u8]) -> Result<(), Failure> {
        let mut part = ptr::null_mut();
        // SAFETY: everything is valid; `part` is written on success only.
        let code = unsafe { raw::krb5_rd_rep(self.context.0, self.auth, &input(proof)?, &mut part) };
        self.context.check(code)?;
        // SAFETY: made by the library for us just now, freed once.
        unsafe { raw::krb5_free_ap_rep_enc_part(self.context.0, part) };
        Ok(())
    }

    /// Opens the KRB-PRIV. Only this host's address in it is compared, because the service may know itself by
    /// another address.
    fn open(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let context = &self.context;
        let mut clear = Bytes::empty(context);
        // SAFETY: everything is valid, the message is only read; see `protect` for the replay data.
        context.check(unsafe {
            raw::krb5_rd_priv(context.0, self.auth, &input(message)?, &mut clear.raw, ptr::null_mut())
        })?;
        Ok(clear.as_slice().to_vec())
    }
}

impl Drop for ChangeExchange {
    fn drop(&mut self) {
        if !self.auth.is_null() {
            // SAFETY: made by the library for us, freed once, before its context.
            let _ = unsafe { raw::krb5_auth_con_free(self.context.0, self.auth) };
        }
    }
}

/// The key that was created for the request.
struct SubKey<'a> {
    context: &'a Context,
    raw: *mut krb5_keyblock,
}

impl<'a> SubKey<'a> {
    fn of(context: &'a Context, auth: krb5_auth_context) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: both are valid; `raw` is written on success only, and is then a copy of ours.
        context.check(unsafe { raw::krb5_auth_con_getsendsubkey(context.0, auth, &mut raw) })?;
        Ok(SubKey { context, raw })
    }
}

impl Drop for SubKey<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the library for us or null, which it accepts; freed once. It wipes the key.
        unsafe { raw::krb5_free_keyblock(self.context.0, self.raw) };
    }
}

/// Joins total length, version, length of the first part, and both parts (RFC 3244, 2).
fn framed(first: &[u8], second: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = |length: usize| {
        let text = "the ticket is too large for a change of the password by Kerberos";
        u16::try_from(length).map_err(|_| Failure::own(text))
    };
    let whole = length(6 + first.len() + second.len())?;
    let header = [whole, VERSION, length(first.len())?].map(u16::to_be_bytes).concat();
    Ok([&header, first, second].concat())
}

/// Splits a reply into its two parts. The first is empty if the second is a KRB-ERROR, which some domain
/// controllers send without a frame.
fn parts(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    if reply.first() == Some(&Refused::TAG) {
        return Some((&[], reply));
    }
    let (length, rest) = reply.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    let number = |bytes: &[u8; 2]| u16::from_be_bytes(*bytes);
    let is_whole = usize::from(number(length)) == reply.len();
    let is_known = [VERSION, OTHER_VERSION].contains(&number(version));
    (is_whole && is_known).then(|| rest.split_at_checked(number(first).into()))?
}

/// Describes an error that nothing protects.
fn unprotected(message: &[u8]) -> Failure {
    match Refused::read(message) {
        Ok(Some(Refused { code, data, .. })) => {
            let text = String::from_utf8_lossy(data.get(2..).unwrap_or_default()).into_owned();
            Failure { code: 0, text: format!("an unprotected KRB-ERROR {code} ({text})") }
        }
        _ => Failure::own("the reply is no Kerberos message"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::changepw::{Service, reply};
    use super::*;

    const NEW: &str = "N\u{fc}-\"w\" ";

    fn exchange(service: &Service) -> (ChangeExchange, Vec<u8>) {
        let here = IpAddr::from([127, 0, 0, 1]);
        ChangeExchange::new(service.cache.name(), NEW.as_bytes(), here).unwrap()
    }

    /// Reads the reply that `make` makes from the right one.
    fn read(make: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<(u16, Vec<u8>), Failure> {
        let service = Service::new();
        let (exchange, request) = exchange(&service);
        exchange.read(&make(service.accept(&request).reply(b"\0\0Password changed")))
    }

    #[test]
    fn the_new_password_arrives_and_the_result_comes_back() {
        let service = Service::new();
        for (result, text) in [(0_u16, &b"Password changed"[..]), (4, b"\0\x01\xff"), (7, b"")] {
            let (exchange, request) = exchange(&service);
            let mut parts = request.windows(NEW.len());
            assert!(!parts.any(|bytes| bytes == NEW.as_bytes()), "the password is in the clear");
            let accepted = service.accept(&request);
            assert_eq!(accepted.password, NEW.as_bytes());
            let answer = accepted.reply(&[&result.to_be_bytes(), text].concat());
            assert_eq!(exchange.read(&answer).unwrap(), (result, text.to_vec()));
        }
    }

    #[test]
    fn by_ipv6_too() {
        let service = Service::new();
        let (_, request) =
            ChangeExchange::new(service.cache.name(), NEW.as_bytes(), IpAddr::from([1; 16])).unwrap();
        assert_eq!(service.accept(&request).password, NEW.as_bytes());
    }

    #[test]
    fn a_reply_that_is_cut_short_or_changed_says_nothing() {
        let whole = read(|whole| whole);
        assert_eq!(whole.unwrap().0, 0);
        for part in 0..32 {
            assert!(read(|whole| whole[..whole.len() * part / 32].to_vec()).is_err(), "{part}");
            let error = read(|mut whole| {
                let at = whole.len() * part / 32;
                whole[at] ^= 0x10;
                whole
            });
            assert!(error.is_err(), "{part}");
        }
        // The lengths, corrected.
        let shorter = read(|mut whole| {
            whole.pop();
            whole[1] -= 1;
            whole
        });
        assert!(shorter.is_err());
    }

    #[test]
    fn another_exchanges_reply_is_none_to_this_one() {
        let other = || {
            let service = Service::new();
            let (_, request) = exchange(&service);
            service.accept(&request).parts(b"\0\0")
        };
        let service = Service::new();
        for which in 0..4 {
            let (exchange, request) = exchange(&service);
            let (proof, message) = service.accept(&request).parts(b"\0\0");
            let own = parts(&request).unwrap().1.to_vec();
            let (proof, message) = match which {
                0 => (other().0, message),
                1 => (proof, other().1),
                // The request itself, sent back.
                2 => (proof, own),
                _ => (proof, message),
            };
            assert_eq!(exchange.read(&reply(&proof, &message)).is_ok(), which == 3, "{which}");
        }
    }

    #[test]
    fn an_error_that_anybody_can_write_decides_nothing() {
        // GENERIC, with e-data that claims success.
        let error = b"\x7e\x51\x30\x4f\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e\
            \xa4\x11\x18\x0f20261123184937Z\xa5\x03\x02\x01\x00\xa6\x03\x02\x01\x3c\
            \xa9\x03\x1b\x01A\xaa\x13\x30\x11\xa0\x03\x02\x01\x02\xa1\x0a\x30\x08\x1b\x06krbtgt\
            \xac\x0c\x04\x0a\0\0All well";
        for answer in [error.to_vec(), reply(b"", error)] {
            let failure = read(|_| answer).unwrap_err();
            assert_eq!(failure.text, "an unprotected KRB-ERROR 60 (All well)");
        }
        assert!(read(|_| reply(b"", b"rubbish")).is_err());
        assert!(read(|_| Vec::new()).is_err());
    }

    #[test]
    fn a_result_has_two_bytes_and_is_known() {
        for result in [&b""[..], b"\0", b"\0\x08", b"\xff\xff", b"ab"] {
            let service = Service::new();
            let (exchange, request) = exchange(&service);
            let answer = service.accept(&request).reply(result);
            assert_eq!(exchange.read(&answer).unwrap_err().text, "the reply has no result", "{result:?}");
        }
    }

    #[test]
    fn a_ticket_that_does_not_fit_into_a_message_is_told() {
        assert!(framed(&[0; 65_529], &[]).is_ok());
        assert!(framed(&[0; 65_000], &[0; 530]).unwrap_err().text.contains("too large"));
    }
}
