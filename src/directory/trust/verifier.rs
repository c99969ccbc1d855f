//! How the certificate of a domain controller is judged: rustls' own verification, and then revocation.
//!
//! rustls takes the first CRL whose issuer has the right name, and refuses every certificate where its signature
//! does not fit. But a CA that was renewed with a new key publishes two CRLs under one name, and a list
//! that is of no use is no reason to keep people out. So each list is asked on its own, and only a certificate that
//! one of them names is refused.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::points::{Points, Presented};
use super::reason;

/// Verifies against a set of roots and CRLs.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// `None` without any root: then nobody is believed.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The same chain once more for each CRL.
    revocation: Vec<Arc<WebPkiServerVerifier>>,
    /// Certificates that the administrator has named, one by one, in `tls.ca_file`.
    named: Arc<Vec<CertificateDer<'static>>>,
    /// Where the certificates of domain controllers say that CRLs are.
    points: Arc<Points>,
    /// Where a certificate is kept that is judged, for whoever wants to say what is wrong with it.
    shown: Option<Shown>,
}

impl Verifier {
    /// Believes whom `roots` vouch for, and tells `points` what their certificates name.
    pub(super) fn new(roots: Arc<RootCertStore>, points: Arc<Points>) -> Self {
        let provider = provider();
        // It fails without roots, and for no other reason without CRLs.
        let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().ok();
        let (named, revocation) = (Arc::default(), Vec::new());
        Verifier { roots, provider, chain, revocation, named, points, shown: None }
    }

    /// The same, which believes a server that proves to have the key of one of `named`, although it is a CA's own.
    pub(super) fn naming(self, named: Arc<Vec<CertificateDer<'static>>>) -> Self {
        Verifier { named, ..self }
    }

    /// Judges a self-signed certificate of a CA (`openssl req -x509` makes one) that a server shows as its own. The
    /// administrator named exactly this one, so there is nobody else to vouch for it.
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

    /// The same, which keeps in `shown` what it judges.
    pub(super) fn watched(&self, shown: Shown) -> Self {
        Verifier { shown: Some(shown), ..self.clone() }
    }

    /// Refuses what `crl` names, too. A list past its `nextUpdate` still names what was revoked.
    ///
    /// # Errors
    /// The list is malformed, or of a kind that is not understood, such as a delta CRL.
    pub(super) fn add(
        &mut self,
        crl: CertificateRevocationListDer<'static>,
    ) -> Result<(), VerifierBuilderError> {
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
        self.revocation.push(builder.with_crls([crl]).allow_unknown_revocation_status().build()?);
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
            *shown.slot() = Some(end_entity.to_vec());
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
        // Of those above it nobody knows yet which belong to the chain: anybody can add one that names what he likes.
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

/// The certificate that a domain controller showed, be it believed or not.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<Vec<u8>>>>);

impl Shown {
    /// Its DER form; `None` where no handshake came so far.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cryptography of every TLS connection.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whether `list` comes from the CA that issued the certificate in `presented`.
///
/// # Errors
/// Why it says nothing about that certificate.
pub(super) fn vouches(
    roots: &Arc<RootCertStore>,
    list: CertificateRevocationListDer<'static>,
    presented: &Presented,
) -> Result<(), String> {
    let builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
    // Without the leave to know nothing rustls demands a list that its CA has signed.
    let verifier = builder.with_crls([list]).only_check_end_entity_revocation().build();
    let verifier = verifier.map_err(|e| e.to_string())?;
    let Presented { end_entity, intermediates, name } = presented;
    match verifier.verify_server_cert(end_entity, intermediates, name, &[], UnixTime::now()) {
        Ok(_) | Err(Error::InvalidCertificate(CertificateError::Revoked)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a domain controller's certificate was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// No trusted root vouches for it. The forest may trust one that is not known here yet.
    UnknownIssuer,
    /// A CRL names it, or a CA above it.
    Revoked,
    /// Anything else; what rustls says.
    Other(String),
}

impl Distrust {
    /// What a failed handshake says about the certificate; `None` when it failed for another reason.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            // A CA that was renewed with a new key has its old name.
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
