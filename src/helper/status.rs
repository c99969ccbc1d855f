//! `motion-ad status` and `ready`: the present state of the broker.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::show::{self, Columns, span};
use super::{Cli, Exit, Failure, Page, ask, request};
use crate::protocol::report::{Machine, Root, Server, Status, Trust, is_up};
use crate::protocol::{Operation, Reply, Secret};

/// Number of a fingerprint's bytes to show.
const FINGERPRINT: usize = 8;

pub(super) fn status(cli: &Cli, args: &super::Status) -> Result<Page, Failure> {
    let status = state(cli, "status")?;
    let problems = problems(&status);
    let exit = if problems.is_empty() { Exit::Yes } else { Exit::No };
    let text = if args.json { status_json(&status, exit)? } else { status_text(&status, &problems) };
    Ok(Page { text, exit })
}

/// Queries the broker's state, for the command `name`.
pub(super) fn state(cli: &Cli, name: &str) -> Result<Status, Failure> {
    let request = request(cli, name, Operation::Status, "");
    ask(cli, &request, &Secret::default(), |reply| match reply {
        Reply::Status(status) => Some(*status),
        _ => None,
    })
}

/// Reports the state in one line.
pub(super) fn ready(cli: &Cli) -> Result<Page, Failure> {
    let status = state(cli, "ready")?;
    let problems = problems(&status);
    let exit = if problems.is_empty() { Exit::Yes } else { Exit::No };
    Ok(Page { text: ready_text(&status, &problems), exit })
}

fn ready_text(status: &Status, problems: &[String]) -> String {
    let usable = status.servers.list.iter().filter(|server| server.is_usable(&status.method)).count();
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more: `motion-ad status`)", count.saturating_sub(1)),
    };
    let line = match problems.first() {
        Some(problem) if status.serving => format!("not well: users can log in, but {problem}{more}"),
        Some(problem) => format!("not ready: {problem}{more}"),
        None => {
            let domain = status.domain.as_deref().unwrap_or_default();
            let note = status.notes.first().map(|note| format!("; {note}")).unwrap_or_default();
            format!(
                "ready: {domain} by {}, {usable} of {} domain controllers{note}",
                status.method.name,
                status.servers.list.len()
            )
        }
    };
    // Whatever else there is to say: nobody may forget that motion-ad does not decide yet.
    let observed = status.observed.as_ref().map(|observed| format!("; {}", observed.text));
    format!("{}\n", show::escape(&(line + &observed.unwrap_or_default())))
}

/// Returns the broker's problems, or one that the broker did not report.
fn problems(status: &Status) -> Vec<String> {
    let mut problems = status.problems.clone();
    // Normally the broker itself reports this, with the cause.
    if problems.is_empty() && !status.servers.list.iter().any(|server| server.is_usable(&status.method)) {
        problems.push("no domain controller can be used".into());
    }
    problems
}

fn status_text(status: &Status, problems: &[String]) -> String {
    let pool = &status.pool;
    let mut state = Columns::plain();
    state.row([
        "broker",
        &format!("version {}, process {}, up {}", status.version, status.pid, span(status.uptime)),
    ]);
    state.pair("domain", status.domain.as_deref());
    state.pair("site", status.servers.site.as_deref());
    if !status.method.name.is_empty() {
        state.row(["passwords by", &format!("{}: {}", status.method.name, status.method.reason)]);
    }
    state.row(["machine account", &machine(&status.machine)]);
    if !status.trust.source.is_empty() {
        state.row(["trusted roots", &trust(&status.trust)]);
    }
    for note in &status.trust.notes {
        state.row(["", note]);
    }
    state.row(["pool", &format!("{} busy, {} idle, at most {}", pool.busy, pool.idle, pool.max)]);
    if !status.sessions.store.is_empty() {
        let open = status.sessions.open.map_or_else(|| "not known".to_owned(), |open| open.to_string());
        state.row(["sessions", &format!("{open} open, in {}", status.sessions.store)]);
    }

    for task in &status.tasks {
        let times = if task.failures == 1 { "once" } else { &format!("{} times", task.failures) };
        state.row(["background task", &format!("{} failed {times}, last because {}", task.name, task.cause)]);
    }

    let mut servers = Columns::headed(["", "DOMAIN CONTROLLER", "OUR SITE", "BINDS", "READING", "KDC"]);
    let mut down = Columns::plain();
    for server in &status.servers.list {
        let mark = if server.is_usable(&status.method) { "" } else { "x" };
        let word = |service: &str| service_text(server, service);
        let site = if server.in_site { "yes" } else { "" };
        servers.row([mark, &server.host, site, &word("binds"), &word("reading"), &word("kdc")]);
        if server.is_stranger {
            let cause = "DNS names it, AD does not list it as a domain controller";
            down.row(["", &server.host, "ignored", "", cause]);
        }
        for (service, cause) in server.services.iter().filter(|(_, state)| !is_up(state)) {
            let since = server.failing.get(service).map(|age| format!("for {}", span(*age)));
            down.row(["", &server.host, service, &since.unwrap_or_default(), cause]);
        }
    }
    let mut roots = Columns::headed(["", "TRUSTED ROOT", "SHA-256", "VALID UNTIL"]);
    for root in &status.trust.roots {
        roots.row(["", &root.subject, &fingerprint(root), &day(root.not_after)]);
    }
    let mut logins = Columns::headed(["OUTCOME", "LOGINS"]);
    for (outcome, count) in &status.logins {
        logins.row([outcome.name(), &count.to_string()]);
    }

    let mut text = state.text();
    if !status.servers.list.is_empty() {
        text += &format!("\n{}{}", servers.text(), down.text());
    }
    if !status.trust.roots.is_empty() {
        text += &format!("\n{}", roots.text());
    }
    if !status.logins.is_empty() {
        text += &format!("\n{}", logins.right([1]).text());
    }
    text += "\n";
    for problem in problems {
        text += &format!("problem: {}\n", show::escape(problem));
    }
    let notes: Vec<_> = status.observed.iter().map(|observed| &observed.text).chain(&status.notes).collect();
    for note in &notes {
        text += &format!("note: {}\n", show::escape(note));
    }
    text += match (problems, notes.as_slice()) {
        ([], []) => "all is well\n",
        ([], _) => "users can log in\n",
        (_, _) if status.serving => "users can still log in\n",
        (_, _) => "no user can log in\n",
    };
    text
}

