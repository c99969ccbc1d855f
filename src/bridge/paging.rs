//! The remaining entries of a search that the client fetches in pages (RFC 2696). All pages come from one
//! reply of the broker, so they show the directory at one moment.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::message::{Outcome, Search};
use crate::protocol::search::FoundEntry;

/// Maximum number of searches with remaining pages, over all connections.
pub const KEPT: usize = 4;
/// Time limit for the request for the next page.
pub const NEXT: Duration = Duration::from_secs(60);

/// The remaining entries of one search. They are dropped when all are fetched or [`NEXT`] has passed.
#[derive(Debug)]
pub struct Kept {
    search: Search,
    cookie: u32,
    entries: VecDeque<FoundEntry>,
    outcome: Outcome,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

impl Kept {
    /// Keeps the entries of a search. `place` counts against [`KEPT`].
    pub fn new(
        search: Search,
        entries: Vec<FoundEntry>,
        outcome: Outcome,
        place: OwnedSemaphorePermit,
    ) -> Self {
        // Not a secret: a cookie is valid only on its own connection.
        let cookie = fastrand::u32(..);
        Kept { search, cookie, entries: entries.into(), outcome, since: Instant::now(), _place: place }
    }

    /// Returns the time that is left to request the next page.
    pub fn left(&self) -> Duration {
        NEXT.saturating_sub(self.since.elapsed())
    }

    /// Returns true if `search` and `cookie` request the next page of this search, and in time.
    pub fn is_next(&self, search: &Search, cookie: &[u8]) -> bool {
        self.cookie.to_be_bytes() == cookie && self.search == *search && !self.left().is_zero()
    }

    /// Takes the next `size` entries. Returns them with the result and the cookie for the next page, which is
    /// empty after the last one.
    pub fn page(&mut self, size: usize) -> (Vec<FoundEntry>, Outcome, Vec<u8>) {
        let entries = self.entries.drain(..size.min(self.entries.len())).collect();
        self.since = Instant::now();
        self.cookie = self.cookie.wrapping_add(1);
        match self.entries.is_empty() {
            true => (entries, self.outcome.clone(), Vec::new()),
            false => (entries, Outcome::success(), self.cookie.to_be_bytes().to_vec()),
        }
    }
}
