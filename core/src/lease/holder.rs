//! The node's side: until when may it count on its lease?

use super::membership::Membership;
use super::message::{Ack, Renewal};
use super::times::{Deadline, LeaseTimes, RENEWALS_PER_LEASE_MAX};
use crate::mutant;
use std::collections::{BTreeMap, VecDeque};
use yard_common::id::{LeaseId, MemberId, NodeId};

/// Memberships that are counted side by side. Answers of one round may name three while a change
/// runs through: old, joint, new.
pub const MEMBERSHIPS_KEPT_MAX: usize = 4;

/// Whether a node holds its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// A majority answers for it, until `until_ms` at least.
    Held {
        /// The strict deadline, by the node's boot clock.
        until_ms: u64,
    },
    /// The strict deadline has passed, or never was. The same lease may be held again later,
    /// unless it was promised away.
    Expired,
}

/// The lease of one node as the node sees it. All times are of its own boot clock, which also
/// runs while the machine is suspended.
///
/// Invariants: a deadline never moves back. It counts from the *sending* of renewals: what was
/// true when the answer came is unknown, what was asked after the sending is not. Only an answer
/// to a renewal that was really sent, not longer ago than the lease, counts.
#[derive(Clone, Debug)]
pub struct Holder {
    node: NodeId,
    lease: LeaseId,
    times: LeaseTimes,
    /// When renewals of this lease were sent; at most one lease ago.
    sends: VecDeque<u64>,
    /// Ascending by membership id.
    counts: Vec<Count>,
    /// The deadlines that former leases of this node reached, by [`Deadline`].
    inherited_ms: [Option<u64>; 3],
}

/// The latest answered sending time of each member, under one membership.
#[derive(Clone, Debug)]
struct Count {
    membership: Membership,
    sent_ms: BTreeMap<MemberId, u64>,
    /// The latest one that a majority has answered.
    majority_ms: Option<u64>,
}

impl Count {
    fn answered(&mut self, member: MemberId, sent_ms: u64) {
        let latest_ms = self.sent_ms.entry(member).or_insert(sent_ms);
        *latest_ms = sent_ms.max(*latest_ms);
        self.majority_ms = match mutant!("ack_one_enough") {
            true => self.sent_ms.values().copied().max(),
            false => self.membership.majority_ms(|member| self.sent_ms.get(&member).copied()),
        };
    }
}

impl Holder {
    /// A holder that has no deadline yet.
    #[must_use]
    pub fn new(node: NodeId, lease: LeaseId, times: LeaseTimes) -> Holder {
        Holder {
            node,
            lease,
            times,
            sends: VecDeque::new(),
            counts: Vec::new(),
            inherited_ms: [None; 3],
        }
    }

    /// The lease that is being renewed.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The renewal to send to every member now, by all means before doing anything else.
    pub fn renewal(&mut self, now_ms: u64) -> Renewal {
        self.drop_old_sends(now_ms);
        if !self.sends.contains(&now_ms) {
            self.sends.push_back(now_ms);
        }
        if self.sends.len() > RENEWALS_PER_LEASE_MAX as usize {
            self.sends.pop_front();
        }
        Renewal {
            node: self.node,
            lease: self.lease,
            sent_ms: now_ms,
            lease_ms: self.times.lease_ms(),
        }
    }

    /// Takes in an answer. Returns whether it counts: an answer for another node or lease, by a
    /// member without a vote, or to a renewal that was never sent or is older than a lease,
    /// changes nothing.
    pub fn on_ack(&mut self, ack: &Ack, now_ms: u64) -> bool {
        self.drop_old_sends(now_ms);
        let ours = ack.node == self.node && ack.lease == self.lease;
        if !ours || !self.sends.contains(&ack.sent_ms) || !ack.membership.is_voter(ack.member) {
            return false;
        }
        let Some(count) = self.count_of(&ack.membership) else { return false };
        count.answered(ack.member, ack.sent_ms);
        true
    }

    /// The time until which this deadline has been pushed, or `None` if no majority ever
    /// answered. What it governs must be dead at that instant; `now >= deadline` is too late.
    #[must_use]
    pub fn deadline_ms(&self, deadline: Deadline) -> Option<u64> {
        let counted_ms = self.counts.iter().filter_map(|count| {
            let after_ms = self.times.after_ms(deadline, &count.membership);
            Some(count.majority_ms?.saturating_add(after_ms))
        });
        counted_ms.max().max(self.inherited_ms[deadline as usize])
    }

    /// Whether the lease is held now.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> LeaseState {
        match self.deadline_ms(Deadline::Strict) {
            Some(until_ms) if now_ms < until_ms => LeaseState::Held { until_ms },
            Some(_) | None => LeaseState::Expired,
        }
    }

    /// Whether a rank may start now, whatever isolation its job chose: a majority must answer for
    /// the lease. A starter that was stopped between this question and the start is caught by
    /// its shim, which looks at the deadline again before it lets the rank run.
    #[must_use]
    pub fn may_start(&self, now_ms: u64) -> bool {
        matches!(self.state(now_ms), LeaseState::Held { .. })
    }

    /// Goes over to the next committed lease, with times that may differ. Deadlines that were
    /// reached stay; from now on only answers to the new lease count. A lease that is not newer
    /// is ignored: the news came late.
    pub fn succeed(&mut self, lease: LeaseId, times: LeaseTimes) {
        if lease <= self.lease {
            return;
        }
        self.keep_deadlines();
        self.sends.clear();
        self.counts.clear();
        self.lease = lease;
        self.times = times;
    }

    /// An answer that took a whole lease would push the strict deadline to a time that is past,
    /// and says that the network is in no state to hold a lease.
    fn drop_old_sends(&mut self, now_ms: u64) {
        let lease_ms = self.times.lease_ms();
        self.sends.retain(|sent_ms| sent_ms.saturating_add(lease_ms) > now_ms);
    }

    /// Writes down the deadlines before what they were counted from is dropped.
    fn keep_deadlines(&mut self) {
        self.inherited_ms = [Deadline::Strict, Deadline::Fenced, Deadline::Tolerant]
            .map(|deadline| self.deadline_ms(deadline));
    }

    /// The count of this membership, made if need be. `None` if it is older than those that are
    /// kept, or if another one of the same name is (which honest members never send).
    fn count_of(&mut self, membership: &Membership) -> Option<&mut Count> {
        let at = self.counts.partition_point(|count| count.membership.id < membership.id);
        let known = self.counts.get(at).is_some_and(|c| c.membership.id == membership.id);
        if known {
            return Some(&mut self.counts[at]).filter(|count| count.membership == *membership);
        }
        let mut at = at;
        if self.counts.len() == MEMBERSHIPS_KEPT_MAX {
            if at == 0 {
                return None;
            }
            self.keep_deadlines();
            self.counts.remove(0);
            at -= 1;
        }
        let membership = membership.clone();
        let fresh = Count { membership, sent_ms: BTreeMap::new(), majority_ms: None };
        self.counts.insert(at, fresh);
        Some(&mut self.counts[at])
    }
}
