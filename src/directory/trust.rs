//! Which certificate authorities may vouch for a domain controller.
//!
//! Where `tls.ca_file` names them, they alone. Otherwise the system's store and the root CAs that the forest itself
//! trusts: these are read from AD on the machine connection, which Kerberos seals, so that this trust comes from
//! the realm join alone. What AD said last is kept on disk.
//!
//! Revocation counts where it is published and can be reached: CRLs in AD, and those that the certificates of domain
//! controllers name by an `http://` URL. A certificate that one of them names is refused; the absence, the age or the
//! shape of a list refuses nobody.

mod current;
mod kept;
mod points;
mod published;
mod reason;
mod verifier;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use self::current::{Base, Current, Material, Notes, client, problem, same};
use self::points::{Points, Presented};
use self::published::Published;
pub use self::reason::of_handshake;
pub use self::verifier::{Distrust, Shown};
use super::Machine;
use super::machine::MachineError;
use crate::config::Problem;
use crate::protocol::report;

/// The folder that Debian's ca-certificates maintains.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs";

/// How long an answer of AD is good.
const FRESH: Duration = Duration::from_secs(86400);
/// AD is not asked again sooner than this after it answered, whoever wants to know.
const PAUSE: Duration = Duration::from_secs(60);
/// The same after it did not answer.
const RETRY: Duration = Duration::from_secs(5);

/// How TLS to domain controllers is verified: always, against the roots of the moment.
pub struct Trust {
    base: Base,
    /// The state directory.
    state: Option<PathBuf>,
    points: Arc<Points>,
    current: Mutex<Arc<Current>>,
    /// Held over the reading, so that one asks and the others wait for the answer, and over each change.
    asked: tokio::sync::Mutex<()>,
    timing: Mutex<Timing>,
}

/// When AD was asked, and when it may be asked again.
#[derive(Default)]
struct Timing {
    answered: Option<Instant>,
    not_before: Option<Instant>,
}

/// What [`Trust::refresh`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Other roots or CRLs than before: a handshake that failed may succeed now.
    Changed,
    /// The same as before.
    Unchanged,
    /// AD was not asked: `tls.ca_file` decides, or it answered a moment ago.
    NotAsked,
}

