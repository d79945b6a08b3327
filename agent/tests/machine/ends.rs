//! How ranks end, and that exactly this is reported.

use crate::world::{Node, assignment, id, one, wanted};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AttemptNumber, TaskRange};
use yard_core::agent::{Chain, ChainLink, DesiredPhase, ReportKind};

#[tokio::test]
async fn every_way_to_exit_is_reported_as_it_was() {
    let mut node = Node::start().await;
    let cases = [
        ("exit 0", ExitCause::Exited(0)),
        ("exit 1", ExitCause::Exited(1)),
        ("exit 137", ExitCause::Exited(137)),
        ("exit 255", ExitCause::Exited(255)),
        ("kill -SEGV $$", ExitCause::Signaled(11)),
        ("kill -KILL $$", ExitCause::Signaled(9)),
        ("kill -RTMIN+3 $$", ExitCause::Signaled(37)),
    ];
    for (allocation, (command, cause)) in (1..).zip(cases) {
        assert_eq!(node.end_of(allocation, &format!("command: {command}")).await, cause);
    }
    node.handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_has_not_started() {
    let mut node = Node::start().await;
    let cause = node.end_of(1, "command: [no-such-program]").await;
    assert_eq!(cause, ExitCause::StartFailed(2));
    let cause = node.end_of(2, "command: [/etc/passwd]").await;
    assert_eq!(cause, ExitCause::StartFailed(13));
    // Both were the first attempt of one task.
    assert_eq!(
        node.output(0, Writer::Rank(0), Kind::Err),
        "yard: no-such-program did not start: not found\nyard: /etc/passwd did not start: not \
         executable\n"
    );
    assert_eq!(node.heard.started(id(1)), 0);
}

#[tokio::test]
async fn a_chain_ends_task_by_task_with_its_own_numbers() {
    let mut node = Node::start().await;
    let chain = Chain(vec![
        ChainLink { tasks: TaskRange { first: 0, len: 15 }, attempt: AttemptNumber(1) },
        ChainLink { tasks: TaskRange { first: 40, len: 5 }, attempt: AttemptNumber(3) },
    ]);
    let detail = assignment(
        "command: echo $YARD_TASK_INDEX $YARD_ATTEMPT; exit $((YARD_TASK_INDEX % 3))\n\
         array: 0-99",
    );
    node.desire(vec![wanted(1, chain.clone(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let expected: Vec<ExitCause> =
        chain.tasks().map(|(task, _)| ExitCause::Exited(task as i32 % 3)).collect();
    assert_eq!(node.heard.causes(id(1)), expected);
    assert_eq!(node.heard.started(id(1)), 20);
    assert_eq!(node.output(7, Writer::Rank(0), Kind::Out), "7 1\n");
    let logs = yard_agent::paths::Paths::new(node.root.path()).attempt_logs(
        yard_common::id::JobId(812),
        43,
        AttemptNumber(3),
    );
    assert_eq!(std::fs::read_to_string(logs.join("0.out")).unwrap(), "43 3\n");
}

#[tokio::test]
async fn the_tail_of_a_chain_is_recalled() {
    let mut node = Node::start().await;
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let chain =
        Chain(vec![ChainLink { tasks: TaskRange { first: 0, len: 4 }, attempt: AttemptNumber(1) }]);
    let yaml =
        format!("command: while [ ! -e {} ]; do sleep 0.01; done\narray: 0-3", gate.display());
    let mut wants = wanted(1, chain, DesiredPhase::Run);
    node.desire(vec![wants.clone()], vec![(id(1), assignment(&yaml))]).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    wants.keep = 2;
    node.desire(vec![wants], Vec::new()).await;
    let recalled = |report: &yard_core::agent::Report| match &report.what {
        ReportKind::Recalled(tail) => tail.len(),
        _ => 0,
    };
    node.until(|heard| heard.reports.iter().map(recalled).sum::<u32>() == 2).await;
    std::fs::write(&gate, "").unwrap();
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0); 2]);
}

#[tokio::test]
async fn the_first_rank_that_fails_is_to_blame_and_the_others_end() {
    let mut node = Node::start().await;
    let yaml = "ranks_per_node: 3\ncommand: if [ $YARD_RANK = 1 ]; then exit 7; fi; sleep 1000";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(7));
    assert_eq!(node.heard.exits(id(1)), [(ExitCause::Exited(7), None, Some(1))]);
}

#[tokio::test]
async fn what_a_rank_leaves_behind_ends_with_it() {
    let mut node = Node::start().await;
    let yaml = "command: (setsid sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & sleep 1000' &)";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(0));
    let pid = node.output(0, Writer::Rank(0), Kind::Out).trim().parse().unwrap();
    assert!(!crate::world::lives(pid), "process {pid} was left behind");
}

#[tokio::test]
async fn what_a_task_leaves_behind_does_not_harm_the_next_one() {
    let mut node = Node::start().await;
    let chain =
        Chain(vec![ChainLink { tasks: TaskRange { first: 0, len: 4 }, attempt: AttemptNumber(1) }]);
    let detail = assignment("command: setsid sleep 1000 & exit $YARD_TASK_INDEX\narray: 0-3");
    node.desire(vec![wanted(1, chain, DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let expected: Vec<ExitCause> = (0..4).map(ExitCause::Exited).collect();
    assert_eq!(node.heard.causes(id(1)), expected);
}

#[tokio::test]
async fn a_missing_working_directory_says_what_to_do() {
    let mut node = Node::start().await;
    let mut detail = assignment("command: 'true'");
    detail.submit_dir = Some("/no/such/directory".into());
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let cause = ExitCause::PrepareFailed(PrepareStep::Workdir);
    assert_eq!(node.heard.causes(id(1)), [cause]);
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.starts_with("the working directory /no/such/directory is not on node n1;"));
}

#[tokio::test]
async fn lack_of_memory_is_told_apart_from_a_kill() {
    let mut node = Node::start().await;
    let cgroups = crate::world::cgroups(node.root.path());
    let limits = cgroups.v1.iter().any(|(name, _)| name == "memory")
        || cgroups.controllers.iter().any(|name| name == "memory");
    let mut detail = assignment("command: 'head -c 200m /dev/zero | tail; kill -KILL $$'");
    detail.amounts.memory_bytes = 32 << 20;
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    // Without a memory controller there is no limit, and nothing to tell apart.
    let cause = if limits { ExitCause::OutOfMemory } else { ExitCause::Signaled(9) };
    assert_eq!(node.heard.causes(id(1)), [cause]);
    assert_eq!(node.end_of(2, "command: kill -KILL $$").await, ExitCause::Signaled(9));
}
