//! Certificates that domain controllers show, roots that the forest publishes, and CRLs.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::directory::survey::Certificate;
use crate::directory::trust::current::usable;
use crate::directory::trust::points::named_by;
use crate::directory::trust::verifier::Verifier;
use crate::directory::trust::{list, reason};

/// Seconds from 1970 to times at which certificates are judged: the first, two of today, and the last.
const TIMES: [u64; 4] = [0, 1_795_447_800, 1_795_447_801, i64::MAX as u64];

/// A root, without which no list can be used.
static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let root = include_bytes!("../../fuzz/corpus/certificate/self-signed");
    roots.add(CertificateDer::from_slice(root)).unwrap();
    Arc::new(roots)
});

/// A certificate, in every way in which one is read.
pub(super) fn certificate(data: &[u8]) {
    let certificate = CertificateDer::from(data);
    for url in named_by(&certificate) {
        assert!(url.len() <= 1024 && url.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(url.to_ascii_lowercase().starts_with("http://"));
    }
    let read = Certificate::read(data);
    // Each flaw is named with its remedy.
    assert!(reason::flaw(data).is_none_or(|text| text.contains("; issue one with")));
    assert!(read.is_some() || !reason::is_ca(data));
    // Time passes in one direction: not valid yet, then valid or made for another purpose, then expired.
    let stage = |at: u64| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        match reason::judge_named(data, now) {
            Err(CertificateError::NotValidYet) => 0,
            Err(CertificateError::Expired) => 2,
            _ => 1,
        }
    };
    assert!(TIMES.map(stage).is_sorted());
    for seconds in TIMES.into_iter().take(3) {
        root(&certificate, UNIX_EPOCH + Duration::from_secs(seconds));
    }
}

/// A root that the forest publishes: it counts only in its time.
pub(super) fn root(certificate: &CertificateDer<'_>, now: SystemTime) {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    if let Ok(root) = usable(certificate, now) {
        assert!(root.not_before <= seconds && seconds <= root.not_after);
        assert!(root.sha256.len() == 64 && Certificate::read(certificate).is_some());
    }
}

fn is_used(list: &[u8]) -> bool {
    Verifier::new(ROOTS.clone(), Arc::default()).add(list.to_vec().into()).is_ok()
}

fn rustls_takes(list: &[u8]) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiServerVerifier::builder_with_provider(ROOTS.clone(), provider);
    builder.with_crls([list.to_vec().into()]).build().is_ok()
}

/// What the server of a distribution point answers, or AD publishes. Every list that rustls takes has a time
/// of issue and is used, and only as a whole.
pub(super) fn crl(data: &[u8]) {
    let list = list::of_body(data.to_vec());
    assert_eq!(is_used(&list), rustls_takes(&list));
    let Some(issued) = list::issued(&list) else {
        assert!(list::replaces(&list, None).is_err());
        return;
    };
    let longer = [&list[..], b"\0"].concat();
    assert!(!is_used(&longer) && list::replaces(&longer, None).is_err());
    assert_eq!(list::replaces(&list, Some(&list)), Ok(()));
    assert_eq!(list::of_body(list.clone()), list);
    let text = pem::encode(&pem::Pem::new("X509 CRL", list.clone()));
    assert_eq!(list::of_body(text.into_bytes()), list);
    if let Ok((_, parsed)) = CertificateRevocationList::from_der(&list) {
        assert_eq!(parsed.last_update().timestamp(), issued);
    }
}
