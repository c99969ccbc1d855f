//! The domain controllers: which there are, in what order they are asked, and how each of them is.

pub mod discovery;
pub mod dns;
pub mod domains;
pub mod health;
pub(in crate::directory) mod lasting;
pub mod netlogon;
pub mod roster;
pub mod servers;
pub mod survey;
