//! The directory: what AD knows.

pub mod entry;
pub mod machine;
