//! The material in force: this host's roots and the published data, combined into one TLS configuration.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::SYSTEM_ROOTS;
use super::points::Points;
use super::published::Published;
use super::verifier::{Verifier, provider};
use crate::config::{Problem, text};
use crate::protocol::report;

/// The part that does not change while the broker runs.
pub(super) struct Base {
    pub(super) roots: RootCertStore,
    /// True if the forest's roots are added.
    pub(super) asks_forest: bool,
    /// Source of the roots, as shown to the administrator.
    pub(super) source: String,
    /// The roots as shown to the administrator; empty for the system's store.
    pub(super) shown: Vec<report::Root>,
    /// The certificates of `tls.ca_file`.
    pub(super) named: Arc<Vec<CertificateDer<'static>>>,
}

/// Data published by AD and by distribution points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) published: Published,
    /// CRLs by distribution point.
    pub(super) lists: BTreeMap<String, Vec<u8>>,
}

/// The material in force; replaced as a whole.
pub(super) struct Current {
    pub(super) verifier: Arc<Verifier>,
    pub(super) config: Arc<ClientConfig>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) material: Material,
    pub(super) notes: Notes,
    pub(super) report: report::Trust,
    /// Time when AD published it.
    pub(super) read: Option<SystemTime>,
}

/// Failures to read or fetch the material, as texts for the administrator.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) published: Vec<String>,
    pub(super) lists: Vec<String>,
}

/// Returns true if two states verify alike. The roots are compared as well, because time decides which are
/// valid.
pub(super) fn same(one: &Current, other: &Current) -> bool {
    one.material == other.material && one.report.roots == other.report.roots
}

pub(super) fn problem(file: &Path, error: &dyn Display) -> Problem {
    Problem { file: file.to_owned(), line: None, text: format!("no usable CA certificates: {error}") }
}

impl Base {
    pub(super) fn of_file(path: &Path) -> Result<Self, Problem> {
        let problem = |e: &dyn Display| problem(path, e);
        let (mut roots, mut shown) = (RootCertStore::empty(), Vec::new());
        let bytes = fs::read(path).map_err(|e| problem(&format!("cannot be read: {e}")))?;
        let named = certificates(path, &bytes)?;
        for certificate in &named {
            roots.add(certificate.clone()).map_err(|e| problem(&e))?;
            shown.extend(describe(certificate));
        }
        let source = path.display().to_string();
        Ok(Base { roots, asks_forest: false, source, shown, named: Arc::new(named) })
    }

    pub(super) fn of_system(roots: RootCertStore) -> Self {
        let (source, named) = (SYSTEM_ROOTS.to_owned(), Arc::default());
        Base { roots, asks_forest: true, source, shown: Vec::new(), named }
    }
}