/// Returns the state of a service, and the time since its last answer.
fn service_text(server: &Server, service: &str) -> String {
    let Some(state) = server.services.get(service) else { return String::new() };
    match server.answered.get(service) {
        _ if !is_up(state) => "down".to_owned(),
        Some(age) if state == "ok" => format!("ok, {} ago", span(*age)),
        _ => state.clone(),
    }
}

fn machine(machine: &Machine) -> String {
    let mut text = machine.state.clone();
    if let Some(dc) = &machine.dc {
        text += &format!(" to {dc}");
    }
    if let Some(principal) = &machine.principal {
        text += &format!(" as {principal}");
    }
    if let Some(left) = machine.ticket {
        text += &format!(", ticket valid for {}", span(left));
    }
    text
}

fn trust(trust: &Trust) -> String {
    let mut text = trust.source.clone();
    match trust.crls {
        0 => {}
        1 => text += ", 1 CRL",
        count => text += &format!(", {count} CRLs"),
    }
    if let Some(age) = trust.refreshed {
        text += &format!(", read {} ago", span(age));
    }
    text
}

/// Returns the first bytes, enough to distinguish roots; `--json` has all of them.
fn fingerprint(root: &Root) -> String {
    let pairs = root.sha256.as_bytes().chunks(2).take(FINGERPRINT);
    pairs.map(String::from_utf8_lossy).collect::<Vec<_>>().join(":")
}

fn day(seconds: u64) -> String {
    let at =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(|| "after the year 9999".to_owned(), |at| at.date().to_string())
}

