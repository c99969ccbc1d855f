//! Replies to `motion-ad check` and `motion-ad status`.

use std::time::{Duration, SystemTime};

use tokio::time::Instant as Deadline;

use super::Broker;
use super::metrics::Event;
use super::service::Service;
use crate::directory::people::account::Account;
use crate::login::decision::Decision;
use crate::protocol::report::{Check, Fact, KeptSettings, Machine, Status, Task};
use crate::supervise;
use crate::verdict::Outcome;

impl Broker {
    /// Reports the access of an account, and the facts that decide it.
    pub(super) async fn check(&self, user: &str, deadline: Deadline) -> Check {
        let mut check = Check { user: user.to_owned(), ..Check::default() };
        let service = match (&self.service, self.problem()) {
            (Ok(service), None) => service,
            (Ok(_), problem) => {
                check.reason = problem.unwrap_or_default();
                return check;
            }
            (Err(error), _) => {
                let verdict = Decision::from(error).verdict;
                check.outcome = Some(verdict.outcome).filter(|outcome| *outcome != Outcome::Unavailable);
                check.reason = verdict.reason;
                return check;
            }
        };
        let (decision, read) = service.logins.inspect(user, deadline).await;
        let decision = decision.verdict;
        let lock = match &read {
            Some((person, _)) if decision.outcome == Outcome::LockedOut => {
                service.logins.lock(person, deadline).await
            }
            _ => None,
        };
        check.outcome = Some(decision.outcome).filter(|outcome| *outcome != Outcome::Unavailable);
        check.reason = lock.clone().unwrap_or(decision.reason);
        check.principal = decision.principal;
        check.dc = service.machine.state().dc;
        if let Some((person, mut account)) = read {
            if account.protected.is_none() {
                let groups = service.logins.directory.groups(&person, deadline).await.ok();
                account.protected = groups.as_deref().map(Account::is_protected);
            }
            if let (Outcome::Success, Some(refusal)) = (decision.outcome, service.logins.restricted(&account))
            {
                (check.outcome, check.reason) = (Some(refusal.outcome), refusal.reason);
            }
            check.dn = Some(person.dn);
            check.guid = Some(person.guid.to_string());
            check.sam_account_name = Some(person.sam);
            check.user_principal_name = person.upn;
            check.facts = account.facts((service.logins.clock)(), &service.logins.host);
            let restriction =
                account.binds_forbidden().filter(|_| check.outcome == Some(Outcome::AccountRestriction));
            for fact in check.facts.iter_mut().filter(|fact| Some(fact.name.as_str()) == restriction) {
                fact.refuses = true;
            }
            // The lock is the first rule that rejects.
            if let (Some(lock), Some(fact)) = (lock, check.facts.iter_mut().find(|fact| fact.refuses)) {
                fact.value = lock;
            }
            let in_groups = matches!(decision.outcome, Outcome::NotAllowed | Outcome::Denied);
            if service.logins.directory.has_group_rules() {
                let value = if in_groups { check.reason.clone() } else { "allowed".to_owned() };
                check.facts.push(Fact { name: "groups".into(), value, refuses: in_groups });
            }
        }
        check
    }

    /// Reports the present state of the broker before `deadline`.
    pub(super) async fn status(&self, deadline: Deadline) -> Status {
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.begun.elapsed().as_secs(),
            logins: {
                // Only logins and account checks are counted.
                let accounts = self.metrics.outcomes(Event::Account).map(|(_, count)| count);
                let both = self.metrics.outcomes(Event::Login).zip(accounts);
                let sums = both.map(|((outcome, logins), accounts)| (outcome, logins + accounts));
                sums.filter(|(_, count)| *count > 0).collect()
            },
            kept: self.kept.as_ref().map(|kept| KeptSettings {
                problem: kept.problem.to_string(),
                settings: kept.settings.clone(),
            }),
            observed: self.metrics.observing(SystemTime::now()),
            ..Status::default()
        };
        let health = self.look_now(deadline).await;
        status.serving = health.is_serving();
        status.problems = health.problems.into_iter().map(|problem| problem.text).collect();
        status.notes = health.notes;
        if let Ok(service) = &self.service {
            service.report(&mut status).await;
        }
        status.tasks = tasks();
        let waiting = status.tasks.iter().filter(|task| task.waiting);
        status.problems.extend(waiting.map(|task| {
            format!("the background task {} failed and waits for its restart: {}", task.name, task.cause)
        }));
        bound(&mut status);
        status
    }
}

