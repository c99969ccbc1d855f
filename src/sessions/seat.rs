//! Guards for a session that its application does not know of yet: dropping one undoes the session.
//!
//! A request can end at each of its waits: the client leaves, the broker stops, or a task panics.

use std::sync::Arc;

use super::owed::Due;
use super::{Register, unconfirmed};
use crate::protocol::report::Session;

/// A session that is being registered.
pub(super) struct Opening<'a> {
    register: &'a Register,
    session: Option<Session>,
}

impl<'a> Opening<'a> {
    /// Guards `session` during the call that registers it.
    pub(super) fn new(register: &'a Register, session: Session) -> Self {
        Opening { register, session: Some(session) }
    }

    /// Returns the session after the register has replied; from then on the caller is responsible for it.
    pub(super) fn answered(mut self) -> Option<Session> {
        self.session.take()
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let ended = unconfirmed("the login was cut off");
            self.register.owe(Due::Undo(Box::new(session), ended));
        }
    }
}

/// An open session whose application does not know of it yet.
pub struct Seat {
    register: Arc<Register>,
    id: Option<String>,
}

impl Seat {
    /// Guards the open session `id`.
    pub fn new(register: Arc<Register>, id: String) -> Self {
        Seat { register, id: Some(id) }
    }

    /// Releases the session, because the application has the reply.
    pub fn taken(mut self) {
        self.id = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.register.undo(id, "the application did not read the answer");
        }
    }
}
