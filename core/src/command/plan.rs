//! What the scheduler decided, as a command. Apply checks every part again.

use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::gpu::GpuGrant;
use yard_common::id::{AllocationId, JobId, NodeId, TaskIndex, TaskRange};

/// One round of the scheduler. Parts that do not fit the state any more are left out, one by one;
/// the others hold.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// Attempts to start.
    #[n(0)]
    pub placements: Vec<Placement>,
    /// Attempts to end, so that others can start.
    #[n(1)]
    pub stops: Vec<Stop>,
    /// Resources to keep for tasks that wait. Replaces all earlier promises.
    #[n(2)]
    pub promises: Vec<Promise>,
}

impl Plan {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.stops.is_empty() && self.promises.is_empty()
    }
}

/// One attempt, or one chain of attempts, to start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Placement {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Which of its tasks: one, or more for a chain. All must wait in the queue.
    #[n(1)]
    pub tasks: Vec<TaskRange>,
    /// Where: group by group, in the order of the shape. The first node of the first group is
    /// the master.
    #[n(2)]
    pub shares: Vec<ShareChoice>,
}

/// The choice of one node for one group. Amounts follow from the shape and the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShareChoice {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Position of the group in the shape.
    #[n(1)]
    pub group: u8,
    /// Which GPUs.
    #[n(2)]
    pub gpus: GpuGrant,
}

/// An attempt to end for the good of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stop {
    /// What holds the resources.
    #[n(0)]
    pub allocation: AllocationId,
    /// `Preempted`, or `Resized`.
    #[n(1)]
    pub cause: ExitCause,
}

/// Resources promised to a task that does not hold them yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Promise {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Its task.
    #[n(1)]
    pub task: TaskIndex,
    /// Which nodes.
    #[n(2)]
    pub nodes: Vec<NodeId>,
    /// From when on, in `cluster_ms`.
    #[n(3)]
    pub from_ms: u64,
}
