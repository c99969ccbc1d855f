//! Reading the register: the open sessions, one session, and the events.

use tokio::time::{Instant, timeout_at};

use super::Register;
use super::store::{Position, StoreError, Which};
use crate::protocol::MAX_FRAME;
use crate::protocol::report::{Events, Session, Sessions};

/// Number of sessions or events that are read at a time.
const PAGE: usize = 200;
/// Maximum size of the sessions or events in a reply, in bytes of JSON; the rest of the frame holds their
/// envelope.
const ROOM: usize = MAX_FRAME - 1024;

impl Register {
    /// Returns the open sessions of this server; in a file of this host these are all, under any name of the
    /// host.
    pub async fn mine(&self, deadline: Instant) -> Result<Vec<Session>, StoreError> {
        if !self.store.is_shared() {
            return self.all(&Which::All, deadline).await;
        }
        let machine = Which::Machine(self.identity.server.machine.clone());
        let mut mine = self.all(&machine, deadline).await?;
        mine.retain(|session| self.is_ours(session));
        Ok(mine)
    }

    /// Returns every open session of `which`, read page by page.
    pub(super) async fn all(&self, which: &Which, deadline: Instant) -> Result<Vec<Session>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.read(self.store.list(which, after.as_deref(), PAGE, deadline).await)?;
            after = page.list.last().map(|listed| listed.cursor.clone());
            all.extend(page.list.into_iter().map(|listed| listed.session));
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns a page of open sessions, as many as fit into a reply.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    pub async fn list(
        &self,
        which: &Which,
        after: Option<&str>,
        deadline: Instant,
    ) -> Result<Sessions, StoreError> {
        let page = self.read(self.store.list(which, after, PAGE, deadline).await)?;
        let fit = fitting(page.list.iter().map(|listed| &listed.session));
        let next = page.list.get(fit.saturating_sub(1)).map(|listed| listed.cursor.clone());
        let more = page.more || fit < page.list.len();
        let list = page.list.into_iter().take(fit).map(|listed| listed.session).collect();
        Ok(Sessions { list, next: next.filter(|_| more) })
    }

    /// Returns the session `id`, whether open or recently ended.
    ///
    /// # Errors
    /// Returns an error if the store was not reached.
    pub async fn show(&self, id: &str, deadline: Instant) -> Result<Sessions, StoreError> {
        let found = self.read(self.store.get(id, deadline).await)?;
        Ok(Sessions { list: found.into_iter().collect(), next: None })
    }

    /// Returns the events after `cursor`, and waits for one until `deadline`. Without a cursor, the reply is
    /// empty and says where to begin. Returns `None` if too many requests wait already.
    ///
    /// # Errors
    /// Returns an error if the store was not reached or the cursor is malformed.
    pub async fn watch(&self, cursor: Option<&str>, deadline: Instant) -> Result<Option<Events>, StoreError> {
        let Ok(_place) = self.watchers.try_acquire() else { return Ok(None) };
        let mut changes = self.store.changes();
        let mut ending = self.ending.subscribe();
        let position = cursor.map_or(Position::Now, |cursor| Position::After(cursor.to_owned()));
        // The last query must be answered before the deadline.
        let last = deadline - deadline.saturating_duration_since(Instant::now()) / 10;
        loop {
            changes.mark_unchanged();
            let mut events = self.read(self.store.events(&position, PAGE, deadline).await)?;
            let is_answer = !events.list.is_empty() || events.gap || position == Position::Now;
            if is_answer || *ending.borrow() || Instant::now() >= last {
                let fit = fitting(events.list.iter().map(|event| &event.session));
                events.list.truncate(fit);
                if let Some(event) = events.list.last() {
                    events.cursor.clone_from(&event.cursor);
                }
                return Ok(Some(events));
            }
            let woken = async {
                tokio::select! { changed = changes.changed() => changed, ended = ending.changed() => ended }
            };
            if let Ok(Err(_)) = timeout_at(last, woken).await {
                return Ok(Some(events));
            }
        }
    }

    /// Returns the number of requests that wait for events.
    pub fn watching(&self) -> usize {
        self.places.saturating_sub(self.watchers.available_permits())
    }
}

/// Returns how many of `sessions` fit into a reply; at least one, which always fits.
fn fitting<'a>(sessions: impl Iterator<Item = &'a Session>) -> usize {
    // Space for a cursor and the JSON around it.
    const AROUND: usize = 128;
    let mut used = 0;
    let fits = |session: &&Session| {
        used += AROUND + serde_json::to_vec(session).map_or(ROOM, |json| json.len());
        used <= ROOM
    };
    sessions.take_while(fits).count().max(1)
}
