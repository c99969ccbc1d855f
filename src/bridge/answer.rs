//! The reply to a bind: LDAP's result code and AD's own diagnostic text, from which applications read the
//! cause. Pure: no I/O.

use super::message::{Outcome, code};
use crate::verdict;

/// AD's sub-code: the hexadecimal number after `data ` in the diagnostic text, which applications read.
pub type Data = &'static str;

/// Result of a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Name of the outcome, for the log.
    pub name: &'static str,
    /// AD's sub-code if the password or the account is the reason.
    pub data: Option<Data>,
    /// Result that is sent to the client.
    pub outcome: Outcome,
    /// Cause for the log, if PAM itself failed.
    pub problem: String,
    /// Id of the session that the login registered, whatever its result.
    pub session: Option<String>,
}

impl Answer {
    /// Returns the reply to a bind that succeeded.
    pub fn success() -> Self {
        Answer::with(verdict::Outcome::Success.name(), None, Outcome::success())
    }

    /// Returns result code 49 with AD's text: the account may not log in, or the password is wrong.
    pub fn refused(name: &'static str, data: Data) -> Self {
        let text = format!(
            "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
        );
        Answer::with(name, Some(data), Outcome::new(code::INVALID_CREDENTIALS, text))
    }

    /// Returns a reply without a sub-code: the bind was not decided, or was rejected before any login
    /// attempt.
    pub fn other(name: &'static str, code: u8, text: &str) -> Self {
        Answer::with(name, None, Outcome::new(code, text))
    }

    fn with(name: &'static str, data: Option<Data>, outcome: Outcome) -> Self {
        Answer { name, data, outcome, problem: String::new(), session: None }
    }

    /// Returns the reply to a bind that PAM did not decide, because of `problem`.
    pub fn undecided(problem: impl ToString) -> Self {
        Answer { problem: problem.to_string(), ..Answer::of(verdict::Outcome::Misconfigured) }
    }

    /// Maps an outcome of the broker to its reply.
    pub fn of(outcome: verdict::Outcome) -> Self {
        use verdict::Outcome as O;
        let name = outcome.name();
        let refused = |data| Answer::refused(name, data);
        match outcome {
            O::Success => Answer::success(),
            O::WrongPassword | O::NotChecked | O::Refused => refused("52e"),
            O::UnknownUser | O::Unmapped | O::Ambiguous => refused("525"),
            O::LogonHours => refused("530"),
            // AD's code for "not permitted at this workstation" comes closest to a group that is not allowed.
            O::Workstation | O::NotAllowed | O::Denied => refused("531"),
            O::PasswordExpired => refused("532"),
            O::MustChange => refused("773"),
            O::Disabled => refused("533"),
            O::AccountExpired => refused("701"),
            O::LockedOut => refused("775"),
            O::AccountRestriction => refused("52f"),
            O::TooManyGroups => refused("568"),
            O::SessionDenied => {
                Answer::other(name, code::UNWILLING_TO_PERFORM, "the user is logged in elsewhere")
            }
            O::Unavailable => Answer::other(
                name,
                code::UNAVAILABLE,
                "Active Directory does not answer; try again in a moment",
            ),
            O::SessionStore => Answer::other(name, code::UNAVAILABLE, "the session cannot be registered"),
            O::Misconfigured => {
                Answer::other(name, code::UNAVAILABLE, "the login service is misconfigured; see its log")
            }
            O::PasswordRefused | O::ChangeForbidden | O::ChangeUnknown => {
                Answer::other(name, code::OTHER, "the login service gave an answer that belongs to no login")
            }
        }
    }

    /// Maps a PAM code to a reply. Used if the module did not report its outcome.
    pub fn of_code(code: i32) -> Self {
        use verdict::Outcome as O;
        match code {
            PERM_DENIED => Answer::of(O::Disabled),
            AUTH_ERR => Answer::of(O::WrongPassword),
            USER_UNKNOWN => Answer::of(O::UnknownUser),
            MAXTRIES => Answer::of(O::LockedOut),
            NEW_AUTHTOK_REQD => Answer::of(O::PasswordExpired),
            ACCT_EXPIRED => Answer::of(O::AccountExpired),
            SERVICE_ERR => Answer::of(O::Misconfigured),
            // No other code says that the password is wrong.
            _ => Answer::of(O::Unavailable),
        }
    }

