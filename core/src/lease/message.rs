//! What holder, members and leader say to each other about leases.

use super::membership::{Membership, MembershipId};
use minicbor::{Decode, Encode};
use yard_common::id::{LeaseId, MemberId, NodeId};

/// A holder asks every member to go on answering for its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Renewal {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its lease.
    #[n(1)]
    pub lease: LeaseId,
    /// When it was sent, by the node's own boot clock. Members only echo it.
    #[n(2)]
    pub sent_ms: u64,
    /// How long the holder will count on an answer. It travels with every renewal so that both
    /// sides agree on it even while the setting of a pool changes.
    #[n(3)]
    pub lease_ms: u64,
}

/// A member's answer: until further notice it has not promised the lease away.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Who answers.
    #[n(0)]
    pub member: MemberId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// The lease.
    #[n(2)]
    pub lease: LeaseId,
    /// The time of the renewal, echoed.
    #[n(3)]
    pub sent_ms: u64,
    /// The membership under which the answer counts, and only under this one.
    #[n(4)]
    pub membership: Membership,
}

/// Why a member did not answer a renewal. The holder gains nothing from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The replicated state as this member has applied it has no such node.
    #[n(0)]
    UnknownNode,
    /// Another lease of the node is the committed one; the holder asks the leader for it.
    #[n(1)]
    OtherLease {
        /// The lease that this member knows as committed.
        #[n(0)]
        current: LeaseId,
    },
    /// The lease was promised away. If the leader still hears the node, it lifts the promise
    /// by committing a new lease.
    #[n(2)]
    Promised,
    /// A change of the membership is on its way and not applied yet; try again at once.
    #[n(3)]
    Unsettled,
    /// The holder wants to count on it for longer than the members are set up to wait.
    #[n(4)]
    TooLong {
        /// The longest lease.
        #[n(0)]
        longest_ms: u64,
    },
}

/// What a member writes to disk before it promises: leases of the node up to this one are never
/// answered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct PromiseRecord {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The highest lease that is promised away.
    #[n(1)]
    pub lease: LeaseId,
}

/// A member's promise to the leader, made durable before it was sent. Only
/// [`Keeper`](super::Keeper) makes one; the decoding of the wire rebuilds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Promise {
    /// Who promised.
    #[n(0)]
    pub member: MemberId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// The lease; lower ones are included.
    #[n(2)]
    pub lease: LeaseId,
    /// The membership that had been in force for the whole wait; the promise counts under this
    /// one alone.
    #[n(3)]
    pub membership: MembershipId,
}

/// Command: the lease was promised away by a majority, its node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lost {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The lease that ended.
    #[n(1)]
    pub lease: LeaseId,
    /// The membership whose majority promised.
    #[n(2)]
    pub membership: MembershipId,
}

/// Command: the node is alive although some members promised its lease away; it gets the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lift {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The lease that is replaced.
    #[n(1)]
    pub lease: LeaseId,
}

impl Lost {
    /// The lease that the node has after this command, or `None` if the command came too late and
    /// must change nothing: another lease is current, or another membership was in force where
    /// the command stands in the log. Called by apply.
    #[must_use]
    pub fn next_lease(&self, current: LeaseId, in_force: MembershipId) -> Option<LeaseId> {
        (self.lease == current && self.membership == in_force).then(|| next(current))
    }
}

impl Lift {
    /// The lease that the node has after this command, or `None` if it came too late.
    /// Called by apply.
    #[must_use]
    pub fn next_lease(&self, current: LeaseId) -> Option<LeaseId> {
        (self.lease == current).then(|| next(current))
    }
}

/// The lease after this one.
fn next(lease: LeaseId) -> LeaseId {
    LeaseId(lease.0.checked_add(1).expect("a node does not live through 2^64 leases"))
}

/// What a member says about a lease that it was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Said {
    /// It is promised away.
    #[n(0)]
    Promised(#[n(0)] Promise),
    /// It is not: the node was heard.
    #[n(1)]
    Heard {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// How long ago, in milliseconds.
        #[n(1)]
        silent_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::LogIndex;

    #[test]
    fn a_late_command_changes_nothing() {
        let (old, new) = (MembershipId(LogIndex(3)), MembershipId(LogIndex(8)));
        let lost = Lost { node: NodeId(1), lease: LeaseId(4), membership: old };
        assert_eq!(lost.next_lease(LeaseId(4), old), Some(LeaseId(5)));
        assert_eq!(lost.next_lease(LeaseId(5), old), None);
        assert_eq!(lost.next_lease(LeaseId(4), new), None);
        let lift = Lift { node: NodeId(1), lease: LeaseId(4) };
        assert_eq!(lift.next_lease(LeaseId(4)), Some(LeaseId(5)));
        assert_eq!(lift.next_lease(LeaseId(5)), None);
    }

    #[test]
    fn a_record_survives_the_disk() {
        let record = PromiseRecord { node: NodeId(9), lease: LeaseId(u64::MAX) };
        let bytes = minicbor::to_vec(record).unwrap();
        assert_eq!(minicbor::decode::<PromiseRecord>(&bytes).unwrap(), record);
    }
}
