//! Our types in the places that openraft leaves open, and the way there and back.
//!
//! openraft counts entries from 0, we count from 1, so that index 0 means "before the first".

use super::runtime::Runtime;
use crate::storage::{Entry, Members, Payload, Peer, Position, Vote};
use bytes::Bytes;
use openraft::impls::leader_id_adv::LeaderId as RaftLeader;
use openraft::type_config::alias::{LogIdOf, StoredMembershipOf, VoteOf};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, LogId, Membership, RaftTypeConfig};
use std::collections::BTreeSet;
use std::fmt;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_core::command::{Rejection, Reply};

/// Commands with their envelopes, encoded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) Bytes);

/// What came of the commands of an entry, in order.
pub(crate) type Outcomes = Vec<Result<Reply, Rejection>>;

openraft::declare_raft_types!(
    /// openraft with our types.
    pub(crate) Config:
        D = Commands,
        R = Outcomes,
        Node = Peer,
        AsyncRuntime = Runtime,
);

/// The entries of [`Config`].
pub(crate) type RaftEntry = <Config as RaftTypeConfig>::Entry;

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commands({} bytes)", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commands of {} bytes", self.0.len())
    }
}

pub(super) fn index_to_ours(index: u64) -> LogIndex {
    LogIndex(index + 1)
}

/// # Panics
/// For index 0, which is before the first entry.
pub(super) fn index_to_raft(index: LogIndex) -> u64 {
    index.0.checked_sub(1).expect("entries are numbered from 1")
}

pub(super) fn leader_to_ours(leader: &RaftLeader<u64, u64>) -> LeaderId {
    LeaderId { term: leader.term, member: MemberId(leader.node_id) }
}

pub(super) fn leader_to_raft(leader: LeaderId) -> RaftLeader<u64, u64> {
    RaftLeader::new(leader.term, leader.member.0)
}

pub(super) fn position_to_ours(id: &LogIdOf<Config>) -> Position {
    Position { leader: leader_to_ours(&id.leader_id), index: index_to_ours(id.index) }
}

pub(super) fn position_to_raft(position: Position) -> LogIdOf<Config> {
    LogId { leader_id: leader_to_raft(position.leader), index: index_to_raft(position.index) }
}

pub(super) fn vote_to_ours(vote: &VoteOf<Config>) -> Vote {
    Vote { leader: leader_to_ours(&vote.leader_id), committed: vote.committed }
}

pub(super) fn vote_to_raft(vote: Vote) -> VoteOf<Config> {
    openraft::Vote { leader_id: leader_to_raft(vote.leader), committed: vote.committed }
}

pub(super) fn members_to_ours(membership: &Membership<u64, Peer>) -> Members {
    let mut halves = membership.get_joint_config().iter().map(|half| {
        let ids: BTreeSet<MemberId> = half.iter().copied().map(MemberId).collect();
        ids
    });
    let (voters, joint) = (halves.next().unwrap_or_default(), halves.next());
    assert!(halves.next().is_none(), "a change of members has two halves");
    let peers = membership.nodes().map(|(id, peer)| (MemberId(*id), peer.clone())).collect();
    Members { voters, joint, peers }
}

/// # Panics
/// If a voter has no address: nobody writes such an entry.
pub(super) fn members_to_raft(members: &Members) -> Membership<u64, Peer> {
    let half = |half: &BTreeSet<MemberId>| half.iter().map(|id| id.0).collect::<BTreeSet<u64>>();
    let mut halves = Vec::new();
    if !members.voters.is_empty() {
        halves.push(half(&members.voters));
        halves.extend(members.joint.as_ref().map(half));
    }
    let peers: std::collections::BTreeMap<u64, Peer> =
        members.peers.iter().map(|(id, peer)| (id.0, peer.clone())).collect();
    Membership::new(halves, peers).expect("every voter has an address")
}

/// Whether [`members_to_raft`] takes them: what comes over the wire may be anything.
pub(super) fn members_are_sound(members: &Members) -> bool {
    let known = |half: &BTreeSet<MemberId>| half.iter().all(|id| members.peers.contains_key(id));
    let joint_is_set = members.joint.as_ref().is_none_or(|half| !half.is_empty() && known(half));
    known(&members.voters)
        && joint_is_set
        && (!members.voters.is_empty() || members.joint.is_none())
}

pub(super) fn stored_to_raft(
    members: &Members,
    at: Option<Position>,
) -> StoredMembershipOf<Config> {
    openraft::StoredMembership::new(at.map(position_to_raft), members_to_raft(members))
}

pub(super) fn entry_to_ours(entry: RaftEntry) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(commands) => Payload::Commands(commands.0),
        EntryPayload::Membership(membership) => Payload::Members(members_to_ours(&membership)),
    };
    Entry { position: position_to_ours(&entry.log_id), payload }
}

pub(super) fn entry_to_raft(entry: Entry) -> RaftEntry {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Commands(bytes) => EntryPayload::Normal(Commands(bytes)),
        Payload::Members(members) => EntryPayload::Membership(members_to_raft(&members)),
    };
    openraft::Entry { log_id: position_to_raft(entry.position), payload }
}
