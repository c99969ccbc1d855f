//! Frames: how a message and its secret travel on a connection.

use std::io::{self, IoSlice, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::secret::Secret;
use super::{HEADER, MAX_FRAME};

/// Length of a decoder's buffer before it knows the frame's length, in bytes. A login has about 300.
const USUAL: usize = 1024;

/// Reason why a frame was not understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection before the first byte.
    #[error("the connection was closed")]
    Closed,
    /// The frame says that it is longer than its kind may be, [`MAX_FRAME`] as a rule.
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(u64),
    /// The JSON is not what was expected; the text of the error never quotes the frame.
    #[error("the frame holds no valid message (line {line}, column {column})")]
    Malformed {
        /// Line of the JSON.
        line: usize,
        /// Column of the JSON.
        column: usize,
    },
    /// Reading or writing failed, or the frame was cut short.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Encodes header and JSON; the secret follows separately, uncopied.
///
/// # Errors
/// Returns [`FrameError::TooLong`] if the frame would be longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T, secret: &Secret) -> Result<Vec<u8>, FrameError> {
    encode_up_to(message, secret, MAX_FRAME)
}

/// Encodes header and JSON of a frame that may have `limit` bytes.
///
/// # Errors
/// Returns [`FrameError::TooLong`] if the frame would be longer than `limit`.
pub fn encode_up_to<T: Serialize>(message: &T, secret: &Secret, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(io::Error::from)?;
    let total = frame.len().saturating_add(secret.bytes().len());
    let (Ok(json), Ok(length), true) = (
        u32::try_from(frame.len().saturating_sub(HEADER)),
        u32::try_from(secret.bytes().len()),
        total <= limit,
    ) else {
        return Err(FrameError::TooLong(total as u64));
    };
    let lengths = json.to_be_bytes().into_iter().chain(length.to_be_bytes());
    frame.iter_mut().zip(lengths).for_each(|(byte, length)| *byte = length);
    Ok(frame)
}

/// Decoder of one frame that arrives in pieces. It does no I/O: the caller reads into [`Decoder::space`], and
/// reports each read to [`Decoder::read`].
pub struct Decoder {
    limit: usize,
    /// Of the frame's length as soon as that is known: growing step by step would leave copies of the secret
    /// behind.
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Decoder {
    /// Creates a decoder of a frame that may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder { limit, buffer: Zeroizing::new(vec![0; USUAL]), filled: 0 }
    }

    /// The place for the next bytes, never empty before the frame is whole.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes `count` bytes that were read into [`Decoder::space`]; 0 is the end of the stream. Returns the
    /// message and its secret once the frame is whole. Further bytes are ignored.
    ///
    /// # Errors
    /// Returns [`FrameError`] if the peer closed or cut the frame, or if the frame is too long or holds no
    /// `T`.
    pub fn read<T: DeserializeOwned>(&mut self, count: usize) -> Result<Option<(T, Secret)>, FrameError> {
        match (count, self.filled) {
            (0, 0) => return Err(FrameError::Closed),
            (0, _) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => self.filled = self.filled.saturating_add(count).min(self.buffer.len()),
        }
        let Some((json, secret)) = self.lengths()? else { return Ok(None) };
        let whole = HEADER.saturating_add(json).saturating_add(secret);
        if self.filled < whole {
            self.resize(whole);
            return Ok(None);
        }
        let message = self.buffer.get(HEADER..whole).unwrap_or_default();
        let (json, secret) = message.split_at_checked(json).unwrap_or_default();
        let json = serde_json::from_slice(json)
            .map_err(|e| FrameError::Malformed { line: e.line(), column: e.column() })?;
        Ok(Some((json, Secret::new(secret.to_vec()))))
    }

    /// Returns the lengths of the JSON and of the secret, once the header is there.
    fn lengths(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let Some([a, b, c, d, e, f, g, h]) =
            self.buffer.first_chunk::<HEADER>().filter(|_| self.filled >= HEADER)
        else {
            return Ok(None);
        };
        let (json, secret) = (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]));
        let total = u64::from(json).saturating_add(secret.into()).saturating_add(HEADER as u64);
        match total > self.limit as u64 {
            true => Err(FrameError::TooLong(total)),
            false => Ok(Some((json as usize, secret as usize))),
        }
    }

    /// Gives the buffer the length of the frame.
    fn resize(&mut self, whole: usize) {
        if self.buffer.len() < whole {
            let mut longer = Zeroizing::new(vec![0; whole]);
            longer.iter_mut().zip(self.buffer.iter()).for_each(|(to, from)| *to = *from);
            self.buffer = longer;
        }
        self.buffer.truncate(whole);
    }
}

