//! `motion-ad status`: the broker as it is now.

use serde_json::{Value, json};

use super::show::{self, Columns, span};
use super::{Cli, Exit, Failure, Page, ask, request};
use crate::protocol::report::{Machine, Server, Status};
use crate::protocol::{Operation, Reply, Secret};

pub(super) fn status(cli: &Cli, args: &super::Status) -> Result<Page, Failure> {
    let request = request(cli, "status", Operation::Status, "");
    let status = ask(cli, &request, &Secret::default(), |reply| match reply {
        Reply::Status(status) => Some(*status),
        _ => None,
    })?;
    let problems = problems(&status);
    let exit = if problems.is_empty() { Exit::Yes } else { Exit::No };
    let text = if args.json { status_json(&status, exit)? } else { status_text(&status, &problems) };
    Ok(Page { text, exit })
}

/// The broker's problems, and ours with it.
fn problems(status: &Status) -> Vec<String> {
    let mut problems = status.problems.clone();
    if !status.servers.iter().any(is_usable) {
        problems.push("no domain controller can be used".into());
    }
    problems
}

/// One that was not asked yet is not in the way.
fn is_usable(server: &Server) -> bool {
    matches!(server.state.as_str(), "ok" | "unknown")
}

fn status_text(status: &Status, problems: &[String]) -> String {
    let pool = &status.pool;
    let mut state = Columns::plain();
    state.row([
        "broker",
        &format!("version {}, process {}, up {}", status.version, status.pid, span(status.uptime)),
    ]);
    state.pair("domain", status.domain.as_deref());
    state.row(["machine account", &machine(&status.machine)]);
    state.row(["pool", &format!("{} busy, {} idle, at most {}", pool.busy, pool.idle, pool.max)]);

    let mut servers = Columns::headed(["", "DOMAIN CONTROLLER", "STATE"]);
    for server in &status.servers {
        servers.row([if is_usable(server) { "" } else { "x" }, &server.host, &server.state]);
    }
    let mut logins = Columns::headed(["OUTCOME", "LOGINS"]);
    for (outcome, count) in &status.logins {
        logins.row([outcome.name(), &count.to_string()]);
    }

    let mut text = state.text();
    if !status.servers.is_empty() {
        text += &format!("\n{}", servers.text());
    }
    if !status.logins.is_empty() {
        text += &format!("\n{}", logins.right([1]).text());
    }
    text += "\n";
    for problem in problems {
        text += &format!("problem: {}\n", show::escape(problem));
    }
    if problems.is_empty() {
        text += "all is well\n";
    }
    text
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

/// The reply, plus the answer; and the counts by name, where the wire has pairs.
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
    use crate::verdict::Outcome;

    fn server(state: &str) -> Server {
        Server { host: "dc1.acme.com".into(), state: state.into() }
    }

    #[test]
    fn one_usable_domain_controller_is_enough() {
        let cases = [
            (vec![], 1),
            (vec!["ok"], 0),
            (vec!["unknown"], 0),
            (vec!["timed out", "ok"], 0),
            (vec!["refused"], 1),
        ];
        for (states, count) in cases {
            let servers = states.iter().map(|state| server(state)).collect();
            let status = Status { servers, ..Status::default() };
            assert_eq!(problems(&status).len(), count, "{states:?}");
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
            servers: vec![server("ok"), server("timed out")],
            machine: Machine {
                state: "connected".into(),
                principal: Some("XCALLY$@ACME.COM".into()),
                dc: Some("dc1.acme.com".into()),
                ticket: Some(3600),
            },
            logins: vec![(Outcome::Success, 12)],
            ..Status::default()
        };
        let text = status_text(&status, &problems(&status));
        assert_eq!(
            text,
            " broker           version 0.1.0, process 42, up 1 min 1 s\n \
              domain           acme.com\n \
              machine account  connected to dc1.acme.com as XCALLY$@ACME.COM, ticket valid for 1 h 0 min\n \
              pool             0 busy, 0 idle, at most 0\n\n    \
                 DOMAIN CONTROLLER  STATE\n    \
                 dc1.acme.com       ok\n \
              x  dc1.acme.com       timed out\n\n \
              OUTCOME  LOGINS\n \
              success      12\n\n\
             problem: config.toml\\u{1b}\n"
        );
    }
}
