//! What a PAM handle remembers between the entry points. No password is among it: libpam itself wipes them at the end of
//! each call (`_pam_sanitize`), and so do we.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::code::{Code, settles_account};
use crate::verdict::Outcome;

/// How long `acct_mgmt` may repeat what authenticate was told.
const VALIDITY: Duration = Duration::from_secs(60);

/// Everything that is kept on one handle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What was said of the account last.
    pub login: Option<Login>,
    /// The account that proved itself, or that `acct_mgmt` was first asked about.
    pub proved: Option<Proved>,
    /// What the first phase of a password change came to.
    pub probe: Option<Probe>,
    /// The session that is open on this handle, by the broker that knows it.
    pub sessions: BTreeMap<PathBuf, Session>,
    /// Who was let in by `session=auth` without a session, because the password must be changed first.
    pub owed: Option<Subject>,
    /// Who was told that the password expires soon.
    pub warned: Option<String>,
}

/// Whom something is remembered of, and by which broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// PAM_USER as it was then; the application may change it between the calls.
    pub user: String,
    /// The broker that was asked; another line of the stack may name another one.
    pub socket: PathBuf,
}

impl Subject {
    fn is(&self, user: &str, socket: &Path) -> bool {
        self.user == user && self.socket == socket
    }
}

/// What the broker said of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Of whom.
    pub subject: Subject,
    /// What it answered.
    pub outcome: Outcome,
    /// When, by the monotonic clock.
    pub at: Duration,
}

/// The account behind a name, as it was when it proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// By which name.
    pub subject: Subject,
    /// Its `objectGUID`.
    pub account: String,
}

/// What the first phase of a password change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whose password.
    pub subject: Subject,
    /// What it came to.
    pub result: Probed,
}

/// See [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The present password is right and may be changed.
    Ready,
    /// Only an expired password was to be changed, and this one has not.
    NotExpired,
    /// It was refused with this code, and this outcome where the broker was asked.
    Refused(Code, Option<Outcome>),
}

/// A session that was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user: String,
    /// Its id.
    pub id: String,
    /// Whether a line with `session=auth` registered it.
    pub by_auth: bool,
}

impl Memory {
    /// What was said of the account, if it still answers the question that `acct_mgmt` asks.
    pub fn account(&self, user: &str, socket: &Path, now: Duration) -> Option<Outcome> {
        let login = self.login.as_ref().filter(|login| login.subject.is(user, socket))?;
        let fresh = now.checked_sub(login.at).is_some_and(|age| age <= VALIDITY);
        (fresh && settles_account(login.outcome)).then_some(login.outcome)
    }

    /// The `objectGUID` of the account that proved itself by this name, however long ago.
    pub fn proved(&self, user: &str, socket: &Path) -> Option<&str> {
        let proved = self.proved.as_ref().filter(|proved| proved.subject.is(user, socket))?;
        Some(&proved.account)
    }

    /// What the first phase of this person's password change came to.
    pub fn probed(&self, user: &str, socket: &Path) -> Option<Probed> {
        self.probe.as_ref().filter(|probe| probe.subject.is(user, socket)).map(|probe| probe.result)
    }

    /// Returns true if a line with `session=auth` has registered the session that this user has on the handle.
    pub fn is_registered(&self, user: &str, socket: &Path) -> bool {
        self.sessions.get(socket).is_some_and(|session| session.by_auth && session.user == user)
    }

    /// Whether this person is in without a session.
    pub fn owes(&self, user: &str, socket: &Path) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.is(user, socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn john() -> Subject {
        Subject { user: "john".into(), socket: "/run/a".into() }
    }

    fn memory(outcome: Outcome) -> Memory {
        let login = Login { subject: john(), outcome, at: 100 * SECOND };
        let probe = Probe { subject: john(), result: Probed::Ready };
        Memory { login: Some(login), probe: Some(probe), owed: Some(john()), ..Memory::default() }
    }

    #[test]
    fn it_answers_for_the_same_person_and_broker_for_a_minute() {
        let (socket, memory) = (Path::new("/run/a"), memory(Outcome::Success));
        assert_eq!(memory.account("john", socket, 100 * SECOND), Some(Outcome::Success));
        assert_eq!(memory.account("john", socket, 160 * SECOND), Some(Outcome::Success));
        assert_eq!(memory.account("john", socket, 161 * SECOND), None);
        assert_eq!(memory.account("john", socket, 99 * SECOND), None, "from the future");
        assert_eq!(memory.account("John", socket, 100 * SECOND), None);
        assert_eq!(memory.account("john", Path::new("/run/b"), 100 * SECOND), None);
        assert_eq!(Memory::default().account("john", socket, 100 * SECOND), None);
    }

    #[test]
    fn a_wrong_password_says_nothing_about_the_account() {
        let socket = Path::new("/run/a");
        assert_eq!(memory(Outcome::WrongPassword).account("john", socket, 100 * SECOND), None);
        assert_eq!(memory(Outcome::Disabled).account("john", socket, 100 * SECOND), Some(Outcome::Disabled));
    }

    #[test]
    fn a_probe_and_an_owed_session_are_of_one_person_and_one_broker() {
        let memory = memory(Outcome::MustChange);
        for (user, socket, is) in [("john", "/run/a", true), ("jane", "/run/a", false), ("john", "/b", false)]
        {
            assert_eq!(memory.probed(user, Path::new(socket)).is_some(), is, "{user} {socket}");
            assert_eq!(memory.owes(user, Path::new(socket)), is, "{user} {socket}");
        }
    }
}
