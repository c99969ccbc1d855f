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
    /// The user has access.
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
    /// A problem that only an administrator can fix.
    SystemErr = PAM_SYSTEM_ERR;
    /// libpam is out of memory.
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

impl Code {
    /// Returns the code of a line that only observes (the argument `observe`). It never gives access,
    /// whatever the control of the line does with a success.
    pub fn observed(self) -> Self {
        match self {
            Code::Success | Code::NewAuthtokReqd => Code::PermDenied,
            refusal => refusal,
        }
    }
}

/// The codes of an outcome.
#[derive(Clone, Copy)]
struct Row {
    /// For `pam_sm_authenticate` and `pam_sm_acct_mgmt`. They share it: pam.d(5) permits any code in a
    /// `[value=action]` on any line, and a locked account would otherwise look like a denied one.
    code: Code,
    /// True if the outcome settles the state of the account, so that `acct_mgmt` may repeat it without a
    /// request.
    settles: bool,
    /// For the first and the second call of `pam_sm_chauthtok`. The codes of pam_sm_chauthtok(3) stand for
    /// problems with a password; outcomes about the account keep their usual code. PAM_AUTHINFO_UNAVAIL is
    /// reserved for a change that may have been made.
    chauthtok: [Code; 2],
    /// For `pam_sm_open_session` and `pam_sm_close_session` (pam_sm_open_session(3)).
    session: Code,
}

impl Row {
    /// An outcome with one code for all of chauthtok.
    const fn new(code: Code, settles: bool, chauthtok: Code) -> Self {
        Row { code, settles, chauthtok: [chauthtok; 2], session: Code::SessionErr }
    }

    /// An outcome that settles the state of the account.
    const fn settled(code: Code) -> Self {
        Row::new(code, true, code)
    }

    const fn open(code: Code) -> Self {
        Row::new(code, false, code)
    }
}

/// The table of codes.
const fn row(outcome: Outcome) -> Row {
    match outcome {
        Outcome::Success => Row { session: Code::Success, ..Row::settled(Code::Success) },
        Outcome::WrongPassword => Row::new(Code::AuthErr, false, Code::AuthtokRecoveryErr),
        Outcome::UnknownUser => Row::open(Code::UserUnknown),
        Outcome::Unmapped => Row::open(Code::UserUnknown),
        Outcome::Ambiguous => Row::open(Code::UserUnknown),
        Outcome::LogonHours => Row::settled(Code::PermDenied),
        Outcome::Workstation => Row::settled(Code::PermDenied),
        // In a stack, PAM_NEW_AUTHTOK_REQD does not count as a failure (pam.d(5), `required`).
        Outcome::PasswordExpired => Row::new(Code::NewAuthtokReqd, true, Code::AuthtokErr),
        Outcome::MustChange => Row::new(Code::NewAuthtokReqd, true, Code::AuthtokErr),
        Outcome::Disabled => Row::settled(Code::PermDenied),
        Outcome::AccountExpired => Row::settled(Code::AcctExpired),
        Outcome::LockedOut => Row::settled(Code::MaxTries),
        Outcome::AccountRestriction => Row::settled(Code::PermDenied),
        Outcome::NotChecked => Row::new(Code::AuthErr, false, Code::AuthtokRecoveryErr),
        Outcome::TooManyGroups => Row::settled(Code::SystemErr),
        Outcome::NotAllowed => Row::settled(Code::PermDenied),
        Outcome::Denied => Row::settled(Code::PermDenied),
        Outcome::PasswordRefused => Row::open(Code::AuthtokErr),
        Outcome::ChangeForbidden => Row::open(Code::PermDenied),
        Outcome::ChangeUnknown => Row::open(Code::AuthinfoUnavail),
        Outcome::SessionDenied => Row { session: Code::PermDenied, ..Row::open(Code::PermDenied) },
        Outcome::Refused => Row::new(Code::AuthErr, false, Code::AuthtokErr),
        Outcome::SessionStore | Outcome::Unavailable => {
            Row { chauthtok: [Code::TryAgain, Code::AuthtokErr], ..Row::open(Code::AuthinfoUnavail) }
        }
        Outcome::Misconfigured => Row::open(Code::ServiceErr),
    }
}

/// Returns the code of `pam_sm_authenticate`.
pub fn authenticate(outcome: Outcome, expired: Expired) -> Code {
    // The broker reports these outcomes only to a user with the right password.
    let waits = expired == Expired::Account && outcome.wants_new_password();
    if waits { Code::Success } else { row(outcome).code }
}

/// Returns the code of `pam_sm_acct_mgmt`.
pub fn account(outcome: Outcome) -> Code {
    row(outcome).code
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
pub fn change(outcome: Outcome, phase: Phase) -> Code {
    let [probe, change] = row(outcome).chauthtok;
    match phase {
        Phase::Probe => probe,
        Phase::Change => change,
    }
}

/// Returns the code of `pam_sm_open_session` and `pam_sm_close_session`.
pub fn session(outcome: Outcome) -> Code {
    row(outcome).session
}

/// Returns true if an outcome of an authentication settles the state of the account, so that `acct_mgmt` may
/// repeat it.
pub fn settles_account(outcome: Outcome) -> bool {
    row(outcome).settles
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
