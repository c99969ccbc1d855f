//! Lines of the module that only observe (its argument `observe`), in every PAM service of this host.
//!
//! They must not be forgotten, and must not leave a service without a line that decides.

use std::fs;
use std::path::Path;

use super::commands::Place;
use super::facts::{Facts, SERVICE};
use super::finding::Finding;
use super::pam;
use super::stack::{Kind, Rule, Service, Value};
use super::visitors::{MODULE, Missing, Other, RIGHT, Visitor, observes, other, ours, visit};
use crate::libpam::SERVICES;

/// Ends of the names that package managers, editors and Ansible give to a copy of a file.
const COPIES: [&str; 9] = ["~", ".bak", ".old", ".orig", ".save", ".swp", ".rpmnew", ".rpmorig", ".rpmsave"];
/// Parts of such names that other words follow, as in `.dpkg-old` and `.ucf-dist`.
const MARKS: [&str; 2] = [".dpkg-", ".ucf-"];

/// Returns true if a file of /etc/pam.d is only a copy of a service. libpam reads the file that an
/// application names, and no application names a copy.
fn is_copy(name: &str) -> bool {
    let is_hidden = name.starts_with(['.', '#']);
    is_hidden || COPIES.iter().any(|end| name.ends_with(end)) || MARKS.iter().any(|mark| name.contains(mark))
}

pub(super) async fn lines(facts: &Facts) -> Finding {
    let read = |path: &Path| fs::read_to_string(facts.path(path));
    let entries = fs::read_dir(facts.path(SERVICES)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !is_copy(name));
    names.retain(|name| read(&Path::new(SERVICES).join(name)).is_ok_and(|text| text.contains(MODULE)));
    names.sort();
    let services: Vec<_> = names.iter().map(|name| Service::load(name, &read)).collect();
    let deciding = pam::services(facts).await;
    let deciding: Vec<_> = deciding.iter().map(|named| (named.name, named.lines)).collect();
    found(&deciding, &services)
}

/// Returns the finding for the services that decide the application's logins, by their names, and for all
/// services that name our module.
fn found(deciding: &[(&str, &Service)], all: &[Service]) -> Finding {
    let of_all =
        deciding.iter().flat_map(|(name, service)| twice(service).into_iter().chain(denied(name, service)));
    let findings = ours(all).into_iter().filter_map(of).chain(of_all);
    findings.reduce(Finding::and).unwrap_or_else(|| Finding::ok("no line of a PAM service only observes"))
}

/// Returns the finding for one line of ours.
fn of(rule: &Rule) -> Option<Finding> {
    let (place, kind, written) = (rule.place(), rule.kind.name(), &rule.written);
    let can_observe = matches!(rule.kind, Kind::Auth | Kind::Account);
    if !observes(rule) {
        let unnoticed = can_observe && rule.ignores();
        return unnoticed.then(|| {
            Finding::warning(format!(
                "{place}: the control {written:?} ignores every answer: other lines decide, and neither \
                 status nor the metrics report it"
            ))
            .advise(
                Place::Here,
                "write the control required to let motion-ad decide, or add the argument observe",
            )
        });
    }
    Some(match (can_observe, rule.ignores_rejections()) {
        (false, _) => Finding::failure(format!("{place}: observe on a {kind} line rejects every call"))
            .advise(
                Place::Here,
                format!("remove the line from {}: only logins and account checks can be observed", rule.file),
            ),
        (true, true) => Finding::warning(format!(
            "{place}: logins at {} are only observed, other lines decide",
            service(rule)
        ))
        .advise(
            Place::Here,
            "when the log has shown for long enough what you expect, let motion-ad decide: \
             docs/pam-cookbook.md, \"Only observe\"",
        ),
        (true, false) => Finding::failure(format!(
            "{place}: observe, but the control {written:?} enforces the answer: the line admits no user"
        ))
        .advise(
            Place::Here,
            "write the control [default=ignore] to observe only, or remove observe to let motion-ad decide",
        ),
    })
}

/// The name of a line's service, or of the file that services include.
fn service(rule: &Rule) -> &str {
    rule.file.rsplit('/').next().unwrap_or(SERVICE)
}

/// Returns the warning for a service in which a wrong password counts twice, because the line that decides
/// queries AD as well.
fn twice(motion: &Service) -> Option<Finding> {
    let auth = motion.stack(Kind::Auth);
    let rule = auth.iter().find(|rule| other(rule) == Other::AsksAd)?;
    let seen = format!(
        "{} ({}) queries AD, too: each wrong password counts twice towards the lockout",
        rule.place(),
        rule.name()
    );
    let advice = "compare the lockout threshold of the domain with that, and observe for a limited time";
    auth.iter().any(|rule| observes(rule)).then(|| Finding::warning(seen).advise(Place::Here, advice))
}

