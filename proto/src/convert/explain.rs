//! Why a task waits.

use super::holder::{limit_scope, queue_name};
use super::job::mig_profile;
use super::task::TaskIndices;
use crate::v1::{self, change, constraint::What};
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_common::id::JobId;
use yard_core::scheduler::{Change, Constraint, Explanation, GroupNumbers, Holder, Outlook};
use yard_core::state::State;

/// What the scheduler says about a task. Whoever answers adds how its last attempt failed, and
/// how far the present one is. `now_ms`: the cluster's time, from which times are told. `sees`:
/// whether the one who asks may know of a job; others are counted.
#[must_use]
pub fn explanation(
    state: &State,
    explanation: &Explanation,
    now_ms: u64,
    sees: &dyn Fn(JobId) -> bool,
) -> v1::Explanation {
    let job = state.jobs.get(explanation.task.job);
    let indices = job.map(|job| TaskIndices::of(&job.plan)).unwrap_or_default();
    let told = |told: &Constraint| constraint(state, told, now_ms, sees);
    let mut message = v1::Explanation {
        job_id: explanation.task.job.0,
        task_index: indices.shown_one(explanation.task.index),
        constraints: explanation.constraints.iter().map(told).collect(),
        changes: explanation.changes.iter().map(Into::into).collect(),
        ..v1::Explanation::default()
    };
    message.set_state(explanation.state.into());
    message.set_outlook(match explanation.outlook {
        Outlook::NotPending => v1::Outlook::NotPending,
        Outlook::Starts => v1::Outlook::Starts,
        Outlook::Waits(_) => v1::Outlook::Waits,
    });
    if let Some(reason) = explanation.reason() {
        message.set_reason(reason.into());
    }
    message
}

fn constraint(
    state: &State,
    constraint: &Constraint,
    now_ms: u64,
    sees: &dyn Fn(JobId) -> bool,
) -> v1::Constraint {
    let what = match constraint {
        Constraint::Held(reason) => What::Held(reason.to_string()),
        Constraint::Suspended(reason) => What::Suspended(reason.to_string()),
        Constraint::Dependency(jobs) => {
            let (seen, hidden): (Vec<JobId>, Vec<_>) = jobs.iter().partition(|job| sees(**job));
            let job_ids = seen.into_iter().map(|job| job.0).collect();
            What::Dependency(v1::JobIds { job_ids, hidden: count(hidden.len()) })
        }
        Constraint::NotBefore(at_ms) => What::NotBeforeClusterMs(*at_ms),
        Constraint::Backoff(until_ms) => What::BackoffClusterMs(*until_ms),
        Constraint::QueueClosed(queue) => What::QueueClosed(queue_name(state, *queue)),
        Constraint::Throttle { running, max } => {
            What::Throttle(v1::Throttle { running: *running, max: *max })
        }
        Constraint::Limit(excess) => What::Limit(v1::LimitPassed {
            scope: Some(limit_scope(state, excess.scope)),
            what: excess.what.to_string(),
            limit: excess.limit,
            held: excess.held,
            asked: excess.asked,
        }),
        Constraint::Nodes(groups) => {
            What::Nodes(v1::GroupNumbersList { groups: groups.iter().map(Into::into).collect() })
        }
        Constraint::Claimed(jobs) => {
            let (seen, hidden): (Vec<(JobId, u32)>, Vec<_>) =
                jobs.iter().copied().partition(|(job, _)| sees(*job));
            let claim = |(job, nodes): (JobId, u32)| v1::Claim { job_id: job.0, nodes };
            let claims = seen.into_iter().map(claim).collect();
            let hidden = hidden_jobs(hidden.into_iter().map(|(_, nodes)| (nodes, 0)));
            What::Claimed(v1::Claims { claims, hidden })
        }
        Constraint::HeldBy(holders) => {
            let (seen, hidden): (Vec<&Holder>, Vec<_>) =
                holders.iter().partition(|holder| sees(holder.job));
            let holders = seen.into_iter().map(Into::into).collect();
            let hidden = hidden.into_iter().map(|holder| (holder.nodes, holder.gpu_parts));
            What::HeldBy(v1::Holders { holders, hidden: hidden_jobs(hidden) })
        }
        Constraint::InDoubt { silent, unreaped } => {
            What::InDoubt(v1::InDoubt { silent: *silent, unreaped: *unreaped })
        }
        Constraint::Position { queue, ahead } => {
            What::Position(v1::QueuePosition { queue: queue_name(state, *queue), ahead: *ahead })
        }
    };
    v1::Constraint { what: Some(what), text: constraint.told(state, now_ms, sees) }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Nodes and parts of GPUs of jobs that are not told of one by one; none: there are none.
fn hidden_jobs(hidden: impl Iterator<Item = (u32, u64)>) -> Option<v1::HiddenJobs> {
    hidden.fold(None, |all, (nodes, gpu_parts)| {
        let all: v1::HiddenJobs = all.unwrap_or_default();
        Some(v1::HiddenJobs {
            jobs: all.jobs.saturating_add(1),
            nodes: all.nodes.saturating_add(nodes),
            gpu_parts: all.gpu_parts.saturating_add(gpu_parts),
        })
    })
}

impl From<&GroupNumbers> for v1::GroupNumbers {
    fn from(group: &GroupNumbers) -> Self {
        let unfit = group.unfit.iter().map(|(why, nodes)| {
            let mut count = v1::UnfitCount { why: 0, nodes: *nodes };
            count.set_why((*why).into());
            count
        });
        v1::GroupNumbers {
            name: group.name.to_string(),
            wanted: group.wanted,
            amounts: Some((&group.amounts).into()),
            gpu_parts: match group.gpus {
                GpuCount::None => 0,
                GpuCount::Part(parts) => parts.into(),
                GpuCount::Whole(count) | GpuCount::Mig(_, count) => {
                    u64::from(count) * u64::from(GPU_PARTS)
                }
            },
            mig_profile: mig_profile(group.gpus),
            nodes: group.nodes,
            ever: group.ever,
            free: group.free,
            unfit: unfit.collect(),
            most_free: group.most_free.as_ref().map(Into::into),
            most_free_gpus: group.most_free_gpus,
            together: group.together,
        }
    }
}

impl From<&Holder> for v1::Holder {
    fn from(holder: &Holder) -> Self {
        v1::Holder { job_id: holder.job.0, nodes: holder.nodes, gpu_parts: holder.gpu_parts }
    }
}

impl From<&Change> for v1::Change {
    fn from(told: &Change) -> Self {
        let what = match told {
            Change::Nodes(nodes) => change::What::Nodes(*nodes),
            Change::Gpus(gpus) => change::What::Gpus((*gpus).into()),
            Change::Limit { what, bound } => {
                change::What::Limit(v1::HigherLimit { what: (*what).to_string(), bound: *bound })
            }
            Change::Release => change::What::Release(true),
            Change::OpenQueue => change::What::OpenQueue(true),
        };
        v1::Change { what: Some(what), text: told.to_string() }
    }
}
