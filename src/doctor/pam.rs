//! `/etc/pam.d/motion`, and the LDAP bridge's service where it is another one: whether libpam can read them,
//! and which users their lines admit and reject.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::User;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;

use super::application;
use super::commands;
use super::commands::Place;
use super::configuration::place_of;
use super::edit::Edit;
use super::edit::PAM_SERVICE as FILE;
use super::facts::{Facts, SERVICE, user};
use super::finding::{Finding, Level};
use super::fix::access;
use super::repair::Host;
use super::stack::{Kind, Rule, Service, Value};
use super::visitors::{
    Judgement, MODULE, Missing, RIGHT, Trouble, Visitor, is_ours, judge, observes, ours, visit,
};
use super::{bridge, broker, module};
use crate::config::{Access, JoinError};
use crate::libpam::SERVICES;
use crate::module::arguments::{ARGUMENTS, Arguments};
use crate::protocol::SOCKET;

/// A PAM service that decides logins of the application.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    /// Its own file.
    file: String,
    pub(super) lines: &'a Service,
}

impl Named<'_> {
    fn is_of_bridge(&self) -> bool {
        self.name != SERVICE
    }
}

/// Returns the application's service, and that of the LDAP bridge where the bridge uses another one.
pub(super) async fn services(facts: &Facts) -> Vec<Named<'_>> {
    let motion = Named { name: SERVICE, file: FILE.to_owned(), lines: facts.service().await };
    let of_bridge = bridge::used(facts).await.filter(|used| used.settings.service != SERVICE);
    let of_bridge = of_bridge.map(|used| Named {
        name: &used.settings.service,
        file: format!("{SERVICES}/{}", used.settings.service),
        lines: &used.service,
    });
    [motion].into_iter().chain(of_bridge).collect()
}

/// Merges the findings of several services: only those that are a problem, if there is one.
fn merged(mut findings: Vec<Finding>) -> Finding {
    let is_problem = |finding: &Finding| finding.level >= Level::Warning;
    if findings.iter().any(is_problem) {
        findings.retain(is_problem);
    }
    findings.dedup();
    findings.into_iter().reduce(Finding::and).unwrap_or_else(|| Finding::skipped("there is no service"))
}

pub(super) async fn service(facts: &Facts) -> Finding {
    let mut findings = Vec::new();
    for named in services(facts).await {
        findings.push(readable_by_libpam(facts, &named).await);
    }
    merged(findings)
}

async fn readable_by_libpam(facts: &Facts, named: &Named<'_>) -> Finding {
    let file = &named.file;
    let found = match fs::metadata(facts.path(file)) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound && named.is_of_bridge() => {
            return Finding::failure(format!(
                "{file}: {e}: libpam uses the lines of {SERVICES}/other for logins by the LDAP bridge"
            ))
            .advise(
                Place::Here,
                format!("correct {}, or write that file", place_of(facts, "bridge", "service")),
            );
        }
        Err(e) => return mended(facts, named, Finding::failure(format!("{file}: {e}"))).await,
    };
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o777;
        let finding = Finding::failure(format!(
            "users other than root may change {file} (mode {mode:04o}, uid {})",
            found.uid()
        ));
        return match access(Path::new(file), Some("root:root"), 0o644) {
            Some(run) => finding.run(run),
            None => finding.advise(Place::Here, format!("give {file} to root:root, with the mode 0644")),
        };
    }
    match named.lines.faults.first() {
        Some(fault) => {
            let place = match fault.line {
                Some(line) => format!("{}, line {line}", fault.file),
                None => fault.file.clone(),
            };
            mended(facts, named, Finding::failure(format!("{place}: {}", fault.text))).await
        }
        None => Finding::ok(format!("{} lines of {}", named.lines.rules.len(), named.lines.files.join(", "))),
    }
}

