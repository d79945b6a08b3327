//! How ranks are stopped: the signal, the grace, the kill, and the deadline of the lease.

use crate::world::{
    Agent, Heard, LONG_MS, Node, Root, assignment, eventually, id, lives, one, set, wanted,
};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_core::agent::{Desired, DesiredPhase};

fn stop(grace_ms: u64) -> DesiredPhase {
    DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms }
}

#[tokio::test]
async fn a_rank_that_obeys_ends_with_the_cause_of_the_stop() {
    let mut node = Node::start().await;
    node.run(
        1,
        "command: 'trap \"echo saved; exit 0\" TERM; echo on; while :; do sleep 0.01; done'",
    )
    .await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    eventually("the trap is set", || node.output(0, Writer::Rank(0), Kind::Out) == "on\n");
    node.desire(vec![wanted(1, one(), stop(LONG_MS))], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let evidence = Some(ExitCause::Exited(0));
    assert_eq!(node.heard.exits(id(1)), [(ExitCause::Cancelled, evidence, None)]);
    assert_eq!(node.output(0, Writer::Rank(0), Kind::Out), "on\nsaved\n");
}

#[tokio::test]
async fn a_rank_that_does_not_is_killed_with_all_it_started() {
    let mut node = Node::start().await;
    node.run(
        1,
        "command: 'trap : TERM; (trap : TERM; setsid sleep 1000 & echo $!; while :; do sleep 9; \
         done) & while :; do sleep 9; done'",
    )
    .await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    let out = || node.output(0, Writer::Rank(0), Kind::Out);
    eventually("the daemon runs", || out().ends_with('\n'));
    let daemon = out().trim().parse().unwrap();
    node.desire(vec![wanted(1, one(), stop(100))], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let evidence = Some(ExitCause::Signaled(9));
    assert_eq!(node.heard.exits(id(1)), [(ExitCause::Cancelled, evidence, Some(0))]);
    assert!(!lives(daemon));
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_gone_without_a_trace() {
    let mut node = Node::start().await;
    node.run(1, "command: sleep 1000").await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    node.desire(Vec::new(), Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let (_, shares) = node.handle.shares().await.unwrap();
    assert_eq!(shares, []);
    let shims = yard_agent::paths::Paths::new(node.root.path()).shims();
    assert_eq!(std::fs::read_dir(shims).unwrap().count(), 0);
}

/// The deadline is kept by the shim alone: no agent runs when it comes.
#[test]
fn ranks_kill_themselves_at_the_deadline() {
    let root = Root::new();
    let mut agent = Agent::start(root.path());
    let desired: Desired = set(1, vec![wanted(1, one(), DesiredPhase::Run)]);
    agent.lease(3_000);
    agent.desire(&desired, &[(id(1), assignment("command: echo $$; exec sleep 1000"))]);
    let mut heard = Heard::default();
    agent.until(&mut heard, |heard| heard.started(id(1)) == 1);
    let out = || crate::world::output(root.path(), 0, Writer::Rank(0), Kind::Out);
    eventually("the rank runs", || out().ends_with('\n'));
    let pid = out().trim().parse().unwrap();
    agent.kill();
    let before_ms = yard_agent::boot_ms();
    eventually("the rank is dead", || !lives(pid));
    assert!(yard_agent::boot_ms() - before_ms <= 3_000 + 1_000, "the kill came too late");
    let mut agent = Agent::start(root.path());
    agent.until(&mut heard, |heard| heard.is_reaped(id(1)));
    assert_eq!(heard.causes(id(1)), [ExitCause::Lost(LostReason::LeaseExpired)]);
}

#[tokio::test]
async fn nothing_starts_without_the_lease() {
    let root = Root::new();
    let cgroups = crate::world::cgroups(root.path());
    let options = crate::world::options(root.path(), "n1", cgroups);
    let handle = yard_agent::driver::Driver::start(options).await.unwrap();
    let mut reports = handle.connected().await.unwrap();
    let desired = set(1, vec![wanted(1, one(), DesiredPhase::Run)]);
    handle.desired(desired, vec![(id(1), assignment("command: 'true'"))]).await.unwrap();
    let record = crate::world::shim_directory(root.path(), 1).join("record");
    let prepared = || {
        let history = yard_agent::shim::record::History::read(&record);
        history.is_ok_and(|history| history.prepared)
    };
    eventually("the shim is prepared", prepared);
    let history = yard_agent::shim::record::History::read(&record).unwrap();
    assert!(!history.start_given && history.starting == 0, "{history:?}");
    handle.lease(crate::world::lease(LONG_MS)).await.unwrap();
    let mut heard = Heard::default();
    while !heard.is_reaped(id(1)) {
        heard.hear(reports.recv().await.unwrap());
    }
    assert_eq!(heard.causes(id(1)), [ExitCause::Exited(0)]);
}
