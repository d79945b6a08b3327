//! Live totals of what queues, workspaces and owners hold: what limits are checked against.

use crate::command::{HolderLimit, LimitScope};
use crate::table::Ordered;
use minicbor::{Decode, Encode};
use yard_common::id::{PrincipalId, QueueId, WorkspaceId};
use yard_common::{Amounts, PendingReason};

/// What is held at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Holding {
    /// CPU, memory and disk.
    #[n(0)]
    pub amounts: Amounts,
    /// GPUs in ten-thousandths.
    #[n(1)]
    pub gpu_parts: u64,
    /// Allocations, each of which runs one task at a time.
    #[n(2)]
    pub tasks: u64,
    /// Jobs that have not ended.
    #[n(3)]
    pub jobs: u64,
}

impl Holding {
    /// What is left without a part of it; none if it does not hold that part.
    fn checked_sub(&self, less: &Holding) -> Option<Holding> {
        Some(Holding {
            amounts: self.amounts.checked_sub(&less.amounts)?,
            gpu_parts: self.gpu_parts.checked_sub(less.gpu_parts)?,
            tasks: self.tasks.checked_sub(less.tasks)?,
            jobs: self.jobs.checked_sub(less.jobs)?,
        })
    }
}

/// Whose total it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum HoldingKey {
    /// Of a queue.
    #[n(0)]
    Queue(#[n(0)] QueueId),
    /// Of a workspace.
    #[n(1)]
    Workspace(#[n(0)] WorkspaceId),
    /// Of an owner.
    #[n(2)]
    Owner(#[n(0)] PrincipalId),
    /// Of an owner in a queue.
    #[n(3)]
    OwnerInQueue(#[n(0)] QueueId, #[n(1)] PrincipalId),
}

/// Who a job counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payers {
    /// Its queue.
    pub queue: QueueId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its owner.
    pub owner: PrincipalId,
}

impl Payers {
    /// Each total that it counts for, with the scope of its limit and the reason that users see.
    #[must_use]
    pub fn keys(&self) -> [(HoldingKey, LimitScope, PendingReason); 4] {
        let Payers { queue, workspace, owner } = *self;
        [
            (HoldingKey::Queue(queue), LimitScope::Queue(queue), PendingReason::QueueLimit),
            (
                HoldingKey::OwnerInQueue(queue, owner),
                LimitScope::EachOwner(queue),
                PendingReason::OwnerLimit,
            ),
            (HoldingKey::Owner(owner), LimitScope::Owner(owner), PendingReason::OwnerLimit),
            (
                HoldingKey::Workspace(workspace),
                LimitScope::Workspace(workspace),
                PendingReason::WorkspaceLimit,
            ),
        ]
    }
}

/// All totals, and the limits on them.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Holdings {
    #[n(0)]
    totals: Ordered<HoldingKey, Holding>,
    #[n(1)]
    limits: Ordered<LimitScope, HolderLimit>,
}

/// A limit that would be passed: its scope, what it bounds, the bound, and what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Whose limit.
    pub scope: LimitScope,
    /// As users see it.
    pub reason: PendingReason,
    /// What is bounded: `cpus` (thousandths), `memory` and `disk` (bytes), `gpus`
    /// (ten-thousandths), `tasks`, `jobs`.
    pub what: &'static str,
    /// The bound.
    pub limit: u64,
    /// What is held already.
    pub held: u64,
    /// What was asked for on top.
    pub asked: u64,
}

impl Holdings {
    /// What is held.
    #[must_use]
    pub fn get(&self, key: HoldingKey) -> Holding {
        self.totals.get(&key).copied().unwrap_or_default()
    }

    /// All totals that are not nothing.
    pub fn iter(&self) -> impl Iterator<Item = (&HoldingKey, &Holding)> {
        self.totals.iter()
    }

    /// The limit of a scope.
    #[must_use]
    pub fn limit(&self, scope: LimitScope) -> Option<&HolderLimit> {
        self.limits.get(&scope)
    }

    /// All limits.
    pub fn limits(&self) -> impl Iterator<Item = (&LimitScope, &HolderLimit)> {
        self.limits.iter()
    }

    /// The first limit that more of this would pass, or nothing. Parts that are not asked for are
    /// not checked, so that a lowered limit stops only what adds to it.
    #[must_use]
    pub fn excess(&self, payers: &Payers, more: &Holding) -> Option<Excess> {
        if self.limits.is_empty() {
            return None;
        }
        payers.keys().into_iter().find_map(|(key, scope, reason)| {
            let limit = self.limits.get(&scope)?;
            let held = self.get(key);
            let bound = |part: u64| (part > 0).then_some(part);
            let checks = [
                (
                    "cpus",
                    bound(limit.amounts.cpu_milli),
                    held.amounts.cpu_milli,
                    more.amounts.cpu_milli,
                ),
                (
                    "memory",
                    bound(limit.amounts.memory_bytes),
                    held.amounts.memory_bytes,
                    more.amounts.memory_bytes,
                ),
                (
                    "disk",
                    bound(limit.amounts.disk_bytes),
                    held.amounts.disk_bytes,
                    more.amounts.disk_bytes,
                ),
                ("gpus", limit.gpu_parts, held.gpu_parts, more.gpu_parts),
                ("tasks", limit.tasks, held.tasks, more.tasks),
                ("jobs", limit.jobs, held.jobs, more.jobs),
            ];
            checks.into_iter().find_map(|(what, limit, held, asked)| {
                let limit =
                    limit.filter(|limit| asked > 0 && held.saturating_add(asked) > *limit)?;
                Some(Excess { scope, reason, what, limit, held, asked })
            })
        })
    }

    /// Sets or removes a limit.
    pub(crate) fn set_limit(&mut self, scope: LimitScope, limit: Option<HolderLimit>) {
        match limit {
            Some(limit) => self.limits.insert(scope, limit),
            None => self.limits.remove(&scope),
        };
    }

    /// Counts more for everybody who pays.
    pub(crate) fn add(&mut self, payers: &Payers, more: &Holding) {
        for (key, _, _) in payers.keys() {
            let Some(held) = self.totals.get_mut(&key) else {
                self.totals.insert(key, *more);
                continue;
            };
            let amounts = held.amounts.checked_add(&more.amounts);
            held.amounts = amounts.expect("what is held fits the cluster");
            held.gpu_parts += more.gpu_parts;
            held.tasks += more.tasks;
            held.jobs += more.jobs;
        }
    }

    /// Counts less for everybody who paid.
    ///
    /// # Panics
    /// If more is taken off than was counted.
    pub(crate) fn take_off(&mut self, payers: &Payers, less: &Holding) {
        for (key, _, _) in payers.keys() {
            let held = self.totals.get_mut(&key);
            let left = held.as_deref().copied().unwrap_or_default().checked_sub(less);
            let left = left.unwrap_or_else(|| panic!("{key:?} released more than it held"));
            match held {
                Some(held) if left != Holding::default() => *held = left,
                Some(_) => drop(self.totals.remove(&key)),
                None => (),
            }
        }
    }
}
