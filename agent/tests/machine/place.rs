//! What a rank finds: its variables, its user, its limits, its files.

use crate::world::{Node, assignment, id, one, variables, wanted};
use yard_agent::launch::{GrantedGpu, ShownTasks};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AttemptNumber, TaskRange};
use yard_core::agent::{Chain, ChainLink, DesiredPhase};

#[tokio::test]
async fn a_rank_finds_its_variables_and_nothing_of_the_agent() {
    let mut node = Node::start().await;
    let mut detail = assignment(
        "name: digits\nranks_per_node: 2\ncommand: [env]\nenv: {LR: '0.1', LANG: de}\n\
         time_limit: 100d",
    );
    detail.gpus = ["GPU-a", "GPU-b"]
        .into_iter()
        .zip(0..)
        .map(|(uuid, index)| GrantedGpu { uuid: uuid.into(), index })
        .collect();
    detail.last_cause = Some(ExitCause::NodeLost);
    // Its queue allows less than the job asks for.
    detail.time_limit_ms = Some(60_000);
    let begin_s = wall_s();
    detail.inherited = vec![("VIRTUAL_ENV".into(), "/venv".into())];
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0)]);
    let found = variables(&node.output(0, Writer::Rank(1), Kind::Out));
    for (name, value) in [
        ("YARD_JOB_ID", "812"),
        ("YARD_JOB_NAME", "digits"),
        ("YARD_OWNER", "ann"),
        ("YARD_RANK", "1"),
        ("YARD_LOCAL_RANK", "1"),
        ("YARD_WORLD_SIZE", "2"),
        ("YARD_NODE_NAME", "n1"),
        ("YARD_ATTEMPT", "1"),
        ("YARD_LAST_CAUSE", "NodeLost"),
        ("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b"),
        ("AZ_BATCHAI_NUM_GPUS", "2"),
        ("OMP_NUM_THREADS", "1"),
        ("LR", "0.1"),
        ("LANG", "de"),
        ("VIRTUAL_ENV", "/venv"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    for foreign in ["CARGO", "RUST_BACKTRACE", "CARGO_MANIFEST_DIR"] {
        assert!(!found.contains_key(foreign), "{foreign} leaked into the job");
    }
    let end_s: u64 = found["YARD_END_TIME"].parse().unwrap();
    assert!((begin_s + 60..=wall_s() + 60).contains(&end_s), "{end_s}, and it began at {begin_s}");
    assert!(std::path::Path::new(&found["YARD_LOG_DIR"]).ends_with("logs/812/0.1"));
}

fn wall_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_task_of_an_array_with_gaps_finds_its_index() {
    let mut node = Node::start().await;
    let command = "['/bin/sh', -c, 'echo $0 $YARD_TASK_INDEX', '${YARD_TASK_INDEX}']";
    let mut detail = assignment(&format!("array: 5,10\ncommand: {command}"));
    let shown = |position, first| ShownTasks { tasks: TaskRange::one(position), first };
    detail.shown = vec![shown(0, 5), shown(1, 10)];
    let tasks = TaskRange { first: 0, len: 2 };
    let chain = Chain(vec![ChainLink { tasks, attempt: AttemptNumber(1) }]);
    node.desire(vec![wanted(1, chain, DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    for (position, expected) in [(0, "5 5\n"), (1, "10 10\n")] {
        // Files keep to positions, as everything does that coordinator and agent say.
        assert_eq!(node.output(position, Writer::Rank(0), Kind::Out), expected);
    }
}

#[tokio::test]
async fn a_rank_inherits_no_file_and_no_blocked_signal() {
    let mut node = Node::start().await;
    let yaml = "command: ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status; \
                umask; ulimit -c";
    assert_eq!(node.end_of(1, yaml).await, ExitCause::Exited(0));
    let out = node.output(0, Writer::Rank(0), Kind::Out);
    let lines: Vec<&str> = out.split_whitespace().collect();
    // Its own three, and the directory that `ls` reads.
    assert_eq!(lines[0], "4", "{out}");
    assert_eq!(lines[1..5], ["SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000"]);
    assert_eq!(lines[5..], ["0022", "0"]);
}

#[tokio::test]
async fn a_job_runs_as_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        return cannot_be_somebody_else().await;
    }
    let mut node = Node::start().await;
    // Somebody else must be able to pass.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(node.root.path(), mode).unwrap();
    let mut detail = assignment(
        "command: id -un; id -u; touch $TMPDIR/x; grep -E '^(Uid|Gid|CapEff)' /proc/self/status; \
         touch $YARD_LOG_DIR/x && echo bad",
    );
    detail.login = Some("nobody".into());
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let out = node.output(0, Writer::Rank(0), Kind::Out);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid, nobody.gid);
    assert!(out.starts_with(&format!("nobody\n{uid}\n")), "{out}");
    assert!(out.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{out}");
    assert!(out.contains(&format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n")), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000\n") && !out.contains("bad"), "{out}");
}

async fn cannot_be_somebody_else() {
    let mut node = Node::start().await;
    let mut detail = assignment("command: 'true'");
    detail.login = Some("root".into());
    node.desire(vec![wanted(1, one(), DesiredPhase::Run)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let cause = ExitCause::PrepareFailed(PrepareStep::Account);
    assert_eq!(node.heard.causes(id(1)), [cause]);
}
