//! The small world: what there is, and how its parts are made from the real automata.
//!
//! Time goes in steps of [`STEP_MS`] of true time. A state holds ages in steps, capped at
//! [`World::dead`], by which every wait is over and every lease is past. From its part of a state
//! the real [`Keeper`] and [`Holder`] are built through their public functions by replaying what
//! happened at those ages; they decide, and what they answer makes the next state. Since ages are
//! capped, the number of states is finite although time is not.

use std::collections::BTreeSet;
use yard_common::id::{LeaseId, LogIndex, MemberId, NodeId};
use yard_core::lease::{
    Ack, Deadline, GiveUp, Holder, Intent, Judgement, Keeper, LeaseTimes, Membership, MembershipId,
    Promise, PromiseRecord, Renewal,
};

pub(crate) const STEP_MS: u64 = 2_000;
pub(crate) const MEMBERS: usize = 3;
/// Memberships at most: old, joint, new.
pub(crate) const CONFIGS: usize = 3;
const NODE: NodeId = NodeId(7);
/// The step that is "now" whenever an automaton is built.
const NOW: u64 = 100;

/// A rule that is weaker than the real one. The driver bends what it passes to the automata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakening {
    /// The holder counts from when the answer comes.
    TimeAtReply,
    /// The holder is content with one answer.
    OneAck,
    /// A restarted member thinks that it has been up for ever.
    NoRestartWait,
    /// A restarted member does not find its promises.
    PromiseForgotten,
    /// Members say that they promise, and go on answering.
    NoPromise,
    /// Neither members nor holder take notice of changes of the membership.
    MembershipIgnored,
    /// A member does not wait after a change of the membership.
    NoMembershipWait,
    /// A member answers under a membership that it has only appended.
    AnswersUnapplied,
    /// Members wait 0.98 L.
    ShortWait,
}

/// What may happen to answers on their way to the holder. They change nothing but the holder's
/// deadline, and only forward, so no violation is lost if they all arrive at once. What is won by
/// that goes into more events of other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    AtOnce,
    AtOnceOrNever,
    LateOrNever,
}

/// One member, its disk, and what is under way between it and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Local {
    /// Ages: when it answered a renewal last, started, applied its membership.
    pub(crate) answered: u8,
    pub(crate) started: u8,
    pub(crate) settled: u8,
    /// The highest lease promised away (0: none), the highest that is so on disk, and the
    /// membership under which a promise that is not on disk yet was made up.
    pub(crate) promised: u8,
    pub(crate) disk: u8,
    pub(crate) tag: u8,
    /// Memberships under which the leader has its promise of the current lease, as bits.
    pub(crate) said: u8,
    /// Age of the youngest renewal that it answered and the holder knows of, by membership.
    pub(crate) best: [u8; CONFIGS],
    /// Age of the renewal to which an answer is still under way.
    pub(crate) flying: u8,
    /// Log entries that it has, and has applied.
    pub(crate) appended: u8,
    pub(crate) applied: u8,
}

/// An entry of the replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// The next membership.
    Change,
    /// `Lift` of the lease that is current there.
    Lift,
    /// `Lost` of the lease that is current there, voted under the membership of this number.
    Lost(u8),
}

/// What a prefix of the log adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) lease: LeaseId,
    pub(crate) config: u8,
    /// The lease that was lost, if one was.
    pub(crate) lost: Option<LeaseId>,
}

/// What stays the same during one exploration.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    /// L in steps.
    pub(crate) lease_steps: u64,
    /// The memberships in the order in which the log goes through them.
    pub(crate) configs: Vec<Membership>,
    /// How far the clocks are off: milliseconds per [`STEP_MS`].
    pub(crate) holder_drift_ms: i64,
    pub(crate) member_drift_ms: i64,
    pub(crate) crashes: bool,
    pub(crate) lifts: u8,
    pub(crate) acks: Acks,
    /// Disks are done at once, and members apply what they can at once.
    pub(crate) prompt: bool,
    /// The first so many members have the same part in every membership.
    pub(crate) alike: usize,
    pub(crate) weakening: Option<Weakening>,
}

pub(crate) fn membership(index: u64, voters: &[u64], joint: Option<&[u64]>) -> Membership {
    let set = |ids: &[u64]| -> BTreeSet<MemberId> { ids.iter().copied().map(MemberId).collect() };
    Membership { id: MembershipId(LogIndex(index)), voters: set(voters), joint: joint.map(set) }
}

impl World {
    /// The age at which nothing counts any more.
    pub(crate) fn dead(&self) -> u8 {
        self.lease_steps as u8 + 1
    }

    /// Whether the member ever votes.
    pub(crate) fn takes_part(&self, member: u8) -> bool {
        self.configs.iter().any(|config| config.is_voter(MemberId(u64::from(member) + 1)))
    }

    pub(crate) fn is(&self, weakening: Weakening) -> bool {
        self.weakening == Some(weakening)
    }

