//! The reports that `motion-ad check`, `motion-ad status`, `motion-ad sessions` and `motion-ad audit` print.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Outcome;

/// The present state of an account in AD. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The outcome of a login now with the right password; `None` if AD was not reached.
    pub outcome: Option<Outcome>,
    /// The cause, as text.
    pub reason: String,
    /// The name in the request.
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
    /// The account's flags and limits, each under the name of its rule.
    pub facts: Vec<Fact>,
}

/// One property of an account that decides a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The property: `disabled`, `locked out`, `password expires`, …
    pub name: String,
    /// Its value as text for a reader.
    pub value: String,
    /// True if it makes AD reject the login.
    pub refuses: bool,
}

/// The present state of the broker.
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
    /// True if a login can succeed now.
    #[serde(default)]
    pub serving: bool,
    /// Present problems, those that make every login fail first; empty if there are none.
    pub problems: Vec<String>,
    /// Remarks on a state that is no problem.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How passwords are checked, and the reason.
    pub method: Method,
    /// The domain controllers.
    pub servers: Servers,
    /// Connections for users' binds.
    pub pool: Pool,
    /// The machine account's connection.
    pub machine: Machine,
    /// The certificates that the broker trusts for a domain controller.
    pub trust: Trust,
    /// Logins by outcome since the start.
    pub logins: Vec<(Outcome, u64)>,
    /// The register of sessions.
    #[serde(default)]
    pub sessions: Register,
    /// Background tasks that have failed since the start.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// The configuration in force in place of the files; `None` if the files are in force.
    #[serde(default)]
    pub kept: Option<KeptSettings>,
    /// Logins that were only observed within a day; `None` if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// Logins that another module of the PAM stack decided (the module's argument `observe`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// How many.
    pub logins: u64,
    /// Time of the first one, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// Time of the last one.
    pub last: u64,
    /// The same in words, in local time.
    pub text: String,
}

/// The last good configuration, which is in force because the files cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSettings {
    /// Why the files cannot be used, and since when the configuration is in force.
    pub problem: String,
    /// Each key.
    pub settings: Vec<Setting>,
}

/// A key of the configuration with the value in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `table.name`.
    pub key: String,
    /// Its value as TOML; empty if there is none.
    pub value: String,
    /// Source of the value.
    pub from: String,
}

/// A background task that has failed. The broker starts it again each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Name of the task.
    pub name: String,
    /// Number of failures.
    pub failures: u64,
    /// Cause of the last failure.
    pub cause: String,
    /// True while the task waits for its restart.
    pub waiting: bool,
}

/// How passwords are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// `ldap` or `kerberos`; empty while it is not known yet.
    pub name: String,
    /// The reason for this method.
    pub reason: String,
}

/// The domain controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// This host's site; `None` while it is unknown.
    pub site: Option<String>,
    /// Why the list is out of date, or why there is none.
    pub problem: Option<String>,
    /// In the order in which they are tried, apart from those that failed.
    pub list: Vec<Server>,
}

/// One domain controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// DNS name.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// True if it belongs to this host's site.
    pub in_site: bool,
    /// True if DNS names it and AD does not list it as a domain controller. The broker sends it no password.
    #[serde(default)]
    pub is_stranger: bool,
    /// Each service and its state: `ok`, `unknown`, or the reason why it is avoided at the moment.
    pub services: BTreeMap<String, String>,
    /// Seconds since each service last answered a request successfully.
    #[serde(default)]
    pub answered: BTreeMap<String, u64>,
    /// Seconds that each service has failed for.
    #[serde(default)]
    pub failing: BTreeMap<String, u64>,
}

impl Server {
    /// Returns true if a login by `method` can use it. A service in state `unknown` counts as usable.
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

/// Returns true if `state`, a value of [`Server::services`], is `ok` or `unknown`: an untried service may
/// work.
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
    /// The most connections that may be open.
    pub max: usize,
}

/// The machine account's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `connected`, or the reason why there is no connection.
    pub state: String,
    /// The principal of the keytab it uses.
    pub principal: Option<String>,
    /// The domain controller it is connected to.
    pub dc: Option<String>,
    /// Seconds left of the machine's ticket.
    pub ticket: Option<u64>,
}

/// The certificates that vouch for a domain controller on the connections for users' binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The source of the roots.
    pub source: String,
    /// The roots of `tls.ca_file`, else those that the forest publishes. The system's own roots are not
    /// listed.
    pub roots: Vec<Root>,
    /// CRLs in use.
    pub crls: usize,
    /// Seconds since AD was last read; `None` if it never was.
    pub refreshed: Option<u64>,
    /// The certificates and CRLs that were ignored, and why.
    pub notes: Vec<String>,
}

