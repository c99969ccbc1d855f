//! The register of sessions: who is logged in where.

pub mod rule;
pub mod sqlite;
pub mod store;
