//! A member's side: whom does it answer, and what may it promise?

use super::give_up::SUSPECT_MS;
use super::membership::{Membership, MembershipId};
use super::message::{Ack, Promise, PromiseRecord, Refusal, Renewal};
use super::times::LeaseTimes;
use std::collections::BTreeMap;
use yard_common::id::{LeaseId, MemberId, NodeId};

/// A member that did not say for longer that it lives, in milliseconds, stood still: its process
/// was stopped, its machine suspended, or its processors taken away.
pub const STILL_MS: u64 = 1_000;

/// What one member knows about the leases of all nodes. All times are of its own boot clock.
///
/// Invariants: a lease that is promised away is never answered, from the very instant at which
/// the promise is made up. Only the committed lease of a node is answered, and only while the
/// latest membership in this member's log is applied: an answer under a membership thus knows
/// every loss that was committed before it.
#[derive(Clone, Debug)]
pub struct Keeper {
    member: MemberId,
    /// The longest lease that any node may have. What was answered before a restart is
    /// forgotten, so the wait after it covers every node.
    longest: LeaseTimes,
    started_ms: u64,
    /// When it said last that it lives; none: it never does.
    alive_ms: Option<u64>,
    /// Since when it has not stood still: what was said to it before lies unread, or is lost.
    awake_ms: u64,
    /// The membership as applied.
    membership: Membership,
    /// Since when that is so, as far as this process can tell: its start at the earliest.
    settled_ms: u64,
    /// The latest membership entry of the log, applied or not.
    appended: MembershipId,
    nodes: BTreeMap<NodeId, Seen>,
}

/// What a member knows about one node.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The committed lease, as applied; `None` before the node is applied after a restart.
    current: Option<LeaseId>,
    /// When anything of the node arrived last; answered or not, the node was alive.
    heard_ms: Option<u64>,
    /// Its silence counts from here at the earliest: this member stood still before, and was deaf.
    awake_ms: u64,
    /// How long its lease lasts, as it said last; `None` before it is heard after a restart.
    lease_ms: Option<u64>,
    /// The node does not count as silent before: a lease after it was heard, answered or not.
    spoke_until_ms: u64,
    /// Until when the holder may count on this member; with slack for clocks and kill.
    counted_on_ms: Option<u64>,
    promise: Option<Promised>,
}

/// All leases of a node up to this one are promised away.
#[derive(Clone, Copy, Debug)]
struct Promised {
    lease: LeaseId,
    durable: bool,
}

/// A member's answer to the leader's question whether a lease can be promised away.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// Yes, once it is on disk: write [`Intent::record`], sync, then [`Keeper::confirm`].
    Persist(Intent),
    /// Yes, and the disk is at it.
    Pending,
    /// Yes, and it is on disk; send it (again).
    Promised(Promise),
    /// Not yet.
    Heard {
        /// How long the node has been silent towards this member.
        silent_ms: u64,
        /// How long this member will have to go on waiting if the node stays silent.
        left_ms: u64,
    },
    /// Another lease is the committed one as far as this member has applied.
    OtherLease {
        /// That lease, if the node is known.
        current: Option<LeaseId>,
    },
}

/// A promise that is not on disk yet. It can become a message through [`Keeper::confirm`] only.
/// Dropping it is safe and leaves the lease unanswered by this member.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Intent(Promise);

impl Intent {
    /// What must be durable before [`Keeper::confirm`]. Many records may share one sync.
    #[must_use]
    pub fn record(&self) -> PromiseRecord {
        PromiseRecord { node: self.0.node, lease: self.0.lease }
    }
}

impl Keeper {
    /// A member that starts now, with the membership as its state machine has it. It answers at
    /// once, and promises nothing before the longest lease it may have forgotten is over.
    ///
    /// `longest`: longest lease of any pool, the same on all members. It may be lowered only
    /// when no node has had a longer one for that long.
    #[must_use]
    pub fn new(
        member: MemberId,
        membership: Membership,
        longest: LeaseTimes,
        now_ms: u64,
    ) -> Keeper {
        Keeper {
            member,
            longest,
            started_ms: now_ms,
            alive_ms: None,
            awake_ms: now_ms,
            settled_ms: now_ms,
            appended: membership.id,
            membership,
            nodes: BTreeMap::new(),
        }
    }

