//! A toy world around one agent: a coordinator, a network that repeats and loses, a disk, and a
//! machine. It checks every rule of the module's page as things happen.

use super::machine::{Machine, Progress};
use crate::agent::*;
use std::collections::{BTreeMap, VecDeque};
use yard_common::ExitCause;
use yard_common::id::{
    AllocationId, AttemptNumber, BootId, Generation, Incarnation, JobId, LeaseId, Sequence,
    TaskRange,
};
use yard_common::state::AssignmentState;

pub(super) const LEASE_MS: u64 = 3_000;
pub(super) const FENCED_MS: u64 = 60_000;
pub(super) const TOLERANT_MS: u64 = 3_600_000;

/// What the coordinator knows of one assignment.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ready: bool,
    pub(super) started: Vec<u32>,
    pub(super) exits: BTreeMap<u32, Exit>,
    pub(super) recalled: Vec<u32>,
    pub(super) reaped: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now_ms: u64,
    boot: u128,
    pub(super) machine: Machine,
    pub(super) disk: Kept,
    /// What of it would survive a loss of power.
    flushed: Kept,
    pub(super) agent: Option<Agent>,
    /// The agent dies after so many further actions.
    pub(super) crash_in: Option<usize>,
    timer_ms: Option<u64>,
    pub(super) lease: Option<Lease>,
    pub(super) lease_id: LeaseId,
    incarnation: Incarnation,
    generation: u64,
    /// What the coordinator wants at present.
    pub(super) wanted: BTreeMap<AssignmentId, DesiredAssignment>,
    /// Every set ever sent: the network may deliver any of them at any time.
    pub(super) sets: Vec<Desired>,
    /// Reports on their way.
    pub(super) wire: VecDeque<Report>,
    pub(super) heard: Sequence,
    pub(super) told: BTreeMap<AssignmentId, Told>,
    /// Every assignment ever made, as first wanted.
    pub(super) made: BTreeMap<AssignmentId, DesiredAssignment>,
    /// Those that the agent has ever written down.
    pub(super) known: BTreeMap<AssignmentId, AssignmentState>,
}

impl World {
    pub(super) fn new() -> World {
        let boot = BootId::from_u128(1);
        let disk = Kept::new(boot, Fence::NONE, Sequence(0));
        let flushed = disk.clone();
        let mut world = World {
            now_ms: 0,
            boot: 1,
            machine: Machine::default(),
            disk,
            flushed,
            agent: None,
            crash_in: None,
            timer_ms: None,
            lease: None,
            lease_id: LeaseId(1),
            incarnation: Incarnation(1),
            generation: 0,
            wanted: BTreeMap::new(),
            sets: Vec::new(),
            wire: VecDeque::new(),
            heard: Sequence(0),
            told: BTreeMap::new(),
            made: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        world.restart();
        world
    }

    // --- The coordinator --------------------------------------------------------------------

    /// Wants a new assignment: `links` tasks in attempt 1, then as many in attempt 2.
    pub(super) fn add(&mut self, phase: DesiredPhase, isolation: Isolation, tasks: u32) {
        let number = self.made.len() as u32;
        let id = AssignmentId {
            allocation: AllocationId(self.incarnation.first_number() + u64::from(number / 2)),
            group: (number % 2) as u8,
        };
        let mut chain = Chain(vec![ChainLink {
            tasks: TaskRange { first: number * 10, len: tasks },
            attempt: AttemptNumber(1),
        }]);
        if tasks > 2 {
            let tasks = TaskRange::one(number * 10 + 9);
            chain.0.push(ChainLink { tasks, attempt: AttemptNumber(2) });
        }
        let keep = chain.len();
        let assignment = DesiredAssignment { id, job: JobId(1), chain, keep, phase, isolation };
        self.made.insert(id, assignment.clone());
        self.wanted.insert(id, assignment);
        self.mint();
    }

    /// Changes what is wanted of one assignment.
    pub(super) fn want(&mut self, id: AssignmentId, change: impl FnOnce(&mut DesiredAssignment)) {
        if let Some(assignment) = self.wanted.get_mut(&id) {
            change(assignment);
            self.mint();
        }
    }

    /// Wants none of it any more.
    pub(super) fn drop_wanted(&mut self, id: AssignmentId) {
        if self.wanted.remove(&id).is_some() {
            self.mint();
        }
    }

    /// The node is given up: nothing is wanted of it, and its lease is no more.
    pub(super) fn give_node_up(&mut self) {
        self.wanted.clear();
        self.lease_id = LeaseId(self.lease_id.0 + 1);
        self.mint();
    }

    /// The cluster is restored from a backup of before all that runs here.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.generation = 0;
        self.lease_id = LeaseId(incarnation.first_number());
        self.wanted.clear();
        self.mint();
    }

