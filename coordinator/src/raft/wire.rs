//! What members say to each other, as bytes: CBOR with numbered fields, as in the log.

use crate::storage::{Entry, Position, SnapshotMeta, Vote};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use yard_common::id::MemberId;

/// Take these entries.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct AppendAsk {
    #[n(0)]
    pub(super) vote: Vote,
    /// The entry before the first of them.
    #[n(1)]
    pub(super) previous: Option<Position>,
    #[n(2)]
    pub(super) entries: Vec<Entry>,
    #[n(3)]
    pub(super) commit: Option<Position>,
}

/// What became of them.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum AppendSay {
    #[n(0)]
    All,
    #[n(1)]
    UpTo(#[n(0)] Option<Position>),
    #[n(2)]
    Conflict,
    #[n(3)]
    HigherVote(#[n(0)] Vote),
}

/// Vote for me, or: would you?
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct VoteAsk {
    #[n(0)]
    pub(super) vote: Vote,
    #[n(1)]
    pub(super) last: Option<Position>,
    /// The leader asked the candidate to take over.
    #[n(2)]
    pub(super) transfer: bool,
}

/// Yes or no.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct VoteSay {
    #[n(0)]
    pub(super) vote: Vote,
    #[n(1)]
    pub(super) granted: bool,
    #[n(2)]
    pub(super) last: Option<Position>,
}

/// A piece of a snapshot, in order.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SnapshotAsk {
    #[n(0)]
    pub(super) vote: Vote,
    #[n(1)]
    pub(super) meta: SnapshotMeta,
    /// Its number, from 0.
    #[n(2)]
    pub(super) chunk: u64,
    /// Whether it is the last one.
    #[n(3)]
    pub(super) last: bool,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) bytes: Vec<u8>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum SnapshotSay {
    /// The next piece, please.
    #[n(0)]
    Next,
    /// Another piece was due; begin anew.
    #[n(1)]
    Again,
    /// All of it was taken, or refused because of this higher vote.
    #[n(2)]
    Done(#[n(0)] Vote),
}

/// Take the lead, or let somebody take it.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TransferAsk {
    #[n(0)]
    pub(super) from: Vote,
    #[n(1)]
    pub(super) to: MemberId,
    #[n(2)]
    pub(super) last: Option<Position>,
}

/// Whether it was taken up.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum TransferSay {
    #[n(0)]
    Yes,
    #[n(1)]
    OtherVote {
        #[n(0)]
        expected: Vote,
        #[n(1)]
        actual: Vote,
    },
    #[n(2)]
    NotFlushed {
        #[n(0)]
        expected: Option<Position>,
        #[n(1)]
        actual: Option<Position>,
    },
}

/// The bytes of a message.
pub(super) fn pack<T: Encode<()>>(message: &T) -> Bytes {
    minicbor::to_vec(message).expect("writing to memory does not fail").into()
}
