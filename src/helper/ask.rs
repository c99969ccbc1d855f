//! Asking the broker, within a time.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::protocol::{FrameError, Reply, Request, Secret, receive, send};

/// Why the broker gave no answer, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens on the socket.
    #[error(
        "nobody listens on {}: is libpam-motion-ad's motion-ad.socket running? \
         See `systemctl status motion-ad.socket`", .0.display()
    )]
    Absent(PathBuf),
    /// The socket's mode keeps this user out.
    #[error("{}: permission denied; only root and the users in broker.users may ask", .0.display())]
    Denied(PathBuf),
    /// The broker will not answer this user or this question.
    #[error("the broker refused to answer: {0}; only root and the users in broker.users may ask")]
    Refused(String),
    /// The deadline passed.
    #[error("the broker did not answer within {:.0} s; see `systemctl status motion-ad.service`", .0.as_secs_f64())]
    Timeout(Duration),
    /// The exchange failed half-way.
    #[error("the broker gave no answer: {0}; see `journalctl -u motion-ad.service`")]
    Broken(#[from] FrameError),
    /// The reply belongs to another question.
    #[error(
        "the broker's answer belongs to another question; \
         does an old version still run? `systemctl restart motion-ad.service`"
    )]
    Unexpected,
}

/// Asks one question and waits for its answer until the request's deadline.
///
/// # Errors
/// There is no answer; a refusal to answer is none.
pub fn ask(socket: &Path, request: Request, secret: Secret) -> Result<Reply, AskError> {
    let patience = request.remaining();
    let path = socket.to_owned();
    let (answer, answered) = mpsc::channel();
    // `connect` waits as long as the socket's queue is full, and std sets no bound on it: a thread is one.
    thread::Builder::new()
        .spawn(move || answer.send(exchange(&path, &request, &secret)))
        .map_err(FrameError::from)?;
    match answered.recv_timeout(patience) {
        Ok(Ok(Reply::Refused(reason))) => Err(AskError::Refused(reason)),
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(AskError::Timeout(patience)),
        Err(RecvTimeoutError::Disconnected) => Err(FrameError::Closed.into()),
    }
}

fn exchange(socket: &Path, request: &Request, secret: &Secret) -> Result<Reply, AskError> {
    let mut stream = UnixStream::connect(socket).map_err(|e| refused(socket, e))?;
    match send(&mut stream, request, secret) {
        // A broker that will not listen says why and hangs up.
        Err(FrameError::Io(e)) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        sent => sent?,
    }
    Ok(receive(&mut stream)?.0)
}

fn refused(socket: &Path, error: io::Error) -> AskError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::Absent(socket.to_owned()),
        ErrorKind::PermissionDenied => AskError::Denied(socket.to_owned()),
        _ => FrameError::from(error).into(),
    }
}