    /// Puts the set as it is now on the network.
    pub(super) fn mint(&mut self) {
        self.generation += 1;
        let incarnation = self.incarnation;
        let set = Desired {
            fence: Fence { incarnation, generation: Generation(self.generation) },
            lease: self.lease_id,
            assignments: self.wanted.values().cloned().collect(),
            check: 0,
        };
        set.check().expect("the toy coordinator keeps the bounds");
        self.sets.push(set);
    }

    /// Takes a report in. What was heard before, or comes after a gap, changes nothing.
    fn hear(&mut self, report: Report) {
        if report.sequence.0 != self.heard.0 + 1 {
            return;
        }
        self.heard = report.sequence;
        let id = report.assignment;
        let chain = self.made[&id].chain.clone();
        let position = |task, attempt| {
            let found = chain.tasks().position(|t| t == (task, attempt));
            found.unwrap_or_else(|| panic!("{id} has no task {task} in attempt {attempt}")) as u32
        };
        let positions = |part: &Chain| -> Vec<u32> {
            part.tasks().map(|(task, attempt)| position(task, attempt)).collect()
        };
        let told = self.told.entry(id).or_default();
        assert!(!told.reaped, "{id}: {report:?} after the last word");
        match report.what {
            ReportKind::Ready => told.ready = true,
            ReportKind::Silent { .. } | ReportKind::Active => {
                let runs = told.started.iter().any(|at| !told.exits.contains_key(at));
                assert!(runs, "{id}: {report:?} while nothing runs");
            }
            ReportKind::Started(part) => {
                for position in positions(&part) {
                    assert!(!told.started.contains(&position), "{id}: {position} started twice");
                    assert!(!told.exits.contains_key(&position), "{id}: {position} had exited");
                    told.started.push(position);
                }
            }
            ReportKind::Exited(exits) => {
                for exit in exits {
                    for position in positions(&Chain(vec![exit.link])) {
                        let twice = told.exits.insert(position, exit).is_some();
                        assert!(!twice, "{id}: {position} exited twice");
                        check_exit(&self.machine, id, position, &exit);
                    }
                }
            }
            ReportKind::Recalled(part) => {
                for position in positions(&part) {
                    assert!(!told.recalled.contains(&position), "{id}: {position} recalled twice");
                    told.recalled.push(position);
                }
            }
            ReportKind::Reaped => {
                told.reaped = true;
                let accounted = told.exits.len() + told.recalled.len();
                assert_eq!(accounted, chain.len() as usize, "{id}: {told:?}");
                assert!(self.machine.closed.contains(&id));
            }
        }
        for position in &told.recalled {
            assert!(!self.machine.starts.contains_key(&(id, *position)), "{id} ran {position}");
            assert!(!told.exits.contains_key(position), "{id}: {position} told of twice");
        }
    }

    // --- The network ------------------------------------------------------------------------

    /// Delivers the set that was sent as number `index`, or the latest.
    pub(super) fn deliver_set(&mut self, index: usize) {
        let index = index.min(self.sets.len().saturating_sub(1));
        if let Some(set) = self.sets.get(index).cloned() {
            self.step(Input::Desired(set));
        }
    }

    pub(super) fn deliver_report(&mut self) {
        if let Some(report) = self.wire.pop_front() {
            self.hear(report);
        }
    }

    pub(super) fn acknowledge(&mut self) {
        self.step(Input::Acknowledged(self.heard));
    }

    pub(super) fn connect(&mut self) {
        self.wire.clear();
        self.step(Input::Connected);
    }

    // --- The node ---------------------------------------------------------------------------

