//! The sealed transport under ldap3: plain LDAP inside the process, wrapped buffers on the wire.
//!
//! After the bind, each side sends buffers of four length bytes and a GSSAPI wrap token (RFC 4752, 3.1; RFC
//! 4422, 3.7). A buffer may hold several LDAP messages or part of one, so this relay passes bytes through
//! without parsing LDAP. ldap3 has such a layer, but its codec loses messages (0.12.1).
//!
//! ```text
//! ldap3 ── Unix socket pair ── relay ── TCP ── domain controller, port 389
//!              plain LDAP              sealed
//! ```

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libgssapi::context::{ClientCtx, SecurityContext};
use libgssapi::util::Buf;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::error::TransportError;
use super::sasl::{self, LdapService, MAX_TOKEN, Peer};
use super::{Credential, Kerberos};
use crate::net;

/// Maximum number of plain bytes in one outgoing token.
const CHUNK: usize = 64 * 1024;

/// Generous allowance in bytes for the overhead of wrapping: RFC 4121 with AES takes 60 to 84.
const OVERHEAD: usize = 256;

/// A sealed connection, bound as the machine account.
#[derive(Debug)]
pub struct Sealed {
    /// The end that carries plain LDAP; non-blocking.
    pub stream: std::os::unix::net::UnixStream,
    /// The relay at the other end.
    pub relay: Relay,
    /// Time when the security context ends, together with its ticket.
    pub expires: Instant,
}

/// Connects to `address`, binds to `service` as the machine account and starts the relay. If the cache has no
/// ticket for the service, one is requested, across realms if the machine's realm is another.
///
/// # Errors
/// Returns an error if the server cannot be reached, does not prove that it is `service`, rejects the machine
/// account or does not seal, or if the deadline passes.
pub async fn connect(
    address: SocketAddr,
    service: &LdapService,
    kerberos: &Kerberos,
    credential: &Credential,
    deadline: Instant,
) -> Result<Sealed, TransportError> {
    let connecting = async {
        let mut tcp = TcpStream::connect(address).await?;
        net::tune(&tcp)?;
        let peer = Peer { service, kerberos, credential, deadline };
        let bound = sasl::bind(&mut tcp, &peer).await?;
        let max_send = bound.max_send;
        let (read, write) = tcp.into_split();
        let (stream, relay) = relay(read, write, Gss(bound.context), max_send)?;
        Ok(Sealed { stream, relay, expires: bound.expires })
    };
    timeout_at(deadline, connecting).await.unwrap_or(Err(TransportError::Timeout))
}

/// Returns true if the LDAP service at `address` rejects connections that are not signed. To find out, it
/// binds as the machine account and closes the connection.
///
/// # Errors
/// Like [`connect`].
pub async fn asks_to_sign(
    address: SocketAddr,
    service: &LdapService,
    kerberos: &Kerberos,
    credential: &Credential,
    deadline: Instant,
) -> Result<bool, TransportError> {
    let asking = async {
        let mut tcp = TcpStream::connect(address).await?;
        sasl::asks_to_sign(&mut tcp, &Peer { service, kerberos, credential, deadline }).await
    };
    timeout_at(deadline, asking).await.unwrap_or(Err(TransportError::Timeout))
}

/// A handle on a running relay. The relay ends if either side closes or fails, and then closes both.
#[derive(Clone, Debug)]
pub struct Relay {
    received: Arc<AtomicU64>,
    end: Arc<OnceLock<String>>,
    task: AbortHandle,
}

impl Relay {
    /// Bytes received from the server so far, as a sign of life.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns true if both sides are closed.
    pub fn is_closed(&self) -> bool {
        self.task.is_finished()
    }

    /// Returns the reason for the end, unless it was [`Relay::close`].
    pub fn end(&self) -> Option<&str> {
        self.end.get().map(String::as_str)
    }

    /// Closes both sides.
    pub fn close(&self) {
        self.task.abort();
    }
}

