//! Timers: whatever waits for a time has one. One without a reason does no harm.

use super::{Findings, Rule};
use crate::state::{Allocation, Job, Phase, Share, State, Timer};
use yard_common::id::{AllocationId, JobId, NodeId, TaskIndex, TaskRange};
use yard_common::state::{AssignmentState, AttemptState, NodeState};

pub(super) fn check(state: &State, findings: &mut Findings) {
    for (id, job) in state.jobs.iter() {
        if job.waits.until_ms > 0 {
            expect_timer(state, job.waits.until_ms, Timer::NotBefore(id), findings);
        }
        for (run, status) in job.tasks.iter() {
            if let Phase::Backoff(until_ms) = status.phase {
                let ends = backoff_ends(state, id, job, run, until_ms);
                findings.expect(Rule::Timers, ends, || {
                    format!("tasks {run} of job {id} wait until {until_ms} for nobody")
                });
            }
        }
    }
    for (id, allocation) in state.allocations.iter() {
        if let Some(at_ms) = allocation.deadline_ms {
            expect_timer(state, at_ms, Timer::Deadline(id), findings);
        }
        check_silence(state, id, allocation, findings);
        let may_hang = allocation.state == AttemptState::Preparing;
        findings.expect(Rule::Timers, !may_hang || allocation.deadline_ms.is_some(), || {
            format!("allocation {id} may prepare for ever")
        });
    }
    for (id, token) in state.tokens.iter() {
        expect_timer(state, token.ends_ms, Timer::Token(*id), findings);
    }
    for (id, _) in state.nodes.iter() {
        check_node(state, id, findings);
    }
}

/// What is silent, and is to end for it, has a timer; nothing else has one.
fn check_silence(
    state: &State,
    id: AllocationId,
    allocation: &Allocation,
    findings: &mut Findings,
) {
    let kill_ms = state.jobs.get(allocation.job).and_then(|job| job.plan.stall_kill_ms);
    let ends = allocation.silent_since_ms().is_some() && kill_ms.is_some();
    findings.expect(Rule::Timers, ends == allocation.stall_ms.is_some(), || {
        let (since_ms, at_ms) = (allocation.silent_since_ms(), allocation.stall_ms);
        format!("allocation {id} is silent since {since_ms:?}, and ends at {at_ms:?}")
    });
    if let Some(at_ms) = allocation.stall_ms {
        expect_timer(state, at_ms, Timer::Stall(id), findings);
    }
    let fits = |share: &Share| {
        share.silent_ms.is_none()
            || share.state == AssignmentState::Running && allocation.state != AttemptState::Stopping
    };
    findings.expect(Rule::Timers, allocation.shares.iter().all(fits), || {
        format!("allocation {id} is silent, and does not run")
    });
}

fn expect_timer(state: &State, at_ms: u64, timer: Timer, findings: &mut Findings) {
    let set = state.timers.contains(at_ms, timer);
    findings.expect(Rule::Timers, set, || format!("{timer:?} is not set for {at_ms}"));
}

/// Whether a timer ends the wait of this run: it is set for the time, begins at the run or before
/// it, and meets only tasks on the way that wait no longer than until then.
fn backoff_ends(state: &State, id: JobId, job: &Job, run: TaskRange, until_ms: u64) -> bool {
    let due = |phase: Phase| matches!(phase, Phase::Backoff(at_ms) if at_ms <= until_ms);
    let reaches = |first: TaskIndex| {
        let way = TaskRange::between(first, run.end());
        job.tasks.within(way).all(|(_, status)| due(status.phase))
    };
    state.timers.iter().any(|(at_ms, timer)| match timer {
        Timer::Backoff(job, first) => {
            job == id && at_ms == until_ms && first <= run.first && reaches(first)
        }
        Timer::NotBefore(_)
        | Timer::Deadline(_)
        | Timer::Drain(_)
        | Timer::Maintenance(_)
        | Timer::Token(_)
        | Timer::Dependency(_)
        | Timer::Tolerance(_)
        | Timer::Check(_)
        | Timer::Stall(_) => false,
    })
}

fn check_node(state: &State, id: NodeId, findings: &mut Findings) {
    let node = &state.nodes[id];
    if node.maintenance_until_ms > 0 {
        expect_timer(state, node.maintenance_until_ms, Timer::Maintenance(id), findings);
    }
    findings.expect(Rule::Timers, !node.back || node.maintenance_until_ms > 0, || {
        format!("node {id} is back, and was never away")
    });
    if let Some(drain) = &node.drain {
        let ahead = |at_ms: &u64| *at_ms > state.now_ms();
        for at_ms in [Some(drain.at_ms), drain.deadline_ms].into_iter().flatten().filter(ahead) {
            expect_timer(state, at_ms, Timer::Drain(id), findings);
        }
    }
    if let Some(cordon) = node.cordon.as_ref().filter(|one| one.check_at_ms > state.now_ms()) {
        expect_timer(state, cordon.check_at_ms, Timer::Check(id), findings);
    }
    let shares = state.allocations.iter().flat_map(|(_, allocation)| &allocation.shares);
    let mut running = shares.filter(|share| share.node == id && !share.is_over());
    if node.state == NodeState::Lost && running.next().is_some() {
        let set = state.timers.iter().any(|(_, timer)| timer == Timer::Tolerance(id));
        findings.expect(Rule::Timers, set, || format!("lost node {id} is waited for for ever"));
    }
}
