//! Who may ask the broker: root, and the users that applications run as.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::User;

/// How long the uids of the configured users are good.
const FRESH: Duration = Duration::from_secs(60);
/// A refused peer makes us look again, because its user may be new; but not more often than this.
const AGAIN: Duration = Duration::from_secs(2);

/// The process at the other end of a connection, as the kernel knows it (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process id; 0 where it is in a container, of whose processes this one knows nothing.
    pub pid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid:{}", self.uid)?;
        match self.pid {
            0 => Ok(()),
            pid => write!(f, ",pid:{pid}"),
        }
    }
}

/// The peers that are answered.
pub struct Peers {
    users: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    uids: Vec<u32>,
    read: Option<Instant>,
}

impl Peers {
    /// Answers root and `users`, who are names or numbers.
    pub fn new(users: Vec<String>) -> Self {
        Peers { users, known: Mutex::default() }
    }

    /// Whether `uid` is answered. May ask the name service, which can block.
    pub async fn allows(&self, uid: u32) -> bool {
        if uid == 0 {
            return true;
        }
        let (known, age) = {
            let known = self.known();
            (known.uids.contains(&uid), known.read.map(|read| read.elapsed()))
        };
        match age {
            Some(age) if known && age < FRESH => return true,
            Some(age) if !known && age < AGAIN => return false,
            _ => {}
        }
        let users = self.users.clone();
        let Ok(uids) = tokio::task::spawn_blocking(move || uids_of(&users)).await else { return false };
        let allowed = uids.contains(&uid);
        *self.known() = Known { uids, read: Some(Instant::now()) };
        allowed
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Users that do not exist (yet) are passed over: they cannot ask.
fn uids_of(users: &[String]) -> Vec<u32> {
    let uid = |user: &String| match user.parse() {
        Ok(uid) => Some(uid),
        Err(_) => User::from_name(user).ok().flatten().map(|user| user.uid.as_raw()),
    };
    users.iter().filter_map(uid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_and_the_named_users_are_answered() {
        let peers = Peers::new(["daemon", "4711", "nobody-of-that-name"].map(str::to_owned).to_vec());
        for (uid, allowed) in [(0, true), (1, true), (4711, true), (2, false), (u32::MAX, false)] {
            assert_eq!(peers.allows(uid).await, allowed, "{uid}");
        }
    }
}
