//! The broker: its user, its units, its socket, and its answers.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Group, Uid, User};
use tokio::time::{Instant, sleep};

use super::command;
use super::commands;
use super::commands::Place;
use super::facts::{Facts, unit, user};
use super::finding::Finding;
use super::fix::access;
use super::fix::{BOTH, OwnPath, Run, Unit as Ours, Verb};
use crate::client::AskError;
use crate::protocol::report::{Check, Status};
use crate::protocol::{DEADLINE, FrameError, Operation, Reply};

const SOCKET_UNIT: &str = "motion-ad.socket";
const SERVICE_UNIT: &str = "motion-ad.service";
/// The user that the unit runs the broker as.
pub(super) const USER: &str = "motion-ad";
const PACKAGE: &str = "libpam-motion-ad";
/// A name that no account has, so that the broker must query AD for it.
const NOBODY: &str = "motion-ad-doctor";
/// Maximum number of a drop-in's settings in one finding.
const SETTINGS: usize = 3;
/// Folders of the drop-ins that no package installs (systemd.unit(5)).
const OWN_SETTINGS: [&str; 2] = ["/etc/systemd/", "/run/systemd/"];
/// Time that a starting broker has before it counts as failed.
const STARTING: Duration = Duration::from_secs(3);
/// Pause between two looks at its unit.
const AGAIN: Duration = Duration::from_millis(100);

/// Warns if the doctor does not run as root and so cannot check everything.
pub(super) async fn root(facts: &Facts) -> Finding {
    match facts.is_root() {
        true => Finding::ok("as root"),
        false => {
            let uid = Uid::effective();
            Finding::warning(format!("running as uid {uid}: checks that need root are skipped"))
                .command(&commands::AS_ROOT, "")
        }
    }
}

pub(super) async fn account(_: &Facts) -> Finding {
    match user(USER).await {
        Ok(user) => Finding::ok(format!("{USER} has uid {}", user.uid)),
        Err(cause) => Finding::failure(format!("{cause}: the broker runs as this user")).run(Run::MakeUser),
    }
}

pub(super) async fn socket_unit(_: &Facts) -> Finding {
    let seen = match state_of(SOCKET_UNIT).await {
        Ok(seen) => seen,
        Err(finding) => return finding,
    };
    let unit = &seen.text;
    match (seen.load.as_str(), seen.active.as_str(), seen.enabled.as_str()) {
        ("masked", ..) => {
            Finding::failure(format!("{SOCKET_UNIT} is masked")).run(Run::Units(Verb::Unmask, BOTH))
        }
        ("not-found", ..) => missing_unit(SOCKET_UNIT),
        (_, "active", "disabled") => {
            Finding::warning(format!("{unit}; after the next boot no process listens for logins"))
                .run(Run::Units(Verb::Enable, &[Ours::Socket]))
        }
        (_, "active", _) => Finding::ok(unit),
        (_, "failed", _) => again(Finding::failure(unit), &seen).await,
        (_, _, "disabled") => Finding::failure(unit).run(Run::Units(Verb::EnableNow, BOTH)),
        _ => Finding::failure(unit).run(Run::Units(Verb::Start, BOTH)),
    }
}

pub(super) async fn service_unit(_: &Facts) -> Finding {
    let begun = Instant::now();
    let seen = loop {
        match state_of(SERVICE_UNIT).await {
            // systemd restarts the broker when a file has changed; one that fails at once restarts for ever.
            Ok(seen) if seen.active.ends_with("activating") && begun.elapsed() < STARTING => {
                sleep(AGAIN).await
            }
            Ok(seen) => break seen,
            Err(finding) => return finding,
        }
    };
    match (seen.load.as_str(), seen.active.as_str(), seen.enabled.as_str()) {
        ("masked", ..) => Finding::failure(format!("{SERVICE_UNIT} is masked"))
            .run(Run::Units(Verb::Unmask, &[Ours::Service])),
        ("not-found", ..) => missing_unit(SERVICE_UNIT),
        (_, "active" | "reloading", "disabled") => {
            Finding::warning(format!("{}; after the next boot the first login waits", seen.text))
                .run(Run::Units(Verb::Enable, &[Ours::Service]))
        }
        (_, "active" | "reloading", _) => Finding::ok(seen.text),
        // The socket starts it.
        (_, "inactive", _) => Finding::ok(format!("{}; the next login starts it", seen.text)),
        _ => {
            let log = command::ask("journalctl", &["-u", SERVICE_UNIT, "-n", "2", "-q", "-o", "cat"]).await;
            let last = log.map(|log| log.out.trim().replace('\n', "; ")).unwrap_or_default();
            let seen_of_log = format!("{}; the last lines of its log: {last}", seen.text);
            again(Finding::failure(seen_of_log), &seen).await
        }
    }
}

