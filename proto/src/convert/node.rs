//! Nodes as people see them.

use crate::v1::{self, NodeCondition};
use yard_common::gpu::GpuGrant;
use yard_common::id::{AllocationId, JobId, NodeId};
use yard_common::state::NodeState;
use yard_core::command::Condition;
use yard_core::state::{Cordon, HeldBack, Leftover, Node, State};

/// A node with all that is on it.
///
/// `silent_ms`: how long it has not been heard of, if whoever answers knows.
#[must_use]
pub fn node(state: &State, id: NodeId, node: &Node, silent_ms: Option<u64>) -> v1::Node {
    let mut message = node_row(state, id, node, silent_ms);
    for (allocation_id, ()) in node.allocations.iter() {
        let Some(allocation) = state.allocations.get(*allocation_id) else { continue };
        let shares = allocation.shares.iter().filter(|share| share.node == id);
        message.shares.extend(shares.map(|share| {
            let mut told = v1::NodeShare {
                job_id: allocation.job.0,
                allocation_id: allocation_id.0,
                group: share.group.into(),
                amounts: Some((&share.amounts).into()),
                gpu_uuids: grant_uuids(node, &share.gpus),
                gpu_parts_each: share.gpus.parts.into(),
                ..v1::NodeShare::default()
            };
            told.set_state(share.state.into());
            told
        }));
    }
    message.leftovers = node
        .leftovers
        .iter()
        .map(|(id, left)| leftover(node, id.allocation, id.group, left))
        .collect();
    message
}

/// A node as a row of a list: without shares and leftovers.
#[must_use]
pub fn node_row(state: &State, id: NodeId, node: &Node, silent_ms: Option<u64>) -> v1::Node {
    let facts = &node.facts;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let label =
        |(key, value): &(String, String)| v1::Label { key: key.clone(), value: value.clone() };
    let drain = node.drain.as_ref().map(|drain| v1::Drain {
        at_cluster_ms: drain.at_ms,
        deadline_cluster_ms: drain.deadline_ms,
        reason: drain.reason.to_string(),
    });
    let mut message = v1::Node {
        id: id.0,
        name: node.name.to_string(),
        pool: state.pools.get(node.pool).map(|pool| pool.name.to_string()).unwrap_or_default(),
        amounts: Some((&facts.amounts).into()),
        used: Some((&node.used).into()),
        gpus: gpus(node),
        gpus_free: count(node.free_devices().positions().count()),
        gpus_bad: count(facts.devices.len() - node.healthy().count()),
        labels: facts.labels.iter().map(label).collect(),
        address: facts.address.clone(),
        agent_version: facts.version.clone(),
        drain,
        cordoned: node.cordoned,
        maintenance_until_cluster_ms: node
            .is_away(state.now_ms())
            .then_some(node.maintenance_until_ms),
        job_ids: job_ids(state, node),
        silent_ms,
        generation: node.generation.0,
        lease_id: node.lease.0,
        boot_id: super::boot_id_bytes(facts.boot),
        health: facts.conditions.iter().map(|one| health(node, one)).collect(),
        cordon: node.cordon.as_ref().map(cordon),
        held_back: node.held_back.iter().map(held_back).collect(),
        check_asked: node.check,
        check_done: facts.checked,
        setup: super::setup::node_setup(state, node),
        ..v1::Node::default()
    };
    message.set_state(node.state.into());
    for condition in conditions(node, state.now_ms()) {
        message.push_conditions(condition);
    }
    message
}

/// How long facts are on the wire.
#[must_use]
pub fn facts_len(facts: &v1::NodeFacts) -> usize {
    prost::Message::encoded_len(facts)
}

/// Why a node takes no work, or soon will not.
fn conditions(node: &Node, now_ms: u64) -> Vec<NodeCondition> {
    let mut found = Vec::new();
    match node.state {
        NodeState::Up => (),
        NodeState::Suspect => found.push(NodeCondition::Suspect),
        NodeState::Lost => found.push(NodeCondition::Lost),
        NodeState::Removed => found.push(NodeCondition::Removed),
    }
    if node.cordoned {
        found.push(NodeCondition::Cordoned);
    }
    match &node.drain {
        Some(drain) if drain.at_ms <= now_ms => found.push(NodeCondition::Draining),
        Some(_) => found.push(NodeCondition::DrainPlanned),
        None => (),
    }
    if node.setup_due {
        found.push(NodeCondition::Setup);
    }
    if node.unwell {
        found.push(NodeCondition::Unwell);
    }
    if node.is_away(now_ms) {
        found.push(NodeCondition::Maintenance);
    }
    found
}

fn gpus(node: &Node) -> Vec<v1::GpuDevice> {
    let devices = node.facts.devices.iter().zip(node.device_parts.iter());
    let device = devices.map(|(device, parts)| v1::GpuDevice {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        memory_bytes: device.memory.0,
        mig_profile: device.mig.map(|profile| profile.to_string()).unwrap_or_default(),
        healthy: device.healthy,
        parts_used: (*parts).into(),
        held_back: node.held_back.iter().any(|held| *held.gpu == *device.uuid),
    });
    device.collect()
}

fn health(node: &Node, condition: &Condition) -> v1::HealthCondition {
    let device = condition.device.and_then(|at| node.facts.devices.get(usize::from(at)));
    let mut told = v1::HealthCondition {
        gpu: device.map(|device| device.uuid.clone()).unwrap_or_default(),
        since_wall_ms: condition.since_wall_ms,
        why: condition.why.clone(),
        until_boot: condition.until_boot,
        ..v1::HealthCondition::default()
    };
    told.set_kind(condition.kind.into());
    told.set_bars(condition.kind.bars().into());
    told
}

fn cordon(cordon: &Cordon) -> v1::Cordon {
    v1::Cordon {
        reason: cordon.reason.to_string(),
        since_wall_ms: cordon.since_wall_ms,
        check_at_cluster_ms: cordon.check_at_ms,
    }
}

fn held_back(held: &HeldBack) -> v1::HeldBackGpu {
    v1::HeldBackGpu {
        gpu: held.gpu.to_string(),
        reason: held.reason.to_string(),
        since_wall_ms: held.since_wall_ms,
    }
}

/// Different jobs with a share on the node, in order.
fn job_ids(state: &State, node: &Node) -> Vec<u64> {
    let allocations = node.allocations.iter().filter_map(|(id, ())| state.allocations.get(*id));
    let jobs: std::collections::BTreeSet<JobId> = allocations.map(|held| held.job).collect();
    jobs.into_iter().map(|job| job.0).collect()
}

fn leftover(node: &Node, id: AllocationId, group: u8, left: &Leftover) -> v1::NodeLeftover {
    v1::NodeLeftover {
        job_id: left.job.0,
        allocation_id: id.0,
        group: group.into(),
        amounts: Some((&left.amounts).into()),
        gpu_uuids: grant_uuids(node, &left.gpus),
        in_doubt: left.in_doubt,
    }
}

/// The name of a node, or its number if it is known no more.
pub(super) fn name(state: &State, id: NodeId) -> String {
    state.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
}

/// The devices of a grant on a node, by UUID.
pub(super) fn uuids(state: &State, id: NodeId, grant: &GpuGrant) -> Vec<String> {
    state.nodes.get(id).map(|node| grant_uuids(node, grant)).unwrap_or_default()
}

fn grant_uuids(node: &Node, grant: &GpuGrant) -> Vec<String> {
    let devices = grant.devices.positions().filter_map(|at| node.facts.devices.get(at));
    devices.map(|device| device.uuid.clone()).collect()
}
