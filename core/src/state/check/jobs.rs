//! Jobs: counts, states, order, what they wait for, their ends, and the requests that made them.

use super::{Findings, Rule};
use crate::command::Actor;
use crate::state::{Job, Made, PendingKey, Phase, State, Timer, Waits};
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::{JobId, TaskIndex};
use yard_common::state::TaskState;

pub(super) fn check(state: &State, findings: &mut Findings) {
    for (id, job) in state.jobs.iter() {
        check_counts(id, job, findings);
        check_end(state, id, job, findings);
        check_waiting(state, id, job, findings);
        check_blocked(state, id, job, findings);
    }
    check_pending(state, findings);
    check_dependents(state, findings);
    check_ended(state, findings);
    check_dedup(state, findings);
    check_reservations(state, findings);
}

/// Counts and the hint where queued tasks begin, against the runs.
fn check_counts(id: JobId, job: &Job, findings: &mut Findings) {
    let mut found: BTreeMap<TaskState, u32> = BTreeMap::new();
    let mut next = job.tasks.range().first;
    for (run, status) in job.tasks.iter() {
        findings.same(Rule::TaskCounts, || format!("job {id}, begin of run"), &run.first, &next);
        next = run.end();
        *found.entry(status.phase.state()).or_default() += run.len;
    }
    let end = job.tasks.range().end();
    findings.same(Rule::TaskCounts, || format!("job {id}, end of its runs"), &end, &next);
    for task in TaskState::ALL {
        let kept = job.tasks.counts().of(*task);
        let found = found.get(task).copied().unwrap_or(0);
        findings.same(Rule::TaskCounts, || format!("job {id}, {task} tasks"), &kept, &found);
    }
    let listed: u32 = job.tasks.queued().map(|(run, _)| run.len).sum();
    let queued = found.get(&TaskState::Queued).copied().unwrap_or(0);
    findings.same(Rule::TaskCounts, || format!("job {id}, queued tasks"), &listed, &queued);
    findings.same(Rule::TaskCounts, || format!("job {id}, range"), &job.tasks.range(), &{
        job.plan.tasks()
    });
}

fn check_end(state: &State, id: JobId, job: &Job, findings: &mut Findings) {
    let rule = Rule::JobState;
    findings.same(rule, || format!("job {id}, state"), &job.state, &job.derived_state());
    let over = job.tasks.iter().all(|(_, status)| status.phase.state().is_terminal());
    findings.same(rule, || format!("job {id}, end"), &job.ended.is_some(), &over);
    findings.same(rule, || format!("job {id}, terminal"), &job.state.is_terminal(), &over);
    let of_job = state.allocations.iter().filter(|(_, allocation)| allocation.job == id);
    let held = of_job.count() as u32;
    findings.same(rule, || format!("job {id}, allocations"), &job.allocations, &held);
    if over {
        findings.same(rule, || format!("ended job {id}, allocations"), &held, &0);
        findings.same(rule, || format!("ended job {id}"), &job.waits, &Waits::default());
    }
}

/// The count of jobs that a job waits for as a whole.
fn check_waiting(state: &State, id: JobId, job: &Job, findings: &mut Findings) {
    // The end of a job is looked at by a timer; one that is due may still wait for its turn.
    let due = |(at_ms, timer)| at_ms <= state.now_ms() && timer == Timer::Dependency(id);
    if job.state.is_terminal() || state.timers.iter().any(due) {
        return;
    }
    let open = job.plan.after.whole().filter(|(other, _)| is_open(state, *other));
    let open = open.count() as u32;
    findings.same(Rule::Dependents, || format!("job {id} waits for"), &job.waits.jobs, &open);
}

fn is_open(state: &State, id: JobId) -> bool {
    state.jobs.get(id).is_some_and(|job| !job.state.is_terminal())
}

/// Tasks that are kept back are so for a reason.
fn check_blocked(state: &State, id: JobId, job: &Job, findings: &mut Findings) {
    let waits = job.waits.any();
    for (run, status) in job.tasks.iter() {
        if waits {
            let pending = matches!(status.phase, Phase::Queued | Phase::Backoff(_));
            let what = || format!("tasks {run} of job {id} queued, but it waits: {:?}", job.waits);
            findings.expect(Rule::Blocked, !pending, what);
        } else if status.phase == Phase::Blocked {
            let idle = run.indices().find(|index| !waits_by_index(state, job, *index));
            let what = || format!("task {idle:?} of job {id} waits for nothing");
            findings.expect(Rule::Blocked, idle.is_none(), what);
        }
    }
}

