//! `motion-ad metrics`: prints the broker's metrics from their socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Cli, Exit, Failure, Page};

/// Maximum length of a response, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;
/// Maximum number of its header fields.
const FIELDS: usize = 16;
const REQUEST: &[u8] = b"GET /metrics HTTP/1.0\r\n\r\n";

pub(super) fn metrics(cli: &Cli, args: &super::Metrics) -> Result<Page, Failure> {
    let text = read(&args.metrics_socket, cli.timeout()).and_then(|answer| body(&answer));
    match text {
        Ok(text) => Ok(Page { text, exit: Exit::Yes }),
        Err(error) => Err(Failure::Metrics { socket: args.metrics_socket.clone(), error }),
    }
}

fn read(socket: &Path, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Returns the body of `answer`, if that is complete and successful.
fn body(answer: &[u8]) -> io::Result<String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let begun = match parsed.parse(answer).map_err(io::Error::other)? {
        httparse::Status::Complete(begun) => begun,
        httparse::Status::Partial => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    if parsed.code != Some(200) {
        return Err(io::Error::other(format!("the answer is {}", parsed.code.unwrap_or_default())));
    }
    let text = answer.get(begun..).unwrap_or_default();
    let text = String::from_utf8(text.to_vec()).map_err(io::Error::other)?;
    // The last line of OpenMetrics marks its end.
    match text.ends_with("# EOF\n") {
        true => Ok(text),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\n";
        let cases = [
            (format!("{ok}motion_ad_serving 1\n# EOF\n"), Some("motion_ad_serving 1\n# EOF\n")),
            (format!("{ok}motion_ad_serving 1\n"), None),
            ("HTTP/1.1 404 Not Found\r\n\r\n# EOF\n".to_owned(), None),
            ("HTTP/1.1 200 OK\r\nContent".to_owned(), None),
            (String::new(), None),
            ("\0\0\0\x09".to_owned(), None),
        ];
        for (answer, expected) in cases {
            assert_eq!(body(answer.as_bytes()).ok().as_deref(), expected, "{answer:?}");
        }
    }
}
