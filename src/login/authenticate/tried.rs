//! One check of a password, and what is read from AD while it runs: the data that the check does not prove,
//! and the account that bears a remembered name now.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::super::decision::Progress;
use super::super::logins::Logins;
use super::super::passwords::Passwords;
use super::super::refusal::Refusal;
use crate::checked::{Checked, Method};
use crate::directory::entry::Entry;
use crate::directory::machine::Machine;
use crate::directory::people::DirectoryError;
use crate::directory::people::account::Account;
use crate::directory::people::person::Person;
use crate::name::Principal;
use crate::verdict::Outcome;

/// Longest wait for the password's expiry time after a bind that succeeded, if nothing else is outstanding.
/// The time is read while the password is checked; a warning is worth no longer delay.
pub(super) const WARNING: Duration = Duration::from_millis(300);
/// Longest time that a rejected login waits to learn whether the name still belongs to the same account.
pub(super) const CONFIRMATION: Duration = Duration::from_millis(500);

impl<M: Machine, P: Passwords> Logins<M, P> {
    /// Checks the password of `person`. While the check runs, it reads what the check will not prove. If
    /// `person` was remembered for a principal, it also reads which account that principal means now. If the
    /// password is rejected for good, it waits for that account alone, for [`CONFIRMATION`] at most.
    pub(super) async fn check(
        &self,
        person: &Person,
        remembered_for: Option<&Principal>,
        password: &str,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Tried {
        let begun = Instant::now();
        let check = self.passwords.check(person, password, deadline);
        let method = self.passwords.method(person);
        let parts = self.parts(progress.warn);
        let read = async move {
            match method == Method::Ldap && parts.is_empty() {
                true => Read::Nothing,
                false => self.read(person, method, &parts, deadline).await,
            }
        };
        let confirm = async {
            match remembered_for {
                Some(principal) => self.bearer(principal, deadline).await,
                None => Bearer::Asked,
            }
        };
        tokio::pin!(check, confirm, read);
        let (mut bearer, mut early) = (None, None);
        let checked = loop {
            tokio::select! {
                biased;
                checked = &mut check => break checked,
                now = &mut confirm, if bearer.is_none() => bearer = Some(now),
                read = &mut read, if early.is_none() => early = Some(read),
            }
        };
        if let Ok(checked) = &checked {
            progress.password(checked);
        }
        let mut tried = Tried { checked, method, bearer: Bearer::Asked, read: Read::Nothing };
        // Without group rules, the read is for a warning alone, and only a success has one.
        let patience = match method == Method::Ldap && !self.directory.has_group_rules() {
            true if tried.wants_new_password() => Some(Duration::ZERO),
            true => Some(WARNING),
            false => None,
        };
        (tried.bearer, tried.read) = match (tried.is_refused(), bearer) {
            // Without an answer from AD, the bearer of the name does not matter.
            _ if !tried.may_be_judged() => (Bearer::Asked, Read::Nothing),
            (true, Some(bearer)) => (bearer, Read::Nothing),
            (true, None) => {
                let until = deadline.min(Instant::now() + CONFIRMATION);
                let late = |_| Bearer::Unknown("AD did not answer in time".to_owned());
                (timeout_at(until, confirm).await.unwrap_or_else(late), Read::Nothing)
            }
            (false, bearer) => {
                let bearer = async {
                    match bearer {
                        Some(bearer) => bearer,
                        None => confirm.await,
                    }
                };
                let read = async {
                    match (early, patience) {
                        (Some(early), _) => early,
                        (None, Some(patience)) => timeout(patience, read).await.unwrap_or(Read::Nothing),
                        (None, None) => read.await,
                    }
                };
                tokio::join!(bearer, read)
            }
        };
        let took = tried
            .checked
            .as_ref()
            .map_or(Duration::ZERO, |checked| checked.took + checked.connect.unwrap_or_default());
        if remembered_for.is_some() || !matches!(tried.read, Read::Nothing) {
            progress.step("state, after that", begun.elapsed().saturating_sub(took));
        }
        tried
    }

    /// Finds the account that bears `principal` now.
    async fn bearer(&self, principal: &Principal, deadline: Instant) -> Bearer {
        match self.directory.find_afresh(principal, deadline).await {
            Ok(found) => Bearer::Now(found.person),
            Err(DirectoryError::Machine(error)) => Bearer::Unknown(error.to_string()),
            Err(error) => Bearer::None(error.into()),
        }
    }

    /// Returns the attributes that a bind leaves open: the groups, if rules name some, and the password's
    /// expiry, if the user wants a warning.
    fn parts(&self, warn: bool) -> Vec<&'static str> {
        let parts = [(self.directory.has_group_rules(), Account::GROUPS), (warn, Account::PASSWORD_EXPIRY)];
        parts.into_iter().filter_map(|(is_wanted, name)| is_wanted.then_some(name)).collect()
    }

