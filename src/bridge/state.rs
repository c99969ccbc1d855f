//! The state of one connection.

use tokio::time::Instant;

use super::paging::Kept;
use super::session::Session;
use super::stream::Buffer;
use crate::protocol::Peer;

/// Identity that a connection is bound as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// No bind has succeeded yet, or a later one has failed.
    #[default]
    Anonymous,
    /// The local admin, with the name from the bind.
    Admin(String),
    /// A user, with the name that PAM checked.
    User(String),
}

/// State of a connection.
#[derive(Debug)]
pub struct State {
    /// The user at the other end.
    pub peer: Peer,
    /// Identity of the last successful bind.
    pub identity: Identity,
    /// Remaining entries of a search that the client fetches in pages.
    pub kept: Option<Kept>,
    /// True if TLS is active.
    pub is_tls: bool,
    pub(super) buffer: Buffer,
    /// Time by which the first message must begin.
    pub(super) first: Instant,
    pub(super) has_asked: bool,
    /// Session of the last bind, until it is known that the client has received the reply.
    pub(super) session: Option<Session>,
}
