//! The headers of BER elements, in the definite form that LDAP and Kerberos use alone (X.690, 8.1.3). Pure.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

/// Most bytes of a length after its first one. No message of LDAP or Kerberos has four gigabytes.
const DIGITS: usize = 4;

/// An element has the indefinite form, or a length that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Returns the lengths of an element's header, which is tag and length, and of its content. Returns `None` if
/// the header is still incomplete. Tags of several bytes are not understood.
///
/// # Errors
/// Returns [`Malformed`] if no element begins like this.
pub fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let [_, first, rest @ ..] = bytes else { return Ok(None) };
    let count = usize::from(first & 0x7f);
    match first {
        0..=0x7f => Ok(Some((2, count))),
        _ if count == 0 || count > DIGITS => Err(Malformed),
        _ => Ok(rest.get(..count).map(|digits| {
            let content = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
            (count.saturating_add(2), content)
        })),
    }
}

/// Appends the header of an element with this many bytes of content.
pub fn begin(buffer: &mut Vec<u8>, tag: u8, content: usize) {
    buffer.push(tag);
    match u8::try_from(content) {
        Ok(short @ 0..0x80) => buffer.push(short),
        _ => {
            let digits = content.to_be_bytes();
            let digits = digits.iter().skip_while(|digit| **digit == 0);
            // At most eight digits.
            let count = u8::try_from(digits.clone().count()).unwrap_or(u8::MAX);
            buffer.push(0x80 | count);
            buffer.extend(digits);
        }
    }
}

/// Returns the length of an element with this many bytes of content, its header included.
pub fn length_of(content: usize) -> usize {
    let mut head = Vec::new();
    begin(&mut head, 0, content);
    content.saturating_add(head.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_that_is_written_is_read() {
        for content in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000, 0xffff_ffff] {
            let mut head = Vec::new();
            begin(&mut head, 4, content);
            assert_eq!(header(&head), Ok(Some((head.len(), content))));
            assert_eq!(length_of(content), head.len() + content);
            for length in 0..head.len() {
                assert_eq!(header(&head[..length]), Ok(None), "{content} {length}");
            }
        }
        // Longer than necessary, which BER allows.
        assert_eq!(header(&[4, 0x84, 0, 0, 0, 1]), Ok(Some((6, 1))));
        assert_eq!(header(&[4, 1, 9, 9]), Ok(Some((2, 1))));
        for wrong in [&[4, 0x80][..], &[4, 0x85], &[4, 0xff], &[4, 0x88, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert_eq!(header(wrong), Err(Malformed), "{wrong:?}");
        }
    }
}