    pub(super) fn renew(&mut self) {
        let lease = Lease {
            id: self.lease_id,
            strict_ms: self.now_ms + LEASE_MS,
            fenced_ms: self.now_ms + FENCED_MS,
            tolerant_ms: self.now_ms + TOLERANT_MS,
            maintenance_ms: 0,
        };
        // An agent that is dead renews nothing.
        if self.agent.is_some() {
            self.lease = Some(lease);
            self.step(Input::Lease(lease));
            // The step above saw the old deadline first; shims get the new one only now.
            self.machine.start_until_ms = lease.strict_ms;
        }
    }

    pub(super) fn pass_time(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Lets the timer go off if it is due.
    pub(super) fn tick(&mut self) {
        if self.timer_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.timer_ms = None;
            self.step(Input::Tick);
        }
    }

    /// Tells the agent what the shims have to say, in order.
    pub(super) fn deliver_events(&mut self, count: usize) {
        for _ in 0..count {
            if self.agent.is_none() {
                return;
            }
            if let Some((id, event)) = self.machine.events.pop_front() {
                self.step(Input::Shim(id, event));
            }
        }
    }

    pub(super) fn crash(&mut self) {
        self.agent = None;
        self.crash_in = None;
        self.timer_ms = None;
        self.machine.events.clear();
    }

    pub(super) fn reboot(&mut self) {
        self.crash();
        self.disk = self.flushed.clone();
        self.machine.reboot();
        self.boot += 1;
        (self.now_ms, self.lease) = (0, None);
    }

    pub(super) fn restart(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.wire.clear();
        let boot = BootId::from_u128(self.boot);
        let found = self.machine.found();
        let kept = self.disk.clone();
        let (agent, actions) = Agent::restore(kept, boot, found, self.lease, self.now_ms);
        self.agent = Some(agent);
        self.perform(actions);
    }

    pub(super) fn step(&mut self, input: Input) {
        let now_ms = self.now_ms;
        if let Some(agent) = &mut self.agent {
            let actions = agent.step(input, now_ms);
            self.perform(actions);
        }
    }

    /// Performs a list, unless the agent dies in the middle of it.
    fn perform(&mut self, actions: Vec<Action>) {
        for (index, action) in actions.into_iter().enumerate() {
            match &mut self.crash_in {
                Some(0) => return self.crash(),
                Some(left) => *left -= 1,
                None => {}
            }
            match action {
                Action::Persist(changes) => {
                    assert_eq!(index, 0, "writing comes first");
                    assert!(!changes.is_empty());
                    for change in changes {
                        self.disk.apply(change);
                    }
                    self.flushed = self.disk.clone();
                    self.note_known();
                }
                Action::Note(changes) => {
                    assert_eq!(index, 0, "writing comes first");
                    for change in changes {
                        self.disk.apply(change);
                    }
                    self.note_known();
                }
                Action::SetTimer(at_ms) => self.timer_ms = Some(at_ms),
                Action::Send(report) => {
                    let acknowledged = self.disk.outbox.front().map(|first| first.sequence);
                    let stored = self.disk.outbox.contains(&report);
                    assert!(stored, "{report:?} is not on disk, which begins at {acknowledged:?}");
                    self.wire.push_back(report);
                }
                order => {
                    self.check_order(&order);
                    self.machine.order(&order);
                }
            }
        }
        self.check_rest();
    }

    fn note_known(&mut self) {
        for (id, record) in &self.disk.records {
            let state = self.known.entry(*id).or_insert(record.state);
            let legal = *state == record.state || state.may_become(record.state);
            let skipped = state.successors().iter().any(|next| next.may_become(record.state));
            assert!(legal || skipped, "{id} went from {state} to {}", record.state);
            *state = record.state;
        }
        let reaped = self.disk.outbox.iter().filter(|r| r.what == ReportKind::Reaped);
        for report in reaped {
            let id = report.assignment;
            assert!(!self.machine.runs(id), "{id} is reported reaped and runs");
            self.machine.closed.insert(id);
        }
        for report in &self.disk.outbox {
            if let ReportKind::Exited(exits) = &report.what {
                let lost = exits.iter().any(|exit| matches!(exit.cause, ExitCause::Lost(_)));
                let id = report.assignment;
                assert!(!(lost && self.machine.runs(id)), "{id} is reported lost and runs");
            }
        }
    }

