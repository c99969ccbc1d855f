//! Reads messages from a stream, with a time limit and a maximum length for each, and sends replies. Knows
//! whether the client has closed its end.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use zeroize::{Zeroize as _, Zeroizing};

use super::ber::{self, Malformed};

/// Time limit for a whole message, from its first byte.
pub const WHOLE: Duration = Duration::from_secs(10);
/// Time limit for sending a reply, or one chunk of a long reply.
pub const WRITE: Duration = Duration::from_secs(10);
/// Maximum number of bytes for one read. A bind has some 60.
const USUAL: usize = 2048;

/// A connection to a client.
pub trait Client: AsyncRead + AsyncWrite + Unpin + Send {
    /// Returns its socket.
    fn socket(&self) -> &TcpStream;

    /// Returns true if the client has closed the connection, whatever is left to read from it, or if that is
    /// unknown.
    fn is_closed(&self) -> bool {
        events(self.socket(), PollFlags::RDHUP) != Ok(0)
    }

    /// Returns true if the connection was reset, as Linux does if the client's end is closed with a reply
    /// unread.
    fn is_reset(&self) -> bool {
        events(self.socket(), PollFlags::empty()).is_ok_and(|count| count > 0)
    }
}

impl Client for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Client for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Returns 1 if one of `events` has occurred, an error of the socket or its end; otherwise 0.
fn events(socket: &TcpStream, events: PollFlags) -> rustix::io::Result<usize> {
    poll(&mut [PollFd::new(socket, events)], Some(&Timespec::default()))
}

/// Reason why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client closed the connection between two messages.
    #[error("the connection was closed")]
    Closed,
    /// The client sent nothing within its idle time.
    #[error("no data arrived in time")]
    Idle,
    /// A message started, but was not complete within [`WHOLE`].
    #[error("no whole message in time")]
    Slow,
    /// The bytes are not a message.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Reading failed, or the message was cut short.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Bytes that are not yet a whole message. They are wiped: they may contain a part of a password.
#[derive(Debug, Default)]
pub struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    /// Returns true if no bytes are left over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the next message. Waits up to `idle` for its first byte. The future may be dropped while no byte
    /// of the message has been read.
    ///
    /// # Errors
    /// Returns [`ReadError`] if no message could be read.
    pub async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        idle: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let mut whole = Instant::now() + WHOLE;
        loop {
            if let Some(length) = ber::length(&self.0)?
                && self.0.len() >= length
            {
                return Ok(self.split(length));
            }
            let mut chunk = Zeroizing::new([0; USUAL]);
            let is_first = self.0.is_empty();
            let read = match is_first {
                true => timeout(idle, from.read(&mut *chunk)).await.map_err(|_| ReadError::Idle)??,
                false => timeout_at(whole, from.read(&mut *chunk)).await.map_err(|_| ReadError::Slow)??,
            };
            match read {
                0 if is_first => return Err(ReadError::Closed),
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                _ if is_first => whole = Instant::now() + WHOLE,
                _ => {}
            }
            self.append(chunk.get(..read).unwrap_or_default());
        }
    }

    /// Appends `bytes`. Wipes the old memory if the buffer has to grow.
    fn append(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()).saturating_mul(2));
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(bytes);
    }

    fn split(&mut self, length: usize) -> Zeroizing<Vec<u8>> {
        let message = Zeroizing::new(self.0.get(..length).unwrap_or_default().to_vec());
        let rest = self.0.get(length..).unwrap_or_default().to_vec();
        self.0.zeroize();
        self.0 = Zeroizing::new(rest);
        message
    }
}

/// Sends `bytes`.
///
/// # Errors
/// Returns an error if the client does not take them within [`WRITE`], or if the connection is gone.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the client did not read the answer in time");
    timeout(WRITE, async {
        to.write_all(bytes).await?;
        to.flush().await
    })
    .await
    .map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNBIND: &[u8] = b"\x30\x05\x02\x01\x02\x42\x00";
    const IDLE: Duration = Duration::from_secs(900);

    #[tokio::test]
    async fn messages_are_cut_where_they_end() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&[UNBIND, UNBIND, &UNBIND[..3]].concat()).await.unwrap();
        let mut buffer = Buffer::default();
        for _ in 0..2 {
            assert_eq!(buffer.next(&mut server, IDLE).await.unwrap().as_slice(), UNBIND);
        }
        assert!(!buffer.is_empty());
        client.write_all(&UNBIND[3..]).await.unwrap();
        assert_eq!(buffer.next(&mut server, IDLE).await.unwrap().as_slice(), UNBIND);
        assert!(buffer.is_empty());
        drop(client);
        assert!(matches!(buffer.next(&mut server, IDLE).await, Err(ReadError::Closed)));
    }

    #[tokio::test]
    async fn half_a_message_and_rubbish_are_errors() {
        for (bytes, expected) in [
            (&UNBIND[..5], "unexpected end of file"),
            (b"GET / HTTP/1.1\r\n", "the bytes are no LDAP"),
            (b"\x30\x84\xff\xff\xff\xff", "longer than 65536"),
        ] {
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(bytes).await.unwrap();
            drop(client);
            let error = Buffer::default().next(&mut server, IDLE).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_drip_come_to_an_end() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let begun = Instant::now();
        assert!(matches!(Buffer::default().next(&mut server, IDLE).await, Err(ReadError::Idle)));
        assert_eq!(begun.elapsed(), IDLE);
        let drip = tokio::spawn(async move {
            for byte in [0x30, 0x84, 0, 0, 0xff, 0].into_iter().chain([0; 100]) {
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        assert!(matches!(Buffer::default().next(&mut server, IDLE).await, Err(ReadError::Slow)));
        assert!(begun.elapsed() <= WHOLE + Duration::from_secs(1));
        drop(server);
        drip.await.unwrap();
    }
}