/// Maximum number of roots in a status.
const ROOTS: usize = 25;
/// Maximum length of a root's subject in a status, in bytes.
const SUBJECT: usize = 300;
/// Maximum number of texts in each list of a status.
const TEXTS: usize = 15;
/// Maximum length of such a text, in bytes.
const TEXT: usize = 700;

/// Shortens the lists that could make a status longer than a frame. The roots that end first stay.
fn bound(status: &mut Status) {
    let trust = &mut status.trust;
    if let Some(more) = trust.roots.len().checked_sub(ROOTS).filter(|more| *more > 0) {
        trust.roots.sort_by_key(|root| root.not_after);
        trust.roots.truncate(ROOTS);
        trust.notes.insert(0, format!("{more} more roots are trusted, which end later than those listed"));
    }
    trust.roots.iter_mut().for_each(|root| cut(&mut root.subject, SUBJECT));
    for texts in [&mut trust.notes, &mut status.notes, &mut status.problems] {
        let more = texts.len().saturating_sub(TEXTS);
        texts.truncate(TEXTS);
        texts.iter_mut().for_each(|text| cut(text, TEXT));
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
    }
}

/// Cuts a text to `length` bytes.
fn cut(text: &mut String, length: usize) {
    if text.len() > length {
        let end = (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}

/// Returns the background tasks that have failed.
fn tasks() -> Vec<Task> {
    let failed = supervise::tasks().report().into_iter().filter(|(_, task)| task.failures > 0);
    let told = failed.map(|(name, task)| Task {
        name: name.to_owned(),
        failures: task.failures,
        cause: task.cause.unwrap_or_default(),
        waiting: task.waiting > 0,
    });
    told.collect()
}

/// Maximum time that `motion-ad status` waits for the register of sessions.
const COUNTING: Duration = Duration::from_secs(1);

impl Service {
    /// Adds the known state of each part, after the look that has just probed them.
    async fn report(&self, status: &mut Status) {
        status.domain = Some(self.domain.clone());
        status.method = self.logins.passwords.report(&self.domain);
        status.servers = self.domains.own().report();
        status.trust = self.trust.report();
        status.pool = self.logins.passwords.pool(&self.domain).report();
        status.sessions = self.register.report(Deadline::now() + COUNTING).await;
        let machine = self.machine.state();
        let broken = machine.last_error.unwrap_or_else(|| "not connected".to_owned());
        status.machine = Machine {
            state: if machine.connected { "connected".to_owned() } else { broken },
            principal: machine.principal,
            dc: machine.dc,
            ticket: machine.ticket.map(|left| left.as_secs()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{Root, Trust};
    use crate::protocol::{Reply, Secret, encode};

    #[test]
    fn a_status_fits_into_a_frame_however_much_there_is_to_report() {
        let root = |number: u64| Root {
            subject: "ü".repeat(1000),
            sha256: "0".repeat(64),
            not_before: 0,
            not_after: u64::MAX - number,
        };
        let texts = || vec!["ü".repeat(1000); 1000];
        let trust = Trust { roots: (0..1000).map(root).collect(), notes: texts(), ..Trust::default() };
        let mut status = Status { problems: texts(), notes: texts(), trust, ..Status::default() };
        bound(&mut status);
        assert_eq!(status.trust.roots[0].not_after, u64::MAX - 999, "the root that ends first");
        assert_eq!((status.trust.roots.len(), status.notes.len()), (ROOTS, TEXTS + 1));
        assert!(status.trust.notes[0].starts_with("975 more roots"), "{}", status.trust.notes[0]);
        assert_eq!(status.problems.last().unwrap(), "and 985 more");
        assert!(encode(&Reply::Status(Box::new(status)), &Secret::default()).is_ok());
    }

    #[test]
    fn a_usual_status_stays_as_it_is() {
        let root = |not_after| Root { subject: "CN=Acme Root".into(), not_after, ..Root::default() };
        let trust = Trust { roots: vec![root(2), root(1)], notes: vec!["a".into()], ..Trust::default() };
        let mut status = Status { problems: vec!["b".into()], trust, ..Status::default() };
        let before = status.clone();
        bound(&mut status);
        assert_eq!(status, before);
    }
}
