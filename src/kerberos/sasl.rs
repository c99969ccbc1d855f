//! The SASL bind with mechanism GSSAPI (RFC 4752) on a fresh LDAP connection.
//!
//! Three BindRequests (RFC 4511, 4.2): the Kerberos token; an empty one after the server has proved its
//! identity; and the choice of the security layer, which is always confidentiality.

use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::cpu;
use super::error::TransportError;
use super::exchange::Ended;
use super::{Credential, Kerberos, KerberosError};
use crate::ldap::{self, BIND_RESPONSE, Response};

/// Maximum length in bytes of a token that this side accepts and announces: the maximum of three bytes.
pub(super) const MAX_TOKEN: u32 = 0x00ff_ffff;

/// The confidentiality layer's bit (RFC 4752, 3.3).
const CONFIDENTIALITY: u8 = 4;
/// The bit for no security layer.
const NO_LAYER: u8 = 1;

/// LDAP result codes (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;
const STRONGER_AUTH_REQUIRED: u32 = 8;
const SASL_BIND_IN_PROGRESS: u32 = 14;

/// Required properties of the context; without any of them the connection is closed.
const FLAGS: CtxFlags = CtxFlags::GSS_C_MUTUAL_FLAG
    .union(CtxFlags::GSS_C_SEQUENCE_FLAG)
    .union(CtxFlags::GSS_C_REPLAY_FLAG)
    .union(CtxFlags::GSS_C_INTEG_FLAG)
    .union(CtxFlags::GSS_C_CONF_FLAG);

/// Result of a successful bind.
pub(super) struct Bound {
    pub(super) context: ClientCtx,
    /// Maximum length in bytes of a token that the server accepts.
    pub(super) max_send: usize,
    /// Time when the context ends, together with its ticket.
    pub(super) expires: Instant,
}

/// The LDAP service of a domain controller.
///
/// Its principal has three parts, `ldap/HOST/DOMAIN` or `GC/HOST/FOREST`. AD allows such a name only on the
/// account of a domain controller (MS-ADTS 3.1.1.5.3.1.1.4, MS-DRSR 2.2.4.2). Any computer account may have
/// `ldap/HOST` for its own host, so a ticket for two parts would only prove a member of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapService {
    /// DNS name of the domain controller.
    pub host: String,
    realm: String,
    class: &'static str,
    /// The data that it serves: the DNS name of its domain, or of the forest.
    holds: String,
}

impl LdapService {
    /// The service for `domain` at `host`.
    pub fn of_domain(host: &str, domain: &str) -> Self {
        LdapService {
            host: host.to_owned(),
            // AD's realms are its domain names in capitals (MS-KILE 3.1.5.7).
            realm: domain.to_uppercase(),
            class: "ldap",
            holds: domain.to_lowercase(),
        }
    }

    /// The global catalogue of `forest` at `host`, a domain controller of `domain`.
    pub fn of_catalogue(host: &str, domain: &str, forest: &str) -> Self {
        LdapService { class: "GC", holds: forest.to_lowercase(), ..LdapService::of_domain(host, domain) }
    }

    /// The same service at another host.
    pub fn at(&self, host: &str) -> Self {
        LdapService { host: host.to_owned(), ..self.clone() }
    }

    /// Returns the name of the service in Kerberos. Characters that could start another part are rejected.
    pub(crate) fn principal(&self) -> Result<String, TransportError> {
        let plain = |name: &str| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (!name.is_empty() && name.bytes().all(is_plain)).then_some(name)
        };
        match (plain(&self.host), plain(&self.holds)) {
            (Some(host), Some(holds)) => Ok(format!("{}/{host}/{holds}@{}", self.class, self.realm)),
            (None, _) => Err(TransportError::Protocol("the domain controller's name is no host name")),
            (_, None) => Err(TransportError::Protocol("the domain's name is no DNS name")),
        }
    }
}

/// The target of a bind, and the identity used for it.
pub(super) struct Peer<'a> {
    pub(super) service: &'a LdapService,
    pub(super) kerberos: &'a Kerberos,
    /// The machine's credential.
    pub(super) credential: &'a Credential,
    pub(super) deadline: Instant,
}

/// Binds `stream` as the machine account to the LDAP service of `peer`, a domain controller.
///
/// The service's principal uses its name as given. GSSAPI's host-based names would look up another name in
/// DNS, and DNS cannot be trusted to say which server it is.
pub(super) async fn bind<S>(stream: &mut S, peer: &Peer<'_>) -> Result<Bound, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut context, offer) = establish(stream, peer).await?;
    let max_send = accept(&offer)?;
    // The chosen layer and the longest accepted token. No authorization identity: the machine acts as itself.
    let [_, a, b, c] = MAX_TOKEN.to_be_bytes();
    success(choose(stream, &mut context, [CONFIDENTIALITY, a, b, c]).await?)?;
    let lifetime = context
        .lifetime()
        .map_err(|e| KerberosError::from_gss(&e, peer.credential.principal(), &peer.service.host))?;
    Ok(Bound { context, max_send, expires: Instant::now() + lifetime })
}

/// Returns true if the LDAP service of `peer` rejects a bind without a security layer, which it tries.
/// `stream` is unusable afterwards.
pub(super) async fn asks_to_sign<S>(stream: &mut S, peer: &Peer<'_>) -> Result<bool, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut context, offer) = establish(stream, peer).await?;
    if offer.first().is_none_or(|layers| layers & NO_LAYER == 0) {
        return Ok(true);
    }
    match choose(stream, &mut context, [NO_LAYER, 0, 0, 0]).await? {
        Response { code: STRONGER_AUTH_REQUIRED, .. } => Ok(true),
        other => success(other).map(|()| false),
    }
}

