//! The open connections: their maximum number, and the choice of the one that is closed to make room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Maximum number of connections that are served at once.
pub const CONNECTIONS: usize = 200;
/// Shortest idle time after which a connection can be closed for another one: a client needs a moment between two
/// requests, and some open a connection for each group of a user.
const GRACE: Duration = Duration::from_millis(500);
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
    /// Start of its idle time; `None` while a request is being answered.
    idle: Mutex<Option<Instant>>,
    leave: Notify,
}

impl Guest {
    fn idle(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the connection as idle from now on.
    pub fn waits(&self) {
        *self.idle() = Some(Instant::now());
    }

    /// Marks the connection as busy with a request.
    pub fn works(&self) {
        *self.idle() = None;
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
        self.house.guests().retain(|guest| !Arc::ptr_eq(guest, &self.guest));
    }
}

impl House {
    /// Creates a house with `places` places.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(House { room: Arc::new(Semaphore::new(places)), guests: Mutex::default() })
    }

    fn guests(&self) -> MutexGuard<'_, Vec<Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. If none is free, the connection with the longest idle time makes room: applications
    /// keep connections open for hours, and open a new one if the old one was closed.
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
        self.guests().push(guest.clone());
        Some(Stay { house: self.clone(), guest, _permit: permit })
    }

    fn make_room(&self) {
        let guests = self.guests();
        let idle = guests.iter().filter_map(|guest| Some((*guest.idle())?).map(|since| (since, guest)));
        if let Some((since, guest)) = idle.min_by_key(|(since, _)| *since)
            && since.elapsed() >= GRACE
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
        tokio::time::sleep(GRACE * 2).await;
        first.guest().works();
        first.guest().waits();
        let answered = Instant::now();
        let leaving = tokio::spawn(async move { first.guest().is_asked_to_leave().await });
        let newcomer = house.enter().await.unwrap();
        leaving.await.unwrap();
        drop(newcomer);
        assert!(answered.elapsed() >= GRACE && answered.elapsed() <= GRACE + 2 * AGAIN);
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
        assert_eq!(house.guests().len(), 2);
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
