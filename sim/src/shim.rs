//! Shims: they outlive their agents, run the tasks of a chain in turn, write down what they do
//! before they do it, and kill at the deadline of the lease.

use crate::clock::{MS, Us};
use crate::message::{Event, ShimWork};
use crate::world::World;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::JobId;
use yard_core::agent::{
    AssignmentId, Chain, DesiredAssignment, Ending, Found, Isolation, ShimEvent,
};

/// One shim with its record on disk.
#[derive(Debug)]
pub struct Shim {
    /// The job that it serves.
    pub job: JobId,
    /// Its tasks.
    pub chain: Chain,
    /// Which deadline it keeps.
    pub isolation: Isolation,
    /// Whether the shim itself is gone; its record stays.
    pub dead: bool,
    /// Whether preparing is done.
    pub prepared: bool,
    /// Why preparing failed.
    pub failed: Option<ExitCause>,
    /// Whether it got the start.
    pub start_given: bool,
    /// Tasks that may start.
    pub len: u32,
    /// Tasks that started.
    pub started: u32,
    /// How they ended.
    pub endings: Vec<Ending>,
    /// Whether ranks of the last started task run.
    pub running: bool,
    /// Whether processes of it exist: they may be dead and not yet reaped.
    pub has_process: bool,
    /// Whether the stop signal was given.
    pub signalled: bool,
    /// Whether the kill was given.
    pub kill_given: bool,
    /// Whether nothing is left, and it said so.
    pub reaped: bool,
    /// Rises with each step of its work, so that what was planned before is ignored.
    pub nth: u64,
}

impl Shim {
    fn new(assignment: &DesiredAssignment) -> Shim {
        Shim {
            job: assignment.job,
            chain: assignment.chain.clone(),
            isolation: assignment.isolation,
            dead: false,
            prepared: false,
            failed: None,
            start_given: false,
            len: 0,
            started: 0,
            endings: Vec::new(),
            running: false,
            has_process: true,
            signalled: false,
            kill_given: false,
            reaped: false,
            nth: 0,
        }
    }

    /// Whether it still watches over the deadline.
    #[must_use]
    pub fn has_guardian(&self) -> bool {
        !self.dead && !self.kill_given && !self.reaped
    }

    /// Whether its next task could start now, if the lease allows it.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.has_guardian()
            && self.prepared
            && self.start_given
            && !self.signalled
            && !self.running
            && self.started < self.len
    }

    /// What a new agent finds of it.
    #[must_use]
    pub fn found(&self, id: AssignmentId) -> Found {
        Found {
            id,
            alive: !self.dead,
            prepared: self.prepared,
            start_given: self.start_given,
            started: self.started,
            len: self.len,
            endings: self.endings.clone(),
            failed: self.failed,
        }
    }
}

impl World {
    /// Makes a shim and lets it prepare; again does nothing.
    pub fn prepare_shim(&mut self, at: usize, assignment: &DesiredAssignment) {
        let id = assignment.id;
        if self.machines[at].shims.contains_key(&id) {
            return;
        }
        self.machines[at].shims.insert(id, Shim::new(assignment));
        self.truth.processes.insert((at, id));
        let wait_us = self.rng.magnitude(20, 1_500) * MS;
        self.later_shim(at, id, wait_us, ShimWork::Prepared);
        self.watch_deadlines(at);
    }

    /// Gives the start; again does nothing.
    pub fn start_shim(&mut self, at: usize, id: AssignmentId, len: u32) {
        let Some(shim) = self.machines[at].shims.get_mut(&id) else { return };
        if !shim.start_given && !shim.dead {
            (shim.start_given, shim.len) = (true, len);
            self.start_next(at, id);
        }
    }

    /// Starts the next task of a chain, if the lease allows it.
    pub fn start_next(&mut self, at: usize, id: AssignmentId) {
        let now_us = self.now_us;
        let machine = &mut self.machines[at];
        let now_ms = machine.clock.now_ms(now_us);
        let held = machine.lease.is_some_and(|lease| now_ms < lease.strict_ms);
        let Some(shim) = machine.shims.get_mut(&id).filter(|shim| shim.waits() && held) else {
            return;
        };
        shim.started += 1;
        (shim.running, shim.nth) = (true, shim.nth + 1);
        let (job, position, boot) = (shim.job, shim.started - 1, machine.boot);
        let task = shim.chain.tasks().nth(position as usize).expect("positions are of the chain");
        let (run_us, _) = self.truth.fate(at, job, id.group, task);
        self.rank_started(at, id, job, task);
        self.later_shim(at, id, run_us, ShimWork::Finished);
        self.shim_says(at, boot, id, ShimEvent::Started(position + 1));
    }

    /// Cuts a chain.
    pub fn cut_shim(&mut self, at: usize, id: AssignmentId, len: u32) {
        let machine = &mut self.machines[at];
        let boot = machine.boot;
        let Some(shim) = machine.shims.get_mut(&id).filter(|shim| !shim.dead) else { return };
        shim.len = shim.len.min(len.max(shim.started));
        let len = shim.len;
        self.shim_says(at, boot, id, ShimEvent::Cut(len));
    }

    /// Gives the stop signal.
    pub fn signal_shim(&mut self, at: usize, id: AssignmentId) {
        let Some(shim) = self.machines[at].shims.get_mut(&id) else { return };
        let first = !shim.signalled;
        shim.signalled = true;
        let running = shim.running && !shim.dead;
        self.cut_shim(at, id, 0);
        if first && running {
            let wait_us = self.rng.magnitude(5, 6_000) * MS;
            self.later_shim(at, id, wait_us, ShimWork::Obeyed);
        }
    }

