//! One real login of a user as the application's user, through PAM or through the LDAP bridge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::User;
use tokio::time::sleep;

use super::application::{self, Answers, Bound};
use super::commands::{self, Place};
use super::edit::PAM_SERVICE;
use super::facts::{Facts, Login, SERVICE, Way};
use super::finding::Finding;
use super::{bridge, command};
use crate::config::Front;
use crate::verdict::{Outcome, Remedy};

const SUCCESS: &str = "PAM_SUCCESS";
/// LDAP's result code of a success (RFC 4511, appendix A).
const BOUND: u32 = 0;
/// Syslog identifier of the broker.
const BROKER: &str = "motion-ad-broker";
/// Attempts to find the login's line in the log, which the broker writes concurrently with its answer.
const LOOKS: usize = 5;
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// The result of the one attempt to log in.
struct Attempt {
    has_access: bool,
    /// The way of the login, its PAM service included.
    place: String,
    /// The PAM service, as the broker logs it.
    service: String,
    /// The answers of PAM or of the bridge.
    answer: String,
}

impl Attempt {
    fn by_pam(answers: Answers) -> Self {
        let Answers { authenticate, account, texts } = answers;
        let has_access = account.as_deref() == Some(SUCCESS);
        let answer = match account {
            Some(account) if has_access => format!("authenticate {authenticate}, acct_mgmt {account}"),
            Some(account) => format!("acct_mgmt answered {account}{}", in_brackets(&texts.join(" "))),
            None => format!("authenticate answered {authenticate}{}", in_brackets(&texts.join(" "))),
        };
        Attempt { has_access, place: format!("the service {SERVICE}"), service: SERVICE.to_owned(), answer }
    }

    fn by_bridge(bound: &Bound, service: String) -> Self {
        let has_access = bound.code == BOUND;
        let answer = match has_access {
            true => format!("LDAP result {}", bound.code),
            false => format!("the bridge answered LDAP result {}{}", bound.code, in_brackets(&bound.text)),
        };
        let place = format!("the LDAP bridge at {}, service {service}", bridge::ADDRESS);
        Attempt { has_access, place, service, answer }
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

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
    let attempt = match login.way {
        Way::Pam => application::login(&user, login).await.map(Attempt::by_pam).map_err(not_tried),
        Way::Bridge => by_bridge(facts, &user, login).await,
    };
    let attempt = match attempt {
        Ok(attempt) => attempt,
        Err(finding) => return finding,
    };
    let line = line_of(&login.name, &attempt.service, begun).await;
    match attempt.has_access {
        true => Finding::ok(format!(
            "{} got access, tried as the user {} at {}: {}{}",
            login.name,
            user.name,
            attempt.place,
            attempt.answer,
            line.map_or_else(String::new, |line| format!("; log: {line}"))
        )),
        false => refused(login, &attempt, line.as_deref()),
    }
}

/// Logs the user in by a bind at the LDAP bridge. Returns a failure if the bridge does not answer.
async fn by_bridge(facts: &Facts, user: &User, login: &Login) -> Result<Attempt, Finding> {
    let front = Front::load(&facts.options().config).map_err(|problem| not_tried(problem.to_string()))?;
    if let Some(finding) = bridge::silence(facts).await {
        return Err(finding);
    }
    match application::login_by_bridge(user, login, bridge::ADDRESS).await {
        Ok(bound) => Ok(Attempt::by_bridge(&bound, front.bridge.service)),
        Err(cause) => Err(not_tried(cause).command(&commands::SHOW_BRIDGE, "")),
    }
}

fn not_tried(cause: String) -> Finding {
    Finding::failure(format!("the login could not be tried: {cause}"))
}

/// Describes a rejected login: the outcome and reason that the broker logged, and the application's result.
fn refused(login: &Login, attempt: &Attempt, line: Option<&str>) -> Finding {
    let outcome = line.and_then(|line| value(line, "outcome"));
    let outcome = outcome.and_then(|name| Outcome::ALL.iter().copied().find(|known| known.name() == name));
    let reason =
        line.and_then(|line| value(line, "reason")).map_or_else(String::new, |reason| format!(": {reason}"));
    let cause = outcome.map_or_else(String::new, |outcome| format!(": {outcome}{reason}"));
    let log = line.map_or_else(String::new, |line| format!("; log: {line}"));
    let seen = format!("{} was rejected{cause}; {}; one attempt was made{log}", login.name, attempt.answer);
    let finding = Finding::failure(seen);
    match (outcome, login.way) {
        (Some(outcome), _) if !outcome.is_success() => finding.advise(place(outcome), outcome.advice()),
        // Another module of the service rejected the user, or the broker was not queried.
        (_, Way::Pam) => {
            finding.command(&commands::SHOW_SERVICE, PAM_SERVICE).command(&commands::SHOW_LOG, "")
        }
        (_, Way::Bridge) => finding.command(&commands::SHOW_BRIDGE, "").command(&commands::SHOW_LOG, ""),
    }
}

/// Returns the place where an outcome's advice is followed.
fn place(outcome: Outcome) -> Place {
    match outcome.remedy() {
        Remedy::User => Place::User,
        Remedy::Directory => Place::Directory,
        Remedy::Host => Place::Here,
    }
}

/// Returns the line that the broker logged for this login.
async fn line_of(name: &str, service: &str, since: u64) -> Option<String> {
    let since = format!("--since=@{since}");
    for _ in 0..LOOKS {
        let asked = command::ask("journalctl", &["-t", BROKER, "-q", "-o", "cat", "--no-pager", &since])
            .await
            .ok()?;
        let is_it = |line: &&str| {
            let is = |key: &str, wanted: &str| value(line, key).as_deref() == Some(wanted);
            is("event", "login") && is("user", name) && is("service", service)
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
    use crate::protocol::Secret;

    #[test]
    fn a_refusal_says_what_the_broker_logged_and_nothing_else() {
        let line = "event=login user=john.doe outcome=wrong_password reason=\"data 52e: \\\"no\\\" match\" \
                    service=motion ms=5";
        let answers = Answers { authenticate: "PAM_AUTH_ERR".into(), ..Answers::default() };
        let attempt = Attempt::by_pam(answers);
        let found = refused(&john(Way::Pam), &attempt, Some(line));
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
        let line = "event=login user=john.doe outcome=success service=motion";
        let found = refused(&john(Way::Pam), &attempt, Some(line));
        assert!(found.fix.iter().all(|fix| matches!(fix, Fix::Command { .. })), "{found:?}");
        assert_eq!(value("a=1 b=\"x y\" c=2", "c").as_deref(), Some("2"));
        assert_eq!(value("a=1", "b"), None);
    }

    #[test]
    fn a_refusal_of_the_bridge_has_its_code_and_text() {
        let bound = Bound { code: 53, text: "a bind without a password is refused".to_owned() };
        let attempt = Attempt::by_bridge(&bound, "motion".to_owned());
        let found = refused(&john(Way::Bridge), &attempt, None);
        assert_eq!(
            found.seen,
            "john.doe was rejected; the bridge answered LDAP result 53 (a bind without a password is \
             refused); one attempt was made"
        );
        assert!(Attempt::by_bridge(&Bound { code: 0, ..bound }, "motion".to_owned()).has_access);
    }

    fn john(way: Way) -> Login {
        Login { name: "john.doe".to_owned(), password: Secret::default(), way }
    }
}
