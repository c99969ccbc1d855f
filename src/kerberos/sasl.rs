//! The SASL bind with mechanism GSSAPI (RFC 4752) on a fresh LDAP connection.
//!
//! Three BindRequests (RFC 4511, 4.2): the Kerberos token; an empty one after the server has proved itself;
//! and our choice of security layer, which is always confidentiality.

use ldap3::asn1::{
    ASNTag, Integer, OctetString, PL, Sequence, StructureTag, Tag, TagClass, parse_tag, write,
};
use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::blocking::blocking;
use super::sealing::{MAX_TOKEN, TransportError};
use super::{Credential, KerberosError};

/// The longest LDAP message of the bind; a Kerberos token with a large PAC has some 10 KiB.
const MAX_MESSAGE: usize = 256 * 1024;

/// The confidentiality layer's bit (RFC 4752, 3.3).
const CONFIDENTIALITY: u8 = 4;

/// LDAP result codes (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;
const SASL_BIND_IN_PROGRESS: u32 = 14;

/// Everything without which the connection is refused.
const FLAGS: CtxFlags = CtxFlags::GSS_C_MUTUAL_FLAG
    .union(CtxFlags::GSS_C_SEQUENCE_FLAG)
    .union(CtxFlags::GSS_C_REPLAY_FLAG)
    .union(CtxFlags::GSS_C_INTEG_FLAG)
    .union(CtxFlags::GSS_C_CONF_FLAG);

/// What the bind has established.
pub(super) struct Bound {
    pub(super) context: ClientCtx,
    /// The longest token that the server accepts.
    pub(super) max_send: usize,
    /// When the context ends, with its ticket.
    pub(super) expires: Instant,
}

/// Binds `stream` as the machine to the LDAP service of `host`.
///
/// The service's principal is built from `host` as it is given. GSSAPI's host-based names would ask DNS for
/// another name, and DNS is not to be trusted with the question who the server is.
pub(super) async fn bind<S>(
    stream: &mut S,
    host: &str,
    credential: &Credential,
    deadline: Instant,
) -> Result<Bound, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_principal(host, credential.realm())?;
    let failed = {
        let (principal, service) = (credential.principal().to_owned(), service.clone());
        move |e: &_| KerberosError::from_gss(e, &principal, &service)
    };

    let first = {
        let (cred, failed) = (credential.cred.clone(), failed.clone());
        blocking(deadline, move || {
            let target =
                Name::new(service.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL)).map_err(|e| failed(&e))?;
            let mut context = ClientCtx::new(Some(cred), target, FLAGS, Some(GSS_MECH_KRB5));
            let token = context.step(None, None).map_err(|e| failed(&e))?;
            Ok::<_, KerberosError>((context, token))
        })
    };
    let (mut context, token) = first.await??;
    let token = token.ok_or(TransportError::Protocol("GSSAPI gave no first token"))?;

    let reply = exchange(stream, 1, Some(&token)).await?.in_progress()?;
    // Nobody is asked for this step: it checks the server's proof, which came with the reply.
    let rest = context.step(Some(&reply), None).map_err(|e| failed(&e))?;
    if !context.is_complete() || rest.is_some_and(|token| !token.is_empty()) {
        return Err(TransportError::Protocol("GSSAPI wants a further token"));
    }
    let flags = context.flags().map_err(|e| failed(&e))?;
    if !flags.contains(FLAGS) {
        return Err(TransportError::Protocol("the security context lacks mutual proof, order or sealing"));
    }

    let offer = exchange(stream, 2, Some(&[])).await?.in_progress()?;
    let offer = context.unwrap(&offer).map_err(|e| failed(&e))?;
    let max_send = accept(&offer)?;
    // Our choice and the longest token that we accept; no authorization identity: it is the machine itself.
    let [_, a, b, c] = MAX_TOKEN.to_be_bytes();
    let choice = context.wrap(false, &[CONFIDENTIALITY, a, b, c]).map_err(|e| failed(&e))?;
    exchange(stream, 3, Some(&choice)).await?.success()?;

    let lifetime = context.lifetime().map_err(|e| failed(&e))?;
    Ok(Bound { context, max_send, expires: Instant::now() + lifetime })
}

