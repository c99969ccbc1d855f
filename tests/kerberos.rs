//! Password checks against a real KDC.
//!
//! Runs only if the environment names a KDC, as root on a joined host:
//!
//! ```text
//! MOTION_AD_TEST_KDC=ad.acme.com=192.0.2.1:88  its name and address, further ones after a comma;
//!                                              everything is skipped without it
//! MOTION_AD_TEST_FORGER=forger=192.0.2.9:88    a KDC that knows the first user's password, but not
//!                                              this host's key
//! MOTION_AD_TEST_REALM=ACME.COM
//! MOTION_AD_TEST_PEOPLE=FILE                   lines of sAMAccountName, optional UPN, password, outcome,
//!                                              by tab; "?" after the outcome: the KDC gives no reason
//! MOTION_AD_TEST_LOGINS=100                    logins of the first user in the memory test, eight at once
//! MOTION_AD_TEST_SECONDS=5                     the deadline of one check
//! KRB5_KTNAME=/etc/krb5.keytab
//! ```

#![cfg(feature = "broker")]
// clippy's exemption covers functions marked #[test] only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motion_ad::checked::Checked;
use motion_ad::kerberos::{CheckError, Kdc, Kdcs, Kerberos, Who};
use motion_ad::net::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The KDCs that the environment names, with the failures reported for them.
#[derive(Default)]
struct Fixed {
    kdcs: Mutex<Vec<Kdc>>,
    said: Mutex<Vec<String>>,
}

impl Kdcs for Fixed {
    fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        Box::pin(async { Ok(self.kdcs.lock().unwrap().clone()) })
    }
    fn answered(&self, host: &str) {
        self.said.lock().unwrap().push(format!("{host} answered"));
    }
    fn failed(&self, host: &str, cause: &str) {
        self.said.lock().unwrap().push(format!("{host}: {cause}"));
        // The broker's list does the same.
        self.kdcs.lock().unwrap().sort_by_key(|kdc| kdc.host == host);
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Parses names and addresses: `ad.acme.com=192.0.2.1:88`, separated by commas.
fn named(kdcs: &str) -> Vec<Kdc> {
    let kdc = |text: &str| {
        let (host, address) = text.split_once('=').unwrap();
        let address: SocketAddr = address.parse().unwrap();
        Kdc { host: host.to_owned(), addresses: vec![address] }
    };
    kdcs.split(',').map(kdc).collect()
}

fn fixed() -> Option<Arc<Fixed>> {
    let Some(kdcs) = variable("MOTION_AD_TEST_KDC") else {
        println!("skipped: MOTION_AD_TEST_KDC names no KDC");
        return None;
    };
    Some(Arc::new(Fixed { kdcs: Mutex::new(named(&kdcs)), said: Mutex::default() }))
}

struct Person {
    name: String,
    upn: String,
    password: String,
    expected: String,
}

fn people() -> Vec<Person> {
    let file = std::fs::read_to_string(variable("MOTION_AD_TEST_PEOPLE").unwrap()).unwrap();
    let person = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        Person {
            name: cells.next().unwrap(),
            upn: cells.next().unwrap(),
            password: cells.next().unwrap(),
            expected: cells.next().unwrap(),
        }
    };
    file.lines().map(person).collect()
}

async fn check(kerberos: &Kerberos, person: &Person) -> Result<Checked, CheckError> {
    let seconds = variable("MOTION_AD_TEST_SECONDS").map_or(5.0, |text| text.parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs_f32(seconds);
    let realm = variable("MOTION_AD_TEST_REALM").unwrap();
    let upn = (!person.upn.is_empty()).then_some(person.upn.as_str());
    let who = Who { sam: &person.name, upn, realm: &realm, uncounted: false };
    kerberos.check_password(who, &person.password, deadline).await
}

fn text(result: &Result<Checked, CheckError>) -> String {
    match result {
        Ok(checked) if checked.unexplained => format!("{}?", checked.outcome),
        Ok(checked) => checked.outcome.to_string(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_the_answer_that_is_due() {
    let Some(kdcs) = fixed() else { return };
    let kerberos = Kerberos::new(kdcs.clone());
    let mut wrong = Vec::new();
    for person in people() {
        let begun = Instant::now();
        let result = check(&kerberos, &person).await;
        println!("{} after {:?}: {result:?}", person.name, begun.elapsed());
        let answer = text(&result);
        if !answer.contains(&person.expected) {
            wrong.push(format!("{}: {answer}, not {}", person.name, person.expected));
        }
    }
    println!("{:?}", kdcs.said.lock().unwrap().iter().filter(|said| said.contains(": ")).collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_kdc_is_refused_with_and_without_armour() {
    let (Some(kdcs), Some(forger)) = (fixed(), variable("MOTION_AD_TEST_FORGER")) else { return };
    let person = people().remove(0);
    let armed = Kerberos::new(kdcs.clone());
    assert!(check(&armed, &person).await.unwrap().proven);
    *kdcs.kdcs.lock().unwrap() = named(&forger);
    for kerberos in [armed, Kerberos::new(kdcs)] {
        let result = check(&kerberos, &person).await;
        println!("{result:?}");
        assert!(text(&result).contains("forged KDC"), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_or_says_why_not() {
    let Some(kdcs) = fixed() else { return };
    let realm = variable("MOTION_AD_TEST_REALM").unwrap();
    let kdc = kdcs.kdcs.lock().unwrap()[0].clone();
    let soon = Instant::now() + Duration::from_secs(2);
    let kerberos = Kerberos::new(kdcs);
    assert_eq!(kerberos.probe(&realm, kdc.clone(), soon).await, Ok(()));
    let closed = SocketAddr::new(kdc.addresses[0].ip(), 9);
    let cause = kerberos.probe(&realm, Kdc { addresses: vec![closed], ..kdc }, soon).await.unwrap_err();
    assert!(cause.contains("refused"), "{cause}");
}

/// Returns the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_run_beside_each_other_and_memory_stays_flat() {
    let (Some(kdcs), Some(logins)) = (fixed(), variable("MOTION_AD_TEST_LOGINS")) else { return };
    let logins: u32 = logins.parse().unwrap();
    let kerberos = Kerberos::new(kdcs);
    let person = Arc::new(people().remove(0));
    let begun = Instant::now();
    check(&kerberos, &person).await.unwrap();
    println!("the first, the machine's ticket included: {:?}", begun.elapsed());
    let run = async |count: u32| {
        let mut running = JoinSet::new();
        for _ in 0..8 {
            let (kerberos, person) = (kerberos.clone(), person.clone());
            running.spawn(async move {
                for _ in 0..count {
                    assert_eq!(text(&check(&kerberos, &person).await), person.expected);
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(text(&check(&kerberos, &person).await), person.expected);
    }
    println!("one after the other: {:?} each", begun.elapsed() / 10);
    run(logins / 10 + 1).await;
    let (before, begun) = (resident(), Instant::now());
    run(logins).await;
    let grown = resident().saturating_sub(before);
    let each = begun.elapsed() / (8 * logins);
    println!("8 times {logins} at once: {each:?} each, memory {before} KiB + {grown} KiB");
    assert!(grown < 2048, "{grown} KiB");
}
