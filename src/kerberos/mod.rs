//! Kerberos: the machine's credential from the host keytab, and the sealed LDAP transport made with it.
//!
//! GSSAPI and libkrb5 are the system's own and read its `krb5.conf`. The environment of the process decides
//! two things, because changing it at run time is not thread-safe: `KRB5_CLIENT_KTNAME` names the keytab, and
//! `KRB5CCNAME=MEMORY:…` keeps the tickets out of files.

pub mod credential;
pub mod error;
pub mod krb5;
pub mod sealing;

mod blocking;
mod sasl;

pub use credential::Credential;
pub use error::KerberosError;
pub use sealing::Sealed;
