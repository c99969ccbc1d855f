//! `/etc/pam.d/motion`: whether libpam can read it, and what its lines let in and keep out.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tokio::task::spawn_blocking;

use super::application;
use super::facts::{Facts, SERVICE};
use super::finding::{Finding, quote};
use super::module;
use super::stack::{Decision, Kind, Rule, Service, Value, decide};
use crate::config::{Access, JoinError};
use crate::module::arguments::Arguments;

/// The module's file.
pub(super) const MODULE: &str = "pam_motion_ad.so";
/// The service's file.
const FILE: &str = "/etc/pam.d/motion";
/// As it is shipped, without its comments.
const SHIPPED: &str = include_str!("../../pam.d/motion");

/// Whether a line calls our module.
pub(super) fn is_ours(rule: &Rule) -> bool {
    rule.is_module() && rule.name() == MODULE
}

pub(super) async fn service(facts: &Facts) -> Finding {
    let found = match fs::metadata(facts.path(FILE)) {
        Ok(found) => found,
        Err(e) => return Finding::failure(format!("{FILE}: {e}")).mend(write_shipped()),
    };
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o777;
        return Finding::failure(format!(
            "others than root may change {FILE} (mode {mode:04o}, uid {})",
            found.uid()
        ))
        .mend(format!("chown root:root {FILE} && chmod 0644 {FILE}"));
    }
    let service = facts.service().await;
    match service.faults.first() {
        Some(fault) => {
            let place = match fault.line {
                Some(line) => format!("{}, line {line}", fault.file),
                None => fault.file.clone(),
            };
            let finding = Finding::failure(format!("{place}: {}", fault.text));
            match fault.line {
                Some(line) => finding.mend(comment_out(&fault.file, line)),
                None => finding.mend(write_shipped()),
            }
        }
        None => Finding::ok(format!("{} lines of {}", service.rules.len(), service.files.join(", "))),
    }
}

/// Takes a line of a file out of force.
pub(super) fn comment_out(file: &str, line: usize) -> String {
    format!("sed -i '{line}s/^/# /' {}", quote(file))
}

/// Writes the service as it is shipped.
fn write_shipped() -> String {
    let lines = SHIPPED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = lines.map(|line| quote(&line.split_whitespace().collect::<Vec<_>>().join(" ")));
    format!("printf '%s\\n' {} >{FILE}", words.collect::<Vec<_>>().join(" "))
}

pub(super) async fn lines(facts: &Facts) -> Finding {
    let service = facts.service().await;
    for kind in [Kind::Auth, Kind::Account] {
        let stack = service.stack(kind);
        if stack.iter().any(|rule| is_ours(rule)) {
            continue;
        }
        let finding = Finding::failure(match stack.is_empty() {
            true => {
                format!("{FILE} has no {} line at all: libpam takes those of /etc/pam.d/other", kind.name())
            }
            false => format!("no {} line of {FILE} calls {MODULE}", kind.name()),
        });
        return finding.mend(match stack.is_empty() {
            true => format!("printf '%s\\n' '{} required {MODULE}' >>{FILE}", kind.name()),
            false => format!("cp {FILE} /etc/motion-ad/pam-motion.old && {}", write_shipped()),
        });
    }
    let decides = |rule: &&Rule| matches!(rule.kind, Kind::Auth | Kind::Account) && is_ours(rule);
    let places =
        service.rules.iter().filter(decides).map(|rule| format!("{}: {}", rule.kind.name(), rule.place()));
    Finding::ok(places.collect::<Vec<_>>().join("; "))
}

pub(super) async fn arguments(facts: &Facts) -> Finding {
    let service = facts.service().await;
    let mut unknown = None;
    for rule in service.rules.iter().filter(|rule| is_ours(rule)) {
        for argument in &rule.arguments {
            let Ok(written) = CString::new(argument.as_bytes()) else { continue };
            let Some(error) = Arguments::parse(&[&written]).1.into_iter().next() else { continue };
            let is_fatal = error.is_fatal();
            let text = format!("{}: {error}", rule.place());
            let mend = take_off(rule, argument);
            if is_fatal {
                return Finding::failure(text).mend(mend);
            }
            unknown.get_or_insert(Finding::warning(text).mend(mend));
        }
    }
    if let Some(finding) = unknown {
        return finding;
    }
    let wanted = &facts.options().socket;
    let elsewhere = service.rules.iter().filter(|rule| is_ours(rule)).find_map(|rule| {
        let written = rule.arguments.iter().find(|argument| argument.starts_with("socket="))?;
        let path = written.strip_prefix("socket=")?;
        (wanted.to_str() != Some(path)).then(|| (rule, written.clone()))
    });
    match elsewhere {
        Some((rule, written)) => Finding::failure(format!(
            "{}: {written}, but the broker listens on {}",
            rule.place(),
            wanted.display()
        ))
        .mend(take_off(rule, &written)),
        None => Finding::ok("every argument is understood"),
    }
}

