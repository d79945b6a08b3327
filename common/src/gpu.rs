//! GPUs: what a node has, what a task asks for, and what an assignment holds.
//!
//! A node lists its devices in a fixed order; an assignment names devices by their position in
//! that list, as a bit set. MIG instances are devices of their own. A share of one GPU is counted
//! in ten-thousandths, exactly.

use crate::Bytes;
use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;

/// Parts of one GPU that a fractional request is counted in.
pub const GPU_PARTS: u16 = 10_000;

/// A GPU, or one MIG instance of one, as NVML reports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GpuDevice {
    /// NVML's UUID, or the MIG instance's.
    #[n(0)]
    pub uuid: String,
    /// Model in lower case without vendor, as users ask for it: `h100`, `a100`.
    #[n(1)]
    pub model: String,
    /// Memory of the device.
    #[n(2)]
    pub memory: Bytes,
    /// The profile, when this is a MIG instance.
    #[n(3)]
    pub mig: Option<MigProfile>,
    /// Whether the device may be used. A bad device stays in the list, so that positions hold.
    #[n(4)]
    pub healthy: bool,
}

/// A MIG profile such as `1g.10gb`: compute slices and memory in GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MigProfile {
    /// Compute slices, 1 to 7.
    #[n(0)]
    pub slices: u8,
    /// Memory in GB, as in the profile's name.
    #[n(1)]
    pub memory_gb: u16,
}

impl FromStr for MigProfile {
    type Err = ();

    fn from_str(text: &str) -> Result<MigProfile, ()> {
        let (slices, memory) = text.split_once("g.").ok_or(())?;
        let memory = memory.strip_suffix("gb").ok_or(())?;
        let canonical = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !canonical(slices) || !canonical(memory) {
            return Err(());
        }
        let profile = MigProfile {
            slices: slices.parse().map_err(|_| ())?,
            memory_gb: memory.parse().map_err(|_| ())?,
        };
        if (1..=7).contains(&profile.slices) && profile.memory_gb > 0 {
            Ok(profile)
        } else {
            Err(())
        }
    }
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}g.{}gb", self.slices, self.memory_gb)
    }
}

