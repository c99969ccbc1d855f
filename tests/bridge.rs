//! The LDAP bridge under third-party clients, with a scripted PAM and a scripted directory. Needs no root and
//! no Active Directory. Decisions of libpam itself are at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ldap3::controls::{ControlType, MakeCritical as _, PagedResults};
use ldap3::exop::{WhoAmI, WhoAmIResp};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Mod, Scope, SearchEntry, SearchOptions, drive};
use motion_ad::bridge::admin::Admin;
use motion_ad::bridge::answer::Answer;
use motion_ad::bridge::bind::THREADS;
use motion_ad::bridge::directory::Directory;
use motion_ad::bridge::house::CONNECTIONS;
use motion_ad::bridge::logins::{Logins, Pam};
use motion_ad::bridge::{Bridge, Parts, ber, server, tls};
use motion_ad::broker::peers::{Nss, Peers};
use motion_ad::config::admin::LocalAdmin;
use motion_ad::dn::Dn;
use motion_ad::log::Log;
use motion_ad::protocol::Secret;
use motion_ad::protocol::search::{self, Found, FoundEntry, Search, Value};
use motion_ad::verdict::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const JOHN: &str = "CN=Doe\\, John,OU=People,DC=acme,DC=com";
const RIGHT: &str = "the right password";

/// A scripted PAM. [`RIGHT`] is every user's password; `outcomes` overrides the outcome of single users.
#[derive(Default)]
struct Script {
    outcomes: BTreeMap<&'static str, Outcome>,
    asked: Mutex<Vec<String>>,
    /// While it is set, no login is answered.
    holds: AtomicBool,
    /// While it is set, every login registers a session, named after the number of sessions before it.
    registers: AtomicBool,
    sessions: Mutex<Sessions>,
}

/// Sessions that logins registered, and those of them that the bridge has ended.
#[derive(Default)]
struct Sessions {
    registered: usize,
    ended: Vec<String>,
}

impl Logins for Script {
    fn login(&self, user: &str, password: &Secret) -> Answer {
        self.asked.lock().unwrap().push(user.to_owned());
        while self.holds.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let answer = match self.outcomes.get(user) {
            Some(outcome) => Answer::of(*outcome),
            None if password.bytes() == RIGHT.as_bytes() => Answer::success(),
            None => Answer::of(Outcome::WrongPassword),
        };
        let session = self.registers.load(Ordering::Relaxed).then(|| {
            let mut sessions = self.sessions.lock().unwrap();
            sessions.registered += 1;
            format!("{user} {}", sessions.registered)
        });
        Answer { session, ..answer }
    }

    fn end(&self, user: &str, session: &str) -> Result<(), String> {
        assert!(session.starts_with(user), "{session} is not of {user}");
        self.sessions.lock().unwrap().ended.push(session.to_owned());
        Ok(())
    }
}

impl Script {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A directory with John and `others` further users.
struct Entries {
    others: usize,
    code: u8,
    asked: Mutex<Vec<Search>>,
}

fn value(text: &str) -> Value {
    Value::from(text.as_bytes().to_vec())
}

impl Directory for Entries {
    fn search(&self, search: Search, _: Duration) -> Found {
        let is_john = Dn::parse(&search.base).ok() == Dn::parse(JOHN).ok();
        let john = FoundEntry {
            dn: JOHN.into(),
            login: Some("ACME\\john.doe".into()),
            attributes: vec![("sAMAccountName".into(), vec![value("john.doe")])],
        };
        let entries = match search.scope {
            search::Scope::Base if is_john => vec![john],
            search::Scope::Base => {
                self.asked.lock().unwrap().push(search);
                return Found::failed(search::code::NO_SUCH_OBJECT, "there is no such object");
            }
            _ => {
                let other = |number| FoundEntry {
                    dn: format!("CN=x{number},DC=acme,DC=com"),
                    login: None,
                    attributes: vec![("description".into(), vec![value(&"d".repeat(200))])],
                };
                std::iter::once(john).chain((0..self.others).map(other)).collect()
            }
        };
        self.asked.lock().unwrap().push(search);
        Found { code: self.code, text: String::new(), entries }
    }

