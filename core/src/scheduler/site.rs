//! What a line of jobs asks for, and the sites that could give it: a pool with a GPU model.
//!
//! All shares of a gang lie in one pool and have GPUs of one model. `auto` amounts depend on the
//! pool, so demands do too.

use super::lines::LineKey;
use super::stock::Kind;
use crate::fit::{self, Demand};
use crate::job::Shape;
use crate::state::{Excess, Holding, Holdings, Node, Payers, State};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use yard_common::Amounts;
use yard_common::gpu::GpuCount;
use yard_common::id::PoolId;

/// What one task of a line asks for.
pub(super) struct Wish<'a> {
    pub(super) shape: &'a Shape,
    /// Pools of the queue; empty: any.
    pub(super) queue_pools: &'a [PoolId],
    /// When an attempt that starts now ends at the latest.
    pub(super) ends_ms: Option<u64>,
    pub(super) payers: Payers,
    /// Whether labels or names of nodes matter.
    pub(super) is_choosy: bool,
    /// The groups, those that are hard to place first.
    pub(super) order: Vec<usize>,
}

/// A pool and a GPU model for a gang.
pub(super) struct Site<'a> {
    pub(super) pool: PoolId,
    /// None for a gang without GPUs.
    pub(super) model: Option<String>,
    /// What a share of each group takes here.
    pub(super) demands: Vec<Demand<'a>>,
    /// What the smallest gang holds at least.
    least: Holding,
}

/// Where a task may go, as far as limits allow.
pub(super) struct Sites<'a> {
    /// In order of preference.
    pub(super) sites: Vec<Site<'a>>,
    /// The first limit that left a site out.
    pub(super) excess: Option<Excess>,
}

impl<'a> Wish<'a> {
    pub(super) fn new(view: &'a State, line: &LineKey, now_ms: u64) -> Wish<'a> {
        let shape: &Shape = view.shapes.get(line.shape);
        let mut order: Vec<usize> = (0..shape.groups.len()).collect();
        let cpus = |group: &crate::job::Group| group.amounts(&Default::default()).cpu_milli;
        order.sort_by_key(|at| {
            let group = &shape.groups[*at];
            (Reverse(group.gpus.parts()), Reverse(cpus(group)), *at)
        });
        let place = &shape.place;
        Wish {
            shape,
            queue_pools: &view.queues[line.queue].set.pools,
            ends_ms: line.time_limit_ms.and_then(|limit_ms| now_ms.checked_add(limit_ms)),
            payers: line.payers(),
            is_choosy: !(place.labels.is_empty()
                && place.exclude_nodes.is_empty()
                && place.only_nodes.is_empty()
                && place.within.is_none()),
            order,
        }
    }

    /// Whether names and labels let the task use a node of a pool that it may use.
    pub(super) fn allows(&self, node: &Node) -> bool {
        !self.is_choosy || fit::allowed(self.shape, self.queue_pools, node).is_ok()
    }

    /// Whether its attempts may run on nodes of a kind, for as long as they may take, in a pool.
    pub(super) fn may_use(&self, kind: &Kind, pool: PoolId) -> bool {
        kind.pool == pool && kind.lasts_until(self.ends_ms)
    }

    /// The pools in order of preference.
    fn pools(&self, view: &State) -> Vec<PoolId> {
        let known = |pool: &PoolId| view.pools.get(*pool).is_some();
        let pools: Vec<PoolId> = if self.queue_pools.is_empty() {
            view.pools.iter().map(|(id, _)| id).collect()
        } else {
            self.queue_pools.iter().copied().filter(known).collect()
        };
        let only = self.shape.pool;
        pools.into_iter().filter(|pool| only.is_none_or(|only| only == *pool)).collect()
    }

    /// The models in order of preference: the first group with GPUs that names some decides.
    fn models(&self, kinds: &[Kind]) -> Vec<Option<String>> {
        let groups = self.shape.groups.iter().filter(|group| group.gpus.count != GpuCount::None);
        let lists: Vec<&[String]> = groups.map(|group| group.gpus.models.as_slice()).collect();
        if lists.is_empty() && !self.shape.exclusive {
            return vec![None];
        }
        let suits_all =
            |model: &&String| lists.iter().all(|list| list.is_empty() || list.contains(model));
        if let Some(named) = lists.iter().find(|list| !list.is_empty()) {
            return named.iter().filter(suits_all).cloned().map(Some).collect();
        }
        let present = kinds.iter().filter(|kind| !kind.members.is_empty());
        let present: BTreeSet<&String> =
            present.flat_map(|kind| kind.gpus.iter().map(|device| &device.model)).collect();
        // Whole machines without a wish for GPUs: those without first.
        let without = lists.is_empty().then_some(None);
        without.into_iter().chain(present.into_iter().cloned().map(Some)).collect()
    }

    /// The sites that limits leave, for the smallest size of the gang.
    pub(super) fn sites(&self, view: &State, kinds: &[Kind], holdings: &Holdings) -> Sites<'a> {
        let mut found = Sites { sites: Vec::new(), excess: None };
        let mut allowed = Vec::new();
        for pool in self.pools(view) {
            let floor = view.pools[pool].floor.unwrap_or_default();
            let groups = self.shape.groups.iter();
            let demands: Vec<_> =
                groups.map(|group| Demand::of(self.shape, group, &floor)).collect();
            let least = least_holding(self.shape, &demands);
            match holdings.excess(&self.payers, &least) {
                None => allowed.push((pool, demands, least)),
                Some(excess) => found.excess = found.excess.or(Some(excess)),
            }
        }
        if allowed.is_empty() {
            return found;
        }
        for model in self.models(kinds) {
            let site = |(pool, demands, least): &(PoolId, Vec<Demand<'a>>, Holding)| {
                let (model, demands) = (model.clone(), demands.clone());
                Site { pool: *pool, model, demands, least: *least }
            };
            found.sites.extend(allowed.iter().map(site));
        }
        found
    }
}

impl Sites<'_> {
    /// Leaves out the sites where one more task would pass a limit by now.
    pub(super) fn keep_within(&mut self, holdings: &Holdings, payers: &Payers) {
        let excess = &mut self.excess;
        self.sites.retain(|site| match holdings.excess(payers, &site.least) {
            None => true,
            Some(passed) => {
                excess.get_or_insert(passed);
                false
            }
        });
    }
}

/// What the smallest gang holds at least; whole machines may be more.
fn least_holding(shape: &Shape, demands: &[Demand<'_>]) -> Holding {
    let mut holding = Holding { tasks: 1, ..Holding::default() };
    for (group, demand) in shape.groups.iter().zip(demands) {
        let nodes = u64::from(group.nodes_min);
        let times = |amount: u64| amount.saturating_mul(nodes);
        let Amounts { cpu_milli, memory_bytes, disk_bytes } = demand.amounts;
        let sum = &mut holding.amounts;
        sum.cpu_milli = sum.cpu_milli.saturating_add(times(cpu_milli));
        sum.memory_bytes = sum.memory_bytes.saturating_add(times(memory_bytes));
        sum.disk_bytes = sum.disk_bytes.saturating_add(times(disk_bytes));
        holding.gpu_parts = holding.gpu_parts.saturating_add(times(demand.gpus.parts()));
    }
    holding
}
