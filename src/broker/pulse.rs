//! Notifications to systemd while the broker runs: one line of state for `systemctl status`, and the sign
//! that it still serves (sd_notify(3), `STATUS=` and `WATCHDOG=1`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior};

use super::Broker;
use super::metrics::Event;
use super::service::Service;
use crate::protocol::report::Status;
use crate::supervise::Ended;

/// Time between two checks. `WatchdogSec=` in the unit is several times as long, so that systemd does not
/// take a busy host for a dead broker.
const BEAT: Duration = Duration::from_secs(2);
/// Beats per count of the sessions: a register may be on another host.
const COUNTED: u32 = 5;
/// Longest time that one count takes.
const COUNTING: Duration = Duration::from_secs(1);

/// Notifies systemd until the broker ends.
///
/// It is a task like a login's and uses the same locks, so that a stalled runtime or a lock that is never
/// released stops it. The loop that accepts connections must have turned in between, too.
pub async fn keep(broker: Arc<Broker>) -> Ended {
    let (mut told, mut turned, mut sessions) = (String::new(), 0, None);
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in (0..COUNTED).cycle() {
        beat.tick().await;
        if round == 0 {
            sessions = broker.sessions_open().await;
        }
        let (state, turns) = (broker.state(sessions), broker.turns.load(Ordering::Relaxed));
        let is_alive = turns != turned;
        let mut notes = Vec::new();
        if state != told {
            notes.push(NotifyState::Status(&state));
        }
        if is_alive {
            notes.push(NotifyState::Watchdog);
        }
        // Without systemd there is no receiver.
        let _ = sd_notify::notify(&notes);
        drop(notes);
        (told, turned) = (state, turns);
    }
    Ok(())
}

impl Broker {
    async fn sessions_open(&self) -> Option<u64> {
        let service = self.service.as_ref().ok()?;
        service.register.open_now(Instant::now() + COUNTING).await
    }

    /// Returns one line of state for `systemctl status`, with the number of open sessions if it is known.
    pub fn state(&self, sessions: Option<u64>) -> String {
        let health = self.health();
        let usual = || {
            let service = self.service.as_ref().ok()?;
            let logins = self.metrics.outcomes(Event::Login).map(|(_, count)| count).sum();
            Some(line(&service.glance(), sessions, logins))
        };
        let problem = health.problems.first().map(|problem| problem.text.as_str());
        let observed = self.metrics.observing(SystemTime::now());
        let observed = observed.map(|observed| format!("; {}", observed.text)).unwrap_or_default();
        let state = match (problem, health.notes.first()) {
            (Some(problem), _) if !health.is_serving() => format!("No login can succeed: {problem}"),
            (Some(problem), _) => format!("Logins work, but: {problem}"),
            (None, Some(note)) => format!("{}; {note}", usual().unwrap_or_default()),
            (None, None) => usual().unwrap_or_default(),
        };
        state + &observed
    }
}

impl Service {
    /// Returns the part of the state that needs no query.
    fn glance(&self) -> Status {
        Status {
            domain: Some(self.domain.clone()),
            method: self.logins.passwords.report(&self.domain),
            servers: self.domains.own().report(),
            ..Status::default()
        }
    }
}

fn line(status: &Status, sessions: Option<u64>, logins: u64) -> String {
    let servers = &status.servers.list;
    let usable = servers.iter().filter(|server| server.is_usable(&status.method)).count();
    let domain = status.domain.as_deref().unwrap_or_default();
    let method = match status.method.name.as_str() {
        "" => String::new(),
        name => format!(" by {name}"),
    };
    let servers = match servers.len() {
        0 => "no DC known".to_owned(),
        count => format!("{usable} of {}", several(count as u64, "DC")),
    };
    let sessions = sessions.map(|count| format!("{}, ", several(count, "session"))).unwrap_or_default();
    format!("{domain}{method}: {servers}, {sessions}{}", several(logins, "login"))
}

fn several(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{Method, Server, Servers};

    #[test]
    fn one_line_says_how_it_stands() {
        let server = |binds: &str| Server {
            services: [("binds", binds), ("reading", "ok"), ("kdc", "unknown")]
                .map(|(name, state)| (name.to_owned(), state.to_owned()))
                .into(),
            ..Server::default()
        };
        let cases = [
            ("", vec![], None, 0, "acme.com: no DC known, 0 logins"),
            ("ldap", vec!["ok", "refused"], Some(1), 1, "acme.com by ldap: 1 of 2 DCs, 1 session, 1 login"),
            (
                "kerberos",
                vec!["refused"],
                Some(3),
                120,
                "acme.com by kerberos: 1 of 1 DC, 3 sessions, 120 logins",
            ),
        ];
        for (method, servers, sessions, logins, expected) in cases {
            let status = Status {
                domain: Some("acme.com".into()),
                method: Method { name: method.into(), ..Method::default() },
                servers: Servers { list: servers.into_iter().map(server).collect(), ..Servers::default() },
                ..Status::default()
            };
            assert_eq!(line(&status, sessions, logins), expected);
        }
    }
}
