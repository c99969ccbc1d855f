//! Each domain controller: its ports, its description of itself, and its TLS.
//!
//! Logins need only one that works, so a fault of some of them is a warning.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use super::commands;
use super::commands::Place;
use super::configuration::line_of;
use super::facts::Facts;
use super::finding::{Finding, Level, Part};
use crate::config::{Method, TlsMode};
use crate::directory::passwords::bind::Unusable;
use crate::directory::survey::{Certificate, Port, Survey};
use crate::name::fold;

/// Remaining lifetime below which a certificate is worth a warning, in seconds: 30 days.
const SOON: i64 = 30 * 86_400;

/// Checks port 389 and the answer on it.
pub(super) async fn ldap(facts: &Facts) -> Finding {
    let parts = facts.surveys().await.iter().map(|survey| match &survey.root {
        Ok(_) => part(survey, Level::Ok, "answers on port 389"),
        Err(cause) => part(survey, Level::Failure, cause),
    });
    opened(Finding::of_parts(parts.collect()))
}

/// Checks for hosts that DNS names and AD does not list.
pub(super) async fn listed(facts: &Facts) -> Finding {
    let (Some(ad), Some(config)) = (facts.ad().await, facts.config().await) else {
        return Finding::because("join");
    };
    let listed = match ad.domains.roster().refresh().await {
        Ok(listed) => listed.len(),
        Err(cause) => return Finding::failure(format!("AD's list cannot be read: {cause}")),
    };
    let part = |host| {
        let seen = "DNS names it, AD does not list it as a domain controller: no password goes there";
        Part { subject: host, level: Level::Warning, seen: seen.to_owned() }
    };
    let parts: Vec<_> = ad.domains.own().strangers().into_iter().map(part).collect();
    if parts.is_empty() {
        return Finding::ok(format!("{listed} in the forest, and DNS names no other host"));
    }
    let zone = format!("_msdcs.{}", config.domain.name);
    Finding::of_parts(parts).there(&commands::RECORDS_WINDOWS, &commands::RECORDS_SAMBA, &zone)
}

/// Checks port 88: without a ticket, nothing can be read.
pub(super) async fn kdc(facts: &Facts) -> Finding {
    port(facts, Port::Kdc, true).await
}

/// Checks port 636. Its absence is no failure where StartTLS serves as well.
pub(super) async fn ldaps(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let needed = config.tls.mode == TlsMode::Ldaps && config.login.method != Method::Kerberos;
    match config.tls.mode {
        TlsMode::Starttls => Finding::ok("not used: tls.mode is starttls"),
        _ => port(facts, Port::Ldaps, needed).await,
    }
}

/// Checks port 464, for changes of passwords.
pub(super) async fn kpasswd(facts: &Facts) -> Finding {
    port(facts, Port::Kpasswd, false).await
}

/// Checks port 3268 of the domain controllers that claim to be global catalogues.
pub(super) async fn catalogue(facts: &Facts) -> Finding {
    let answering = facts.answering().await;
    let serving: Vec<_> =
        answering.into_iter().filter(|survey| root(survey).is_some_and(|r| r.is_catalogue)).collect();
    match serving.is_empty() {
        true => Finding::warning("no domain controller that answers is a global catalogue").advise(
            Place::Windows,
            "if the forest has several domains, make a domain controller a global catalogue (NTDS Settings \
             in Active Directory Sites and Services); with one domain none is needed",
        ),
        false => of_port(serving, Port::Catalogue, false),
    }
}

async fn port(facts: &Facts, port: Port, needed: bool) -> Finding {
    of_port(facts.answering().await, port, needed)
}

/// Checks that `port` accepts connections on each domain controller that answers by LDAP.
fn of_port(surveys: Vec<&Survey>, port: Port, needed: bool) -> Finding {
    let number = port.number();
    let parts = surveys.into_iter().map(|survey| match survey.port(port) {
        Ok(()) => part(survey, Level::Ok, &format!("port {number} is open")),
        Err(cause) => {
            let level = if needed { Level::Failure } else { Level::Warning };
            part(survey, level, &format!("port {number}: {cause}"))
        }
    });
    opened(Finding::of_parts(parts.collect()))
}

fn opened(finding: Finding) -> Finding {
    match finding.level {
        Level::Ok | Level::Skipped => finding,
        _ => finding
            .advise(
                Place::Network,
                "let this host reach the port: a firewall between the two or on the domain controller is in \
                 the way, or the service does not run there",
            )
            .there(&commands::FIREWALL_WINDOWS, &commands::PORTS_SAMBA, ""),
    }
}

fn part(survey: &Survey, level: Level, seen: &str) -> Part {
    Part { subject: survey.controller.host.clone(), level, seen: seen.to_owned() }
}

fn root(survey: &Survey) -> Option<&crate::directory::survey::Root> {
    survey.root.as_ref().ok()
}

