//! LDAP messages byte by byte (RFC 4511): messages that hold a password, and the first messages of a
//! connection.
//!
//! All other messages go through ldap3. Its buffers keep sent messages, a user's password included, for as
//! long as the connection lives; its SASL layer loses messages, and it has no UDP. Here a message is one
//! buffer that is freed, and so wiped, as soon as it is sent.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::io;

use ldap3::asn1::{
    ASNTag, Boolean, Enumerated, Integer, OctetString, PL, Sequence, Set, StructureTag, Tag, TagClass,
    parse_tag, write,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ber;

/// Plain LDAP, with StartTLS or sealed by Kerberos.
pub const LDAP: u16 = 389;
/// TLS from the first byte.
pub const LDAPS: u16 = 636;

/// Maximum length of a response in bytes. The response to a Kerberos token with a large PAC has some 10 KiB.
const MAX_MESSAGE: usize = 256 * 1024;

/// Maximum nesting depth below a message, a few levels more than any response here has.
const MAX_DEPTH: usize = 8;
/// The tag of an LDAPMessage: a SEQUENCE (RFC 4511, 4.1.1).
const MESSAGE: u8 = 0x30;
/// Tag bit of a constructed element, which holds further elements (X.690, 8.1.2.5).
const CONSTRUCTED: u8 = 0x20;

/// The tag of a BindResponse (RFC 4511, 4.2.2).
pub const BIND_RESPONSE: u64 = 1;
/// The tag of a ModifyResponse (RFC 4511, 4.6).
pub const MODIFY_RESPONSE: u64 = 7;
/// The tag of an ExtendedResponse (RFC 4511, 4.12).
pub const EXTENDED_RESPONSE: u64 = 24;
/// The tags of a SearchResultEntry and a SearchResultDone (RFC 4511, 4.5.2).
const SEARCH_RESULT_ENTRY: u64 = 4;
const SEARCH_RESULT_DONE: u64 = 5;

/// The StartTLS operation (RFC 4511, 4.14.1).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// Reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server closed the connection without a response.
    #[error("the server closed the connection")]
    Closed,
    /// The connection ended within the server's answer.
    #[error("the connection was closed within the answer")]
    Truncated,
    /// The server says that it ends the connection (RFC 4511, 4.4.1).
    #[error("the server ended the connection (LDAP result {code}: {text})")]
    Notice {
        /// LDAP result code.
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The response is malformed.
    #[error("the server sent a malformed LDAP message")]
    Malformed,
}

/// A result (RFC 4511, 4.1.9), with what a BindResponse adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// LDAP result code.
    pub code: u32,
    /// The server's diagnostic message.
    pub text: String,
    /// `serverSaslCreds`.
    pub token: Option<Vec<u8>>,
}

/// A BindRequest with a password (RFC 4511, 4.2).
///
/// # Errors
/// Returns an error if the request cannot be encoded.
pub fn simple_bind(id: i64, dn: &str, password: &str) -> io::Result<Vec<u8>> {
    const BIND_REQUEST: u8 = 0x60;
    const OCTETS: u8 = 0x04;
    const SIMPLE: u8 = 0x80;
    /// LDAP's version 3, an INTEGER.
    const VERSION_3: [u8; 3] = [0x02, 0x01, 0x03];
    let mut number = Default::default();
    write::encode_into(&mut number, integer(id).into_structure())?;
    let bind = [VERSION_3.len(), ber::length_of(dn.len()), ber::length_of(password.len())];
    let bind = bind.into_iter().fold(0, usize::saturating_add);
    let whole = number.len().saturating_add(ber::length_of(bind));
    // The only copy of the password, and of its size from the start: growing would leave parts of it behind.
    let mut request = Vec::with_capacity(ber::length_of(whole));
    ber::begin(&mut request, MESSAGE, whole);
    request.extend_from_slice(&number);
    ber::begin(&mut request, BIND_REQUEST, bind);
    request.extend_from_slice(&VERSION_3);
    for (tag, value) in [(OCTETS, dn), (SIMPLE, password)] {
        ber::begin(&mut request, tag, value.len());
        request.extend_from_slice(value.as_bytes());
    }
    Ok(request)
}

/// A BindRequest with SASL credentials (RFC 4511, 4.2).
///
/// # Errors
/// Returns an error if the request cannot be encoded.
pub fn sasl_bind(id: i64, mechanism: &[u8], token: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let inner = std::iter::once(mechanism).chain(token).map(octets).collect();
    bind(id, "", Tag::Sequence(Sequence { id: 3, class: TagClass::Context, inner }))
}

