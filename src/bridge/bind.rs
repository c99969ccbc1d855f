//! A bind: one login through PAM, or a check of the local admin's secret. Binds that cannot succeed are
//! rejected without a call to PAM or AD.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::timeout;

use super::Bridge;
use super::answer::Answer;
use super::message::{self, Outcome, code};
use super::session::Session;
use super::state::{Identity, State};
use crate::dn::Dn;
use crate::log::{Level, Line, Log};
use crate::protocol::search::{Scope, Search};
use crate::protocol::{MAX_USER, Secret};

/// Maximum number of logins in progress at once. Each occupies a thread.
pub const THREADS: usize = 64;
/// Maximum time a bind waits for one of the [`THREADS`].
pub const QUEUED: Duration = Duration::from_secs(5);
/// Time limit for the lookup of the account behind a distinguished name.
pub const LOOKUP: Duration = Duration::from_secs(5);
/// Maximum length in bytes of a distinguished name that a client binds with.
pub const NAME: usize = 2048;
/// The only supported version of LDAP.
const VERSION: u32 = 3;

/// The line of a bind, which goes into the log when this is dropped: after the reply, because the client need
/// not wait for it, and also if the reply cannot be sent.
pub struct Logged<'a> {
    log: &'a Log,
    line: Line,
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        self.log.write(Level::Info, &self.line);
    }
}

/// Result of a bind.
pub struct Bound<'a> {
    /// Result for the client.
    pub outcome: Outcome,
    /// Session that the bind registered, if it succeeded.
    pub session: Option<Session>,
    /// Line for the log.
    pub logged: Logged<'a>,
}

/// Performs a bind. A rejected one leaves no session.
pub async fn bind<'a>(bridge: &'a Bridge, state: &mut State, bind: message::Bind) -> Bound<'a> {
    let begun = Instant::now();
    // A bind drops the previous identity, even if it fails (RFC 4511, 4.2.1).
    state.identity = Identity::Anonymous;
    state.kept = None;
    let sent = String::from_utf8_lossy(&bind.name).into_owned();
    let (mut answer, identity) = decide(bridge, bind).await;
    let who = match &identity {
        Identity::User(user) if *user != sent => user.as_str(),
        _ => "",
    };
    let line = Line::new("bind")
        .with("user", sent)
        .with("login", who)
        .with("outcome", answer.name)
        .with("result", answer.outcome.code)
        .with("data", answer.data.unwrap_or_default())
        .with("problem", &answer.problem)
        .with("peer", state.peer)
        .with("ms", format!("{:.1}", begun.elapsed().as_secs_f64() * 1000.0));
    let mut session = match (answer.session.take(), &identity) {
        (Some(id), Identity::User(user)) => Some(Session { user: user.clone(), id }),
        _ => None,
    };
    let logged = Logged { log: &bridge.log, line };
    if answer.outcome.code == code::SUCCESS {
        state.identity = identity;
    } else if let Some(session) = session.take() {
        session.end(bridge, state.peer, "another line of the PAM service rejected the login").await;
    }
    Bound { outcome: answer.outcome, session, logged }
}

/// Decides a bind. Returns the reply and the identity that a success gives to the connection.
async fn decide(bridge: &Bridge, bind: message::Bind) -> (Answer, Identity) {
    let nobody = |answer| (answer, Identity::Anonymous);
    if bind.version != VERSION {
        return nobody(Answer::other("refused", code::PROTOCOL_ERROR, "only LDAPv3 is spoken here"));
    }
    let Some(password) = bind.password else {
        let text = "only simple binds are supported";
        return nobody(Answer::other("refused", code::AUTH_METHOD_NOT_SUPPORTED, text));
    };
    if password.bytes().is_empty() {
        // An unauthenticated bind would succeed, and applications take that for a login (RFC 4513, 5.1.2).
        let text = "a bind without a password is refused";
        return nobody(Answer::other("refused", code::UNWILLING_TO_PERFORM, text));
    }
    let Some(name) = name(&bind.name) else { return nobody(Answer::refused("unmapped", "525")) };
    if password.password().is_err() {
        return nobody(Answer::refused("wrong_password", "52e"));
    }
    if let Some(admin) = bridge.admin.as_ref().filter(|admin| admin.is_called(&name)) {
        return match admin.proves(&password) {
            true => (Answer::success(), Identity::Admin(name)),
            false => nobody(Answer::refused("wrong_password", "52e")),
        };
    }
    let user = match account(bridge, &name).await {
        Ok(user) => user,
        Err(answer) => return nobody(answer),
    };
    (login(bridge, &user, &password).await, Identity::User(user))
}

