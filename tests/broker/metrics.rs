//! The broker's metrics as a monitoring system reads them, and their documentation.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use motion_ad::broker::metrics::{Family, Kind};
use motion_ad_support::openmetrics::{Labels, parse};

use crate::process::{Broker, DOMAIN};

/// Returns the complete response to `request` at the metrics socket.
fn http(broker: &Broker, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(broker.metrics()).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn scrape(broker: &Broker) -> String {
    let answer = http(broker, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())), "{head}");
    text.to_owned()
}

/// Returns the value of `name` with these labels.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let all = parse(text).unwrap();
    let samples = all.values().flat_map(|family| &family.samples);
    let fits = |has: &Labels| labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value));
    samples.filter(|(known, has, _)| known == name && fits(has)).map(|(.., value)| *value).next()
}

#[test]
fn what_is_told_keeps_every_rule_and_counts_logins() {
    let broker = Broker::start(DOMAIN);
    let before = scrape(&broker);
    let count = |text: &str, outcome| value(text, "motion_ad_logins_total", &[("outcome", outcome)]);
    assert_eq!((count(&before, "unavailable"), count(&before, "success")), (Some(0.0), Some(0.0)));
    broker.login();
    broker.login();
    let after = scrape(&broker);
    assert_eq!((count(&after, "unavailable"), count(&after, "success")), (Some(2.0), Some(0.0)));
    let timed = value(&after, "motion_ad_login_duration_seconds_count", &[("method", "none")]);
    assert_eq!(timed, Some(2.0));
    // The broker is not serving, because it has no keytab.
    assert_eq!(value(&after, "motion_ad_serving", &[]), Some(0.0));
    assert_eq!(value(&after, "motion_ad_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    assert_eq!(value(&after, "motion_ad_sessions", &[]), Some(0.0));
    assert!(!after.contains("john.doe"));
}

#[test]
fn a_broken_configuration_is_told_too() {
    let text = scrape(&Broker::start("[tls]\nverify = false\n"));
    assert_eq!(value(&text, "motion_ad_serving", &[]), Some(0.0));
}

#[test]
fn the_command_prints_the_same_and_says_where_it_is_not_reached() {
    let broker = Broker::start(DOMAIN);
    let helper = |socket: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motion-ad"));
        command.args(["metrics", "--metrics-socket"]).arg(socket).output().unwrap()
    };
    let printed = helper(&broker.metrics());
    assert!(printed.status.success());
    parse(&String::from_utf8(printed.stdout).unwrap()).unwrap();
    let missing = helper(&broker.folder.path().join("none"));
    let error = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(error.contains("motion-ad-metrics.socket"), "{error}");
    // The login socket does not answer as a metrics socket.
    assert_eq!(helper(&broker.socket()).status.code(), Some(2));
}

#[test]
fn nobody_can_ask_for_a_login_there_and_nobody_can_block_it() {
    let broker = Broker::start(DOMAIN);
    let cases: [(&[u8], &str); 3] = [
        (b"\0\0\0\x09\0\0\0\0{\"a\":1}\n\n", "HTTP/1.1 400 "),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 "),
        (b"GET /broker HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
    ];
    for (request, status) in cases {
        assert!(http(&broker, request).starts_with(status), "{status}");
    }
    // More silent connections than the broker serves at once.
    let silent: Vec<_> = (0..10).map(|_| UnixStream::connect(broker.metrics()).unwrap()).collect();
    assert_eq!(broker.login().outcome.name(), "unavailable");
    drop(silent);
    scrape(&broker);
}

/// Returns the words of `text` with the prefix of this project's metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("motion_ad_")).map(str::to_owned).collect()
}

/// Returns the names that a query may use for this metric.
fn names(family: Family) -> Vec<String> {
    match family.kind() {
        Kind::Times => ["_bucket", "_sum", "_count"].map(|part| family.name() + part).to_vec(),
        _ => vec![family.name()],
    }
}

/// Returns all names that a query may use for a metric.
fn known() -> BTreeSet<String> {
    Family::ALL.iter().copied().flat_map(names).collect()
}

#[test]
fn whatever_an_example_asks_for_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples");
    let mut seen = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let unknown: Vec<_> = named(&text).difference(&known()).cloned().collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        seen.extend(named(&text));
    }
    assert!(seen.len() > 12, "{seen:?}");
}

/// Returns the texts between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn the_dashboard_shows_every_metric_by_labels_that_it_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    let mut shown = BTreeSet::new();
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let (query, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
        let asked = named(query);
        let is_asked = |family: &Family| names(*family).iter().any(|name| asked.contains(name));
        let families: Vec<_> = Family::ALL.iter().copied().filter(is_asked).collect();
        let labels: BTreeSet<_> =
            families.iter().flat_map(|family| family.labels()).copied().chain(["instance", "le"]).collect();
        let grouped = between(query, "by (", ")").chain(between(legend, "{{", "}}"));
        for label in grouped.flat_map(|list| list.split(", ")) {
            assert!(labels.contains(label), "{label}: {query}");
        }
        shown.extend(families.iter().map(|family| family.name()));
    }
    assert_eq!(shown, Family::ALL.iter().map(|family| family.name()).collect());
}

#[test]
fn the_document_names_them_all_with_their_labels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/watching.md");
    let text = fs::read_to_string(path).unwrap();
    let mut listed = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `motion_ad_")) {
        listed.insert(line.to_owned());
    }
    let expected: BTreeSet<_> = Family::ALL
        .iter()
        .map(|family| {
            let labels = family.labels().join("`, `");
            let labels = if labels.is_empty() { String::new() } else { format!("`{labels}`") };
            format!("| `{}` | {labels} | {} |", family.name(), family.help())
        })
        .collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/watching.md lacks:\n{missing:#?}");
    assert_eq!(listed, expected);
    let unknown: Vec<_> = named(&text)
        .into_iter()
        .filter(|name| !known().contains(name) && !Family::ALL.iter().any(|family| family.name() == *name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
