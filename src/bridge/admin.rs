//! The local admin as a client's bind names it: a name and a secret that allow an application on this host to
//! search.
//!
//! They grant access to nothing else: AD knows neither. systemd passes the bridge a copy of root's file.

use subtle::ConstantTimeEq as _;

use crate::config::admin::LocalAdmin;
use crate::dn::Dn;
use crate::name::fold;
use crate::protocol::Secret;

/// Name of the systemd credential that holds a copy of root's file (`LoadCredential=`, systemd.exec(5)).
pub const CREDENTIAL: &str = "ldap-admin";

/// Name and secret of the local admin.
#[derive(Debug)]
pub struct Admin(LocalAdmin);

impl From<LocalAdmin> for Admin {
    fn from(admin: LocalAdmin) -> Self {
        Admin(admin)
    }
}

impl Admin {
    /// Returns true if `name` is the admin's name; case and the spelling of a distinguished name do not
    /// matter.
    pub fn is_called(&self, name: &str) -> bool {
        let own = &self.0.name;
        if fold(own) == fold(name) {
            return true;
        }
        match (Dn::parse(own), Dn::parse(name)) {
            (Ok(own), Ok(other)) => !own.is_root() && own == other,
            _ => false,
        }
    }

    /// Returns true if `password` is the secret. The comparison takes constant time.
    pub fn proves(&self, password: &Secret) -> bool {
        self.0.secret.bytes().ct_eq(password.bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn admin(name: &str) -> Admin {
        Admin(LocalAdmin { name: name.to_owned(), secret: Secret::new(SECRET.into()) })
    }

    #[test]
    fn name_and_secret_are_compared_and_not_shown() {
        let admin = admin("motion-ad");
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
        let admin = admin("cn=motion-ad,dc=acme,dc=com");
        assert!(admin.is_called("CN=Motion-AD, DC=acme, DC=com"));
        assert!(!admin.is_called("CN=motion-ad,DC=acme"));
    }
}
