//! The witness: what really happened on the machines, in true time, whatever anybody reported.

use crate::clock::{MS, Us};
use crate::rng::mix;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::ExitCause;
use yard_common::gpu::GpuGrant;
use yard_common::id::{AllocationId, AttemptNumber, JobId, TaskIndex};
use yard_core::agent::{AssignmentId, Ending};
use yard_core::job::{IsolationClass, JobPlan};

/// How the tasks of a job behave.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Shortest and longest run.
    pub run_ms: (u64, u64),
    /// How many of a thousand tasks exit with a code, run out of memory, or fail to prepare.
    pub permille: (u64, u64, u64),
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct JobTruth {
    /// As submitted.
    pub plan: JobPlan,
    /// How its tasks behave.
    pub behaviour: Behaviour,
}

/// User code of one task on one machine, from its first to its last instruction.
#[derive(Clone, Debug)]
pub struct Run {
    /// The job.
    pub job: JobId,
    /// The task.
    pub task: TaskIndex,
    /// The attempt.
    pub attempt: AttemptNumber,
    /// The assignment.
    pub assignment: AssignmentId,
    /// The machine.
    pub machine: usize,
    /// The first instruction.
    pub from_us: Us,
    /// The last one.
    pub until_us: Option<Us>,
    /// What was written down of its end.
    pub ending: Option<Ending>,
    /// Whether its machine stood still meanwhile, which no deadline survives.
    pub was_frozen: bool,
}

/// The truth.
#[derive(Debug)]
pub struct Truth {
    seed: u64,
    /// Now.
    pub now_us: Us,
    /// Every run, in the order of the starts.
    pub runs: Vec<Run>,
    by_task: BTreeMap<(JobId, TaskIndex), Vec<usize>>,
    open: BTreeMap<(usize, AssignmentId), usize>,
    /// Assignments of which processes exist, by machine.
    pub processes: BTreeSet<(usize, AssignmentId)>,
    /// The GPUs that were granted, by allocation, group and machine.
    pub grants: BTreeMap<(AllocationId, u8, usize), GpuGrant>,
    /// Jobs by id.
    pub jobs: BTreeMap<JobId, JobTruth>,
    /// Machines on which nothing can be prepared.
    pub bad: BTreeSet<usize>,
    /// Moments at which something broke, by machine; what hits all is under each.
    pub broke_us: BTreeMap<usize, Vec<Us>>,
}

impl Truth {
    /// Nothing has happened.
    #[must_use]
    pub fn new(seed: u64) -> Truth {
        Truth {
            seed,
            now_us: 0,
            runs: Vec::new(),
            by_task: BTreeMap::new(),
            open: BTreeMap::new(),
            processes: BTreeSet::new(),
            grants: BTreeMap::new(),
            jobs: BTreeMap::new(),
            bad: BTreeSet::new(),
            broke_us: BTreeMap::new(),
        }
    }

    /// For how long the ranks of a task would run, and how they would end by themselves.
    #[must_use]
    pub fn fate(
        &self,
        machine: usize,
        job: JobId,
        group: u8,
        (task, attempt): (TaskIndex, AttemptNumber),
    ) -> (Us, ExitCause) {
        let Some(known) = self.jobs.get(&job) else { return (MS, ExitCause::Exited(0)) };
        let words = [self.seed, job.0, u64::from(task), u64::from(attempt.0), u64::from(group)];
        let word = mix(&words);
        let (min, max) = known.behaviour.run_ms;
        // All nodes of a gang end at about the same time.
        let run_ms = min + mix(&words[..4]) % (max - min + 1) + word % 40;
        let (fails, memory, _) = known.behaviour.permille;
        let roll = mix(&[word, machine as u64]) % 1_000;
        let cause = if roll < fails {
            ExitCause::Exited(1 + (word % 3) as i32)
        } else if roll < fails + memory {
            ExitCause::OutOfMemory
        } else {
            ExitCause::Exited(0)
        };
        (run_ms * MS, cause)
    }

    /// Whether preparing fails.
    #[must_use]
    pub fn prepare_fails(&self, machine: usize, job: JobId, id: AssignmentId) -> bool {
        let permille = self.jobs.get(&job).map_or(0, |known| known.behaviour.permille.2);
        let roll = mix(&[self.seed, 77, machine as u64, id.allocation.0, u64::from(id.group)]);
        self.bad.contains(&machine) || roll % 1_000 < permille
    }

    /// Every run of a task.
    pub fn runs_of(&self, job: JobId, task: TaskIndex) -> impl Iterator<Item = &Run> {
        let runs = self.by_task.get(&(job, task)).map_or(&[][..], Vec::as_slice);
        runs.iter().map(|run| &self.runs[*run])
    }

    /// Ranks start.
    pub fn start(&mut self, run: Run) -> usize {
        let at = self.runs.len();
        self.by_task.entry((run.job, run.task)).or_default().push(at);
        self.open.insert((run.machine, run.assignment), at);
        self.runs.push(run);
        at
    }

    /// Ranks end.
    pub fn end(&mut self, machine: usize, id: AssignmentId, ending: Option<Ending>) -> usize {
        let at = self.open.remove(&(machine, id)).expect("only what runs can end");
        self.runs[at].until_us = Some(self.now_us);
        self.runs[at].ending = ending;
        at
    }

    /// What runs now.
    pub fn running(&self) -> impl Iterator<Item = &Run> {
        self.open.values().map(|at| &self.runs[*at])
    }

    /// What runs now on one machine.
    pub fn running_on(&self, machine: usize) -> impl Iterator<Item = &Run> {
        let least = AssignmentId { allocation: AllocationId(0), group: 0 };
        let range = self.open.range((machine, least)..(machine + 1, least));
        range.map(|(_, at)| &self.runs[*at])
    }

    /// Assignments of which processes exist on a machine.
    pub fn processes_on(&self, machine: usize) -> impl Iterator<Item = AssignmentId> {
        let least = AssignmentId { allocation: AllocationId(0), group: 0 };
        self.processes.range((machine, least)..(machine + 1, least)).map(|(_, id)| *id)
    }

    /// A machine stands still.
    pub fn freeze(&mut self, machine: usize, now_us: Us) {
        self.broke(machine, now_us);
        let ids: Vec<usize> =
            self.open.iter().filter(|((on, _), _)| *on == machine).map(|(_, at)| *at).collect();
        for at in ids {
            self.runs[at].was_frozen = true;
        }
    }

    /// Something broke on a machine.
    pub fn broke(&mut self, machine: usize, now_us: Us) {
        self.broke_us.entry(machine).or_default().push(now_us);
    }

    /// Whether a job asked for this isolation.
    #[must_use]
    pub fn is(&self, job: JobId, class: IsolationClass) -> bool {
        self.jobs.get(&job).is_some_and(|known| known.plan.isolation.class == class)
    }
}
