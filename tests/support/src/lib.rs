//! What the tests of motion-ad, the lab's suite and `make bench` share. Nothing of it is shipped.
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

pub mod blocks;
pub mod libpam;
pub mod openmetrics;
pub mod plan;
#[cfg(feature = "scripted")]
pub mod scripted;
