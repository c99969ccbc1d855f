//! The process at the other end of a connection.

use std::fmt;

/// The process at the other end of a connection, as the kernel knows it (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process id; 0 if it is in a container, whose processes the broker cannot see.
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
