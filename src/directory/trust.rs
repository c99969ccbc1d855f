//! Which certificate authorities may vouch for a domain controller.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::Problem;

/// The folder that Debian's ca-certificates maintains.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs";

/// How TLS to domain controllers is verified: always, against these roots.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For every TLS connection.
    pub config: Arc<ClientConfig>,
    /// Where the roots come from, for people.
    pub source: String,
}

impl Trust {
    /// Trusts the certificates of `ca_file` (PEM), else the system's store.
    ///
    /// # Errors
    /// There is no usable certificate. In `ca_file` every one must be usable; the system's store may hold some
    /// that are not.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, Problem> {
        let file = ca_file.unwrap_or(Path::new(SYSTEM_ROOTS));
        let problem = |text: String| Problem { file: file.to_owned(), line: None, text };
        let unusable = |e: &dyn Display| problem(format!("no usable CA certificates: {e}"));
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(&e))? {
                    roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(unusable(&"there is none"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config), source: file.display().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_usable_certificate_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let load = || Trust::load(Some(file.path())).unwrap_err().to_string();
        assert!(load().contains("there is none"), "{}", load());
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(load().contains("no usable CA certificates"), "{}", load());
        assert!(Trust::load(Some(Path::new("/nonexistent/ca.pem"))).is_err());
    }
}
