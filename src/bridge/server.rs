//! The sockets: the check of the connecting user, and the limit on connections.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Bridge, connection, owner};
use crate::broker::peers::{self, Access};
use crate::broker::server::not_accepted;
use crate::log::{Level, Line};
use crate::protocol::Peer;
use crate::scarce;

/// Maximum number of accepted connections that have no place yet: their user is unknown, or they wait for a
/// place.
pub const ARRIVING: usize = 64;
/// Time that logins in progress get to finish when the bridge ends. It is a little more than the module's
/// wait for the broker.
pub const DRAIN: Duration = Duration::from_secs(6);
/// Pause after a failed `accept`, for example without free file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Advice if the kernel does not report the owner of a connection.
const NEEDED: &str = "the kernel needs inet_diag and tcp_diag: modprobe tcp_diag";

/// Checks that only this host can reach a listener.
///
/// # Errors
/// Returns an error that names the address if it is not a loopback address.
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

/// Serves `listeners` until `told` completes, then lets the logins in progress finish.
///
/// # Errors
/// Returns an error if a listener is unusable or other hosts can reach it.
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
    // Connections that arrive from now on wait for the next process.
    bridge.end.send_replace(true);
    let finish = async { while accepting.join_next().await.is_some() {} };
    if timeout(DRAIN, finish).await.is_err() {
        accepting.shutdown().await;
    }
    Ok(())
}

/// Accepts connections until the bridge ends, then waits for those that are still served.
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
            // Mostly a lack of file descriptors, which only time can relieve.
            Err(error) => {
                not_accepted(&bridge.log, &error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while running.join_next().await.is_some() {}
}

/// Returns the user at the other end if that user may connect. No byte of the client is read before.
async fn admitted(bridge: &Bridge, stream: &TcpStream) -> Option<Peer> {
    let (far, near) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    if !is_loopback(far.ip()) || !is_loopback(near.ip()) {
        let line = Line::new("refused").with("peer", far.ip()).with("reason", "it is another host");
        bridge.log.complain(Level::Warning, "another host", line);
        return None;
    }
    let uid = match owner::uid(far, near) {
        Ok(uid) => uid,
        // The client has closed the connection already.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::NotFound) => {
            return None;
        }
        Err(error) => {
            let line = Line::new("refused")
                .with("reason", format!("the kernel does not say who connects: {error}"))
                .with("advice", scarce::advice(&error).unwrap_or(NEEDED));
            bridge.log.complain(Level::Error, &format!("sock_diag {error}"), line);
            return None;
        }
    };
    // Only root could find out the process.
    let peer = Peer { uid, pid: 0 };
    match bridge.peers.access(uid).await {
        Access::Granted => Some(peer),
        access => {
            refuse(bridge, &peer, &access).await;
            None
        }
    }
}

/// Logs that a user may not connect. The connection is closed without a reply.
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
