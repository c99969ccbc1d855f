//! Repairs `/etc/pam.d/motion`. Pure: text in, text out.
//!
//! Only lines of that file change. A line that includes another file is commented out; the other file never
//! changes. The result is offered only if it admits the users of AD and no other user, and still has every
//! line that may reject users by a rule.

use std::io;
use std::path::Path;

use super::stack::{Fault, Kind, Rule, Service, Value};
use super::visitors::{
    Judgement, MODULE, Missing, Other, Trouble, Visitor, is_ours, judge, observes, other, visit,
};

/// Maximum number of changes, made one after the other.
const CHANGES: usize = 12;

/// The host of the service.
pub(super) struct Host<'a> {
    /// The service's name.
    pub(super) service: &'a str,
    /// The service's file.
    pub(super) file: &'a str,
    /// Reads a file that the service includes.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Returns true if a module's file is missing.
    pub(super) is_missing: &'a dyn Fn(&str) -> bool,
    /// True if SSSD knows users by the name that they type.
    pub(super) knows: bool,
    /// True if SSSD has rules about who may log in.
    pub(super) restricts: bool,
}

impl Host<'_> {
    fn load(&self, text: &str) -> Service {
        Service::load(self.service, &|path| match path == Path::new(self.file) {
            true => Ok(text.to_owned()),
            false => (self.read)(path),
        })
    }

    fn missing(&self, service: &Service) -> Missing {
        let modules = service.rules.iter().filter(|rule| rule.is_module() && !is_ours(rule));
        modules.map(|rule| rule.module.clone()).filter(|module| (self.is_missing)(module)).collect()
    }

    fn judge(&self, service: &Service) -> Judgement {
        judge(service, &self.missing(service), self.knows)
    }
}

/// Returns the repaired text of the service; `None` if only the administrator can decide.
pub(super) fn repair(text: &str, host: &Host<'_>) -> Option<String> {
    let before = host.load(text);
    // When motion-ad begins to decide is the administrator's choice.
    if before.rules.iter().any(observes) {
        return None;
    }
    let mut text = text.to_owned();
    for _ in 0..CHANGES {
        let service = host.load(&text);
        match next(&text, &before, &service, host)? {
            Some(changed) if changed != text => text = changed,
            Some(_) => return None,
            None => break,
        }
    }
    let after = host.load(&text);
    let is_sound = after.faults.is_empty()
        && has_ours(&after, Kind::Auth)
        && has_ours(&after, Kind::Account)
        && matches!(host.judge(&after), Judgement::AdAlone | Judgement::LocalToo);
    (is_sound && keeps_rules(&before, &after, host) && !is_wider(&before, &after, host)).then_some(text)
}

/// Returns true if the repaired service accepts a combination of answers that the original rejects, although
/// our module rejects the user.
fn is_wider(before: &Service, after: &Service, host: &Host<'_>) -> bool {
    const REFUSALS: [Value; 4] =
        [Value::AUTH_ERR, Value::PERM_DENIED, Value::USER_UNKNOWN, Value::AUTHINFO_UNAVAIL];
    let (gone, still) = (host.missing(before), host.missing(after));
    let mut visitors = Vec::new();
    for ours in REFUSALS {
        for asks_ad in REFUSALS.into_iter().chain([Value::SUCCESS]) {
            let knows = [(false, false), (false, true), (true, false), (true, true)];
            visitors.extend(knows.map(|(local, unknown)| Visitor { ours, local, asks_ad, unknown }));
        }
    }
    [Kind::Auth, Kind::Account].into_iter().any(|kind| {
        let (before, after) = (before.stack(kind), after.stack(kind));
        visitors.iter().any(|visitor| {
            visit(&after, *visitor, &still).is_success() && !visit(&before, *visitor, &gone).is_success()
        })
    })
}

fn has_ours(service: &Service, kind: Kind) -> bool {
    service.stack(kind).into_iter().any(is_ours)
}

