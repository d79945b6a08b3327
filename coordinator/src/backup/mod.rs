//! A backup: the state of a cluster and the keys of its CAs, in one file.
//!
//! ```text
//! magic 7 | format 1
//! head    which cluster, which life, where in the log, when, by which version
//! keys    the CAs: without them nobody of the cluster would be believed again
//! state   in pieces
//! end     how many bytes of state, and the SHA-256 of all that is before
//! ```
//!
//! **Invariants.** A file that was cut short is never taken for a whole one: it lacks its end. No
//! byte may differ: each part has a checksum, so that a message can say which one is damaged, and
//! the hash is over all of them. Who reads or writes one holds one piece at a time.

mod parts;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use parts::{BackupError, BackupHead};
pub use read::{Contents, Reader, open, show};
pub(crate) use write::write;
