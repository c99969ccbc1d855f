//! One login through PAM for each bind: libpam runs the modules of the service, and our module queries AD.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::answer::{Answer, PERM_DENIED};
use super::message::code;
use crate::client;
use crate::libpam::{self, Application, Login, Modules, SERVICES, Talk};
use crate::module::handle::{OUTCOME, SESSION};
use crate::protocol::{Operation, Request, Secret};

/// PAM_RHOST of every login of the bridge: an address of this host, with the bridge as its zone. The audit
/// library resolves PAM_RHOST in each call of libpam. For an address, the C library sends no query to DNS;
/// for a plain word it sends two. [`TTY`] is PAM_TTY.
pub const RHOST: &str = "::1%motion-ad-ldap";
const TTY: &str = "ldap";
/// Lists the memory of this process, with the file that each part belongs to (proc(5)).
const MAPS: &str = "/proc/self/maps";

/// Time limit for the end of a session.
const END: Duration = Duration::from_secs(5);

/// Logs users in.
pub trait Logins: Send + Sync {
    /// Checks `password` for `user` once. Blocks as long as the service's modules do.
    fn login(&self, user: &str, password: &Secret) -> Answer;

    /// Ends a session that a login of `user` registered. Blocks until the broker has replied.
    ///
    /// # Errors
    /// Returns a description of the problem if the session may still be open.
    fn end(&self, user: &str, session: &str) -> Result<(), String>;
}

/// PAM with one service.
#[derive(Debug)]
pub struct Pam {
    service: CString,
    folder: Option<CString>,
    rhost: CString,
    tty: CString,
    outcome: CString,
    session: CString,
    /// Path of the broker's socket.
    socket: PathBuf,
    modules: Option<Modules>,
}

impl Pam {
    /// Uses the service `service` in `folder`, or in `/etc/pam.d` without one. The broker at `socket` ends
    /// its sessions.
    ///
    /// # Errors
    /// Returns `NulError` if a name holds a NUL byte.
    pub fn new(service: &str, folder: Option<&str>, socket: &Path) -> Result<Self, std::ffi::NulError> {
        Ok(Pam {
            service: CString::new(service)?,
            folder: folder.map(CString::new).transpose()?,
            rhost: CString::new(RHOST)?,
            tty: CString::new(TTY)?,
            outcome: CString::new(OUTCOME)?,
            session: CString::new(SESSION)?,
            socket: socket.to_owned(),
            modules: None,
        })
    }

    /// Keeps the modules loaded from now on: otherwise each login loads and unloads those of the service and
    /// of `other`. Returns the files that were loaded; a changed one is not loaded again. If libpam cannot
    /// read the service, every login tries it again.
    pub fn keep_modules(&mut self) -> Vec<PathBuf> {
        let before = loaded();
        self.modules = Modules::load(&self.application()).ok();
        loaded().difference(&before).cloned().collect()
    }

    /// Returns the reason why a rejection without an outcome of our module is no decision about the account.
    ///
    /// If libpam cannot read a line of the service, it uses the lines of `other`. Without any line it returns
    /// PAM_PERM_DENIED, the code of a disabled account.
    fn failed(&self, said: &Login) -> Option<String> {
        if said.authenticate == PERM_DENIED && said.unasked {
            return Some("no module of the PAM service asked for the password".to_owned());
        }
        let folder = self.folder.as_ref().map_or(SERVICES.as_bytes(), |folder| folder.as_bytes());
        let file = Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(self.service.as_bytes()));
        let error = std::fs::read(&file).err()?;
        Some(format!("{} cannot be read: {error}", file.display()))
    }

    fn application(&self) -> Application<'_> {
        Application {
            service: &self.service,
            rhost: Some(&self.rhost),
            tty: Some(&self.tty),
            folder: self.folder.as_deref(),
        }
    }
}

/// Returns the files that are loaded into this process.
fn loaded() -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string(MAPS).unwrap_or_default();
    // Address, access, offset, device and inode stand before the path, which starts with a slash.
    let paths = maps.lines().filter_map(|line| line.find('/').and_then(|path| line.get(path..)));
    paths.map(PathBuf::from).collect()
}

impl Logins for Pam {
    fn login(&self, user: &str, password: &Secret) -> Answer {
        // The caller rejects names and passwords with a NUL byte, which can never be right.
        let Ok(user) = CString::new(user) else { return Answer::refused("unmapped", "525") };
        match libpam::login(&self.application(), &user, Talk::new(&user, &[password.bytes()])) {
            Ok(said) => {
                let outcome = said.handle.variable(&self.outcome);
                let answer = Answer::of_pam(said.authenticate, said.account, outcome.as_deref());
                let answer = match outcome.is_none() && answer.outcome.code == code::INVALID_CREDENTIALS {
                    true => self.failed(&said).map_or(answer, Answer::undecided),
                    false => answer,
                };
                Answer { session: said.handle.variable(&self.session), ..answer }
            }
            Err(failed) => Answer::undecided(failed),
        }
    }

