//! The order of a login: map, find, bind and read the groups at the same time, decide.
//!
//! Exactly one bind is answered per login, whatever happens: AD counts wrong passwords. What AD does not tell
//! somebody with a wrong password, nobody is told here either, so groups only matter once the bind succeeded.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ConfigError;
use crate::directory::pool::{Bound, Pool, PoolError};
use crate::directory::sid::Sid;
use crate::directory::{Directory, DirectoryError, Found, GroupRules, Machine, Person};
use crate::name::{NameError, Rules};
use crate::verdict::{Outcome, Step, Verdict};

/// Who checks passwords.
pub trait Binds: Send + Sync {
    /// Binds as `dn`; see [`Pool::bind`].
    fn bind(
        &self,
        dn: &str,
        password: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Bound, PoolError>> + Send;
}

impl Binds for Pool {
    async fn bind(&self, dn: &str, password: &str, deadline: Instant) -> Result<Bound, PoolError> {
        Pool::bind(self, dn, password, deadline).await
    }
}

/// What became of a login, and what the log says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// For the module.
    pub verdict: Verdict,
    /// The domain controller that decided.
    pub dc: Option<String>,
}

/// Decides logins.
pub struct Logins<M, B> {
    /// How names are mapped.
    pub names: Rules,
    /// Who is who, and in which groups.
    pub directory: Directory<M>,
    /// Who checks passwords.
    pub binds: B,
    /// This host's NetBIOS name, for `userWorkstations`.
    pub host: String,
}

/// A refusal before AD has decided.
struct Refusal {
    outcome: Outcome,
    reason: String,
}

impl Refusal {
    fn new(outcome: Outcome, reason: impl ToString) -> Self {
        Refusal { outcome, reason: reason.to_string() }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Refusal::new(Outcome::Unmapped, error)
    }
}

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        let outcome = match &error {
            DirectoryError::Unknown(_) => Outcome::UnknownUser,
            DirectoryError::Ambiguous { .. } => Outcome::Ambiguous,
            DirectoryError::Group(_) => Outcome::Misconfigured,
            DirectoryError::Machine(_) => Outcome::Unavailable,
        };
        Refusal::new(outcome, error)
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Refusal::new(Outcome::Unavailable, error)
    }
}

impl From<&ConfigError> for Decision {
    fn from(error: &ConfigError) -> Self {
        let outcome = match error {
            ConfigError::Broken(_) => Outcome::Misconfigured,
            ConfigError::NotJoined => Outcome::Unavailable,
        };
        Decision { verdict: Verdict::new(outcome, error.to_string()), dc: None }
    }
}

/// What is known so far of a login that is being decided.
#[derive(Default)]
struct Progress {
    principal: Option<String>,
    steps: Vec<Step>,
    dc: Option<String>,
    note: Option<String>,
}

impl Progress {
    fn step(&mut self, name: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.steps.push(Step { name: name.to_owned(), micros });
    }

    fn decide(self, result: Result<(), Refusal>) -> Decision {
        let (outcome, reason) = match result {
            Ok(()) => (Outcome::Success, String::new()),
            Err(refusal) => (refusal.outcome, refusal.reason),
        };
        let reasons = [Some(reason).filter(|reason| !reason.is_empty()), self.note];
        let reason = reasons.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let verdict = Verdict { outcome, principal: self.principal, reason, steps: self.steps };
        Decision { verdict, dc: self.dc }
    }
}

impl<M: Machine, B: Binds> Logins<M, B> {
    /// Whether the person who typed `name` and `password` may come in.
    pub async fn authenticate(&self, name: &str, password: &str, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.try_authenticate(name, password, deadline, &mut progress).await;
        progress.decide(result)
    }

    /// Whether the account of `name`, who proved to be that person elsewhere, may come in.
    pub async fn account(&self, name: &str, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.try_account(name, deadline, &mut progress).await;
        progress.decide(result)
    }

