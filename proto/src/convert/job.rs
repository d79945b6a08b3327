//! Jobs as people see them.

use super::task::allocations;
use crate::v1;
use std::collections::BTreeSet;
use yard_common::gpu::{GpuCount, GpuRequest};
use yard_common::id::{JobId, NodeId};
use yard_common::limits::{SUMMARY_NODES_MAX, SUMMARY_RUNS_MAX};
use yard_common::state::{JobState, TaskState};
use yard_common::{ExitCause, PendingReason};
use yard_core::job::{Ask, Group, Shape};
use yard_core::state::{Counts, Job, Phase, State, TaskStatus};

/// A job. What is summed up from tasks (cause, attempt, nodes) is so from the first
/// `SUMMARY_RUNS_MAX` runs of them.
#[must_use]
pub fn job(state: &State, id: JobId, job: &Job) -> v1::Job {
    let plan = &job.plan;
    let summary = Summary::of(state, job);
    let cancel = job.cancels.last();
    let mut message = v1::Job {
        id: id.0,
        name: plan.name.to_string(),
        workspace: name(state.workspaces.get(job.workspace).map(|workspace| &*workspace.name)),
        owner: name(state.principals.get(job.owner).map(|principal| &*principal.name)),
        queue: name(state.queues.get(job.queue).map(|queue| &*queue.name)),
        experiment: name(
            job.experiment.and_then(|id| state.experiments.get(id)).map(|found| &*found.name),
        ),
        pool: name(plan.shape.pool.and_then(|id| state.pools.get(id)).map(|pool| &*pool.name)),
        cause: summary.cause.map(Into::into),
        priority: plan.priority,
        time_limit_ms: plan.time_limit_ms,
        preemptible: plan.preemptible,
        groups: plan.shape.groups.iter().map(Into::into).collect(),
        nodes: plan.shape.nodes_min(),
        gpu_parts: gpu_parts(&plan.shape),
        is_array: plan.array.is_some(),
        task_count: job.tasks.range().len,
        counts: Some(job.tasks.counts().into()),
        running_max: plan.array.as_ref().and_then(|array| array.running_max),
        attempt: summary.attempt,
        allocations: job.allocations,
        revision: job.revision,
        submitted: Some(job.submitted.into()),
        ended: job.ended.map(Into::into),
        held: job.waits.held.as_deref().map(str::to_string),
        suspended: job.waits.suspended.as_deref().map(str::to_string),
        not_before_cluster_ms: (job.waits.until_ms > 0).then_some(job.waits.until_ms),
        waits_for_jobs: job.waits.jobs,
        deadline_cluster_ms: summary.deadline_ms,
        granted_cluster_ms: summary.granted_ms,
        nodes_held: summary.nodes(state),
        nodes_held_count: u32::try_from(summary.nodes.len()).unwrap_or(u32::MAX),
        silent_attempts: u32::try_from(summary.silent.len()).unwrap_or(u32::MAX),
        silent_cluster_ms: summary.silent.iter().min().copied(),
        cancelled_by: cancel.map_or(String::new(), |cancel| state.name_of_actor(cancel.by)),
        cancel_reason: cancel.map_or(String::new(), |cancel| cancel.reason.to_string()),
        ..v1::Job::default()
    };
    message.set_state(job.state.into());
    message.set_isolation(plan.isolation.class.into());
    if let Some(reason) = summary.reason {
        message.set_reason(reason.into());
    }
    message
}

fn name(name: Option<&str>) -> String {
    name.unwrap_or_default().to_string()
}

/// GPUs of one task at least, in ten-thousandths.
fn gpu_parts(shape: &Shape) -> u64 {
    let parts = |group: &Group| group.gpus.parts().saturating_mul(group.nodes_min.into());
    shape.groups.iter().fold(0, |sum: u64, group| sum.saturating_add(parts(group)))
}

/// What the tasks of a job tell of it.
struct Summary {
    cause: Option<ExitCause>,
    reason: Option<PendingReason>,
    attempt: u32,
    granted_ms: Option<u64>,
    deadline_ms: Option<u64>,
    nodes: BTreeSet<NodeId>,
    /// Since when each attempt is silent that is.
    silent: Vec<u64>,
}

