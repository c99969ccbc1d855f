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
        status
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
