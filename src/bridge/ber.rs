//! BER as LDAP allows it (RFC 4511, 5.1), checked before it is decoded. Pure: no I/O.
//!
//! The decoder `lber` is recursive and has no bounds. So this module walks the input first, without recursion
//! or allocation. Input that is longer, is nested deeper or has more elements than the bounds below never
//! reaches `lber`.

use ldap3::asn1::{PL, StructureTag, TagClass};

use crate::ber;

/// Maximum length of a message in bytes, including its header.
pub const MESSAGE: usize = 65_536;
/// Maximum nesting depth of a message's elements.
pub const DEPTH: usize = 24;
/// Maximum number of elements in a message.
pub const ELEMENTS: usize = 2048;
/// Tag of a SEQUENCE, the first byte of every message.
const SEQUENCE: u8 = 0x30;
/// Tag bit of a constructed element: its content is further elements.
const CONSTRUCTED: u8 = 0x20;
/// Tag bits that hold the tag number. All of them set means that the number continues in further bytes.
const NUMBER: u8 = 0x1f;

/// Reason why bytes are not an LDAP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first byte does not start a message.
    #[error("the bytes are no LDAP")]
    NoMessage,
    /// The message is longer than [`MESSAGE`].
    #[error("a message is longer than {MESSAGE} bytes")]
    TooLong,
    /// The message is nested deeper than [`DEPTH`].
    #[error("a message is nested deeper than {DEPTH} elements")]
    TooDeep,
    /// The message has more than [`ELEMENTS`] elements.
    #[error("a message has more than {ELEMENTS} elements")]
    TooMany,
    /// An element does not fit into the one around it, or has a form that LDAP does not use.
    #[error("an element is malformed")]
    Element,
    /// The elements are not those that the operation requires.
    #[error("{0} is malformed")]
    Operation(&'static str),
}

impl From<ber::Malformed> for Malformed {
    fn from(_: ber::Malformed) -> Self {
        Malformed::Element
    }
}

/// Returns the length of the whole message that starts at `bytes`, from its header. Returns `None` if the
/// header is still incomplete.
///
/// # Errors
/// Returns [`Malformed`] if no message can start with these bytes.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match bytes.first() {
        None => return Ok(None),
        Some(&SEQUENCE) => {}
        Some(_) => return Err(Malformed::NoMessage),
    }
    let Some((header, content)) = ber::header(bytes)? else { return Ok(None) };
    let whole = content.checked_add(header);
    whole.filter(|whole| *whole <= MESSAGE).map(Some).ok_or(Malformed::TooLong)
}

/// Checks one whole element and everything inside it.
///
/// # Errors
/// Returns [`Malformed`] if it exceeds a bound, or if an inner element does not fit into its outer one.
fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let mut ends = [0_usize; DEPTH];
    let (mut depth, mut at, mut elements) = (0_usize, 0_usize, 0_usize);
    loop {
        // The end of the innermost open element.
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
        let &tag = rest.first().ok_or(Malformed::Element)?;
        let (header, content) = ber::header(rest)?.ok_or(Malformed::Element)?;
        let begin = at + header;
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
/// Returns [`Malformed`] if it exceeds a bound or is malformed.
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
    // The encoder writes to memory, which does not fail.
    let _ = ldap3::asn1::write::encode_into(&mut bytes, tag);
    bytes.to_vec()
}

/// Iterator over the elements of a message that also checks their types.
pub struct Elements {
    what: &'static str,
    rest: std::vec::IntoIter<StructureTag>,
}

impl Elements {
    /// Returns the elements inside `tag`. Errors call the tag `what`.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if `tag` is a primitive value.
    pub fn of(tag: StructureTag, what: &'static str) -> Result<Self, Malformed> {
        let inner = tag.expect_constructed().ok_or(Malformed::Operation(what))?;
        Ok(Elements { what, rest: inner.into_iter() })
    }

    /// Returns the elements inside `tag`, a SEQUENCE or SEQUENCE OF.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type.
    pub fn sequence(tag: StructureTag, what: &'static str) -> Result<Self, Malformed> {
        match (tag.class, tag.id) {
            (TagClass::Universal, SEQUENCE_NUMBER) => Elements::of(tag, what),
            _ => Err(Malformed::Operation(what)),
        }
    }

    /// Returns the next element, if there is one.
    pub fn optional(&mut self) -> Option<StructureTag> {
        self.rest.next()
    }

