//! The socket: its peers, and the time and size limits of their requests.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Broker;
use super::metrics::Refused;
use super::peers::{self, Access};
use super::place::Place;
use crate::log::{Level, Line, Log};
use crate::protocol::Peer;
use crate::protocol::search::MAX_FOUND;
use crate::protocol::{Decoder, FrameError, MAX_FRAME, Reply, Request, Secret, encode, encode_up_to};
use crate::scarce;
use crate::verdict::Verdict;

/// A request must be whole within this time after its connection was accepted.
const READ: Duration = Duration::from_secs(2);
/// A reply must be received within this time.
const WRITE: Duration = Duration::from_secs(1);
/// Time between two checks of the files that the broker was started from, without a login.
const LOOK: Duration = Duration::from_secs(2);
/// Connections that wait in a row are accepted for this time after one check of the files.
const TOGETHER: Duration = Duration::from_millis(1);
/// Longest time that the logins in progress may take when the broker ends.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest time to undo the sessions of requests that were cut off when the broker ends.
const LEAVE: Duration = Duration::from_secs(1);

/// The reason why the broker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It received the signal to end.
    Told,
    /// This file changed; systemd must start the broker again.
    Stale(String),
}

/// Answers until `told` is ready or a source is stale, then lets the logins in progress finish.
///
/// # Errors
/// Returns the cause if the listener is unusable.
pub async fn serve(
    listener: StdListener,
    broker: Arc<Broker>,
    told: impl Future<Output = ()>,
) -> io::Result<End> {
    listener.set_nonblocking(true)?;
    let place = Place::of(&listener);
    let listener = watch(listener)?;
    let room = broker.room.clone();
    let mut running = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    let mut looked = None;
    tokio::pin!(told);
    let end = loop {
        while running.try_join_next().is_some() {}
        let accepted = async {
            let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            let mut ready = loop {
                let mut ready = listener.readable().await?;
                match somebody_waits(ready.get_inner()) {
                    true => break ready,
                    // The next connection gets its own check of the files.
                    false => {
                        ready.clear_ready();
                        looked = None;
                    }
                }
            };
            // Checked before the connection is accepted: the next process accepts it, with the fresh files.
            if looked.is_none_or(|looked: Instant| looked.elapsed() >= TOGETHER) {
                if let Some(file) = broker.stale() {
                    return Ok(Err(file));
                }
                looked = Some(Instant::now());
            }
            Ok::<_, io::Error>(Ok((ready.try_io(|listener| listener.get_ref().accept()), permit)))
        };
        tokio::select! {
            () = &mut told => break End::Told,
            _ = look.tick() => {
                broker.turns.fetch_add(1, Ordering::Relaxed);
                if let Some(place) = &place { broker.look_for(place) }
                if let Some(file) = broker.stale() { break End::Stale(file) }
            },
            accepted = accepted => match accepted? {
                Err(file) => break End::Stale(file),
                Ok((Ok(Ok((stream, _))), permit)) => {
                    let broker = broker.clone();
                    running.spawn(async move {
                        answer(stream, &broker).await;
                        drop(permit);
                    });
                }
                // Out of descriptors: the only remedy is a short wait.
                Ok((Ok(Err(e)), _)) if e.kind() != io::ErrorKind::Interrupted => {
                    not_accepted(broker.log(), &e);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(_) => {}
            },
        }
    };
    broker.end();
    let finish = async { while running.join_next().await.is_some() {} };
    if timeout(DRAIN, finish).await.is_err() {
        // Each request that is cut off writes its line.
        running.shutdown().await;
    }
    broker.leave(LEAVE).await;
    Ok(end)
}

/// tokio's own listener cannot wait for a connection without accepting it.
#[expect(
    deprecated,
    reason = "its successor is `unsafe` for the sake of types that change their descriptor; std's do not"
)]
fn watch(listener: StdListener) -> io::Result<AsyncFd<StdListener>> {
    AsyncFd::new(listener)
}

/// Returns true if a connection can be accepted, or if that is unknown.
fn somebody_waits(listener: &StdListener) -> bool {
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut waiting, Some(&Timespec::default())) != Ok(0)
}

async fn answer(stream: std::os::unix::net::UnixStream, broker: &Broker) {
    let opened = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    let opened = opened.and_then(|stream| stream.peer_cred().map(|peer| (stream, peer)));
    let (mut stream, peer) = match opened {
        Ok(opened) => opened,
        Err(error) => return not_accepted(broker.log(), &error),
    };
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let peer = Peer { uid: peer.uid(), pid: pid.unwrap_or_default() };
    let (uid, name) = (peer.uid, peer.to_string());
    let access = broker.peers.access(uid).await;
    if access != Access::Granted {
        refuse(&mut stream, broker, &peer, &access).await;
        return;
    }
    let (request, secret) = match read(&mut stream).await {
        Ok(read) => read,
        Err(FrameError::Closed) => return,
        Err(error) => {
            broker.metrics.refused(Refused::Malformed);
            let line = Line::new("refused").with("peer", &name).with("reason", &error);
            let line = line.with("advice", scarce::advice_for(&error.to_string()).unwrap_or_default());
            broker.log().complain(Level::Warning, &format!("frame {uid}"), line);
            let _ = reply(&mut stream, &Reply::Refused(error.to_string())).await;
            return;
        }
    };
    let mut answer = broker.answer(&request, &secret, &peer).await;
    let replied = reply(&mut stream, &answer.reply).await;
    // The line is written before the wait for the peer; a session that is dropped ends.
    let seat = answer.logged();
    let taken = match (replied, seat) {
        (Ok(()), Some(seat)) => taken(&mut stream).await.map(|()| seat.taken()).map_err(FrameError::from),
        (replied, _) => replied,
    };
    if let Err(error) = taken {
        broker.metrics.refused(Refused::Unanswered);
        let line =
            Line::new("unanswered").with("peer", &name).with("user", &request.user).with("reason", error);
        broker.log().complain(Level::Warning, &format!("reply {uid}"), line);
    }
}

