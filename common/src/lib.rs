//! The vocabulary of Trainyard: one word per idea, shared by every part.
//!
//! Ids, exact resource amounts, the validated job spec, states and their legal transitions,
//! pending reasons and exit causes, limits, and error codes. No I/O and no clock lives here.
//!
//! Types that are stored (in the log, in snapshots, by an agent) carry numbered fields
//! (`#[n(..)]`); a number is never used again for something else.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod amount;
pub mod cause;
pub mod code;
pub mod condition;
pub mod gpu;
pub mod id;
pub mod limits;
pub mod name;
pub mod reason;
pub mod spec;
pub mod state;

pub use amount::{Amounts, Bytes, Cpus};
pub use cause::ExitCause;
pub use code::ErrorCode;
pub use reason::PendingReason;