/// The protection of the bytes; a trait so that the framing can be tested without a KDC.
pub(crate) trait Layer: Send + 'static {
    type Buffer: Deref<Target = [u8]> + Send;
    /// Encrypts.
    fn wrap(&mut self, plain: &[u8]) -> Result<Self::Buffer, String>;
    /// Decrypts, and rejects changed, repeated or missing tokens.
    fn unwrap(&mut self, token: &[u8]) -> Result<Self::Buffer, String>;
}

/// An established security context. RFC 2744 forbids concurrent calls on one; the relay's lock prevents them.
struct Gss(ClientCtx);

impl Layer for Gss {
    type Buffer = Buf;

    fn wrap(&mut self, plain: &[u8]) -> Result<Buf, String> {
        self.0.wrap(true, plain).map_err(|e| e.to_string())
    }

    fn unwrap(&mut self, token: &[u8]) -> Result<Buf, String> {
        // libgssapi does not pass on gss_unwrap's `conf_state`, so the token itself is checked.
        if !is_sealed(token) {
            return Err("the server sent a token that is not encrypted".to_owned());
        }
        // Reordered, repeated or missing tokens are errors here: libgssapi accepts only GSS_S_COMPLETE.
        self.0.unwrap(token).map_err(|e| e.to_string())
    }
}

/// Returns true if a wrap token is marked as encrypted: by the flag `Sealed` of RFC 4121, 4.2.2, or for RC4
/// by any SEAL_ALG but `ff ff` after the mechanism's header (RFC 1964, 1.2.2; RFC 4757, 7.3).
pub(crate) fn is_sealed(token: &[u8]) -> bool {
    const MECHANISM: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
    match token {
        [0x05, 0x04, flags, ..] => flags & 0x02 != 0,
        [0x60, length, rest @ ..] => {
            let more = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7f) };
            let inner = rest.get(more..).and_then(|rest| rest.strip_prefix(MECHANISM));
            matches!(inner, Some([0x02, 0x01, _, _, a, b, ..]) if [*a, *b] != [0xff, 0xff])
        }
        _ => false,
    }
}

/// Starts a relay between the server and the returned stream.
pub(super) fn relay<R, W, L>(
    from_server: R,
    to_server: W,
    layer: L,
    max_send: usize,
) -> Result<(std::os::unix::net::UnixStream, Relay), TransportError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    L: Layer,
{
    let chunk = max_send.saturating_sub(OVERHEAD).min(CHUNK);
    if chunk < OVERHEAD {
        return Err(TransportError::Protocol("the server accepts no buffer of a useful size"));
    }
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let (from_client, to_client) = UnixStream::from_std(far)?.into_split();

    let received = Arc::new(AtomicU64::new(0));
    let end = Arc::new(OnceLock::new());
    let task = tokio::spawn({
        let (received, end) = (received.clone(), end.clone());
        async move {
            let layer = Mutex::new(layer);
            // One task for both directions: the first to end also ends the other, and dropping the four
            // halves closes both sides at once.
            let result = tokio::select! {
                result = seal(from_client, to_server, &layer, chunk, max_send) => result,
                result = unseal(from_server, to_client, &layer, &received) => result,
            };
            let _ = end.set(result.err().unwrap_or_else(|| "the connection was closed".to_owned()));
        }
    });
    Ok((near, Relay { received, end, task: task.abort_handle() }))
}

/// Carries the client's bytes to the server.
pub(crate) async fn seal<R, W, L>(
    mut from: R,
    mut to: W,
    layer: &Mutex<L>,
    chunk: usize,
    max: usize,
) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: Layer,
{
    let mut plain = vec![0; chunk];
    let mut framed = Vec::new();
    loop {
        let length = from.read(&mut plain).await.map_err(text)?;
        if length == 0 {
            return Ok(());
        }
        let message = plain.get(..length).unwrap_or_default();
        let token = locked(layer, |layer| layer.wrap(message))?;
        let size = u32::try_from(token.len()).ok().filter(|_| token.len() <= max);
        let size = size.ok_or("a wrapped buffer is longer than the server accepts")?;
        framed.clear();
        framed.extend_from_slice(&size.to_be_bytes());
        framed.extend_from_slice(&token);
        to.write_all(&framed).await.map_err(text)?;
    }
}

