//! The service that changes passwords, for tests: it has a ticket for the client, and replies as the test
//! directs.

// The fuzzer compiles it without `cfg(test)`, so clippy does not take it for a test.
#![allow(clippy::unwrap_used)]

use std::ffi::CStr;
use std::ptr;

use super::cache::OpenCache;
use super::raw::{
    self, krb5_address, krb5_auth_context, krb5_creds, krb5_data, krb5_enc_data, krb5_keyblock,
    krb5_ticket_times,
};
use super::{Bytes, Cache, Context, Principal, input};
use crate::ber;

const REALM: &str = "ACME.COM";
/// AES-256 (RFC 3962), and a key of it.
const AES_256: i32 = raw::ENCTYPE_AES256_CTS_HMAC_SHA1_96;
const KEY: [u8; 32] = [7; 32];
/// The key usage of a ticket (RFC 4120, 7.5.1).
const TICKET: i32 = raw::KRB5_KEYUSAGE_KDC_REP_TICKET;
const DO_SEQUENCE: i32 = raw::KRB5_AUTH_CONTEXT_DO_SEQUENCE;
/// Tickets of these tests are valid from 2020 until 2036.
const BEGIN: (i32, &[u8]) = (1_577_836_800, b"20200101000000Z");
const END: (i32, &[u8]) = (2_082_758_400, b"20360101000000Z");

/// The service, and a ticket for it.
pub(crate) struct Service {
    /// Holds the ticket.
    pub(crate) cache: Cache,
}

/// A request that was accepted.
pub(crate) struct Accepted {
    context: Context,
    auth: krb5_auth_context,
    /// The new password in it.
    #[cfg_attr(not(test), expect(dead_code, reason = "the fuzz target reads the answer alone"))]
    pub(crate) password: Vec<u8>,
}

fn key(bytes: &mut [u8; 32]) -> krb5_keyblock {
    krb5_keyblock { magic: 0, enctype: AES_256, length: 32, contents: bytes.as_mut_ptr() }
}

impl Service {
    pub(crate) fn new() -> Self {
        let context = Context::new().unwrap();
        let cache = Cache::new().unwrap();
        store(&context, cache.name());
        Service { cache }
    }

    /// Opens a request as the service does.
    pub(crate) fn accept(&self, request: &[u8]) -> Accepted {
        let length = usize::from(u16::from_be_bytes([request[4], request[5]]));
        let (proof, message) = request[6..].split_at(length);
        let context = Context::new().unwrap();
        let mut bytes = KEY;
        let mut auth = ptr::null_mut();
        let password = {
            let service = Principal::parse(&context, "kadmin/changepw@ACME.COM").unwrap();
            let mut clear = Bytes::empty(&context);
            // SAFETY: everything is valid, and the owner of each written value frees it.
            unsafe {
                context.check(raw::krb5_auth_con_init(context.0, &mut auth)).unwrap();
                context.check(raw::krb5_auth_con_setflags(context.0, auth, DO_SEQUENCE)).unwrap();
                context
                    .check(raw::krb5_auth_con_setuseruserkey(context.0, auth, &mut key(&mut bytes)))
                    .unwrap();
                let code = raw::krb5_rd_req(
                    context.0,
                    &mut auth,
                    &input(proof).unwrap(),
                    service.raw,
                    ptr::null_mut(),
                    ptr::null_mut(),
                    ptr::null_mut(),
                );
                context.check(code).unwrap();
                let message = input(message).unwrap();
                let code = raw::krb5_rd_priv(context.0, auth, &message, &mut clear.raw, ptr::null_mut());
                context.check(code).unwrap();
            }
            clear.as_slice().to_vec()
        };
        Accepted { context, auth, password }
    }
}

impl Accepted {
    /// The reply with this result.
    pub(crate) fn reply(self, result: &[u8]) -> Vec<u8> {
        let (proof, message) = self.parts(result);
        reply(&proof, &message)
    }

    /// Its AP-REP and its KRB-PRIV.
    pub(crate) fn parts(self, result: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let context = &self.context;
        let (mut proof, mut message) = (Bytes::empty(context), Bytes::empty(context));
        let mut ip = [192, 0, 2, 1];
        let mut local =
            krb5_address { magic: 0, addrtype: raw::ADDRTYPE_INET, length: 4, contents: ip.as_mut_ptr() };
        let mut sub = ptr::null_mut();
        // SAFETY: everything is valid, and the owner of each written value frees it.
        unsafe {
            context.check(raw::krb5_mk_rep(context.0, self.auth, &mut proof.raw)).unwrap();
            context.check(raw::krb5_auth_con_getrecvsubkey(context.0, self.auth, &mut sub)).unwrap();
            context.check(raw::krb5_auth_con_setsendsubkey(context.0, self.auth, sub)).unwrap();
            raw::krb5_free_keyblock(context.0, sub);
            let code = raw::krb5_auth_con_setaddrs(context.0, self.auth, &mut local, ptr::null_mut());
            context.check(code).unwrap();
            let result = input(result).unwrap();
            let code = raw::krb5_mk_priv(context.0, self.auth, &result, &mut message.raw, ptr::null_mut());
            context.check(code).unwrap();
        }
        (proof.as_slice().to_vec(), message.as_slice().to_vec())
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        // SAFETY: made by the library for us, freed once.
        let _ = unsafe { raw::krb5_auth_con_free(self.context.0, self.auth) };
    }
}