/// Checks that domain controllers are fit for logins: writable, synchronized and of our domain.
pub(super) async fn fit(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("join") };
    let domain = config.domain.root();
    let answering = facts.answering().await;
    let seen: Vec<_> = answering.into_iter().filter_map(|survey| Some((survey, root(survey)?))).collect();
    // While another one is writable, a read-only one does no harm.
    let writable = seen.iter().any(|(_, root)| !root.is_read_only);
    let parts = seen.into_iter().map(|(survey, root)| match root {
        root if root.is_read_only => {
            let level = if writable { Level::Ok } else { Level::Failure };
            part(survey, level, "read-only, so logins skip it")
        }
        root if !root.is_synchronized => part(survey, Level::Failure, "not synchronized with its domain yet"),
        root if !root.domain.is_empty() && fold(&root.domain) != fold(&domain) => {
            part(survey, Level::Failure, &format!("a domain controller of {}, not of {domain}", root.domain))
        }
        root => part(survey, Level::Ok, if root.is_samba { "writable, Samba" } else { "writable" }),
    });
    let finding = Finding::of_parts(parts.collect());
    match finding.level {
        Level::Ok | Level::Skipped => finding,
        _ => finding.there(&commands::REPLICATION_WINDOWS, &commands::REPLICATION_SAMBA, ""),
    }
}

/// Checks the roots that the certificates of domain controllers are verified against.
pub(super) async fn roots(facts: &Facts) -> Finding {
    let file = roots_file(facts).await;
    let trust = match facts.trust().await {
        Ok(trust) => trust,
        Err(cause) => {
            let finding = Finding::failure(cause);
            return match file {
                Some(file) => finding.advise(Place::Here, new_roots(&file)),
                None => finding,
            };
        }
    };
    let now = now();
    let report = trust.report();
    let until = |root: &crate::protocol::report::Root| i64::try_from(root.not_after).unwrap_or(i64::MAX);
    for root in &report.roots {
        let finding = match until(root).saturating_sub(now) {
            left if left < 0 => {
                Finding::failure(format!("{} has ended on {}", root.subject, day(until(root))))
            }
            left if left < SOON => Finding::warning(format!("{} ends on {}", root.subject, day(until(root)))),
            _ => continue,
        };
        return match &file {
            Some(file) => finding.advise(Place::Here, new_roots(file)),
            None => finding.advise(
                Place::Windows,
                "renew the certificate of the certificate authority, and publish it in the forest",
            ),
        };
    }
    Finding::ok(report.source)
}

/// The file of the only trusted roots, and the setting that names it.
async fn roots_file(facts: &Facts) -> Option<String> {
    let file = facts.config().await?.tls.ca_file.clone()?;
    let setting = match line_of(facts, "tls", "ca_file") {
        Some(line) => format!("tls.ca_file, line {line} of {}", facts.options().config.display()),
        None => format!("ldap_tls_cacert of {}", facts.options().sssd.display()),
    };
    Some(format!("{} ({setting})", file.display()))
}

fn new_roots(file: &str) -> String {
    format!("put the certificates of the authority that the domain controllers use now, as PEM, into {file}")
}

/// Checks TLS for users' binds. Its absence is a failure if passwords cannot be checked without TLS.
pub(super) async fn tls(facts: &Facts) -> Finding {
    let (Some(config), Ok(trust)) = (facts.config().await, facts.trust().await) else {
        return Finding::because("ca-file");
    };
    let method = config.login.method;
    let found = facts.tls().await;
    // Without the roots, which the machine reads from AD, an unknown issuer proves nothing.
    let unread = config.tls.ca_file.is_none() && trust.report().refreshed.is_none();
    let is_unknown =
        |problem: &Unusable| matches!(problem, Unusable::Unverified { unknown_issuer: true, .. });
    if unread && found.iter().any(|(_, tls)| tls.problem.as_ref().is_some_and(is_unknown)) {
        return match facts.is_root() {
            true => Finding::because("dc-machine"),
            false => Finding::skipped("needs root: the forest's roots"),
        };
    }
    let parts = found.iter().map(|(host, tls)| {
        let shown = tls.certificate.as_ref();
        let (level, seen) = match &tls.problem {
            None => (Level::Ok, shown.map_or_else(|| "verified".to_owned(), verified)),
            Some(problem) => (Level::Failure, explain(problem, host, shown, now())),
        };
        Part { subject: host.clone(), level, seen }
    });
    let finding = Finding::of_parts(parts.collect());
    let worst = match (finding.level, method) {
        (Level::Failure, Method::Kerberos) => {
            return Finding {
                level: Level::Ok,
                seen: format!("not needed (login.method): {}", finding.seen),
                ..finding
            };
        }
        (Level::Failure, Method::Auto) => Finding {
            level: Level::Warning,
            seen: format!("passwords are checked by Kerberos instead: {}", finding.seen),
            ..finding
        },
        _ => finding,
    };
    if worst.level <= Level::Skipped {
        return worst;
    }
    let distrusted = found.iter().filter(|(_, tls)| tls.problem.as_ref().is_some_and(is_unknown));
    let issuers = distrusted.filter_map(|(_, tls)| Some(tls.certificate.as_ref()?.issuer.clone()));
    match issuers.into_iter().next() {
        Some(issuer) => distrusted_by(facts, worst, &issuer).await,
        None => worst
            .command(&commands::CERTIFICATE_WINDOWS, "")
            .command(&commands::CERTIFICATE_SAMBA, "")
            .advise(
                Place::Samba,
                "put a certificate for the domain controller's own name there, and restart Samba",
            ),
    }
}

