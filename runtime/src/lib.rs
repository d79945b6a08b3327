//! What the processes of Trainyard share and the pure crates must not have: identity and TLS,
//! configuration files, telemetry, durable files.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
