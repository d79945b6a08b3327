//! Why a task waits.

use super::holder::{limit_scope, queue_name};
use super::job::mig_profile;
use super::task::TaskIndices;
use crate::v1::{self, change, constraint::What};
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_core::scheduler::{Change, Constraint, Explanation, GroupNumbers, Holder, Outlook};
use yard_core::state::State;

/// What the scheduler says about a task. Whoever answers adds how its last attempt failed, and
/// how far the present one is.
#[must_use]
pub fn explanation(state: &State, explanation: &Explanation) -> v1::Explanation {
    let job = state.jobs.get(explanation.task.job);
    let indices = job.map(TaskIndices::of).unwrap_or_default();
    let told = |told: &Constraint| constraint(state, told);
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

fn constraint(state: &State, constraint: &Constraint) -> v1::Constraint {
    let what = match constraint {
        Constraint::Held(reason) => What::Held(reason.to_string()),
        Constraint::Suspended(reason) => What::Suspended(reason.to_string()),
        Constraint::Dependency(jobs) => {
            What::Dependency(v1::JobIds { job_ids: jobs.iter().map(|job| job.0).collect() })
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
            let claim = |(job, nodes): &(yard_common::id::JobId, u32)| v1::Claim {
                job_id: job.0,
                nodes: *nodes,
            };
            What::Claimed(v1::Claims { claims: jobs.iter().map(claim).collect() })
        }
        Constraint::HeldBy(holders) => {
            What::HeldBy(v1::Holders { holders: holders.iter().map(Into::into).collect() })
        }
        Constraint::InDoubt { silent, unreaped } => {
            What::InDoubt(v1::InDoubt { silent: *silent, unreaped: *unreaped })
        }
        Constraint::Position { queue, ahead } => {
            What::Position(v1::QueuePosition { queue: queue_name(state, *queue), ahead: *ahead })
        }
    };
    v1::Constraint { what: Some(what), text: constraint.to_string() }
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
            most_free: Some((&group.most_free).into()),
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
