//! The open connections: their maximum number, and the choice of the one that is closed to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Maximum number of connections that are served at once.
pub const CONNECTIONS: usize = 200;
/// Shortest idle time after which a connection without a request can be closed for another one.
const SILENT: Duration = Duration::from_secs(1);
/// Same for a connection that has sent a request. Some libraries open hundreds of connections at once, one
/// for each group of a user, and need a while for the next request of each.
const BETWEEN: Duration = Duration::from_secs(5);
/// Pause between two attempts to find an idle connection.
const AGAIN: Duration = Duration::from_millis(100);

/// The open connections.
#[derive(Debug)]
pub struct House {
    room: Arc<Semaphore>,
    guests: Mutex<Vec<Arc<Guest>>>,
}

/// An open connection, as seen by the others.
#[derive(Debug, Default)]
pub struct Guest {
    /// Time from which it can be closed for another connection; `None` while a request is being answered.
    idle: Mutex<Option<Instant>>,
    has_asked: AtomicBool,
    leave: Notify,
}

impl Guest {
    /// Marks the connection as idle from now on.
    pub fn waits(&self) {
        let grace = if self.has_asked.load(Ordering::Relaxed) { BETWEEN } else { SILENT };
        *self.idle.lock() = Some(Instant::now() + grace);
    }

    /// Marks the connection as busy with a request.
    pub fn works(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
        *self.idle.lock() = None;
    }

    /// Waits until another connection needs its place.
    pub async fn is_asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

/// A place for a connection. Dropping it frees the place.
#[derive(Debug)]
pub struct Stay {
    house: Arc<House>,
    guest: Arc<Guest>,
    _permit: OwnedSemaphorePermit,
}

impl Stay {
    /// Returns the connection in this place.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.house.guests.lock().retain(|guest| !Arc::ptr_eq(guest, &self.guest));
    }
}

impl House {
    /// Creates a house with `places` places.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(House { room: Arc::new(Semaphore::new(places)), guests: Mutex::default() })
    }

    /// Waits for a place. If none is free, the connection that has been idle too long for the longest time
    /// makes room: applications keep connections open for hours, and open a new one if the old one was
    /// closed.
    pub async fn enter(self: &Arc<Self>) -> Option<Stay> {
        let permit = loop {
            if let Ok(permit) = self.room.clone().try_acquire_owned() {
                break permit;
            }
            self.make_room();
            if let Ok(permit) = timeout(AGAIN, self.room.clone().acquire_owned()).await {
                break permit.ok()?;
            }
        };
        let guest = Arc::new(Guest::default());
        guest.waits();
        self.guests.lock().push(guest.clone());
        Some(Stay { house: self.clone(), guest, _permit: permit })
    }

    fn make_room(&self) {
        let guests = self.guests.lock();
        let idle = guests.iter().filter_map(|guest| Some((*guest.idle.lock())?).map(|until| (until, guest)));
        if let Some((until, guest)) = idle.min_by_key(|(until, _)| *until)
            && until <= Instant::now()
        {
            // Marked as busy, so that it is not chosen twice.
            guest.works();
            guest.leave.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_between_two_requests_keeps_its_place() {
        let house = House::new(1);
        let first = house.enter().await.unwrap();
        tokio::time::sleep(BETWEEN * 2).await;
        first.guest().works();
        first.guest().waits();
        let answered = Instant::now();
        let leaving = tokio::spawn(async move { first.guest().is_asked_to_leave().await });
        let newcomer = house.enter().await.unwrap();
        leaving.await.unwrap();
        drop(newcomer);
        assert!(answered.elapsed() >= BETWEEN && answered.elapsed() <= BETWEEN + 2 * AGAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_makes_room_before_one_between_two_requests() {
        let house = House::new(2);
        let client = house.enter().await.unwrap();
        client.guest().works();
        client.guest().waits();
        let silent = house.enter().await.unwrap();
        let begun = Instant::now();
        let left = tokio::spawn(async move { silent.guest().is_asked_to_leave().await });
        house.enter().await.unwrap();
        left.await.unwrap();
        assert!(begun.elapsed() >= SILENT && begun.elapsed() <= SILENT + 2 * AGAIN);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_one_makes_room_and_one_that_works_never() {
        let house = House::new(2);
        let busy = house.enter().await.unwrap();
        busy.guest().works();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = house.enter().await.unwrap();
        let asked = tokio::spawn(async move {
            idle.guest().is_asked_to_leave().await;
        });
        let newcomer = house.enter().await.unwrap();
        asked.await.unwrap();
        assert_eq!(house.guests.lock().len(), 2);
        newcomer.guest().works();
        // Now no connection is idle: the next one waits until a place is free.
        let waiting = tokio::spawn({
            let house = house.clone();
            async move { house.enter().await.map(drop) }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        drop(busy);
        assert!(waiting.await.unwrap().is_some());
    }
}
