//! The state of the register: the problems of its store and of the recheck of the accounts.

use std::time::Duration;

use tokio::time::Instant;

use super::store::StoreError;
use super::{Register, now};
use crate::log::{Level, Line};
use crate::protocol::report;

/// Delay after which a recheck counts as not running; at least the configured interval.
const RECHECK_LATE: Duration = Duration::from_secs(120);

impl Register {
    /// Writes to the store and returns its problem, if any: a store on a full disk can still be read.
    pub async fn try_writing(&self, deadline: Instant) -> Option<String> {
        let _ = self.written(
            self.store
                .bookmark(&format!("health {}", self.identity.server.name), &now().to_string(), deadline)
                .await,
        );
        self.trouble()
    }

    /// Notes that the accounts behind sessions were read again, or the problem that prevented it.
    pub fn note_recheck(&self, problem: Option<String>) {
        let mut rechecked = self.rechecked.lock();
        match problem {
            None => *rechecked = (Instant::now(), None),
            problem => rechecked.1 = problem,
        }
    }

    /// Returns the reason if the accounts are not read again as often as `sessions.recheck` says.
    pub fn recheck_problem(&self) -> Option<String> {
        let every = self.settings.recheck?;
        let rechecked = self.rechecked.lock();
        let age = rechecked.0.elapsed();
        match &rechecked.1 {
            Some(problem) => {
                Some(format!("accounts could not be read again, and no session ends: {problem}"))
            }
            None if age > every + every.max(RECHECK_LATE) => {
                Some(format!("accounts were last read again {} s ago", age.as_secs()))
            }
            None => None,
        }
    }

    fn trouble(&self) -> Option<String> {
        let problem = self.trouble.lock().iter().flatten().next().cloned();
        self.identity.problem().or(problem)
    }

    /// Returns the state of the register, for administrators.
    pub async fn report(&self, deadline: Instant) -> report::Register {
        let open = self.read(self.store.count(deadline).await).ok();
        report::Register { store: self.store.name(), open, problem: self.trouble() }
    }

    /// Records whether the store could be read.
    pub(super) fn read<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.noted(result, |[reading, _]| reading)
    }

    /// Records whether the store could be written.
    pub(super) fn written<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.noted(result, |[_, writing]| writing)
    }

    fn noted<T>(
        &self,
        result: Result<T, StoreError>,
        place: impl FnOnce(&mut [Option<String>; 2]) -> &mut Option<String>,
    ) -> Result<T, StoreError> {
        let trouble = match &result {
            Ok(_) => None,
            // The cursor is the client's mistake, not the store's.
            Err(StoreError::Cursor(_)) => return result,
            Err(error) => {
                let line = Line::new("sessions").with("problem", error).with("store", self.store.name());
                self.log.complain(Level::Error, "sessions", line);
                Some(error.to_string())
            }
        };
        *place(&mut self.trouble.lock()) = trouble;
        result
    }

    /// Returns the number of open sessions, without a log line if the store does not reply.
    pub async fn open_now(&self, deadline: Instant) -> Option<u64> {
        self.store.count(deadline).await.ok()
    }
}
