//! The register of sessions: who is logged in where.

pub mod redis;
pub mod rule;
pub mod sqlite;
pub mod store;
