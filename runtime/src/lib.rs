//! What the processes of Trainyard share and the pure crates must not have: identity and TLS,
//! configuration files, telemetry, durable files, and how a process ends.
//!
//! | module | what it holds |
//! |---|---|
//! | [`identity`] | CAs, certificates, join and login tokens |
//! | [`tls`] | accepting and opening connections between principals; certificates change in place |
//! | [`files`] | small files that outlast a crash; private folders; locks |
//! | [`fresh`] | a file that has no name before it is whole |
//! | [`digest`] | SHA-256 over what comes piece by piece |
//! | [`config`] | configuration files that tell every problem at once |
//! | [`telemetry`] | logs of a process |
//! | [`backoff`] | waits between tries |
//! | [`notify`] | what the service manager is told |
//! | [`shutdown`] | signals, and tasks that have an owner |
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod backoff;
pub mod config;
pub mod digest;
pub mod files;
pub mod fresh;
pub mod identity;
pub mod notify;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
