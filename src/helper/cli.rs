//! The arguments. Man pages and completions are generated from these texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::show;
use crate::config::{CONFIG, Credentials};
use crate::doctor::{CHECKS, Group};
use crate::protocol::{METRICS_SOCKET, SOCKET};
use crate::texts::Language;

const EXAMPLES: &str = "\
Examples:
  motion-ad map john.doe                 the AD account behind an XCALLY name
  sudo motion-ad check john.doe          may this account log in now?
  sudo motion-ad login john.doe          try a password, as the login page would
  sudo motion-ad passwd john.doe         change a password, an expired one too
  sudo motion-ad status                  the broker and the domain controllers
  sudo motion-ad ready                   can users log in now? one line
  motion-ad metrics                      the same for a monitoring system
  sudo motion-ad log john.doe            the logins of a user, and why they failed
  sudo motion-ad sessions list           the sessions of logged-in users
  sudo motion-ad config check            can the configuration be used?
  sudo motion-ad setup                   what XCALLY's .env means for config.toml
  sudo motion-ad audit names.txt         which names of a list may log in?
  sudo motion-ad doctor                  what is wrong, and what can be done about it

Exit status of every command:
  0    yes: mapped, may log in, all is well
  1    no; of doctor and config check: warnings alone
  2    no answer: the configuration cannot be used, or Active Directory or the broker does not answer; of \
doctor and config check: a check has failed
  3    not attempted: the usage or the input is wrong, or you may not do it
  130  interrupted at a prompt";

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

    /// File that the realm join wrote, for settings that the configuration leaves out
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH",
          default_value_os_t = Credentials::find(None).sssd)]
    pub sssd: PathBuf,

    /// How long to wait for the broker's answer
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "SECONDS", default_value = "10",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,

    /// Command to run
    #[command(subcommand)]
    pub command: Command,
}

/// Maximum width of help texts in columns, as in clap.
const WIDEST: usize = 100;

impl Cli {
    /// Reads the arguments of this process. Lists in a help text keep their indent on a narrow terminal.
    ///
    /// # Errors
    /// Returns an error if the usage is wrong, or if help or the version is requested.
    pub fn read() -> Result<Self, clap::Error> {
        let width = show::width().unwrap_or(WIDEST).min(WIDEST);
        let mut matches = hung(Cli::command().term_width(width), width).try_get_matches()?;
        Cli::from_arg_matches_mut(&mut matches)
    }

    /// Time limit for the broker's answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

/// Wraps the lists in the help texts of the command and its subcommands at `width` columns.
fn hung(mut command: clap::Command, width: usize) -> clap::Command {
    if let Some(text) = command.get_after_help().map(|text| hung_list(&text.to_string(), width)) {
        command = command.after_help(text);
    }
    if let Some(text) = command.get_after_long_help().map(|text| hung_list(&text.to_string(), width)) {
        command = command.after_long_help(text);
    }
    let names: Vec<_> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, |below| hung(below, width)))
}

