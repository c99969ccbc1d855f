//! The machine connection against a real Active Directory.
//!
//! Runs only if the environment names a domain controller, as root on a joined host:
//!
//! ```text
//! MOTION_AD_TEST_DC=ad.acme.com         its DNS name; everything else is skipped without it
//! MOTION_AD_TEST_ADDRESS=192.0.2.1:389  unless the system's resolver knows it
//! MOTION_AD_TEST_KDC=192.0.2.1:88      unless it is the address above with that port
//! MOTION_AD_TEST_SEARCHES=20000         for the test of memory
//! MOTION_AD_TEST_RESTART=30             searches for so many seconds; restart the DC meanwhile
//! MOTION_AD_TEST_RENEWAL=100            searches for so many seconds with tickets of 130 seconds
//! KRB5_KTNAME=/etc/krb5.keytab
//! ```

#![cfg(feature = "broker")]
// clippy's exemption covers functions marked #[test] only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motion_ad::directory::entry::Entry;
use motion_ad::directory::machine::{
    MachineConnection, MachineError, Place, Scope, Search, Server, Servers, Settings,
};
use motion_ad::kerberos::{Kdc, Kdcs, Kerberos, LdapService};
use motion_ad::net::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// Returns the domain controller that the environment names; `None` skips the test.
fn dc() -> Option<Server> {
    let Ok(host) = std::env::var("MOTION_AD_TEST_DC") else {
        println!("skipped: MOTION_AD_TEST_DC names no domain controller");
        return None;
    };
    let addresses = match std::env::var("MOTION_AD_TEST_ADDRESS") {
        Ok(address) => vec![address.parse().unwrap()],
        Err(_) => (host.as_str(), 389).to_socket_addrs().unwrap().collect(),
    };
    let (_, domain) = host.split_once('.')?;
    Some(Server { service: LdapService::of_domain(&host, domain), addresses })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// A fixed list of servers, with the failures reported for them.
struct Fixed {
    servers: Vec<Server>,
    failed: Mutex<Vec<String>>,
}

impl Servers for Fixed {
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Server>, String>> {
        let servers = self.servers.clone();
        Box::pin(async move { Ok(servers) })
    }

    fn failed(&self, host: &str, cause: &str) {
        self.failed.lock().unwrap().push(format!("{host}: {cause}"));
    }
}

fn fixed(servers: Vec<Server>) -> Arc<Fixed> {
    Arc::new(Fixed { servers, failed: Mutex::default() })
}

/// The KDC that the environment names.
struct TheKdc;

impl Kdcs for TheKdc {
    fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        let named = std::env::var("MOTION_AD_TEST_KDC").ok().map(|address| address.parse().unwrap());
        let dc = dc().unwrap();
        let address = named.unwrap_or_else(|| SocketAddr::new(dc.addresses[0].ip(), 88));
        Box::pin(async move { Ok(vec![Kdc { host: dc.service.host, addresses: vec![address] }]) })
    }
    fn answered(&self, _: &str) {}
    fn failed(&self, _: &str, _: &str) {}
}

fn kerberos() -> Arc<Kerberos> {
    Arc::new(Kerberos::new(Arc::new(TheKdc)))
}

fn connection(servers: Arc<Fixed>, settings: Settings) -> MachineConnection {
    MachineConnection::new(servers, kerberos(), settings)
}

