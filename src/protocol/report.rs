//! What `motion-ad check`, `motion-ad status`, `motion-ad sessions` and `motion-ad audit` show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Outcome;

/// An account as AD has it now. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Whether the account may log in now, a right password given; `None` when AD was not reached.
    pub outcome: Option<Outcome>,
    /// The cause, in words.
    pub reason: String,
    /// The name that was asked for.
    pub user: String,
    /// `user@domain` that the name maps to.
    pub principal: Option<String>,
    /// Distinguished name of the account.
    pub dn: Option<String>,
    /// `objectGUID` in its usual text form.
    pub guid: Option<String>,
    /// `sAMAccountName`.
    pub sam_account_name: Option<String>,
    /// Explicit `userPrincipalName`.
    pub user_principal_name: Option<String>,
    /// The domain controller that answered.
    pub dc: Option<String>,
    /// The account's flags and limits, by the name of their rule.
    pub facts: Vec<Fact>,
}

/// One property of an account that decides a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is: `disabled`, `locked out`, `password expires`, …
    pub name: String,
    /// Its value, for people.
    pub value: String,
    /// Whether it keeps the account out.
    pub refuses: bool,
}

/// The broker as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the package.
    pub version: String,
    /// Process id of the broker.
    pub pid: u32,
    /// Seconds since the broker started.
    pub uptime: u64,
    /// The domain it serves, once known.
    pub domain: Option<String>,
    /// Whether a login can succeed now.
    #[serde(default)]
    pub serving: bool,
    /// What is wrong, those that keep every user out first; empty when all is well.
    pub problems: Vec<String>,
    /// What is worth knowing although nothing is wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How passwords are checked, and why so.
    pub method: Method,
    /// The domain controllers.
    pub servers: Servers,
    /// Connections for users' binds.
    pub pool: Pool,
    /// The machine account's connection.
    pub machine: Machine,
    /// Who may vouch for a domain controller.
    pub trust: Trust,
    /// Logins by outcome since the start.
    pub logins: Vec<(Outcome, u64)>,
    /// The register of sessions.
    #[serde(default)]
    pub sessions: Register,
    /// Background tasks that have failed since the start.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// A background task that has failed. The broker starts it again each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Name of the task.
    pub name: String,
    /// How many times it has failed.
    pub failures: u64,
    /// Cause of the last failure.
    pub cause: String,
    /// Whether it waits for its restart.
    pub waiting: bool,
}

/// How passwords are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// `ldap` or `kerberos`; empty while it is not known yet.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The domain controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// This host's site, as far as it is known.
    pub site: Option<String>,
    /// Why the list is not the latest, or why there is none.
    pub problem: Option<String>,
    /// In the order in which they are tried, those that failed aside.
    pub list: Vec<Server>,
}

/// One domain controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// DNS name.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is one of this host's site.
    pub in_site: bool,
    /// Whether DNS names it and AD does not list it as a domain controller: no password goes there.
    #[serde(default)]
    pub is_stranger: bool,
    /// Each service and its state: `ok`, `unknown`, or why it is left for others at the moment.
    pub services: BTreeMap<String, String>,
    /// Seconds since each service last did what was asked of it.
    #[serde(default)]
    pub answered: BTreeMap<String, u64>,
    /// Seconds that each service has failed for.
    #[serde(default)]
    pub failing: BTreeMap<String, u64>,
}

impl Server {
    /// Whether a login by `method` can use it: one that was not asked yet is not in the way.
    pub fn is_usable(&self, method: &Method) -> bool {
        !self.is_stranger
            && self.services.iter().all(|(service, state)| !self.is_needed(service, method) || is_up(state))
    }

    /// Returns true if a login by `method` needs `service`.
    pub fn is_needed(&self, service: &str, method: &Method) -> bool {
        match method.name.as_str() {
            "kerberos" => ["reading", "kdc"],
            _ => ["binds", "reading"],
        }
        .contains(&service)
    }
}

/// Whether [`Server::services`] says so of a service: one that was not asked yet may work.
pub fn is_up(state: &str) -> bool {
    matches!(state, "ok" | "unknown")
}

/// The connections for users' binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Open and waiting for work.
    pub idle: usize,
    /// In use by a login.
    pub busy: usize,
    /// The bound.
    pub max: usize,
}

/// The machine account's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `connected`, or why it cannot be.
    pub state: String,
    /// The principal of the keytab it uses.
    pub principal: Option<String>,
    /// The domain controller it is connected to.
    pub dc: Option<String>,
    /// Seconds left of the machine's ticket.
    pub ticket: Option<u64>,
}

