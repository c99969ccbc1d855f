//! Verification of a domain controller's certificate: rustls' own, then revocation.
//!
//! rustls takes the first CRL whose issuer has the right name, and rejects every certificate if that list's
//! signature does not match. But a CA that was renewed with a new key publishes two CRLs under one name, and
//! an unusable list is no reason to reject users. So each list is checked separately, and only a certificate
//! on one of them is rejected.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::points::{Points, Presented};
use super::{list, reason};

/// Verifies against a set of roots and CRLs.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// `None` without any root: then every certificate is rejected.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The same chain again for each CRL.
    revocation: Vec<Arc<WebPkiServerVerifier>>,
    /// Certificates that the administrator named in `tls.ca_file`.
    named: Arc<Vec<CertificateDer<'static>>>,
    /// The distribution points of CRLs that certificates of domain controllers name.
    points: Arc<Points>,
    /// Receives the certificate under verification, so that the caller can explain a rejection.
    shown: Option<Shown>,
}

impl Verifier {
    /// Creates a verifier that trusts certificates issued below `roots`, and adds their distribution points
    /// to `points`.
    pub(crate) fn new(roots: Arc<RootCertStore>, points: Arc<Points>) -> Self {
        let provider = provider();
        // Without CRLs, this fails only if there are no roots.
        let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().ok();
        let (named, revocation) = (Arc::default(), Vec::new());
        Verifier { roots, provider, chain, revocation, named, points, shown: None }
    }

    /// Additionally trusts a server that proves to have the key of one of `named`, even if that is a CA's
    /// certificate.
    pub(super) fn naming(self, named: Arc<Vec<CertificateDer<'static>>>) -> Self {
        Verifier { named, ..self }
    }

    /// Judges a self-signed certificate of a CA (as `openssl req -x509` makes it) that a server shows as its
    /// own. The administrator named this very certificate, so no other issuer has to vouch for it.
    fn judge_named(
        &self,
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<ServerCertVerified, Error>> {
        let is_named = self.named.iter().any(|named| named == end_entity) && reason::is_ca(end_entity);
        let judge = || {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            reason::judge_named(end_entity, now)?;
            Ok(ServerCertVerified::assertion())
        };
        is_named.then(judge)
    }

    /// Additionally stores the certificate under verification in `shown`.
    pub(super) fn watched(&self, shown: Shown) -> Self {
        Verifier { shown: Some(shown), ..self.clone() }
    }

    /// Rejects certificates on `crl` as well. A list past its `nextUpdate` still names the revoked
    /// certificates.
    ///
    /// # Errors
    /// Returns the reason if the list cannot be used: it is malformed, or of an unsupported kind, such as a
    /// delta CRL.
    pub(crate) fn add(&mut self, crl: CertificateRevocationListDer<'static>) -> Result<(), String> {
        list::issued(&crl).ok_or(list::UNDATED)?;
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
        let builder = builder.with_crls([crl]).allow_unknown_revocation_status();
        self.revocation.push(builder.build().map_err(|error| error.to_string())?);
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(shown) = &self.shown {
            *shown.0.lock() = Some(end_entity.to_vec());
        }
        let verify = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        if let Some(judged) = self.judge_named(end_entity, server_name, now) {
            return judged;
        }
        let verified = verify(self.chain.as_ref().ok_or(unknown)?)
            .map_err(|error| reason::explained(error, std::iter::once(end_entity).chain(intermediates)))?;
        // It is unknown which intermediates belong to the chain: any server can add one that names URLs of
        // its choice. So only the end entity's points are noted.
        let presented = || Presented {
            end_entity: end_entity.clone().into_owned(),
            intermediates: intermediates.iter().map(|above| above.clone().into_owned()).collect(),
            name: server_name.to_owned(),
        };
        self.points.note(presented, end_entity);
        let revoked = Error::InvalidCertificate(CertificateError::Revoked);
        match self.revocation.iter().any(|list| verify(list).err().as_ref() == Some(&revoked)) {
            true => Err(revoked),
            false => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
            .map_err(|error| reason::explained(error, [cert]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
            .map_err(|error| reason::explained(error, [cert]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that a domain controller showed, trusted or not.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<Vec<u8>>>>);

impl Shown {
    /// Takes its DER form; `None` if no handshake has reached that point.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().take()
    }
}

/// Returns the cryptography of every TLS connection.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Checks that `list` comes from the CA that issued the certificate in `presented`.
///
/// # Errors
/// Returns the reason why the list does not apply to that certificate.
pub(super) fn vouches(
    roots: &Arc<RootCertStore>,
    list: CertificateRevocationListDer<'static>,
    presented: &Presented,
) -> Result<(), String> {
    let builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
    // Unless an unknown status is allowed, rustls demands a list that the certificate's CA has signed.
    let verifier = builder.with_crls([list]).only_check_end_entity_revocation().build();
    let verifier = verifier.map_err(|e| e.to_string())?;
    let Presented { end_entity, intermediates, name } = presented;
    match verifier.verify_server_cert(end_entity, intermediates, name, &[], UnixTime::now()) {
        Ok(_) | Err(Error::InvalidCertificate(CertificateError::Revoked)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reason why a domain controller's certificate was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// No trusted root vouches for it. The forest may trust a root that is not known here yet.
    UnknownIssuer,
    /// It, or that of a CA above it, is on a CRL.
    Revoked,
    /// Any other reason, with rustls' text.
    Other(String),
}

impl Distrust {
    /// Returns what a failed handshake reveals about the certificate; `None` if it failed for another reason.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            // A CA that was renewed with a new key keeps its name.
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Some(Distrust::UnknownIssuer)
            }
            Error::InvalidCertificate(CertificateError::Revoked) => Some(Distrust::Revoked),
            Error::InvalidCertificate(other) => Some(Distrust::Other(reason::of_certificate(other))),
            _ => None,
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::UnknownIssuer => f.write_str("no trusted root vouches for its certificate"),
            Distrust::Revoked => f.write_str("its certificate, or that of a CA above it, is revoked"),
            Distrust::Other(text) => write!(f, "its certificate is not valid: {text}"),
        }
    }
}