    /// Maps PAM's return codes and the module's outcome variable to a reply. Only PAM's own success counts as
    /// one, whatever the variable says.
    pub fn of_pam(authenticate: i32, account: Option<i32>, variable: Option<&str>) -> Self {
        let code = if authenticate == SUCCESS { account.unwrap_or(UNAVAILABLE) } else { authenticate };
        if code == SUCCESS {
            return Answer::success();
        }
        let named = variable.and_then(|name| verdict::Outcome::ALL.iter().find(|known| known.name() == name));
        match named {
            // Our module reported success, or nothing: another module of the service rejected the login.
            Some(verdict::Outcome::Success) | None => Answer::of_code(code),
            Some(outcome) => Answer::of(*outcome),
        }
    }
}

// PAM's return codes (security/_pam_types.h).
const SUCCESS: i32 = 0;
const SERVICE_ERR: i32 = 3;
pub(super) const PERM_DENIED: i32 = 6;
const AUTH_ERR: i32 = 7;
const UNAVAILABLE: i32 = 9;
const USER_UNKNOWN: i32 = 10;
const MAXTRIES: i32 = 11;
const NEW_AUTHTOK_REQD: i32 = 12;
const ACCT_EXPIRED: i32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_ads_own_code() {
        let cases = [
            ("wrong_password", 49, Some("52e")),
            ("unknown_user", 49, Some("525")),
            ("unmapped", 49, Some("525")),
            ("ambiguous", 49, Some("525")),
            ("logon_hours", 49, Some("530")),
            ("workstation", 49, Some("531")),
            ("not_allowed", 49, Some("531")),
            ("denied", 49, Some("531")),
            ("password_expired", 49, Some("532")),
            ("disabled", 49, Some("533")),
            ("account_expired", 49, Some("701")),
            ("must_change", 49, Some("773")),
            ("locked_out", 49, Some("775")),
            ("account_restriction", 49, Some("52f")),
            ("not_checked", 49, Some("52e")),
            ("unavailable", 52, None),
            ("misconfigured", 52, None),
            ("session_store", 52, None),
            ("session_denied", 53, None),
        ];
        for (name, code, data) in cases {
            let answer = Answer::of_pam(AUTH_ERR, None, Some(name));
            assert_eq!((answer.name, answer.outcome.code, answer.data), (name, code, data));
            if let Some(data) = data {
                assert!(
                    answer.outcome.text.contains(&format!("AcceptSecurityContext error, data {data}, v"))
                );
            }
        }
    }

    #[test]
    fn nothing_but_pams_success_is_a_success() {
        assert_eq!(Answer::of_pam(0, Some(0), None), Answer::success());
        assert_eq!(Answer::of_pam(0, Some(0), Some("disabled")), Answer::success());
        for (authenticate, account) in
            [(0, None), (0, Some(6)), (7, None), (9, None), (28, None), (7, Some(0))]
        {
            for variable in [None, Some("success"), Some("nonsense"), Some("")] {
                let answer = Answer::of_pam(authenticate, account, variable);
                assert_ne!(answer.outcome.code, code::SUCCESS, "{authenticate} {account:?} {variable:?}");
            }
        }
    }

    #[test]
    fn without_the_variable_the_code_decides() {
        let cases = [
            (PERM_DENIED, 49, Some("533")),
            (AUTH_ERR, 49, Some("52e")),
            (USER_UNKNOWN, 49, Some("525")),
            (MAXTRIES, 49, Some("775")),
            (NEW_AUTHTOK_REQD, 49, Some("532")),
            (ACCT_EXPIRED, 49, Some("701")),
            (UNAVAILABLE, 52, None),
            (SERVICE_ERR, 52, None),
            (4, 52, None),
        ];
        for (pam, code, data) in cases {
            let answer = Answer::of_pam(pam, None, None);
            assert_eq!((answer.outcome.code, answer.data), (code, data), "{pam}");
        }
    }

    #[test]
    fn a_failure_of_pam_itself_is_no_statement_about_the_password() {
        // All of security/_pam_types.h, those of the test above excepted.
        let decided = [PERM_DENIED, AUTH_ERR, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED];
        for pam in (1..32).filter(|pam| !decided.contains(pam)) {
            for (authenticate, account) in [(pam, None), (SUCCESS, Some(pam))] {
                for variable in [None, Some("success")] {
                    let answer = Answer::of_pam(authenticate, account, variable);
                    assert_eq!((answer.outcome.code, answer.data), (code::UNAVAILABLE, None), "{pam}");
                }
            }
        }
        assert_eq!(Answer::undecided("no line").outcome.code, code::UNAVAILABLE);
    }

    #[test]
    fn every_outcome_but_success_is_refused() {
        for outcome in verdict::Outcome::ALL {
            assert_eq!(Answer::of(*outcome).outcome.code == code::SUCCESS, outcome.is_success(), "{outcome}");
        }
    }
}
