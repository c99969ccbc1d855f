//! The PAM code for each outcome.

use pam::constants::PamResultCode;

use super::arguments::Expired;
use crate::verdict::Outcome;

/// Declares the PAM codes that this module returns, and only those.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $pam:ident;)+) => {
        /// A PAM code that this module returns; PAM_IGNORE is deliberately not among them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// Returns its meaning, for the documentation.
            pub fn text(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Returns the name in libpam's header.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => stringify!($pam),)+ }
            }
        }

        impl From<Code> for PamResultCode {
            fn from(code: Code) -> Self {
                match code { $(Code::$variant => PamResultCode::$pam,)+ }
            }
        }
    };
}

codes! {
    /// The person may come in.
    Success = PAM_SUCCESS;
    /// The password is wrong, missing, or can never be right.
    AuthErr = PAM_AUTH_ERR;
    /// No single AD account has this name.
    UserUnknown = PAM_USER_UNKNOWN;
    /// The account may not log in.
    PermDenied = PAM_PERM_DENIED;
    /// The account has expired.
    AcctExpired = PAM_ACCT_EXPIRED;
    /// The account is locked after too many wrong passwords.
    MaxTries = PAM_MAXTRIES;
    /// The password must be changed first.
    NewAuthtokReqd = PAM_NEW_AUTHTOK_REQD;
    /// No answer from the broker, AD, or the register of sessions.
    AuthinfoUnavail = PAM_AUTHINFO_UNAVAIL;
    /// The configuration is broken.
    ServiceErr = PAM_SERVICE_ERR;
    /// Something that only an administrator can mend.
    SystemErr = PAM_SYSTEM_ERR;
    /// Out of memory, in libpam's words.
    BufErr = PAM_BUF_ERR;
    /// The application did not ask the user.
    ConvErr = PAM_CONV_ERR;
    /// The password was not changed.
    AuthtokErr = PAM_AUTHTOK_ERR;
    /// The present password is wrong, missing, or can never be right.
    AuthtokRecoveryErr = PAM_AUTHTOK_RECOVERY_ERR;
    /// The password cannot be changed now, or was typed differently the second time; nothing was changed.
    TryAgain = PAM_TRY_AGAIN;
    /// The session could not be registered or ended.
    SessionErr = PAM_SESSION_ERR;
}

/// The table of codes. For each outcome, it holds the code, and true if the outcome settles the state of the
/// account, so that `acct_mgmt` may repeat it without a request.
///
/// The codes are the same for both entry points: pam.d(5) permits any of them in a `[value=action]` on any
/// line, and a locked account would otherwise look like a denied one.
const fn row(outcome: Outcome) -> (Code, bool) {
    match outcome {
        Outcome::Success => (Code::Success, true),
        Outcome::WrongPassword => (Code::AuthErr, false),
        Outcome::UnknownUser => (Code::UserUnknown, false),
        Outcome::Unmapped => (Code::UserUnknown, false),
        Outcome::Ambiguous => (Code::UserUnknown, false),
        Outcome::LogonHours => (Code::PermDenied, true),
        Outcome::Workstation => (Code::PermDenied, true),
        Outcome::PasswordExpired => (Code::NewAuthtokReqd, true),
        Outcome::MustChange => (Code::NewAuthtokReqd, true),
        Outcome::Disabled => (Code::PermDenied, true),
        Outcome::AccountExpired => (Code::AcctExpired, true),
        Outcome::LockedOut => (Code::MaxTries, true),
        Outcome::AccountRestriction => (Code::PermDenied, true),
        Outcome::NotChecked => (Code::AuthErr, false),
        Outcome::TooManyGroups => (Code::SystemErr, true),
        Outcome::NotAllowed => (Code::PermDenied, true),
        Outcome::Denied => (Code::PermDenied, true),
        Outcome::PasswordRefused => (Code::AuthtokErr, false),
        Outcome::ChangeForbidden => (Code::PermDenied, false),
        Outcome::ChangeUnknown => (Code::AuthinfoUnavail, false),
        Outcome::SessionDenied => (Code::PermDenied, false),
        Outcome::SessionStore => (Code::AuthinfoUnavail, false),
        Outcome::Refused => (Code::AuthErr, false),
        Outcome::Unavailable => (Code::AuthinfoUnavail, false),
        Outcome::Misconfigured => (Code::ServiceErr, false),
    }
}

/// Returns the code of `pam_sm_authenticate`.
pub fn authenticate(outcome: Outcome, expired: Expired) -> Code {
    // The broker reports these outcomes only to a user with the right password.
    let waits = expired == Expired::Account && outcome.wants_new_password();
    if waits { Code::Success } else { row(outcome).0 }
}

