//! Interprets a KDC's refusal.
//!
//! The error code (RFC 4120, 7.5.9) is coarse. In the error's e-data (MS-KILE 2.2.2), AD adds the NTSTATUS
//! value (MS-ERREF 2.3) that a logon would have returned.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use super::der::{SEQUENCE, elements, inside, pa_data};
use crate::checked::Decided;
use crate::verdict::Outcome;

/// KRB-ERROR codes (RFC 4120, 7.5.9).
const CLIENT_UNKNOWN: u32 = 6;
pub(super) const POLICY: u32 = 12;
const CLIENT_REVOKED: u32 = 18;
const KEY_EXPIRED: u32 = 23;
const PREAUTH_FAILED: u32 = 24;

/// Meanings of the error codes that a KDC of AD may return (RFC 4120, 7.5.9; RFC 6113, 8).
const WORDS: &[(u32, &str)] = &[
    (CLIENT_UNKNOWN, "it does not know the account"),
    (7, "it does not know the service"),
    (8, "several accounts bear the name"),
    (9, "it has no key of the account"),
    (10, "the account may get no postdated ticket"),
    (11, "the ticket would have no lifetime"),
    (
        POLICY,
        "a policy forbids it: an authentication policy or silo, workstations, or a smart card that is \
         required",
    ),
    (13, "it cannot grant a requested option"),
    (14, "it supports none of the encryption types"),
    (15, "it does not support the checksum type"),
    (16, "it does not support the kind of proof"),
    (CLIENT_REVOKED, "the account is disabled, expired, locked out or outside its logon hours"),
    (20, "it has revoked the ticket"),
    (21, "the account is not yet valid"),
    (KEY_EXPIRED, "the password has expired"),
    (PREAUTH_FAILED, "the password is wrong"),
    (25, "it asks for another proof"),
    (29, "a service that it needs is not available"),
    (31, "the integrity check failed"),
    (32, "the ticket has expired"),
    (33, "the ticket is not yet valid"),
    (34, "it takes the request for a replay"),
    (37, "the clocks differ too much"),
    (41, "the message was changed on its way"),
    (44, "it does not have that version of the key"),
    (45, "it has no key of the service"),
    (52, "the answer is too long for UDP"),
    (60, "an error that it does not explain"),
    (68, "the account belongs to another realm"),
    (91, "it asks for more proof"),
    (93, "it does not know a critical option"),
];

/// Returns the meaning of a KDC's error code, with its number.
pub(super) fn described(code: u32) -> String {
    match WORDS.iter().find(|(known, _)| *known == code) {
        Some((_, words)) => format!("{words} (KDC error {code})"),
        None => format!("KDC error {code} of RFC 4120, 7.5.9"),
    }
}

/// The type of an element that holds a KERB_EXT_ERROR (MS-KILE 2.2.2: KERB_ERR_TYPE_EXTENDED).
const EXTENDED: i64 = 3;

/// NTSTATUS values of a refused logon, and the outcome for each.
const STATUSES: &[(u32, Outcome, &str)] = &[
    (0xc000_0064, Outcome::UnknownUser, "it does not know the account"),
    (0xc000_006a, Outcome::WrongPassword, "the password is wrong"),
    (0xc000_006d, Outcome::WrongPassword, "the name or the password is wrong"),
    (0xc000_006e, Outcome::AccountRestriction, "a restriction of the account forbids it"),
    (0xc000_006f, Outcome::LogonHours, "the account is outside its logon hours"),
    (0xc000_0070, Outcome::Workstation, "the account may not log in from this computer"),
    (0xc000_0071, Outcome::PasswordExpired, "the password has expired"),
    (0xc000_0072, Outcome::Disabled, "the account is disabled"),
    (0xc000_0193, Outcome::AccountExpired, "the account has expired"),
    (0xc000_0224, Outcome::MustChange, "the password must be changed"),
    (0xc000_0234, Outcome::LockedOut, "the account is locked out"),
    (0xc000_02fa, Outcome::AccountRestriction, "the account must log in with a smart card"),
    (0xc000_0413, Outcome::AccountRestriction, "an authentication policy forbids the account this computer"),
];

