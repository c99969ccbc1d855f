//! Commands of the suite to the client, and the client's answers: a line of JSON each.

use serde::{Deserialize, Serialize};

/// The first line, with the candidates. The client answers with an empty line when all are ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Shared objects that stay loaded, as in a long-lived application. pam_sss would crash the client
    /// otherwise.
    pub keep: Vec<String>,
    pub candidates: Vec<Candidate>,
}

/// A method to check a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    pub name: String,
    pub way: Way,
    /// Users with their passwords, used in turn.
    pub people: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Through libpam.
    Pam {
        service: String,
        /// The folder of the service files if it is not libpam's default (`pam_start_confdir`).
        folder: Option<String>,
        /// True if acct_mgmt follows authenticate.
        account: bool,
    },
    /// A bind on an open TLS connection. The users are distinguished names.
    Bind { address: String, host: String, ca_file: String },
    /// A bind on an open connection to the LDAP bridge.
    Bridge { address: String },
}

/// Each further line: a block of logins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    /// The numbers of the candidates. Each thread takes them in turn, in a new random order each time.
    pub candidates: Vec<usize>,
    pub threads: usize,
    /// The block ends after this time, or after `logins` logins of each candidate.
    pub seconds: f64,
    pub logins: usize,
    /// Logins due per second; late ones begin as soon as they can. Zero means no limit. With a rate, the
    /// measured time begins when a login is due.
    pub rate: f64,
    /// Uses wrong passwords. A login that succeeds then counts as failed.
    pub wrong: bool,
}

/// Answer to a block, with the candidates in the block's order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    pub seconds: f64,
    /// Private memory of the client in KiB (`smaps_rollup`, proc(5)).
    pub private_kib: u64,
    /// CPU time of the client in seconds until now.
    pub cpu: f64,
    pub results: Vec<Took>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Took {
    /// Duration of each login in microseconds.
    pub micros: Vec<u32>,
    pub failed: usize,
    /// Cause of the first failure.
    pub failure: Option<String>,
}
