//! The compiled job: what decisions need of a job spec, and no more.
//!
//! The spec itself travels beside it as canonical text, which the state keeps but never reads.
//! A job is compiled once, where it is submitted (`docs/adr/0005`).

mod compile;

pub use crate::agent::Isolation as IsolationClass;
pub use compile::{Context, compile};

use crate::retry::RetryPolicy;
use minicbor::{Decode, Encode};
use yard_common::gpu::GpuRequest;
use yard_common::id::{JobId, PoolId, TaskRange};
use yard_common::{Amounts, Bytes};

/// A job as decisions see it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobPlan {
    /// Name; not unique.
    #[n(0)]
    pub name: Box<str>,
    /// What one task needs.
    #[n(1)]
    pub shape: Shape,
    /// Later is lower; -1000 to 1000.
    #[n(2)]
    pub priority: i32,
    /// Limit of one attempt in milliseconds.
    #[n(3)]
    pub time_limit_ms: Option<u64>,
    /// Not before this time, in milliseconds UTC since 1970.
    #[n(4)]
    pub not_before_wall_ms: Option<u64>,
    /// Jobs that it waits for.
    #[n(5)]
    pub after: After,
    /// Held from the start.
    #[n(6)]
    pub hold: bool,
    /// Whether its resources may be taken for others; `None`: as its queue says.
    #[n(7)]
    pub preemptible: Option<bool>,
    /// What happens after an attempt that did not succeed.
    #[n(8)]
    pub retry: RetryPolicy,
    /// From the stop signal to the kill, in milliseconds.
    #[n(9)]
    pub grace_ms: u64,
    /// How long a node may prepare, in milliseconds.
    #[n(10)]
    pub prepare_ms: u64,
    /// What happens when a machine falls silent.
    #[n(11)]
    pub isolation: Isolation,
    /// Which exits decide the attempt.
    #[n(12)]
    pub decides: Decides,
    /// Present for an array.
    #[n(13)]
    pub array: Option<Array>,
    /// Other shapes that will do, tried in order after `shape`.
    #[n(14)]
    pub any_of: Vec<Shape>,
    /// After how much silence of all ranks an attempt ends, in milliseconds; none: never.
    #[n(15)]
    pub stall_kill_ms: Option<u64>,
}

impl JobPlan {
    /// The tasks of the job; the single task of a job that is no array is 0.
    #[must_use]
    pub fn tasks(&self) -> TaskRange {
        self.array.as_ref().map_or(TaskRange::one(0), |array| array.tasks)
    }

    /// Whether tasks of it can run in turn on one allocation. A strict attempt ends when nothing
    /// of it is left on the node, which cannot be told apart within one allocation.
    #[must_use]
    pub fn chains(&self) -> bool {
        self.shape.is_single_node() && self.isolation.class != IsolationClass::Strict
    }
}

/// An array of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Array {
    /// Its positions.
    #[n(0)]
    pub tasks: TaskRange,
    /// Tasks that may hold resources at the same time.
    #[n(1)]
    pub running_max: Option<u32>,
    /// Failed tasks after which no more start: those that wait are cancelled, those that run go on.
    /// 0 counts as 1.
    #[n(2)]
    pub failures_max: Option<u32>,
    /// The indices that people know the tasks by, in rising order, where they have gaps; else
    /// empty: positions are the indices.
    #[n(3)]
    #[cbor(default)]
    pub shown: Vec<TaskRange>,
}

/// Jobs that a job waits for. They are all older than it, so that no circle can arise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct After {
    /// Must have succeeded.
    #[n(0)]
    pub ok: Vec<JobId>,
    /// Must have ended.
    #[n(1)]
    pub any: Vec<JobId>,
    /// Must have ended without success.
    #[n(2)]
    pub failed: Vec<JobId>,
    /// Arrays of the same indices: task `i` waits for the success of their task `i`.
    #[n(3)]
    pub each: Vec<JobId>,
}

