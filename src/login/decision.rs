//! The decision on a request, and how it comes about.

use std::time::Duration;

use super::refusal::Refusal;
use crate::checked::{Checked, Method};
use crate::config::ConfigError;
use crate::directory::people::person::Person;
use crate::verdict::{Outcome, Step, Verdict};

/// The result of a login, with details for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The reply to the module.
    pub verdict: Verdict,
    /// The domain controller that decided.
    pub dc: Option<String>,
    /// The method by which the password was checked.
    pub method: Option<Method>,
    /// The account of the login, once it was found.
    pub person: Option<Person>,
    /// True if the password was not checked because AD takes no simple binds.
    pub binds_off: bool,
}

/// A decision that was made before the broker queried AD.
impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Self {
        Progress::default().decide(Err(refusal))
    }
}

impl From<&ConfigError> for Decision {
    fn from(error: &ConfigError) -> Self {
        Refusal::from(error).into()
    }
}

/// State of a login that is being decided.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) principal: Option<String>,
    pub(super) steps: Vec<Step>,
    pub(super) dc: Option<String>,
    pub(super) method: Option<Method>,
    pub(super) person: Option<Person>,
    /// Notes for the log, whatever the outcome.
    pub(super) notes: Vec<String>,
    /// True if the user is warned when the password expires soon; `expires_in` is the time left, in seconds.
    pub(super) warn: bool,
    pub(super) expires_in: Option<u64>,
}

impl Progress {
    pub(super) fn step(&mut self, name: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.steps.push(Step { name: name.to_owned(), micros });
    }

    /// Records the check of a password, ahead of the steps that follow it.
    pub(super) fn password(&mut self, checked: &Checked) {
        if let Some(connect) = checked.connect {
            self.step("connect", connect);
        }
        if checked.outcome == Outcome::WrongPassword && !checked.unanswered.is_empty() {
            let silent = checked.unanswered.join(", ");
            self.notes.push(format!("{silent} did not answer and may have counted the attempt as well"));
        }
        let name = match checked.method {
            Method::Ldap => "bind",
            Method::Kerberos => "kerberos",
        };
        self.step(name, checked.took);
        self.dc = Some(checked.dc.clone());
        self.method = Some(checked.method);
    }

    pub(super) fn decide(self, result: Result<(), Refusal>) -> Decision {
        let Refusal { outcome, reason, text, binds_off } =
            result.err().unwrap_or_else(|| Refusal::new(Outcome::Success, ""));
        let expires_in = self.expires_in.filter(|_| outcome.is_success());
        let reason = Some(reason).filter(|reason| !reason.is_empty());
        let reason = reason.into_iter().chain(self.notes).collect::<Vec<_>>().join("; ");
        let (principal, steps) = (self.principal, self.steps);
        let verdict = Verdict { principal, text, steps, expires_in, ..Verdict::new(outcome, reason) };
        Decision { verdict, dc: self.dc, method: self.method, person: self.person, binds_off }
    }
}
