//! Explanations of tasks that wait for more than one thing.

mod support;

use support::*;
use yard_common::PendingReason;
use yard_common::id::JobId;
use yard_core::command::JobCommand;
use yard_core::job::{After, JobPlan};
use yard_core::scheduler::{Change, Constraint, Explanation, Holder, Policy, explain};

/// Why the first task of an array waits that waits index by index for another one.
fn explained(change: impl FnOnce(&mut JobPlan), held: bool) -> Explanation {
    let mut lab = Lab::new();
    let first = lab.submit(array(2));
    let after = After { each: vec![first], ..After::default() };
    let mut plan = JobPlan { after, ..array(2) };
    change(&mut plan);
    let job = lab.submit(plan);
    if held {
        lab.job(JobCommand::Hold { job, reason: "lunch".into() });
    }
    let found = explain(&lab.state, lab.now_ms, &Policy::default(), job, 0);
    let found = found.expect("the task exists");
    assert!(found.constraints.contains(&Constraint::Dependency(vec![first])), "{found}");
    found
}

#[test]
fn a_task_that_waits_for_another_index_by_index() {
    assert_eq!(explained(|_| (), false).reason(), Some(PendingReason::Dependency));
}

#[test]
fn a_dependency_comes_before_a_time() {
    let late = 1_800_000_000_000 + 3_600_000;
    let found = explained(|plan| plan.not_before_wall_ms = Some(late), false);
    assert_eq!(found.reason(), Some(PendingReason::Dependency));
    assert!(matches!(found.constraints[1], Constraint::NotBefore(_)), "{found}");
}

#[test]
fn a_release_alone_does_not_start_what_waits_for_another() {
    let found = explained(|_| (), true);
    assert_eq!(found.reason(), Some(PendingReason::Held));
    assert!(!found.changes.contains(&Change::Release), "{found}");
}

#[test]
fn a_release_is_named_only_if_the_task_would_start_then() {
    let mut lab = Lab::new();
    let job = lab.submit(JobPlan { hold: true, ..single() });
    let changes = |lab: &Lab| {
        let found = explain(&lab.state, lab.now_ms, &Policy::default(), job, 0);
        found.expect("the task exists").changes
    };
    assert_eq!(changes(&lab), [], "there is no machine");
    lab.join("n0", 8, &[]);
    assert_eq!(changes(&lab), [Change::Release]);
}

#[test]
fn people_read_names_and_times_and_no_jobs_that_are_not_theirs() {
    let mut lab = Lab::new();
    lab.join("n0", 8, &[]);
    let queue = lab.state.queues.iter().next().map(|(id, queue)| (id, queue.name.to_string()));
    let (queue, name) = queue.expect("there is a queue");
    let told = |constraint: Constraint, seen: &[u64]| {
        constraint.told(&lab.state, lab.state.now_ms() + 1_000, &|job| seen.contains(&job.0))
    };
    let place = Constraint::Position { queue, ahead: 0 };
    assert_eq!(told(place, &[]), format!("place 1 in queue {name}"));
    assert_eq!(told(Constraint::QueueClosed(queue), &[]), format!("queue {name} starts nothing"));
    // The state's time stands still while nothing is applied; people's does not.
    let now_ms = lab.state.now_ms() + 1_000;
    let at = |ms| Constraint::NotBefore(now_ms + ms);
    assert_eq!(told(at(7_199_001), &[]), "not before: in 2h");
    assert_eq!(told(Constraint::Backoff(now_ms + 30_000), &[]), "next attempt: in 30s");
    assert_eq!(told(Constraint::Backoff(now_ms), &[]), "next attempt: now");
    let holder = |job, nodes, gpu_parts| Holder { job: JobId(job), nodes, gpu_parts };
    let held = Constraint::HeldBy(vec![holder(3, 2, 0), holder(4, 1, 10_000), holder(5, 2, 5_000)]);
    assert_eq!(told(held.clone(), &[3, 4, 5]), held.to_string(), "who sees all is told all");
    assert_eq!(
        told(held.clone(), &[3]),
        "held by job 3 (2 nodes) and 2 other jobs that you may not see (3 nodes, 1.5 GPUs)"
    );
    assert_eq!(
        told(Constraint::Claimed(vec![(JobId(4), 1)]), &[]),
        "kept for those ahead: 1 job that you may not see (1 node)"
    );
}
