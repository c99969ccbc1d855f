//! `motion-ad doctor`: what stands between the application and AD, and how to mend what is wrong with it.

use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Builder;

use super::cli::{AsApplication, Task};
use super::{Cli, Exit, Failure, Page, password, show};
use crate::doctor::{
    CHECKS, Check, Finding, Group, Level, Login, Options, Place, application, child, examine,
};

/// What libkrb5 is told in the broker's unit, too: which keytab to take, and not to ask SSSD for a KDC.
const ENVIRONMENT: [(&str, &str); 2] =
    [("KRB5_KTNAME", "FILE:/etc/krb5.keytab"), ("SSSD_KRB5_LOCATOR_DISABLE", "1")];

/// So long the work that nobody waits for any more may take to notice.
const GIVEN_UP: Duration = Duration::from_millis(500);

/// What has been found: each check in its order.
type Found = Vec<(&'static Check, Finding)>;

impl From<Level> for Exit {
    /// As monitoring plugins number it, so that 2 is a failure here; what is no answer at all is 3.
    fn from(level: Level) -> Self {
        match level {
            Level::Ok | Level::Skipped => Exit::Yes,
            Level::Warning => Exit::No,
            Level::Failure => Exit::Usage,
        }
    }
}

pub(super) fn doctor(cli: &Cli, args: &super::Doctor) -> Result<Page, Failure> {
    if let Some(check) = args.explain.as_deref().and_then(Check::find) {
        return Ok(Page { text: explain(check), exit: Exit::Yes });
    }
    begin_again();
    let login = match &args.login {
        Some(name) if args.password_stdin => {
            let [password] = password::from_stdin()?;
            Some((name, password))
        }
        Some(name) => Some((name, password::prompt(name)?)),
        None => None,
    };
    let options = Options {
        config: cli.config.clone(),
        sssd: cli.sssd.clone(),
        socket: cli.socket.clone(),
        login: login.map(|(name, password)| Login { name: name.clone(), password }),
    };
    let begun = Instant::now();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Application(e.to_string()))?;
    let found = runtime.block_on(examine(options));
    // What is still on its way is given up. libkrb5 ends the whole process where it is used while that ends.
    runtime.shutdown_timeout(GIVEN_UP);
    let exit = Exit::from(worst(&found));
    let text = match args.json {
        true => show::json(&Report::new(&found, begun.elapsed()))?,
        false => report(&found, begun.elapsed()),
    };
    Ok(Page { text, exit })
}

/// What the doctor does as the application's user.
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

/// libkrb5 reads its environment, which cannot be changed safely once there are threads: the program is begun again
/// with what it needs there.
fn begin_again() {
    if ENVIRONMENT.iter().all(|(name, value)| std::env::var(name).as_deref() == Ok(*value)) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // It only comes back where that fails; then krb5.conf says which keytab it is.
        let _ =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(ENVIRONMENT).exec();
    }
}

fn worst(found: &Found) -> Level {
    found.iter().map(|(_, finding)| finding.level).max().unwrap_or(Level::Ok)
}

/// The first of the worst ones: what comes after it may be its consequence.
fn first(found: &Found) -> Option<&(&'static Check, Finding)> {
    let level = Some(worst(found)).filter(|level| *level >= Level::Warning)?;
    found.iter().find(|(_, finding)| finding.level == level)
}

fn count(found: &Found, level: Level) -> usize {
    found.iter().filter(|(_, finding)| finding.level == level).count()
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Skipped => "skipped",
        Level::Warning => "WARNING",
        Level::Failure => "FAILURE",
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Here => "mend",
        Place::Windows => "mend, on a domain controller that runs Windows",
        Place::Samba => "mend, on a domain controller that runs Samba",
    }
}

fn report(found: &Found, took: Duration) -> String {
    let width = CHECKS.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in Group::ALL {
        let mut of_group = found.iter().filter(|(check, _)| check.group == group).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        text += &format!("{}\n", group.name());
        for (check, finding) in of_group {
            let seen = show::escape(&finding.seen);
            text += format!("  {:<8} {:<width$}  {seen}", word(finding.level), check.id).trim_end();
            text.push('\n');
            for mend in &finding.mend {
                text += &format!("  {:<8} {}: {}\n", "", place(mend.place), show::escape(&mend.command));
            }
        }
        text.push('\n');
    }
    let counts = [
        (count(found, Level::Failure), "failed"),
        (count(found, Level::Warning), "with a warning"),
        (count(found, Level::Ok), "ok"),
        (count(found, Level::Skipped), "skipped"),
    ];
    let counts = counts.iter().map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
    text += &format!("{counts}; {:.1} s\n", took.as_secs_f64());
    if let Some((check, _)) = first(found) {
        let id = check.id;
        text += &format!("begin with {id}; `motion-ad doctor --explain {id}` says more about it\n");
    }
    text
}

fn explain(check: &Check) -> String {
    format!("{} ({}): {}\n\n{}\n", check.id, check.group.name(), check.title, wrapped(check.text))
}

/// `text` in lines that fit on a terminal.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 78;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// `doctor --json`.
#[derive(Serialize)]
struct Report<'a> {
    /// The worst level, `ok` where nothing is wrong.
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
        // What was not looked at is no complaint.
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

    fn found() -> Found {
        let check = |id| Check::find(id).unwrap();
        vec![
            (check("root"), Finding::ok("as root")),
            (check("broker"), Finding::warning("slow\x1b").mend("systemctl restart motion-ad.service")),
            (check("srv-ldap"), Finding::failure("none").mend_there("nltest /dsregdns", "samba_dnsupdate")),
            (check("addresses"), Finding::because("srv-ldap")),
        ]
    }

    #[test]
    fn the_report_has_a_line_for_each_and_says_where_to_begin() {
        assert_eq!(
            report(&found(), Duration::from_millis(1250)),
            "package and PAM\n  \
               ok       root               as root\n  \
               WARNING  broker             slow\\u{1b}\n           \
                        mend: systemctl restart motion-ad.service\n\n\
             host\n  \
               FAILURE  srv-ldap           none\n           \
                        mend, on a domain controller that runs Windows: nltest /dsregdns\n           \
                        mend, on a domain controller that runs Samba: samba_dnsupdate\n  \
               skipped  addresses          because of srv-ldap\n\n\
             1 failed, 1 with a warning, 1 ok, 1 skipped; 1.2 s\n\
             begin with srv-ldap; `motion-ad doctor --explain srv-ldap` says more about it\n"
        );
    }

    #[test]
    fn the_exit_status_is_that_of_the_worst() {
        use crate::doctor::Level::*;
        for (level, exit) in [(Ok, 0), (Skipped, 0), (Warning, 1), (Failure, 2)] {
            assert_eq!(Exit::from(level) as u8, exit, "{level:?}");
        }
    }

    #[test]
    fn json_names_the_first_of_the_worst() {
        let found = found();
        let value = serde_json::to_value(Report::new(&found, Duration::from_millis(1250))).unwrap();
        assert_eq!(value["level"], "failure");
        assert_eq!(value["first"], "srv-ldap");
        assert_eq!(value["counts"]["warning"], 1);
        assert_eq!(value["checks"][2]["mend"][1]["place"], "samba");
        assert_eq!(value["checks"][3]["because"], "srv-ldap");
    }

    #[test]
    fn explanations_fit_on_a_terminal() {
        for check in CHECKS {
            assert!(explain(check).lines().all(|line| line.len() <= 80), "{}", check.id);
        }
    }
}
