//! One TLS connection that users' binds go over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ldap::{self, BIND_RESPONSE, EXTENDED_RESPONSE, ExchangeError, Response};

/// LDAP result code success (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;

/// A verified TLS connection to a domain controller. It carries one bind at a time, and each bind replaces the
/// identity of the one before (RFC 4513, 4).
pub(super) struct BindConnection {
    stream: TlsStream<TcpStream>,
    /// The id of the last message; 0 is the server's own (RFC 4511, 4.1.1.1).
    id: i64,
}

impl BindConnection {
    /// Makes TLS of `tcp`, where the domain controller has to prove that it is `host`; after StartTLS where
    /// `start_tls` says so.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub(super) async fn open(
        mut tcp: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
        start_tls: bool,
    ) -> Result<Self, String> {
        let mut id = 0;
        if start_tls {
            id = 1;
            let request = ldap::start_tls(id).map_err(|e| e.to_string())?;
            let answer = ldap::exchange(&mut tcp, id, request, EXTENDED_RESPONSE).await;
            let answer = answer.map_err(|e| format!("StartTLS was not answered: {e}"))?;
            if answer.code != SUCCESS {
                return Err(format!("StartTLS was refused (LDAP result {}: {})", answer.code, answer.text));
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())?;
        Ok(BindConnection { stream, id })
    }

    /// Binds as `dn` (RFC 4511, 4.2).
    ///
    /// # Errors
    /// The bind was not answered; then the connection is of no more use.
    pub(super) async fn bind(&mut self, dn: &str, password: &str) -> Result<Response, ExchangeError> {
        self.id = self.id % i64::from(i32::MAX) + 1;
        let request = ldap::simple_bind(self.id, dn, password)?;
        ldap::exchange(&mut self.stream, self.id, request, BIND_RESPONSE).await
    }

    /// Whether nothing speaks against another bind. A server that has something to say on an idle connection says
    /// that it ends it.
    pub(super) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut now = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut now, &mut buffer).is_pending()
    }
}
