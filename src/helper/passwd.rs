//! `motion-ad passwd`: changes a user's password with the present one.

use serde::Serialize;

use super::account::{StepJson, steps_text};
use super::show::{self, Columns};
use super::{Cli, Failure, Page, Passwd, ask_verdict, password, request};
use crate::protocol::{Operation, Passwords, Request};
use crate::verdict::{Conclusion, Outcome, Verdict};

/// Changes a password.
pub(super) fn passwd(cli: &Cli, args: &Passwd) -> Result<Page, Failure> {
    let [present, new] =
        if args.password_stdin { password::from_stdin()? } else { password::prompt_change(&args.name)? };
    let both = Passwords { present, new }.to_secret()?;
    let request =
        Request { language: args.lang, ..request(cli, "passwd", Operation::ChangePassword, &args.name) };
    let verdict = ask_verdict(cli, &request, &both)?;
    let text = match args.json {
        true => show::json(&PasswdJson::new(&args.name, &verdict))?,
        false => text(&args.name, &verdict),
    };
    Ok(Page { text, exit: Some(verdict.outcome).into() })
}

/// The text for the user.
fn told(verdict: &Verdict) -> Option<&str> {
    verdict.text.as_deref().or(verdict.outcome.text())
}

/// Returns true if the password was changed; `None` if that is unknown.
fn changed(outcome: Outcome) -> Option<bool> {
    match outcome.conclusion() {
        Conclusion::Yes => Some(true),
        Conclusion::Renew | Conclusion::No | Conclusion::Undecided => Some(false),
        Conclusion::Unknown => None,
    }
}

fn text(name: &str, verdict: &Verdict) -> String {
    let Verdict { outcome, reason, .. } = verdict;
    let mut facts = Columns::plain();
    facts.pair("name", Some(name));
    facts.pair("principal", verdict.principal.as_deref());
    facts.pair("outcome", Some(outcome.name()));
    facts.pair("reason", Some(reason));
    let sentence = match changed(*outcome) {
        Some(true) => format!("the password of {name} was changed"),
        Some(false) => format!("the password of {name} was not changed"),
        None => format!("it is not known whether the password of {name} was changed"),
    };
    let told = told(verdict).map(|text| format!("{}\n", show::escape(text))).unwrap_or_default();
    let advice = match outcome.advice() {
        "" => String::new(),
        advice => format!("advice: {advice}\n"),
    };
    let steps = steps_text(&verdict.steps);
    format!("{}{steps}\n{}\n{told}{advice}", facts.text(), show::escape(&sentence))
}

/// `passwd --json`.
#[derive(Serialize)]
struct PasswdJson<'a> {
    user: &'a str,
    principal: Option<&'a str>,
    outcome: Outcome,
    changed: Option<bool>,
    text: Option<&'a str>,
    reason: &'a str,
    advice: &'static str,
    steps: Vec<StepJson<'a>>,
}

impl<'a> PasswdJson<'a> {
    fn new(user: &'a str, verdict: &'a Verdict) -> Self {
        PasswdJson {
            user,
            principal: verdict.principal.as_deref(),
            outcome: verdict.outcome,
            changed: changed(verdict.outcome),
            text: told(verdict),
            reason: &verdict.reason,
            advice: verdict.outcome.advice(),
            steps: StepJson::all(&verdict.steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_it_is_said_as_it_is() {
        let refused = Verdict {
            principal: Some("john@acme.com".into()),
            text: Some("Your new password must have at least 12 characters.".into()),
            ..Verdict::new(Outcome::PasswordRefused, "AD answered 0000052D")
        };
        assert_eq!(
            text("john", &refused),
            " name       john\n principal  john@acme.com\n outcome    password_refused\n reason     AD \
             answered 0000052D\n\n\
             the password of john was not changed\nYour new password must have at least 12 characters.\n\
             advice: the user must choose another password, or wait; the text or the reason gives AD's \
             objection\n"
        );
        let cases = [
            (Outcome::Success, "\nthe password of john was changed\n"),
            (Outcome::WrongPassword, "\nthe password of john was not changed\nadvice: "),
            (Outcome::ChangeForbidden, "was not changed\nYou may not change your password.\nadvice: "),
            (
                Outcome::ChangeUnknown,
                "\nit is not known whether the password of john was changed\nIt is not certain",
            ),
        ];
        for (outcome, part) in cases {
            let text = text("john", &Verdict::new(outcome, ""));
            assert!(text.contains(part), "{text}");
        }
    }
}
