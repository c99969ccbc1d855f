//! The first messages of an LDAP connection, byte by byte: binds and StartTLS (RFC 4511).
//!
//! Everything else goes through ldap3. Not these: its buffers keep what they sent for as long as the connection
//! lives, a user's password included, and its SASL layer loses messages. Here a message is one buffer that is
//! freed, and so wiped, as soon as it is sent.

use std::io;

use ldap3::asn1::{
    ASNTag, Integer, OctetString, PL, Sequence, StructureTag, Tag, TagClass, parse_tag, write,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest answer; that to a Kerberos token with a large PAC has some 10 KiB.
const MAX_MESSAGE: usize = 256 * 1024;

/// The tag of a BindResponse (RFC 4511, 4.2.2).
pub const BIND_RESPONSE: u64 = 1;
/// The tag of an ExtendedResponse (RFC 4511, 4.12).
pub const EXTENDED_RESPONSE: u64 = 24;

/// The StartTLS operation (RFC 4511, 4.14.1).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server closed the connection instead of an answer.
    #[error("the server closed the connection")]
    Closed,
    /// The server says that it ends the connection (RFC 4511, 4.4.1).
    #[error("the server ended the connection (LDAP result {code}: {text})")]
    Notice {
        /// LDAP result code.
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The answer is none.
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
/// It cannot be encoded.
pub fn simple_bind(id: i64, dn: &str, password: &str) -> io::Result<Vec<u8>> {
    let simple = OctetString { id: 0, class: TagClass::Context, inner: password.as_bytes().to_vec() };
    bind(id, dn, Tag::OctetString(simple))
}

/// A BindRequest with SASL credentials (RFC 4511, 4.2).
///
/// # Errors
/// It cannot be encoded.
pub fn sasl_bind(id: i64, mechanism: &[u8], token: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let inner = std::iter::once(mechanism).chain(token).map(octets).collect();
    bind(id, "", Tag::Sequence(Sequence { id: 3, class: TagClass::Context, inner }))
}

/// A request to speak TLS from the answer on (RFC 4511, 4.14).
///
/// # Errors
/// It cannot be encoded.
pub fn start_tls(id: i64) -> io::Result<Vec<u8>> {
    let name = OctetString { id: 0, class: TagClass::Context, inner: START_TLS.to_vec() };
    message(id, Sequence { id: 23, class: TagClass::Application, inner: vec![Tag::OctetString(name)] })
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

/// Sends `request`, whose message id is `id`, and waits for its answer of the kind `tag`. Nothing else may be under
/// way on the connection.
///
/// # Errors
/// There is no answer; then the connection is of no more use.
pub async fn exchange<S>(
    stream: &mut S,
    id: i64,
    request: Vec<u8>,
    tag: u64,
) -> Result<Response, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&request).await?;
    stream.flush().await?;
    drop(request);
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(ExchangeError::Closed);
        }
        match parse_tag(&buffer) {
            Ok((rest, message)) => return answer(message, id, tag, rest.is_empty()),
            Err(e) if e.is_incomplete() && buffer.len() <= MAX_MESSAGE => {}
            Err(_) => return Err(ExchangeError::Malformed),
        }
    }
}

fn answer(message: StructureTag, id: i64, tag: u64, alone: bool) -> Result<Response, ExchangeError> {
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
    fn requests_byte_by_byte() {
        let sasl = b"\x30\x17\x02\x01\x01\x60\x12\x02\x01\x03\x04\x00\xa3\x0b\x04\x06GSSAPI\x04\x01T";
        assert_eq!(sasl_bind(1, b"GSSAPI", Some(b"T")).unwrap(), sasl);
        let simple = b"\x30\x11\x02\x01\x02\x60\x0c\x02\x01\x03\x04\x04CN=x\x80\x01p";
        assert_eq!(simple_bind(2, "CN=x", "p").unwrap(), simple);
        let tls = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
        assert_eq!(start_tls(1).unwrap(), tls);
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