    async fn try_authenticate(
        &self,
        name: &str,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let found = self.resolve(name, deadline, progress).await?;
        let mut person = found.person;
        let mut bound = self.bind(&person, password, deadline, progress).await?;
        if found.remembered && may_be_stale(bound.0.outcome) {
            // The account may have been renamed or moved since its name was remembered. Only where nobody has
            // the old distinguished name can the first bind not have counted against anybody.
            let principal = self.names.principal(name)?;
            let fresh = self.directory.find_afresh(&principal, deadline).await?.person;
            if fresh.dn != person.dn && !self.directory.exists(&person.dn, deadline).await? {
                person = fresh;
                bound = self.bind(&person, password, deadline, progress).await?;
            }
        }
        let (bound, groups) = bound;
        if bound.outcome != Outcome::Success {
            return Err(Refusal::new(bound.outcome, bound.reason));
        }
        match groups {
            Some(groups) => groups,
            None => Ok(()),
        }
    }

    /// Binds, and meanwhile reads the groups where a rule asks for them. A refused bind does not wait for the groups.
    async fn bind(
        &self,
        person: &Person,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(Bound, Option<Result<(), Refusal>>), Refusal> {
        let begun = Instant::now();
        let bind = self.binds.bind(&person.dn, password, deadline);
        let (bound, groups) = if self.directory.has_group_rules() {
            let groups = self.membership(person, deadline);
            tokio::pin!(bind, groups);
            let (bound, early) = tokio::select! {
                biased;
                bound = &mut bind => (bound, None),
                early = &mut groups => (bind.await, Some(early)),
            };
            match (bound, early) {
                (Ok(bound), None) if bound.outcome == Outcome::Success => (Ok(bound), Some(groups.await)),
                other => other,
            }
        } else {
            (bind.await, None)
        };
        let bound = bound?;
        if let Some(connect) = bound.connect {
            progress.step("connect", connect);
        }
        progress.step("bind", bound.bind);
        let rest = begun.elapsed().saturating_sub(bound.bind + bound.connect.unwrap_or_default());
        if groups.is_some() {
            progress.step("groups, after the bind", rest);
        }
        progress.dc = Some(bound.dc.clone());
        Ok((bound, groups))
    }

    async fn try_account(
        &self,
        name: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let found = self.resolve(name, deadline, progress).await?;
        let begun = Instant::now();
        let account = self.directory.account(&found.person, deadline).await?;
        progress.step("state", begun.elapsed());
        if let Some(outcome) = account.refusal(std::time::SystemTime::now(), &self.host) {
            return Err(Refusal::new(outcome, "the account's state in AD"));
        }
        match account.groups {
            Some(groups) => check_groups(&groups, &self.directory.group_rules(deadline).await?),
            None if self.directory.has_group_rules() => {
                Err(Refusal::new(Outcome::Unavailable, "the machine account may not read tokenGroups"))
            }
            None => Ok(()),
        }
    }

    async fn resolve(
        &self,
        name: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Found, Refusal> {
        let principal = self.names.principal(name)?;
        progress.principal = Some(principal.to_string());
        let begun = Instant::now();
        let found = self.directory.find(&principal, deadline).await?;
        progress.step(if found.remembered { "resolve, remembered" } else { "resolve" }, begun.elapsed());
        progress.note = found
            .hides
            .as_ref()
            .map(|dn| format!("{principal} is also the implicit name of {dn}, which it hides"));
        Ok(found)
    }

    async fn membership(&self, person: &Person, deadline: Instant) -> Result<(), Refusal> {
        let (rules, groups) =
            tokio::try_join!(self.directory.group_rules(deadline), self.directory.groups(person, deadline))?;
        check_groups(&groups, &rules)
    }
}

/// Outcomes that a bind with a distinguished name that no longer exists can have.
fn may_be_stale(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::WrongPassword | Outcome::UnknownUser | Outcome::Refused)
}

fn check_groups(groups: &[Sid], rules: &GroupRules) -> Result<(), Refusal> {
    if let Some(denied) = rules.deny.iter().find(|sid| groups.contains(sid)) {
        return Err(Refusal::new(Outcome::Denied, format!("member of {denied} (login.deny_groups)")));
    }
    if !rules.allow.is_empty() && !rules.allow.iter().any(|sid| groups.contains(sid)) {
        return Err(Refusal::new(Outcome::NotAllowed, "member of none of login.allow_groups"));
    }
    Ok(())
}
