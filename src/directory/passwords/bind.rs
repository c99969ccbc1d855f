//! One TLS connection for users' binds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::directory::entry::Entry;
use crate::directory::trust::reason::of_handshake;
use crate::directory::trust::verifier::Distrust;
use crate::ldap::{self, BIND_RESPONSE, EXTENDED_RESPONSE, ExchangeError, MODIFY_RESPONSE, Response};

/// LDAP result code success (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;

/// `supportedCapabilities` of a read-only domain controller: LDAP_CAP_ACTIVE_DIRECTORY_PARTIAL_SECRETS_OID
/// (MS-ADTS 3.1.1.3.4.3). It forwards to another domain controller what it does not know, so the broker uses
/// another one directly.
pub(in crate::directory) const READ_ONLY: &str = "1.2.840.113556.1.4.1920";

/// A verified TLS connection to a domain controller. It carries one bind at a time, and each bind replaces
/// the previous identity (RFC 4513, 4).
pub(in crate::directory) struct BindConnection {
    stream: TlsStream<TcpStream>,
    /// The id of the last message; 0 is reserved for the server (RFC 4511, 4.1.1.1).
    id: i64,
}

/// Reason why a domain controller is unusable for binds; the text is for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It does not answer, or closed the connection.
    Unreachable(String),
    /// It answers but offers no TLS.
    NoTls(String),
    /// Its TLS cannot be verified.
    Unverified {
        /// Text for the administrator.
        cause: String,
        /// Its issuer is not among the trusted roots, which may be out of date.
        unknown_issuer: bool,
    },
    /// Its certificate is verified, but logins must not use it.
    Unfit(String),
}

impl Unusable {
    /// The cause.
    pub fn cause(&self) -> &str {
        match self {
            Unusable::Unreachable(cause) | Unusable::NoTls(cause) | Unusable::Unfit(cause) => cause,
            Unusable::Unverified { cause, .. } => cause,
        }
    }

    /// Replaces the text.
    pub(in crate::directory) fn map(self, text: impl FnOnce(String) -> String) -> Self {
        match self {
            Unusable::Unreachable(cause) => Unusable::Unreachable(text(cause)),
            Unusable::NoTls(cause) => Unusable::NoTls(text(cause)),
            Unusable::Unfit(cause) => Unusable::Unfit(text(cause)),
            Unusable::Unverified { cause, unknown_issuer } => {
                Unusable::Unverified { cause: text(cause), unknown_issuer }
            }
        }
    }

    /// Returns true if it answers but has no trustworthy TLS for a password.
    pub(in crate::directory) fn lacks_tls(&self) -> bool {
        matches!(self, Unusable::NoTls(_) | Unusable::Unverified { .. })
    }

    /// Returns true if another port would give the same result.
    pub(in crate::directory) fn is_final(&self) -> bool {
        matches!(self, Unusable::Unverified { .. } | Unusable::Unfit(_))
    }
}

impl BindConnection {
    /// Opens TLS over `tcp`, after StartTLS if `start_tls` is set; the domain controller has to prove that it
    /// is `host`. Then checks if logins may use it.
    ///
    /// # Errors
    /// Returns the reason why it is unusable.
    pub(in crate::directory) async fn open(
        mut tcp: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
        start_tls: bool,
    ) -> Result<Self, Unusable> {
        let mut id = 0;
        if start_tls {
            id = 1;
            let request = ldap::start_tls(id).map_err(|e| unreachable(&e))?;
            let answer = ldap::exchange(&mut tcp, id, request, EXTENDED_RESPONSE).await;
            let answer = answer.map_err(|e| unreachable(&format!("StartTLS was not answered: {e}")))?;
            if answer.code != SUCCESS {
                let cause = format!("StartTLS was refused (LDAP result {}: {})", answer.code, answer.text);
                return Err(Unusable::NoTls(cause));
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|e| unreachable(&e))?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| failed(&e))?;
        let mut connection = BindConnection { stream, id };
        connection.examine().await?;
        Ok(connection)
    }

