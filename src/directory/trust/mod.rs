//! The certificate authorities trusted to issue certificates for domain controllers.
//!
//! If `tls.ca_file` names them, only those count. Otherwise the system's store counts, and the root CAs that
//! the forest itself trusts. The latter are read from AD over the machine connection, which Kerberos seals,
//! so this trust comes from the realm join alone. AD's last answer is kept on disk.
//!
//! Revocation counts if it is published and reachable: CRLs in AD, and those that the certificates of domain
//! controllers name by an `http://` URL. A certificate on one of them is rejected. A list that is absent, old
//! or malformed rejects no certificate.

pub(crate) mod current;
mod kept;
pub(crate) mod list;
pub(crate) mod points;
pub(crate) mod published;
pub mod reason;
pub mod verifier;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};

use self::current::{Base, Current, Material, Notes, client, problem, same};
use self::points::{Points, Presented};
use self::published::Published;
use self::verifier::Shown;
use super::machine::MachineError;
use crate::config::Problem;
use crate::directory::machine::Machine;
use crate::protocol::report;

/// The folder that Debian's ca-certificates maintains.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs";

/// Time after which the roots and CRLs are read from AD again.
const FRESH: Duration = Duration::from_secs(86400);
/// Minimum time between two readings of AD, whatever the reason.
const PAUSE: Duration = Duration::from_secs(60);
/// The same time after a reading that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Verification of TLS to domain controllers: always on, against the roots in force.
pub struct Trust {
    base: Base,
    /// The state directory.
    state: Option<PathBuf>,
    points: Arc<Points>,
    current: Mutex<Arc<Current>>,
    /// Locked during a reading, so that one caller reads and the others wait for the answer, and during each
    /// change.
    asked: tokio::sync::Mutex<()>,
    timing: Mutex<Timing>,
}

/// Times of the last and of the next reading of AD.
#[derive(Default)]
struct Timing {
    answered: Option<Instant>,
    not_before: Option<Instant>,
}

/// Result of [`Trust::refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The roots or CRLs have changed: a handshake that failed may succeed now.
    Changed,
    /// The same as before.
    Unchanged,
    /// AD was not queried: `tls.ca_file` decides, or AD answered a moment ago.
    NotAsked,
}

impl Trust {
    /// Trusts only the certificates of `ca_file` (PEM); without it, the system's store and the forest's
    /// roots. Roots and CRLs that were kept in the directory `state` are in force at once.
    ///
    /// # Errors
    /// Returns an error if `ca_file` holds no usable certificate, or an unusable one. Without `ca_file`, an
    /// empty set of roots is no error.
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

    /// Returns the configuration for new TLS connections.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current().config.clone()
    }

    /// Returns the configuration for one TLS connection, and access to the certificate that it shows, so that
    /// the caller can explain a rejection.
    ///
    /// # Errors
    /// Returns rustls' error; it has no cause here that did not already exist at the start.
    pub fn watched(&self) -> Result<(Arc<ClientConfig>, Shown), rustls::Error> {
        let shown = Shown::default();
        let verifier = self.current().verifier.watched(shown.clone());
        Ok((client(Arc::new(verifier))?, shown))
    }

    /// Describes the source of the roots to the administrator.
    pub fn source(&self) -> String {
        self.current().report.source.clone()
    }

    /// Reports the roots and CRLs in force.
    pub fn report(&self) -> report::Trust {
        let current = self.current();
        let age = |read: SystemTime| SystemTime::now().duration_since(read).unwrap_or_default().as_secs();
        report::Trust { refreshed: current.read.map(age), ..current.report.clone() }
    }

    /// Returns the time when the forest's roots in force were read.
    pub fn read(&self) -> Option<SystemTime> {
        self.current().read
    }

    /// Returns true if AD should be read now: a day after it answered, and soon after a failure.
    pub fn due(&self, now: Instant) -> bool {
        let timing = self.timing.lock();
        let is_old = timing.answered.is_none_or(|answered| now >= answered + FRESH);
        self.base.asks_forest && is_old && timing.not_before.is_none_or(|again| now >= again)
    }

    /// Reads the forest's roots and CRLs through `machine`, and keeps them on disk.
    ///
    /// # Errors
    /// Returns an error if AD does not answer before `deadline`; the previous roots stay in force.
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
        if self.timing.lock().not_before.is_some_and(|again| Instant::now() < again) {
            return Ok(Refreshed::NotAsked);
        }
        let answer = published::read(machine, &current.material.published, deadline).await;
        let now = Instant::now();
        let pause = if answer.is_ok() { PAUSE } else { RETRY };
        self.timing.lock().not_before = Some(now + pause);
        let published::Answer { published, notes } = answer?;
        let mut notes = Notes { published: notes, lists: current.notes.lists.clone() };
        self.timing.lock().answered = Some(now);
        let kept = published.clone();
        notes.published.extend(self.keep(kept::ROOTS, move |state| kept::store_roots(state, &kept)).await);
        let material = Material { published, lists: current.material.lists.clone() };
        // rustls has no cause to fail here that did not already exist at the start.
        self.replace(&current, material, Some(SystemTime::now()), notes)
            .map_err(|e| MachineError::Unreachable(format!("the forest's roots cannot be used: {e}")))
    }

    /// Returns true if CRLs should be fetched now: a day after the last time, and soon if they were never
    /// fetched.
    pub fn lists_due(&self, now: Instant) -> bool {
        !self.points.due(now).is_empty()
    }

    /// Fetches the CRLs that certificates of domain controllers name by an `http://` URL, and keeps them on
    /// disk. If a server does not answer it may take minutes, so no login must wait for it.
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
                Err(cause) => causes.push(format!("the CRL {url} cannot be used: {cause}")),
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
                true => causes.push(format!("the CRL {url} is skipped: all together are too long")),
                false => drop(material.lists.insert(url, list)),
            }
        }
        let kept = material.lists.clone();
        causes.extend(self.keep(kept::LISTS, move |state| kept::store_lists(state, &kept)).await);
        let notes = Notes { lists: causes, published: current.notes.published.clone() };
        // As above; the previous material stays in force.
        self.replace(&current, material, current.read, notes).unwrap_or(Refreshed::Unchanged)
    }

    /// Fetches the list at `url`, and rejects it if it is worse than the known one. The server there must not
    /// be able to make a revoked certificate valid again with another list or an old one.
    async fn fetch(&self, url: &str, presented: Presented) -> Result<Vec<u8>, String> {
        let current = self.current();
        let asked = url.to_owned();
        let known = current.material.lists.get(url).cloned();
        let fetching = tokio::task::spawn_blocking(move || {
            let list = points::fetch(&asked, points::FETCH)?;
            let der = CertificateRevocationListDer::from(list.clone());
            verifier::vouches(&current.roots, der, &presented)?;
            list::replaces(&list, known.as_deref())?;
            Ok(list)
        });
        fetching.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Puts `material` in force in place of that of `before`.
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
            // This keeps the TLS sessions that can be resumed.
            next.config = before.config.clone();
        }
        *self.current.lock() = Arc::new(next);
        Ok(if changed { Refreshed::Changed } else { Refreshed::Unchanged })
    }

    /// Writes to the state directory; returns a note for the administrator if that fails.
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
        self.current.lock().clone()
    }
}

#[cfg(test)]
mod tests;
