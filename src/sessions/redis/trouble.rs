//! Problems with a Redis, and the advice for each.

use std::fmt;
use std::io;

use redis::{ErrorKind, RedisError};

/// Reason why a call or a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(super) kind: Kind,
    /// The cause; names the server once it is known.
    pub(super) cause: String,
    /// Advice for the administrator; empty if there is none.
    pub(super) advice: &'static str,
}

/// Consequence of a problem for the call and for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no connection, or it was closed; the call may have been carried out.
    Lost,
    /// The server did not reply; the call may have been carried out, or may still be.
    Silent,
    /// The call was not carried out, because this server is not the master, or is not ready yet.
    NotHere,
    /// The call was not carried out, and a new connection would not help until an administrator fixes the
    /// cause.
    Barred,
    /// The call was not carried out: the server is unable to at the moment. The connection is good.
    Refused,
    /// The call was not carried out: the register is no longer complete.
    Damaged,
}

/// The beginnings of error replies (redis.io/docs/reference/protocol-spec), each with its kind and advice. In
/// an error of a script the words may stand anywhere.
const ANSWERS: &[(&str, Kind, &str)] = &[
    ("DAMAGED", Kind::Damaged, EVICTION),
    ("LAYOUT", Kind::Barred, "run the same version of motion-ad on every server that shares the register"),
    (
        "WRONGPASS",
        Kind::Barred,
        "compare sessions.password_file and the user in sessions.store with the server's ACL",
    ),
    (
        "without any password configured",
        Kind::Barred,
        "the server has no password: leave sessions.password_file out",
    ),
    (
        "NOAUTH",
        Kind::Barred,
        "the server wants a password: put it into a file and name that as sessions.password_file",
    ),
    ("NOPERM", Kind::Barred, RIGHTS),
    // Errors within a script, in the words of versions 7.2 and 7.0.
    ("ACL failure", Kind::Barred, RIGHTS),
    ("The user executing the script can't", Kind::Barred, RIGHTS),
    ("READONLY", Kind::NotHere, "it is a replica: name the master in sessions.store, or its Sentinels"),
    ("MASTERDOWN", Kind::NotHere, "it is a replica: name the master in sessions.store, or its Sentinels"),
    ("LOADING", Kind::NotHere, "the server is reading its data; wait"),
    ("MOVED", Kind::Barred, CLUSTER),
    ("CLUSTERDOWN", Kind::Barred, CLUSTER),
    ("OOM", Kind::Refused, "raise maxmemory of the server, or remove what else it holds"),
    ("MISCONF", Kind::Refused, "the server cannot write to its disk; its log says why"),
    ("NOREPLICAS", Kind::Refused, "bring the server's replicas back; min-replicas-to-write wants them"),
    ("BUSY", Kind::Refused, "a script of another client blocks the server"),
    ("DB index is out of range", Kind::Barred, "the server has no database of the number in sessions.store"),
];
const RIGHTS: &str = "give the user the rights that motion-ad.toml(5) lists under sessions.store";
const CLUSTER: &str = "a Redis Cluster cannot be used: name one server, or Sentinels";
/// Advice against the loss of keys, which damages a register.
pub(super) const EVICTION: &str = "set maxmemory-policy of the server to noeviction, and let no other client \
    remove keys that begin with motion-ad:";
/// Advice against other clients of the register.
pub(super) const FOREIGN: &str = "let no other client write keys that begin with motion-ad:";

impl Trouble {
    pub(super) fn new(kind: Kind, cause: impl Into<String>, advice: &'static str) -> Self {
        Trouble { kind, cause: cause.into(), advice }
    }

    /// Maps the error reply `text` of the server.
    pub(super) fn answered(text: &str) -> Self {
        // The name of the script and the line in it do not help an administrator.
        let text = text.split(" script: ").next().unwrap_or(text).trim_end_matches([',', ' ']);
        let known = ANSWERS.iter().find(|(sign, ..)| text.contains(sign));
        let (kind, advice) = known.map_or((Kind::Barred, ""), |(_, kind, advice)| (*kind, *advice));
        Trouble::new(kind, format!("the server answers: {text}"), advice)
    }

    /// There is no connection, or no longer one.
    pub(super) fn lost(cause: impl Into<String>) -> Self {
        Trouble::new(Kind::Lost, cause, "")
    }

    /// The server did not reply in time.
    pub(super) fn silent() -> Self {
        Trouble::new(Kind::Silent, "no answer in time", "")
    }

    /// Adds the name of the server to the cause.
    pub(super) fn of(self, server: &impl fmt::Display) -> Self {
        Trouble { cause: format!("{server}: {}", self.cause), ..self }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.advice {
            "" => f.write_str(&self.cause),
            advice => write!(f, "{}; {advice}", self.cause),
        }
    }
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
                Trouble::answered(&format!("{code} {detail}"))
            }
            ErrorKind::Io => Trouble::lost(match error.is_connection_dropped() {
                true => "the connection was closed".to_owned(),
                false => error.to_string(),
            }),
            // A reply that cannot be parsed makes the connection useless; the call may have been carried out.
            _ => Trouble::lost(format!("the server does not speak Redis's protocol: {error}")),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::lost(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_answers_says_what_to_do() {
        let cases = [
            ("WRONGPASS invalid username-password pair or user is disabled.", Kind::Barred, "password_file"),
            ("NOAUTH Authentication required.", Kind::Barred, "password_file"),
            (
                "ERR AUTH <password> called without any password configured for the default user. Are you \
                 sure",
                Kind::Barred,
                "leave",
            ),
            ("NOPERM this user has no permissions to run the 'xadd' command", Kind::Barred, "rights"),
            (
                "ERR ACL failure in script: User x has no permissions to run the 'zadd' command script: 0, \
                 on @user_script:1.",
                Kind::Barred,
                "rights",
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 0f, on \
                 @user_script:110.",
                Kind::Barred,
                "rights",
            ),
            (
                "READONLY You can't write against a read only replica. script: 0f, on @user_script:12.",
                Kind::NotHere,
                "master",
            ),
            (
                "ERR Error running script (call to f_0f): @user_script:3: @user_script: 3: -READONLY You \
                 can't write",
                Kind::NotHere,
                "master",
            ),
            ("LOADING Redis is loading the dataset in memory", Kind::NotHere, "wait"),
            ("MOVED 3999 127.0.0.1:6381", Kind::Barred, "Cluster"),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind::Refused, "maxmemory"),
            ("MISCONF Redis is configured to save RDB snapshots", Kind::Refused, "disk"),
            ("NOREPLICAS Not enough good replicas to write.", Kind::Refused, "replicas"),
            (
                "ERR user_script:31: DAMAGED keys are missing script: 0f, on @user_script:31.",
                Kind::Damaged,
                "noeviction",
            ),
            ("ERR something new", Kind::Barred, ""),
        ];
        for (answer, kind, advice) in cases {
            let trouble = Trouble::answered(answer);
            assert_eq!(trouble.kind, kind, "{answer}");
            assert!(trouble.advice.contains(advice), "{answer}: {}", trouble.advice);
            assert!(!trouble.cause.contains("script: 0"), "{}", trouble.cause);
        }
    }
}