    // Not `pam_close_session`: the service may have no session line.
    fn end(&self, user: &str, session: &str) -> Result<(), String> {
        let operation = Operation::CloseSession { session: Some(session.to_owned()) };
        let request = Request {
            service: self.service.to_string_lossy().into_owned(),
            rhost: RHOST.to_owned(),
            tty: TTY.to_owned(),
            ..client::request(operation, user, END)
        };
        match client::ask_verdict(&self.socket, &request, &Secret::default()) {
            Ok(verdict) if verdict.outcome.is_success() => Ok(()),
            Ok(verdict) => Err(format!("{}: {}", verdict.outcome, verdict.reason)),
            Err(error) => Err(format!("{error}; {}", error.advice())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::protocol::{Reply, receive, send};
    use crate::verdict::{Outcome, Verdict};

    const NO_BROKER: &str = "/nonexistent.sock";

    #[test]
    fn a_session_is_ended_by_its_id_at_the_broker() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("broker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let pam = Pam::new("motion-bridge", None, &socket).unwrap();
        let replies = [Outcome::Success, Outcome::SessionStore];
        let broker = std::thread::spawn(move || {
            replies.map(|outcome| {
                let (mut stream, _) = listener.accept().unwrap();
                let (request, _) = receive::<Request>(&mut stream).unwrap();
                let reply = Reply::Verdict(Verdict::new(outcome, "a reason"));
                send(&mut stream, &reply, &Secret::default()).unwrap();
                request
            })
        });
        assert_eq!(pam.end("john.doe", "s1"), Ok(()));
        assert_eq!(pam.end("john.doe", "s1"), Err("session_store: a reason".to_owned()));
        let [request, _] = broker.join().unwrap();
        assert_eq!(request.operation, Operation::CloseSession { session: Some("s1".to_owned()) });
        let named = (request.user.as_str(), request.service.as_str(), request.rhost.as_str());
        assert_eq!(named, ("john.doe", "motion-bridge", RHOST));
        let absent = Pam::new("motion-bridge", None, Path::new(NO_BROKER)).unwrap();
        assert!(absent.end("john.doe", "s1").unwrap_err().contains("systemctl status motion-ad.socket"));
    }

    /// Returns a folder with a service `motion`, and one for all others.
    fn services(motion: &[u8], other: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("motion"), motion).unwrap();
        fs::write(folder.path().join("other"), other).unwrap();
        folder
    }

    // No other test loads these modules.
    #[test]
    fn modules_stay_loaded_and_are_named() {
        let services = services(
            b"auth required pam_echo.so\naccount required pam_no_such_module.so\n",
            "session required pam_debug.so\n",
        );
        let mut pam = Pam::new("motion", services.path().to_str(), Path::new(NO_BROKER)).unwrap();
        let kept = pam.keep_modules();
        for module in ["pam_echo.so", "pam_debug.so"] {
            let file = kept.iter().find(|file| file.ends_with(module)).cloned().unwrap();
            assert!(loaded().contains(&file));
            assert_ne!(pam.login("john.doe", &Secret::new(b"x".to_vec())).outcome.code, 0);
            assert!(loaded().contains(&file), "a login must not unload it");
        }
        drop(pam);
        assert!(!loaded().iter().any(|file| file.ends_with("pam_echo.so")));
    }

    /// A zone that is no number rules out every address, and an address with a zone is no name for DNS.
    #[test]
    fn the_remote_host_is_an_address_and_not_resolved() {
        use std::net::ToSocketAddrs as _;
        let address = RHOST.split_once('%').unwrap().0;
        assert!(address.parse::<std::net::Ipv6Addr>().unwrap().is_loopback());
        assert!((RHOST, 0).to_socket_addrs().is_err());
    }

    #[test]
    fn a_service_without_lines_says_nothing_about_the_account() {
        let bind = |motion: &[u8], other: &str| {
            let services = services(motion, other);
            let pam = Pam::new("motion", services.path().to_str(), Path::new(NO_BROKER)).unwrap();
            pam.login("john.doe", &Secret::new(b"x".to_vec()))
        };
        let empty = bind(b"", "");
        assert_eq!((empty.outcome.code, empty.data), (52, None));
        assert!(empty.problem.contains("no module"), "{}", empty.problem);
        let denied = bind(b"auth required pam_deny.so\n", "");
        assert_eq!((denied.outcome.code, denied.problem.as_str()), (49, ""));
    }

    #[test]
    fn a_service_that_cannot_be_read_says_nothing_about_the_account() {
        let services = services(b"", "auth required pam_deny.so\n");
        fs::remove_file(services.path().join("motion")).unwrap();
        let pam = Pam::new("motion", services.path().to_str(), Path::new(NO_BROKER)).unwrap();
        let answer = pam.login("john.doe", &Secret::new(b"x".to_vec()));
        assert_eq!(answer.outcome.code, 52);
        assert!(answer.problem.contains("motion cannot be read"), "{}", answer.problem);
    }

    #[test]
    fn a_service_that_libpam_cannot_read_stops_nothing() {
        let services = services(b"@include nowhere\n", "auth required pam_deny.so\n");
        let mut pam = Pam::new("motion", services.path().to_str(), Path::new(NO_BROKER)).unwrap();
        pam.keep_modules();
        assert_ne!(pam.login("john.doe", &Secret::new(b"x".to_vec())).outcome.code, 0);
        fs::write(
            services.path().join("motion"),
            "auth required pam_permit.so\naccount required pam_permit.so\n",
        )
        .unwrap();
        assert_eq!(pam.login("john.doe", &Secret::new(b"x".to_vec())).outcome.code, 0);
    }
}
