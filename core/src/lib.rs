//! Every decision of Trainyard, as pure functions over plain data.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod lease;
pub mod table;