/// Takes an argument off a line. What a regular expression would read in it is escaped.
fn take_off(rule: &Rule, argument: &str) -> String {
    let pattern: String = argument.chars().fold(String::new(), |mut pattern, c| {
        if "\\^$.*[]/&".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    });
    format!("sed -i {} {}", quote(&format!("{}s/[[:space:]]{pattern}//", rule.line)), quote(&rule.file))
}

/// What is known of a module that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// Always lets in.
    Permits,
    /// Never lets in.
    Denies,
    /// Asks AD with the same password.
    AsksAd,
    /// Knows people by itself: local users.
    Local,
    /// Is for people who are named on its line.
    Names,
    /// Has an opinion about the circumstances, not about who it is.
    Neutral,
    /// Has no opinion.
    Silent,
    /// Anything else.
    Unknown,
}

/// Modules of Debian's libpam-modules and of the packages that ask AD.
const OTHERS: &[(&str, Other)] = &[
    ("pam_permit.so", Other::Permits),
    ("pam_deny.so", Other::Denies),
    ("pam_sss.so", Other::AsksAd),
    ("pam_winbind.so", Other::AsksAd),
    ("pam_krb5.so", Other::AsksAd),
    ("pam_ldap.so", Other::AsksAd),
    ("pam_unix.so", Other::Local),
    ("pam_extrausers.so", Other::Local),
    ("pam_pwdfile.so", Other::Local),
    ("pam_access.so", Other::Neutral),
    ("pam_env.so", Other::Neutral),
    ("pam_group.so", Other::Neutral),
    ("pam_limits.so", Other::Neutral),
    ("pam_nologin.so", Other::Neutral),
    ("pam_securetty.so", Other::Neutral),
    ("pam_shells.so", Other::Neutral),
    ("pam_time.so", Other::Neutral),
    ("pam_faillock.so", Other::Neutral),
    ("pam_faildelay.so", Other::Silent),
    ("pam_warn.so", Other::Silent),
    ("pam_echo.so", Other::Silent),
];

fn other(rule: &Rule) -> Other {
    // pam_succeed_if(8): `user = NAME`, `user in NAME:NAME`. What else it may ask, of groups for instance, is not known.
    let names = |words: &[String]| matches!(words, [what, how, _] if what == "user" && ["=", "in"].contains(&how.as_str()));
    if rule.name() == "pam_succeed_if.so" && rule.arguments.windows(3).any(names) {
        return Other::Names;
    }
    let known = OTHERS.iter().find(|(name, _)| *name == rule.name());
    known.map_or(Other::Unknown, |(_, other)| *other)
}

/// Who comes to log in.
#[derive(Clone, Copy, Debug)]
struct Visitor {
    /// What our module answers.
    ours: Value,
    /// Whether a local user has that name and that password.
    local: bool,
    /// Whether the modules that ask AD themselves let the person in.
    sssd: bool,
    /// What is not known lets in.
    unknown: bool,
}

/// Decides for `visitor`, where the modules in `missing` are not there to be asked.
fn visit(stack: &[&Rule], visitor: Visitor, missing: &Missing) -> Decision {
    let (refused, unknown) = (Value::AUTH_ERR, Value::USER_UNKNOWN);
    decide(stack, &|rule| {
        let says = |yes: bool, no: Value| if yes { Value::SUCCESS } else { no };
        if is_ours(rule) {
            return visitor.ours;
        }
        match other(rule) {
            _ if missing.contains(&rule.module) => Value::MODULE_UNKNOWN,
            Other::Permits => Value::SUCCESS,
            Other::Denies => refused,
            Other::AsksAd => says(visitor.sssd, Value::PERM_DENIED),
            Other::Local => says(visitor.local, unknown),
            // Nobody names all the people of AD; a local administrator may be named.
            Other::Names => says(visitor.local, refused),
            // It records the failure, and says so.
            Other::Neutral if rule.arguments.iter().any(|argument| argument == "authfail") => refused,
            Other::Neutral => Value::SUCCESS,
            Other::Silent => Value::IGNORE,
            Other::Unknown => says(visitor.unknown, refused),
        }
    })
}

