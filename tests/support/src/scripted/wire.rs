//! LDAP messages as a server reads and writes them (RFC 4511, 4).

use std::fmt::Write as _;
use std::io;

use ldap3::asn1::{
    ASNTag, Enumerated, Integer, OctetString, PL, Sequence, Set, StructureTag, Tag, TagClass, parse_tag,
    write,
};

use super::log::Received;

/// Maximum length of a request, in bytes.
const MAX_REQUEST: usize = 1024 * 1024;
/// The StartTLS operation (RFC 4511, 4.14.1).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// The name of the notice of disconnection (RFC 4511, 4.4.1).
const NOTICE: &[u8] = b"1.3.6.1.4.1.1466.20036";

const BIND: u64 = 0;
const UNBIND: u64 = 2;
const SEARCH: u64 = 3;
const SEARCH_ENTRY: u64 = 4;
const SEARCH_DONE: u64 = 5;
const MODIFY: u64 = 6;
const SEARCH_REFERENCE: u64 = 19;
const EXTENDED: u64 = 23;
const EXTENDED_RESPONSE: u64 = 24;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message id.
    pub id: i64,
    /// The operation.
    pub operation: Operation,
}

/// The operation of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// BindRequest.
    Bind {
        /// Distinguished name of the account.
        dn: String,
        /// Method of authentication.
        credentials: Credentials,
    },
    /// UnbindRequest.
    Unbind,
    /// SearchRequest.
    Search {
        /// The search base.
        base: String,
        /// The filter, as text of RFC 4515.
        filter: String,
        /// The requested attributes.
        attributes: Vec<String>,
    },
    /// ModifyRequest, without its values, which may be passwords.
    Modify {
        /// Distinguished name of the modified object.
        dn: String,
        /// The changes, each with its attribute, such as `delete unicodePwd`.
        changes: Vec<String>,
    },
    /// The extended operation StartTLS.
    StartTls,
    /// Any other operation, by the number of its tag.
    Other(u64),
}

/// Method of authentication in a bind. The password or token is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A password.
    Simple {
        /// True if the password was empty.
        empty: bool,
    },
    /// SASL.
    Sasl {
        /// Name of the mechanism.
        mechanism: String,
    },
}

/// An LDAPResult (RFC 4511, 4.1.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapResult {
    /// `resultCode`.
    pub code: i64,
    /// `diagnosticMessage`.
    pub text: String,
    /// `referral`; omitted if empty.
    pub referral: Vec<String>,
}

/// A message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The result of any request.
    Result(LdapResult),
    /// SearchResultEntry.
    Entry {
        /// Distinguished name of the object.
        dn: String,
        /// Its attributes and their values.
        attributes: Vec<(String, Vec<Vec<u8>>)>,
    },
    /// SearchResultReference.
    Reference(Vec<String>),
    /// The notice of disconnection, which answers no request.
    Notice(LdapResult),
}

impl Operation {
    /// Returns the form in which it is logged.
    pub fn received(&self) -> Received {
        match self.clone() {
            Operation::Bind { dn, credentials: Credentials::Simple { empty } } => {
                Received::Bind { dn, empty }
            }
            Operation::Bind { credentials: Credentials::Sasl { mechanism }, .. } => Received::Sasl(mechanism),
            Operation::Search { base, filter, attributes } => Received::Search { base, filter, attributes },
            Operation::Modify { dn, changes } => Received::Modify { dn, changes },
            Operation::StartTls => Received::StartTls,
            Operation::Unbind => Received::Other(UNBIND),
            Operation::Other(tag) => Received::Other(tag),
        }
    }

    /// Returns the tag of the operation's final response.
    fn answer(&self) -> u64 {
        match self {
            Operation::Search { .. } => SEARCH_DONE,
            Operation::StartTls => EXTENDED_RESPONSE,
            Operation::Bind { .. } => BIND + 1,
            Operation::Modify { .. } => MODIFY + 1,
            Operation::Unbind => UNBIND,
            Operation::Other(tag) => tag + 1,
        }
    }
}

/// Returns the length of the first message in `buffer`, including its header, or `None` until it is known.
///
/// # Errors
/// If the bytes are no message, or the message is too long.
pub fn length(buffer: &[u8]) -> io::Result<Option<usize>> {
    let (header, content) = match *buffer {
        [] | [_] => return Ok(None),
        [_, short @ ..0x80, ..] => (2, usize::from(short)),
        [_, long, ref rest @ ..] => {
            let count = usize::from(long & 0x7f);
            match rest.get(..count) {
                _ if count > 4 => return Err(rubbish()),
                None => return Ok(None),
                Some(bytes) => (2 + count, bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
            }
        }
    };
    if buffer[0] != 0x30 || content > MAX_REQUEST { Err(rubbish()) } else { Ok(Some(header + content)) }
}

/// Decodes one whole message.
///
/// # Errors
/// If it is no request.
pub fn decode(message: &[u8]) -> io::Result<Request> {
    parse_tag(message).ok().and_then(|(_, tag)| request(tag)).ok_or_else(rubbish)
}

fn rubbish() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no LDAP request")
}