/// Wraps a list of names and descriptions; each description stays in its column.
fn hung_list(text: &str, width: usize) -> String {
    let hang = |line: &str| {
        let entry = line.strip_prefix("  ")?;
        let (name, about) = entry.split_once("  ")?;
        let about = about.trim_start();
        let column = line.chars().count().saturating_sub(about.chars().count());
        let blank = column.saturating_sub(2 + name.chars().count());
        Some(format!("  {name}{}{}", " ".repeat(blank), show::hang(about, column, Some(width))))
    };
    text.lines().map(|line| hang(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}

/// The commands of `motion-ad`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the AD account (user@domain) behind each XCALLY name
    #[command(after_help = MAP)]
    Map(Map),
    /// Show whether an account may log in now, without its password
    #[command(after_help = CHECK)]
    Check(Account),
    /// Log in with a password, and show the outcome and the time of each step
    #[command(after_help = LOGIN)]
    Login(Login),
    /// Change a password, also an expired one, with the present password
    #[command(after_help = PASSWD)]
    Passwd(Passwd),
    /// Show the broker, the domain controllers, the connections and the logins so far
    #[command(after_help = STATUS)]
    Status(Status),
    /// Say in one line whether a login can succeed now
    #[command(after_help = READY)]
    Ready,
    /// Print the broker's metrics for a monitoring system
    #[command(after_help = METRICS)]
    Metrics(Metrics),
    /// Show the logins in the journal: when, who, the outcome and its reason
    #[command(after_help = LOG)]
    Log(Log),
    /// Show the open sessions, evict users, end sessions, and follow their events
    #[command(subcommand, after_help = SESSIONS)]
    Sessions(Sessions),
    /// Check the configuration, and show what is in force
    #[command(subcommand, after_help = CONFIGURATION)]
    Config(ConfigCommand),
    /// Take over the settings of XCALLY's own Active Directory integration
    #[command(after_help = SETUP)]
    Setup(Setup),
    /// Show which names of a list of XCALLY names may log in
    #[command(after_help = AUDIT)]
    Audit(Audit),
    /// Check everything between the application and AD, and say how to fix what is wrong
    #[command(after_help = doctor_help(false), after_long_help = doctor_help(true))]
    Doctor(Doctor),
    /// Print the version, as -V and --version do
    #[command(after_help = "Exit status:\n  0  printed")]
    Version,
    /// Words for the shell's completion
    #[command(hide = true, after_help = "For use by the completion of shells only.")]
    Complete(Complete),
    /// Tasks that motion-ad does as the application's user
    #[command(hide = true, after_help = "For use by motion-ad itself only.")]
    AsApplication(AsApplication),
}

const MAP: &str =
    "Works without the broker and without the network, for every user: where sssd.conf may not \
be read, the domain is the configuration's domain.name, else the default realm of krb5.conf. Each name gives \
one line, in order; a name without an account gives none, and its reason on standard error. --json keeps \
both together.

With --reverse each line is a principal as it was given, a tab, and one of its names: a principal with two \
names gives two lines.

Examples:
  motion-ad map john.doe 'ACME\\jane'
  motion-ad map < names.txt
  motion-ad map --reverse john.doe@acme.com | cut -f2

Exit status:
  0  all are mapped
  1  at least one is not
  2  the configuration cannot be used; the message names file and line
  3  the usage is wrong";

/// Arguments of `map`.
#[derive(Debug, Args)]
pub struct Map {
    /// Names as users type them; `-`, or no NAME at all, stands for the lines of standard input
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
Queries AD through the broker, as root or as a user in broker.users. Each cause of a rejection is marked `x`.

Examples:
  sudo motion-ad check john.doe
  sudo motion-ad check --json john.doe | jq -r .outcome

Exit status:
  0  may log in, given the right password
  1  may not, is unknown to AD, or has no mapping
  2  the broker's configuration cannot be used, or Active Directory or the broker does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Account {
    /// Name as the user types it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Print JSON: outcome, may_log_in, reason, advice, the account's names, and facts
    #[arg(long)]
    pub json: bool,
}

const LOGIN: &str = "\
A wrong password counts towards AD's lockout, as it does on the login page. The command asks for the \
password on the terminal and does not show it.

Examples:
  sudo motion-ad login john.doe
  sudo motion-ad login --password-stdin john.doe < password-file

Exit status:
  0    may log in
  1    may not
  2    the broker's configuration cannot be used, or Active Directory or the broker does not answer
  3    the usage is wrong, there is no password, or you may not query the broker
  130  interrupted at the password prompt";

/// Arguments of `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// Name as the user types it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Read the password from standard input: one line, without its line feed
    #[arg(long)]
    pub password_stdin: bool,

    /// Print JSON: outcome, may_log_in, principal, pam_code, reason, advice, and steps (name, ms, share)
    #[arg(long)]
    pub json: bool,
}

const PASSWD: &str = "\
The user's own change, by AD's rules: a wrong present password counts towards AD's lockout, and AD's policy \
decides about the new one; the command prints its reason. A change is sent once. If its answer is lost, the \
new password may be in force: try the new one first.

The command asks for the passwords on the terminal and does not show them.

Examples:
  sudo motion-ad passwd john.doe
  sudo motion-ad passwd --password-stdin john.doe < two-lines

Exit status:
  0    changed
  1    not changed
  2    the broker's configuration cannot be used, Active Directory or the broker does not answer, or it is \
not known whether the password was changed
  3    the usage is wrong, there are no passwords, or you may not query the broker
  130  interrupted at a prompt";

/// Arguments of `passwd`.
#[derive(Debug, Args)]
pub struct Passwd {
    /// Name as the user types it
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Read two lines from standard input: the present password and the new one
    #[arg(long)]
    pub password_stdin: bool,

