//! Kerberos: the machine's tickets from the host keytab, the LDAP transport sealed with them, and the check
//! and the change of a user's password.
//!
//! GSSAPI and libkrb5 come from the system and read its `krb5.conf`, but only do the cryptography. Every
//! message goes to a KDC over [`kdc`], which is bounded, knows several KDCs and blocks no thread. Tickets are
//! kept in this process's memory and never in a file. `KRB5_KTNAME` in the environment names the keytab; the
//! process never changes it, because that is not thread-safe.
//!
//! | File | Subject |
//! |---|---|
//! | `krb5/` | libkrb5, wrapped |
//! | `kdc.rs` | one message to a KDC and its answer |
//! | `kdcs.rs` | the KDCs of a realm: which one gets a message, and when |
//! | `cpu.rs` | libkrb5's work on separate threads |
//! | `exchange.rs` | the AS and the TGS exchange, carried by `kdc.rs` |
//! | `credential.rs` | the machine's tickets |
//! | `sasl.rs`, `sealing.rs` | the machine's bind, and LDAP sealed with it |
//! | `password.rs` | the check of a password |
//! | `change.rs` | the change of a password by kpasswd |
//! | `refusal.rs`, `der.rs` | the meaning of a KDC's refusal |
//! | `error.rs` | causes of Kerberos failures, as texts |

pub mod change;
pub mod credential;
pub mod error;
pub mod kdc;
pub mod kdcs;
pub mod krb5;
pub mod password;
pub mod sealing;

mod cpu;
mod der;
mod exchange;
pub(crate) mod refusal;
pub(crate) mod sasl;

pub use change::Sent;
pub use cpu::THREADS;
pub use credential::{Credential, Kerberos, computer_name};
pub use error::{KerberosError, Skew};
pub use kdc::Kdc;
pub use kdcs::Kdcs;
pub use password::{CheckError, Who};
pub use sasl::LdapService;
pub use sealing::Sealed;
