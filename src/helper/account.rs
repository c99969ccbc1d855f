//! `motion-ad check` and `motion-ad login`: AD's verdict on one user.

use serde::Serialize;

use super::show::{self, Columns};
use super::{Account, Cli, Exit, Failure, Login, Page, ask, ask_verdict, password, request};
use crate::module::arguments::Expired;
use crate::module::code;
use crate::protocol::report::Check;
use crate::protocol::{Operation, Reply, Secret};
use crate::verdict::{Outcome, Step, Verdict};

/// Shows the account as it is in AD now.
pub(super) fn check(cli: &Cli, args: &Account) -> Result<Page, Failure> {
    let request = request(cli, "check", Operation::Check, &args.name);
    let check = ask(cli, &request, &Secret::default(), |reply| match reply {
        Reply::Check(check) => Some(*check),
        // A problem that stops every login also stops the check.
        Reply::Verdict(verdict) => Some(Check {
            outcome: Some(verdict.outcome),
            reason: verdict.reason,
            user: args.name.clone(),
            principal: verdict.principal,
            ..Check::default()
        }),
        _ => None,
    })?;
    let text = if args.json { show::json(&CheckJson::from(&check))? } else { check_text(&check) };
    Ok(Page { text, exit: check.outcome.into() })
}

/// Runs a whole login.
pub(super) fn login(cli: &Cli, args: &Login) -> Result<Page, Failure> {
    let secret = match args.password_stdin {
        true => password::from_stdin().map(|[secret]| secret)?,
        false => password::prompt(&args.name)?,
    };
    // The timeout starts after the user has typed the password.
    let request = request(cli, "login", Operation::Authenticate { register: false, warn: false }, &args.name);
    let verdict = ask_verdict(cli, &request, &secret)?;
    let text = match args.json {
        true => show::json(&LoginJson::new(&args.name, &verdict))?,
        false => login_text(&args.name, &verdict),
    };
    Ok(Page { text, exit: Some(verdict.outcome).into() })
}

/// The code that the module would return to the application with the shipped PAM line.
fn pam_code(verdict: &Verdict) -> &'static str {
    code::authenticate(verdict.outcome, Expired::Auth).name()
}

fn check_text(check: &Check) -> String {
    let mut names = Columns::plain();
    names.pair("name", Some(&check.user));
    names.pair("principal", check.principal.as_deref());
    names.pair("account", check.dn.as_deref());
    names.pair("objectGUID", check.guid.as_deref());
    names.pair("sAMAccountName", check.sam_account_name.as_deref());
    names.pair("userPrincipalName", check.user_principal_name.as_deref());
    names.pair("domain controller", check.dc.as_deref());
    let mut facts = Columns::headed(["", "FACT", "VALUE"]);
    for fact in &check.facts {
        facts.row([if fact.refuses { "x" } else { "" }, &fact.name, &fact.value]);
    }
    let facts = if check.facts.is_empty() { String::new() } else { format!("\n{}", facts.text()) };
    let verdict = verdict_text(&check.user, check.outcome, &check.reason);
    format!("{}{facts}\n{verdict}", names.text())
}

fn login_text(name: &str, verdict: &Verdict) -> String {
    let mut facts = Columns::plain();
    facts.pair("name", Some(name));
    facts.pair("principal", verdict.principal.as_deref());
    facts.pair("outcome", Some(verdict.outcome.name()));
    facts.pair("PAM code", Some(pam_code(verdict)));
    let steps = steps_text(&verdict.steps);
    let sentence = verdict_text(name, Some(verdict.outcome), &verdict.reason);
    format!("{}{steps}\n{sentence}", facts.text())
}

/// Returns the duration of each step, after an empty line; nothing if there are no steps.
pub(super) fn steps_text(all: &[Step]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let total = total(all);
    let mut steps = Columns::headed(["STEP", "MS", "SHARE"]);
    for step in all {
        steps.row([&step.name, &milliseconds(step.micros), &percent(step.micros, total)]);
    }
    steps.row(["total", &milliseconds(total), ""]);
    format!("\n{}", steps.right([1, 2]).text())
}

/// Returns the verdict on one line, and the advice on a second one.
fn verdict_text(name: &str, outcome: Option<Outcome>, reason: &str) -> String {
    let verdict = match Exit::from(outcome) {
        Exit::Yes => "may log in",
        Exit::No => "may not log in",
        _ => "cannot be checked",
    };
    let mut line = format!("{name} {verdict}");
    if let Some(outcome) = outcome.filter(|outcome| !outcome.is_success()) {
        line = format!("{line}: {outcome}");
    }
    if !reason.is_empty() {
        line = format!("{line}: {reason}");
    }
    let advice = advice(outcome);
    let advice = if advice.is_empty() { String::new() } else { format!("advice: {advice}\n") };
    format!("{}\n{advice}", show::escape(&line))
}