    /// Reads what the method leaves open; after a bind that is `parts`. Kerberos ignores workstations and may
    /// not give the reason for a rejection.
    async fn read(&self, person: &Person, method: Method, parts: &[&str], deadline: Instant) -> Read {
        if method == Method::Kerberos {
            return Read::Account(self.directory.account(person, deadline).await.map_err(Refusal::from));
        }
        let entry = self.directory.read(person, parts, deadline);
        let entry = match self.directory.has_group_rules() {
            // The rules are read at the same time, so that they are available when they are needed.
            true => {
                let (rules, entry) = tokio::join!(self.directory.group_rules(person, deadline), entry);
                rules.and(entry)
            }
            false => entry.await,
        };
        Read::Part(entry.map_err(Refusal::from))
    }

    /// Returns true if the password was sent by a bind with a DN that no account has any more: it counted for
    /// none. If AD does not say, the attempt may have counted.
    pub(super) async fn is_gone(&self, tried: &Tried, person: &Person, deadline: Instant) -> bool {
        let deadline = deadline.min(Instant::now() + CONFIRMATION);
        tried.by() == Method::Ldap && self.directory.exists(person, deadline).await == Ok(false)
    }
}

/// The present bearer of a name, as AD reports it while the password of a remembered account is checked.
pub(super) enum Bearer {
    /// AD was queried before the password was checked.
    Asked,
    /// This account.
    Now(Person),
    /// AD has decided that the name means no account, or several.
    None(Refusal),
    /// AD has not answered, for this reason.
    Unknown(String),
}

/// The result of a password check, and the data that was read while it ran.
pub(super) struct Tried {
    pub(super) checked: Result<Checked, Refusal>,
    /// The method that was planned for the check.
    method: Method,
    pub(super) bearer: Bearer,
    pub(super) read: Read,
}

impl Tried {
    /// Returns true if AD rejected the password for good and nothing else has to explain the rejection.
    pub(super) fn is_refused(&self) -> bool {
        self.checked
            .as_ref()
            .map_or(true, |checked| !checked.outcome.leads_to_access() && !checked.unexplained)
    }

    /// Returns true if the password is right, and AD wants a new one: the user gets access after the change.
    fn wants_new_password(&self) -> bool {
        self.checked
            .as_ref()
            .is_ok_and(|checked| checked.outcome.wants_new_password() && !checked.unexplained)
    }

    /// The method by which the password was checked.
    fn by(&self) -> Method {
        self.checked.as_ref().map_or(self.method, |checked| checked.method)
    }

    /// Returns true if AD checked the password of `now`, although it was sent for `asked`. The DN decides
    /// that for a bind, the names for a KDC.
    pub(super) fn was_for(&self, now: &Person, asked: &Person) -> bool {
        match self.by() {
            Method::Ldap => now.dn == asked.dn,
            Method::Kerberos => (&now.sam, &now.upn) == (&asked.sam, &asked.upn),
        }
    }

    /// Returns true if the answer may lead to access, directly or through a change of the password.
    pub(super) fn may_lead_in(&self) -> bool {
        self.checked.as_ref().is_ok_and(|checked| checked.outcome.leads_to_access())
    }

    /// Returns true if AD has answered. An error is an answer only if the KDC checked the password of yet
    /// another account.
    fn may_be_judged(&self) -> bool {
        self.checked.as_ref().map_or_else(|refusal| refusal.outcome == Outcome::Ambiguous, |_| true)
    }

    /// Returns true if AD may have counted the password as wrong. AD gives every other answer after the right
    /// password, or without checking it; so does a KDC that gives no reason.
    pub(super) fn may_have_counted(&self) -> bool {
        self.checked.as_ref().is_ok_and(|checked| {
            matches!(checked.outcome, Outcome::WrongPassword | Outcome::Refused)
                && !checked.unexplained
                && !checked.before_proof
        })
    }

    /// Builds the refusal of a password that was sent to `asked`, which no longer bears the name.
    pub(super) fn refused_for(self, asked: &Person, now: &Person) -> Refusal {
        let stale =
            format!("the password went to {}, and the name is now that of {}: try again", asked.dn, now.dn);
        match self.checked {
            Ok(checked) => Refusal::new(checked.outcome, format!("{}; {stale}", checked.reason)),
            Err(refusal) => refusal,
        }
    }
}

/// The data that was read of an account while its password was checked.
pub(super) enum Read {
    Nothing,
    /// Groups, if rules need them, and the password's expiry, if the user wants a warning.
    Part(Result<Entry, Refusal>),
    Account(Result<Account, Refusal>),
}
