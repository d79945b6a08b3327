//! What agent and shim say to each other, and a job's own processes and visitors to the shim.
//!
//! Everything that a shim says is a fact that only grows, so that a repeat does no harm. Whoever
//! connects gets the whole state first. A message that the other side does not know is skipped.

use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::id::{AttemptNumber, TaskIndex, TaskRange};
use yard_core::agent::Ending;

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ToShim {
    /// Run so many tasks of the chain.
    #[n(0)]
    Start(#[n(0)] u32),
    /// Start no task from this position on.
    #[n(1)]
    Cut(#[n(0)] u32),
    /// Send the stop signal, start nothing more.
    #[n(2)]
    SignalStop,
    /// Kill everything.
    #[n(3)]
    Kill,
    /// The agent has so many ends on disk.
    #[n(4)]
    Saved(#[n(0)] u32),
    /// The lease moved; told to those that wait for it.
    #[n(5)]
    LeaseMoved,
    /// Nothing is left to do.
    #[n(6)]
    Leave,
    /// The assignment uses more of the disk than its job may: kill everything, for that.
    #[n(7)]
    Full,
}

/// From the shim.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum FromShim {
    /// The whole state.
    #[n(0)]
    State(#[n(0)] State),
    /// Ready for the first task.
    #[n(1)]
    Prepared,
    /// Preparing failed.
    #[n(2)]
    Failed(#[n(0)] ExitCause),
    /// So many tasks have started.
    #[n(3)]
    Started(#[n(0)] u32),
    /// Tasks from a position on have ended.
    #[n(4)]
    Ended(#[n(0)] u32, #[n(1)] Vec<End>),
    /// So many tasks have started or may still.
    #[n(5)]
    Cut(#[n(0)] u32),
    /// No process is left.
    #[n(6)]
    Reaped,
    /// It stands by, and has no assignment yet.
    #[n(7)]
    Ready,
    /// What was killed does not end: which processes, for people.
    #[n(8)]
    Stuck(#[n(0)] String),
}

/// The state of a shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct State {
    #[n(0)]
    pub(crate) prepared: bool,
    #[n(1)]
    pub(crate) failed: Option<ExitCause>,
    #[n(2)]
    pub(crate) start_given: bool,
    #[n(3)]
    pub(crate) started: u32,
    #[n(4)]
    pub(crate) len: u32,
    #[n(5)]
    pub(crate) endings: Vec<End>,
    #[n(6)]
    pub(crate) reaped: bool,
    /// The release of the shim, for people.
    #[n(7)]
    pub(crate) version: String,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    #[n(0)]
    pub(crate) status: ExitCause,
    #[n(1)]
    pub(crate) stopped: bool,
    #[n(2)]
    pub(crate) rank: Option<u32>,
}

impl From<Ending> for End {
    fn from(ending: Ending) -> End {
        End { status: ending.status, stopped: ending.stopped, rank: ending.rank }
    }
}

impl From<End> for Ending {
    fn from(end: End) -> Ending {
        Ending { status: end.status, stopped: end.stopped, rank: end.rank }
    }
}

/// Asks for a program on a node of the gang.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DialRequest {
    /// The node; none: the one that is asked.
    #[n(0)]
    pub(crate) host: Option<String>,
    /// The words.
    #[n(1)]
    pub(crate) words: Vec<String>,
}

/// How the program ended, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DialReply {
    /// Its exit code; 255 as with `ssh` when it did not run.
    #[n(0)]
    pub(crate) code: i32,
    /// For people.
    #[n(1)]
    pub(crate) problem: Option<String>,
}

/// Somebody visits an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum VisitRequest {
    /// Runs a program. Its standard input, output and error came before, as open files.
    #[n(0)]
    Run(#[n(0)] VisitProgram),
    /// Asks which processes belong to the assignment.
    #[n(1)]
    Members,
    /// Wants a checkpoint of the task that runs, if it is one of these.
    #[n(2)]
    Checkpoint(#[n(0)] Option<TaskRange>),
}

/// A program to run beside a rank.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VisitProgram {
    /// The task, which has to run.
    #[n(0)]
    pub(crate) task: TaskIndex,
    /// Its attempt.
    #[n(1)]
    pub(crate) attempt: AttemptNumber,
    /// The rank on this node.
    #[n(2)]
    pub(crate) local_rank: u32,
    /// Program and arguments; none: the shell of the job's user.
    #[n(3)]
    pub(crate) words: Vec<String>,
    /// Whether its files are a terminal.
    #[n(4)]
    pub(crate) on_terminal: bool,
    /// `TERM`; none: as the rank has it.
    #[n(5)]
    pub(crate) term: Option<String>,
}

/// What a visitor hears.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum VisitReply {
    /// The program runs.
    #[n(0)]
    Started,
    /// It has ended with this code, or 128 and the signal.
    #[n(1)]
    Ended(#[n(0)] i32),
    /// It does not run, and why.
    #[n(2)]
    Refused(#[n(0)] String),
    /// The processes.
    #[n(3)]
    Members(#[n(0)] Vec<i32>),
    /// So many main processes were asked for a checkpoint.
    #[n(4)]
    Asked(#[n(0)] u32),
}