    fn domain(&self) -> Option<String> {
        Some("dc=acme,dc=com".into())
    }
}

struct Running {
    address: SocketAddr,
    script: Arc<Script>,
    directory: Arc<Entries>,
}

impl Running {
    async fn start(outcomes: &[(&'static str, Outcome)], others: usize) -> Self {
        let script = Arc::new(Script { outcomes: outcomes.iter().copied().collect(), ..Script::default() });
        Running::with(script.clone(), script, others, None).await
    }

    async fn with(
        script: Arc<Script>,
        logins: Arc<dyn Logins>,
        others: usize,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        Running::until(script, logins, others, tls, std::future::pending()).0
    }

    /// Runs until `told` completes. Returns the task as well.
    fn until(
        script: Arc<Script>,
        logins: Arc<dyn Logins>,
        others: usize,
        tls: Option<tokio_rustls::TlsAcceptor>,
        told: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, JoinHandle<std::io::Result<()>>) {
        let directory = Arc::new(Entries { others, code: 0, asked: Mutex::default() });
        let us = nix::unistd::getuid().to_string();
        let bridge = Bridge::new(Parts {
            logins,
            directory: directory.clone(),
            admin: Some(Admin::from(LocalAdmin {
                name: "xcally".into(),
                secret: Secret::new(SECRET.into()),
            })),
            tls,
            peers: Peers::new(vec![us], Nss).unwrap(),
            log: Arc::new(Log::open().unwrap().0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(server::serve(vec![listener], bridge, told));
        (Running { address, script, directory }, task)
    }

    /// Waits until PAM has had `times` calls.
    async fn is_asked(&self, times: usize) {
        let begun = Instant::now();
        while self.script.asked.lock().unwrap().len() < times {
            assert!(begun.elapsed() < Duration::from_secs(60), "PAM is not asked");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn client(&self) -> Ldap {
        let (connection, ldap) = LdapConnAsync::new(&format!("ldap://{}", self.address)).await.unwrap();
        drive!(connection);
        ldap
    }

    async fn admin(&self) -> Ldap {
        let mut ldap = self.client().await;
        assert_eq!(ldap.simple_bind("xcally", SECRET).await.unwrap().rc, 0);
        ldap
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asserts that a login succeeds in spite of other load.
    async fn logs_in(&self) {
        let mut ldap = self.client().await;
        let bound = tokio::time::timeout(Duration::from_secs(20), ldap.simple_bind("john.doe", RIGHT)).await;
        assert_eq!(bound.unwrap().unwrap().rc, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_one_login_and_ads_own_code() {
    let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| (outcome.name(), *outcome)).collect();
    let bridge = Running::start(&outcomes, 0).await;
    for (user, code, data) in [
        ("john.doe@acme.com", 0, ""),
        ("ACME\\john.doe", 0, ""),
        ("john.doe", 0, ""),
        ("wrong_password", 49, "data 52e,"),
        ("unknown_user", 49, "data 525,"),
        ("logon_hours", 49, "data 530,"),
        ("workstation", 49, "data 531,"),
        ("password_expired", 49, "data 532,"),
        ("disabled", 49, "data 533,"),
        ("account_expired", 49, "data 701,"),
        ("must_change", 49, "data 773,"),
        ("locked_out", 49, "data 775,"),
        ("unavailable", 52, ""),
    ] {
        let bound = bridge.client().await.simple_bind(user, RIGHT).await.unwrap();
        assert_eq!(bound.rc, code, "{user}: {}", bound.text);
        assert!(bound.text.contains(data), "{user}: {}", bound.text);
        assert_eq!(bridge.script.asked(), [user], "one attempt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_right_is_asked_of_nobody() {
    let bridge = Running::start(&[], 0).await;
    let long = "x".repeat(257);
    for (user, password, code) in [
        ("john.doe", "", 53),
        ("", "", 53),
        ("", RIGHT, 49),
        (long.as_str(), RIGHT, 49),
        ("john\0doe", RIGHT, 49),
        ("john.doe", "a\0b", 49),
        ("xcally", "not the secret", 49),
        ("cn=nobody,dc=acme,dc=com", RIGHT, 49),
    ] {
        let bound = bridge.client().await.simple_bind(user, password).await.unwrap();
        assert_eq!(bound.rc, code, "{user:?}: {}", bound.text);
    }
    assert_eq!(bridge.client().await.sasl_external_bind().await.unwrap().rc, 7);
    // An LDAPv2 bind.
    let mut old = bridge.raw().await;
    old.write_all(b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x02\x04\x04john\x80\x02pw").await.unwrap();
    let mut answer = [0; 10];
    old.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[5..], [0x61, answer[6], 0x0a, 1, 2], "protocolError");
    assert_eq!(bridge.script.asked(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_search_returned_logs_in_its_own_account() {
    let bridge = Running::start(&[], 0).await;
    for spelling in [JOHN, "cn=doe\\2C john, ou=people, dc=ACME, dc=com"] {
        assert_eq!(bridge.client().await.simple_bind(spelling, RIGHT).await.unwrap().rc, 0, "{spelling}");
        assert_eq!(bridge.script.asked(), ["ACME\\john.doe"]);
    }
    let refused = bridge.client().await.simple_bind(JOHN, "wrong").await.unwrap();
    assert_eq!((refused.rc, refused.text.contains("data 52e,")), (49, true));
    assert_eq!(bridge.script.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_bound_may_search() {
    let bridge = Running::start(&[], 2).await;
    let mut ldap = bridge.client().await;
    let filter = "(&(objectCategory=User)(|(sAMAccountName=j*n)(userPrincipalName=jörg\\28@acme.com)))";
    let search = |ldap: &mut Ldap| {
        let mut ldap = ldap.clone();
        async move {
            let attributes = vec!["cn", "mail"];
            ldap.search("dc=acme,dc=com", Scope::Subtree, filter, attributes).await.unwrap()
        }
    };
    assert_eq!(search(&mut ldap).await.1.rc, 1);
    assert_eq!(ldap.simple_bind("john.doe", RIGHT).await.unwrap().rc, 0);
    let found = search(&mut ldap).await.success().unwrap().0;
    assert_eq!(found.len(), 3);
    assert_eq!(SearchEntry::construct(found[0].clone()).dn, JOHN);
    let asked = bridge.directory.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked.attributes, ["cn", "mail"]);
    assert_eq!(asked.base, "dc=acme,dc=com");
    let escaped = r"(&(objectCategory=User)(|(sAMAccountName=j*n)(userPrincipalName=j\c3\b6rg\28@acme.com)))";
    assert_eq!(asked.filter, escaped);
    // A failed bind revokes the rights of the earlier one.
    assert_eq!(ldap.simple_bind("john.doe", "wrong").await.unwrap().rc, 49);
    assert_eq!(search(&mut ldap).await.1.rc, 1);
    assert_eq!(search(&mut bridge.admin().await).await.1.rc, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_answered_to_everybody_who_may_connect() {
    let bridge = Running::start(&[], 0).await;
    let mut ldap = bridge.client().await;
    let found = ldap.search("", Scope::Base, "(objectClass=*)", vec!["*", "+"]).await.unwrap();
    let root = SearchEntry::construct(found.success().unwrap().0.remove(0));
    assert_eq!(root.attrs["defaultNamingContext"], ["dc=acme,dc=com"]);
    assert_eq!(root.attrs["supportedControl"], ["1.2.840.113556.1.4.319"]);
    assert!(!root.attrs["supportedExtension"].contains(&"1.3.6.1.4.1.1466.20037".to_owned()));
}

async fn page(ldap: &mut Ldap, size: i32, cookie: Vec<u8>) -> (usize, u32, Vec<u8>) {
    let control = PagedResults { size, cookie }.critical();
    let found = ldap
        .with_controls(control)
        .search("dc=acme,dc=com", Scope::Subtree, "(objectClass=*)", vec!["*"])
        .await
        .unwrap();
    let paged = found.1.ctrls.iter().find(|control| matches!(control.0, Some(ControlType::PagedResults)));
    let cookie = paged.map(|control| control.1.parse::<PagedResults>().cookie).unwrap_or_default();
    (found.0.len(), found.1.rc, cookie)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_cut_from_one_answer() {
    let bridge = Running::start(&[], 6).await;
    let mut ldap = bridge.admin().await;
    let (first, code, cookie) = page(&mut ldap, 3, Vec::new()).await;
    assert_eq!((first, code, cookie.is_empty()), (3, 0, false));
    let (second, _, next) = page(&mut ldap, 3, cookie.clone()).await;
    assert_eq!((second, next.is_empty()), (3, false));
    let (third, _, last) = page(&mut ldap, 3, next).await;
    assert_eq!((third, last.is_empty()), (1, true));
    assert_eq!(bridge.directory.asked.lock().unwrap().len(), 1, "one search for all pages");
    assert_eq!(page(&mut ldap, 3, cookie).await.1, 53, "a cookie is good once");
    let (_, _, cookie) = page(&mut ldap, 3, Vec::new()).await;
    assert_eq!(page(&mut bridge.admin().await, 3, cookie).await.1, 53, "and on its own connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rests_of_pages_are_bounded() {
    let bridge = Running::start(&[], 6).await;
    let mut open = Vec::new();
    for _ in 0..motion_ad::bridge::paging::KEPT {
        let mut ldap = bridge.admin().await;
        assert_eq!(page(&mut ldap, 3, Vec::new()).await.1, 0);
        open.push(ldap);
    }
    let mut one_more = bridge.admin().await;
    assert_eq!(page(&mut one_more, 3, Vec::new()).await.1, 51);
    // Libraries ask for pages even where they look for one account: an answer without a rest takes no place.
    assert_eq!(page(&mut one_more, 7, Vec::new()).await, (7, 0, Vec::new()));
    open.clear();
    let begun = Instant::now();
    while page(&mut one_more, 3, Vec::new()).await.1 != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the places are not free again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_refused_with_its_code() {
    let bridge = Running::start(&[], 0).await;
    let mut ldap = bridge.admin().await;
    let who = ldap.extended(WhoAmI).await.unwrap().0.parse::<WhoAmIResp>();
    assert_eq!(who.authzid, "u:xcally");
    assert_eq!(ldap.add(JOHN, vec![("cn", ["x"].into())]).await.unwrap().rc, 53);
    assert_eq!(ldap.delete(JOHN).await.unwrap().rc, 53);
    assert_eq!(ldap.modify(JOHN, vec![Mod::Replace("cn", ["x"].into())]).await.unwrap().rc, 53);
    assert_eq!(ldap.modifydn(JOHN, "cn=x", true, None).await.unwrap().rc, 53);
    assert_eq!(ldap.compare(JOHN, "cn", b"x").await.unwrap().0.rc, 53);
    let change = ldap3::exop::PasswordModify { user_id: None, old_pass: None, new_pass: None };
    assert_eq!(ldap.extended(change).await.unwrap().1.rc, 2);
    let unknown = ldap3::controls::RawControl { ctype: "1.2.3".into(), crit: true, val: None };
    let found =
        ldap.with_controls(unknown).search("", Scope::Base, "(objectClass=*)", vec!["*"]).await.unwrap();
    assert_eq!(found.1.rc, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_only_gives_the_attributes_without_values() {
    let bridge = Running::start(&[], 0).await;
    let mut ldap = bridge.admin().await;
    for (types_only, values) in [(false, 1), (true, 0)] {
        ldap.with_search_options(SearchOptions::new().typesonly(types_only));
        let found = ldap.search("dc=acme,dc=com", Scope::Subtree, "(cn=*)", vec!["sAMAccountName"]).await;
        let john = SearchEntry::construct(found.unwrap().success().unwrap().0.remove(0));
        assert_eq!(john.attrs["sAMAccountName"].len(), values);
        ldap.with_search_options(SearchOptions::new().typesonly(types_only));
        let root = ldap.search("", Scope::Base, "(objectClass=*)", vec!["*"]).await.unwrap();
        let root = SearchEntry::construct(root.success().unwrap().0.remove(0));
        assert_eq!(root.attrs["supportedLDAPVersion"].len(), values);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandon_has_no_answer_and_the_connection_goes_on() {
    let bridge = Running::start(&[], 0).await;
    let mut stream = bridge.raw().await;
    // Abandons message 1, which no client has sent, and then itself; the last message is a bind without a
    // password.
    let abandons = b"\x30\x06\x02\x01\x02\x50\x01\x01\x30\x06\x02\x01\x03\x50\x01\x03";
    let bind = b"\x30\x0c\x02\x01\x04\x60\x07\x02\x01\x03\x04\x00\x80\x00";
    stream.write_all(&[&abandons[..], bind].concat()).await.unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[2..6], [2, 1, 4, 0x61], "the first answer is the bind's: {answer:x?}");
    assert_eq!(answer[9], 53);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_without_a_thread_in_time_is_51_and_costs_no_attempt() {
    let bridge = Running::start(&[], 0).await;
    bridge.script.holds.store(true, Ordering::Relaxed);
    let mut waiting = Vec::new();
    for _ in 0..THREADS {
        let mut ldap = bridge.client().await;
        waiting.push(tokio::spawn(async move { ldap.simple_bind("john.doe", RIGHT).await.unwrap().rc }));
    }
    bridge.is_asked(THREADS).await;
    let bind = async |name: &str| bridge.client().await.simple_bind(name, RIGHT).await.unwrap();
    let (by_name, by_dn) = tokio::join!(bind("jane.roe"), bind(JOHN));
    assert_eq!((by_name.rc, by_dn.rc), (51, 51), "{} {}", by_name.text, by_dn.text);
    bridge.script.holds.store(false, Ordering::Relaxed);
    for bind in waiting {
        assert_eq!(bind.await.unwrap(), 0);
    }
    assert_eq!(bridge.script.asked(), vec!["john.doe"; THREADS]);
    bridge.logs_in().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_ends_answers_the_logins_in_progress() {
    let (tell, told) = oneshot::channel();
    let script = Arc::new(Script::default());
    let told = async { told.await.unwrap() };
    let (bridge, task) = Running::until(script.clone(), script.clone(), 0, None, told);
    let mut idle = bridge.raw().await;
    bridge.logs_in().await;
    script.holds.store(true, Ordering::Relaxed);
    let mut ldap = bridge.client().await;
    let bind = tokio::spawn(async move { ldap.simple_bind("john.doe", RIGHT).await.unwrap().rc });
    bridge.is_asked(2).await;
    tell.send(()).unwrap();
    // The idle connection ends, and no new one is taken, while the login is still in progress.
    assert_eq!(idle.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    let begun = Instant::now();
    while TcpStream::connect(bridge.address).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it still listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!task.is_finished());
    script.holds.store(false, Ordering::Relaxed);
    assert_eq!(bind.await.unwrap(), 0);
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_by_the_first_byte_and_by_starttls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    assert!(tls::load(&key, &certificate).is_err());
    let script = Arc::new(Script::default());
    let acceptor = tls::load(&certificate, &key).unwrap();
    let bridge = Running::with(script.clone(), script, 0, Some(acceptor)).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = bridge.address.port();
    for (scheme, starttls) in [("ldaps", false), ("ldap", true)] {
        let settings = LdapConnSettings::new().set_config(Arc::new(config.clone())).set_starttls(starttls);
        let url = format!("{scheme}://localhost:{port}");
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &url).await.unwrap();
        drive!(connection);
        assert_eq!(ldap.simple_bind("john.doe", RIGHT).await.unwrap().rc, 0, "{url}");
    }
}

/// Sends `bytes` and returns all that the server sends until it closes the connection.
async fn said(bridge: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = bridge.raw().await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    // A reset also ends the connection. It occurs if the server did not read all bytes.
    let _ = read.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_cost_their_own_connection_alone() {
    let bridge = Running::start(&[], 0).await;
    // Nested SEQUENCEs, each with a length of four bytes.
    let deep = |count: usize| {
        let total = count * 6;
        let headers = (0..count).map(|index| u32::try_from(total - 6 * (index + 1)).unwrap());
        headers.flat_map(|left| [&[0x30, 0x84][..], &left.to_be_bytes()].concat()).collect::<Vec<u8>>()
    };
    let many = ber::encode(ber::sequence(vec![ber::integer(1); 20_000]));
    for bytes in [
        deep(10_000),
        many,
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x30\x84\xff\xff\xff\xff".to_vec(),
        b"\x30\x80\x00\x00".to_vec(),
        b"\x30\x05\x02\x01\x01\x42\x05".to_vec(),
        b"\x30\x03\x02\x01\x01".to_vec(),
    ] {
        let answer = said(&bridge, &bytes).await;
        // The Notice of Disconnection, unless a reset came first.
        let notice = b"1.3.6.1.4.1.1466.20036";
        assert!(
            answer.is_empty() || answer.windows(notice.len()).any(|window| window == notice),
            "{:x?}: {answer:x?}",
            &bytes[..bytes.len().min(20)]
        );
        bridge.logs_in().await;
    }
    assert!(bridge.script.asked().iter().all(|user| user == "john.doe"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_drip_are_dropped_and_logins_go_on() {
    let bridge = Running::start(&[], 0).await;
    let mut drips = Vec::new();
    for _ in 0..50 {
        let (mut read, mut write) = bridge.raw().await.into_split();
        // The start of a long message, which continues slowly.
        write.write_all(b"\x30\x84\0\0\x80\0").await.unwrap();
        let drip = tokio::spawn(async move {
            while write.write_all(b"\0").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        drips.push(tokio::spawn(async move {
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
            drip.abort();
            answer
        }));
    }
    bridge.logs_in().await;
    for drip in drips {
        let answer =
            tokio::time::timeout(Duration::from_secs(60), drip).await.expect("it is dropped").unwrap();
        let text = b"no whole message in time";
        assert!(answer.is_empty() || answer.windows(text.len()).any(|window| window == text), "{answer:x?}");
    }
    bridge.logs_in().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_over_the_bounds_is_refused() {
    let bridge = Running::start(&[], 0).await;
    let mut ldap = bridge.admin().await;
    let filter = format!("(cn={})", "x".repeat(60 * 1024));
    let found = ldap.search("dc=acme,dc=com", Scope::Subtree, &filter, vec!["cn"]).await.unwrap();
    assert_eq!(found.1.rc, 11);
    assert_eq!(bridge.directory.asked.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_half_messages_make_room() {
    let bridge = Running::start(&[], 0).await;
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS * 3 {
        let mut stream = bridge.raw().await;
        if number % 2 == 0 {
            stream.write_all(&[0x30, 0x20, 0x02]).await.unwrap();
        }
        idle.push(stream);
    }
    bridge.logs_in().await;
    // Those that found no place at once have had one by now, each for half a second.
    let is_closed = |stream: &TcpStream| loop {
        match stream.try_read(&mut [0; 64]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    let begun = Instant::now();
    while idle.iter().filter(|stream| is_closed(stream)).count() < 2 * CONNECTIONS {
        assert!(begun.elapsed() < Duration::from_secs(60), "idle connections keep their places");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(bridge.client().await);
    }
    let binds = clients.iter_mut().map(|ldap| ldap.simple_bind("john.doe", RIGHT));
    let mut done = 0;
    for bind in binds {
        // The server had closed only connections that had sent no whole message.
        done += usize::from(bind.await.is_ok_and(|bound| bound.rc == 0));
    }
    assert_eq!(done, CONNECTIONS);
}

/// A bind of John with the right password, and an unbind.
fn bind_and_unbind() -> (Vec<u8>, &'static [u8]) {
    let name = [b"\x02\x01\x03\x04\x08john.doe\x80\x12", RIGHT.as_bytes()].concat();
    let bind = [&[0x60, u8::try_from(name.len()).unwrap()][..], &name].concat();
    let message = [&[0x30, u8::try_from(bind.len() + 3).unwrap(), 2, 1, 1][..], &bind].concat();
    (message, b"\x30\x05\x02\x01\x02\x42\x00")
}

impl Running {
    /// Starts a bridge whose logins register sessions.
    async fn registering(outcomes: &[(&'static str, Outcome)]) -> Self {
        let bridge = Running::start(outcomes, 0).await;
        bridge.script.registers.store(true, Ordering::Relaxed);
        bridge
    }

    /// Returns the sessions that the bridge has ended, once there are `count`.
    async fn ended(&self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let ended = self.script.sessions.lock().unwrap().ended.clone();
            if ended.len() >= count {
                return ended;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "only {ended:?} have ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_bind_leaves_no_session() {
    let bridge = Running::registering(&[("jane.roe", Outcome::Disabled)]).await;
    assert_eq!(bridge.client().await.simple_bind("jane.roe", RIGHT).await.unwrap().rc, 49);
    assert_eq!(bridge.ended(1).await, ["jane.roe 1"]);
    bridge.logs_in().await;
    assert_eq!(bridge.ended(1).await.len(), 1, "an accepted bind keeps its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_before_the_answer_leaves_no_session() {
    let bridge = Running::registering(&[]).await;
    let (bind, unbind) = bind_and_unbind();
    for (number, more) in [&b""[..], unbind].into_iter().enumerate() {
        bridge.script.holds.store(true, Ordering::Relaxed);
        let mut client = bridge.raw().await;
        client.write_all(&[&bind, more].concat()).await.unwrap();
        bridge.is_asked(number + 1).await;
        drop(client);
        bridge.script.holds.store(false, Ordering::Relaxed);
        assert_eq!(bridge.ended(number + 1).await.last().unwrap(), &format!("john.doe {}", number + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_the_answer_leaves_no_session() {
    let bridge = Running::registering(&[]).await;
    let mut client = bridge.raw().await;
    client.write_all(&bind_and_unbind().0).await.unwrap();
    client.peek(&mut [0]).await.unwrap();
    // With bytes that are unread, Linux resets the connection.
    drop(client);
    assert_eq!(bridge.ended(1).await, ["john.doe 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_answer_keeps_its_session_however_it_goes() {
    let bridge = Running::registering(&[]).await;
    let (bind, unbind) = bind_and_unbind();
    for more in [&b""[..], unbind, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = bridge.raw().await;
        client.write_all(&bind).await.unwrap();
        let mut answer = [0; 14];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[9], 0, "{answer:x?}");
        client.write_all(more).await.unwrap();
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(bridge.script.sessions.lock().unwrap().registered, 3);
    // The session of this one ends after all that the others could have caused.
    assert_eq!(bridge.client().await.simple_bind("john.doe", "wrong").await.unwrap().rc, 49);
    assert_eq!(bridge.ended(1).await, ["john.doe 4"]);
}

/// The program itself, without systemd.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts it in `folder`. Returns it with its address.
    fn start(folder: &Path, credentials: Option<&Path>) -> (Self, SocketAddr) {
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "[broker]\nusers = [\"{}\"]\n[bridge]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            nix::unistd::getuid(),
            at("c.pem"),
            at("k.pem")
        );
        std::fs::write(folder.join("config.toml"), config).unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_motion-ad-ldap"))
            .args(["--config", &at("config.toml"), "--listen", &address.to_string()])
            .args(["--socket", &at("broker.sock")])
            .envs(credentials.map(|folder| ("CREDENTIALS_DIRECTORY", folder)))
            .spawn()
            .unwrap();
        (Program(program), address)
    }

    /// Checks that it answers: an empty password is rejected without a login.
    async fn answers(&mut self, address: SocketAddr) {
        let begun = Instant::now();
        loop {
            assert_eq!(self.0.try_wait().unwrap(), None, "it has ended");
            if let Ok((connection, mut ldap)) = LdapConnAsync::new(&format!("ldap://{address}")).await {
                drive!(connection);
                assert_eq!(ldap.simple_bind("john.doe", "").await.unwrap().rc, 53);
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_that_cannot_be_used_does_not_keep_the_program_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ldap-admin"), "no name and no secret").unwrap();
    let (mut program, address) = Program::start(folder.path(), Some(folder.path()));
    let begun = Instant::now();
    let ended = loop {
        let ended = program.0.try_wait().unwrap();
        if ended.is_some() || begun.elapsed() > Duration::from_secs(5) {
            break ended;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Where root has no such file, the program ends for a new start: its copy is of another file.
    assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
    assert!(ended.is_some() || TcpStream::connect(address).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_does_not_end_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let (mut program, address) = Program::start(folder.path(), None);
    program.answers(address).await;
    let pair = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (right, other) = (pair(), pair());
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    // The key alone, then a certificate of another key. Each stays for more than two checks of the files.
    write("k.pem", right.signing_key.serialize_pem());
    tokio::time::sleep(Duration::from_secs(5)).await;
    program.answers(address).await;
    write("c.pem", other.cert.pem());
    tokio::time::sleep(Duration::from_secs(5)).await;
    program.answers(address).await;
    write("c.pem", right.cert.pem());
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not notice the right pair");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(ended.success(), "{ended}");
    let (mut program, address) = Program::start(folder.path(), None);
    program.answers(address).await;
}

/// libpam with a service of Debian's own modules.
#[tokio::test(flavor = "multi_thread")]
async fn libpam_decides_by_the_lines_of_the_service() {
    for (lines, code, data) in [
        ("auth required pam_permit.so\naccount required pam_permit.so\n", 0, ""),
        ("auth required pam_deny.so\naccount required pam_permit.so\n", 49, "data 52e,"),
        ("auth required pam_permit.so\naccount required pam_deny.so\n", 49, ""),
        ("auth required pam_no_such_module.so\naccount required pam_permit.so\n", 52, ""),
        ("account required pam_permit.so\n", 49, ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("motion"), lines).unwrap();
        std::fs::write(
            folder.path().join("other"),
            "auth required pam_deny.so\naccount required pam_deny.so\n",
        )
        .unwrap();
        let mut pam = Pam::new("motion", folder.path().to_str(), Path::new("/nonexistent.sock")).unwrap();
        let kept = pam.keep_modules();
        assert!(kept.iter().all(|file| file.exists()), "{kept:?}");
        let bridge = Running::with(Arc::default(), Arc::new(pam), 0, None).await;
        let bound = bridge.client().await.simple_bind("john.doe", "whatever").await.unwrap();
        assert_eq!(bound.rc, code, "{lines}: {}", bound.text);
        assert!(bound.text.contains(data), "{lines}: {}", bound.text);
    }
}