    /// Orders follow from what is on disk, and nothing starts without the lease of the set.
    fn check_order(&self, order: &Action) {
        match order {
            Action::Prepare(id) => {
                assert!(self.disk.records[id].order >= Order::Prepare, "{id} prepared unwritten");
            }
            Action::Start { id, .. } => {
                assert_eq!(self.disk.records[id].order, Order::Start, "{id} started unwritten");
                let lease = self.lease.expect("nothing starts without a lease");
                assert_eq!(lease.id, self.disk.lease, "{id} starts under a lease of its set");
                assert!(self.now_ms < lease.strict_ms, "{id} starts after the deadline");
            }
            Action::SignalStop(id) => {
                assert!(self.disk.records[id].stop.is_some(), "{id} stopped unwritten");
            }
            Action::Release(id) => {
                assert!(!self.machine.runs(*id), "{id} released while it runs");
            }
            Action::Cut { .. }
            | Action::Kill(_)
            | Action::Persist(_)
            | Action::Note(_)
            | Action::Send(_)
            | Action::SetTimer(_) => {}
        }
    }

    /// What holds between two steps of a living agent.
    fn check_rest(&self) {
        let Some(agent) = &self.agent else { return };
        assert_eq!(agent.kept(), &self.disk, "memory and disk differ");
        for (id, record) in &self.disk.records {
            assert!(
                record.ended <= record.started && record.started <= record.len.max(record.ended)
            );
            if !record.is_live() || record.order == Order::Nothing {
                continue;
            }
            let Some(lease) = self.lease else { continue };
            let deadline_ms = lease.deadline_ms(record.assignment.isolation);
            let late = self.now_ms >= deadline_ms && self.timer_ms.is_none_or(|t| t > self.now_ms);
            assert!(!late || record.killed, "{id} outlives its deadline of {deadline_ms} unseen");
        }
    }

    // --- Healing ----------------------------------------------------------------------------

    /// Lets everything that can happen happen, until nothing has changed for longer than any
    /// grace.
    pub(super) fn settle(&mut self) {
        self.crash_in = None;
        self.restart();
        self.connect();
        self.mint();
        let mut quiet_rounds = 0;
        for _ in 0..200 {
            let before = (self.disk.clone(), self.machine.shims.clone(), self.heard);
            self.pass_time(1_000);
            self.tick();
            self.renew();
            self.deliver_set(usize::MAX);
            for id in self.machine.ids() {
                for progress in [
                    Progress::FinishKill,
                    Progress::Prepare,
                    Progress::StartNext,
                    Progress::End(ExitCause::Exited(0)),
                ] {
                    self.machine.progress(id, progress, self.now_ms);
                }
            }
            self.deliver_events(self.machine.events.len());
            while !self.wire.is_empty() {
                self.deliver_report();
            }
            self.acknowledge();
            if before != (self.disk.clone(), self.machine.shims.clone(), self.heard) {
                quiet_rounds = 0;
            } else if quiet_rounds == 6 {
                return;
            } else {
                quiet_rounds += 1;
            }
        }
        panic!("the world does not come to rest: {self:#?}");
    }
}

/// An exit is what the shim wrote down; what it did not write down is never made up.
fn check_exit(machine: &Machine, id: AssignmentId, position: u32, exit: &Exit) {
    let truth = machine.truth.get(&(id, position));
    if machine.damaged.contains(&id) {
        let invented = exit.cause.is_success() && truth.is_none();
        return assert!(!invented, "{id}: {exit:?} was made up");
    }
    match truth {
        Some(ending) if matches!(exit.cause, ExitCause::GpuFault(_)) => {
            assert_eq!(exit.status, Some(ending.status), "{id}: {exit:?}");
        }
        Some(ending) if !ending.stopped => assert_eq!(exit.cause, ending.status, "{id}"),
        Some(ending) => assert_eq!(exit.status, Some(ending.status), "{id}: {exit:?}"),
        None => {
            let invented = matches!(exit.cause, ExitCause::Exited(_) | ExitCause::Signaled(_));
            assert!(!invented && exit.status.is_none(), "{id}: {exit:?} was made up");
        }
    }
}
