//! Passwords: their check by a bind, their change on the same connection, and the meaning of AD's refusals.

pub mod bind;
pub mod change;
pub(crate) mod effective;
pub mod last_set;
pub mod policy;
pub mod pool;
pub mod refusal;
