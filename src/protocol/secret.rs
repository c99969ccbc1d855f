//! Passwords on their way from an application to the broker.

use zeroize::Zeroizing;

use super::MAX_PASSWORD;

/// A password on its way: wiped when dropped, and not shown by `Debug`.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes` without copying them.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// The password itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The password as text.
    ///
    /// # Errors
    /// Returns [`PasswordError`] if it is empty, is too long, holds a NUL byte or is not UTF-8.
    pub fn password(&self) -> Result<&str, PasswordError> {
        match self.bytes() {
            [] => Err(PasswordError::Empty),
            bytes if bytes.len() > MAX_PASSWORD => Err(PasswordError::TooLong),
            bytes if bytes.contains(&0) => Err(PasswordError::Nul),
            bytes => std::str::from_utf8(bytes).map_err(|_| PasswordError::NotUtf8),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The two passwords of a change.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// The password in force.
    pub present: Secret,
    /// The password to be set.
    pub new: Secret,
}

impl Passwords {
    /// Puts both into the secret of a frame: the length of the present one as a big-endian `u16`, and both.
    ///
    /// # Errors
    /// Returns [`PasswordError::TooLong`] if the present one is longer than [`MAX_PASSWORD`].
    pub fn to_secret(&self) -> Result<Secret, PasswordError> {
        let (present, new) = (self.present.bytes(), self.new.bytes());
        let length = u16::try_from(present.len()).ok().filter(|length| usize::from(*length) <= MAX_PASSWORD);
        let length = length.ok_or(PasswordError::TooLong)?;
        // Of this size from the start: growing would leave copies behind.
        let mut both = Vec::with_capacity(present.len().saturating_add(new.len()).saturating_add(2));
        both.extend_from_slice(&length.to_be_bytes());
        both.extend_from_slice(present);
        both.extend_from_slice(new);
        Ok(Secret::new(both))
    }

    /// Reads the secret of a frame; `None` if it does not hold two passwords.
    pub fn of_secret(both: &Secret) -> Option<Self> {
        let (length, both) = both.bytes().split_first_chunk()?;
        let (present, new) = both.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some(Passwords { present: Secret::new(present.to_vec()), new: Secret::new(new.to_vec()) })
    }
}

/// Reason why some bytes can never be a password. Nothing is sent to AD for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// An empty password would make the bind an unauthenticated one, which succeeds (RFC 4513, 5.1.2).
    #[error("the password is empty")]
    Empty,
    /// Longer than [`MAX_PASSWORD`].
    #[error("the password is longer than {MAX_PASSWORD} bytes")]
    TooLong,
    /// Contains a NUL byte.
    #[error("the password contains a NUL byte")]
    Nul,
    /// Not UTF-8, which LDAP's simple bind asks for (RFC 4513, 5.1.3).
    #[error("the password is not UTF-8")]
    NotUtf8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_can_never_be_right() {
        let cases: [(&[u8], PasswordError); 4] = [
            (b"", PasswordError::Empty),
            (&[b'x'; MAX_PASSWORD + 1], PasswordError::TooLong),
            (b"a\0b", PasswordError::Nul),
            (b"\xff", PasswordError::NotUtf8),
        ];
        for (bytes, error) in cases {
            assert_eq!(Secret::new(bytes.to_vec()).password(), Err(error));
        }
        assert!(Secret::new(vec![b'x'; MAX_PASSWORD]).password().is_ok());
    }

    #[test]
    fn two_passwords_travel_in_one_secret() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        for (present, new) in [("old", "new"), ("", "new"), ("old", ""), ("", "")] {
            let sent = Passwords { present: secret(present), new: secret(new) }.to_secret().unwrap();
            let both = Passwords::of_secret(&sent).unwrap();
            assert_eq!((both.present.bytes(), both.new.bytes()), (present.as_bytes(), new.as_bytes()));
        }
        let sent = Passwords { present: secret("old"), new: secret("secret") }.to_secret().unwrap();
        assert_eq!(sent.bytes(), b"\0\x03oldsecret");
        let long = Passwords { present: secret(&"x".repeat(MAX_PASSWORD + 1)), new: secret("new") };
        assert_eq!(long.to_secret().unwrap_err(), PasswordError::TooLong);
        for rubbish in [&b""[..], b"\0", b"\0\x04old"] {
            assert!(Passwords::of_secret(&Secret::new(rubbish.to_vec())).is_none());
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(…)");
    }
}
