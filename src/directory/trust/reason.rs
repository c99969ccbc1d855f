//! Explains in one sentence why a certificate or a handshake is rejected, and the fix.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P521, OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_RSASSAPSS,
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

/// Minimum length of an RSA key, in bits.
const RSA: usize = 2048;

/// Advice on the certificates of domain controllers.
const GOOD: &str =
    "issue one with an RSA key of 2048 bits or more, or on P-256 or P-384, signed with SHA-256";

/// The reason for a rejected certificate, if rustls gives too little detail.
#[derive(Debug)]
pub(super) struct Flawed(String);

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Flawed {}

/// Replaces `error` by the flaw of one of `certificates`, if that explains it.
pub(super) fn explained<'a>(
    error: Error,
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Error {
    let is_vague = match &error {
        #[allow(deprecated)]
        Error::InvalidCertificate(error) => matches!(
            error,
            CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithm
                | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
                | CertificateError::Other(_)
        ),
        Error::PeerIncompatible(_) => true,
        _ => false,
    };
    match is_vague.then(|| certificates.into_iter().find_map(|certificate| flaw(certificate))).flatten() {
        Some(text) => Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Flawed(text))))),
        None => error,
    }
}

/// Returns the flaw of a certificate that the TLS library rejects, whatever its issuer.
pub(crate) fn flaw(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let whose = parsed.subject();
    let key = parsed.public_key();
    let is_curve = |curve: Oid<'_>| {
        let parameters = key.algorithm.parameters.as_ref();
        key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && parameters.and_then(|any| any.as_oid().ok()).is_some_and(|oid| oid == curve)
    };
    let signature = &parsed.signature_algorithm.algorithm;
    let is = |oids: &[Oid<'_>]| oids.contains(signature);
    // TLS clients do not verify a root's signature on itself.
    let is_root = parsed.subject() == parsed.issuer();
    let what = match key.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < RSA => {
            format!("its RSA key has {} bits, fewer than {RSA}", key.key_size())
        }
        _ if key.algorithm.algorithm == OID_PKCS1_RSASSAPSS => "its key is for RSASSA-PSS alone".to_owned(),
        _ if is_curve(OID_NIST_EC_P521) => "its key is on the curve P-521".to_owned(),
        _ if is_root => return (parsed.is_ca()).then(|| as_end_entity(&parsed)),
        _ if is(&[OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA]) => "it is signed with SHA-1".to_owned(),
        _ if is(&[OID_PKCS1_MD5WITHRSAENC]) => "it is signed with MD5".to_owned(),
        _ if is(&[OID_PKCS1_RSASSAPSS]) => "it is signed with an unusual form of RSASSA-PSS".to_owned(),
        _ if is(&[OID_SIG_ECDSA_WITH_SHA512]) => "it is signed with SHA-512 and ECDSA".to_owned(),
        _ if parsed.version() != X509Version::V3 => {
            "it is of version 1, which has no subjectAltName".to_owned()
        }
        _ if parsed.is_ca() => return Some(as_end_entity(&parsed)),
        _ => return None,
    };
    Some(format!("{whose}: {what}; {GOOD}"))
}

fn as_end_entity(certificate: &X509Certificate<'_>) -> String {
    format!(
        "{}: a certificate of a CA (CA:TRUE) is used as a server's certificate; issue one with CA:FALSE, or \
         name exactly this one in the file of tls.ca_file",
        certificate.subject()
    )
}

/// Returns true if `certificate` is a CA's.
pub(crate) fn is_ca(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.is_ca())
}

/// Judges a certificate that the administrator named directly, by the criteria that need no issuer: its time
/// and its purpose.
///
/// # Errors
/// Returns rustls' error for the violated criterion.
pub(crate) fn judge_named(certificate: &[u8], now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Expired)?;
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    let purposes = parsed.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    match purposes {
        Some(purposes) if !purposes.value.server_auth && !purposes.value.any => {
            Err(CertificateError::InvalidPurpose)
        }
        _ => Ok(()),
    }
}

/// Explains why `error` makes a certificate untrusted; the text follows "its certificate is not valid: ".
pub(super) fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => not_for(expected, presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; compare the clocks".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made for servers; issue one with the extended key usage serverAuth".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            format!("it is signed in a way that is not supported; {GOOD}")
        }
        CertificateError::Other(OtherError(error)) => error.to_string(),
        error => error.to_string(),
    }
}