/// Somebody of AD whose password is right, and whom no other module knows.
const RIGHT: Visitor = Visitor { ours: Value::SUCCESS, local: false, sssd: true, unknown: true };
/// The same with a wrong one.
const WRONG: Visitor = Visitor { ours: Value::AUTH_ERR, local: false, sssd: false, unknown: false };

/// Modules whose files are not there.
type Missing = BTreeSet<String>;

pub(super) async fn order(facts: &Facts) -> Finding {
    let service = facts.service().await;
    judge(service, &missing(facts, service))
}

fn missing(facts: &Facts, service: &Service) -> Missing {
    let modules = service.rules.iter().filter(|rule| rule.is_module() && !is_ours(rule));
    let is_missing = |rule: &&Rule| !facts.path(module::folder().join(&rule.module)).exists();
    modules.filter(is_missing).map(|rule| rule.module.clone()).collect()
}

/// What the lines make of people: those of AD come in, nobody else does, and no password is tried twice.
fn judge(service: &Service, missing: &Missing) -> Finding {
    for (kind, refusal) in [(Kind::Auth, Value::AUTH_ERR), (Kind::Account, Value::PERM_DENIED)] {
        let stack = service.stack(kind);
        let name = kind.name();
        let ours = stack.iter().position(|rule| is_ours(rule));
        let Some(ours) = ours.and_then(|index| stack.get(index).map(|rule| (index, *rule))) else { continue };
        let wrong = visit(&stack, Visitor { ours: refusal, ..WRONG }, missing);
        if wrong.is_success() {
            return Finding::failure(format!(
                "the {name} lines let in whom AD refuses: nothing comes of the refusal of {}",
                ours.1.place()
            ))
            .mend(require(ours.1));
        }
        let right = visit(&stack, RIGHT, missing);
        if !right.is_success() {
            let culprit = culprit(&stack, &right, ours.0, missing);
            let finding =
                Finding::failure(format!("the {name} lines keep out whom AD lets in: {}", place(culprit)));
            return match culprit.filter(|rule| !is_ours(rule)) {
                Some(rule) => finding.mend(comment_out(&rule.file, rule.line)),
                None => finding.mend(require(ours.1)),
            };
        }
    }
    let auth = service.stack(Kind::Auth);
    let Some(ours) = auth.iter().position(|rule| is_ours(rule)) else { return Finding::ok("") };
    let wrong = visit(&auth, WRONG, missing);
    let twice =
        wrong.called.iter().filter_map(|index| auth.get(*index)).find(|rule| other(rule) == Other::AsksAd);
    if let Some(rule) = twice {
        return Finding::warning(format!(
            "{} asks AD, too: a wrong password counts twice towards the lockout",
            place(Some(rule))
        ))
        .mend(comment_out(&rule.file, rule.line));
    }
    let local = visit(&auth, Visitor { local: true, ..WRONG }, missing);
    if !local.is_success() {
        return Finding::ok("whom AD lets in comes in, and nobody else");
    }
    let first = local.called.iter().filter_map(|index| Some((*index, *auth.get(*index)?)));
    let first = first.into_iter().find(|(index, rule)| *index < ours && other(rule) == Other::Local);
    match first {
        Some((_, rule)) => Finding::warning(format!(
            "{} comes before AD is asked: a local user's password, root's too, opens the application",
            place(Some(rule))
        ))
        .mend(comment_out(&rule.file, rule.line)),
        None => Finding::ok("whom AD lets in comes in; a local user does, too, whom AD does not let in"),
    }
}

/// The line that ended it: the last one that was called before ours had its turn, else the last of all.
fn culprit<'a>(stack: &[&'a Rule], decision: &Decision, ours: usize, missing: &Missing) -> Option<&'a Rule> {
    let called = || decision.called.iter().copied();
    let index = match called().any(|index| index == ours) {
        false => called().last(),
        // Whoever answers something else than success, after or before ours.
        true => called().find(|index| {
            stack.get(*index).is_some_and(|rule| {
                let refuses = matches!(other(rule), Other::Denies | Other::Local | Other::Unknown);
                !is_ours(rule) && (refuses || missing.contains(&rule.module))
            })
        }),
    };
    stack.get(index?).copied()
}

