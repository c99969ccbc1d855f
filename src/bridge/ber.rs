//! BER as LDAP allows it (RFC 4511, 5.1), checked before anything is built of it; pure.
//!
//! `lber` decodes by recursion and without a bound. So its input is first walked here, without recursion and without
//! memory: what is nested deeper, has more elements or is longer than these bounds never reaches it.

use ldap3::asn1::{PL, StructureTag, TagClass};

/// The longest message in bytes, its header included.
pub const MESSAGE: usize = 65_536;
/// How deep the elements of a message may be nested.
pub const DEPTH: usize = 24;
/// The most elements of a message.
pub const ELEMENTS: usize = 2048;
/// The most bytes of a length, after its first.
const LENGTH: usize = 4;
/// The tag of a SEQUENCE, by which every message begins.
const SEQUENCE: u8 = 0x30;
/// The bit of a tag that says that the content is elements.
const CONSTRUCTED: u8 = 0x20;
/// The bits of a tag that number it; all of them set is a number that takes more bytes.
const NUMBER: u8 = 0x1f;

/// Why bytes are no LDAP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first byte begins no message.
    #[error("the bytes are no LDAP")]
    NoMessage,
    /// It is longer than [`MESSAGE`].
    #[error("a message is longer than {MESSAGE} bytes")]
    TooLong,
    /// It is nested deeper than [`DEPTH`].
    #[error("a message is nested deeper than {DEPTH} elements")]
    TooDeep,
    /// It has more than [`ELEMENTS`] elements.
    #[error("a message has more than {ELEMENTS} elements")]
    TooMany,
    /// An element contradicts the one around it, or is in a form that LDAP does not use.
    #[error("an element is malformed")]
    Element,
    /// The elements are not those of the operation.
    #[error("{0} is malformed")]
    Operation(&'static str),
}

/// Reads the header of the message that `bytes` begin with: the length of the whole message, `None` if more bytes are
/// needed to say it.
///
/// # Errors
/// Returns [`Malformed`] if no message can begin so.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match bytes.first() {
        None => return Ok(None),
        Some(&SEQUENCE) => {}
        Some(_) => return Err(Malformed::NoMessage),
    }
    let Some((content, header)) = size(bytes.get(1..).unwrap_or_default())? else { return Ok(None) };
    let whole = content.checked_add(header).and_then(|length| length.checked_add(1));
    whole.filter(|whole| *whole <= MESSAGE).map(Some).ok_or(Malformed::TooLong)
}

/// A length and how many bytes spell it; `None` if they are not all there.
fn size(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let count = usize::from(first & 0x7f);
    match first {
        0..=0x7f => Ok(Some((count, 1))),
        // The indefinite form, which LDAP forbids, and lengths beyond any message.
        _ if count == 0 || count > LENGTH => Err(Malformed::Element),
        _ => Ok(rest.get(..count).map(|digits| {
            let length = digits.iter().fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
            (length, count + 1)
        })),
    }
}

/// Walks through one whole element.
///
/// # Errors
/// Returns [`Malformed`] if it is over a bound, or its parts do not fit into each other.
fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let mut ends = [0_usize; DEPTH];
    let (mut depth, mut at, mut elements) = (0_usize, 0_usize, 0_usize);
    loop {
        // Where the innermost open element ends.
        let end = match depth.checked_sub(1) {
            None if elements > 0 && at == bytes.len() => return Ok(()),
            None if elements > 0 => return Err(Malformed::Element),
            None => bytes.len(),
            Some(open) => ends.get(open).copied().unwrap_or_default(),
        };
        if depth > 0 && at == end {
            depth -= 1;
            continue;
        }
        elements += 1;
        if elements > ELEMENTS {
            return Err(Malformed::TooMany);
        }
        let rest = bytes.get(at..end).unwrap_or_default();
        let (&tag, rest) = rest.split_first().ok_or(Malformed::Element)?;
        let (content, header) = size(rest)?.ok_or(Malformed::Element)?;
        let begin = at + 1 + header;
        let stop = begin.checked_add(content).filter(|stop| *stop <= end).ok_or(Malformed::Element)?;
        if tag & NUMBER == NUMBER {
            return Err(Malformed::Element);
        }
        match tag & CONSTRUCTED {
            0 => at = stop,
            _ => {
                *ends.get_mut(depth).ok_or(Malformed::TooDeep)? = stop;
                depth += 1;
                at = begin;
            }
        }
    }
}

