//! Attempts: what tasks and allocations say of each other, gangs, totals, shapes.

use super::{Findings, Rule};
use crate::state::{Allocation, Holding, HoldingKey, Phase, State};
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::{AllocationId, AttemptNumber, JobId, ShapeId, TaskIndex};
use yard_common::state::{AttemptState, TaskState};

/// An allocation with the attempts of it that have not ended, by task, each with its position.
type Held = BTreeMap<(JobId, TaskIndex), (AllocationId, AttemptNumber, u32)>;

pub(super) fn check(state: &State, findings: &mut Findings) {
    let mut held = Held::new();
    for (id, allocation) in state.allocations.iter() {
        check_chain(id, allocation, findings);
        check_gang(state, id, allocation, findings);
        for (offset, (index, attempt)) in (0u32..).zip(allocation.left().tasks()) {
            let position = allocation.ended + offset;
            let twice = held.insert((allocation.job, index), (id, attempt, position));
            findings.expect(Rule::Attempt, twice.is_none(), || {
                format!("task {}[{index}] has two attempts: {twice:?}, {id}", allocation.job)
            });
        }
    }
    check_tasks(state, &held, findings);
    check_holdings(state, findings);
    check_shapes(state, findings);
}

/// Every task holds what its allocation says, and none holds what no allocation says.
fn check_tasks(state: &State, held: &Held, findings: &mut Findings) {
    let rule = Rule::Attempt;
    let mut found = 0;
    for (id, job) in state.jobs.iter() {
        for (run, status) in job.tasks.iter() {
            let tried = status.attempt.0 > 0;
            let started = status.phase.state().is_active() || status.phase == Phase::Succeeded;
            findings.expect(rule, tried || !started, || {
                format!("tasks {run} of job {id} are {:?} without an attempt", status.phase)
            });
            let Some(allocation) = status.phase.allocation() else { continue };
            for index in run.indices() {
                found += 1;
                let kept = held.get(&(id, index)).map(|(id, attempt, _)| (*id, *attempt));
                let what = || format!("task {id}[{index}], allocation and attempt");
                findings.same(rule, what, &Some((allocation, status.attempt)), &kept);
                check_progress(state, id, index, status.phase, held, findings);
            }
        }
    }
    findings.same(rule, || "tasks that hold resources".into(), &found, &held.len());
}

/// Whether a task is as far as its allocation says.
fn check_progress(
    state: &State,
    job: JobId,
    index: TaskIndex,
    phase: Phase,
    held: &Held,
    findings: &mut Findings,
) {
    let Some((id, _, position)) = held.get(&(job, index)) else { return };
    let allocation = &state.allocations[*id];
    let started = *position < allocation.started;
    let fits = match phase.state() {
        TaskState::Preparing => !started,
        TaskState::Running => started,
        TaskState::Stopping => allocation.state == AttemptState::Stopping,
        TaskState::Blocked
        | TaskState::Queued
        | TaskState::Backoff
        | TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Cancelled => false,
    };
    findings.expect(Rule::Attempt, fits, || {
        let (state, started) = (allocation.state, allocation.started);
        format!(
            "task {job}[{index}] is {phase:?} at position {position}; \
             allocation {id} is {state}, {started} started"
        )
    });
}

/// Positions of the chain, and the cause of a stop.
fn check_chain(id: AllocationId, allocation: &Allocation, findings: &mut Findings) {
    let Allocation { chain, len, started, ended, keep, state, cause, .. } = allocation;
    let in_order = ended < len && ended <= started && started <= len && *len <= chain.len();
    findings.expect(Rule::Chain, in_order && keep <= len, || {
        format!("allocation {id}: ended {ended}, started {started}, keep {keep}, len {len}")
    });
    let tasks: BTreeSet<_> = chain.tasks().map(|(index, _)| index).collect();
    let what = || format!("allocation {id}, different tasks");
    findings.same(Rule::Chain, what, &(chain.len() as usize), &tasks.len());
    let alone = allocation.shares.len() == 1 || chain.len() == 1;
    findings.expect(Rule::Chain, alone, || format!("allocation {id}: a gang with a chain"));
    let fits = match state {
        AttemptState::Preparing | AttemptState::Running => cause.is_none(),
        AttemptState::Stopping => cause.is_some(),
        AttemptState::Ended => false,
    };
    findings.expect(Rule::Chain, fits, || format!("allocation {id} is {state} with {cause:?}"));
}

