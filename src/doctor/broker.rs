//! The broker: its user, its units, its socket, and whether it answers.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Group, Uid, User};
use tokio::time::{Instant, sleep};

use super::command;
use super::facts::{Facts, unit, user};
use super::finding::{Finding, quote};
use crate::client::AskError;
use crate::protocol::{FrameError, Operation, Reply};

const SOCKET_UNIT: &str = "motion-ad.socket";
const SERVICE_UNIT: &str = "motion-ad.service";
/// The user that the unit runs the broker as.
pub(super) const USER: &str = "motion-ad";
const PACKAGE: &str = "libpam-motion-ad";
/// A name that nobody bears: who it is, the broker has to ask AD.
const NOBODY: &str = "motion-ad-doctor";
/// So long a broker that is starting has until it is called one that does not.
const STARTING: Duration = Duration::from_secs(3);
/// So soon it is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// Whoever runs the doctor may look at everything.
pub(super) async fn root(facts: &Facts) -> Finding {
    match facts.is_root() {
        true => Finding::ok("as root"),
        false => {
            let uid = Uid::effective();
            Finding::warning(format!("as uid {uid}: what only root may see is not looked at"))
                .mend("sudo motion-ad doctor")
        }
    }
}

pub(super) async fn account(_: &Facts) -> Finding {
    match user(USER).await {
        Ok(user) => Finding::ok(format!("{USER} has uid {}", user.uid)),
        Err(cause) => Finding::failure(format!("{cause}, as whom the broker runs"))
            .mend("systemd-sysusers motion-ad.conf"),
    }
}

pub(super) async fn socket_unit(_: &Facts) -> Finding {
    let seen = match state_of(SOCKET_UNIT).await {
        Ok(seen) => seen,
        Err(finding) => return finding,
    };
    let unit = &seen.text;
    match (seen.load.as_str(), seen.active.as_str(), seen.enabled.as_str()) {
        ("masked", ..) => Finding::failure(format!("{SOCKET_UNIT} is masked")).mend(format!(
            "systemctl unmask {SOCKET_UNIT} {SERVICE_UNIT} && systemctl enable --now {SOCKET_UNIT} {SERVICE_UNIT}"
        )),
        ("not-found", ..) => missing_unit(SOCKET_UNIT),
        (_, "active", "disabled") => {
            Finding::warning(format!("{unit}; after the next start of the host nobody will listen"))
                .mend(format!("systemctl enable {SOCKET_UNIT}"))
        }
        (_, "active", _) => Finding::ok(unit),
        (_, "failed", _) => Finding::failure(unit).mend(again(seen.overridden)),
        (_, _, "disabled") => {
            Finding::failure(unit).mend(format!("systemctl enable --now {SOCKET_UNIT} {SERVICE_UNIT}"))
        }
        _ => Finding::failure(unit).mend(format!("systemctl start {SOCKET_UNIT} {SERVICE_UNIT}")),
    }
}

pub(super) async fn service_unit(_: &Facts) -> Finding {
    let begun = Instant::now();
    let seen = loop {
        match state_of(SERVICE_UNIT).await {
            // It starts again by itself when a file has changed; the one that fails at once does so for ever.
            Ok(seen) if seen.active.ends_with("activating") && begun.elapsed() < STARTING => {
                sleep(AGAIN).await
            }
            Ok(seen) => break seen,
            Err(finding) => return finding,
        }
    };
    match (seen.load.as_str(), seen.active.as_str(), seen.enabled.as_str()) {
        ("masked", ..) => Finding::failure(format!("{SERVICE_UNIT} is masked"))
            .mend(format!("systemctl unmask {SERVICE_UNIT} && systemctl enable --now {SERVICE_UNIT}")),
        ("not-found", ..) => missing_unit(SERVICE_UNIT),
        (_, "active" | "reloading", "disabled") => {
            Finding::warning(format!("{}; after the next start of the host the first login waits", seen.text))
                .mend(format!("systemctl enable {SERVICE_UNIT}"))
        }
        (_, "active" | "reloading", _) => Finding::ok(seen.text),
        // The next login starts it.
        (_, "inactive", _) => Finding::ok(format!("{}; the next login starts it", seen.text)),
        _ => {
            let log = command::ask("journalctl", &["-u", SERVICE_UNIT, "-n", "1", "-q", "-o", "cat"]).await;
            let last = log.map(|log| log.out.trim().to_owned()).unwrap_or_default();
            Finding::failure(format!("{}; the last line of its log: {last}", seen.text))
                .mend(again(seen.overridden))
        }
    }
}

/// A unit that fails is started again; where an administrator's own settings are in the way, without them.
fn again(overridden: bool) -> String {
    match overridden {
        true => format!(
            "systemctl revert {SOCKET_UNIT} {SERVICE_UNIT} && systemctl restart {SOCKET_UNIT} {SERVICE_UNIT}"
        ),
        false => format!("systemctl restart {SOCKET_UNIT} {SERVICE_UNIT}"),
    }
}

fn missing_unit(unit: &str) -> Finding {
    Finding::failure(format!("the unit {unit} is missing")).mend(reinstall())
}

/// The package is no archive's: it is where it was installed from.
pub(super) fn reinstall() -> String {
    format!("apt-get install -y --reinstall ./{PACKAGE}_*.deb")
}

struct Unit {
    load: String,
    active: String,
    enabled: String,
    /// The administrator has settings of his own for it.
    overridden: bool,
    text: String,
}