/// Returns the name of a bind as text, or `None` if it cannot be a name: empty, too long, a NUL byte, not
/// UTF-8.
fn name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let is_within = name.len() <= MAX_USER || (is_dn(name) && name.len() <= NAME);
    (is_within && !name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

/// Returns true if `name` is a distinguished name. Account names never hold a `=` (MS-SAMR 3.1.1.6).
fn is_dn(name: &str) -> bool {
    name.contains('=') && Dn::parse(name).is_ok_and(|dn| !dn.is_root())
}

/// Returns the user name for PAM: `name` itself, or the login name of the account if `name` is a
/// distinguished name.
async fn account(bridge: &Bridge, name: &str) -> Result<String, Answer> {
    if !is_dn(name) {
        return Ok(name.to_owned());
    }
    let Ok(_place) = timeout(QUEUED, bridge.threads.acquire()).await else { return Err(busy()) };
    let search = Search {
        base: name.to_owned(),
        scope: Scope::Base,
        filter: "(objectClass=*)".to_owned(),
        attributes: vec!["cn".to_owned()],
        size_limit: 1,
    };
    let found = block_in_place(|| bridge.directory.search(search, LOOKUP));
    match found.code {
        code::SUCCESS | code::SIZE_LIMIT_EXCEEDED => {}
        code::NO_SUCH_OBJECT | code::INVALID_DN_SYNTAX => return Err(Answer::refused("unknown_user", "525")),
        code::BUSY => return Err(busy()),
        _ => return Err(Answer::other("unavailable", code::UNAVAILABLE, &found.text)),
    }
    let same = |dn: &str| Dn::parse(dn).is_ok_and(|found| Dn::parse(name).is_ok_and(|asked| asked == found));
    let entry = found.entries.into_iter().find(|entry| same(&entry.dn));
    // Only accounts of users have a login name.
    entry.and_then(|entry| entry.login).ok_or_else(|| Answer::refused("unknown_user", "525"))
}

fn busy() -> Answer {
    Answer::other("busy", code::BUSY, "too many logins are running; try again in a moment")
}

/// Performs one login through PAM.
async fn login(bridge: &Bridge, user: &str, password: &Secret) -> Answer {
    let Ok(Ok(_place)) = timeout(QUEUED, bridge.threads.acquire()).await else { return busy() };
    block_in_place(|| bridge.logins.login(user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_over_the_bounds_are_none() {
        for good in ["john.doe", "john.doe@acme.com", r"ACME\john.doe", "miles.o'brien", "jörg.müller"] {
            assert_eq!(name(good.as_bytes()).as_deref(), Some(good));
            assert!(!is_dn(good));
        }
        let long = format!("cn={},dc=acme,dc=com", "x".repeat(MAX_USER));
        assert_eq!(name(long.as_bytes()), Some(long));
        let too_long = format!("cn={}", "x".repeat(NAME));
        for bad in [&b""[..], b"a\0b", b"\xff", "x".repeat(MAX_USER + 1).as_bytes(), too_long.as_bytes()] {
            assert_eq!(name(bad), None);
        }
        for dn in ["cn=john.doe,ou=People,DC=acme,DC=com", r"CN=Doe\, John, OU=People, DC=acme, DC=com"] {
            assert!(is_dn(dn), "{dn}");
        }
    }
}