impl Trust {
    /// Trusts the certificates of `ca_file` (PEM) and no others; without it the system's store and the forest's roots.
    /// What was kept of the forest's roots and of CRLs under the directory `state` is in force at once.
    ///
    /// # Errors
    /// `ca_file` has no usable certificate, or one that is not. Without it there may be no root at all yet.
    pub fn load(ca_file: Option<&Path>, state: Option<&Path>) -> Result<Self, Problem> {
        let base = match ca_file {
            Some(path) => Base::of_file(path)?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Base::of_system(roots)
            }
        };
        Trust::new(base, state, SystemTime::now())
    }

    fn new(base: Base, state: Option<&Path>, now: SystemTime) -> Result<Self, Problem> {
        let mut notes = Notes::default();
        let mut ignored = |name: &str, error: io::Error| {
            let file = state.map(|directory| directory.join(name)).unwrap_or_default();
            notes.published.push(format!("{} is ignored: {error}", file.display()));
        };
        let roots = match state.filter(|_| base.asks_forest).map(kept::load_roots) {
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                ignored(kept::ROOTS, error);
                None
            }
            None => None,
        };
        let lists = state.map_or(Ok(BTreeMap::new()), kept::load_lists).unwrap_or_else(|error| {
            ignored(kept::LISTS, error);
            BTreeMap::new()
        });
        let (published, read) = roots.map_or((Published::default(), None), |(roots, at)| (roots, Some(at)));
        let points = Arc::new(Points::new(lists.keys()));
        let material = Material { published, lists };
        let current = Current::build(&base, material, notes, &points, read, now)
            .map_err(|e| problem(Path::new(&base.source), &e))?;
        Ok(Trust {
            base,
            state: state.map(Path::to_owned),
            points,
            current: Mutex::new(Arc::new(current)),
            asked: tokio::sync::Mutex::default(),
            timing: Mutex::default(),
        })
    }

    /// For the TLS connections that are made now.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current().config.clone()
    }

    /// For one TLS connection, whose certificate is shown to whoever wants to say what is wrong with it.
    ///
    /// # Errors
    /// rustls has no reason to fail here that it did not have at the start.
    pub fn watched(&self) -> Result<(Arc<ClientConfig>, Shown), rustls::Error> {
        let shown = Shown::default();
        let verifier = self.current().verifier.watched(shown.clone());
        Ok((client(Arc::new(verifier))?, shown))
    }

    /// Where the roots come from, for people.
    pub fn source(&self) -> String {
        self.current().report.source.clone()
    }

    /// What there is to know about the roots and CRLs in force.
    pub fn report(&self) -> report::Trust {
        let current = self.current();
        let age = |read: SystemTime| SystemTime::now().duration_since(read).unwrap_or_default().as_secs();
        report::Trust { refreshed: current.read.map(age), ..current.report.clone() }
    }

    /// When the forest's roots were read that are in force.
    pub fn read(&self) -> Option<SystemTime> {
        self.current().read
    }

    /// Whether AD should be asked now: a day after it answered, and soon where it has not.
    pub fn due(&self, now: Instant) -> bool {
        let timing = self.timing();
        let is_old = timing.answered.is_none_or(|answered| now >= answered + FRESH);
        self.base.asks_forest && is_old && timing.not_before.is_none_or(|again| now >= again)
    }

    /// Reads the forest's roots and CRLs through `machine`, and keeps them.
    ///
    /// # Errors
    /// AD did not answer until `deadline`; what was in force stays so.
    pub async fn refresh<M: Machine>(
        &self,
        machine: &M,
        deadline: Instant,
    ) -> Result<Refreshed, MachineError> {
        if !self.base.asks_forest {
            return Ok(Refreshed::NotAsked);
        }
        let before = self.current();
        let waited = timeout_at(deadline, self.asked.lock()).await;
        let _asking = waited.map_err(|_| MachineError::Timeout("the forest's trusted roots".to_owned()))?;
        let current = self.current();
        if !same(&before, &current) {
            return Ok(Refreshed::Changed);
        }
        if self.timing().not_before.is_some_and(|again| Instant::now() < again) {
            return Ok(Refreshed::NotAsked);
        }
        let answer = published::read(machine, &current.material.published, deadline).await;
        let now = Instant::now();
        let pause = if answer.is_ok() { PAUSE } else { RETRY };
        self.timing().not_before = Some(now + pause);
        let published::Answer { published, notes } = answer?;
        let mut notes = Notes { published: notes, lists: current.notes.lists.clone() };
        self.timing().answered = Some(now);
        let kept = published.clone();
        notes.published.extend(self.keep(kept::ROOTS, move |state| kept::store_roots(state, &kept)).await);
        let material = Material { published, lists: current.material.lists.clone() };
        // rustls has no reason to fail here that it did not have at the start.
        self.replace(&current, material, Some(SystemTime::now()), notes)
            .map_err(|e| MachineError::Unreachable(format!("the forest's roots are of no use: {e}")))
    }

    /// Whether CRLs should be fetched now: a day after they were, and soon where they never were.
    pub fn lists_due(&self, now: Instant) -> bool {
        !self.points.due(now).is_empty()
    }

    /// Fetches the CRLs that certificates of domain controllers name by an `http://` URL, and keeps them. It may take
    /// minutes where nobody answers, so no login must wait for it.
    pub async fn fetch_lists(&self) -> Refreshed {
        let due = self.points.due(Instant::now());
        if due.is_empty() {
            return Refreshed::NotAsked;
        }
        let (mut fetched, mut causes) = (BTreeMap::new(), Vec::new());
        for (url, presented) in due {
            let list = self.fetch(&url, presented).await;
            self.points.asked(&url, list.is_ok());
            match list {
                Ok(list) => drop(fetched.insert(url, list)),
                Err(cause) => causes.push(format!("the CRL {url} is not to be had: {cause}")),
            }
        }
        let _changing = self.asked.lock().await;
        let current = self.current();
        let mut material = current.material.clone();
        material.lists.retain(|url, _| self.points.contains(url));
        for (url, list) in fetched {
            let others =
                material.lists.iter().filter(|(other, _)| **other != url).map(|(_, list)| list.len());
            match others.sum::<usize>() + list.len() > published::ALL_LISTS {
                true => causes.push(format!("the CRL {url} is passed over: all together are too long")),
                false => drop(material.lists.insert(url, list)),
            }
        }
        let kept = material.lists.clone();
        causes.extend(self.keep(kept::LISTS, move |state| kept::store_lists(state, &kept)).await);
        let notes = Notes { lists: causes, published: current.notes.published.clone() };
        // As above; what was in force stays so.
        self.replace(&current, material, current.read, notes).unwrap_or(Refreshed::Unchanged)
    }

    /// The list at `url`, where it is worth more than the one that is known. Whoever answers there cannot make a
    /// certificate good again by another list or an old one.
    async fn fetch(&self, url: &str, presented: Presented) -> Result<Vec<u8>, String> {
        let current = self.current();
        let asked = url.to_owned();
        let known = current.material.lists.get(url).cloned();
        let fetching = tokio::task::spawn_blocking(move || {
            let list = points::fetch(&asked, points::FETCH)?;
            let der = CertificateRevocationListDer::from(list.clone());
            verifier::vouches(&current.roots, der, &presented)?;
            match known.is_some_and(|known| issued(&known) > issued(&list)) {
                true => Err("it is older than the one that is known".to_owned()),
                false => Ok(list),
            }
        });
        fetching.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Puts `material` in force instead of what `before` has.
    fn replace(
        &self,
        before: &Current,
        material: Material,
        read: Option<SystemTime>,
        notes: Notes,
    ) -> Result<Refreshed, rustls::Error> {
        let mut next = Current::build(&self.base, material, notes, &self.points, read, SystemTime::now())?;
        let changed = !same(before, &next);
        if !changed {
            // With it stay the TLS sessions that may be resumed.
            next.config = before.config.clone();
        }
        *self.slot() = Arc::new(next);
        Ok(if changed { Refreshed::Changed } else { Refreshed::Unchanged })
    }

    /// Writes to the state directory; the note is for people.
    async fn keep(
        &self,
        name: &str,
        store: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Option<String> {
        let directory = self.state.clone()?;
        let file = directory.join(name).display().to_string();
        let error = match tokio::task::spawn_blocking(move || store(&directory)).await {
            Ok(stored) => stored.err()?.to_string(),
            Err(error) => error.to_string(),
        };
        Some(format!("{file} cannot be written: {error}"))
    }

    fn current(&self) -> Arc<Current> {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Arc<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timing(&self) -> MutexGuard<'_, Timing> {
        self.timing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a CRL was issued (`thisUpdate`), in seconds since 1970; `None` for what is none.
fn issued(list: &[u8]) -> Option<i64> {
    Some(CertificateRevocationList::from_der(list).ok()?.1.last_update().timestamp())
}

#[cfg(test)]
mod tests;
