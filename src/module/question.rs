//! The requests of one call to the broker: all share the one timeout, and each has an outcome, even without a
//! reply.

use std::path::Path;
use std::time::Duration;

use super::arguments::Arguments;
use super::handle::{Handle, Priority};
use super::texts;
use crate::client::{self, AskError};
use crate::protocol::{Operation, Request, Secret};
use crate::verdict::{Outcome, Verdict};

/// Function that sends a request to the broker: [`client::ask_verdict`], or a script.
pub trait Ask: Fn(&Path, &Request, &Secret) -> Result<Verdict, AskError> {}

impl<T: Fn(&Path, &Request, &Secret) -> Result<Verdict, AskError>> Ask for T {}

/// The broker, as one call of an entry point sees it.
pub(super) struct Broker<'a, A> {
    pub(super) arguments: &'a Arguments,
    ask: A,
    /// The rest of `timeout=`. The time in which the user types does not count.
    left: Duration,
}

impl<'a, A: Ask> Broker<'a, A> {
    pub(super) fn new(ask: A, arguments: &'a Arguments) -> Self {
        Broker { arguments, ask, left: arguments.timeout }
    }

    /// Creates a request about `user`, to be sent at once: its deadline is running.
    pub(super) fn request(&self, pam: &impl Handle, operation: Operation, user: &str) -> Request {
        let items = pam.items();
        Request {
            service: items.service,
            rhost: items.rhost,
            tty: items.tty,
            language: self.arguments.language,
            observe: self.arguments.observe,
            ..client::request(operation, user, self.left)
        }
    }

    /// Returns the account of `user` that was authenticated on this handle, if there is one.
    pub(super) fn account(&self, pam: &impl Handle, user: &str) -> Option<String> {
        pam.recall().proved(user, &self.arguments.socket).map(str::to_owned)
    }

    /// Sends a request. No reply is an outcome like any other, and the log has the advice.
    pub(super) fn ask(&mut self, pam: &impl Handle, request: &Request, secret: &Secret) -> Verdict {
        let begun = pam.now();
        let answer = (self.ask)(&self.arguments.socket, request, secret);
        self.left = self.left.saturating_sub(pam.now().saturating_sub(begun));
        answer.unwrap_or_else(|error| {
            let lost = request.operation == Operation::ChangePassword && error.may_be_done();
            let (outcome, consequence) = match lost {
                true => (Outcome::ChangeUnknown, "whether the password was changed is unknown; "),
                false => (Outcome::Unavailable, ""),
            };
            let (socket, advice) = (&self.arguments.socket, error.advice());
            let line =
                format!("the broker at {socket:?} could not be queried: {error}; {consequence}{advice}");
            pam.log(Priority::Error, &line);
            let text = texts::unanswered(lost, self.arguments.language);
            Verdict { text, ..Verdict::new(outcome, "no answer") }
        })
    }
}
