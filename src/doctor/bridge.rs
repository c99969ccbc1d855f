//! The LDAP bridge, if XCALLY's `.env` names it: its socket, its secret, and that line of `.env`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::application::{self, Bound};
use super::facts::{Facts, UsedBridge};
use super::finding::Finding;
use super::{command, commands};
use crate::config::admin::{ADMIN, AdminError, LocalAdmin};
use crate::config::xcally::change::{has, written};
use crate::config::xcally::{self, ENV, Env, PREFIX, Value};

/// Address and port that the bridge listens on.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
const PORT: u16 = 3890;
const SOCKET: &str = "motion-ad-ldap.socket";
/// The user that the unit runs the bridge as.
pub(super) const USER: &str = "motion-ad-ldap";
/// LDAP's result codes of a refused bind without a password, and of a busy server (RFC 4511, appendix A).
const UNWILLING_TO_PERFORM: u32 = 53;
const BUSY: u32 = 51;

/// Target of the URL in an `.env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// The bridge.
    Here,
    /// This host, at another port than the bridge's.
    Port,
    /// Another host, or no valid target.
    Elsewhere,
}

fn leads(url: &str) -> Leads {
    match xcally::port_here(url) {
        Some(PORT) => Leads::Here,
        Some(_) => Leads::Port,
        None => Leads::Elsewhere,
    }
}

/// Returns the target of the URL in XCALLY's `.env`, if the file has a readable one.
fn asked(env: &Env) -> Option<Leads> {
    let url = env.properties.iter().find(|property| property.short() == "URL")?;
    match &url.value {
        Value::Text(url) => Some(leads(url)),
        _ => None,
    }
}

/// Returns true if the password in `.env` is the bridge's secret, and so no AD password.
pub(super) fn is_local_secret(facts: &Facts, env: &Env) -> bool {
    asked(env) == Some(Leads::Here)
        && LocalAdmin::load(&facts.path(ADMIN))
            .ok()
            .flatten()
            .is_some_and(|admin| holds(facts, "PASSWORD", admin.secret.bytes()) == Some(true))
}

/// Returns true if a property of the `.env` has this value; `None` if it is not set or not readable.
fn holds(facts: &Facts, short: &str, value: &[u8]) -> Option<bool> {
    let (bytes, _) = xcally::read(&facts.path(ENV)).ok()??;
    let text = std::str::from_utf8(&bytes).ok()?;
    let name = format!("{PREFIX}{short}");
    let raw = written(text, &name)?;
    (!["", "''", "\"\"", "``"].contains(&raw)).then(|| has(text, &name, value))
}

/// Checks the line that names the bridge, and that both sides have the same secret.
pub(super) async fn line(facts: &Facts) -> Finding {
    let env = match Env::load(&facts.path(ENV)) {
        Ok(Some(env)) => env,
        Ok(None) => return Finding::ok(format!("there is no {ENV}")),
        Err(_) if !facts.is_root() => return Finding::skipped(format!("needs root: {ENV}")),
        Err(problem) => return Finding::warning(problem.to_string()),
    };
    match asked(&env) {
        Some(Leads::Here) => {}
        Some(Leads::Port) => {
            return Finding::failure(format!(
                "{PREFIX}URL names this host at a port where the bridge does not listen"
            ))
            .command(&commands::SETUP_BRIDGE, "");
        }
        Some(Leads::Elsewhere) | None => return Finding::ok("XCALLY's .env does not name the bridge"),
    }
    if !facts.is_root() {
        return Finding::skipped(format!("needs root: {ADMIN}"));
    }
    let admin = match LocalAdmin::load(&facts.path(ADMIN)) {
        Ok(admin) => admin,
        Err(AdminError::Read(error)) => return Finding::failure(format!("{ADMIN}: {error}")),
        Err(error) => {
            return Finding::failure(format!("{ADMIN}: {error}")).command(&commands::SETUP_BRIDGE, "");
        }
    };
    match admin {
        None if holds(facts, "PASSWORD", b"") == Some(false) => {
            Finding::failure(format!("{ENV} has a password for the bridge, and {ADMIN} has none"))
                .command(&commands::SETUP_BRIDGE, "")
        }
        Some(admin)
            if holds(facts, "PASSWORD", admin.secret.bytes()) == Some(false)
                || holds(facts, "ADMIN", admin.name.as_bytes()) == Some(false) =>
        {
            Finding::failure(format!("the admin in {ENV} is not the one in {ADMIN}"))
                .command(&commands::SETUP_BRIDGE, "")
        }
        _ => Finding::ok("XCALLY's .env names the bridge"),
    }
}

