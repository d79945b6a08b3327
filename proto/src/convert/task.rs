//! Tasks and attempts.
//!
//! Inside, tasks are counted without gaps: task 4 of the array `0-3,8` is the one that people call
//! 8. [`TaskIndices`] translates; every range in a public message is as people count.

use crate::v1;
use std::collections::BTreeSet;
use yard_common::id::{AllocationId, TaskIndex, TaskRange};
use yard_common::spec::JobSpec;
use yard_common::state::AttemptState;
use yard_core::agent::Chain;
use yard_core::job::{JobPlan, Shape};
use yard_core::retry::Tries;
use yard_core::state::{Allocation, Job, Phase, Share, State, TaskStatus};

/// How people count the tasks of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskIndices {
    /// Where the indices of people have gaps; else empty.
    ranges: Vec<TaskRange>,
}

impl TaskIndices {
    /// Those of a job.
    #[must_use]
    pub fn of(plan: &JobPlan) -> TaskIndices {
        TaskIndices { ranges: plan.array.as_ref().map_or_else(Vec::new, |a| a.shown.clone()) }
    }

    /// The ranges that people know a range of positions by, in order.
    #[must_use]
    pub fn shown(&self, positions: TaskRange) -> Vec<TaskRange> {
        if self.ranges.is_empty() {
            return vec![positions];
        }
        let mut found = Vec::new();
        let mut start: TaskIndex = 0;
        for range in &self.ranges {
            let end = start.saturating_add(range.len);
            let (first, last) = (positions.first.max(start), positions.end().min(end));
            if first < last {
                found.push(TaskRange { first: range.first + (first - start), len: last - first });
            }
            start = end;
        }
        found
    }

    /// The index that people know a position by.
    #[must_use]
    pub fn shown_one(&self, position: TaskIndex) -> TaskIndex {
        self.shown(TaskRange::one(position)).first().map_or(position, |range| range.first)
    }

    /// The positions of the tasks that people mean by a range; none if there is no such task.
    #[must_use]
    pub fn positions(&self, shown: TaskRange) -> Option<TaskRange> {
        if self.ranges.is_empty() {
            return Some(shown);
        }
        // Indices rise, so that those within a range are neighbours.
        let mut found: Option<TaskRange> = None;
        let mut start: TaskIndex = 0;
        for range in &self.ranges {
            let (first, last) = (shown.first.max(range.first), shown.end().min(range.end()));
            if first < last {
                let from = start + (first - range.first);
                let len = last - first;
                found = Some(found.map_or(TaskRange { first: from, len }, |before| TaskRange {
                    len: before.len + len,
                    ..before
                }));
            }
            start = start.saturating_add(range.len);
        }
        found
    }
}

/// The parameters of a task, by the index that people know it by; empty without any.
#[must_use]
pub fn parameters(spec: &JobSpec, index: TaskIndex) -> Vec<v1::Parameter> {
    let task = spec.parameters(index).into_iter();
    task.map(|(key, value)| v1::Parameter { key: key.to_string(), value }).collect()
}

/// Runs of tasks that are alike, from a position on, at most `runs_max` of them. The second is the
/// position to go on from; none: these were the last.
#[must_use]
pub fn task_runs(
    state: &State,
    job: &Job,
    wanted: TaskRange,
    accepts: impl Fn(&TaskStatus) -> bool,
    runs_max: usize,
) -> (Vec<v1::TaskRun>, Option<TaskIndex>) {
    let indices = TaskIndices::of(&job.plan);
    let spec = job.plan.array.as_ref().and_then(|_| JobSpec::from_json(&job.spec).ok());
    let mut rows = Vec::new();
    for (run, status) in job.tasks.within(wanted) {
        if !accepts(status) {
            continue;
        }
        if rows.len() >= runs_max {
            return (rows, Some(run.first));
        }
        for shown in indices.shown(run) {
            let mut row = task_run(state, shown, status);
            if let Some(spec) = spec.as_ref().filter(|_| run.len == 1) {
                row.parameters = parameters(spec, shown.first);
            }
            rows.push(row);
        }
    }
    (rows, None)
}

fn task_run(state: &State, shown: TaskRange, status: &TaskStatus) -> v1::TaskRun {
    let allocation_id = status.phase.allocation();
    let allocation = allocation_id.and_then(|id| state.allocations.get(id));
    let shares = allocation.map_or(&[][..], |allocation| &allocation.shares);
    let mut row = v1::TaskRun {
        tasks: Some(shown.into()),
        attempt: status.attempt.0,
        cause: status.cause.map(Into::into),
        tries: Some((&status.tries).into()),
        until_cluster_ms: match status.phase {
            Phase::Backoff(until_ms) => Some(until_ms),
            Phase::Blocked
            | Phase::Queued
            | Phase::Preparing(_)
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Cancelled => None,
        },
        allocation_id: allocation_id.map_or(0, |id| id.0),
        nodes: shares.iter().map(|share| super::node::name(state, share.node)).collect(),
        silent_cluster_ms: match status.phase {
            Phase::Running(_) => allocation.and_then(Allocation::silent_since_ms),
            Phase::Backoff(_)
            | Phase::Blocked
            | Phase::Queued
            | Phase::Preparing(_)
            | Phase::Stopping(_)
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Cancelled => None,
        },
        ..v1::TaskRun::default()
    };
    row.set_state(status.phase.state().into());
    row
}

