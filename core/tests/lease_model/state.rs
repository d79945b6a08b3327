//! A state of the small world, and all that can happen in it.

use super::oracle::{Asked, Oracle};
use super::world::{Acks, Applied, CONFIGS, Entry, Local, MEMBERS, Weakening, World};
use std::collections::BTreeSet;
use yard_common::id::MemberId;
use yard_core::lease::Outcome;

/// A state of the whole world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct State {
    pub(crate) locals: [Local; MEMBERS],
    pub(crate) log: Vec<Entry>,
    pub(crate) committed: u8,
    /// The lease that the holder renews, and what it kept from the one before.
    pub(crate) holder_lease: u8,
    pub(crate) floor: u8,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Time goes on.
    Tick,
    /// A member gets a renewal of this lease, sent at this age.
    Renewal {
        member: u8,
        lease: u8,
        age: u8,
        arrives: bool,
    },
    /// An answer under way arrives.
    Ack {
        member: u8,
    },
    /// The leader asks a member.
    Ask {
        member: u8,
    },
    /// The disk has the promise.
    Synced {
        member: u8,
    },
    /// A member crashes and is back at once, with its disk and an old snapshot.
    Crash {
        member: u8,
    },
    /// A member appends, applies one entry.
    Append {
        member: u8,
    },
    Apply {
        member: u8,
    },
    /// The leader proposes.
    Propose(Entry),
    /// The next entry is on enough disks.
    Commit,
    /// The holder hears of the committed lease.
    Succeed,
}

impl State {
    pub(crate) fn first(world: &World) -> State {
        let dead = world.dead();
        let local = Local {
            answered: dead,
            started: dead,
            settled: dead,
            promised: 0,
            disk: 0,
            tag: 0,
            said: 0,
            best: [dead; CONFIGS],
            flying: dead,
            appended: 0,
            applied: 0,
        };
        State { locals: [local; MEMBERS], log: vec![], committed: 0, holder_lease: 1, floor: dead }
    }

    /// Lets members do at once what waits for nothing but their disks.
    pub(crate) fn hurry(&mut self, world: &World) {
        for member in 0..MEMBERS as u8 {
            while let Some(state) = self.applied_one(world, member).or(self.synced(world, member)) {
                *self = state;
            }
        }
    }

    /// Merges states between which nothing that follows can tell.
    pub(crate) fn normalize(&mut self, world: &World) {
        for local in &mut self.locals {
            if local.promised == local.disk {
                local.tag = 0;
            }
            if local.flying >= local.best[0] {
                local.flying = world.dead();
            }
        }
        for (at, local) in self.locals.iter_mut().enumerate() {
            for (best, config) in local.best.iter_mut().zip(&world.configs) {
                if !config.is_voter(MemberId(at as u64 + 1)) && !world.is(Weakening::OneAck) {
                    *best = world.dead();
                }
            }
        }
        if self.log.iter().any(|entry| matches!(entry, Entry::Lost(_))) {
            self.locals.iter_mut().for_each(|local| local.said = 0);
        }
        self.locals[..world.alike].sort_unstable();
    }

    /// All fields in few bits; ages are at most 3.
    pub(crate) fn pack(&self) -> u128 {
        let mut bits = 0u128;
        let mut push = |value: u8, width: u32| {
            assert!(u32::from(value) < 1 << width, "{value} needs more than {width} bits");
            bits = bits << width | u128::from(value);
        };
        for local in &self.locals {
            for age in [local.answered, local.started, local.settled, local.flying] {
                push(age, 2);
            }
            local.best.iter().for_each(|&age| push(age, 2));
            for value in [local.promised, local.disk, local.tag] {
                push(value, 2);
            }
            for value in [local.said, local.appended, local.applied] {
                push(value, 3);
            }
        }
        for at in 0..4 {
            push(
                match self.log.get(at) {
                    None => 0,
                    Some(Entry::Change) => 1,
                    Some(Entry::Lift) => 2,
                    Some(Entry::Lost(config)) => 3 + config,
                },
                3,
            );
        }
        push(self.committed, 3);
        push(self.holder_lease, 2);
        push(self.floor, 2);
        bits
    }