async fn state_of(name: &str) -> Result<Unit, Finding> {
    let cannot = |e: io::Error| Finding::warning(format!("systemctl cannot be asked: {e}"));
    let mut found = unit(name).await.map_err(cannot)?;
    let mut take = |property: &str| found.remove(property).unwrap_or_default();
    let (load, active, sub, enabled) =
        (take("LoadState"), take("ActiveState"), take("SubState"), take("UnitFileState"));
    if load.is_empty() {
        return Err(Finding::warning("systemd does not run here"));
    }
    let text = format!("{name} is {active} ({sub}), {enabled}");
    let overridden = !take("DropInPaths").is_empty();
    Ok(Unit { load, active, enabled, overridden, text })
}

/// The socket's file is as the unit in force says.
pub(super) async fn socket_file(facts: &Facts) -> Finding {
    let path = &facts.options().socket;
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) => {
            return Finding::failure(format!("{shown}: {e}"))
                .mend(format!("systemctl restart {SOCKET_UNIT} {SERVICE_UNIT}"));
        }
    };
    if !found.file_type().is_socket() {
        return Finding::failure(format!("{shown} is no socket"))
            .mend(format!("rm -f {} && systemctl restart {SOCKET_UNIT} {SERVICE_UNIT}", quote_path(path)));
    }
    let unit = unit(SOCKET_UNIT).await.unwrap_or_default();
    let property = |name: &str| unit.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mode = property("SocketMode").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o666);
    let (owner, group) = (property("SocketUser").unwrap_or("root"), property("SocketGroup"));
    let group = group.unwrap_or(if owner == "root" { "root" } else { owner });
    let (uid, gid) = (name_of_user(found.uid()), name_of_group(found.gid()));
    if (uid.as_str(), gid.as_str()) != (owner, group) {
        return Finding::failure(format!("{shown} belongs to {uid}:{gid}, not to {owner}:{group}"))
            .mend(format!("chown {owner}:{group} {}", quote_path(path)));
    }
    if found.mode() & 0o777 != mode {
        return Finding::failure(format!("{shown} has mode {:04o}, not {mode:04o}", found.mode() & 0o777))
            .mend(format!("chmod {mode:04o} {}", quote_path(path)));
    }
    if let Some(folder) = path.parent()
        && let Ok(found) = fs::metadata(folder)
        && found.mode() & 0o005 != 0o005
    {
        return Finding::failure(format!("{} has mode {:04o}", folder.display(), found.mode() & 0o777))
            .mend(format!("chmod 0755 {}", quote_path(folder)));
    }
    Finding::ok(format!("{shown}, mode {mode:04o}, of {owner}:{group}"))
}

fn name_of_user(uid: u32) -> String {
    let user = User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn name_of_group(gid: u32) -> String {
    let group = Group::from_gid(gid.into()).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

pub(super) fn quote_path(path: &Path) -> String {
    quote(&path.display().to_string())
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
                true => finding.mend(format!("systemctl restart {SERVICE_UNIT}")),
                false => finding.mend(format!("systemctl restart {SOCKET_UNIT} {SERVICE_UNIT}")),
            }
        }
    }
}

/// One version everywhere: of the package, of the helper that looks, and of the broker that runs.
pub(super) async fn version(facts: &Facts) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if let Ok(status) = facts.status().await
        && status.version != ours
    {
        return Finding::failure(format!("the broker that runs is {}, this is {ours}", status.version))
            .mend(format!("systemctl restart {SERVICE_UNIT}"));
    }
    let asked = command::ask("dpkg-query", &["-W", "-f", "${db:Status-Status} ${Version}", PACKAGE]).await;
    let installed = match &asked {
        Ok(answer) if answer.status.success() => answer.out.strip_prefix("installed "),
        _ => None,
    };
    match installed {
        // A revision of the package may follow.
        Some(version) if version == ours || version.starts_with(&format!("{ours}-")) => {
            Finding::ok(format!("package, helper and broker are {ours}"))
        }
        Some(version) => {
            Finding::warning(format!("the package is {version}, this helper {ours}")).mend(reinstall())
        }
        None => Finding::warning(format!("the package {PACKAGE} is not installed; this helper is {ours}"))
            .mend(reinstall()),
    }
}

/// What the broker itself has to complain about, which no other check has found. It is made to read AD first, so that
/// what failed a while ago and was not needed since is no complaint.
pub(super) async fn state(facts: &Facts) -> Finding {
    let advice = "motion-ad status";
    match facts.ask(Operation::Check, NOBODY).await {
        Ok(Reply::Check(check)) if check.outcome.is_none() => {
            return Finding::failure(format!("the broker cannot read AD: {}", check.reason))
                .mend(format!("systemctl restart {SERVICE_UNIT}"));
        }
        Ok(_) => {}
        Err(error) => return Finding::skipped(error.to_string()),
    }
    let status = match facts.ask(Operation::Status, "").await {
        Ok(Reply::Status(status)) => status,
        Ok(_) => return Finding::skipped("the broker gave another answer"),
        Err(error) => return Finding::skipped(error.to_string()),
    };
    if let Some(problem) = status.problems.first() {
        return Finding::failure(problem).mend(format!("systemctl restart {SERVICE_UNIT}"));
    }
    // One that works again is seen working within ten seconds.
    let down = status.servers.list.iter().flat_map(|server| {
        let down = server.services.iter().filter(|(_, state)| !matches!(state.as_str(), "ok" | "unknown"));
        down.map(|(service, cause)| format!("{} of {}: {cause}", service, server.host))
    });
    let down: Vec<_> = down.collect();
    match down.as_slice() {
        [] => {
            let method = &status.method;
            Finding::ok(match method.name.is_empty() {
                true => "it has nothing to complain about".to_owned(),
                false => format!("passwords are checked by {}: {}", method.name, method.reason),
            })
        }
        _ => Finding::warning(format!("the broker passes over {}", down.join("; "))).mend(advice),
    }
}
