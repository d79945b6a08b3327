//! Queues, pools, workspaces, experiments, limits, usage.

use super::ConvertError;
use super::names::{pool_id, queue_id, user_id, workspace_id};
use crate::v1::{self, limit_scope::What};
use yard_common::Amounts;
use yard_common::id::{ExperimentId, PoolId, PrincipalId, QueueId, WorkspaceId};
use yard_core::command::{HolderLimit, LimitScope, PoolChange, QueueChange};
use yard_core::state::{
    Experiment, Holding, HoldingKey, Pool, Queue, State, Usage, UsageKey, Workspace, pending_of,
};

/// Bytes of a MiB.
const MIB: u128 = 1 << 20;

/// A queue, with what its jobs hold and may hold.
#[must_use]
pub fn queue(state: &State, id: QueueId, queue: &Queue) -> v1::Queue {
    v1::Queue {
        id: id.0,
        name: queue.name.to_string(),
        settings: Some(queue_settings(state, &queue.set)),
        jobs: queue.jobs,
        jobs_pending: pending_of(&state.pending, id).count() as u64,
        held: Some((&state.holdings.get(HoldingKey::Queue(id))).into()),
        limit: state.holdings.limit(LimitScope::Queue(id)).map(Into::into),
        limit_each_owner: state.holdings.limit(LimitScope::EachOwner(id)).map(Into::into),
    }
}

/// What operators set of a queue.
#[must_use]
pub fn queue_settings(state: &State, set: &QueueChange) -> v1::QueueSettings {
    v1::QueueSettings {
        priority: set.priority,
        pools: set.pools.iter().map(|id| pool_name(state, *id)).collect(),
        accepts: set.accepts,
        starts: set.starts,
        job_priority_max: set.job_priority_max,
        time_limit_default_ms: set.time_limit_default_ms,
        time_limit_max_ms: set.time_limit_max_ms,
        preemptible: set.preemptible,
    }
}

/// What is to be set of a queue. Apply checks the numbers.
///
/// # Errors
/// If a pool does not exist.
pub fn queue_change(
    state: &State,
    settings: &v1::QueueSettings,
) -> Result<QueueChange, ConvertError> {
    let pools = settings.pools.iter().map(|name| pool_id(state, name));
    Ok(QueueChange {
        priority: settings.priority,
        pools: pools.collect::<Result<_, _>>()?,
        accepts: settings.accepts,
        starts: settings.starts,
        job_priority_max: settings.job_priority_max,
        time_limit_default_ms: settings.time_limit_default_ms,
        time_limit_max_ms: settings.time_limit_max_ms,
        preemptible: settings.preemptible,
    })
}

/// A pool, without its setup.
#[must_use]
pub fn pool(id: PoolId, pool: &Pool) -> v1::Pool {
    v1::Pool {
        id: id.0,
        name: pool.name.to_string(),
        settings: Some((&pool.set).into()),
        nodes: pool.nodes,
        floor: pool.floor.as_ref().map(|floor| (&floor.amounts).into()),
        floor_gpus: pool.floor.as_ref().map_or(0, |floor| floor.gpus),
        setup: None,
    }
}

/// A workspace, with what its jobs hold and may hold.
#[must_use]
pub fn workspace(state: &State, id: WorkspaceId, workspace: &Workspace) -> v1::Workspace {
    v1::Workspace {
        id: id.0,
        name: workspace.name.to_string(),
        jobs: workspace.jobs,
        holds: workspace.holds,
        held: Some((&state.holdings.get(HoldingKey::Workspace(id))).into()),
        limit: state.holdings.limit(LimitScope::Workspace(id)).map(Into::into),
    }
}

/// An experiment.
#[must_use]
pub fn experiment(state: &State, id: ExperimentId, experiment: &Experiment) -> v1::Experiment {
    v1::Experiment {
        id: id.0,
        workspace: workspace_name(state, experiment.workspace),
        name: experiment.name.to_string(),
        jobs: experiment.jobs,
    }
}

impl From<&PoolChange> for v1::PoolSettings {
    fn from(set: &PoolChange) -> Self {
        v1::PoolSettings { description: set.description.clone(), lease_ms: set.lease_ms }
    }
}