    /// Checks the property, and notes what was reached.
    pub(crate) fn is_violation(
        &self,
        world: &World,
        oracle: &mut Oracle,
        reached: &mut BTreeSet<&'static str>,
    ) -> bool {
        let holding = oracle.holding(world, self);
        let committed = self.committed(world);
        let young = |local: &&Local| local.best.contains(&0);
        if let Some(lost) = committed.lost {
            let ours = u64::from(self.holder_lease) <= lost.0;
            if self.locals.iter().any(|local| young(&local)) {
                reached.insert("lost while a member still answers");
            }
            if self.holder_lease == 1 && lost.0 == 2 {
                reached.insert("lost under a lease that the holder never heard of");
            }
            reached.insert("lost");
            return ours && (holding.held || !holding.killed);
        }
        if holding.held {
            let promised = |local: &Local| local.promised >= self.holder_lease;
            if self.holder_lease == 2 {
                reached.insert("held under a lifted lease");
            }
            if self.locals.iter().any(promised) {
                reached.insert("held while a member has promised");
            }
            if self.locals.iter().any(|local| local.started == 0) && holding.age == 0 {
                reached.insert("renewed while a member restarts");
            }
            for config in 0..world.configs.len() {
                let young = |member: MemberId| self.locals[member.0 as usize - 1].best[config] == 0;
                if world.configs[config].is_majority(young) {
                    reached.insert(["under old", "under joint", "under new"][config]);
                }
            }
        }
        if self.log.iter().any(|entry| matches!(entry, Entry::Lost(_)))
            && usize::from(self.committed) == self.log.len()
        {
            reached.insert("a loss overtaken by a change");
        }
        false
    }

    pub(crate) fn successors(
        &self,
        world: &World,
        oracle: &mut Oracle,
        next: &mut Vec<(Step, State)>,
    ) {
        next.push((Step::Tick, self.ticked(world.dead())));
        for member in (0..MEMBERS as u8).filter(|&member| world.takes_part(member)) {
            self.member_steps(world, oracle, member, next);
            self.disk_steps(world, member, next);
        }
        self.leader_steps(world, oracle, next);
    }

    fn ticked(&self, dead: u8) -> State {
        let mut state = self.clone();
        let older = |age: &mut u8| *age = dead.min(*age + 1);
        older(&mut state.floor);
        for local in &mut state.locals {
            older(&mut local.answered);
            older(&mut local.started);
            older(&mut local.settled);
            older(&mut local.flying);
            local.best.iter_mut().for_each(older);
        }
        state
    }

    /// The same state with one member changed.
    fn with(&self, member: u8, change: impl FnOnce(&mut Local)) -> State {
        let mut state = self.clone();
        change(&mut state.locals[usize::from(member)]);
        state
    }

    /// What members do about messages.
    fn member_steps(
        &self,
        world: &World,
        oracle: &mut Oracle,
        member: u8,
        next: &mut Vec<(Step, State)>,
    ) {
        let local = &self.locals[usize::from(member)];
        let dead = world.dead();
        for lease in 1..=self.holder_lease {
            // Renewals of a former lease can only be answered in vain; when they were sent is
            // nothing to anybody.
            let oldest = if lease == self.holder_lease { dead } else { 0 };
            for age in 0..=oldest {
                let Some(config) = oracle.answer(world, local, &self.log, (lease, age)) else {
                    continue;
                };
                let config = usize::from(config);
                let counts = lease == self.holder_lease && age < dead;
                let at_reply = world.is(Weakening::TimeAtReply);
                for arrives in [false, true] {
                    if arrives != counts && (arrives || world.acks == Acks::AtOnce) {
                        continue;
                    }
                    let step = Step::Renewal { member, lease, age, arrives };
                    let state = self.with(member, |local| {
                        local.answered = 0;
                        if arrives && world.acks == Acks::LateOrNever {
                            local.flying = local.flying.min(age);
                        } else if arrives {
                            let age = if at_reply { 0 } else { age };
                            local.best[config] = local.best[config].min(age);
                        }
                    });
                    next.push((step, state));
                }
            }
        }
        if local.flying < dead {
            let age = if world.is(Weakening::TimeAtReply) { 0 } else { local.flying };
            let state = self.with(member, |local| {
                local.flying = dead;
                local.best[0] = local.best[0].min(age);
            });
            next.push((Step::Ack { member }, state));
        }
        self.promise_steps(world, oracle, member, next);
    }

    fn promise_steps(
        &self,
        world: &World,
        oracle: &mut Oracle,
        member: u8,
        next: &mut Vec<(Step, State)>,
    ) {
        let local = &self.locals[usize::from(member)];
        let committed = self.committed(world);
        let bit = |config: u8| self.vote_bit(world, config);
        let ignored = world.is(Weakening::MembershipIgnored);
        let applied = world.apply(&self.log[..usize::from(local.applied)]).config;
        if committed.lost.is_none() {
            match oracle.ask(world, local, &self.log, committed.lease.0) {
                Asked::Promised(config) => {
                    let state = self.with(member, |local| local.said |= bit(config));
                    next.push((Step::Ask { member }, state));
                }
                Asked::Writes if world.is(Weakening::NoPromise) => {
                    let state = self.with(member, |local| local.said |= bit(applied));
                    next.push((Step::Ask { member }, state));
                }
                Asked::Writes => {
                    let state = self.with(member, |local| {
                        local.promised = committed.lease.0 as u8;
                        local.tag = if ignored { 0 } else { applied };
                    });
                    next.push((Step::Ask { member }, state));
                }
                Asked::No => {}
            }
        }
        next.extend(self.synced(world, member).map(|state| (Step::Synced { member }, state)));
    }