fn machine(server: Server) -> MachineConnection {
    connection(fixed(vec![server]), Settings::default())
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn search(base: &str, scope: Scope, filter: &str) -> Search {
    Search {
        place: Place::Own,
        base: base.into(),
        scope,
        filter: filter.into(),
        attributes: vec![],
        limit: 100_000,
    }
}

async fn domain(machine: &MachineConnection) -> Search {
    let root = machine.root(within(10)).await.unwrap();
    Search { limit: 1, ..search(&root.default_naming_context, Scope::Base, "(objectClass=*)") }
}

/// Makes the same search so many times at once, each within so many seconds, and checks every result.
async fn at_once(
    count: usize,
    machine: &MachineConnection,
    search: &Search,
    seconds: u64,
    check: impl Fn(Vec<Entry>),
) {
    let mut running = JoinSet::new();
    for _ in 0..count {
        let (machine, search) = (machine.clone(), search.clone());
        running.spawn(async move { machine.search(&search, within(seconds)).await });
    }
    while let Some(answer) = running.join_next().await {
        check(answer.unwrap().unwrap_or_else(|error| panic!("{error}: {:?}", machine.state())));
    }
}

fn size(entries: &[Entry]) -> usize {
    let values = entries.iter().flat_map(Entry::attributes).flat_map(|(_, values)| values);
    values.map(Vec::len).sum::<usize>()
}

/// Returns the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A proxy between the client and the domain controller that can misbehave.
struct Proxy {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    /// The last of the connections on which no data moves.
    frozen: Arc<AtomicU64>,
    /// Number of requests that were passed on, of all connections together.
    requests: Arc<AtomicU64>,
    /// Number of requests after which a connection holds each one back, once there is such a number.
    enough: Arc<AtomicU64>,
    /// Milliseconds for which it does.
    hold: Arc<AtomicU64>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            frozen: Arc::default(),
            requests: Arc::default(),
            enough: Arc::new(u64::MAX.into()),
            hold: Arc::new(u64::MAX.into()),
            tasks: Arc::default(),
        };
        let (accepted, frozen, tasks) = (proxy.accepted.clone(), proxy.frozen.clone(), proxy.tasks.clone());
        let (requests, enough, hold) = (proxy.requests.clone(), proxy.enough.clone(), proxy.hold.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let id = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let (frozen, requests, enough) = (frozen.clone(), requests.clone(), enough.clone());
                let hold = hold.clone();
                let task = tokio::spawn(async move {
                    let far = TcpStream::connect(target).await.unwrap();
                    let ((near_read, near_write), (far_read, far_write)) =
                        (near.into_split(), far.into_split());
                    let mut asked = 0;
                    let ice = || if frozen.load(Ordering::SeqCst) < id { 0 } else { u64::MAX };
                    let held = || {
                        asked += 1;
                        if asked > enough.load(Ordering::SeqCst) {
                            return hold.load(Ordering::SeqCst);
                        }
                        requests.fetch_add(1, Ordering::SeqCst);
                        ice()
                    };
                    tokio::select! {
                        () = carry(near_read, far_write, held) => {}
                        () = carry(far_read, near_write, ice) => {}
                    }
                });
                tasks.lock().unwrap().push(task.abort_handle());
            }
        });
        proxy
    }

    /// Stops all data on the existing connections, but keeps them open.
    fn freeze(&self) {
        self.frozen.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Closes all connections.
    fn cut(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// Carries data from one side to the other, each part after the milliseconds that `held` returns.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut held: impl FnMut() -> u64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        match held() {
            0 => {}
            u64::MAX => std::future::pending().await,
            milliseconds => sleep(Duration::from_millis(milliseconds)).await,
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn proxied(dc: &Server, settings: Settings) -> (Proxy, MachineConnection) {
    let proxy = Proxy::start(dc.addresses[0]).await;
    let server = Server { addresses: vec![proxy.address], ..dc.clone() };
    (proxy, connection(fixed(vec![server]), settings))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_search_connects_and_the_state_tells() {
    let Some(dc) = dc() else { return };
    let machine = machine(dc.clone());
    assert!(!machine.state().connected);
    let start = Instant::now();
    let root = machine.root(within(10)).await.unwrap();
    println!("connect, ticket included: {:?}", start.elapsed());
    assert_eq!(root.dns_host_name.to_ascii_lowercase(), dc.service.host);
    assert!(root.configuration_naming_context.starts_with("CN=Configuration,DC="));

    let domain = domain(&machine).await;
    let entries = machine.search(&domain, within(5)).await.unwrap();
    assert_eq!(entries[0].dn(), root.default_naming_context);
    assert_eq!(entries[0].bytes("objectGUID").unwrap().unwrap().len(), 16);

    let state = machine.state();
    assert!(state.connected && state.last_error.is_none(), "{state:?}");
    assert_eq!(state.dc.as_deref(), Some(dc.service.host.as_str()));
    assert!(state.principal.unwrap().contains("$@"));
    assert!(state.ticket.unwrap() > Duration::from_secs(60));

    let start = Instant::now();
    for _ in 0..200 {
        machine.search(&domain, within(5)).await.unwrap();
    }
    println!("one search after the other: {:?} each", start.elapsed() / 200);

    machine.renew();
    let start = Instant::now();
    machine.root(within(10)).await.unwrap();
    println!("connect with a ticket at hand: {:?}", start.elapsed());
    assert_eq!(machine.state().connects, 2);

    machine.close();
    assert_eq!(machine.search(&domain, within(5)).await, Err(MachineError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_searches_at_once_lose_nothing() {
    let Some(dc) = dc() else { return };
    // Without probes: a busy domain controller may be silent for a while, and would get a further connection.
    let settings = Settings { silence: Duration::from_secs(600), ..Settings::default() };
    let machine = connection(fixed(vec![dc]), settings);
    let base = domain(&machine).await.base;
    let groups = search(&base, Scope::Subtree, "(objectClass=group)");
    let expected = machine.search(&groups, within(20)).await.unwrap();
    // Long deadlines: the test checks that no answer is lost, also on a busy machine.
    let start = Instant::now();
    at_once(200, &machine, &groups, 300, |entries| assert!(entries == expected)).await;
    println!("200 at once, {} entries each: {:?}", expected.len(), start.elapsed());
    assert_eq!(machine.state().connects, 1);

    let mut one = domain(&machine).await;
    one.attributes = vec!["distinguishedName".into()];
    let start = Instant::now();
    at_once(200, &machine, &one, 300, |entries| assert_eq!(entries.len(), 1)).await;
    println!("200 at once, one entry each: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_megabytes_come_whole() {
    let Some(dc) = dc() else { return };
    let machine = machine(dc);
    let root = machine.root(within(10)).await.unwrap();
    let mut everything = search(&root.configuration_naming_context, Scope::Subtree, "(objectClass=*)");
    everything.attributes = vec!["*".into(), "nTSecurityDescriptor".into(), "replPropertyMetaData".into()];
    let start = Instant::now();
    let expected = machine.search(&everything, within(120)).await.unwrap();
    let megabytes = size(&expected) as f64 / 1e6;
    println!("{} entries, {megabytes:.1} MB of values in pages: {:?}", expected.len(), start.elapsed());
    assert!(megabytes > 1.5);
    let start = Instant::now();
    at_once(4, &machine, &everything, 120, |entries| assert!(entries == expected)).await;
    println!("four times that at once: {:?}", start.elapsed());
    assert_eq!(machine.state().connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_apart_and_harm_nobody() {
    let Some(dc) = dc() else { return };
    let machine = machine(dc);
    let domain = domain(&machine).await;
    let nowhere = search(&format!("CN=nowhere,{}", domain.base), Scope::Base, "(objectClass=*)");
    assert_eq!(
        machine.search(&nowhere, within(5)).await,
        Err(MachineError::NoSuchObject(nowhere.base.clone()))
    );
    let broken = search(&domain.base, Scope::Base, "(((");
    assert_eq!(machine.search(&broken, within(5)).await, Err(MachineError::Filter));
    for limit in [1, 3, 600] {
        let many = Search {
            limit,
            base: machine.root(within(5)).await.unwrap().schema_naming_context.clone(),
            ..nowhere.clone()
        };
        let many = Search { scope: Scope::Subtree, ..many };
        assert_eq!(machine.search(&many, within(20)).await, Err(MachineError::TooMany(limit)));
    }
    // Tokio's timers round up to a millisecond, within which a domain controller can answer.
    let late = machine.search(&domain, Instant::now() - Duration::from_secs(1)).await;
    assert!(matches!(late, Err(MachineError::Timeout(_))), "{late:?}");
    assert_eq!(machine.search(&domain, within(5)).await.unwrap().len(), 1);
    assert_eq!(machine.state().connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_searches_break_no_others() {
    let Some(dc) = dc() else { return };
    let machine = machine(dc);
    let domain = domain(&machine).await;
    let root = machine.root(within(5)).await.unwrap();
    let everything = search(&root.schema_naming_context, Scope::Subtree, "(objectClass=*)");
    for round in 0..10 {
        let dropped =
            timeout(Duration::from_millis(5 * round), machine.search(&everything, within(60))).await;
        assert!(dropped.is_err());
        assert_eq!(machine.search(&domain, within(20)).await.unwrap().len(), 1);
    }
    assert_eq!(machine.state().connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_is_replaced_unnoticed() {
    let Some(dc) = dc() else { return };
    let (proxy, machine) = proxied(&dc, Settings::default()).await;
    let domain = domain(&machine).await;
    for round in 1..=5 {
        // First between two searches, then during one.
        proxy.cut();
        assert_eq!(machine.search(&domain, within(5)).await.unwrap().len(), 1, "{round}");
        proxy.freeze();
        let waiting = tokio::spawn({
            let (machine, domain) = (machine.clone(), domain.clone());
            async move { machine.search(&domain, within(5)).await }
        });
        sleep(Duration::from_millis(50)).await;
        proxy.cut();
        assert_eq!(waiting.await.unwrap().unwrap().len(), 1, "{round}");
    }
    assert_eq!(machine.state().connects, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_silent_is_replaced_within_the_deadline() {
    let Some(dc) = dc() else { return };
    let (proxy, machine) = proxied(&dc, Settings::default()).await;
    let domain = domain(&machine).await;
    proxy.freeze();
    let start = Instant::now();
    at_once(20, &machine, &domain, 5, |entries| assert_eq!(entries.len(), 1)).await;
    let took = start.elapsed();
    assert_eq!(machine.state().connects, 2);
    // The control: a connection on the same machine a moment later. The doubt, the probe and as long again
    // come on top of it, because the requests have arrived: the domain controller could be at work on them.
    machine.renew();
    let start = Instant::now();
    assert_eq!(machine.search(&domain, within(5)).await.unwrap().len(), 1);
    let usual = start.elapsed();
    println!("20 searches on a connection gone silent: {took:?}; a search that connects: {usual:?}");
    let Settings { silence, probe, .. } = Settings::default();
    assert!(took < 4 * (silence + probe) + 8 * usual, "{took:?} {usual:?}");
    let connects = machine.state().connects;

    // A search with too short a deadline fails, but its probe then detects the dead connection.
    proxy.freeze();
    let short = machine.search(&domain, Instant::now() + Duration::from_millis(300)).await;
    assert!(matches!(short, Err(MachineError::Timeout(_))), "{short:?}");
    let replaced = async {
        while machine.state().connects == connects {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), replaced).await.unwrap();
    assert_eq!(machine.state().connects, connects + 1, "{:?}", machine.state());
    assert_eq!(machine.search(&domain, within(5)).await.unwrap().len(), 1);
}

/// A domain controller under load may answer on none of several connections in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_is_repeated_on_each_connection_that_replaces_a_silent_one() {
    let Some(dc) = dc() else { return };
    let (proxy, machine) = proxied(&dc, Settings::default()).await;
    let domain = domain(&machine).await;
    // Each connection is made, and then its first search is not answered.
    proxy.enough.store(proxy.requests.load(Ordering::SeqCst), Ordering::SeqCst);
    let waiting = tokio::spawn({
        let (machine, domain) = (machine.clone(), domain.clone());
        async move { machine.search(&domain, within(60)).await }
    });
    while proxy.accepted.load(Ordering::SeqCst) < 4 && !waiting.is_finished() {
        sleep(Duration::from_millis(10)).await;
    }
    proxy.enough.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1, "{:?}", machine.state());
    assert!(machine.state().connects >= 4, "{:?}", machine.state());
}

/// Samba handles the searches of a connection one after another, so a slow one keeps the probe waiting, too.
/// The account of a user with many groups costs it a second and more on a busy machine, on each connection
/// anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_is_slow_on_every_connection_is_answered() {
    let Some(dc) = dc() else { return };
    let (proxy, machine) = proxied(&dc, Settings::default()).await;
    let domain = domain(&machine).await;
    proxy.hold.store(3000, Ordering::SeqCst);
    proxy.enough.store(proxy.requests.load(Ordering::SeqCst), Ordering::SeqCst);
    let start = Instant::now();
    at_once(20, &machine, &domain, 60, |entries| assert_eq!(entries.len(), 1)).await;
    println!("20 searches, the first request held back for 3 s: {:?}", start.elapsed());
    // It did look for a better connection.
    assert!(proxy.accepted.load(Ordering::SeqCst) >= 2, "{:?}", machine.state());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_domain_controller_is_tried() {
    let Some(dc) = dc() else { return };
    // Bound, so that no other process listens there, and without a listener.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = bound.local_addr().unwrap();
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = vec![closed, hole.local_addr().unwrap()];
    let servers = fixed(vec![Server { addresses: bad, ..dc.clone() }, dc.clone()]);
    let settings = Settings { attempt: Duration::from_millis(500), ..Settings::default() };
    let machine = connection(servers.clone(), settings.clone());
    machine.root(within(10)).await.unwrap();
    let failed = servers.failed.lock().unwrap().clone();
    // The silent address is overtaken. That says nothing against its host, which answers at another one.
    assert!(failed.len() == 1 && failed[0].contains("refused"), "{failed:?}");

    // The server's name decides trust: the right address under a wrong name is rejected.
    let host = dc.service.host.clone();
    let (_, domain) = host.split_once('.').unwrap();
    let wrong = Server { service: LdapService::of_domain("nobody.invalid", domain), ..dc };
    let machine = connection(fixed(vec![wrong]), settings);
    let error = machine.root(within(10)).await.unwrap_err();
    assert!(error.to_string().contains("knows no service ldap/nobody.invalid"), "{error}");
    let own = format!("nobody.invalid is only an alias or an address of {host}: name {host} instead");
    assert!(error.to_string().contains(&own), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_is_made_after_many_searches() {
    let Some(dc) = dc() else { return };
    let settings = Settings { searches: 100, ..Settings::default() };
    let machine = connection(fixed(vec![dc]), settings);
    let domain = domain(&machine).await;
    for _ in 0..350 {
        assert_eq!(machine.search(&domain, within(5)).await.unwrap().len(), 1);
    }
    let connects = machine.state().connects;
    assert!((3..=4).contains(&connects), "{connects}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat() {
    let Some(dc) = dc() else { return };
    let searches = number("MOTION_AD_TEST_SEARCHES").unwrap_or(20_000);
    // The connection is never recycled, so that a leak per search would show.
    let settings = Settings { searches: u64::MAX, ..Settings::default() };
    let machine = connection(fixed(vec![dc]), settings);
    let domain = domain(&machine).await;
    let run = async |count: u64| {
        let mut running = JoinSet::new();
        for _ in 0..8 {
            let (machine, domain) = (machine.clone(), domain.clone());
            running.spawn(async move {
                for _ in 0..count / 8 {
                    assert_eq!(machine.search(&domain, within(30)).await.unwrap().len(), 1);
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    run(searches / 10).await;
    let before = resident();
    let start = Instant::now();
    run(searches).await;
    let grown = resident().saturating_sub(before);
    println!("{searches} searches by 8: {:?}, memory {before} KiB + {grown} KiB", start.elapsed());
    assert_eq!(machine.state().connects, 1);
    // Other tests run in the same process. A leak of one entry per search would be 40 MB.
    if std::env::args().any(|argument| argument.contains("memory_stays_flat")) {
        assert!(grown < 2048, "{grown} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_domain_controller_is_survived() {
    let (Some(dc), Some(seconds)) = (dc(), number("MOTION_AD_TEST_RESTART")) else { return };
    let machine = machine(dc);
    let domain = domain(&machine).await;
    let end = within(seconds);
    let mut last = String::new();
    while Instant::now() < end {
        let start = Instant::now();
        let answer = match machine.search(&domain, within(3)).await {
            Ok(entries) => format!("{} entry", entries.len()),
            Err(error) => error.to_string(),
        };
        if answer != last {
            println!("{:?} before the end, after {:?}: {answer}", end - Instant::now(), start.elapsed());
            last = answer;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, "1 entry", "{:?}", machine.state());
    assert!(machine.state().connects > 1, "the domain controller was not restarted");
}

/// Runs the test `name` of this file in a child process with this environment. libkrb5 reads its environment,
/// and a process cannot safely change its own.
fn child(name: &str, environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("MOTION_AD_TEST_CHILD", "1");
    // On a joined host, SSSD's plugin overrides the KDC in krb5.conf.
    command.env("SSSD_KRB5_LOCATOR_DISABLE", "1").envs(environment.iter().copied());
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn is_child() -> bool {
    std::env::var_os("MOTION_AD_TEST_CHILD").is_some()
}

#[tokio::test]
async fn child_gets_a_ticket() {
    if is_child() {
        match kerberos().credential(within(2)).await {
            Ok(credential) => println!("{credential:?}"),
            Err(error) => println!("{error}"),
        }
    }
}

/// Returns a keytab with one 32-byte key that no account has (MIT's file format 0x502).
fn keytab_of(principal: &str) -> Vec<u8> {
    let (name, realm) = principal.rsplit_once('@').unwrap();
    let components: Vec<_> = name.split('/').collect();
    let counted =
        |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let mut entry = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
    entry.extend(counted(realm));
    entry.extend(components.into_iter().flat_map(counted));
    entry.extend([0, 0, 0, 1, 0, 0, 0, 0, 9, 0, 18, 0, 32]);
    entry.extend([7; 32]);
    [&[5, 2][..], &u32::try_from(entry.len()).unwrap().to_be_bytes(), &entry].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_cannot_be_had_names_the_cause() {
    let Some(dc) = dc() else { return };
    let principal = kerberos().credential(within(5)).await.unwrap().principal().to_owned();
    let (_, realm) = principal.rsplit_once('@').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let missing = folder.path().join("missing");
    let empty = file("empty", b"");
    let other = file("other", &keytab_of(&format!("HTTP/x@{realm}")));
    let wrong = file("wrong", &keytab_of(&principal));
    let gone = file("gone", &keytab_of(&format!("GONE$@{realm}")));
    let config = file("krb5.conf", format!("[libdefaults]\ndefault_realm = {realm}\n").as_bytes());
    let here = SocketAddr::new(dc.addresses[0].ip(), 88).to_string();
    let nowhere = "127.0.0.1:9".to_owned();
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hole.local_addr().unwrap().to_string();

    let cases = [
        (&here, &missing, "does not exist: join again with `adcli join`"),
        (&here, &empty, "holds no key: join again with `adcli join`"),
        (&here, &other, "holds no key of a machine account (only HTTP/x@"),
        (&here, &wrong, "the KDC does not accept the key of"),
        (&here, &gone, "the KDC does not know GONE$@"),
        (&nowhere, &wrong, "no KDC of the realm"),
        (&silent, &wrong, "the KDC did not answer in time"),
    ];
    for (kdc, keytab, text) in cases {
        let environment =
            [("KRB5_CONFIG", &*config), ("KRB5_KTNAME", keytab), ("MOTION_AD_TEST_KDC", Path::new(kdc))];
        let said = child("child_gets_a_ticket", &environment);
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_searches_with_short_tickets() {
    let (Some(dc), true) = (dc(), is_child()) else { return };
    let machine = machine(dc);
    let domain = domain(&machine).await;
    let end = within(number("MOTION_AD_TEST_RENEWAL").unwrap());
    while Instant::now() < end {
        machine.search(&domain, within(3)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    println!("{:?}", machine.state());
    assert!(machine.state().ticket.unwrap() > Duration::from_secs(60));
    println!("tickets renewed: {}", machine.state().connects > 1);
}

#[tokio::test]
async fn tickets_are_renewed_before_they_end() {
    // Samba serves no ticket that has less than two minutes left (CVE-2022-2031), so the time cannot be
    // shorter.
    let (Some(dc), Some(_)) = (dc(), number("MOTION_AD_TEST_RENEWAL")) else { return };
    let realm = kerberos().credential(within(5)).await.unwrap().realm().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("krb5.conf");
    let text = format!(
        "[libdefaults]\ndefault_realm = {realm}\nticket_lifetime = 130s\n[realms]\n{realm} = {{\nkdc = {}\n\
         }}\n",
        dc.addresses[0].ip()
    );
    std::fs::write(&config, text).unwrap();
    let said = child("child_searches_with_short_tickets", &[("KRB5_CONFIG", &config)]);
    assert!(said.contains("tickets renewed: true"), "{said}");
}
