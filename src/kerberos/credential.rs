//! The machine's credential: a ticket for the computer account, obtained with the key in the host keytab.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use libgssapi::credential::Cred;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::KerberosError;
use super::cpu::{self, Unfinished};
use super::exchange::{self, Ended, Initial, Proof};
use super::kdcs::{Access, Kdcs, Turns};
use super::krb5::{self, Cache, Client, GssFailure, Key, Keytab, Request, ServiceExchange};

/// Time limit for obtaining the machine's ticket, which all callers share.
const ACQUIRE: Duration = Duration::from_secs(10);

/// Maximum time that a login waits for the machine's ticket as armour. It allows for one silent KDC (see
/// [`ATTEMPT`](crate::patience::ATTEMPT)).
const ARMOUR: Duration = Duration::from_millis(1500);

/// Minimum remaining life of a usable ticket: Samba accepts none with less than two minutes (CVE-2022-2031).
const LEFT: Duration = Duration::from_secs(150);

/// Pause before the next request after a passing failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause after a failure that an administrator has to fix. The KDC counts a wrong key as a wrong password.
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// Encryption types by preference (RFC 3961, RFC 3962, RFC 8009, RFC 4757): AES-256, AES-128, the same with
/// SHA-2, RC4. Other types in the keytab are ignored.
const ENCRYPTION: [i32; 5] = [18, 17, 20, 19, 23];

/// Kerberos for this process: the machine's tickets and their uses. Cloning it shares it.
#[derive(Clone)]
pub struct Kerberos {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) kdcs: Arc<dyn Kdcs>,
    turns: Turns,
    /// The realm that the host is joined to, if known.
    realm: Option<String>,
    current: Mutex<Option<Credential>>,
    /// Held by the task that requests a ticket; contains its last failure.
    asking: Arc<tokio::sync::Mutex<Option<Failed>>>,
}

type Failed = (Instant, KerberosError);

impl Kerberos {
    /// Sends nothing until it is needed.
    pub fn new(kdcs: Arc<dyn Kdcs>) -> Self {
        Kerberos::with(kdcs, None)
    }

    /// The same for a host that is joined to `realm`; its keytab may also hold keys of other realms.
    pub fn of_realm(kdcs: Arc<dyn Kdcs>, realm: &str) -> Self {
        Kerberos::with(kdcs, Some(realm.to_owned()))
    }

    fn with(kdcs: Arc<dyn Kdcs>, realm: Option<String>) -> Self {
        let (turns, current, asking) = (Turns::default(), Mutex::default(), Arc::default());
        let inner = Inner { kdcs, turns, realm, current, asking };
        Kerberos { inner: Arc::new(inner) }
    }

    /// Returns the machine's credential: the present one in the first half of its life, then a new one. One
    /// task requests it, however many callers wait. If the request fails while the present one is valid, that
    /// one is returned.
    ///
    /// # Errors
    /// Returns an error if the keytab, the machine account, the clock or the KDC is at fault, or if the
    /// deadline passes.
    pub async fn credential(&self, deadline: Instant) -> Result<Credential, KerberosError> {
        if let Some(credential) = self.inner.current().filter(Credential::is_fresh) {
            return Ok(credential);
        }
        let asking = async {
            let mut last = Arc::clone(&self.inner.asking).lock_owned().await;
            let current = self.inner.current();
            if let Some(credential) = current.clone().filter(Credential::is_fresh) {
                return Ok(credential);
            }
            let usable = current.filter(Credential::is_usable);
            if let Some((_, error)) = last.as_ref().filter(is_recent) {
                return usable.ok_or_else(|| error.clone());
            }
            // No caller owns this task, so a login that gives up does not cancel it for the others.
            let inner = Arc::clone(&self.inner);
            let task = tokio::spawn(async move {
                let result = inner.acquire(Instant::now() + ACQUIRE).await;
                *last = result.as_ref().err().map(|error| (Instant::now(), error.clone()));
                if let Ok(credential) = &result {
                    inner.set(Some(credential.clone()));
                }
                result
            });
            match task.await {
                Ok(Err(error)) => usable.ok_or(error),
                Ok(done) => done,
                Err(_) => Err(KerberosError::Other("the task that asks for a ticket failed".to_owned())),
            }
        };
        timeout_at(deadline, asking).await.unwrap_or_else(|_| Err(KerberosError::Stalled(String::new())))
    }

