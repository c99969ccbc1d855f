//! One request to the broker within one deadline: for the module, which may start no thread, and the helper.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{SendAncillaryBuffer, connect, recv, send, sendmsg, socket_with, sockopt};

#[cfg(feature = "broker")]
use crate::protocol::search::{Found, MAX_FOUND, Search};
use crate::protocol::{
    FrameError, MAX_FRAME, Operation, Reply, Request, Secret, monotonic, receive_up_to, send as send_frame,
};
use crate::scarce;
use crate::verdict::Verdict;

/// Time by which the broker's deadline precedes the client's, so that a reply in the last moment,
/// mostly "AD did not answer in time", still arrives.
const HEAD_START: Duration = Duration::from_millis(200);

/// NOSIGNAL: a SIGPIPE would kill the application.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Reason why no reply was received.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No broker listens on the socket, or this process may not connect.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The request did not get through.
    #[error("the request could not be sent: {0}")]
    Send(FrameError),
    /// No whole reply, or not one that this version understands.
    #[error("no valid reply: {0}")]
    Receive(FrameError),
    /// The broker rejected the request: the client may not send it, or the versions differ.
    #[error("the request was refused: {0:?}")]
    Refused(String),
    /// The reply belongs to another request.
    #[error("the reply belongs to another request")]
    Unexpected,
}

impl AskError {
    /// Returns true if the broker may have performed the operation: it has the whole request, and its reply
    /// was lost.
    pub fn may_be_done(&self) -> bool {
        matches!(self, AskError::Receive(_) | AskError::Unexpected)
    }

    /// Returns the advice for the administrator.
    pub fn advice(&self) -> &'static str {
        let kind = match self {
            AskError::Connect(error) => Some(error.kind()),
            AskError::Send(FrameError::Io(error)) | AskError::Receive(FrameError::Io(error)) => {
                Some(error.kind())
            }
            _ => None,
        };
        let scarce = match self {
            AskError::Connect(error)
            | AskError::Send(FrameError::Io(error))
            | AskError::Receive(FrameError::Io(error)) => scarce::advice(error),
            _ => None,
        };
        if let Some(advice) = scarce {
            return advice;
        }
        match (self, kind) {
            (AskError::Refused(reason), _) if reason.contains("broker.users") => {
                "the broker notices a change of that file by itself"
            }
            (AskError::Refused(_), _) => {
                "do as the broker says; after an upgrade of motion-ad restart the application"
            }
            (_, Some(ErrorKind::TimedOut)) => "see `systemctl status motion-ad.service`",
            (AskError::Connect(_), Some(ErrorKind::NotFound)) => {
                "see `systemctl status motion-ad.socket motion-ad.service`; if the socket was removed, \
                 `systemctl restart motion-ad.socket motion-ad.service` makes it again"
            }
            (AskError::Connect(_), _) => "see `systemctl status motion-ad.socket motion-ad.service`",
            _ => {
                "see `journalctl -u motion-ad.service`; after an upgrade of motion-ad restart the \
                 application, which may still have the old module loaded"
            }
        }
    }
}

/// Returns a request with a deadline a little before `timeout` is over.
pub fn request(operation: Operation, user: &str, timeout: Duration) -> Request {
    Request::new(operation, user, timeout.saturating_sub(HEAD_START))
}

/// Sends one request and waits for its reply, until a little after the request's own deadline.
///
/// # Errors
/// Returns [`AskError`] if no valid reply arrives, or if the broker rejects the request.
pub fn ask(socket: &Path, request: &Request, secret: &Secret) -> Result<Reply, AskError> {
    ask_up_to(socket, request, secret, MAX_FRAME)
}

/// Searches the directory, for the LDAP bridge. The broker answers root and the bridge's user.
///
/// # Errors
/// As [`ask`].
#[cfg(feature = "broker")]
pub fn search(socket: &Path, search: Search, timeout: Duration) -> Result<Found, AskError> {
    let request = self::request(Operation::Search(Box::new(search)), "", timeout);
    match ask_up_to(socket, &request, &Secret::default(), MAX_FOUND)? {
        Reply::Found(found) => Ok(*found),
        _ => Err(AskError::Unexpected),
    }
}

/// As [`ask`], where the reply may have `limit` bytes.
fn ask_up_to(socket: &Path, request: &Request, secret: &Secret, limit: usize) -> Result<Reply, AskError> {
    let deadline = Duration::from_nanos(request.deadline).saturating_add(HEAD_START);
    let mut broker = Connection::open(socket, deadline).map_err(AskError::Connect)?;
    // A broker that refuses us may answer and hang up before it has read the request: look for its reply
    // first.
    let sent = send_frame(&mut broker, request, secret);
    // Otherwise the broker would wait for the rest, and its reply would name another cause.
    let sent = match sent {
        Err(error) if !may_be_answered(&error) => return Err(AskError::Send(error)),
        sent => sent,
    };
    match (sent, receive_up_to(&mut broker, limit)) {
        (_, Ok((Reply::Refused(reason), _))) => Err(AskError::Refused(reason)),
        (_, Ok((reply, _))) => Ok(reply),
        (Err(error), Err(_)) => Err(AskError::Send(error)),
        (Ok(()), Err(error)) => Err(AskError::Receive(error)),
    }
}

/// Returns true if the broker may have replied to a request that was not sent: it has closed its end, or does
/// not read.
fn may_be_answered(error: &FrameError) -> bool {
    let FrameError::Io(error) = error else { return false };
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::TimedOut)
}

/// Sends a request that the broker answers with a verdict.
///
/// # Errors
/// As [`ask`].
pub fn ask_verdict(socket: &Path, request: &Request, secret: &Secret) -> Result<Verdict, AskError> {
    match ask(socket, request, secret)? {
        Reply::Verdict(verdict) => Ok(verdict),
        _ => Err(AskError::Unexpected),
    }
}

/// A connection on which nothing waits beyond the deadline.
struct Connection {
    socket: OwnedFd,
    deadline: Duration,
}

impl Connection {
    fn open(path: &Path, deadline: Duration) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        loop {
            // A Unix socket whose backlog is full makes connect wait as long as SO_SNDTIMEO says; a
            // non-blocking connect would fail at once, with nothing to poll for.
            let wait = remaining(deadline).ok_or(io::ErrorKind::TimedOut)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(wait))?;
            match connect(&socket, &address) {
                Ok(()) => return Ok(Connection { socket, deadline }),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Repeats `attempt`, which must not block, until it does something else than ask to wait.
    fn retry<T>(&self, events: PollFlags, mut attempt: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
        loop {
            let wait = remaining(self.deadline).ok_or(io::ErrorKind::TimedOut)?;
            match attempt() {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
                    match poll(&mut [PollFd::new(&self.socket, events)], Some(&wait)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                other => return Ok(other?),
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, || {
            recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(length, _)| length)
        })
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, || send(&self.socket, buffer, SEND))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, || {
            sendmsg(&self.socket, buffers, &mut SendAncillaryBuffer::default(), SEND)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time left; `None` when there is none, because the kernel takes a timeout of zero for "for ever".
fn remaining(deadline: Duration) -> Option<Duration> {
    deadline.checked_sub(monotonic()).filter(|left| *left >= Duration::from_micros(1))
}
