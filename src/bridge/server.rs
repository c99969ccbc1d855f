//! The sockets: who connects, and how many at once.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Bridge, connection, owner};
use crate::broker::log::{Level, Line};
use crate::broker::peers::{self, Access, Peer};

/// Connections of which it is not yet known whose they are, or that wait for a place.
pub const ARRIVING: usize = 64;
/// The logins on their way have so long when the bridge ends: a little more than the module waits for the broker.
pub const DRAIN: Duration = Duration::from_secs(6);
/// The pause after an error that only time can mend.
const PAUSE: Duration = Duration::from_millis(50);

/// Checks that nothing but this host reaches a listener.
///
/// # Errors
/// Names the address that is reached from elsewhere.
pub fn check(address: SocketAddr) -> io::Result<()> {
    match is_loopback(address.ip()) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} is no loopback address: passwords would cross the network in the clear"),
        )),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Answers at `listeners` until `told` is ready, then lets the logins on their way finish.
///
/// # Errors
/// A listener is unusable, or other hosts reach it.
pub async fn serve(
    listeners: Vec<StdListener>,
    bridge: Arc<Bridge>,
    told: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut opened = Vec::new();
    for listener in listeners {
        check(listener.local_addr()?)?;
        listener.set_nonblocking(true)?;
        opened.push(TcpListener::from_std(listener)?);
    }
    let arriving = Arc::new(Semaphore::new(ARRIVING));
    let mut accepting = JoinSet::new();
    for listener in opened {
        let (bridge, arriving) = (bridge.clone(), arriving.clone());
        accepting.spawn(async move { accept(listener, bridge, arriving).await });
    }
    told.await;
    // What arrives from now on waits for the next process.
    bridge.end.send_replace(true);
    let finish = async { while accepting.join_next().await.is_some() {} };
    if timeout(DRAIN, finish).await.is_err() {
        accepting.shutdown().await;
    }
    Ok(())
}

/// Takes connections until the bridge ends, and waits for those that are being answered.
async fn accept(listener: TcpListener, bridge: Arc<Bridge>, arriving: Arc<Semaphore>) {
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let next = async {
            let arrives = arriving.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, arrives))
        };
        let accepted = tokio::select! {
            () = bridge.ends() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok(((stream, _), arrives)) => {
                let bridge = bridge.clone();
                running.spawn(async move {
                    let Some(peer) = admitted(&bridge, &stream).await else { return };
                    let stay = tokio::select! {
                        stay = bridge.house.enter() => stay,
                        () = bridge.ends() => None,
                    };
                    drop(arrives);
                    if let Some(stay) = stay {
                        connection::serve(&bridge, stream, peer, stay.guest()).await;
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors: waiting for a moment is all that can be done.
            Err(error) => {
                let line = Line::new("accept").with("problem", &error);
                bridge.log.complain(Level::Error, "accept", line);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while running.join_next().await.is_some() {}
}

/// Who is at the other end, if that user is served. Nothing of what they send is read before.
async fn admitted(bridge: &Bridge, stream: &TcpStream) -> Option<Peer> {
    let (far, near) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    if !is_loopback(far.ip()) || !is_loopback(near.ip()) {
        let line = Line::new("refused").with("peer", far.ip()).with("reason", "it is another host");
        bridge.log.complain(Level::Warning, "another host", line);
        return None;
    }
    let uid = match owner::uid(far, near) {
        Ok(uid) => uid,
        // Who has gone already wants nothing.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::NotFound) => {
            return None;
        }
        Err(error) => {
            let line = Line::new("refused")
                .with("reason", format!("the kernel does not say who connects: {error}"))
                .with("advice", "the kernel needs inet_diag and tcp_diag: modprobe tcp_diag");
            bridge.log.complain(Level::Error, "sock_diag", line);
            return None;
        }
    };
    // Which process it is, only root could find out.
    let peer = Peer { uid, pid: 0 };
    match bridge.peers.access(uid).await {
        Access::Granted => Some(peer),
        access => {
            refuse(bridge, &peer, &access).await;
            None
        }
    }
}

/// Tells the administrator who is not served. The connection is closed without a word.
async fn refuse(bridge: &Bridge, peer: &Peer, access: &Access) {
    let who = bridge.peers.describe(peer).await;
    let (mut reason, mut advice) = (format!("{who} is neither root nor in broker.users"), peers::advice());
    if let Access::Unknown(cause) = access {
        reason = format!("{reason} as far as is known: {cause}");
        advice = "fix the name service, or name the uid in broker.users".to_owned();
    }
    let line = Line::new("refused").with("peer", peer).with("reason", &reason).with("advice", &advice);
    bridge.log.complain(Level::Warning, &format!("stranger {}", peer.uid), line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_host_reaches_a_listener() {
        for good in ["127.0.0.1:3890", "127.1.2.3:1", "[::1]:3890", "[::ffff:127.0.0.1]:3890"] {
            assert!(check(good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0:3890",
            "[::]:3890",
            "10.0.0.1:389",
            "192.168.1.1:3890",
            "[fe80::1]:3890",
            "[::ffff:10.0.0.1]:1",
        ] {
            let error = check(bad.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("loopback"), "{bad}");
        }
    }
}
