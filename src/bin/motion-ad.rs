//! The helper for people and scripts.
fn main() {}
