//! What a node shall hold, as its agent is told.

use super::{Allocation, Leftover, Share, State};
use crate::agent::{AssignmentId, Desired, DesiredAssignment, DesiredPhase, Fence};
use crate::job::IsolationClass;
use yard_common::ExitCause;
use yard_common::id::{AllocationId, NodeId, PoolId};
use yard_common::limits::LEASE_MS;
use yard_common::state::{AssignmentState, AttemptState};

impl State {
    /// The desired set of a node in its present version; none if there is no such node.
    #[must_use]
    pub fn desired(&self, id: NodeId) -> Option<Desired> {
        let node = self.nodes.get(id)?;
        let fence = Fence { incarnation: self.incarnation, generation: node.generation };
        let mut assignments = Vec::new();
        for (allocation_id, ()) in node.allocations.iter() {
            let allocation = &self.allocations[*allocation_id];
            let shares = allocation.shares.iter().filter(|share| share.node == id);
            assignments.extend(
                shares.filter_map(|share| self.desired_share(*allocation_id, allocation, share)),
            );
        }
        assignments.extend(node.leftovers.iter().map(|(id, left)| self.desired_end(*id, left)));
        Some(Desired { fence, lease: node.lease, assignments, check: node.check })
    }

    /// The lease of a pool's nodes in milliseconds.
    #[must_use]
    pub fn lease_ms(&self, pool: PoolId) -> u64 {
        match self.pools[pool].set.lease_ms {
            0 => LEASE_MS,
            lease_ms => lease_ms,
        }
    }

    /// One assignment; none once the node has nothing more to do with it.
    fn desired_share(
        &self,
        id: AllocationId,
        allocation: &Allocation,
        share: &Share,
    ) -> Option<DesiredAssignment> {
        match share.state {
            AssignmentState::Reaped => return None,
            AssignmentState::Preparing
            | AssignmentState::Ready
            | AssignmentState::Running
            | AssignmentState::Exited
            | AssignmentState::Gone => (),
        }
        let plan = &self.jobs[allocation.job].plan;
        let phase = match allocation.state {
            AttemptState::Preparing => DesiredPhase::Prepare,
            AttemptState::Running if allocation.shares.len() == 1 => DesiredPhase::Run,
            AttemptState::Running => DesiredPhase::Start,
            AttemptState::Stopping | AttemptState::Ended => DesiredPhase::Stop {
                cause: allocation.cause.unwrap_or(ExitCause::StoppedWithGang),
                grace_ms: plan.grace_ms,
            },
        };
        Some(DesiredAssignment {
            id: Allocation::assignment(id, share),
            job: allocation.job,
            chain: allocation.chain.clone(),
            keep: allocation.keep,
            phase,
            isolation: plan.isolation.class,
        })
    }

    /// What is left of an ended attempt: nothing of it may remain.
    fn desired_end(&self, id: AssignmentId, left: &Leftover) -> DesiredAssignment {
        let class = self.jobs.get(left.job).map(|job| job.plan.isolation.class);
        DesiredAssignment {
            id,
            job: left.job,
            chain: left.chain.clone(),
            keep: left.chain.len(),
            phase: DesiredPhase::Stop { cause: ExitCause::StoppedWithGang, grace_ms: 0 },
            isolation: class.unwrap_or(IsolationClass::Strict),
        }
    }
}
