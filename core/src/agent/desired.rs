//! What the coordinator wants of one node: the whole set of its assignments, with a fence.

use super::chain::Chain;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;
use yard_common::ExitCause;
use yard_common::id::{AllocationId, Generation, Incarnation, JobId, LeaseId};
use yard_common::limits::{CHAIN_TASKS_MAX, DURATION_MS_MAX, NODE_ASSIGNMENTS_MAX};

/// Which desired set: minted in apply, rises only, across restores of the cluster too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Fence {
    /// The life of the cluster.
    #[n(0)]
    pub incarnation: Incarnation,
    /// The set within that life.
    #[n(1)]
    pub generation: Generation,
}

impl Fence {
    /// Below every fence that is ever minted.
    pub const NONE: Fence = Fence { incarnation: Incarnation(0), generation: Generation(0) };
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}-g{}", self.incarnation, self.generation)
    }
}

/// Everything that one node shall hold. What is not in the set is released: nothing of it may
/// remain on the node.
///
/// The coordinator keeps an assignment in the set, as `Stop` if need be, until it has heard
/// `Reaped`: an agent that never saw the assignment answers that too, but of what it never saw
/// and no longer sees it can tell nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Desired {
    /// The set's own fence. The agent ignores a set that is not above the last one it obeyed.
    #[n(0)]
    pub fence: Fence,
    /// The node's lease when the set was minted. Ranks start under this lease only: a set from
    /// before the node was given up starts nothing after its return.
    #[n(1)]
    pub lease: LeaseId,
    /// The assignments, each id once.
    #[n(2)]
    pub assignments: Vec<DesiredAssignment>,
    /// The last check of itself that the node is asked for; 0: none yet.
    #[n(3)]
    #[cbor(default)]
    pub check: u32,
}

/// The share of an allocation on this node: one per group that has ranks here. Displays as
/// `57` or, beyond the first group, `57/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AssignmentId {
    /// The allocation that it belongs to. Never used again, also not after a restore.
    #[n(0)]
    pub allocation: AllocationId,
    /// The group of the task.
    #[n(1)]
    pub group: u8,
}

impl fmt::Display for AssignmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            0 => self.allocation.fmt(f),
            group => write!(f, "{}/{group}", self.allocation),
        }
    }
}

/// One assignment, as the coordinator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DesiredAssignment {
    /// Which.
    #[n(0)]
    pub id: AssignmentId,
    /// The job whose tasks run.
    #[n(1)]
    pub job: JobId,
    /// The tasks that run in turn. It stays as it is in every set that has the assignment.
    #[n(2)]
    pub chain: Chain,
    /// Tasks of the chain that have started or may still start. A later set may lower it, which
    /// recalls the tail as far as it has not started. What was recalled stays so.
    #[n(3)]
    pub keep: u32,
    /// How far it shall go.
    #[n(4)]
    pub phase: DesiredPhase,
    /// Which deadline its processes must not outlive when the node is out of touch.
    #[n(5)]
    pub isolation: Isolation,
}

/// How long an attempt goes on while its node is out of touch. The holder of the node's lease
/// computes the deadlines, see [`Lease`](super::Lease).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Isolation {
    /// To the end of the lease, and no instruction longer.
    #[n(0)]
    Strict,
    /// Beyond the lease, so that an outage of the whole control plane touches no job.
    #[n(1)]
    Fenced,
    /// For hours: the job cannot restart.
    #[n(2)]
    Tolerant,
}

/// How far an assignment shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DesiredPhase {
    /// Prepare, report `Ready`, and wait for the rest of the gang.
    #[n(0)]
    Prepare,
    /// The gang is ready: start the ranks.
    #[n(1)]
    Start,
    /// There is no gang to wait for: prepare, and start at once.
    #[n(2)]
    Run,
    /// Stop the ranks: the stop signal, and after the grace the kill. The tail is recalled.
    #[n(3)]
    Stop {
        /// Why. What ends after the signal ends with this cause.
        #[n(0)]
        cause: ExitCause,
        /// Time between signal and kill, in milliseconds. A later, shorter one wins.
        #[n(1)]
        grace_ms: u64,
    },
}

