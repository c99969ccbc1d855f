//! The method of a domain, bind or Kerberos: what chooses it, and what changes it again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use motion_ad::checked::Method;
use motion_ad::config::Method as Configured;
use motion_ad::login::passwords::{DomainPasswords, MethodObserver, Passwords};
use motion_ad::verdict::Outcome;
use motion_ad_support::scripted::*;
use tokio::time::Instant;

use crate::change::{john, observed};
use crate::network::{Controller, Network};

const DOMAIN: &str = "acme.com";
const DC1: &str = "dc1.acme.com";
const DC2: &str = "dc2.acme.com";

/// Longer than a domain controller that took no simple binds is spared (60 s).
const SPARED: Duration = Duration::from_secs(61);

type Choices = Arc<Mutex<Vec<(Method, String)>>>;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// The passwords of the domain by this `login.method`, and each method that they choose.
fn passwords(method: Configured, network: &Network) -> (Arc<DomainPasswords>, Choices) {
    let choices = Choices::default();
    let chosen = choices.clone();
    let observer: MethodObserver = Arc::new(move |domain, method, reason| {
        assert_eq!(domain, DOMAIN);
        chosen.lock().unwrap().push((method, reason.to_owned()));
    });
    (observed(method, network, observer), choices)
}

async fn takes_binds(network: &Network) -> Controller {
    network.controller(DC1, |script| script.on(Event::bind(), [success()])).await
}

async fn has_no_tls(network: &Network) -> Controller {
    let refuses = |script: Script| script.rule(Rule::new(Event::StartTls, [unavailable()]));
    let mut controller = network.silent(DC1, refuses);
    controller.listen(389).await;
    controller
}

#[tokio::test]
async fn ahead_of_the_first_login_tls_chooses_binds() {
    let Some(network) = Network::new() else { return };
    let controller = takes_binds(&network).await;
    for (configured, reason) in [
        (Configured::Ldap, "login.method"),
        (Configured::Auto, "dc1.acme.com offers TLS that can be verified"),
    ] {
        let (passwords, choices) = passwords(configured, &network);
        assert_eq!(passwords.warm_up(DOMAIN, soon()).await, Ok(Some(DC1.to_owned())));
        assert_eq!(*choices.lock().unwrap(), [(Method::Ldap, reason.to_owned())]);
        let report = passwords.report(DOMAIN);
        assert_eq!((report.name.as_str(), report.reason.as_str()), ("ldap", reason));
        assert_eq!(passwords.method(&john()), Method::Ldap);
        assert_eq!(passwords.stands_in(DOMAIN), None);
        let names: Vec<_> = passwords.pools().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [DOMAIN]);
    }
    assert_eq!(controller.log().binds(), 0);
}

#[tokio::test]
async fn kerberos_as_configured_connects_nowhere_and_stands_in_for_nothing() {
    let Some(network) = Network::new() else { return };
    let controller = takes_binds(&network).await;
    let (passwords, choices) = passwords(Configured::Kerberos, &network);
    for _ in 0..2 {
        assert_eq!(passwords.warm_up(DOMAIN, soon()).await, Ok(None));
        assert_eq!(*choices.lock().unwrap(), [(Method::Kerberos, "login.method".to_owned())]);
    }
    assert_eq!(passwords.method(&john()), Method::Kerberos);
    assert_eq!(passwords.stands_in(DOMAIN), None);
    passwords.settled(DOMAIN, DC1);
    assert_eq!(passwords.report(DOMAIN).name, "kerberos");
    assert_eq!(controller.log().connections(), 0);
}

#[tokio::test]
async fn without_tls_kerberos_stands_in_if_the_choice_is_open_and_else_nothing_does() {
    let Some(network) = Network::new() else { return };
    let _controller = has_no_tls(&network).await;
    let (open, choices) = passwords(Configured::Auto, &network);
    assert_eq!(open.warm_up(DOMAIN, soon()).await, Ok(None));
    assert_eq!(open.method(&john()), Method::Kerberos);
    let reason = open.stands_in(DOMAIN).unwrap();
    assert!(reason.contains(DC1), "{reason}");
    assert_eq!(open.report(DOMAIN).reason, reason);
    // Until a domain controller offers it.
    open.settled(DOMAIN, DC2);
    assert_eq!((open.method(&john()), open.stands_in(DOMAIN)), (Method::Ldap, None));
    let offered = "dc2.acme.com offers TLS that can be verified".to_owned();
    assert_eq!(*choices.lock().unwrap(), [(Method::Kerberos, reason), (Method::Ldap, offered)]);

    let (ldap, choices) = passwords(Configured::Ldap, &network);
    let error = ldap.warm_up(DOMAIN, soon()).await.unwrap_err();
    assert!(error.contains(DC1), "{error}");
    assert_eq!((ldap.method(&john()), ldap.stands_in(DOMAIN)), (Method::Ldap, None));
    assert_eq!(*choices.lock().unwrap(), []);
}

#[tokio::test]
async fn a_method_is_told_when_it_changes_and_keeps_its_first_reason() {
    let Some(network) = Network::new() else { return };
    let (passwords, choices) = passwords(Configured::Auto, &network);
    passwords.pool(DOMAIN);
    let report = || passwords.report(DOMAIN);
    assert_eq!((report().name.as_str(), report().reason.as_str()), ("", ""));
    for dc in [DC1, DC2] {
        passwords.settled(DOMAIN, dc);
        assert_eq!(report().reason, "dc1.acme.com offers TLS that can be verified");
    }
    let [(Method::Ldap, _)] = &choices.lock().unwrap()[..] else { panic!("told twice") };
}

#[tokio::test]
async fn after_a_while_a_domain_that_took_no_simple_binds_is_bound_again() {
    let Some(network) = Network::new() else { return };
    let _controller = network.controller(DC1, |script| script.on(Event::bind(), [refused(0x418)])).await;
    let (passwords, _) = passwords(Configured::Auto, &network);
    // There is no KDC in this network, and perhaps no keytab on this machine.
    let refusal = passwords.check(&john(), "secret", soon()).await.unwrap_err();
    assert_eq!((refusal.outcome, passwords.report(DOMAIN).name.as_str()), (Outcome::Unavailable, "kerberos"));
    assert_eq!(passwords.method(&john()), Method::Kerberos);
    tokio::time::pause();
    tokio::time::advance(SPARED).await;
    assert_eq!(passwords.method(&john()), Method::Ldap);
}

#[tokio::test]
async fn to_connect_again_gives_up_the_idle_connections() {
    let Some(network) = Network::new() else { return };
    let controller = takes_binds(&network).await;
    let (passwords, _) = passwords(Configured::Ldap, &network);
    for connections in [1, 1, 2] {
        let checked = passwords.check(&john(), "secret", soon()).await.unwrap();
        assert_eq!((checked.method, checked.dc.as_str()), (Method::Ldap, DC1));
        assert_eq!(controller.log().connections(), connections);
        if controller.log().binds() == 2 {
            passwords.reconnect();
        }
    }
}

#[tokio::test]
async fn only_the_method_ldap_permits_binds_alone() {
    let Some(network) = Network::new() else { return };
    for (configured, binds_only) in
        [(Configured::Ldap, true), (Configured::Auto, false), (Configured::Kerberos, false)]
    {
        assert_eq!(passwords(configured, &network).0.binds_only(), binds_only);
    }
}
