//! What one agent does next, as a pure automaton: desired set in, observed machine in, actions
//! out. The agent process and the simulator drive the same code.
//!
//! ```text
//!   coordinator --Desired--> +-------+ --Prepare, Start, Cut, SignalStop, Kill--> shims
//!   coordinator <--Report--- | Agent | <--Prepared, Started, Ended, Reaped------- shims
//!          lease --Lease---> +-------+ --Persist--> disk, before anything that follows from it
//! ```
//!
//! Each assignment goes `Preparing -> Ready -> Running -> Exited -> Reaped`. The rules, in every
//! interleaving of crashes, repeats, delays and reboots:
//! - **Fences.** A set is obeyed only if it is above the last one obeyed, and that is on disk
//!   first. The fence of the node covers that of the task: both are minted in apply, so a set
//!   beyond the fence never brings back an attempt that a higher one replaced. Of two attempts of
//!   a task in one set the lower yields.
//! - **Once.** A task of a chain starts at most once per assignment. The order is on disk before
//!   the shim gets it; without a living witness that it was never given, what it covered is lost
//!   and not started again.
//! - **Lease.** Nothing starts but under the lease that the set was minted under, before its
//!   strict deadline. What outlives the deadline of its isolation is killed, and reported as
//!   `Lost(LeaseExpired)` when the coordinator can hear it.
//! - **Exits.** The status that the kernel gave is reported exactly. `Lost` and the causes of a
//!   kill are reported only once no process is left, since a new attempt may follow at once.
//! - **Reports.** Each is on disk before it is sent, and is sent again, in order, until it is
//!   acknowledged. Each task of a chain is told of exactly once as exited or recalled; `Reaped`
//!   is the last word on an assignment.
//! - **Release.** What the set no longer has is killed, reaped, cleaned up and forgotten.
//! - **Lives.** Once a cluster was restored from a backup, nothing of its new life is prepared
//!   before all of the former ones is reaped: the coordinator may not know what it grants twice.
//!
//! What tells an unstarted task from a lost one is the record on disk. An agent whose records
//! are lost must not go on under its old fence: see [`Kept::new`].

mod automaton;
mod chain;
mod copies;
mod desired;
mod kept;
mod machine;
mod obey;
mod record;
mod report;
mod restore;

#[cfg(test)]
mod tests;

pub use automaton::Agent;
pub use chain::{Chain, ChainLink};
pub use copies::copy_holders;
pub use desired::{
    AssignmentId, Desired, DesiredAssignment, DesiredError, DesiredPhase, Fence, Isolation,
};
pub use kept::{Change, Kept};
pub use machine::{Action, Ending, Found, Input, Lease, ShimEvent};
pub use record::{Order, Record, Stop};
pub use report::{Exit, Report, ReportKind};