fn request(message: StructureTag) -> Option<Request> {
    let mut fields = message.expect_constructed()?.into_iter();
    let id = number(fields.next()?)?;
    let operation = fields.next()?;
    if operation.class != TagClass::Application {
        return None;
    }
    let operation = match operation.id {
        BIND => bind(operation)?,
        UNBIND => Operation::Unbind,
        SEARCH => search(operation)?,
        MODIFY => modify(operation)?,
        EXTENDED => match operation.expect_constructed()?.into_iter().next()?.expect_primitive()? {
            name if name == START_TLS => Operation::StartTls,
            _ => Operation::Other(EXTENDED),
        },
        other => Operation::Other(other),
    };
    Some(Request { id, operation })
}

fn bind(operation: StructureTag) -> Option<Operation> {
    let mut fields = operation.expect_constructed()?.into_iter();
    let (_version, dn, choice) = (fields.next()?, text(fields.next()?)?, fields.next()?);
    let credentials = match (choice.id, choice.payload) {
        (0, PL::P(password)) => Credentials::Simple { empty: password.is_empty() },
        (3, PL::C(sasl)) => Credentials::Sasl { mechanism: text(sasl.into_iter().next()?)? },
        _ => return None,
    };
    Some(Operation::Bind { dn, credentials })
}

fn modify(operation: StructureTag) -> Option<Operation> {
    let mut fields = operation.expect_constructed()?.into_iter();
    let dn = text(fields.next()?)?;
    let changes = fields.next()?.expect_constructed()?.into_iter().map(change).collect::<Option<_>>()?;
    Some(Operation::Modify { dn, changes })
}

fn change(change: StructureTag) -> Option<String> {
    let mut fields = change.expect_constructed()?.into_iter();
    let kind = usize::try_from(number(fields.next()?)?).ok()?;
    let attribute = fields.next()?.expect_constructed()?.into_iter().next()?;
    Some(format!("{} {}", ["add", "delete", "replace"].get(kind)?, text(attribute)?))
}

fn search(operation: StructureTag) -> Option<Operation> {
    let mut fields = operation.expect_constructed()?.into_iter();
    let base = text(fields.next()?)?;
    // Scope, alias dereferencing, two limits and typesOnly come before the filter.
    let mut fields = fields.skip(5);
    let mut filter = String::new();
    show_filter(fields.next()?, &mut filter)?;
    let attributes = fields.next()?.expect_constructed()?.into_iter().map(text).collect::<Option<_>>()?;
    Some(Operation::Search { base, filter, attributes })
}

/// Writes a filter as text (RFC 4511, 4.5.1.7; RFC 4515).
fn show_filter(filter: StructureTag, out: &mut String) -> Option<()> {
    out.push('(');
    match (filter.id, filter.payload) {
        (0..=2, PL::C(parts)) => {
            out.push(['&', '|', '!'][usize::try_from(filter.id).ok()?]);
            parts.into_iter().try_for_each(|part| show_filter(part, out))?;
        }
        (3 | 5 | 6 | 8, PL::C(parts)) => {
            let mut parts = parts.into_iter();
            out.push_str(&text(parts.next()?)?);
            out.push_str(match filter.id {
                5 => ">=",
                6 => "<=",
                8 => "~=",
                _ => "=",
            });
            show_value(&parts.next()?.expect_primitive()?, out)?;
        }
        (4, PL::C(parts)) => {
            let mut parts = parts.into_iter();
            out.push_str(&text(parts.next()?)?);
            out.push('=');
            for (index, piece) in parts.next()?.expect_constructed()?.into_iter().enumerate() {
                // Tag 0 is the initial part, tag 2 the final part.
                let (begins, ends) = (piece.id == 0, piece.id == 2);
                if index == 0 && !begins {
                    out.push('*');
                }
                show_value(&piece.expect_primitive()?, out)?;
                if !ends {
                    out.push('*');
                }
            }
        }
        (7, PL::P(name)) => {
            out.push_str(&String::from_utf8(name).ok()?);
            out.push_str("=*");
        }
        // extensibleMatch: rule [1], attribute [2], value [3], dnAttributes [4].
        (9, PL::C(parts)) => {
            let part = |id| {
                let part = parts.iter().find(|part: &&StructureTag| part.id == id).cloned();
                part.and_then(StructureTag::expect_primitive)
            };
            out.push_str(&String::from_utf8(part(2).unwrap_or_default()).ok()?);
            if let Some(rule) = part(1) {
                write!(out, ":{}", String::from_utf8(rule).ok()?).ok()?;
            }
            out.push_str(":=");
            show_value(&part(3)?, out)?;
        }
        _ => return None,
    }
    out.push(')');
    Some(())
}

