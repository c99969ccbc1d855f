//! Interprets AD's answer to a password change. Pure.
//!
//! By LDAP the reason is the Win32 error code (MS-ERREF 2.2) at the start of the diagnostic message. By
//! kpasswd it is a result code (RFC 3244, 2) and a text; Windows sends the policy in binary form instead of
//! the text.

use std::time::Duration;

use crate::directory::passwords::policy::{COMPLEX, Policy};
use crate::verdict::Outcome;

/// Win32 error codes of a refused change, and the outcome for each.
const CODES: &[(u32, Outcome)] = &[
    // ERROR_ACCESS_DENIED: the account lacks User-Change-Password (MS-ADTS 3.1.1.3.1.5).
    (0x5, Outcome::ChangeForbidden),
    // ERROR_INVALID_PASSWORD: the present one is wrong. For an hour, Windows also accepts a bind with the
    // previous one.
    (0x56, Outcome::WrongPassword),
    (PASSWORD_RESTRICTION, Outcome::PasswordRefused),
    (0x533, Outcome::Disabled),
    (0x701, Outcome::AccountExpired),
    (0x775, Outcome::LockedOut),
];
/// ERROR_PASSWORD_RESTRICTION.
const PASSWORD_RESTRICTION: u32 = 0x52d;

/// Samba's texts if the account or the domain allows no change, either with the code of a violated policy or
/// without any.
const FORBIDDEN: [&str; 3] =
    ["password changes disabled", "password can't be changed on this account", "error in module acl"];

/// LDAP result codes (RFC 4511, appendix A): success, and insufficientAccessRights.
const SUCCESS: u32 = 0;
const INSUFFICIENT_RIGHTS: u32 = 50;
/// busy, unavailable: the domain controller has not processed the request.
const SERVER_TROUBLE: [u32; 2] = [51, 52];

/// Result codes of kpasswd (RFC 3244, 2).
const KPASSWD_SUCCESS: u16 = 0;
const KPASSWD_SOFTERROR: u16 = 4;
const KPASSWD_ACCESSDENIED: u16 = 5;

/// Length in bytes of the policy that Windows sends by kpasswd. It begins with two zeros and is big-endian:
/// minimum length, history, properties (32 bits each), expiry, minimum age (64 bits each; 100 ns).
const NUMBERS: usize = 30;

/// Result of a change that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The new password is in force.
    Done,
    /// The policy refuses the new password.
    Policy {
        /// The domain controller's text.
        said: String,
        /// The policy, if the domain controller sent it.
        policy: Option<Policy>,
    },
    /// The change failed for another reason; the text is for the log.
    Refused(Outcome, String),
    /// There is no answer, so the change may have been made; the text is the cause.
    Lost(String),
}

impl Answer {
    /// Reads the result of a modification of `unicodePwd`.
    pub fn of_modify(code: u32, text: &str) -> Self {
        let said = || format!("AD answered LDAP result {code}: {text}");
        if code == SUCCESS {
            return Answer::Done;
        }
        let known = error_code(text).and_then(|error| CODES.iter().find(|(known, _)| *known == error));
        match known {
            _ if FORBIDDEN.iter().any(|words| text.contains(words)) => {
                Answer::Refused(Outcome::ChangeForbidden, said())
            }
            Some((PASSWORD_RESTRICTION, _)) => Answer::Policy { said: said(), policy: None },
            Some((_, outcome)) => Answer::Refused(*outcome, said()),
            None if code == INSUFFICIENT_RIGHTS => Answer::Refused(Outcome::ChangeForbidden, said()),
            None if SERVER_TROUBLE.contains(&code) => Answer::Refused(Outcome::Unavailable, said()),
            None => Answer::Refused(Outcome::Refused, said()),
        }
    }

    /// Reads a result code of kpasswd and the data after it.
    pub fn of_kpasswd(code: u16, data: &[u8]) -> Self {
        let policy = numbers(data);
        let text = match policy {
            Some(_) => String::new(),
            None => String::from_utf8_lossy(data).trim_end_matches('\0').to_owned(),
        };
        let said = format!("AD answered kpasswd result {code}: {text}");
        let said = said.trim_end_matches([':', ' ']).to_owned();
        match code {
            KPASSWD_SUCCESS => Answer::Done,
            KPASSWD_SOFTERROR => Answer::Policy { said, policy },
            KPASSWD_ACCESSDENIED => Answer::Refused(Outcome::ChangeForbidden, said),
            _ => Answer::Refused(Outcome::Refused, said),
        }
    }
}