/// How much GPU one node of a group needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum GpuCount {
    /// None.
    #[default]
    #[n(0)]
    None,
    /// Whole devices, at least 1.
    #[n(1)]
    Whole(#[n(0)] u16),
    /// A part of one device in ten-thousandths, 1 to 9,999.
    #[n(2)]
    Part(#[n(0)] u16),
    /// MIG instances of one profile, at least 1.
    #[n(3)]
    Mig(#[n(0)] MigProfile, #[n(1)] u16),
}

/// What one node of a group needs of GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GpuRequest {
    /// How many.
    #[n(0)]
    pub count: GpuCount,
    /// Models that will do, in order of preference; empty: any. All devices of a gang are of one
    /// model.
    #[n(1)]
    pub models: Vec<String>,
    /// Memory that each device has at least.
    #[n(2)]
    pub memory_min: Bytes,
}

impl GpuRequest {
    /// No GPUs.
    pub const NONE: GpuRequest =
        GpuRequest { count: GpuCount::None, models: Vec::new(), memory_min: Bytes(0) };

    /// Whether a device, healthy or not, is of a kind that the request accepts.
    #[must_use]
    pub fn accepts(&self, device: &GpuDevice) -> bool {
        let profile = match self.count {
            GpuCount::None => return false,
            GpuCount::Whole(_) | GpuCount::Part(_) => None,
            GpuCount::Mig(profile, _) => Some(profile),
        };
        device.mig == profile
            && device.memory >= self.memory_min
            && (self.models.is_empty() || self.models.contains(&device.model))
    }

    /// Parts of a GPU on one node, in ten-thousandths; a MIG instance counts as a whole one.
    #[must_use]
    pub fn parts(&self) -> u64 {
        match self.count {
            GpuCount::None => 0,
            GpuCount::Whole(count) | GpuCount::Mig(_, count) => {
                u64::from(count) * u64::from(GPU_PARTS)
            }
            GpuCount::Part(parts) => parts.into(),
        }
    }
}

/// A set of devices of one node, by position in its list; at most 128.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DeviceSet(#[n(0)] u64, #[n(1)] u64);

impl DeviceSet {
    /// No device.
    pub const EMPTY: DeviceSet = DeviceSet(0, 0);

    /// The set that holds one device.
    ///
    /// # Panics
    /// If `position` is 128 or more: inventories are checked against the limit when they come in.
    #[must_use]
    pub fn one(position: usize) -> DeviceSet {
        assert!(position < 128, "device position {position} out of range");
        if position < 64 { DeviceSet(1 << position, 0) } else { DeviceSet(0, 1 << (position - 64)) }
    }

    /// Devices in either set.
    #[must_use]
    pub fn union(self, other: DeviceSet) -> DeviceSet {
        DeviceSet(self.0 | other.0, self.1 | other.1)
    }

    /// Devices in this set and not in the other.
    #[must_use]
    pub fn minus(self, other: DeviceSet) -> DeviceSet {
        DeviceSet(self.0 & !other.0, self.1 & !other.1)
    }

    /// Whether the sets share a device.
    #[must_use]
    pub fn intersects(self, other: DeviceSet) -> bool {
        self.0 & other.0 != 0 || self.1 & other.1 != 0
    }

    /// Whether the device is in the set.
    #[must_use]
    pub fn contains(self, position: usize) -> bool {
        position < 128 && self.intersects(DeviceSet::one(position))
    }

    /// Number of devices.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones() + self.1.count_ones()
    }

    /// Whether there is no device.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == DeviceSet::EMPTY
    }

    /// Positions in rising order.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        let mut left = u128::from(self.1) << 64 | u128::from(self.0);
        std::iter::from_fn(move || {
            let position = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(position)
        })
    }
}

impl FromIterator<usize> for DeviceSet {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> DeviceSet {
        positions.into_iter().fold(DeviceSet::EMPTY, |set, p| set.union(DeviceSet::one(p)))
    }
}

impl fmt::Debug for DeviceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.positions()).finish()
    }
}

/// GPUs that an assignment holds on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GpuGrant {
    /// The devices.
    #[n(0)]
    pub devices: DeviceSet,
    /// Parts held of each of them in ten-thousandths: 10,000, or less when `devices` is one.
    #[n(1)]
    pub parts: u16,
}

impl GpuGrant {
    /// No GPU.
    pub const NONE: GpuGrant = GpuGrant { devices: DeviceSet::EMPTY, parts: 0 };

    /// Whole devices.
    #[must_use]
    pub fn whole(devices: DeviceSet) -> GpuGrant {
        GpuGrant { devices, parts: if devices.is_empty() { 0 } else { GPU_PARTS } }
    }

    /// A part of one device.
    #[must_use]
    pub fn part(position: usize, parts: u16) -> GpuGrant {
        GpuGrant { devices: DeviceSet::one(position), parts }
    }

    /// Parts held in all, in ten-thousandths of a GPU.
    #[must_use]
    pub fn total_parts(&self) -> u64 {
        u64::from(self.devices.len()) * u64::from(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mig_profiles_read_and_display() {
        let profile: MigProfile = "1g.10gb".parse().unwrap();
        assert_eq!(profile, MigProfile { slices: 1, memory_gb: 10 });
        assert_eq!(profile.to_string(), "1g.10gb");
        for bad in ["", "1g10gb", "8g.10gb", "0g.5gb", "1g.gb", "+1g.5gb", "1g.0gb"] {
            assert!(bad.parse::<MigProfile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sets_work_across_the_word_boundary() {
        let set: DeviceSet = [0, 63, 64, 127].into_iter().collect();
        assert_eq!(set.len(), 4);
        assert_eq!(set.positions().collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert!(!set.minus(DeviceSet::one(64)).contains(64));
    }
}
