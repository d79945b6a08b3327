//! Nodes and pools: what machines list, and what they hold.

use super::{Findings, Rule};
use crate::job::Floor;
use crate::state::{Node, State};
use std::collections::BTreeSet;
use yard_common::Amounts;
use yard_common::gpu::{GPU_PARTS, GpuGrant};
use yard_common::id::{AllocationId, NodeId};
use yard_common::state::NodeState;

pub(super) fn check(state: &State, findings: &mut Findings) {
    for (id, node) in state.nodes.iter() {
        check_lists(state, id, node, findings);
        check_sums(state, id, node, findings);
    }
    for (id, allocation) in state.allocations.iter() {
        let absent = allocation.shares.iter().find(|share| state.nodes.get(share.node).is_none());
        findings.expect(Rule::NodeBooks, absent.is_none(), || {
            format!("allocation {id} has a share on a node that is gone: {absent:?}")
        });
    }
    check_pools(state, findings);
}

/// A node lists exactly the allocations with a share on it; what is left behind is of none.
fn check_lists(state: &State, id: NodeId, node: &Node, findings: &mut Findings) {
    let here = state
        .allocations
        .iter()
        .filter(|(_, allocation)| allocation.shares.iter().any(|share| share.node == id));
    let found: BTreeSet<AllocationId> = here.map(|(allocation, _)| allocation).collect();
    let kept: BTreeSet<_> = node.allocations.iter().map(|(id, ())| *id).collect();
    findings.same(Rule::NodeBooks, || format!("node {id}, allocations"), &kept, &found);
    for (left, _) in node.leftovers.iter() {
        let lives = state.allocations.contains(left.allocation);
        findings.expect(Rule::NodeBooks, !lives, || {
            format!("node {id}: allocation {} was left behind, but lives", left.allocation)
        });
    }
    let unwell = node.facts.is_unwell();
    findings.same(Rule::NodeBooks, || format!("node {id}, unwell"), &node.unwell, &unwell);
    let due = state.pools[node.pool].is_setup_due(&node.facts);
    findings.same(Rule::NodeBooks, || format!("node {id}, setup"), &node.setup_due, &due);
    findings.expect(Rule::NodeBooks, node.state != NodeState::Removed, || {
        format!("node {id} was removed, but is here")
    });
}

/// What is used is the sum of all shares and of all that was left behind.
fn check_sums(state: &State, id: NodeId, node: &Node, findings: &mut Findings) {
    let shares = state.allocations.iter().flat_map(|(_, allocation)| &allocation.shares);
    let here = shares.filter(|share| share.node == id).map(|share| (share.amounts, share.gpus));
    let left = node.leftovers.iter().map(|(_, left)| (left.amounts, left.gpus));
    let holds: Vec<(Amounts, GpuGrant)> = here.chain(left).collect();
    let used = holds.iter().try_fold(Amounts::ZERO, |sum, (amounts, _)| sum.checked_add(amounts));
    findings.same(Rule::NodeBooks, || format!("node {id}, used"), &Some(node.used), &used);
    let devices = node.facts.devices.len();
    let what = || format!("node {id}, devices");
    findings.same(Rule::Devices, what, &node.device_parts.len(), &devices);
    let mut parts = vec![0u32; devices];
    for (_, gpus) in &holds {
        for position in gpus.devices.positions() {
            match parts.get_mut(position) {
                Some(sum) => *sum += u32::from(gpus.parts),
                None => findings.expect(Rule::Devices, false, || {
                    format!("node {id}: device {position} is held, but there are {devices}")
                }),
            }
        }
    }
    let kept: Vec<u32> = node.device_parts.iter().map(|parts| u32::from(*parts)).collect();
    findings.same(Rule::Devices, || format!("node {id}, parts of devices"), &kept, &parts);
    let most = parts.iter().max().copied().unwrap_or(0);
    findings.expect(Rule::Devices, most <= u32::from(GPU_PARTS), || {
        format!("node {id}: {most} parts of a device are held")
    });
}

fn check_pools(state: &State, findings: &mut Findings) {
    for (id, pool) in state.pools.iter() {
        let nodes: Vec<_> = state.nodes.iter().filter(|(_, node)| node.pool == id).collect();
        let what = || format!("pool {id}, nodes");
        findings.same(Rule::Pools, what, &(pool.nodes as usize), &nodes.len());
        let floor = nodes.iter().fold(None, |floor, (_, node)| {
            Some(Floor::with(floor, &node.facts.amounts, node.facts.devices.len() as u32))
        });
        findings.same(Rule::Pools, || format!("pool {id}, smallest node"), &pool.floor, &floor);
    }
    for (id, node) in state.nodes.iter() {
        let exists = state.pools.get(node.pool).is_some();
        findings.expect(Rule::Pools, exists, || format!("the pool of node {id} is gone"));
    }
}