/// Returns the failure of a service in which our lines observe and no other line can admit a user: libpam
/// denies if every line is ignored.
fn denied(name: &str, motion: &Service) -> Option<Finding> {
    let everybody = Visitor { local: true, asks_ad: Value::SUCCESS, ..RIGHT };
    let kind = [Kind::Auth, Kind::Account].into_iter().find(|kind| {
        let stack = motion.stack(*kind);
        stack.iter().any(|rule| observes(rule) && rule.ignores_rejections())
            && !visit(&stack, everybody, &Missing::new()).is_success()
    })?;
    let seen = format!(
        "users cannot log in: no {} line of {SERVICES}/{name} but those that are ignored can admit them",
        kind.name()
    );
    Some(Finding::failure(seen).advise(
        Place::Here,
        format!(
            "add the {} line that is to decide after the line with observe, or let motion-ad decide",
            kind.name()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Options;
    use super::super::finding::Level;
    use super::*;

    fn of_text(text: &str) -> Finding {
        let service = Service::load(SERVICE, &|path| match path.to_str() {
            Some("/etc/pam.d/motion") => Ok(text.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        found(&[(SERVICE, &service)], std::slice::from_ref(&service))
    }

    const ACCOUNT: &str = "account required pam_permit.so\n";

    #[test]
    fn every_line_that_only_observes_is_named() {
        let cases = [
            ("auth required pam_motion_ad.so\n", Level::Ok, "no line"),
            (
                "auth [default=ignore] pam_motion_ad.so observe\nauth required pam_sss.so use_first_pass\n",
                Level::Warning,
                "motion, line 1: logins at motion are only observed",
            ),
            (
                "auth required pam_motion_ad.so observe\n",
                Level::Failure,
                "line 1: observe, but the control \"required\" enforces",
            ),
            (
                "auth [success=ok default=die] pam_motion_ad.so observe\nauth required pam_permit.so\n",
                Level::Failure,
                "enforces",
            ),
            // A success never comes from a line that observes, so its action does not matter.
            (
                "auth [success=done default=ignore] pam_motion_ad.so observe\nauth required pam_permit.so\n",
                Level::Warning,
                "only observed",
            ),
            (
                "auth sufficient pam_motion_ad.so observe\nauth required pam_deny.so\n",
                Level::Failure,
                "users cannot log in: no auth line",
            ),
            (
                "auth [default=ignore] pam_motion_ad.so\nauth required pam_permit.so\n",
                Level::Warning,
                "ignores every answer",
            ),
            (
                "auth [default=ignore] pam_motion_ad.so observe\n",
                Level::Failure,
                "users cannot log in: no auth line",
            ),
            (
                "auth [default=ignore] pam_motion_ad.so observe\nauth required pam_deny.so\n",
                Level::Failure,
                "users cannot log in: no auth line",
            ),
            (
                "auth required pam_motion_ad.so\nsession [default=ignore] pam_motion_ad.so observe\n",
                Level::Failure,
                "line 2: observe on a session line",
            ),
            ("auth required pam_motion_ad.so\nsession optional pam_motion_ad.so\n", Level::Ok, "no line"),
        ];
        for (text, level, seen) in cases {
            let finding = of_text(&format!("{text}{ACCOUNT}"));
            assert_eq!(finding.level, level, "{text}{finding:?}");
            assert!(finding.seen.contains(seen), "{text}{finding:?}");
            assert_eq!(finding.fix.is_empty(), level == Level::Ok, "{text}");
        }
    }

    #[test]
    fn a_line_that_decides_and_queries_ad_too_counts_a_wrong_password_twice() {
        for (module, twice) in [("pam_sss.so", true), ("pam_winbind.so", true), ("pam_unix.so", false)] {
            let finding = of_text(&format!(
                "auth [default=ignore] pam_motion_ad.so observe\nauth required {module}\n{ACCOUNT}"
            ));
            assert_eq!(finding.seen.contains("counts twice"), twice, "{finding:?}");
        }
    }

    #[tokio::test]
    async fn a_copy_of_a_service_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::create_dir_all(file("etc/pam.d")).unwrap();
        let (config, sssd) = (file("config.toml"), file("sssd.conf"));
        let options = Options { config, sssd, socket: file("broker.sock"), login: None };
        let facts = Facts::at_root(options, folder.path());
        let decides = format!("auth required pam_motion_ad.so\n{ACCOUNT}");
        fs::write(file("etc/pam.d/motion"), decides).unwrap();
        let observes = "auth [default=ignore] pam_motion_ad.so observe\nauth required pam_permit.so\n";
        for name in [
            "motion.dpkg-old",
            "motion.dpkg-dist",
            "motion.ucf-old",
            "motion.4711.2026-11-30@12:00:00~",
            "motion~",
            "motion.bak",
            "motion.orig",
            "motion.rpmsave",
            ".motion.swp",
            "#motion#",
        ] {
            fs::write(file("etc/pam.d").join(name), observes).unwrap();
        }
        let finding = lines(&facts).await;
        assert_eq!(finding.level, Level::Ok, "{finding:?}");
        fs::write(file("etc/pam.d/motion-bridge"), observes).unwrap();
        let finding = lines(&facts).await;
        assert!(finding.seen.contains("logins at motion-bridge are only observed"), "{finding:?}");
        assert_eq!(finding.seen.matches("only observed").count(), 1, "{finding:?}");
    }

    #[test]
    fn a_line_that_two_services_include_is_named_once() {
        let read = |path: &Path| match path.to_str() {
            Some("/etc/pam.d/shared") => Ok("auth [default=ignore] pam_motion_ad.so observe\n".to_owned()),
            Some("/etc/pam.d/motion" | "/etc/pam.d/desk") => {
                Ok(format!("@include shared\nauth required pam_permit.so\n{ACCOUNT}"))
            }
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let all = ["desk", "motion", "shared"].map(|name| Service::load(name, &read));
        let finding = found(&[(SERVICE, &all[1])], &all);
        assert_eq!(finding.seen.matches("only observed").count(), 1, "{finding:?}");
        assert_eq!(finding.level, Level::Warning);
    }
}