/// Returns the text with one problem less: `None` if only the administrator knows what is right, `Some(None)`
/// if there is no problem.
fn next(text: &str, before: &Service, service: &Service, host: &Host<'_>) -> Option<Option<String>> {
    if let Some(fault) = service.faults.first() {
        return understood(text, service, fault, host).map(Some);
    }
    for kind in Kind::ALL {
        // For a kind without lines, libpam takes those of /etc/pam.d/other.
        let lost = service.stack(kind).is_empty() && !before.stack(kind).is_empty();
        if lost || (matches!(kind, Kind::Auth | Kind::Account) && !has_ours(service, kind)) {
            return Some(Some(with_ours(text, kind)));
        }
    }
    let Judgement::Trouble(trouble) = host.judge(service) else { return Some(None) };
    let changed = match trouble.as_ref() {
        Trouble::LetsIn(kind, rule) if is_ours(rule) => required(text, service, *kind, host),
        Trouble::LetsIn(_, rule) => without(text, service, rule, host),
        Trouble::KeepsOut(_, Some(rule)) if !is_ours(rule) => without(text, service, rule, host),
        Trouble::KeepsOut(kind, _) => required(text, service, *kind, host),
        Trouble::Twice(rule) | Trouble::LocalFirst(rule) => without(text, service, rule, host),
    };
    changed.map(Some)
}

/// Fixes a line of ours that libpam cannot parse. Removes it if another line does its work; otherwise, makes
/// it `required`.
fn understood(text: &str, service: &Service, fault: &Fault, host: &Host<'_>) -> Option<String> {
    let line = fault.line.filter(|_| fault.file == host.file)?;
    let written = raw(text, line)?;
    let mut words = written.split_whitespace();
    let kind = words.next()?.trim_start_matches('-').to_owned();
    let kind = Kind::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(&kind))?;
    if !written.contains(MODULE) {
        return None;
    }
    let is_other = |rule: &Rule| is_ours(rule) && (rule.line, &rule.file) != (line, &fault.file);
    match service.stack(kind).into_iter().any(is_other) {
        true => Some(take_out(text, &[line])),
        false => replace(text, line, &with_control(written, kind)?),
    }
}

/// Adds a line of the shipped service after the last line of its kind.
fn with_ours(text: &str, kind: Kind) -> String {
    let line = format!("{:<9} required  {MODULE}", kind.name());
    let is_of_kind = |written: &str| {
        let first = written.split_whitespace().next().unwrap_or_default();
        first.trim_start_matches('-').eq_ignore_ascii_case(kind.name())
    };
    let lines: Vec<_> = text.lines().collect();
    let after = lines.iter().rposition(|written| is_of_kind(written)).map_or(lines.len(), |index| index + 1);
    let (head, tail) = lines.split_at_checked(after).unwrap_or((&lines, &[]));
    joined(head.iter().copied().chain([line.as_str()]).chain(tail.iter().copied()))
}

/// Makes our line of this kind required.
fn required(text: &str, service: &Service, kind: Kind, host: &Host<'_>) -> Option<String> {
    let ours = service.stack(kind).into_iter().find(|rule| is_ours(rule) && rule.file == host.file)?;
    if ours.written.eq_ignore_ascii_case("required") {
        return Some(text.to_owned());
    }
    replace(text, ours.line, &with_control(raw(text, ours.line)?, kind)?)
}

/// Returns a line with the control `required`.
fn with_control(written: &str, kind: Kind) -> Option<String> {
    let start = written.to_ascii_lowercase().find(kind.name())? + kind.name().len();
    let (head, rest) = written.split_at_checked(start)?;
    let control = rest.trim_start();
    let space = rest.get(..rest.len() - control.len())?;
    let end = match control.starts_with('[') {
        true => control.find(']')? + 1,
        false => control.find(char::is_whitespace)?,
    };
    Some(format!("{head}{space}required{}", control.get(end..)?))
}

