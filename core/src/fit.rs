//! Whether a node can take a share of a gang: the predicates that the scheduler places by, that
//! apply checks again, and that `explain` counts.
//!
//! They come in three steps. *Ever*: could the node as it is built run the share, were it empty?
//! *Open*: may anything new run there at this time? *Room*: is enough of it free?

use crate::job::{Floor, Group, Shape};
use crate::mutant;
use crate::state::Node;
use yard_common::Amounts;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuGrant, GpuRequest};
use yard_common::id::PoolId;
use yard_common::limits::NODE_ASSIGNMENTS_MAX;
use yard_common::state::NodeState;

/// Why a node cannot take a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It is of a pool that the job or its queue does not use.
    Pool,
    /// The job excludes it by name.
    Excluded,
    /// The job names other nodes only.
    NotNamed,
    /// It lacks a label, or has another value for it.
    Label,
    /// It lacks devices of the model, memory or MIG profile that is asked for.
    GpuKind,
    /// It has too few CPUs, even when empty.
    CpusEver,
    /// It has too little memory, even when empty.
    MemoryEver,
    /// It has too little disk, even when empty.
    DiskEver,
    /// It has too few fitting GPUs, even when empty.
    GpusEver,
    /// It is silent, or was removed.
    NotUp,
    /// It is cordoned.
    Cordoned,
    /// Something is wrong with it.
    Unwell,
    /// It has not done the setup of its pool.
    Setup,
    /// Its agent is away for maintenance.
    Maintenance,
    /// It is being drained.
    Draining,
    /// It will be drained before the attempt would have to end.
    PlannedDrain,
    /// Something runs there, and whole machines are asked for.
    NotIdle,
    /// It holds as many assignments as a node may.
    Full,
    /// Too few CPUs are free.
    Cpus,
    /// Too little memory is free.
    Memory,
    /// Too little disk is free.
    Disk,
    /// Too few fitting GPUs are free.
    Gpus,
}

impl Unfit {
    /// Whether the node could never take the share, as it is built and labelled.
    #[must_use]
    pub fn is_for_ever(self) -> bool {
        self <= Unfit::GpusEver
    }

    /// Whether the node is one of those that were asked for, and has not got enough.
    #[must_use]
    pub fn is_too_small(self) -> bool {
        (Unfit::CpusEver..=Unfit::GpusEver).contains(&self)
    }
}

/// What a share takes from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// CPU, memory and disk.
    pub amounts: Amounts,
    /// GPUs.
    pub gpus: &'a GpuRequest,
    /// Whole machines.
    pub exclusive: bool,
}

impl<'a> Demand<'a> {
    /// What a share of a group takes in a pool with this floor.
    #[must_use]
    pub fn of(shape: &Shape, group: &'a Group, floor: &Floor) -> Demand<'a> {
        let amounts = group.amounts(floor);
        Demand { amounts, gpus: &group.gpus, exclusive: shape.exclusive }
    }

    /// What it takes of this node: all of it, for whole machines.
    #[must_use]
    pub fn amounts_on(&self, node: &Node) -> Amounts {
        if self.exclusive { node.facts.amounts } else { self.amounts }
    }
}

/// Whether the job may use the node at all: pool, names and labels.
///
/// # Errors
/// Why it may not.
pub fn allowed(shape: &Shape, queue_pools: &[PoolId], node: &Node) -> Result<(), Unfit> {
    let pool = shape.pool.is_none_or(|pool| pool == node.pool);
    if !pool || !(queue_pools.is_empty() || queue_pools.contains(&node.pool)) {
        return Err(Unfit::Pool);
    }
    let place = &shape.place;
    let named = |names: &[String]| names.iter().any(|name| **name == *node.name);
    if named(&place.exclude_nodes) {
        return Err(Unfit::Excluded);
    }
    if !place.only_nodes.is_empty() && !named(&place.only_nodes) {
        return Err(Unfit::NotNamed);
    }
    let carries = |label: &(String, String)| node.facts.labels.binary_search(label).is_ok();
    let level =
        |level: &Option<String>| level.as_ref().is_none_or(|level| label_of(node, level).is_some());
    if !place.labels.iter().all(carries) || !level(&place.within) {
        return Err(Unfit::Label);
    }
    Ok(())
}

/// The value of a label of a node.
#[must_use]
pub fn label_of<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let labels = &node.facts.labels;
    let at = labels.binary_search_by(|(probe, _)| probe.as_str().cmp(key)).ok()?;
    Some(&labels[at].1)
}

/// Whether the node could run the share, were it empty. `model`: the one of the gang, if chosen.
///
/// # Errors
/// What it lacks.
pub fn ever(demand: &Demand<'_>, model: Option<&str>, node: &Node) -> Result<(), Unfit> {
    let (need, have) = (&demand.amounts, &node.facts.amounts);
    if need.cpu_milli > have.cpu_milli {
        return Err(Unfit::CpusEver);
    }
    if need.memory_bytes > have.memory_bytes {
        return Err(Unfit::MemoryEver);
    }
    if need.disk_bytes > have.disk_bytes {
        return Err(Unfit::DiskEver);
    }
    let wanted = match demand.gpus.count {
        GpuCount::None => return Ok(()),
        GpuCount::Whole(count) | GpuCount::Mig(_, count) => usize::from(count),
        GpuCount::Part(_) => 1,
    };
    let fitting = node.healthy().filter(|(_, device)| {
        demand.gpus.accepts(device) && model.is_none_or(|model| model == device.model)
    });
    match fitting.count() {
        0 => Err(Unfit::GpuKind),
        count if count < wanted => Err(Unfit::GpusEver),
        _ => Ok(()),
    }
}