/// Decodes one whole element.
///
/// # Errors
/// Returns [`Malformed`] if it is over a bound, or malformed.
pub fn decode(bytes: &[u8]) -> Result<StructureTag, Malformed> {
    check(bytes)?;
    match ldap3::asn1::parse_tag(bytes) {
        Ok(([], tag)) => Ok(tag),
        _ => Err(Malformed::Element),
    }
}

/// Encodes an element.
pub fn encode(tag: StructureTag) -> Vec<u8> {
    let mut bytes = Default::default();
    // It writes to memory, which does not fail.
    let _ = ldap3::asn1::write::encode_into(&mut bytes, tag);
    bytes.to_vec()
}

/// The elements of a message, taken one after the other.
pub struct Elements {
    what: &'static str,
    rest: std::vec::IntoIter<StructureTag>,
}

impl Elements {
    /// The elements inside `tag`; `what` is what errors call it.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it holds none.
    pub fn of(tag: StructureTag, what: &'static str) -> Result<Self, Malformed> {
        let inner = tag.expect_constructed().ok_or(Malformed::Operation(what))?;
        Ok(Elements { what, rest: inner.into_iter() })
    }

    /// The next element, if there is one.
    pub fn optional(&mut self) -> Option<StructureTag> {
        self.rest.next()
    }

    /// The next element.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if there is none.
    pub fn any(&mut self) -> Result<StructureTag, Malformed> {
        self.optional().ok_or(Malformed::Operation(self.what))
    }

    fn primitive(&mut self, number: u64) -> Result<Vec<u8>, Malformed> {
        let tag = self.any()?;
        match (tag.class, tag.id == number, tag.payload) {
            (TagClass::Universal, true, PL::P(bytes)) => Ok(bytes),
            _ => Err(Malformed::Operation(self.what)),
        }
    }

    /// The next element, an OCTET STRING.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it is something else.
    pub fn octets(&mut self) -> Result<Vec<u8>, Malformed> {
        self.primitive(OCTETS)
    }

    /// The next element, an OCTET STRING that is UTF-8.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it is something else.
    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.octets()?).map_err(|_| Malformed::Operation(self.what))
    }

    /// The next element, an INTEGER from 0 to 2³¹-1, as all of LDAP's are.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it is something else.
    pub fn integer(&mut self) -> Result<u32, Malformed> {
        number(&self.primitive(INTEGER)?).ok_or(Malformed::Operation(self.what))
    }

    /// The next element, an ENUMERATED.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it is something else.
    pub fn enumerated(&mut self) -> Result<u32, Malformed> {
        number(&self.primitive(ENUMERATED)?).ok_or(Malformed::Operation(self.what))
    }

    /// The next element, a BOOLEAN.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it is something else.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.primitive(BOOLEAN)?.as_slice() {
            [value] => Ok(*value != 0),
            _ => Err(Malformed::Operation(self.what)),
        }
    }
}

/// A number from 0 to 2³¹-1 (maxInt, RFC 4511, 4.1.1).
pub fn number(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > LENGTH {
        return None;
    }
    let value = bytes.iter().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
    // A first bit that is set would be a negative number.
    bytes.first().filter(|first| **first < 0x80).map(|_| value)
}

const BOOLEAN: u64 = 1;
const INTEGER: u64 = 2;
const OCTETS: u64 = 4;
const ENUMERATED: u64 = 10;
const SEQUENCE_NUMBER: u64 = 16;
const SET_NUMBER: u64 = 17;

fn tag(class: TagClass, id: u64, payload: PL) -> StructureTag {
    StructureTag { class, id, payload }
}

/// A number as INTEGER spells it.
fn spelled(value: u32) -> Vec<u8> {
    let bytes = u64::from(value).to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let rest = bytes.get(zeros..).unwrap_or_default();
    let sign = rest.first().filter(|first| **first >= 0x80).map(|_| 0);
    sign.into_iter().chain(rest.iter().copied()).collect()
}

/// An INTEGER.
pub fn integer(value: u32) -> StructureTag {
    tag(TagClass::Universal, INTEGER, PL::P(spelled(value)))
}

/// An ENUMERATED.
pub fn enumerated(value: u8) -> StructureTag {
    tag(TagClass::Universal, ENUMERATED, PL::P(spelled(value.into())))
}

/// An OCTET STRING.
pub fn octets(bytes: impl Into<Vec<u8>>) -> StructureTag {
    tag(TagClass::Universal, OCTETS, PL::P(bytes.into()))
}

