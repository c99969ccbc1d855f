//! How a password is checked and changed: by LDAP or by Kerberos, and which of the two.
//!
//! A password goes to one of them alone, until it has proved right. Where the configuration leaves the choice to us, it is LDAP where a domain
//! controller offers TLS that can be verified; Kerberos is taken only when every one that answers offers none, which
//! is known before any bind is sent.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::refusal::Refusal;
use crate::config;
use crate::directory::Person;
use crate::directory::change::Answer;
use crate::directory::pool::{self, Bound, Pool, PoolError};
use crate::kerberos::{self, CheckError, Kerberos, Who};
use crate::protocol::report;
use crate::verdict::Outcome;

/// A way to check a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A bind over verified TLS.
    Ldap,
    /// An AS exchange whose ticket is verified with the host's keytab.
    Kerberos,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::Ldap => "ldap",
            Method::Kerberos => "kerberos",
        })
    }
}

/// What became of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// By what it was checked.
    pub method: Method,
    /// What AD decided.
    pub outcome: Outcome,
    /// Its answer, for the log; empty after a success.
    pub reason: String,
    /// AD refuses the account and does not say why: its state has to tell. The outcome is what there is to say
    /// where the state does not tell either.
    pub unexplained: bool,
    /// The domain controller that decided.
    pub dc: String,
    /// Those that got the attempt before and did not answer: each may have counted it too.
    pub unanswered: Vec<String>,
    /// What it took to have a connection; `None` where one was open or none is kept.
    pub connect: Option<Duration>,
    /// What the answer took.
    pub took: Duration,
}

/// Who checks passwords.
pub trait Passwords: Send + Sync {
    /// By what the next password of `person` will most likely be checked.
    fn method(&self, person: &Person) -> Method;

    /// Checks the password of `person`: one attempt at most is answered.
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
    /// The present password does not open the way to it: nothing was sent.
    Closed(Checked),
    /// The present password was right, and the change was sent, once.
    Sent {
        /// What became of the present password.
        present: Checked,
        /// What became of the change.
        answer: Answer,
        /// Whether the server that answered has proved that it is a domain controller: by its certificate, or with the
        /// machine's ticket. Otherwise the answer may be a forged one.
        proven: bool,
    },
}