/// Adds the change of the service that fixes the finding, or the advice to make one by hand. A service of the
/// bridge's own is the administrator's.
async fn mended(facts: &Facts, named: &Named<'_>, finding: Finding) -> Finding {
    let edit = if named.is_of_bridge() { None } else { edit(facts).await };
    match edit {
        Some(edit) => finding.edit(edit),
        None => finding.command(&commands::SHOW_SERVICE, &named.file).advise(
            Place::Here,
            format!(
                "change {} by hand, and no file of another service: su and sudo are among them",
                named.file
            ),
        ),
    }
}

async fn edit(facts: &Facts) -> Option<Edit> {
    let sssd = facts.access().await;
    let before = match fs::read_to_string(facts.path(FILE)) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => return None,
    };
    let is_missing = |module: &str| is_missing(facts, module);
    let read = |path: &Path| fs::read_to_string(facts.path(path));
    let (knows, restricts) = (sssd.knows, sssd.restricts);
    let host = Host { service: SERVICE, file: FILE, read: &read, is_missing: &is_missing, knows, restricts };
    Edit::service(before.as_deref(), &host)
}

pub(super) async fn lines(facts: &Facts) -> Finding {
    let mut findings = Vec::new();
    for named in services(facts).await {
        findings.push(calls_ours(facts, &named).await);
    }
    merged(findings)
}

async fn calls_ours(facts: &Facts, named: &Named<'_>) -> Finding {
    let (service, file) = (named.lines, &named.file);
    for kind in [Kind::Auth, Kind::Account] {
        let stack = service.stack(kind);
        // A service that only observes does not need both.
        if stack.iter().any(|rule| is_ours(rule)) || service.rules.iter().any(observes) {
            continue;
        }
        let finding = Finding::failure(match stack.is_empty() {
            true => {
                format!("{file} has no {} line at all: libpam takes those of {SERVICES}/other", kind.name())
            }
            false => format!("no {} line of {file} calls {MODULE}", kind.name()),
        });
        return mended(facts, named, finding).await;
    }
    let decides = |rule: &&Rule| matches!(rule.kind, Kind::Auth | Kind::Account) && is_ours(rule);
    let places =
        service.rules.iter().filter(decides).map(|rule| format!("{}: {}", rule.kind.name(), rule.place()));
    Finding::ok(places.collect::<Vec<_>>().join("; "))
}

pub(super) async fn arguments(facts: &Facts) -> Finding {
    let text = fs::read_to_string(facts.path(FILE)).unwrap_or_default();
    let services = services(facts).await;
    let rules = ours(services.iter().map(|named| named.lines));
    let misread = misread(&rules);
    if !misread.is_empty() {
        return corrected(&text, misread);
    }
    let elsewhere = elsewhere(&rules, &facts.options().socket, &broker::listens().await).await;
    match elsewhere.is_empty() {
        true => Finding::ok("every argument is understood"),
        false => corrected(&text, elsewhere),
    }
}

/// Returns the arguments that name another socket than those of the unit (`listens`) and the one that the
/// administrator named (`wanted`). Without the argument the module uses [`SOCKET`], so it is removed only if
/// the unit listens there, and nothing can listen at the named path.
async fn elsewhere<'a>(rules: &[&'a Rule], wanted: &Path, listens: &[PathBuf]) -> Vec<Wrong<'a>> {
    let mut wrong = Vec::new();
    for rule in rules {
        let written = rule.arguments.iter().find(|argument| argument.starts_with("socket="));
        let Some((written, path)) = written.and_then(|all| Some((all, all.strip_prefix("socket=")?))) else {
            continue;
        };
        let path = Path::new(path);
        if path == wanted || listens.iter().any(|listens| listens == path) {
            continue;
        }
        let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        let is_removable = !is_socket && listens.iter().any(|listens| listens == Path::new(SOCKET));
        let listens = listens.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let listens = if listens.is_empty() { wanted.display().to_string() } else { listens.join(", ") };
        wrong.push(Wrong {
            rule,
            written,
            // A broker that another unit or an administrator has started may answer there.
            is_fatal: UnixStream::connect(path).await.is_err(),
            seen: format!("{}: {written}, but the broker's unit listens on {listens}", rule.place()),
            change: is_removable.then_some(None),
        });
    }
    wrong
}

