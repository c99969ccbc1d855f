//! The socket for scrapes, by HTTP/1.1 (RFC 9112): one request, one answer. It accepts no login, so that a
//! reader of the metrics needs no further trust. The socket's mode and group decide who may read them.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::supervise::Ended;

/// Maximum number of concurrent answers; further clients wait in the socket's queue.
const AT_ONCE: usize = 4;
/// Longest time of one connection, from its acceptance to the last byte of the answer.
const WHOLE: Duration = Duration::from_secs(5);
/// Maximum length of a request in bytes.
const LONGEST: usize = 8192;
/// Maximum number of header fields of a request.
const FIELDS: usize = 64;
/// The text's type (OpenMetrics 1.0).
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers at `listener` until the broker ends.
///
/// # Errors
/// Returns the cause if the listener is unusable.
pub async fn serve(listener: Arc<StdListener>, broker: Arc<Broker>) -> Ended {
    let opened = || {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener.try_clone()?)
    };
    let listener = opened().map_err(|error| error.to_string())?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let permit = room.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let broker = broker.clone();
                tokio::spawn(async move {
                    // A client that is late or gone sends a new request.
                    let _ = timeout(WHOLE, answer(stream, &broker)).await;
                    drop(permit);
                });
            }
            // Out of descriptors: the only remedy is a short wait.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn answer(mut stream: UnixStream, broker: &Broker) -> io::Result<()> {
    let mut request = Vec::new();
    let answer = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if let Some(refused) = asked(&request) {
            break match refused {
                Ok(()) => match broker.metrics_text().await {
                    Ok(text) => response("200 OK", TYPE, &text),
                    Err(error) => plain("500 Internal Server Error", &error.to_string()),
                },
                Err(status) => plain(status, status),
            };
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Returns the target of a request's start: `None` while it is incomplete, the metrics, or an error status.
pub(crate) fn asked(request: &[u8]) -> Option<Result<(), &'static str>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(request) {
        Ok(httparse::Status::Partial) if request.len() < LONGEST => None,
        Ok(httparse::Status::Partial) => Some(Err("431 Request Header Fields Too Large")),
        Err(_) => Some(Err("400 Bad Request")),
        Ok(httparse::Status::Complete(_)) => {
            let path = parsed.path.unwrap_or_default();
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            Some(match (parsed.method, path) {
                (Some("GET"), "/" | "/metrics") => Ok(()),
                (Some("GET"), _) => Err("404 Not Found"),
                _ => Err("405 Method Not Allowed"),
            })
        }
    }
}

fn plain(status: &str, text: &str) -> String {
    response(status, "text/plain; charset=utf-8", &format!("{text}\n"))
}

fn response(status: &str, kind: &str, text: &str) -> String {
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nAllow: GET\r\n\
         Connection: close\r\n\r\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_asked_for_and_nothing_else() {
        let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; LONGEST]].concat();
        type Case<'a> = (&'a [u8], Option<Result<(), &'a str>>);
        let cases: [Case<'_>; 9] = [
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n", Some(Ok(()))),
            (b"GET /metrics?name[]=x HTTP/1.1\r\nHost: x\r\n\r\n", Some(Ok(()))),
            (b"GET / HTTP/1.0\r\n\r\n", Some(Ok(()))),
            (b"GET /metrics HTTP/1.1\r\nHost:", None),
            (b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n", Some(Err("404 Not Found"))),
            (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Err("405 Method Not Allowed"))),
            // A frame of the other socket.
            (b"\0\0\0\x09\0\0\0\0{}", Some(Err("400 Bad Request"))),
            (b"hello\r\n\r\n", Some(Err("400 Bad Request"))),
            (&long, Some(Err("431 Request Header Fields Too Large"))),
        ];
        for (request, expected) in cases {
            assert_eq!(asked(request), expected, "{}", String::from_utf8_lossy(request));
        }
    }
}