/// Returns the Win32 error code at the start of a diagnostic message: eight digits.
fn error_code(text: &str) -> Option<u32> {
    let (digits, _) = text.split_once(':')?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Reads the policy that Windows sends by kpasswd.
fn numbers(data: &[u8]) -> Option<Policy> {
    let data: &[u8; NUMBERS] = data.try_into().ok()?;
    let (zeros, rest) = data.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (history, rest) = rest.split_first_chunk()?;
    let (properties, rest) = rest.split_first_chunk()?;
    let (_expiry, age) = rest.split_first_chunk::<8>()?;
    (*zeros == [0; 2]).then(|| Policy {
        length: u32::from_be_bytes(*length),
        history: u32::from_be_bytes(*history),
        complex: u32::from_be_bytes(*properties) & COMPLEX != 0,
        age: Duration::from_secs(
            age.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) / 10_000_000,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the outcome of an answer, if there is one.
    fn outcome(answer: &Answer) -> Option<Outcome> {
        match answer {
            Answer::Done => Some(Outcome::Success),
            Answer::Policy { .. } => Some(Outcome::PasswordRefused),
            Answer::Refused(outcome, _) => Some(*outcome),
            Answer::Lost(_) => None,
        }
    }

    #[test]
    fn each_result_of_a_modification_has_its_outcome() {
        let windows = |error: &str| {
            format!(
                "{error}: AtrErr: DSID-03191083, #1:\n\t0: {error}: DSID-03191083, problem 1005 \
                 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)"
            )
        };
        let samba =
            |text: &str| format!("0000052D: Constraint violation - check_password_restrictions: {text}");
        let cases = [
            (0, String::new(), Outcome::Success),
            (19, windows("0000052D"), Outcome::PasswordRefused),
            (
                53,
                "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0".into(),
                Outcome::PasswordRefused,
            ),
            (19, windows("00000056"), Outcome::WrongPassword),
            (19, windows("00000005"), Outcome::ChangeForbidden),
            (
                50,
                "00000005: SecErr: DSID-031A11BD, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0".into(),
                Outcome::ChangeForbidden,
            ),
            (50, "no rights".into(), Outcome::ChangeForbidden),
            (19, windows("00000775"), Outcome::LockedOut),
            (
                19,
                samba("the password is too short. It should be equal or longer than 7 characters!"),
                Outcome::PasswordRefused,
            ),
            (19, samba("password changes disabled!"), Outcome::ChangeForbidden),
            (19, samba("password can't be changed on this account!"), Outcome::ChangeForbidden),
            (
                19,
                "error in module acl: Constraint violation during LDB_MODIFY (19)".into(),
                Outcome::ChangeForbidden,
            ),
            (51, "busy".into(), Outcome::Unavailable),
            (52, "00002024: SvcErr".into(), Outcome::Unavailable),
            (
                53,
                "0000001F: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0".into(),
                Outcome::Refused,
            ),
            (32, String::new(), Outcome::Refused),
            (19, "52D: short".into(), Outcome::Refused),
        ];
        for (code, text, expected) in cases {
            let answer = Answer::of_modify(code, &text);
            assert_eq!(outcome(&answer), Some(expected), "{text}");
            match answer {
                Answer::Done => {}
                Answer::Policy { said, .. } | Answer::Refused(_, said) => assert!(said.contains(&text)),
                Answer::Lost(_) => panic!("{text}"),
            }
        }
    }

    #[test]
    fn each_result_of_kpasswd_has_its_outcome() {
        let cases: [(u16, &[u8], Outcome, &str); 6] = [
            (0, b"Password changed", Outcome::Success, ""),
            (
                4,
                b"Password too short",
                Outcome::PasswordRefused,
                "AD answered kpasswd result 4: Password too short",
            ),
            (
                5,
                b"Not permitted to change password",
                Outcome::ChangeForbidden,
                "AD answered kpasswd result 5: Not permitted to change password",
            ),
            (2, b"", Outcome::Refused, "AD answered kpasswd result 2"),
            (3, b"\xff\0", Outcome::Refused, "AD answered kpasswd result 3: \u{fffd}"),
            (7, b"initial", Outcome::Refused, "AD answered kpasswd result 7: initial"),
        ];
        for (code, data, expected, text) in cases {
            let answer = Answer::of_kpasswd(code, data);
            assert_eq!(outcome(&answer), Some(expected), "{code}");
            match answer {
                Answer::Policy { said, policy: None } | Answer::Refused(_, said) => assert_eq!(said, text),
                answer => assert_eq!(answer, Answer::Done),
            }
        }
    }

    #[test]
    fn windows_answers_its_policy_in_numbers() {
        let day = 864_000_000_000_u64;
        let answer = |zeros: u16, properties: u32| {
            let mut data = zeros.to_be_bytes().to_vec();
            for number in [8, 24, properties] {
                data.extend(u32::to_be_bytes(number));
            }
            for number in [42 * day, day] {
                data.extend(number.to_be_bytes());
            }
            Answer::of_kpasswd(4, &data)
        };
        let policy = Policy { length: 8, history: 24, complex: true, age: Duration::from_secs(86_400) };
        let said = "AD answered kpasswd result 4".to_owned();
        assert_eq!(answer(0, 1), Answer::Policy { said: said.clone(), policy: Some(policy.clone()) });
        let plain = Policy { complex: false, ..policy };
        assert_eq!(answer(0, 0x10), Answer::Policy { said, policy: Some(plain) });
        assert!(matches!(answer(1, 1), Answer::Policy { policy: None, .. }));
    }
}
