//! What the driver has checked: assignments before they are prepared, and the machine after one of
//! them has failed.

use crate::world::{Node, PATIENCE, Root, id, one, shim_directory, wanted};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;
use yard_agent::driver::{Check, Checks, Options};
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_core::agent::{AssignmentId, DesiredPhase};

/// A node on which everything is checked, and what it wants checked.
async fn node(root: Root) -> (Node, Receiver<Check>) {
    let (queue, checks) = mpsc::channel(16);
    let change = |options: &mut Options| options.checks = Some(Checks { all: true, queue });
    (Node::with(root, "n1", change).await, checks)
}

async fn next(checks: &mut Receiver<Check>) -> Check {
    timeout(PATIENCE, checks.recv()).await.expect("it asks in time").unwrap()
}

/// Waits until a job is to be checked for.
async fn before(checks: &mut Receiver<Check>) -> AssignmentId {
    match next(checks).await {
        Check::Before(wanted) => wanted.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_that_dies_during_the_check_has_it_done_again_before_the_start() {
    let (mut old, mut checks) = node(Root::new()).await;
    old.run(1, "command: 'echo here'").await;
    assert_eq!(before(&mut checks).await, id(1));
    let Node { root, handle, .. } = old;
    handle.shutdown().await.unwrap();
    // Twice: the second one finds what the first one left.
    let (old, mut checks) = node(root).await;
    assert_eq!(before(&mut checks).await, id(1));
    let Node { root, handle, .. } = old;
    handle.shutdown().await.unwrap();
    let (mut new, mut checks) = node(root).await;
    assert_eq!(before(&mut checks).await, id(1));
    let (_, shares) = new.handle.shares().await.unwrap();
    assert!(shares.iter().all(|share| !share.connected && share.started == 0), "{shares:?}");
    assert!(!shim_directory(new.root.path(), 1).join("record").exists(), "it has no shim yet");
    new.handle.checked(id(1), Ok(())).await.unwrap();
    new.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(new.heard.causes(id(1)), [ExitCause::Exited(0)]);
    new.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_after_the_agent_came_back_has_not_run() {
    let (mut old, mut checks) = node(Root::new()).await;
    old.run(1, "command: 'echo here'").await;
    before(&mut checks).await;
    let Node { root, handle, .. } = old;
    handle.shutdown().await.unwrap();
    let (mut new, mut checks) = node(root).await;
    before(&mut checks).await;
    let refused = yard_agent::driver::Refused { step: PrepareStep::NodeCheck, why: "no".into() };
    new.handle.checked(id(1), Err(refused)).await.unwrap();
    new.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(new.heard.causes(id(1)), [ExitCause::PrepareFailed(PrepareStep::NodeCheck)]);
    assert_eq!(new.heard.started(id(1)), 0);
    new.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn after_a_failure_the_machine_is_checked_once_and_after_a_stop_it_is_not() {
    let (mut node, mut checks) = node(Root::new()).await;
    node.run(1, "command: 'exec sleep 1000'").await;
    assert_eq!(before(&mut checks).await, id(1));
    node.handle.checked(id(1), Ok(())).await.unwrap();
    node.until(|heard| heard.started(id(1)) == 1).await;
    let stop = DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 0 };
    node.desire(vec![wanted(1, one(), stop)], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    for job in [2, 3] {
        node.run(job, "command: 'exit 3'").await;
        assert_eq!(before(&mut checks).await, id(job), "nothing else was to be checked");
        node.handle.checked(id(job), Ok(())).await.unwrap();
        node.until(|heard| heard.is_reaped(id(job))).await;
        if job == 2 {
            assert_eq!(next(&mut checks).await, Check::After(id(2)));
        }
    }
    assert!(checks.try_recv().is_err(), "one check does for failures in a row");
    node.handle.shutdown().await.unwrap();
}
