//! The outcomes of a login: each with its name, its severity in the log, the conclusion for a command, its
//! text for the user and its advice for the administrator.
//!
//! The outcomes are those that AD can tell apart (MS-ERREF NTSTATUS values behind the `data` code of a
//! refused bind), plus those that this host decides itself.

use serde::{Deserialize, Serialize};

/// The severity of an outcome in the log. All but `Info` come with the advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A fault that the administrator must fix.
    Error,
    /// A state that the administrator should check.
    Warning,
    /// Everyday life.
    Info,
}

/// The conclusion from an outcome, which the exit status of a command reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The user gets access, or the change was made.
    Yes,
    /// The password is right, and the user gets access after changing it.
    Renew,
    /// AD or a rule rejected the request.
    No,
    /// The service could not decide the request. Other users get the same outcome.
    Undecided,
    /// The decision is not known.
    Unknown,
}

/// The users who may learn an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everyone who types the name: the outcome says nothing of an account, or AD gives it to every password.
    Anyone,
    /// Only a user who has proved the password.
    Proved,
}

/// The place where the advice of an outcome is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// By the user.
    User,
    /// In Active Directory.
    Directory,
    /// On this host.
    Host,
}

/// Declares the outcomes as one table, so that no column can be forgotten.
macro_rules! outcomes {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident = $name:literal, $severity:ident, $conclusion:ident, $audience:ident, $remedy:ident,
            text: $text:expr, advice: $advice:literal;
    )+) => {
        /// The outcome of a login or of an account check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Outcome {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Outcome {
            /// Every outcome, in the order of the table.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$variant,)+];

            /// Returns the meaning, as the manual has it.
            pub fn meaning(self) -> &'static str {
                match self { $(Outcome::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Returns the name in the log, in JSON and on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Outcome::$variant => $name,)+ }
            }

            /// Returns the severity of the outcome in the log.
            pub fn severity(self) -> Severity {
                match self { $(Outcome::$variant => Severity::$severity,)+ }
            }

            /// Returns the conclusion for a command that requested access or a change.
            pub fn conclusion(self) -> Conclusion {
                match self { $(Outcome::$variant => Conclusion::$conclusion,)+ }
            }

            /// Returns who may learn the outcome.
            pub fn audience(self) -> Audience {
                match self { $(Outcome::$variant => Audience::$audience,)+ }
            }

            /// Returns where the advice is followed.
            pub fn remedy(self) -> Remedy {
                match self { $(Outcome::$variant => Remedy::$remedy,)+ }
            }

            /// Returns the text that the login page may show. `None` if a stranger must not learn the
            /// outcome, or if only the administrator can do something about it.
            pub fn text(self) -> Option<&'static str> {
                match self { $(Outcome::$variant => $text,)+ }
            }

            /// Returns the advice for the administrator; empty if nothing is wrong. It never tells to widen
            /// access: where that is a way out, the decision about the user comes first.
            pub fn advice(self) -> &'static str {
                match self { $(Outcome::$variant => $advice,)+ }
            }
        }
    };
}