/// A wrong argument.
struct Wrong<'a> {
    rule: &'a Rule,
    written: &'a str,
    /// True if the module rejects every login because of it.
    is_fatal: bool,
    seen: String,
    /// The replacement: `Some(None)` removes the argument, `None` means that the right one is uncertain.
    change: Option<Option<String>>,
}

/// Returns the arguments that the module does not understand: those that stop logins, or else the others.
fn misread<'a>(rules: &[&'a Rule]) -> Vec<Wrong<'a>> {
    let mut wrong = Vec::new();
    for rule in rules {
        for written in &rule.arguments {
            let Ok(argument) = CString::new(written.as_bytes()) else { continue };
            let Some(error) = Arguments::parse(&[&argument]).1.into_iter().next() else { continue };
            let seen = format!("{}: {error}", rule.place());
            let (is_fatal, change) = (error.is_fatal(), meant(written).map(Some));
            wrong.push(Wrong { rule, written, is_fatal, seen, change });
        }
    }
    let is_fatal = wrong.iter().any(|wrong| wrong.is_fatal);
    wrong.retain(|wrong| wrong.is_fatal == is_fatal);
    wrong
}

/// Returns one finding with one change that corrects all arguments. If one of them cannot be corrected, the
/// administrator corrects all, because a partial fix would be undone.
fn corrected(text: &str, wrong: Vec<Wrong<'_>>) -> Finding {
    let changes: Option<Vec<_>> = wrong
        .iter()
        .map(|wrong| {
            let by = wrong.change.as_ref().filter(|_| wrong.rule.file == FILE)?;
            Some((wrong.rule.line, wrong.written, by.as_deref()))
        })
        .collect();
    let edit = changes.and_then(|changes| Edit::arguments(text, &changes));
    let findings = wrong.into_iter().map(|wrong| {
        let level = if wrong.is_fatal { Finding::failure } else { Finding::warning };
        let finding = level(wrong.seen);
        match (&edit, wrong.change) {
            (Some(_), _) => finding,
            (None, change) => {
                let hint = match change {
                    Some(Some(meant)) => format!("did you mean {meant}? "),
                    _ => String::new(),
                };
                let place = wrong.rule.place();
                let advice = format!("{hint}correct the argument in {place}; pam_motion_ad(8) has them all");
                finding.advise(Place::Here, advice)
            }
        }
    });
    let finding =
        findings.reduce(Finding::and).unwrap_or_else(|| Finding::ok("every argument is understood"));
    match edit {
        Some(edit) => finding.edit(edit),
        None => finding,
    }
}

/// Returns the intended argument, if that is certain enough: a name or value with one or two wrong letters.
fn meant(argument: &str) -> Option<String> {
    const NEAR: usize = 2;
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, None),
    };
    let nearest = |names: &mut dyn Iterator<Item = &'static str>, written: &str| {
        let mut near: Vec<_> = names.map(|name| (crate::config::distance(name, written), name)).collect();
        near.sort_unstable();
        match near.as_slice() {
            [(far, name), rest @ ..] if *far <= NEAR && rest.first().is_none_or(|(next, _)| far < next) => {
                Some(*name)
            }
            _ => None,
        }
    };
    let known = nearest(&mut ARGUMENTS.iter().map(|known| known.name), name)?;
    let takes = ARGUMENTS.iter().find(|argument| argument.name == known)?.value;
    let meant = match (takes, value) {
        ("", None) => known.to_owned(),
        // A number followed by its unit.
        ("SECONDS", Some(value)) => {
            format!("{known}={}", value.trim_end_matches(|c: char| !c.is_ascii_digit()))
        }
        (takes, Some(value)) if takes.contains('|') => {
            format!("{known}={}", nearest(&mut takes.split('|'), value)?)
        }
        _ => return None,
    };
    let written = CString::new(meant.as_bytes()).ok()?;
    (meant != argument && Arguments::parse(&[&written]).1.is_empty()).then_some(meant)
}

