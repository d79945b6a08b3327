//! Commands about the life of a job.

use crate::job::JobPlan;
use minicbor::{Decode, Encode};
use yard_common::id::{JobId, QueueId, TaskIndex, TaskRange, WorkspaceId};

/// Life of a job. Where a range is given, the command is about those tasks of an array only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobCommand {
    /// A new job. The envelope must carry a request id.
    #[n(0)]
    Submit(#[n(0)] Box<Submit>),
    /// Replaces all but the owner and workspace of a job of which nothing has started. The indices
    /// of an array stay while another waits for it index by index.
    #[n(1)]
    Replace {
        /// The job.
        #[n(0)]
        job: JobId,
        /// The revision that was read; refused if the job changed since.
        #[n(1)]
        revision: u32,
        /// The new one.
        #[n(2)]
        new: Box<Submit>,
    },
    /// Changes what may change at any time.
    #[n(2)]
    Adjust {
        /// The job.
        #[n(0)]
        job: JobId,
        /// The new values.
        #[n(1)]
        change: Adjust,
    },
    /// Ends it.
    #[n(3)]
    Cancel {
        /// The job.
        #[n(0)]
        job: JobId,
        /// Some of its tasks.
        #[n(1)]
        tasks: Option<TaskRange>,
        /// For its owner to read.
        #[n(2)]
        reason: String,
    },
    /// Ends the attempts that run, and queues their tasks again.
    #[n(4)]
    Requeue {
        /// The job.
        #[n(0)]
        job: JobId,
        /// Some of its tasks.
        #[n(1)]
        tasks: Option<TaskRange>,
    },
    /// Keeps what waits from being started.
    #[n(5)]
    Hold {
        /// The job.
        #[n(0)]
        job: JobId,
        /// For its owner to read.
        #[n(1)]
        reason: String,
    },
    /// Ends a hold.
    #[n(6)]
    Release(#[n(0)] JobId),
    /// Ends the attempts that run, and keeps everything from being started.
    #[n(7)]
    Suspend {
        /// The job.
        #[n(0)]
        job: JobId,
        /// For its owner to read.
        #[n(1)]
        reason: String,
    },
    /// Ends a suspension.
    #[n(8)]
    Resume(#[n(0)] JobId),
    /// Somebody is let in beside the ranks of a task. Nothing changes: it is written down who it
    /// was, and judged by the state that everybody agrees on.
    #[n(9)]
    Visit {
        /// The job.
        #[n(0)]
        job: JobId,
        /// The task.
        #[n(1)]
        task: TaskIndex,
        /// What for.
        #[n(2)]
        visit: Visit,
    },
}

/// What somebody does beside the ranks of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Visit {
    /// Runs a program there, as the job's user.
    #[n(0)]
    Exec,
    /// Speaks to a port on which it listens.
    #[n(1)]
    Forward(#[n(0)] u16),
    /// Asks it for a checkpoint.
    #[n(2)]
    Checkpoint,
}

/// A new job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submit {
    /// Its tenancy.
    #[n(0)]
    pub workspace: WorkspaceId,
    /// Its queue.
    #[n(1)]
    pub queue: QueueId,
    /// Group name, made on first use.
    #[n(2)]
    pub experiment: Option<String>,
    /// What decisions need.
    #[n(3)]
    pub plan: JobPlan,
    /// What people and agents read: the canonical text of the spec.
    #[n(4)]
    pub spec: Box<str>,
}

/// New values; `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Adjust {
    /// Priority.
    #[n(0)]
    pub priority: Option<i32>,
    /// Limit of an attempt in milliseconds, counted from its start; 0: none.
    #[n(1)]
    pub time_limit_ms: Option<u64>,
    /// Tasks of the array that may hold resources at the same time; 0: no bound.
    #[n(2)]
    pub running_max: Option<u32>,
}
