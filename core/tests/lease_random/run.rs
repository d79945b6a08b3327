//! One random schedule: a node, up to five members, a leader, and the links between them.
//!
//! Links are cut by phases, each in one direction, since failures that come and go by themselves
//! rarely add up to anything. The automata live through the whole schedule as they would in
//! their processes. Log and leader are abstract: one log, which members follow at their pace.

use super::chance::{BOOT_MS, Clock, MACHINES, Phase, Random};
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::{LeaseId, LogIndex, MemberId, NodeId};
use yard_core::lease::{
    Ack, Deadline, GiveUp, Holder, Intent, Judgement, Keeper, LeaseTimes, Lift, Lost, Membership,
    MembershipId, Outcome, Promise, PromiseRecord, Renewal,
};

const NODE: NodeId = NodeId(3);
const KILL_MS: u64 = 200;
const RUN_MS: u64 = 24_000;
const TICK_MS: u64 = 50;
/// How long the node is watched after it was lost.
const WATCH_MS: u64 = 4_000;

/// A rule that is weaker than the real one; see the model check for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakening {
    TimeAtReply,
    OneAck,
    NoRestartWait,
    PromiseForgotten,
    NoPromise,
    MembershipIgnored,
    NoMembershipWait,
    ShortWait,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Change,
    Lift(Lift),
    Lost(Lost),
}

enum Event {
    Renewal(usize, Renewal),
    Ack(Ack),
    Synced(usize, u32, Intent),
    Promised(Promise),
    Heard(usize, u64),
    Up(usize),
}

/// A member: its process while it is up, and its disk.
struct Machine {
    clock: Clock,
    keeper: Option<Keeper>,
    /// Which life of the process this is.
    life: u32,
    records: BTreeSet<PromiseRecord>,
    appended: usize,
    applied: usize,
    snapshot: usize,
}

/// What happened in a run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Story {
    pub(crate) held: bool,
    pub(crate) lost: bool,
    pub(crate) lifted: bool,
    pub(crate) restarts: u64,
    pub(crate) changes: u64,
    /// The last of its renewals that a majority answered came after a restart or a change.
    pub(crate) held_after_fault: bool,
    pub(crate) violation: bool,
}

pub(crate) struct Run {
    random: Random,
    weakening: Option<Weakening>,
    now_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    clock: Clock,
    holder: Holder,
    machines: Vec<Machine>,
    phase: Phase,
    configs: Vec<Membership>,
    log: Vec<Entry>,
    committed: usize,
    vote: GiveUp,
    restarts_left: u64,
    changes_left: u64,
    lost: Option<(LeaseId, u64)>,
    story: Story,
}

/// What a part of the log adds up to: lease and membership.
fn apply(log: &[Entry], configs: &[Membership]) -> (LeaseId, usize, Option<LeaseId>) {
    let (mut lease, mut config, mut gone) = (LeaseId(1), 0, None);
    for entry in log {
        let next = match entry {
            Entry::Change => {
                config += 1;
                None
            }
            Entry::Lift(lift) => lift.next_lease(lease),
            Entry::Lost(lost) => {
                let next = lost.next_lease(lease, configs[config].id);
                gone = gone.or(next.map(|_| lease));
                next
            }
        };
        lease = next.unwrap_or(lease);
    }
    (lease, config, gone)
}

impl Run {
    pub(crate) fn new(seed: u64, weakening: Option<Weakening>) -> Run {
        let mut random = Random(seed);
        let first = match random.below(4) {
            0 => Membership::of(MembershipId(LogIndex(0)), [MemberId(0)]),
            1 => Membership::of(MembershipId(LogIndex(0)), (0..5).map(MemberId)),
            _ => Membership::of(MembershipId(LogIndex(0)), (0..3).map(MemberId)),
        };
        let mut run = Run {
            weakening,
            now_ms: 0,
            events: BTreeMap::new(),
            sequence: 0,
            clock: Clock::random(&mut random),
            holder: Holder::new(NODE, LeaseId(1), LeaseTimes::DEFAULT),
            machines: Vec::new(),
            phase: Phase::default(),
            vote: GiveUp::new(NODE, LeaseId(1), first.clone()),
            configs: vec![first],
            log: Vec::new(),
            committed: 0,
            restarts_left: random.below(6),
            changes_left: random.below(3),
            lost: None,
            story: Story::default(),
            random,
        };
        for at in 0..MACHINES {
            let clock = Clock::random(&mut run.random);
            run.machines.push(Machine {
                clock,
                keeper: None,
                life: 0,
                records: BTreeSet::new(),
                appended: 0,
                applied: 0,
                snapshot: 0,
            });
            run.start(at);
        }
        run
    }