impl After {
    /// Every job that is waited for as a whole, with what is asked of it.
    pub fn whole(&self) -> impl Iterator<Item = (JobId, Wanted)> {
        let ok = self.ok.iter().map(|job| (*job, Wanted::Success));
        let any = self.any.iter().map(|job| (*job, Wanted::End));
        let failed = self.failed.iter().map(|job| (*job, Wanted::Failure));
        ok.chain(any).chain(failed)
    }

    /// Every job that is waited for.
    pub fn all(&self) -> impl Iterator<Item = JobId> {
        self.whole().map(|(job, _)| job).chain(self.each.iter().copied())
    }
}

/// What a job asks of the end of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `Succeeded`.
    Success,
    /// Any end.
    End,
    /// `Failed` or `Cancelled`.
    Failure,
}

/// What one task needs. Interned: tasks of equal shape share one, so that the scheduler answers
/// "does it fit" once for all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Shape {
    /// The only pool that will do; `None`: any that the queue allows.
    #[n(0)]
    pub pool: Option<PoolId>,
    /// Whole machines, whatever is asked of them.
    #[n(1)]
    pub exclusive: bool,
    /// The groups of the gang; they start together.
    #[n(2)]
    #[cbor(decode_with = "crate::encoding::exact_list")]
    pub groups: Vec<Group>,
    /// How its nodes may lie.
    #[n(3)]
    pub place: Place,
}

impl Shape {
    /// Nodes of the gang at least.
    #[must_use]
    pub fn nodes_min(&self) -> u32 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.nodes_min))
    }

    /// Whether it is one group of one node.
    #[must_use]
    pub fn is_single_node(&self) -> bool {
        self.groups.len() == 1 && self.groups[0].nodes_max == 1
    }
}

/// Nodes of a gang that run the same command with the same resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Group {
    /// Role name.
    #[n(0)]
    pub name: Box<str>,
    /// Different machines at least.
    #[n(1)]
    pub nodes_min: u32,
    /// Different machines at most; more than `nodes_min` when elastic.
    #[n(2)]
    pub nodes_max: u32,
    /// Ranks on each node.
    #[n(3)]
    pub ranks_per_node: u32,
    /// CPUs of each node.
    #[n(4)]
    pub cpus: Ask,
    /// Memory of each node in bytes.
    #[n(5)]
    pub memory: Ask,
    /// Scratch disk of each node in bytes; 0: bounded by the node only.
    #[n(6)]
    pub disk: Bytes,
    /// GPUs of each node.
    #[n(7)]
    pub gpus: GpuRequest,
}

/// An amount that a job names, or leaves to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Ask {
    /// The same share of the pool's smallest node as the GPUs are; without GPUs, one CPU a rank
    /// and memory in the same share as the CPUs.
    #[n(0)]
    Auto,
    /// This much: thousandths of a CPU, or bytes.
    #[n(1)]
    Exactly(#[n(0)] u64),
}

/// Where the nodes of a gang may lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Place {
    /// Labels that every node must carry, sorted by key.
    #[n(0)]
    pub labels: Vec<(String, String)>,
    /// Names of nodes that must not be used.
    #[n(1)]
    pub exclude_nodes: Vec<String>,
    /// Names of the only nodes that may be used; empty: any.
    #[n(2)]
    pub only_nodes: Vec<String>,
    /// Topology level that all nodes must share.
    #[n(3)]
    pub within: Option<String>,
    /// Topology level that the nodes should share.
    #[n(4)]
    pub prefer: Option<String>,
}

/// What happens when a machine of the attempt falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Isolation {
    /// Its class.
    #[n(0)]
    pub class: IsolationClass,
    /// Lease in milliseconds; `None`: the pool's.
    #[n(1)]
    pub lease_ms: Option<u64>,
}

/// Which exits decide an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Decides {
    /// Success when every rank exits 0; the first other exit ends the gang.
    #[n(0)]
    EveryRank,
    /// Rank 0 alone, which lives on the first node of the first group (launchers `custom` and
    /// `mpi`).
    #[n(1)]
    FirstRank,
}

