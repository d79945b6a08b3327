//! Facts that apply produces: for watchers, for history, and for the leader's actuators.
//!
//! Followers drop them, the leader acts on them; both hash them, so that members which disagree
//! notice it.

use crate::command::{Actor, Object, Rejection, Reply};
use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::id::{
    AllocationId, AttemptNumber, Generation, JobId, LogIndex, NodeId, RequestId, TaskIndex,
    TaskRange,
};
use yard_common::state::{JobState, NodeState, TaskState};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// An object came, changed or went, other than by the facts below.
    #[n(0)]
    Changed(#[n(0)] Object),
    /// A job moved. `Queued` from nothing: it is new.
    #[n(1)]
    Job {
        /// The job.
        #[n(0)]
        job: JobId,
        /// Its new state.
        #[n(1)]
        state: JobState,
    },
    /// Tasks moved.
    #[n(2)]
    Tasks {
        /// Their job.
        #[n(0)]
        job: JobId,
        /// Which.
        #[n(1)]
        tasks: TaskRange,
        /// Their new state.
        #[n(2)]
        state: TaskState,
        /// Why, when an attempt or the task ended.
        #[n(3)]
        cause: Option<ExitCause>,
    },
    /// Attempts hold resources now.
    #[n(3)]
    Granted {
        /// The allocation.
        #[n(0)]
        allocation: AllocationId,
        /// Their job.
        #[n(1)]
        job: JobId,
        /// Which tasks.
        #[n(2)]
        tasks: TaskRange,
        /// The number of each of these attempts.
        #[n(3)]
        attempt: AttemptNumber,
    },
    /// An attempt is over: history keeps this for good.
    #[n(4)]
    AttemptEnded {
        /// Its job.
        #[n(0)]
        job: JobId,
        /// Which tasks.
        #[n(1)]
        tasks: TaskRange,
        /// The number of each of these attempts.
        #[n(2)]
        attempt: AttemptNumber,
        /// Why.
        #[n(3)]
        cause: ExitCause,
        /// Where it ran, in the order of the gang; the first share's node only for a chain.
        #[n(4)]
        allocation: AllocationId,
    },
    /// Resources are free, or left behind on their nodes until seen reaped.
    #[n(5)]
    Freed(#[n(0)] AllocationId),
    /// A node moved.
    #[n(6)]
    Node {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// Its new state.
        #[n(1)]
        state: NodeState,
    },
    /// The desired set of a node has a new version: push it.
    #[n(7)]
    Desired {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// The version.
        #[n(1)]
        generation: Generation,
    },
    /// An ended job left the state; history has it.
    #[n(8)]
    Forgotten(#[n(0)] JobId),
    /// All ranks of an attempt fell silent, or one of them does something again.
    #[n(9)]
    Silence {
        /// Its job.
        #[n(0)]
        job: JobId,
        /// Its task.
        #[n(1)]
        task: TaskIndex,
        /// Its number.
        #[n(2)]
        attempt: AttemptNumber,
        /// Since when they have been silent, in `cluster_ms`; none: they are no longer.
        #[n(3)]
        since_ms: Option<u64>,
    },
    /// The shares of an attempt on a node are over without a word from it.
    #[n(10)]
    ShareLost {
        /// The allocation.
        #[n(0)]
        allocation: AllocationId,
        /// The node.
        #[n(1)]
        node: NodeId,
    },
}

/// Who asked what and how it ended; written for every command that is not refused as stale.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Audit {
    /// Position in the log.
    #[n(0)]
    pub index: LogIndex,
    /// Who asked.
    #[n(1)]
    pub actor: Actor,
    /// As which request.
    #[n(2)]
    pub request: Option<RequestId>,
    /// When, in milliseconds UTC since 1970.
    #[n(3)]
    pub wall_ms: u64,
    /// Family of the command. Never its body: it may hold what must not be shown.
    #[n(4)]
    pub family: String,
    /// What came of it.
    #[n(5)]
    pub outcome: Result<Reply, Rejection>,
}

/// What applying one command yields.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer for whoever asked.
    pub reply: Result<Reply, Rejection>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The record of it.
    pub audit: Audit,
}
