//! The scripted LDAP server, tested with clients other than the project's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchEntry};
use motion_ad_support::scripted::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const HOST: &str = "dc1.acme.com";
const JOHN: &str = "CN=john.doe,OU=People,DC=acme,DC=com";
const WAIT: Duration = Duration::from_secs(5);

/// Returns a client configuration that trusts only `authority`.
fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Connects ldap3 to the server under the name [`HOST`], whatever its address is.
async fn connect(address: SocketAddr, scheme: &str, authority: &Authority) -> ldap3::result::Result<Ldap> {
    let stream = std::net::TcpStream::connect(address).unwrap();
    let settings = LdapConnSettings::new()
        .set_std_stream(ldap3::StdStream::Tcp(stream))
        .set_config(trusting(authority))
        .set_starttls(scheme == "starttls");
    let scheme = if scheme == "ldaps" { "ldaps" } else { "ldap" };
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &format!("{scheme}://{HOST}")).await?;
    tokio::spawn(connection.drive());
    Ok(ldap)
}

fn security(scheme: &str, authority: &Authority) -> Security {
    let identity = authority.issue(&[HOST]).unwrap();
    match scheme {
        "ldaps" => Security::Ldaps(identity),
        "starttls" => Security::StartTls(identity),
        _ => Security::Plain,
    }
}

#[tokio::test]
async fn binds_and_searches_however_the_connection_is_protected() {
    let authority = Authority::new("Acme Root CA").unwrap();
    for scheme in ["ldap", "starttls", "ldaps"] {
        let script = Script::default()
            .on(Event::UnauthenticatedBind, [success()])
            .on(Event::bind_as(JOHN), [refused(0x533)])
            .on(
                Event::filter("(samaccountname=john.doe)"),
                [entry(JOHN, &[("cn", &[b"john.doe"])]), reference("ldap://a.acme.com/"), done()],
            );
        let mut server = Server::new(script);
        let address = server.listen("127.0.0.1:0", security(scheme, &authority)).await.unwrap();
        let mut ldap = connect(address, scheme, &authority).await.unwrap();

        let answer = ldap.simple_bind(JOHN, "secret").await.unwrap();
        assert!(answer.rc == 49 && answer.text.contains("data 533"), "{answer:?}");
        // Windows answers such a bind with success, too.
        assert_eq!(ldap.simple_bind(JOHN, "").await.unwrap().rc, 0);
        // No rule matches.
        assert_eq!(ldap.simple_bind("CN=nobody", "secret").await.unwrap().rc, 2);

        let filter = "(&(objectClass=user)(!(cn=a*b*c))(|(sn=*)(cn=*x))(sAMAccountName=john.doe))";
        let found = ldap.search("DC=acme,DC=com", Scope::Subtree, filter, vec!["cn"]).await.unwrap();
        let (found, _) = found.success().unwrap();
        let entries = found.into_iter().filter(|entry| !entry.is_ref()).map(SearchEntry::construct);
        assert_eq!(entries.map(|entry| entry.dn).collect::<Vec<_>>(), [JOHN]);

        let log = server.log();
        assert_eq!((log.connections(), log.binds(), log.binds_as(JOHN)), (1, 3, 2));
        assert_eq!(log.unauthenticated_binds(), 1);
        let search = Received::Search {
            base: "DC=acme,DC=com".to_owned(),
            filter: filter.to_owned(),
            attributes: vec!["cn".to_owned()],
        };
        assert_eq!(log.count(|received| *received == search), 1, "{:?}", log.all());
        assert!(!format!("{:?}", log.all()).contains("secret"));
        let secured = log.count(|received| *received == Received::Secured);
        assert_eq!(secured, usize::from(scheme != "ldap"));
        ldap.unbind().await.unwrap();
        timeout(WAIT, log.wait_for(|received| *received == Received::Ended)).await.unwrap();
    }
}

