//! Exit causes: why an attempt ended. A closed set that users read.

use minicbor::{Decode, Encode};
use std::fmt;

/// Why an attempt (or one rank of it) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ExitCause {
    /// The process returned this code; 0 is success.
    #[n(0)]
    Exited(#[n(0)] i32),
    /// A signal ended the process, and it was none of ours.
    #[n(1)]
    Signaled(#[n(0)] i32),
    /// The kernel killed it at its memory limit; told apart from a user's own 137.
    #[n(2)]
    OutOfMemory,
    /// The time limit of the attempt passed.
    #[n(3)]
    TimedOut,
    /// Its resources went to a task of higher priority.
    #[n(4)]
    Preempted,
    /// An operator drained its node.
    #[n(5)]
    Drained,
    /// Its user suspended the job.
    #[n(6)]
    Suspended,
    /// The provider announced maintenance of its machine.
    #[n(7)]
    PlannedEvent,
    /// An elastic gang changed its size.
    #[n(8)]
    Resized,
    /// Its user asked for a new attempt.
    #[n(9)]
    Requeued,
    /// Its user cancelled the job.
    #[n(10)]
    Cancelled,
    /// A job that it waited for ended in a way that it did not ask for.
    #[n(11)]
    DependencyFailed,
    /// A machine of the gang fell silent or died.
    #[n(12)]
    NodeLost,
    /// A GPU failed; the driver's XID number.
    #[n(13)]
    GpuFault(#[n(0)] u32),
    /// It used more of a node's disk than the job asks for.
    #[n(14)]
    DiskFull,
    /// No progress for longer than the job allows.
    #[n(15)]
    Stalled,
    /// Another rank of the gang ended first; never blamed.
    #[n(16)]
    StoppedWithGang,
    /// The process could not be started; the system's error number.
    #[n(17)]
    StartFailed(#[n(0)] i32),
    /// A step before the start failed.
    #[n(18)]
    PrepareFailed(#[n(0)] PrepareStep),
    /// The exit status cannot be known; never shown as success, never invented.
    #[n(19)]
    Lost(#[n(0)] LostReason),
}

/// A step that an agent takes before the ranks of an attempt start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum PrepareStep {
    /// The unix account of the owner does not exist on the node, or may not run jobs.
    #[n(0)]
    Account,
    /// The working directory does not exist on the node.
    #[n(1)]
    Workdir,
    /// The code could not be fetched or unpacked.
    #[n(2)]
    Code,
    /// A volume could not be mounted.
    #[n(3)]
    Mount,
    /// The container image could not be fetched.
    #[n(4)]
    Image,
    /// A secret could not be read or delivered.
    #[n(5)]
    Secret,
    /// The job's own `prepare` command failed.
    #[n(6)]
    Setup,
    /// A GPU of the assignment did not answer, or was not clean.
    #[n(7)]
    GpuCheck,
    /// Limits or a cgroup could not be set up.
    #[n(8)]
    Limits,
    /// The gang was not ready within its time.
    #[n(9)]
    Barrier,
    /// The node's disk is nearly full.
    #[n(10)]
    Disk,
    /// The check that the machine's owner configured failed.
    #[n(11)]
    NodeCheck,
    /// The directory that the job's output is delivered to cannot be made.
    #[n(12)]
    LogDir,
    /// The owner has no unix login, so that no node knows as whom to run it.
    #[n(13)]
    Login,
}

/// Why an exit status cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LostReason {
    /// The shim that watched the process died.
    #[n(0)]
    Shim,
    /// The machine went down and came back without a record.
    #[n(1)]
    Reboot,
    /// The record of the exit was damaged on the node's disk.
    #[n(2)]
    Record,
    /// The agent knows nothing of the assignment.
    #[n(3)]
    Unknown,
    /// The attempt lost its lease and killed itself.
    #[n(4)]
    LeaseExpired,
}

/// Who pays for an attempt that ended: decides the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It did what was asked.
    None,
    /// The user's code or limits.
    User,
    /// A machine, a disk, a network, or Trainyard itself.
    Infra,
    /// The cluster took the resources back: preemption, drain, planned event, resize.
    Reclaim,
    /// Its owner or an operator asked for the end.
    Request,
}

impl ExitCause {
    /// Success is exit code 0 and nothing else.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == ExitCause::Exited(0)
    }

    /// Whose fault the end was; the table is part of the contract with users.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            ExitCause::Exited(0) => Fault::None,
            ExitCause::Exited(_)
            | ExitCause::Signaled(_)
            | ExitCause::OutOfMemory
            | ExitCause::DiskFull
            | ExitCause::TimedOut
            | ExitCause::Stalled
            | ExitCause::DependencyFailed => Fault::User,
            ExitCause::Preempted
            | ExitCause::Drained
            | ExitCause::PlannedEvent
            | ExitCause::Resized => Fault::Reclaim,
            ExitCause::Suspended | ExitCause::Requeued | ExitCause::Cancelled => Fault::Request,
            ExitCause::NodeLost
            | ExitCause::GpuFault(_)
            | ExitCause::StoppedWithGang
            | ExitCause::Lost(_) => Fault::Infra,
            ExitCause::StartFailed(_) => Fault::User,
            ExitCause::PrepareFailed(step) => step.fault(),
        }
    }
}

