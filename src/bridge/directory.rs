//! The bridge's access to AD: the broker searches over its machine connection.

use std::path::PathBuf;
use std::time::Duration;

use super::message::code;
use crate::client;
use crate::config;
use crate::protocol::search::{Found, Search};
use crate::protocol::{Operation, Reply, Secret};

/// Time limit for the broker's reply with its domain.
const STATUS: Duration = Duration::from_secs(2);

/// A source of search results.
pub trait Directory: Send + Sync {
    /// Performs a search. Blocks until the result arrives or `timeout` has passed.
    fn search(&self, search: Search, timeout: Duration) -> Found;

    /// Returns the distinguished name of the domain, if it is known.
    fn domain(&self) -> Option<String>;
}

/// The broker, reached through its socket.
#[derive(Debug)]
pub struct Broker {
    /// Path of the socket.
    pub socket: PathBuf,
}

impl Directory for Broker {
    fn search(&self, search: Search, timeout: Duration) -> Found {
        client::search(&self.socket, search, timeout).unwrap_or_else(|error| {
            Found::failed(
                code::UNAVAILABLE,
                format!("the broker did not answer: {error}; {}", error.advice()),
            )
        })
    }

    fn domain(&self) -> Option<String> {
        let request = client::request(Operation::Status, "", STATUS);
        match client::ask(&self.socket, &request, &Secret::default()) {
            Ok(Reply::Status(status)) => status.domain.as_deref().map(config::root_of),
            _ => None,
        }
    }
}
