//! What is lost with a chain is lost, however well the task before it ended.

mod support;

use support::*;
use yard_common::ExitCause;
use yard_common::id::TaskRange;
use yard_core::agent::ReportKind;
use yard_core::command::JobCommand;

#[test]
fn the_success_of_a_task_is_not_that_of_the_next() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(array(2));
    let allocation = lab.place(job, TaskRange { first: 0, len: 2 }, &[node]);
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Exited(0));
    lab.start(node, allocation, 1);
    lab.lose(node);
    assert_eq!(lab.states(job), "0:Succeeded 1:Backoff");
    assert_eq!(lab.state.jobs[job].tasks.get(1).unwrap().cause, Some(ExitCause::NodeLost));
}

#[test]
fn a_task_that_was_recalled_did_not_end_as_the_one_before_it() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let job = lab.submit(array(3));
    let allocation = lab.place(job, TaskRange { first: 0, len: 3 }, &[node]);
    lab.start(node, allocation, 1);
    lab.exit(node, allocation, ExitCause::Exited(0));
    lab.job(JobCommand::Requeue { job, tasks: None });
    let tail = lab.state.allocations[allocation].chain.slice(1, 3);
    lab.report(node, allocation, ReportKind::Recalled(tail));
    assert_eq!(lab.states(job), "0:Succeeded 1:Queued 2:Queued");
}