    /// How old a membership seems to a member that has just taken it in.
    pub(crate) fn age_of_new_membership(&self) -> u8 {
        let no_wait = self.is(Weakening::NoMembershipWait) || self.is(Weakening::MembershipIgnored);
        if no_wait { self.dead() } else { 0 }
    }

    fn times(&self) -> LeaseTimes {
        let lease_ms = self.lease_steps * STEP_MS;
        LeaseTimes::new(lease_ms, lease_ms / 6, 200).unwrap()
    }

    /// The times that members go by.
    fn member_times(&self) -> LeaseTimes {
        if !self.is(Weakening::ShortWait) {
            return self.times();
        }
        let wait_ms = self.lease_steps * STEP_MS * 98 / 100;
        let short = (1..wait_ms).rev().find_map(|lease_ms| {
            let times = LeaseTimes::new(lease_ms, lease_ms / 6, 1).ok()?;
            (times.promise_wait_ms() == wait_ms).then_some(times)
        });
        short.unwrap()
    }

    fn clock_ms(drift_ms: i64, age: u8) -> u64 {
        (NOW - u64::from(age)) * (STEP_MS.checked_add_signed(drift_ms).unwrap())
    }

    fn member_ms(&self, age: u8) -> u64 {
        Self::clock_ms(self.member_drift_ms, age)
    }

    fn holder_ms(&self, age: u8) -> u64 {
        Self::clock_ms(self.holder_drift_ms, age)
    }

    /// Applies a log, or the first part of one.
    pub(crate) fn apply(&self, log: &[Entry]) -> Applied {
        let mut applied = Applied { lease: LeaseId(1), config: 0, lost: None };
        for entry in log {
            match entry {
                Entry::Change => applied.config += 1,
                Entry::Lift => {
                    let lift = yard_core::lease::Lift { node: NODE, lease: applied.lease };
                    applied.lease = lift.next_lease(applied.lease).unwrap();
                }
                Entry::Lost(config) => {
                    let voted = self.configs[usize::from(*config)].id;
                    let lost = yard_core::lease::Lost {
                        node: NODE,
                        lease: applied.lease,
                        membership: voted,
                    };
                    let in_force = self.configs[usize::from(applied.config)].id;
                    if let Some(next) = lost.next_lease(applied.lease, in_force) {
                        applied.lost = Some(applied.lease);
                        applied.lease = next;
                    }
                }
            }
        }
        applied
    }

    /// The member's automaton as it stands now, and its promise if that is not on disk yet.
    pub(crate) fn keeper(&self, local: &Local, log: &[Entry]) -> (Keeper, Option<Intent>) {
        let applied = self.apply(&log[..usize::from(local.applied)]);
        let appended = self.apply(&log[..usize::from(local.appended)]).config;
        let (config, latest) = match self.weakening {
            Some(Weakening::MembershipIgnored) => (0, 0),
            Some(Weakening::AnswersUnapplied) => (appended, appended),
            Some(_) | None => (applied.config, appended),
        };
        let pending = (local.promised > local.disk).then_some(LeaseId(local.promised.into()));
        let first = match pending {
            Some(_) => local.tag,
            None if local.settled < local.started => 0,
            None => config,
        };
        let first = self.configs[usize::from(first)].clone();
        let started_ms = self.member_ms(local.started);
        let mut keeper = Keeper::new(MemberId(1), first, self.member_times(), started_ms);
        if pending.is_none_or(|lease| lease == applied.lease) {
            self.replay_lease(&mut keeper, local, applied.lease);
        }
        if local.disk > 0 {
            let lease = LeaseId(local.disk.into());
            keeper.restore([PromiseRecord { node: NODE, lease }]);
        }
        let intent = pending.map(|lease| {
            keeper.lease_applied(NODE, lease);
            // Long after: what it had to wait for is over, or there would be no intent.
            match keeper.ask(NODE, lease, 2 * self.member_ms(0)) {
                Judgement::Persist(intent) => intent,
                other => panic!("no intent in {local:?}: {other:?}"),
            }
        });
        if pending.is_some_and(|lease| lease != applied.lease) {
            self.replay_lease(&mut keeper, local, applied.lease);
        }
        let settled_ms = self.member_ms(local.settled);
        keeper.membership_applied(self.configs[usize::from(config)].clone(), settled_ms);
        keeper.membership_appended(self.configs[usize::from(latest)].id);
        (keeper, intent)
    }

    /// The lease was applied, and a renewal of it answered.
    fn replay_lease(&self, keeper: &mut Keeper, local: &Local, lease: LeaseId) {
        keeper.lease_applied(NODE, lease);
        if local.answered < self.dead() {
            let renewal = self.renewal(lease, local.answered);
            let ack = keeper.on_renewal(&renewal, self.member_ms(local.answered));
            assert!(ack.is_ok(), "{ack:?} in {local:?}");
        }
    }

