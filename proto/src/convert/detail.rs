//! What an agent needs to run an assignment, beyond the desired set.

use super::task::{Ranks, TaskIndices, gang};
use crate::internal::{Desired, Detail, DetailTask, GangNode, TaskParameter};
use crate::wire::{Payload, PayloadError};
use prost::Message;
use yard_common::id::{NodeId, TaskRange};
use yard_common::limits::{INTERNAL_MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use yard_common::spec::JobSpec;
use yard_core::agent::{self, AssignmentId, Chain};
use yard_core::job::Shape;
use yard_core::state::{Job, State};

/// Details beside the largest set, with a MiB for what is around the two.
const DETAILS_BYTES_MAX: usize = INTERNAL_MESSAGE_BYTES_MAX - PAYLOAD_BYTES_MAX - (1 << 20);

/// The detail of one assignment of a node; none if the state has no such assignment, or nothing of
/// it can start any more (it is left behind by an ended attempt).
#[must_use]
pub fn detail(state: &State, node: NodeId, id: AssignmentId) -> Option<Detail> {
    let allocation = state.allocations.get(id.allocation)?;
    let job = state.jobs.get(allocation.job)?;
    let shape: &Shape = state.shapes.find(allocation.shape)?;
    let at = allocation.share_of(node, id.group)?;
    let share = &allocation.shares[at];
    let owner = state.principals.get(job.owner);
    let named = |name: Option<&str>| name.unwrap_or_default().to_string();
    let spec = job.plan.array.as_ref().and_then(|_| JobSpec::from_json(&job.spec).ok());
    let shares = gang(Some(shape), &allocation.shares);
    Some(Detail {
        allocation_id: id.allocation.0,
        group: id.group.into(),
        job_id: allocation.job.0,
        job_name: job.plan.name.to_string(),
        workspace: named(state.workspaces.get(job.workspace).map(|found| &*found.name)),
        experiment: named(
            job.experiment.and_then(|id| state.experiments.get(id)).map(|found| &*found.name),
        ),
        owner: named(owner.map(|owner| &*owner.name)),
        unix_login: named(owner.and_then(|owner| owner.unix.as_deref())),
        spec: spec.as_ref().map_or_else(|| job.spec.to_string(), JobSpec::to_json_without_rows),
        group_name: group_name(shape, share.group),
        node_rank: u32::try_from(at).ok()?,
        gang: shares.iter().map(|ranks| gang_node(state, shape, ranks)).collect(),
        gpu_uuids: super::node::uuids(state, node, &share.gpus),
        gpu_parts_each: share.gpus.parts.into(),
        amounts: Some((&share.amounts).into()),
        task_count: job.tasks.range().len,
        tasks: tasks(job, spec.as_ref(), &allocation.chain),
        time_limit_ms: job.plan.time_limit_ms,
    })
}

fn group_name(shape: &Shape, group: u8) -> String {
    shape.groups.get(usize::from(group)).map(|group| group.name.to_string()).unwrap_or_default()
}

fn gang_node(state: &State, shape: &Shape, ranks: &Ranks<'_>) -> GangNode {
    let share = ranks.share;
    let address = state.nodes.get(share.node).map(|node| node.facts.address.clone());
    GangNode {
        group: share.group.into(),
        group_name: group_name(shape, share.group),
        node_id: share.node.0,
        name: super::node::name(state, share.node),
        address: address.unwrap_or_default(),
        ranks: ranks.count,
        first_rank: ranks.first,
        gpus: u32::try_from(share.gpus.devices.positions().count()).unwrap_or(u32::MAX),
    }
}

/// Every task of a chain, in order, neighbours as one where they differ in nothing but their
/// index.
fn tasks(job: &Job, spec: Option<&JobSpec>, chain: &Chain) -> Vec<DetailTask> {
    let indices = TaskIndices::of(&job.plan);
    let mut told = Vec::new();
    for link in &chain.0 {
        for (run, status) in job.tasks.within(link.tasks) {
            // Shown ranges follow each other within the run of positions.
            let mut first = run.first;
            for shown in indices.shown(run) {
                let positions = TaskRange { first, len: shown.len };
                first = first.saturating_add(shown.len);
                let task = |positions: TaskRange, shown_first: u32| DetailTask {
                    tasks: Some(positions.into()),
                    last_cause: status.cause.map(Into::into),
                    parameters: Vec::new(),
                    shown_first,
                };
                let Some(spec) = spec.filter(|spec| spec.has_parameters()) else {
                    told.push(task(positions, shown.first));
                    continue;
                };
                told.extend(positions.indices().zip(shown.indices()).map(|(position, index)| {
                    let parameters = parameters(spec, index);
                    DetailTask { parameters, ..task(TaskRange::one(position), index) }
                }));
            }
        }
    }
    told
}

fn parameters(spec: &JobSpec, index: u32) -> Vec<TaskParameter> {
    let told = super::parameters(spec, index).into_iter();
    told.map(|parameter| TaskParameter { key: parameter.key, value: parameter.value }).collect()
}

/// The messages that tell a node its desired set: details that do not fit beside it come ahead.
///
/// # Errors
/// If the set, or a single detail, is larger than a message may be.
pub fn messages(
    desired: &agent::Desired,
    details: Vec<Detail>,
) -> Result<Vec<Desired>, PayloadError> {
    let room = DETAILS_BYTES_MAX;
    let payload = desired.to_payload()?;
    let mut found: Vec<Desired> = Vec::new();
    let mut batch = Vec::new();
    let mut size = 0;
    for detail in details {
        let len = detail.encoded_len();
        if len > room {
            let what = "detail of an assignment";
            return Err(PayloadError::TooLong { what, found: len, limit: room });
        }
        if size + len > room {
            let details = std::mem::take(&mut batch);
            found.push(Desired { payload: bytes::Bytes::new(), details });
            size = 0;
        }
        size += len;
        batch.push(detail);
    }
    found.push(Desired { payload, details: batch });
    Ok(found)
}