    /// Language of the text for the user: en, it, de, es, fr or pt
    #[arg(long, value_name = "LANGUAGE", value_parser = languages(), hide_possible_values = true,
          default_value = "en")]
    pub lang: Language,

    /// Print JSON: outcome, changed (null if it is not known), principal, text for the user, reason, advice,
    /// and steps
    #[arg(long)]
    pub json: bool,
}

/// Parses the code of a language.
fn languages() -> impl TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::ALL.iter().map(|language| language.code()))
        .map(|code| Language::of(&code).unwrap_or_default())
}

const STATUS: &str = "\
Examples:
  sudo motion-ad status
  sudo motion-ad status --json | jq .logins

Exit status:
  0  all is well: a login can succeed now
  1  there are problems; `serving` of --json says whether users can still log in
  2  the broker does not answer
  3  the usage is wrong, or you may not query the broker";

const READY: &str = "\
Prints one line, for scripts and load balancers, and takes a few seconds at most. It says the same as \
`status`, the metrics and `systemctl status`.

Examples:
  sudo motion-ad ready
  sudo motion-ad --timeout 5 ready

Exit status:
  0  a login can succeed now, and all is well
  1  there is a problem; the line says whether users can still log in
  2  the broker does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print JSON: the broker's state, well (true or false), and logins by outcome
    #[arg(long)]
    pub json: bool,
}

const METRICS: &str = "\
OpenMetrics 1.0, without data about single users; it uses nothing that Prometheus' older text format cannot \
express. Root and members of the group motion-ad-metrics may read the metrics; no user can log in that way. \
The socket itself serves them over HTTP, at /metrics.

Examples:
  motion-ad metrics
  curl --unix-socket /run/motion-ad/metrics.sock http://localhost/metrics

Exit status:
  0  printed
  2  the broker does not answer
  3  the usage is wrong, or you may not read the socket";

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Socket to read the metrics from
    #[arg(long, value_name = "PATH", default_value = METRICS_SOCKET)]
    pub metrics_socket: PathBuf,
}

const LOG: &str = "Reads the broker's lines in the systemd journal, as root or as a member of the group adm \
or systemd-journal; works without the broker. Shows logins, password changes, evicted sessions, and account \
checks and sessions that were rejected, in local time. NAME is what the user typed, or any other name of the \
account: the name map decides which account that is now. The newest 10000 lines are shown.

A time is like `2 h` (or s, min, d, w), `09:00`, `yesterday 9:00`, `2026-11-28 09:00`, or what \
systemd.time(7) describes.

--follow prints a line for each login as it happens, after those of the last 10 minutes. On a terminal, the \
last row counts all logins of the last minute: the rejected ones, the median time, and the domain \
controllers that answered or failed. It ends with Ctrl-C, or when its output is closed. If journalctl ends \
before, for example by a signal, it is started again after the last line.

Examples:
  sudo motion-ad log john.doe
  sudo motion-ad log --since 8:50 --until 9:10
  sudo motion-ad log --failed --json | jq -r '.[].user' | sort | uniq -c
  sudo motion-ad log --follow

Exit status:
  0  printed
  1  there is no such login
  2  the journal cannot be read, or the host keeps none
  3  the usage is wrong, or you may not read the journal";

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct Log {
    /// Only the logins of the account behind this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Begin at this time [default: 24 h ago; with --follow, 10 min ago]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,

    /// End at this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "follow")]
    pub until: Option<String>,

    /// Only logins and changes that were rejected
    #[arg(long)]
    pub failed: bool,

    /// Print each login as it happens
    #[arg(short, long)]
    pub follow: bool,

    /// Print a JSON array, with --follow a line of JSON for each login: the fields of the line, time, advice
    #[arg(long)]
    pub json: bool,
}

const SESSIONS: &str = "All of them query the broker, as root or as a user in broker.users. Name a session \
by its id; the short id of the list is enough for an open one. Times in JSON are milliseconds since \
1970-01-01 UTC.

Examples:
  sudo motion-ad sessions list --user john.doe
  sudo motion-ad sessions kick 8f14e45f
  motion-ad sessions watch

Exit status:
  0  yes
  1  no, or there is no such session
  2  the broker's configuration cannot be used, or the broker or its register of sessions does not answer
  3  the usage is wrong, or you may not query the broker";