/// Returns the service without `rule`. Removes the line that includes its file, or its own line if that is no
/// rule of an administrator.
fn without(text: &str, service: &Service, rule: &Rule, host: &Host<'_>) -> Option<String> {
    if rule.file != host.file {
        return Some(take_out(text, &[rule.top]));
    }
    let own = |other: &&Rule| other.kind == rule.kind && other.file == host.file;
    let stack: Vec<_> = service.rules.iter().filter(own).collect();
    let at = stack.iter().position(|other| other.line == rule.line)?;
    // A line that a jump skips goes together with the jump, which would otherwise lead elsewhere.
    let jumper = stack.iter().take(at).position(|other| !is_ours(other) && other.jump() > 0);
    let is_jumped_over = stack.iter().take(at).enumerate().any(|(index, other)| index + other.jump() >= at);
    let lines: Vec<_> = match jumper {
        Some(first) if is_jumped_over => stack.get(first..=at)?.to_vec(),
        None | Some(_) if is_jumped_over => return None,
        _ => vec![rule],
    };
    let may_go = |rule: &&Rule| {
        let plain = matches!(other(rule), Other::Local | Other::AsksAd | Other::Permits);
        plain || (other(rule) == Other::Denies && jumper.is_some())
    };
    let numbers: Vec<_> = lines.iter().map(|rule| rule.line).collect();
    lines.iter().all(|rule| !is_ours(rule) && may_go(rule)).then(|| take_out(text, &numbers))
}

/// Returns true if every line that may have rejected a user by a rule is still there.
fn keeps_rules(before: &Service, after: &Service, host: &Host<'_>) -> bool {
    let refuses = |rule: &Rule| rule.refuses(Value::AUTH_ERR) || rule.refuses(Value::PERM_DENIED);
    let mut rules = before.rules.iter().enumerate().filter(|(_, rule)| {
        let is_rule = match other(rule) {
            Other::Neutral | Other::Names | Other::Unknown => refuses(rule),
            // SSSD's rules about who may log in, which pam_sss applies in account lines.
            Other::AsksAd => rule.kind == Kind::Account && host.restricts && refuses(rule),
            Other::Permits | Other::Local | Other::Silent | Other::Denies => false,
        };
        rule.is_module() && !is_ours(rule) && matches!(rule.kind, Kind::Auth | Kind::Account) && is_rule
    });
    let same = |one: &Rule, other: &Rule| {
        (one.kind, &one.file, &one.module, &one.arguments, &one.written)
            == (other.kind, &other.file, &other.module, &other.arguments, &other.written)
    };
    rules.all(|(_, rule)| after.rules.iter().any(|kept| same(rule, kept))) && keeps_closed(before, after)
}

/// Returns true if each intended `pam_deny` is still there: one that no earlier line can skip.
fn keeps_closed(before: &Service, after: &Service) -> bool {
    let closed = |service: &Service| {
        let mut open = Vec::<(Kind, String)>::new();
        let mut closed = Vec::new();
        for rule in service.rules.iter().filter(|rule| rule.is_module()) {
            let here = (rule.kind, rule.file.clone());
            match other(rule) {
                Other::Denies if !open.contains(&here) => closed.push(here),
                _ if rule.can_end() => open.push(here),
                _ => {}
            }
        }
        closed
    };
    let kept = closed(after);
    closed(before).iter().all(|rule| kept.contains(rule))
}

/// Returns a line of the text, unless it is part of a continued one.
fn raw(text: &str, line: usize) -> Option<&str> {
    let written = text.lines().nth(line.checked_sub(1)?)?;
    let before = line.checked_sub(2).and_then(|index| text.lines().nth(index)).unwrap_or_default();
    (!written.trim_end().ends_with('\\') && !before.trim_end().ends_with('\\')).then_some(written)
}

fn replace(text: &str, line: usize, by: &str) -> Option<String> {
    raw(text, line)?;
    Some(joined((1..).zip(text.lines()).map(|(number, written)| if number == line { by } else { written })))
}

