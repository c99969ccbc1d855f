//! The actions of the server, and the events that trigger them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::wire::{Credentials, Message, Operation};

/// The trigger of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server accepted a connection, and has read nothing from it.
    Connected,
    /// The first byte of a TLS handshake arrived and is not yet read. The handshake continues after the
    /// actions.
    ClientHello,
    /// StartTLS. After an answer of success, the handshake follows.
    StartTls,
    /// A simple bind as this distinguished name, or as any name if `None`.
    Bind(Option<String>),
    /// A simple bind with a name and without a password (RFC 4513, 5.1.2).
    UnauthenticatedBind,
    /// A SASL bind.
    Sasl,
    /// A search with this base and with this text in its filter (RFC 4515).
    Search {
        /// Compared without case; `None` matches any base.
        base: Option<String>,
        /// A part of the filter, compared without case.
        filter: String,
    },
    /// A modification of any object.
    Modify,
    /// Any request.
    Any,
}

impl Event {
    /// Matches a simple bind as `dn`.
    pub fn bind_as(dn: &str) -> Self {
        Event::Bind(Some(dn.to_owned()))
    }

    /// Matches any simple bind.
    pub fn bind() -> Self {
        Event::Bind(None)
    }

    /// Matches a search with any base whose filter contains `part`.
    pub fn filter(part: &str) -> Self {
        Event::Search { base: None, filter: part.to_owned() }
    }

    /// Matches a read of the root DSE whose filter contains `part`.
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

/// The manner in which a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In one piece.
    Whole,
    /// Byte by byte, with this pause after each.
    Dripped(Duration),
    /// Only its first bytes.
    Cut(usize),
    /// Twice in one piece.
    Twice,
    /// With a wrong message id: the request's id plus this number.
    OtherId(i64),
}

/// One step of the server. After the last one it reads the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends a message.
    Send(Message, Manner),
    /// Sends bytes as they are.
    Bytes(Vec<u8>),
    /// Sends the header of an LDAPMessage that announces `announced` bytes, and then `sent` zeros.
    Oversized {
        /// At most 4 GiB.
        announced: u32,
        /// Sending stops when the client closes the connection.
        sent: usize,
    },
    /// Sends a short LDAPMessage of this many nested sequences.
    Nested(usize),
    /// Sends the first half of a TLS server's answer to the ClientHello. Only for [`Event::ClientHello`]. It
    /// uses up the ClientHello, so only [`Action::Silence`], [`Action::Close`] or [`Action::Reset`] may
    /// follow.
    HalfServerHello,
    /// Waits.
    Delay(Duration),
    /// Sends nothing more on this connection, and keeps it open for the lifetime of the server.
    Silence,
    /// Closes the connection in an orderly way, without TLS's close_notify.
    Close,
    /// Resets the connection.
    Reset,
}

impl Action {
    /// Sends the message byte by byte, with a pause after each.
    pub fn dripped(self, pause: Duration) -> Self {
        self.sent(Manner::Dripped(pause))
    }

    /// Sends only the first `length` bytes of the message.
    pub fn cut(self, length: usize) -> Self {
        self.sent(Manner::Cut(length))
    }

    /// Sends the message twice.
    pub fn twice(self) -> Self {
        self.sent(Manner::Twice)
    }

    /// Sends the message with the request's id plus `added`.
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

/// The actions for an event.
#[derive(Debug)]
pub struct Rule {
    event: Event,
    connection: Option<u64>,
    left: AtomicUsize,
    actions: Vec<Action>,
}

impl Rule {
    /// Creates a rule for every occurrence of `event`.
    pub fn new(event: Event, actions: impl IntoIterator<Item = Action>) -> Self {
        let actions = actions.into_iter().collect();
        Rule { event, connection: None, left: AtomicUsize::new(usize::MAX), actions }
    }

    /// Limits the rule to the first occurrence. Later rules apply afterwards.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Limits the rule to the first `times` occurrences.
    pub fn times(self, times: usize) -> Self {
        Rule { left: AtomicUsize::new(times), ..self }
    }

    /// Limits the rule to the server's connection with this number; the first is 1.
    pub fn connection(self, number: u64) -> Self {
        Rule { connection: Some(number), ..self }
    }

    fn takes(&self, connection: u64) -> bool {
        let one_less = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.connection.is_none_or(|number| number == connection)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// A list of rules. The first one that matches an event applies.
#[derive(Debug, Default)]
pub struct Script(Vec<Rule>);

impl Script {
    /// Adds a rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.0.push(rule);
        self
    }

    /// Adds a rule for every occurrence on every connection.
    pub fn on(self, event: Event, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(Rule::new(event, actions))
    }

    /// Returns the actions for a connection at this event, or `None` if it continues as usual.
    pub(super) fn at(&self, event: &Event, connection: u64) -> Option<&[Action]> {
        self.find(connection, |rule| rule.event == *event)
    }

    /// Returns the actions for a request.
    pub(super) fn about(&self, operation: &Operation, connection: u64) -> Option<&[Action]> {
        self.find(connection, |rule| rule.event.is_of(operation))
    }

    fn find(&self, connection: u64, is_meant: impl Fn(&Rule) -> bool) -> Option<&[Action]> {
        let rule = self.0.iter().find(|rule| is_meant(rule) && rule.takes(connection))?;
        Some(&rule.actions)
    }
}