/// A desired set that breaks a bound. It is refused before the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DesiredError {
    /// Too many assignments.
    #[error(
        "assignments: {found} in set {fence}, at most {NODE_ASSIGNMENTS_MAX}; place fewer there"
    )]
    TooMany {
        /// The set.
        fence: Fence,
        /// How many it has.
        found: usize,
    },
    /// One id twice.
    #[error("assignments: {0} is listed twice; merge the entries")]
    Twice(AssignmentId),
    /// No task, or too many.
    #[error("chain: assignment {id} has {found} tasks; give 1 to {CHAIN_TASKS_MAX}")]
    ChainLength {
        /// The assignment.
        id: AssignmentId,
        /// How many it has.
        found: u32,
    },
    /// More tasks to keep than there are.
    #[error("keep: {found} for assignment {id}; give at most the length of its chain, {len}")]
    Keep {
        /// The assignment.
        id: AssignmentId,
        /// How many it keeps.
        found: u32,
        /// How many there are.
        len: u32,
    },
    /// A time past every bound.
    #[error("{field}: {found} ms for assignment {id}; give at most {DURATION_MS_MAX}")]
    TooLong {
        /// Which time.
        field: &'static str,
        /// The assignment.
        id: AssignmentId,
        /// The time.
        found: u64,
    },
}

impl Desired {
    /// Whether the set keeps the bounds. Whoever decodes a set checks it before it is obeyed.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn check(&self) -> Result<(), DesiredError> {
        if self.assignments.len() > NODE_ASSIGNMENTS_MAX {
            let found = self.assignments.len();
            return Err(DesiredError::TooMany { fence: self.fence, found });
        }
        let mut seen = BTreeSet::new();
        for assignment in &self.assignments {
            if !seen.insert(assignment.id) {
                return Err(DesiredError::Twice(assignment.id));
            }
            assignment.check()?;
        }
        Ok(())
    }
}

impl DesiredAssignment {
    fn check(&self) -> Result<(), DesiredError> {
        let id = self.id;
        let found = self.chain.len();
        if found == 0 || found > CHAIN_TASKS_MAX || self.chain.0.iter().any(|l| l.tasks.len == 0) {
            return Err(DesiredError::ChainLength { id, found });
        }
        if self.keep > found {
            return Err(DesiredError::Keep { id, found: self.keep, len: found });
        }
        match self.phase {
            DesiredPhase::Stop { grace_ms, .. } if grace_ms > DURATION_MS_MAX => {
                Err(DesiredError::TooLong { field: "grace_ms", id, found: grace_ms })
            }
            DesiredPhase::Prepare
            | DesiredPhase::Start
            | DesiredPhase::Run
            | DesiredPhase::Stop { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{AttemptNumber, TaskRange};

    fn desired(count: u64) -> Desired {
        let assignment = |allocation| DesiredAssignment {
            id: AssignmentId { allocation: AllocationId(allocation), group: 0 },
            job: JobId(1),
            chain: Chain::one(0, AttemptNumber(1)),
            keep: 1,
            phase: DesiredPhase::Run,
            isolation: Isolation::Fenced,
        };
        let fence = Fence { incarnation: Incarnation(1), generation: Generation(9) };
        let assignments = (0..count).map(assignment).collect();
        Desired { fence, lease: LeaseId(1), assignments, check: 0 }
    }

    #[test]
    fn a_set_within_its_bounds_is_good_and_survives_its_bytes() {
        let desired = desired(NODE_ASSIGNMENTS_MAX as u64);
        desired.check().unwrap();
        let bytes = minicbor::to_vec(&desired).unwrap();
        assert_eq!(minicbor::decode::<Desired>(&bytes).unwrap(), desired);
    }

    #[test]
    fn an_error_names_field_value_and_fix() {
        let text = |desired: &Desired| desired.check().unwrap_err().to_string();
        assert_eq!(
            text(&desired(1_025)),
            "assignments: 1025 in set i1-g9, at most 1024; place fewer there"
        );
        let mut twice = desired(2);
        twice.assignments[1].id = twice.assignments[0].id;
        assert_eq!(text(&twice), "assignments: 0 is listed twice; merge the entries");
        let mut empty = desired(1);
        empty.assignments[0].chain = Chain::default();
        assert_eq!(text(&empty), "chain: assignment 0 has 0 tasks; give 1 to 256");
        let mut hollow = desired(1);
        hollow.assignments[0].chain.0[0].tasks = TaskRange { first: 0, len: 0 };
        assert!(hollow.check().is_err());
        let mut kept = desired(1);
        kept.assignments[0].keep = 2;
        assert_eq!(
            text(&kept),
            "keep: 2 for assignment 0; give at most the length of its chain, 1"
        );
        let mut long = desired(1);
        long.assignments[0].id.group = 2;
        long.assignments[0].phase =
            DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: u64::MAX };
        assert!(text(&long).starts_with("grace_ms: 18446744073709551615 ms for assignment 0/2;"));
    }

    #[test]
    fn a_new_incarnation_is_above_every_generation_of_the_old() {
        let old = Fence { incarnation: Incarnation(1), generation: Generation(u64::MAX) };
        let new = Fence { incarnation: Incarnation(2), generation: Generation(1) };
        assert!(Fence::NONE < old && old < new);
    }
}