/// Reads the code and the e-data of a KRB-ERROR. `proved` is true if the KDC had got a proof of the password.
pub(crate) fn read(code: u32, data: &[u8], proved: bool) -> Decided {
    let status = status(data);
    let known = status.and_then(|status| STATUSES.iter().find(|(known, ..)| *known == status));
    let reason = match (status, known) {
        (Some(status), Some((.., words))) => {
            format!("the KDC says: {words} (KDC error {code}, NTSTATUS {status:08x})")
        }
        (Some(status), None) => format!("the KDC says: {}, with NTSTATUS {status:08x}", described(code)),
        (None, _) => format!("the KDC says: {}", described(code)),
    };
    let (outcome, unexplained) = match (code, known) {
        (_, Some((_, outcome, _))) => (*outcome, outcome.wants_new_password()),
        (CLIENT_UNKNOWN, None) => (Outcome::UnknownUser, false),
        (PREAUTH_FAILED, None) => (Outcome::WrongPassword, false),
        // The account's state may name the workstation or the hours.
        (POLICY, None) => (Outcome::AccountRestriction, true),
        (CLIENT_REVOKED, None) => (Outcome::Refused, true),
        (KEY_EXPIRED, None) => (Outcome::PasswordExpired, true),
        _ => (Outcome::Refused, false),
    };
    Decided { outcome, unexplained, before_proof: !proved, reason }
}

/// Returns the NTSTATUS in e-data. Windows sends a single element, Samba a list of them (METHOD-DATA).
fn status(data: &[u8]) -> Option<u32> {
    let content = inside(SEQUENCE, data)?;
    let single = pa_data(content);
    let listed = elements(content).filter(|(tag, _)| *tag == SEQUENCE).filter_map(|(_, it)| pa_data(it));
    single.into_iter().chain(listed).find_map(|(kind, value)| {
        // KERB_EXT_ERROR (MS-KILE 2.2.2): status, reserved, flags. In PA-DATA the same number is a salt, so
        // only a value with the bits of an error counts.
        let status = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
        (kind == EXTENDED && value.len() == 12 && status >> 30 == 3).then_some(status)
    })
}

