//! Memory on a PAM handle between the entry points. It holds no password: libpam wipes passwords at the end
//! of each call (`_pam_sanitize`), and so do we.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::code::{Code, settles_account};
use crate::verdict::Outcome;

/// Time for which `acct_mgmt` may repeat the outcome of authenticate.
const VALIDITY: Duration = Duration::from_secs(60);

/// All data that one handle keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last outcome for the account.
    pub login: Option<Login>,
    /// The account that was authenticated, or the first one that `acct_mgmt` was called for.
    pub proved: Option<Proved>,
    /// The result of the first phase of a password change.
    pub probe: Option<Probe>,
    /// The open sessions of this handle, by the socket of the broker that registered each.
    pub sessions: BTreeMap<PathBuf, Session>,
    /// The user who got access by `session=auth` without a session, because the password must be changed
    /// first.
    pub owed: Option<Subject>,
    /// The user who was warned that the password expires soon.
    pub warned: Option<String>,
}

/// The user and the broker that a memory is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// PAM_USER at that time; the application may change it between the calls.
    pub user: String,
    /// The socket of the broker; another line of the stack may name another one.
    pub socket: PathBuf,
}

impl Subject {
    fn is(&self, user: &str, socket: &Path) -> bool {
        self.user == user && self.socket == socket
    }
}

/// The outcome that the broker reported for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user and the broker.
    pub subject: Subject,
    /// The outcome.
    pub outcome: Outcome,
    /// The broker's text for the user, if the outcome's own text is not it.
    pub text: Option<String>,
    /// The time of the outcome, by the monotonic clock.
    pub at: Duration,
}

/// The account behind a name at the time of its authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The name and the broker.
    pub subject: Subject,
    /// Its `objectGUID`.
    pub account: String,
}

/// The first phase of a password change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The user and the broker.
    pub subject: Subject,
    /// The result.
    pub result: Probed,
}

/// Result of the first phase of a password change; see [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The present password is right and may be changed.
    Ready,
    /// The application changes only expired passwords, and this one has not expired.
    NotExpired,
    /// The probe was rejected with this code, and with this outcome if the broker was involved.
    Refused(Code, Option<Outcome>),
}

/// A registered session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user of the session.
    pub user: String,
    /// Its id.
    pub id: String,
    /// True if a line with `session=auth` registered it.
    pub by_auth: bool,
}

impl Memory {
    /// Returns the last outcome for the account, and its text, if `acct_mgmt` may repeat them at `now`.
    pub fn account(&self, user: &str, socket: &Path, now: Duration) -> Option<(Outcome, Option<String>)> {
        let login = self.login.as_ref().filter(|login| login.subject.is(user, socket))?;
        let fresh = now.checked_sub(login.at).is_some_and(|age| age <= VALIDITY);
        (fresh && settles_account(login.outcome)).then(|| (login.outcome, login.text.clone()))
    }

    /// Returns the `objectGUID` of the account that was authenticated by this name, however long ago.
    pub fn proved(&self, user: &str, socket: &Path) -> Option<&str> {
        let proved = self.proved.as_ref().filter(|proved| proved.subject.is(user, socket))?;
        Some(&proved.account)
    }

    /// Returns the result of the first phase of this user's password change.
    pub fn probed(&self, user: &str, socket: &Path) -> Option<Probed> {
        self.probe.as_ref().filter(|probe| probe.subject.is(user, socket)).map(|probe| probe.result)
    }

    /// Returns true if a line with `session=auth` has registered the session that this user has on the
    /// handle.
    pub fn is_registered(&self, user: &str, socket: &Path) -> bool {
        self.sessions.get(socket).is_some_and(|session| session.by_auth && session.user == user)
    }

    /// Returns true if this user got access without a session.
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
        let login = Login { subject: john(), outcome, text: Some("why".into()), at: 100 * SECOND };
        let probe = Probe { subject: john(), result: Probed::Ready };
        Memory { login: Some(login), probe: Some(probe), owed: Some(john()), ..Memory::default() }
    }

    #[test]
    fn it_answers_for_the_same_person_and_broker_for_a_minute() {
        let (socket, memory) = (Path::new("/run/a"), memory(Outcome::Success));
        let known = Some((Outcome::Success, Some("why".to_owned())));
        assert_eq!(memory.account("john", socket, 100 * SECOND), known);
        assert_eq!(memory.account("john", socket, 160 * SECOND), known);
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
        let known = memory(Outcome::Disabled).account("john", socket, 100 * SECOND);
        assert_eq!(known.map(|(outcome, _)| outcome), Some(Outcome::Disabled));
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