/// Comments out these lines. A continued line stays unchanged, so that the repair fails.
fn take_out(text: &str, lines: &[usize]) -> String {
    let taken = |number: usize, written: &str| match lines.contains(&number) && raw(text, number).is_some() {
        true => format!("# {written}"),
        false => written.to_owned(),
    };
    let lines: Vec<_> = (1..).zip(text.lines()).map(|(number, written)| taken(number, written)).collect();
    joined(lines.iter().map(String::as_str))
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &[(&str, &str)] = &[
        (
            "/etc/pam.d/common-auth",
            "auth [success=2 default=ignore] pam_unix.so nullok\n\
             auth [success=1 default=ignore] pam_sss.so use_first_pass\n\
             auth requisite pam_deny.so\nauth required pam_permit.so\nauth optional pam_cap.so\n",
        ),
        (
            "/etc/pam.d/common-account",
            "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n\
             account requisite pam_deny.so\n\
             account required pam_permit.so\naccount sufficient pam_localuser.so\n\
             account [default=bad success=ok user_unknown=ignore] pam_sss.so\n",
        ),
        (
            "/etc/pam.d/faillock",
            "auth required pam_faillock.so preauth\nauth sufficient pam_unix.so\nauth required pam_deny.so\n",
        ),
        ("/etc/pam.d/closed", "auth required pam_deny.so\n"),
        (
            "/etc/pam.d/all",
            "auth required pam_unix.so\naccount required pam_unix.so\npassword required pam_unix.so\n\
             session required pam_unix.so\n",
        ),
    ];
    const OURS: &str = "auth required pam_motion_ad.so\naccount required pam_motion_ad.so\n";

    fn read(path: &Path) -> io::Result<String> {
        let found = COMMON.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn host(knows: bool, restricts: bool) -> Host<'static> {
        Host {
            service: "motion",
            file: "/etc/pam.d/motion",
            read: &read,
            is_missing: &|module| module == "pam_gone.so",
            knows,
            restricts,
        }
    }

    /// For every combination of answers: if it was rejected before, it still is, unless AD grants access.
    fn never_wider(before: &str, after: &str, host: &Host<'_>) {
        let answers = [Value::AUTH_ERR, Value::PERM_DENIED, Value::USER_UNKNOWN, Value::AUTHINFO_UNAVAIL];
        let (before, after) = (host.load(before), host.load(after));
        for kind in [Kind::Auth, Kind::Account] {
            for ours in answers {
                for asks_ad in answers.into_iter().chain([Value::SUCCESS]) {
                    for (local, unknown) in [(false, false), (false, true), (true, false), (true, true)] {
                        let visitor = Visitor { ours, local, asks_ad, unknown };
                        let comes_in = |service: &Service| {
                            visit(&service.stack(kind), visitor, &host.missing(service)).is_success()
                        };
                        assert!(comes_in(&before) || !comes_in(&after), "{kind:?} {visitor:?}\n{after:#?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_cure_is_in_the_services_own_file_and_lets_in_nobody_else() {
        let cases = [
            // The include first, last, next to `sufficient`, behind a jump, as a substack, by kind; both.
            (format!("@include common-auth\n{OURS}"), format!("# @include common-auth\n{OURS}")),
            (format!("{OURS}@include common-auth\n"), format!("{OURS}# @include common-auth\n")),
            (format!("@include common-account\n{OURS}"), format!("# @include common-account\n{OURS}")),
            (
                format!("@include common-auth\n@include common-account\n{OURS}"),
                format!("# @include common-auth\n# @include common-account\n{OURS}"),
            ),
            (
                "auth sufficient pam_motion_ad.so\n@include common-auth\n\
                 account required pam_motion_ad.so\n"
                    .into(),
                "auth sufficient pam_motion_ad.so\n# @include common-auth\n\
                 account required pam_motion_ad.so\n"
                    .into(),
            ),
            (format!("auth substack common-auth\n{OURS}"), format!("# auth substack common-auth\n{OURS}")),
            (format!("auth include common-auth\n{OURS}"), format!("# auth include common-auth\n{OURS}")),
            (
                "auth [success=1 default=ignore] pam_motion_ad.so\n@include common-auth\n\
                 account required pam_motion_ad.so\n"
                    .into(),
                "auth required pam_motion_ad.so\n# @include common-auth\n\
                 account required pam_motion_ad.so\n"
                    .into(),
            ),
            (
                format!(
                    "auth [success=2 default=ignore] pam_unix.so\n\
                         auth [success=1 default=ignore] pam_sss.so\nauth requisite pam_deny.so\n\
                         auth required pam_permit.so\n{OURS}"
                ),
                format!(
                    "# auth [success=2 default=ignore] pam_unix.so\n\
                         # auth [success=1 default=ignore] pam_sss.so\n# auth requisite pam_deny.so\n\
                         auth required pam_permit.so\n{OURS}"
                ),
            ),
            // Kinds that lose all their lines get ours.
            (
                "@include all\nauth required pam_motion_ad.so\n".into(),
                "# @include all\nauth required pam_motion_ad.so\naccount   required  pam_motion_ad.so\n\
                 password  required  pam_motion_ad.so\nsession   required  pam_motion_ad.so\n"
                    .into(),
            ),
            // Lines that grant access.
            (
                "auth optional pam_motion_ad.so debug\nauth required pam_permit.so\n\
                 account required pam_motion_ad.so\n"
                    .into(),
                "auth required pam_motion_ad.so debug\nauth required pam_permit.so\n\
                 account required pam_motion_ad.so\n"
                    .into(),
            ),
            (
                format!("auth sufficient pam_permit.so\n{OURS}"),
                format!(
                    "# auth sufficient pam_permit.so\n\
                {OURS}"
                ),
            ),
            (
                format!("auth sufficient pam_unix.so\n{OURS}"),
                format!(
                    "# auth sufficient pam_unix.so\n\
                {OURS}"
                ),
            ),
            (
                "auth sufficient pam_motion_ad.so\nauth sufficient pam_sss.so\nauth required pam_deny.so\n\
                 account required pam_motion_ad.so\n"
                    .into(),
                "auth sufficient pam_motion_ad.so\n# auth sufficient pam_sss.so\nauth required pam_deny.so\n\
                 account required pam_motion_ad.so\n"
                    .into(),
            ),
            // Lines that are missing, or that libpam cannot parse.
            (
                "account required pam_motion_ad.so\n".into(),
                "account required pam_motion_ad.so\n\
                                                            auth      required  pam_motion_ad.so\n"
                    .into(),
            ),
            (
                "auth required pam_motion_ad.so\naccount required pam_unix.so\n".into(),
                "auth required pam_motion_ad.so\n# account required pam_unix.so\n\
                 account   required  pam_motion_ad.so\n"
                    .into(),
            ),
            (
                format!("{OURS}auth perhaps pam_motion_ad.so\n"),
                format!(
                    "{OURS}# auth perhaps \
                pam_motion_ad.so\n"
                ),
            ),
            (
                "-auth   perhaps\tpam_motion_ad.so debug\naccount required pam_motion_ad.so\n".into(),
                "-auth   required\tpam_motion_ad.so debug\naccount required pam_motion_ad.so\n".into(),
            ),
            // A restriction by the administrator stays.
            (
                format!("auth required pam_succeed_if.so user ingroup agents\n@include common-auth\n{OURS}"),
                format!(
                    "auth required pam_succeed_if.so user ingroup agents\n# @include common-auth\n\
                         {OURS}"
                ),
            ),
        ];
        let host = host(false, false);
        for (before, after) in cases {
            assert_eq!(repair(&before, &host).as_deref(), Some(after.as_str()), "{before}");
            never_wider(&before, &after, &host);
        }
    }

    #[test]
    fn what_an_administrator_may_have_meant_is_left_to_them() {
        let open = host(false, false);
        for text in [
            // Closed on purpose, also in another file.
            format!("auth required pam_deny.so\n{OURS}"),
            format!("@include closed\n{OURS}"),
            // An included lock against guessing.
            format!("@include faillock\n{OURS}"),
            // Between an administrator's jump and its target.
            format!(
                "auth [success=1 default=ignore] pam_succeed_if.so user ingroup x\n\
                 auth required pam_unix.so\n{OURS}"
            ),
            // A missing module that may be a rule.
            format!("auth required pam_gone.so\n{OURS}"),
            // Lines that cannot be parsed.
            format!("auth perhaps pam_unix.so\n{OURS}"),
            format!("@include absent\n{OURS}"),
            // A continued line.
            format!("auth sufficient \\\n  pam_unix.so\n{OURS}"),
        ] {
            assert_eq!(repair(&text, &open).filter(|after| *after != text), None, "{text}");
        }
        let account = format!("@include common-account\n{OURS}");
        assert!(repair(&account, &open).is_some());
        // SSSD's own rule about who may log in would be lost.
        assert_eq!(repair(&account, &host(false, true)), None);
    }

    #[test]
    fn a_service_that_is_right_stays_as_it_is() {
        let shipped = include_str!("../../pam.d/motion");
        for knows in [false, true] {
            assert_eq!(repair(shipped, &host(knows, false)).as_deref(), Some(shipped));
        }
    }
}