/// Suggests a restart of a unit that failed; if an administrator's own settings may be the cause, names them.
async fn again(mut finding: Finding, unit: &Unit) -> Finding {
    let settings = unit.overrides.iter().flat_map(|file| settings(file)).collect::<Vec<_>>();
    if settings.is_empty() {
        return finding.run(Run::Units(Verb::Restart, BOTH));
    }
    finding.seen += &format!("; an administrator's own settings: {}", settings.join("; "));
    finding.command(&commands::SHOW_UNIT, "").command(&commands::SHOW_LOG, "").advise(
        Place::Here,
        "correct the setting, have systemd read it again (daemon-reload), and restart the unit",
    )
}

/// Returns the settings of a drop-in with file and line. Those that decide which program runs come first.
fn settings(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    let set = lines.filter(|(_, line)| !line.starts_with(['#', ';', '[']) && line.contains('='));
    // An empty value only resets an earlier one.
    let mut set: Vec<_> = set.filter(|(_, line)| !line.ends_with('=')).collect();
    set.sort_by_key(|(number, line)| (!line.starts_with("Exec"), *number));
    set.iter().take(SETTINGS).map(|(number, line)| format!("{file}, line {number}: {line}")).collect()
}

fn missing_unit(unit: &str) -> Finding {
    Finding::failure(format!("the unit {unit} is missing")).command(&commands::REINSTALL, "")
}

struct Unit {
    load: String,
    active: String,
    enabled: String,
    /// Files with the administrator's own settings.
    overrides: Vec<String>,
    text: String,
}

async fn state_of(name: &str) -> Result<Unit, Finding> {
    let cannot = |e: io::Error| Finding::warning(format!("systemctl cannot be queried: {e}"));
    let mut found = unit(name).await.map_err(cannot)?;
    let mut take = |property: &str| found.remove(property).unwrap_or_default();
    let (load, active, sub, enabled) =
        (take("LoadState"), take("ActiveState"), take("SubState"), take("UnitFileState"));
    if load.is_empty() {
        return Err(Finding::warning("systemd does not run here"));
    }
    let text = format!("{name} is {active} ({sub}), {enabled}");
    let overrides = own_settings(&take("DropInPaths"));
    Ok(Unit { load, active, enabled, overrides, text })
}

/// Returns those of a unit's drop-ins that are not a package's: an administrator or a generator wrote them.
fn own_settings(paths: &str) -> Vec<String> {
    let is_own = |path: &&str| OWN_SETTINGS.iter().any(|folder| path.starts_with(folder));
    paths.split_whitespace().filter(is_own).map(str::to_owned).collect()
}

/// Checks that the socket's file has the owner and mode of the unit in force.
pub(super) async fn socket_file(facts: &Facts) -> Finding {
    let path = &facts.options().socket;
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) => return absent(facts, Finding::failure(format!("{shown}: {e}"))).await,
    };
    if !found.file_type().is_socket() {
        return Finding::failure(format!("{shown} is no socket"))
            .run_with(OwnPath::new(path).map(Run::ReplaceSocket));
    }
    let unit = unit(SOCKET_UNIT).await.unwrap_or_default();
    let property = |name: &str| unit.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mode = property("SocketMode").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o666);
    let (owner, group) = (property("SocketUser").unwrap_or("root"), property("SocketGroup"));
    let group = group.unwrap_or(if owner == "root" { "root" } else { owner });
    let (uid, gid) = (name_of_user(found.uid()), name_of_group(found.gid()));
    if (uid.as_str(), gid.as_str()) != (owner, group) {
        return Finding::failure(format!("{shown} belongs to {uid}:{gid}, not to {owner}:{group}"))
            .run_with(access(path, Some(&format!("{owner}:{group}")), mode));
    }
    if found.mode() & 0o777 != mode {
        return Finding::failure(format!("{shown} has mode {:04o}, not {mode:04o}", found.mode() & 0o777))
            .run_with(access(path, None, mode));
    }
    if let Some(folder) = path.parent()
        && let Ok(found) = fs::metadata(folder)
        && found.mode() & 0o005 != 0o005
    {
        return Finding::failure(format!("{} has mode {:04o}", folder.display(), found.mode() & 0o777))
            .run_with(access(folder, None, 0o755));
    }
    Finding::ok(format!("{shown}, mode {mode:04o}, of {owner}:{group}"))
}

