//! The LDAP bridge: an LDAP server on loopback, for applications that only speak LDAP.
//!
//! The bridge is a PAM application: each bind becomes one login through `/etc/pam.d/motion`, which holds the
//! policy. It has no directory: the broker performs the searches. It holds no key and no password of AD, and
//! it changes nothing.
//!
//! | File | Subject |
//! |---|---|
//! | [`server`] | the sockets, the users that may connect, and the number of connections |
//! | [`owner`] | which user owns the other end of a connection |
//! | [`house`] | the places for connections |
//! | [`connection`] | one connection: its identity, one message after the other |
//! | [`stream`] | messages from a stream, each within its time limit |
//! | [`ber`], [`message`], [`filter`] | BER within bounds, LDAP messages, filters as text; no I/O |
//! | [`bind`], [`answer`], [`logins`] | a bind, its result code, and libpam |
//! | [`session`] | the session that a bind registered |
//! | [`search`], [`paging`], [`directory`] | a search, its pages, and the broker |
//! | [`admin`] | the local name and secret that allow an application to search |
//! | [`tls`] | the host's own certificate |
//! | [`cli`] | the command-line arguments |

pub mod admin;
pub mod answer;
pub mod ber;
pub mod bind;
pub mod cli;
pub mod connection;
pub mod directory;
pub mod filter;
pub mod house;
pub mod logins;
pub mod message;
pub mod owner;
pub mod paging;
pub mod search;
pub mod server;
pub mod session;
pub mod state;
pub mod stream;
pub mod tls;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use self::admin::Admin;
use self::directory::Directory;
use self::house::House;
use self::logins::Logins;
use crate::broker::peers::Peers;
use crate::log::Log;

/// State that all connections share.
pub struct Bridge {
    logins: Arc<dyn Logins>,
    directory: Arc<dyn Directory>,
    admin: Option<Admin>,
    tls: Option<TlsAcceptor>,
    peers: Peers,
    log: Arc<Log>,
    house: Arc<House>,
    // A connection's task calls PAM and the broker on its own thread (`block_in_place`), because waking
    // another one and being woken by it cost more than the rest of the bridge. These two bound the number of
    // such threads.
    threads: Semaphore,
    searches: Semaphore,
    kept: Arc<Semaphore>,
    end: watch::Sender<bool>,
}

/// Parts of a bridge.
pub struct Parts {
    /// Logs users in.
    pub logins: Arc<dyn Logins>,
    /// Performs searches.
    pub directory: Arc<dyn Directory>,
    /// The local admin, if there is one.
    pub admin: Option<Admin>,
    /// The host's certificate, if there is one.
    pub tls: Option<TlsAcceptor>,
    /// The users that may connect.
    pub peers: Peers,
    /// The log.
    pub log: Arc<Log>,
}

impl Bridge {
    /// Creates a bridge from its parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { logins, directory, admin, tls, peers, log } = parts;
        Arc::new(Bridge {
            logins,
            directory,
            admin,
            tls,
            peers,
            log,
            house: House::new(house::CONNECTIONS),
            threads: Semaphore::new(bind::THREADS),
            searches: Semaphore::new(search::SEARCHES),
            kept: Arc::new(Semaphore::new(paging::KEPT)),
            end: watch::Sender::new(false),
        })
    }

    /// Waits until the bridge ends.
    async fn ends(&self) {
        let _ = self.end.subscribe().wait_for(|ends| *ends).await;
    }
}