/// One trusted root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Subject of the certificate.
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
    /// The kind of store and its location.
    pub store: String,
    /// Number of open sessions; `None` if the store does not answer.
    pub open: Option<u64>,
    /// The store's present problem.
    pub problem: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// In the order in which they were opened.
    pub list: Vec<Session>,
    /// Cursor of the next page; `None` after the last one.
    pub next: Option<String>,
}

/// A user's session, open or ended. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id, a UUID.
    pub id: String,
    /// The name as the user typed it.
    pub user: String,
    /// `user@domain` that the name maps to.
    pub principal: String,
    /// `objectGUID` of the account. Sessions are counted by it, whichever name the user typed.
    pub guid: String,
    /// PAM_SERVICE.
    pub service: String,
    /// PAM_RHOST.
    pub rhost: String,
    /// PAM_TTY.
    pub tty: String,
    /// Name of the server that the user is logged in to.
    pub host: String,
    /// Identifier of that server, derived from its machine-id: it differs between two servers with the same
    /// name. Equals the server's name if there is no machine-id.
    #[serde(default)]
    pub machine: String,
    /// The application's uid.
    pub uid: u32,
    /// The application's process id on that server.
    pub pid: u32,
    /// Start time of that process: `starttime` of proc_pid_stat(5), in clock ticks since that host's boot. It
    /// tells the process from a later one with the same id. 0 if it could not be read.
    pub started: u64,
    /// The boot that [`Session::started`] counts from: `boot_id` of that host (random(4)), without hyphens.
    #[serde(default)]
    pub boot: String,
    /// Time at which it was opened.
    pub since: u64,
    /// How it ended; `None` while it is open.
    pub ended: Option<Ended>,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Time of the end.
    pub at: u64,
    /// Reason for the end.
    pub reason: EndReason,
    /// Id of the session that replaced it, the process that asked for an eviction, or the cause as text;
    /// empty if the reason says enough.
    #[serde(default)]
    pub detail: String,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The application closed it.
    Closed,
    /// Another login of the same user replaced it (`sessions.policy = "replace"`).
    Replaced,
    /// AD no longer allows the account to log in (`sessions.recheck`).
    Refused,
    /// The application's process is gone.
    ProcessGone,
    /// It was older than `sessions.max_age`.
    TooOld,
    /// The application never learned that the session was opened: its login was rejected, or the reply was
    /// not received. The seat stays free, even if this session had replaced another one.
    Unconfirmed,
    /// An administrator ended it (`motion-ad sessions kick`).
    Kicked,
}

impl EndReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [EndReason; 7] = [
        EndReason::Closed,
        EndReason::Replaced,
        EndReason::Refused,
        EndReason::ProcessGone,
        EndReason::TooOld,
        EndReason::Unconfirmed,
        EndReason::Kicked,
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
            EndReason::Kicked => "kicked",
        }
    }

    /// Returns true if something other than the application ended the session, so that the user must be
    /// logged out.
    pub fn is_eviction(self) -> bool {
        matches!(self, EndReason::Replaced | EndReason::Refused | EndReason::TooOld | EndReason::Kicked)
    }
}

/// Events of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// In the order in which they happened.
    pub list: Vec<Event>,
    /// Cursor for the next request.
    pub cursor: String,
    /// True if events between the requested cursor and the first one in the list are no longer kept.
    pub gap: bool,
}

/// A session that was opened or, if [`Session::ended`] is set, ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Cursor from which to continue after this event.
    pub cursor: String,
    /// The session after the event.
    pub session: Session,
}

/// The access of each name, in the order of the request. If the list is shorter, the client requests the
/// rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The result for each name.
    pub list: Vec<Audited>,
}

/// The access of one name. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// The outcome of a login now with the right password.
    pub outcome: Outcome,
    /// The cause, as text, if the outcome does not say enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `user@domain` that the name maps to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// True if a line of names.map maps the name differently from the rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
    /// `objectGUID` of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// Time at which the password expires; `None` if it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_expires: Option<u64>,
    /// Time at which the account expires; `None` if it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_expires: Option<u64>,
    /// The only account with a similar name, if the name itself has no account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

impl Audited {
    /// Creates a result with nothing but an outcome and its cause.
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

/// An account that a name without an account may mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// A name that leads to it.
    pub principal: String,
    /// Its `objectGUID`.
    pub guid: String,
    /// The similarity.
    pub why: String,
}
