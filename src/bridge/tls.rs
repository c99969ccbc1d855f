//! The certificate of this host, for clients that insist on TLS over loopback.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Reads certificate and key. Returns `None` if neither file exists.
///
/// # Errors
/// As [`load`].
pub fn load_if_there(certificate: &Path, key: &Path) -> Result<Option<TlsAcceptor>, String> {
    match certificate.exists() || key.exists() {
        true => load(certificate, key).map(Some),
        false => Ok(None),
    }
}

/// Reads a chain of certificates and the key of the first one, both in PEM format.
///
/// # Errors
/// Returns a text with the file and the cause if a file cannot be used.
pub fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let of = |path: &Path, error: &dyn Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of(certificate, &error))?;
    if chain.is_empty() {
        return Err(of(certificate, &"it holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| of(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
