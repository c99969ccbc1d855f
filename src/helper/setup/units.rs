//! The bridge of this host: its socket and its secret, turned on and off.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::write;
use crate::config::admin::LocalAdmin;
use crate::protocol::Secret;

pub(super) const SOCKET: &str = "motion-ad-ldap.socket";
pub(super) const SERVICE: &str = "motion-ad-ldap.service";

/// The bridge of this host.
pub(super) struct Bridge<'a> {
    /// The file of the local admin.
    pub(super) admin: &'a Path,
    /// Runs systemctl; an error says what failed.
    pub(super) systemctl: &'a dyn Fn(&[&str]) -> Result<(), String>,
}

/// State of the bridge before it was turned on.
pub(super) struct Before {
    /// The bytes of the admin's file if it was replaced; `None` inside if there was none.
    admin: Option<Option<Secret>>,
    is_enabled: bool,
    is_active: bool,
}

impl Bridge<'_> {
    /// Returns true if the socket listens, and will after a restart of the host.
    pub(super) fn is_on(&self) -> bool {
        self.is("is-enabled") && self.is("is-active")
    }

    fn is(&self, question: &str) -> bool {
        (self.systemctl)(&[question, "--quiet", SOCKET]).is_ok()
    }

    /// Turns the bridge on, with `new` as its admin if there is one. With `stays`, the socket stays on after
    /// a failure, because XCALLY's `.env` names it already.
    ///
    /// # Errors
    /// If a step fails. The steps before it are taken back.
    pub(super) fn on(&self, new: Option<&LocalAdmin>, stays: bool) -> Result<Before, String> {
        let admin = new.map(|_| read(self.admin)).transpose().map_err(|error| self.of_admin(&error))?;
        let (is_enabled, is_active) = (stays || self.is("is-enabled"), stays || self.is("is-active"));
        let before = Before { admin, is_enabled, is_active };
        match self.start(new) {
            Ok(()) => Ok(before),
            Err(cause) => Err(cause + &self.take_back(&before)),
        }
    }

    fn start(&self, new: Option<&LocalAdmin>) -> Result<(), String> {
        if let Some(new) = new {
            write::secret(self.admin, new.line().bytes()).map_err(|error| self.of_admin(&error))?;
        }
        (self.systemctl)(&["enable", "--now", SOCKET])?;
        // The bridge must know the secret before the application gets it.
        if new.is_some() { (self.systemctl)(&["try-restart", SERVICE]) } else { Ok(()) }
    }

    /// Restores the state from before [`Bridge::on`]. Returns what could not be restored, as the rest of a
    /// sentence.
    pub(super) fn take_back(&self, before: &Before) -> String {
        let mut failed = Vec::new();
        if !before.is_active && self.is("is-active") {
            failed.extend((self.systemctl)(&["stop", SOCKET, SERVICE]).err());
        }
        if !before.is_enabled && self.is("is-enabled") {
            failed.extend((self.systemctl)(&["disable", SOCKET]).err());
        }
        if let Some(admin) = &before.admin {
            let restored = match admin {
                Some(bytes) => write::secret(self.admin, bytes.bytes()),
                None => remove(self.admin),
            };
            failed.extend(restored.err().map(|error| self.of_admin(&error)));
            failed.extend((self.systemctl)(&["try-restart", SERVICE]).err());
        }
        failed.into_iter().map(|cause| format!("; not undone: {cause}")).collect()
    }

    /// Turns the bridge off and removes its secret.
    ///
    /// # Errors
    /// If a step fails. The earlier ones are not taken back.
    pub(super) fn off(&self) -> Result<(), String> {
        (self.systemctl)(&["disable", "--now", SOCKET, SERVICE])?;
        remove(self.admin).map_err(|error| self.of_admin(&error))
    }

    fn of_admin(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.admin.display())
    }
}

/// Runs systemctl.
///
/// # Errors
/// Returns the command and its complaint.
pub(super) fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let shown = format!("systemctl {}", arguments.join(" "));
    let ran = Command::new("systemctl").args(arguments).current_dir("/").stdin(Stdio::null()).output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!("{shown}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn read(file: &Path) -> io::Result<Option<Secret>> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(Secret::new(bytes?))),
    }
}

/// Removes the file. A missing one is no error.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const OLD: &str = "motion-ad:0123456789abcdef0123\n";

    /// Turns the bridge on with a new secret, where the command that begins with `fails` fails. Returns the
    /// result, the commands that change something, and the admin's file.
    fn on(fails: &str, was_on: bool, old: Option<&str>) -> (Option<String>, Vec<String>, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("ldap-admin");
        old.iter().for_each(|old| fs::write(&admin, old).unwrap());
        let (ran, enabled) = (RefCell::new(Vec::new()), RefCell::new(was_on));
        let systemctl = |arguments: &[&str]| {
            let shown = arguments.join(" ");
            if arguments[0].starts_with("is-") {
                return if *enabled.borrow() { Ok(()) } else { Err("inactive".to_owned()) };
            }
            let is_failure = shown.starts_with(fails);
            *enabled.borrow_mut() |= arguments[0] == "enable" && !is_failure;
            ran.borrow_mut().push(shown.clone());
            if is_failure { Err(format!("{shown}: no")) } else { Ok(()) }
        };
        let bridge = Bridge { admin: &admin, systemctl: &systemctl };
        let done = bridge.on(Some(&LocalAdmin::make().unwrap()), false).err();
        (done, ran.into_inner(), fs::read_to_string(&admin).ok())
    }

    const ENABLE: &str = "enable --now motion-ad-ldap.socket";
    const RESTART: &str = "try-restart motion-ad-ldap.service";
    const STOP: &str = "stop motion-ad-ldap.socket motion-ad-ldap.service";
    const DISABLE: &str = "disable motion-ad-ldap.socket";

    #[test]
    fn a_bridge_that_does_not_start_is_as_it_was_before() {
        let (done, ran, admin) = on("nothing", false, None);
        assert_eq!((done, ran), (None, vec![ENABLE.to_owned(), RESTART.to_owned()]));
        assert!(admin.unwrap().starts_with("motion-ad:"));
        for old in [None, Some(OLD)] {
            let (done, ran, admin) = on("enable", false, old);
            assert_eq!(done.unwrap(), format!("{ENABLE}: no"));
            assert_eq!((ran, admin.as_deref()), (vec![ENABLE.to_owned(), RESTART.to_owned()], old));
        }
        let (done, ran, admin) = on("try-restart", false, Some(OLD));
        assert_eq!(done.unwrap(), format!("{RESTART}: no; not undone: {RESTART}: no"));
        assert_eq!(
            (ran, admin.as_deref()),
            ([ENABLE, RESTART, STOP, DISABLE, RESTART].map(String::from).into(), Some(OLD))
        );
        // A bridge that was on stays on.
        let (_, ran, _) = on("try-restart", true, Some(OLD));
        assert_eq!(ran, [ENABLE, RESTART, RESTART]);
    }
}
