//! Kerberos: the machine's tickets from the host keytab, the sealed LDAP transport made with them, and the check
//! of a person's password and its change.
//!
//! GSSAPI and libkrb5 are the system's own and read its `krb5.conf`, but do the cryptography only: every message
//! goes to a KDC over [`kdc`], which is bounded, knows several KDCs and blocks no thread. The tickets are in this
//! process's memory and never in a file. `KRB5_KTNAME` in the environment names the keytab, because changing it
//! at run time is not thread-safe.
//!
//! | File | Subject |
//! |---|---|
//! | `krb5/` | libkrb5, wrapped |
//! | `kdc.rs` | one message to a KDC and its answer |
//! | `cpu.rs` | libkrb5's work on threads of its own |
//! | `exchange.rs` | the AS and the TGS exchange, carried by `kdc.rs` |
//! | `credential.rs` | the machine's tickets |
//! | `sasl.rs`, `sealing.rs` | the machine's bind, and LDAP sealed with it |
//! | `password.rs` | the check of a password |
//! | `change.rs` | the change of a password by kpasswd |
//! | `refusal.rs`, `der.rs` | what a KDC means by refusing |
//! | `error.rs` | why Kerberos failed, in words |

pub mod change;
pub mod credential;
pub mod error;
pub mod kdc;
pub mod krb5;
pub mod password;
pub mod sealing;

mod cpu;
mod der;
mod exchange;
mod refusal;
mod sasl;

pub use change::Sent;
pub use credential::{Credential, Kerberos, computer_name};
pub use error::KerberosError;
pub use exchange::Skew;
pub use kdc::{BoxFuture, Kdc, Kdcs};
pub use password::{CheckError, Checked, Who};
pub use sasl::LdapService;
pub use sealing::Sealed;