impl Current {
    /// Combines `base` and `material`. An unusable part does not affect the others.
    pub(super) fn build(
        base: &Base,
        material: Material,
        notes: Notes,
        points: &Arc<Points>,
        read: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Self, rustls::Error> {
        let mut roots = base.roots.clone();
        let mut report = report::Trust { roots: base.shown.clone(), ..report::Trust::default() };
        for authority in material.published.authorities() {
            match usable(&authority, now).and_then(|root| {
                roots.add(authority).map_err(|e| format!("{}: {e}", root.subject))?;
                Ok(root)
            }) {
                Ok(root) => report.roots.push(root),
                Err(cause) => report.notes.push(format!("a root of the forest is skipped: {cause}")),
            }
        }
        let roots = Arc::new(roots);
        let mut verifier = Verifier::new(roots.clone(), points.clone()).naming(base.named.clone());
        let published = material.published.crls.iter().map(|list| ("a CRL of the forest", list));
        let fetched = material.lists.iter().map(|(url, list)| (url.as_str(), list));
        for (origin, list) in published.chain(fetched).filter(|_| !roots.is_empty()) {
            match verifier.add(CertificateRevocationListDer::from(list.clone())) {
                Ok(()) => report.crls += 1,
                Err(error) => report.notes.push(format!("{origin} is skipped: {error}")),
            }
        }
        report.source = match (base.asks_forest, read, report.roots.len()) {
            (false, ..) => base.source.clone(),
            (true, None, _) => format!("{}; those of the forest are not known yet", base.source),
            (true, Some(_), 1) => format!("{} and 1 root of the forest", base.source),
            (true, Some(_), count) => format!("{} and {count} roots of the forest", base.source),
        };
        report.notes.extend(notes.published.iter().chain(&notes.lists).cloned());
        let verifier = Arc::new(verifier);
        Ok(Current { config: client(verifier.clone())?, verifier, roots, material, notes, report, read })
    }
}

/// Reads the certificates in `bytes`, the content of `path`: PEM, or one in DER.
fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let convert = |what: &str, command: &str| {
        let (from, to) = (path.display(), path.with_extension("pem.new"));
        let text =
            format!("it is {what}; make PEM of it: `openssl {command} -in {from} -out {}`", to.display());
        Err(problem(path, &text))
    };
    // Windows exports DER by default.
    if bytes.starts_with(&[0x30]) {
        return match X509Certificate::from_der(bytes) {
            Ok(([], _)) => Ok(vec![CertificateDer::from(bytes.to_vec())]),
            _ if holds(bytes, SIGNED_DATA) => convert("PKCS#7 in DER", "pkcs7 -inform DER -print_certs"),
            _ if holds(bytes, DATA) => convert("PKCS#12", "pkcs12 -nokeys"),
            _ => Err(problem(path, &"it is DER, and no certificate")),
        };
    }
    // A byte order mark would hide the first certificate.
    let text = text::unmarked(bytes).map_err(|flaw| flaw.of(path))?;
    // The PEM parser would skip each of these silently.
    for (label, what, command) in [
        (&b"-----BEGIN TRUSTED CERTIFICATE-----"[..], "a TRUSTED CERTIFICATE of OpenSSL's own", "x509"),
        (b"-----BEGIN X509 CERTIFICATE-----", "an X509 CERTIFICATE, as old programs write it", "x509"),
        (b"-----BEGIN PKCS7-----", "PKCS#7", "pkcs7 -print_certs"),
    ] {
        if text.windows(label.len()).any(|window| window == label) {
            return convert(what, command);
        }
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found.map_err(|e| problem(path, &e))? {
        found if found.is_empty() => Err(problem(
            path,
            &"there is none: expected \"-----BEGIN CERTIFICATE-----\", or a certificate in DER",
        )),
        found => Ok(found),
    }
}

/// The object identifiers of PKCS#7's signed data, and of the plain data that PKCS#12 begins with (RFC 5652,
/// 4 and 5.1).
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// Returns true if the structure that `bytes` begins with names `identifier`.
fn holds(bytes: &[u8], identifier: &[u8]) -> bool {
    const HEAD: usize = 32;
    let head = bytes.get(..HEAD).unwrap_or(bytes);
    head.windows(identifier.len()).any(|window| window == identifier)
}

/// Returns a TLS configuration that trusts the servers that `verifier` trusts.
pub(super) fn client(verifier: Arc<Verifier>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        // rustls calls every custom verifier dangerous. This one uses rustls' verifier, once more for each
        // CRL.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Describes `certificate` to the administrator if it is valid at `now`: rustls does not check the dates of a
/// root.
pub(crate) fn usable(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<report::Root, String> {
    let root = describe(certificate).ok_or("it is no certificate")?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match (root.not_before..=root.not_after).contains(&now) {
        true => Ok(root),
        false => Err(format!("{} is expired or not valid yet", root.subject)),
    }
}

fn describe(certificate: &CertificateDer<'_>) -> Option<report::Root> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    let fingerprint = digest::digest(&digest::SHA256, certificate);
    Some(report::Root {
        subject: parsed.subject().to_string(),
        sha256: fingerprint.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: seconds(parsed.validity().not_before),
        not_after: seconds(parsed.validity().not_after),
    })
}
