//! The local admin of the LDAP bridge: a name and a secret that are valid only on this host.
//!
//! `motion-ad setup --bridge` creates them, to replace an administrator of AD in XCALLY's `.env`. AD knows
//! neither. The bridge, `setup` and the doctor read them here.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::protocol::Secret;

/// The file in which root keeps them: one line, `NAME:SECRET`. systemd gives the bridge a copy.
pub const ADMIN: &str = "/etc/motion-ad/ldap-admin";
/// The name that setup chooses.
pub const NAME: &str = "motion-ad";
/// Minimum length of the secret in bytes.
pub const SHORTEST: usize = 20;
/// Number of random bytes in a new secret, which is written in hexadecimal.
const RANDOM: usize = 32;
/// Maximum size of the file, in bytes.
const LONGEST: u64 = 4096;

/// The name and the secret.
#[derive(Clone, Debug)]
pub struct LocalAdmin {
    /// The name that the application binds as.
    pub name: String,
    /// The secret that it binds with.
    pub secret: Secret,
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

impl LocalAdmin {
    /// Creates a new secret.
    ///
    /// # Errors
    /// Returns an error if the kernel gives no random numbers.
    pub fn make() -> io::Result<Self> {
        let mut random = [0; RANDOM];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
        let mut secret = Vec::with_capacity(2 * RANDOM);
        random.iter().try_for_each(|byte| write!(secret, "{byte:02x}"))?;
        Ok(LocalAdmin { name: NAME.to_owned(), secret: Secret::new(secret) })
    }

    /// Reads the file at `path`. Returns `None` if it is missing or empty.
    ///
    /// # Errors
    /// Returns [`AdminError`] if the file is unreadable or holds anything else than a name and a secret.
    pub fn load(path: &Path) -> Result<Option<Self>, AdminError> {
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // Not more than one allocation, so that no part of the secret stays in freed memory.
        let size = usize::try_from(LONGEST + 1).unwrap_or(usize::MAX);
        let mut text = Vec::with_capacity(size);
        let read = file.take(LONGEST + 1).read_to_end(&mut text);
        let text = Secret::new(text);
        read?;
        match text.bytes().len() < size {
            true => LocalAdmin::parse(&text),
            false => Err(AdminError::NoLine),
        }
    }

    /// Parses the text of such a file.
    ///
    /// # Errors
    /// As [`LocalAdmin::load`].
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
        if name.is_empty() || line.contains(&b'\n') {
            return Err(AdminError::NoLine);
        }
        match secret.len() >= SHORTEST {
            true => Ok(Some(LocalAdmin { name: name.to_owned(), secret: Secret::new(secret.to_vec()) })),
            false => Err(AdminError::Short),
        }
    }

    /// Returns the line of the file.
    pub fn line(&self) -> Secret {
        let mut line = Vec::with_capacity(self.name.len() + self.secret.bytes().len() + 2);
        line.extend_from_slice(self.name.as_bytes());
        line.push(b':');
        line.extend_from_slice(self.secret.bytes());
        line.push(b'\n');
        Secret::new(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(text: &str) -> Result<Option<LocalAdmin>, AdminError> {
        LocalAdmin::parse(&Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn each_secret_is_another_one_and_comes_back_from_its_line() {
        let (one, other) = (LocalAdmin::make().unwrap(), LocalAdmin::make().unwrap());
        assert_ne!(one.secret.bytes(), other.secret.bytes());
        assert_eq!(one.secret.bytes().len(), 64);
        let back = LocalAdmin::parse(&one.line()).unwrap().unwrap();
        assert_eq!((back.name.as_str(), back.secret.bytes()), (NAME, one.secret.bytes()));
        assert!(!format!("{one:?}").contains(std::str::from_utf8(one.secret.bytes()).unwrap()));
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
            ("a\nb:0123456789abcdef01234", "NAME:SECRET"),
            ("motion-ad:short", "shorter than 20"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(expected), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_within_its_bound() {
        assert!(LocalAdmin::load(Path::new("/nonexistent/ldap-admin")).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(LocalAdmin::load(folder.path()), Err(AdminError::Read(_))));
        let file = folder.path().join("ldap-admin");
        std::fs::write(&file, format!("motion-ad:{SECRET}\n")).unwrap();
        assert_eq!(LocalAdmin::load(&file).unwrap().unwrap().secret.bytes(), SECRET.as_bytes());
        std::fs::write(&file, format!("motion-ad:{}", SECRET.repeat(200))).unwrap();
        assert!(matches!(LocalAdmin::load(&file), Err(AdminError::NoLine)));
    }
}
