//! A session between the register and its application: until the application has the answer, dropping it undoes it.
//!
//! A request can end at any of its waits: its client is gone, the broker ends, or a task panics.

use std::sync::Arc;

use super::owed::Due;
use super::{Register, unconfirmed};
use crate::protocol::report::Session;

/// A session that is on its way into the register.
pub(super) struct Opening<'a> {
    register: &'a Register,
    session: Option<Session>,
}

impl<'a> Opening<'a> {
    /// Watches over `session` while the register is asked to take it.
    pub(super) fn new(register: &'a Register, session: Session) -> Self {
        Opening { register, session: Some(session) }
    }

    /// Returns the session once the register has answered: what comes next is up to the caller.
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

/// A session that is open, and of which its application does not know yet.
pub struct Seat {
    register: Arc<Register>,
    id: Option<String>,
}

impl Seat {
    /// Watches over the open session `id`.
    pub(in crate::broker) fn new(register: Arc<Register>, id: String) -> Self {
        Seat { register, id: Some(id) }
    }

    /// The application has the answer: the session is its own.
    pub(in crate::broker) fn taken(mut self) {
        self.id = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.register.undo(id, "nobody took the answer");
        }
    }
}
