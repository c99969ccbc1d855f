//! The PAM module's file: whether libpam finds and loads it, and which version applications have loaded.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::application;
use super::command;
use super::commands;
use super::facts::Facts;
use super::finding::Finding;
use super::fix::access;
use super::stack::Kind;
use super::visitors::{MODULE, is_ours};
use tokio::task::spawn_blocking;

/// Debian package, for which dpkg has a list of files with checksums.
const PACKAGE: &str = "libpam-motion-ad";
/// Maximum number of processes named in a finding.
const NAMED: usize = 5;

/// The module folder of Debian's libpam (`DEFAULT_MODULE_PATH`).
pub(super) fn folder() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu/security", std::env::consts::ARCH))
}

/// The path from which libpam loads the module that the service names.
async fn path(facts: &Facts) -> PathBuf {
    let service = facts.service().await;
    let written = service.stack(Kind::Auth).into_iter().find(|rule| is_ours(rule));
    match written {
        // An absolute path replaces the folder.
        Some(rule) => folder().join(&rule.module),
        None => folder().join(MODULE),
    }
}

pub(super) async fn file(facts: &Facts) -> Finding {
    let path = path(facts).await;
    let shown = path.display();
    let found = match fs::metadata(facts.path(&path)) {
        Ok(found) => found,
        Err(e) => return Finding::failure(format!("{shown}: {e}")).command(&commands::REINSTALL, ""),
    };
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o777;
        return Finding::failure(format!(
            "users other than root may change {shown} (mode {mode:04o}, uid {})",
            found.uid()
        ))
        .run_with(access(&path, Some("root:root"), 0o644));
    }
    if found.mode() & 0o004 == 0 {
        return Finding::failure(format!(
            "applications may not read {shown} (mode {:04o})",
            found.mode() & 0o777
        ))
        .run_with(access(&path, None, 0o644));
    }
    Finding::ok(shown.to_string())
}

/// Loads the module as libpam does, in a separate process of the application's user.
pub(super) async fn loads(facts: &Facts) -> Finding {
    let path = path(facts).await;
    match application::load(facts, &path).await {
        Ok(who) => Finding::ok(format!("loaded as {who}, with all six entry points")),
        Err(cause) => Finding::failure(format!("{} cannot be loaded: {cause}", path.display()))
            .command(&commands::REINSTALL, ""),
    }
}

/// Checks that the installed files are those of the package.
pub(super) async fn package(_: &Facts) -> Finding {
    let answer = match command::ask("dpkg", &["--verify", PACKAGE]).await {
        Ok(answer) => answer,
        Err(e) => return Finding::skipped(format!("dpkg cannot be queried: {e}")),
    };
    if answer.err.contains("not installed") {
        return Finding::skipped("it is not installed as a package");
    }
    // The administrator may change conffiles, which dpkg marks with `c`.
    let changed: Vec<_> = answer.out.lines().filter_map(changed).collect();
    match changed.as_slice() {
        [] => Finding::ok("every file is as it was packed"),
        files => Finding::failure(format!("changed or missing: {}", files.join(", ")))
            .command(&commands::REINSTALL, ""),
    }
}

/// Returns the file that a line of `dpkg --verify` reports, unless it is a conffile, or documentation, which
/// many images omit.
fn changed(line: &str) -> Option<&str> {
    let (state, rest) = line.split_once(char::is_whitespace)?;
    let file = rest.trim_start();
    let is_conffile = file.starts_with("c ");
    let is_wrong = state == "missing" || state.contains('5');
    (is_wrong && !is_conffile && !file.starts_with("/usr/share/")).then_some(file)
}

/// Checks for applications that still use an older module: they keep it after an upgrade of the package.
pub(super) async fn loaded(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let folder = facts.path("/proc");
    let Ok((current, old)) = spawn_blocking(move || who_has_loaded(&folder)).await else {
        return Finding::skipped("/proc cannot be read");
    };
    if old.is_empty() {
        return Finding::ok(format!("no process has an older one; {current} have loaded this one"));
    }
    let named: Vec<_> = old.iter().take(NAMED).map(|(pid, (name, _))| format!("{name} ({pid})")).collect();
    let finding = Finding::warning(format!(
        "{} processes still use the module from before an upgrade: {}",
        old.len(),
        named.join(", ")
    ));
    let mut units: Vec<_> = old.values().filter_map(|(_, unit)| unit.as_deref()).collect();
    units.sort_unstable();
    units.dedup();
    units.into_iter().fold(finding, |finding, unit| finding.command(&commands::RESTART_APPLICATION, unit))
}

