//! The local admin: a name and a secret that allow an application on this host to search.
//!
//! `motion-ad setup --bridge` writes both to [`FILE`], which root owns and only root can read. systemd passes
//! a copy to the bridge. They grant access to nothing else: AD knows neither.

use std::io;
use std::path::Path;

use subtle::ConstantTimeEq as _;

use crate::dn::Dn;
use crate::name::fold;
use crate::protocol::Secret;

/// Path of root's file with the name and the secret.
pub const FILE: &str = "/etc/motion-ad/ldap-admin";
/// Name of the systemd credential that holds a copy of [`FILE`] (`LoadCredential=`, systemd.exec(5)).
pub const CREDENTIAL: &str = "ldap-admin";
/// Minimum length of the secret in bytes. `setup` generates one from 32 random bytes.
pub const SHORTEST: usize = 20;

/// Name and secret of the local admin.
#[derive(Debug)]
pub struct Admin {
    name: String,
    secret: Secret,
}

/// Reason why no name and secret could be read from a file.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The file is not one line `NAME:SECRET`.
    #[error("expected one line NAME:SECRET")]
    NoLine,
    /// The secret is shorter than [`SHORTEST`].
    #[error("the secret is shorter than {SHORTEST} bytes; `motion-ad setup --bridge --new-secret` makes one")]
    Short,
}

impl Admin {
    /// Reads the file at `path`: one line, `NAME:SECRET`. Returns `None` if the file is missing or empty.
    ///
    /// # Errors
    /// Returns [`AdminError`] if the file is unreadable or holds anything else.
    pub fn load(path: &Path) -> Result<Option<Self>, AdminError> {
        match std::fs::read(path) {
            Ok(bytes) => Admin::parse(&Secret::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Parses the text of such a file.
    ///
    /// # Errors
    /// As [`Admin::load`].
    pub fn parse(text: &Secret) -> Result<Option<Self>, AdminError> {
        let line = text.bytes().trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        // Splits at the first colon: a name holds none, even if it is a distinguished name.
        let colon = line.iter().position(|byte| *byte == b':').ok_or(AdminError::NoLine)?;
        let (name, secret) = (line.get(..colon), line.get(colon.saturating_add(1)..));
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).map(str::trim).unwrap_or_default();
        let secret = secret.unwrap_or_default();
        if name.is_empty() || secret.contains(&b'\n') {
            return Err(AdminError::NoLine);
        }
        match secret.len() >= SHORTEST {
            true => Ok(Some(Admin { name: name.to_owned(), secret: Secret::new(secret.to_vec()) })),
            false => Err(AdminError::Short),
        }
    }

    /// Returns true if `name` is the admin's name; case and the spelling of a distinguished name do not
    /// matter.
    pub fn is_called(&self, name: &str) -> bool {
        if fold(&self.name) == fold(name) {
            return true;
        }
        match (Dn::parse(&self.name), Dn::parse(name)) {
            (Ok(own), Ok(other)) => !own.is_root() && own == other,
            _ => false,
        }
    }

    /// Returns true if `password` is the secret. The comparison takes constant time.
    pub fn proves(&self, password: &Secret) -> bool {
        self.secret.bytes().ct_eq(password.bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(text: &str) -> Result<Option<Admin>, AdminError> {
        Admin::parse(&Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn name_and_secret_are_read_and_not_shown() {
        let admin = parse(&format!("motion-ad:{SECRET}\n")).unwrap().unwrap();
        assert!(
            admin.is_called("Motion-AD") && !admin.is_called("motion-ad@acme.com") && !admin.is_called("")
        );
        assert!(admin.proves(&Secret::new(SECRET.into())));
        for wrong in ["", "0", &SECRET[1..], &format!("{SECRET}x"), &SECRET.to_uppercase()] {
            assert!(!admin.proves(&Secret::new(wrong.as_bytes().to_vec())), "{wrong}");
        }
        assert!(!format!("{admin:?}").contains(SECRET));
    }

    #[test]
    fn a_name_that_is_a_distinguished_name_is_compared_as_one() {
        let admin = parse(&format!("cn=motion-ad,dc=acme,dc=com:{SECRET}")).unwrap().unwrap();
        assert!(admin.is_called("CN=Motion-AD, DC=acme, DC=com"));
        assert!(!admin.is_called("CN=motion-ad,DC=acme"));
    }

    #[test]
    fn what_is_no_admin_is_an_error_and_nothing_is_none() {
        for text in ["", "\n", "  \n"] {
            assert!(matches!(parse(text), Ok(None)), "{text:?}");
        }
        for (text, expected) in [
            ("motion-ad", "NAME:SECRET"),
            (":0123456789abcdef0123456789abcdef", "NAME:SECRET"),
            ("a:0123456789abcdef01234\nb:0123456789abcdef01234", "NAME:SECRET"),
            ("motion-ad:short", "shorter than 20"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(expected), "{text}");
        }
        assert!(Admin::load(Path::new("/nonexistent/ldap-admin")).unwrap().is_none());
    }
}