/// Adds the fix for a socket that is not there. Where the unit listens elsewhere, a restart makes none.
async fn absent(facts: &Facts, finding: Finding) -> Finding {
    let listens = listens().await;
    match listens.first() {
        Some(other) if !listens.contains(&facts.options().socket) => {
            let other = other.display();
            finding.command(&commands::SHOW_UNIT, "").advise(
                Place::Here,
                format!("{SOCKET_UNIT} listens on {other}: run motion-ad with --socket {other}"),
            )
        }
        _ => finding.run(Run::Units(Verb::Restart, BOTH)),
    }
}

/// Returns the files of the sockets that motion-ad.socket is to listen on; none if systemd does not tell.
pub(super) async fn listens() -> Vec<PathBuf> {
    let asked = command::ask("systemctl", &["show", "--property=Listen", SOCKET_UNIT]).await;
    asked.map(|answer| listed(&answer.out)).unwrap_or_default()
}

fn listed(shown: &str) -> Vec<PathBuf> {
    let paths = shown.lines().filter_map(|line| line.strip_prefix("Listen=")?.strip_suffix(" (Stream)"));
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect()
}

fn name_of_user(uid: u32) -> String {
    let user = User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn name_of_group(gid: u32) -> String {
    let group = Group::from_gid(gid.into()).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

pub(super) async fn answers(facts: &Facts) -> Finding {
    match facts.status().await {
        Ok(status) => Finding::ok(format!("process {}, up for {} s", status.pid, status.uptime)),
        Err(AskError::Refused(reason)) if !facts.is_root() && reason.contains("broker.users") => {
            Finding::skipped("the broker answers root and broker.users only")
        }
        Err(error) => {
            let timed_out = match error {
                AskError::Connect(e)
                | AskError::Send(FrameError::Io(e))
                | AskError::Receive(FrameError::Io(e)) => e.kind() == io::ErrorKind::TimedOut,
                _ => false,
            };
            let finding = Finding::failure(format!("it does not answer: {error}"));
            match timed_out || !matches!(error, AskError::Connect(_)) {
                true => finding.run(Run::Units(Verb::Restart, &[Ours::Service])),
                false => finding.run(Run::Units(Verb::Restart, BOTH)),
            }
        }
    }
}

/// Checks that the package, this helper and the running broker have the same version.
pub(super) async fn version(facts: &Facts) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if let Ok(status) = facts.status().await
        && status.version != ours
    {
        return Finding::failure(format!("the running broker is {}, this is {ours}", status.version))
            .run(Run::Units(Verb::Restart, &[Ours::Service]));
    }
    let asked = command::ask("dpkg-query", &["-W", "-f", "${db:Status-Status} ${Version}", PACKAGE]).await;
    let installed = match &asked {
        Ok(answer) if answer.status.success() => answer.out.strip_prefix("installed "),
        _ => None,
    };
    match installed {
        // A package revision may follow.
        Some(version) if version == ours || version.starts_with(&format!("{ours}-")) => {
            Finding::ok(format!("package, helper and broker are {ours}"))
        }
        Some(version) => Finding::warning(format!("the package is {version}, this helper {ours}"))
            .command(&commands::REINSTALL, ""),
        None => Finding::warning(format!("the package {PACKAGE} is not installed; this helper is {ours}"))
            .command(&commands::REINSTALL, ""),
    }
}

/// Reports problems that only the broker knows. Both queries make the broker read AD, so that an old failure
/// that nothing has retried since is not reported.
pub(super) async fn state(facts: &Facts) -> Finding {
    let had_time = facts.deadline().saturating_duration_since(Instant::now()) >= DEADLINE;
    let (check, status) = tokio::join!(
        facts.ask(Operation::Check, NOBODY, DEADLINE),
        facts.ask(Operation::Status, "", DEADLINE)
    );
    match (check, status) {
        (Ok(Reply::Check(check)), Ok(Reply::Status(status))) => judged(&check, &status, had_time),
        (Ok(_), Ok(_)) => Finding::skipped("the broker gave an unexpected answer"),
        (Err(error), _) | (_, Err(error)) => Finding::skipped(error.to_string()),
    }
}

/// Judges the broker's state. A `check` that AD did not answer is a failure if it `had_time` as a login has.
fn judged(check: &Check, status: &Status, had_time: bool) -> Finding {
    if let Some(problem) = status.problems.first().filter(|_| !status.serving) {
        return Finding::failure(problem).command(&commands::SHOW_LOG, "");
    }
    if check.outcome.is_none() {
        let seen = format!("the broker cannot read AD: {}", check.reason);
        let finding = if had_time { Finding::failure(seen) } else { Finding::warning(seen) };
        return finding.command(&commands::SHOW_LOG, "");
    }
    if let Some(problem) = status.problems.first() {
        return Finding::warning(problem).command(&commands::SHOW_LOG, "");
    }
    // The broker notices within ten seconds that a service works again.
    let down = status.servers.list.iter().flat_map(|server| {
        let down = server.services.iter().filter(|(_, state)| !matches!(state.as_str(), "ok" | "unknown"));
        down.map(|(service, cause)| format!("{} of {}: {cause}", service, server.host))
    });
    let down: Vec<_> = down.collect();
    match down.as_slice() {
        [] => {
            let method = &status.method;
            Finding::ok(match method.name.is_empty() {
                true => "the broker reports no problem".to_owned(),
                false => format!("passwords are checked by {}: {}", method.name, method.reason),
            })
        }
        _ => Finding::warning(format!("the broker skips {}", down.join("; ")))
            .command(&commands::SHOW_STATUS, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::verdict::Outcome;

    #[test]
    fn a_drop_in_of_a_package_is_no_setting_of_the_administrators() {
        let paths = "/usr/lib/systemd/system/motion-ad.service.d/zzzz-credentials.conf \
                     /lib/systemd/system/service.d/10-debian.conf \
                     /run/systemd/system/service.d/zzz-lxc-service.conf \
                     /etc/systemd/system/motion-ad.service.d/override.conf";
        assert_eq!(
            own_settings(paths),
            [
                "/run/systemd/system/service.d/zzz-lxc-service.conf",
                "/etc/systemd/system/motion-ad.service.d/override.conf"
            ]
        );
        assert_eq!(own_settings(""), Vec::<String>::new());
    }

    #[test]
    fn the_sockets_of_the_unit_are_read() {
        let shown = "Listen=/run/motion-ad/broker.sock (Stream)\nListen=127.0.0.1:7 (Stream)\n\
                     Listen=/run/b c.sock (Stream)\nListen=/run/fifo (FIFO)\n";
        assert_eq!(listed(shown), ["/run/motion-ad/broker.sock", "/run/b c.sock"].map(PathBuf::from));
        assert_eq!(listed(""), Vec::<PathBuf>::new());
    }

    #[test]
    fn only_a_broker_that_no_user_can_log_in_by_fails() {
        let answered = || Check { outcome: Some(Outcome::UnknownUser), ..Check::default() };
        let unanswered = || Check { reason: "no answer in time".into(), ..Check::default() };
        let status = |serving, problems: &[&str]| Status {
            serving,
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
            ..Status::default()
        };
        for (check, status, had_time, level, seen) in [
            (answered(), status(true, &[]), true, Level::Ok, "no problem"),
            (answered(), status(true, &["sessions: slow"]), true, Level::Warning, "sessions: slow"),
            (answered(), status(false, &["the base DN", "sessions"]), true, Level::Failure, "the base DN"),
            // With less time than a login has, a late answer decides nothing.
            (unanswered(), status(true, &[]), true, Level::Failure, "cannot read AD: no answer in time"),
            (unanswered(), status(true, &[]), false, Level::Warning, "cannot read AD: no answer in time"),
            (unanswered(), status(false, &["the base DN"]), false, Level::Failure, "the base DN"),
        ] {
            let finding = judged(&check, &status, had_time);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.seen.contains(seen), "{finding:?}");
        }
    }
}
