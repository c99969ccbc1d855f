//! Checks and changes of passwords, by LDAP or by Kerberos, and the choice between the two.
//!
//! A password goes to one of them only, until it has proved right. If the configuration leaves the choice
//! open, the method is LDAP where a domain controller offers TLS that can be verified. Kerberos is chosen
//! only if every domain controller that answers offers none, which is known before any bind is sent, or takes
//! no simple binds. Such a domain controller checks and counts nothing, and neither does one that rejects the
//! binds of a restricted account; then the password goes to Kerberos.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::checked::{Checked, Method};
use crate::config;
use crate::directory::passwords::change::Answer;
use crate::directory::passwords::pool;
use crate::directory::passwords::pool::{Pool, PoolError};
use crate::directory::people::person::Person;
use crate::kerberos::{self, CheckError, Kerberos, Who};
use crate::protocol::report;
use crate::verdict::Outcome;

/// Checks passwords.
pub trait Passwords: Send + Sync {
    /// Returns the method that will most likely check the next password of `person`.
    fn method(&self, person: &Person) -> Method;

    /// Returns true if the configuration permits binds alone.
    fn binds_only(&self) -> bool;

    /// Checks the password of `person`. At most one attempt is answered.
    fn check(
        &self,
        person: &Person,
        password: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Checked, Refusal>> + Send;
}

/// An attempt to change a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The present password does not permit a change: none was sent.
    Closed(Checked),
    /// The present password was right, and the change was sent, once.
    Sent {
        /// The result of the check of the present password.
        present: Checked,
        /// The answer to the change. It may be forged, unless the server that checked the present password
        /// has proved itself.
        answer: Answer,
    },
}

impl AsRef<Checked> for Attempt {
    fn as_ref(&self) -> &Checked {
        match self {
            Attempt::Closed(present) | Attempt::Sent { present, .. } => present,
        }
    }
}

