//! Where the socket for logins stands in the file system, and whether it still does.
//!
//! systemd makes it and hands it over. Where it is removed or replaced, the broker goes on listening and no application
//! finds it; a new start of the broker alone changes nothing.

use std::fs::symlink_metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// What an administrator runs where the socket is gone.
pub(super) const MEND: &str = "systemctl restart motion-ad.socket motion-ad.service";

/// The place of one socket.
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode; `None` if it was gone when the broker started.
    id: Option<(u64, u64)>,
}

impl Place {
    /// Returns the place of `listener`; `None` if it has none in the file system.
    pub(super) fn of(listener: &UnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let id = symlink_metadata(&path).ok().map(|found| (found.dev(), found.ino()));
        Some(Place { path, id })
    }

    /// Returns why no application reaches the socket; `None` while it stands where it stood.
    pub(super) fn problem(&self) -> Option<String> {
        let path = self.path.display();
        match symlink_metadata(&self.path) {
            Ok(found) if self.id == Some((found.dev(), found.ino())) => None,
            Ok(_) => Some(format!("{path} is another file than the broker's socket: {MEND}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Some(format!("{path} was removed, so that no application reaches the broker: {MEND}"))
            }
            // What cannot be seen may be there.
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
        assert!(place.problem().unwrap().contains("is another file"));
        assert!(late.problem().is_some());
    }
}
