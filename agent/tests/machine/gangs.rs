//! Gangs of several nodes, all on this machine.

use crate::world::{Node, Root, assignment, eventually, id, one, variables, wanted};
use std::path::Path;
use yard_agent::driver::Options;
use yard_agent::launch::{Assignment, GangNode};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_common::cause::{Fault, PrepareStep};
use yard_core::agent::DesiredPhase;

/// Nodes that share a place to meet.
async fn nodes(count: u32) -> (tempfile::TempDir, Vec<Node>) {
    let meeting = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for number in 0..count {
        let gang = meeting.path().join("gang");
        let root = Root::new();
        nodes.push(
            Node::with(root, &format!("yard-node-{number}"), |options| {
                options.gang_dir = Some(gang);
            })
            .await,
        );
    }
    (meeting, nodes)
}

/// The share of one node of a gang.
fn share(yaml: &str, rank: u32, nodes: u32, ranks: u32) -> Assignment {
    let node = |number: u32| GangNode {
        group: 0,
        name: format!("yard-node-{number}"),
        address: "127.0.0.1".into(),
        ranks,
    };
    Assignment { node_rank: rank, nodes: (0..nodes).map(node).collect(), ..assignment(yaml) }
}

/// Prepares a gang on all nodes, and starts it once all are ready.
async fn start(nodes: &mut [Node], yaml: &str, ranks: u32) {
    let count = nodes.len() as u32;
    for (rank, node) in (0..).zip(nodes.iter_mut()) {
        let detail = share(yaml, rank, count, ranks);
        node.desire(vec![wanted(1, one(), DesiredPhase::Prepare)], vec![(id(1), detail)]).await;
    }
    for node in nodes.iter_mut() {
        node.until(|heard| heard.is_ready(id(1))).await;
    }
    for node in nodes.iter_mut() {
        node.desire(vec![wanted(1, one(), DesiredPhase::Start)], Vec::new()).await;
    }
}

#[tokio::test]
async fn ranks_of_torch_find_each_other() {
    let (_meeting, mut nodes) = nodes(2).await;
    let yaml = "nodes: 2\nranks_per_node: 2\nlaunch: torch\ncommand: env; cat $YARD_HOSTFILE";
    start(&mut nodes, yaml, 2).await;
    let mut ports = Vec::new();
    for (rank, node) in (0..).zip(&mut nodes) {
        node.until(|heard| heard.is_reaped(id(1))).await;
        assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0)]);
        for local in 0..2 {
            let number = rank * 2 + local;
            let text = node.output(0, Writer::Rank(number), Kind::Out);
            assert!(text.ends_with("\nyard-node-0 slots=2\nyard-node-1 slots=2\n"), "{text}");
            let found = variables(&text);
            let expected = [
                ("RANK", number.to_string()),
                ("LOCAL_RANK", local.to_string()),
                ("WORLD_SIZE", "4".into()),
                ("LOCAL_WORLD_SIZE", "2".into()),
                ("NODE_RANK", rank.to_string()),
                ("MASTER_ADDR", "127.0.0.1".into()),
                ("YARD_NUM_NODES", "2".into()),
                ("YARD_HOSTS", "127.0.0.1,127.0.0.1".into()),
            ];
            for (name, value) in expected {
                assert_eq!(found.get(name), Some(&value), "{name} of rank {number}");
            }
            ports.push(found["MASTER_PORT"].clone());
        }
    }
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
}

#[tokio::test]
async fn custom_runs_once_and_other_nodes_wait_for_their_stop() {
    let (_meeting, mut nodes) = nodes(2).await;
    start(&mut nodes, "nodes: 2\nlaunch: custom\ncommand: echo $YARD_NODE_RANK", 1).await;
    nodes[0].until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(nodes[0].output(0, Writer::Rank(0), Kind::Out), "0\n");
    nodes[1].until(|heard| heard.started(id(1)) == 1).await;
    assert_eq!(nodes[1].heard.causes(id(1)), []);
    let cause = ExitCause::Exited(0);
    let stop = DesiredPhase::Stop { cause, grace_ms: 1_000 };
    nodes[1].desire(vec![wanted(1, one(), stop)], Vec::new()).await;
    nodes[1].until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(nodes[1].heard.causes(id(1)), [ExitCause::Exited(0)]);
}

/// A test that cannot run here fails, and says what to do: passing in silence proves nothing.
fn need_mpi() {
    let found = Options::JOB_PATH.split(':').any(|at| Path::new(at).join("mpirun").exists());
    assert!(found, "no mpirun in {}; as root: apt-get install openmpi-bin", Options::JOB_PATH);
}

#[tokio::test]
async fn mpi_reaches_the_other_nodes_through_their_shims() {
    need_mpi();
    let (_meeting, mut nodes) = nodes(2).await;
    let yaml = "nodes: 2\nranks_per_node: 2\nlaunch: mpi\n\
                command: 'echo rank $YARD_RANK of $OMPI_COMM_WORLD_SIZE on $YARD_NODE_NAME'";
    start(&mut nodes, yaml, 2).await;
    for (rank, node) in (0..).zip(&mut nodes) {
        node.until(|heard| heard.is_reaped(id(1))).await;
        let launcher = || node.output(0, Writer::Launcher, Kind::Err);
        assert_eq!(node.heard.causes(id(1)), [ExitCause::Exited(0)], "{}", launcher());
        for local in 0..2 {
            let number = rank * 2 + local;
            let text = node.output(0, Writer::Rank(number), Kind::Out);
            assert_eq!(text, format!("rank {number} of 4 on yard-node-{rank}\n"));
        }
    }
}

#[tokio::test]
async fn mpi_between_machines_ends_with_a_cause_that_no_machine_pays_for() {
    let mut node = Node::start().await;
    let detail = share("nodes: 2\nlaunch: mpi\ncommand: 'true'", 0, 2, 1);
    node.desire(vec![wanted(1, one(), DesiredPhase::Prepare)], vec![(id(1), detail)]).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let cause = ExitCause::PrepareFailed(PrepareStep::Setup);
    assert_eq!(node.heard.causes(id(1)), [cause]);
    // Tried again, it would fail again: not for the twenty tries of a failing machine.
    assert_eq!(cause.fault(), Fault::User);
}

#[tokio::test]
async fn the_code_of_a_failing_mpi_rank_is_the_end_of_the_gang() {
    need_mpi();
    let (meeting, mut nodes) = nodes(2).await;
    let gate = meeting.path().join("gate");
    let yaml = format!(
        "nodes: 2\nranks_per_node: 1\nlaunch: mpi\n\
         command: 'echo $$; if [ $YARD_RANK = 0 ]; then touch {gate}; sleep 1000; fi; \
         while [ ! -e {gate} ]; do sleep 0.01; done; exit 7'",
        gate = gate.display()
    );
    start(&mut nodes, &yaml, 1).await;
    nodes[0].until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(nodes[0].heard.causes(id(1)), [ExitCause::Exited(7)]);
    nodes[1].until(|heard| heard.is_reaped(id(1))).await;
    assert_eq!(nodes[1].heard.causes(id(1)), [ExitCause::Exited(0)]);
    let pid = nodes[0].output(0, Writer::Rank(0), Kind::Out).trim().parse().unwrap();
    eventually("rank 0 is gone", || !crate::world::lives(pid));
}