    /// Returns the end of the domain controller's certificate, in seconds since 1970-01-01 UTC.
    pub(super) fn certificate_ends(&self) -> Option<u64> {
        let certificate = self.stream.get_ref().1.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    }

    /// Binds as `dn` (RFC 4511, 4.2).
    ///
    /// # Errors
    /// Returns an error if the bind was not answered; then the connection is unusable.
    pub(in crate::directory) async fn bind(
        &mut self,
        dn: &str,
        password: &str,
    ) -> Result<Response, ExchangeError> {
        let id = self.next_id();
        let request = ldap::simple_bind(id, dn, password)?;
        ldap::exchange(&mut self.stream, id, request, BIND_RESPONSE).await
    }

    /// Changes the password of `dn`, which is bound (MS-ADTS 3.1.1.3.1.5).
    ///
    /// # Errors
    /// Returns an error if the change was not answered; then the connection is unusable.
    pub(in crate::directory) async fn change_password(
        &mut self,
        dn: &str,
        present: &str,
        new: &str,
    ) -> Result<Response, ExchangeError> {
        let id = self.next_id();
        let request = ldap::password_change(id, dn, present, new)?;
        ldap::exchange(&mut self.stream, id, request, MODIFY_RESPONSE).await
    }

    /// Returns true if the connection is usable for another bind. If a server sends data on an idle
    /// connection, it announces that it closes it.
    pub(in crate::directory) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut now = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut now, &mut buffer).is_pending()
    }

    /// Closes the connection so that the kernel discards undelivered data. A bind that arrived after another
    /// domain controller had answered the same one would count a wrong password twice.
    pub(in crate::directory) fn abandon(self) {
        let _ = self.stream.get_ref().0.set_zero_linger();
    }

    /// Checks by the rootDSE, which needs no bind, that logins may use this domain controller.
    async fn examine(&mut self) -> Result<(), Unusable> {
        let id = self.next_id();
        let attributes = ["supportedCapabilities", "isSynchronized"];
        let request = ldap::root_search(id, "(objectClass=*)", &attributes).map_err(|e| unreachable(&e))?;
        let answer = ldap::search_one(&mut self.stream, id, request).await;
        let answer = answer.map_err(|e| unreachable(&format!("its rootDSE cannot be read: {e}")))?;
        let root = Entry::decode(answer).map_err(|e| unreachable(&e))?;
        if root.values("supportedCapabilities").iter().any(|oid| oid == READ_ONLY.as_bytes()) {
            return Err(Unusable::Unfit("a read-only domain controller".to_owned()));
        }
        // FALSE until it has replicated for the first time (MS-ADTS 3.1.1.3.2.24).
        if root.values("isSynchronized").iter().any(|value| value.eq_ignore_ascii_case(b"FALSE")) {
            return Err(Unusable::Unfit("not synchronized with its domain".to_owned()));
        }
        Ok(())
    }

    fn next_id(&mut self) -> i64 {
        self.id = self.id % i64::from(i32::MAX) + 1;
        self.id
    }
}

pub(in crate::directory) fn unreachable(cause: &dyn std::fmt::Display) -> Unusable {
    Unusable::Unreachable(cause.to_string())
}

/// Interprets a failed handshake. A server that breaks it off has no TLS: a Windows domain controller without
/// a certificate does so on port 636, Samba without TLS after it has accepted StartTLS.
fn failed(error: &io::Error) -> Unusable {
    const BROKEN_OFF: [io::ErrorKind; 5] = [
        io::ErrorKind::InvalidData,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
    ];
    match Distrust::of(error) {
        Some(distrust) => Unusable::Unverified {
            cause: format!("TLS failed: {distrust}"),
            unknown_issuer: distrust == Distrust::UnknownIssuer,
        },
        None if BROKEN_OFF.contains(&error.kind()) => Unusable::NoTls(match of_handshake(error) {
            Some(meaning) => format!("TLS failed: {error}: {meaning}"),
            None => format!("TLS failed: {error}"),
        }),
        None => Unusable::Unreachable(format!("TLS failed: {error}")),
    }
}
