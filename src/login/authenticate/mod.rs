//! The steps of a login: map the name, find the account, check the password, decide. The facts that the
//! check does not prove are read from AD while it runs.
//!
//! AD counts wrong passwords, so each login gets the answer to exactly one attempt, whatever happens. AD
//! tells a user with a wrong password nothing about the account, and neither does the broker: groups matter
//! only after the right password.

mod tried;

use std::time::SystemTime;

use tokio::time::Instant;

use self::tried::{Bearer, Read};
use super::decision::{Decision, Progress};
use super::logins::{Logins, Memory};
use super::passwords::Passwords;
use super::refusal::Refusal;
use crate::checked::{Checked, Method};
use crate::directory::machine::Machine;
use crate::directory::people::account::Account;
use crate::directory::people::person::Person;
use crate::verdict::Outcome;

impl<M: Machine, P: Passwords> Logins<M, P> {
    /// Decides whether the user who typed `name` and `password` gets access. With `warn` the decision also
    /// has the time at which the password expires, if that is soon.
    pub async fn authenticate(&self, name: &str, password: &str, warn: bool, deadline: Instant) -> Decision {
        let mut progress = Progress { warn: warn && !self.warn.is_zero(), ..Progress::default() };
        let result = self.try_authenticate(name, password, deadline, &mut progress).await;
        progress.decide(result)
    }

    /// Decides the same for the account of `name`, whose user was authenticated elsewhere.
    pub async fn account(&self, name: &str, warn: bool, deadline: Instant) -> Decision {
        let (mut decision, read) = self.inspect(name, deadline).await;
        if let Some((person, account)) = read {
            if warn && decision.verdict.outcome.is_success() {
                decision.verdict.expires_in = self.soon(account.password_expires, (self.clock)());
            }
            decision.person = Some(person);
        }
        decision
    }

    /// Decides the same without a warning, and also returns the account and its state, if they could be read.
    pub async fn inspect(&self, name: &str, deadline: Instant) -> (Decision, Option<(Person, Account)>) {
        let mut progress = Progress::default();
        let mut read = None;
        let result = self.try_account(name, deadline, &mut progress, &mut read).await;
        (progress.decide(result), read)
    }

    /// Finds the account that bears `name` now. Its access was decided elsewhere.
    pub async fn identify(&self, name: &str, deadline: Instant) -> Decision {
        let mut progress = Progress::default();
        let result = self.resolve(name, Memory::Avoided, deadline, &mut progress).await;
        let result = result.map(|(_, found)| progress.person = Some(found.person));
        progress.decide(result)
    }

    async fn try_authenticate(
        &self,
        name: &str,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let (principal, found) = self.resolve(name, Memory::Good, deadline, progress).await?;
        let mut person = found.person;
        let confirm = found.remembered.then_some(&principal);
        let mut tried = self.check(&person, confirm, password, deadline, progress).await;
        match std::mem::replace(&mut tried.bearer, Bearer::Asked) {
            Bearer::Asked => {}
            Bearer::Now(now) => {
                let was_for = tried.was_for(&now, &person);
                if !was_for && tried.may_have_counted() && !self.is_gone(&tried, &person, deadline).await {
                    return Err(tried.refused_for(&person, &now));
                }
                // Either the password or the data that was read belongs to another account.
                if !was_for || (now.guid != person.guid && !tried.is_refused()) {
                    tried = self.check(&now, None, password, deadline, progress).await;
                }
                person = now;
            }
            Bearer::None(refusal) => return Err(refusal),
            Bearer::Unknown(reason) => {
                let reason = format!("whether {} still bears the name is unknown: {reason}", person.dn);
                match tried.may_lead_in() {
                    true => return Err(Refusal::new(Outcome::Unavailable, reason)),
                    false => progress.notes.push(reason),
                }
            }
        }
        progress.person = Some(person.clone());
        let (checked, read) = (tried.checked?, tried.read);
        // A stranger can type a name, too. So before the password is proved, only the log names the account's
        // state.
        let (before_proof, said) = (checked.before_proof, checked.reason.clone());
        self.conclude(&person, checked, read, deadline, progress).await.map_err(
            |refusal| match before_proof {
                true if refusal.reason.contains(&said) => refusal.before_proof(),
                true => Refusal { reason: format!("{}; {said}", refusal.reason), ..refusal }.before_proof(),
                false => refusal,
            },
        )
    }

