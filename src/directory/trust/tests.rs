use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{CertificateError, ClientConnection, Error, ServerConfig, ServerConnection};

use super::super::entry::Entry;
use super::super::scripted::{Answer, Scripted, unreachable};
use super::verifier::{Distrust, provider};
use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn ca(name: &str) -> Ca {
    CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

/// A domain controller with a certificate of this serial number.
struct Dc(Arc<ServerConfig>);

fn dc(ca: &Ca, serial: u64) -> Dc {
    dc_below(ca, serial, &[], &[])
}

/// The same, which shows the certificates of the CAs between it and the root, with distribution points.
fn dc_below(ca: &Ca, serial: u64, between: &[&Ca], points: &[&str]) -> Dc {
    let mut params = CertificateParams::new(vec!["ad.acme.com".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    let point = |url: &&str| CrlDistributionPoint { uris: vec![(*url).to_owned()] };
    params.crl_distribution_points = points.iter().map(point).collect();
    let key = KeyPair::generate().unwrap();
    let mut chain = vec![params.signed_by(&key, ca).unwrap().der().clone()];
    chain.extend(between.iter().map(|ca| ca.der().clone()));
    let server =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Dc(Arc::new(server.with_no_client_auth().with_single_cert(chain, key.into()).unwrap()))
}

/// Runs a handshake.
fn connect(trust: &Trust, dc: &Dc) -> Result<(), Error> {
    let name = ServerName::try_from("ad.acme.com").unwrap();
    let mut client = ClientConnection::new(trust.config(), name).unwrap();
    let mut server = ServerConnection::new(dc.0.clone()).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// A CRL that revokes `serial`, with its next update in `until`.
fn crl(ca: &Ca, serial: u64, until: i32) -> Vec<u8> {
    crl_of(ca, serial, 2020, until)
}

/// The same, issued in `year`.
pub(super) fn crl_of(ca: &Ca, serial: u64, year: i32, until: i32) -> Vec<u8> {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(year, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().der().to_vec()
}

const ROOT: &str = "own  (objectClass=*)";
const AUTHORITIES: &str =
    "own CN=Certification Authorities,CN=Public Key Services,CN=Services,CN=Configuration,DC=acme,DC=com";
const POINTS: &str = "own CN=CDP,CN=Public Key Services,CN=Services,CN=Configuration,DC=acme,DC=com";

fn root_dse() -> Answer {
    let root = Entry::new("").with("configurationNamingContext", ["CN=Configuration,DC=acme,DC=com"]);
    (ROOT, Ok(vec![root]))
}

/// AD's answers if it publishes these.
fn published(roots: &[&[u8]], crls: &[&[u8]]) -> [Answer; 3] {
    let authorities = Entry::new("CN=Acme CA").with("cACertificate", roots.iter().map(|der| der.to_vec()));
    let point =
        |crl: &&[u8]| Entry::new("CN=Acme CA,CN=ad").with("certificateRevocationList", [crl.to_vec()]);
    [root_dse(), (AUTHORITIES, Ok(vec![authorities])), (POINTS, Ok(crls.iter().map(point).collect()))]
}

fn empty(state: Option<&Path>) -> Trust {
    Trust::new(Base::of_system(RootCertStore::empty()), state, SystemTime::now()).unwrap()
}

async fn refresh(
    trust: &Trust,
    answers: impl IntoIterator<Item = Answer>,
) -> Result<Refreshed, MachineError> {
    let machine = Scripted::new(answers);
    let refreshed = trust.refresh(&machine, Instant::now() + Duration::from_secs(5)).await;
    machine.is_finished();
    refreshed
}

fn unknown() -> Result<(), Error> {
    Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

fn revoked() -> Result<(), Error> {
    Err(Error::InvalidCertificate(CertificateError::Revoked))
}

#[tokio::test]
async fn a_root_that_the_forest_publishes_is_trusted() {
    let (ours, theirs) = (ca("Acme Root"), ca("Evil Root"));
    let trust = empty(None);
    assert_eq!(connect(&trust, &dc(&ours, 1)), unknown());
    assert_eq!(trust.source(), "/etc/ssl/certs; those of the forest are not known yet");

    assert_eq!(refresh(&trust, published(&[ours.der()], &[])).await, Ok(Refreshed::Changed));
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
    assert_eq!(connect(&trust, &dc(&theirs, 1)), unknown());
    let report = trust.report();
    assert_eq!(report.source, "/etc/ssl/certs and 1 root of the forest");
    assert_eq!(report.roots[0].subject, "CN=Acme Root");
    assert_eq!(report.roots[0].sha256.len(), 64);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
}

#[tokio::test]
async fn a_root_that_is_no_longer_published_is_no_longer_trusted() {
    let ours = ca("Acme Root");
    let trust = empty(None);
    refresh(&trust, published(&[ours.der()], &[])).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(PAUSE).await;
    let gone = MachineError::NoSuchObject("CN=Certification Authorities".into());
    let answers = [root_dse(), (AUTHORITIES, Err(gone.clone())), (POINTS, Err(gone))];
    assert_eq!(refresh(&trust, answers).await, Ok(Refreshed::Changed));
    assert_eq!(connect(&trust, &dc(&ours, 1)), unknown());
}

#[tokio::test]
async fn rubbish_spoils_nothing_else() {
    let ours = ca("Acme Root");
    let mut old = ca_params("Old Root");
    old.not_after = date_time_ymd(2020, 1, 1);
    let old = CertifiedIssuer::self_signed(old, KeyPair::generate().unwrap()).unwrap();
    let trust = empty(None);
    // Windows writes one zero byte if the schema demands a value.
    let answers = published(
        &[b"no certificate", b"\0", old.der(), ours.der()],
        &[b"\0", b"no list", &crl(&ours, 66, 2040)],
    );
    assert_eq!(refresh(&trust, answers).await, Ok(Refreshed::Changed));
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
    assert_eq!(connect(&trust, &dc(&ours, 66)), revoked());
    assert_eq!(connect(&trust, &dc(&old, 1)), unknown());
    let report = trust.report();
    assert_eq!((report.roots.len(), report.crls), (1, 1));
    let notes = report.notes.join("\n");
    for part in ["it is no certificate", "CN=Old Root is expired", "a CRL of the forest is skipped"] {
        assert!(notes.contains(part), "{notes}");
    }
    assert_eq!(report.notes.len(), 3, "{notes}");
}

#[tokio::test]
async fn a_list_refuses_whom_it_names_however_old_it_is() {
    let ours = ca("Acme Root");
    for until in [2040, 2021] {
        let trust = empty(None);
        refresh(&trust, published(&[ours.der()], &[&crl(&ours, 66, until)])).await.unwrap();
        assert_eq!(connect(&trust, &dc(&ours, 66)), revoked(), "{until}");
        assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()), "{until}");
    }
}

#[tokio::test]
async fn a_renewed_ca_has_two_lists_under_one_name() {
    let (first, renewed) = (ca("Acme Root"), ca("Acme Root"));
    let trust = empty(None);
    let lists = [crl(&first, 66, 2040), crl(&renewed, 77, 2040)];
    let answers = published(&[first.der(), renewed.der()], &[&lists[0], &lists[1]]);
    refresh(&trust, answers).await.unwrap();
    for (ca, serial, expected) in
        [(&first, 66, revoked()), (&first, 77, Ok(())), (&renewed, 66, Ok(())), (&renewed, 77, revoked())]
    {
        assert_eq!(connect(&trust, &dc(ca, serial)), expected, "{serial}");
    }
}

#[tokio::test]
async fn a_list_that_somebody_else_signed_refuses_nobody() {
    let (ours, forger) = (ca("Acme Root"), ca("Acme Root"));
    let trust = empty(None);
    refresh(&trust, published(&[ours.der()], &[&crl(&forger, 1, 2040)])).await.unwrap();
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
}

#[tokio::test]
async fn a_revoked_ca_takes_what_it_issued_with_it() {
    let root = ca("Acme Root");
    let mut params = ca_params("Acme Issuing CA");
    params.serial_number = Some(SerialNumber::from(55));
    let issuing = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let dc = dc_below(&issuing, 1, &[&issuing], &[]);
    for (serial, expected) in [(55, revoked()), (56, Ok(()))] {
        let trust = empty(None);
        refresh(&trust, published(&[root.der()], &[&crl(&root, serial, 2040)])).await.unwrap();
        assert_eq!(connect(&trust, &dc), expected);
    }
}

#[tokio::test]
async fn lists_that_cannot_be_read_stay_as_they_were() {
    let ours = ca("Acme Root");
    let trust = empty(None);
    refresh(&trust, published(&[ours.der()], &[&crl(&ours, 66, 2040)])).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(PAUSE).await;
    let [root, roots, _] = published(&[ours.der()], &[]);
    let refreshed = refresh(&trust, [root, roots, (POINTS, Err(unreachable()))]).await;
    assert_eq!(refreshed, Ok(Refreshed::Unchanged));
    assert_eq!(connect(&trust, &dc(&ours, 66)), revoked());
    assert!(trust.report().notes[0].contains("the last ones stay in use"), "{:?}", trust.report().notes);
}

#[tokio::test]
async fn what_ad_said_last_is_kept_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let ours = ca("Acme Root");
    let trust = empty(Some(state.path()));
    let answers = published(&[ours.der()], &[&crl(&ours, 66, 2040)]);
    refresh(&trust, answers).await.unwrap();
    let file = state.path().join("roots.pem");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(state.path().read_dir().unwrap().count(), 1, "a temporary file was left");

    // The next broker, before AD answers.
    let trust = empty(Some(state.path()));
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
    assert_eq!(connect(&trust, &dc(&ours, 66)), revoked());
    assert!(trust.report().refreshed.is_some_and(|age| age < 60));
    assert!(trust.due(Instant::now()));
    assert_eq!(refresh(&trust, [(ROOT, Err(unreachable()))]).await, Err(unreachable()));
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));

    let whole = std::fs::read(&file).unwrap();
    for broken in [&whole[..whole.len() / 2], b"-----BEGIN CERTIFICATE-----\n&\n-----END CERTIFICATE-----\n"]
    {
        std::fs::write(&file, broken).unwrap();
        let trust = empty(Some(state.path()));
        assert_eq!(connect(&trust, &dc(&ours, 1)), unknown());
        let notes = trust.report().notes;
        assert!(notes[0].contains("roots.pem is ignored"), "{notes:?}");
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_a_note() {
    let ours = ca("Acme Root");
    let trust = empty(Some(Path::new("/nonexistent")));
    assert_eq!(refresh(&trust, published(&[ours.der()], &[])).await, Ok(Refreshed::Changed));
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
    assert!(trust.report().notes[0].contains("cannot be written"), "{:?}", trust.report().notes);
}

#[tokio::test(start_paused = true)]
async fn ad_is_asked_daily_and_never_twice_in_a_minute() {
    let ours = ca("Acme Root");
    let trust = empty(None);
    assert!(trust.due(Instant::now()));
    refresh(&trust, [(ROOT, Err(unreachable()))]).await.unwrap_err();
    assert!(!trust.due(Instant::now()));
    assert_eq!(refresh(&trust, []).await, Ok(Refreshed::NotAsked));
    tokio::time::advance(RETRY).await;
    assert!(trust.due(Instant::now()));
    refresh(&trust, published(&[ours.der()], &[])).await.unwrap();
    assert!(!trust.due(Instant::now()));
    assert_eq!(refresh(&trust, []).await, Ok(Refreshed::NotAsked));
    tokio::time::advance(PAUSE).await;
    assert!(!trust.due(Instant::now()));
    assert_eq!(refresh(&trust, published(&[ours.der()], &[])).await, Ok(Refreshed::Unchanged));
    tokio::time::advance(FRESH).await;
    assert!(trust.due(Instant::now()));
}

#[tokio::test]
async fn a_ca_file_decides_alone() {
    let ours = ca("Acme Root");
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = || Trust::load(Some(file.path()), None);
    let problem = || load().err().unwrap().to_string();
    assert!(problem().contains("there is none"), "{}", problem());
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(problem().contains("no usable CA certificates"), "{}", problem());
    assert!(Trust::load(Some(Path::new("/nonexistent/ca.pem")), None).is_err());

    std::fs::write(file.path(), pem::encode(&pem::Pem::new("CERTIFICATE", ours.der().to_vec()))).unwrap();
    let trust = load().unwrap();
    assert_eq!(connect(&trust, &dc(&ours, 1)), Ok(()));
    assert!(!trust.due(Instant::now()));
    assert_eq!(refresh(&trust, []).await, Ok(Refreshed::NotAsked));
    assert_eq!(trust.report().roots[0].subject, "CN=Acme Root");
}

/// The output of `openssl req -x509`: a certificate of a CA, for the name of a server.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, Dc) {
    let mut params = CertificateParams::new(vec!["ad.acme.com".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let server =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let server =
        server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    (certificate, Dc(Arc::new(server)))
}

#[test]
fn a_self_signed_certificate_counts_where_the_administrator_names_exactly_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let named = |certificate: &CertificateDer<'_>| {
        std::fs::write(file.path(), pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec())))
            .unwrap();
        Trust::load(Some(file.path()), None).unwrap()
    };
    let said = |error: Error| {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        Distrust::of(&error).unwrap().to_string()
    };
    let (certificate, server) = self_signed(|_| {});
    assert_eq!(connect(&named(&certificate), &server), Ok(()));
    // A certificate with the same names and another key is not the named one.
    let (other, impostor) = self_signed(|_| {});
    assert_ne!(other, certificate);
    let refused = connect(&named(&certificate), &impostor).unwrap_err();
    assert!(said(refused.clone()).contains("CA"), "{}", said(refused));
    let (elsewhere, there) = self_signed(|params| {
        *params = CertificateParams::new(vec!["other.acme.com".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let refused = said(connect(&named(&elsewhere), &there).unwrap_err());
    assert!(refused.contains("it is for other.acme.com, not for ad.acme.com"), "{refused}");
    let (ended, late) = self_signed(|params| params.not_after = date_time_ymd(2020, 1, 1));
    assert!(said(connect(&named(&ended), &late).unwrap_err()).contains("expired"));
    let (client, purpose) = self_signed(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert!(said(connect(&named(&client), &purpose).unwrap_err()).contains("not made for servers"));
    // A named CA still vouches for other certificates, and does not count as a root of the forest.
    let root = ca("Acme Root");
    assert_eq!(connect(&named(&root.der().clone()), &dc(&root, 1)), Ok(()));
    let forest = empty(None);
    assert!(connect(&forest, &server).is_err());
}

#[test]
fn a_ca_file_is_pem_or_der_and_any_other_form_names_the_command() {
    let root = ca("Acme Root");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.der()).unwrap();
    let trust = Trust::load(Some(file.path()), None).unwrap();
    assert_eq!(connect(&trust, &dc(&root, 1)), Ok(()));
    let text = |label: &str| pem::encode(&pem::Pem::new(label, root.der().to_vec())).into_bytes();
    let both = [text("CERTIFICATE"), text("TRUSTED CERTIFICATE")].concat();
    let pkcs7 = b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x02\x01\x01\x31\x00\
                  \x30\x0b\x06\x09\x2a";
    let pkcs12 = b"\x30\x82\x09\x00\x02\x01\x03\x30\x82\x08\xc0\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\
                   \xa0\x82\x08\xb1\x04";
    for (bytes, said) in [
        (text("TRUSTED CERTIFICATE"), "`openssl x509 -in /"),
        (both, "`openssl x509 -in /"),
        (text("PKCS7"), "`openssl pkcs7 -print_certs -in /"),
        (pkcs7.to_vec(), "`openssl pkcs7 -inform DER -print_certs -in /"),
        (pkcs12.to_vec(), "`openssl pkcs12 -nokeys -in /"),
        (b"\x30\x03\x02\x01\x01".to_vec(), "it is DER, and no certificate"),
        (text("PRIVATE KEY"), "there is none: expected"),
    ] {
        std::fs::write(file.path(), bytes).unwrap();
        let problem = Trust::load(Some(file.path()), None).err().unwrap().to_string();
        assert!(problem.contains(said), "{said}: {problem}");
    }
}

#[test]
fn a_byte_order_mark_hides_no_certificate_of_a_ca_file() {
    let (first, second) = (ca("First Root"), ca("Second Root"));
    let of = |ca: &Ca| pem::encode(&pem::Pem::new("CERTIFICATE", ca.der().to_vec()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("\u{feff}{}{}", of(&first), of(&second))).unwrap();
    let trust = Trust::load(Some(file.path()), None).unwrap();
    let subjects: Vec<_> = trust.report().roots.into_iter().map(|root| root.subject).collect();
    assert_eq!(subjects, ["CN=First Root", "CN=Second Root"]);
    let wide: Vec<u8> = format!("\u{feff}{}", of(&first)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(file.path(), wide).unwrap();
    let problem = Trust::load(Some(file.path()), None).err().unwrap().to_string();
    assert!(problem.contains("line 1: the file is UTF-16"), "{problem}");
}

#[test]
fn the_cause_says_what_is_wrong_with_the_certificate() {
    let distrust = |error| Distrust::of(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
    let of = |error| distrust(Error::InvalidCertificate(error)).unwrap();
    assert_eq!(of(CertificateError::UnknownIssuer), Distrust::UnknownIssuer);
    assert!(of(CertificateError::Revoked).to_string().contains("is revoked"));
    assert!(of(CertificateError::Expired).to_string().contains("not valid"));
    assert_eq!(distrust(Error::DecryptError), None);
}

/// A web server that answers its clients in turn with these header texts and bodies.
fn web(answers: Vec<(&'static str, Vec<u8>)>) -> (String, std::thread::JoinHandle<()>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/acme.crl", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]).unwrap();
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            client.write_all(head.as_bytes()).unwrap();
            // A client that has read enough may have closed the connection.
            let _ = client.write_all(&body);
        }
    });
    (url, server)
}

/// Pauses the time for the rest of the test, and advances it to the next attempt.
async fn a_day_later(trust: &Trust) {
    tokio::time::pause();
    tokio::time::advance(FRESH).await;
    tokio::time::resume();
    assert!(trust.lists_due(Instant::now()));
}

#[tokio::test]
async fn a_list_that_a_certificate_names_is_fetched_and_kept() {
    let ours = ca("Acme Root");
    let pem = pem::encode(&pem::Pem::new("X509 CRL", crl(&ours, 66, 2040)));
    let (url, server) = web(vec![("200 OK", pem.into_bytes())]);
    let state = tempfile::tempdir().unwrap();
    let trust = empty(Some(state.path()));
    refresh(&trust, published(&[ours.der()], &[])).await.unwrap();
    let named = |serial| dc_below(&ours, serial, &[], &["ldap:///CN=x", "https://acme.com/x.crl", &url]);
    // No certificate names one yet.
    assert_eq!(trust.fetch_lists().await, Refreshed::NotAsked);
    assert_eq!(connect(&trust, &named(66)), Ok(()));
    assert!(trust.lists_due(Instant::now()));
    assert_eq!(trust.fetch_lists().await, Refreshed::Changed);
    server.join().unwrap();
    assert_eq!(connect(&trust, &named(66)), revoked());
    assert_eq!(connect(&trust, &named(1)), Ok(()));
    assert!(!trust.lists_due(Instant::now()));
    assert_eq!((trust.report().crls, trust.report().notes), (1, vec![]));

    // The next broker has it at once, and fetches it again when a certificate names it.
    let trust = empty(Some(state.path()));
    assert!(!trust.lists_due(Instant::now()));
    assert_eq!(connect(&trust, &named(66)), revoked());
    assert!(trust.lists_due(Instant::now()));
}

#[tokio::test]
async fn whoever_answers_cannot_take_a_revocation_back() {
    let (ours, forger) = (ca("Acme Root"), ca("Acme Root"));
    let (url, server) = web(vec![
        ("200 OK", crl_of(&ours, 66, 2022, 2040)),
        ("200 OK", crl_of(&forger, 1, 2023, 2040)),
        ("200 OK", crl_of(&ours, 1, 2021, 2040)),
        ("200 OK", b"<html>Please log in</html>".to_vec()),
        ("200 OK", vec![0x30; published::LIST + 1]),
        ("404 Not Found", Vec::new()),
        ("200 OK", crl_of(&ours, 77, 2024, 2040)),
    ]);
    let trust = empty(None);
    refresh(&trust, published(&[ours.der()], &[])).await.unwrap();
    let named = |serial| dc_below(&ours, serial, &[], &[&url]);
    connect(&trust, &named(1)).unwrap();
    assert_eq!(trust.fetch_lists().await, Refreshed::Changed);
    for cause in ["BadSignature", "is older", "could not be parsed", "larger", "404"] {
        a_day_later(&trust).await;
        assert_eq!(trust.fetch_lists().await, Refreshed::Unchanged, "{cause}");
        let notes = trust.report().notes;
        let said = notes.len() == 1 && notes[0].contains(&url) && notes[0].contains(cause);
        assert!(said, "{cause}: {notes:?}");
        assert_eq!(connect(&trust, &named(66)), revoked(), "{cause}");
        assert_eq!(connect(&trust, &named(1)), Ok(()), "{cause}");
    }
    a_day_later(&trust).await;
    assert_eq!(trust.fetch_lists().await, Refreshed::Changed);
    server.join().unwrap();
    assert_eq!(connect(&trust, &named(66)), Ok(()));
    assert_eq!(connect(&trust, &named(77)), revoked());
    assert!(trust.report().notes.is_empty());
}

/// rustls compares both names of the algorithm before it reads one, and the time of issue depends on neither.
#[test]
fn a_list_that_rustls_uses_has_a_time_of_issue() {
    let ours = ca("Acme Root");
    let list = crl_of(&ours, 66, 2022, 2040);
    // ecdsa-with-SHA256, inside and outside of the signed part; then an identifier that is cut off.
    let name = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let places: Vec<_> = (0..list.len()).filter(|at| list[*at..].starts_with(name)).collect();
    assert_eq!(places.len(), 2);
    let mut unusual = list.clone();
    places.into_iter().for_each(|at| unusual[at + 1] = 0x09);
    let mut roots = RootCertStore::empty();
    roots.add(ours.der().clone()).unwrap();
    let mut verifier = verifier::Verifier::new(Arc::new(roots), Arc::default());
    assert_eq!(verifier.add(unusual.clone().into()), Ok(()));
    assert_eq!(list::issued(&unusual), list::issued(&list));
    let longer = [&list[..], b"\0"].concat();
    for wrong in [longer, b"no list".to_vec()] {
        assert_eq!(verifier.add(wrong.into()), Err(list::UNDATED.to_owned()));
    }
}