/// A SEQUENCE.
pub fn sequence(elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Universal, SEQUENCE_NUMBER, PL::C(elements))
}

/// A SET.
pub fn set(elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Universal, SET_NUMBER, PL::C(elements))
}

/// An operation.
pub fn application(id: u64, elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Application, id, PL::C(elements))
}

/// A context-specific element with a value.
pub fn context(id: u64, bytes: impl Into<Vec<u8>>) -> StructureTag {
    tag(TagClass::Context, id, PL::P(bytes.into()))
}

/// A context-specific element with elements.
pub fn context_of(id: u64, elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Context, id, PL::C(elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` SEQUENCEs inside each other.
    fn nested(count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let mut outer = vec![SEQUENCE];
            match bytes.len() {
                short @ 0..=0x7f => outer.push(u8::try_from(short).unwrap()),
                long => {
                    outer.push(0x84);
                    outer.extend(u32::try_from(long).unwrap().to_be_bytes());
                }
            }
            outer.extend(&bytes);
            bytes = outer;
        }
        bytes
    }

    #[test]
    fn what_is_too_deep_never_reaches_the_decoder() {
        assert!(decode(&nested(DEPTH)).is_ok());
        assert_eq!(decode(&nested(DEPTH + 1)), Err(Malformed::TooDeep));
        assert_eq!(decode(&nested(10_000)), Err(Malformed::TooDeep));
    }

    #[test]
    fn elements_are_counted() {
        let of = |count: usize| sequence(vec![integer(0); count]);
        assert!(decode(&encode(of(ELEMENTS - 1))).is_ok());
        assert_eq!(decode(&encode(of(ELEMENTS))), Err(Malformed::TooMany));
    }

    #[test]
    fn a_length_is_read_before_the_content() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&[SEQUENCE]), Ok(None));
        assert_eq!(length(&[SEQUENCE, 5]), Ok(Some(7)));
        assert_eq!(length(&[SEQUENCE, 0x82, 1]), Ok(None));
        assert_eq!(length(&[SEQUENCE, 0x82, 1, 0]), Ok(Some(260)));
        assert_eq!(length(&[SEQUENCE, 0x83, 0, 0xff, 0xfb]), Ok(Some(MESSAGE)));
        assert_eq!(length(&[SEQUENCE, 0x83, 0, 0xff, 0xfc]), Err(Malformed::TooLong));
        assert_eq!(length(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), Err(Malformed::TooLong));
        assert_eq!(length(&[SEQUENCE, 0x88, 0xff]), Err(Malformed::Element));
        assert_eq!(length(&[SEQUENCE, 0x80]), Err(Malformed::Element));
        assert_eq!(length(b"GET / HTTP/1.1"), Err(Malformed::NoMessage));
    }

    #[test]
    fn elements_that_do_not_fit_are_refused() {
        let cases: [&[u8]; 8] = [
            &[],
            &[SEQUENCE, 2, 4, 1],
            &[SEQUENCE, 1, 4],
            &[SEQUENCE, 0x80, 0, 0],
            &[SEQUENCE, 2, 0x1f, 0],
            &[SEQUENCE, 0, 0],
            &[SEQUENCE, 3, SEQUENCE, 2, 4],
            &[SEQUENCE, 4, SEQUENCE, 3, 4, 1],
        ];
        for bytes in cases {
            assert_eq!(decode(bytes), Err(Malformed::Element), "{bytes:x?}");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_does_harm() {
        let message = encode(sequence(vec![
            integer(1),
            application(0, vec![integer(3), octets("john.doe@acme.com"), context(0, "secret")]),
        ]));
        for at in 0..message.len() {
            assert!(decode(&message[..at]).is_err(), "{at}");
            for byte in 0..=u8::MAX {
                let mut flipped = message.clone();
                flipped[at] = byte;
                // Whatever comes of it, it is a value.
                let _ = decode(&flipped);
            }
        }
    }

    #[test]
    fn numbers_are_spelled_as_short_as_they_can_be() {
        for (value, bytes) in
            [(0, &[0_u8][..]), (127, &[127]), (128, &[0, 128]), (0x7fff_ffff, &[127, 255, 255, 255])]
        {
            assert_eq!(spelled(value), bytes);
            assert_eq!(number(bytes), Some(value));
        }
        for wrong in [&[][..], &[0x80], &[0, 0, 0, 0, 1]] {
            assert_eq!(number(wrong), None, "{wrong:x?}");
        }
    }
}
