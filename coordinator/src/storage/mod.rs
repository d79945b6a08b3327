//! What a member must not forget: its vote, its log, its snapshots, its promises.
//!
//! A folder holds
//! - `lock`: held by the process that uses the folder;
//! - `meta`: whose folder it is; written last when it is made, so a folder without it is empty;
//! - `log-<number>`: segments of the log, in which votes and entries follow each other in the
//!   order in which they became durable;
//! - `snapshot-<index>-<term>-<member>`: a whole state; the log before it may be dropped;
//! - `promises`: leases that this member promised away;
//! - `reserve`: zeros, which become a file of the log when the disk is full.
//!
//! **Invariants.** Files only grow, in frames that are flushed one by one, and a file that is
//! complete from the beginning gets its name after it was flushed. What was damaged is refused,
//! never repaired by dropping it. After a failed write or flush nothing is written any more, and
//! the process ends: the kernel may have dropped what it could not write.

mod error;
mod frame;
mod index;
mod log;
mod open;
mod promises;
mod record;
mod replay;
mod reserve;
mod seed;
mod segment;
mod snapshot;
mod writer;

#[cfg(test)]
mod tests;

pub use error::StorageError;
pub use log::{Done, Gauge, Log};
pub use open::Store;
pub use promises::Promises;
pub use record::{Entry, Identity, Members, Payload, Peer, Position, SnapshotMeta, Vote};
pub use reserve::Reserve;
pub(crate) use seed::seed;
pub use snapshot::{Snapshot, SnapshotWriter, Snapshots};
