//! What is lost with a chain is lost, however well the task before it ended.

mod support;

use support::*;
use yard_common::ExitCause;
use yard_common::id::TaskRange;

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
