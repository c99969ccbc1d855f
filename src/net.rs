//! TCP for any protocol: connects to the first of several addresses that answers, and sets up the connection.
//! A dead address before it costs only a moment.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Time after which the next address is tried in parallel (RFC 8305, 5).
pub const LEAD: Duration = Duration::from_millis(250);

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Time that TCP waits for an acknowledgement of sent data before the kernel ends the connection. A slow
/// domain controller acknowledges at once; a firewall that has forgotten an idle connection never does, and
/// then a new connection replaces it within the same login. Linux counts from the first retransmission: 0.4
/// to 0.8 s were measured from sending to the end. A retransmission must have been lost by then, whatever the
/// delay of the network.
const TCP_USER_TIMEOUT: Duration = Duration::from_millis(400);

/// Time without a byte after which TCP sends a keepalive. Firewalls forget connections after 240 s or more.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Reason why no address could be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconnected {
    /// Result for each address, for the administrator.
    pub causes: Vec<(SocketAddr, String)>,
    /// True if one of them was silent: it may only be slow.
    pub is_silent: bool,
}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.causes.is_empty() {
            return f.write_str("DNS knows no address");
        }
        let causes: Vec<_> =
            self.causes.iter().map(|(address, cause)| format!("{address}: {cause}")).collect();
        f.write_str(&causes.join("; "))
    }
}

/// Connects to the first of `addresses` that answers. Each is tried a little after the one before it.
///
/// # Errors
/// Returns an error if none answers until `until`, or if there is none.
pub async fn connect(
    addresses: &[SocketAddr],
    until: Instant,
) -> Result<(TcpStream, SocketAddr), Unconnected> {
    let mut waiting = addresses.iter().copied();
    let mut trying = JoinSet::new();
    let mut causes = Vec::new();
    let mut silent = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            silent.push(address);
            trying.spawn(async move { (address, TcpStream::connect(address).await) });
        } else if trying.is_empty() {
            break;
        }
        let next = if waiting.len() > 0 { until.min(Instant::now() + LEAD) } else { until };
        match timeout_at(next, trying.join_next()).await {
            Ok(Some(Ok((address, Ok(stream))))) => return Ok((stream, address)),
            Ok(Some(Ok((address, Err(e))))) => {
                silent.retain(|other| *other != address);
                causes.push((address, e.to_string()));
            }
            Ok(_) => {}
            Err(_) if Instant::now() >= until => break,
            Err(_) => {}
        }
    }
    let is_silent = !silent.is_empty();
    causes.extend(silent.into_iter().map(|address| (address, "no answer in time".to_owned())));
    Err(Unconnected { causes, is_silent })
}

/// Connects as [`connect`] does, and tunes the connection.
///
/// # Errors
/// Returns the result for each of them, as text.
pub async fn connect_tuned(
    addresses: &[SocketAddr],
    until: Instant,
) -> Result<(TcpStream, SocketAddr), String> {
    let (stream, address) = connect(addresses, until).await.map_err(|failed| failed.to_string())?;
    // Untuned it works as well, only less so.
    let _ = tune(&stream);
    Ok((stream, address))
}

/// Sets up TCP so that small messages are sent at once, a vanished peer is noticed, and firewalls do not
/// forget the connection.
///
/// # Errors
/// Returns the cause if the kernel rejects an option.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &u32::try_from(KEEPALIVE.as_secs()).unwrap_or(60))?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &10)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &3)?;
    let milliseconds = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    setsockopt(tcp, sockopt::TcpUserTimeout, &milliseconds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn within(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_silent_address_is_left_for_the_next_one_and_a_closed_one_is_not_silent() {
        // Its queue is full, so that it answers nothing more.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok((stream, _)) = connect(&[silent], Instant::now() + Duration::from_millis(200)).await {
            queued.push(stream);
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = open.local_addr().map(|address| (address, open)).unwrap();
        // Had it waited for the silent one, it would have waited for a minute.
        let begun = Instant::now();
        assert_eq!(connect(&[silent, open.0], within(60)).await.unwrap().1, open.0);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let refused = connect(&[closed], within(60)).await.unwrap_err();
        assert!(!refused.is_silent && refused.to_string().starts_with("127.0.0.1:1: "), "{refused:?}");
        let both = connect(&[closed, silent], Instant::now() + Duration::from_millis(500)).await.unwrap_err();
        assert!(both.is_silent && both.to_string().ends_with(": no answer in time"), "{both:?}");
    }

    #[tokio::test]
    async fn the_first_port_and_address_that_answers_is_taken() {
        let open = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = open.local_addr().unwrap().port();
        // Port 1 (tcpmux) is closed wherever this runs.
        let closed = 1;
        let at = |host: u8, port| SocketAddr::from(([127, 0, 0, host], port));
        let here = at(1, port);
        assert_eq!(connect_tuned(&[at(1, closed), here], within(5)).await.unwrap().1, here);
        assert_eq!(connect_tuned(&[at(9, port), here], within(5)).await.unwrap().1, here);
        let error = connect_tuned(&[at(1, closed)], within(5)).await.unwrap_err();
        assert!(error.contains("127.0.0.1:1: ") && error.contains("refused"), "{error}");
        assert_eq!(connect_tuned(&[], within(5)).await.unwrap_err(), "DNS knows no address");
    }

    #[tokio::test]
    async fn no_firewall_forgets_an_idle_connection_and_bytes_that_are_lost_end_it() {
        use nix::sys::socket::getsockopt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&tcp).unwrap();
        assert!(getsockopt(&tcp, sockopt::KeepAlive).unwrap());
        let idle = getsockopt(&tcp, sockopt::TcpKeepIdle).unwrap();
        let interval = getsockopt(&tcp, sockopt::TcpKeepInterval).unwrap();
        // Common limits begin at 240 s, and one packet may be lost on the way.
        assert!(2 * (idle + interval) < 240, "{idle} {interval}");
        // Less than the time after which a login leaves the domain controller, so that a new connection is
        // tried first.
        let lost = Duration::from_millis(getsockopt(&tcp, sockopt::TcpUserTimeout).unwrap().into());
        assert!(lost < crate::patience::ATTEMPT, "{lost:?}");
    }
}
