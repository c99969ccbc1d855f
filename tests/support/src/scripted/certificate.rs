//! Certificates for the server, from an authority that is created for a test or from files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server certificate and its key, ready for use.
#[derive(Clone, Debug)]
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// Reads an identity from PEM: the server's certificate first, then the intermediate certificates.
    ///
    /// # Errors
    /// If the PEM is malformed, or the key does not belong to the certificate.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> io::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain.map_err(io::Error::other)?, key)
            .map_err(io::Error::other)?;
        Ok(Identity(Arc::new(config)))
    }

    /// Reads an identity from PEM files.
    ///
    /// # Errors
    /// If a file cannot be read, or as in [`Identity::from_pem`].
    pub fn from_files(certificates: &Path, key: &Path) -> io::Result<Self> {
        Identity::from_pem(&std::fs::read(certificates)?, &std::fs::read(key)?)
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

/// A certificate authority for a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Creates an authority with this name.
    ///
    /// # Errors
    /// If no key can be generated.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(Authority(CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?))
    }

    /// Returns its own certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a server with these names.
    ///
    /// # Errors
    /// If a name is invalid, or no key can be generated.
    pub fn issue(&self, names: &[&str]) -> io::Result<Identity> {
        self.issue_with(names, |_| {})
    }

    /// Issues a certificate with changed parameters, such as its validity or its distribution points.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> io::Result<Identity> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.0).map_err(io::Error::other)?;
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }
}
