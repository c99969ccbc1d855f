//! An LDAP server that answers by a script, also as a real Active Directory does rarely or never should.
//!
//! ```ignore
//! let authority = Authority::new("Acme Root CA")?;
//! let script = Script::default()
//!     .on(Event::bind_as("CN=john"), [refused(0x533)])
//!     .rule(Rule::new(Event::Bind(None), [Action::Silence]).once());
//! let mut server = Server::new(script);
//! let address = server.listen("127.0.0.1:0", Security::Ldaps(authority.issue(&["dc1.acme.com"])?)).await?;
//! // … Then check what it received:
//! assert_eq!(server.log().binds_as("CN=john"), 1);
//! ```
//!
//! It logs requests, but never a password. It answers a request without a rule with protocolError, so that a
//! missing rule is visible. Dropping the server ends its connections and its listeners.

mod answers;
mod certificate;
mod connection;
mod log;
mod netlogon;
mod script;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, ToSocketAddrs, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

pub use answers::{
    busy, closest, done, entry, notice, reference, referral, refused, result, success, unavailable, unwilling,
};
pub use certificate::{Authority, Identity};
pub use log::{Log, Received, Record};
pub use netlogon::{Netlogon, flags};
pub use script::{Action, Event, Manner, Rule, Script};
pub use wire::{Credentials, LdapResult, Message};

use connection::Connection;

/// Protection of a listener's connections.
#[derive(Clone, Debug)]
pub enum Security {
    /// None: the server answers StartTLS with protocolError.
    Plain,
    /// TLS after a StartTLS that the server answers with success (RFC 4511, 4.14).
    StartTls(Identity),
    /// TLS from the first byte.
    Ldaps(Identity),
}

/// The server. Its listeners share one script, one log and one count of connections.
pub struct Server {
    script: Arc<Script>,
    log: Log,
    connections: Arc<AtomicU64>,
    tasks: Vec<AbortHandle>,
}

impl Server {
    /// Creates a server without listeners.
    pub fn new(script: Script) -> Self {
        Server {
            script: Arc::new(script),
            log: Log::default(),
            connections: Arc::default(),
            tasks: Vec::new(),
        }
    }

    /// Listens on a TCP port, and returns the address, which a caller needs after port 0.
    ///
    /// # Errors
    /// If the address is not available.
    pub async fn listen(
        &mut self,
        address: impl ToSocketAddrs,
        security: Security,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (script, log, count) = (self.script.clone(), self.log.clone(), self.connections.clone());
        let accepting = tokio::spawn(async move {
            // Aborted together with this task.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let connection = Connection { number, script: script.clone(), log: log.clone() };
                connections.spawn(connection.run(tcp, security.clone()));
            }
        });
        self.tasks.push(accepting.abort_handle());
        Ok(address)
    }

    /// Listens on a UDP port for connectionless searches (MS-ADTS 6.3.3: the netlogon ping), and returns the
    /// address. Their connection number is 0.
    ///
    /// # Errors
    /// If the address is not available.
    pub async fn listen_udp(&mut self, address: impl ToSocketAddrs) -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let connection = Connection { number: 0, script: self.script.clone(), log: self.log.clone() };
        self.tasks.push(tokio::spawn(connection.run_udp(socket)).abort_handle());
        Ok(address)
    }

    /// Returns the log of received messages.
    pub fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
