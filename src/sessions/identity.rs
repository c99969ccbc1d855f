//! Identity of this server among those that share a register.
//!
//! A server is known by its machine-id and its name. Two servers of one name differ in the machine-id. A
//! clone that kept both would end the sessions of its original, because it does not have their processes. So
//! each server counts in the register, and a server that sees another one count in its place is rejected. No
//! clock is compared: a count that moves proves that its server runs.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::store::StoreError;
use super::{CALL, Register};
use crate::log::{Level, Line};
use crate::protocol::report::Session;
use crate::supervise;

/// Interval between two counts of a server.
const BEAT: Duration = Duration::from_secs(3);
/// A place whose count stands still for this many beats is free.
const SILENT: u32 = 4;
/// The id of this machine (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, for administrators.
    pub name: String,
    /// See [`Session::machine`].
    pub machine: String,
}

impl Server {
    /// Returns this server, called `name`.
    pub fn here(name: String) -> Self {
        let id = fs::read_to_string(MACHINE_ID).unwrap_or_default();
        Server { machine: machine(id.trim()).unwrap_or_else(|| name.clone()), name }
    }

    /// Returns the bookmark that it counts in.
    fn place(&self) -> String {
        format!("server {}/{}", self.machine, self.name)
    }
}

/// Derives the machine part of the identity from the machine-id `id`. Others may read the register, so
/// machine-id(5) requires a value that does not reveal the id. Returns `None` if `id` is malformed.
fn machine(id: &str) -> Option<String> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let tag = || hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, id.as_bytes()), b"motion-ad sessions");
    is_id.then(|| tag().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// State of the place of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not known yet: the count in it may come from the broker that ran before this one.
    Open,
    /// No other server counts there.
    Ours,
    /// Another server counts there.
    Taken,
}

/// This server's place in a register.
pub(super) struct Identity {
    pub(super) server: Server,
    place: watch::Sender<Place>,
    /// Names that this machine had before, each with the count in its place.
    former: Mutex<BTreeMap<String, Former>>,
}

#[derive(Default)]
struct Former {
    count: Option<String>,
    /// True if no server counted there between two reads.
    is_ours: bool,
}

impl Identity {
    /// Creates the identity of `server`. `is_alone` says that no other server uses the register.
    pub(super) fn new(server: Server, is_alone: bool) -> Self {
        let place = if is_alone { Place::Ours } else { Place::Open };
        Identity { server, place: watch::Sender::new(place), former: Mutex::default() }
    }

    /// Waits until the sessions with this server's identity are certainly its own.
    pub(super) async fn is_certain(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.place.subscribe().wait_for(|place| *place == Place::Ours).await;
    }

    /// Returns the reason if this server may not use the register.
    pub(super) fn problem(&self) -> Option<String> {
        let Server { name, .. } = &self.server;
        (*self.place.borrow() == Place::Taken).then(|| {
            format!(
                "another server that runs has the machine-id and the name of this one, {name}: give each its \
                 own machine-id (docs/several-servers.md)"
            )
        })
    }

    /// Returns true if the session is one of this server: of this machine, with its present or a former name.
    pub(super) fn is_ours(&self, session: &Session) -> bool {
        let is_former = || {
            let former = self.former.lock();
            former.get(&session.host).is_some_and(|former| former.is_ours)
        };
        session.machine == self.server.machine && (session.host == self.server.name || is_former())
    }

    fn set(&self, place: Place) -> bool {
        self.place.send_if_modified(|now| std::mem::replace(now, place) != place)
    }
}

/// One broker's count in a place.
struct Count {
    /// Random mark that each broker chooses when it starts.
    mark: String,
    count: u64,
    /// True if this broker counts there.
    is_counting: bool,
    /// The count of another broker, and the number of beats for which it has stood still.
    other: Option<(String, u32)>,
}

impl Count {
    fn new() -> Self {
        let mark = format!("{:016x}", fastrand::u64(..));
        Count { mark, count: 0, is_counting: false, other: None }
    }

    /// Takes the count that is in the place now. Returns the count to write, if this broker may write, and
    /// the state of the place.
    fn beat(&mut self, stands: Option<&str>) -> (Option<String>, Place) {
        let is_own = stands.is_none_or(|stands| stands.split(' ').next() == Some(&self.mark));
        if is_own {
            self.other = None;
        } else if let Some(stands) = stands {
            self.is_counting = false;
            let (still, moved) = match &self.other {
                Some((before, still)) if before == stands => (still + 1, false),
                Some(_) => (0, true),
                None => (0, false),
            };
            self.other = Some((stands.to_owned(), still));
            if still < SILENT {
                return (None, if moved { Place::Taken } else { Place::Open });
            }
            self.other = None;
        }
        // If another broker takes the place at the same moment, one of the two sees the other's count next.
        let is_certain = self.is_counting;
        self.is_counting = true;
        self.count += 1;
        let place = if is_certain || stands.is_none() { Place::Ours } else { Place::Open };
        (Some(format!("{} {}", self.mark, self.count)), place)
    }
}

/// Counts until the broker stops.
pub(super) async fn keep(register: Arc<Register>) -> supervise::Ended {
    if !register.store.is_shared() {
        return Ok(());
    }
    let mut count = Count::new();
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // The register has logged any error already.
        let _ = beat(&register, &mut count).await;
    }
}