/// Writes a value, and escapes all bytes that are not plain characters (RFC 4515, 3).
fn show_value(value: &[u8], out: &mut String) -> Option<()> {
    for byte in value {
        match byte {
            b' '..=b'~' if !b"()*\\".contains(byte) => out.push(char::from(*byte)),
            byte => write!(out, "\\{byte:02x}").ok()?,
        }
    }
    Some(())
}

fn text(tag: StructureTag) -> Option<String> {
    String::from_utf8(tag.expect_primitive()?).ok()
}

fn number(tag: StructureTag) -> Option<i64> {
    match tag.expect_primitive()?.as_slice() {
        bytes @ ([_] | [_, _] | [_, _, _] | [_, _, _, _]) => {
            Some(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
        }
        _ => None,
    }
}

/// Encodes the message as the answer to `request`, with `added` added to its id.
///
/// # Errors
/// If it cannot be encoded.
pub fn encode(message: &Message, request: Option<&Request>, added: i64) -> io::Result<Vec<u8>> {
    let id = request.map_or(0, |request| request.id) + added;
    let tag = request.map_or(EXTENDED_RESPONSE, |request| request.operation.answer());
    match message {
        Message::Result(result) => ldap_message(id, tag, result_fields(result)),
        Message::Entry { dn, attributes } => {
            let values = |values: &Vec<Vec<u8>>| {
                let inner = values.iter().map(|value| octets(value)).collect();
                Tag::Set(Set { inner, ..Default::default() })
            };
            let attributes = attributes
                .iter()
                .map(|(name, all)| sequence(vec![octets(name.as_bytes()), values(all)]))
                .collect();
            ldap_message(id, SEARCH_ENTRY, vec![octets(dn.as_bytes()), sequence(attributes)])
        }
        Message::Reference(urls) => {
            ldap_message(id, SEARCH_REFERENCE, urls.iter().map(|url| octets(url.as_bytes())).collect())
        }
        Message::Notice(result) => {
            let name = OctetString { id: 10, class: TagClass::Context, inner: NOTICE.to_vec() };
            let mut fields = result_fields(result);
            fields.push(Tag::OctetString(name));
            ldap_message(0, EXTENDED_RESPONSE, fields)
        }
    }
}

fn result_fields(result: &LdapResult) -> Vec<Tag> {
    let code = Enumerated { inner: result.code, ..Default::default() };
    let mut fields = vec![Tag::Enumerated(code), octets(b""), octets(result.text.as_bytes())];
    if !result.referral.is_empty() {
        let inner = result.referral.iter().map(|url| octets(url.as_bytes())).collect();
        fields.push(Tag::Sequence(Sequence { id: 3, class: TagClass::Context, inner }));
    }
    fields
}

fn ldap_message(id: i64, tag: u64, fields: Vec<Tag>) -> io::Result<Vec<u8>> {
    let operation = Sequence { id: tag, class: TagClass::Application, inner: fields };
    let id = Integer { inner: id, ..Default::default() };
    let mut buffer = Default::default();
    write::encode_into(
        &mut buffer,
        sequence(vec![Tag::Integer(id), Tag::Sequence(operation)]).into_structure(),
    )?;
    Ok(buffer.to_vec())
}

/// Returns the header of an LDAPMessage that announces this many bytes.
pub fn header(announced: u32) -> Vec<u8> {
    [&[0x30, 0x84][..], &announced.to_be_bytes()].concat()
}

/// Returns an LDAPMessage of this many nested sequences.
pub fn nested(levels: usize) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..levels {
        let length = u32::try_from(reversed.len()).unwrap_or(u32::MAX);
        match length {
            0..=0x7f => reversed.push(length.to_le_bytes()[0]),
            _ => {
                reversed.extend(&length.to_le_bytes()[..3]);
                reversed.push(0x83);
            }
        }
        reversed.push(0x30);
    }
    reversed.reverse();
    reversed
}

fn sequence(inner: Vec<Tag>) -> Tag {
    Tag::Sequence(Sequence { inner, ..Default::default() })
}

fn octets(bytes: &[u8]) -> Tag {
    Tag::OctetString(OctetString { inner: bytes.to_vec(), ..Default::default() })
}