fn not_for(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected = expected.to_str();
    // In rustls' notation: DnsName("ad.acme.com").
    let name = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    let cure = format!("issue one whose subjectAltName has DNS:{expected}");
    match presented {
        [] => format!("it has no subjectAltName, so it names no host; {cure}"),
        names => {
            let names = names.iter().map(name).collect::<Vec<_>>().join(", ");
            format!("it is for {names}, not for {expected}; {cure}")
        }
    }
}

/// Explains a failed handshake that says nothing about a certificate; the text follows the error.
pub fn of_handshake(error: &io::Error) -> Option<&'static str> {
    const VERSION: &str =
        "the domain controller offers neither TLS 1.2 nor TLS 1.3; switch one of them on there";
    const NOTHING_COMMON: &str = "the domain controller has no cipher or signature in common with this host: \
        let it offer ECDHE with AES-GCM, and a certificate with an RSA key of 2048 bits or more, or on P-256 \
        or P-384 (P-521, RSASSA-PSS keys and CBC ciphers are not supported)";
    const BROKEN_OFF: &str = "the domain controller broke the handshake off: it has no certificate or one \
        with an unsupported key (P-521, RSASSA-PSS), or offers neither TLS 1.2 nor TLS 1.3 with AES-GCM";
    let of = |error: &Error| match error {
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => Some(VERSION),
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity)
        | Error::PeerIncompatible(_) => Some(NOTHING_COMMON),
        _ => None,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of(error),
        None => (error.kind() == io::ErrorKind::UnexpectedEof).then_some(BROKEN_OFF),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn data(name: &str) -> CertificateDer<'static> {
        let path = format!("{}/tests/data/certificates/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        CertificateDer::from_pem_file(path).unwrap()
    }

    #[test]
    fn what_the_library_does_not_accept_is_named() {
        for (name, text) in [
            ("p521", "CN=ad.acme.com: its key is on the curve P-521; issue one with"),
            ("rsa1024", "CN=ad.acme.com: its RSA key has 1024 bits, fewer than 2048; issue one with"),
            ("sha1", "CN=ad.acme.com: it is signed with SHA-1; issue one with"),
            ("pss", "CN=ad.acme.com: its key is for RSASSA-PSS alone; issue one with"),
            (
                "self-signed",
                "CN=ad.acme.com: a certificate of a CA (CA:TRUE) is used as a server's certificate",
            ),
            ("version-1", "CN=ad.acme.com: it is of version 1"),
        ] {
            let vague = Error::InvalidCertificate(CertificateError::BadSignature);
            let Error::InvalidCertificate(error) = explained(vague, [&data(name)]) else { panic!("{name}") };
            let said = of_certificate(&error);
            assert!(said.starts_with(text), "{name}: {said}");
            assert!(said.len() < 200, "{said}");
        }
        // A clear error stays, and a good certificate is not blamed.
        for (error, name) in [
            (Error::InvalidCertificate(CertificateError::Expired), "sha1"),
            (Error::InvalidCertificate(CertificateError::BadSignature), "good"),
        ] {
            assert_eq!(explained(error.clone(), [&data(name)]), error);
        }
    }

    #[test]
    fn a_certificate_for_another_name_says_for_which() {
        let expected = ServerName::try_from("ad.acme.com").unwrap();
        let of = |presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            of_certificate(&CertificateError::NotValidForNameContext {
                expected: expected.clone(),
                presented,
            })
        };
        assert_eq!(
            of(&[]),
            "it has no subjectAltName, so it names no host; issue one whose subjectAltName has \
             DNS:ad.acme.com"
        );
        assert!(of(&["DnsName(\"acme.com\")"]).starts_with("it is for acme.com, not for ad.acme.com; "));
    }

    #[test]
    fn a_handshake_without_a_certificate_says_what_it_means() {
        let of = |error| of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error)).unwrap();
        assert!(of(Error::AlertReceived(AlertDescription::ProtocolVersion)).contains("neither TLS 1.2"));
        assert!(
            of(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
                .contains("neither TLS 1.2")
        );
        assert!(
            of(Error::AlertReceived(AlertDescription::HandshakeFailure)).contains("no cipher or signature")
        );
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(of_handshake(&eof).unwrap().contains("broke the handshake off"));
        assert_eq!(of_handshake(&io::Error::other("x")), None);
    }
}
