//! The command before the ranks.

use crate::world::{Node, Root, assignment, eventually, id, lives, one, wanted};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AttemptNumber, TaskRange};
use yard_core::agent::{Chain, ChainLink, DesiredPhase};

const FAILED: ExitCause = ExitCause::PrepareFailed(PrepareStep::Setup);

#[tokio::test]
async fn it_runs_once_before_all_tasks_where_they_run() {
    let mut node = Node::start().await;
    let chain =
        Chain(vec![ChainLink { tasks: TaskRange { first: 0, len: 3 }, attempt: AttemptNumber(1) }]);
    let yaml = "command: echo $SEED; cat \"$YARD_JOB_TEMP/made\"\nargs: []\n\
                prepare: 'echo made for ${YARD_RANK-nobody} in $PWD by $SEED | tee -a \
                          \"$YARD_JOB_TEMP/made\"'\nenv: {SEED: \"7\"}\narray: 0-2";
    let detail = assignment(yaml);
    node.desire(vec![wanted(1, chain, DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0); 3]);
    let made = node.output(0, Writer::Prepare, Kind::Out);
    assert!(made.starts_with("made for nobody in /") && made.ends_with(" by 7\n"), "{made}");
    for task in 0..3 {
        assert_eq!(node.output(task, Writer::Rank(0), Kind::Out), format!("7\n{made}"));
    }
}

#[tokio::test]
async fn a_gang_is_ready_when_it_has_succeeded() {
    let mut node = Node::start().await;
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let yaml = format!(
        "command: echo ran\nprepare: 'echo $$; while [ ! -e {} ]; do sleep 0.01; done'",
        gate.display()
    );
    let detail = assignment(&yaml);
    node.desire(vec![wanted(1, one(), DesiredPhase::Prepare)], vec![(id(1), detail)]).await;
    let logs = yard_agent::paths::Paths::new(node.root.path()).attempt_logs(
        yard_common::id::JobId(812),
        0,
        AttemptNumber(1),
    );
    let out = || std::fs::read_to_string(logs.join("prepare.out")).unwrap_or_default();
    eventually("it runs", || out().ends_with('\n'));
    assert!(!node.heard.is_ready(id(1)));
    std::fs::write(&gate, "").unwrap();
    node.until(|heard| heard.is_ready(id(1))).await;
    let pid: i32 = out().trim().parse().unwrap();
    assert!(!lives(pid), "it is over");
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.output(0, Writer::Rank(0), Kind::Out), "ran\n");
}

#[tokio::test]
async fn what_it_says_and_how_it_ended_is_there_when_it_failed() {
    let mut node = Node::start().await;
    let yaml = "command: echo ran\nprepare: 'echo no such package >&2; exit 3'";
    assert_eq!(node.end_of(1, yaml).await, FAILED);
    assert_eq!(node.heard.started(id(1)), 0);
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert_eq!(text, "no such package\nthe prepare command ended with Exited(3)\n");
}

#[tokio::test]
async fn one_that_cannot_start_says_why() {
    let mut node = Node::start().await;
    let yaml = "command: echo ran\nprepare: [no-such-program]";
    assert_eq!(node.end_of(1, yaml).await, FAILED);
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.starts_with("the prepare command did not start: No such file"), "{text}");
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
    let mut node = Node::start().await;
    let yaml = "command: echo ran\nprepare: 'setsid sleep 1000 & echo $!; sleep 1000'\n\
                prepare_timeout: 1s";
    assert_eq!(node.end_of(1, yaml).await, FAILED);
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert_eq!(text, "the prepare command took longer than its prepare_timeout of 1 s\n");
    let left = node.output(0, Writer::Prepare, Kind::Out).trim().parse().unwrap();
    assert!(!lives(left), "process {left} was left behind");
}

