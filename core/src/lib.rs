//! Every decision of Trainyard.
#![forbid(unsafe_code)]

pub mod agent;
pub mod retry;
