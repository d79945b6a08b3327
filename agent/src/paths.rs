//! Where an agent keeps what.
//!
//! ```text
//! state/           0711, of the agent
//!   store          what the automaton keeps (CRC'd log)
//!   lease          the deadlines of the lease, shared with the shims
//!   shims/57-0/    one assignment: detail, record, lock, sock, job.sock,
//!                  visit.sock, shim.log
//!   jobs/812/57-0/ its scratch directory, of the job's user
//!   logs/812/3.1/  output of the ranks of task 3, attempt 1
//!   setup/         what runs of the pool's setup wrote
//!   identity/      who the node is: certificate, key, and what the agent knows of itself
//!   lock           held by the agent
//!   trash/         what is being removed
//! ```

use std::path::{Path, PathBuf};
use yard_common::id::{AllocationId, AttemptNumber, JobId, TaskIndex};
use yard_core::agent::AssignmentId;

/// The directories of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Everything below this directory, which is absolute.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Paths {
        Paths { root: root.into() }
    }

    /// The whole.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The log of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The deadlines of the lease.
    #[must_use]
    pub fn lease(&self) -> PathBuf {
        self.root.join("lease")
    }

    /// All assignments.
    #[must_use]
    pub fn shims(&self) -> PathBuf {
        self.root.join("shims")
    }

    /// One assignment.
    #[must_use]
    pub fn shim(&self, id: AssignmentId) -> PathBuf {
        self.shims().join(tag(id))
    }

    /// Scratch directories of all jobs.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The scratch directory of one assignment.
    #[must_use]
    pub fn scratch(&self, job: JobId, id: AssignmentId) -> PathBuf {
        self.jobs().join(job.to_string()).join(tag(id))
    }

    /// Output of all jobs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What runs of the pool's setup wrote.
    #[must_use]
    pub fn setup(&self) -> PathBuf {
        self.root.join("setup")
    }

    /// Output of one attempt on this node.
    #[must_use]
    pub fn attempt_logs(&self, job: JobId, task: TaskIndex, attempt: AttemptNumber) -> PathBuf {
        self.logs().join(job.to_string()).join(format!("{task}.{attempt}"))
    }
}

/// An assignment as a name of a directory: `57-0`.
#[must_use]
pub fn tag(id: AssignmentId) -> String {
    format!("{}-{}", id.allocation, id.group)
}

/// The assignment of a directory's name.
#[must_use]
pub fn from_tag(tag: &str) -> Option<AssignmentId> {
    let (allocation, group) = tag.split_once('-')?;
    let id = AssignmentId {
        allocation: AllocationId(allocation.parse().ok()?),
        group: group.parse().ok()?,
    };
    (self::tag(id) == tag).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_are_those_of_assignments() {
        let id = AssignmentId { allocation: AllocationId(57), group: 3 };
        assert_eq!(from_tag(&tag(id)), Some(id));
        for other in ["57", "057-0", "57-0x", "57-256", "-", "lost+found"] {
            assert_eq!(from_tag(other), None, "{other}");
        }
    }
}