/// Returns the bridge, if this host uses it and its settings can be read.
pub(super) async fn used(facts: &Facts) -> Option<&UsedBridge> {
    facts.bridge(is_used(facts)).await
}

/// Returns true if this host uses the bridge: XCALLY's `.env` names it, or its socket is enabled.
async fn is_used(facts: &Facts) -> bool {
    is_named(facts) || is_enabled().await
}

fn is_named(facts: &Facts) -> bool {
    matches!(Env::load(&facts.path(ENV)), Ok(Some(env)) if asked(&env) == Some(Leads::Here))
}

async fn is_enabled() -> bool {
    let asked = command::ask("systemctl", &["is-enabled", SOCKET]).await;
    asked.is_ok_and(|answer| answer.status.success())
}

/// Checks that the bridge answers, if this host uses it.
pub(super) async fn socket(facts: &Facts) -> Finding {
    let is_enabled = is_enabled().await;
    if !is_enabled && !is_named(facts) {
        return Finding::ok("XCALLY does not use the bridge, as far as is known");
    }
    match (silence(facts).await, is_enabled) {
        (Some(finding), _) => finding,
        (None, true) => Finding::ok(format!("{SOCKET} is enabled and {ADDRESS} answers")),
        (None, false) => Finding::warning(format!(
            "{SOCKET} is not enabled: after a restart of the host no user can log in"
        ))
        .command(&commands::ENABLE_BRIDGE, ""),
    }
}

/// Returns the problem of a bridge that does not answer a bind of the application's user as it should.
///
/// A connection alone shows nothing: systemd listens for a bridge that cannot start.
pub(super) async fn silence(facts: &Facts) -> Option<Finding> {
    if let Some(finding) = unreachable().await {
        return Some(finding);
    }
    let user = facts.application().await.ok().filter(|_| facts.is_root());
    answered(application::bind_unproved(user.as_ref(), ADDRESS).await)
}

/// Returns the finding for the answer to a bind without a password; `None` for the one that a bridge gives.
fn answered(answer: Result<Bound, String>) -> Option<Finding> {
    let finding = match answer {
        Ok(Bound { code: UNWILLING_TO_PERFORM, .. }) => return None,
        Ok(Bound { code: BUSY, text }) => {
            Finding::warning(format!("the LDAP bridge at {ADDRESS} is busy: {text}"))
        }
        Ok(Bound { code, text }) => Finding::failure(format!(
            "the LDAP bridge at {ADDRESS} answered a bind without a password with LDAP result {code} ({text})"
        )),
        Err(cause) => Finding::failure(format!(
            "no LDAP bridge answers behind its socket, so no user can log in by it: {cause}"
        )),
    };
    Some(finding.command(&commands::SHOW_BRIDGE, ""))
}

