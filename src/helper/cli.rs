//! The arguments. Man pages and completions are generated from these texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::config::{CONFIG, Credentials};
use crate::doctor::{CHECKS, Group};
use crate::protocol::SOCKET;

const EXAMPLES: &str = "\
Examples:
  motion-ad map john.doe                 the AD account behind an XCALLY name
  sudo motion-ad check john.doe          may this account log in now?
  sudo motion-ad login john.doe          try a password, as the login page would
  sudo motion-ad status                  the broker and the domain controllers
  sudo motion-ad doctor                  what is wrong, and the command that mends it

Exit status:
  0  yes: mapped, may log in, all is well
  1  no
  2  the usage or the configuration is wrong; of doctor: something has failed
  3  Active Directory or the broker cannot be reached; of doctor: the usage is wrong";

const GLOBAL: &str = "Options of every command";

/// XCALLY Motion and Active Directory: names, accounts, logins, and the state of the broker
#[derive(Debug, Parser)]
#[command(name = "motion-ad", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Socket of the broker
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,

    /// Configuration
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", default_value = CONFIG)]
    pub config: PathBuf,

    /// What the realm join wrote, for settings that the configuration leaves out
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", default_value_os_t = Credentials::find(None).sssd)]
    pub sssd: PathBuf,

    /// How long to wait for the broker's answer
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "SECONDS", default_value = "10",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How long to wait for the broker's answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the AD account (user@domain) behind each XCALLY name
    #[command(after_help = MAP)]
    Map(Map),
    /// Show whether an account may log in now, without its password
    #[command(after_help = CHECK)]
    Check(Account),
    /// Log in with a password, and show what became of it and where the time went
    #[command(after_help = LOGIN)]
    Login(Login),
    /// Show the broker, the domain controllers, the connections and the logins so far
    #[command(after_help = STATUS)]
    Status(Status),
    /// Look at everything between the application and AD, and say how to mend what is wrong
    #[command(after_help = doctor_help(false), after_long_help = doctor_help(true))]
    Doctor(Doctor),
    /// What doctor does as the application's user
    #[command(hide = true, after_help = "Not for people.")]
    AsApplication(AsApplication),
}

const MAP: &str = "\
Works without the broker and without the network, for every user: where sssd.conf may not be read, \
the domain is the configuration's domain.name, else the default realm of krb5.conf. Each name gives one line, in \
order; a name without an account gives none, and its reason on standard error. --json keeps both together.

With --reverse each line is a principal as it was given, a tab, and one of its names: a principal with two \
names gives two lines.

Examples:
  motion-ad map john.doe 'ACME\\jane'
  motion-ad map < names.txt
  motion-ad map --reverse john.doe@acme.com | cut -f2

Exit status:
  0  all are mapped
  1  at least one is not
  2  the usage or the configuration is wrong; the message names file and line";

/// Arguments of `map`.
#[derive(Debug, Args)]
pub struct Map {
    /// Names as people type them; `-`, or no NAME at all, stands for the lines of standard input
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Print the names under which XCALLY may know each principal (user@domain)
    #[arg(long)]
    pub reverse: bool,

    /// Print a JSON array: name and principal (with --reverse: principal and names), or the error, of each
    #[arg(long)]
    pub json: bool,
}

const CHECK: &str = "\
Asks AD through the broker, as root or as a user in broker.users. What keeps the account out is marked `x`.

Examples:
  sudo motion-ad check john.doe
  sudo motion-ad check --json john.doe | jq -r .outcome

Exit status:
  0  may log in, given the right password
  1  may not, is unknown to AD, or has no mapping
  2  the usage or the broker's configuration is wrong
  3  Active Directory or the broker cannot be reached";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Account {
    /// Name as the person types it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Print JSON: outcome, may_log_in, reason, advice, the account's names, and facts
    #[arg(long)]
    pub json: bool,
}

const LOGIN: &str = "\
A wrong password counts towards AD's lockout, as it does on the login page. The password is asked for on \
the terminal and not shown.

Examples:
  sudo motion-ad login john.doe
  sudo motion-ad login --password-stdin john.doe < password-file

Exit status:
  0    may log in
  1    may not
  2    the usage or the broker's configuration is wrong, or there is no password
  3    Active Directory or the broker cannot be reached
  130  interrupted at the password prompt";

/// Arguments of `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// Name as the person types it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Read the password from standard input: one line, without its line feed
    #[arg(long)]
    pub password_stdin: bool,

    /// Print JSON: outcome, may_log_in, principal, pam_code, reason, advice, and steps (name, ms, share)
    #[arg(long)]
    pub json: bool,
}

const STATUS: &str = "\
Examples:
  sudo motion-ad status
  sudo motion-ad status --json | jq .logins

Exit status:
  0  all is well
  1  there are problems, or no domain controller can be used
  2  the usage is wrong
  3  the broker cannot be reached";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print JSON: the broker's state, well (true or false), and logins by outcome
    #[arg(long)]
    pub json: bool,
}

const DOCTOR: &str = "\
Works without the broker, too. It needs no password, and asks AD for no more than the broker does. Each check is ok, or \
a warning (logins work), or a failure (they do not, or not safely), with what was seen and the command that mends it; \
one that depends on another that failed is skipped, so that the first failure is the cause. Commands are for root on \
this host unless they say otherwise.

Examples:
  sudo motion-ad doctor
  sudo motion-ad doctor --json | jq -r .first
  sudo motion-ad doctor --login john.doe     with one real login, as the application would do it
  motion-ad doctor --explain keytab

Exit status:
  0    all is well
  1    there are warnings
  2    something has failed
  3    the usage is wrong, or there is no password for --login
  130  interrupted at the password prompt
";

/// The checks by their groups, from the table: with what each is about, or in a few words.
fn doctor_help(is_long: bool) -> String {
    let width = CHECKS.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut text = DOCTOR.to_owned();
    for group in Group::ALL {
        text += &format!("\nChecks of {}:\n", group.name());
        for check in CHECKS.iter().filter(|check| check.group == group) {
            let about = if is_long { check.text } else { check.title };
            text += &format!("  {:<width$}  {about}\n", check.id);
        }
    }
    text.trim_end().to_owned()
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON: level, first (the check to begin with), counts, seconds, and checks
    #[arg(long)]
    pub json: bool,

    /// Say what a check is about, and look at nothing
    #[arg(long, value_name = "CHECK", value_parser = PossibleValuesParser::new(CHECKS.iter().map(|check| check.id)),
          hide_possible_values = true, conflicts_with_all = ["json", "login"])]
    pub explain: Option<String>,

    /// Log somebody in at the end, once, through PAM and as the application's user; asks for the password
    #[arg(long, value_name = "NAME")]
    pub login: Option<String>,

    /// Read that password from standard input: one line, without its line feed
    #[arg(long, requires = "login")]
    pub password_stdin: bool,
}

/// Arguments of `as-application`.
#[derive(Debug, Args)]
pub struct AsApplication {
    /// What to do
    #[command(subcommand)]
    pub task: Task,
}

/// What is done as the application's user.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Load a PAM module
    Load {
        /// Its file
        path: PathBuf,
    },
    /// Log in, with the password of standard input
    Login {
        /// As whom
        name: String,
    },
}