#[tokio::test]
async fn what_it_leaves_behind_ends_before_the_first_rank() {
    let mut node = Node::start().await;
    let yaml = "command: 'kill -0 $(cat $YARD_JOB_TEMP/pid) 2>/dev/null; echo $?'\n\
                prepare: 'setsid sleep 1000 & echo $! >$YARD_JOB_TEMP/pid'";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(0));
    assert_eq!(node.output(0, Writer::Rank(0), Kind::Out), "1\n");
}

#[tokio::test]
async fn a_job_that_is_stopped_meanwhile_ends() {
    let mut node = Node::start().await;
    let yaml =
        "command: echo ran\nprepare: 'trap \"\" TERM; echo $$; sleep 1000 & wait; sleep 1000'";
    node.run(1, yaml).await;
    let logs = yard_agent::paths::Paths::new(node.root.path()).attempt_logs(
        yard_common::id::JobId(812),
        0,
        AttemptNumber(1),
    );
    let out = || std::fs::read_to_string(logs.join("prepare.out")).unwrap_or_default();
    eventually("it runs", || out().ends_with('\n'));
    let phase = DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 600_000 };
    node.desire(vec![wanted(1, one(), phase)], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.started(id(1)), 0);
    assert!(!lives(out().trim().parse().unwrap()));
}

#[tokio::test]
async fn the_directory_of_the_output_is_made_before_the_command() {
    let mut node = Node::start().await;
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("new/share").display().to_string();
    let yaml = format!(
        "command: echo ran\nprepare: 'cd {share}/812 && find . -mindepth 1 | sort'\n\
         logs: {{dir: {share}}}"
    );
    assert_eq!(node.end_of(1, &yaml).await, ExitCause::Exited(0));
    assert_eq!(node.output(0, Writer::Prepare, Kind::Out), "./attempt-1\n");
    let yaml = format!("{yaml}\narray: 4-5");
    assert_eq!(node.end_of(2, &yaml).await, ExitCause::Exited(0));
    let out = node.output(0, Writer::Prepare, Kind::Out);
    assert!(out.ends_with("./task-0\n./task-0/attempt-1\n"), "{out}");
}

#[tokio::test]
async fn a_directory_of_output_that_cannot_be_made_is_named_with_its_node() {
    let mut node = Node::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let dir = folder.path().join("file/logs").display().to_string();
    let yaml = format!("command: echo ran\nlogs: {{dir: {dir}}}");
    let failed = ExitCause::PrepareFailed(PrepareStep::LogDir);
    assert_eq!(node.end_of(1, &yaml).await, failed);
    assert_eq!(node.heard.started(id(1)), 0);
    let text = node.output(0, Writer::Prepare, Kind::Err);
    let why = format!("logs.dir: {dir}/812/attempt-1 cannot be made on node n1: Not a directory\n");
    assert!(text.starts_with(&why), "{text}");
    assert!(text.contains(&format!("make {dir} on every node")), "{text}");
}

#[tokio::test]
async fn the_directory_of_the_output_is_made_as_the_owner_of_the_job() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mut node = Node::with(Root::open_to_all(), "n1", |_| {}).await;
    let folder = Root::open_to_all();
    let failed = ExitCause::PrepareFailed(PrepareStep::LogDir);
    for (allocation, mode, cause) in [(1, 0o755, failed), (2, 0o777, ExitCause::Exited(0))] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let yaml = format!("command: echo ran\nlogs: {{dir: {}}}", folder.path().display());
        let mut detail = assignment(&yaml);
        detail.login = Some("nobody".into());
        let wanted = wanted(allocation, one(), DesiredPhase::Run);
        node.desire(vec![wanted], vec![(id(allocation), detail)]).await;
        node.until(|heard| heard.is_reaped(id(allocation))).await;
        assert_eq!(node.heard.causes(id(allocation)), [cause]);
    }
    let made = folder.path().join("812/attempt-1").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (nobody.uid.as_raw(), nobody.gid.as_raw()));
    let text = node.output(0, Writer::Prepare, Kind::Err);
    assert!(text.contains("on node n1: Permission denied\n"), "{text}");
}
