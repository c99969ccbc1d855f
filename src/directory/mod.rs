//! Access to AD.
//!
//! Users' passwords are checked on pooled TLS connections ([`passwords::pool`]). Everything that is read is
//! read on the machine account's connection ([`machine`]), because after a rejected bind the server decides
//! which rights are left on a connection.

mod configuration;
pub mod controllers;
pub mod entry;
pub mod forest;
mod kept;
pub mod lookup;
pub mod machine;
pub mod machines;
pub mod passwords;
pub mod people;
pub mod readiness;
#[cfg(test)]
pub(crate) mod scripted;
pub mod sid;
pub mod survey;
pub mod trust;