/// Returns true if an AS-REQ is armoured: it holds PA-FX-FAST (RFC 6113, 5.4.2).
pub(crate) fn is_armoured(request: &[u8]) -> bool {
    const AS_REQ: u8 = 0x6a;
    const PADATA: u8 = 0xa3;
    const FX_FAST: i64 = 136;
    let fields = inside(AS_REQ, request).and_then(|request| inside(SEQUENCE, request));
    let padata = fields.and_then(|fields| elements(fields).find(|(tag, _)| *tag == PADATA));
    let list = padata.and_then(|(_, list)| inside(SEQUENCE, list)).unwrap_or_default();
    elements(list).filter_map(|(_, it)| pa_data(it)).any(|(kind, _)| kind == FX_FAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extended(status: u32) -> Vec<u8> {
        let value = [&status.to_le_bytes()[..], &[0; 4], &[1, 0, 0, 0]].concat();
        [&b"\xa1\x03\x02\x01\x03\xa2\x0e\x04\x0c"[..], &value].concat()
    }

    fn sequence(content: &[u8]) -> Vec<u8> {
        [&[SEQUENCE, u8::try_from(content.len()).unwrap()], content].concat()
    }

    #[test]
    fn the_table_of_the_specification() {
        let cases = [
            (24, 0xc000_006a, Outcome::WrongPassword),
            (6, 0xc000_0064, Outcome::UnknownUser),
            (18, 0xc000_006f, Outcome::LogonHours),
            (12, 0xc000_0070, Outcome::Workstation),
            (23, 0xc000_0071, Outcome::PasswordExpired),
            (23, 0xc000_0224, Outcome::MustChange),
            (18, 0xc000_0072, Outcome::Disabled),
            (18, 0xc000_0193, Outcome::AccountExpired),
            (18, 0xc000_0234, Outcome::LockedOut),
            (12, 0xc000_006e, Outcome::AccountRestriction),
            (12, 0xc000_02fa, Outcome::AccountRestriction),
            (12, 0xc000_0413, Outcome::AccountRestriction),
        ];
        for (code, status, outcome) in cases {
            let windows = sequence(&extended(status));
            let samba = sequence(&sequence(&extended(status)));
            for data in [windows, samba] {
                let unexplained = [Outcome::PasswordExpired, Outcome::MustChange].contains(&outcome);
                let refusal = read(code, &data, true);
                assert_eq!((refusal.outcome, refusal.unexplained), (outcome, unexplained));
                assert!(!refusal.before_proof && read(code, &data, false).before_proof);
                let numbers = format!(" (KDC error {code}, NTSTATUS {status:08x})");
                let words = refusal.reason.strip_suffix(&numbers).unwrap_or_else(|| panic!("{refusal:?}"));
                assert!(words.starts_with("the KDC says: ") && words.len() > 20, "{words}");
            }
        }
    }

    #[test]
    fn without_a_status_the_code_decides_as_far_as_it_can() {
        let cases = [
            (6, Outcome::UnknownUser, false),
            (24, Outcome::WrongPassword, false),
            (18, Outcome::Refused, true),
            (23, Outcome::PasswordExpired, true),
            (12, Outcome::AccountRestriction, true),
            (60, Outcome::Refused, false),
            (0, Outcome::Refused, false),
        ];
        for (code, outcome, unexplained) in cases {
            let refusal = read(code, b"", true);
            assert_eq!((refusal.outcome, refusal.unexplained), (outcome, unexplained), "{code}");
        }
        // An unknown status is quoted, and decides nothing.
        let refusal = read(18, &sequence(&extended(0xc000_1234)), true);
        assert!(refusal.unexplained && refusal.reason.contains("c0001234"), "{refusal:?}");
    }

    #[test]
    fn no_number_stands_alone() {
        assert_eq!(read(24, b"", true).reason, "the KDC says: the password is wrong (KDC error 24)");
        let locked = read(18, &sequence(&extended(0xc000_0234)), true).reason;
        assert_eq!(locked, "the KDC says: the account is locked out (KDC error 18, NTSTATUS c0000234)");
        assert_eq!(described(37), "the clocks differ too much (KDC error 37)");
        assert_eq!(described(99), "KDC error 99 of RFC 4120, 7.5.9");
        let mut codes: Vec<_> = WORDS.iter().map(|(code, _)| code).collect();
        codes.dedup();
        assert!(codes.is_sorted() && codes.len() == WORDS.len());
    }

    #[test]
    fn the_status_stands_anywhere_in_the_list() {
        let salt = sequence(b"\xa1\x03\x02\x01\x03\xa2\x0e\x04\x0cACME.COMjohn");
        let other = sequence(b"\xa1\x03\x02\x01\x13\xa2\x02\x04\x00");
        let data = sequence(&[salt, other, sequence(&extended(0xc000_0072))].concat());
        assert_eq!(status(&data), Some(0xc000_0072));
    }

    #[test]
    fn rubbish_is_no_status() {
        let whole = sequence(&sequence(&extended(0xc000_0072)));
        for length in 0..whole.len() {
            assert_eq!(status(&whole[..length]), None, "{length}");
        }
        for byte in 0..=u8::MAX {
            assert_eq!(status(&[byte; 64]), None);
            assert_eq!(status(&[SEQUENCE, 62].into_iter().chain([byte; 62]).collect::<Vec<_>>()), None);
        }
        // A value of another length, and one without the bits of an error.
        assert_eq!(status(&sequence(b"\xa1\x03\x02\x01\x03\xa2\x06\x04\x04\x72\0\0\xc0")), None);
        assert_eq!(status(&sequence(&extended(0x0000_0072))), None);
    }

    #[test]
    fn armour_is_told_from_the_request() {
        let tagged =
            |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let request = |kind: &[u8]| {
            let kind = tagged(0xa1, &tagged(0x02, kind));
            let padata = tagged(0xa3, &sequence(&sequence(&[&kind[..], b"\xa2\x02\x04\x00"].concat())));
            tagged(0x6a, &sequence(&[&b"\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a"[..], &padata].concat()))
        };
        assert!(is_armoured(&request(&[0, 136])));
        assert!(!is_armoured(&request(&[2])));
        assert!(!is_armoured(b""));
    }
}
