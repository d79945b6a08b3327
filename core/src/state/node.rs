//! Nodes: what machines have, hold, and owe.

use crate::agent::{AssignmentId, Chain};
use crate::command::Inventory;
use crate::table::{Ordered, Shared};
use minicbor::{Decode, Encode};
use yard_common::Amounts;
use yard_common::gpu::{DeviceSet, GPU_PARTS, GpuDevice, GpuGrant};
use yard_common::id::{AllocationId, Generation, JobId, LeaseId, PoolId, Sequence};
use yard_common::state::NodeState;

/// A machine with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// Unique name.
    #[n(0)]
    pub name: Box<str>,
    /// Its pool.
    #[n(1)]
    pub pool: PoolId,
    /// What its agent found; shared, as it rarely changes.
    #[n(2)]
    pub facts: Shared<Inventory>,
    /// Whether it is in touch.
    #[n(3)]
    pub state: NodeState,
    /// Its lease. Raised each time that promises about the old one are lifted.
    #[n(4)]
    pub lease: LeaseId,
    /// Version of its desired set.
    #[n(5)]
    pub generation: Generation,
    /// The last report that was applied.
    #[n(6)]
    pub reported: Sequence,
    /// What is held or left behind of CPU, memory and disk.
    #[n(7)]
    pub used: Amounts,
    /// Parts of each device that are held or left behind.
    #[n(8)]
    pub device_parts: Shared<Vec<u16>>,
    /// Allocations with a share here.
    #[n(9)]
    pub allocations: Ordered<AllocationId, ()>,
    /// Shares of ended attempts whose processes are not seen reaped yet.
    #[n(10)]
    pub leftovers: Ordered<AssignmentId, Leftover>,
    /// When it is to be empty.
    #[n(11)]
    pub drain: Option<Drain>,
    /// Taken out of use because attempts of several jobs failed on it in a row.
    #[n(12)]
    pub cordoned: bool,
    /// Its agent went away on purpose: until then its silence is no reason to give it up, in
    /// `cluster_ms`; 0: no.
    #[n(13)]
    pub maintenance_until_ms: u64,
    /// Whether its agent is back before that. Ranks may count on the time that was granted.
    #[n(16)]
    pub back: bool,
    /// Whether the state is older than what the node reported and forgot (it was restored from a
    /// backup): then the next report may leave a gap.
    #[n(15)]
    pub resync: bool,
    /// Latest failures that were the machine's fault: job and time, without a success since.
    #[n(14)]
    pub failures: Vec<(JobId, u64)>,
    /// GPUs that operators hold back, by UUID: positions change with a boot.
    #[n(17)]
    #[cbor(default)]
    pub held_back: Vec<HeldBack>,
    /// Since when and why it is cordoned.
    #[n(18)]
    #[cbor(default)]
    pub cordon: Option<Cordon>,
    /// Cordons since an attempt succeeded here.
    #[n(19)]
    #[cbor(default)]
    pub cordons: u32,
    /// The last check that it was asked for.
    #[n(20)]
    #[cbor(default)]
    pub check: u32,
    /// Whether a condition that it told bars new work.
    #[n(21)]
    #[cbor(default)]
    pub unwell: bool,
    /// Whether it has not done the setup of its pool: until then nothing new runs there.
    #[n(22)]
    #[cbor(default)]
    pub setup_due: bool,
}

/// A GPU that an operator holds back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldBack {
    /// UUID of the GPU or MIG instance.
    #[n(0)]
    pub gpu: Box<str>,
    /// For people.
    #[n(1)]
    pub reason: Box<str>,
    /// Since when, in milliseconds since 1970. For people.
    #[n(2)]
    pub since_wall_ms: u64,
}

/// Why a node was taken out of use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cordon {
    /// For people.
    #[n(0)]
    pub reason: Box<str>,
    /// Since when, in milliseconds since 1970. For people.
    #[n(1)]
    pub since_wall_ms: u64,
    /// When it is next asked to check itself, in `cluster_ms`.
    #[n(2)]
    pub check_at_ms: u64,
}

