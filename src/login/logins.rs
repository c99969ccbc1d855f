//! The base of every decision: the account that a name means, and the rules for its state and its groups.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::decision::Progress;
use super::refusal::Refusal;
use crate::directory::machine::Machine;
use crate::directory::people::account::Account;
use crate::directory::people::groups::GroupRules;
use crate::directory::people::person::{Found, Person};
use crate::directory::people::{Directory, DirectoryError};
use crate::directory::sid::Sid;
use crate::name::{Principal, Rules};
use crate::verdict::Outcome;

/// Decides logins.
pub struct Logins<M, P> {
    /// The rules that map names.
    pub names: Rules,
    /// Finds accounts and their groups.
    pub directory: Directory<M>,
    /// Checks passwords.
    pub passwords: P,
    /// This host's NetBIOS name with its domain, `XCALLY.acme.com`, for `userWorkstations`.
    pub host: String,
    /// How long before a password's expiry the user is warned; zero is never.
    pub warn: Duration,
    /// The present time, by which accounts and passwords expire.
    pub clock: fn() -> SystemTime,
}

/// The use of accounts that were found by an earlier login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// A remembered account is used at first: the caller confirms it.
    Good,
    /// AD is queried.
    Avoided,
}

impl<M: Machine, P> Logins<M, P> {
    /// Finds the account that a name means.
    pub(super) async fn resolve(
        &self,
        name: &str,
        memory: Memory,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(Principal, Found), Refusal> {
        let principal = self.directory.principal(&self.names, name, deadline).await??;
        progress.principal = Some(principal.to_string());
        let begun = Instant::now();
        let found = match memory {
            Memory::Good => self.directory.find(&principal, deadline).await?,
            Memory::Avoided => self.directory.find_afresh(&principal, deadline).await?,
        };
        progress.step(if found.remembered { "resolve, remembered" } else { "resolve" }, begun.elapsed());
        progress.notes.extend(
            found
                .hides
                .as_ref()
                .map(|dn| format!("{principal} is also the implicit name of {dn}, which it hides")),
        );
        Ok((principal, found))
    }

    /// Decides by the account's state and groups. The groups come before an outcome that wants a new
    /// password, because the user gets access after the change, and nothing judges the groups then.
    ///
    /// # Errors
    /// Returns the refusal if they deny access, or if the groups cannot be read.
    pub async fn judge(&self, person: &Person, account: &Account, deadline: Instant) -> Result<(), Refusal> {
        let refusal = account.refusal((self.clock)(), &self.host);
        if refusal.is_none_or(Outcome::wants_new_password) {
            self.judge_groups(person, account.groups.as_deref(), deadline).await?;
        }
        refusal.map_or(Ok(()), |outcome| Err(Refusal::new(outcome, "the account's state in AD")))
    }

    pub(super) async fn judge_groups(
        &self,
        person: &Person,
        groups: Option<&[Sid]>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        match groups {
            Some(groups) => check_groups(groups, &self.directory.group_rules(person, deadline).await?),
            None if self.directory.has_group_rules() => {
                Err(Refusal::new(Outcome::Unavailable, "the machine account may not read tokenGroups"))
            }
            None => Ok(()),
        }
    }

    /// Returns the outcome that denies a user who is logged in further access, if any.
    ///
    /// # Errors
    /// Returns an error if the groups cannot be read.
    pub async fn expulsion(
        &self,
        person: &Person,
        account: &Account,
        deadline: Instant,
    ) -> Result<Option<Outcome>, DirectoryError> {
        let outcome = account.expulsion((self.clock)());
        if outcome.is_some() || !self.directory.has_group_rules() {
            return Ok(outcome);
        }
        let rules = self.directory.group_rules(person, deadline).await?;
        let groups = self.directory.groups(person, deadline).await?;
        Ok(check_groups(&groups, &rules).err().map(|refusal| refusal.outcome))
    }
}

fn check_groups(groups: &[Sid], rules: &GroupRules) -> Result<(), Refusal> {
    if let Some(denied) = rules.deny.iter().find(|sid| groups.contains(sid)) {
        return Err(Refusal::new(
            Outcome::Denied,
            format!("member of {} (login.deny_groups)", rules.name(denied).unwrap_or_default()),
        ));
    }
    if let Some(allow) = &rules.allow
        && !allow.iter().any(|sid| groups.contains(sid))
    {
        return Err(Refusal::new(Outcome::NotAllowed, "member of none of login.allow_groups"));
    }
    Ok(())
}
