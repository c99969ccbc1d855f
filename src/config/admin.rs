//! The local admin of the LDAP bridge: a name and a secret that are valid only on this host.
//!
//! `motion-ad setup --bridge` creates them, to replace an administrator of AD in XCALLY's `.env`. AD knows
//! neither.

use std::io::{self, Write as _};
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::protocol::Secret;

/// The file in which root keeps them: one line, `NAME:SECRET`. systemd gives the bridge a copy.
pub const ADMIN: &str = "/etc/motion-ad/ldap-admin";
/// The name that setup chooses.
pub const NAME: &str = "motion-ad";
/// Number of random bytes in a secret, which is written in hexadecimal.
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

    /// Reads the file at `path`; returns `None` if it does not exist or holds no such line.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(found) if found.len() > LONGEST => return Ok(None),
            Ok(_) => {}
        }
        let text = Secret::new(std::fs::read(path)?);
        Ok(LocalAdmin::parse(text.bytes()))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(text).ok()?.trim_ascii();
        let (name, secret) = line.split_once(':')?;
        let is_whole = !name.is_empty() && secret.len() >= 20 && !secret.contains(char::is_whitespace);
        is_whole.then(|| LocalAdmin { name: name.to_owned(), secret: Secret::new(secret.into()) })
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

    #[test]
    fn each_secret_is_another_one_and_comes_back_from_its_line() {
        let (one, other) = (LocalAdmin::make().unwrap(), LocalAdmin::make().unwrap());
        assert_ne!(one.secret.bytes(), other.secret.bytes());
        assert_eq!(one.secret.bytes().len(), 64);
        let back = LocalAdmin::parse(one.line().bytes()).unwrap();
        assert_eq!((back.name.as_str(), back.secret.bytes()), (NAME, one.secret.bytes()));
        for text in
            ["", "motion-ad", ":0123456789abcdef0123", "motion-ad:short", "a:0123456789abcdef0123\nb:x"]
        {
            assert!(LocalAdmin::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert!(!format!("{one:?}").contains(std::str::from_utf8(one.secret.bytes()).unwrap()));
    }
}