pub(super) async fn order(facts: &Facts) -> Finding {
    let mut findings = Vec::new();
    for named in services(facts).await {
        findings.push(admits(facts, &named).await);
    }
    merged(findings)
}

async fn admits(facts: &Facts, named: &Named<'_>) -> Finding {
    let service = named.lines;
    if service.rules.iter().any(|rule| observes(rule) && rule.ignores_rejections()) {
        return Finding::skipped("logins are only observed, see pam-observe");
    }
    let modules = service.rules.iter().filter(|rule| rule.is_module() && !is_ours(rule));
    let missing: Missing =
        modules.map(|rule| rule.module.clone()).filter(|module| is_missing(facts, module)).collect();
    let finding = judged(&judge(service, &missing, facts.access().await.knows));
    match finding.level {
        Level::Ok => finding,
        _ => mended(facts, named, finding).await,
    }
}

fn is_missing(facts: &Facts, module: &str) -> bool {
    !facts.path(module::folder().join(module)).exists()
}

/// Returns the finding for a judgement of the service.
fn judged(judgement: &Judgement) -> Finding {
    let place = |rule: &Rule| format!("{} ({})", rule.place(), rule.name());
    let trouble = match judgement {
        Judgement::AdAlone => return Finding::ok("only users whom AD accepts get access"),
        Judgement::LocalToo => {
            return Finding::ok("users whom AD accepts get access; so do local users whom AD rejects");
        }
        Judgement::Trouble(trouble) => trouble,
    };
    match trouble.as_ref() {
        Trouble::LetsIn(kind, rule) if is_ours(rule) => Finding::failure(format!(
            "the {} lines give access to users whom AD rejects: the rejection by {} has no effect",
            kind.name(),
            rule.place()
        )),
        Trouble::LetsIn(kind, rule) => Finding::failure(format!(
            "the {} lines give access to users whom AD rejects: {}",
            kind.name(),
            place(rule)
        )),
        Trouble::KeepsOut(kind, rule) => Finding::failure(format!(
            "users cannot log in: the {} lines reject users whom AD accepts: {}",
            kind.name(),
            rule.as_ref().map_or_else(|| "none of these lines gives access".to_owned(), place)
        )),
        Trouble::Twice(rule) => Finding::warning(format!(
            "{} queries AD, too: a wrong password counts twice towards the lockout",
            place(rule)
        )),
        Trouble::LocalFirst(rule) => Finding::failure(format!(
            "{} runs before AD is queried: any local password, root's too, gives access to the application",
            place(rule)
        )),
    }
}

/// Checks that SSSD does not reject our service: `realm join` makes it apply group policies, which do not
/// know that service.
pub(super) async fn sssd(facts: &Facts) -> Finding {
    let mut findings = Vec::new();
    for named in services(facts).await {
        findings.push(passes_sssd(facts, &named).await);
    }
    merged(findings)
}

