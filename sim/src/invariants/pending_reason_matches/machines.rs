//! Machines, from what is held and left behind on each.

use super::Records;
use std::collections::BTreeSet;
use yard_common::Amounts;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuGrant};
use yard_common::id::{JobId, NodeId, PoolId};
use yard_common::limits::NODE_ASSIGNMENTS_MAX;
use yard_common::state::NodeState;
use yard_core::command::ShareChoice;
use yard_core::fit::{allowed, label_of};
use yard_core::job::Group;
use yard_core::state::{Job, Node};

/// In which world a task would find room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    /// This one, the plan being carried out.
    Now,
    /// As it is, but silent nodes are back and nothing is left behind.
    WithoutDoubt,
    /// As it is, but what has not begun to drain does not.
    WithoutPlannedDrains,
    /// The machines as they are built, empty and in use.
    Empty,
}

/// A pool, GPU model, and value of the level that the nodes of a gang must share.
struct Corner<'a> {
    pool: PoolId,
    model: Option<&'a str>,
    value: Option<&'a str>,
}

/// What is free on a node.
struct Free {
    amounts: Amounts,
    parts: Vec<u16>,
    held: usize,
}

impl Free {
    fn take(&mut self, amounts: &Amounts, gpus: &GpuGrant) {
        self.amounts = self.amounts.saturating_sub(amounts);
        for position in gpus.devices.positions() {
            self.parts[position] = self.parts[position].saturating_sub(gpus.parts);
        }
    }
}

impl<'a> Records<'a> {
    /// What a share of a plan takes of its node.
    pub(super) fn taken(&self, id: JobId, share: &ShareChoice) -> Amounts {
        let (node, job) = (&self.state.nodes[share.node], &self.state.jobs[id]);
        let shape = self.state.shapes.get(job.shape);
        if shape.exclusive {
            return node.facts.amounts;
        }
        self.amounts(shape, usize::from(share.group), node.pool)
    }

    /// The pools that a job may use.
    pub(super) fn pools(&self, job: &Job) -> Vec<PoolId> {
        let of_queue = &self.state.queues[job.queue].set.pools;
        let only = self.state.shapes.get(job.shape).pool;
        let pools = self.state.pools.iter().map(|(id, _)| id);
        pools
            .filter(|pool| of_queue.is_empty() || of_queue.contains(pool))
            .filter(|pool| only.is_none_or(|only| only == *pool))
            .collect()
    }

    fn free(&self, id: NodeId, node: &Node, world: World) -> Free {
        let whole = vec![GPU_PARTS; node.facts.devices.len()];
        let mut free = Free { amounts: node.facts.amounts, parts: whole, held: 0 };
        if world == World::Empty {
            return free;
        }
        for (held, ()) in node.allocations.iter() {
            let shares = &self.state.allocations[*held].shares;
            shares.iter().filter(|s| s.node == id).for_each(|s| free.take(&s.amounts, &s.gpus));
            free.held += 1;
        }
        if world != World::WithoutDoubt {
            for (_, left) in node.leftovers.iter() {
                free.take(&left.amounts, &left.gpus);
                free.held += 1;
            }
        }
        for placement in &self.plan.placements {
            let here = placement.shares.iter().filter(|share| share.node == id);
            let mut any = 0;
            for share in here {
                free.take(&self.taken(placement.job, share), &share.gpus);
                any = 1;
            }
            free.held += any;
        }
        free
    }

    /// Whether a node takes more, apart from what is free.
    fn is_open(&self, job: &Job, node: &Node, world: World) -> bool {
        if world == World::Empty {
            return node.state != NodeState::Removed;
        }
        let up = match node.state {
            NodeState::Up => true,
            NodeState::Suspect | NodeState::Lost => world == World::WithoutDoubt,
            NodeState::Removed => false,
        };
        let stays = node.drain.as_ref().is_none_or(|drain| {
            let ends_ms = job.plan.time_limit_ms.map(|limit_ms| self.now_ms + limit_ms);
            let ends_before = ends_ms.is_some_and(|ends_ms| ends_ms <= drain.at_ms);
            drain.at_ms > self.now_ms && (world == World::WithoutPlannedDrains || ends_before)
        });
        up && stays && !node.cordoned && (node.back || node.maintenance_until_ms <= self.now_ms)
    }

