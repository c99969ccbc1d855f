//! Distribution points: URLs in certificates that their CRL can be fetched from (RFC 5280, 4.2.1.13).
//!
//! Only `http://` URLs are used. CRLs published over LDAP are read from AD itself. A CRL is signed, so TLS
//! would only raise the question again of which certificate to trust. URLs are noted after a certificate was
//! verified, and fetched in the background, so no login waits for them. A list counts only if the CA of that
//! certificate signed it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::Instant;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::list;
use super::published::LIST;

/// Maximum number of known distribution points; beyond it, the one named longest ago is dropped.
const POINTS: usize = 16;
/// Maximum length of a URL in bytes.
const URL: usize = 1024;
/// Time after which a point is forgotten that no certificate has named again.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time after which a list is fetched again.
const FRESH: Duration = Duration::from_secs(86400);
/// Time until the next attempt for a list that could not be fetched.
const RETRY: Duration = Duration::from_secs(600);
/// Time limit for fetching one list, from resolving the name to the last byte.
pub(super) const FETCH: Duration = Duration::from_secs(10);
/// Maximum number of redirects for one list.
const REDIRECTS: u32 = 3;

/// The known distribution points.
#[derive(Debug, Default)]
pub(crate) struct Points(Mutex<BTreeMap<String, Point>>);

#[derive(Debug)]
struct Point {
    named: Instant,
    /// The certificate that named it; `None` if the point is only known from an earlier broker. Then its list
    /// cannot be verified.
    by: Option<Presented>,
    /// Time of the next fetch; `None` means now.
    next: Option<Instant>,
}

/// A verified certificate, as a domain controller presented it.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) end_entity: CertificateDer<'static>,
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    pub(super) name: ServerName<'static>,
}

impl Points {
    /// Starts with points known from an earlier broker.
    pub(super) fn new<'a>(urls: impl Iterator<Item = &'a String>) -> Self {
        let now = Instant::now();
        let points = urls.map(|url| (url.clone(), Point { named: now, by: None, next: None }));
        Points(Mutex::new(points.take(POINTS).collect()))
    }

    /// Notes the points that a verified certificate names.
    pub(super) fn note(&self, presented: impl Fn() -> Presented, certificate: &CertificateDer<'_>) {
        let now = Instant::now();
        for url in named_by(certificate) {
            let mut known = self.0.lock();
            let point = known.entry(url).or_insert(Point { named: now, by: None, next: None });
            point.named = now;
            point.by = Some(presented());
            let oldest = known.iter().min_by_key(|(_, point)| point.named).map(|(url, _)| url.clone());
            if let Some(oldest) = oldest.filter(|_| known.len() > POINTS) {
                known.remove(&oldest);
            }
        }
    }

    /// Returns the points to fetch at `now`, with the certificates that named them.
    pub(super) fn due(&self, now: Instant) -> Vec<(String, Presented)> {
        let mut known = self.0.lock();
        known.retain(|_, point| now < point.named + FORGOTTEN);
        let due = known.iter().filter(|(_, point)| point.next.is_none_or(|next| now >= next));
        due.filter_map(|(url, point)| Some((url.clone(), point.by.clone()?))).collect()
    }

    /// Returns true if `url` is still known.
    pub(super) fn contains(&self, url: &str) -> bool {
        self.0.lock().contains_key(url)
    }

    /// Notes an attempt to fetch `url`.
    pub(super) fn asked(&self, url: &str, answered: bool) {
        if let Some(point) = self.0.lock().get_mut(url) {
            point.next = Some(Instant::now() + if answered { FRESH } else { RETRY });
        }
    }
}

/// Returns the `http://` URLs of complete CRLs: rustls cannot use a point that is limited to some reasons or
/// has another issuer.
pub(crate) fn named_by(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let extensions = certificate.extensions().iter().map(|extension| extension.parsed_extension());
    let points = extensions.filter_map(|extension| match extension {
        ParsedExtension::CRLDistributionPoints(points) => Some(points.iter()),
        _ => None,
    });
    let whole = points.flatten().filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    let names = whole.filter_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names.iter()),
        _ => None,
    });
    let urls = names.flatten().filter_map(|name| match name {
        GeneralName::URI(url) => Some(*url),
        _ => None,
    });
    let is_http = |url: &&str| {
        url.len() <= URL
            && url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
            && url.chars().all(|c| c.is_ascii_graphic())
    };
    urls.filter(is_http).map(str::to_owned).collect()
}

/// Fetches the CRL at `url` and returns it in DER. Blocks for at most `bound`.
///
/// # Errors
/// Returns a text for the administrator if there is none.
pub(super) fn fetch(url: &str, bound: Duration) -> Result<Vec<u8>, String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(bound))
        .max_redirects(REDIRECTS)
        // Proxy settings in the environment are meant for interactive programs.
        .proxy(None)
        .user_agent(concat!("motion-ad/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut answer = agent.get(url).call().map_err(|e| e.to_string())?;
    let limit = u64::try_from(LIST).unwrap_or(u64::MAX);
    let body = answer.body_mut().with_config().limit(limit).read_to_vec().map_err(|e| e.to_string())?;
    Ok(list::of_body(body))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use rcgen::{CertificateParams, CrlDistributionPoint, KeyPair};

    use super::*;

    #[test]
    fn only_http_is_taken_from_a_certificate() {
        let mut params = CertificateParams::new(vec!["ad.acme.com".to_owned()]).unwrap();
        let long = format!("http://{}", "x".repeat(URL));
        let uris = [
            "ldap:///CN=Acme,CN=CDP",
            "HTTP://pki.acme.com/a.crl",
            "https://pki.acme.com/b.crl",
            "http://pki.acme.com/c d.crl",
            "http:/",
            &long,
            "http://pki.acme.com/e.crl",
        ];
        params.crl_distribution_points =
            vec![CrlDistributionPoint { uris: uris.map(str::to_owned).to_vec() }];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(named_by(certificate.der()), ["HTTP://pki.acme.com/a.crl", "http://pki.acme.com/e.crl"]);
        assert!(named_by(&CertificateDer::from(vec![0x30, 0])).is_empty());
    }

    #[test]
    fn a_server_that_is_silent_or_drips_costs_the_bound_and_no_more() {
        for drips in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/x.crl", listener.local_addr().unwrap());
            let server = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                if !drips {
                    // Until the client closes the connection.
                    let _ = std::io::copy(&mut client, &mut std::io::sink());
                }
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while client.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let begun = std::time::Instant::now();
            let error = fetch(&url, Duration::from_millis(200)).unwrap_err();
            assert!(error.contains("timeout"), "{error}");
            // Without a bound it never ends.
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
            server.join().unwrap();
        }
    }
}