/// `ldap/HOST@REALM`, in which `host` cannot smuggle a part of its own.
fn service_principal(host: &str, realm: &str) -> Result<String, TransportError> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(TransportError::Protocol("the domain controller's name is no host name"));
    }
    Ok(format!("ldap/{host}@{realm}"))
}

/// The server's offer (RFC 4752, 3.1): a byte of layers and three of the longest token it accepts.
fn accept(offer: &[u8]) -> Result<usize, TransportError> {
    let &[layers, a, b, c] = offer else {
        return Err(TransportError::Protocol("the offer of security layers is malformed"));
    };
    if layers & CONFIDENTIALITY == 0 {
        return Err(TransportError::Protocol("the server offers no confidentiality"));
    }
    usize::try_from(u32::from_be_bytes([0, a, b, c]))
        .map_err(|_| TransportError::Protocol("the offer of security layers is malformed"))
}

/// One BindResponse.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    code: u32,
    text: String,
    token: Option<Vec<u8>>,
}

impl Response {
    fn in_progress(self) -> Result<Vec<u8>, TransportError> {
        match self {
            Response { code: SASL_BIND_IN_PROGRESS, token: Some(token), .. } => Ok(token),
            Response { code: SASL_BIND_IN_PROGRESS | SUCCESS, .. } => {
                Err(TransportError::Protocol("the server ended the bind too early"))
            }
            Response { code, text, .. } => Err(TransportError::Refused { code, text }),
        }
    }

    fn success(self) -> Result<(), TransportError> {
        match self.code {
            SUCCESS => Ok(()),
            code => Err(TransportError::Refused { code, text: self.text }),
        }
    }
}

async fn exchange<S>(stream: &mut S, id: i64, token: Option<&[u8]>) -> Result<Response, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&request(id, token)?).await?;
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(TransportError::Protocol("the server closed the connection during the bind"));
        }
        match parse_tag(&buffer) {
            // Nothing may follow: the server has nothing to say before it is asked.
            Ok(([], message)) => {
                return response(message, id).ok_or(TransportError::Protocol("a malformed BindResponse"));
            }
            Err(e) if e.is_incomplete() && buffer.len() <= MAX_MESSAGE => {}
            _ => return Err(TransportError::Protocol("a malformed LDAP message during the bind")),
        }
    }
}

/// A BindRequest with SASL credentials (RFC 4511, 4.2).
fn request(id: i64, token: Option<&[u8]>) -> Result<Vec<u8>, TransportError> {
    let text = |inner: &[u8]| Tag::OctetString(OctetString { inner: inner.to_vec(), ..Default::default() });
    let number = |inner| Tag::Integer(Integer { inner, ..Default::default() });
    let mut sasl = vec![text(b"GSSAPI")];
    sasl.extend(token.map(text));
    let bind = Sequence {
        id: 0,
        class: TagClass::Application,
        inner: vec![
            number(3),
            text(b""),
            Tag::Sequence(Sequence { id: 3, class: TagClass::Context, inner: sasl }),
        ],
    };
    let message = Sequence { inner: vec![number(id), Tag::Sequence(bind)], ..Default::default() };
    let mut buffer = Default::default();
    write::encode_into(&mut buffer, message.into_structure())?;
    Ok(buffer.to_vec())
}

