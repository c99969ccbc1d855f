//! A model of the sessions' protocol, in which every interleaving is explored.
//!
//! Two servers share a register. Their brokers are killed and started again, calls and answers are lost, the
//! register fails over and loses changes, or loses everything. stateright visits every state that the bounds
//! of a [`world::Scenario`] allow and checks every promise of [`promises`] in each.
//!
//! One step of the model is one atomic step of the code: one script in the Redis, or the work of a broker
//! between two waits. [`rule`] is the code itself. [`register`] repeats the scripts in Rust;
//! `src/sessions/store/model.rs` of motion-ad compares its changes and its events with both stores.
//!
//! [`wrong`] lists wrong variants of the code. Each must break the promise that its step is there for.

#[path = "../../../src/sessions/rule.rs"]
pub mod rule;

pub mod promises;
pub mod register;
pub mod steps;
pub mod world;
pub mod wrong;
