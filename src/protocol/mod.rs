//! The protocol between module, helper and broker on the Unix socket: one request, one reply.
//!
//! A frame is two big-endian `u32` lengths (of the JSON, of the secret), then the JSON, then the secret as
//! raw bytes. The password is never inside the JSON, because escaping would copy it. A frame is at most
//! [`MAX_FRAME`] bytes long, its header included.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use self::frame::{Decoder, FrameError, encode, encode_up_to, receive, receive_up_to, send};
pub use self::peer::Peer;
pub use self::request::{Operation, Request};
pub use self::secret::{PasswordError, Passwords, Secret};
use crate::verdict::Verdict;

/// The version of this protocol. Module and broker come from one package, but a long-lived application keeps
/// the old module loaded over an upgrade.
pub const VERSION: u32 = 2;

/// The longest frame, header included, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// The length of a frame's header in bytes.
pub const HEADER: usize = 8;

/// The longest password in bytes. AD allows 256 UTF-16 units (MS-SAMR 3.1.1.7.2).
pub const MAX_PASSWORD: usize = 1024;

/// The longest name that a user may type, in bytes.
pub const MAX_USER: usize = 256;

/// Deadline of a login if the module's argument `timeout` gives no other. Work that decides whether logins
/// succeed waits as long: if it gave up earlier, it would report failures where logins succeed.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Path of the broker's socket.
pub const SOCKET: &str = "/run/motion-ad/broker.sock";

/// Path of the socket on which the broker serves its metrics by HTTP.
pub const METRICS_SOCKET: &str = "/run/motion-ad/metrics.sock";

/// One reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Outcome of a login or an account check.
    Verdict(Verdict),
    /// The account's state, for the administrator.
    #[cfg(feature = "broker")]
    Check(Box<report::Check>),
    /// The broker's state, for the administrator.
    #[cfg(feature = "broker")]
    Status(Box<report::Status>),
    /// Sessions, for administrators and applications.
    #[cfg(feature = "broker")]
    Sessions(Box<report::Sessions>),
    /// Events of sessions.
    #[cfg(feature = "broker")]
    Events(Box<report::Events>),
    /// Audit of users' access, for the administrator.
    #[cfg(feature = "broker")]
    Audit(Box<report::Audit>),
    /// Entries of the directory, for the LDAP bridge. The only reply with a frame that may be longer than
    /// [`MAX_FRAME`]: up to [`search::MAX_FOUND`].
    #[cfg(feature = "broker")]
    Found(Box<search::Found>),
    /// The request itself was rejected: the client may not send it, or the broker cannot understand it.
    Refused(String),
}

mod frame;
mod peer;
mod request;
mod secret;

/// Replies that only the helper reads.
#[cfg(feature = "broker")]
pub mod report;

/// The search of the LDAP bridge and its reply.
#[cfg(feature = "broker")]
pub mod search;

/// Now, as time since an arbitrary point that module and broker share (CLOCK_MONOTONIC).
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
