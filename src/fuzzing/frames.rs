//! Frames between module and broker.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::search::MAX_FOUND;
use crate::protocol::{Decoder, FrameError, MAX_FRAME, Passwords, Reply, Request, Secret, encode_up_to};

/// The result of reading a frame.
#[derive(Debug, PartialEq)]
enum Frame<T> {
    Message(T, Vec<u8>),
    Refused(String),
    Unfinished,
}

/// Reads a frame of which `step` bytes arrive at a time.
fn read_frame<T: DeserializeOwned>(mut bytes: &[u8], limit: usize, step: usize) -> Frame<T> {
    let mut decoder = Decoder::new(limit);
    loop {
        let space = decoder.space();
        assert!(!space.is_empty(), "no room, and the frame is not whole");
        let count = step.min(space.len()).min(bytes.len());
        let (now, later) = bytes.split_at(count);
        space[..count].copy_from_slice(now);
        bytes = later;
        match decoder.read(count) {
            Ok(Some((message, secret))) => return Frame::Message(message, secret.bytes().to_vec()),
            Ok(None) => {}
            Err(FrameError::Closed | FrameError::Io(_)) => return Frame::Unfinished,
            Err(error) => return Frame::Refused(error.to_string()),
        }
    }
}

/// A frame is the same in any pieces; a refused one is refused whatever follows; what is encoded decodes to
/// the same.
fn frame<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8], limit: usize) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = read_frame::<T>(bytes, limit, usize::MAX);
    assert_eq!(read_frame(bytes, limit, usize::from(*step).max(1)), whole);
    if !matches!(whole, Frame::Unfinished) {
        assert_eq!(read_frame(&[bytes, &[0x7b; 40]].concat(), limit, usize::MAX), whole);
    }
    if let Frame::Message(message, secret) = whole {
        let secret = Secret::new(secret);
        let mut bytes = encode_up_to(&message, &secret, usize::MAX).unwrap();
        bytes.extend(secret.bytes());
        assert_eq!(
            read_frame(&bytes, usize::MAX, usize::MAX),
            Frame::Message(message, secret.bytes().to_vec())
        );
    }
}

pub(super) fn request(data: &[u8]) {
    frame::<Request>(data, MAX_FRAME);
    let both = Secret::new(data.to_vec());
    if let Some(passwords) = Passwords::of_secret(&both) {
        assert_eq!(passwords.present.bytes().len() + passwords.new.bytes().len() + 2, data.len());
        if let Ok(again) = passwords.to_secret() {
            assert_eq!(again.bytes(), data);
        }
    }
    if let Ok(password) = both.password() {
        assert!(!password.is_empty() && !password.contains('\0'));
    }
}

pub(super) fn reply(data: &[u8]) {
    frame::<Reply>(data, MAX_FOUND);
}