/// The share of an ended attempt whose processes are not seen reaped yet. Granted to nobody, and
/// kept in the desired set, so that an agent which never heard of it answers for it too.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leftover {
    /// CPU, memory and disk.
    #[n(0)]
    pub amounts: Amounts,
    /// GPUs.
    #[n(1)]
    pub gpus: GpuGrant,
    /// Whether the node was given up while it held this: its processes may live on.
    #[n(2)]
    pub in_doubt: bool,
    /// The job.
    #[n(3)]
    pub job: JobId,
    /// The attempts.
    #[n(4)]
    pub chain: Chain,
}

/// A node that is to be emptied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// From when on nothing may run there, in `cluster_ms`.
    #[n(0)]
    pub at_ms: u64,
    /// When running attempts are stopped, in `cluster_ms`.
    #[n(1)]
    pub deadline_ms: Option<u64>,
    /// For people.
    #[n(2)]
    pub reason: Box<str>,
}

impl Node {
    /// CPU, memory and disk that are free.
    #[must_use]
    pub fn free(&self) -> Amounts {
        self.facts.amounts.saturating_sub(&self.used)
    }

    /// Healthy devices of which nothing is held.
    #[must_use]
    pub fn free_devices(&self) -> DeviceSet {
        self.healthy()
            .filter(|(position, _)| self.device_parts[*position] == 0)
            .map(|d| d.0)
            .collect()
    }

    /// Healthy devices with their positions.
    pub fn healthy(&self) -> impl Iterator<Item = (usize, &GpuDevice)> {
        self.facts.devices.iter().enumerate().filter(|(_, device)| self.may_grant(device))
    }

    /// Whether a device may be granted: its agent finds nothing wrong with it, and no operator
    /// holds it back.
    #[must_use]
    pub fn may_grant(&self, device: &GpuDevice) -> bool {
        device.healthy && !self.held_back.iter().any(|held| *held.gpu == *device.uuid)
    }

    /// Parts of a device that are free; 0 for one that is not healthy.
    #[must_use]
    pub fn free_parts(&self, position: usize) -> u16 {
        match self.facts.devices.get(position) {
            Some(device) if self.may_grant(device) => {
                GPU_PARTS.saturating_sub(self.device_parts[position])
            }
            Some(_) | None => 0,
        }
    }

    /// Whether its agent is away on purpose at a time.
    #[must_use]
    pub fn is_away(&self, now_ms: u64) -> bool {
        self.maintenance_until_ms > now_ms && !self.back
    }

    /// Whether something may be placed here at a time, apart from what is free.
    #[must_use]
    pub fn takes_work(&self, now_ms: u64) -> bool {
        self.state == NodeState::Up
            && !self.cordoned
            && !self.unwell
            && !self.setup_due
            && !self.is_away(now_ms)
            && self.drain.as_ref().is_none_or(|drain| drain.at_ms > now_ms)
    }

    /// Whether nothing is held or left behind here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.allocations.is_empty() && self.leftovers.is_empty()
    }

    /// Takes a share's resources.
    ///
    /// # Panics
    /// If they are not free: whoever grants has checked.
    pub(crate) fn take(&mut self, amounts: &Amounts, gpus: &GpuGrant) {
        let used = self.used.checked_add(amounts).filter(|used| used.fits(&self.facts.amounts));
        self.used = used.unwrap_or_else(|| panic!("node {} overcommitted", self.name));
        if gpus.devices.is_empty() {
            return;
        }
        let parts = self.device_parts.make_mut();
        for position in gpus.devices.positions() {
            parts[position] += gpus.parts;
            assert!(parts[position] <= GPU_PARTS, "GPU {position} of {} held twice", self.name);
        }
    }

    /// Gives a share's resources back.
    ///
    /// # Panics
    /// If they were not held.
    pub(crate) fn give_back(&mut self, amounts: &Amounts, gpus: &GpuGrant) {
        let used = self.used.checked_sub(amounts);
        self.used = used.unwrap_or_else(|| panic!("node {} freed more than held", self.name));
        if gpus.devices.is_empty() {
            return;
        }
        let parts = self.device_parts.make_mut();
        for position in gpus.devices.positions() {
            let left = parts[position].checked_sub(gpus.parts);
            parts[position] =
                left.unwrap_or_else(|| panic!("GPU {position} of {} freed twice", self.name));
        }
    }
}
