//! One login through PAM, for a bind: libpam decides by the lines of the service, the module by AD.

use std::ffi::CString;

use super::answer::Answer;
use crate::libpam::{self, Application, Talk};
use crate::module::handle::OUTCOME;
use crate::protocol::Secret;

/// PAM_RHOST and PAM_TTY of every login of the bridge: by which way it came. It names no host, so that no module asks DNS.
pub const RHOST: &str = "motion-ad-ldap";
const TTY: &str = "ldap";

/// Decides logins.
pub trait Logins: Send + Sync {
    /// Checks `password` for `user`, once. Blocks while the service's modules do.
    fn login(&self, user: &str, password: &Secret) -> Answer;
}

/// PAM, by a service.
#[derive(Debug)]
pub struct Pam {
    service: CString,
    folder: Option<CString>,
    rhost: CString,
    tty: CString,
    variable: CString,
}

impl Pam {
    /// The service `service`, of `/etc/pam.d` or of another folder.
    ///
    /// # Errors
    /// If a name holds a NUL byte.
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
        // Neither can be right with a NUL byte; the caller has refused them.
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
