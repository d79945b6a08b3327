//! How members reach each other. The bytes are opaque to whoever carries them.

use crate::storage::Peer;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::time::Duration;
use thiserror::Error;
use yard_common::id::MemberId;

/// What a message asks. The receiver gives it to `Handle::answer` as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Take entries, or just a heartbeat.
    Append,
    /// Give me your vote.
    Vote,
    /// Would you give me your vote?
    PreVote,
    /// Take a piece of a snapshot.
    Snapshot,
    /// Take the lead.
    Transfer,
    /// Tell me what you hold.
    Compare,
}

/// Messages of different lanes must not wait for each other: a heartbeat behind a piece of a
/// snapshot would cost the leader its lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes and heartbeats: small and urgent.
    Control,
    /// Entries.
    Log,
    /// Snapshots.
    Snapshot,
}

/// A message to a member.
#[derive(Clone, Debug)]
pub struct Letter {
    /// To whom.
    pub to: MemberId,
    /// Where to find it.
    pub peer: Peer,
    /// Which connection.
    pub lane: Lane,
    /// What it asks.
    pub question: Question,
    /// The message.
    pub body: Bytes,
    /// When the answer comes too late.
    pub deadline: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, Error)]
pub enum TransportError {
    /// There is no connection; a pause before the next try helps.
    #[error("member {0} cannot be reached: {1}")]
    Unreachable(MemberId, String),
    /// It took too long.
    #[error("member {0} did not answer in time")]
    Timeout(MemberId),
    /// The other side refused or failed; the next message may do better.
    #[error("member {0} gave no answer: {1}")]
    Failed(MemberId, String),
}

/// Carries messages between members. Whoever implements it knows for sure that the member at the
/// other end is the one that is meant, and keeps the deadline.
pub trait Transport: Send + Sync + 'static {
    /// Sends a message and brings the answer.
    fn ask(&self, letter: Letter) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}