impl From<&v1::PoolSettings> for PoolChange {
    fn from(settings: &v1::PoolSettings) -> Self {
        PoolChange { description: settings.description.clone(), lease_ms: settings.lease_ms }
    }
}

impl From<&Holding> for v1::Holding {
    fn from(held: &Holding) -> Self {
        v1::Holding {
            amounts: Some((&held.amounts).into()),
            gpu_parts: held.gpu_parts,
            tasks: held.tasks,
            jobs: held.jobs,
        }
    }
}

impl From<&HolderLimit> for v1::HolderLimit {
    fn from(limit: &HolderLimit) -> Self {
        v1::HolderLimit {
            amounts: Some((&limit.amounts).into()),
            gpu_parts: limit.gpu_parts,
            tasks: limit.tasks,
            jobs: limit.jobs,
        }
    }
}

impl From<&v1::HolderLimit> for HolderLimit {
    fn from(limit: &v1::HolderLimit) -> Self {
        HolderLimit {
            amounts: limit.amounts.as_ref().map_or(Amounts::ZERO, Into::into),
            gpu_parts: limit.gpu_parts,
            tasks: limit.tasks,
            jobs: limit.jobs,
        }
    }
}

/// Whose limit it is, by name.
#[must_use]
pub fn limit_scope(state: &State, scope: LimitScope) -> v1::LimitScope {
    let what = match scope {
        LimitScope::Queue(id) => What::Queue(queue_name(state, id)),
        LimitScope::Workspace(id) => What::Workspace(workspace_name(state, id)),
        LimitScope::Owner(id) => What::Owner(user_name(state, id)),
        LimitScope::EachOwner(id) => What::EachOwnerInQueue(queue_name(state, id)),
    };
    v1::LimitScope { what: Some(what) }
}

/// Whose limit is meant.
///
/// # Errors
/// If there is none of that name, or none is named.
pub fn limit_scope_of(
    state: &State,
    scope: Option<&v1::LimitScope>,
) -> Result<LimitScope, ConvertError> {
    let what = scope.and_then(|scope| scope.what.as_ref());
    Ok(match what.ok_or(ConvertError::Missing { field: "scope" })? {
        What::Queue(name) => LimitScope::Queue(queue_id(state, name)?),
        What::Workspace(name) => LimitScope::Workspace(workspace_id(state, name)?),
        What::Owner(name) => LimitScope::Owner(user_id(state, name)?),
        What::EachOwnerInQueue(name) => LimitScope::EachOwner(queue_id(state, name)?),
    })
}

/// A row of the usage roll-up, rounded down to whole units.
#[must_use]
pub fn usage_row(state: &State, key: &UsageKey, usage: &Usage) -> v1::UsageRow {
    let rounded = |sum: u128, unit: u128| u64::try_from(sum / unit).unwrap_or(u64::MAX);
    let gpu = u128::from(yard_common::gpu::GPU_PARTS);
    v1::UsageRow {
        day: key.day,
        owner: user_name(state, key.owner),
        queue: queue_name(state, key.queue),
        gpu_model: key.model.to_string(),
        cpu_core_ms: rounded(usage.cpu_milli_ms.get(), 1_000),
        memory_mib_ms: rounded(usage.memory_byte_ms.get(), MIB),
        gpu_ms: rounded(usage.gpu_part_ms.get(), gpu),
        gpu_lost_ms: rounded(usage.gpu_part_ms_lost.get(), gpu),
    }
}

// What has gone is told by its number.

pub(super) fn queue_name(state: &State, id: QueueId) -> String {
    state.queues.get(id).map_or_else(|| id.to_string(), |queue| queue.name.to_string())
}

fn pool_name(state: &State, id: PoolId) -> String {
    state.pools.get(id).map_or_else(|| id.to_string(), |pool| pool.name.to_string())
}

fn workspace_name(state: &State, id: WorkspaceId) -> String {
    state.workspaces.get(id).map_or_else(|| id.to_string(), |found| found.name.to_string())
}

fn user_name(state: &State, id: PrincipalId) -> String {
    state.principals.get(id).map_or_else(|| id.to_string(), |user| user.name.to_string())
}
