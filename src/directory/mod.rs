//! The directory: what AD knows.

pub mod entry;