/// Returns a failure if no connection is accepted.
async fn unreachable() -> Option<Finding> {
    match timeout(command::ASK, TcpStream::connect(ADDRESS)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(
            Finding::failure(format!("the LDAP bridge at {ADDRESS}: {error}"))
                .command(&commands::ENABLE_BRIDGE, ""),
        ),
        Err(_) => Some(
            Finding::failure(format!("the LDAP bridge at {ADDRESS} does not accept a connection"))
                .command(&commands::SHOW_BRIDGE, ""),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::finding::Level;
    use super::super::{Options, xcally};
    use super::*;

    fn host(env: &str, admin: Option<&str>) -> (tempfile::TempDir, Facts) {
        let folder = tempfile::tempdir().unwrap();
        for file in ["var/opt/motion2", "etc/motion-ad"] {
            fs::create_dir_all(folder.path().join(file)).unwrap();
        }
        fs::write(folder.path().join("var/opt/motion2/.env"), env).unwrap();
        if let Some(admin) = admin {
            fs::write(folder.path().join("etc/motion-ad/ldap-admin"), admin).unwrap();
        }
        let file = |name: &str| folder.path().join(name);
        let options = Options {
            config: file("config.toml"),
            sssd: file("sssd.conf"),
            socket: file("broker.sock"),
            login: None,
        };
        let facts = Facts::at_root(options, folder.path());
        (folder, facts)
    }

    #[test]
    fn a_url_leads_to_the_bridge_or_not() {
        for (url, expected) in [
            ("ldap://127.0.0.1:3890", Leads::Here),
            ("ldap://localhost:3890/", Leads::Here),
            ("ldaps://[::1]:3890", Leads::Here),
            ("ldap://127.0.0.1", Leads::Port),
            ("ldap://127.0.0.1:389", Leads::Port),
            ("ldap://[::1]", Leads::Port),
            ("ldap://localhost:99999999", Leads::Port),
            ("ldap://localhost:", Leads::Port),
            ("ldap://ad.acme.com:3890", Leads::Elsewhere),
            ("ldap://127.0.0.1.evil.example:3890", Leads::Elsewhere),
            ("", Leads::Elsewhere),
            ("://", Leads::Elsewhere),
        ] {
            assert_eq!(leads(url), expected, "{url}");
        }
    }

    #[test]
    fn only_the_refusal_of_a_running_bridge_is_well() {
        let bound = |code| Ok(Bound { code, text: "a text".to_owned() });
        for (answer, expected) in [
            (bound(53), None),
            (bound(51), Some((Level::Warning, "busy: a text"))),
            (bound(0), Some((Level::Failure, "LDAP result 0 (a text)"))),
            (bound(50), Some((Level::Failure, "LDAP result 50"))),
            (Err("127.0.0.1:3890 does not answer".to_owned()), Some((Level::Failure, "does not answer"))),
        ] {
            let found = answered(answer);
            assert_eq!(
                found.as_ref().map(|found| found.level),
                expected.map(|(level, _)| level),
                "{found:?}"
            );
            if let (Some(found), Some((_, seen))) = (found, expected) {
                assert!(found.seen.contains(seen) && found.fix.len() == 1, "{found:?}");
            }
        }
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn line_and_secret_have_to_agree_and_the_secret_is_no_password_of_ad() {
        if !motion_ad_support::is_root() {
            return;
        }
        let env = |url: &str, admin: &str, password: &str| {
            format!(
                "XC_ACTIVEDIRECTORY_URL='{url}'\nXC_ACTIVEDIRECTORY_ADMIN='{admin}'\n\
                 XC_ACTIVEDIRECTORY_PASSWORD='{password}'\n"
            )
        };
        let here = "ldap://127.0.0.1:3890";
        let line = format!("motion-ad:{SECRET}\n");
        // .env and the admin's file; the level of the finding, and whether the password is one of AD.
        for (env, admin, level, is_ads) in [
            (env(here, "motion-ad", SECRET), Some(line.as_str()), Level::Ok, false),
            (env(here, "motion-ad", "Hush-1"), Some(&line), Level::Failure, true),
            (env(here, "cn=admin", SECRET), Some(&line), Level::Failure, false),
            (env(here, "motion-ad", SECRET), None, Level::Failure, true),
            (env(here, "motion-ad", "short"), Some("motion-ad:short\n"), Level::Failure, true),
            (env("ldap://127.0.0.1", "motion-ad", SECRET), Some(&line), Level::Failure, true),
            (env("ldap://ad.acme.com", "cn=admin", "Hush-1"), None, Level::Ok, true),
            (format!("XC_ACTIVEDIRECTORY_URL='{here}'\n"), None, Level::Ok, false),
        ] {
            let (_folder, facts) = host(&env, admin);
            let found = super::line(&facts).await;
            assert_eq!(found.level, level, "{env} {found:?}");
            let said = format!("{found:?}");
            assert!(!said.contains("Hush") && !said.contains(SECRET), "{said}");
            let password = xcally::password(&facts).await;
            assert_eq!(password.level == Level::Warning, is_ads, "{env} {password:?}");
        }
    }
}
