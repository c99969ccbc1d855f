//! The register of sessions: whether the broker can use it, and whether this host can reach its Redis.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::commands;
use super::commands::Place;
use super::facts::{Facts, beside};
use super::finding::{Finding, Level, Part};
use crate::config::{RedisAt, Store};

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
            return finding.command(&commands::SHOW_REDIS, "").advise(
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
    let register = &status.sessions;
    match (&register.problem, register.open) {
        (Some(problem), _) => Finding::failure(format!("{}: {problem}", register.store)),
        (None, Some(open)) => Finding::ok(format!("{open} open, in {}", register.store)),
        // A broker whose configuration denies every login has no register.
        (None, None) if register.store.is_empty() => Finding::skipped("the broker has no register now"),
        (None, None) => Finding::failure(format!("{} does not answer", register.store)),
    }
}
