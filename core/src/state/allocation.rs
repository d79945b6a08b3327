//! Allocations: what attempts hold, and how far they are.

use crate::agent::{AssignmentId, Chain};
use minicbor::{Decode, Encode};
use yard_common::gpu::GpuGrant;
use yard_common::id::{AllocationId, JobId, NodeId, ShapeId, TaskRange};
use yard_common::state::{AssignmentState, AttemptState};
use yard_common::{Amounts, ExitCause};

/// Resources held by one attempt, or by the attempts of a chain in turn. It exists exactly as
/// long as it holds all of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Allocation {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// The shape that was placed.
    #[n(1)]
    pub shape: ShapeId,
    /// The attempts in the order in which they run.
    #[n(2)]
    pub chain: Chain,
    /// Positions of the chain that were not recalled.
    #[n(14)]
    pub len: u32,
    /// Positions of the chain that are known to have started.
    #[n(3)]
    pub started: u32,
    /// Positions of the chain that are known to have ended.
    #[n(4)]
    pub ended: u32,
    /// Positions that the node may start, or has started: the rest is called back.
    #[n(5)]
    pub keep: u32,
    /// Its parts, in the order of the gang.
    #[n(6)]
    #[cbor(decode_with = "crate::encoding::exact_list")]
    pub shares: Vec<Share>,
    /// How far it is.
    #[n(7)]
    pub state: AttemptState,
    /// Why it stops, once it does.
    #[n(8)]
    pub cause: Option<ExitCause>,
    /// Tasks of the chain that are to end as cancelled, whatever becomes of them.
    #[n(11)]
    pub cancelled: Vec<TaskRange>,
    /// Whether the exit of the first share alone decides.
    #[n(12)]
    pub first_rank_decides: bool,
    /// Whether nothing of it may run any more when the next attempt begins: then it ends when it
    /// is reaped, not when its ranks have ended.
    #[n(15)]
    pub strict: bool,
    /// When it was granted, in `cluster_ms`.
    #[n(9)]
    pub granted_ms: u64,
    /// When its timer is due (to be ready, or to end), in `cluster_ms`.
    #[n(10)]
    pub deadline_ms: Option<u64>,
    /// When it ends for its silence, in `cluster_ms`.
    #[n(16)]
    pub stall_ms: Option<u64>,
}

/// The part of an allocation for one group on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Share {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Position of the group in the shape.
    #[n(1)]
    pub group: u8,
    /// CPU, memory and disk held.
    #[n(2)]
    pub amounts: Amounts,
    /// GPUs held.
    #[n(3)]
    pub gpus: GpuGrant,
    /// As the node reported it.
    #[n(4)]
    pub state: AssignmentState,
    /// How its ranks ended, as the node reported it.
    #[n(5)]
    pub exit: Option<ExitCause>,
    /// Since when its ranks have done nothing, in `cluster_ms`, once the node told of it.
    #[n(6)]
    pub silent_ms: Option<u64>,
}

impl Share {
    /// Whether its ranks have ended, or their node was given up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.state {
            AssignmentState::Preparing | AssignmentState::Ready | AssignmentState::Running => false,
            AssignmentState::Exited | AssignmentState::Gone | AssignmentState::Reaped => true,
        }
    }
}

impl Allocation {
    /// Whether all of its shares are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let reaped =
            |share: &Share| matches!(share.state, AssignmentState::Gone | AssignmentState::Reaped);
        self.shares.iter().all(|share| if self.strict { reaped(share) } else { share.is_over() })
    }

    /// Since when no rank of it has done anything, in `cluster_ms`: since the last one fell silent.
    /// None while one of them does something, prepares, or stops.
    #[must_use]
    pub fn silent_since_ms(&self) -> Option<u64> {
        let running = self.shares.iter().filter(|share| !share.is_over());
        let mut last_ms = None;
        for share in running {
            last_ms = last_ms.max(Some(share.silent_ms?));
        }
        last_ms
    }

    /// Whether its tasks end one by one, as the node reports them; else the exit of each share is
    /// kept until all are over.
    #[must_use]
    pub fn ends_in_turn(&self) -> bool {
        self.shares.len() == 1 && !self.strict
    }

    /// The share of a group on a node, by position.
    #[must_use]
    pub fn share_of(&self, node: NodeId, group: u8) -> Option<usize> {
        self.shares.iter().position(|share| share.node == node && share.group == group)
    }

    /// The id under which the node knows a share.
    #[must_use]
    pub fn assignment(id: AllocationId, share: &Share) -> AssignmentId {
        AssignmentId { allocation: id, group: share.group }
    }

    /// The attempts that have neither ended nor been recalled.
    #[must_use]
    pub fn left(&self) -> Chain {
        self.chain.slice(self.ended, self.len)
    }
}