/// The smallest node of a pool: what `auto` amounts are a share of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Floor {
    /// Smallest CPU, memory and disk of any node of the pool, each on its own.
    #[n(0)]
    pub amounts: Amounts,
    /// Smallest number of GPU devices of any node of the pool that has GPUs.
    #[n(1)]
    pub gpus: u32,
}

impl Floor {
    /// The floor of a pool that gains a node.
    #[must_use]
    pub fn with(floor: Option<Floor>, amounts: &Amounts, gpus: u32) -> Floor {
        let Some(old) = floor else { return Floor { amounts: *amounts, gpus } };
        let gpus = match (old.gpus, gpus) {
            (0, new) => new,
            (old, 0) => old,
            (old, new) => old.min(new),
        };
        Floor { amounts: Amounts::min(&old.amounts, amounts), gpus }
    }
}

impl Group {
    /// CPU, memory and disk that each node of the group holds, in a pool with this floor.
    ///
    /// `auto` with GPUs: the share of the smallest node that the GPUs are, rounded down; without:
    /// one CPU a rank, and memory in the share that the CPUs are. Shares above one are one.
    #[must_use]
    pub fn amounts(&self, floor: &Floor) -> Amounts {
        let parts = self.gpus.parts();
        let whole = u64::from(floor.gpus) * u64::from(yard_common::gpu::GPU_PARTS);
        let share = |of: u64, numerator: u64, denominator: u64| {
            let (n, d) = (u128::from(numerator.min(denominator)), u128::from(denominator.max(1)));
            u64::try_from(u128::from(of) * n / d).unwrap_or(u64::MAX)
        };
        let cpu_milli = match self.cpus {
            Ask::Exactly(milli) => milli,
            Ask::Auto if parts > 0 => share(floor.amounts.cpu_milli, parts, whole).max(1),
            Ask::Auto => u64::from(self.ranks_per_node) * 1000,
        };
        let memory_bytes = match self.memory {
            Ask::Exactly(bytes) => bytes,
            Ask::Auto if parts > 0 => share(floor.amounts.memory_bytes, parts, whole),
            Ask::Auto => share(floor.amounts.memory_bytes, cpu_milli, floor.amounts.cpu_milli),
        };
        Amounts { cpu_milli, memory_bytes, disk_bytes: self.disk.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::gpu::GpuCount;

    fn floor() -> Floor {
        let amounts = Amounts { cpu_milli: 96_000, memory_bytes: 960 << 30, disk_bytes: 0 };
        Floor { amounts, gpus: 8 }
    }

    fn group(gpus: GpuCount, cpus: Ask, memory: Ask) -> Group {
        Group {
            name: "main".into(),
            nodes_min: 1,
            nodes_max: 1,
            ranks_per_node: 2,
            cpus,
            memory,
            disk: Bytes(0),
            gpus: GpuRequest { count: gpus, ..GpuRequest::NONE },
        }
    }

    #[test]
    fn auto_follows_the_share_of_gpus() {
        let amounts = group(GpuCount::Whole(2), Ask::Auto, Ask::Auto).amounts(&floor());
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes), (24_000, 240 << 30));
        let amounts = group(GpuCount::Part(5_000), Ask::Auto, Ask::Auto).amounts(&floor());
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes), (6_000, 60 << 30));
    }

    #[test]
    fn auto_without_gpus_is_one_cpu_a_rank() {
        let amounts = group(GpuCount::None, Ask::Auto, Ask::Auto).amounts(&floor());
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes), (2_000, 20 << 30));
        let amounts = group(GpuCount::None, Ask::Exactly(500), Ask::Auto).amounts(&floor());
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes), (500, 5 << 30));
    }

    #[test]
    fn an_empty_pool_asks_for_something() {
        let none = Floor::default();
        let amounts = group(GpuCount::Whole(2), Ask::Auto, Ask::Auto).amounts(&none);
        assert_eq!((amounts.cpu_milli, amounts.memory_bytes), (1, 0));
    }
}
