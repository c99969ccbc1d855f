//! Sequential binds on one open connection, and nothing else: with TLS at a domain controller, as the lower
//! bound of the comparison, and without TLS at the LDAP bridge.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use motion_ad::directory::trust::Trust;
use motion_ad::ldap::simple_bind;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// LDAP result code success (RFC 4511, 4.1.9).
pub const SUCCESS: u8 = 0;

/// An open connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    id: i64,
}

/// A connection with or without TLS.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// Returns a TLS configuration that trusts the authorities in `ca_file`.
pub fn trust(ca_file: &str) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    Ok(Trust::load(Some(Path::new(ca_file)), None).map_err(|e| e.to_string())?.config())
}

impl Connection {
    /// Opens a connection with TLS.
    pub fn open(address: &str, host: &str, config: &Arc<ClientConfig>) -> Result<Self, Box<dyn Error>> {
        let name = ServerName::try_from(host.to_owned())?;
        let tls = StreamOwned::new(ClientConnection::new(config.clone(), name)?, tcp(address)?);
        Ok(Connection { stream: Box::new(tls), id: 0 })
    }

    /// Opens a connection without TLS.
    pub fn open_plain(address: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Connection { stream: Box::new(tcp(address)?), id: 0 })
    }

    /// Binds, and returns the result code.
    pub fn bind(&mut self, dn: &str, password: &str) -> Result<u8, Box<dyn Error>> {
        self.id += 1;
        self.stream.write_all(&simple_bind(self.id, dn, password)?)?;
        let mut answer = Vec::with_capacity(512);
        loop {
            let mut chunk = [0; 512];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err("the server closed the connection".into());
            }
            answer.extend_from_slice(&chunk[..count]);
            if let Some((message, _)) = element(&answer) {
                return result(message).ok_or_else(|| "no bind response".into());
            }
        }
    }
}

fn tcp(address: &str) -> std::io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(tcp)
}

/// Returns the result code of a BindResponse (RFC 4511, 4.2.2).
fn result(message: &[u8]) -> Option<u8> {
    let (_id, rest) = element(message)?;
    let (response, _) = element(rest)?;
    let (code, _) = element(response)?;
    code.first().copied()
}

/// Returns the content of the first element in `bytes` and the rest, once the element is complete (X.690,
/// 8.1).
pub fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.get(1..)?.split_first()?;
    let (length, rest) = match usize::from(*head) {
        short @ ..0x80 => (short, rest),
        long => {
            let (length, rest) = rest.split_at_checked(long & 0x7f)?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}