/// A ModifyRequest by which `dn` changes its own password (MS-ADTS 3.1.1.3.1.5): the present value of
/// `unicodePwd` is deleted and the new one added at once, both in quotation marks and in UTF-16LE.
///
/// # Errors
/// Returns an error if the request cannot be encoded.
pub fn password_change(id: i64, dn: &str, present: &str, new: &str) -> io::Result<Vec<u8>> {
    const ADD: i64 = 0;
    const DELETE: i64 = 1;
    let change = |operation, password: &str| {
        let value = OctetString { inner: quoted(password), ..Default::default() };
        let values = Set { inner: vec![Tag::OctetString(value)], ..Default::default() };
        let attribute = sequence(vec![octets(b"unicodePwd"), Tag::Set(values)]);
        sequence(vec![enumerated(operation), attribute])
    };
    let changes = sequence(vec![change(DELETE, present), change(ADD, new)]);
    let inner = vec![octets(dn.as_bytes()), changes];
    message(id, Sequence { id: 6, class: TagClass::Application, inner })
}

/// A password as a value of `unicodePwd`. Of its size from the start: growing would leave copies behind.
fn quoted(password: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(password.len().saturating_add(2).saturating_mul(2));
    let units = std::iter::once(u16::from(b'"')).chain(password.encode_utf16()).chain([u16::from(b'"')]);
    value.extend(units.flat_map(u16::to_le_bytes));
    value
}

/// A request to speak TLS from the answer on (RFC 4511, 4.14).
///
/// # Errors
/// Returns an error if the request cannot be encoded.
pub fn start_tls(id: i64) -> io::Result<Vec<u8>> {
    let name = OctetString { id: 0, class: TagClass::Context, inner: START_TLS.to_vec() };
    message(id, Sequence { id: 23, class: TagClass::Application, inner: vec![Tag::OctetString(name)] })
}

/// A request for `attributes` of the rootDSE where `filter` matches it (RFC 4512, 5.1; RFC 4515).
///
/// # Errors
/// Returns an error if the request cannot be encoded, or if `filter` is not a filter.
pub fn root_search(id: i64, filter: &str, attributes: &[&str]) -> io::Result<Vec<u8>> {
    let filter = ldap3::parse_filter(filter).map_err(|()| io::Error::from(io::ErrorKind::InvalidInput))?;
    let names = attributes.iter().map(|name| octets(name.as_bytes())).collect();
    // Base object, base scope, aliases never followed, no limit of size or time, values and not only names.
    let inner = vec![
        octets(b""),
        enumerated(0),
        enumerated(0),
        integer(0),
        integer(0),
        Tag::Boolean(Boolean { inner: false, ..Default::default() }),
        filter,
        sequence(names),
    ];
    message(id, Sequence { id: 3, class: TagClass::Application, inner })
}

fn bind(id: i64, dn: &str, credentials: Tag) -> io::Result<Vec<u8>> {
    let inner = vec![integer(3), octets(dn.as_bytes()), credentials];
    message(id, Sequence { id: 0, class: TagClass::Application, inner })
}

fn message(id: i64, operation: Sequence) -> io::Result<Vec<u8>> {
    let inner = vec![integer(id), Tag::Sequence(operation)];
    let mut buffer = Default::default();
    write::encode_into(&mut buffer, Sequence { inner, ..Default::default() }.into_structure())?;
    Ok(buffer.to_vec())
}

fn octets(bytes: &[u8]) -> Tag {
    Tag::OctetString(OctetString { inner: bytes.to_vec(), ..Default::default() })
}

fn integer(inner: i64) -> Tag {
    Tag::Integer(Integer { inner, ..Default::default() })
}

fn enumerated(inner: i64) -> Tag {
    Tag::Enumerated(Enumerated { inner, ..Default::default() })
}

fn sequence(inner: Vec<Tag>) -> Tag {
    Tag::Sequence(Sequence { inner, ..Default::default() })
}

/// Sends `request`, whose message id is `id`, and waits for its answer of the kind `tag`. Nothing else may be
/// under way on the connection.
///
/// # Errors
/// Returns [`ExchangeError`] if no valid response arrives. The connection must not be used any more then.
pub async fn exchange<S>(
    stream: &mut S,
    id: i64,
    request: Vec<u8>,
    tag: u64,
) -> Result<Response, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, request).await?;
    let mut buffer = Vec::new();
    let message = receive(stream, &mut buffer).await?;
    answer(message, id, tag, buffer.is_empty())
}

