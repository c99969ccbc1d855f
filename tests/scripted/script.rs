//! What the server does, and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::wire::{Credentials, Message, Operation};

/// What a rule waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted; nothing of it was read.
    Connected,
    /// The first byte of a TLS handshake has arrived and is not read yet. Afterwards the handshake goes on.
    ClientHello,
    /// StartTLS. An answer of success is followed by the handshake.
    StartTls,
    /// A simple bind as this distinguished name, or one with any.
    Bind(Option<String>),
    /// A simple bind with a name and without a password (RFC 4513, 5.1.2).
    UnauthenticatedBind,
    /// A SASL bind.
    Sasl,
    /// A search whose base is this, and whose filter, as text of RFC 4515, holds that.
    Search {
        /// Compared without case; `None` is any.
        base: Option<String>,
        /// A part of the filter, compared without case.
        filter: String,
    },
    /// A modification of anything.
    Modify,
    /// Any request.
    Any,
}

impl Event {
    /// A simple bind as `dn`.
    pub fn bind_as(dn: &str) -> Self {
        Event::Bind(Some(dn.to_owned()))
    }

    /// Any simple bind.
    pub fn bind() -> Self {
        Event::Bind(None)
    }

    /// A search anywhere whose filter holds `part`.
    pub fn filter(part: &str) -> Self {
        Event::Search { base: None, filter: part.to_owned() }
    }

    /// A read of the root DSE whose filter holds `part`.
    pub fn root_dse(part: &str) -> Self {
        Event::Search { base: Some(String::new()), filter: part.to_owned() }
    }

    pub(super) fn is_of(&self, operation: &Operation) -> bool {
        match (self, operation) {
            (Event::Any, _)
            | (Event::StartTls, Operation::StartTls)
            | (Event::Modify, Operation::Modify { .. }) => true,
            (Event::Bind(dn), Operation::Bind { dn: seen, credentials: Credentials::Simple { .. } }) => {
                dn.as_ref().is_none_or(|dn| same(dn, seen))
            }
            (Event::UnauthenticatedBind, Operation::Bind { dn, credentials }) => {
                !dn.is_empty() && *credentials == Credentials::Simple { empty: true }
            }
            (Event::Sasl, Operation::Bind { credentials, .. }) => {
                matches!(credentials, Credentials::Sasl { .. })
            }
            (Event::Search { base, filter }, Operation::Search { base: seen, filter: asked, .. }) => {
                base.as_ref().is_none_or(|base| same(base, seen))
                    && asked.to_lowercase().contains(&filter.to_lowercase())
            }
            _ => false,
        }
    }
}

fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In one piece.
    Whole,
    /// Byte by byte, with this pause after each.
    Dripped(Duration),
    /// Only its first bytes.
    Cut(usize),
    /// Two times in one piece.
    Twice,
    /// As the answer to a request of another id: this much is added.
    OtherId(i64),
}

/// One step of what the server does. After the last one it reads the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends a message.
    Send(Message, Manner),
    /// Sends bytes as they are.
    Bytes(Vec<u8>),
    /// Sends the header of an LDAPMessage that announces so many bytes, and then so many zeros.
    Oversized {
        /// At most 4 GiB.
        announced: u32,
        /// It stops where the client closes the connection.
        sent: usize,
    },
    /// Sends an LDAPMessage of so many sequences in each other: short, but deep.
    Nested(usize),
    /// The first half of what a TLS server says to the ClientHello. Only for [`Event::ClientHello`], and followed by
    /// [`Action::Silence`], [`Action::Close`] or [`Action::Reset`], because the ClientHello is used up.
    HalfServerHello,
    /// Waits.
    Delay(Duration),
    /// Says nothing more on this connection and keeps it open as long as the server lives.
    Silence,
    /// Closes the connection in an orderly way, without TLS's own farewell.
    Close,
    /// Resets the connection.
    Reset,
}

impl Action {
    /// The message byte by byte, with a pause after each.
    pub fn dripped(self, pause: Duration) -> Self {
        self.sent(Manner::Dripped(pause))
    }

    /// Only the first `length` bytes of the message.
    pub fn cut(self, length: usize) -> Self {
        self.sent(Manner::Cut(length))
    }

    /// The message two times.
    pub fn twice(self) -> Self {
        self.sent(Manner::Twice)
    }

    /// The message as the answer to another request.
    pub fn other_id(self, added: i64) -> Self {
        self.sent(Manner::OtherId(added))
    }

    fn sent(self, manner: Manner) -> Self {
        match self {
            Action::Send(message, _) => Action::Send(message, manner),
            other => other,
        }
    }
}

/// What is done at an event.
#[derive(Debug)]
pub struct Rule {
    event: Event,
    connection: Option<u64>,
    left: AtomicUsize,
    actions: Vec<Action>,
}

impl Rule {
    /// Whenever `event` comes up.
    pub fn new(event: Event, actions: impl IntoIterator<Item = Action>) -> Self {
        let actions = actions.into_iter().collect();
        Rule { event, connection: None, left: AtomicUsize::new(usize::MAX), actions }
    }

    /// The first time only; afterwards later rules have their turn.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// The first so many times only.
    pub fn times(self, times: usize) -> Self {
        Rule { left: AtomicUsize::new(times), ..self }
    }

    /// On the server's connection of this number only; the first is 1.
    pub fn connection(self, number: u64) -> Self {
        Rule { connection: Some(number), ..self }
    }

    fn takes(&self, connection: u64) -> bool {
        let one_less = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.connection.is_none_or(|number| number == connection)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// The rules; the first that is for an event has it.
#[derive(Debug, Default)]
pub struct Script(Vec<Rule>);

impl Script {
    /// Adds a rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.0.push(rule);
        self
    }

    /// Adds a rule for every time and every connection.
    pub fn on(self, event: Event, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(Rule::new(event, actions))
    }

    /// What to do where a connection has come this far; `None` is nothing out of the ordinary.
    pub(super) fn at(&self, event: &Event, connection: u64) -> Option<&[Action]> {
        self.find(connection, |rule| rule.event == *event)
    }

    /// What to do about a request.
    pub(super) fn about(&self, operation: &Operation, connection: u64) -> Option<&[Action]> {
        self.find(connection, |rule| rule.event.is_of(operation))
    }

    fn find(&self, connection: u64, is_meant: impl Fn(&Rule) -> bool) -> Option<&[Action]> {
        let rule = self.0.iter().find(|rule| is_meant(rule) && rule.takes(connection))?;
        Some(&rule.actions)
    }
}