/// A reply of these two parts.
pub(crate) fn reply(proof: &[u8], message: &[u8]) -> Vec<u8> {
    let length = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let header = [length(6 + proof.len() + message.len()), [0, 1], length(proof.len())].concat();
    [&header, proof, message].concat()
}

/// Puts the ticket into the cache.
fn store(context: &Context, cache: &CStr) {
    let cache = OpenCache::new(context, cache).unwrap();
    let client = Principal::parse(context, "john.doe@ACME.COM").unwrap();
    let service = Principal::parse(context, "kadmin/changepw@ACME.COM").unwrap();
    let (mut bytes, der) = (KEY, ticket(context));
    let (authtime, endtime) = (BEGIN.0, END.0);
    let mut creds = krb5_creds {
        client: client.raw,
        server: service.raw,
        keyblock: key(&mut bytes),
        times: krb5_ticket_times { authtime, starttime: authtime, endtime, renew_till: 0 },
        ticket: input(&der).unwrap(),
        ..krb5_creds::default()
    };
    // SAFETY: everything is valid; the library copies what it keeps.
    unsafe {
        context.check(raw::krb5_cc_initialize(context.0, cache.raw, client.raw)).unwrap();
        context.check(raw::krb5_cc_store_cred(context.0, cache.raw, &mut creds)).unwrap();
    }
}

/// A ticket of john.doe (RFC 4120, 5.3), encrypted with the key that is also its session key.
fn ticket(context: &Context) -> Vec<u8> {
    let name = |parts: &[&str]| {
        let parts: Vec<_> = parts.iter().map(|part| tagged(0x1b, part.as_bytes())).collect();
        let kind = tagged(0xa0, &tagged(0x02, &[1]));
        tagged(0x30, &[kind, tagged(0xa1, &tagged(0x30, &parts.concat()))].concat())
    };
    let number = |tag, number: u8| tagged(tag, &tagged(0x02, &[number]));
    let realm = |tag| tagged(tag, &tagged(0x1b, REALM.as_bytes()));
    let time = |tag, time: &[u8]| tagged(tag, &tagged(0x18, time));
    let encryption = [number(0xa0, 18), tagged(0xa1, &tagged(0x04, &KEY))].concat();
    let transited = [number(0xa0, 1), tagged(0xa1, &tagged(0x04, b""))].concat();
    let secret = [
        tagged(0xa0, &tagged(0x03, &[0; 5])),
        tagged(0xa1, &tagged(0x30, &encryption)),
        realm(0xa2),
        tagged(0xa3, &name(&["john.doe"])),
        tagged(0xa4, &tagged(0x30, &transited)),
        time(0xa5, BEGIN.1),
        time(0xa7, END.1),
    ];
    let secret = encrypted(context, &tagged(0x63, &tagged(0x30, &secret.concat())));
    let encrypted = [number(0xa0, 18), tagged(0xa2, &tagged(0x04, &secret))].concat();
    let ticket = [
        number(0xa0, 5),
        realm(0xa1),
        tagged(0xa2, &name(&["kadmin", "changepw"])),
        tagged(0xa3, &tagged(0x30, &encrypted)),
    ];
    tagged(0x61, &tagged(0x30, &ticket.concat()))
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ber::begin(&mut bytes, tag, content.len());
    [&bytes, content].concat()
}

fn encrypted(context: &Context, clear: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (KEY, 0);
    // SAFETY: everything is valid; the output has the length that the library asks for.
    unsafe {
        let code = raw::krb5_c_encrypt_length(context.0, AES_256, clear.len(), &mut length);
        context.check(code).unwrap();
        let mut output = vec![0_u8; length];
        let text =
            krb5_data { magic: 0, length: length.try_into().unwrap(), data: output.as_mut_ptr().cast() };
        let mut out = krb5_enc_data { magic: 0, enctype: 0, kvno: 0, ciphertext: text };
        let input = input(clear).unwrap();
        let key = key(&mut bytes);
        let code = raw::krb5_c_encrypt(context.0, &key, TICKET, ptr::null(), &input, &mut out);
        context.check(code).unwrap();
        output
    }
}
