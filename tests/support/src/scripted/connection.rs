//! One connection of the server, from its acceptance to its end.

use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Identity;
use super::log::{Log, Received};
use super::script::{Action, Event, Manner, Script};
use super::wire::{LdapResult, Message, Operation, Request, decode, encode, header, length, nested};
use super::{Security, result};

/// LDAP result codes (RFC 4511, appendix A).
const SUCCESS: i64 = 0;
const PROTOCOL_ERROR: i64 = 2;
/// Size of one write of a long message, in bytes.
const CHUNK: usize = 64 * 1024;
/// Maximum size of a datagram, in bytes.
const DATAGRAM: usize = 64 * 1024;

/// State that a connection gets from the server.
pub struct Connection {
    /// 1 for the first connection; 0 for UDP.
    pub number: u64,
    /// The rules that it follows.
    pub script: Arc<Script>,
    /// The log that it writes to.
    pub log: Log,
}

/// A stream with a TCP connection under it.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// State of a connection after some actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The server answered success.
    Granted,
    /// The server answered otherwise, or not at all.
    Open,
    /// The connection must be closed.
    Over,
}

impl Connection {
    /// Serves an accepted connection until it ends.
    pub async fn run(self, tcp: TcpStream, security: Security) {
        self.log.add(self.number, Received::Connected);
        // An error here is the script's or the client's intention.
        let _ = self.accepted(tcp, security).await;
        self.log.add(self.number, Received::Ended);
    }

    async fn accepted(&self, mut tcp: TcpStream, security: Security) -> io::Result<()> {
        // Without Nagle's algorithm, a message sent byte by byte becomes packets of one byte.
        tcp.set_nodelay(true)?;
        if let Some(actions) = self.script.at(&Event::Connected, self.number)
            && self.perform(&mut tcp, actions, None, None).await? == After::Over
        {
            return Ok(());
        }
        match security {
            Security::Plain => self.serve(tcp, false).await.map(drop),
            Security::Ldaps(identity) => self.secure(tcp, &identity).await,
            Security::StartTls(identity) => match self.serve(tcp, true).await? {
                Some(tcp) => self.secure(tcp, &identity).await,
                None => Ok(()),
            },
        }
    }

    async fn secure(&self, mut tcp: TcpStream, identity: &Identity) -> io::Result<()> {
        if tcp.peek(&mut [0]).await? == 0 {
            return Ok(());
        }
        self.log.add(self.number, Received::ClientHello);
        if let Some(actions) = self.script.at(&Event::ClientHello, self.number)
            && self.perform(&mut tcp, actions, None, Some(identity)).await? == After::Over
        {
            return Ok(());
        }
        match TlsAcceptor::from(identity.config()).accept(tcp).await {
            Ok(stream) => {
                self.log.add(self.number, Received::Secured);
                self.serve(stream, false).await.map(drop)
            }
            Err(e) => {
                self.log.add(self.number, Received::NotSecured(e.to_string()));
                Err(e)
            }
        }
    }

    /// Answers requests. Returns the stream if TLS has to begin on it.
    async fn serve<T: Transport>(&self, mut stream: T, starttls: bool) -> io::Result<Option<T>> {
        let mut buffer = Vec::new();
        loop {
            let Some(message) = self.next(&mut stream, &mut buffer).await? else { return Ok(None) };
            let Ok(request) = decode(&message) else {
                self.log.add(self.number, Received::Rubbish);
                return Ok(None);
            };
            drop(message);
            self.log.add(self.number, request.operation.received());
            if request.operation == Operation::Unbind {
                return Ok(None);
            }
            let begins = starttls && request.operation == Operation::StartTls;
            let ordinary = [match begins {
                true => result(SUCCESS, ""),
                false => result(PROTOCOL_ERROR, "the script has no rule for this"),
            }];
            let actions = self.script.about(&request.operation, self.number).unwrap_or(&ordinary);
            match self.perform(&mut stream, actions, Some(&request), None).await? {
                After::Over => return Ok(None),
                After::Granted if begins => return Ok(Some(stream)),
                After::Granted | After::Open => {}
            }
        }
    }

