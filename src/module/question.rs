//! The questions of one call to the broker: all within the one timeout, and each with an answer, if only that there is
//! none.

use std::path::Path;
use std::time::Duration;

use super::arguments::Arguments;
use super::handle::{Handle, Priority};
use crate::client::{self, AskError};
use crate::protocol::{Operation, Request, Secret};
use crate::verdict::{Outcome, Verdict};

/// Who carries a question to the broker: [`client::ask_verdict`], or a script.
pub trait Ask: Fn(&Path, &Request, &Secret) -> Result<Verdict, AskError> {}

impl<T: Fn(&Path, &Request, &Secret) -> Result<Verdict, AskError>> Ask for T {}

/// The broker, as one call of an entry point sees it.
pub(super) struct Broker<'a, A> {
    pub(super) arguments: &'a Arguments,
    ask: A,
    /// Of `timeout=`. The time in which the person types is not counted.
    left: Duration,
}

impl<'a, A: Ask> Broker<'a, A> {
    pub(super) fn new(ask: A, arguments: &'a Arguments) -> Self {
        Broker { arguments, ask, left: arguments.timeout }
    }

    /// A request about `user`, to be asked at once: its deadline is running. It is about the account that proved itself on
    /// this handle, where one did.
    pub(super) fn request(&self, pam: &impl Handle, operation: Operation, user: &str) -> Request {
        let items = pam.items();
        // What decides by a password proves the account itself.
        let account = match operation {
            Operation::Account | Operation::OpenSession => {
                pam.recall().proved(user, &self.arguments.socket).map(str::to_owned)
            }
            _ => None,
        };
        Request {
            account,
            service: items.service,
            rhost: items.rhost,
            tty: items.tty,
            ..client::request(operation, user, self.left)
        }
    }

    /// Asks. No answer is an outcome like any other, and the log says what to mend.
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
            let line = format!("the broker at {socket:?} could not be asked: {error}; {consequence}{advice}");
            pam.log(Priority::Error, &line);
            Verdict::new(outcome, "no answer")
        })
    }
}
