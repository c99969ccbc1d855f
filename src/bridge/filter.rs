//! Writes a search filter as text (RFC 4515). The broker parses the text and decides which filters are
//! allowed. Pure: no I/O.

use ldap3::asn1::{PL, StructureTag, TagClass};

use super::ber::{Elements, Malformed};

const FILTER: Malformed = Malformed::Operation("the filter");

/// Writes a filter as text. The bound on the message's nesting also limits the recursion here.
///
/// # Errors
/// Returns [`Malformed::Operation`] if it is not a filter.
pub fn text(filter: StructureTag) -> Result<String, Malformed> {
    let mut text = String::new();
    write(filter, &mut text)?;
    Ok(text)
}

fn write(filter: StructureTag, text: &mut String) -> Result<(), Malformed> {
    if filter.class != TagClass::Context {
        return Err(FILTER);
    }
    text.push('(');
    match (filter.id, filter.payload) {
        (id @ 0..=2, PL::C(parts)) => {
            if id == 2 && parts.len() != 1 {
                return Err(FILTER);
            }
            text.push(['&', '|', '!'].get(usize::try_from(id).unwrap_or(0)).copied().unwrap_or('&'));
            for part in parts {
                write(part, text)?;
            }
        }
        (id @ (3 | 5 | 6 | 8), PL::C(parts)) => {
            let mut parts = inside(id, parts)?;
            attribute(&parts.octets()?, text)?;
            text.push_str(match id {
                3 => "=",
                5 => ">=",
                6 => "<=",
                _ => "~=",
            });
            value(&parts.octets()?, text);
            parts.end()?;
        }
        (4, PL::C(parts)) => substrings(inside(4, parts)?, text)?,
        (7, PL::P(name)) => {
            attribute(&name, text)?;
            text.push_str("=*");
        }
        (9, PL::C(parts)) => extensible(parts, text)?,
        _ => return Err(FILTER),
    }
    text.push(')');
    Ok(())
}

fn inside(id: u64, parts: Vec<StructureTag>) -> Result<Elements, Malformed> {
    Elements::of(StructureTag { class: TagClass::Context, id, payload: PL::C(parts) }, "the filter")
}

fn substrings(mut parts: Elements, text: &mut String) -> Result<(), Malformed> {
    attribute(&parts.octets()?, text)?;
    text.push('=');
    let mut pieces = Elements::sequence(parts.any()?, "the filter")?;
    parts.end()?;
    let mut next = Some(pieces.any()?);
    let mut is_first = true;
    while let Some(piece) = next {
        next = pieces.optional();
        // As text, an empty piece would be none, and the filter another one: `(cn=*)` asks for any value.
        let PL::P(bytes) = piece.payload else { return Err(FILTER) };
        match (piece.class, piece.id) {
            _ if bytes.is_empty() => return Err(FILTER),
            (TagClass::Context, 0) if is_first => value(&bytes, text),
            (TagClass::Context, 1) => {
                text.push('*');
                value(&bytes, text);
            }
            (TagClass::Context, 2) if next.is_none() => {
                text.push('*');
                value(&bytes, text);
                return Ok(());
            }
            _ => return Err(FILTER),
        }
        is_first = false;
    }
    text.push('*');
    Ok(())
}

/// Writes an extensible match (RFC 4511, 4.5.1.7.7), whose fields each stand at most once and in order.
fn extensible(parts: Vec<StructureTag>, text: &mut String) -> Result<(), Malformed> {
    if !parts.is_sorted_by(|one, next| one.id < next.id) {
        return Err(FILTER);
    }
    let (mut rule, mut name, mut wanted, mut is_dn) = (None, None, None, false);
    for part in parts {
        match (part.class, part.id, part.payload) {
            (TagClass::Context, 1, PL::P(bytes)) => rule = Some(bytes),
            (TagClass::Context, 2, PL::P(bytes)) => name = Some(bytes),
            (TagClass::Context, 3, PL::P(bytes)) => wanted = Some(bytes),
            (TagClass::Context, 4, PL::P(bytes)) => is_dn = bytes.iter().any(|byte| *byte != 0),
            _ => return Err(FILTER),
        }
    }
    if name.is_none() && rule.is_none() {
        return Err(FILTER);
    }
    if let Some(name) = name {
        attribute(&name, text)?;
    }
    if is_dn {
        text.push_str(":dn");
    }
    if let Some(rule) = rule {
        matching_rule(&rule, text)?;
    }
    text.push_str(":=");
    value(&wanted.ok_or(FILTER)?, text);
    Ok(())
}

/// Writes an attribute description: a type and its options (RFC 4512, 2.5).
fn attribute(name: &[u8], text: &mut String) -> Result<(), Malformed> {
    let mut parts = name.split(|byte| *byte == b';');
    let is_option = |part: &[u8]| !part.is_empty() && part.iter().all(is_plain);
    if !is_type(parts.next().unwrap_or_default()) || !parts.all(is_option) {
        return Err(FILTER);
    }
    text.push_str(&String::from_utf8_lossy(name));
    Ok(())
}

/// Writes a matching rule. In the text, one that begins with `dn` would be read as the flag `:dn`.
fn matching_rule(name: &[u8], text: &mut String) -> Result<(), Malformed> {
    if !is_type(name) || name.starts_with(b"dn") {
        return Err(FILTER);
    }
    text.push(':');
    text.push_str(&String::from_utf8_lossy(name));
    Ok(())
}

