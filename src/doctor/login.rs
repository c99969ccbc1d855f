//! One real login of a user, through PAM, as the application's user.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::application::{self, Answers};
use super::command;
use super::commands;
use super::commands::Place;
use super::facts::{Facts, SERVICE};
use super::finding::Finding;
use crate::verdict::Outcome;

const SUCCESS: &str = "PAM_SUCCESS";
/// Syslog identifier of the broker.
const BROKER: &str = "motion-ad-broker";
/// Attempts to find the login's line in the log, which the broker writes concurrently with its answer.
const LOOKS: usize = 5;
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn login(facts: &Facts) -> Finding {
    let Some(login) = facts.login() else { return Finding::skipped("no user was named (--login NAME)") };
    if !facts.is_root() {
        return Finding::skipped("needs root, to log in as the application's user");
    }
    let user = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let answers = match application::login(&user, login).await {
        Ok(answers) => answers,
        Err(cause) => return Finding::failure(format!("the login could not be tried: {cause}")),
    };
    let line = line_of(&login.name, begun).await;
    match &answers {
        Answers { authenticate, account: Some(account), .. } if account == SUCCESS => Finding::ok(format!(
            "{} got access, tried as the user {} at the service {SERVICE}: authenticate {authenticate}, \
             acct_mgmt {account}{}",
            login.name,
            user.name,
            line.map_or_else(String::new, |line| format!("; log: {line}"))
        )),
        _ => refused(&login.name, &answers, line.as_deref()),
    }
}

/// Describes a rejected login: the outcome and reason that the broker logged, and PAM's result.
fn refused(name: &str, answers: &Answers, line: Option<&str>) -> Finding {
    let step = match &answers.account {
        Some(account) => format!("acct_mgmt answered {account}"),
        None => format!("authenticate answered {}", answers.authenticate),
    };
    let texts = answers.texts.join(" ");
    let texts = if texts.is_empty() { String::new() } else { format!(" ({texts})") };
    let outcome = line.and_then(|line| value(line, "outcome"));
    let outcome = outcome.and_then(|name| Outcome::ALL.iter().copied().find(|known| known.name() == name));
    let reason =
        line.and_then(|line| value(line, "reason")).map_or_else(String::new, |reason| format!(": {reason}"));
    let cause = outcome.map_or_else(String::new, |outcome| format!(": {outcome}{reason}"));
    let log = line.map_or_else(String::new, |line| format!("; log: {line}"));
    let seen = format!("{name} was rejected{cause}; {step}{texts}; one attempt was made{log}");
    let finding = Finding::failure(seen);
    match outcome {
        Some(outcome) if !outcome.is_success() => finding.advise(place(outcome), outcome.advice()),
        // Another module of the service rejected the user, or the broker was not queried.
        _ => finding.command(&commands::SHOW_SERVICE, "").command(&commands::SHOW_LOG, ""),
    }
}

/// Returns the place where an outcome's advice is followed.
fn place(outcome: Outcome) -> Place {
    use Outcome::{
        AccountExpired, AccountRestriction, Ambiguous, ChangeForbidden, ChangeUnknown, Denied, Disabled,
        LockedOut, LogonHours, Misconfigured, MustChange, NotAllowed, NotChecked, PasswordExpired,
        PasswordRefused, Refused, SessionDenied, SessionStore, Success, TooManyGroups, Unavailable,
        UnknownUser, Unmapped, Workstation, WrongPassword,
    };
    match outcome {
        WrongPassword | PasswordExpired | MustChange | PasswordRefused | ChangeUnknown => Place::User,
        LogonHours | Workstation | Disabled | AccountExpired | LockedOut | AccountRestriction
        | NotChecked | TooManyGroups | NotAllowed | Denied | ChangeForbidden => Place::Directory,
        Success | UnknownUser | Unmapped | Ambiguous | SessionDenied | SessionStore | Refused
        | Unavailable | Misconfigured => Place::Here,
    }
}

/// Returns the line that the broker logged for this login.
async fn line_of(name: &str, since: u64) -> Option<String> {
    let since = format!("--since=@{since}");
    for _ in 0..LOOKS {
        let asked = command::ask("journalctl", &["-t", BROKER, "-q", "-o", "cat", "--no-pager", &since])
            .await
            .ok()?;
        let is_it = |line: &&str| {
            let is = |key: &str, wanted: &str| value(line, key).as_deref() == Some(wanted);
            is("event", "login") && is("user", name) && is("service", SERVICE)
        };
        if let Some(line) = asked.out.lines().rfind(is_it) {
            return Some(line.to_owned());
        }
        sleep(AGAIN).await;
    }
    None
}

/// Returns the value of a key in a logfmt line, unquoted.
fn value(line: &str, key: &str) -> Option<String> {
    let mut rest = line;
    loop {
        let (name, after) = rest.split_once('=')?;
        let mut value = String::new();
        let mut characters = after.chars();
        let mut quoted = false;
        while let Some(c) = characters.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => value.extend(characters.next()),
                ' ' if !quoted => break,
                c => value.push(c),
            }
        }
        if name.trim() == key {
            return Some(value);
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fix;
    use super::*;

    #[test]
    fn a_refusal_says_what_the_broker_logged_and_nothing_else() {
        let line = "event=login user=john.doe outcome=wrong_password reason=\"data 52e: \\\"no\\\" match\" service=motion ms=5";
        let answers = Answers { authenticate: "PAM_AUTH_ERR".into(), ..Answers::default() };
        let found = refused("john.doe", &answers, Some(line));
        assert_eq!(
            found.seen,
            format!(
                "john.doe was rejected: wrong_password: data 52e: \"no\" match; authenticate answered \
                 PAM_AUTH_ERR; one attempt was made; log: {line}"
            )
        );
        let [Fix::Advice { text, place: Place::User }] = found.fix.as_slice() else { panic!("{found:?}") };
        assert_eq!(text, Outcome::WrongPassword.advice());
        // The broker granted access, and another line of the service rejected the user.
        let line = "event=login user=x outcome=success service=motion";
        let found = refused("x", &answers, Some(line));
        assert!(found.fix.iter().all(|fix| matches!(fix, Fix::Command { .. })), "{found:?}");
        assert_eq!(value("a=1 b=\"x y\" c=2", "c").as_deref(), Some("2"));
        assert_eq!(value("a=1", "b"), None);
    }
}