/// Returns the code of `pam_sm_acct_mgmt`.
pub fn account(outcome: Outcome) -> Code {
    row(outcome).0
}

/// The two calls of a password change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The check whether the password can be changed: PAM_PRELIM_CHECK.
    Probe,
    /// The change: PAM_UPDATE_AUTHTOK.
    Change,
}

/// Returns the code of `pam_sm_chauthtok`.
///
/// The codes of pam_sm_chauthtok(3) stand for problems with a password; outcomes about the account keep their
/// usual code. PAM_AUTHINFO_UNAVAIL is reserved for a change that may have been made.
pub fn change(outcome: Outcome, phase: Phase) -> Code {
    match (outcome, phase) {
        (Outcome::WrongPassword | Outcome::NotChecked, _) => Code::AuthtokRecoveryErr,
        (Outcome::Unavailable | Outcome::SessionStore, Phase::Probe) => Code::TryAgain,
        (Outcome::Unavailable | Outcome::SessionStore | Outcome::Refused, _) => Code::AuthtokErr,
        // In a stack, PAM_NEW_AUTHTOK_REQD does not count as a failure (pam.d(5), `required`).
        (Outcome::PasswordExpired | Outcome::MustChange, _) => Code::AuthtokErr,
        (
            Outcome::Success
            | Outcome::UnknownUser
            | Outcome::Unmapped
            | Outcome::Ambiguous
            | Outcome::LogonHours
            | Outcome::Workstation
            | Outcome::Disabled
            | Outcome::AccountExpired
            | Outcome::LockedOut
            | Outcome::AccountRestriction
            | Outcome::TooManyGroups
            | Outcome::NotAllowed
            | Outcome::Denied
            | Outcome::PasswordRefused
            | Outcome::ChangeForbidden
            | Outcome::ChangeUnknown
            | Outcome::SessionDenied
            | Outcome::Misconfigured,
            _,
        ) => row(outcome).0,
    }
}

/// Returns the code of `pam_sm_open_session` and `pam_sm_close_session` (pam_sm_open_session(3)).
pub fn session(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Success => Code::Success,
        Outcome::SessionDenied => Code::PermDenied,
        Outcome::WrongPassword
        | Outcome::UnknownUser
        | Outcome::Unmapped
        | Outcome::Ambiguous
        | Outcome::LogonHours
        | Outcome::Workstation
        | Outcome::PasswordExpired
        | Outcome::MustChange
        | Outcome::Disabled
        | Outcome::AccountExpired
        | Outcome::LockedOut
        | Outcome::AccountRestriction
        | Outcome::NotChecked
        | Outcome::TooManyGroups
        | Outcome::NotAllowed
        | Outcome::Denied
        | Outcome::PasswordRefused
        | Outcome::ChangeForbidden
        | Outcome::ChangeUnknown
        | Outcome::SessionStore
        | Outcome::Refused
        | Outcome::Unavailable
        | Outcome::Misconfigured => Code::SessionErr,
    }
}