/// Logs that a connection could not be accepted, once a minute for each cause.
pub(crate) fn not_accepted(log: &Log, error: &io::Error) {
    // epoll_ctl(2) has its own limit.
    let watches = || {
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        is_full.then_some("the user has no watches left: raise the sysctl fs.epoll.max_user_watches")
    };
    let advice = scarce::advice(error).or_else(watches).unwrap_or_default();
    let line = Line::new("accept").with("problem", error).with("advice", advice);
    log.complain(Level::Error, &format!("accept {error}"), line);
}

/// Rejects a peer, and reports to it and to the administrator why.
async fn refuse(stream: &mut UnixStream, broker: &Broker, peer: &Peer, access: &Access) {
    broker.metrics.refused(Refused::Stranger);
    let who = broker.peers.describe(peer).await;
    let (mut reason, mut advice) = (format!("{who} is neither root nor in broker.users"), peers::advice());
    if let Access::Unknown(cause) = access {
        reason = format!("{reason} as far as is known: {cause}");
        advice = "fix the name service, or name the uid in broker.users".to_owned();
    }
    let line = Line::new("refused").with("peer", peer).with("reason", &reason).with("advice", &advice);
    broker.log().complain(Level::Warning, &format!("stranger {}", peer.uid), line);
    let _ = reply(stream, &Reply::Refused(format!("{reason}; {advice}"))).await;
}

async fn read(stream: &mut UnixStream) -> Result<(Request, Secret), FrameError> {
    let whole = async {
        let mut decoder = Decoder::new(MAX_FRAME);
        loop {
            let count = stream.read(decoder.space()).await?;
            if let Some(whole) = decoder.read(count)? {
                return Ok(whole);
            }
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no whole request in time");
    timeout(READ, whole).await.map_err(|_| late())?
}

/// Waits until the peer has read the reply and closed the connection. Linux reports a reset if the peer
/// closes it with the reply unread. A peer that keeps it open counts as having read the reply.
async fn taken(stream: &mut UnixStream) -> io::Result<()> {
    match timeout(WRITE, stream.read(&mut [0])).await {
        Ok(read) => read.map(drop),
        Err(_) => Ok(()),
    }
}

/// Sends a reply. One that is longer than its frame may be is shortened: without a reply, a client would
/// take the broker for unreachable, and a PAM stack may treat that as less than a rejection.
async fn reply(stream: &mut UnixStream, reply: &Reply) -> Result<(), FrameError> {
    let limit = match reply {
        Reply::Found(_) => MAX_FOUND,
        _ => MAX_FRAME,
    };
    let frame = match encode_up_to(reply, &Secret::default(), limit) {
        Err(FrameError::TooLong(length)) => encode(&shortened(reply, length), &Secret::default())?,
        frame => frame?,
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the client did not read the reply in time");
    Ok(timeout(WRITE, stream.write_all(&frame)).await.map_err(|_| late())??)
}

/// Returns the replacement of a reply of `length` bytes, which is over the limit: a verdict without its
/// texts, or the reason why there is no reply.
fn shortened(reply: &Reply, length: u64) -> Reply {
    let reason = format!("the reply has {length} bytes, which is over the limit");
    match reply {
        Reply::Verdict(Verdict { outcome, account, session, expires_in, .. }) => Reply::Verdict(Verdict {
            account: account.clone(),
            session: session.clone(),
            expires_in: *expires_in,
            ..Verdict::new(*outcome, reason)
        }),
        _ => Reply::Refused(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::receive;
    use crate::protocol::report::Status;
    use crate::verdict::Outcome;

    #[tokio::test]
    async fn a_reply_that_is_too_long_is_shortened_and_never_left_out() {
        let long = "x".repeat(2 * MAX_FRAME);
        let denied = Verdict {
            principal: Some(long.clone()),
            session: Some("s1".to_owned()),
            text: Some(long.clone()),
            ..Verdict::new(Outcome::SessionDenied, &long)
        };
        let status = Status { notes: vec![long], ..Status::default() };
        for long in [Reply::Verdict(denied), Reply::Status(Box::new(status))] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            reply(&mut ours, &long).await.unwrap();
            let mut theirs = theirs.into_std().unwrap();
            theirs.set_nonblocking(false).unwrap();
            let (said, _) = receive::<Reply>(&mut theirs).unwrap();
            match (long, said) {
                (Reply::Verdict(long), Reply::Verdict(said)) => {
                    assert_eq!((said.outcome, said.session), (long.outcome, long.session));
                    assert!(said.reason.contains("over the limit"), "{}", said.reason);
                }
                (_, Reply::Refused(reason)) => assert!(reason.contains("over the limit"), "{reason}"),
                (_, said) => panic!("{said:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_left_unread_is_not_taken() {
        let answer = || Reply::Refused("no".to_owned());
        for (reads, is_taken) in [(0, false), (1, false), (usize::MAX, true)] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            reply(&mut ours, &answer()).await.unwrap();
            let length = encode(&answer(), &Secret::default()).unwrap().len();
            let mut read = vec![0; length.min(reads)];
            theirs.read_exact(&mut read).await.unwrap();
            drop(theirs);
            assert_eq!(taken(&mut ours).await.is_ok(), is_taken, "{reads} bytes were read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_keeps_its_connection_has_read() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        taken(&mut ours).await.unwrap();
    }
}
