//! Reports shown by `motion-ad check`, `motion-ad status`, `motion-ad sessions` and `motion-ad audit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Outcome;

/// Current state of an account in AD. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Outcome of a login now with the right password; `None` if AD was not reached.
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
    /// The account's flags and limits, by the name of their rule.
    pub facts: Vec<Fact>,
}

/// One property of an account that decides a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Its name: `disabled`, `locked out`, `password expires`, …
    pub name: String,
    /// Its value, as text for the administrator.
    pub value: String,
    /// True if it makes a login fail.
    pub refuses: bool,
}

/// Current state of the broker.
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
    /// Faults, those that make every login fail first; empty if there are none.
    pub problems: Vec<String>,
    /// Remarks that are not faults.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The method that checks passwords, and the reason for it.
    pub method: Method,
    /// The domain controllers.
    pub servers: Servers,
    /// Connections for users' binds.
    pub pool: Pool,
    /// The machine account's connection.
    pub machine: Machine,
    /// Certificate authorities that may vouch for a domain controller.
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
    /// True while it waits for its restart.
    pub waiting: bool,
}

/// The method that checks passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// `ldap` or `kerberos`; empty while it is not known yet.
    pub name: String,
    /// Reason for this method.
    pub reason: String,
}

/// The domain controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// This host's site, as far as it is known.
    pub site: Option<String>,
    /// Reason why the list is outdated or missing.
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
    /// True if DNS names it but AD does not list it as a domain controller. It never receives a password.
    #[serde(default)]
    pub is_stranger: bool,
    /// Each service and its state: `ok`, `unknown`, or the reason why other servers are preferred now.
    pub services: BTreeMap<String, String>,
    /// Seconds since each service last completed a request.
    #[serde(default)]
    pub answered: BTreeMap<String, u64>,
    /// Seconds that each service has failed for.
    #[serde(default)]
    pub failing: BTreeMap<String, u64>,
}

impl Server {
    /// Returns true if a login by `method` can use this server. Services that were not tried yet count as working.
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

/// Returns true if a state of [`Server::services`] is `ok` or `unknown`: a service that was not tried yet may work.
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
    /// Upper bound for open connections.
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

/// Certificate authorities that may vouch for a domain controller on the connections for users' binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Source of the roots.
    pub source: String,
    /// The roots in `tls.ca_file`, else those that the forest publishes. The system's roots are not listed.
    pub roots: Vec<Root>,
    /// CRLs in use.
    pub crls: usize,
    /// Seconds since the roots were last read from AD; `None` if they never were.
    pub refreshed: Option<u64>,
    /// Entries that were skipped, and the reasons.
    pub notes: Vec<String>,
}

/// One trusted root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Subject of its certificate.
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
    /// Kind and location of the store.
    pub store: String,
    /// Number of open sessions; `None` if the store does not reply.
    pub open: Option<u64>,
    /// Its current fault.
    pub problem: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// In the order in which they were opened.
    pub list: Vec<Session>,
    /// Cursor of the next page; `None` after the last page.
    pub next: Option<String>,
}

/// A session of a user, open or ended. Times are milliseconds since 1970-01-01 UTC.
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
    /// Name of the server that the user is logged in at.
    pub host: String,
    /// Identifier of that server, derived from its machine-id: it differs for two servers of the same name. The server's
    /// name if it has no machine-id.
    #[serde(default)]
    pub machine: String,
    /// The application's uid.
    pub uid: u32,
    /// The application's process id there.
    pub pid: u32,
    /// Start of that process: `starttime` of proc_pid_stat(5), in clock ticks since that host's boot. It distinguishes the
    /// process from a later one with the same id; 0 if it could not be read.
    pub started: u64,
    /// The boot that [`Session::started`] counts from: `boot_id` of that host (random(4)), without hyphens.
    #[serde(default)]
    pub boot: String,
    /// Time at which it was opened.
    pub since: u64,
    /// Its end; `None` while it is open.
    pub ended: Option<Ended>,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Time of the end.
    pub at: u64,
    /// Reason for the end.
    pub reason: EndReason,
    /// The session that replaced it, or the account's state in AD as text; empty if the reason says enough.
    #[serde(default)]
    pub detail: String,
}

/// Reason why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The application closed it.
    Closed,
    /// Another login of the same user replaced it (`sessions.policy = "replace"`).
    Replaced,
    /// The account may no longer be logged in (`sessions.recheck`).
    Refused,
    /// The application's process is gone.
    ProcessGone,
    /// It was older than `sessions.max_age`.
    TooOld,
    /// The application never learned that it was opened: the login was rejected, or the reply was not received. The seat
    /// is free, even if this session had already ended the one that it replaces.
    Unconfirmed,
}

impl EndReason {
    /// All reasons.
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

    /// Returns true if the user was logged in until now and must be notified, because the application did not end the
    /// session itself.
    pub fn is_eviction(self) -> bool {
        matches!(self, EndReason::Replaced | EndReason::Refused | EndReason::TooOld)
    }
}

/// Events of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// In chronological order.
    pub list: Vec<Event>,
    /// Cursor at which the next request continues.
    pub cursor: String,
    /// True if events between the requested cursor and the first event here are no longer kept.
    pub gap: bool,
}

/// One event of a session: its start, or its end if [`Session::ended`] is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Cursor that continues after this event.
    pub cursor: String,
    /// State of the session after the event.
    pub session: Session,
}

/// Audit of users' access, in the order of `Request::names`. If it has fewer entries, the client requests the rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Result for each name.
    pub list: Vec<Audited>,
}

/// Access of one name. Times are seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Outcome of a login now with the right password.
    pub outcome: Outcome,
    /// The cause, as text, if the outcome does not say enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `user@domain` that the name maps to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// True if a line of names.map maps the name to another principal than the rule would.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
    /// `objectGUID` of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// Expiry of its password; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_expires: Option<u64>,
    /// Expiry of the account; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_expires: Option<u64>,
    /// For a name without an account: the only account with a similar name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

impl Audited {
    /// Creates a result with an outcome and a reason only.
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

/// An account that the user may have meant by a name without an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// A name that maps to it.
    pub principal: String,
    /// Its `objectGUID`.
    pub guid: String,
    /// The similarity.
    pub why: String,
}
