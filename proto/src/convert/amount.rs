//! Amounts, moments and ranges.

use super::ConvertError;
use crate::v1;
use yard_common::Amounts;
use yard_common::id::TaskRange;
use yard_core::command::Stamp;

impl From<&Amounts> for v1::ResourceAmounts {
    fn from(amounts: &Amounts) -> Self {
        let Amounts { cpu_milli, memory_bytes, disk_bytes } = *amounts;
        v1::ResourceAmounts { cpu_milli, memory_bytes, disk_bytes }
    }
}

impl From<&v1::ResourceAmounts> for Amounts {
    fn from(amounts: &v1::ResourceAmounts) -> Self {
        let v1::ResourceAmounts { cpu_milli, memory_bytes, disk_bytes } = *amounts;
        Amounts { cpu_milli, memory_bytes, disk_bytes }
    }
}

impl From<Stamp> for v1::Stamp {
    fn from(stamp: Stamp) -> Self {
        v1::Stamp { cluster_ms: stamp.cluster_ms, wall_ms: stamp.wall_ms }
    }
}

impl From<v1::Stamp> for Stamp {
    fn from(stamp: v1::Stamp) -> Self {
        Stamp { cluster_ms: stamp.cluster_ms, wall_ms: stamp.wall_ms }
    }
}

impl From<TaskRange> for v1::TaskRange {
    fn from(range: TaskRange) -> Self {
        v1::TaskRange { first: range.first, len: range.len }
    }
}

/// A range of tasks; absent: all of them.
///
/// # Errors
/// If it is empty, or ends past the last index that there can be.
pub fn range(range: Option<&v1::TaskRange>) -> Result<Option<TaskRange>, ConvertError> {
    let Some(&v1::TaskRange { first, len }) = range else { return Ok(None) };
    if len == 0 || first.checked_add(len).is_none() {
        let found = i128::from(len);
        let wanted = "at least 1 task, and none past the last index";
        return Err(ConvertError::OutOfRange { field: "tasks.len", found, wanted });
    }
    Ok(Some(TaskRange { first, len }))
}

/// What a wall clock would have shown at a moment of the cluster's time, as far as the two run
/// alike: for people, never for decisions.
#[must_use]
pub fn wall_ms(cluster_ms: u64, now: &v1::Stamp) -> u64 {
    if cluster_ms >= now.cluster_ms {
        now.wall_ms.saturating_add(cluster_ms - now.cluster_ms)
    } else {
        now.wall_ms.saturating_sub(now.cluster_ms - cluster_ms)
    }
}