/// Returns true for a name or a numeric identifier (RFC 4512, 1.4).
fn is_type(name: &[u8]) -> bool {
    let is_number = |part: &[u8]| match part {
        [b'0', _, ..] | [] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    match name.first() {
        Some(first) if first.is_ascii_alphabetic() => name.iter().all(is_plain),
        _ => name.split(|byte| *byte == b'.').all(is_number),
    }
}

fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'-'
}

/// Writes a value. Escapes bytes with a meaning in filters, control characters and bytes beyond ASCII.
fn value(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        match byte {
            b'(' | b')' | b'*' | b'\\' | 0..=0x1f | 0x7f.. => {
                let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
                text.extend(['\\', digit(byte >> 4), digit(byte & 0xf)]);
            }
            plain => text.push(char::from(*plain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ber::{context, context_of, octets, sequence, set};
    use super::*;

    fn equal(name: &str, value: &str) -> StructureTag {
        context_of(3, vec![octets(name), octets(value)])
    }

    #[test]
    fn filters_of_the_libraries_are_written_as_text() {
        let either =
            context_of(1, vec![equal("sAMAccountName", "john"), equal("userPrincipalName", "jörg@x")]);
        let cases = [
            (context(7, "objectClass"), "(objectClass=*)"),
            (
                context_of(0, vec![equal("objectCategory", "User"), either]),
                r"(&(objectCategory=User)(|(sAMAccountName=john)(userPrincipalName=j\c3\b6rg@x)))",
            ),
            (context_of(2, vec![equal("uid", "x")]), "(!(uid=x))"),
            (equal("member", r"CN=a\, (b)*,DC=x"), r"(member=CN=a\5c, \28b\29\2a,DC=x)"),
            (equal("cn", "a)(uid=*\0"), r"(cn=a\29\28uid=\2a\00)"),
            (context_of(5, vec![octets("uSNChanged"), octets("1")]), "(uSNChanged>=1)"),
            (context_of(6, vec![octets("uSNChanged"), octets("1")]), "(uSNChanged<=1)"),
            (context_of(8, vec![octets("cn"), octets("1")]), "(cn~=1)"),
            (
                context_of(
                    4,
                    vec![octets("cn"), sequence(vec![context(0, "a"), context(1, "b"), context(2, "c")])],
                ),
                "(cn=a*b*c)",
            ),
            (context_of(4, vec![octets("cn"), sequence(vec![context(0, "a")])]), "(cn=a*)"),
            (context_of(4, vec![octets("cn"), sequence(vec![context(2, "a")])]), "(cn=*a)"),
            (context_of(4, vec![octets("cn"), sequence(vec![context(1, "a")])]), "(cn=*a*)"),
            (context(7, "userCertificate;binary"), "(userCertificate;binary=*)"),
            (context(7, "2.5.4.0"), "(2.5.4.0=*)"),
            (
                context_of(
                    9,
                    vec![context(1, "1.2.840.113556.1.4.1941"), context(2, "memberOf"), context(3, "CN=x")],
                ),
                "(memberOf:1.2.840.113556.1.4.1941:=CN=x)",
            ),
            // BER takes every byte but 0 as true.
            (context_of(9, vec![context(2, "cn"), context(3, "x"), context(4, "\u{1}")]), "(cn:dn:=x)"),
            (context_of(9, vec![context(2, "cn"), context(3, "x"), context(4, "\0")]), "(cn:=x)"),
        ];
        for (filter, written) in cases {
            assert_eq!(text(filter).as_deref(), Ok(written));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let cases = [
            octets("x"),
            context(0, "x"),
            context(10, "x"),
            context(7, ""),
            context(7, "a)(b"),
            equal("c n", "x"),
            equal("", "x"),
            context_of(3, vec![octets("cn")]),
            context_of(2, vec![]),
            context_of(2, vec![equal("a", "b"), equal("a", "b")]),
            context_of(4, vec![octets("cn"), sequence(vec![])]),
            context_of(4, vec![octets("cn"), set(vec![context(1, "a")])]),
            context_of(4, vec![octets("cn"), sequence(vec![context(1, "a"), context(0, "b")])]),
            context_of(4, vec![octets("cn"), sequence(vec![context(2, "a"), context(2, "b")])]),
            context_of(4, vec![octets("cn"), sequence(vec![context(0, "")])]),
            context_of(
                4,
                vec![octets("cn"), sequence(vec![context(0, "a"), context(1, ""), context(2, "b")])],
            ),
            context_of(4, vec![octets("cn"), sequence(vec![context(2, "")])]),
            context_of(9, vec![context(3, "x")]),
            context_of(9, vec![context(2, "cn")]),
            context(7, "1.A"),
            context(7, "1.02"),
            context(7, "a.b"),
            context(7, "cn;"),
            context(7, ";x"),
            context_of(9, vec![context(1, "dn"), context(2, "cn"), context(3, "x")]),
            context_of(9, vec![context(1, "cn;x"), context(3, "x")]),
            context_of(9, vec![context(2, "cn"), context(3, "x"), context(3, "y")]),
            context_of(9, vec![context(2, "cn"), context(2, "uid"), context(3, "x")]),
            context_of(9, vec![context(3, "x"), context(2, "cn")]),
            context_of(3, vec![octets("cn"), octets("x"), octets("y")]),
            context_of(4, vec![octets("cn"), sequence(vec![context(1, "a")]), octets("y")]),
        ];
        for filter in cases {
            assert_eq!(text(filter.clone()), Err(FILTER), "{filter:?}");
        }
    }
}