/// Decodes an LDAPMessage that holds the BindResponse to message `id` (RFC 4511, 4.2.2).
fn response(message: StructureTag, id: i64) -> Option<Response> {
    let mut fields = message.expect_constructed()?.into_iter();
    if number(fields.next()?)? != u32::try_from(id).ok()? {
        return None;
    }
    let bind = fields.next()?;
    if (bind.class, bind.id) != (TagClass::Application, 1) {
        return None;
    }
    let mut fields = bind.expect_constructed()?.into_iter();
    let code = number(fields.next()?)?;
    let _matched = fields.next()?;
    let text = String::from_utf8_lossy(&fields.next()?.expect_primitive()?).trim_end_matches('\0').to_owned();
    let token = fields.find(|tag| (tag.class, tag.id) == (TagClass::Context, 7));
    Some(Response { code, text, token: token.and_then(StructureTag::expect_primitive) })
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
    fn a_bind_request_byte_by_byte() {
        let expected = b"\x30\x17\x02\x01\x01\x60\x12\x02\x01\x03\x04\x00\xa3\x0b\x04\x06GSSAPI\x04\x01T";
        assert_eq!(request(1, Some(b"T")).unwrap(), expected);
    }

    fn parsed(bytes: &[u8], id: i64) -> Option<Response> {
        response(parse_tag(bytes).unwrap().1, id)
    }

    #[test]
    fn bind_responses() {
        let progress = b"\x30\x10\x02\x01\x02\x61\x0b\x0a\x01\x0e\x04\x00\x04\x00\x87\x02ab";
        let response = parsed(progress, 2).unwrap();
        assert_eq!(response.in_progress().unwrap(), b"ab");
        let refused = b"\x30\x0f\x02\x01\x02\x61\x0a\x0a\x01\x31\x04\x00\x04\x03no\0";
        let error = parsed(refused, 2).unwrap().in_progress().unwrap_err();
        assert!(matches!(error, TransportError::Refused { code: 49, ref text } if text == "no"), "{error}");
        assert_eq!(parsed(progress, 3), None);
        assert_eq!(parsed(b"\x30\x05\x02\x01\x02\x61\x00", 2), None);
        assert_eq!(parsed(b"\x30\x00", 2), None);
        assert_eq!(parsed(b"\x04\x00", 2), None);
    }

    #[test]
    fn a_bind_that_ends_without_a_layer_is_no_success() {
        let success = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
        assert!(parsed(success, 1).unwrap().in_progress().is_err());
    }

    #[test]
    fn nothing_less_than_confidentiality_is_accepted() {
        assert_eq!(accept(&[7, 0, 0xff, 0xff]).unwrap(), 0xffff);
        assert_eq!(accept(&[4, 1, 0, 0]).unwrap(), 0x1_0000);
        for offer in
            [&[3, 0, 0xff, 0xff][..], &[1, 0, 0, 0], &[0, 0, 0, 0], &[4, 0, 0], &[4, 0, 0, 0, 0], &[]]
        {
            assert!(accept(offer).is_err(), "{offer:?}");
        }
    }

    #[test]
    fn a_host_name_cannot_name_another_service() {
        assert_eq!(service_principal("AD.acme.com.", "ACME.COM").unwrap(), "ldap/ad.acme.com@ACME.COM");
        for host in ["", ".", "a/b", "a@EVIL", "a b", "a\\b"] {
            assert!(service_principal(host, "ACME.COM").is_err(), "{host}");
        }
    }

    #[tokio::test]
    async fn answers_may_come_in_pieces_but_not_without_end() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let mut request = vec![0; 25];
            far.read_exact(&mut request).await.unwrap();
            for byte in b"\x30\x10\x02\x01\x01\x61\x0b\x0a\x01\x0e\x04\x00\x04\x00\x87\x02ab" {
                far.write_all(&[*byte]).await.unwrap();
            }
            far
        });
        assert_eq!(exchange(&mut near, 1, Some(b"T")).await.unwrap().in_progress().unwrap(), b"ab");
        let mut far = server.await.unwrap();
        let endless = tokio::spawn(async move {
            far.write_all(b"\x30\x84\x7f\xff\xff\xff").await.unwrap();
            while far.write_all(&[0; 1024]).await.is_ok() {}
        });
        assert!(exchange(&mut near, 2, Some(b"T")).await.is_err());
        drop(near);
        endless.await.unwrap();
    }
}
