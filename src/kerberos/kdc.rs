//! One exchange with a KDC: a message over TCP (RFC 4120, 7.2.2), and its answer.
//!
//! libkrb5 could do that, but it blocks a thread and waits for up to half a minute. UDP is not used: AD's
//! answers are too long for it, and it does not distinguish a lost message from a dead KDC.

use std::io;
use std::net::SocketAddr;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::cpu;
use super::krb5::Refused;
use crate::net;

/// Maximum length of an answer in bytes. A ticket with AD's largest PAC has about 100 KiB.
pub const MAX_REPLY: u32 = 1_048_576;

/// `KDC_ERR_SVC_UNAVAILABLE` (MS-KILE 2.2.2): this KDC cannot answer now, and says so before it checks a
/// password.
const SERVICE_UNAVAILABLE: u32 = 29;

/// The first bytes of a KDC's possible answers: AS-REP, TGS-REP, KRB-ERROR (RFC 4120, 5.10).
pub(super) const ANSWERS: [u8; 3] = [0x6b, 0x6d, 0x7e];

/// Maximum number of addresses of one KDC that get the same message, each after the previous one broke off.
const ADDRESSES: usize = 3;

/// A KDC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kdc {
    /// Its name, for the log.
    pub host: String,
    /// Its addresses with port 88, in the order to try.
    pub addresses: Vec<SocketAddr>,
}

/// Reason why one KDC has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// Cause, for the log.
    pub(super) cause: String,
    pub(super) kind: Kind,
}

/// Conclusion about the KDC from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is not, or no longer, a KDC.
    Dead,
    /// It was silent: slow or dead.
    Slow,
    /// It accepted the connection and broke it off, or reported that it cannot answer now. It may answer a
    /// moment later.
    Busy,
    /// No conclusion: it got no message.
    Unasked,
}

impl Silence {
    /// Creates a failure of this host, which sent nothing.
    pub(super) fn unasked(cause: impl Into<String>) -> Self {
        Silence { cause: cause.into(), kind: Kind::Unasked }
    }

    /// Makes the failure final for this KDC: what it has received may count.
    pub(super) fn for_good(mut self) -> Self {
        if self.kind == Kind::Busy {
            self.kind = Kind::Slow;
        }
        self
    }

    pub(super) fn dead(cause: impl Into<String>) -> Self {
        Silence { cause: cause.into(), kind: Kind::Dead }
    }

    pub(super) fn slow() -> Self {
        Silence { cause: "no answer in time".to_owned(), kind: Kind::Slow }
    }

    pub(super) fn busy(cause: impl Into<String>) -> Self {
        Silence { cause: cause.into(), kind: Kind::Busy }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => {
                Silence::busy(in_words(error))
            }
            _ => Silence::dead(in_words(error)),
        }
    }
}

/// Asks one KDC. Its addresses have until `connected`; the first that accepts has until `deadline`. If an
/// address breaks off, the message may have arrived: `lost` gets that address before the next one gets the
/// message.
pub(super) async fn ask_one(
    kdc: &Kdc,
    message: &[u8],
    connected: Instant,
    deadline: Instant,
    lost: &mut Vec<String>,
) -> Result<(Vec<u8>, Option<Refused>), Silence> {
    let mut addresses = kdc.addresses.clone();
    let mut failure = Silence::slow();
    let mut broke_off = None;
    while !addresses.is_empty() {
        let (stream, address) = match net::connect(&addresses, connected).await {
            Ok(found) => found,
            // That another address takes no connection says less than that this one took the message.
            Err(_) if broke_off.is_some() => break,
            Err(failed) if failed.is_silent => return Err(Silence::slow()),
            Err(failed) => return Err(Silence::dead(failed.to_string())),
        };
        addresses.retain(|other| *other != address);
        lost.extend(broke_off.take());
        let reply = match timeout_at(deadline, exchange(stream, message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                failure = Silence::of(&error);
                broke_off = Some(format!("{} ({address})", kdc.host));
                // Few addresses get a message that may count against an account.
                match lost.len() + 1 < ADDRESSES {
                    true => continue,
                    false => break,
                }
            }
            Err(_) => return Err(Silence::slow()),
        };
        // On a separate thread, because libkrb5 reads its configuration for this.
        let read = move || (Refused::read(&reply), reply);
        return match cpu::run(deadline, read).await {
            Ok((Ok(Some(Refused { code: SERVICE_UNAVAILABLE, .. })), _)) => {
                Err(Silence::busy("it is not available (KDC_ERR_SVC_UNAVAILABLE)"))
            }
            Ok((Ok(refused), reply)) if reply.first().is_some_and(|tag| ANSWERS.contains(tag)) => {
                Ok((reply, refused))
            }
            Ok(_) => Err(Silence::dead("its answer is no Kerberos message")),
            Err(_) => Err(Silence::slow()),
        };
    }
    Err(failure)
}

/// Explains why an exchange failed.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection instead of an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// Exchanges one message each way: four bytes of length, then the message.
pub(super) async fn exchange(mut stream: TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len()).map_err(|_| io::Error::other("the message is too long"))?;
    stream.set_nodelay(true)?;
    // However this future ends before the answer has arrived, closing resets the connection.
    linger(&stream, Some(0))?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u32().await?;
    // The highest bit is reserved for extensions.
    if length == 0 || length > MAX_REPLY {
        return Err(io::Error::other(format!("it announced an answer of {length} bytes")));
    }
    // Grows with the bytes received, not with the announced length.
    let mut reply = Vec::new();
    (&mut stream).take(length.into()).read_to_end(&mut reply).await?;
    if u32::try_from(reply.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    linger(&stream, None)?;
    Ok(reply)
}

/// Sets SO_LINGER (socket(7)): the seconds that closing waits; 0 resets the connection instead.
fn linger(stream: &TcpStream, seconds: Option<i32>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: seconds.is_some().into(), l_linger: seconds.unwrap_or(0) };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}