/// Whether anything new may run on the node at this time, for as long as it may take.
///
/// # Errors
/// Why not.
pub fn open(node: &Node, now_ms: u64, time_limit_ms: Option<u64>) -> Result<(), Unfit> {
    if node.state != NodeState::Up {
        return Err(Unfit::NotUp);
    }
    if node.cordoned {
        return Err(Unfit::Cordoned);
    }
    if node.unwell {
        return Err(Unfit::Unwell);
    }
    if node.setup_due {
        return Err(Unfit::Setup);
    }
    if node.is_away(now_ms) {
        return Err(Unfit::Maintenance);
    }
    if node.allocations.len() + node.leftovers.len() >= NODE_ASSIGNMENTS_MAX {
        return Err(Unfit::Full);
    }
    match &node.drain {
        None => Ok(()),
        Some(_) if mutant!("drain_ignored") => Ok(()),
        Some(drain) if drain.at_ms <= now_ms => Err(Unfit::Draining),
        Some(drain) => {
            let ends_ms = time_limit_ms.and_then(|limit_ms| now_ms.checked_add(limit_ms));
            if ends_ms.is_some_and(|ends_ms| ends_ms <= drain.at_ms) {
                Ok(())
            } else {
                Err(Unfit::PlannedDrain)
            }
        }
    }
}

/// What is free on a node, to be taken piece by piece while a gang is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// CPU, memory and disk.
    pub amounts: Amounts,
    /// Parts of each device by position; 0 for one that is not healthy.
    pub parts: Vec<u16>,
    /// Whether nothing runs there.
    pub idle: bool,
}

impl Room {
    /// What is free on a node.
    #[must_use]
    pub fn of(node: &Node) -> Room {
        let devices = 0..node.facts.devices.len();
        Room {
            amounts: node.free(),
            parts: devices.map(|position| node.free_parts(position)).collect(),
            idle: node.is_idle(),
        }
    }

    /// Takes a share, or nothing of it.
    ///
    /// # Errors
    /// What is not free, or why the GPUs are not those that are asked for.
    pub fn take(
        &mut self,
        demand: &Demand<'_>,
        node: &Node,
        grant: &GpuGrant,
    ) -> Result<(), Unfit> {
        let left = self.left(&demand.amounts_on(node), demand.exclusive)?;
        check_grant(demand, node, grant)?;
        for position in grant.devices.positions() {
            if self.parts.get(position).is_none_or(|free| *free < grant.parts) {
                return Err(Unfit::Gpus);
            }
        }
        for position in grant.devices.positions() {
            self.parts[position] -= grant.parts;
        }
        self.amounts = left;
        self.idle = false;
        Ok(())
    }

    /// What would be left of CPU, memory and disk.
    ///
    /// # Errors
    /// What there is too little of.
    pub fn left(&self, need: &Amounts, exclusive: bool) -> Result<Amounts, Unfit> {
        if exclusive && !self.idle {
            return Err(Unfit::NotIdle);
        }
        if need.cpu_milli > self.amounts.cpu_milli {
            return Err(Unfit::Cpus);
        }
        if need.memory_bytes > self.amounts.memory_bytes {
            return Err(Unfit::Memory);
        }
        self.amounts.checked_sub(need).ok_or(Unfit::Disk)
    }
}

/// Whether the GPUs are of the number and kind that is asked for, and all of one model.
fn check_grant(demand: &Demand<'_>, node: &Node, grant: &GpuGrant) -> Result<(), Unfit> {
    let device = |position: usize| node.facts.devices.get(position);
    let accepted = |position: usize| {
        device(position).is_some_and(|d| node.may_grant(d) && demand.gpus.accepts(d))
    };
    if demand.exclusive {
        let all = node.healthy().map(|(position, _)| position).collect();
        let enough = ever(demand, None, node);
        return if *grant == GpuGrant::whole(all) { enough } else { Err(Unfit::Gpus) };
    }
    let (count, parts) = match demand.gpus.count {
        GpuCount::None => (0, 0),
        GpuCount::Whole(count) | GpuCount::Mig(_, count) => (u32::from(count), GPU_PARTS),
        GpuCount::Part(parts) => (1, parts),
    };
    if grant.devices.len() != count || grant.parts != parts {
        return Err(Unfit::Gpus);
    }
    let mut models = grant.devices.positions().filter_map(device).map(|d| &d.model);
    let first = models.next();
    if !grant.devices.positions().all(accepted) || !models.all(|model| Some(model) == first) {
        return Err(Unfit::GpuKind);
    }
    Ok(())
}

/// The GPU model of a grant, or nothing without GPUs.
#[must_use]
pub fn model_of<'a>(node: &'a Node, grant: &GpuGrant) -> Option<&'a str> {
    let position = grant.devices.positions().next()?;
    node.facts.devices.get(position).map(|device| device.model.as_str())
}