    /// Forgets `credential` and every ticket obtained with it, so that new ones are requested: a domain
    /// controller whose key has changed does not accept the old ones. Established contexts continue.
    pub fn forget(&self, credential: &Credential) {
        let mut current = self.inner.current.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.tickets, &credential.tickets)) {
            *current = None;
        }
    }

    /// Ensures that the cache holds the ticket for `service`, a principal with its realm, so that GSSAPI
    /// contacts no KDC.
    ///
    /// # Errors
    /// Returns an error if the KDC issues no ticket, or if the deadline passes.
    pub(super) async fn service_ticket(
        &self,
        credential: &Credential,
        service: &str,
        deadline: Instant,
    ) -> Result<(), KerberosError> {
        let (cache, name) = (credential.tickets.cache.name().to_owned(), service.to_owned());
        let new = move || ServiceExchange::new(&cache, &name);
        let done = exchange::service(self.inner.for_machine(), new, None, deadline).await;
        done.map(drop).map_err(|ended| ended.error(credential.principal(), service))
    }

    /// Returns a ticket for armour (FAST), if the machine has one or obtains one soon.
    pub(super) async fn armour(&self, realm: &str, deadline: Instant) -> Option<Credential> {
        let there = self.inner.current().filter(Credential::is_usable);
        let credential = match there {
            Some(credential) => credential,
            None => self.credential(deadline.min(Instant::now() + ARMOUR)).await.ok()?,
        };
        // A ticket of another realm would first have to be exchanged for one of this realm.
        (credential.realm() == realm).then_some(credential)
    }
}

impl fmt::Debug for Kerberos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kerberos").field(&self.inner.current()).finish()
    }
}

impl Inner {
    /// The KDCs for exchanges of users.
    pub(super) fn for_users(&self) -> Access<'_> {
        Access::for_users(self.kdcs.as_ref(), &self.turns)
    }

    /// The KDCs for the machine's own exchanges.
    fn for_machine(&self) -> Access<'_> {
        Access::for_machine(self.kdcs.as_ref(), &self.turns)
    }

    fn current(&self) -> Option<Credential> {
        self.current.lock().clone()
    }

    fn set(&self, credential: Option<Credential>) {
        *self.current.lock() = credential;
    }

    /// Reads the machine account from the host's keytab.
    pub(super) fn account(&self) -> impl FnOnce() -> Result<Account, KerberosError> + Send + 'static {
        let realm = self.realm.clone();
        move || Account::of(&krb5::host_keytab()?, realm.as_deref())
    }

    async fn acquire(&self, deadline: Instant) -> Result<Credential, KerberosError> {
        let account = cpu::run(deadline, self.account()).await.map_err(unfinished)??;
        let request = Request {
            client: Client::Written(account.principal()),
            change_password: false,
            lifetime: None,
            armour: None,
        };
        let principal = account.principal();
        let key = Key::Keytab(account.encryption.clone());
        let asked = Instant::now();
        let granted = match exchange::initial(
            self.for_machine(),
            request,
            key,
            Proof::Spared,
            None,
            deadline,
            &mut Vec::new(),
        )
        .await
        {
            Ok(Initial { granted, .. }) if granted.stranger.is_none() => granted,
            Ok(_) => {
                return Err(KerberosError::Other("the KDC gave a ticket of another account".to_owned()));
            }
            Err(ended) => return Err(account.explain(ended)),
        };
        let name = granted.cache.name().to_owned();
        let cred = cpu::run(deadline, move || krb5::gss_credential(&name)).await.map_err(unfinished)?;
        let cred = cred.map_err(|failure| match failure {
            GssFailure::Gss(error) => KerberosError::from_gss(&error, &principal, "krbtgt"),
            GssFailure::Cache(failure) => failure.other(),
        })?;
        let life = Duration::from_secs(granted.seconds.into());
        let tickets = Tickets {
            cred,
            cache: granted.cache,
            realm: account.realm,
            principal,
            renew: asked + life / 2,
            expires: asked + life,
        };
        Ok(Credential { tickets: Arc::new(tickets) })
    }
}