fn check_gang(state: &State, id: AllocationId, allocation: &Allocation, findings: &mut Findings) {
    let rule = Rule::Gang;
    let Some(job) = state.jobs.get(allocation.job) else {
        return findings.expect(rule, false, || format!("the job of allocation {id} is gone"));
    };
    findings.same(rule, || format!("allocation {id}, shape"), &allocation.shape, &job.shape);
    let groups = &job.plan.shape.groups;
    let known = allocation.shares.iter().all(|share| usize::from(share.group) < groups.len());
    findings.expect(rule, known, || format!("allocation {id} has a group too many"));
    for (position, group) in groups.iter().enumerate() {
        let shares = allocation.shares.iter().filter(|s| usize::from(s.group) == position);
        let nodes: Vec<_> = shares.map(|share| share.node).collect();
        let different: BTreeSet<_> = nodes.iter().collect();
        let count = nodes.len() as u64;
        let enough = (u64::from(group.nodes_min)..=u64::from(group.nodes_max)).contains(&count);
        findings.expect(rule, enough && different.len() == nodes.len(), || {
            format!("allocation {id}, group {}: nodes {nodes:?}", group.name)
        });
    }
}

/// Totals of queues, workspaces and owners.
fn check_holdings(state: &State, findings: &mut Findings) {
    let mut found: BTreeMap<HoldingKey, Holding> = BTreeMap::new();
    let mut add = |job: JobId, more: Holding| {
        let Some(job) = state.jobs.get(job) else { return };
        for key in [
            HoldingKey::Queue(job.queue),
            HoldingKey::Workspace(job.workspace),
            HoldingKey::Owner(job.owner),
            HoldingKey::OwnerInQueue(job.queue, job.owner),
        ] {
            let held = found.entry(key).or_default();
            held.amounts = held.amounts.checked_add(&more.amounts).unwrap_or(held.amounts);
            held.gpu_parts += more.gpu_parts;
            held.tasks += more.tasks;
            held.jobs += more.jobs;
        }
    };
    for (id, job) in state.jobs.iter() {
        if !job.state.is_terminal() {
            add(id, Holding { jobs: 1, ..Holding::default() });
        }
    }
    for (_, allocation) in state.allocations.iter() {
        add(allocation.job, Holding { tasks: 1, ..Holding::default() });
        for share in &allocation.shares {
            let gpu_parts = u64::from(share.gpus.parts) * u64::from(share.gpus.devices.len());
            add(allocation.job, Holding { amounts: share.amounts, gpu_parts, tasks: 0, jobs: 0 });
        }
    }
    let kept: BTreeMap<_, _> = state.holdings.iter().map(|(key, held)| (*key, *held)).collect();
    findings.same(Rule::Holdings, || "totals".into(), &kept, &found);
}

fn check_shapes(state: &State, findings: &mut Findings) {
    let rule = Rule::Shapes;
    let mut found: BTreeMap<ShapeId, u64> = BTreeMap::new();
    for (id, job) in state.jobs.iter() {
        *found.entry(job.shape).or_default() += 1;
        let same = state.shapes.find(job.shape).is_some_and(|shape| **shape == job.plan.shape);
        findings.expect(rule, same, || format!("shape {} of job {id} is another", job.shape));
    }
    for (_, allocation) in state.allocations.iter() {
        *found.entry(allocation.shape).or_default() += 1;
    }
    let kept: BTreeMap<_, _> = state.shapes.iter().map(|(id, _, users)| (id, users)).collect();
    findings.same(rule, || "users of shapes".into(), &kept, &found);
    let by_content: Vec<_> = state.shapes.by_content().collect();
    let mut by_id: Vec<_> = state.shapes.iter().map(|(id, shape, _)| (shape, id)).collect();
    by_id.sort_unstable();
    findings.same(rule, || "shapes by content".into(), &by_content, &by_id);
}
