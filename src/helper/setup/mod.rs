//! `motion-ad setup`: takes the settings of XCALLY's own integration over into `config.toml`.

mod bridge;
mod edit;
mod env;
mod kept;
mod lines;
mod plan;
mod units;
pub(super) mod write;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::Serialize;
use tokio::runtime::Builder;

use self::plan::{Change, Dns, Finding, Host, Kind, Plan, Setting};
use super::{Cli, Exit, Failure, Page, Setup, is_denied, print, show};
use crate::config::xcally::{ENV, Env, Value};
use crate::config::{Config, ConfigError, Problem, keys, text};
use crate::directory::controllers::discovery::Role;
use crate::directory::controllers::dns::{Names, Network};
use crate::kerberos::krb5;

/// The proposed change, and its basis.
struct Proposal {
    /// True if there is an `.env`.
    has_env: bool,
    config: Config,
    /// True if only root can read `sssd.conf`.
    sssd_is_denied: bool,
    plan: Plan,
    old: String,
    new: String,
    diff: String,
}

/// Result of applying a proposal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Done {
    written: bool,
    kept: Option<PathBuf>,
}

pub(super) fn setup(cli: &Cli, args: &Setup) -> Result<Page, Failure> {
    match (args.bridge || args.new_secret, args.no_bridge) {
        (true, _) => return bridge::bridge(cli, args),
        (false, true) => return bridge::no_bridge(args),
        (false, false) => {}
    }
    let proposal = propose(cli, args)?;
    let page = |done: &Done| {
        let text = match args.json {
            true => show::json(&Json::new(cli, args, &proposal, done))?,
            false => proposal.text(cli, args, done),
        };
        Ok(Page { text, exit: proposal.exit(done.written) })
    };
    if !args.apply || proposal.plan.changes.is_empty() {
        return page(&Done::default());
    }
    if args.yes || args.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return page(&write(cli, &proposal)?);
    }
    let exit = print(page(&Done::default())?)?;
    match asked(&cli.config)? {
        true => {
            let text = written(&cli.config, &write(cli, &proposal)?);
            Ok(Page { text, exit: proposal.exit(true) })
        }
        false => Ok(Page { text: "Nothing is written.\n".to_owned(), exit }),
    }
}

