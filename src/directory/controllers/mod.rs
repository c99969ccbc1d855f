//! The domain controllers: the list, the order in which they are tried, and the health of each.

pub mod discovery;
pub mod dns;
pub mod domains;
pub mod health;
pub(in crate::directory) mod lasting;
pub mod netlogon;
pub mod roster;
pub mod servers;
