//! A domain member that DNS presents as a domain controller, against a real Active Directory.
//!
//! The member is this host. It answers LDAP with its own keytab, as any computer account with the SPN
//! `ldap/ITS-OWN-NAME` can. Runs only if the environment names both, as root on a joined host:
//!
//! ```text
//! MOTION_AD_TEST_DC=ad.acme.com          its DNS name; everything is skipped without it
//! MOTION_AD_TEST_MEMBER=xcally.acme.com  this host's name, for which its account bears the SPN `ldap/…`
//! KRB5_KTNAME=/etc/krb5.keytab
//! ```

#![cfg(feature = "broker")]
// clippy's exemption covers functions marked #[test] only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ldap3::asn1::{
    ASNTag, Enumerated, Integer, OctetString, Sequence, StructureTag, Tag, TagClass, parse_tag, write,
};
use libgssapi::context::{SecurityContext, ServerCtx};
use motion_ad::directory::machine::{MachineConnection, Server, Servers, Settings};
use motion_ad::kerberos::{Kdc, Kdcs, Kerberos, LdapService};
use motion_ad::net::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Result codes of a SASL bind (RFC 4511, 4.1.9).
const SUCCESS: i64 = 0;
const IN_PROGRESS: i64 = 14;

/// A DNS that names this service at this address, and the KDC of the realm.
struct Dns {
    service: LdapService,
    address: SocketAddr,
    kdc: String,
}

impl Servers for Dns {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        let server = Server { service: self.service.clone(), addresses: vec![self.address] };
        Box::pin(async move { Ok(vec![server]) })
    }
}

impl Kdcs for Dns {
    fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        let addresses = (self.kdc.as_str(), 88).to_socket_addrs().unwrap().collect();
        let kdc = Kdc { host: self.kdc.clone(), addresses };
        Box::pin(async move { Ok(vec![kdc]) })
    }
    fn answered(&self, _: &str) {}
    fn failed(&self, _: &str, _: &str) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_bears_an_ldap_name_is_no_domain_controller() {
    let environment = |name| std::env::var(name).ok();
    let (Some(kdc), Some(member)) = (environment("MOTION_AD_TEST_DC"), environment("MOTION_AD_TEST_MEMBER"))
    else {
        println!("skipped: MOTION_AD_TEST_DC and MOTION_AD_TEST_MEMBER name no domain");
        return;
    };
    let (_, domain) = kdc.split_once('.').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bound = Arc::new(AtomicUsize::new(0));
    let count = bound.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move { pretend(stream, &count).await });
        }
    });
    let services =
        [LdapService::of_domain(&member, domain), LdapService::of_catalogue(&member, domain, domain)];
    for service in services {
        let dns = Arc::new(Dns { service, address, kdc: kdc.clone() });
        let kerberos = Arc::new(Kerberos::new(dns.clone()));
        let machine = MachineConnection::new(dns, kerberos, Settings::default());
        let error = machine.root(Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(bound.load(Ordering::SeqCst), 0, "the machine account bound to the member: {error:?}");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the KDC knows no service"), "{error}");
        assert!(error.contains(&format!("/{member}/{domain}@")), "{error}");
    }
}

/// Answers as an LDAP service with this host's keys, which decrypt any ticket for one of its names.
async fn pretend(mut stream: TcpStream, bound: &AtomicUsize) -> Option<()> {
    let mut context = ServerCtx::new(None);
    let (id, token) = bind_request(&message(&mut stream).await?)?;
    let token = context.step(&token, None).ok()?;
    answer(&mut stream, id, IN_PROGRESS, token.as_deref()).await?;
    let (id, _) = bind_request(&message(&mut stream).await?)?;
    let offer = context.wrap(false, &[7, 0, 0xff, 0xff]).ok()?;
    answer(&mut stream, id, IN_PROGRESS, Some(&offer)).await?;
    let (id, choice) = bind_request(&message(&mut stream).await?)?;
    context.unwrap(&choice).ok()?;
    answer(&mut stream, id, SUCCESS, None).await?;
    bound.fetch_add(1, Ordering::SeqCst);
    // Wait until the client disconnects.
    while stream.read_u8().await.is_ok() {}
    Some(())
}

/// Returns one undecoded message.
async fn message(stream: &mut TcpStream) -> Option<StructureTag> {
    let mut received = Vec::new();
    loop {
        received.push(stream.read_u8().await.ok()?);
        if let Ok((_, message)) = parse_tag(&received) {
            return Some(message);
        }
    }
}

/// Returns the message id and the SASL credentials of a BindRequest.
fn bind_request(message: &StructureTag) -> Option<(i64, Vec<u8>)> {
    let mut parts = message.clone().expect_constructed()?.into_iter();
    let id = i64::from(*parts.next()?.expect_primitive()?.last()?);
    let mut request = parts.next()?.expect_constructed()?.into_iter();
    let mut sasl = request.nth(2)?.expect_constructed()?.into_iter();
    let token = sasl.nth(1).and_then(StructureTag::expect_primitive).unwrap_or_default();
    Some((id, token))
}

async fn answer(stream: &mut TcpStream, id: i64, code: i64, token: Option<&[u8]>) -> Option<()> {
    let text = || Tag::OctetString(OctetString::default());
    let mut parts =
        vec![Tag::Enumerated(Enumerated { inner: code, ..Enumerated::default() }), text(), text()];
    parts.extend(token.map(|token| {
        Tag::OctetString(OctetString { id: 7, class: TagClass::Context, inner: token.to_vec() })
    }));
    let response = Tag::Sequence(Sequence { id: 1, class: TagClass::Application, inner: parts });
    let id = Tag::Integer(Integer { inner: id, ..Integer::default() });
    let whole = Tag::Sequence(Sequence { inner: vec![id, response], ..Sequence::default() });
    let mut bytes = Default::default();
    write::encode_into(&mut bytes, whole.into_structure()).ok()?;
    stream.write_all(&bytes).await.ok()
}