/// The commands of `sessions`.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List the open sessions, those that were opened first at the top
    #[command(after_help = SESSIONS_LIST)]
    List(SessionsList),
    /// Show one session, open or ended within the last day
    #[command(after_help = SESSIONS_SHOW)]
    Show(SessionsShow),
    /// Evict sessions, and notify their applications, which must log the users out
    #[command(after_help = SESSIONS_KICK)]
    Kick(SessionsKick),
    /// End stale sessions, as their application would; disconnects no user
    #[command(after_help = SESSIONS_END)]
    End(SessionsEnd),
    /// Print the events of sessions as they happen, in lines of JSON
    #[command(after_help = SESSIONS_WATCH)]
    Watch(SessionsWatch),
}

const SESSIONS_LIST: &str = "\
Examples:
  sudo motion-ad sessions list
  sudo motion-ad sessions list --json | jq -r '.[].user'

Exit status:
  0  the list, also if it is empty
  1  the name has no mapping
  2  the broker's configuration cannot be used, or the broker or its register of sessions does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `sessions list`.
#[derive(Debug, Args)]
pub struct SessionsList {
    /// Only sessions of the account behind this name, whatever name they were opened by
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

const SESSIONS_SHOW: &str = "\
Examples:
  sudo motion-ad sessions show 8f14e45f-ceea-467f-a8b1-3c1a2e5f7d90

Exit status:
  0  it is open
  1  it has ended, or there is no such session
  2  the broker's configuration cannot be used, or the broker or its register of sessions does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `sessions show`.
#[derive(Debug, Args)]
pub struct SessionsShow {
    /// Id of the session; of an open one the first characters are enough
    #[arg(value_name = "ID")]
    pub id: String,