/// Sends `request`, whose message id is `id`, and waits for the one entry that it finds and its end.
///
/// # Errors
/// Returns [`ExchangeError`] if no valid response arrives. The connection must not be used any more then.
pub async fn search_one<S>(stream: &mut S, id: i64, request: Vec<u8>) -> Result<StructureTag, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, request).await?;
    let mut buffer = Vec::new();
    let entry = entry(receive(stream, &mut buffer).await?, id)?;
    let done = receive(stream, &mut buffer).await?;
    answer(done, id, SEARCH_RESULT_DONE, buffer.is_empty())?;
    Ok(entry)
}

/// The entry in a datagram that answers the request `id` (MS-ADTS 6.3.3: LDAP over UDP, all in one datagram).
///
/// # Errors
/// Returns [`ExchangeError`] if the datagram holds no entry.
pub fn entry_of_datagram(datagram: &[u8], id: i64) -> Result<StructureTag, ExchangeError> {
    let (_, message) = first(datagram)?.ok_or(ExchangeError::Malformed)?;
    entry(message, id)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: Vec<u8>) -> io::Result<()> {
    stream.write_all(&request).await?;
    stream.flush().await
}

/// Takes one message from the front of `buffer`, reading on until it is whole.
async fn receive<S>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<StructureTag, ExchangeError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some((length, message)) = first(buffer)? {
            buffer.drain(..length);
            return Ok(message);
        }
        match stream.read_buf(buffer).await {
            Ok(read) if read > 0 => {}
            _ if !buffer.is_empty() => return Err(ExchangeError::Truncated),
            Ok(_) => return Err(ExchangeError::Closed),
            // TLS without its own goodbye.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(ExchangeError::Closed),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The message that `buffer` begins with, once it is whole, and its length.
pub(crate) fn first(buffer: &[u8]) -> Result<Option<(usize, StructureTag)>, ExchangeError> {
    match length(buffer)? {
        Some(length) if buffer.len() >= length => {
            let (_, message) = parse_tag(buffer).map_err(|_| ExchangeError::Malformed)?;
            Ok(Some((length, message)))
        }
        _ => Ok(None),
    }
}

/// The length of the message that `buffer` begins with, once it is known. The parser asks for more where a
/// part is longer than the whole, and calls itself for each level: so it gets no such message.
fn length(buffer: &[u8]) -> Result<Option<usize>, ExchangeError> {
    let Some((header, content)) = ber::header(buffer).map_err(|_| ExchangeError::Malformed)? else {
        return Ok(None);
    };
    let length = header.checked_add(content).ok_or(ExchangeError::Malformed)?;
    let is_sound = || buffer.get(header..length).is_none_or(|content| is_sound(content, MAX_DEPTH));
    if buffer.first() == Some(&MESSAGE) && length <= MAX_MESSAGE && is_sound() {
        Ok(Some(length))
    } else {
        Err(ExchangeError::Malformed)
    }
}

/// Returns true if `content` consists of whole elements, nested at most `levels` deep.
fn is_sound(mut content: &[u8], levels: usize) -> bool {
    while let Some(tag) = content.first() {
        let Ok(Some((header, length))) = ber::header(content) else { return false };
        let element = header.checked_add(length).and_then(|end| content.split_at_checked(end));
        let Some((inner, rest)) = element.and_then(|(element, rest)| Some((element.get(header..)?, rest)))
        else {
            return false;
        };
        let is_simple = tag & CONSTRUCTED == 0;
        if !is_simple && !levels.checked_sub(1).is_some_and(|levels| is_sound(inner, levels)) {
            return false;
        }
        content = rest;
    }
    true
}

/// The entry in a message that answers the request `id`.
fn entry(message: StructureTag, id: i64) -> Result<StructureTag, ExchangeError> {
    if let PL::C(fields) = &message.payload
        && let [answered, operation, ..] = fields.as_slice()
        && number(answered.clone()).map(i64::from) == Some(id)
        && (operation.class, operation.id) == (TagClass::Application, SEARCH_RESULT_ENTRY)
    {
        return Ok(operation.clone());
    }
    // Not an entry, but perhaps a reason.
    answer(message, id, SEARCH_RESULT_DONE, true).and(Err(ExchangeError::Malformed))
}

pub(crate) fn answer(
    message: StructureTag,
    id: i64,
    tag: u64,
    alone: bool,
) -> Result<Response, ExchangeError> {
    match parse(message) {
        Some((0, EXTENDED_RESPONSE, Response { code, text, .. })) => {
            Err(ExchangeError::Notice { code, text })
        }
        // Nothing may follow: the server has nothing to say before it is asked.
        Some((answered, kind, response)) if (i64::from(answered), kind, alone) == (id, tag, true) => {
            Ok(response)
        }
        _ => Err(ExchangeError::Malformed),
    }
}

/// Message id, tag and result of an LDAPMessage that holds a result.
fn parse(message: StructureTag) -> Option<(u32, u64, Response)> {
    let mut fields = message.expect_constructed()?.into_iter();
    let id = number(fields.next()?)?;
    let operation = fields.next()?;
    let kind = (operation.class == TagClass::Application).then_some(operation.id)?;
    let mut fields = operation.expect_constructed()?.into_iter();
    let code = number(fields.next()?)?;
    let _matched = fields.next()?;
    let text = String::from_utf8_lossy(&fields.next()?.expect_primitive()?).trim_end_matches('\0').to_owned();
    let token = fields.find(|tag| (tag.class, tag.id) == (TagClass::Context, 7));
    Some((id, kind, Response { code, text, token: token.and_then(StructureTag::expect_primitive) }))
}

fn number(tag: StructureTag) -> Option<u32> {
    match tag.payload {
        PL::P(bytes) if (1..=4).contains(&bytes.len()) => {
            Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_one_buffer_of_the_right_size_as_the_library_writes_it() {
        for (id, dn, password) in
            [(1, 1, 1), (127, 100, 20), (128, 127, 128), (65_535, 255, 256), (70_000, 2048, 1024)]
        {
            let (dn, password) = ("d".repeat(dn), "p".repeat(password));
            let request = simple_bind(id, &dn, &password).unwrap();
            assert_eq!(request.capacity(), request.len());
            let simple = OctetString { id: 0, class: TagClass::Context, inner: password.as_bytes().to_vec() };
            assert_eq!(request, bind(id, &dn, Tag::OctetString(simple)).unwrap());
        }
    }

    #[test]
    fn requests_byte_by_byte() {
        let sasl = b"\x30\x17\x02\x01\x01\x60\x12\x02\x01\x03\x04\x00\xa3\x0b\x04\x06GSSAPI\x04\x01T";
        assert_eq!(sasl_bind(1, b"GSSAPI", Some(b"T")).unwrap(), sasl);
        let simple = b"\x30\x11\x02\x01\x02\x60\x0c\x02\x01\x03\x04\x04CN=x\x80\x01p";
        assert_eq!(simple_bind(2, "CN=x", "p").unwrap(), simple);
        let tls = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
        assert_eq!(start_tls(1).unwrap(), tls);
        let change = b"\x30\x47\x02\x01\x03\x66\x42\x04\x04CN=x\x30\x3a\
            \x30\x1b\x0a\x01\x01\x30\x16\x04\x0aunicodePwd\x31\x08\x04\x06\"\0\xfc\0\"\0\
            \x30\x1b\x0a\x01\x00\x30\x16\x04\x0aunicodePwd\x31\x08\x04\x06\"\0n\0\"\0";
        assert_eq!(password_change(3, "CN=x", "ü", "n").unwrap(), change);
    }

    fn read(bytes: &[u8], id: i64) -> Result<Response, ExchangeError> {
        let (rest, message) = parse_tag(bytes).unwrap();
        answer(message, id, BIND_RESPONSE, rest.is_empty())
    }

    #[test]
    fn responses() {
        let progress = b"\x30\x10\x02\x01\x02\x61\x0b\x0a\x01\x0e\x04\x00\x04\x00\x87\x02ab";
        assert_eq!(
            read(progress, 2).unwrap(),
            Response { code: 14, text: "".into(), token: Some(b"ab".to_vec()) }
        );
        let refused = b"\x30\x0f\x02\x01\x02\x61\x0a\x0a\x01\x31\x04\x00\x04\x03no\0";
        assert_eq!(read(refused, 2).unwrap(), Response { code: 49, text: "no".into(), token: None });
        // A password policy control after the result changes nothing about it.
        let with_control = b"\x30\x2b\x02\x01\x02\x61\x07\x0a\x01\x31\x04\x00\x04\x00\
            \xa0\x1d\x30\x1b\x04\x191.3.6.1.4.1.42.2.27.8.5.1";
        assert_eq!(read(with_control, 2).unwrap(), Response { code: 49, text: "".into(), token: None });
    }

    #[test]
    fn what_is_no_answer() {
        let progress = b"\x30\x10\x02\x01\x02\x61\x0b\x0a\x01\x0e\x04\x00\x04\x00\x87\x02ab";
        let more = [&progress[..], &progress[..]].concat();
        for (bytes, id) in [
            (&progress[..], 3),
            (&more, 2),
            (b"\x30\x05\x02\x01\x02\x61\x00", 2),
            (b"\x30\x00", 2),
            (b"\x04\x00", 2),
            // A response of another kind.
            (b"\x30\x0c\x02\x01\x02\x65\x07\x0a\x01\x00\x04\x00\x04\x00", 2),
        ] {
            assert!(matches!(read(bytes, id), Err(ExchangeError::Malformed)), "{bytes:?}");
        }
        let notice = b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00";
        assert!(matches!(read(notice, 2), Err(ExchangeError::Notice { code: 52, .. })));
    }

    #[test]
    fn a_question_to_the_root() {
        let request = root_search(7, "(a=b)", &["x"]).unwrap();
        let expected =
            b"\x30\x23\x02\x01\x07\x63\x1e\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\
                         \x01\x01\x00\xa3\x06\x04\x01a\x04\x01b\x30\x03\x04\x01x";
        assert_eq!(request, expected);
        assert!(root_search(1, "((", &[]).is_err());
    }

    const ENTRY: &[u8] = b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00";
    const DONE: &[u8] = b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00";

    async fn found(answer: &[u8]) -> Result<StructureTag, ExchangeError> {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(answer).await.unwrap();
        drop(far.shutdown().await);
        search_one(&mut near, 1, root_search(1, "(objectClass=*)", &[]).unwrap()).await
    }

    #[tokio::test]
    async fn one_entry_and_its_end() {
        assert_eq!(found(&[ENTRY, DONE].concat()).await.unwrap().id, SEARCH_RESULT_ENTRY);
        for wrong in [DONE.to_vec(), [ENTRY, ENTRY].concat(), [ENTRY, DONE, DONE].concat()] {
            assert!(matches!(found(&wrong).await, Err(ExchangeError::Malformed)), "{wrong:?}");
        }
        assert!(matches!(found(ENTRY).await, Err(ExchangeError::Closed)));
        let notice = b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00";
        assert!(matches!(found(notice).await, Err(ExchangeError::Notice { code: 52, .. })));
        assert_eq!(entry_of_datagram(&[ENTRY, DONE].concat(), 1).unwrap().id, SEARCH_RESULT_ENTRY);
        assert!(entry_of_datagram(b"\x30", 1).is_err());
    }

    #[test]
    fn a_message_is_known_by_its_first_bytes_and_parsed_only_where_that_is_harmless() {
        let levels =
            |count| (0..count).fold(Vec::new(), |inner, _| [&[0x30, inner.len() as u8], &inner[..]].concat());
        for (bytes, expected) in [
            (&b""[..], Some(None)),
            (b"\x30", Some(None)),
            (b"\x30\x84\0\0\0", Some(None)),
            (b"\x30\x84\0\0\0\x05", Some(Some(11))),
            (b"\x30\x05\x02\x01\x07\x61\0", Some(Some(7))),
            (b"\x30\x02\x02\0\x30\x7f", Some(Some(4))),
            (&levels(1 + MAX_DEPTH), Some(Some(2 + 2 * MAX_DEPTH))),
            (&levels(2 + MAX_DEPTH), None),
            // A part that is longer than the whole.
            (b"\x30\x05\x02\x01\x07\x61\x01", None),
            (b"\x30\x05\x02\x01\x07\x61\x84", None),
            // Of the indefinite form; of a length that no message has; no sequence.
            (b"\x30\x80", None),
            (b"\x30\x85\0\0\0\0\x01", None),
            (b"\x30\x84\x80\0\0\0", None),
            (b"HTTP", None),
        ] {
            assert_eq!(length(bytes).ok(), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn answers_may_come_in_pieces_but_not_without_end() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let mut request = vec![0; 19];
            far.read_exact(&mut request).await.unwrap();
            for byte in b"\x30\x0f\x02\x01\x01\x61\x0a\x0a\x01\x31\x04\x00\x04\x03no\0" {
                far.write_all(&[*byte]).await.unwrap();
            }
            far
        });
        let request = simple_bind(1, "CN=x", "p").unwrap();
        assert_eq!(exchange(&mut near, 1, request, BIND_RESPONSE).await.unwrap().code, 49);
        let mut far = server.await.unwrap();
        let endless = tokio::spawn(async move {
            far.write_all(b"\x30\x84\x7f\xff\xff\xff").await.unwrap();
            while far.write_all(&[0; 1024]).await.is_ok() {}
        });
        let request = simple_bind(2, "CN=x", "p").unwrap();
        let error = exchange(&mut near, 2, request, BIND_RESPONSE).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Malformed), "{error}");
        drop(near);
        endless.await.unwrap();
    }
}
