//! The numbers of an explanation: what is asked for, what there is, who has it, who keeps it.

use super::worlds;
use super::{Answer, Change, Constraint, GroupNumbers, Holder, Question};
use crate::fit::{self, Demand, Room, Unfit};
use crate::job::{Floor, Group, Shape};
use crate::scheduler::gpus::Offer;
use crate::scheduler::round::Stop;
use crate::state::Node;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::Amounts;
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_common::id::{JobId, NodeId, PoolId};
use yard_common::state::NodeState;

/// Jobs that are named of those that hold or keep something; the rest would not be read.
const JOBS_MAX: usize = 8;

impl Question<'_> {
    fn shape(&self) -> &Shape {
        self.view.shapes.get(self.job().shape)
    }

    fn queue_pools(&self) -> &[PoolId] {
        &self.view.queues[self.job().queue].set.pools
    }

    fn demand<'g>(&self, group: &'g Group, pool: PoolId) -> Demand<'g> {
        let floor: Floor = self.view.pools[pool].floor.unwrap_or_default();
        Demand {
            amounts: group.amounts(&floor),
            gpus: &group.gpus,
            exclusive: self.shape().exclusive,
        }
    }

    /// Whether a node could run a share of a group, as it is built.
    fn ever(&self, group: &Group, node: &Node) -> Result<(), Unfit> {
        fit::allowed(self.shape(), self.queue_pools(), node)?;
        fit::ever(&self.demand(group, node.pool), None, node)
    }

    /// Whether a node could take a share of a group now, others' claims aside. `room`: what the
    /// round left there.
    fn now(&self, group: &Group, node: &Node, room: &Room) -> Result<(), Unfit> {
        self.ever(group, node)?;
        fit::open(node, self.now_ms, self.job().plan.time_limit_ms)?;
        let demand = self.demand(group, node.pool);
        room.left(&demand.amounts_on(node), demand.exclusive)?;
        let offer = Offer { node, room: Some(room) };
        let models = node.healthy().map(|(_, device)| device.model.as_str());
        let models: BTreeSet<&str> = models.collect();
        let fits = offer.take(&demand, None).is_some_and(|_| group.gpus.count == GpuCount::None)
            || models.iter().any(|model| offer.take(&demand, Some(model)).is_some());
        if fits { Ok(()) } else { Err(Unfit::Gpus) }
    }

    /// Nodes that some group could use.
    fn usable(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let groups = &self.shape().groups;
        let usable = |node: &Node| groups.iter().any(|group| self.ever(group, node).is_ok());
        self.view.nodes.iter().filter(move |(_, node)| usable(node))
    }

    pub(super) fn group_numbers(&self, answer: &Answer) -> Vec<GroupNumbers> {
        let numbers = |group: &Group| {
            let pools = self.view.pools.iter().map(|(id, _)| id);
            let mut mine = pools.filter(|pool| {
                self.shape().pool.is_none_or(|only| only == *pool)
                    && (self.queue_pools().is_empty() || self.queue_pools().contains(pool))
            });
            let amounts =
                mine.next().map_or(Amounts::ZERO, |pool| self.demand(group, pool).amounts);
            let mut found = GroupNumbers {
                name: group.name.clone(),
                wanted: group.nodes_min,
                amounts,
                gpus: group.gpus.count,
                nodes: 0,
                ever: 0,
                free: 0,
                unfit: BTreeMap::new(),
                most_free: None,
                most_free_gpus: 0,
                together: None,
            };
            let mut by_value: BTreeMap<&str, u32> = BTreeMap::new();
            for (id, node) in self.view.nodes.iter() {
                if node.state == NodeState::Removed {
                    continue;
                }
                let room = answer.rooms.get(&id).cloned().unwrap_or_else(|| Room::of(node));
                let before = found.free;
                self.count(&mut found, group, node, &room, answer.claimed.contains_key(&id));
                let within = self.shape().place.within.as_ref();
                if let Some(value) = within.and_then(|level| fit::label_of(node, level)) {
                    *by_value.entry(value).or_default() += found.free - before;
                    found.together = by_value.values().copied().max();
                }
            }
            found
        };
        self.shape().groups.iter().map(numbers).collect()
    }

    fn count(
        &self,
        found: &mut GroupNumbers,
        group: &Group,
        node: &Node,
        room: &Room,
        claimed: bool,
    ) {
        found.nodes += 1;
        let now = self.now(group, node, room);
        match now {
            Ok(()) => found.free += u32::from(!claimed),
            Err(why) => *found.unfit.entry(why).or_default() += 1,
        }
        let ever = !now.is_err_and(Unfit::is_for_ever);
        // What is too small counts as long as there is nothing better.
        if !ever && (found.ever > 0 || !now.is_err_and(Unfit::is_too_small)) {
            return;
        }
        if ever && found.ever == 0 {
            (found.most_free, found.most_free_gpus) = (None, 0);
        }
        found.ever += u32::from(ever);
        let most = found.most_free.unwrap_or(Amounts::ZERO);
        found.most_free = Some(Amounts {
            cpu_milli: most.cpu_milli.max(room.amounts.cpu_milli),
            memory_bytes: most.memory_bytes.max(room.amounts.memory_bytes),
            disk_bytes: most.disk_bytes.max(room.amounts.disk_bytes),
        });
        let whole = node.healthy().filter(|(position, device)| {
            group.gpus.accepts(device) && room.parts[*position] == GPU_PARTS
        });
        found.most_free_gpus = found.most_free_gpus.max(whole.count() as u32);
    }

    /// Who holds resources of the nodes that the task could use.
    pub(super) fn holders(&self, answer: &Answer) -> Vec<Holder> {
        let usable: BTreeSet<NodeId> = self.usable().map(|(id, _)| id).collect();
        let mut held: BTreeMap<(JobId, NodeId), u64> = BTreeMap::new();
        for id in &usable {
            for (allocation, ()) in self.view.nodes[*id].allocations.iter() {
                let allocation = &self.view.allocations[*allocation];
                let here = allocation.shares.iter().filter(|share| share.node == *id);
                let parts: u64 = here.map(|share| share.gpus.total_parts()).sum();
                *held.entry((allocation.job, *id)).or_default() += parts;
            }
        }
        for (node, job, parts) in answer.granted.iter().filter(|(id, ..)| usable.contains(id)) {
            *held.entry((*job, *node)).or_default() += parts;
        }
        let mut by_job: BTreeMap<JobId, Holder> = BTreeMap::new();
        for ((job, _), parts) in held {
            let holder = by_job.entry(job).or_insert(Holder { job, nodes: 0, gpu_parts: 0 });
            holder.nodes += 1;
            holder.gpu_parts += parts;
        }
        let mut holders: Vec<_> = by_job.into_values().collect();
        holders.sort_by_key(|holder| (Reverse((holder.gpu_parts, holder.nodes)), holder.job));
        holders.truncate(JOBS_MAX);
        holders
    }

    /// What is in doubt on nodes that the task could use.
    pub(super) fn in_doubt(&self) -> Option<Constraint> {
        let (mut silent, mut unreaped) = (0, 0);
        for (_, node) in self.usable() {
            silent += u32::from(matches!(node.state, NodeState::Suspect | NodeState::Lost));
            unreaped += u32::from(!node.leftovers.is_empty());
        }
        (silent + unreaped > 0).then_some(Constraint::InDoubt { silent, unreaped })
    }

    /// Changes that would let the task start at once: asked of the planner, not guessed.
    pub(super) fn changes(&self, answer: &Answer) -> Vec<Change> {
        match &answer.stop {
            Some(Stop::Limit(excess)) => {
                let bound = excess.held.saturating_add(excess.asked);
                let world = worlds::with_limit(self.view, excess.scope, excess.what, bound);
                self.in_world(&world)
                    .then_some(Change::Limit { what: excess.what, bound })
                    .into_iter()
                    .collect()
            }
            Some(Stop::NoRoom) => self.smaller_shapes(answer),
            Some(Stop::Throttle) | None => Vec::new(),
        }
    }

    /// A smaller gang, or fewer GPUs a node.
    fn smaller_shapes(&self, answer: &Answer) -> Vec<Change> {
        let ([group], [numbers]) = (&self.shape().groups[..], &self.group_numbers(answer)[..])
        else {
            return Vec::new();
        };
        let starts = |shape: &Shape| self.in_world(&worlds::with_shape(self, shape));
        let mut changes = Vec::new();
        if numbers.free > 0 && numbers.free < group.nodes_min {
            let mut smaller = self.shape().clone();
            smaller.groups[0].nodes_min = numbers.free;
            smaller.groups[0].nodes_max = numbers.free;
            changes.extend(starts(&smaller).then_some(Change::Nodes(numbers.free)));
        }
        if let GpuCount::Whole(asked) = group.gpus.count
            && let Ok(free) = u16::try_from(numbers.most_free_gpus)
            && (1..asked).contains(&free)
        {
            let mut smaller = self.shape().clone();
            smaller.groups[0].gpus.count = GpuCount::Whole(free);
            changes.extend(starts(&smaller).then_some(Change::Gpus(free)));
        }
        changes
    }
}
