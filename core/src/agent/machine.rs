//! What passes between the automaton and its driver: inputs, actions, and what a machine shows.
//!
//! The contract of the driver:
//! 1. It performs the actions of a list in order. A `Persist` is on disk before anything after
//!    it is done. It may die between any two; after that it calls `Agent::restore`.
//! 2. An order to the machine that is given twice has the effect of one.
//! 3. A shim writes down, durably, what it is about to start before it starts it, and each wait
//!    status before it reaps the process. It starts the next task of its chain only while the
//!    strict deadline of the lease lies ahead, and kills at the deadline of its isolation by
//!    itself if nobody else does.
//! 4. The events of one shim come in the order in which they happened; repeats are fine.
//! 5. What is `Found` is asked after the orders of an earlier agent can no longer arrive.

use super::desired::{AssignmentId, Desired, Isolation};
use super::kept::Change;
use super::report::Report;
use crate::stall::News;
use yard_common::ExitCause;
use yard_common::id::{LeaseId, Sequence};

/// What an agent learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A desired set came from the coordinator; `Desired::check` found nothing wrong with it.
    Desired(Desired),
    /// A shim reports.
    Shim(AssignmentId, ShimEvent),
    /// A majority of members answered a renewal, or a maintenance lease was committed.
    Lease(Lease),
    /// A control stream to the leader is open: whatever is not acknowledged is sent again.
    Connected,
    /// The coordinator has committed every report up to this one.
    Acknowledged(Sequence),
    /// A timer that was asked for went off.
    Tick,
    /// A GPU that the assignment holds has failed.
    Fault {
        /// Which.
        id: AssignmentId,
        /// The driver's number for it.
        xid: u32,
        /// Whether what runs is ended for it. If not, it is blamed if what runs fails.
        ends: bool,
    },
    /// The ranks of an assignment fell silent, or do something again.
    Silence {
        /// Which.
        id: AssignmentId,
        /// The position of the task in the chain.
        position: u32,
        /// What is new.
        news: News,
    },
}

/// The deadlines of the node's lease. All are of the boot clock and never move back within one
/// boot. A deadline has passed when `now >= deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which lease is being renewed.
    pub id: LeaseId,
    /// End of the lease itself: nothing starts from then on, and `strict` ranks are dead.
    pub strict_ms: u64,
    /// Self-kill of `fenced` ranks.
    pub fenced_ms: u64,
    /// Self-kill of `tolerant` ranks.
    pub tolerant_ms: u64,
    /// End of the committed maintenance lease, 0 without one. Nothing is killed before it, as
    /// the members have promised not to give the node up.
    pub maintenance_ms: u64,
}

impl Lease {
    /// When processes of this isolation must be dead.
    #[must_use]
    pub fn deadline_ms(&self, isolation: Isolation) -> u64 {
        let of_class = match isolation {
            Isolation::Strict => self.strict_ms,
            Isolation::Fenced => self.fenced_ms,
            Isolation::Tolerant => self.tolerant_ms,
        };
        of_class.max(self.maintenance_ms)
    }
}

/// What a shim tells its agent. Counts are of positions of the chain, from its begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShimEvent {
    /// Code, mounts, image and checks are done.
    Prepared,
    /// It gave up before any rank started, and why.
    Failed(ExitCause),
    /// So many tasks have started, those that have ended included.
    Started(u32),
    /// So many tasks ended before these, which ended now.
    Ended {
        /// Position of the first of them.
        first: u32,
        /// In order.
        endings: Vec<Ending>,
    },
    /// The chain is cut: this many tasks have started or may still start, no more.
    Cut(u32),
    /// The shim is dead and its cgroup has no guardian. This many tasks may have started.
    Died {
        /// What its record shows; the whole chain if the record cannot be read.
        started: u32,
    },
    /// No process of the assignment is left. Everything that it had to say was said before.
    Reaped,
}

/// How one task of a chain ended on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the kernel said of the rank to blame, or that every rank succeeded.
    pub status: ExitCause,
    /// Whether the end came after the stop signal or the kill. Whoever was stopped ends with the
    /// cause of the stop, also if it saved its work and left with 0.
    pub stopped: bool,
    /// The local rank to blame.
    pub rank: Option<u32>,
}

/// What an agent does next, in the order of its list.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write these changes to disk as one: all of them or none. Only ever the first of a list.
    Persist(Vec<Change>),
    /// Write them so that they survive the agent, and go to disk with the next `Persist` at the
    /// latest; a loss of power may take them. In the place of a `Persist`.
    Note(Vec<Change>),
    /// Create the shim, and prepare.
    Prepare(AssignmentId),
    /// Run the first `len` tasks of the chain in turn, once prepared.
    Start {
        /// Which.
        id: AssignmentId,
        /// Tasks of the chain to run.
        len: u32,
    },
    /// Start no task at position `len` or beyond, and answer `Cut`.
    Cut {
        /// Which.
        id: AssignmentId,
        /// Tasks of the chain to keep.
        len: u32,
    },
    /// Send the stop signal to the ranks, start no further task, and answer `Cut`.
    SignalStop(AssignmentId),
    /// Kill every process, start no further task, and answer `Reaped` when none is left; also
    /// where there is no shim.
    Kill(AssignmentId),
    /// Remove everything that the assignment has left on the machine, its records too.
    Release(AssignmentId),
    /// Send the report if connected.
    Send(Report),
    /// Give a `Tick` at this time, or right after it if it has passed.
    SetTimer(u64),
}

/// A shim as found on the machine when the agent starts: what its records and its cgroup show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub id: AssignmentId,
    /// Whether the shim runs.
    pub alive: bool,
    /// Whether it has finished preparing.
    pub prepared: bool,
    /// Whether it has got the start.
    pub start_given: bool,
    /// Tasks that have started, or may have if its record cannot be read.
    pub started: u32,
    /// Tasks that have started or may still start, once the start is given.
    pub len: u32,
    /// How tasks ended, from the first position on.
    pub endings: Vec<Ending>,
    /// Why it gave up before any rank started.
    pub failed: Option<ExitCause>,
}
