//! The tasks of a job: run-length statuses, and counts by state.

use crate::retry::Tries;
use crate::table::Runs;
use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::id::{AllocationId, AttemptNumber, TaskIndex, TaskRange};
use yard_common::state::TaskState;

/// Status of one task, or of a run of tasks that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskStatus {
    /// Where it is in its life.
    #[n(0)]
    pub phase: Phase,
    /// The last attempt that was minted; 0: none yet.
    #[n(1)]
    pub attempt: AttemptNumber,
    /// What it spent of its retry budgets.
    #[n(2)]
    pub tries: Tries,
    /// Why its last attempt ended.
    #[n(3)]
    pub cause: Option<ExitCause>,
}

/// Where a task is in its life. Its [`TaskState`] follows from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Kept from being started by its job, or by a task that it waits for.
    #[n(0)]
    Blocked,
    /// In the order of its queue.
    #[n(1)]
    Queued,
    /// Waits until this time, in `cluster_ms`.
    #[n(2)]
    Backoff(#[n(0)] u64),
    /// Holds resources; nothing of it has started.
    #[n(3)]
    Preparing(#[n(0)] AllocationId),
    /// Holds resources and has started.
    #[n(4)]
    Running(#[n(0)] AllocationId),
    /// Holds resources and is being stopped.
    #[n(5)]
    Stopping(#[n(0)] AllocationId),
    /// Every rank exited 0.
    #[n(6)]
    Succeeded,
    /// No further attempt.
    #[n(7)]
    Failed,
    /// Ended by request.
    #[n(8)]
    Cancelled,
}

impl Phase {
    /// The state that users see.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            Phase::Blocked => TaskState::Blocked,
            Phase::Queued => TaskState::Queued,
            Phase::Backoff(_) => TaskState::Backoff,
            Phase::Preparing(_) => TaskState::Preparing,
            Phase::Running(_) => TaskState::Running,
            Phase::Stopping(_) => TaskState::Stopping,
            Phase::Succeeded => TaskState::Succeeded,
            Phase::Failed => TaskState::Failed,
            Phase::Cancelled => TaskState::Cancelled,
        }
    }

    /// The allocation that it holds.
    #[must_use]
    pub fn allocation(self) -> Option<AllocationId> {
        match self {
            Phase::Preparing(id) | Phase::Running(id) | Phase::Stopping(id) => Some(id),
            Phase::Blocked
            | Phase::Queued
            | Phase::Backoff(_)
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Cancelled => None,
        }
    }
}

/// Number of tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    #[n(0)]
    by_state: [u32; TaskState::ALL.len()],
}

impl Counts {
    /// Tasks in a state.
    #[must_use]
    pub fn of(&self, state: TaskState) -> u32 {
        self.by_state[state as usize]
    }

    /// Tasks that hold resources.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.total(TaskState::is_active)
    }

    /// Tasks that have ended for good.
    #[must_use]
    pub fn ended(&self) -> u32 {
        self.total(TaskState::is_terminal)
    }

    fn total(&self, wanted: impl Fn(TaskState) -> bool) -> u32 {
        TaskState::ALL.iter().filter(|state| wanted(**state)).map(|state| self.of(*state)).sum()
    }
}

/// The tasks of a job.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Tasks {
    #[n(0)]
    runs: Runs<TaskStatus>,
    #[n(1)]
    counts: Counts,
    /// No task before this one is queued: where the search for the next begins.
    #[n(2)]
    queued_from: TaskIndex,
}

impl Tasks {
    /// New tasks, all in one phase, never tried.
    #[must_use]
    pub fn new(range: TaskRange, phase: Phase) -> Tasks {
        let status =
            TaskStatus { phase, attempt: AttemptNumber(0), tries: Tries::default(), cause: None };
        let mut counts = Counts::default();
        counts.by_state[phase.state() as usize] = range.len;
        Tasks { runs: Runs::new(range, status), counts, queued_from: range.first }
    }

    /// The indices.
    #[must_use]
    pub fn range(&self) -> TaskRange {
        self.runs.range()
    }

    /// Number of tasks by state.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Number of runs: what memory grows with.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.count()
    }

    /// The status of a task.
    #[must_use]
    pub fn get(&self, index: TaskIndex) -> Option<&TaskStatus> {
        self.runs.get(index)
    }

    /// The runs that overlap a range, cut to it.
    pub fn within(&self, range: TaskRange) -> impl Iterator<Item = (TaskRange, &TaskStatus)> {
        self.runs.within(range)
    }

    /// The first run at or after an index and before another, cut to that range.
    pub(crate) fn next_run(
        &self,
        from: TaskIndex,
        end: TaskIndex,
    ) -> Option<(TaskRange, TaskStatus)> {
        if from >= end {
            return None;
        }
        let run = self.runs.within(TaskRange::between(from, end)).next();
        run.map(|(run, status)| (run, *status))
    }

    /// All runs.
    pub fn iter(&self) -> impl Iterator<Item = (TaskRange, &TaskStatus)> {
        self.runs.iter()
    }

    /// The runs of queued tasks, in order.
    pub fn queued(&self) -> impl Iterator<Item = (TaskRange, &TaskStatus)> {
        let range = self.range();
        let left = (self.queued_from < range.end() && self.counts.of(TaskState::Queued) > 0)
            .then(|| TaskRange::between(self.queued_from, range.end()));
        left.into_iter()
            .flat_map(|left| self.runs.within(left))
            .filter(|(_, status)| status.phase == Phase::Queued)
    }

    /// Gives a run of tasks, which are alike now, one status.
    ///
    /// # Panics
    /// If the step from the old to the new state is not legal, or the tasks are not alike.
    pub(crate) fn set(&mut self, range: TaskRange, new: TaskStatus) {
        let mut runs = self.runs.within(range);
        let old = runs.next().map(|(run, status)| (run, status.phase.state()));
        let Some((run, old)) = old else { panic!("tasks {range} are not of {}", self.range()) };
        assert!(run == range, "tasks {range} are not alike: {run} differ from the rest");
        drop(runs);
        let state = new.phase.state();
        assert!(
            old == state || old.may_become(state),
            "tasks {range}: {old} may not become {state}"
        );
        self.counts.by_state[old as usize] -= range.len;
        self.counts.by_state[state as usize] += range.len;
        if state == TaskState::Queued {
            self.queued_from = self.queued_from.min(range.first);
        } else if self.queued_from == range.first {
            self.queued_from = range.end();
        }
        self.runs.set(range, new);
    }
}