    /// Print JSON: the session, or null
    #[arg(long)]
    pub json: bool,
}

const SESSIONS_KICK: &str = "The reason is `kicked`. The detail names the process that requested it, as the \
kernel reports it: `by uid:0,pid:4711`. As for every eviction, `sessions watch` or sessions.on_evict \
notifies the application, which must log the user out. If the application uses neither, the user stays \
connected. The user can log in again: to prevent that, disable the account in AD first.

Examples:
  sudo motion-ad sessions kick 8f14e45f
  sudo motion-ad sessions kick --user john.doe

Exit status:
  0  each is evicted, or had ended before
  1  at least one is unknown, the user has no open session, or the name has no mapping
  2  the broker's configuration cannot be used, or the broker or its register of sessions does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `sessions kick`: ids, or a user.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SessionsKick {
    /// Ids of the sessions; the first characters are enough
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// All sessions of the account behind this name, whatever name they were opened by
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

const SESSIONS_END: &str =
    "Disconnects no user: the reason is `closed`, so the application gets no eviction \
and keeps a user who is still connected. Use this for stale sessions, which the application no longer knows, \
and `sessions kick` to log a user out.

Examples:
  sudo motion-ad sessions end 8f14e45f-ceea-467f-a8b1-3c1a2e5f7d90

Exit status:
  0  each has ended, now or before
  1  at least one is unknown
  2  the broker's configuration cannot be used, or the broker or its register of sessions does not answer
  3  the usage is wrong, or you may not query the broker";

/// Arguments of `sessions end`.
#[derive(Debug, Args)]
pub struct SessionsEnd {
    /// Ids of the sessions; of an open one the first characters are enough
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

const SESSIONS_WATCH: &str = "\
For an application that needs to know which sessions ended: each line is a JSON object, written at once. \
The command runs until its output is closed, also while the broker restarts or cannot be reached; one line \
on standard error reports that. If several servers share the register, their events are included: see host \
in the session.

To resume, pass the cursor of the last line to --after: no event is missed that is still kept (the last \
10000).

Examples:
  motion-ad sessions watch
  motion-ad sessions watch --after 1784000000000012

Events:
  ready   it watches now: compare once with what `sessions list` says; the first line if --after is not given
  opened  a session was opened
  ended   a session has ended; session.ended says when, why and by what
  gap     events were lost: compare with what `sessions list` says; the events after this line are the \
oldest kept

Fields:
  event    one of the above
  cursor   for --after, to go on after this line
  evicted  of opened and ended: the session ended by replaced, refused, too_old or kicked, so log the user out
  session  of opened and ended: id, user, principal, guid, service, rhost, tty, host, uid, pid, started, \
boot, since, ended

Reasons:
  closed        the application or `sessions end` ended it
  replaced      another login took its place; detail is that session's id
  refused       the account may not log in any more; detail is disabled, account_expired, unknown_user, \
denied or not_allowed
  process_gone  its process has ended
  too_old       it was older than sessions.max_age
  kicked        an administrator ended it by `sessions kick`; detail names the process that requested it
  unconfirmed   its application never learned of it: the login was rejected, or its reply was lost

Exit status:
  0  the reader has closed its output
  2  the broker rejects the request, for example because its version differs
  3  the usage or the cursor is wrong, or you may not query the broker";

/// Arguments of `sessions watch`.
#[derive(Debug, Args)]
pub struct SessionsWatch {
    /// Begin after the line with this cursor, not with the next event
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
}

const CONFIGURATION: &str = "\
Both read the files themselves, as root: they work without the broker.

Examples:
  sudo motion-ad config check
  sudo motion-ad config show

Exit status:
  0  the configuration can be used
  1  it can be used; there are warnings
  2  it cannot be used
  3  the usage is wrong, or you may not read a file";

/// The commands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration can be used, and whether AD has what it names
    #[command(after_help = CONFIG_CHECK)]
    Check,
    /// Print every key with the value in force and its source
    #[command(after_help = CONFIG_SHOW)]
    Show(ConfigShow),
}

const CONFIG_CHECK: &str = "Runs those checks of `motion-ad doctor` that are about the configuration: the \
files and their syntax, the name map and its accounts, the CA, the base DN, the groups, the users of the \
broker, and the register of sessions. Run it after each change: a file with a mistake is not in force.

Examples:
  sudo motion-ad config check

Exit status:
  0  all is well
  1  there are warnings
  2  the configuration cannot be used, or AD does not have what it names
  3  the usage is wrong";

const CONFIG_SHOW: &str = "\
A value comes from a line of the configuration, from what the realm join wrote, or is the default. If the \
configuration cannot be used and the broker keeps the last good one in force, its values are printed.

Examples:
  sudo motion-ad config show
  sudo motion-ad config show --json | jq -r '.[] | select(.from != \"default\") | .key'

Exit status:
  0  printed
  2  the configuration cannot be used; the message names file and line
  3  the usage is wrong, or you may not read a file";

/// Arguments of `config show`.
#[derive(Debug, Args)]
pub struct ConfigShow {
    /// Print a JSON array: key, value (as TOML) and from of each
    #[arg(long)]
    pub json: bool,
}

const SETUP: &str =
    "Reads XCALLY's .env, as Node's dotenv does, and the settings of the realm join. Reports \
what becomes of each XC_ACTIVEDIRECTORY_ property, and shows the changes of the configuration as a diff, \
with a reason for each line. Usually there are none, because the join defines the domain, and DNS the domain \
controllers. Without --bridge, the administrator's password in the .env is neither read nor kept. Works \
without the broker. Settings and comments that the configuration has already stay as they are.

--apply writes the configuration as a whole, with the mode and the owner that it had, and keeps the old file \
as config.toml.bak. On a terminal it asks first; it never writes what the broker would refuse to read.

--bridge is for XCALLY as it is, which speaks only LDAP: XC_ACTIVEDIRECTORY_URL becomes \
ldap://127.0.0.1:3890, and an administrator of AD in the .env becomes a local name with a random secret, \
kept in /etc/motion-ad/ldap-admin. A missing base DN or domain is added; every other line stays, as do owner \
and mode. A copy of the original file, administrator's password included, is kept in \
/etc/motion-ad/backup/xcally.env, which only root can read. --apply also enables motion-ad-ldap.socket and \
tries a bind as the user who owns the .env. --new-secret replaces the secret in both places. --no-bridge \
restores the values from the backup, turns the bridge off, and removes backup and secret. A purge of the \
package also removes both, but does not restore the .env: run `setup --no-bridge --apply` first.

Examples:
  sudo motion-ad setup
  sudo motion-ad setup --apply
  sudo motion-ad setup --bridge --apply
  sudo motion-ad setup --json | jq .findings

Exit status:
  0  the configuration says what it should
  1  it does not yet: a change is not written, or a property contradicts the join and you must decide
  2  the configuration cannot be used, or a file cannot be read or written
  3  the usage is wrong, or you may not read a file";

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct Setup {
    /// XCALLY's .env; without this option a missing one is no error [default: /var/opt/motion2/.env]
    #[arg(long, value_name = "FILE")]
    pub env: Option<PathBuf>,

    /// Make XCALLY's own integration use the LDAP bridge of this host: three to five lines of .env
    #[arg(long, conflicts_with = "json")]
    pub bridge: bool,

    /// Restore the old values of those lines, and turn the bridge off
    #[arg(long, conflicts_with_all = ["bridge", "new_secret", "json"])]
    pub no_bridge: bool,

    /// With --bridge: make another secret for the bridge and XCALLY
    #[arg(long, conflicts_with = "json")]
    pub new_secret: bool,

    /// Write the configuration, or the .env
    #[arg(long)]
    pub apply: bool,

    /// Do not ask before writing
    #[arg(long, requires = "apply")]
    pub yes: bool,

    /// Print JSON: findings (property, line, kind, text), changes (key, value, reason), diff, written; never
    /// asks
    #[arg(long)]
    pub json: bool,
}

const AUDIT: &str = "\
Checks every name of the list in AD through the broker, by the rules of a login: the name map, the \
account's state, the groups. Each cause of a rejection is marked `x`. The text shows the summary and the \
names with something to report; --json and --csv show all names. Twenty thousand names take ten to thirty \
seconds; if the forest has several domains, group rules and users of other domains are looked up one by \
one, which takes longer.

For a name without an account it suggests a line for names.map if exactly one account is similar: by another \
UPN suffix, by the mail address, by given name and surname or the display name, or by initial and surname. \
Check each suggestion before you use it. No account is suggested that another name of the list already has.

Examples:
  sudo motion-ad audit names.txt
  sudo motion-ad audit --column username --delimiter ';' users.csv
  sudo motion-ad audit --csv names.txt > audit.csv

Exit status:
  0  all of them may log in
  1  some may not
  2  the broker's configuration cannot be used, or Active Directory or the broker does not answer
  3  the usage or the list is wrong, or you may not query the broker";

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// The list; `-`, or no FILE at all, stands for standard input. Without --column each line is a name
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The list is a CSV file: the column with the names, by its name in the first row or by its number from
    /// 1
    #[arg(long, value_name = "NAME|NUMBER")]
    pub column: Option<String>,

