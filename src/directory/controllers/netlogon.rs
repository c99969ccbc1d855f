//! The netlogon ping: a domain controller reports the site of this host.
//!
//! Pure: builds the request as an LDAP filter and reads the reply's bytes (MS-ADTS 6.3.3, 6.3.1.9).
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// Requests the extended reply with the client's site and the next closest one (NETLOGON_NT_VERSION_5 |
/// NETLOGON_NT_VERSION_5EX | NETLOGON_NT_VERSION_WITH_CLOSEST_SITE, MS-ADTS 6.3.1.1).
const VERSION: u32 = 0x2 | 0x4 | 0x10;

/// LOGON_SAM_LOGON_RESPONSE_EX and LOGON_SAM_USER_UNKNOWN_EX (MS-ADTS 6.3.1.3). The ping names no user, so
/// both are accepted.
const OPCODES: [u16; 2] = [23, 25];

/// Offset in bytes of the names, after the opcode, the flags and the domain's GUID.
const NAMES: usize = 24;
/// Number of names before the client's site: forest, domain, host, the two NetBIOS names, user, the host's
/// site.
const BEFORE: usize = 7;

/// Returns the filter of a ping for `domain` (MS-ADTS 6.3.3.2).
pub fn filter(domain: &str) -> String {
    let version: String = VERSION.to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(&(DnsDomain={})(NtVer={version}))", ldap3::ldap_escape(domain))
}

/// Returns the client's site from a NETLOGON_SAM_LOGON_RESPONSE_EX; empty if AD knows no subnet with this
/// host. `None` if the reply is malformed or another message.
pub fn client_site(answer: &[u8]) -> Option<String> {
    let opcode = u16::from_le_bytes(*answer.first_chunk()?);
    if !OPCODES.contains(&opcode) {
        return None;
    }
    // The names are compressed as in DNS (RFC 1035, 4.1.4), over the whole reply.
    let mut reader = BinDecoder::new(answer);
    reader.read_slice(NAMES).ok()?;
    for _ in 0..BEFORE {
        Name::read(&mut reader).ok()?;
    }
    let site = Name::read(&mut reader).ok()?;
    let labels: Vec<_> = site.iter().map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    Some(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Built as by Samba: names share their tails by pointers.
    fn answer() -> Vec<u8> {
        let mut bytes = vec![23, 0, 0, 0, 0xfd, 1, 0, 0];
        bytes.extend([7; 16]);
        bytes.extend(b"\x04acme\x03com\x00"); // 24: the forest
        bytes.extend([192, 24]); // the domain
        bytes.extend(b"\x02ad"); // ad.acme.com
        bytes.extend([192, 24]);
        bytes.extend(b"\x04ACME\x00\x02AD\x00\x00");
        bytes.extend(b"\x06Berlin\x00\x03Ulm\x00\x00");
        bytes.extend([5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        bytes
    }

    #[test]
    fn an_answer_with_compressed_names() {
        assert_eq!(client_site(&answer()).as_deref(), Some("Ulm"));
        let mut unknown = answer();
        let at = unknown.windows(4).position(|part| part == b"\x03Ulm").unwrap();
        unknown[at] = 0;
        assert_eq!(client_site(&unknown).as_deref(), Some(""));
    }

    #[test]
    fn every_cut_and_every_loop_is_no_answer() {
        let whole = answer();
        // The next closest site, the version and the tokens follow the client's site.
        for length in 0..whole.len() - 9 {
            assert_eq!(client_site(&whole[..length]), None, "{length}");
        }
        for (at, byte) in [(0, 19), (24, 64), (24, 192), (24, 255), (33, 0xff)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            assert_eq!(client_site(&broken), None, "{at} {byte}");
        }
        let mut looping = whole[..NAMES].to_vec();
        looping.extend([1, b'a', 192, 24]);
        assert_eq!(client_site(&looping), None);
    }

    #[test]
    fn the_question() {
        assert_eq!(filter("acme.com"), r"(&(DnsDomain=acme.com)(NtVer=\16\00\00\00))");
        assert!(ldap3::parse_filter(filter("acme.com")).is_ok());
    }
}