    /// Decides on the login of `person` whose password was `checked`.
    async fn conclude(
        &self,
        person: &Person,
        checked: Checked,
        read: Read,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        if checked.outcome != Outcome::Success && !checked.unexplained {
            // A new password would lead to access.
            if checked.outcome.wants_new_password() && self.directory.has_group_rules() {
                let _ = self.after_bind(person, read, deadline).await?;
            }
            return Err(Refusal::new(checked.outcome, checked.reason));
        }
        let expiry = match checked.method {
            Method::Ldap => self.after_bind(person, read, deadline).await?,
            Method::Kerberos => {
                let account = match read {
                    Read::Account(account) => account,
                    Read::Nothing | Read::Part(_) => {
                        self.directory.account(person, deadline).await.map_err(Refusal::from)
                    }
                };
                let account = match account {
                    // The KDC has already rejected the login; only the reason is unknown.
                    Err(unknown) if checked.is_final() => {
                        let reason =
                            format!("{}; the account's state is unknown: {}", checked.reason, unknown.reason);
                        return Err(Refusal::new(checked.outcome, reason));
                    }
                    account => account?,
                };
                self.judge(person, &account, deadline).await?;
                // The KDC knows this name, and the account was read by its GUID.
                if account.sam != person.sam {
                    let reason = format!("{} was renamed a moment ago; try again", person.dn);
                    return Err(Refusal::new(Outcome::Unavailable, reason));
                }
                if checked.unexplained {
                    return Err(unconfirmed(checked));
                }
                Ok(account.password_expires)
            }
        };
        if progress.warn {
            match expiry {
                Ok(at) => progress.expires_in = self.soon(at, (self.clock)()),
                Err(Refusal { reason, .. }) => {
                    progress.notes.push(format!("whether the password expires soon is unknown: {reason}"));
                }
            }
        }
        Ok(())
    }

    /// Decides what a bind does not prove. Returns the time at which the password expires, or why that is
    /// unknown.
    async fn after_bind(&self, person: &Person, read: Read, deadline: Instant) -> Result<Expiry, Refusal> {
        let (groups, expiry) = match read {
            Read::Part(entry) if self.directory.has_group_rules() => {
                let entry = entry?;
                (
                    Some(Account::groups_of(&entry)?),
                    Account::password_expiry_of(&entry).map_err(Refusal::from),
                )
            }
            // Only a warning depends on it.
            Read::Part(entry) => (None, entry.and_then(|entry| Ok(Account::password_expiry_of(&entry)?))),
            // The method was Kerberos when the read began.
            Read::Account(account) => {
                let account = account?;
                (account.groups, Ok(account.password_expires))
            }
            Read::Nothing => (None, Err(Refusal::new(Outcome::Unavailable, "AD did not answer in time"))),
        };
        self.judge_groups(person, groups.as_deref(), deadline).await?;
        Ok(expiry)
    }

    /// Returns the seconds from `now` until the password expires at `at`, if that is soon.
    fn soon(&self, at: Option<SystemTime>, now: SystemTime) -> Option<u64> {
        let left = at?.duration_since(now).ok()?;
        (left < self.warn).then_some(left.as_secs())
    }

    async fn try_account(
        &self,
        name: &str,
        deadline: Instant,
        progress: &mut Progress,
        read: &mut Option<(Person, Account)>,
    ) -> Result<(), Refusal> {
        let (principal, found) = self.resolve(name, Memory::Good, deadline, progress).await?;
        let begun = Instant::now();
        let (person, account) = match found.remembered {
            false => {
                let account = self.directory.account(&found.person, deadline).await;
                (found.person, account)
            }
            // The state and the present bearer of the name are read at the same time.
            true => {
                let now = self.directory.find_afresh(&principal, deadline);
                let (now, account) = tokio::join!(now, self.directory.account(&found.person, deadline));
                let now = now?.person;
                let account = match now.guid == found.person.guid {
                    true => account,
                    false => self.directory.account(&now, deadline).await,
                };
                (now, account)
            }
        };
        progress.step("state", begun.elapsed());
        let (person, account) = read.insert((person, account?));
        self.judge(person, account, deadline).await
    }
}

/// Time at which a password expires, if ever, or why it is unknown. An unknown expiry does not reject a
/// login.
type Expiry = Result<Option<SystemTime>, Refusal>;

/// Builds the refusal for a KDC's rejection that the account's state does not confirm. A rejection does not
/// prove that the KDC is genuine, and one that leads to a password change would lead to access.
fn unconfirmed(checked: Checked) -> Refusal {
    match checked.outcome.wants_new_password() {
        true => {
            let Checked { outcome, reason, dc, .. } = checked;
            let text = format!(
                "{reason}, which is {outcome}, and the account's state in AD says otherwise: {dc} is a \
                 forged KDC, or the domain controllers have not replicated yet"
            );
            Refusal::new(Outcome::Unavailable, text)
        }
        false => Refusal::new(checked.outcome, checked.reason),
    }
}

#[cfg(test)]
mod tests;
