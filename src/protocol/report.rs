//! What `motion-ad check` and `motion-ad status` show.

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
    /// What is wrong with the configuration or with the join; empty when all is well.
    pub problems: Vec<String>,
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
    /// Each service and its state: `ok`, `unknown`, or why it is left for others at the moment.
    pub services: BTreeMap<String, String>,
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
    /// `connected`, `not connected`, or the last error.
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