/// What the system said of a program that it did not start, where people have a word for it. The
/// numbers are those of Linux.
#[must_use]
pub fn start_words(errno: i32) -> Option<&'static str> {
    match errno {
        // ENOENT, ENOTDIR.
        2 | 20 => Some("not found"),
        // EACCES.
        13 => Some("not executable"),
        // ENOEXEC.
        8 => Some("not a program"),
        // E2BIG.
        7 => Some("too many arguments"),
        _ => None,
    }
}

impl PrepareStep {
    /// Whose fault a failure of this step is.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            PrepareStep::Workdir
            | PrepareStep::Setup
            | PrepareStep::Secret
            | PrepareStep::LogDir
            | PrepareStep::Login => Fault::User,
            PrepareStep::Account
            | PrepareStep::Code
            | PrepareStep::Mount
            | PrepareStep::Image
            | PrepareStep::GpuCheck
            | PrepareStep::Limits
            | PrepareStep::Barrier
            | PrepareStep::Disk
            | PrepareStep::NodeCheck => Fault::Infra,
        }
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitCause::Exited(code) => write!(f, "Exited({code})"),
            ExitCause::Signaled(signal) => write!(f, "Signaled({signal})"),
            ExitCause::GpuFault(xid) => write!(f, "GpuFault(xid {xid})"),
            ExitCause::StartFailed(errno) => match start_words(*errno) {
                Some(words) => write!(f, "StartFailed({words})"),
                None => write!(f, "StartFailed(errno {errno})"),
            },
            ExitCause::PrepareFailed(step) => write!(f, "PrepareFailed({step:?})"),
            ExitCause::Lost(reason) => write!(f, "Lost({reason:?})"),
            other => write!(f, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_zero_is_success() {
        assert!(ExitCause::Exited(0).is_success());
        for cause in [ExitCause::Exited(1), ExitCause::Signaled(9), ExitCause::StoppedWithGang] {
            assert!(!cause.is_success(), "{cause}");
        }
    }

    #[test]
    fn a_program_that_did_not_start_says_why_in_words() {
        assert_eq!(ExitCause::StartFailed(2).to_string(), "StartFailed(not found)");
        assert_eq!(ExitCause::StartFailed(13).to_string(), "StartFailed(not executable)");
        assert_eq!(ExitCause::StartFailed(5).to_string(), "StartFailed(errno 5)");
    }

    #[test]
    fn a_cause_takes_few_bytes() {
        // Every run of every array holds one.
        assert!(std::mem::size_of::<ExitCause>() <= 8);
        assert!(minicbor::to_vec(ExitCause::Exited(137)).unwrap().len() <= 8);
    }
}
