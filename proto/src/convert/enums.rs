//! Enums that have the same variants on both sides.
//!
//! Both directions are exhaustive matches: a new variant of the domain does not compile before it
//! has its number here. Zero, and numbers of newer versions, are refused where they come in and
//! kept where they are only shown.

use super::ConvertError;
use crate::v1;
use yard_common::PendingReason;
use yard_common::cause::{Fault, LostReason, PrepareStep};
use yard_common::condition::{Bars, ConditionKind};
use yard_common::state::{AssignmentState, AttemptState, JobState, NodeState, TaskState};
use yard_core::command::{Role, SetupStage};
use yard_core::fit::Unfit;
use yard_core::job::IsolationClass;

/// A value of the wire that stands for none of the domain: the unspecified one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not specified")]
pub struct Unspecified;

/// Declares that two enums have the same variants, one of them with `Unspecified` on top.
macro_rules! same {
    ($($name:ident { $($variant:ident),+ $(,)? })+) => {
        $(
            impl From<$name> for v1::$name {
                fn from(value: $name) -> Self {
                    match value { $($name::$variant => v1::$name::$variant,)+ }
                }
            }

            impl TryFrom<v1::$name> for $name {
                type Error = Unspecified;

                fn try_from(value: v1::$name) -> Result<Self, Unspecified> {
                    match value {
                        v1::$name::Unspecified => Err(Unspecified),
                        $(v1::$name::$variant => Ok($name::$variant),)+
                    }
                }
            }
        )+
    };
}

same! {
    JobState { Queued, Preparing, Running, Stopping, Succeeded, Failed, Cancelled }
    TaskState {
        Blocked, Queued, Backoff, Preparing, Running, Stopping, Succeeded, Failed, Cancelled,
    }
    AttemptState { Preparing, Running, Stopping, Ended }
    AssignmentState { Preparing, Ready, Running, Exited, Gone, Reaped }
    NodeState { Up, Suspect, Lost, Removed }
    PendingReason {
        Resources, Priority, QueueLimit, OwnerLimit, WorkspaceLimit, QueueClosed, Held, Suspended,
        Dependency, NotBefore, Backoff, ArrayThrottle, NodesInDoubt, PlannedDrain, Unsatisfiable,
    }
    PrepareStep {
        Account, Workdir, Code, Mount, Image, Secret, Setup, GpuCheck, Limits, Barrier, Disk,
        NodeCheck, LogDir, Login,
    }
    ConditionKind {
        GpuGone, GpuUnresponsive, GpuFault, GpuMemory, GpuResetDue, GpuForeign, GpuDirty, GpuSlow,
        Driver, DiskPressure, CheckFailed, ClockOff, Setup,
    }
    Bars { Nothing, Gpu, Node }
    LostReason { Shim, Reboot, Record, Unknown, LeaseExpired }
    Fault { None, User, Infra, Reclaim, Request }
    IsolationClass { Strict, Fenced, Tolerant }
    Role { Viewer, User, Operator, Admin }
    Unfit {
        Pool, Excluded, NotNamed, Label, GpuKind, CpusEver, MemoryEver, DiskEver, GpusEver, NotUp,
        Cordoned, Unwell, Maintenance, Draining, PlannedDrain, NotIdle, Full, Cpus, Memory, Disk,
        Gpus, Setup,
    }
    SetupStage { Running, Failed, Done, Refused }
}

/// The value of the domain that a field's number stands for.
///
/// # Errors
/// If it is zero, or of a newer version.
pub fn known<W, D>(field: &'static str, raw: i32) -> Result<D, ConvertError>
where
    W: TryFrom<i32>,
    D: TryFrom<W>,
{
    let value = W::try_from(raw).ok().and_then(|value| D::try_from(value).ok());
    value.ok_or(ConvertError::Unknown { field, found: raw })
}

/// The values that the numbers of a repeated field stand for.
///
/// # Errors
/// If one of them is zero, or of a newer version.
pub fn known_all<W, D>(field: &'static str, raw: &[i32]) -> Result<Vec<D>, ConvertError>
where
    W: TryFrom<i32>,
    D: TryFrom<W>,
{
    raw.iter().map(|raw| known::<W, D>(field, *raw)).collect()
}
