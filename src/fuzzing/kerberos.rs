//! What a KDC and a password server answer.

use std::net::{IpAddr, Ipv4Addr};

use crate::directory::passwords::{change as changed, refusal};
use crate::kerberos;
use crate::kerberos::krb5::change::ChangeExchange;
use crate::kerberos::krb5::changepw;
use crate::kerberos::krb5::refused::Refused;
use crate::verdict::Outcome;

pub(super) fn kdc_error(data: &[u8]) {
    let Ok(Some(refused)) = Refused::read(data) else { return };
    for proved in [false, true] {
        let decided = kerberos::refusal::read(refused.code, &refused.data, proved);
        assert_ne!(decided.outcome, Outcome::Success);
    }
}

/// The e-data of an error, whose code is the first byte. It is never a success, and an element counts alike
/// alone and in a list.
pub(super) fn edata(data: &[u8]) {
    kerberos::refusal::is_armoured(data);
    let Some((code, data)) = data.split_first() else { return };
    let sequence = |content: &[u8]| {
        let mut bytes = Vec::new();
        crate::ber::begin(&mut bytes, 0x30, content.len());
        [&bytes, content].concat()
    };
    let read = |data: &[u8]| kerberos::refusal::read((*code).into(), data, true);
    assert_ne!(read(data).outcome, Outcome::Success);
    let (single, listed) = (sequence(data), sequence(&sequence(data)));
    if read(&listed) != read(b"") {
        assert_eq!(read(&listed), read(&single));
    }
}

/// A reply of kpasswd: the right one with changes, each of two bytes of place and one of value, or any bytes
/// after a byte zero. Only the right reply has a result.
pub(super) fn kpasswd(data: &[u8]) {
    thread_local! {
        static SERVICE: changepw::Service = changepw::Service::new();
    }
    SERVICE.with(|service| {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (exchange, request) = ChangeExchange::new(service.cache.name(), b"new", local).unwrap();
        let mut reply = service.accept(&request).reply(b"\0\0done");
        match data.split_first() {
            Some((0, any)) => reply = any.to_vec(),
            _ => {
                let length = reply.len();
                for change in data.chunks_exact(3) {
                    reply[usize::from(u16::from_be_bytes([change[0], change[1]])) % length] ^= change[2];
                }
            }
        }
        if let Ok(result) = exchange.read(&reply) {
            assert_eq!(result, (0, b"done".to_vec()), "a reply that the service did not write counts");
        }
    });
}

/// Codes and texts by which a domain controller refuses. Only the code of a success is one.
pub(super) fn refused(data: &[u8]) {
    let [high, low, rest @ ..] = data else { return };
    let code = u16::from_be_bytes([*high, *low]);
    let said = String::from_utf8_lossy(rest);
    let bind = refusal::read(code.into(), &said);
    assert_eq!(bind.is_ok_and(|decided| decided.outcome == Outcome::Success), code == 0);
    for answer in [changed::Answer::of_modify(code.into(), &said), changed::Answer::of_kpasswd(code, rest)] {
        assert_eq!(answer == changed::Answer::Done, code == 0);
        assert!(!matches!(answer, changed::Answer::Refused(Outcome::Success, _)));
    }
}
