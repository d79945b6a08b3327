//! Whether a job that stays behind has to, and what it keeps from those behind it.
//!
//! A gang of several groups is judged only where enough nodes suit every one of its groups, since
//! to decide the general case means to search.

use super::{Check, Rule};
use crate::fit::{self, Demand};
use crate::job::Shape;
use crate::scheduler::stock::is_member;
use crate::state::{Holding, Job, Node, State};
use std::collections::BTreeSet;
use yard_common::gpu::{GPU_PARTS, GpuCount, GpuGrant};
use yard_common::id::{JobId, NodeId, PoolId};

/// A pool, GPU model, and value of the topology level.
struct Corner<'a> {
    pool: PoolId,
    model: Option<&'a str>,
    value: Option<&'a str>,
}

impl<'a> Check<'a> {
    /// Checks that nothing that is left would do for a job, and notes what it claims.
    pub(super) fn waiting(&mut self, id: JobId, job: &Job) {
        let shape = self.shape(job);
        let (mut claims, mut unsure) = (BTreeSet::new(), BTreeSet::new());
        for corner in self.corners(shape) {
            let groups = 0..shape.groups.len();
            let demands: Vec<_> =
                groups.map(|group| self.demand(shape, group, corner.pool)).collect();
            let excess = |holding: &Holding| self.holdings.excess(&State::payers(job), holding);
            if excess(&self.least(shape, &demands)).is_some() {
                continue;
            }
            let wanted: usize = shape.groups.iter().map(|group| group.nodes_min as usize).sum();
            let suits = |id: &NodeId| {
                demands.iter().all(|demand| self.could(job, demand, &corner, &self.view.nodes[*id]))
            };
            let all = || self.view.nodes.iter().map(|(id, _)| id);
            let some = |id: &NodeId| {
                let node = &self.view.nodes[*id];
                demands.iter().any(|demand| self.could(job, demand, &corner, node))
            };
            if all().filter(suits).count() < wanted {
                if demands.len() > 1 {
                    unsure.extend(all().filter(some));
                }
                continue;
            }
            // Which whole machines it gets decides whether a limit is passed.
            let suiting: Vec<NodeId> = all().filter(suits).collect();
            if shape.exclusive && excess(&self.largest(shape, &demands, &suiting)).is_some() {
                unsure.extend(suiting);
                continue;
            }
            claims.extend(all().filter(some));
            let free = all()
                .filter(suits)
                .filter(|id| !self.claimed.contains_key(id) && !self.unsure.contains(id));
            let free =
                free.filter(|id| demands.iter().all(|demand| self.can(job, demand, &corner, *id)));
            let free: Vec<NodeId> = free.collect();
            if free.len() >= wanted && excess(&self.largest(shape, &demands, &free)).is_none() {
                self.found.push(super::Violation { job: id, rule: Rule::PassedOver });
            }
        }
        self.unsure.extend(unsure);
        for node in claims {
            self.claimed.entry(node).or_insert(id);
        }
    }

    fn corners(&self, shape: &Shape) -> Vec<Corner<'a>> {
        let nodes = || self.view.nodes.iter().map(|(_, node)| node);
        let pools: BTreeSet<PoolId> = nodes().map(|node| node.pool).collect();
        let models = nodes().flat_map(|node| node.healthy().map(|(_, d)| d.model.as_str()));
        let mut models: BTreeSet<Option<&str>> = models.map(Some).collect();
        if shape.groups.iter().all(|group| group.gpus.count == GpuCount::None) {
            if !shape.exclusive {
                models.clear();
            }
            models.insert(None);
        }
        let level = |node: &'a Node| {
            shape.place.within.as_ref().and_then(|level| fit::label_of(node, level))
        };
        let mut values: BTreeSet<Option<&str>> = nodes().map(level).collect();
        if shape.place.within.is_some() {
            values.remove(&None);
        }
        let mut corners = Vec::new();
        for pool in pools {
            for model in &models {
                corners.extend(values.iter().map(|value| Corner {
                    pool,
                    model: *model,
                    value: *value,
                }));
            }
        }
        corners
    }

    /// Whether a node could take a share, if others ended.
    fn could(&self, job: &Job, demand: &Demand<'_>, corner: &Corner<'_>, node: &Node) -> bool {
        let shape = self.shape(job);
        let pools = &self.view.queues[job.queue].set.pools;
        let here = shape
            .place
            .within
            .as_ref()
            .is_none_or(|level| fit::label_of(node, level) == corner.value);
        let all = GpuGrant::whole(node.healthy().map(|(position, _)| position).collect());
        let whole = !demand.exclusive || fit::model_of(node, &all) == corner.model;
        let lasting = node.drain.as_ref().is_none_or(|drain| {
            let ends_ms =
                job.plan.time_limit_ms.map(|limit_ms| self.now_ms.saturating_add(limit_ms));
            ends_ms.is_some_and(|ends_ms| ends_ms <= drain.at_ms)
        });
        node.pool == corner.pool
            && here
            && whole
            && lasting
            && is_member(node, self.now_ms)
            && fit::allowed(shape, pools, node).is_ok()
            && fit::ever(demand, corner.model, node).is_ok()
    }

    /// Whether a node has room for a share now.
    fn can(&self, job: &Job, demand: &Demand<'_>, corner: &Corner<'_>, id: NodeId) -> bool {
        let node = &self.view.nodes[id];
        let (room, _) = self.room(id, node);
        let fitting = node.healthy().filter(|(_, device)| {
            demand.gpus.accepts(device) && corner.model.is_none_or(|model| model == device.model)
        });
        let parts = fitting.map(|(position, _)| room.parts[position]);
        let gpus = match demand.gpus.count {
            GpuCount::None => true,
            GpuCount::Whole(count) | GpuCount::Mig(_, count) => {
                parts.filter(|parts| *parts == GPU_PARTS).count() >= usize::from(count)
            }
            GpuCount::Part(wanted) => parts.max().is_some_and(|most| most >= wanted),
        };
        self.open(id, node, job).is_ok()
            && room.left(&demand.amounts_on(node), demand.exclusive).is_ok()
            && gpus
    }

    /// What the smallest gang holds at least.
    fn least(&self, shape: &Shape, demands: &[Demand<'_>]) -> Holding {
        let mut holding = Holding { tasks: 1, ..Holding::default() };
        for (group, demand) in shape.groups.iter().zip(demands) {
            for _ in 0..group.nodes_min {
                let sum = holding.amounts.checked_add(&demand.amounts);
                holding.amounts = sum.expect("amounts of a test or a cluster can be added up");
                holding.gpu_parts += demand.gpus.parts();
            }
        }
        holding
    }

    /// What the smallest gang holds at most: whole machines, if it asks for those.
    fn largest(&self, shape: &Shape, demands: &[Demand<'_>], nodes: &[NodeId]) -> Holding {
        if !shape.exclusive {
            return self.least(shape, demands);
        }
        let mut holding = Holding { tasks: 1, ..Holding::default() };
        for id in nodes {
            let node = &self.view.nodes[*id];
            let sum = holding.amounts.checked_add(&node.facts.amounts);
            holding.amounts = sum.expect("amounts of a cluster can be added up");
            holding.gpu_parts += node.healthy().count() as u64 * u64::from(GPU_PARTS);
        }
        holding
    }
}