    /// Returns the next element.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if no element is left.
    pub fn any(&mut self) -> Result<StructureTag, Malformed> {
        self.optional().ok_or(Malformed::Operation(self.what))
    }

    /// Checks that no element is left.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if one is.
    pub fn end(mut self) -> Result<(), Malformed> {
        self.optional().map_or(Ok(()), |_| Err(Malformed::Operation(self.what)))
    }

    /// Returns the content of every element that is left; all are OCTET STRINGs that hold UTF-8 text.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if one has another type or is not UTF-8.
    pub fn texts(mut self) -> Result<Vec<String>, Malformed> {
        let mut texts = Vec::with_capacity(self.rest.len());
        while self.rest.len() > 0 {
            texts.push(self.text()?);
        }
        Ok(texts)
    }

    fn primitive(&mut self, number: u64) -> Result<Vec<u8>, Malformed> {
        let tag = self.any()?;
        match (tag.class, tag.id == number, tag.payload) {
            (TagClass::Universal, true, PL::P(bytes)) => Ok(bytes),
            _ => Err(Malformed::Operation(self.what)),
        }
    }

    /// Returns the next element, an OCTET STRING.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type.
    pub fn octets(&mut self) -> Result<Vec<u8>, Malformed> {
        self.primitive(OCTETS)
    }

    /// Returns the next element, an OCTET STRING, as UTF-8 text.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type or is not UTF-8.
    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.octets()?).map_err(|_| Malformed::Operation(self.what))
    }

    /// Returns the next element, an INTEGER from 0 to 2³¹-1, the range of all integers in LDAP.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type or is out of range.
    pub fn integer(&mut self) -> Result<u32, Malformed> {
        number(&self.primitive(INTEGER)?).ok_or(Malformed::Operation(self.what))
    }

    /// Returns the next element, an ENUMERATED.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type or is out of range.
    pub fn enumerated(&mut self) -> Result<u32, Malformed> {
        number(&self.primitive(ENUMERATED)?).ok_or(Malformed::Operation(self.what))
    }

    /// Returns the next element, a BOOLEAN.
    ///
    /// # Errors
    /// Returns [`Malformed::Operation`] if it has another type or is not one byte long.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.primitive(BOOLEAN)?.as_slice() {
            [value] => Ok(*value != 0),
            _ => Err(Malformed::Operation(self.what)),
        }
    }
}

/// Decodes a number from 0 to 2³¹-1 (maxInt, RFC 4511, 4.1.1).
pub fn number(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > size_of::<u32>() {
        return None;
    }
    let value = bytes.iter().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
    // If the first bit is set, the number is negative.
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

/// Encodes the content of an INTEGER.
fn spelled(value: u32) -> Vec<u8> {
    let bytes = u64::from(value).to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let rest = bytes.get(zeros..).unwrap_or_default();
    let sign = rest.first().filter(|first| **first >= 0x80).map(|_| 0);
    sign.into_iter().chain(rest.iter().copied()).collect()
}

/// Builds an INTEGER.
pub fn integer(value: u32) -> StructureTag {
    tag(TagClass::Universal, INTEGER, PL::P(spelled(value)))
}

/// Builds an ENUMERATED.
pub fn enumerated(value: u8) -> StructureTag {
    tag(TagClass::Universal, ENUMERATED, PL::P(spelled(value.into())))
}

/// Builds an OCTET STRING.
pub fn octets(bytes: impl Into<Vec<u8>>) -> StructureTag {
    tag(TagClass::Universal, OCTETS, PL::P(bytes.into()))
}

/// Builds a SEQUENCE.
pub fn sequence(elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Universal, SEQUENCE_NUMBER, PL::C(elements))
}

/// Builds a SET.
pub fn set(elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Universal, SET_NUMBER, PL::C(elements))
}

/// Builds an operation: a constructed element with an application tag.
pub fn application(id: u64, elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Application, id, PL::C(elements))
}

/// Builds a context-specific element that holds a value.
pub fn context(id: u64, bytes: impl Into<Vec<u8>>) -> StructureTag {
    tag(TagClass::Context, id, PL::P(bytes.into()))
}

/// Builds a context-specific element that holds further elements.
pub fn context_of(id: u64, elements: Vec<StructureTag>) -> StructureTag {
    tag(TagClass::Context, id, PL::C(elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `count` SEQUENCEs, each inside the previous one.
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
                // The result does not matter. Decoding must not panic.
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
