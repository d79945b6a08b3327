//! Exit causes.

use super::ConvertError;
use super::enums::known;
use crate::v1::{self, ExitKind};
use yard_common::ExitCause;

impl From<ExitCause> for v1::ExitCause {
    fn from(cause: ExitCause) -> Self {
        let mut message = v1::ExitCause::default();
        let kind = match cause {
            ExitCause::Exited(code) => {
                message.number = code.into();
                ExitKind::Exited
            }
            ExitCause::Signaled(signal) => {
                message.number = signal.into();
                ExitKind::Signaled
            }
            ExitCause::GpuFault(xid) => {
                message.number = xid.into();
                ExitKind::GpuFault
            }
            ExitCause::StartFailed(errno) => {
                message.number = errno.into();
                ExitKind::StartFailed
            }
            ExitCause::PrepareFailed(step) => {
                message.set_step(step.into());
                ExitKind::PrepareFailed
            }
            ExitCause::Lost(reason) => {
                message.set_lost(reason.into());
                ExitKind::Lost
            }
            ExitCause::OutOfMemory => ExitKind::OutOfMemory,
            ExitCause::TimedOut => ExitKind::TimedOut,
            ExitCause::Preempted => ExitKind::Preempted,
            ExitCause::Drained => ExitKind::Drained,
            ExitCause::Suspended => ExitKind::Suspended,
            ExitCause::PlannedEvent => ExitKind::PlannedEvent,
            ExitCause::Resized => ExitKind::Resized,
            ExitCause::Requeued => ExitKind::Requeued,
            ExitCause::Cancelled => ExitKind::Cancelled,
            ExitCause::DependencyFailed => ExitKind::DependencyFailed,
            ExitCause::NodeLost => ExitKind::NodeLost,
            ExitCause::DiskFull => ExitKind::DiskFull,
            ExitCause::Stalled => ExitKind::Stalled,
            ExitCause::StoppedWithGang => ExitKind::StoppedWithGang,
        };
        message.set_kind(kind);
        message.set_fault(cause.fault().into());
        message
    }
}

impl TryFrom<&v1::ExitCause> for ExitCause {
    type Error = ConvertError;

    /// The cause; whose fault it is follows from it, whatever the message says.
    fn try_from(message: &v1::ExitCause) -> Result<Self, ConvertError> {
        let raw = message.kind;
        let unknown = ConvertError::Unknown { field: "kind", found: raw };
        Ok(match ExitKind::try_from(raw).map_err(|_| unknown.clone())? {
            ExitKind::Unspecified => return Err(unknown),
            ExitKind::Exited => ExitCause::Exited(number(message)?),
            ExitKind::Signaled => ExitCause::Signaled(number(message)?),
            ExitKind::GpuFault => ExitCause::GpuFault(number(message)?),
            ExitKind::StartFailed => ExitCause::StartFailed(number(message)?),
            ExitKind::PrepareFailed => {
                ExitCause::PrepareFailed(known::<v1::PrepareStep, _>("step", message.step)?)
            }
            ExitKind::Lost => ExitCause::Lost(known::<v1::LostReason, _>("lost", message.lost)?),
            ExitKind::OutOfMemory => ExitCause::OutOfMemory,
            ExitKind::TimedOut => ExitCause::TimedOut,
            ExitKind::Preempted => ExitCause::Preempted,
            ExitKind::Drained => ExitCause::Drained,
            ExitKind::Suspended => ExitCause::Suspended,
            ExitKind::PlannedEvent => ExitCause::PlannedEvent,
            ExitKind::Resized => ExitCause::Resized,
            ExitKind::Requeued => ExitCause::Requeued,
            ExitKind::Cancelled => ExitCause::Cancelled,
            ExitKind::DependencyFailed => ExitCause::DependencyFailed,
            ExitKind::NodeLost => ExitCause::NodeLost,
            ExitKind::DiskFull => ExitCause::DiskFull,
            ExitKind::Stalled => ExitCause::Stalled,
            ExitKind::StoppedWithGang => ExitCause::StoppedWithGang,
        })
    }
}

fn number<T: TryFrom<i64>>(message: &v1::ExitCause) -> Result<T, ConvertError> {
    let found = message.number;
    T::try_from(found).map_err(|_| ConvertError::OutOfRange {
        field: "number",
        found: found.into(),
        wanted: "a number of 32 bits",
    })
}
