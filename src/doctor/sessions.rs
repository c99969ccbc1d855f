//! The register of sessions: whether the broker can use it, and whether this host can reach its Redis.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::commands;
use super::commands::Place;
use super::facts::{Facts, beside};
use super::finding::{Finding, Level, Part};
use crate::config::{OnStoreFailure, RedisAt, Store};
use crate::protocol::report::Register;

/// Time limit of one connection to a Redis or Sentinel server.
const CONNECT: Duration = Duration::from_secs(2);

pub(super) async fn register(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("config-file") };
    if let Store::Redis(redis) = &config.sessions.store {
        let servers = match &redis.at {
            RedisAt::Server(server) => std::slice::from_ref(server),
            RedisAt::Sentinel { sentinels, .. } => sentinels,
        };
        let connecting = servers.iter().map(|server| {
            let (host, port) = (server.host.clone(), server.port);
            async move {
                let (level, seen) = match timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await {
                    Ok(Ok(_)) => (Level::Ok, "can be reached".to_owned()),
                    Ok(Err(e)) => (Level::Failure, e.to_string()),
                    Err(_) => (Level::Failure, "no answer in time".to_owned()),
                };
                Part { subject: format!("{host}:{port}"), level, seen }
            }
        });
        let finding = Finding::of_parts(beside(connecting.collect::<Vec<_>>()).await);
        if finding.level != Level::Ok {
            return eased(finding, config.sessions.on_store_failure)
                .command(&commands::SHOW_REDIS, "")
                .advise(
                    Place::Redis,
                    "start the Redis, or let this host reach it: sessions.store names it, and the network \
                 between them decides",
                );
        }
    }
    let status = match facts.status().await {
        Ok(status) => status,
        Err(error) => return Finding::skipped(error.to_string()),
    };
    eased(judged(&status.sessions), config.sessions.on_store_failure)
}

/// Returns the finding for a register that does not work: a warning where logins succeed without it.
fn eased(finding: Finding, on_failure: OnStoreFailure) -> Finding {
    match (on_failure, finding.level) {
        (OnStoreFailure::Allow, Level::Failure) => Finding {
            level: Level::Warning,
            seen: format!(
                "{}; users log in without a session (sessions.on_store_failure is \"allow\")",
                finding.seen
            ),
            ..finding
        },
        _ => finding,
    }
}

/// Returns the finding for the broker's own report on the register.
fn judged(register: &Register) -> Finding {
    match (&register.problem, register.open) {
        (Some(problem), _) => Finding::failure(format!("{}: {problem}", register.store)),
        (None, Some(open)) => Finding::ok(format!("{open} open, in {}", register.store)),
        // A broker whose configuration denies every login has no register.
        (None, None) if register.store.is_empty() => Finding::skipped("the broker has no register now"),
        (None, None) => Finding::failure(format!("{} does not answer", register.store)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Options;
    use super::*;

    #[test]
    fn a_register_that_fails_is_a_warning_where_logins_succeed_without_it() {
        let of = |problem: Option<&str>, open| Register {
            store: "redis://redis.acme.com".into(),
            open,
            problem: problem.map(str::to_owned),
        };
        for (register, denied, allowed) in [
            (of(Some("no answer"), None), Level::Failure, Level::Warning),
            (of(Some("no answer"), Some(3)), Level::Failure, Level::Warning),
            (of(None, None), Level::Failure, Level::Warning),
            (of(None, Some(3)), Level::Ok, Level::Ok),
            (Register::default(), Level::Skipped, Level::Skipped),
        ] {
            assert_eq!(eased(judged(&register), OnStoreFailure::Deny).level, denied, "{register:?}");
            let finding = eased(judged(&register), OnStoreFailure::Allow);
            assert_eq!(finding.level, allowed, "{register:?}");
            assert_eq!(finding.seen.contains("users log in"), allowed == Level::Warning, "{finding:?}");
        }
    }

    #[tokio::test]
    async fn a_redis_that_cannot_be_reached_is_judged_by_the_same_rule() {
        for (rule, level) in [("deny", Level::Failure), ("allow", Level::Warning)] {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name);
            fs::write(file("names.map"), "").unwrap();
            let text = format!(
                "names.map_file = {:?}\ndomain.name = \"motion-ad.invalid\"\n[sessions]\n\
                 store = \"redis://127.0.0.1:1\"\non_store_failure = {rule:?}\n",
                file("names.map")
            );
            fs::write(file("config.toml"), text).unwrap();
            let (config, sssd) = (file("config.toml"), file("sssd.conf"));
            let options = Options { config, sssd, socket: file("broker.sock"), login: None };
            let finding = register(&Facts::at_root(options, folder.path())).await;
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.seen.contains("127.0.0.1:1: "), "{finding:?}");
            assert_eq!(finding.fix.len(), 2, "{finding:?}");
        }
    }
}
