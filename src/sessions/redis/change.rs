//! Changes in the state of a Redis, and the log line for each.

use std::sync::Arc;
use std::time::Duration;

use super::trouble::EVICTION;
use crate::log::{Level, Line};

/// A change in the state of the Redis, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This server is used now; the time is how long none was.
    Up(String, Option<Duration>),
    /// No server can be used: the cause, and the advice.
    Down(String, &'static str),
    /// The register has lost data.
    Lost(Loss),
    /// The record of this session (its id) cannot be read; the record.
    Unreadable(String, String),
}

/// Part of a register that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Keys were missing, so an empty register replaced it.
    Keys,
    /// Everything: this is another register than before.
    All,
    /// The newest events, and the changes that they describe.
    Newest,
}

impl Loss {
    fn problem(self) -> &'static str {
        match self {
            Loss::Keys => "keys of the register were missing, so that an empty one took its place",
            Loss::All => "the register has lost all that it held",
            Loss::Newest => "the register has lost the changes that were made last",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Loss::Keys => EVICTION,
            Loss::All => {
                "set appendonly of the server to yes, and see motion-ad.toml(5) about its user default, \
                 whose rights decide what it reads again at its start"
            }
            Loss::Newest => "see motion-ad.toml(5) about min-replicas-to-write",
        }
    }
}

impl Change {
    /// Returns the log line about the store called `store`.
    pub fn line(&self, store: &str) -> (Level, Line) {
        let line = Line::new("sessions").with("store", store);
        match self {
            Change::Up(server, after) => {
                let seconds = after.map(|after| format!("{:.1}", after.as_secs_f64())).unwrap_or_default();
                (Level::Info, line.with("state", "up").with("server", server).with("seconds", seconds))
            }
            Change::Down(cause, advice) => {
                (Level::Error, line.with("state", "down").with("cause", cause).with("advice", advice))
            }
            Change::Unreadable(id, record) => {
                let problem = "the record of a session cannot be read; the session has ended";
                (Level::Error, line.with("session", id).with("problem", problem).with("record", record))
            }
            Change::Lost(loss) => {
                (Level::Error, line.with("problem", loss.problem()).with("advice", loss.advice()))
            }
        }
    }
}

/// Function that reports changes.
pub type Tell = Arc<dyn Fn(&Change) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_line() {
        let cases = [
            (Change::Up("r1:6379".into(), None), "state=up server=r1:6379"),
            (
                Change::Up("r1:6379".into(), Some(Duration::from_millis(1520))),
                "state=up server=r1:6379 seconds=1.5",
            ),
            (Change::Down("r1:6379: refused".into(), ""), "state=down cause=\"r1:6379: refused\""),
            (Change::Down("x".into(), "wait"), "state=down cause=x advice=wait"),
            (
                Change::Lost(Loss::Newest),
                "problem=\"the register has lost the changes that were made last\" \
                 advice=\"see motion-ad.toml(5) about min-replicas-to-write\"",
            ),
        ];
        for (change, text) in cases {
            assert_eq!(change.line("redis://r1").1.text(), format!("event=sessions store=redis://r1 {text}"));
        }
    }
}
