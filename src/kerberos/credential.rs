//! The machine's credential: a ticket for the computer account, obtained with the key in the host keytab.

use std::collections::BTreeSet;
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
use super::krb5::{self, Cache, Client, Granted, GssFailure, Key, Keytab, Request, ServiceExchange};

/// Time limit for obtaining the machine's ticket, which all callers share.
const ACQUIRE: Duration = Duration::from_secs(10);

/// Maximum time that a login waits for the machine's ticket as armour. It allows for one silent KDC (see
/// [`ATTEMPT`](crate::patience::ATTEMPT)).
const ARMOUR: Duration = Duration::from_millis(1500);

/// Number of versions of the machine's key that are tried: the newest, and the next older one. A KDC that has
/// not replicated a change of the machine's password only knows the older one.
const KEYS: usize = 2;

/// Maximum number of KDCs that get each key. A KDC may count a key that it rejects as a wrong password.
const KDCS: usize = 3;

/// Maximum time for all attempts after the first rejected key. A login waits for them.
const FURTHER: Duration = Duration::from_secs(3);

/// Minimum remaining life of a usable ticket: Samba accepts none with less than two minutes (CVE-2022-2031).
const LEFT: Duration = Duration::from_secs(150);

/// Pause before the next request after a passing failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause after a failure that an administrator has to fix, for example if no KDC accepts a key. The KDC
/// counts a wrong key as a wrong password.
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
        let (granted, asked) = self.request(&account, request, deadline).await?;
        if granted.stranger.is_some() {
            return Err(KerberosError::Other("the KDC gave a ticket of another account".to_owned()));
        }
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

    /// Requests the ticket with the keys of `account`, as [`Attempts`] orders them. Returns it with the time
    /// of the request. If no KDC accepts a key, the error is that of the newest one.
    async fn request(
        &self,
        account: &Account,
        request: Request,
        mut deadline: Instant,
    ) -> Result<(Granted, Instant), KerberosError> {
        let mut attempts = Attempts { keys: &account.keys, rejections: Vec::new() };
        let mut first = None;
        while let Some(Attempt { key, without, preferred }) = attempts.next() {
            let asked = Instant::now();
            let key = Key::Keytab { version: key.version, encryption: key.encryption.clone() };
            let (access, request) = (self.for_machine().without(&without), request.clone());
            let (preferred, ignored) = (preferred.as_deref(), &mut Vec::new());
            let ended =
                exchange::initial(access, request, key, Proof::Spared, preferred, deadline, ignored).await;
            let ended = match ended {
                Ok(Initial { granted, .. }) => return Ok((granted, asked)),
                Err(ended) => ended,
            };
            let host = ended.kdc().map(str::to_owned);
            let error = account.explain(ended);
            let is_rejected = matches!(error, KerberosError::KeyRejected { .. });
            if first.is_none() {
                deadline = deadline.min(Instant::now() + FURTHER);
                first = Some(error);
            }
            match host {
                Some(host) if is_rejected => attempts.rejected(host),
                _ => break,
            }
        }
        Err(first.unwrap_or_else(|| KerberosError::Other("the machine account has no key".to_owned())))
    }
}

/// The order in which the machine's keys go to the KDCs. A KDC that rejects the newest key has answered and
/// gets the next older one at once; then another KDC gets the newest one. No KDC gets a key that it has
/// rejected.
struct Attempts<'a> {
    /// The keys, newest first.
    keys: &'a [MachineKey],
    /// The version of each rejected key, and the host of the KDC.
    rejections: Vec<(u32, String)>,
}

/// One request with one of the machine's keys.
struct Attempt<'a> {
    key: &'a MachineKey,
    /// KDCs that have rejected the key.
    without: Vec<String>,
    /// KDC to try first.
    preferred: Option<String>,
}

impl<'a> Attempts<'a> {
    /// Returns the next attempt; `None` if the maximum is reached.
    fn next(&self) -> Option<Attempt<'a>> {
        let done = self.rejections.len();
        let key = self.keys.get(done.checked_rem(self.keys.len())?)?;
        let without = self.rejections.iter().filter(|(version, _)| *version == key.version);
        let without: Vec<_> = without.map(|(_, host)| host.clone()).collect();
        let preferred = self.rejections.last().map(|(_, host)| host.clone());
        (without.len() < KDCS).then_some(Attempt { key, without, preferred })
    }

    /// Notes that the KDC on `host` rejects the key of the present attempt.
    fn rejected(&mut self, host: String) {
        if let Some(Attempt { key, .. }) = self.next() {
            self.rejections.push((key.version, host));
        }
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
    /// Its keys by version, newest first, at most [`KEYS`].
    keys: Vec<MachineKey>,
}

