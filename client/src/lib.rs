//! Client library: finds the leader, retries with the same request id, follows streams.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