async fn beat(register: &Register, count: &mut Count) -> Result<(), StoreError> {
    let (store, identity) = (&register.store, &register.identity);
    let name = identity.server.place();
    let stands = register.read(store.bookmarked(&name, Instant::now() + CALL).await)?;
    let (write, place) = count.beat(stands.as_deref());
    if let Some(write) = write {
        register.written(store.bookmark(&name, &write, Instant::now() + CALL).await)?;
    }
    // A server that was rejected stays so until the place is its own.
    let is_refused = *identity.place.borrow() == Place::Taken;
    if !(is_refused && place == Place::Open) && identity.set(place) {
        let line = Line::new("sessions").with("store", store.name());
        match identity.problem() {
            Some(problem) => {
                let line = line.with("problem", problem);
                register.log.write(Level::Error, &line.with("consequence", "no session is registered here"));
            }
            None if is_refused => {
                let line = line.with("state", "up").with("server", &identity.server.name);
                register.log.write(Level::Info, &line);
            }
            None => {}
        }
    }
    Ok(())
}

/// Checks whether `names`, under which this machine has sessions, are former names of this server. That is so
/// if no server counts there; a clone with another name does count.
pub(super) async fn look_back(register: &Register, names: Vec<String>) -> Result<(), StoreError> {
    let identity = &register.identity;
    let mut now = BTreeMap::new();
    for name in names {
        let place = Server { name: name.clone(), ..identity.server.clone() }.place();
        let count = register.read(register.store.bookmarked(&place, Instant::now() + CALL).await)?;
        let before = identity.former.lock().remove(&name);
        let is_ours = before.as_ref().is_some_and(|before| before.count == count);
        if is_ours && !before.is_some_and(|before| before.is_ours) {
            let line = Line::new("sessions")
                .with(
                    "problem",
                    format!("this server was called {name} when some of its sessions were opened"),
                )
                .with("consequence", format!("they are those of {} now", identity.server.name));
            register.log.write(Level::Warning, &line);
        }
        now.insert(name, Former { count, is_ours });
    }
    *identity.former.lock() = now;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_id_which_is_not_shown() {
        let id = "0123456789abcdef0123456789abcdef";
        let one = machine(id).unwrap();
        assert_eq!(one.len(), 32);
        assert_ne!(one, id);
        assert_ne!(Some(one), machine("1123456789abcdef0123456789abcdef"));
        for broken in
            ["", "uninitialized", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdeg"]
        {
            assert_eq!(machine(broken), None, "{broken:?}");
        }
    }

    /// Gives each broker a beat in turn. Leaves the count in `stands`, and returns each broker's state of the
    /// place.
    fn beats(stands: &mut Option<String>, counts: &mut [&mut Count]) -> Vec<Place> {
        let beat = |count: &mut &mut Count| {
            let (write, place) = count.beat(stands.as_deref());
            if write.is_some() {
                *stands = write;
            }
            place
        };
        counts.iter_mut().map(beat).collect()
    }

    #[test]
    fn who_comes_first_stays_and_a_second_one_is_refused_until_it_is_alone() {
        let (mut stands, mut first, mut second) = (None, Count::new(), Count::new());
        for _ in 0..3 {
            assert_eq!(beats(&mut stands, &mut [&mut first]), [Place::Ours]);
        }
        assert_eq!(beats(&mut stands, &mut [&mut first, &mut second]), [Place::Ours, Place::Open]);
        for _ in 0..20 {
            assert_eq!(beats(&mut stands, &mut [&mut first, &mut second]), [Place::Ours, Place::Taken]);
        }
        // The first one stops.
        for _ in 0..SILENT {
            assert_ne!(beats(&mut stands, &mut [&mut second]), [Place::Ours]);
        }
        let later: Vec<_> = (0..3).flat_map(|_| beats(&mut stands, &mut [&mut second])).collect();
        assert_eq!(later.last(), Some(&Place::Ours));
        // It starts again and is the second one now.
        let mut both = Vec::new();
        for _ in 0..3 {
            both = beats(&mut stands, &mut [&mut first, &mut second]);
        }
        assert_eq!(both, [Place::Taken, Place::Ours]);
    }

    #[test]
    fn a_broker_that_starts_again_is_not_refused_and_certain_of_its_sessions_after_a_while() {
        let (mut stands, mut before) = (None, Count::new());
        beats(&mut stands, &mut [&mut before]);
        let mut after = Count::new();
        let places: Vec<_> = (0..SILENT + 3).flat_map(|_| beats(&mut stands, &mut [&mut after])).collect();
        assert!(!places.contains(&Place::Taken));
        assert_eq!((places.first(), places.last()), (Some(&Place::Open), Some(&Place::Ours)));
    }

    #[test]
    fn of_two_that_start_at_once_one_stays() {
        let (mut stands, mut one, mut two) = (None, Count::new(), Count::new());
        // Both have read the empty place before either writes.
        let first = one.beat(None);
        let second = two.beat(None);
        assert!(first.0.is_some());
        stands = second.0.or(stands);
        let mut places = Vec::new();
        for _ in 0..6 {
            places = beats(&mut stands, &mut [&mut one, &mut two]);
        }
        assert_eq!(places, [Place::Taken, Place::Ours]);
    }

    #[test]
    fn a_server_that_lost_its_place_with_the_register_takes_it_again() {
        let (mut stands, mut count) = (None, Count::new());
        beats(&mut stands, &mut [&mut count]);
        stands = None;
        assert_eq!(beats(&mut stands, &mut [&mut count]), [Place::Ours]);
    }
}
