//! Limits, from what allocations hold.

use super::Records;
use std::collections::BTreeSet;
use yard_common::id::{JobId, PoolId};
use yard_common::{Amounts, PendingReason};
use yard_core::job::Shape;
use yard_core::state::{Holding, HoldingKey, Job, State};

fn add(sum: &mut Holding, amounts: &Amounts, gpu_parts: u64) {
    sum.amounts.cpu_milli += amounts.cpu_milli;
    sum.amounts.memory_bytes += amounts.memory_bytes;
    sum.amounts.disk_bytes += amounts.disk_bytes;
    sum.gpu_parts += gpu_parts;
}

impl Records<'_> {
    /// What a share of a group takes of a node; whole machines aside.
    pub(super) fn amounts(&self, shape: &Shape, group: usize, pool: PoolId) -> Amounts {
        let floor = self.state.pools[pool].floor.unwrap_or_default();
        shape.groups[group].amounts(&floor)
    }

    fn counts(&self, id: JobId, key: HoldingKey) -> bool {
        let job = self.state.jobs.get(id);
        job.is_some_and(|job| State::payers(job).keys().iter().any(|(of, _, _)| *of == key))
    }

    /// What a key holds; `planned`: and gets by the plan.
    fn held(&self, key: HoldingKey, planned: bool) -> Holding {
        let mut sum = Holding::default();
        for (_, held) in self.state.allocations.iter().filter(|(_, a)| self.counts(a.job, key)) {
            sum.tasks += 1;
            for share in &held.shares {
                add(&mut sum, &share.amounts, share.gpus.total_parts());
            }
        }
        let placements = self.plan.placements.iter();
        for placement in placements.filter(|p| planned && self.counts(p.job, key)) {
            sum.tasks += 1;
            for share in &placement.shares {
                let taken = self.taken(placement.job, share);
                add(&mut sum, &taken, share.gpus.total_parts());
            }
        }
        sum
    }

    /// What the smallest gang holds in a pool; whole machines may be more.
    fn least(&self, job: &Job, pool: PoolId) -> Holding {
        let shape = self.state.shapes.get(job.shape);
        let mut sum = Holding { tasks: 1, ..Holding::default() };
        for (at, group) in shape.groups.iter().enumerate() {
            for _ in 0..group.nodes_min {
                add(&mut sum, &self.amounts(shape, at, pool), group.gpus.parts());
            }
        }
        sum
    }

    /// The limits that one more task of a job would pass in a pool.
    fn passed(&self, job: &Job, pool: PoolId, planned: bool) -> BTreeSet<PendingReason> {
        let more = self.least(job, pool);
        let mut passed = BTreeSet::new();
        for (key, scope, reason) in State::payers(job).keys() {
            let Some(limit) = self.state.holdings.limit(scope) else { continue };
            let held = self.held(key, planned);
            let bound = |part: u64| (part > 0).then_some(part);
            let (have, new, max) = (&held.amounts, &more.amounts, &limit.amounts);
            let parts = [
                (bound(max.cpu_milli), have.cpu_milli, new.cpu_milli),
                (bound(max.memory_bytes), have.memory_bytes, new.memory_bytes),
                (bound(max.disk_bytes), have.disk_bytes, new.disk_bytes),
                (limit.gpu_parts, held.gpu_parts, more.gpu_parts),
                (limit.tasks, held.tasks, more.tasks),
            ];
            let over = |(max, have, new): &(Option<u64>, u64, u64)| {
                max.is_some_and(|max| *new > 0 && have + new > max)
            };
            if parts.iter().any(over) {
                passed.insert(reason);
            }
        }
        passed
    }

    /// Whether one more task would pass a limit in a pool, the plan being carried out.
    pub(super) fn is_limited(&self, job: &Job, pool: PoolId) -> bool {
        !self.passed(job, pool, true).is_empty()
    }

    /// Whether one more task would pass a limit wherever it went, whatever is planned.
    pub(super) fn is_limited_everywhere(&self, job: &Job) -> bool {
        let pools = self.pools(job);
        !pools.is_empty() && pools.iter().all(|pool| !self.passed(job, *pool, false).is_empty())
    }

    /// Whether no limit counts for a job at all.
    pub(super) fn is_unlimited(&self, job: &Job) -> bool {
        let keys = State::payers(job).keys();
        keys.iter().all(|(_, scope, _)| self.state.holdings.limit(*scope).is_none())
    }

    /// Holds a limit that was named against what is held.
    pub(super) fn judge_limit(&self, job: &Job, said: PendingReason) -> Result<(), String> {
        let pools = self.pools(job);
        let passed = |pool: &PoolId| {
            let now = self.passed(job, *pool, false);
            now.into_iter().chain(self.passed(job, *pool, true)).collect::<Vec<_>>()
        };
        let passed: BTreeSet<_> = pools.iter().flat_map(passed).collect();
        // How large whole machines are shows only when they are chosen.
        let unsure = self.state.shapes.get(job.shape).exclusive && !self.is_unlimited(job);
        if passed.contains(&said) || unsure {
            Ok(())
        } else {
            Err(format!("the limits that it would pass are {passed:?}"))
        }
    }
}