    /// A renewal as it was sent at this age.
    pub(crate) fn renewal(&self, lease: LeaseId, age: u8) -> Renewal {
        let lease_ms = self.member_times().lease_ms();
        Renewal { node: NODE, lease, sent_ms: self.holder_ms(age), lease_ms }
    }

    /// The member answers a renewal now: `Some` membership under which it did.
    pub(crate) fn answer(&self, local: &Local, log: &[Entry], lease: u64, age: u8) -> Option<u8> {
        let (mut keeper, _) = self.keeper(local, log);
        let renewal = self.renewal(LeaseId(lease), age);
        let ack = keeper.on_renewal(&renewal, self.member_ms(0)).ok()?;
        assert_eq!(ack.sent_ms, renewal.sent_ms);
        self.configs.iter().position(|config| *config == ack.membership).map(|at| at as u8)
    }

    /// The leader asks the member now. `Ok` with a promise that is on disk, `Err(true)` if it is
    /// to be written.
    pub(crate) fn ask(
        &self,
        local: &Local,
        log: &[Entry],
        lease: LeaseId,
    ) -> Result<Promise, bool> {
        let (mut keeper, _) = self.keeper(local, log);
        match keeper.ask(NODE, lease, self.member_ms(0)) {
            Judgement::Promised(promise) => Ok(promise),
            Judgement::Persist(_) => Err(true),
            Judgement::Pending | Judgement::Heard { .. } | Judgement::OtherLease { .. } => {
                Err(false)
            }
        }
    }

    /// The number of the membership that a promise names.
    pub(crate) fn config_of(&self, promise: &Promise) -> u8 {
        let at = self.configs.iter().position(|config| config.id == promise.membership);
        at.unwrap() as u8
    }

    /// The leader's vote under one membership.
    pub(crate) fn vote(&self, locals: &[Local; MEMBERS], lease: LeaseId, config: u8) -> GiveUp {
        let membership = self.configs[usize::from(config)].clone();
        let id = membership.id;
        let mut vote = GiveUp::new(NODE, lease, membership);
        for (at, local) in locals.iter().enumerate() {
            let member = MemberId(at as u64 + 1);
            if local.said & (1 << config) != 0 {
                vote.on_promise(&Promise { member, node: NODE, lease, membership: id });
            } else {
                vote.on_heard(member, 0);
            }
        }
        vote
    }

    /// The node's automaton. `floor`: the age of the renewal that a majority had answered when it
    /// went over from lease 1 to lease 2.
    pub(crate) fn holder(&self, locals: &[Local; MEMBERS], lease: u8, floor: u8) -> Holder {
        let mut holder = Holder::new(NODE, LeaseId(1), self.times());
        if lease > 1 {
            if floor < self.dead() {
                let sent_ms = holder.renewal(self.holder_ms(floor)).sent_ms;
                for member in 1..=MEMBERS as u64 {
                    let ack = self.ack(member, 1, sent_ms, 0);
                    holder.on_ack(&ack, sent_ms);
                }
            }
            holder.succeed(LeaseId(u64::from(lease)), self.times());
        }
        for age in (0..self.dead()).rev() {
            let sent_ms = holder.renewal(self.holder_ms(age)).sent_ms;
            for (at, local) in locals.iter().enumerate() {
                for config in 0..CONFIGS {
                    if local.best[config] == age {
                        let ack = self.ack(at as u64 + 1, u64::from(lease), sent_ms, config);
                        // Taken in at once: an older one would be too late today.
                        let votes = ack.membership.is_voter(ack.member);
                        assert_eq!(holder.on_ack(&ack, sent_ms), votes, "{ack:?}");
                    }
                }
            }
        }
        holder
    }

    fn ack(&self, member: u64, lease: u64, sent_ms: u64, config: usize) -> Ack {
        let membership = if self.is(Weakening::OneAck) {
            membership(100 + member, &[member], None)
        } else {
            self.configs[config].clone()
        };
        Ack { member: MemberId(member), node: NODE, lease: LeaseId(lease), sent_ms, membership }
    }

    /// Whether the holder may act on its lease now.
    pub(crate) fn held(&self, holder: &Holder) -> bool {
        holder.may_start(self.holder_ms(0))
    }

    /// Whether all that ran under the lease is dead: the deadline is past by the time of a kill.
    pub(crate) fn killed(&self, holder: &Holder) -> bool {
        let deadline_ms = holder.deadline_ms(Deadline::Strict);
        deadline_ms.is_none_or(|ms| self.holder_ms(0) >= ms + 200)
    }

    /// The age of the renewal from which the holder counts, as far as it is not dead.
    pub(crate) fn held_age(&self, holder: &Holder) -> u8 {
        let sent_ms = holder.deadline_ms(Deadline::Strict).map(|ms| ms - self.times().lease_ms());
        (0..self.dead()).find(|&age| sent_ms == Some(self.holder_ms(age))).unwrap_or(self.dead())
    }
}
