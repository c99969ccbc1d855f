//! The broker's side of passwords against scripted domain controllers with certificates and DNS. No lab is
//! needed.
// clippy's exemption covers functions marked #[test] only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod change;
mod method;
mod network;
mod other_domain;
mod pool;