/// Prompts the administrator for consent to the change.
fn asked(config: &Path) -> Result<bool, Failure> {
    let mut err = io::stderr().lock();
    write!(err, "\nWrite {}? [y/N] ", config.display())?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn write(cli: &Cli, proposal: &Proposal) -> Result<Done, Failure> {
    // Another program may have written the file during the prompt.
    if read_or_example(&cli.config)? != proposal.old {
        return Err(Failure::Changed(cli.config.clone()));
    }
    let failed = |error| Failure::Write { file: cli.config.clone(), error };
    Ok(Done { written: true, kept: write::replace(&cli.config, &proposal.new).map_err(failed)? })
}

fn propose(cli: &Cli, args: &Setup) -> Result<Proposal, Failure> {
    let env = read_env(args.env.as_deref())?;
    let old = read_or_example(&cli.config)?;
    let sssd_is_denied = is_denied(&cli.sssd);
    let config = config(cli, &old, sssd_is_denied)?;
    let set = edit::set(&old).map_err(|e| broken(&cli.config, &e))?;
    let has_env = env.is_some();
    let env = env.unwrap_or_default();
    let realm = krb5::default_realm().ok();
    let owner = User::from_uid(Uid::from_raw(env.owner)).ok().flatten().map(|user| user.name);
    let dns = dns(&env, &config)?;
    let plan = Plan::new(&env, &Host { config: &config, set, realm, dns, owner });
    let new = edit::with(&old, &plan.changes).map_err(|e| broken(&cli.config, &e))?;
    // A file that the broker would reject is not proposed.
    if !sssd_is_denied {
        Config::load_text(&cli.config, new.clone(), &cli.sssd)?;
    }
    // Without a file, every line is new.
    let before = if cli.config.exists() { old.as_str() } else { "" };
    let diff = match plan.changes.is_empty() {
        true => String::new(),
        false => edit::diff(&cli.config.display().to_string(), before, &new),
    };
    Ok(Proposal { has_env, config, sssd_is_denied, plan, old, new, diff })
}

/// Reads the named `.env`, which must exist, or else XCALLY's own.
fn read_env(named: Option<&Path>) -> Result<Option<Env>, Failure> {
    let path = named.unwrap_or(Path::new(ENV));
    let read = |problem: Problem| match is_denied(path) {
        true => Failure::Denied(problem.into()),
        false => Failure::Config(problem.into()),
    };
    match Env::load(path).map_err(read)? {
        None if named.is_some() => {
            let text = "there is no such file".to_owned();
            Err(Failure::Config(Problem { file: path.to_owned(), line: None, text }.into()))
        }
        env => Ok(env),
    }
}

/// Returns the text of `config.toml`; if there is none, the shipped one.
fn read_or_example(path: &Path) -> Result<String, Failure> {
    match text::read(path) {
        Err(e) if e.kind() == Some(io::ErrorKind::NotFound) => Ok(keys::example()),
        Err(e) => Err(Failure::Config(e.of(path).into())),
        Ok(text) => Ok(text),
    }
}

/// The settings in force.
fn config(cli: &Cli, text: &str, sssd_is_denied: bool) -> Result<Config, ConfigError> {
    match sssd_is_denied {
        true => Config::load_readable(&cli.config, &cli.sssd, || krb5::default_realm().ok()),
        false => Config::load_text(&cli.config, text.to_owned(), &cli.sssd),
    }
}

fn broken(file: &Path, error: &toml_edit::TomlError) -> Failure {
    let text = error.message().trim().replace('\n', ", ");
    Failure::Config(Problem { file: file.to_owned(), line: None, text }.into())
}

/// Queries DNS for the domain controllers, if the `.env` names one and the settings do not.
fn dns(env: &Env, config: &Config) -> Result<Dns, Failure> {
    let url = env.properties.iter().find(|property| property.short() == "URL");
    let Some(Value::Text(url)) = url.map(|url| &url.value).filter(|_| config.domain.servers.is_empty())
    else {
        return Ok(Dns::Silent("no query was sent".to_owned()));
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::Dns)?;
    let network = Network::default();
    Ok(runtime.block_on(async {
        let domain = &config.domain.name;
        let srv =
            network.srv_or(&Role::Domain.srv(domain, None), &Role::Domain.plain_srv(domain, None)).await;
        match srv {
            Ok((records, _)) => {
                let mut names: Vec<_> = records.into_iter().map(|record| record.host).collect();
                names.sort_unstable();
                names.dedup();
                Dns::Names(names)
            }
            // DNS that resolves the server but names no domain controllers has answered.
            Err(error) => match plan::first_named(url) {
                Some(host) if network.addresses(&host).await.is_ok() => Dns::Nothing,
                _ => Dns::Silent(error),
            },
        }
    }))
}

impl Proposal {
    fn exit(&self, written: bool) -> Exit {
        let is_done = written || self.plan.changes.is_empty();
        if is_done && !self.plan.is_undecided() { Exit::Yes } else { Exit::No }
    }

    fn text(&self, cli: &Cli, args: &Setup, done: &Done) -> String {
        let env = env_path(args);
        let mut text = String::new();
        if !self.has_env {
            text += &format!("{}: there is no such file, and so nothing to take over\n", env.display());
        }
        for finding in &self.plan.findings {
            text += &finding_text(finding);
        }
        let lines = self.plan.findings.iter().filter_map(|finding| finding.line);
        let mut lines: Vec<_> = lines.map(|line| line.to_string()).collect();
        lines.dedup();
        if !lines.is_empty() {
            text += &format!(
                "Once XCALLY uses PAM, none of these lines of {} is needed: {}.\n",
                env.display(),
                lines.join(", ")
            );
        }
        if self.sssd_is_denied {
            text += &format!(
                "{}: only root may read it; {} stands in for it. Run setup as root for a full result.\n",
                cli.sssd.display(),
                self.config.domain.name
            );
        }
        let config = cli.config.display();
        if self.plan.changes.is_empty() {
            return text + &format!("\n{config} stays as it is: there is nothing to change\n");
        }
        text += &format!("\n{}\n", self.diff.lines().map(show::escape).collect::<Vec<_>>().join("\n"));
        for change in &self.plan.changes {
            let line = edit::line(change);
            text += &format!("\n+{}\n    {}\n", show::escape(&line), show::escape(&change.reason));
        }
        match done.written {
            true => text + &format!("\n{}", written(&cli.config, done)),
            false if args.apply => text,
            false => text + &format!("\nNothing is written yet; `motion-ad setup --apply` writes {config}\n"),
        }
    }
}

fn env_path(args: &Setup) -> &Path {
    args.env.as_deref().unwrap_or(Path::new(ENV))
}

fn written(config: &Path, done: &Done) -> String {
    let kept = match &done.kept {
        Some(kept) => format!("; the old file is {}", kept.display()),
        None => String::new(),
    };
    format!("{} is written{kept}. The broker notices it by itself.\n", config.display())
}

fn finding_text(finding: &Finding) -> String {
    let (mark, end) = match finding.kind {
        Kind::Known => (" ", "nothing to set"),
        Kind::Taken => ("+", "taken over"),
        Kind::Decide => ("x", "yours to decide"),
        Kind::Unneeded => (" ", "no longer needed"),
        Kind::Remove => ("x", "remove it"),
        Kind::Warning => ("x", "warning"),
    };
    let head = match (&finding.property, finding.line) {
        (Some(property), Some(line)) => format!("{property}, line {line}: {end}"),
        _ => end.to_owned(),
    };
    format!("{mark} {}\n    {}\n", show::escape(&head), show::escape(&finding.text))
}

/// `setup --json`.
#[derive(Serialize)]
struct Json<'a> {
    env: &'a Path,
    config: &'a Path,
    domain: &'a str,
    findings: &'a [Finding],
    changes: Vec<ChangeJson<'a>>,
    diff: &'a str,
    written: bool,
    kept: Option<&'a Path>,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    key: String,
    value: &'a Setting,
    reason: &'a str,
}

impl<'a> Json<'a> {
    fn new(cli: &'a Cli, args: &'a Setup, proposal: &'a Proposal, done: &'a Done) -> Self {
        let change = |change: &'a Change| ChangeJson {
            key: format!("{}.{}", change.table, change.key),
            value: &change.value,
            reason: &change.reason,
        };
        Json {
            env: env_path(args),
            config: &cli.config,
            domain: &proposal.config.domain.name,
            findings: &proposal.plan.findings,
            changes: proposal.plan.changes.iter().map(change).collect(),
            diff: &proposal.diff,
            written: done.written,
            kept: done.kept.as_deref(),
        }
    }
}