outcomes! {
    /// AD accepted this account just now, and every configured rule agrees.
    Success = "success", Info, Yes, Anyone, Host,
        text: None, advice: "";
    /// The password is wrong (`data 52e`).
    WrongPassword = "wrong_password", Info, No, Anyone, User,
        text: None,
        advice: "ask the user to type the password again; each attempt counts towards AD's lockout";
    /// The name maps to `user@domain`, and AD has no such account (`data 525`).
    UnknownUser = "unknown_user", Info, No, Anyone, Host,
        text: None,
        advice: "create the account in AD, or map the name in /etc/motion-ad/names.map";
    /// The name cannot be mapped to an AD account; AD was not queried.
    Unmapped = "unmapped", Info, No, Anyone, Host,
        text: None,
        advice: "add the name to /etc/motion-ad/names.map, or its domain to names.domains";
    /// More than one AD account answers to the name.
    Ambiguous = "ambiguous", Warning, No, Anyone, Host,
        text: None,
        advice: "make userPrincipalName unique in AD, or map the name in /etc/motion-ad/names.map";
    /// Outside the account's logon hours (`data 530`).
    LogonHours = "logon_hours", Info, No, Proved, Directory,
        text: Some("Your account may not log in at this time."),
        advice: "if the user should have access now, change the logon hours of the account in AD";
    /// The account may only log on to named workstations (`data 531`).
    Workstation = "workstation", Info, No, Proved, Directory,
        text: Some("Your account may not log in from this computer."),
        advice: "if the user should have access here, add this server (and, on Windows, the domain \
         controllers) to userWorkstations of the account in AD";
    /// The password has expired (`data 532`).
    PasswordExpired = "password_expired", Info, Renew, Proved, User,
        text: Some("Your password has expired and must be changed."),
        advice: "ask the user to change the password, for example by `motion-ad passwd NAME`";
    /// The password must be changed at the next logon (`data 773`).
    MustChange = "must_change", Info, Renew, Proved, User,
        text: Some("Your password must be changed before you can log in."),
        advice: "ask the user to change the password, for example by `motion-ad passwd NAME`";
    /// The account is disabled (`data 533`).
    Disabled = "disabled", Info, No, Proved, Directory,
        text: Some("Your account is disabled."),
        advice: "if the user should have access, enable the account in AD";
    /// The account has expired (`data 701`).
    AccountExpired = "account_expired", Info, No, Proved, Directory,
        text: Some("Your account has expired."),
        advice: "if the user should have access, change the expiry date of the account in AD";
    /// The account is locked out (`data 775`), whatever the password.
    LockedOut = "locked_out", Info, No, Anyone, Directory,
        text: Some("Your account is locked. Try again later or ask your administrator."),
        advice: "wait for the lockout duration of the domain, or unlock the account in AD";
    /// A restriction of the account forbids this way to log in, whatever the password: the group Protected
    /// Users, an authentication policy or silo, or a smart card that is required (`data 52f`, KDC error 12).
    AccountRestriction = "account_restriction", Info, No, Anyone, Directory,
        text: None,
        advice: "if the user should have access here, let the account's authentication policy or silo in AD \
         admit this host; members of Protected Users need login.method = \"auto\" or \"kerberos\"";
    /// The KDC rejected the account before it checked the password. The user learns no more than after a
    /// wrong password, which AD has not counted; the reason gives the account's state.
    NotChecked = "not_checked", Info, No, Anyone, Directory,
        text: None,
        advice: "if the user should have access, correct the account's state, which the reason gives, in AD";
    /// The account's token holds too many group SIDs (`data 568`).
    TooManyGroups = "too_many_groups", Error, No, Proved, Directory,
        text: None,
        advice: "reduce the number of groups of the account in AD";
    /// The account is in none of `login.allow_groups`.
    NotAllowed = "not_allowed", Info, No, Proved, Directory,
        text: Some("Your account may not use this service."),
        advice: "if the user should have access, add the account to one of login.allow_groups";
    /// The account is in one of `login.deny_groups`.
    Denied = "denied", Info, No, Proved, Directory,
        text: Some("Your account may not use this service."),
        advice: "if the user should have access, remove the account from the groups in login.deny_groups";
    /// AD's password policy refuses the new password; the present one is still good.
    PasswordRefused = "password_refused", Info, No, Proved, User,
        text: Some("Your new password was not accepted."),
        advice: "the user must choose another password, or wait; the text or the reason gives AD's objection";
    /// The account may not change its password.
    ChangeForbidden = "change_forbidden", Info, No, Proved, Directory,
        text: Some("You may not change your password."),
        advice: "set a new password in AD; if the user should choose it, permit that there";
    /// The new password was sent to AD and no answer came back: it may be in force.
    ChangeUnknown = "change_unknown", Warning, Unknown, Proved, User,
        text: Some("It is not certain whether your password was changed. Try to log in with the new one."),
        advice: "the user should try the new password, then the old one; see the reason";
    /// The user has as many sessions as `sessions.limit` allows (`sessions.policy = "deny"`).
    SessionDenied = "session_denied", Info, No, Proved, Host,
        text: Some("You are already logged in elsewhere."),
        advice: "ask the user to log out there; `motion-ad sessions list` shows a stale session, `motion-ad \
         sessions end ID` ends it";
    /// The register of sessions cannot be read or written (`sessions.on_store_failure = "deny"`).
    SessionStore = "session_store", Error, No, Proved, Host,
        text: Some("Your session cannot be registered. Try again in a moment."),
        advice: "fix the cause in the reason; `motion-ad doctor` names the steps";
    /// AD refused the login with a code that this version does not know.
    Refused = "refused", Error, No, Anyone, Host,
        text: None,
        advice: "look up the code in the reason";
    /// AD, or the broker, did not answer in time.
    Unavailable = "unavailable", Error, Undecided, Anyone, Host,
        text: Some("The login service cannot reach Active Directory. Try again in a moment."),
        advice: "see the reason; `motion-ad status` shows the state of the broker and of the domain \
                 controllers";
    /// The configuration, the name map or a configured group is broken.
    Misconfigured = "misconfigured", Error, Undecided, Anyone, Host,
        text: None,
        advice: "fix the cause in the reason; `motion-ad config check` names the file, the line and the near \
                 name";
}