/// Adds both fixes for a certificate with an untrusted issuer.
async fn distrusted_by(facts: &Facts, finding: Finding, issuer: &str) -> Finding {
    let here = match roots_file(facts).await {
        Some(file) => format!("if {issuer} is your authority, put its certificate as PEM into {file}"),
        None => format!(
            "if {issuer} is your authority, name its certificate as PEM in tls.ca_file of {}",
            facts.options().config.display()
        ),
    };
    let there = "or give the domain controller a certificate of an authority that is trusted here";
    finding.advise(Place::Here, here).advise(Place::Windows, there).advise(Place::Samba, there)
}

fn verified(certificate: &Certificate) -> String {
    format!("verified: {} by {}", certificate.subject, certificate.issuer)
}

/// Describes a problem with TLS, with the facts of the certificate that explain it.
fn explain(problem: &Unusable, host: &str, shown: Option<&Certificate>, now: i64) -> String {
    let cause = problem.cause();
    let (Unusable::Unverified { unknown_issuer, .. }, Some(certificate)) = (problem, shown) else {
        return cause.to_owned();
    };
    let names = certificate.names.join(", ");
    match () {
        () if *unknown_issuer => {
            format!("{cause}: {} was issued by {}", certificate.subject, certificate.issuer)
        }
        () if certificate.not_after < now => {
            format!("its certificate {} has ended on {}", certificate.subject, day(certificate.not_after))
        }
        () if certificate.not_before > now => {
            format!("its certificate {} is good from {} on", certificate.subject, day(certificate.not_before))
        }
        () if !certificate.names.iter().any(|name| is_for(name, host)) => match names.is_empty() {
            true => {
                format!("its certificate has no subjectAltName, so it is for no host, and not for {host}")
            }
            false => format!("its certificate is for {names}, not for {host}"),
        },
        () => cause.to_owned(),
    }
}

/// Returns true if a name of a certificate, which may begin with `*.`, matches `host` (RFC 6125, 6.4).
fn is_for(name: &str, host: &str) -> bool {
    let (name, host) = (fold(name), fold(host));
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, parent)| parent == rest),
        None => name == host,
    }
}

/// Checks how long the certificates stay valid.
pub(super) async fn expiry(facts: &Facts) -> Finding {
    let now = now();
    let shown = facts.tls().await.iter().filter_map(|(host, tls)| Some((host, tls.certificate.as_ref()?)));
    let parts = shown.map(|(host, certificate)| {
        let left = certificate.not_after.saturating_sub(now);
        // An expired one already fails the check of TLS.
        let level = if (0..SOON).contains(&left) { Level::Warning } else { Level::Ok };
        Part { subject: host.clone(), level, seen: format!("until {}", day(certificate.not_after)) }
    });
    let finding = Finding::of_parts(parts.collect());
    match finding.level {
        Level::Warning => finding
            .command(&commands::CERTIFICATE_WINDOWS, "")
            .command(&commands::CERTIFICATE_SAMBA, "")
            .advise(Place::Samba, "put a new certificate there, and restart Samba"),
        _ => finding,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn day(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds);
    at.map_or_else(|_| "an unknown day".to_owned(), |at| at.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_believed_says_why() {
        let certificate = Certificate {
            subject: "CN=ad.acme.com".into(),
            issuer: "CN=Other Root CA".into(),
            names: vec!["elsewhere.acme.com".into(), "*.acme.com".into()],
            not_before: 1_000_000,
            not_after: 2_000_000,
        };
        let problem = |unknown_issuer| Unusable::Unverified { cause: "TLS failed".into(), unknown_issuer };
        let cases = [
            (
                problem(true),
                "ad.acme.com",
                1_500_000,
                "TLS failed: CN=ad.acme.com was issued by CN=Other Root CA",
            ),
            (
                problem(false),
                "ad.acme.com",
                2_500_000,
                "its certificate CN=ad.acme.com has ended on 1970-01-24",
            ),
            (
                problem(false),
                "ad.acme.com",
                500_000,
                "its certificate CN=ad.acme.com is good from 1970-01-12 on",
            ),
            (
                problem(false),
                "ad.sub.acme.com",
                1_500_000,
                "its certificate is for elsewhere.acme.com, *.acme.com, not for ad.sub.acme.com",
            ),
            (problem(false), "ad.acme.com", 1_500_000, "TLS failed"),
            (Unusable::NoTls("TLS failed: eof".into()), "ad.acme.com", 0, "TLS failed: eof"),
        ];
        for (problem, host, now, text) in cases {
            assert_eq!(explain(&problem, host, Some(&certificate), now), text);
        }
    }
}