fn unfinished(unfinished: Unfinished) -> KerberosError {
    Ended::from(unfinished).error("", "")
}

fn is_recent((when, error): &&Failed) -> bool {
    let pause = if error.needs_an_administrator() { LONG_PAUSE } else { PAUSE };
    Instant::now() < *when + pause
}

/// A ticket-granting ticket of the machine account, and the tickets obtained with it.
#[derive(Clone)]
pub struct Credential {
    pub(super) tickets: Arc<Tickets>,
}

pub(super) struct Tickets {
    /// GSSAPI's view; declared first so that it is dropped before the cache.
    pub(super) cred: Cred,
    pub(super) cache: Cache,
    realm: String,
    principal: String,
    renew: Instant,
    expires: Instant,
}

impl Credential {
    /// The machine account's name with its realm, for example `XCALLY$@ACME.COM`.
    pub fn principal(&self) -> &str {
        &self.tickets.principal
    }

    /// The realm of [`Credential::principal`].
    pub fn realm(&self) -> &str {
        &self.tickets.realm
    }

    /// Returns the time when the ticket ends.
    pub fn expires(&self) -> Instant {
        self.tickets.expires
    }

    /// Returns the remaining life of the ticket.
    pub fn remaining(&self) -> Duration {
        self.expires().saturating_duration_since(Instant::now())
    }

    fn is_fresh(&self) -> bool {
        Instant::now() < self.tickets.renew
    }

    fn is_usable(&self) -> bool {
        self.remaining() > LEFT
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("principal", &self.principal()).finish_non_exhaustive()
    }
}

/// The machine account, as found in the keytab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name in libkrb5's notation, for example `XCALLY$`.
    name: String,
    realm: String,
    /// The version of its newest key, and the next older one.
    version: u32,
    older: Option<u32>,
    /// Encryption types of its newest keys, best first.
    encryption: Vec<i32>,
}

/// Returns the name of this host's computer account without its `$`, as in `userWorkstations`.
///
/// # Errors
/// Returns an error if the keytab cannot be read, or holds no key of a computer account.
pub fn computer_name(realm: Option<&str>) -> Result<String, KerberosError> {
    Account::of(&krb5::host_keytab()?, realm)?.computer_name()
}

