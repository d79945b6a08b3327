//! The leader's side: is a majority ready to give a node up?

use super::membership::{Membership, MembershipId};
use super::message::{Lift, Lost, Promise};
use std::collections::BTreeMap;
use yard_common::id::{LeaseId, MemberId, NodeId};

/// Silence after which a node counts as suspect, in milliseconds. Preparations may begin; they
/// must be free of effects, since the node may be well.
pub const SUSPECT_MS: u64 = 1_000;

/// The vote on one lease under one membership. A leader starts it when the node is suspect, asks
/// all members again and again, and drops it when the node is heard again, the lease changed, or
/// the membership did. A new leader starts anew; members repeat the promises they gave.
#[derive(Clone, Debug)]
pub struct GiveUp {
    node: NodeId,
    lease: LeaseId,
    membership: Membership,
    said: BTreeMap<MemberId, Said>,
}

/// The last word of a member; a promise is never taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Promised,
    Heard { silent_ms: u64 },
}

/// What the leader may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing yet; go on asking.
    Open,
    /// The node is lost.
    Lost(Lost),
    /// Members have promised, but the node is alive and would run on with fewer members than it
    /// could: it gets a new lease.
    Lift(Lift),
}

impl GiveUp {
    /// A vote without votes. `membership`: the latest one in the leader's own log.
    #[must_use]
    pub fn new(node: NodeId, lease: LeaseId, membership: Membership) -> GiveUp {
        GiveUp { node, lease, membership, said: BTreeMap::new() }
    }

    /// Whether this vote is about this lease under this membership; if not, drop it.
    #[must_use]
    pub fn is_on(&self, node: NodeId, lease: LeaseId, membership: MembershipId) -> bool {
        (self.node, self.lease, self.membership.id) == (node, lease, membership)
    }

    /// Counts a promise. Returns whether it counts: it must be for this node, lease and
    /// membership, by a voter.
    pub fn on_promise(&mut self, promise: &Promise) -> bool {
        let counts = promise.node == self.node
            && promise.lease == self.lease
            && promise.membership == self.membership.id
            && self.membership.is_voter(promise.member);
        if counts {
            self.said.insert(promise.member, Said::Promised);
        }
        counts
    }

    /// A member has not promised, since it heard of the node this long ago.
    pub fn on_heard(&mut self, member: MemberId, silent_ms: u64) {
        if self.membership.is_voter(member) && self.said.get(&member) != Some(&Said::Promised) {
            self.said.insert(member, Said::Heard { silent_ms });
        }
    }

    /// Whether a majority has promised; the lease is over then, by all clocks.
    #[must_use]
    pub fn majority(&self) -> bool {
        self.membership.is_majority(|member| self.said.get(&member) == Some(&Said::Promised))
    }

    /// What follows from the votes so far.
    pub fn outcome(&self) -> Outcome {
        let (node, lease) = (self.node, self.lease);
        if self.majority() {
            return Outcome::Lost(Lost { node, lease, membership: self.membership.id });
        }
        let promised = self.said.values().any(|said| *said == Said::Promised);
        let alive = self.said.values().any(|said| match said {
            Said::Promised => false,
            Said::Heard { silent_ms } => *silent_ms <= SUSPECT_MS,
        });
        if promised && alive { Outcome::Lift(Lift { node, lease }) } else { Outcome::Open }
    }
}

/// Whether a node is suspect: a majority has heard nothing of it for longer than [`SUSPECT_MS`].
///
/// `silent_ms`: how long the node has been silent towards each member that said so, each by its
/// own clock. A hint for people and for preparations; nothing is given up on it.
#[must_use]
pub fn is_suspect(membership: &Membership, silent_ms: &BTreeMap<MemberId, u64>) -> bool {
    membership.is_majority(|member| silent_ms.get(&member).is_some_and(|&ms| ms > SUSPECT_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::LogIndex;

    const NODE: NodeId = NodeId(5);
    const LEASE: LeaseId = LeaseId(2);

    fn three() -> Membership {
        Membership::of(MembershipId(LogIndex(9)), (1..=3).map(MemberId))
    }

    fn promise(member: u64) -> Promise {
        let membership = MembershipId(LogIndex(9));
        Promise { member: MemberId(member), node: NODE, lease: LEASE, membership }
    }

    #[test]
    fn a_majority_of_promises_is_a_loss() {
        let mut vote = GiveUp::new(NODE, LEASE, three());
        assert!(vote.on_promise(&promise(1)));
        assert!(vote.on_promise(&promise(1)), "again, but it is one member");
        assert_eq!(vote.outcome(), Outcome::Open);
        assert!(vote.on_promise(&promise(3)));
        let lost = Lost { node: NODE, lease: LEASE, membership: MembershipId(LogIndex(9)) };
        assert_eq!(vote.outcome(), Outcome::Lost(lost));
    }

    #[test]
    fn promises_for_something_else_do_not_count() {
        let mut vote = GiveUp::new(NODE, LEASE, three());
        let good = promise(1);
        for bad in [
            Promise { node: NodeId(6), ..good },
            Promise { lease: LeaseId(1), ..good },
            Promise { lease: LeaseId(3), ..good },
            Promise { membership: MembershipId(LogIndex(8)), ..good },
            Promise { member: MemberId(4), ..good },
        ] {
            assert!(!vote.on_promise(&bad), "{bad:?}");
        }
        assert!(!vote.majority());
    }

    #[test]
    fn a_promise_is_lifted_once_the_node_is_heard() {
        let mut vote = GiveUp::new(NODE, LEASE, three());
        vote.on_heard(MemberId(2), 400);
        assert_eq!(vote.outcome(), Outcome::Open, "nothing to lift");
        vote.on_promise(&promise(1));
        assert_eq!(vote.outcome(), Outcome::Lift(Lift { node: NODE, lease: LEASE }));
        vote.on_heard(MemberId(2), 2_900);
        assert_eq!(vote.outcome(), Outcome::Open, "the member's own wait is not over");
        vote.on_promise(&promise(2));
        vote.on_heard(MemberId(2), 0);
        assert!(matches!(vote.outcome(), Outcome::Lost(_)), "a promise is never taken back");
    }

    #[test]
    fn silence_is_judged_by_a_majority() {
        let silent = |times: [u64; 3]| -> BTreeMap<MemberId, u64> {
            (1..).map(MemberId).zip(times).collect()
        };
        assert!(!is_suspect(&three(), &silent([9_000, 1_000, 0])));
        assert!(is_suspect(&three(), &silent([9_000, 1_001, 0])));
        assert!(!is_suspect(&three(), &BTreeMap::new()));
    }
}
