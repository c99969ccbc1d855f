//! Code that the tests of motion-ad, the lab's suite and `make bench` share. Nothing of it is shipped.
//!
//! | File | Subject |
//! |---|---|
//! | `blocks.rs` | the blocks of code in the documents |
//! | `libpam.rs` | libpam as an application calls it |
//! | `openmetrics.rs` | a strict reader of OpenMetrics |
//! | `plan.rs` | the commands of `make bench` to its programs, and their answers |
//! | `scripted/` | an LDAP server that answers by a script |
#![allow(missing_docs)]
// These are tests, though none is marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Display;

pub mod blocks;
pub mod libpam;
pub mod openmetrics;
pub mod plan;
#[cfg(feature = "scripted")]
pub mod scripted;

/// Says that a test is skipped. With `MOTION_AD_ALL=1`, which `.ci/run` sets, the test fails instead.
///
/// # Panics
/// If every test is asked for.
pub fn skipped(reason: impl Display) {
    assert!(std::env::var_os("MOTION_AD_ALL").is_none(), "MOTION_AD_ALL asks for this test too: {reason}");
    println!("skipped: {reason}");
}

/// Returns true for root. For another user, says that the test is skipped.
#[cfg(feature = "scripted")]
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skipped("it needs root");
    }
    is_root
}