    /// Kills everything of an assignment; also where there is no shim.
    pub fn kill_shim(&mut self, at: usize, id: AssignmentId) {
        let boot = self.machines[at].boot;
        let Some(shim) = self.machines[at].shims.get_mut(&id) else {
            return self.shim_says(at, boot, id, ShimEvent::Reaped);
        };
        if shim.reaped {
            return self.shim_says(at, boot, id, ShimEvent::Reaped);
        }
        if !shim.kill_given {
            shim.kill_given = true;
            let wait_us = self.rng.below(190 * MS);
            self.later_shim(at, id, wait_us, ShimWork::Killed);
        }
    }

    /// Removes the record of an assignment.
    pub fn release_shim(&mut self, at: usize, id: AssignmentId) {
        let left = self.machines[at].shims.remove(&id);
        let running = left.is_some_and(|shim| shim.running);
        assert!(!running, "assignment {id} was released on machine {at} while it runs");
    }

    /// A shim dies; its ranks die with it, and nobody writes down how.
    pub fn crash_shim(&mut self, at: usize, id: AssignmentId) {
        let machine = &mut self.machines[at];
        let boot = machine.boot;
        let Some(shim) = machine.shims.get_mut(&id).filter(|shim| !shim.dead) else { return };
        shim.dead = true;
        let started = shim.started;
        if shim.running {
            self.reached("shim died under its ranks");
        }
        self.end_ranks(at, id, None);
        self.shim_says(at, boot, id, ShimEvent::Died { started });
    }

    /// A shim comes to the next point of its work.
    pub fn on_shim(&mut self, at: usize, id: AssignmentId, nth: u64, what: ShimWork) {
        let machine = &mut self.machines[at];
        let boot = machine.boot;
        let Some(shim) = machine.shims.get_mut(&id) else { return };
        match what {
            ShimWork::Prepared
                if shim.has_guardian() && !shim.prepared && shim.failed.is_none() =>
            {
                let fails = self.truth.prepare_fails(at, shim.job, id);
                if fails {
                    let cause = ExitCause::PrepareFailed(PrepareStep::Mount);
                    shim.failed = Some(cause);
                    self.shim_says(at, boot, id, ShimEvent::Failed(cause));
                } else {
                    shim.prepared = true;
                    self.shim_says(at, boot, id, ShimEvent::Prepared);
                    self.start_next(at, id);
                }
            }
            ShimWork::Finished | ShimWork::Obeyed
                if shim.running && !shim.dead && shim.nth == nth =>
            {
                let stopped = shim.signalled;
                let position = shim.started - 1;
                let task = shim.chain.tasks().nth(position as usize);
                let task = task.expect("positions are of the chain");
                let job = shim.job;
                let status = match what {
                    ShimWork::Obeyed => ExitCause::Signaled(15),
                    _ => self.truth.fate(at, job, id.group, task).1,
                };
                self.finish_ranks(at, id, Ending { status, stopped, rank: None });
                self.start_next(at, id);
            }
            ShimWork::Killed if shim.kill_given && !shim.reaped => {
                if shim.running && !shim.dead {
                    let status = ExitCause::Signaled(9);
                    self.finish_ranks(at, id, Ending { status, stopped: true, rank: None });
                }
                self.end_ranks(at, id, None);
                let wait_us: Us = self.rng.magnitude(2, 3_000) * MS;
                self.later_shim(at, id, wait_us, ShimWork::Reaped);
            }
            ShimWork::Reaped if !shim.reaped => {
                (shim.reaped, shim.dead, shim.has_process) = (true, true, false);
                self.truth.processes.remove(&(at, id));
                self.shim_says(at, boot, id, ShimEvent::Reaped);
            }
            ShimWork::Prepared
            | ShimWork::Finished
            | ShimWork::Obeyed
            | ShimWork::Killed
            | ShimWork::Reaped => {}
        }
    }

    /// The ranks of a task come to an end that the shim writes down.
    fn finish_ranks(&mut self, at: usize, id: AssignmentId, ending: Ending) {
        let boot = self.machines[at].boot;
        self.end_ranks(at, id, Some(ending));
        let Some(shim) = self.machines[at].shims.get_mut(&id) else { return };
        shim.endings.push(ending);
        let first = shim.started - 1;
        let event = ShimEvent::Ended { first, endings: vec![ending] };
        self.shim_says(at, boot, id, event);
    }

    /// The ranks of an assignment run no more.
    fn end_ranks(&mut self, at: usize, id: AssignmentId, ending: Option<Ending>) {
        let Some(shim) = self.machines[at].shims.get_mut(&id) else { return };
        if !shim.running {
            return;
        }
        shim.running = false;
        shim.nth += 1;
        let (job, position) = (shim.job, shim.started - 1);
        let task = shim.chain.tasks().nth(position as usize).expect("positions are of the chain");
        self.rank_ended(at, id, job, task, ending);
    }

    /// Every process of an assignment is gone at once.
    pub fn end_processes(&mut self, at: usize, id: AssignmentId, ending: Option<Ending>) {
        self.end_ranks(at, id, ending);
        if let Some(shim) = self.machines[at].shims.get_mut(&id) {
            shim.has_process = false;
            self.truth.processes.remove(&(at, id));
        }
    }

    /// What a shim says reaches the agent of the same boot a moment later, in order.
    fn shim_says(&mut self, at: usize, boot: u64, id: AssignmentId, event: ShimEvent) {
        let machine = &self.machines[at];
        if machine.boot != boot || machine.agent.is_none() {
            return;
        }
        let life = machine.agent_life;
        self.after(MS, Event::ShimSaid { machine: at, life, id, event });
    }
}
