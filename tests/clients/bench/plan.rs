//! What the suite tells the client, and what the client answers: a line of JSON each.

use serde::{Deserialize, Serialize};

/// The first line: who is to be compared. Its answer is an empty line, once all are ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Shared objects that stay loaded, as those of any application that lives long: pam_sss would crash it otherwise.
    pub keep: Vec<String>,
    pub candidates: Vec<Candidate>,
}

/// A way to check a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    pub name: String,
    pub way: Way,
    /// Who, each with a password; in turn.
    pub people: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Through libpam.
    Pam {
        service: String,
        /// The folder of the service files, where that is not libpam's own (`pam_start_confdir`).
        folder: Option<String>,
        /// Whether acct_mgmt follows authenticate.
        account: bool,
    },
    /// A bind on a TLS connection that stays open; the people are distinguished names.
    Bind { address: String, host: String, ca_file: String },
}

/// Every further line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    /// The numbers of the candidates; each thread takes them in turn.
    pub candidates: Vec<usize>,
    pub threads: usize,
    /// It ends after so many seconds, or after so many logins of each candidate.
    pub seconds: f64,
    pub logins: usize,
    /// So many a second begin, late ones as soon as they can; zero is as many as there can be. What is measured then is
    /// the time since a login was due.
    pub rate: f64,
    /// With wrong passwords: who gets in has failed.
    pub wrong: bool,
}

/// The answer to a block: the candidates in its order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    pub seconds: f64,
    /// The memory that is the client's alone, in KiB (`smaps_rollup`, proc(5)).
    pub private_kib: u64,
    /// The client's CPU time in seconds so far.
    pub cpu: f64,
    pub results: Vec<Took>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Took {
    /// Each login, in microseconds.
    pub micros: Vec<u32>,
    pub failed: usize,
    /// The first failure.
    pub failure: Option<String>,
}
