//! Which certificate authorities may vouch for a domain controller.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// How TLS to domain controllers is verified: always, against these roots.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For every TLS connection.
    pub config: Arc<ClientConfig>,
    /// Where the roots come from, for people.
    pub source: String,
}

/// Why there are no roots to verify with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

impl Trust {
    /// Trusts the certificates of `ca_file` (PEM), else the system's store.
    ///
    /// # Errors
    /// There is no usable certificate. In `ca_file` every one must be usable; the system's store may hold some
    /// that are not.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let source = match ca_file {
            Some(path) => {
                let file = path.display();
                let unusable = |e: &dyn std::fmt::Display| TrustError(format!("tls.ca_file {file}: {e}"));
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(&e))? {
                    roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
                }
                file.to_string()
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "the system's store".to_owned()
            }
        };
        if roots.is_empty() {
            return Err(TrustError(format!("{source} holds no certificate")));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TrustError(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_usable_certificate_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let load = || Trust::load(Some(file.path())).unwrap_err().to_string();
        assert!(load().contains("holds no certificate"));
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(load().contains("tls.ca_file"));
        assert!(Trust::load(Some(Path::new("/nonexistent/ca.pem"))).is_err());
    }
}