    /// Takes back the promises found on disk; to be called before the first renewal is answered.
    /// A restore from backup starts a new life of the cluster, in which old promises are void.
    pub fn restore(&mut self, records: impl IntoIterator<Item = PromiseRecord>) {
        for record in records {
            let promise = &mut self.nodes.entry(record.node).or_default().promise;
            let lease = promise.map_or(record.lease, |known| known.lease.max(record.lease));
            *promise = Some(Promised { lease, durable: true });
        }
    }

    /// This member lives now. To be called several times within [`STILL_MS`], and before each
    /// question is answered: one that stood still was deaf, and must not take that for the silence
    /// of nodes. It promises the lease of none before that one had the time to renew.
    pub fn lives(&mut self, now_ms: u64) {
        let last_ms = self.alive_ms.map_or(now_ms, |last_ms| last_ms.max(now_ms));
        let still = |alive_ms: &u64| now_ms.saturating_sub(*alive_ms) > STILL_MS;
        if let Some(alive_ms) = self.alive_ms.filter(still) {
            self.stood_still(alive_ms, now_ms);
        }
        self.alive_ms = Some(last_ms);
    }

    /// This member stood still from one time to another.
    fn stood_still(&mut self, since_ms: u64, now_ms: u64) {
        self.awake_ms = now_ms;
        for seen in self.nodes.values_mut() {
            // One that was silent already is not heard by that.
            if since_ms.saturating_sub(seen.quiet_from_ms(self.started_ms)) <= SUSPECT_MS {
                seen.awake_ms = now_ms;
            }
        }
    }

    /// The latest membership entry in this member's log is now this one. To be called before
    /// the append is acknowledged, and also when a new leader cut the log back.
    pub fn membership_appended(&mut self, latest: MembershipId) {
        self.appended = latest;
    }

    /// A membership was applied, and with it every entry before it.
    pub fn membership_applied(&mut self, membership: Membership, now_ms: u64) {
        if membership.id > self.membership.id {
            self.appended = self.appended.max(membership.id);
            self.membership = membership;
            self.settled_ms = now_ms;
        }
    }

    /// The membership that was applied last.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The committed lease of a node, from a snapshot or as a command is applied.
    pub fn lease_applied(&mut self, node: NodeId, lease: LeaseId) {
        let seen = self.nodes.entry(node).or_default();
        assert!(
            seen.current.is_none_or(|current| current <= lease),
            "the committed lease of node {node} fell from {:?} to {lease}",
            seen.current
        );
        seen.current = Some(lease);
    }

    /// The node left the cluster; its id is never used again. Its record may be erased from disk
    /// when a durable snapshot covers the removal: a restart from an older one brings the node
    /// back for a while, and then its promise must be there.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Answers a renewal.
    ///
    /// # Errors
    /// The reason why this member does not answer. The holder then gains nothing from it.
    pub fn on_renewal(&mut self, renewal: &Renewal, now_ms: u64) -> Result<Ack, Refusal> {
        let settled = self.is_settled();
        let known = self.nodes.get_mut(&renewal.node);
        let Some((seen, current)) = known.and_then(|seen| seen.current.map(|c| (seen, c))) else {
            return Err(Refusal::UnknownNode);
        };
        seen.heard_ms = seen.heard_ms.max(Some(now_ms));
        let lease_ms = renewal.lease_ms.min(self.longest.lease_ms());
        seen.spoke_until_ms = seen.spoke_until_ms.max(now_ms.saturating_add(lease_ms));
        seen.lease_ms = Some(lease_ms);
        if renewal.lease != current {
            return Err(Refusal::OtherLease { current });
        }
        let promised = seen.promise.is_some_and(|promised| renewal.lease <= promised.lease);
        if promised {
            return Err(Refusal::Promised);
        }
        if renewal.lease_ms > self.longest.lease_ms() {
            return Err(Refusal::TooLong { longest_ms: self.longest.lease_ms() });
        }
        if !settled {
            return Err(Refusal::Unsettled);
        }
        let over_ms = now_ms.saturating_add(self.longest.promise_wait_of(renewal.lease_ms));
        seen.counted_on_ms = seen.counted_on_ms.max(Some(over_ms));
        Ok(Ack {
            member: self.member,
            node: renewal.node,
            lease: renewal.lease,
            sent_ms: renewal.sent_ms,
            membership: self.membership.clone(),
        })
    }