    /// Runs the schedule to its end, or to the first violation.
    pub(crate) fn play(mut self) -> Story {
        while self.now_ms < RUN_MS && !self.story.violation {
            if self.now_ms.is_multiple_of(TICK_MS) {
                self.tick();
            }
            while let Some(first) = self.events.first_entry() {
                if first.key().0 > self.now_ms {
                    break;
                }
                let event = first.remove();
                self.take(event);
            }
            self.check();
            if self.lost.is_some_and(|(_, at_ms)| self.now_ms > at_ms + WATCH_MS) {
                break;
            }
            let tick_ms = (self.now_ms / TICK_MS + 1) * TICK_MS;
            let event_ms = self.events.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
            self.now_ms = tick_ms.min(event_ms.max(self.now_ms + 1));
        }
        self.story
    }

    fn is(&self, weakening: Weakening) -> bool {
        self.weakening == Some(weakening)
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now_ms + delay_ms, self.sequence), event);
    }

    /// A delay on the network, or none if the message is lost.
    fn transit(&mut self, cut: bool) -> Option<u64> {
        let lost = cut || self.random.chance(self.phase.loss_percent);
        (!lost).then(|| 1 + self.random.below(self.phase.delay_ms))
    }

    /// The times that members go by.
    fn member_times(&self) -> LeaseTimes {
        if self.is(Weakening::ShortWait) {
            // 2,930 + 9 + 1 is 0.98 L.
            return LeaseTimes::new(2_930, 500, 1).unwrap();
        }
        LeaseTimes::new(3_000, 500, KILL_MS).unwrap()
    }

    /// The holder is dead when the lease is lost, and never holds it again.
    fn check(&mut self) {
        let now_ms = self.clock.at(self.now_ms);
        if self.holder.may_start(now_ms) {
            self.story.held = true;
            self.story.held_after_fault |= self.story.restarts + self.story.changes > 0
                && self.holder.deadline_ms(Deadline::Strict) > Some(now_ms + 2_000);
        }
        let Some((lease, at_ms)) = self.lost else { return };
        if self.holder.lease() > lease {
            return;
        }
        let dead_ms = self.clock.at(at_ms.saturating_sub(KILL_MS));
        let deadline_ms = self.holder.deadline_ms(Deadline::Strict);
        self.story.violation |= deadline_ms > Some(dead_ms);
    }

    fn tick(&mut self) {
        if self.now_ms >= self.phase.until_ms {
            self.phase = Phase::random(&mut self.random, self.now_ms);
        }
        if self.now_ms.is_multiple_of(500) {
            self.renew();
        }
        if self.restarts_left > 0 && self.random.chance(1) {
            let at = self.random.below(MACHINES as u64) as usize;
            self.crash(at);
        }
        if self.changes_left > 0 && self.random.chance(1) {
            self.start_change();
        }
        self.replicate();
        if self.now_ms.is_multiple_of(100) {
            self.lead();
        }
    }

    fn renew(&mut self) {
        let mut renewal = self.holder.renewal(self.clock.at(self.now_ms));
        renewal.lease_ms = self.member_times().lease_ms();
        for at in 0..MACHINES {
            let copies = if self.random.chance(5) { 2 } else { 1 };
            for _ in 0..copies {
                if let Some(delay_ms) = self.transit(self.phase.to_member[at]) {
                    self.after(delay_ms, Event::Renewal(at, renewal));
                }
            }
        }
    }

    fn crash(&mut self, at: usize) {
        if self.machines[at].keeper.take().is_some() {
            self.restarts_left -= 1;
            self.story.restarts += 1;
            let down_ms = self.random.pick(&[1, 100, 1_000, 3_000]);
            self.after(down_ms, Event::Up(at));
        }
    }

    /// A member's process starts, from its disk.
    fn start(&mut self, at: usize) {
        let times = self.member_times();
        let ignored = self.is(Weakening::MembershipIgnored);
        let machine = &self.machines[at];
        let mut now_ms = machine.clock.at(self.now_ms);
        if self.is(Weakening::NoRestartWait) && machine.life > 0 {
            now_ms -= BOOT_MS / 2;
        }
        let (lease, config, _) = apply(&self.log[..machine.snapshot], &self.configs);
        let latest = apply(&self.log[..machine.appended], &self.configs).1;
        let membership = self.configs[if ignored { 0 } else { config }].clone();
        let mut keeper = Keeper::new(MemberId(at as u64), membership, times, now_ms);
        if !self.is(Weakening::PromiseForgotten) {
            keeper.restore(machine.records.iter().copied());
        }
        keeper.lease_applied(NODE, lease);
        if !ignored {
            keeper.membership_appended(self.configs[latest].id);
        }
        let machine = &mut self.machines[at];
        machine.keeper = Some(keeper);
        machine.life += 1;
        machine.applied = machine.snapshot;
    }

    /// A change to another set of members begins.
    fn start_change(&mut self) {
        let latest = apply(&self.log, &self.configs).1;
        if latest + 1 != self.configs.len() || self.configs[latest].joint.is_some() {
            return;
        }
        let all: BTreeSet<_> = (0..MACHINES as u64).map(MemberId).collect();
        let mut wanted = all.clone();
        wanted.retain(|_| self.random.chance(50));
        if wanted.is_empty() {
            wanted = all;
        }
        self.changes_left -= 1;
        self.story.changes += 1;
        let index = |at: usize| MembershipId(LogIndex(latest as u64 + at as u64));
        let voters = self.configs[latest].voters.clone();
        let joint = Membership { id: index(1), voters, joint: Some(wanted.clone()) };
        self.configs.extend([joint, Membership { id: index(2), voters: wanted, joint: None }]);
        self.log.push(Entry::Change);
    }

    /// Members append and apply, and the leader commits.
    fn replicate(&mut self) {
        for at in 0..MACHINES {
            let reachable = !self.phase.leader[at] && self.machines[at].keeper.is_some();
            if reachable && self.random.chance(60) {
                self.append(at);
            }
        }
        let latest = apply(&self.log, &self.configs).1;
        let machines = &self.machines;
        while self.committed < self.log.len()
            && self.configs[latest]
                .is_majority(|m| machines[m.0 as usize].appended > self.committed)
        {
            self.committed += 1;
        }
        let (_, config, lost) = apply(&self.log[..self.committed], &self.configs);
        if let (Some(lease), None) = (lost, self.lost) {
            self.lost = Some((lease, self.now_ms));
            self.story.lost = true;
        }
        if self.configs[config].joint.is_some() && config == latest {
            self.log.push(Entry::Change);
        }
    }

    fn append(&mut self, at: usize) {
        let no_wait = self.is(Weakening::NoMembershipWait);
        let ignored = self.is(Weakening::MembershipIgnored);
        let lag = self.random.chance(40);
        let machine = &mut self.machines[at];
        let Some(keeper) = machine.keeper.as_mut() else { return };
        machine.appended = self.log.len();
        let latest = apply(&self.log, &self.configs).1;
        if !ignored {
            keeper.membership_appended(self.configs[latest].id);
        }
        let known = self.committed.min(machine.appended);
        if lag || known <= machine.applied {
            return;
        }
        machine.applied = known;
        let (lease, config, _) = apply(&self.log[..known], &self.configs);
        keeper.lease_applied(NODE, lease);
        if !ignored {
            let now_ms = if no_wait { 0 } else { machine.clock.at(self.now_ms) };
            keeper.membership_applied(self.configs[config].clone(), now_ms);
        }
        if self.random.chance(20) {
            machine.snapshot = known;
        }
    }

    /// The leader asks, proposes, and tells the node of its lease.
    fn lead(&mut self) {
        let (lease, _, lost) = apply(&self.log[..self.committed], &self.configs);
        if lost.is_none() && lease > self.holder.lease() && !self.phase.leader[0] {
            self.holder.succeed(lease, LeaseTimes::DEFAULT);
            self.story.lifted = true;
        }
        let latest = self.configs[apply(&self.log, &self.configs).1].clone();
        let wanted = GiveUp::new(NODE, lease, latest.clone());
        let another = self.random.chance(1);
        if another || !self.vote.is_on(NODE, lease, latest.id) {
            self.vote = wanted;
        }
        let busy = self.log[self.committed..].iter().any(|entry| *entry != Entry::Change);
        if lost.is_none() && !busy {
            match self.vote.outcome() {
                Outcome::Open => {}
                Outcome::Lost(lost) => self.log.push(Entry::Lost(lost)),
                Outcome::Lift(lift) => self.log.push(Entry::Lift(lift)),
            }
        }
        for at in 0..MACHINES {
            if !self.phase.leader[at] {
                self.ask(at, lease);
            }
        }
    }

    fn ask(&mut self, at: usize, lease: LeaseId) {
        let machine = &mut self.machines[at];
        let now_ms = machine.clock.at(self.now_ms);
        let Some(keeper) = machine.keeper.as_mut() else { return };
        let before = keeper.clone();
        let (life, judgement) = (machine.life, keeper.ask(NODE, lease, now_ms));
        let said = match judgement {
            Judgement::Persist(intent) if self.is(Weakening::NoPromise) => {
                let promise = before.clone().confirm(intent);
                self.machines[at].keeper = Some(before);
                Event::Promised(promise)
            }
            Judgement::Persist(intent) => {
                let disk_ms = 1 + self.random.below(30);
                self.after(disk_ms, Event::Synced(at, life, intent));
                return;
            }
            Judgement::Promised(promise) => Event::Promised(promise),
            Judgement::Heard { silent_ms, .. } => Event::Heard(at, silent_ms),
            Judgement::Pending | Judgement::OtherLease { .. } => return,
        };
        if let Some(delay_ms) = self.transit(false) {
            self.after(delay_ms, said);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Renewal(at, renewal) => self.answer(at, &renewal),
            Event::Ack(mut ack) => {
                let now_ms = self.clock.at(self.now_ms);
                if self.is(Weakening::TimeAtReply) {
                    ack.sent_ms = self.holder.renewal(now_ms).sent_ms;
                }
                if self.is(Weakening::OneAck) {
                    let id = MembershipId(LogIndex(100 + ack.member.0));
                    ack.membership = Membership::of(id, [ack.member]);
                }
                self.holder.on_ack(&ack, now_ms);
            }
            Event::Synced(at, life, intent) => {
                let machine = &mut self.machines[at];
                let died = machine.life != life || machine.keeper.is_none();
                // A write under way when the process dies may or may not be on disk.
                if died && self.random.chance(50) {
                    return;
                }
                machine.records.insert(intent.record());
                let Some(keeper) = machine.keeper.as_mut().filter(|_| !died) else { return };
                let promise = keeper.confirm(intent);
                if let Some(delay_ms) = self.transit(self.phase.leader[at]) {
                    self.after(delay_ms, Event::Promised(promise));
                }
                // Faults come together: a crash right after a promise is worth ten others.
                if self.restarts_left > 0 && self.random.chance(20) {
                    self.crash(at);
                }
            }
            Event::Promised(mut promise) => {
                if self.is(Weakening::MembershipIgnored) {
                    promise.membership = self.configs[apply(&self.log, &self.configs).1].id;
                }
                self.vote.on_promise(&promise);
            }
            Event::Heard(at, silent_ms) => self.vote.on_heard(MemberId(at as u64), silent_ms),
            Event::Up(at) => self.start(at),
        }
    }

    fn answer(&mut self, at: usize, renewal: &Renewal) {
        let machine = &mut self.machines[at];
        let now_ms = machine.clock.at(self.now_ms);
        let Some(keeper) = machine.keeper.as_mut() else { return };
        let Ok(ack) = keeper.on_renewal(renewal, now_ms) else { return };
        if let Some(delay_ms) = self.transit(self.phase.from_member[at]) {
            self.after(delay_ms, Event::Ack(ack));
        }
    }
}