/// Carries the server's bytes to the client.
pub(crate) async fn unseal<R, W, L>(
    from: R,
    mut to: W,
    layer: &Mutex<L>,
    received: &AtomicU64,
) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: Layer,
{
    let mut from = BufReader::with_capacity(CHUNK, Counted { inner: from, received });
    let mut token = Vec::new();
    loop {
        let mut header = [0; 4];
        if from.read(&mut header[..1]).await.map_err(text)? == 0 {
            return Err("the server closed the connection".to_owned());
        }
        from.read_exact(&mut header[1..]).await.map_err(text)?;
        let length = u32::from_be_bytes(header);
        if length == 0 || length > MAX_TOKEN {
            return Err(format!("the server announced a buffer of {length} bytes"));
        }
        // Grows with the bytes received, not with the announced length, and shrinks again.
        token.clear();
        token.shrink_to(CHUNK);
        let got = (&mut from).take(length.into()).read_to_end(&mut token).await.map_err(text)?;
        if u64::try_from(got).ok() != Some(length.into()) {
            return Err("the server closed the connection within a buffer".to_owned());
        }
        let plain = locked(layer, |layer| layer.unwrap(&token))?;
        to.write_all(&plain).await.map_err(text)?;
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn locked<L, T>(layer: &Mutex<L>, work: impl FnOnce(&mut L) -> T) -> T {
    work(&mut layer.lock())
}

/// Counts the bytes read through it.
struct Counted<'a, R> {
    inner: R,
    received: &'a AtomicU64,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = std::pin::Pin::new(&mut self.inner).poll_read(context, buffer);
        let more = buffer.filled().len().saturating_sub(before);
        self.received.fetch_add(u64::try_from(more).unwrap_or(0), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

    use super::*;

    /// Inverts the bits and adds a byte at each end, which must come back.
    struct Fake;

    impl Layer for Fake {
        type Buffer = Vec<u8>;
        fn wrap(&mut self, plain: &[u8]) -> Result<Vec<u8>, String> {
            let mut token: Vec<u8> = plain.iter().map(|byte| !byte).collect();
            token.insert(0, b'<');
            token.push(b'>');
            Ok(token)
        }
        fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, String> {
            match token {
                [b'<', inner @ .., b'>'] => Ok(inner.iter().map(|byte| !byte).collect()),
                _ => Err("a forged token".to_owned()),
            }
        }
    }

    struct Bench {
        client: UnixStream,
        server_read: ReadHalf<DuplexStream>,
        server_write: WriteHalf<DuplexStream>,
        relay: Relay,
    }

    fn bench(max_send: usize) -> Bench {
        let (near, far) = duplex(8 * 1024);
        let (read, write) = split(near);
        let (stream, relay) = relay(read, write, Fake, max_send).unwrap();
        let (server_read, server_write) = split(far);
        Bench { client: UnixStream::from_std(stream).unwrap(), server_read, server_write, relay }
    }

    fn framed(plain: &[u8]) -> Vec<u8> {
        let token = Fake.wrap(plain).unwrap();
        [&u32::try_from(token.len()).unwrap().to_be_bytes()[..], &token].concat()
    }

    /// Both sides are closed, and the cause is known.
    async fn ended(mut bench: Bench, cause: &str) {
        let mut rest = Vec::new();
        bench.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        while !bench.relay.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(bench.relay.end().unwrap().contains(cause), "{:?}", bench.relay.end());
    }

    #[tokio::test]
    async fn megabytes_come_back_whole_both_ways_at_once() {
        let bench = bench(4096);
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut client_read, mut client_write) = bench.client.into_split();
        let (mut server_read, mut server_write) = (bench.server_read, bench.server_write);
        // The server returns every token unchanged.
        let echo = tokio::spawn(async move {
            let mut largest = 0;
            let mut header = [0; 4];
            while server_read.read_exact(&mut header).await.is_ok() {
                let mut token = vec![0; u32::from_be_bytes(header) as usize];
                largest = largest.max(token.len());
                server_read.read_exact(&mut token).await.unwrap();
                server_write.write_all(&header).await.unwrap();
                server_write.write_all(&token).await.unwrap();
            }
            largest
        });
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            client_write.write_all(&sent).await.unwrap();
            client_write
        });
        let mut back = vec![0; data.len()];
        client_read.read_exact(&mut back).await.unwrap();
        assert!(back == data);
        assert!(bench.relay.received() > 3_000_000);
        drop((writer.await.unwrap(), client_read));
        assert!(echo.await.unwrap() <= 4096);
    }

    #[tokio::test]
    async fn tokens_may_come_byte_by_byte_or_many_at_once() {
        let mut bench = bench(4096);
        for byte in framed(b"one") {
            bench.server_write.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let many = [framed(b"two"), framed(b"three"), framed(b"four")].concat();
        bench.server_write.write_all(&many).await.unwrap();
        let mut back = [0; 15];
        bench.client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"onetwothreefour");
    }

    #[tokio::test]
    async fn forged_empty_and_oversized_buffers_close_both_sides() {
        let cases: [(&[u8], &str); 4] = [
            (b"\0\0\0\x03abc", "a forged token"),
            (b"\0\0\0\0", "a buffer of 0 bytes"),
            (b"\x01\0\0\0", "a buffer of 16777216 bytes"),
            (b"\xff\xff\xff\xff", "a buffer of 4294967295 bytes"),
        ];
        for (wire, cause) in cases {
            let mut bench = bench(4096);
            bench.server_write.write_all(wire).await.unwrap();
            let mut nothing = Vec::new();
            bench.server_read.read_to_end(&mut nothing).await.unwrap();
            ended(bench, cause).await;
        }
    }

    #[tokio::test]
    async fn a_server_that_leaves_closes_the_client() {
        for (wire, cause) in [
            (&b""[..], "the server closed the connection"),
            (b"\0\0", "early eof"),
            (b"\0\0\0\x09<ab", "within a buffer"),
        ] {
            let mut bench = bench(4096);
            bench.server_write.write_all(wire).await.unwrap();
            bench.server_write.shutdown().await.unwrap();
            ended(bench, cause).await;
        }
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_delivered() {
        let mut bench = bench(4096);
        bench.server_write.write_all(&framed(b"last words")).await.unwrap();
        bench.server_write.shutdown().await.unwrap();
        let mut back = Vec::new();
        bench.client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"last words");
    }

    #[tokio::test]
    async fn a_client_that_leaves_closes_the_server() {
        let mut bench = bench(4096);
        bench.client.write_all(b"bye").await.unwrap();
        drop(bench.client);
        let mut wire = Vec::new();
        bench.server_read.read_to_end(&mut wire).await.unwrap();
        assert_eq!(wire, framed(b"bye"));
    }

    #[tokio::test]
    async fn closing_closes_both_sides() {
        let mut bench = bench(4096);
        bench.relay.close();
        let mut nothing = Vec::new();
        bench.client.read_to_end(&mut nothing).await.unwrap();
        bench.server_read.read_to_end(&mut nothing).await.unwrap();
        assert_eq!(nothing, b"");
    }

    #[tokio::test]
    async fn a_server_that_accepts_next_to_nothing_is_refused() {
        let (near, _far) = duplex(64);
        let (read, write) = split(near);
        assert!(relay(read, write, Fake, 300).is_err());
    }

    #[test]
    fn tokens_that_are_only_signed_are_told_apart() {
        let rc4 = |seal: [u8; 2]| {
            let body =
                [&b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x02\x01\x11\x00"[..], &seal, &[0; 34]]
                    .concat();
            [&[0x60, body.len() as u8], &body[..]].concat()
        };
        let cases: [(&[u8], bool); 8] = [
            (b"\x05\x04\x06\xff\0\0", true),
            (b"\x05\x04\x03\xff\0\0", true),
            (b"\x05\x04\x05\xff\0\0", false),
            (b"\x04\x04\x06\xff\0\0", false),
            (&rc4([0x10, 0x00]), true),
            (&rc4([0xff, 0xff]), false),
            (b"\x60\x84", false),
            (b"", false),
        ];
        for (token, sealed) in cases {
            assert_eq!(is_sealed(token), sealed, "{token:02x?}");
        }
    }
}