fn place(rule: Option<&Rule>) -> String {
    match rule {
        Some(rule) => format!("{} ({})", rule.place(), rule.name()),
        None => "no line of them lets anybody in".to_owned(),
    }
}

/// Makes our line one that has to be passed.
fn require(rule: &Rule) -> String {
    let kind = rule.kind.name();
    let control = if rule.written.contains('=') { "\\[[^]]*\\]" } else { "[[:alpha:]]*" };
    let script =
        format!("{}s/^\\([[:space:]]*-\\?{kind}[[:space:]][[:space:]]*\\){control}/\\1required/", rule.line);
    format!("sed -i {} {}", quote(&script), quote(&rule.file))
}

/// `realm join` has SSSD judge by group policies, which know nothing of our service.
pub(super) async fn sssd(facts: &Facts) -> Finding {
    let service = facts.service().await;
    let account = service.stack(Kind::Account);
    let sss = |rule: &&Rule| rule.is_module() && rule.name() == "pam_sss.so";
    let Some(rule) = account.iter().copied().find(sss) else {
        return Finding::ok("pam_sss is not among the account lines");
    };
    let matters = !visit(&account, Visitor { sssd: false, ..RIGHT }, &Missing::new()).is_success();
    if !matters {
        return Finding::ok(format!("{} ({}) keeps nobody out", rule.place(), rule.name()));
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
        .mend(permit(&access, &facts.options().sssd.display().to_string())),
        _ => Finding::ok(format!("{} (pam_sss.so): SSSD lets the service {SERVICE} pass", rule.place())),
    }
}

/// Adds the service to SSSD's map of those that need no group policy.
fn permit(access: &Access, file: &str) -> String {
    let script = match access.permitted.is_empty() {
        true => {
            format!("/^\\[{}\\]/a ad_gpo_map_permit = +{SERVICE}", access.section.replace(['/', '.'], "."))
        }
        false => format!("s/^[[:space:]]*ad_gpo_map_permit[[:space:]]*=.*/&, +{SERVICE}/"),
    };
    format!("sed -i {} {} && systemctl restart sssd.service", quote(&script), quote(file))
}

