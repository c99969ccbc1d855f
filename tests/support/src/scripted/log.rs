//! Log of all that the server received. For a password it records only if it was empty.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One event on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    /// The server accepted the connection.
    Connected,
    /// The client began a TLS handshake.
    ClientHello,
    /// The handshake is complete.
    Secured,
    /// The handshake failed with this error from rustls, including the client's alert.
    NotSecured(String),
    /// StartTLS.
    StartTls,
    /// A simple bind.
    Bind {
        /// Distinguished name of the account.
        dn: String,
        /// True if the password was empty.
        empty: bool,
    },
    /// A SASL bind with this mechanism.
    Sasl(String),
    /// A search.
    Search {
        /// The search base.
        base: String,
        /// The filter, as text of RFC 4515.
        filter: String,
        /// The requested attributes.
        attributes: Vec<String>,
    },
    /// A modification, without its values.
    Modify {
        /// Distinguished name of the modified object.
        dn: String,
        /// The changes, each with its attribute, such as `delete unicodePwd`.
        changes: Vec<String>,
    },
    /// Any other request, by the number of its tag.
    Other(u64),
    /// Bytes that are not an LDAP request.
    Rubbish,
    /// The connection ended.
    Ended,
}

/// An event and its connection: 1 for the first one, 0 for UDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The connection.
    pub connection: u64,
    /// The event.
    pub received: Received,
}

/// All events, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    records: Arc<Mutex<Vec<Record>>>,
    /// The number of records, for callers that wait for more.
    count: Arc<watch::Sender<usize>>,
}

impl Log {
    pub(super) fn add(&self, connection: u64, received: Received) {
        let mut records = self.records();
        records.push(Record { connection, received });
        self.count.send_replace(records.len());
    }

    /// Returns all records until now.
    pub fn all(&self) -> Vec<Record> {
        self.records().clone()
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.count(|received| *received == Received::Connected)
    }

    /// Returns the number of simple binds.
    pub fn binds(&self) -> usize {
        self.count(|received| matches!(received, Received::Bind { .. }))
    }

    /// Returns the number of simple binds as `dn`.
    pub fn binds_as(&self, dn: &str) -> usize {
        self.count(
            |received| matches!(received, Received::Bind { dn: seen, .. } if seen.eq_ignore_ascii_case(dn)),
        )
    }

    /// Returns the number of binds with a name and an empty password.
    pub fn unauthenticated_binds(&self) -> usize {
        self.count(|received| matches!(received, Received::Bind { dn, empty: true } if !dn.is_empty()))
    }

    /// Returns the number of records that match.
    pub fn count(&self, is_meant: impl Fn(&Received) -> bool) -> usize {
        self.records().iter().filter(|record| is_meant(&record.received)).count()
    }

    /// Waits for record number `first`, counted from 0, and returns the records from there on.
    pub async fn from(&self, first: usize) -> Vec<Record> {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|count| *count > first).await;
        self.records()[first..].to_vec()
    }

    /// Waits until a record matches. The caller bounds the time.
    pub async fn wait_for(&self, is_meant: impl Fn(&Received) -> bool) -> Record {
        let mut seen = 0;
        loop {
            for record in self.from(seen).await {
                seen += 1;
                if is_meant(&record.received) {
                    return record;
                }
            }
        }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