    /// The member's disk has its promise, and off it goes.
    fn synced(&self, world: &World, member: u8) -> Option<State> {
        let local = &self.locals[usize::from(member)];
        if local.promised == local.disk {
            return None;
        }
        let committed = self.committed(world);
        let (mut keeper, intent) = world.keeper(local, &self.log);
        let promise = keeper.confirm(intent.unwrap());
        let counts = promise.lease == committed.lease && committed.lost.is_none();
        let said = if counts { self.vote_bit(world, world.config_of(&promise)) } else { 0 };
        Some(self.with(member, |local| {
            local.disk = local.promised;
            local.said |= said;
        }))
    }

    /// The member applies one more entry.
    fn applied_one(&self, world: &World, member: u8) -> Option<State> {
        let local = &self.locals[usize::from(member)];
        if local.applied >= local.appended.min(self.committed) {
            return None;
        }
        let change = self.log[usize::from(local.applied)] == Entry::Change;
        Some(self.with(member, |local| {
            local.applied += 1;
            if change && !world.is(Weakening::AnswersUnapplied) {
                local.settled = world.age_of_new_membership();
            }
        }))
    }

    /// What is committed adds up to.
    fn committed(&self, world: &World) -> Applied {
        world.apply(&self.log[..usize::from(self.committed)])
    }

    /// How the leader notes a promise under this membership.
    fn vote_bit(&self, world: &World, config: u8) -> u8 {
        let ignored = world.is(Weakening::MembershipIgnored);
        1 << if ignored { world.apply(&self.log).config } else { config }
    }

    /// Logs and crashes.
    fn disk_steps(&self, world: &World, member: u8, next: &mut Vec<(Step, State)>) {
        let local = &self.locals[usize::from(member)];
        let dead = world.dead();
        if let Some(entry) = self.log.get(usize::from(local.appended)) {
            let state = self.with(member, |local| {
                local.appended += 1;
                if *entry == Entry::Change && world.is(Weakening::AnswersUnapplied) {
                    local.settled = world.age_of_new_membership();
                }
            });
            next.push((Step::Append { member }, state));
        }
        let applied = self.applied_one(world, member);
        next.extend(applied.map(|state| (Step::Apply { member }, state)));
        if world.crashes {
            let age = if world.is(Weakening::NoRestartWait) { dead } else { 0 };
            let forgets = world.is(Weakening::PromiseForgotten);
            let state = self.with(member, |local| {
                local.answered = dead;
                local.started = age;
                local.settled = age;
                local.disk = if forgets { 0 } else { local.disk };
                local.promised = local.disk;
                local.applied = 0;
            });
            next.push((Step::Crash { member }, state));
        }
    }

    /// What the leader proposes and commits, and what it tells the holder.
    fn leader_steps(&self, world: &World, oracle: &mut Oracle, next: &mut Vec<(Step, State)>) {
        let committed = self.committed(world);
        let latest = world.apply(&self.log).config;
        let mut propose = |entry: Entry| {
            let mut state = self.clone();
            state.log.push(entry);
            next.push((Step::Propose(entry), state));
        };
        let settled = committed.config == latest;
        if settled && usize::from(latest) + 1 < world.configs.len() {
            propose(Entry::Change);
        }
        let count = |wanted: Entry| self.log.iter().filter(|entry| **entry == wanted).count();
        let lost = self.log.iter().any(|entry| matches!(entry, Entry::Lost(_)));
        let lifting = count(Entry::Lift) as u64 + 1 > committed.lease.0;
        for config in 0..=latest {
            if lost || lifting {
                break;
            }
            match world.vote(&self.locals, committed.lease, config).outcome() {
                Outcome::Lost(_) => propose(Entry::Lost(config)),
                Outcome::Lift(_) if config == latest && count(Entry::Lift) < world.lifts.into() => {
                    propose(Entry::Lift);
                }
                Outcome::Lift(_) | Outcome::Open => {}
            }
        }
        let on_disk =
            |member: MemberId| self.locals[member.0 as usize - 1].appended > self.committed;
        if usize::from(self.committed) < self.log.len()
            && world.configs[usize::from(latest)].is_majority(on_disk)
        {
            let mut state = self.clone();
            state.committed += 1;
            let after = world.apply(&self.log[..usize::from(state.committed)]);
            if after.lease != committed.lease {
                state.locals.iter_mut().for_each(|local| local.said = 0);
            }
            next.push((Step::Commit, state));
        }
        if committed.lost.is_none() && u64::from(self.holder_lease) < committed.lease.0 {
            let mut state = self.clone();
            state.floor = oracle.holding(world, self).age;
            state.holder_lease = committed.lease.0 as u8;
            for local in &mut state.locals {
                local.best = [world.dead(); CONFIGS];
                local.flying = world.dead();
            }
            next.push((Step::Succeed, state));
        }
    }
}
