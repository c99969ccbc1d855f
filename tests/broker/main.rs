//! The broker as a process, on a host without a domain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod metrics;
mod process;
mod sessions;
mod socket;