/// Sends one message, in a single write if `to` takes it whole: then the receiver wakes up only once.
///
/// # Errors
/// Returns [`FrameError`] if the frame is too long or writing failed.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T, secret: &Secret) -> Result<(), FrameError> {
    let (frame, secret) = (encode(message, secret)?, secret.bytes());
    let written = loop {
        match to.write_vectored(&[IoSlice::new(&frame), IoSlice::new(secret)]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    to.write_all(frame.get(written..).unwrap_or_default())?;
    to.write_all(secret.get(written.saturating_sub(frame.len())..).unwrap_or_default())?;
    Ok(to.flush()?)
}

/// Receives one message and its secret.
///
/// # Errors
/// Returns [`FrameError`] if the peer closed or cut the frame, or if the frame is too long or holds no `T`.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<(T, Secret), FrameError> {
    receive_up_to(from, MAX_FRAME)
}

/// Receives one message and its secret, of a frame that may have `limit` bytes.
///
/// # Errors
/// As [`receive`].
pub fn receive_up_to<T: DeserializeOwned>(
    from: &mut impl Read,
    limit: usize,
) -> Result<(T, Secret), FrameError> {
    let mut decoder = Decoder::new(limit);
    loop {
        match from.read(decoder.space()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            count => {
                if let Some(whole) = decoder.read(count?)? {
                    return Ok(whole);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{Operation, Reply, Request};
    use crate::verdict::{Outcome, Verdict};

    fn request() -> Request {
        let login = Operation::Authenticate { register: false, warn: false };
        Request::new(login, "john.doe", Duration::from_secs(5))
    }

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let mut wire = Vec::new();
        send(&mut wire, &request(), &Secret::new(b"pa\"ss\\w\xc3\xb6rd".to_vec())).unwrap();
        let (back, secret): (Request, Secret) = receive(&mut wire.as_slice()).unwrap();
        assert_eq!(back.user, "john.doe");
        assert_eq!(secret.password().unwrap(), "pa\"ss\\wörd");
    }

    #[test]
    fn a_frame_of_four_gigabytes_is_refused_by_its_header() {
        let wire = [0xff; HEADER];
        let error = receive::<Request>(&mut wire.as_slice()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(n) if n > 8_000_000_000), "{error}");
    }

    #[test]
    fn half_a_frame_and_rubbish_are_errors() {
        let mut wire = Vec::new();
        send(&mut wire, &request(), &Secret::default()).unwrap();
        for length in 1..wire.len() {
            let error = receive::<Request>(&mut &wire[..length]).unwrap_err();
            assert!(matches!(error, FrameError::Io(_)), "{length}: {error}");
        }
        assert!(matches!(receive::<Request>(&mut [].as_slice()), Err(FrameError::Closed)));
        let rubbish = [&[0, 0, 0, 4, 0, 0, 0, 0][..], b"{{{{"].concat();
        assert!(matches!(receive::<Request>(&mut rubbish.as_slice()), Err(FrameError::Malformed { .. })));
    }

    #[test]
    fn too_long_a_message_is_not_sent() {
        let request = Request { user: "x".repeat(MAX_FRAME), ..request() };
        assert!(matches!(encode(&request, &Secret::default()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn the_deadline_runs_down() {
        let request = Request { deadline: 0, ..request() };
        assert_eq!(request.remaining(), Duration::ZERO);
        let reply = Reply::Verdict(Verdict::new(Outcome::Success, ""));
        let mut wire = Vec::new();
        send(&mut wire, &reply, &Secret::default()).unwrap();
        assert_eq!(receive::<Reply>(&mut wire.as_slice()).unwrap().0, reply);
    }

    #[test]
    fn a_frame_arrives_in_pieces_of_any_length() {
        // The second one is longer than the first buffer.
        for length in [8, 3000] {
            let mut wire = Vec::new();
            send(&mut wire, &request(), &Secret::new(vec![b'x'; length])).unwrap();
            let whole = wire.len();
            wire.extend_from_slice(b"further bytes");
            for piece in [1, 3, HEADER, HEADER + 1, whole - 1, whole, wire.len()] {
                let (mut decoder, mut rest) = (Decoder::new(MAX_FRAME), wire.as_slice());
                let (back, secret): (Request, Secret) = loop {
                    let space = decoder.space();
                    assert!(!space.is_empty(), "{length} {piece}");
                    let count = piece.min(space.len()).min(rest.len());
                    space[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    if let Some(whole) = decoder.read(count).unwrap() {
                        break whole;
                    }
                };
                assert_eq!((back.user.as_str(), secret.bytes().len()), ("john.doe", length));
                // Beyond the first buffer, nothing that follows the frame is read.
                assert!(length == 8 || rest == b"further bytes", "{piece}");
            }
        }
    }
}
