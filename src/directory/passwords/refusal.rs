//! Interprets AD's refusal of a simple bind.
//!
//! The result code is almost always invalidCredentials (49, RFC 4511, appendix A). The reason is a
//! hexadecimal Win32 error code after `data ` in the diagnostic message (MS-ERREF 2.2). Only that number is
//! stable.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::checked::Decided;
use crate::verdict::Outcome;

/// Win32 error codes of a refused logon, and the outcome for each.
const CODES: &[(u32, Outcome, &str)] = &[
    (0x525, Outcome::UnknownUser, "it does not know the account"),
    (0x52e, Outcome::WrongPassword, "the password is wrong"),
    (
        0x52f,
        Outcome::AccountRestriction,
        "a restriction of the account forbids binds: Protected Users, or an authentication policy or silo",
    ),
    (0x530, Outcome::LogonHours, "the account is outside its logon hours"),
    (0x531, Outcome::Workstation, "the account may not log in from this computer"),
    (0x532, Outcome::PasswordExpired, "the password has expired"),
    (0x533, Outcome::Disabled, "the account is disabled"),
    (0x568, Outcome::TooManyGroups, "the account is in too many groups"),
    (0x701, Outcome::AccountExpired, "the account has expired"),
    (0x773, Outcome::MustChange, "the password must be changed"),
    (0x775, Outcome::LockedOut, "the account is locked out"),
];

/// Sub-codes of a domain controller that takes no simple bind, because NTLM is off: the low half of
/// STATUS_NTLM_BLOCKED (MS-ERREF 2.3.1), which Samba sends, and ERROR_NTLM_BLOCKED (MS-ERREF 2.2). It has not
/// checked the password.
const BLOCKED: [u32; 2] = [0x418, 0x791];

const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;
const NO_SUCH_OBJECT: u32 = 32;
/// busy, unavailable, unwillingToPerform: this domain controller cannot answer, but another one may.
const SERVER_TROUBLE: [u32; 3] = [51, 52, 53];

/// A bind that the domain controller has not decided: it has not checked the password, so AD has counted
/// nothing. The text is its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// It has a problem.
    Trouble(String),
    /// It takes no simple bind.
    Blocked(String),
}

/// Reads an LDAP result code and its diagnostic message.
///
/// # Errors
/// Returns `Undecided` if the domain controller has not checked the password.
pub fn read(code: u32, diagnostic: &str) -> Result<Decided, Undecided> {
    let data = data_code(diagnostic);
    let (outcome, reason) = match (code, data) {
        (SUCCESS, _) => return Ok(Decided::success()),
        (INVALID_CREDENTIALS, Some(data)) if BLOCKED.contains(&data) => {
            let text = format!("it takes no simple binds, because NTLM is off (data {data:x})");
            return Err(Undecided::Blocked(text));
        }
        (INVALID_CREDENTIALS, Some(data)) => match CODES.iter().find(|(known, ..)| *known == data) {
            Some((_, outcome, words)) => (*outcome, format!("AD says: {words} (data {data:x})")),
            None => (Outcome::Refused, format!("unknown bind answer: {diagnostic}")),
        },
        (NO_SUCH_OBJECT, _) => (Outcome::UnknownUser, "AD answered noSuchObject".to_owned()),
        (code, _) if SERVER_TROUBLE.contains(&code) => {
            return Err(Undecided::Trouble(format!("LDAP result {code}: {diagnostic}")));
        }
        (code, _) => (Outcome::Refused, format!("unknown bind answer: LDAP result {code}: {diagnostic}")),
    };
    Ok(Decided { outcome, unexplained: false, before_proof: false, reason })
}

fn data_code(diagnostic: &str) -> Option<u32> {
    let (_, rest) = diagnostic.split_once("data ")?;
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    u32::from_str_radix(rest.get(..end)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(data: &str) -> Outcome {
        let text = format!(
            "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
        );
        read(49, &text).unwrap().outcome
    }

    /// Repeats [`CODES`] on purpose: this is the specification.
    #[test]
    fn every_code_has_its_outcome() {
        let table = [
            ("525", Outcome::UnknownUser),
            ("52e", Outcome::WrongPassword),
            ("52f", Outcome::AccountRestriction),
            ("530", Outcome::LogonHours),
            ("531", Outcome::Workstation),
            ("532", Outcome::PasswordExpired),
            ("533", Outcome::Disabled),
            ("568", Outcome::TooManyGroups),
            ("701", Outcome::AccountExpired),
            ("773", Outcome::MustChange),
            ("775", Outcome::LockedOut),
        ];
        for (code, outcome) in table {
            assert_eq!(refused(code), outcome, "{code}");
            assert_eq!(refused(&code.to_uppercase()), outcome, "{code}");
        }
        assert_eq!(table.len(), CODES.len(), "a code is missing in one of the tables");
    }

    #[test]
    fn an_unknown_answer_denies_and_is_quoted() {
        assert_eq!(refused("999"), Outcome::Refused);
        assert_eq!(refused("zzz"), Outcome::Refused);
        for (code, text) in [(49, ""), (49, "data"), (1, "data 52e"), (8, "strongerAuthRequired")] {
            match read(code, text) {
                Ok(Decided { outcome: Outcome::Refused, reason, .. }) => assert!(reason.contains(text)),
                other => panic!("{code} {text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_domain_controller_in_trouble_has_not_decided() {
        for code in SERVER_TROUBLE {
            assert!(matches!(read(code, "later"), Err(Undecided::Trouble(_))));
        }
        assert_eq!(read(0, ""), Ok(Decided::success()));
    }

    #[test]
    fn a_domain_controller_without_simple_binds_has_not_decided() {
        for data in ["418", "791"] {
            let text = format!(
                "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
            );
            let Err(Undecided::Blocked(text)) = read(49, &text) else { panic!("{data}") };
            assert!(text.contains(&format!("(data {data})")), "{text}");
        }
    }
}
