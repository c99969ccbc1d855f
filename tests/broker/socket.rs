//! The broker's process and the module's client over a Unix socket, on a host without a domain.

use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use motion_ad::client::request;
use motion_ad::protocol::{Operation, Reply, Request, Secret, receive, send};
use motion_ad::verdict::Outcome;
use motion_ad_support::is_root;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Broker, DOMAIN};

#[test]
fn a_host_that_is_not_joined_denies_and_says_what_to_do() {
    // Without settings the broker answers only root and `motion`.
    if !is_root() {
        return;
    }
    let verdict = Broker::start("").login();
    assert_eq!(verdict.outcome, Outcome::Unavailable);
    assert!(verdict.reason.contains("realm join"), "{}", verdict.reason);
}

#[test]
fn a_host_without_a_keytab_denies_and_says_what_to_do() {
    let verdict = Broker::start(DOMAIN).login();
    assert_eq!(verdict.outcome, Outcome::Unavailable);
    assert!(verdict.reason.contains("/etc/krb5.keytab is missing or empty"), "{}", verdict.reason);
}

#[test]
fn a_broken_configuration_denies_and_names_its_line() {
    // Without settings the broker answers only root and `motion`.
    if !is_root() {
        return;
    }
    let verdict = Broker::start("[tls]\nverify = false\n").login();
    assert_eq!(verdict.outcome, Outcome::Misconfigured);
    assert!(verdict.reason.contains("config.toml, line 2"), "{}", verdict.reason);
}

#[test]
fn the_status_says_what_is_wrong() {
    let broker = Broker::start(DOMAIN);
    let mut stream = broker.connect();
    send(&mut stream, &request(Operation::Status, "", Duration::from_secs(5)), &Secret::default()).unwrap();
    let (Reply::Status(status), _) = receive(&mut stream).unwrap() else { panic!("no status") };
    assert_eq!(status.pid, broker.process.id());
    let [keytab, dns] = status.problems.as_slice() else { panic!("{status:?}") };
    assert!(keytab.contains("the keytab /etc/krb5.keytab is missing"), "{keytab}");
    assert!(dns.contains("dc.invalid"), "{dns}");
}

#[test]
fn what_cannot_be_understood_is_refused_and_logins_go_on() {
    let broker = Broker::start(DOMAIN);
    let too_long = [0xff; 8];
    let rubbish = [&[0, 0, 0, 9, 0, 0, 0, 0][..], b"not json!"].concat();
    let other_version = {
        let mut frame = Vec::new();
        let request = Request { version: 99, ..request(Operation::Status, "", Duration::from_secs(5)) };
        send(&mut frame, &request, &Secret::default()).unwrap();
        frame
    };
    for (frame, reason) in
        [(&too_long[..], "over the limit"), (&rubbish, "no valid"), (&other_version, "version")]
    {
        let mut stream = broker.connect();
        stream.write_all(frame).unwrap();
        let (Reply::Refused(text), _) = receive(&mut stream).unwrap() else {
            panic!("{reason}: not refused")
        };
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(broker.login().outcome, Outcome::Unavailable);
}

#[test]
fn half_a_request_and_none_at_all_are_dropped_in_time() {
    let broker = Broker::start(DOMAIN);
    let mut half = broker.connect();
    half.write_all(&[0, 0, 0, 200, 0, 0, 0, 0, b'{']).unwrap();
    let mut idle = broker.connect();
    let begun = Instant::now();
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).unwrap();
    idle.read_to_end(&mut rest).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "dropped after {:?}", begun.elapsed());
    assert_eq!(broker.login().outcome, Outcome::Unavailable);
}

#[test]
fn many_idle_connections_keep_nobody_out() {
    let broker = Broker::start(DOMAIN);
    let idle: Vec<_> = (0..900).map(|_| broker.connect()).collect();
    assert_eq!(broker.login().outcome, Outcome::Unavailable);
    drop(idle);
}

#[test]
fn a_changed_file_ends_the_process_for_a_new_start() {
    // Without settings the broker answers only root and `motion`.
    if !is_root() {
        return;
    }
    for (config, file) in
        [("", "config.toml"), (DOMAIN, "names.map"), ("[names]\ndomains = 1\n", "config.toml")]
    {
        let mut broker = Broker::start(config);
        assert!(!broker.login().outcome.is_success());
        std::fs::write(broker.folder.path().join(file), "").unwrap();
        // No request is lost: this connection waits for the next process.
        let waiting = broker.connect();
        assert_eq!(broker.ended(), Some(0));
        drop(waiting);
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    let mut broker = Broker::start(DOMAIN);
    kill(Pid::from_raw(broker.process.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(broker.ended(), Some(0));
}

#[test]
fn the_configuration_can_be_checked_without_starting() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[domain]\nname = \"acme.example\"\n[pool]\nconnections = 0\n").unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_motion-ad-broker"))
        .args(["--check-config", "--config"])
        .arg(&config)
        .env("CREDENTIALS_DIRECTORY", folder.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1));
    let text = String::from_utf8(check.stderr).unwrap();
    assert!(text.contains("line 4: 0 was given, expected 1 to 1024"), "{text}");
}
