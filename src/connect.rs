//! Connects to the first of several addresses that answers, for any protocol. A dead address before it costs
//! only a moment.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Time after which the next address is tried in parallel (RFC 8305, 5).
pub const LEAD: Duration = Duration::from_millis(250);

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
pub async fn first(addresses: &[SocketAddr], until: Instant) -> Result<(TcpStream, SocketAddr), Unconnected> {
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
        while let Ok((stream, _)) = first(&[silent], Instant::now() + Duration::from_millis(200)).await {
            queued.push(stream);
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = open.local_addr().map(|address| (address, open)).unwrap();
        // Had it waited for the silent one, it would have waited for a minute.
        let begun = Instant::now();
        assert_eq!(first(&[silent, open.0], within(60)).await.unwrap().1, open.0);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let refused = first(&[closed], within(60)).await.unwrap_err();
        assert!(!refused.is_silent && refused.to_string().starts_with("127.0.0.1:1: "), "{refused:?}");
        let both = first(&[closed, silent], Instant::now() + Duration::from_millis(500)).await.unwrap_err();
        assert!(both.is_silent && both.to_string().ends_with(": no answer in time"), "{both:?}");
    }
}