/// Who may vouch for a domain controller on the connections for users' binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Where the roots come from.
    pub source: String,
    /// Those of `tls.ca_file`, else those that the forest publishes. The system's own are not listed.
    pub roots: Vec<Root>,
    /// CRLs in use.
    pub crls: usize,
    /// Seconds since AD was last read; `None` where it never was.
    pub refreshed: Option<u64>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// One trusted root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Whose it is.
    pub subject: String,
    /// SHA-256 of its DER form in hexadecimal.
    pub sha256: String,
    /// First and last second of its validity since 1970-01-01 UTC.
    pub not_before: u64,
    /// See [`Root::not_before`].
    pub not_after: u64,
}

/// The register of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// What it is and where.
    pub store: String,
    /// How many sessions are open; `None` where it does not answer.
    pub open: Option<u64>,
    /// What goes wrong with it now.
    pub problem: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// In the order in which they were opened.
    pub list: Vec<Session>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

/// Somebody who is, or was, logged in. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id, a UUID.
    pub id: String,
    /// The name as the person typed it.
    pub user: String,
    /// `user@domain` that the name maps to.
    pub principal: String,
    /// `objectGUID` of the account: sessions are counted by it, whatever names it goes by.
    pub guid: String,
    /// PAM_SERVICE.
    pub service: String,
    /// PAM_RHOST.
    pub rhost: String,
    /// PAM_TTY.
    pub tty: String,
    /// Name of the server that the person is logged in at.
    pub host: String,
    /// Which machine that is, made from its machine-id: two servers of one name differ in it. The server's name where it
    /// has no machine-id.
    #[serde(default)]
    pub machine: String,
    /// The application's uid.
    pub uid: u32,
    /// The application's process id there.
    pub pid: u32,
    /// When that process was started: `starttime` of proc_pid_stat(5), in clock ticks since that host's boot, which
    /// tells it from another process that gets the same id later; 0 where it could not be read.
    pub started: u64,
    /// The boot that [`Session::started`] counts from: `boot_id` of that host (random(4)), without hyphens.
    #[serde(default)]
    pub boot: String,
    /// When it was opened.
    pub since: u64,
    /// How it ended; `None` while it is open.
    pub ended: Option<Ended>,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: u64,
    /// Why.
    pub reason: EndReason,
    /// The session that took its place, or in words what AD says of the account; empty where the reason says all.
    #[serde(default)]
    pub detail: String,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The application closed it.
    Closed,
    /// Another login of the same person took its place (`sessions.policy = "replace"`).
    Replaced,
    /// The account may not be logged in any more (`sessions.recheck`).
    Refused,
    /// The application's process is gone.
    ProcessGone,
    /// It was older than `sessions.max_age`.
    TooOld,
    /// The application never learned that it was opened: its login was refused, or nobody took the answer. Nobody has the
    /// seat, also where the session ended another one that it was to replace.
    Unconfirmed,
}

impl EndReason {
    /// All of them.
    pub const ALL: [EndReason; 6] = [
        EndReason::Closed,
        EndReason::Replaced,
        EndReason::Refused,
        EndReason::ProcessGone,
        EndReason::TooOld,
        EndReason::Unconfirmed,
    ];

    /// The name in the log, in JSON and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Closed => "closed",
            EndReason::Replaced => "replaced",
            EndReason::Refused => "refused",
            EndReason::ProcessGone => "process_gone",
            EndReason::TooOld => "too_old",
            EndReason::Unconfirmed => "unconfirmed",
        }
    }

    /// Whether the person was logged in until now and has to be told: the application did not end it itself.
    pub fn is_eviction(self) -> bool {
        matches!(self, EndReason::Replaced | EndReason::Refused | EndReason::TooOld)
    }
}

/// What happened to sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// In the order in which it happened.
    pub list: Vec<Event>,
    /// Where to go on.
    pub cursor: String,
    /// Whether events between the cursor that was asked for and the first one here are no longer kept.
    pub gap: bool,
}

/// One thing that happened to a session: it was opened, or, where [`Session::ended`] says so, it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Where to go on after this event.
    pub cursor: String,
    /// The session as it was after that.
    pub session: Session,
}

/// Whether people may log in, in the order of `Request::names`. Where it ends before them, the rest is to be asked
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Each name's answer.
    pub list: Vec<Audited>,
}

/// Whether one name may log in. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// What would become of a login now, a right password given.
    pub outcome: Outcome,
    /// The cause, in words, where the outcome does not say all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `user@domain` that the name maps to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Whether a line of names.map sends the name elsewhere than the rule would.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
    /// `objectGUID` of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// When its password expires; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_expires: Option<u64>,
    /// When the account expires; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_expires: Option<u64>,
    /// Of a name without an account: the only account that looks like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

impl Audited {
    /// An answer that says no more than this.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Audited {
            outcome,
            reason: reason.into(),
            principal: None,
            mapped: false,
            guid: None,
            password_expires: None,
            account_expires: None,
            near: None,
        }
    }
}

/// An account that may be meant by a name that nobody bears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// A name that leads to it.
    pub principal: String,
    /// Its `objectGUID`.
    pub guid: String,
    /// What looks alike.
    pub why: String,
}
