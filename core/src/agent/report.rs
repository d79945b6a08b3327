//! What an agent tells the coordinator about its assignments.

use super::chain::{Chain, ChainLink};
use super::desired::AssignmentId;
use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::id::Sequence;

/// One fact about an assignment. Kept by the agent until the coordinator has acknowledged it, and
/// sent again in order after each reconnect; a sequence that was seen before is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// Its place in the order of the node's reports.
    #[n(0)]
    pub sequence: Sequence,
    /// What it is about.
    #[n(1)]
    pub assignment: AssignmentId,
    /// The fact.
    #[n(2)]
    pub what: ReportKind,
}

/// What happened. Each task of a chain is told of at most once as started, and exactly once as
/// either exited or recalled; `Reaped` is the last word on an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ReportKind {
    /// Prepared; waits for the gang.
    #[n(0)]
    Ready,
    /// Ranks of these tasks have started, in this order.
    #[n(1)]
    Started(#[n(0)] Chain),
    /// These tasks have ended, in this order, as far as this node can tell.
    #[n(2)]
    Exited(#[n(0)] Vec<Exit>),
    /// These tasks never started here and never will: the coordinator cut the chain, stopped or
    /// released the assignment, or an end before them took the rest of the chain along.
    #[n(3)]
    Recalled(#[n(0)] Chain),
    /// No process of it is left on the node; its share is free.
    #[n(4)]
    Reaped,
    /// The ranks of the task that runs have done nothing for so long, see [`crate::stall`].
    #[n(5)]
    Silent {
        /// For how long by then, in milliseconds.
        #[n(0)]
        for_ms: u64,
    },
    /// They do something again.
    #[n(6)]
    Active,
}

impl Report {
    /// Ranges of tasks that it tells of: what `REPORT_RANGES_MAX` bounds in one command.
    #[must_use]
    pub fn ranges(&self) -> usize {
        match &self.what {
            ReportKind::Ready
            | ReportKind::Reaped
            | ReportKind::Silent { .. }
            | ReportKind::Active => 1,
            ReportKind::Started(chain) | ReportKind::Recalled(chain) => chain.0.len(),
            ReportKind::Exited(exits) => exits.len(),
        }
    }
}

/// How neighbouring tasks of a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Exit {
    /// Which tasks, and in which attempt.
    #[n(0)]
    pub link: ChainLink,
    /// Why they ended. What ended after a stop signal has the cause of the stop.
    #[n(1)]
    pub cause: ExitCause,
    /// What the kernel said, where the cause is the stop's: evidence, never a verdict.
    #[n(2)]
    pub status: Option<ExitCause>,
    /// The local rank that ended first in a way other than success, if one is to blame.
    #[n(3)]
    pub rank: Option<u32>,
}
