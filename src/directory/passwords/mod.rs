//! Passwords: how one is checked by a bind and changed on the same connection, and what AD's refusal means.

pub(super) mod bind;
pub mod change;
pub(super) mod effective;
pub(super) mod last_set;
pub mod policy;
pub mod pool;
pub mod refusal;