impl Account {
    /// Finds this host's account, as [`Keytab::machine`] chooses it. The keytab's first entry does not serve:
    /// it is often `host/…`, and AD issues no ticket-granting ticket for a service name.
    pub(super) fn of(keytab: &Keytab, realm: Option<&str>) -> Result<Self, KerberosError> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Account::on(keytab, realm, &host.to_string_lossy())
    }

    /// The same on a machine whose name is `host`.
    fn on(keytab: &Keytab, realm: Option<&str>, host: &str) -> Result<Self, KerberosError> {
        let chosen = keytab.machine(realm, host);
        let Some((principal, (name, realm))) = chosen.and_then(|name| Some((name, name.rsplit_once('@')?)))
        else {
            let mut found: Vec<_> = keytab.entries.iter().map(|entry| entry.principal.as_str()).collect();
            found.sort_unstable();
            found.dedup();
            return Err(KerberosError::NoMachinePrincipal {
                path: keytab.name.clone(),
                found: found.join(", "),
            });
        };
        let own = || keytab.entries.iter().filter(|entry| entry.principal == principal);
        let version = own().map(|entry| entry.version).max().unwrap_or_default();
        let newest = own().filter(|entry| entry.version == version).map(|entry| entry.encryption);
        let newest: Vec<_> = newest.collect();
        Ok(Account {
            name: name.to_owned(),
            realm: realm.to_owned(),
            version,
            older: own().map(|entry| entry.version).filter(|older| *older < version).max(),
            encryption: ENCRYPTION.into_iter().filter(|known| newest.contains(known)).collect(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its name without the `$`, in capitals; an error where the keytab has a key of a service alone.
    fn computer_name(&self) -> Result<String, KerberosError> {
        self.name.strip_suffix('$').map(str::to_uppercase).ok_or_else(|| {
            let text = format!("the keytab holds no key of a computer account, but of {}", self.name);
            KerberosError::Other(text)
        })
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    pub(super) fn principal(&self) -> String {
        format!("{}@{}", self.name, self.realm)
    }

    fn explain(&self, ended: Ended) -> KerberosError {
        let service = format!("krbtgt/{0}@{0}", self.realm);
        match ended.error(&self.principal(), &service) {
            KerberosError::KeyRejected { principal, .. } => {
                KerberosError::KeyRejected { principal, version: Some(self.version), older: self.older }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kerberos::krb5::KeytabEntry;

    fn keytab(entries: &[(&str, u32, i32)]) -> Keytab {
        let entry = |&(principal, version, encryption): &(&str, u32, i32)| KeytabEntry {
            principal: principal.into(),
            version,
            encryption,
        };
        Keytab { name: "/etc/krb5.keytab".into(), entries: entries.iter().map(entry).collect() }
    }

    fn named(principals: &[&str]) -> Keytab {
        keytab(&principals.iter().map(|name| (*name, 1, 18)).collect::<Vec<_>>())
    }

    #[test]
    fn the_computer_account_is_chosen_wherever_it_stands() {
        let cases: [(&[&str], &str); 4] = [
            (&["XCALLY$@ACME.COM", "host/XCALLY@ACME.COM"], "XCALLY$@ACME.COM"),
            (
                &["host/XCALLY@ACME.COM", "host/xcally.acme.com@ACME.COM", "XCALLY$@ACME.COM"],
                "XCALLY$@ACME.COM",
            ),
            (&["HTTP/x@ACME.COM", "host/x.acme.com@ACME.COM"], "host/x.acme.com@ACME.COM"),
            (&["host/x$y@ACME.COM"], "host/x$y@ACME.COM"),
        ];
        for (principals, chosen) in cases {
            assert_eq!(Account::of(&named(principals), None).unwrap().principal(), chosen);
        }
    }

    #[test]
    fn a_host_may_be_joined_under_another_name_than_its_own() {
        let joined = |principals: &[&str]| {
            let account = Account::on(&named(principals), Some("ACME.COM"), "xcally.acme.com")?;
            account.computer_name()
        };
        // What `realm join --computer-name VOICE01` leaves on the host xcally.
        let voice = ["VOICE01$@ACME.COM", "host/VOICE01@ACME.COM", "host/xcally.acme.com@ACME.COM"];
        assert_eq!(joined(&voice).unwrap(), "VOICE01");
        assert_eq!(joined(&["voice01$@ACME.COM"]).unwrap(), "VOICE01");
        // An account of another realm is not the one in force, whatever its name.
        assert_eq!(joined(&["XCALLY$@OTHER.EXAMPLE", "VOICE01$@ACME.COM"]).unwrap(), "VOICE01");
        let error = joined(&["host/xcally.acme.com@ACME.COM"]).unwrap_err().to_string();
        assert!(error.contains("no key of a computer account, but of host/xcally.acme.com"), "{error}");
    }

    #[test]
    fn the_newest_keys_say_what_is_asked_for() {
        let own = "XCALLY$@ACME.COM";
        let all = keytab(&[
            (own, 2, 23),
            (own, 3, 17),
            ("host/XCALLY@ACME.COM", 9, 16),
            (own, 3, 18),
            (own, 3, 16),
            (own, 1, 18),
        ]);
        let account = Account::of(&all, None).unwrap();
        assert_eq!((account.version, account.older), (3, Some(2)));
        assert_eq!(account.encryption, [18, 17]);
        assert_eq!(Account::of(&named(&[own]), None).unwrap().older, None);
    }

    #[test]
    fn a_keytab_of_somebody_else_is_refused_by_name() {
        let error = Account::of(&named(&["HTTP/x@ACME.COM", "HTTP/x@ACME.COM"]), None).unwrap_err();
        assert!(error.to_string().contains("(only HTTP/x@ACME.COM)"), "{error}");
    }
}