/// Changes passwords.
pub trait Changes: Send + Sync {
    /// Checks the present password of `person` as a change would, without a change. An outcome that wants a
    /// new password means that the present one is right.
    fn probe(
        &self,
        person: &Person,
        present: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Checked, Refusal>> + Send;

    /// Changes the password of `person` from `present` to `new`. At most one attempt with the present
    /// password is answered, and the new one is sent at most once. Kerberos uses the domain controller `at`
    /// if possible.
    ///
    /// # Errors
    /// Returns a refusal if the change was not sent.
    fn change(
        &self,
        person: &Person,
        present: &str,
        new: &str,
        at: Option<&str>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Attempt, Refusal>> + Send;
}

/// Receives each change of method: the domain, the method and the reason.
pub type MethodObserver = Arc<dyn Fn(&str, Method, &str) + Send + Sync>;

/// Creates the pool of a domain.
pub type Pools = Box<dyn Fn(&str) -> Arc<Pool> + Send + Sync>;

/// The passwords of the forest's domains.
pub struct DomainPasswords {
    configured: config::Method,
    kerberos: Arc<Kerberos>,
    make: Pools,
    observer: MethodObserver,
    /// The domains in which AD found accounts, by name.
    domains: Mutex<HashMap<String, Domain>>,
}

struct Domain {
    pool: Arc<Pool>,
    choice: Option<(Method, String)>,
}

impl DomainPasswords {
    /// Creates the checks for the `configured` method, with `kerberos` and with pools from `make`.
    pub fn new(
        configured: config::Method,
        kerberos: Arc<Kerberos>,
        make: Pools,
        observer: MethodObserver,
    ) -> Self {
        DomainPasswords { configured, kerberos, make, observer, domains: Mutex::default() }
    }

    /// Returns the pool of `domain`.
    pub fn pool(&self, domain: &str) -> Arc<Pool> {
        let mut domains = self.domains.lock();
        if let Some(known) = domains.get(domain) {
            return known.pool.clone();
        }
        let pool = (self.make)(domain);
        domains.insert(domain.to_owned(), Domain { pool: pool.clone(), choice: None });
        pool
    }

    /// Chooses the method of `domain` ahead of the first login.
    ///
    /// # Errors
    /// Returns the reason if no password can be checked.
    pub async fn warm_up(&self, domain: &str, deadline: Instant) -> Result<Option<String>, String> {
        let pool = self.pool(domain);
        if self.configured == config::Method::Kerberos {
            self.choose(domain, Method::Kerberos, CONFIGURED);
            return Ok(None);
        }
        match pool.warm_up(deadline).await {
            Ok(dc) => {
                self.settled(domain, &dc);
                Ok(Some(dc))
            }
            Err(PoolError::NoTls(cause) | PoolError::NoBinds(cause))
                if self.configured == config::Method::Auto =>
            {
                self.choose(domain, Method::Kerberos, &cause);
                Ok(None)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// Records that `dc` of `domain` offers TLS that can be verified. That proves nothing while it takes no
    /// simple binds.
    pub fn settled(&self, domain: &str, dc: &str) {
        match self.configured {
            config::Method::Auto if self.pool(domain).is_blocked(dc) => {}
            config::Method::Auto if self.chosen(domain) == Some(Method::Ldap) => {}
            config::Method::Auto => {
                self.choose(domain, Method::Ldap, &format!("{dc} offers TLS that can be verified"));
            }
            config::Method::Ldap => self.choose(domain, Method::Ldap, CONFIGURED),
            config::Method::Kerberos => {}
        }
    }

    /// Closes the idle connections, so that the next ones are verified again.
    pub fn reconnect(&self) {
        self.domains.lock().values().for_each(|domain| domain.pool.clear());
    }

    /// Returns every domain that has a pool so far.
    pub fn pools(&self) -> Vec<(String, Arc<Pool>)> {
        self.domains.lock().iter().map(|(name, domain)| (name.clone(), domain.pool.clone())).collect()
    }

    /// Returns why Kerberos checks the passwords of `domain` in place of LDAP, if the configuration left the
    /// choice open and it does.
    pub fn stands_in(&self, domain: &str) -> Option<String> {
        let domains = self.domains.lock();
        match domains.get(domain)?.choice.as_ref()? {
            (Method::Kerberos, reason) if self.configured == config::Method::Auto => Some(reason.clone()),
            _ => None,
        }
    }

    /// Reports the method of `domain`.
    pub fn report(&self, domain: &str) -> report::Method {
        match self.domains.lock().get(domain).and_then(|domain| domain.choice.clone()) {
            Some((method, reason)) => report::Method { name: method.to_string(), reason },
            None => report::Method::default(),
        }
    }

    /// Runs `ldap`, or `kerberos` if that is the method. If the configuration leaves the choice open, it also
    /// runs `kerberos` if no domain controller has checked the password: nothing could be sent because no TLS
    /// was offered, no simple binds are taken, or the account is restricted to Kerberos. The argument of
    /// `kerberos` permits a password that AD would not count, see [`Who::uncounted`].
    async fn by_either<T: AsRef<Checked>, K: Future<Output = Result<T, CheckError>>>(
        &self,
        person: &Person,
        ldap: impl Future<Output = Result<T, PoolError>>,
        kerberos: impl Fn(bool) -> K,
    ) -> Result<T, Refusal> {
        if self.preferred(person) == Method::Kerberos {
            let no_preauth = match kerberos(false).await {
                Err(error @ CheckError::NoPreauth(_)) => error,
                decided => return Ok(decided?),
            };
            // The password was not sent yet, and AD counts a bind.
            return match ldap.await {
                Ok(done) => Ok(done),
                Err(PoolError::NoTls(_) | PoolError::NoBinds(_)) => Ok(kerberos(true).await?),
                Err(error) => Err(Refusal::new(Outcome::Unavailable, format!("{no_preauth}; {error}"))),
            };
        }
        match ldap.await {
            Ok(done) => {
                self.settled(&person.domain, &done.as_ref().dc);
                let is_restricted = done.as_ref().outcome == Outcome::AccountRestriction;
                match is_restricted && self.configured == config::Method::Auto {
                    true => Ok(kerberos(false).await?),
                    false => Ok(done),
                }
            }
            // Nothing was sent yet, or the password was not checked.
            Err(PoolError::NoTls(cause) | PoolError::NoBinds(cause))
                if self.configured == config::Method::Auto =>
            {
                self.choose(&person.domain, Method::Kerberos, &cause);
                Ok(kerberos(true).await?)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn bind(&self, person: &Person, password: &str, deadline: Instant) -> Result<Checked, PoolError> {
        self.pool(&person.domain).bind(&person.dn, password, deadline).await
    }

    /// Changes the password on the connection on which the present one was bound.
    async fn change_by_ldap(
        &self,
        person: &Person,
        present: &str,
        new: &str,
        deadline: Instant,
    ) -> Result<Attempt, PoolError> {
        let pool = self.pool(&person.domain);
        let (present, sent) = pool.change_password(&person.dn, present, new, deadline).await?;
        let answer = match sent {
            None => return Ok(Attempt::Closed(present)),
            Some(pool::Sent::Answered(answer)) => Answer::of_modify(answer.code, &answer.text),
            Some(pool::Sent::Lost(cause)) => Answer::Lost(cause),
        };
        Ok(Attempt::Sent { present, answer })
    }

    /// Changes the password by kpasswd, at the domain controller `preferred` if possible.
    async fn change_by_kerberos(
        &self,
        person: &Person,
        uncounted: bool,
        (present, new): (&str, &str),
        preferred: Option<&str>,
        deadline: Instant,
    ) -> Result<Attempt, CheckError> {
        let realm = person.domain.to_uppercase();
        let who = who(person, &realm, uncounted);
        let (present, sent) = self.kerberos.change_password(who, present, new, preferred, deadline).await?;
        let (answer, dc) = match sent {
            None => return Ok(Attempt::Closed(present)),
            Some(kerberos::Sent::Answered { code, data, dc }) => (Answer::of_kpasswd(code, &data), dc),
            Some(kerberos::Sent::Lost { cause, dc }) => (Answer::Lost(cause), dc),
        };
        Ok(Attempt::Sent { present: Checked { dc, ..present }, answer })
    }

    /// Returns the method for the next password of `person`.
    fn preferred(&self, person: &Person) -> Method {
        match self.configured {
            config::Method::Ldap => Method::Ldap,
            config::Method::Kerberos => Method::Kerberos,
            // Simple binds may be taken again.
            config::Method::Auto if self.pool(&person.domain).is_due() => Method::Ldap,
            config::Method::Auto => self.chosen(&person.domain).unwrap_or(Method::Ldap),
        }
    }

    fn chosen(&self, domain: &str) -> Option<Method> {
        Some(self.domains.lock().get(domain)?.choice.as_ref()?.0)
    }

    fn choose(&self, domain: &str, method: Method, reason: &str) {
        let mut domains = self.domains.lock();
        let Some(known) = domains.get_mut(domain) else { return };
        let is_new = known.choice.as_ref().is_none_or(|(chosen, _)| *chosen != method);
        known.choice = Some((method, reason.to_owned()));
        drop(domains);
        if is_new {
            (self.observer)(domain, method, reason);
        }
    }
}

/// The reason for a method that the configuration sets.
const CONFIGURED: &str = "login.method";

impl Passwords for Arc<DomainPasswords> {
    fn method(&self, person: &Person) -> Method {
        self.preferred(person)
    }

    fn binds_only(&self) -> bool {
        self.configured == config::Method::Ldap
    }

    async fn check(&self, person: &Person, password: &str, deadline: Instant) -> Result<Checked, Refusal> {
        let realm = person.domain.to_uppercase();
        let kerberos = |uncounted| {
            let who = who(person, &realm, uncounted);
            self.kerberos.check_password(who, password, deadline)
        };
        self.by_either(person, self.bind(person, password, deadline), kerberos).await
    }
}

impl Changes for Arc<DomainPasswords> {
    async fn probe(&self, person: &Person, present: &str, deadline: Instant) -> Result<Checked, Refusal> {
        let realm = person.domain.to_uppercase();
        let kerberos = |uncounted| {
            let who = who(person, &realm, uncounted);
            self.kerberos.probe_change(who, present, deadline)
        };
        self.by_either(person, self.bind(person, present, deadline), kerberos).await
    }

    async fn change(
        &self,
        person: &Person,
        present: &str,
        new: &str,
        at: Option<&str>,
        deadline: Instant,
    ) -> Result<Attempt, Refusal> {
        let ldap = self.change_by_ldap(person, present, new, deadline);
        let kerberos = |uncounted| self.change_by_kerberos(person, uncounted, (present, new), at, deadline);
        match self.by_either(person, ldap, kerberos).await? {
            // The password is right, but no bind with it succeeds: there is no other way.
            Attempt::Closed(Checked { method: Method::Ldap, outcome, dc, .. })
                if outcome.wants_new_password() =>
            {
                Ok(self.change_by_kerberos(person, true, (present, new), Some(&dc), deadline).await?)
            }
            attempt => Ok(attempt),
        }
    }
}

fn who<'a>(person: &'a Person, realm: &'a str, uncounted: bool) -> Who<'a> {
    Who { sam: &person.sam, upn: person.upn.as_deref(), realm, uncounted }
}