/// The keys of one version of the machine account.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MachineKey {
    version: u32,
    /// Their encryption types, best first.
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
        let versions: BTreeSet<_> = own().map(|entry| entry.version).collect();
        let key = |version| {
            let is_there =
                |known: &i32| own().any(|entry| entry.version == version && entry.encryption == *known);
            MachineKey { version, encryption: ENCRYPTION.into_iter().filter(is_there).collect() }
        };
        Ok(Account {
            name: name.to_owned(),
            realm: realm.to_owned(),
            keys: versions.into_iter().rev().take(KEYS).map(key).collect(),
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
                let version = |at: usize| self.keys.get(at).map(|key| key.version);
                KerberosError::KeyRejected { principal, version: version(0), older: version(1) }
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
        assert_eq!(account.keys, [key(3, &[18, 17]), key(2, &[23])]);
        assert_eq!(Account::of(&named(&[own]), None).unwrap().keys, [key(1, &[18])]);
    }

    fn key(version: u32, encryption: &[i32]) -> MachineKey {
        MachineKey { version, encryption: encryption.to_vec() }
    }

    /// Makes the attempts at these KDCs, each with the version that it knows, until one accepts the key.
    /// Returns the version and the host of each attempt.
    fn attempts<'a>(keys: &[MachineKey], kdcs: &[(&'a str, u32)]) -> Vec<(u32, &'a str)> {
        let mut attempts = Attempts { keys, rejections: Vec::new() };
        let mut made = Vec::new();
        while let Some(Attempt { key, without, preferred }) = attempts.next() {
            let mut kdcs: Vec<_> =
                kdcs.iter().filter(|(host, _)| !without.contains(&(*host).into())).collect();
            kdcs.sort_by_key(|(host, _)| preferred.as_deref() != Some(*host));
            let Some((host, known)) = kdcs.first() else { break };
            made.push((key.version, *host));
            if key.version == *known {
                break;
            }
            attempts.rejected((*host).to_owned());
        }
        made
    }

    #[test]
    fn a_kdc_that_rejects_the_newest_key_gets_the_older_one_and_then_others_get_both() {
        let keys = [key(3, &[18]), key(2, &[18])];
        assert_eq!(attempts(&keys, &[("ad", 3), ("ad2", 3)]), [(3, "ad")]);
        // It has not replicated the change of the machine's password.
        assert_eq!(attempts(&keys, &[("ad", 2), ("ad2", 3)]), [(3, "ad"), (2, "ad")]);
        // It is two changes behind, and the keytab holds no key of it.
        let behind = [("ad", 1), ("ad2", 3)];
        assert_eq!(attempts(&keys, &behind), [(3, "ad"), (2, "ad"), (3, "ad2")]);
        assert_eq!(attempts(&keys[..1], &behind), [(3, "ad"), (3, "ad2")]);
        // No KDC accepts a key: each gets each once.
        let all = [(3, "ad"), (2, "ad"), (3, "ad2"), (2, "ad2")];
        assert_eq!(attempts(&keys, &[("ad", 4), ("ad2", 4)]), all);
        // And few get any.
        let many = [("a", 4), ("b", 4), ("c", 4), ("d", 4), ("e", 4)];
        assert_eq!(attempts(&keys, &many).len(), KEYS * KDCS);
        assert_eq!(attempts(&keys[..1], &many), [(3, "a"), (3, "b"), (3, "c")]);
        assert_eq!(attempts(&[], &many), []);
    }

    #[test]
    fn a_keytab_of_somebody_else_is_refused_by_name() {
        let error = Account::of(&named(&["HTTP/x@ACME.COM", "HTTP/x@ACME.COM"]), None).unwrap_err();
        assert!(error.to_string().contains("(only HTTP/x@ACME.COM)"), "{error}");
    }
}
