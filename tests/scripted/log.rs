//! What the server received. No password is kept, only whether there was one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One thing that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    /// It was accepted.
    Connected,
    /// The client began a TLS handshake.
    ClientHello,
    /// The handshake is complete.
    Secured,
    /// The handshake failed; what rustls says, the client's alert included.
    NotSecured(String),
    /// StartTLS.
    StartTls,
    /// A simple bind.
    Bind {
        /// Whom it names.
        dn: String,
        /// Whether the password was empty.
        empty: bool,
    },
    /// A SASL bind with this mechanism.
    Sasl(String),
    /// A search.
    Search {
        /// Its base.
        base: String,
        /// Its filter, as text of RFC 4515.
        filter: String,
        /// The attributes that it asks for.
        attributes: Vec<String>,
    },
    /// A modification; its values are not kept.
    Modify {
        /// What is modified.
        dn: String,
        /// What is done to which attribute: `delete unicodePwd`.
        changes: Vec<String>,
    },
    /// Any other request, by the number of its tag.
    Other(u64),
    /// What is no LDAP request.
    Rubbish,
    /// The connection is over.
    Ended,
}

/// What happened, and on which connection: the first is 1, UDP is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The connection.
    pub connection: u64,
    /// What happened.
    pub received: Received,
}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    records: Arc<Mutex<Vec<Record>>>,
    /// How many there are, for those who wait for more.
    count: Arc<watch::Sender<usize>>,
}

impl Log {
    pub(super) fn add(&self, connection: u64, received: Received) {
        let mut records = self.records();
        records.push(Record { connection, received });
        self.count.send_replace(records.len());
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Record> {
        self.records().clone()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.count(|received| *received == Received::Connected)
    }

    /// How many simple binds there were.
    pub fn binds(&self) -> usize {
        self.count(|received| matches!(received, Received::Bind { .. }))
    }

    /// How many simple binds there were as `dn`.
    pub fn binds_as(&self, dn: &str) -> usize {
        self.count(
            |received| matches!(received, Received::Bind { dn: seen, .. } if seen.eq_ignore_ascii_case(dn)),
        )
    }

    /// How many binds named somebody without a password.
    pub fn unauthenticated_binds(&self) -> usize {
        self.count(|received| matches!(received, Received::Bind { dn, empty: true } if !dn.is_empty()))
    }

    /// How many records are of this kind.
    pub fn count(&self, is_meant: impl Fn(&Received) -> bool) -> usize {
        self.records().iter().filter(|record| is_meant(&record.received)).count()
    }

    /// The records from number `first` on, counted from 0; waits until there is one.
    pub async fn from(&self, first: usize) -> Vec<Record> {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|count| *count > first).await;
        self.records()[first..].to_vec()
    }

    /// Waits until a record is of this kind. The caller bounds the time.
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
