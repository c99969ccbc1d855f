//! A domain controller that answers every bind at once, so that its own cost is negligible.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::bind::element;

/// Tags of RFC 4511: the message, the requests and the responses.
const MESSAGE: u8 = 0x30;
const BIND: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const DONE: u8 = 0x65;
const OCTETS: u8 = 0x04;
const SET: u8 = 0x31;
/// The result success, with an empty name and text.
const SUCCESS: [u8; 7] = [0x0a, 1, 0, OCTETS, 0, OCTETS, 0];
/// The capability of every Active Directory (MS-ADTS 3.1.1.3.4.3.1).
const ACTIVE_DIRECTORY: &[u8] = b"1.2.840.113556.1.4.800";

/// Listens for LDAPS until it is killed. Prints `listening` when it is ready.
pub fn run(certificate: &str, key: &str) -> Result<(), Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("0.0.0.0:636").await?;
        println!("listening");
        loop {
            let (tcp, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            // An error here is the client's affair.
            tokio::spawn(async move { serve(tcp, acceptor).await });
        }
    })
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = Vec::with_capacity(4096);
    while stream.read_buf(&mut buffer).await? > 0 {
        while let Some((message, rest)) = element(&buffer) {
            let answer = answer(message);
            let rest = rest.len();
            buffer.drain(..buffer.len() - rest);
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
    }
    Ok(())
}

/// Returns the answer to a message; empty if it needs none.
fn answer(message: &[u8]) -> Vec<u8> {
    let Some((_, operation)) = element(message) else { return Vec::new() };
    let id = &message[..message.len() - operation.len()];
    let reply = |tag, content: &[u8]| tagged(MESSAGE, &[id, &tagged(tag, content)].concat());
    match operation.first() {
        Some(&BIND) => reply(BIND_RESPONSE, &SUCCESS),
        Some(&SEARCH) => [reply(ENTRY, &root()), reply(DONE, &SUCCESS)].concat(),
        _ => Vec::new(),
    }
}

/// Returns its root DSE, which names no host and allows logins.
fn root() -> Vec<u8> {
    let octets = |value: &[u8]| tagged(OCTETS, value);
    let attribute =
        |name: &[u8], value: &[u8]| tagged(MESSAGE, &[octets(name), tagged(SET, &octets(value))].concat());
    let attributes =
        [attribute(b"supportedCapabilities", ACTIVE_DIRECTORY), attribute(b"isSynchronized", b"TRUE")];
    [octets(b""), tagged(MESSAGE, &attributes.concat())].concat()
}

/// Returns an element with a short length if it has less than 128 bytes, or with a long one (X.690, 8.1.3).
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head: &[u8] =
        if content.len() < 0x80 { &[tag, length[1]] } else { &[tag, 0x82, length[0], length[1]] };
    [head, content].concat()
}