/// Who changes passwords.
pub trait Changes: Send + Sync {
    /// Checks the present password of `person` as a change of it would, and changes nothing. An outcome that wants a
    /// new password is of a right one.
    fn probe(
        &self,
        person: &Person,
        present: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Checked, Refusal>> + Send;

    /// Changes the password of `person` from `present` to `new`: one attempt with the present one at most is answered,
    /// and the new one is sent once at most. By Kerberos it goes to the domain controller `at` where that can be.
    ///
    /// # Errors
    /// The change was not sent.
    fn change(
        &self,
        person: &Person,
        present: &str,
        new: &str,
        at: Option<&str>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Attempt, Refusal>> + Send;
}

/// Who is told that the method changed: the domain, the method and why.
pub type MethodObserver = Arc<dyn Fn(&str, Method, &str) + Send + Sync>;

/// Makes the pool of a domain.
pub type Pools = Box<dyn Fn(&str) -> Arc<Pool> + Send + Sync>;

/// The passwords of the forest's domains.
pub struct DomainPasswords {
    configured: config::Method,
    kerberos: Arc<Kerberos>,
    make: Pools,
    observer: MethodObserver,
    /// By domain; only those that AD has found people in.
    domains: Mutex<HashMap<String, Domain>>,
}

struct Domain {
    pool: Arc<Pool>,
    choice: Option<(Method, String)>,
}

impl DomainPasswords {
    /// Checks as `configured`, by `kerberos` and by the pools that `make` makes.
    pub fn new(
        configured: config::Method,
        kerberos: Arc<Kerberos>,
        make: Pools,
        observer: MethodObserver,
    ) -> Self {
        DomainPasswords { configured, kerberos, make, observer, domains: Mutex::default() }
    }

    /// The pool of `domain`.
    pub fn pool(&self, domain: &str) -> Arc<Pool> {
        let mut domains = self.domains();
        if let Some(known) = domains.get(domain) {
            return known.pool.clone();
        }
        let pool = (self.make)(domain);
        domains.insert(domain.to_owned(), Domain { pool: pool.clone(), choice: None });
        pool
    }

    /// Finds out, ahead of the first login, what `domain` will be checked by.
    ///
    /// # Errors
    /// Why nothing can be checked.
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
            Err(PoolError::NoTls(cause)) if self.configured == config::Method::Auto => {
                self.choose(domain, Method::Kerberos, &cause);
                Ok(None)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// `dc` of `domain` offers TLS that can be verified.
    pub fn settled(&self, domain: &str, dc: &str) {
        match self.configured {
            config::Method::Auto if self.chosen(domain) == Some(Method::Ldap) => {}
            config::Method::Auto => {
                self.choose(domain, Method::Ldap, &format!("{dc} offers TLS that can be verified"));
            }
            config::Method::Ldap => self.choose(domain, Method::Ldap, CONFIGURED),
            config::Method::Kerberos => {}
        }
    }

    /// Closes the connections that wait for work, so that the next ones are verified afresh.
    pub fn reconnect(&self) {
        self.domains().values().for_each(|domain| domain.pool.clear());
    }

    /// Every domain that has a pool so far.
    pub fn pools(&self) -> Vec<(String, Arc<Pool>)> {
        self.domains().iter().map(|(name, domain)| (name.clone(), domain.pool.clone())).collect()
    }

    /// Why Kerberos checks the passwords of `domain` although the configuration would have them checked by LDAP, if it
    /// does.
    pub fn stands_in(&self, domain: &str) -> Option<String> {
        let domains = self.domains();
        match domains.get(domain)?.choice.as_ref()? {
            (Method::Kerberos, reason) if self.configured == config::Method::Auto => Some(reason.clone()),
            _ => None,
        }
    }

    /// What `domain` is checked by, for people.
    pub fn report(&self, domain: &str) -> report::Method {
        match self.domains().get(domain).and_then(|domain| domain.choice.clone()) {
            Some((method, reason)) => report::Method { name: method.to_string(), reason },
            None => report::Method::default(),
        }
    }

    /// What `ldap` says, or `kerberos` where that is the method, or where nothing could be sent for want of TLS and the
    /// choice is ours. `kerberos` takes whether a password may be tried that AD would not count, see [`Who::uncounted`].
    ///
    /// Kerberos is boxed so that the common login future stays small.
    async fn by_either<T, K: Future<Output = Result<T, CheckError>>>(
        &self,
        person: &Person,
        ldap: impl Future<Output = Result<(String, T), PoolError>>,
        kerberos: impl Fn(bool) -> K,
    ) -> Result<T, Refusal> {
        if self.preferred(person) == Method::Kerberos {
            let no_preauth = match Box::pin(kerberos(false)).await {
                Err(error @ CheckError::NoPreauth(_)) => error,
                decided => return Ok(decided?),
            };
            // The password was not sent yet, and a bind is counted.
            return match ldap.await {
                Ok((_, done)) => Ok(done),
                Err(PoolError::NoTls(_)) => Ok(Box::pin(kerberos(true)).await?),
                Err(error) => Err(Refusal::new(Outcome::Unavailable, format!("{no_preauth}; {error}"))),
            };
        }
        match ldap.await {
            Ok((dc, done)) => {
                self.settled(&person.domain, &dc);
                Ok(done)
            }
            // Nothing was sent yet.
            Err(PoolError::NoTls(cause)) if self.configured == config::Method::Auto => {
                self.choose(&person.domain, Method::Kerberos, &cause);
                Ok(Box::pin(kerberos(true)).await?)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn bind(
        &self,
        person: &Person,
        password: &str,
        deadline: Instant,
    ) -> Result<(String, Checked), PoolError> {
        let bound = self.pool(&person.domain).bind(&person.dn, password, deadline).await?;
        Ok((bound.dc.clone(), bound.into()))
    }

    /// Changes on the connection that the present password is bound on.
    async fn change_by_ldap(
        &self,
        person: &Person,
        present: &str,
        new: &str,
        deadline: Instant,
    ) -> Result<(String, Attempt), PoolError> {
        let pool = self.pool(&person.domain);
        let (bound, sent) = pool.change_password(&person.dn, present, new, deadline).await?;
        let (dc, present) = (bound.dc.clone(), Checked::from(bound));
        let answer = match sent {
            None => return Ok((dc, Attempt::Closed(present))),
            Some(pool::Sent::Answered(answer)) => Answer::of_modify(answer.code, &answer.text),
            Some(pool::Sent::Lost(cause)) => Answer::Lost(cause),
        };
        Ok((dc, Attempt::Sent { present, answer, proven: true }))
    }

    /// Changes by kpasswd, at the domain controller `preferred` where that can be.
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
        let (checked, sent) = self.kerberos.change_password(who, present, new, preferred, deadline).await?;
        let proven = checked.armoured;
        let present = Checked::from(checked);
        let (answer, dc) = match sent {
            None => return Ok(Attempt::Closed(present)),
            Some(kerberos::Sent::Answered { code, data, dc }) => (Answer::of_kpasswd(code, &data), dc),
            Some(kerberos::Sent::Lost { cause, dc }) => (Answer::Lost(cause), dc),
        };
        Ok(Attempt::Sent { present: Checked { dc, ..present }, answer, proven })
    }

    /// What the next password of `person` will most likely go by.
    fn preferred(&self, person: &Person) -> Method {
        match self.configured {
            config::Method::Ldap => Method::Ldap,
            config::Method::Kerberos => Method::Kerberos,
            config::Method::Auto => self.chosen(&person.domain).unwrap_or(Method::Ldap),
        }
    }

    fn chosen(&self, domain: &str) -> Option<Method> {
        Some(self.domains().get(domain)?.choice.as_ref()?.0)
    }

    fn choose(&self, domain: &str, method: Method, reason: &str) {
        let mut domains = self.domains();
        let Some(known) = domains.get_mut(domain) else { return };
        let is_new = known.choice.as_ref().is_none_or(|(chosen, _)| *chosen != method);
        known.choice = Some((method, reason.to_owned()));
        drop(domains);
        if is_new {
            (self.observer)(domain, method, reason);
        }
    }

    fn domains(&self) -> MutexGuard<'_, HashMap<String, Domain>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why, where nobody had a choice.
const CONFIGURED: &str = "login.method";

impl Passwords for Arc<DomainPasswords> {
    fn method(&self, person: &Person) -> Method {
        self.preferred(person)
    }

    async fn check(&self, person: &Person, password: &str, deadline: Instant) -> Result<Checked, Refusal> {
        let realm = person.domain.to_uppercase();
        let kerberos = |uncounted| {
            let who = who(person, &realm, uncounted);
            async move { Ok(self.kerberos.check_password(who, password, deadline).await?.into()) }
        };
        self.by_either(person, self.bind(person, password, deadline), kerberos).await
    }
}

impl Changes for Arc<DomainPasswords> {
    async fn probe(&self, person: &Person, present: &str, deadline: Instant) -> Result<Checked, Refusal> {
        let realm = person.domain.to_uppercase();
        let kerberos = |uncounted| {
            let who = who(person, &realm, uncounted);
            async move { Ok(self.kerberos.probe_change(who, present, deadline).await?.into()) }
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
            // The password has proved right, and nobody can bind with it: there is no other way.
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

impl From<kerberos::Checked> for Checked {
    fn from(checked: kerberos::Checked) -> Self {
        let took = checked.exchange + checked.verification.unwrap_or_default();
        Checked {
            method: Method::Kerberos,
            outcome: checked.outcome,
            reason: checked.reason,
            unexplained: checked.unexplained,
            dc: checked.kdc,
            unanswered: checked.unanswered,
            connect: None,
            took,
        }
    }
}

impl From<Bound> for Checked {
    fn from(bound: Bound) -> Self {
        let Bound { outcome, reason, dc, unanswered, connect, bind: took } = bound;
        let (method, unexplained) = (Method::Ldap, false);
        Checked { method, outcome, reason, unexplained, dc, unanswered, connect, took }
    }
}