/// Returns true if an outcome of an authentication settles the state of the account, so that `acct_mgmt` may
/// repeat it.
pub fn settles_account(outcome: Outcome) -> bool {
    row(outcome).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the specification, repeated on purpose.
    const TABLE: &[(Outcome, Code)] = &[
        (Outcome::Success, Code::Success),
        (Outcome::WrongPassword, Code::AuthErr),
        (Outcome::UnknownUser, Code::UserUnknown),
        (Outcome::Unmapped, Code::UserUnknown),
        (Outcome::Ambiguous, Code::UserUnknown),
        (Outcome::LogonHours, Code::PermDenied),
        (Outcome::Workstation, Code::PermDenied),
        (Outcome::PasswordExpired, Code::NewAuthtokReqd),
        (Outcome::MustChange, Code::NewAuthtokReqd),
        (Outcome::Disabled, Code::PermDenied),
        (Outcome::AccountExpired, Code::AcctExpired),
        (Outcome::LockedOut, Code::MaxTries),
        (Outcome::AccountRestriction, Code::PermDenied),
        (Outcome::NotChecked, Code::AuthErr),
        (Outcome::TooManyGroups, Code::SystemErr),
        (Outcome::NotAllowed, Code::PermDenied),
        (Outcome::Denied, Code::PermDenied),
        (Outcome::PasswordRefused, Code::AuthtokErr),
        (Outcome::ChangeForbidden, Code::PermDenied),
        (Outcome::ChangeUnknown, Code::AuthinfoUnavail),
        (Outcome::SessionDenied, Code::PermDenied),
        (Outcome::SessionStore, Code::AuthinfoUnavail),
        (Outcome::Refused, Code::AuthErr),
        (Outcome::Unavailable, Code::AuthinfoUnavail),
        (Outcome::Misconfigured, Code::ServiceErr),
    ];

    #[test]
    fn every_outcome_has_its_code_at_both_entry_points() {
        assert_eq!(TABLE.iter().map(|row| row.0).collect::<Vec<_>>(), Outcome::ALL);
        for &(outcome, code) in TABLE {
            assert_eq!(authenticate(outcome, Expired::Auth), code, "{outcome}");
            assert_eq!(account(outcome), code, "{outcome}");
        }
    }

    #[test]
    fn only_success_is_success() {
        for &outcome in Outcome::ALL {
            let codes = [
                authenticate(outcome, Expired::Auth),
                account(outcome),
                change(outcome, Phase::Probe),
                change(outcome, Phase::Change),
                session(outcome),
            ];
            for code in codes {
                assert_eq!(code == Code::Success, outcome.is_success(), "{outcome}: {code:?}");
            }
        }
    }

    #[test]
    fn chauthtok_has_codes_of_its_own_for_what_befalls_a_password() {
        let own = [
            (Outcome::WrongPassword, Code::AuthtokRecoveryErr, Code::AuthtokRecoveryErr),
            (Outcome::NotChecked, Code::AuthtokRecoveryErr, Code::AuthtokRecoveryErr),
            (Outcome::PasswordExpired, Code::AuthtokErr, Code::AuthtokErr),
            (Outcome::MustChange, Code::AuthtokErr, Code::AuthtokErr),
            (Outcome::SessionStore, Code::TryAgain, Code::AuthtokErr),
            (Outcome::Refused, Code::AuthtokErr, Code::AuthtokErr),
            (Outcome::Unavailable, Code::TryAgain, Code::AuthtokErr),
        ];
        for &(outcome, code) in TABLE {
            let own = own.iter().find(|row| row.0 == outcome).map(|row| (row.1, row.2));
            let expected = own.unwrap_or((code, code));
            assert_eq!(
                (change(outcome, Phase::Probe), change(outcome, Phase::Change)),
                expected,
                "{outcome}"
            );
        }
    }

    #[test]
    fn a_change_that_may_have_happened_has_a_code_that_no_failure_has() {
        let unknown = change(Outcome::ChangeUnknown, Phase::Change);
        let same = |outcome: &&Outcome| change(**outcome, Phase::Change) == unknown;
        assert_eq!(Outcome::ALL.iter().filter(same).collect::<Vec<_>>(), [&Outcome::ChangeUnknown]);
    }

    #[test]
    fn an_account_that_was_rejected_before_the_proof_looks_like_a_wrong_password() {
        let seen = |outcome| {
            let changes = [Phase::Probe, Phase::Change].map(|phase| change(outcome, phase));
            (
                authenticate(outcome, Expired::Auth),
                authenticate(outcome, Expired::Account),
                changes,
                session(outcome),
            )
        };
        assert_eq!(seen(Outcome::NotChecked), seen(Outcome::WrongPassword));
        assert_eq!(Outcome::NotChecked.text(), Outcome::WrongPassword.text());
    }

    #[test]
    fn a_session_is_open_or_denied_or_failed() {
        for &outcome in Outcome::ALL {
            let expected = match outcome {
                Outcome::Success => Code::Success,
                Outcome::SessionDenied => Code::PermDenied,
                _ => Code::SessionErr,
            };
            assert_eq!(session(outcome), expected, "{outcome}");
        }
    }

    #[test]
    fn with_expired_account_only_an_old_password_is_left_to_acct_mgmt() {
        for &outcome in Outcome::ALL {
            let strict = authenticate(outcome, Expired::Auth);
            let expected = if strict == Code::NewAuthtokReqd { Code::Success } else { strict };
            assert_eq!(authenticate(outcome, Expired::Account), expected, "{outcome}");
        }
    }

    #[test]
    fn what_says_nothing_about_the_account_is_asked_again() {
        let asked_again: Vec<_> = Outcome::ALL.iter().copied().filter(|o| !settles_account(*o)).collect();
        let expected = [
            Outcome::WrongPassword,
            Outcome::UnknownUser,
            Outcome::Unmapped,
            Outcome::Ambiguous,
            Outcome::NotChecked,
            Outcome::PasswordRefused,
            Outcome::ChangeForbidden,
            Outcome::ChangeUnknown,
            Outcome::SessionDenied,
            Outcome::SessionStore,
            Outcome::Refused,
            Outcome::Unavailable,
            Outcome::Misconfigured,
        ];
        assert_eq!(asked_again, expected);
    }

    #[test]
    fn the_names_are_libpams() {
        for &code in Code::ALL {
            assert_eq!(format!("{:?}", PamResultCode::from(code)), code.name());
        }
    }
}
