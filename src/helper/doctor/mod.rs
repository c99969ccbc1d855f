//! `motion-ad doctor`: finds problems between the application and AD, and suggests or applies fixes.

mod fix;
mod report;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use super::cli::{AsApplication, Task};
use super::{Cli, Exit, Failure, Page, bundle, password, show};
use crate::config::Credentials;
use crate::doctor::{
    Check, Evidence, Finding, Level, Login, Options, Way, application, child, examine, gather,
};

/// Width of an explanation, in columns.
const WIDTH: usize = 78;
/// Time that abandoned work has to notice that it is abandoned.
const GIVEN_UP: Duration = Duration::from_millis(500);

/// The findings, in the order of the checks.
type Found = Vec<(&'static Check, Finding)>;

impl From<Level> for Exit {
    /// Numbered as monitoring plugins do, so that 2 is a failure here; 3 means that there is no answer.
    fn from(level: Level) -> Self {
        match level {
            Level::Ok | Level::Skipped => Exit::Yes,
            Level::Warning => Exit::No,
            Level::Failure => Exit::Failed,
        }
    }
}

pub(super) fn doctor(cli: &Cli, args: &super::Doctor) -> Result<Page, Failure> {
    if let Some(check) = args.explain.as_deref().and_then(Check::find) {
        return Ok(Page { text: explain(check), exit: Exit::Yes });
    }
    begin_again(&cli.sssd);
    let login = match &args.login {
        Some(name) if args.password_stdin => {
            let [password] = password::from_stdin()?;
            Some((name, password))
        }
        Some(name) => Some((name, password::prompt(name)?)),
        None => None,
    };
    let way = if args.bridge { Way::Bridge } else { Way::Pam };
    let login = login.map(|(name, password)| Login { name: name.clone(), password, way });
    let options = |login| Options {
        config: cli.config.clone(),
        sssd: cli.sssd.clone(),
        socket: cli.socket.clone(),
        login,
    };
    if let Some(file) = &args.bundle {
        return bundle::write(cli, file, args.pseudonyms, || evidence(options(None)));
    }
    if args.fix {
        let runtime = runtime()?;
        let page = fix::fix(args, &runtime, &|| options(None));
        runtime.shutdown_timeout(GIVEN_UP);
        return page;
    }
    examined(options(login), args.json, |_| true)
}

/// Runs the doctor, and reports only the checks with these ids.
pub(super) fn only(cli: &Cli, ids: &[&str]) -> Result<Page, Failure> {
    begin_again(&cli.sssd);
    let (config, sssd, socket) = (cli.config.clone(), cli.sssd.clone(), cli.socket.clone());
    examined(Options { config, sssd, socket, login: None }, false, |check| ids.contains(&check.id))
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| Failure::Application(e.to_string()))
}

fn examined(options: Options, json: bool, is_wanted: impl Fn(&Check) -> bool) -> Result<Page, Failure> {
    let begun = Instant::now();
    let runtime = runtime()?;
    let mut found = runtime.block_on(examine(options));
    // The cause of a skipped check is shown with it.
    let causes: Vec<_> =
        found.iter().filter(|(check, _)| is_wanted(check)).filter_map(|(_, f)| f.because).collect();
    found.retain(|(check, _)| is_wanted(check) || causes.contains(&check.id));
    // Unfinished work is abandoned. libkrb5 aborts the process if a thread uses it while the process ends.
    runtime.shutdown_timeout(GIVEN_UP);
    let exit = Exit::from(worst(&found));
    let text = match json {
        true => show::json(&Report::new(&found, begun.elapsed()))?,
        false => report::text(&found, Some(begun.elapsed())),
    };
    Ok(Page { text, exit })
}

/// Returns the doctor's texts for a bundle.
fn evidence(options: Options) -> Result<bundle::Texts, Failure> {
    let begun = Instant::now();
    let runtime = runtime()?;
    let Evidence { found, dns, certificates } = runtime.block_on(gather(options));
    runtime.shutdown_timeout(GIVEN_UP);
    Ok(vec![
        ("doctor.txt", report::report(&found, Some(begun.elapsed()), None)),
        ("doctor.json", show::json(&Report::new(&found, begun.elapsed()))?),
        ("dns.txt", dns),
        ("certificates.txt", certificates),
    ])
}

/// Runs a step of the doctor as the application's user.
pub(super) fn as_application(args: &AsApplication) -> Result<Page, Failure> {
    let identity = match (args.uid, args.gid, &args.name) {
        (Some(uid), Some(gid), Some(name)) => Some(child::Identity { uid, gid, name: name.clone() }),
        _ => None,
    };
    child::leave(identity.as_ref()).map_err(Failure::Application)?;
    let done = match &args.task {
        Task::Reach { socket } => application::reach_here(socket).map(|()| String::new()),
        Task::Read { path } => application::read_here(path).map(|()| String::new()),
        Task::Load { path } => application::load_here(path).map(|()| String::new()),
        Task::Bind { address, name } => match application::bind_here(*address, name) {
            Ok(bound) => Ok(serde_json::to_string(&bound)?),
            Err(cause) => Err(cause),
        },
        Task::Login { name } => {
            let [password] = password::from_stdin()?;
            match application::login_here(name, &password) {
                Ok(answers) => Ok(serde_json::to_string(&answers)?),
                Err(cause) => Err(cause),
            }
        }
    };
    done.map(|text| Page { text, exit: Exit::Yes }).map_err(Failure::Application)
}

