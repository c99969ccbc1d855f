//! The decision: whether a user gets access, and whether a password changes.
//!
//! | File | Subject |
//! |---|---|
//! | `authenticate` | the steps of a login |
//! | `change.rs` | the steps of a password change |
//! | `logins.rs` | what both need: the account of a name, the rules for its state and groups |
//! | `lockout.rs` | since when and until when an account is locked |
//! | `decision.rs` | the decision, and what is noted on the way to it |
//! | `passwords.rs` | the check and the change of a password, by LDAP or by Kerberos |
//! | `refusal.rs` | the meaning of an error of the parts below |
//! | `local_time.rs` | times in this host's time zone |
//!
//! AD, the passwords and the clock are passed in, so that tests of a rule need none of them.

pub mod authenticate;
pub mod change;
pub mod decision;
pub mod local_time;
pub mod lockout;
pub mod logins;
pub mod passwords;
pub mod refusal;
