//! Proposes commands: what a member offers to everything above the consensus.
//!
//! [`Service`] runs it, [`Handle`] is how the others use it. Commands wait in one bounded queue,
//! are stamped by the leader as they leave it, and go into the log many to an entry, with a few
//! entries on their way at a time.
//!
//! **Invariants.** A leader proposes nothing before its own `LeaderStarted` is applied here. A
//! proposal that was taken gets exactly one answer: what came of it, or that it had no effect, or
//! that nobody can know yet.

mod batch;
mod handle;
mod lead;
mod reads;
mod room;
mod service;
mod watchdog;

pub use handle::{DiskReport, Handle, ProposeError, Subscription, SubscriptionError};
pub use lead::{LeaderClock, Leadership};
pub use reads::ReadError;
pub use service::{DiskOptions, Options, ROUND_TRIP_MS, Service, StartError};

pub(crate) use room::Room;
