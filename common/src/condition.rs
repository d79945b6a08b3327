//! What can be wrong with a machine or one of its GPUs, and what that keeps from running.
//!
//! An agent tells conditions as they come and go, never how things stand from minute to minute.

use minicbor::{Decode, Encode};
use std::fmt;

/// What is wrong. A closed set that users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ConditionKind {
    /// A GPU that was there since the machine booted is no longer found.
    #[n(0)]
    GpuGone,
    /// The driver does not answer for a GPU.
    #[n(1)]
    GpuUnresponsive,
    /// The driver reported an error (XID) after which the GPU is not to be used.
    #[n(2)]
    GpuFault,
    /// Memory of a GPU had errors that could not be corrected. The driver's own reports (XIDs) say
    /// whether it may still be used.
    #[n(3)]
    GpuMemory,
    /// Memory of a GPU was repaired in part; the repair takes effect with its next reset.
    #[n(4)]
    GpuResetDue,
    /// A process that belongs to no job uses a GPU.
    #[n(5)]
    GpuForeign,
    /// Memory of a GPU is in use, and nobody uses it.
    #[n(6)]
    GpuDirty,
    /// A GPU is slower than it is built to be: heat, power, or too narrow a link.
    #[n(7)]
    GpuSlow,
    /// The driver does not work, or does not answer at all.
    #[n(8)]
    Driver,
    /// Too little room is left on the disk of jobs.
    #[n(9)]
    DiskPressure,
    /// The check that the machine's owner configured fails.
    #[n(10)]
    CheckFailed,
    /// The machine's clock differs from the coordinator's.
    #[n(11)]
    ClockOff,
    /// The setup of its pool runs there, or failed, or is not allowed.
    #[n(12)]
    Setup,
}

/// What a condition keeps from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bars {
    /// Nothing: it is for people.
    Nothing,
    /// New work on this GPU; others of the machine are not concerned.
    Gpu,
    /// New work on this machine.
    Node,
}

impl ConditionKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [ConditionKind; 13] = [
        ConditionKind::GpuGone,
        ConditionKind::GpuUnresponsive,
        ConditionKind::GpuFault,
        ConditionKind::GpuMemory,
        ConditionKind::GpuResetDue,
        ConditionKind::GpuForeign,
        ConditionKind::GpuDirty,
        ConditionKind::GpuSlow,
        ConditionKind::Driver,
        ConditionKind::DiskPressure,
        ConditionKind::CheckFailed,
        ConditionKind::ClockOff,
        ConditionKind::Setup,
    ];

    /// Its name, as users read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConditionKind::GpuGone => "GpuGone",
            ConditionKind::GpuUnresponsive => "GpuUnresponsive",
            ConditionKind::GpuFault => "GpuFault",
            ConditionKind::GpuMemory => "GpuMemory",
            ConditionKind::GpuResetDue => "GpuResetDue",
            ConditionKind::GpuForeign => "GpuForeign",
            ConditionKind::GpuDirty => "GpuDirty",
            ConditionKind::GpuSlow => "GpuSlow",
            ConditionKind::Driver => "Driver",
            ConditionKind::DiskPressure => "DiskPressure",
            ConditionKind::CheckFailed => "CheckFailed",
            ConditionKind::ClockOff => "ClockOff",
            ConditionKind::Setup => "Setup",
        }
    }

    /// What it keeps from running. What runs already goes on.
    #[must_use]
    pub fn bars(self) -> Bars {
        match self {
            ConditionKind::GpuGone
            | ConditionKind::GpuUnresponsive
            | ConditionKind::GpuFault
            | ConditionKind::GpuForeign
            | ConditionKind::GpuDirty => Bars::Gpu,
            // Without the driver there is no GPU to grant, and jobs without GPUs need none.
            ConditionKind::GpuMemory
            | ConditionKind::GpuResetDue
            | ConditionKind::GpuSlow
            | ConditionKind::Driver
            | ConditionKind::ClockOff => Bars::Nothing,
            ConditionKind::DiskPressure | ConditionKind::CheckFailed | ConditionKind::Setup => {
                Bars::Node
            }
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_in_order() {
        for (number, kind) in ConditionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{kind}");
        }
        let next = minicbor::to_vec(ConditionKind::ALL.len() as u32).unwrap();
        assert!(minicbor::decode::<ConditionKind>(&next).is_err(), "a kind is not in the list");
    }

    #[test]
    fn what_bars_a_gpu_is_about_a_gpu() {
        for kind in ConditionKind::ALL.into_iter().filter(|kind| kind.bars() == Bars::Gpu) {
            assert!(kind.to_string().starts_with("Gpu"), "{kind}");
        }
    }
}
