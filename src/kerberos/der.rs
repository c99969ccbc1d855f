//! The part of DER (X.690) that is needed to read a list of PA-DATA (RFC 4120, 5.2.7).
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::ber;

/// Reads one element: its tag, its content, and the bytes after it. `None` if the bytes are malformed.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, content) = ber::header(bytes).ok().flatten()?;
    let (content, rest) = bytes.get(header..)?.split_at_checked(content)?;
    Some((*bytes.first()?, content, rest))
}

/// Returns the content of the first element, if it has this tag.
pub(super) fn inside(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, _)| content)
}

/// Iterates over the elements in `bytes`, up to the first malformed one.
pub(super) fn elements(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(bytes)?;
        bytes = rest;
        Some((tag, content))
    })
}

/// The tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;

/// Reads type and value from the content of a PA-DATA: `[1]` an integer, `[2]` a string, which may be
/// missing.
pub(super) fn pa_data(content: &[u8]) -> Option<(i64, &[u8])> {
    let number = inside(INTEGER, inside(0xa1, content)?)?;
    let (&first, rest) = number.split_first()?;
    if rest.len() > 7 {
        return None;
    }
    let sign = i64::from(first.cast_signed());
    let kind = rest.iter().fold(sign, |sum, byte| sum << 8 | i64::from(*byte));
    let (.., after) = element(content)?;
    let value = inside(0xa2, after).and_then(|value| inside(OCTETS, value)).unwrap_or_default();
    Some((kind, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_form_are_read_and_none_beyond_the_end() {
        let long = [&[0x04, 0x82, 0x01, 0x00][..], &[7; 256], &[9]].concat();
        assert_eq!(element(&long), Some((0x04, &[7; 256][..], &[9][..])));
        assert_eq!(element(b"\x04\x81\x01a"), Some((0x04, &b"a"[..], &b""[..])));
        let rubbish: [&[u8]; 8] = [
            b"",
            b"\x30",
            b"\x30\x01",
            b"\x30\x80\0\0",
            b"\x30\x85\0\0\0\0\0",
            b"\x30\x82\x01",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\xff",
        ];
        for bytes in rubbish {
            assert_eq!(element(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn pa_data_is_a_number_and_a_string() {
        type Case = (&'static [u8], Option<(i64, &'static [u8])>);
        let cases: [Case; 7] = [
            (b"\xa1\x03\x02\x01\x03\xa2\x04\x04\x02ab", Some((3, b"ab"))),
            (b"\xa1\x04\x02\x02\x00\x88\xa2\x02\x04\x00", Some((136, b""))),
            (b"\xa1\x03\x02\x01\xff", Some((-1, b""))),
            (b"\xa1\x02\x02\x00", None),
            (b"\xa0\x03\x02\x01\x03", None),
            (b"\xa1\x0b\x02\x09\0\0\0\0\0\0\0\0\0", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(pa_data(bytes), expected, "{bytes:?}");
        }
    }
}
