//! The LDAP bridge: an LDAP server on loopback, for applications that only speak LDAP.
//!
//! It is a PAM application: a bind becomes one login through `/etc/pam.d/motion`, where the policy is. It is no
//! directory: a search is answered by the broker. It holds no key and no password of AD, and it changes nothing.
//!
//! | File | Subject |
//! |---|---|
//! | [`server`] | who connects, and how many at once |
//! | [`owner`] | which user owns the other end of a connection |
//! | [`house`] | the places for connections |
//! | [`connection`] | one connection: its identity, one message after the other |
//! | [`stream`] | messages out of a stream, each within its time |
//! | [`ber`], [`message`], [`filter`] | BER within bounds, LDAP's messages, filters as text; pure |
//! | [`bind`], [`answer`], [`logins`] | a bind, its result code, and libpam |
//! | [`search`], [`paging`], [`directory`] | a search, its pages, and the broker |
//! | [`admin`] | the local name and secret with which an application may search |
//! | [`tls`] | the host's own certificate |
//! | [`cli`] | the arguments |

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
pub mod stream;
pub mod tls;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use self::admin::Admin;
use self::directory::Directory;
use self::house::House;
use self::logins::Logins;
use crate::broker::log::Log;
use crate::broker::peers::Peers;

/// Everything that connections share.
pub struct Bridge {
    logins: Arc<dyn Logins>,
    directory: Arc<dyn Directory>,
    admin: Option<Admin>,
    tls: Option<TlsAcceptor>,
    peers: Peers,
    log: Arc<Log>,
    house: Arc<House>,
    threads: Arc<Semaphore>,
    searches: Semaphore,
    kept: Arc<Semaphore>,
    end: watch::Sender<bool>,
}

/// What a bridge is made of.
pub struct Parts {
    /// Decides logins.
    pub logins: Arc<dyn Logins>,
    /// Answers searches.
    pub directory: Arc<dyn Directory>,
    /// The local admin, where there is one.
    pub admin: Option<Admin>,
    /// The host's certificate, where there is one.
    pub tls: Option<TlsAcceptor>,
    /// Who may connect.
    pub peers: Peers,
    /// Where lines go.
    pub log: Arc<Log>,
}

impl Bridge {
    /// A bridge of these parts.
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
            threads: Arc::new(Semaphore::new(bind::THREADS)),
            searches: Semaphore::new(search::SEARCHES),
            kept: Arc::new(Semaphore::new(paging::KEPT)),
            end: watch::Sender::new(false),
        })
    }

    /// Returns when the bridge ends.
    async fn ends(&self) {
        let _ = self.end.subscribe().wait_for(|ends| *ends).await;
    }
}