/// Returns the reply with `well` added, and with logins by name, which are pairs on the wire.
fn status_json(status: &Status, exit: Exit) -> Result<String, Failure> {
    let mut value = serde_json::to_value(status)?;
    if let Value::Object(object) = &mut value {
        let logins = status.logins.iter().map(|(outcome, count)| (outcome.name().to_owned(), json!(count)));
        object.insert("logins".into(), Value::Object(logins.collect()));
        object.insert("well".into(), json!(exit == Exit::Yes));
    }
    show::json(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{Method, Observed, Servers, Task};
    use crate::verdict::Outcome;

    fn server(binds: &str, kdc: &str) -> Server {
        let services = [("binds", binds), ("reading", "ok"), ("kdc", kdc)];
        Server {
            host: "dc1.acme.com".into(),
            in_site: true,
            services: services.map(|(name, state)| (name.to_owned(), state.to_owned())).into(),
            ..Server::default()
        }
    }

    #[test]
    fn one_usable_domain_controller_is_enough() {
        let cases = [
            ("", vec![], 1),
            ("", vec![("ok", "ok")], 0),
            ("", vec![("unknown", "unknown")], 0),
            ("ldap", vec![("timed out", "ok"), ("ok", "ok")], 0),
            ("ldap", vec![("refused", "ok")], 1),
            ("ldap", vec![("ok", "refused")], 0),
            ("kerberos", vec![("refused", "ok")], 0),
            ("kerberos", vec![("ok", "refused")], 1),
        ];
        for (method, states, count) in cases {
            let list = states.iter().map(|(binds, kdc)| server(binds, kdc)).collect();
            let status = Status {
                servers: Servers { list, ..Servers::default() },
                method: Method { name: method.into(), ..Method::default() },
                ..Status::default()
            };
            assert_eq!(problems(&status).len(), count, "{method} {states:?}");
        }
    }

    #[test]
    fn all_that_the_broker_says_is_shown() {
        let status = Status {
            version: "0.1.0".into(),
            pid: 42,
            uptime: 61,
            domain: Some("acme.com".into()),
            problems: vec!["config.toml\x1b".into()],
            method: Method { name: "ldap".into(), reason: "login.method".into() },
            servers: Servers {
                site: Some("Berlin".into()),
                problem: None,
                list: vec![
                    Server { answered: [("binds".to_owned(), 12)].into(), ..server("ok", "unknown") },
                    Server { failing: [("binds".to_owned(), 125)].into(), ..server("timed out", "ok") },
                ],
            },
            machine: Machine {
                state: "connected".into(),
                principal: Some("XCALLY$@ACME.COM".into()),
                dc: Some("dc1.acme.com".into()),
                ticket: Some(3600),
            },
            trust: Trust {
                source: "/etc/ssl/certs and 1 root of the forest".into(),
                roots: vec![Root {
                    subject: "CN=Acme Root".into(),
                    sha256: "0123456789abcdef".repeat(4),
                    not_before: 0,
                    not_after: 2_000_000_000,
                }],
                crls: 2,
                refreshed: Some(7200),
                notes: vec!["a CRL of the forest is skipped".into()],
            },
            logins: vec![(Outcome::Success, 12)],
            tasks: vec![Task {
                name: "recheck".into(),
                failures: 2,
                cause: "it\npanicked".into(),
                waiting: false,
            }],
            ..Status::default()
        };
        let text = status_text(&status, &problems(&status));
        assert_eq!(
            text,
            " broker           version 0.1.0, process 42, up 1 min 1 s\n domain           acme.com\n \
              site             Berlin\n passwords by     ldap: login.method\n machine account  connected to \
              dc1.acme.com as XCALLY$@ACME.COM, ticket valid for 1 h 0 min\n trusted roots    /etc/ssl/certs \
              and 1 root of the forest, 2 CRLs, read 2 h 0 min ago\n                  a CRL of the forest is \
              skipped\n pool             0 busy, 0 idle, at most 0\n background task  recheck failed 2 \
              times, last because it\\npanicked\n\n    DOMAIN CONTROLLER  OUR SITE  BINDS         READING  \
              KDC\n    dc1.acme.com       yes       ok, 12 s ago  ok       unknown\n x  dc1.acme.com       \
              yes       down          ok       ok\n    dc1.acme.com  binds  for 2 min 5 s  timed out\n\n    \
              TRUSTED ROOT  SHA-256                  VALID UNTIL\n    CN=Acme Root  01:23:45:67:89:ab:cd:ef  \
              2033-05-18\n\n OUTCOME  LOGINS\n success      12\n\n\
              problem: config.toml\\u{1b}\n\
              no user can log in\n"
        );
    }

    #[test]
    fn one_line_says_whether_users_can_log_in() {
        let of = |serving: bool, problems: &[&str], notes: &[&str]| {
            let status = Status {
                serving,
                domain: Some("acme.com".into()),
                problems: problems.iter().map(ToString::to_string).collect(),
                notes: notes.iter().map(ToString::to_string).collect(),
                method: Method { name: "ldap".into(), ..Method::default() },
                servers: Servers {
                    list: vec![server("ok", "ok"), server("timed out", "ok")],
                    ..Servers::default()
                },
                ..Status::default()
            };
            (ready_text(&status, &status.problems), status_text(&status, &status.problems))
        };
        let cases = [
            (true, vec![], vec![], "ready: acme.com by ldap, 1 of 2 domain controllers\n", "\nall is well\n"),
            (
                true,
                vec![],
                vec!["by Kerberos"],
                "controllers; by Kerberos\n",
                "note: by Kerberos\nusers can log in\n",
            ),
            (true, vec!["a"], vec![], "not well: users can log in, but a\n", "users can still log in\n"),
            (
                false,
                vec!["a", "b"],
                vec![],
                "not ready: a (and 1 more: `motion-ad status`)\n",
                "no user can log in\n",
            ),
        ];
        // Logins that are only observed are reported whatever else there is to say.
        let text = "3 logins were only observed since 14:02".to_owned();
        for problems in [vec![], vec!["a".to_owned()]] {
            let observed = Some(Observed { text: text.clone(), ..Observed::default() });
            let status = Status { serving: true, observed, ..Status::default() };
            assert!(ready_text(&status, &problems).ends_with(&format!("; {text}\n")));
            let shown = status_text(&status, &problems);
            assert!(shown.contains(&format!("note: {text}\nusers can ")), "{shown}");
        }
        for (serving, problems, notes, ready, end) in cases {
            let (line, text) = of(serving, &problems, &notes);
            assert!(line.ends_with(ready) && text.ends_with(end), "{line}{text}");
        }
    }
}
