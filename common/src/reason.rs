//! Pending reasons: why a task waits. A closed set that users live by.

use minicbor::{Decode, Encode};
use std::fmt;

/// Why a task is not running yet. The first reason that applies, in this order of checks:
/// the job itself, its limits, then the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum PendingReason {
    /// No fitting set of nodes is free, and nothing ahead of it waits for them.
    #[n(0)]
    Resources,
    /// The nodes that it could use are kept for a task ahead of it.
    #[n(1)]
    Priority,
    /// A limit of its queue is reached.
    #[n(2)]
    QueueLimit,
    /// A limit of its owner is reached.
    #[n(3)]
    OwnerLimit,
    /// A limit of its workspace is reached.
    #[n(4)]
    WorkspaceLimit,
    /// The queue starts nothing at present.
    #[n(5)]
    QueueClosed,
    /// Held by its owner or an operator.
    #[n(6)]
    Held,
    /// Suspended by its owner or an operator.
    #[n(7)]
    Suspended,
    /// Waits for another job to end.
    #[n(8)]
    Dependency,
    /// Its `not_before` lies in the future.
    #[n(9)]
    NotBefore,
    /// Waits before the next attempt.
    #[n(10)]
    Backoff,
    /// As many tasks of the array run as it allows.
    #[n(11)]
    ArrayThrottle,
    /// Enough resources exist, but some are in doubt: held by a silent or unreaped attempt.
    #[n(12)]
    NodesInDoubt,
    /// The nodes that it could use are about to be drained before it would end.
    #[n(13)]
    PlannedDrain,
    /// No set of nodes of the cluster as it is could ever run it.
    #[n(14)]
    Unsatisfiable,
}

impl fmt::Display for PendingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