    /// Returns the next whole message, or `None` at the end of the stream.
    async fn next<T: Transport>(&self, stream: &mut T, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        loop {
            match length(buffer) {
                Ok(Some(length)) if length <= buffer.len() => {
                    return Ok(Some(buffer.drain(..length).collect()));
                }
                Ok(_) => {}
                Err(e) => {
                    self.log.add(self.number, Received::Rubbish);
                    return Err(e);
                }
            }
            if stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn perform<T: Transport>(
        &self,
        stream: &mut T,
        actions: &[Action],
        request: Option<&Request>,
        identity: Option<&Identity>,
    ) -> io::Result<After> {
        let mut after = After::Open;
        for action in actions {
            match action {
                Action::Send(message, manner) => {
                    send(stream, message, *manner, request).await?;
                    if matches!(message, Message::Result(LdapResult { code: SUCCESS, .. })) {
                        after = After::Granted;
                    }
                }
                Action::Bytes(bytes) => whole(stream, bytes).await?,
                Action::Oversized { announced, sent } => {
                    whole(stream, &header(*announced)).await?;
                    let zeros = vec![0; CHUNK];
                    let mut left = *sent;
                    while left > 0 {
                        let now = left.min(CHUNK);
                        whole(stream, &zeros[..now]).await?;
                        left -= now;
                    }
                }
                Action::Nested(levels) => whole(stream, &nested(*levels)).await?,
                Action::HalfServerHello => {
                    let identity = identity.ok_or_else(|| io::Error::other("there is no TLS here"))?;
                    let hello = server_hello(stream, identity).await?;
                    whole(stream, &hello[..hello.len() / 2]).await?;
                }
                Action::Delay(time) => sleep(*time).await,
                Action::Silence => pending().await,
                Action::Close => {
                    close(stream.tcp()).await?;
                    return Ok(After::Over);
                }
                Action::Reset => {
                    stream.tcp().set_zero_linger()?;
                    return Ok(After::Over);
                }
            }
        }
        Ok(after)
    }

    /// Answers searches that arrive as datagrams. All messages of a rule go into one datagram, as in
    /// connectionless LDAP.
    pub async fn run_udp(self, socket: UdpSocket) {
        let mut buffer = vec![0; DATAGRAM];
        // An error here means that an earlier datagram was not delivered.
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(request) = decode(&buffer[..length]) else {
                self.log.add(self.number, Received::Rubbish);
                continue;
            };
            self.log.add(self.number, request.operation.received());
            let mut datagram = Vec::new();
            for action in self.script.about(&request.operation, self.number).unwrap_or_default() {
                match action {
                    Action::Send(message, manner) => {
                        datagram.extend(sent(message, *manner, Some(&request)).unwrap_or_default());
                    }
                    Action::Bytes(bytes) => datagram.extend(bytes),
                    Action::Nested(levels) => datagram.extend(nested(*levels)),
                    Action::Delay(time) => sleep(*time).await,
                    // All other actions need a connection.
                    _ => {}
                }
            }
            if !datagram.is_empty() {
                let _ = socket.send_to(&datagram, client).await;
            }
        }
    }
}

/// Returns the bytes of a message in this manner.
fn sent(message: &Message, manner: Manner, request: Option<&Request>) -> io::Result<Vec<u8>> {
    let added = if let Manner::OtherId(added) = manner { added } else { 0 };
    let mut bytes = encode(message, request, added)?;
    match manner {
        Manner::Cut(length) => bytes.truncate(length),
        Manner::Twice => bytes.extend_from_within(..),
        Manner::Whole | Manner::Dripped(_) | Manner::OtherId(_) => {}
    }
    Ok(bytes)
}

async fn send<T: Transport>(
    stream: &mut T,
    message: &Message,
    manner: Manner,
    request: Option<&Request>,
) -> io::Result<()> {
    let bytes = sent(message, manner, request)?;
    match manner {
        Manner::Dripped(pause) => {
            for byte in bytes {
                whole(stream, &[byte]).await?;
                sleep(pause).await;
            }
            Ok(())
        }
        _ => whole(stream, &bytes).await,
    }
}

async fn whole<T: Transport>(stream: &mut T, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Shuts down the sending side, then reads all that the client still sends. Closing with unread bytes would
/// be a reset.
async fn close(tcp: &TcpStream) -> io::Result<()> {
    shutdown(tcp.as_raw_fd(), Shutdown::Write)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        tcp.readable().await?;
        match tcp.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads the ClientHello from `stream` and returns the first bytes that a TLS server answers.
async fn server_hello<T: Transport>(stream: &mut T, identity: &Identity) -> io::Result<Vec<u8>> {
    let mut tls = ServerConnection::new(identity.config()).map_err(io::Error::other)?;
    let mut buffer = vec![0; CHUNK];
    while !tls.wants_write() {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        tls.read_tls(&mut &buffer[..count])?;
        tls.process_new_packets().map_err(io::Error::other)?;
    }
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello)?;
    }
    Ok(hello)
}
