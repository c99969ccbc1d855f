//! The decision on a request, and how it comes about.

use std::time::Duration;

use super::refusal::Refusal;
use crate::checked::{Checked, Method};
use crate::config::ConfigError;
use crate::directory::people::person::Person;
use crate::texts::{Language, Text};
use crate::verdict::{Outcome, Step, Verdict};

/// The result of a login, with details for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The reply to the module.
    pub verdict: Verdict,
    /// The verdict's text for the user, for other languages. The verdict itself has it in English, as the
    /// log does.
    pub text: Option<Text>,
    /// The domain controller that decided.
    pub dc: Option<String>,
    /// The method by which the password was checked.
    pub method: Option<Method>,
    /// The account of the login, once it was found.
    pub person: Option<Person>,
    /// True if the password was not checked because AD takes no simple binds.
    pub binds_off: bool,
}

impl Decision {
    /// Returns the verdict for a user who reads `language`.
    ///
    /// An outcome without a text in English has none in any language. The module writes the warning of a
    /// password that expires in English itself.
    pub fn verdict_in(&self, language: Language) -> Verdict {
        let mut verdict = self.verdict.clone();
        if !language.is_default() {
            let own = self.text.filter(|_| verdict.text.is_some());
            let text = match verdict.expires_in {
                Some(seconds) if verdict.outcome.is_success() => Some(Text::expires(seconds)),
                _ => own.or(Some(Text::Outcome(verdict.outcome))),
            };
            verdict.text = text.and_then(|text| text.to(language)).or(verdict.text);
        }
        verdict
    }
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
        let english = text.and_then(|text| text.to(Language::English));
        let verdict =
            Verdict { principal, text: english, steps, expires_in, ..Verdict::new(outcome, reason) };
        Decision { verdict, text, dc: self.dc, method: self.method, person: self.person, binds_off }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Audience;

    #[test]
    fn a_verdict_is_told_in_the_language_of_its_user() {
        let told = |refusal: Refusal, language| Decision::from(refusal).verdict_in(language).text;
        let disabled = || Refusal::new(Outcome::Disabled, "");
        assert_eq!(told(disabled(), Language::English), None);
        assert_eq!(told(disabled(), Language::German).as_deref(), Some("Ihr Konto ist deaktiviert."));
        let short =
            || Refusal { text: Some(Text::TooShortFor(12)), ..Refusal::new(Outcome::PasswordRefused, "") };
        let english = "Your new password must have at least 12 characters.";
        assert_eq!(told(short(), Language::English).as_deref(), Some(english));
        let italian = "La nuova password deve avere almeno 12 caratteri.";
        assert_eq!(told(short(), Language::Italian).as_deref(), Some(italian));
        // The log stays in English.
        assert_eq!(Decision::from(short()).verdict.text.as_deref(), Some(english));
    }

    #[test]
    fn a_user_who_proved_nothing_learns_nothing_in_any_language() {
        for language in Language::ALL {
            for outcome in Outcome::ALL {
                let refusal = Refusal::new(*outcome, "").before_proof();
                let is_open = outcome.audience() == Audience::Anyone && outcome.text().is_some();
                // The module has the English text itself.
                let may_know = is_open && !language.is_default();
                let told = Decision::from(refusal).verdict_in(*language).text;
                assert_eq!(told.is_some(), may_know, "{outcome} in {language:?}: {told:?}");
            }
        }
    }

    #[test]
    fn a_warning_is_told_with_a_success_only() {
        let of = |outcome, expires_in| {
            let verdict = Verdict { expires_in, ..Verdict::new(outcome, "") };
            let decision = Decision { verdict, ..Refusal::new(outcome, "").into() };
            decision.verdict_in(Language::Italian).text
        };
        let days = Some(3 * 86_400 + 5);
        assert_eq!(of(Outcome::Success, days).as_deref(), Some("La Sua password scade tra 3 giorni."));
        assert_eq!(of(Outcome::Success, None), None);
        assert_eq!(of(Outcome::Disabled, days).as_deref(), Some("Il Suo account è disabilitato."));
    }
}
