//! Password changes by LDAP against scripted domain controllers: the messages sent, their number, and the
//! result of each answer and of a missing one.

use std::sync::Arc;
use std::time::Duration;

use motion_ad::checked::Method;
use motion_ad::config::{self, Pool as Settings, TlsMode};
use motion_ad::directory::controllers::discovery::Wanted;
use motion_ad::directory::controllers::servers::ServerList;
use motion_ad::directory::passwords::change::Answer;
use motion_ad::directory::passwords::pool::Pool;
use motion_ad::directory::people::person::Person;
use motion_ad::kerberos::{Kdc, Kdcs, Kerberos};
use motion_ad::login::passwords::{Attempt, Changes, DomainPasswords, MethodObserver, Pools};
use motion_ad::login::refusal::Refusal;
use motion_ad::net::BoxFuture;
use motion_ad::verdict::Outcome;
use motion_ad_support::scripted::*;
use tokio::time::Instant;

use crate::network::{Controller, Network};

const JOHN: &str = "CN=john.doe,OU=People,DC=acme,DC=com";
const PRESENT: &str = "0ld-secret";
const NEW: &str = "N3w-secret";
const DC1: &str = "dc1.acme.com";
const DC2: &str = "dc2.acme.com";

/// A network without a KDC.
struct Nowhere;

impl Kdcs for Nowhere {
    fn candidates<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Kdc>, String>> {
        Box::pin(async { Err("there is none".to_owned()) })
    }
    fn answered(&self, _: &str) {}
    fn failed(&self, _: &str, _: &str) {}
}

/// Returns an object that changes passwords in the domain of `network`, by LDAP only.
fn passwords(network: &Network) -> Arc<DomainPasswords> {
    passwords_by(config::Method::Ldap, network)
}

/// The same for another `login.method`.
fn passwords_by(method: config::Method, network: &Network) -> Arc<DomainPasswords> {
    observed(method, network, Arc::new(|_, _, _| {}))
}

