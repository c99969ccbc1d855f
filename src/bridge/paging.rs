//! The rest of a search that its client fetches in pages (RFC 2696): of one answer of the broker, so that all pages show
//! the directory at one moment.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::message::{Outcome, Search};
use crate::protocol::search::FoundEntry;

/// How many such rests are kept at once, by all connections.
pub const KEPT: usize = 4;
/// The next page must be asked for within this time.
pub const NEXT: Duration = Duration::from_secs(60);

/// A rest, until it was fetched or [`NEXT`] has passed.
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
    /// Keeps what a search has found.
    pub fn new(
        search: Search,
        entries: Vec<FoundEntry>,
        outcome: Outcome,
        place: OwnedSemaphorePermit,
    ) -> Self {
        // Not a secret: a cookie is good on its own connection alone.
        let cookie = fastrand::u32(..);
        Kept { search, cookie, entries: entries.into(), outcome, since: Instant::now(), _place: place }
    }

    /// The time that the client has for its next page.
    pub fn left(&self) -> Duration {
        NEXT.saturating_sub(self.since.elapsed())
    }

    /// Returns true if `cookie` asks for the next page of this very search.
    pub fn is_next(&self, search: &Search, cookie: &[u8]) -> bool {
        self.cookie.to_be_bytes() == cookie && self.search == *search && !self.left().is_zero()
    }

    /// Takes the next `size` entries, the outcome, and the cookie for what is left.
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