async fn passes_sssd(facts: &Facts, named: &Named<'_>) -> Finding {
    let name = named.name;
    let account = named.lines.stack(Kind::Account);
    let sss = |rule: &&Rule| rule.is_module() && rule.name() == "pam_sss.so";
    let Some(rule) = account.iter().copied().find(sss) else {
        return Finding::ok("pam_sss is not among the account lines");
    };
    let refused = Visitor { asks_ad: Value::PERM_DENIED, ..RIGHT };
    let matters = !visit(&account, refused, &Missing::new()).is_success();
    if !matters {
        return Finding::ok(format!("{} ({}) rejects no user whom AD accepts", rule.place(), rule.name()));
    }
    let domain = facts.config().await.map(|config| config.domain.name.clone());
    let sssd = facts.options().sssd.clone();
    let access = match spawn_blocking(move || Access::load(&sssd, domain.as_deref())).await {
        Ok(Ok(access)) => access,
        Ok(Err(JoinError::Denied(_))) => return Finding::skipped("needs root: sssd.conf"),
        _ => return Finding::because("join"),
    };
    match access {
        Some(access) if access.refuses(name) => Finding::failure(format!(
            "{} (pam_sss.so): SSSD refuses the service {name}, which no ad_gpo_map_ of [{}] names",
            rule.place(),
            access.section
        ))
        .advise(Place::Here, permit(&access, &facts.options().sssd.display().to_string(), named)),
        _ => Finding::ok(format!("{} (pam_sss.so): SSSD accepts the service {name}", rule.place())),
    }
}

/// Advises how to add the service to SSSD's map of services without a group policy. The file belongs to SSSD
/// and realm, so the doctor does not edit it.
fn permit(access: &Access, file: &str, named: &Named<'_>) -> String {
    let name = named.name;
    let line = match access.permitted.is_empty() {
        true => format!("ad_gpo_map_permit = +{name}"),
        false => format!("ad_gpo_map_permit = {}, +{name}", access.permitted.join(", ")),
    };
    format!(
        "keep a copy of {file}, set `{line}` in its section [{}], and restart sssd; or remove pam_sss from \
         {} if SSSD should not decide there",
        access.section, named.file
    )
}

/// Checks that the application and the LDAP bridge can read their service and its includes, as their real
/// users.
pub(super) async fn readable(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let application = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let mut findings = vec![read_by(&application, facts.service().await, FILE).await];
    // Without that user, config-readable fails.
    if let (Some(used), Ok(user)) = (bridge::used(facts).await, user(bridge::USER).await) {
        let file = format!("{SERVICES}/{}", used.settings.service);
        findings.push(read_by(&user, &used.service, &file).await);
    }
    merged(findings)
}