/// The same with an observer of the method.
pub fn observed(method: config::Method, network: &Network, observer: MethodObserver) -> Arc<DomainPasswords> {
    let wanted = Wanted { domain: "acme.com".into(), ..Wanted::default() };
    let servers = ServerList::new(wanted, network.names(), network.roster(), Box::new(|_| {}));
    let settings = Settings { connections: 4, idle: Duration::from_secs(60) };
    let renew = Box::new(|_| Box::pin(async {}) as BoxFuture<'static, ()>);
    let pool = Pool::new(servers, network.trust(), TlsMode::Auto, settings, renew);
    let pools: Pools = Box::new(move |_| pool.clone());
    let kerberos = Arc::new(Kerberos::new(Arc::new(Nowhere)));
    Arc::new(DomainPasswords::new(method, kerberos, pools, observer))
}

/// John Doe of acme.com.
pub fn john() -> Person {
    let domain = "acme.com".to_owned();
    let guid = "01010101-0101-0101-0101-010101010101".parse().unwrap();
    Person { dn: JOHN.into(), guid, sam: "john.doe".into(), upn: None, domain }
}

async fn change(passwords: &Arc<DomainPasswords>) -> Result<Attempt, Refusal> {
    passwords.change(&john(), PRESENT, NEW, None, Instant::now() + Duration::from_millis(1500)).await
}

/// Returns the answer to a change that was sent.
fn answer(attempt: Result<Attempt, Refusal>) -> Answer {
    match attempt {
        Ok(Attempt::Sent { present, answer, .. }) => {
            assert_eq!(
                (present.method, present.outcome, present.dc.as_str()),
                (Method::Ldap, Outcome::Success, DC1)
            );
            answer
        }
        other => panic!("{other:?}"),
    }
}

/// Returns how many binds and changes a domain controller received.
fn received(controller: &Controller) -> (usize, usize) {
    let is_change = |received: &Received| {
        let changes = ["delete unicodePwd".to_owned(), "add unicodePwd".to_owned()];
        *received == Received::Modify { dn: JOHN.into(), changes: changes.into() }
    };
    let log = controller.log();
    assert_eq!(log.count(is_change), log.count(|received| matches!(received, Received::Modify { .. })));
    (log.binds_as(JOHN), log.count(is_change))
}

/// Creates two domain controllers. The first answers John's bind and change with `bind` and `change`; the
/// second one accepts both.
async fn two(
    network: &Network,
    bind: Action,
    change: impl IntoIterator<Item = Action>,
) -> (Controller, Controller) {
    let first = |script: Script| script.on(Event::bind(), [bind]).on(Event::Modify, change);
    let second = |script: Script| script.on(Event::bind(), [success()]).on(Event::Modify, [success()]);
    (network.controller(DC1, first).await, network.controller(DC2, second).await)
}

#[tokio::test]
async fn where_no_simple_bind_is_taken_the_password_goes_to_kerberos_instead() {
    let Some(network) = Network::new() else { return };
    let (first, second) = two(&network, refused(0x418), []).await;
    drop(second);
    let passwords = passwords_by(config::Method::Auto, &network);
    for _ in 0..2 {
        let refusal = change(&passwords).await.unwrap_err();
        assert!(refusal.reason.contains("no KDC answered: there is none"), "{refusal:?}");
        // Its TLS is no reason to choose binds again.
        passwords.settled("acme.com", DC1);
        let method = passwords.report("acme.com");
        assert_eq!(method.name, "kerberos");
        assert!(method.reason.contains("data 418"), "{method:?}");
        assert!(passwords.stands_in("acme.com").is_some());
    }
    assert_eq!(received(&first), (1, 0));
    let refusal = change(&passwords_by(config::Method::Ldap, &network)).await.unwrap_err();
    assert!(refusal.reason.starts_with("no domain controller takes simple binds: "), "{refusal:?}");
}

#[tokio::test]
async fn the_password_of_a_restricted_account_goes_to_kerberos_and_no_other_one() {
    let Some(network) = Network::new() else { return };
    let (first, second) = two(&network, refused(0x52f), []).await;
    let passwords = passwords_by(config::Method::Auto, &network);
    let refusal = change(&passwords).await.unwrap_err();
    assert!(refusal.reason.contains("no KDC answered: there is none"), "{refusal:?}");
    assert_eq!(passwords.report("acme.com").name, "ldap");
    assert_eq!((received(&first), received(&second)), ((1, 0), (0, 0)));
    match change(&passwords_by(config::Method::Ldap, &network)).await {
        Ok(Attempt::Closed(present)) => assert_eq!(present.outcome, Outcome::AccountRestriction),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_bind_and_one_change_on_the_same_connection() {
    let Some(network) = Network::new() else { return };
    let (first, second) = two(&network, success(), [success()]).await;
    let passwords = passwords(&network);
    for count in 1..=3 {
        assert_eq!(answer(change(&passwords).await), Answer::Done);
        assert_eq!((received(&first), received(&second)), ((count, count), (0, 0)));
    }
    assert_eq!(first.log().connections(), 1, "it is good for more");
}

#[tokio::test]
async fn a_change_without_an_answer_is_lost_and_goes_to_nobody_else() {
    let cases = [
        ("silence", vec![Action::Silence], "no answer to the change in time"),
        ("an orderly end", vec![Action::Close], "closed the connection"),
        ("a reset", vec![Action::Reset], "reset"),
        ("half an answer", vec![success().cut(6), Action::Close], "closed within the answer"),
        ("half an answer and silence", vec![success().cut(6), Action::Silence], "in time"),
        ("another message's answer", vec![success().other_id(1)], "malformed"),
        ("two answers", vec![success().twice()], "malformed"),
        ("rubbish", vec![Action::Bytes(b"HTTP/1.1 400".to_vec())], "malformed"),
        ("a notice of disconnection", vec![notice(52, "shutting down"), Action::Close], "LDAP result 52"),
    ];
    for (name, actions, words) in cases {
        let Some(network) = Network::new() else { return };
        let (first, second) = two(&network, success(), actions).await;
        match answer(change(&passwords(&network)).await) {
            Answer::Lost(cause) => assert!(cause.contains(DC1) && cause.contains(words), "{name}: {cause}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!((received(&first), received(&second)), ((1, 1), (0, 0)), "{name}");
    }
}

#[tokio::test]
async fn a_refused_change_is_an_answer_and_leaves_the_connection_usable() {
    let windows = "0000052D: AtrErr: DSID-03191083, #1:\n\t0: 0000052D: DSID-03191083, problem 1005 \
                   (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)\0";
    let samba = "0000052D: Constraint violation - check_password_restrictions: the password is too short. It \
                 should be equal or longer than 7 characters!";
    let cases = [
        (19, windows, None),
        (19, samba, None),
        (19, "00000056: AtrErr: DSID-03190F80", Some(Outcome::WrongPassword)),
        (
            50,
            "00000005: SecErr: DSID-031A11BD, problem 4003 (INSUFF_ACCESS_RIGHTS)",
            Some(Outcome::ChangeForbidden),
        ),
        (51, "busy", Some(Outcome::Unavailable)),
        (53, "0000001F: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM)", Some(Outcome::Refused)),
    ];
    for (code, text, outcome) in cases {
        let Some(network) = Network::new() else { return };
        let (first, second) = two(&network, success(), [result(code, text)]).await;
        let passwords = passwords(&network);
        for count in 1..=2 {
            match (answer(change(&passwords).await), outcome) {
                (Answer::Policy { said, policy: None }, None) => assert!(said.contains("0000052D"), "{said}"),
                (Answer::Refused(found, said), Some(outcome)) => {
                    assert_eq!(found, outcome);
                    assert!(said.contains(text), "{said}");
                }
                other => panic!("{text}: {other:?}"),
            }
            assert_eq!((received(&first), received(&second)), ((count, count), (0, 0)), "{text}");
        }
        assert_eq!(first.log().connections(), 1, "{text}");
    }
}

#[tokio::test]
async fn whoever_cannot_bind_is_bound_once_and_nothing_is_changed() {
    let cases = [(0x52e, Outcome::WrongPassword), (0x533, Outcome::Disabled), (0x775, Outcome::LockedOut)];
    for (data, outcome) in cases {
        let Some(network) = Network::new() else { return };
        let (first, second) = two(&network, refused(data), [success()]).await;
        match change(&passwords(&network)).await {
            Ok(Attempt::Closed(checked)) => assert_eq!(checked.outcome, outcome),
            other => panic!("{outcome}: {other:?}"),
        }
        assert_eq!((received(&first), received(&second)), ((1, 0), (0, 0)), "{outcome}");
    }
}

#[tokio::test]
async fn who_must_change_the_password_is_left_to_kerberos_after_one_bind() {
    for data in [0x532, 0x773] {
        let Some(network) = Network::new() else { return };
        let (first, second) = two(&network, refused(data), [success()]).await;
        let refusal = change(&passwords(&network)).await.unwrap_err();
        assert_eq!(refusal.outcome, Outcome::Unavailable);
        assert!(refusal.reason.contains("there is none"), "{}", refusal.reason);
        assert_eq!((received(&first), received(&second)), ((1, 0), (0, 0)));
    }
}

#[tokio::test]
async fn before_the_change_is_sent_another_domain_controller_is_asked() {
    let Some(network) = Network::new() else { return };
    let silent = |script: Script| script.on(Event::bind(), [Action::Silence]);
    let good = |script: Script| script.on(Event::bind(), [success()]).on(Event::Modify, [success()]);
    let first = network.controller(DC1, silent).await;
    let second = network.controller(DC2, good).await;
    match change(&passwords(&network)).await {
        Ok(Attempt::Sent { present, answer: Answer::Done, .. }) => assert_eq!(present.dc, DC2),
        other => panic!("{other:?}"),
    }
    assert_eq!((received(&first), received(&second)), ((1, 0), (1, 1)));
}