    /// Whether a share of a group fits on a node.
    fn fits(
        &self,
        job: &Job,
        group: &Group,
        corner: &Corner<'_>,
        (id, node): (NodeId, &Node),
        world: World,
    ) -> bool {
        let shape = self.state.shapes.get(job.shape);
        let free = self.free(id, node, world);
        let floor = self.state.pools[node.pool].floor.unwrap_or_default();
        let first_model = node.healthy().next().map(|(_, device)| device.model.as_str());
        let alone = free.held == 0 && first_model == corner.model;
        let parts: Vec<u16> = node
            .healthy()
            .filter(|(_, device)| group.gpus.accepts(device))
            .filter(|(_, device)| corner.model.is_none_or(|model| model == device.model))
            .map(|(position, _)| free.parts[position])
            .collect();
        let whole = parts.iter().filter(|parts| **parts == GPU_PARTS).count();
        let gpus = match group.gpus.count {
            GpuCount::None => true,
            GpuCount::Whole(count) | GpuCount::Mig(_, count) => whole >= usize::from(count),
            GpuCount::Part(wanted) => parts.iter().any(|parts| *parts >= wanted),
        };
        let level = shape.place.within.as_ref();
        node.pool == corner.pool
            && level.is_none_or(|level| label_of(node, level) == corner.value)
            && allowed(shape, &self.state.queues[job.queue].set.pools, node).is_ok()
            && self.is_open(job, node, world)
            && free.held < NODE_ASSIGNMENTS_MAX
            && (alone || !shape.exclusive)
            && group.amounts(&floor).fits(&free.amounts)
            && gpus
    }

    fn corners(&self, job: &Job) -> Vec<Corner<'a>> {
        let state = self.state;
        let shape = state.shapes.get(job.shape);
        let nodes = || state.nodes.iter().map(|(_, node)| node);
        let devices = nodes().flat_map(|node| node.healthy().map(|(_, device)| device));
        let mut models: BTreeSet<Option<&str>> =
            devices.map(|device| Some(device.model.as_str())).collect();
        if shape.groups.iter().all(|group| group.gpus.count == GpuCount::None) {
            if !shape.exclusive {
                models.clear();
            }
            models.insert(None);
        }
        let level = shape.place.within.as_ref();
        let value = |node: &'a Node| level.and_then(|level| label_of(node, level));
        let values: BTreeSet<Option<&str>> = nodes().map(value).collect();
        let mut corners = Vec::new();
        for pool in self.pools(job) {
            for model in &models {
                let corner =
                    |value: &Option<&'a str>| Corner { pool, model: *model, value: *value };
                corners.extend(values.iter().map(corner));
            }
        }
        corners
    }

    /// Whether it is one group, on which no limit bears: then what fits is easy to say.
    pub(super) fn is_plain(&self, job: &Job) -> bool {
        self.state.shapes.get(job.shape).groups.len() == 1 && self.is_unlimited(job)
    }

    /// Whether one more task of one group surely finds its nodes in a world, within limits.
    pub(super) fn has_room(&self, job: &Job, world: World) -> bool {
        let shape = self.state.shapes.get(job.shape);
        let [group] = &shape.groups[..] else { return false };
        if shape.exclusive && !self.is_unlimited(job) {
            return false;
        }
        let corners = self.corners(job).into_iter();
        { corners }.any(|corner| {
            let fits = |node: &(NodeId, &Node)| self.fits(job, group, &corner, *node, world);
            let count = self.state.nodes.iter().filter(fits).count();
            count >= group.nodes_min as usize && !self.is_limited(job, corner.pool)
        })
    }

    /// Whether the machines of the cluster could ever hold a gang; nothing where groups would
    /// have to share nodes, as to decide that means to search.
    pub(super) fn holds_ever(&self, job: &Job) -> Option<bool> {
        let groups = &self.state.shapes.get(job.shape).groups;
        let nodes_min = |group: &Group| group.nodes_min as usize;
        let total = groups.iter().map(nodes_min).sum();
        let mut maybe = false;
        for corner in self.corners(job) {
            let fits = |group: &Group, node| self.fits(job, group, &corner, node, World::Empty);
            let nodes = || self.state.nodes.iter();
            let suit_all = nodes().filter(|node| groups.iter().all(|group| fits(group, *node)));
            if suit_all.count() >= total {
                return Some(true);
            }
            maybe |= groups
                .iter()
                .all(|group| nodes().filter(|node| fits(group, *node)).count() >= nodes_min(group));
        }
        if maybe && groups.len() > 1 { None } else { Some(false) }
    }
}
