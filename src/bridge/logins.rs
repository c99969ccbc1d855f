//! One login through PAM for each bind: libpam runs the modules of the service, and our module queries AD.

use std::ffi::CString;

use super::answer::Answer;
use crate::libpam::{self, Application, Talk};
use crate::module::handle::OUTCOME;
use crate::protocol::Secret;

/// PAM_RHOST of every login of the bridge. It names no host, so that no module queries DNS. [`TTY`] is
/// PAM_TTY.
pub const RHOST: &str = "motion-ad-ldap";
const TTY: &str = "ldap";

/// A checker of passwords.
pub trait Logins: Send + Sync {
    /// Checks `password` for `user` once. Blocks as long as the service's modules do.
    fn login(&self, user: &str, password: &Secret) -> Answer;
}

/// PAM with one service.
#[derive(Debug)]
pub struct Pam {
    service: CString,
    folder: Option<CString>,
    rhost: CString,
    tty: CString,
    variable: CString,
}

impl Pam {
    /// Uses the service `service` in `folder`, or in `/etc/pam.d` without one.
    ///
    /// # Errors
    /// Returns `NulError` if a name holds a NUL byte.
    pub fn new(service: &str, folder: Option<&str>) -> Result<Self, std::ffi::NulError> {
        Ok(Pam {
            service: CString::new(service)?,
            folder: folder.map(CString::new).transpose()?,
            rhost: CString::new(RHOST)?,
            tty: CString::new(TTY)?,
            variable: CString::new(OUTCOME)?,
        })
    }
}

impl Logins for Pam {
    fn login(&self, user: &str, password: &Secret) -> Answer {
        // The caller rejects names and passwords with a NUL byte, which can never be right.
        let Ok(user) = CString::new(user) else { return Answer::refused("unmapped", "525") };
        let mut talk = Talk::new(&user, password);
        let application = Application {
            service: &self.service,
            rhost: Some(&self.rhost),
            tty: Some(&self.tty),
            folder: self.folder.as_deref(),
            variable: Some(&self.variable),
        };
        match libpam::login(&application, &user, &mut talk) {
            Ok(said) => Answer::of_pam(said.authenticate, said.account, said.variable.as_deref()),
            Err(_) => Answer::of(crate::verdict::Outcome::Misconfigured),
        }
    }
}
