//! Jobs, and the order in which they wait.

use super::task::Tasks;
use crate::command::{Actor, Stamp};
use crate::job::JobPlan;
use crate::table::{Ordered, Shared};
use minicbor::{Decode, Encode};
use yard_common::id::{
    ExperimentId, JobId, PrincipalId, QueueId, RequestId, ShapeId, TaskIndex, TaskRange,
    WorkspaceId,
};
use yard_common::limits::CANCELS_KEPT_MAX;
use yard_common::state::{JobState, TaskState};

/// A job.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Job {
    /// Who submitted it.
    #[n(0)]
    pub owner: PrincipalId,
    /// Its tenancy.
    #[n(1)]
    pub workspace: WorkspaceId,
    /// Its queue.
    #[n(2)]
    pub queue: QueueId,
    /// Its group.
    #[n(3)]
    pub experiment: Option<ExperimentId>,
    /// What decisions need of its spec; shared, as it rarely changes.
    #[n(4)]
    pub plan: Shared<JobPlan>,
    /// Its shape, interned.
    #[n(5)]
    pub shape: ShapeId,
    /// Canonical text of its spec.
    #[n(6)]
    pub spec: Shared<Box<str>>,
    /// The request that made it.
    #[n(7)]
    pub request: RequestId,
    /// Counts changes, so that a replacement notices one.
    #[n(8)]
    pub revision: u32,
    /// When it was submitted.
    #[n(9)]
    pub submitted: Stamp,
    /// When it ended.
    #[n(10)]
    pub ended: Option<Stamp>,
    /// Its tasks.
    #[n(11)]
    pub tasks: Tasks,
    /// Allocations that its tasks hold.
    #[n(14)]
    pub allocations: u32,
    /// What keeps all of it from being started.
    #[n(12)]
    pub waits: Waits,
    /// Its state, as last told to watchers; follows from the counts of its tasks.
    #[n(13)]
    pub state: JobState,
    /// Who cancelled tasks of it, the latest last; of many, the last few.
    #[n(15)]
    pub cancels: Vec<Cancel>,
}

/// A request that ended tasks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cancel {
    /// Which tasks.
    #[n(0)]
    pub tasks: TaskRange,
    /// Who asked.
    #[n(1)]
    pub by: Actor,
    /// The reason given; empty: none.
    #[n(2)]
    pub reason: Box<str>,
}

/// What keeps a job as a whole from being started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Waits {
    /// Held, and the reason given.
    #[n(0)]
    pub held: Option<Box<str>>,
    /// Suspended, and the reason given.
    #[n(1)]
    pub suspended: Option<Box<str>>,
    /// Not before this time, in `cluster_ms`; 0: any time.
    #[n(2)]
    pub until_ms: u64,
    /// Jobs that it still waits for as a whole.
    #[n(3)]
    pub jobs: u32,
}

impl Waits {
    /// Whether something keeps the job from being started.
    #[must_use]
    pub fn any(&self) -> bool {
        self.held.is_some() || self.suspended.is_some() || self.until_ms > 0 || self.jobs > 0
    }
}

impl Job {
    /// The state that follows from the counts of the tasks.
    #[must_use]
    pub fn derived_state(&self) -> JobState {
        let counts = self.tasks.counts();
        let has = |state| counts.of(state) > 0;
        if counts.ended() == self.tasks.range().len {
            return if has(TaskState::Failed) {
                JobState::Failed
            } else if has(TaskState::Cancelled) {
                JobState::Cancelled
            } else {
                JobState::Succeeded
            };
        }
        if has(TaskState::Running) {
            JobState::Running
        } else if has(TaskState::Stopping) {
            JobState::Stopping
        } else if has(TaskState::Preparing) {
            JobState::Preparing
        } else {
            JobState::Queued
        }
    }

    /// Remembers who cancelled tasks.
    pub(crate) fn note_cancel(&mut self, cancel: Cancel) {
        if self.cancels.len() >= CANCELS_KEPT_MAX {
            self.cancels.remove(0);
        }
        self.cancels.push(cancel);
    }

    /// Who cancelled a task first, as far as that is remembered.
    #[must_use]
    pub fn cancel_of(&self, task: TaskIndex) -> Option<&Cancel> {
        self.cancels.iter().find(|cancel| cancel.tasks.contains(task))
    }

    /// Whether more of its tasks have failed than it allows, so that no more start.
    #[must_use]
    pub fn has_failed_too_often(&self) -> bool {
        let limit = self.plan.array.as_ref().and_then(|array| array.failures_max);
        limit.is_some_and(|limit| self.tasks.counts().of(TaskState::Failed) >= limit.max(1))
    }

    /// Place in the order of its queue.
    #[must_use]
    pub fn place(&self, id: JobId) -> PendingKey {
        PendingKey { queue: self.queue, rank: rank(self.plan.priority), job: id }
    }
}

/// Sorts high priorities first.
fn rank(priority: i32) -> u32 {
    i32::MAX.abs_diff(priority)
}

/// Place of a job in the order of its queue: high priority first, then by submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct PendingKey {
    /// Its queue.
    #[n(0)]
    pub queue: QueueId,
    /// Falls as the priority rises.
    #[n(1)]
    pub rank: u32,
    /// The job; ids rise with submission.
    #[n(2)]
    pub job: JobId,
}

/// Jobs with at least one queued task, in the order of their queues.
pub type Pending = Ordered<PendingKey, ()>;

/// The jobs of one queue that have a queued task, in order.
pub fn pending_of(pending: &Pending, queue: QueueId) -> impl Iterator<Item = JobId> {
    let first = PendingKey { queue, rank: 0, job: JobId(0) };
    let last = PendingKey { queue, rank: u32::MAX, job: JobId(u64::MAX) };
    pending.range(first..=last).map(|(key, ())| key.job)
}