    /// Delimiter of the cells in the CSV file
    #[arg(long, value_name = "CHARACTER", default_value = ",", requires = "column", value_parser = delimiter)]
    pub delimiter: u8,

    /// The first row of the CSV file is a heading, even if the column is given by its number
    #[arg(long, requires = "column")]
    pub header: bool,

    /// Say which passwords and accounts expire within this many days
    #[arg(long, value_name = "DAYS", default_value = "14",
          value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub soon: u32,

    /// Also show the names with nothing to report
    #[arg(long)]
    pub all: bool,

    /// Print JSON: summary (counts), and names (line, name, principal, may_log_in, outcome, reason,
    /// suggestion, …)
    #[arg(long, conflicts_with_all = ["csv", "all"])]
    pub json: bool,

    /// Print CSV with a heading: a row for each name
    #[arg(long, conflicts_with = "all")]
    pub csv: bool,
}

/// Parses one ASCII character; `\\t` is a tab.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [one] => Ok(*one),
        b"\\t" => Ok(b'\t'),
        _ => Err("expected one character".to_owned()),
    }
}

const DOCTOR: &str = "Works without the broker, too. It needs no password, and reads no more in AD than the \
broker does. Each check is ok, a warning (logins work) or a failure (they do not, or not safely), and shows \
an observation and the next step. A check that depends on a failed one is skipped, so the first failure is \
the cause.

The next step is a fix, which --fix applies; a step for you, with the place where you take it; or a command \
that only shows details. A fix changes this package's files, its units and /etc/pam.d/motion, and nothing \
else; no fix removes a rule or gives more users access. A copy of the original file is kept in \
/etc/motion-ad/backup with the time of the change, until the package is purged.

--bundle writes what a support case needs into one archive, which only you can read: this report, status, \
configuration, versions, units, PAM services, the answers of DNS, certificates, and the last lines of the \
log. Passwords and keys are left out. --pseudonyms replaces each name of a user by the same pseudonym \
everywhere; names of hosts, groups and domains stay.