impl Summary {
    fn of(state: &State, job: &Job) -> Summary {
        let runs = || job.tasks.iter().take(SUMMARY_RUNS_MAX).map(|(_, status)| status);
        let held = allocations(job, SUMMARY_RUNS_MAX);
        let held: Vec<_> = held.into_iter().filter_map(|id| state.allocations.get(id)).collect();
        let shares = held.iter().flat_map(|allocation| &allocation.shares);
        Summary {
            cause: cause(job, runs()),
            reason: reason(state, job, runs()),
            attempt: runs().map(|status| status.attempt.0).max().unwrap_or(0),
            granted_ms: held.iter().map(|allocation| allocation.granted_ms).min(),
            deadline_ms: held.iter().filter_map(|allocation| allocation.deadline_ms).min(),
            nodes: shares.map(|share| share.node).collect(),
            silent: held.iter().filter_map(|held| held.silent_since_ms()).collect(),
        }
    }

    fn nodes(&self, state: &State) -> Vec<String> {
        let first = self.nodes.iter().take(SUMMARY_NODES_MAX);
        first.map(|id| super::node::name(state, *id)).collect()
    }
}

/// Why the job ended: the cause of the task that decided it. While it lives: why an attempt did.
fn cause<'a>(job: &Job, runs: impl Iterator<Item = &'a TaskStatus>) -> Option<ExitCause> {
    let decides = |status: &TaskStatus| match job.state {
        JobState::Failed => status.phase == Phase::Failed,
        JobState::Cancelled => status.phase == Phase::Cancelled,
        JobState::Queued
        | JobState::Preparing
        | JobState::Running
        | JobState::Stopping
        | JobState::Succeeded => true,
    };
    let failed = |cause: &ExitCause| job.state == JobState::Succeeded || !cause.is_success();
    let mut causes = runs.filter(|status| decides(status)).filter_map(|status| status.cause);
    causes.find(failed)
}

/// Why the job waits, as far as that is seen without asking the scheduler.
fn reason<'a>(
    state: &State,
    job: &Job,
    mut runs: impl Iterator<Item = &'a TaskStatus>,
) -> Option<PendingReason> {
    if job.state != JobState::Queued {
        return None;
    }
    let waits = &job.waits;
    let closed = state.queues.get(job.queue).is_some_and(|queue| !queue.set.starts);
    let backs_off = |status: &TaskStatus| matches!(status.phase, Phase::Backoff(_));
    let queued = job.tasks.counts().of(TaskState::Queued) > 0;
    if waits.held.is_some() {
        Some(PendingReason::Held)
    } else if waits.suspended.is_some() {
        Some(PendingReason::Suspended)
    } else if waits.jobs > 0 {
        Some(PendingReason::Dependency)
    } else if waits.until_ms > 0 {
        Some(PendingReason::NotBefore)
    } else if !queued && runs.any(backs_off) {
        Some(PendingReason::Backoff)
    } else if closed {
        Some(PendingReason::QueueClosed)
    } else {
        None
    }
}

impl From<&Counts> for v1::TaskCounts {
    fn from(counts: &Counts) -> Self {
        v1::TaskCounts {
            blocked: counts.of(TaskState::Blocked),
            queued: counts.of(TaskState::Queued),
            backoff: counts.of(TaskState::Backoff),
            preparing: counts.of(TaskState::Preparing),
            running: counts.of(TaskState::Running),
            stopping: counts.of(TaskState::Stopping),
            succeeded: counts.of(TaskState::Succeeded),
            failed: counts.of(TaskState::Failed),
            cancelled: counts.of(TaskState::Cancelled),
        }
    }
}

impl From<&Group> for v1::Group {
    fn from(group: &Group) -> Self {
        let exactly = |ask: Ask| match ask {
            Ask::Auto => None,
            Ask::Exactly(amount) => Some(amount),
        };
        v1::Group {
            name: group.name.to_string(),
            nodes_min: group.nodes_min,
            nodes_max: group.nodes_max,
            ranks_per_node: group.ranks_per_node,
            cpu_milli: exactly(group.cpus),
            memory_bytes: exactly(group.memory),
            disk_bytes: group.disk.0,
            gpus: Some((&group.gpus).into()),
        }
    }
}

impl From<&GpuRequest> for v1::GpuRequest {
    fn from(request: &GpuRequest) -> Self {
        v1::GpuRequest {
            parts: request.parts(),
            models: request.models.clone(),
            memory_min_bytes: request.memory_min.0,
            mig_profile: mig_profile(request.count),
        }
    }
}

/// The MIG profile of a request, as people write it; empty without one.
pub(super) fn mig_profile(count: GpuCount) -> String {
    match count {
        GpuCount::Mig(profile, _) => profile.to_string(),
        GpuCount::None | GpuCount::Whole(_) | GpuCount::Part(_) => String::new(),
    }
}
