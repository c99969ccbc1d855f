//! `/etc/pam.d/motion`: whether libpam can read it, and which users its lines admit and reject.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::task::spawn_blocking;

use super::application;
use super::commands;
use super::commands::Place;
use super::edit::Edit;
use super::edit::PAM_SERVICE as FILE;
use super::facts::{Facts, SERVICE};
use super::finding::{Finding, Level};
use super::fix::access;
use super::module;
use super::repair::Host;
use super::stack::{Kind, Rule, Value};
use super::visitors::{Judgement, MODULE, Missing, RIGHT, Trouble, Visitor, is_ours, judge, observes, visit};
use crate::config::{Access, JoinError};
use crate::module::arguments::{ARGUMENTS, Arguments};

/// Advice for a service that no safe change can fix.
const BY_HAND: &str = "change /etc/pam.d/motion by hand, and no other file of /etc/pam.d: those are for \
                       other services, su and sudo among them";

pub(super) async fn service(facts: &Facts) -> Finding {
    let found = match fs::metadata(facts.path(FILE)) {
        Ok(found) => found,
        Err(e) => return mended(facts, Finding::failure(format!("{FILE}: {e}"))).await,
    };
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o777;
        return Finding::failure(format!(
            "users other than root may change {FILE} (mode {mode:04o}, uid {})",
            found.uid()
        ))
        .run_with(access(Path::new(FILE), Some("root:root"), 0o644));
    }
    let service = facts.service().await;
    match service.faults.first() {
        Some(fault) => {
            let place = match fault.line {
                Some(line) => format!("{}, line {line}", fault.file),
                None => fault.file.clone(),
            };
            mended(facts, Finding::failure(format!("{place}: {}", fault.text))).await
        }
        None => Finding::ok(format!("{} lines of {}", service.rules.len(), service.files.join(", "))),
    }
}

/// Adds the change of the service that fixes the finding, or the advice to make one by hand.
async fn mended(facts: &Facts, finding: Finding) -> Finding {
    match edit(facts).await {
        Some(edit) => finding.edit(edit),
        None => finding.command(&commands::SHOW_SERVICE, "").advise(Place::Here, BY_HAND),
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
    let service = facts.service().await;
    for kind in [Kind::Auth, Kind::Account] {
        let stack = service.stack(kind);
        // A service that only observes does not need both.
        if stack.iter().any(|rule| is_ours(rule)) || service.rules.iter().any(observes) {
            continue;
        }
        let finding = Finding::failure(match stack.is_empty() {
            true => {
                format!("{FILE} has no {} line at all: libpam takes those of /etc/pam.d/other", kind.name())
            }
            false => format!("no {} line of {FILE} calls {MODULE}", kind.name()),
        });
        return mended(facts, finding).await;
    }
    let decides = |rule: &&Rule| matches!(rule.kind, Kind::Auth | Kind::Account) && is_ours(rule);
    let places =
        service.rules.iter().filter(decides).map(|rule| format!("{}: {}", rule.kind.name(), rule.place()));
    Finding::ok(places.collect::<Vec<_>>().join("; "))
}

pub(super) async fn arguments(facts: &Facts) -> Finding {
    let text = fs::read_to_string(facts.path(FILE)).unwrap_or_default();
    let service = facts.service().await;
    let rules: Vec<_> = service.rules.iter().filter(|rule| is_ours(rule)).collect();
    let misread = misread(&rules);
    if !misread.is_empty() {
        return corrected(&text, misread);
    }
    let wanted = &facts.options().socket;
    let mut elsewhere = Vec::new();
    for rule in rules {
        let written = rule.arguments.iter().find(|argument| argument.starts_with("socket="));
        let path = written.and_then(|written| written.strip_prefix("socket="));
        if let (Some(written), Some(path)) = (written, path)
            && wanted.to_str() != Some(path)
        {
            let seen = format!("{}: {written}, but the broker listens on {}", rule.place(), wanted.display());
            let change = Some(None);
            elsewhere.push(Wrong { rule, written, is_fatal: true, seen, change });
        }
    }
    match elsewhere.is_empty() {
        true => Finding::ok("every argument is understood"),
        false => corrected(&text, elsewhere),
    }
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
    let service = facts.service().await;
    if service.rules.iter().any(|rule| observes(rule) && rule.ignores_rejections()) {
        return Finding::skipped("logins are only observed, see pam-observe");
    }
    let modules = service.rules.iter().filter(|rule| rule.is_module() && !is_ours(rule));
    let missing: Missing =
        modules.map(|rule| rule.module.clone()).filter(|module| is_missing(facts, module)).collect();
    let finding = judged(&judge(service, &missing, facts.access().await.knows));
    match finding.level {
        Level::Ok => finding,
        _ => mended(facts, finding).await,
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
    let service = facts.service().await;
    let account = service.stack(Kind::Account);
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
        Some(access) if access.refuses(SERVICE) => Finding::failure(format!(
            "{} (pam_sss.so): SSSD refuses the service {SERVICE}, which no ad_gpo_map_ of [{}] names",
            rule.place(),
            access.section
        ))
        .advise(Place::Here, permit(&access, &facts.options().sssd.display().to_string())),
        _ => Finding::ok(format!("{} (pam_sss.so): SSSD accepts the service {SERVICE}", rule.place())),
    }
}

/// Advises how to add the service to SSSD's map of services without a group policy. The file belongs to SSSD
/// and realm, so the doctor does not edit it.
fn permit(access: &Access, file: &str) -> String {
    let line = match access.permitted.is_empty() {
        true => format!("ad_gpo_map_permit = +{SERVICE}"),
        false => format!("ad_gpo_map_permit = {}, +{SERVICE}", access.permitted.join(", ")),
    };
    format!(
        "keep a copy of {file}, set `{line}` in its section [{}], and restart sssd; or remove pam_sss from \
         {FILE} if SSSD should not decide there",
        access.section
    )
}

/// Checks that the application can read the service and its includes, as its real user.
pub(super) async fn readable(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let user = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let mut found: Option<Finding> = None;
    for file in &facts.service().await.files {
        if let Err(cause) = application::reads(&user, file).await {
            let finding = Finding::failure(format!("{} may not read {file}: {cause}", user.name));
            let finding = match access(Path::new(file), None, 0o644) {
                Some(run) => finding.run(run),
                None => finding.advise(
                    Place::Here,
                    format!(
                        "{file} is included by {FILE}: every user must be able to read it, as Debian \
                         installs it"
                    ),
                ),
            };
            found = Some(match found {
                Some(found) => found.and(finding),
                None => finding,
            });
        }
    }
    found.unwrap_or_else(|| Finding::ok(format!("{} may read the service and what it includes", user.name)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::stack::Service;
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

    #[test]
    fn sssds_own_setting_is_named_and_its_file_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let head =
            "[sssd]\ndomains = acme.com\n\n[domain/acme.com]\nid_provider = ad\naccess_provider = ad\n";
        for (more, line) in [
            ("", "ad_gpo_map_permit = +motion"),
            ("ad_gpo_map_permit = +sudo\n", "ad_gpo_map_permit = +sudo, +motion"),
        ] {
            fs::write(path, format!("{head}{more}")).unwrap();
            let access = Access::load(path, None).unwrap().unwrap();
            assert!(access.refuses(SERVICE));
            assert!(permit(&access, "/etc/sssd/sssd.conf").contains(&format!("`{line}`")));
            fs::write(path, format!("{head}{line}\n")).unwrap();
            assert!(!Access::load(path, None).unwrap().unwrap().refuses(SERVICE), "{line}");
        }
    }
}