impl From<&Tries> for v1::Tries {
    fn from(tries: &Tries) -> Self {
        v1::Tries {
            infra: tries.infra.into(),
            user: tries.user.into(),
            reclaimed: tries.reclaimed.into(),
            rules: tries.rules.iter().map(|spent| u32::from(*spent)).collect(),
        }
    }
}

/// The attempts that an allocation still stands for: those of its chain that have neither ended
/// nor been recalled, neighbours with the same number as one.
#[must_use]
pub fn attempts(state: &State, id: AllocationId, allocation: &Allocation) -> Vec<v1::Attempt> {
    let job = state.jobs.get(allocation.job);
    let indices = job.map(|job| TaskIndices::of(&job.plan)).unwrap_or_default();
    let shape = state.shapes.find(allocation.shape).map(|shape| &**shape);
    let shares = gang(shape, &allocation.shares);
    let shares: Vec<_> = shares.iter().map(|ranks| attempt_share(state, shape, ranks)).collect();
    // A chain runs in turn: what has not started yet prepares while another runs.
    let active = allocation.chain.slice(allocation.ended, allocation.started);
    let tail = allocation.chain.slice(allocation.started.max(allocation.ended), allocation.len);
    let tail_state = match allocation.state {
        AttemptState::Preparing | AttemptState::Running => AttemptState::Preparing,
        AttemptState::Stopping | AttemptState::Ended => allocation.state,
    };
    // Of a chain it is the task that runs.
    let silent_ms = allocation.silent_since_ms();
    let told = |chain: &Chain, attempt_state: AttemptState| {
        let mut found = Vec::new();
        for link in &chain.0 {
            for shown in indices.shown(link.tasks) {
                let mut attempt = v1::Attempt {
                    tasks: Some(shown.into()),
                    attempt: link.attempt.0,
                    allocation_id: id.0,
                    cause: allocation.cause.map(Into::into),
                    granted_cluster_ms: Some(allocation.granted_ms),
                    deadline_cluster_ms: allocation.deadline_ms,
                    shares: shares.clone(),
                    silent_cluster_ms: silent_ms.filter(|_| attempt_state == allocation.state),
                    ..v1::Attempt::default()
                };
                attempt.set_state(attempt_state.into());
                found.push(attempt);
            }
        }
        found
    };
    let mut found = told(&active, allocation.state);
    found.extend(told(&tail, tail_state));
    found
}

/// A share of a gang and the ranks that it has.
pub(super) struct Ranks<'a> {
    pub(super) share: &'a Share,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// The shares of a gang in order, with their ranks counted through.
pub(super) fn gang<'a>(shape: Option<&Shape>, shares: &'a [Share]) -> Vec<Ranks<'a>> {
    let mut first = 0u32;
    let ranks = |share: &'a Share| {
        let group = shape.and_then(|shape| shape.groups.get(usize::from(share.group)));
        let count = group.map_or(0, |group| group.ranks_per_node);
        let ranks = Ranks { share, first, count };
        first = first.saturating_add(count);
        ranks
    };
    shares.iter().map(ranks).collect()
}

fn attempt_share(state: &State, shape: Option<&Shape>, ranks: &Ranks<'_>) -> v1::AttemptShare {
    let share = ranks.share;
    let group = shape.and_then(|shape| shape.groups.get(usize::from(share.group)));
    let mut message = v1::AttemptShare {
        node: super::node::name(state, share.node),
        node_id: share.node.0,
        group: group.map_or_else(String::new, |group| group.name.to_string()),
        amounts: Some((&share.amounts).into()),
        gpu_uuids: super::node::uuids(state, share.node, &share.gpus),
        gpu_parts_each: share.gpus.parts.into(),
        exit: share.exit.map(Into::into),
        ranks: ranks.count,
        first_rank: ranks.first,
        silent_cluster_ms: share.silent_ms,
        ..v1::AttemptShare::default()
    };
    message.set_state(share.state.into());
    message
}

/// The allocations that tasks of a job hold, each once, in the order of their ids; as far as the
/// first `runs_max` runs of tasks tell.
pub(super) fn allocations(job: &Job, runs_max: usize) -> BTreeSet<AllocationId> {
    let runs = job.tasks.iter().take(runs_max);
    let held = runs.filter_map(|(_, status)| status.phase.allocation());
    held.collect()
}
