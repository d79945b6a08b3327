//! Why queued jobs of a list wait, as far as that is seen without the scheduler.

use super::submit::lacking;
use std::collections::BTreeMap;
use yard_common::PendingReason;
use yard_common::id::{QueueId, ShapeId};
use yard_common::limits::SHAPES_JUDGED_MAX;
use yard_common::state::{JobState, TaskState};
use yard_core::state::{Job, State};
use yard_proto::v1;

/// Judges jobs that nothing but the machines can keep waiting: whether the machines that there are
/// could ever run them. Jobs that are alike are judged once, and only so many kinds of them.
pub(super) struct Waiting<'a> {
    state: &'a State,
    hopeless: BTreeMap<(ShapeId, QueueId), bool>,
}

impl<'a> Waiting<'a> {
    pub(super) fn of(state: &'a State) -> Waiting<'a> {
        Waiting { state, hopeless: BTreeMap::new() }
    }

    /// Adds the reason to what is told of a job. Whether others are ahead of it, or a limit is
    /// reached, only `explain` knows: it plays a round of the scheduler.
    pub(super) fn tell(&mut self, job: &Job, told: &mut v1::Job) {
        let queued = job.state == JobState::Queued && job.tasks.counts().of(TaskState::Queued) > 0;
        let open = told.reason() == v1::PendingReason::Unspecified;
        if queued && open && job.plan.any_of.is_empty() && self.is_hopeless(job) {
            told.set_reason(PendingReason::Unsatisfiable.into());
        }
    }

    fn is_hopeless(&mut self, job: &Job) -> bool {
        let key = (job.shape, job.queue);
        if let Some(known) = self.hopeless.get(&key) {
            return *known;
        }
        let Some(queue) = self.state.queues.get(job.queue) else { return false };
        if self.hopeless.len() >= SHAPES_JUDGED_MAX {
            return false;
        }
        let found = lacking(self.state, queue, &job.plan.shape).is_some();
        self.hopeless.insert(key, found);
        found
    }
}