fn advice(outcome: Option<Outcome>) -> &'static str {
    outcome.unwrap_or(Outcome::Unavailable).advice()
}

fn total(steps: &[Step]) -> u64 {
    steps.iter().fold(0, |sum, step| sum.saturating_add(step.micros))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{}", micros / 1000, micros % 1000 / 100)
}

fn percent(part: u64, total: u64) -> String {
    format!("{} %", u128::from(part) * 100 / u128::from(total.max(1)))
}

/// `check --json`.
#[derive(Serialize)]
struct CheckJson<'a> {
    may_log_in: bool,
    advice: &'static str,
    #[serde(flatten)]
    check: &'a Check,
}

impl<'a> From<&'a Check> for CheckJson<'a> {
    fn from(check: &'a Check) -> Self {
        CheckJson {
            may_log_in: check.outcome.is_some_and(Outcome::is_success),
            advice: advice(check.outcome),
            check,
        }
    }
}

/// `login --json`.
#[derive(Serialize)]
struct LoginJson<'a> {
    user: &'a str,
    principal: Option<&'a str>,
    outcome: Outcome,
    may_log_in: bool,
    pam_code: &'static str,
    reason: &'a str,
    advice: &'static str,
    steps: Vec<StepJson<'a>>,
}

/// A step of `--json`.
#[derive(Serialize)]
pub(super) struct StepJson<'a> {
    name: &'a str,
    ms: f64,
    share: f64,
}

impl<'a> LoginJson<'a> {
    fn new(user: &'a str, verdict: &'a Verdict) -> Self {
        LoginJson {
            user,
            principal: verdict.principal.as_deref(),
            outcome: verdict.outcome,
            may_log_in: verdict.outcome.is_success(),
            pam_code: pam_code(verdict),
            reason: &verdict.reason,
            advice: verdict.outcome.advice(),
            steps: StepJson::all(&verdict.steps),
        }
    }
}

impl<'a> StepJson<'a> {
    /// All steps, each with its share of the time.
    pub(super) fn all(steps: &'a [Step]) -> Vec<Self> {
        let total = total(steps);
        steps.iter().map(|step| StepJson::new(step, total)).collect()
    }

    fn new(step: &'a Step, total: u64) -> Self {
        let share = step.micros as f64 / total.max(1) as f64;
        StepJson {
            name: &step.name,
            ms: step.micros as f64 / 1000.0,
            share: (share * 1000.0).round() / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Fact;

    #[test]
    fn a_fact_that_refuses_is_marked() {
        let fact =
            |name: &str, value: &str, refuses| Fact { name: name.into(), value: value.into(), refuses };
        let check = Check {
            outcome: Some(Outcome::LockedOut),
            reason: "locked out until 10:00".into(),
            user: "lou".into(),
            principal: Some("lou@acme.com".into()),
            facts: vec![fact("disabled", "no", false), fact("locked out", "yes", true)],
            ..Check::default()
        };
        assert_eq!(
            check_text(&check),
            " name       lou\n principal  lou@acme.com\n\n    FACT        VALUE\n    disabled    no\n x  \
             locked out  yes\n\n\
             lou may not log in: locked_out: locked out until 10:00\n\
             advice: wait for the lockout duration of the domain, or unlock the account in AD\n"
        );
    }

    #[test]
    fn the_steps_of_a_login_add_up() {
        let step = |name: &str, micros| Step { name: name.into(), micros };
        let verdict = Verdict {
            steps: vec![step("connect", 12_345), step("bind", 4_115)],
            ..Verdict::new(Outcome::Success, "")
        };
        assert_eq!(
            login_text("john", &verdict),
            " name      john\n outcome   success\n PAM code  PAM_SUCCESS\n\n STEP       MS  SHARE\n connect  \
             12.3   75 %\n bind      4.1   25 %\n total    16.4\n\njohn may log in\n"
        );
    }

    #[test]
    fn shares_of_nothing_and_of_everything() {
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
        assert_eq!(
            total(&[Step { name: String::new(), micros: u64::MAX }, Step { name: String::new(), micros: 1 }]),
            u64::MAX
        );
    }

    #[test]
    fn what_ad_says_cannot_steer_a_terminal() {
        let text = verdict_text("\x1b[2J", None, "a\nb");
        assert!(text.starts_with("\\u{1b}[2J cannot be checked: a\\nb\nadvice: "), "{text}");
    }
}