/// Whether a task waits for the task of the same index of another array.
fn waits_by_index(state: &State, job: &Job, index: TaskIndex) -> bool {
    job.plan.after.each.iter().any(|other| {
        let other = state.jobs.get(*other).and_then(|other| other.tasks.get(index));
        other.is_some_and(|status| !status.phase.state().is_terminal())
    })
}

fn check_pending(state: &State, findings: &mut Findings) {
    let queued = |job: &Job| job.tasks.iter().any(|(_, status)| status.phase == Phase::Queued);
    let found = state.jobs.iter().filter(|(_, job)| queued(job));
    let found: BTreeSet<PendingKey> = found.map(|(id, job)| job.place(id)).collect();
    let kept: BTreeSet<PendingKey> = state.pending.iter().map(|(key, ())| *key).collect();
    findings.same(Rule::Pending, || "order of the queues".into(), &kept, &found);
}

fn check_dependents(state: &State, findings: &mut Findings) {
    let unfinished = state.jobs.iter().filter(|(_, job)| !job.state.is_terminal());
    let found: BTreeSet<(JobId, JobId)> = unfinished
        .flat_map(|(id, job)| job.plan.after.all().map(move |other| (other, id)))
        .collect();
    let kept: BTreeSet<_> = state.dependents.iter().map(|(key, ())| *key).collect();
    findings.same(Rule::Dependents, || "who waits for whom".into(), &kept, &found);
    for (other, id) in found {
        let exists = state.jobs.contains(other);
        findings.expect(Rule::Dependents, exists, || {
            format!("job {id} waits for job {other}, which is forgotten")
        });
    }
}

fn check_ended(state: &State, findings: &mut Findings) {
    let ended = |(id, job): (JobId, &Job)| Some((job.ended?.cluster_ms, id));
    let found: BTreeSet<(u64, JobId)> = state.jobs.iter().filter_map(ended).collect();
    let kept: BTreeSet<_> = state.ended.iter().map(|(key, ())| *key).collect();
    findings.same(Rule::Ended, || "ended jobs".into(), &kept, &found);
}

fn check_dedup(state: &State, findings: &mut Findings) {
    for (id, job) in state.jobs.iter() {
        let made = state.dedup.get(Actor::User(job.owner), job.request);
        let leads = made.is_some_and(|answer| answer.made == Made::Job(id));
        findings.expect(Rule::Dedup, leads, || format!("the request of job {id} is forgotten"));
    }
    let mut aged = BTreeSet::new();
    for ((actor, request), answer) in state.dedup.iter() {
        match &answer.made {
            Made::Job(job) => {
                let exists = state.jobs.contains(*job);
                findings.expect(Rule::Dedup, exists, || {
                    format!("request {request} of {actor:?} leads to job {job}, which is gone")
                });
            }
            Made::Other(at_ms, _) => {
                aged.insert((*at_ms, *actor, *request));
            }
        }
    }
    let kept: BTreeSet<_> = state.dedup.by_age().copied().collect();
    findings.same(Rule::Dedup, || "answers by age".into(), &kept, &aged);
}

fn check_reservations(state: &State, findings: &mut Findings) {
    let rule = Rule::Reservations;
    for (key, promise) in state.reservations.iter() {
        findings.same(rule, || "its key".into(), key, &(promise.job, promise.task));
        let status = state.jobs.get(key.0).and_then(|job| job.tasks.get(key.1));
        let waits = status.is_some_and(|status| status.phase.state().is_pending());
        findings.expect(rule, waits, || format!("task {}[{}] waits no longer", key.0, key.1));
        let absent = promise.nodes.iter().find(|node| state.nodes.get(**node).is_none());
        findings.expect(rule, absent.is_none(), || {
            format!("task {}[{}] was promised node {absent:?}, which is gone", key.0, key.1)
        });
    }
}
