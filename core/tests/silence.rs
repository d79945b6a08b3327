//! Attempts of which no rank does anything: when one is silent, and how it ends for it.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;
use yard_common::ExitCause;
use yard_common::id::*;
use yard_common::limits::STALL_DEFER_MS;
use yard_common::state::{JobState, TaskState};
use yard_core::agent::ReportKind;
use yard_core::command::*;
use yard_core::event::Event;
use yard_core::job::JobPlan;

const ALL: TaskRange = TaskRange { first: 0, len: 1 };

fn silent(for_ms: u64) -> ReportKind {
    ReportKind::Silent { for_ms }
}

fn since(lab: &Lab, allocation: AllocationId) -> Option<u64> {
    lab.state.allocations[allocation].silent_since_ms()
}

/// What watchers were told of the last command: since when there is silence.
fn told(lab: &Lab) -> Vec<Option<u64>> {
    let told = lab.events().iter().filter_map(|event| match event {
        Event::Silence { since_ms, .. } => Some(*since_ms),
        _ => None,
    });
    told.collect()
}

/// A gang that runs on two nodes.
fn running_gang(lab: &mut Lab, plan: JobPlan) -> (JobId, AllocationId, [NodeId; 2]) {
    let nodes = [lab.join("a", 4, &[]), lab.join("b", 4, &[])];
    let job = lab.submit(plan);
    let allocation = lab.place(job, ALL, &nodes);
    nodes.iter().for_each(|node| drop(lab.report(*node, allocation, ReportKind::Ready)));
    nodes.iter().for_each(|node| lab.start(*node, allocation, 1));
    (job, allocation, nodes)
}

fn with_kill(plan: JobPlan, kill_ms: u64) -> JobPlan {
    JobPlan { stall_kill_ms: Some(kill_ms), ..plan }
}

#[test]
fn a_gang_is_silent_when_all_of_it_is() {
    let mut lab = Lab::new();
    let (job, allocation, [a, b]) = running_gang(&mut lab, gang(2, 2));
    lab.wait(700_000);
    let now_ms = lab.state.now_ms();
    lab.report(a, allocation, silent(600_000));
    assert_eq!((since(&lab, allocation), told(&lab)), (None, vec![]), "the other one works");
    lab.wait(60_000);
    lab.report(b, allocation, silent(600_000));
    // The last one to fall silent counts.
    let expected = Some(now_ms + 60_000 - 600_000);
    assert_eq!((since(&lab, allocation), told(&lab)), (expected, vec![expected]));
    lab.report(a, allocation, ReportKind::Active);
    assert_eq!((since(&lab, allocation), told(&lab)), (None, vec![None]));
    lab.report(b, allocation, ReportKind::Active);
    assert_eq!(told(&lab), vec![]);
    assert_eq!(lab.state.jobs[job].state, JobState::Running, "a warning ends nothing");
    // What is told cannot be older than the attempt.
    lab.report(a, allocation, silent(u64::MAX));
    lab.report(b, allocation, silent(u64::MAX));
    assert_eq!(since(&lab, allocation), Some(lab.state.allocations[allocation].granted_ms));
}

#[test]
fn those_that_are_left_may_all_be_silent() {
    let mut lab = Lab::new();
    let (_, allocation, [a, b]) = running_gang(&mut lab, gang(2, 2));
    lab.wait(700_000);
    lab.report(a, allocation, silent(1_000));
    lab.exit(b, allocation, ExitCause::Exited(0));
    assert_eq!(told(&lab), [Some(lab.state.now_ms() - 1_000)]);
    // One that stops is not silent any more, and says nothing of it.
    lab.cancel(JobId(0), None);
    assert_eq!((since(&lab, allocation), told(&lab)), (None, vec![]));
    lab.report(a, allocation, silent(1_000));
    assert_eq!(since(&lab, allocation), None);
}

#[test]
fn it_ends_after_as_much_silence_as_its_job_allows() {
    let mut lab = Lab::new();
    let mut plan = with_kill(gang(2, 2), 3_600_000);
    plan.retry.user = 1;
    let (job, allocation, [a, b]) = running_gang(&mut lab, plan);
    lab.wait(700_000);
    lab.report(a, allocation, silent(600_000));
    lab.wait(10_000);
    lab.report(b, allocation, silent(600_000));
    lab.wait(2_990_000);
    // A sign of life, and all begins anew.
    lab.report(a, allocation, ReportKind::Active);
    lab.wait(100_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.report(a, allocation, silent(50_000));
    lab.wait(3_549_999);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.wait(1);
    assert_eq!(lab.state.jobs[job].state, JobState::Stopping);
    for node in [a, b] {
        lab.exit(node, allocation, ExitCause::Stalled);
        lab.reap(node, allocation);
    }
    let status = *lab.state.jobs[job].tasks.get(0).unwrap();
    assert_eq!((status.cause, status.tries.user), (Some(ExitCause::Stalled), 1));
    assert_eq!(status.phase.state(), TaskState::Backoff, "its user pays for another attempt");
}

#[test]
fn nothing_ends_for_the_silence_of_a_node_that_cannot_tell() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(with_kill(single(), 60_000));
    let allocation = lab.place(job, ALL, &[node]);
    lab.start(node, allocation, 1);
    lab.report(node, allocation, silent(0));
    let away = NodeCommand::Maintenance { node, for_ms: 90_000 };
    lab.ok(Actor::Node(node), Command::Node(away));
    lab.wait(61_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Running, "its agent is away");
    lab.wait(29_000 + STALL_DEFER_MS);
    assert_eq!(lab.state.jobs[job].state, JobState::Stopping, "it is back, and says nothing else");
}

#[test]
fn the_next_task_of_a_chain_begins_anew() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(with_kill(array(3), 60_000));
    let allocation = lab.place(job, TaskRange { first: 0, len: 3 }, &[node]);
    lab.start(node, allocation, 1);
    lab.report(node, allocation, silent(10_000));
    assert!(lab.state.allocations[allocation].stall_ms.is_some());
    lab.exit(node, allocation, ExitCause::Exited(0));
    assert_eq!((since(&lab, allocation), told(&lab)), (None, vec![]));
    lab.start(node, allocation, 1);
    lab.wait(70_000);
    assert_eq!(lab.state.jobs[job].state, JobState::Running);
    lab.report(node, allocation, silent(70_000));
    assert!(lab.states(job).contains("Stopping"), "its time is over: {}", lab.states(job));
}