Examples:
  sudo motion-ad doctor
  sudo motion-ad doctor --json | jq -r .first
  sudo motion-ad doctor --fix                show each fix, ask, apply it, and check again
  sudo motion-ad doctor --login john.doe     with one real login, as the application would do it
  sudo motion-ad doctor --login john.doe --bridge
  sudo motion-ad doctor --bundle case.tgz    one archive for a support case
  motion-ad doctor --explain keytab

Exit status:
  0    all is well
  1    there are warnings
  2    something has failed
  3    the usage is wrong, there is no password for --login, or the file of --bundle exists
  130  interrupted at the password prompt
";

/// Returns the checks by group, with their full texts or their titles.
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

    /// Explain a check, and run none
    #[arg(long, value_name = "CHECK",
          value_parser = PossibleValuesParser::new(CHECKS.iter().map(|check| check.id)),
          hide_possible_values = true, conflicts_with_all = ["json", "login"])]
    pub explain: Option<String>,

    /// Fix what can be fixed on this host: show each change, ask, keep a copy, apply it, check again, and
    /// undo it if the check does not pass
    #[arg(long, conflicts_with_all = ["json", "explain", "login"])]
    pub fix: bool,

    /// Do not ask before each change
    #[arg(long, requires = "fix")]
    pub yes: bool,

    /// Write an archive for a support case to this new file, and print no report
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "explain", "fix", "login"])]
    pub bundle: Option<PathBuf>,

    /// Replace the names of users in the archive
    #[arg(long, requires = "bundle")]
    pub pseudonyms: bool,

    /// Log this user in at the end, once, through PAM and as the application's user; asks for the password
    #[arg(long, value_name = "NAME")]
    pub login: Option<String>,

    /// Log in through the LDAP bridge instead, as XCALLY does if its .env names the bridge
    #[arg(long, requires = "login")]
    pub bridge: bool,

    /// Read that password from standard input: one line, without its line feed
    #[arg(long, requires = "login")]
    pub password_stdin: bool,
}

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub struct Complete {
    /// Kind of words
    #[arg(value_parser = ["ids", "names"])]
    pub what: String,
}

/// Arguments of `as-application`.
#[derive(Debug, Args)]
pub struct AsApplication {
    /// The uid to become; without it the process keeps its own
    #[arg(long, requires_all = ["gid", "name"])]
    pub uid: Option<u32>,

    /// Its primary group
    #[arg(long)]
    pub gid: Option<u32>,

    /// Its name
    #[arg(long)]
    pub name: Option<String>,

    /// Command to run
    #[command(subcommand)]
    pub task: Task,
}

/// Tasks that motion-ad does as the application's user.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Load a PAM module
    #[command(after_help = "For use by motion-ad itself only.")]
    Load {
        /// Its file
        path: PathBuf,
    },
    /// Ask the broker for its state
    #[command(after_help = "For use by motion-ad itself only.")]
    Reach {
        /// Its socket
        socket: PathBuf,
    },
    /// Open a file for reading
    #[command(after_help = "For use by motion-ad itself only.")]
    Read {
        /// The file
        path: PathBuf,
    },
    /// Log in, with the password of standard input
    #[command(after_help = "For use by motion-ad itself only.")]
    Login {
        /// Name of the user
        name: String,
    },
    /// Bind at an LDAP server of this host, with the password of standard input
    #[command(after_help = "For use by motion-ad itself only.")]
    Bind {
        /// Its address
        address: std::net::SocketAddr,
        /// Name of the user
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_indent_at_any_width() {
        for width in [60, 80, 100] {
            let mut command = hung(Cli::command().term_width(width), width);
            let doctor = command.find_subcommand_mut("doctor").unwrap();
            let help = doctor.render_long_help().to_string();
            let checks = help.split_once("Checks of package and PAM:\n").unwrap().1;
            let id = CHECKS.iter().map(|check| check.id.len()).max().unwrap();
            let lines: Vec<_> = checks.lines().filter(|line| line.starts_with(' ')).collect();
            assert!(lines.len() > CHECKS.len(), "{width}");
            for line in lines {
                // A name, or the column of its description.
                let indent = line.chars().take_while(|c| *c == ' ').count();
                assert!(indent == 2 || indent == id + 4, "{width}: {line:?}");
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
        assert_eq!(hung_list("A  b\n  0  yes and no\n  x", 12), "A  b\n  0  yes and\n     no\n  x");
    }
}