impl Outcome {
    /// Returns true if the user gets access.
    pub fn is_success(self) -> bool {
        self.conclusion() == Conclusion::Yes
    }

    /// Returns true if the user gets access after a password change (PAM_NEW_AUTHTOK_REQD).
    pub fn wants_new_password(self) -> bool {
        self.conclusion() == Conclusion::Renew
    }

    /// Returns true if the user gets access, at once or after a password change.
    pub fn leads_to_access(self) -> bool {
        self.is_success() || self.wants_new_password()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The broker's answer about one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The principal that the name was mapped to, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// `objectGUID` of the account that gets access, at once or with a new password. The module keeps it on
    /// the PAM handle, so that later calls are about the same account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The cause, for the log and for `motion-ad login`; the application's users never see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for the user in place of the outcome's own text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The id of the session that was registered, opened or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Seconds until the password expires, where the request asked and
    /// `login.warn_days` says that this is soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// The steps with their times, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// One step of a login and its duration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step: `resolve`, `connect`, `bind`, `kerberos`, `state`, `change`, `policy`.
    pub name: String,
    /// Duration in microseconds.
    pub micros: u64,
}

impl Verdict {
    /// A verdict without principal and steps.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Verdict {
            outcome,
            principal: None,
            account: None,
            reason: reason.into(),
            text: None,
            session: None,
            expires_in: None,
            steps: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_survive_the_wire() {
        let mut names: Vec<_> = Outcome::ALL.iter().map(|o| o.name()).collect();
        for outcome in Outcome::ALL {
            let json = serde_json::to_string(outcome).unwrap();
            assert_eq!(json, format!("\"{}\"", outcome.name()));
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), *outcome);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }

    #[test]
    fn only_success_lets_in_and_only_failures_have_advice() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.is_success(), outcome.advice().is_empty(), "{outcome}");
            assert!(!(outcome.is_success() && outcome.wants_new_password()));
        }
    }

    #[test]
    fn what_the_user_is_told_in_words_needs_the_password_or_is_no_secret() {
        let open = [Outcome::LockedOut, Outcome::Unavailable];
        for outcome in Outcome::ALL.iter().filter(|outcome| outcome.text().is_some()) {
            assert_eq!(outcome.audience() == Audience::Anyone, open.contains(outcome), "{outcome}");
        }
    }

    #[test]
    fn no_advice_widens_access_before_the_administrator_decides_about_the_user() {
        let widens = [
            "login.allow_groups",
            "deny_groups",
            "enable",
            "logon hours",
            "userWorkstations",
            "expiry date",
            "policy =",
            "admit",
            "account's state",
        ];
        for outcome in Outcome::ALL {
            let advice = outcome.advice();
            let decides = advice.starts_with("if the user should have access");
            assert_eq!(decides, widens.iter().any(|word| advice.contains(word)), "{outcome}: {advice}");
        }
    }
}