    /// The leader asks whether this lease can be promised away.
    ///
    /// From [`Judgement::Persist`] on the lease is not answered any more, before anything is on
    /// disk: a renewal that is answered while the disk works would outlive the promise.
    pub fn ask(&mut self, node: NodeId, lease: LeaseId, now_ms: u64) -> Judgement {
        let silent_ms = self.silent_ms(node, now_ms);
        let (ready_ms, settled) = (self.ready_ms(node), self.is_settled());
        let promise = Promise { member: self.member, node, lease, membership: self.membership.id };
        let Some(seen) = self.nodes.get_mut(&node).filter(|seen| seen.current == Some(lease))
        else {
            let current = self.nodes.get(&node).and_then(|seen| seen.current);
            return Judgement::OtherLease { current };
        };
        // Strictly later: clocks are read in whole milliseconds, and equal readings may hide
        // one that has not passed.
        if !settled {
            return Judgement::Heard { silent_ms, left_ms: self.longest.promise_wait_ms() };
        }
        if now_ms <= ready_ms {
            return Judgement::Heard { silent_ms, left_ms: (ready_ms - now_ms).saturating_add(1) };
        }
        match seen.promise {
            Some(known) if known.lease >= lease && known.durable => Judgement::Promised(promise),
            Some(known) if known.lease >= lease => Judgement::Pending,
            // A node that was refused a moment ago is on its way to the next lease. Promised away
            // before its first renewal, that one would be followed by another, and so for ever.
            Some(_) | None if now_ms <= seen.spoke_until_ms => {
                let left_ms = (seen.spoke_until_ms - now_ms).saturating_add(1);
                Judgement::Heard { silent_ms, left_ms }
            }
            Some(_) | None => {
                seen.promise = Some(Promised { lease, durable: false });
                Judgement::Persist(Intent(promise))
            }
        }
    }

    /// The record of the intent is on disk: here is the promise to send.
    pub fn confirm(&mut self, intent: Intent) -> Promise {
        let Intent(promise) = intent;
        let known = self.nodes.get_mut(&promise.node).and_then(|seen| seen.promise.as_mut());
        if let Some(known) = known.filter(|known| known.lease == promise.lease) {
            known.durable = true;
        }
        promise
    }

    /// For how long nothing has arrived from the node, as far as this process can tell.
    #[must_use]
    pub fn silent_ms(&self, node: NodeId, now_ms: u64) -> u64 {
        let seen = self.nodes.get(&node);
        let never_ms = self.started_ms.max(self.awake_ms);
        let from_ms = seen.map_or(never_ms, |seen| seen.quiet_from_ms(self.started_ms));
        now_ms.saturating_sub(from_ms)
    }

    /// Whether the latest membership of the log is applied.
    fn is_settled(&self) -> bool {
        self.appended == self.membership.id
    }

    /// After this time nobody counts on an answer that this member gave to the node: neither on
    /// one that it remembers, nor on one from before its start, nor on one under a membership
    /// that was replaced. And the node has had the time to be heard.
    fn ready_ms(&self, node: NodeId) -> u64 {
        let seen = self.nodes.get(&node);
        let counted_on_ms = seen.and_then(|seen| seen.counted_on_ms);
        let longest_ms = self.longest.promise_wait_ms();
        let lease_ms = seen.and_then(|seen| seen.lease_ms);
        let own_ms = lease_ms.map_or(longest_ms, |ms| self.longest.promise_wait_of(ms));
        let forgotten_ms = self.settled_ms.saturating_add(longest_ms);
        let woken_ms = self.awake_ms.saturating_add(own_ms);
        forgotten_ms.max(woken_ms).max(counted_on_ms.unwrap_or(0))
    }
}

impl Seen {
    /// Since when nothing has come of the node, as far as a member knows that started then.
    fn quiet_from_ms(&self, started_ms: u64) -> u64 {
        self.heard_ms.unwrap_or(started_ms).max(self.awake_ms)
    }
}
