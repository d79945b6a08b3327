//! Every decision of Trainyard, as pure functions over plain data.
//!
//! No clock, no randomness, no I/O, no threads: same inputs, same outputs, byte for byte. Times
//! come in as milliseconds; what is to be done goes out as plain values.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod agent;
mod apply;
pub mod command;
mod encoding;
pub mod event;
pub mod fit;
pub mod health;
pub mod job;
pub mod lease;
pub mod mutant;
pub mod retry;
pub mod scheduler;
pub mod stall;
pub mod state;
pub mod table;
pub mod voters;
