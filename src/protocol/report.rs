//! What `motion-ad check` and `motion-ad status` show.

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
    /// The domain controllers, in the order in which they are tried.
    pub servers: Vec<Server>,
    /// Connections for users' binds.
    pub pool: Pool,
    /// The machine account's connection.
    pub machine: Machine,
    /// Logins by outcome since the start.
    pub logins: Vec<(Outcome, u64)>,
}

/// One domain controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// DNS name.
    pub host: String,
    /// `ok`, `unknown`, or why it is passed over at the moment.
    pub state: String,
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