/// The result of each script for a TLS client that waits 300 ms.
#[tokio::test]
async fn handshakes_that_come_to_nothing() {
    let authority = Authority::new("Acme Root CA").unwrap();
    for (event, actions, expected) in [
        (Event::Connected, vec![Action::Silence], "silence"),
        (Event::Connected, vec![Action::Close], "eof"),
        (Event::ClientHello, vec![Action::Silence], "silence"),
        (Event::ClientHello, vec![Action::HalfServerHello, Action::Silence], "silence"),
        (Event::ClientHello, vec![Action::HalfServerHello, Action::Close], "eof"),
        (Event::ClientHello, vec![Action::Close], "eof"),
        (Event::ClientHello, vec![Action::Reset], "reset"),
        (Event::ClientHello, vec![Action::Bytes(b"220 ready\r\n".to_vec())], "corrupt"),
        (Event::ClientHello, vec![Action::Delay(Duration::from_millis(10))], "secured"),
    ] {
        let mut server =
            Server::new(Script::default().rule(Rule::new(event.clone(), actions.clone()).connection(2)));
        let address = server.listen("127.0.0.1:0", security("ldaps", &authority)).await.unwrap();
        for connection in 1..=2 {
            let tcp = TcpStream::connect(address).await.unwrap();
            let connector = TlsConnector::from(trusting(&authority));
            let shaking = connector.connect(ServerName::try_from(HOST).unwrap(), tcp);
            let seen = match timeout(Duration::from_millis(300), shaking).await {
                Err(_) => "silence".to_owned(),
                Ok(Ok(_)) => "secured".to_owned(),
                Ok(Err(e)) => e.to_string(),
            };
            let expected = if connection == 1 { "secured" } else { expected };
            assert!(seen.contains(expected), "{event:?}, {actions:?}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_says_so() {
    let authority = Authority::new("Acme Root CA").unwrap();
    let mut server = Server::new(Script::default());
    let address = server.listen("127.0.0.1:0", security("ldaps", &authority)).await.unwrap();
    let stranger = Authority::new("Other Root CA").unwrap();
    assert!(connect(address, "ldaps", &stranger).await.is_err());
    let failed = server.log().wait_for(|received| matches!(received, Received::NotSecured(_)));
    let record = timeout(WAIT, failed).await.unwrap();
    assert_eq!(record.received, Received::NotSecured("received fatal alert: UnknownCA".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_silent_connections() {
    let mut server = Server::new(Script::default().on(Event::Connected, [Action::Silence]));
    // An address of this process alone: at 127.0.0.1, another one may take the port that the server leaves.
    let own = Ipv4Addr::from_bits(0x7fc0_0000 | std::process::id() & 0x3f_ffff);
    let address = server.listen((own, 0), Security::Plain).await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    server.log().from(0).await;
    drop(server);
    assert_eq!(timeout(WAIT, stream.peek(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_netlogon_ping_over_tcp_and_udp() {
    let netlogon = Netlogon::of(HOST, "acme.com", "Paris");
    let script = Script::default().on(Event::root_dse("DnsDomain=acme.com"), closest(&netlogon));
    let mut server = Server::new(script);
    let address = server.listen("127.0.0.1:0", Security::Plain).await.unwrap();
    let authority = Authority::new("Acme Root CA").unwrap();
    let mut ldap = connect(address, "ldap", &authority).await.unwrap();
    let filter = "(&(DnsDomain=acme.com)(NtVer=\\06\\00\\00\\00))";
    let found = ldap.search("", Scope::Base, filter, vec!["Netlogon"]).await.unwrap().success().unwrap().0;
    let entry = SearchEntry::construct(found.into_iter().next().unwrap());
    assert_eq!(entry.bin_attrs["Netlogon"], [netlogon.encode()]);
    let searched = |log: &Log| {
        log.count(|received| matches!(received, Received::Search { filter: seen, .. } if seen == filter))
    };
    assert_eq!(searched(server.log()), 1, "{:?}", server.log().all());

    let address = server.listen_udp("127.0.0.1:0").await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // A search of the root DSE with the message id 5, byte by byte.
    let ping =
        b"\x30\x48\x02\x01\x05\x63\x43\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\
        \x00\xa0\x24\xa3\x15\x04\x09DnsDomain\x04\x08acme.com\xa3\x0b\x04\x05NtVer\x04\x02\\6\x30\x0a\x04\x08\
        Netlogon";
    socket.send_to(ping, address).await.unwrap();
    let mut answer = vec![0; 2048];
    let length = timeout(WAIT, socket.recv(&mut answer)).await.unwrap().unwrap();
    let bytes = netlogon.encode();
    assert!(answer[..length].windows(bytes.len()).any(|window| window == bytes));
    // The end of the search is in the same datagram.
    assert!(answer[..length].ends_with(b"\x30\x0c\x02\x01\x05\x65\x07\x0a\x01\x00\x04\x00\x04\x00"));
}

/// The example of MS-ADTS 6.3.1.9, with the names of a forest of one domain.
#[test]
fn the_answer_to_a_ping_byte_by_byte() {
    let mut netlogon = Netlogon::of("dc1.acme.com", "acme.com", "Paris");
    netlogon.flags = 0x1f8;
    netlogon.next_closest_site = Some("Rome".to_owned());
    let names = b"\x04acme\x03com\0\xc0\x18\x03dc1\xc0\x18\x04ACME\0\x03DC1\0\0\x05Paris\0\xc0\x36\x04Rome\0";
    let expected = [
        &b"\x17\0\0\0\xf8\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"[..],
        names,
        b"\x15\0\0\0\xff\xff\xff\xff",
    ];
    assert_eq!(netlogon.encode(), expected.concat());
}
