//! The path of the socket for logins, and the check that the socket is still there.
//!
//! systemd creates the socket and passes it to the broker. If it is removed or replaced, the broker goes on
//! listening and no application finds it. A restart of the broker alone does not help.

use std::fs::symlink_metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// The command with which an administrator restores the socket.
pub(super) const MEND: &str = "systemctl restart motion-ad.socket motion-ad.service";

/// The path and identity of one socket.
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode; `None` if it was gone when the broker started.
    id: Option<(u64, u64)>,
}

impl Place {
    /// Returns the place of `listener`; `None` if it has no path.
    pub(super) fn of(listener: &UnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let id = symlink_metadata(&path).ok().map(|found| (found.dev(), found.ino()));
        Some(Place { path, id })
    }

    /// Returns why no application reaches the socket; `None` while it is in its place.
    pub(super) fn problem(&self) -> Option<String> {
        let path = self.path.display();
        match symlink_metadata(&self.path) {
            Ok(found) if self.id == Some((found.dev(), found.ino())) => None,
            Ok(_) => Some(format!("{path} is not the broker's socket any more: {MEND}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Some(format!("{path} was removed, so that no application reaches the broker: {MEND}"))
            }
            // A path that cannot be inspected may be intact.
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_removed_or_replaced_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let place = Place::of(&listener).unwrap();
        assert_eq!(place.problem(), None);
        std::fs::remove_file(&path).unwrap();
        assert!(place.problem().unwrap().contains("was removed"));
        let late = Place::of(&listener).unwrap();
        assert!(late.problem().unwrap().contains("was removed"));
        let _other = UnixListener::bind(&path).unwrap();
        assert!(place.problem().unwrap().contains("is not the broker's socket any more"));
        assert!(late.problem().is_some());
    }
}