/// Checks that `user` can read the files of a service, of which `own` includes the others.
async fn read_by(user: &User, service: &Service, own: &str) -> Finding {
    let mut findings = Vec::new();
    for file in &service.files {
        let Err(cause) = application::reads(user, file).await else { continue };
        let finding = Finding::failure(format!("{} may not read {file}: {cause}", user.name));
        findings.push(match access(Path::new(file), None, 0o644) {
            Some(run) => finding.run(run),
            None => {
                let included = if file == own { String::new() } else { format!(" is included by {own}:") };
                finding.advise(
                    Place::Here,
                    format!("{file}{included} every user must be able to read it, as Debian installs it"),
                )
            }
        });
    }
    let well = || Finding::ok(format!("{} may read the service and what it includes", user.name));
    findings.into_iter().reduce(Finding::and).unwrap_or_else(well)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::Options;
    use super::*;

    fn service(text: &str) -> Service {
        const COMMON: &str = "auth [success=1 default=ignore] pam_unix.so nullok\n\
            auth requisite pam_deny.so\n\
            auth required pam_permit.so\naccount [success=1 new_authtok_reqd=done default=ignore] \
            pam_unix.so\n\
            account requisite pam_deny.so\naccount required pam_permit.so\n";
        const SSSD: &str = "auth [success=2 default=ignore] pam_unix.so nullok\n\
            auth [success=1 default=ignore] pam_sss.so use_first_pass\nauth requisite pam_deny.so\n\
            auth required pam_permit.so\n";
        Service::load(SERVICE, &|path| match path.to_str() {
            Some("/etc/pam.d/motion") => Ok(text.to_owned()),
            Some("/etc/pam.d/common") => Ok(COMMON.to_owned()),
            Some("/etc/pam.d/common-auth") => Ok(SSSD.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn of(text: &str, missing: &Missing, knows: bool) -> Finding {
        judged(&judge(&service(text), missing, knows))
    }

    const SHIPPED: &str = include_str!("../../pam.d/motion");
    const OURS: &str = "account required pam_motion_ad.so\n";

    #[test]
    fn the_shipped_service_lets_in_whom_ad_lets_in_and_nobody_else() {
        let finding = of(SHIPPED, &Missing::new(), true);
        assert_eq!(
            (finding.level, finding.seen.as_str()),
            (Level::Ok, "only users whom AD accepts get access")
        );
    }

    #[test]
    fn lines_that_open_or_close_the_door_are_found() {
        let cases = [
            (
                "auth optional pam_motion_ad.so\nauth required pam_permit.so\n",
                Level::Failure,
                "give access to users whom AD rejects",
            ),
            (
                "auth required pam_env.so\nauth optional pam_motion_ad.so\n",
                Level::Failure,
                "give access to users whom AD rejects",
            ),
            (
                "auth sufficient pam_motion_ad.so
auth required pam_deny.so\n",
                Level::Ok,
                "only users whom AD accepts",
            ),
            (
                "auth sufficient pam_motion_ad.so\nauth required pam_unix.so try_first_pass\n",
                Level::Ok,
                "so do local users",
            ),
            (
                "@include common\nauth required pam_motion_ad.so\n",
                Level::Failure,
                "common, line 2 (pam_deny.so)",
            ),
            (
                "auth required pam_unix.so\nauth required pam_motion_ad.so\n",
                Level::Failure,
                "motion, line 1 (pam_unix.so)",
            ),
            (
                "auth sufficient pam_unix.so\nauth required pam_motion_ad.so\n",
                Level::Failure,
                "motion, line 1 (pam_unix.so) runs before",
            ),
            (
                "auth sufficient pam_motion_ad.so\nauth sufficient pam_sss.so\nauth required pam_deny.so\n",
                Level::Failure,
                "give access to users whom AD rejects: /etc/pam.d/motion, line 2 (pam_sss.so)",
            ),
            (
                "auth [success=done authinfo_unavail=ignore user_unknown=ignore default=die] \
                 pam_motion_ad.so\nauth required pam_sss.so\n",
                Level::Ok,
                "only users whom AD accepts",
            ),
            (
                "auth [success=done auth_err=ignore default=die] pam_motion_ad.so\n\
                 auth required pam_sss.so\n",
                Level::Warning,
                "counts twice",
            ),
            (
                "auth required pam_faillock.so preauth\nauth [success=1 default=bad] pam_motion_ad.so\n\
                 auth [default=die] pam_faillock.so authfail\nauth sufficient pam_faillock.so authsucc\n",
                Level::Ok,
                "only users whom AD accepts",
            ),
            (
                "auth [success=1 default=ignore] pam_unix.so\nauth required pam_motion_ad.so\n\
                 auth required pam_permit.so\n",
                Level::Failure,
                "runs before",
            ),
            ("auth [success=ignore] pam_motion_ad.so\n", Level::Failure, "none of these lines"),
            (
                "auth [success=1 default=ignore] pam_succeed_if.so quiet user = admin\n\
                 auth [success=done default=die] pam_motion_ad.so\nauth required pam_pwdfile.so pwdfile=/x\n",
                Level::Ok,
                "so do local users",
            ),
            (
                "auth required pam_succeed_if.so quiet user ingroup agents\nauth required pam_motion_ad.so\n",
                Level::Ok,
                "only users whom AD accepts",
            ),
        ];
        for (text, level, seen) in cases {
            let text = if text.contains("common") { text.to_owned() } else { format!("{text}{OURS}") };
            let finding = of(&text, &Missing::new(), true);
            assert_eq!(finding.level, level, "{text}{finding:?}");
            assert!(finding.seen.contains(seen), "{text}{finding:?}");
        }
    }

    #[test]
    fn a_module_that_is_missing_refuses() {
        let text = "auth required pam_motion_ad.so\nauth required pam_env.so\n";
        let text = format!("{text}{OURS}");
        assert_eq!(of(&text, &Missing::new(), true).level, Level::Ok);
        let finding = of(&text, &Missing::from(["pam_env.so".to_owned()]), true);
        assert!(finding.seen.contains("motion, line 2 (pam_env.so)"), "{finding:?}");
    }

    #[test]
    fn account_lines_count_as_much() {
        let auth = "auth required pam_motion_ad.so\n";
        let cases = [
            (
                "account required pam_motion_ad.so\naccount required pam_unix.so\n",
                "motion, line 3 (pam_unix.so)",
            ),
            (
                "account optional pam_motion_ad.so
account required pam_permit.so\n",
                "account lines give access",
            ),
        ];
        for (text, seen) in cases {
            let finding = of(&format!("{auth}{text}"), &Missing::new(), false);
            assert_eq!(finding.level, Level::Failure, "{text}{finding:?}");
            assert!(finding.seen.contains(seen), "{text}{finding:?}");
        }
    }

    /// As `realm join` writes it: SSSD knows john.doe@acme.com, which no user types.
    #[test]
    fn an_include_that_only_ssd_could_pass_keeps_everybody_out() {
        let text = format!("@include common-auth\nauth required pam_motion_ad.so\n{OURS}");
        let finding = of(&text, &Missing::new(), false);
        assert_eq!(finding.level, Level::Failure, "{finding:?}");
        assert!(finding.seen.starts_with("users cannot log in: the auth lines"), "{finding:?}");
        // If SSSD knows the names, it also sends the password to AD.
        let finding = of(&text, &Missing::new(), true);
        assert!(finding.seen.contains("counts twice"), "{finding:?}");
        // The host knows the name, so pam_unix accepts an account that AD has disabled.
        let account =
            "auth required pam_motion_ad.so\naccount sufficient pam_motion_ad.so\n@include common\n";
        let finding = of(&account.replace("@include", "account include"), &Missing::new(), true);
        assert_eq!(finding.level, Level::Failure, "{finding:?}");
        assert!(
            finding.seen.contains("the account lines give access to users whom AD rejects"),
            "{finding:?}"
        );
    }

    #[test]
    fn an_argument_is_what_it_was_meant_to_be() {
        for (written, right) in [
            ("timeout=5s", Some("timeout=5")),
            ("timout=3", Some("timeout=3")),
            ("timeout=300", None),
            ("expired=acount", Some("expired=account")),
            ("session=Auth", Some("session=auth")),
            ("mesages", Some("messages")),
            ("nullok", None),
            ("socket=x", None),
        ] {
            assert_eq!(meant(written).as_deref(), right, "{written}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_the_unit_listens_on_is_right_and_no_other_is_removed_blindly() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _listener = UnixListener::bind(path("live")).unwrap();
        drop(UnixListener::bind(path("dead")).unwrap());
        let usual = PathBuf::from(SOCKET);
        // The named socket, those of the unit; whether logins fail, and whether the fix is automatic.
        for (name, listens, expected) in [
            ("gone", vec![path("gone")], None),
            ("gone", vec![usual.clone(), path("gone")], None),
            ("gone", vec![usual.clone()], Some((true, true))),
            ("dead", vec![usual.clone()], Some((true, false))),
            ("live", vec![usual.clone()], Some((false, false))),
            // Without the argument, the module would connect where nothing listens.
            ("gone", vec![path("live")], Some((true, false))),
            ("gone", vec![], Some((true, false))),
        ] {
            let line = format!("auth required pam_motion_ad.so socket={}\n", path(name).display());
            let service = service(&line);
            let rules: Vec<_> = service.rules.iter().collect();
            let wrong = elsewhere(&rules, &usual, &listens).await;
            let found = wrong.first().map(|wrong| (wrong.is_fatal, wrong.change.is_some()));
            assert_eq!(found, expected, "{name} {listens:?}");
            assert!(elsewhere(&rules, &path(name), &listens).await.is_empty(), "{name} {listens:?}");
            if let Some((is_fatal, is_automatic)) = expected {
                let finding = corrected(&line, wrong);
                assert_eq!(finding.level == Level::Failure, is_fatal, "{finding:?}");
                assert_eq!(finding.fix[0].is_automatic(), is_automatic, "{finding:?}");
            }
        }
    }

    /// A host whose bridge has this service, if any.
    fn host(of_bridge: Option<&str>) -> (tempfile::TempDir, Facts) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["var/opt/motion2", "etc/pam.d"] {
            fs::create_dir_all(file(name)).unwrap();
        }
        fs::write(file("var/opt/motion2/.env"), "XC_ACTIVEDIRECTORY_URL='ldap://127.0.0.1:3890'\n").unwrap();
        fs::write(file("config.toml"), "bridge.service = \"motion-bridge\"\n").unwrap();
        fs::write(file("etc/pam.d/motion"), SHIPPED).unwrap();
        let modules = folder.path().join(module::folder().strip_prefix("/").unwrap());
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("pam_permit.so"), "").unwrap();
        if let Some(text) = of_bridge {
            fs::write(file("etc/pam.d/motion-bridge"), text).unwrap();
        }
        let (config, sssd) = (file("config.toml"), file("sssd.conf"));
        let options = Options { config, sssd, socket: file("broker.sock"), login: None };
        let facts = Facts::at_root(options, folder.path());
        (folder, facts)
    }

    #[tokio::test]
    async fn the_service_of_the_bridge_is_judged_too() {
        let (_folder, facts) = host(None);
        let missing = super::service(&facts).await;
        assert_eq!(missing.level, Level::Failure);
        assert!(missing.seen.contains("/etc/pam.d/motion-bridge: No such file"), "{missing:?}");
        assert!(missing.fix.iter().all(|fix| !fix.is_automatic()), "{missing:?}");

        for (text, of_lines, of_order, seen) in [
            (SHIPPED, Level::Ok, Level::Ok, "only users whom AD accepts"),
            (
                "auth optional pam_motion_ad.so\nauth required pam_permit.so\n\
                 account required pam_motion_ad.so\n",
                Level::Ok,
                Level::Failure,
                "give access to users whom AD rejects",
            ),
            ("auth required pam_permit.so\n", Level::Failure, Level::Ok, ""),
        ] {
            let (_folder, facts) = host(Some(text));
            let found = lines(&facts).await;
            assert_eq!(found.level, of_lines, "{text}{found:?}");
            let found = order(&facts).await;
            assert_eq!(found.level, of_order, "{text}{found:?}");
            assert!(found.seen.contains(seen), "{text}{found:?}");
            assert!(found.fix.iter().all(|fix| !fix.is_automatic()), "{found:?}");
        }
    }

    #[test]
    fn sssds_own_setting_is_named_and_its_file_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let lines = Service::default();
        let named = Named { name: SERVICE, file: FILE.to_owned(), lines: &lines };
        let head =
            "[sssd]\ndomains = acme.com\n\n[domain/acme.com]\nid_provider = ad\naccess_provider = ad\n";
        for (more, line) in [
            ("", "ad_gpo_map_permit = +motion"),
            ("ad_gpo_map_permit = +sudo\n", "ad_gpo_map_permit = +sudo, +motion"),
        ] {
            fs::write(path, format!("{head}{more}")).unwrap();
            let access = Access::load(path, None).unwrap().unwrap();
            assert!(access.refuses(SERVICE));
            assert!(permit(&access, "/etc/sssd/sssd.conf", &named).contains(&format!("`{line}`")));
            fs::write(path, format!("{head}{line}\n")).unwrap();
            assert!(!Access::load(path, None).unwrap().unwrap().refuses(SERVICE), "{line}");
        }
    }
}
