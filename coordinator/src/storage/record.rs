//! What the files of a member hold, with its encoding: CBOR with numbered fields, as everything
//! that is stored (docs/adr/0002).

use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use yard_common::id::{ClusterId, Incarnation, LeaderId, LogIndex, MemberId};

/// Version of the files. A program that knows only others must not touch them.
pub(super) const FORMAT: u32 = 2;

/// Whose files these are. It stands in each of them, so that no file can be mistaken for one of
/// another member, cluster or life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// Which life of it.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The member; an id is never used again.
    #[n(2)]
    pub member: MemberId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {}/{}", self.member, self.cluster, self.incarnation)
    }
}

/// A place in the log and who wrote it. The first entry has index 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Position {
    /// Who wrote it.
    #[n(0)]
    pub leader: LeaderId,
    /// Where.
    #[n(1)]
    pub index: LogIndex,
}

/// Whom a member voted for, or follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// The candidate or leader.
    #[n(0)]
    pub leader: LeaderId,
    /// Whether a majority granted it.
    #[n(1)]
    pub committed: bool,
}

/// How the others reach a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Peer {
    /// Address of its endpoint for members, as its operator wrote it.
    #[n(0)]
    pub address: String,
}

/// The members as of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    /// The voters; during a change, the old ones.
    #[n(0)]
    pub voters: BTreeSet<MemberId>,
    /// The new voters, during a change.
    #[n(1)]
    pub joint: Option<BTreeSet<MemberId>>,
    /// Everyone who gets the log: voters, and those that only listen.
    #[n(2)]
    pub peers: BTreeMap<MemberId, Peer>,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Where it stands.
    #[n(0)]
    pub position: Position,
    /// What it says.
    #[n(1)]
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// Nothing: a new leader commits what came before.
    #[n(0)]
    Blank,
    /// Commands with their envelopes, as the CBOR of a list of pairs. They stay bytes until they
    /// are applied, so that they are encoded once and decoded once.
    #[n(1)]
    Commands(#[cbor(n(0), with = "blob")] Bytes),
    /// The members from here on.
    #[n(2)]
    Members(#[n(0)] Members),
}

/// What stands in a segment of the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Record {
    /// The first record of a segment.
    #[n(0)]
    Segment(#[n(0)] SegmentHead),
    /// The vote is this now.
    #[n(1)]
    Vote(#[n(0)] Vote),
    /// The log goes on with this entry.
    #[n(2)]
    Entry(#[n(0)] Entry),
    /// The log ends with this index now; the entries after it were never committed.
    #[n(3)]
    Truncate(#[n(0)] LogIndex),
    /// The log begins after this position now; a snapshot holds what was before.
    #[n(4)]
    Purge(#[n(0)] Position),
    /// The file is as long as this, in bytes, and was so before this was written.
    #[n(5)]
    Length(#[n(0)] u64),
    /// The last record of a segment: the next one is there.
    #[n(6)]
    Full,
}

/// What was so when a segment was begun.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SegmentHead {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) identity: Identity,
    /// The number of this segment; they have no holes.
    #[n(2)]
    pub(super) number: u64,
    #[n(3)]
    pub(super) vote: Option<Vote>,
    /// Before the first entry that the log still had.
    #[n(4)]
    pub(super) purged: Option<Position>,
    /// The last entry before this segment; 0: there was none.
    #[n(5)]
    pub(super) last: LogIndex,
    /// The length of the file when it got its name, in bytes.
    #[n(6)]
    pub(super) length: u64,
}

/// The file that says whose folder this is. It is written last when a member is made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Meta {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) identity: Identity,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotMeta {
    /// The last entry in it.
    #[n(0)]
    pub last: Position,
    /// The members there.
    #[n(1)]
    pub members: Members,
    /// The entry that made them so.
    #[n(2)]
    pub members_at: Option<Position>,
}

/// The first frame of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SnapshotHead {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) identity: Identity,
    #[n(2)]
    pub(super) meta: SnapshotMeta,
}

/// The last frame of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SnapshotEnd {
    /// Bytes of the state.
    #[n(0)]
    pub(super) bytes: u64,
}

/// The first frame of the file of promises.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct PromisesHead {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) identity: Identity,
    /// The length of the file, in bytes; it never changes.
    #[n(2)]
    pub(super) length: u64,
}

/// Bytes as CBOR bytes.
mod blob {
    use bytes::Bytes;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(super) fn encode<C, W: Write>(
        bytes: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        Ok(Bytes::copy_from_slice(d.bytes()?))
    }
}

/// The bytes of a record.
pub(super) fn to_bytes<T: Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record).expect("writing to memory does not fail")
}