/// Returns the settings for libkrb5, as in the broker's unit: the keytab of the host, whatever the caller's
/// environment names, and not to ask SSSD for a KDC.
fn environment(sssd: &Path) -> [(&'static str, OsString); 2] {
    let mut keytab = OsString::from("FILE:");
    keytab.push(Credentials::keytab_of(sssd));
    [("KRB5_KTNAME", keytab), ("SSSD_KRB5_LOCATOR_DISABLE", "1".into())]
}

/// Restarts the program with the environment for libkrb5, which cannot change safely once there are threads.
fn begin_again(sssd: &Path) {
    let wanted = environment(sssd);
    if wanted.iter().all(|(name, value)| std::env::var_os(name).as_ref() == Some(value)) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only on a failure; then krb5.conf names the keytab.
        let _ = std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(wanted).exec();
    }
}

fn worst(found: &Found) -> Level {
    found.iter().map(|(_, finding)| finding.level).max().unwrap_or(Level::Ok)
}

/// Returns the first of the worst findings, which may be the cause of later ones.
fn first(found: &Found) -> Option<&(&'static Check, Finding)> {
    let level = Some(worst(found)).filter(|level| *level >= Level::Warning)?;
    found.iter().find(|(_, finding)| finding.level == level)
}

fn count(found: &Found, level: Level) -> usize {
    found.iter().filter(|(_, finding)| finding.level == level).count()
}

fn explain(check: &Check) -> String {
    format!(
        "{} ({}): {}\n\n{}\n",
        check.id,
        check.group.name(),
        check.title,
        show::hang(check.text, 0, Some(WIDTH))
    )
}

/// `doctor --json`.
#[derive(Serialize)]
struct Report<'a> {
    /// The worst level; `ok` if there is no problem.
    level: Level,
    /// The first check of that level.
    first: Option<&'static str>,
    counts: Counts,
    seconds: f64,
    checks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Counts {
    failure: usize,
    warning: usize,
    ok: usize,
    skipped: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'static str,
    group: &'static str,
    title: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl<'a> Report<'a> {
    fn new(found: &'a Found, took: Duration) -> Self {
        let line = |(check, finding): &'a (&'static Check, Finding)| Line {
            id: check.id,
            group: check.group.name(),
            title: check.title,
            finding,
        };
        // A skipped check is no problem.
        let level = if worst(found) == Level::Skipped { Level::Ok } else { worst(found) };
        Report {
            level,
            first: first(found).map(|(check, _)| check.id),
            counts: Counts {
                failure: count(found, Level::Failure),
                warning: count(found, Level::Warning),
                ok: count(found, Level::Ok),
                skipped: count(found, Level::Skipped),
            },
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            checks: found.iter().map(line).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{CHECKS, Place, REGISTER_SAMBA, REGISTER_WINDOWS, Run, Unit, Verb};

    pub(super) fn found() -> Found {
        let check = |id| Check::find(id).unwrap();
        vec![
            (check("root"), Finding::ok("as root")),
            (check("broker"), Finding::warning("slow\x1b").run(Run::Units(Verb::Restart, &[Unit::Service]))),
            (
                check("srv-ldap"),
                Finding::failure("none")
                    .command(&REGISTER_WINDOWS, "")
                    .command(&REGISTER_SAMBA, "")
                    .advise(Place::Network, "open the port"),
            ),
            (check("addresses"), Finding::because("srv-ldap")),
        ]
    }

    #[test]
    fn the_exit_status_is_that_of_the_worst() {
        use crate::doctor::Level::*;
        for (level, exit) in [(Ok, 0), (Skipped, 0), (Warning, 1), (Failure, 2)] {
            assert_eq!(Exit::from(level) as u8, exit, "{level:?}");
        }
    }

    #[test]
    fn libkrb5_reads_the_keytab_that_sssd_conf_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let keytab = || environment(file.path())[0].1.clone();
        assert_eq!(keytab(), "FILE:/etc/krb5.keytab");
        let text = "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n";
        std::fs::write(file.path(), format!("{text}krb5_keytab = /etc/sssd/acme.keytab\n")).unwrap();
        assert_eq!(keytab(), "FILE:/etc/sssd/acme.keytab");
    }

    #[test]
    fn json_names_the_first_of_the_worst() {
        let found = found();
        let value = serde_json::to_value(Report::new(&found, Duration::from_millis(1250))).unwrap();
        assert_eq!(value["level"], "failure");
        assert_eq!(value["first"], "srv-ldap");
        assert_eq!(value["counts"]["warning"], 1);
        assert_eq!(value["checks"][1]["fix"][0]["kind"], "run");
        assert_eq!(value["checks"][2]["fix"][1]["place"], "samba");
        assert_eq!(value["checks"][3]["because"], "srv-ldap");
    }

    #[test]
    fn explanations_fit_on_a_terminal() {
        for check in CHECKS {
            assert!(explain(check).lines().all(|line| line.len() <= 80), "{}", check.id);
        }
    }
}