/// Establishes the security context, and returns it with the layers that the server offers.
async fn establish<S>(stream: &mut S, peer: &Peer<'_>) -> Result<(ClientCtx, Vec<u8>), TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let &Peer { service, kerberos, credential, deadline } = peer;
    let service = service.principal()?;
    let failed = {
        let (principal, service) = (credential.principal().to_owned(), service.clone());
        move |e: &_| KerberosError::from_gss(e, &principal, &service)
    };

    // With the ticket in the cache, GSSAPI has no reason to contact a KDC, which it would do without a
    // deadline.
    kerberos.service_ticket(credential, &service, deadline).await?;
    let first = {
        let (cred, failed) = (credential.tickets.cred.clone(), failed.clone());
        cpu::run(deadline, move || {
            let target =
                Name::new(service.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL)).map_err(|e| failed(&e))?;
            let mut context = ClientCtx::new(Some(cred), target, FLAGS, Some(GSS_MECH_KRB5));
            let token = context.step(None, None).map_err(|e| failed(&e))?;
            Ok::<_, KerberosError>((context, token))
        })
    };
    let unfinished = |u| Ended::from(u).error(credential.principal(), "");
    let (mut context, token) = first.await.map_err(unfinished)??;
    let token = token.ok_or(TransportError::Protocol("GSSAPI gave no first token"))?;

    let reply = in_progress(exchange(stream, 1, &token).await?)?;
    // This step sends nothing: it checks the server's proof, which came with the reply.
    let rest = context.step(Some(&reply), None).map_err(|e| failed(&e))?;
    if !context.is_complete() || rest.is_some_and(|token| !token.is_empty()) {
        return Err(TransportError::Protocol("GSSAPI wants a further token"));
    }
    let flags = context.flags().map_err(|e| failed(&e))?;
    if !flags.contains(FLAGS) {
        return Err(TransportError::Protocol("the security context lacks mutual proof, order or sealing"));
    }

    let offer = in_progress(exchange(stream, 2, &[]).await?)?;
    let offer = context.unwrap(&offer).map_err(|e| failed(&e))?.to_vec();
    Ok((context, offer))
}

/// Sends the chosen layer and the longest accepted token to the server.
async fn choose<S>(
    stream: &mut S,
    context: &mut ClientCtx,
    choice: [u8; 4],
) -> Result<Response, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let wrapped = context.wrap(false, &choice).map_err(|e| KerberosError::Other(e.to_string()))?;
    exchange(stream, 3, &wrapped).await
}

/// Reads the server's offer (RFC 4752, 3.1): one byte of layers and three bytes of the longest token it
/// accepts.
pub(crate) fn accept(offer: &[u8]) -> Result<usize, TransportError> {
    let &[layers, a, b, c] = offer else {
        return Err(TransportError::Protocol("the offer of security layers is malformed"));
    };
    if layers & CONFIDENTIALITY == 0 {
        return Err(TransportError::Protocol("the server offers no confidentiality"));
    }
    usize::try_from(u32::from_be_bytes([0, a, b, c]))
        .map_err(|_| TransportError::Protocol("the offer of security layers is malformed"))
}

pub(crate) fn in_progress(response: Response) -> Result<Vec<u8>, TransportError> {
    match response {
        Response { code: SASL_BIND_IN_PROGRESS, token: Some(token), .. } => Ok(token),
        Response { code: SASL_BIND_IN_PROGRESS | SUCCESS, .. } => {
            Err(TransportError::Protocol("the server ended the bind too early"))
        }
        Response { code, text, .. } => Err(TransportError::Refused { code, text }),
    }
}

fn success(Response { code, text, .. }: Response) -> Result<(), TransportError> {
    match code {
        SUCCESS => Ok(()),
        code => Err(TransportError::Refused { code, text }),
    }
}

async fn exchange<S>(stream: &mut S, id: i64, token: &[u8]) -> Result<Response, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = ldap::sasl_bind(id, b"GSSAPI", Some(token))?;
    Ok(ldap::exchange(stream, id, request, BIND_RESPONSE).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: u32, token: Option<&[u8]>) -> Response {
        Response { code, text: "no".into(), token: token.map(<[u8]>::to_vec) }
    }

    #[test]
    fn a_step_that_ends_without_a_layer_is_no_success() {
        assert_eq!(in_progress(response(14, Some(b"ab"))).unwrap(), b"ab");
        assert!(in_progress(response(14, None)).is_err());
        assert!(in_progress(response(0, Some(b"ab"))).is_err());
        let error = in_progress(response(49, None)).unwrap_err();
        assert!(matches!(error, TransportError::Refused { code: 49, ref text } if text == "no"), "{error}");
        assert!(success(response(14, None)).is_err());
        assert!(success(response(0, None)).is_ok());
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
    fn a_principal_has_three_parts_and_no_name_adds_another() {
        let of = |service: LdapService| service.principal();
        let domain = LdapService::of_domain("AD.acme.com.", "Acme.com");
        assert_eq!(of(domain).unwrap(), "ldap/ad.acme.com/acme.com@ACME.COM");
        let catalogue = LdapService::of_catalogue("dc.emea.acme.com", "emea.acme.com", "acme.com");
        assert_eq!(of(catalogue).unwrap(), "GC/dc.emea.acme.com/acme.com@EMEA.ACME.COM");
        for name in ["", ".", "a/b", "a@EVIL", "a b", "a\\b"] {
            assert!(of(LdapService::of_domain(name, "acme.com")).is_err(), "{name}");
            assert!(of(LdapService::of_catalogue("ad.acme.com", "acme.com", name)).is_err(), "{name}");
        }
    }
}