type Old = BTreeMap<u32, (String, Option<String>)>;

/// Returns the number of processes that have loaded the present module, and the names and units of those with
/// an older one.
fn who_has_loaded(proc: &Path) -> (usize, Old) {
    let (mut current, mut old) = (0, Old::new());
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(maps) = fs::read_to_string(entry.path().join("maps")) else { continue };
        let mut ours = maps.lines().filter(|line| line.contains(MODULE)).peekable();
        if ours.peek().is_none() {
            continue;
        }
        if !ours.any(|line| line.ends_with(" (deleted)")) {
            current += 1;
            continue;
        }
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        old.insert(pid, (read("comm").trim().to_owned(), unit_of(&read("cgroup"))));
    }
    (current, old)
}

/// Returns the service in the text of /proc/PID/cgroup.
fn unit_of(cgroup: &str) -> Option<String> {
    let services = cgroup.lines().filter_map(|line| line.rsplit('/').next());
    services.into_iter().find(|unit| unit.ends_with(".service")).map(str::to_owned)
}

/// Checks for denials by AppArmor or SELinux against the broker or the module.
pub(super) async fn denials(_: &Facts) -> Finding {
    const WHAT: &str = "(apparmor=\"DENIED\"|avc: +denied).*motion-ad";
    let arguments = ["-k", "-q", "--no-pager", "-o", "cat", "-n", "1", "--since=-1d", "-g", WHAT];
    match command::ask("journalctl", &arguments).await {
        Ok(answer) if !answer.out.trim().is_empty() => {
            Finding::warning(format!("AppArmor or SELinux denied something: {}", answer.out.trim()))
                .command(&commands::SHOW_DENIALS, "")
        }
        Ok(_) => Finding::ok("AppArmor and SELinux have denied nothing within a day"),
        Err(e) => Finding::skipped(format!("the kernel's log cannot be searched: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_nobody_may_change_are_complained_about() {
        let cases = [
            ("??5??????   /usr/bin/motion-ad", Some("/usr/bin/motion-ad")),
            (
                "missing     /usr/lib/x/security/pam_motion_ad.so",
                Some("/usr/lib/x/security/pam_motion_ad.so"),
            ),
            ("??5?????? c /etc/motion-ad/config.toml", None),
            ("missing   c /etc/pam.d/motion", None),
            ("missing     /usr/share/man/man1/motion-ad.1.gz", None),
            ("", None),
        ];
        for (line, file) in cases {
            assert_eq!(changed(line), file, "{line}");
        }
    }

    #[test]
    fn a_process_belongs_to_the_innermost_service() {
        assert_eq!(unit_of("0::/system.slice/xcally.service\n").as_deref(), Some("xcally.service"));
        assert_eq!(unit_of("1:name=systemd:/system.slice/a.service\n0::/\n").as_deref(), Some("a.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None);
    }

    #[test]
    fn an_older_module_is_told_by_its_deleted_file() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, maps: &str| {
            let folder = proc.path().join(pid);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("maps"), maps).unwrap();
            fs::write(folder.join("comm"), "node\n").unwrap();
            fs::write(folder.join("cgroup"), "0::/system.slice/motion.service\n").unwrap();
        };
        process("7", "7f00-7f01 r-xp 0 0 1 /usr/lib/x/security/pam_motion_ad.so\n");
        process("8", "7f00-7f01 r-xp 0 0 1 /usr/lib/x/security/pam_motion_ad.so (deleted)\n");
        process("9", "7f00-7f01 r-xp 0 0 1 /usr/lib/x/libc.so.6\n");
        let (current, old) = who_has_loaded(proc.path());
        assert_eq!(current, 1);
        assert_eq!(old, BTreeMap::from([(8, ("node".into(), Some("motion.service".into())))]));
    }
}