/// Really as the user that the application runs as.
pub(super) async fn readable(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let user = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    for file in &facts.service().await.files {
        if let Err(cause) = application::reads(&user, file).await {
            return Finding::failure(format!("{} may not read {file}: {cause}", user.name))
                .mend(format!("chmod a+rx /etc/pam.d && chmod a+r {}", quote(file)));
        }
    }
    Finding::ok(format!("{} may read the service and what it includes", user.name))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::finding::Level;
    use super::*;

    fn service(text: &str) -> Service {
        const COMMON: &str = "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n\
            auth required pam_permit.so\naccount [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n\
            account requisite pam_deny.so\naccount required pam_permit.so\n";
        Service::load(SERVICE, &|path| match path.to_str() {
            Some("/etc/pam.d/motion") => Ok(text.to_owned()),
            Some("/etc/pam.d/common") => Ok(COMMON.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    const OURS: &str = "account required pam_motion_ad.so\n";

    #[test]
    fn the_shipped_service_lets_in_whom_ad_lets_in_and_nobody_else() {
        let finding = judge(&service(SHIPPED), &Missing::new());
        assert_eq!(
            (finding.level, finding.seen.as_str()),
            (Level::Ok, "whom AD lets in comes in, and nobody else")
        );
    }

    #[test]
    fn lines_that_open_or_close_the_door_are_found() {
        let cases = [
            (
                "auth optional pam_motion_ad.so\nauth required pam_permit.so\n",
                Level::Failure,
                "let in whom AD refuses",
            ),
            (
                "auth required pam_env.so\nauth optional pam_motion_ad.so\n",
                Level::Failure,
                "let in whom AD refuses",
            ),
            ("auth sufficient pam_motion_ad.so\nauth required pam_deny.so\n", Level::Ok, "nobody else"),
            (
                "auth sufficient pam_motion_ad.so\nauth required pam_unix.so try_first_pass\n",
                Level::Ok,
                "a local user",
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
                Level::Warning,
                "motion, line 1 (pam_unix.so) comes before",
            ),
            (
                "auth sufficient pam_motion_ad.so\nauth sufficient pam_sss.so\nauth required pam_deny.so\n",
                Level::Warning,
                "counts twice",
            ),
            (
                "auth required pam_faillock.so preauth\nauth [success=1 default=bad] pam_motion_ad.so\nauth [default=die] pam_faillock.so authfail\nauth sufficient pam_faillock.so authsucc\n",
                Level::Ok,
                "nobody else",
            ),
            (
                "auth [success=1 default=ignore] pam_unix.so\nauth required pam_motion_ad.so\nauth required pam_permit.so\n",
                Level::Warning,
                "comes before",
            ),
            ("auth [success=ignore] pam_motion_ad.so\n", Level::Failure, "no line of them"),
            (
                "auth [success=1 default=ignore] pam_succeed_if.so quiet user = admin\nauth [success=done default=die] pam_motion_ad.so\nauth required pam_pwdfile.so pwdfile=/x\n",
                Level::Ok,
                "a local user",
            ),
            (
                "auth required pam_succeed_if.so quiet user ingroup agents\nauth required pam_motion_ad.so\n",
                Level::Ok,
                "nobody else",
            ),
        ];
        for (text, level, seen) in cases {
            let text = if text.contains("common") { text.to_owned() } else { format!("{text}{OURS}") };
            let finding = judge(&service(&text), &Missing::new());
            assert_eq!(finding.level, level, "{text}{finding:?}");
            assert!(finding.seen.contains(seen), "{text}{finding:?}");
        }
    }

    #[test]
    fn a_module_that_is_missing_refuses() {
        let text = "auth required pam_motion_ad.so\nauth required pam_env.so\n";
        let service = service(&format!("{text}{OURS}"));
        assert_eq!(judge(&service, &Missing::new()).level, Level::Ok);
        let finding = judge(&service, &Missing::from(["pam_env.so".to_owned()]));
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
            ("account optional pam_motion_ad.so\naccount required pam_permit.so\n", "account lines let in"),
        ];
        for (text, seen) in cases {
            let finding = judge(&service(&format!("{auth}{text}")), &Missing::new());
            assert_eq!(finding.level, Level::Failure, "{text}{finding:?}");
            assert!(finding.seen.contains(seen), "{text}{finding:?}");
        }
    }

    #[test]
    fn commands_that_change_a_line_change_what_they_should() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let rule = |text: &str| {
            fs::write(path, text).unwrap();
            let read = Service::load(path, &|path| fs::read_to_string(path));
            read.rules.into_iter().find(is_ours).unwrap()
        };
        let run = |command: String| {
            let done = std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
            assert!(done.success(), "{command}");
            fs::read_to_string(path).unwrap()
        };
        let line = rule("auth required pam_motion_ad.so timeout=5s debug\n");
        assert_eq!(run(take_off(&line, "timeout=5s")), "auth required pam_motion_ad.so debug\n");
        let line = rule("auth required pam_motion_ad.so socket=/a/[b].sock\n");
        assert_eq!(run(take_off(&line, "socket=/a/[b].sock")), "auth required pam_motion_ad.so\n");
        let line = rule("# x\n-auth   optional\tpam_motion_ad.so\n");
        assert_eq!(run(require(&line)), "# x\n-auth   required\tpam_motion_ad.so\n");
        let line = rule("auth [success=ok default=ignore] pam_motion_ad.so\n");
        assert_eq!(run(require(&line)), "auth required pam_motion_ad.so\n");
        assert_eq!(run(comment_out(path, 1)), "# auth required pam_motion_ad.so\n");
    }

    #[test]
    fn sssd_is_told_to_let_the_service_pass() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let head =
            "[sssd]\ndomains = acme.com\n\n[domain/acme.com]\nid_provider = ad\naccess_provider = ad\n";
        for more in ["", "ad_gpo_map_permit = +sudo\n"] {
            fs::write(path, format!("{head}{more}")).unwrap();
            let access = Access::load(path, None).unwrap().unwrap();
            assert!(access.refuses(SERVICE));
            let command = permit(&access, path.to_str().unwrap());
            let (sed, _) = command.split_once(" && ").unwrap();
            assert!(std::process::Command::new("sh").args(["-c", sed]).status().unwrap().success());
            assert!(!Access::load(path, None).unwrap().unwrap().refuses(SERVICE), "{command}");
        }
    }
}
