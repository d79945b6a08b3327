//! Agents that die: their ranks do not notice, and no exit code is lost.

use crate::world::gate::Gate;
use crate::world::{COORDINATOR, Cluster, await_true};
use std::time::{Duration, Instant};

/// A bound, and no measurement: it must hold on a busy machine.
const BACK: Duration = Duration::from_secs(10);

#[test]
fn a_killed_agent_costs_no_rank_and_no_exit_code() {
    let cluster = Cluster::start_patient(2);
    let long = Gate::new(&cluster, "long");
    let job = long.submit(&cluster, &["--nodes", "2"]);
    let ranks = [0, 1].map(|rank| long.only_process(rank));
    for (node, code) in [("n1", 21), ("n2", 22)] {
        let gate = Gate::new(&cluster, node);
        let only = format!("place.only_nodes=[{node}]");
        let short = gate.submit(&cluster, &["--set", &only]);
        let rank = gate.only_process(0);
        cluster.kill(node);
        gate.open(code);
        rank.await_end();
        assert_eq!(cluster.job(short)["cause"], serde_json::Value::Null, "nobody can know yet");

        let since = Instant::now();
        cluster.start_again();
        assert_eq!(cluster.wait(short), i32::from(code), "exact, though nobody was there");
        let back = since.elapsed();
        eprintln!("{node} is back after {back:?}");
        assert!(back < BACK, "{node} is back after {back:?}");
        assert_eq!(gate.starts(0, 1).len(), 1, "it was started again");
        await_true(&format!("{node} is up"), || {
            cluster.json(&["node", "show", node])["state"] == "Up"
        });
        assert_eq!([0, 1].map(|rank| long.only_process(rank)), ranks, "other processes");
    }
    // Both take work.
    let words = ["run", "--nodes", "2", "--cpus", "0.1", "--memory", "32MiB", "--", "true"];
    cluster.yard(&words).ok();
    assert_eq!(cluster.job(job)["state"], "Running");
    long.open(33);
    assert_eq!(cluster.wait(job), 33);
    assert_eq!(cluster.job(job)["attempt"], 1);
}

#[test]
fn everything_but_the_ranks_may_die_at_once() {
    let cluster = Cluster::start_patient(2);
    let long = Gate::new(&cluster, "long");
    let job = long.submit(&cluster, &["--nodes", "2"]);
    let ranks = [0, 1].map(|rank| long.only_process(rank));
    let short = Gate::new(&cluster, "short");
    let short_job = short.submit(&cluster, &[]);
    let short_rank = short.only_process(0);
    let parts = [COORDINATOR, "n1", "n2"].map(|part| cluster.part(part));
    for part in parts {
        part.kill();
    }
    for part in parts {
        part.await_end();
    }
    short.open(19);
    short_rank.await_end();
    cluster.start_again();
    assert_eq!(cluster.wait(short_job), 19);
    assert_eq!(short.starts(0, 1).len(), 1, "it was started again");
    assert_eq!([0, 1].map(|rank| long.only_process(rank)), ranks, "other processes");
    long.open(0);
    assert_eq!(cluster.wait(job), 0);
    assert_eq!(cluster.job(job)["attempt"], 1);
}

#[test]
fn a_node_that_stays_away_is_given_up() {
    let cluster = Cluster::start(2);
    let gate = Gate::new(&cluster, "moved");
    let job = gate.submit(&cluster, &[]);
    let rank = gate.only_process(0);
    let node = cluster.job(job)["nodes_held"][0].as_str().expect("a node").to_string();
    cluster.kill(&node);
    // After its lease the job is tried elsewhere. Its old rank runs on: nobody can tell it.
    gate.starts(0, 2);
    assert!(rank.lives(), "one coordinator alone is no reason to kill a rank");
    let found = cluster.json(&["node", "show", &node]);
    assert_eq!(found["state"], "Lost", "{found}");
    // It hears so when its agent is back.
    cluster.start_again();
    rank.await_end();
    await_true("the node is up", || cluster.json(&["node", "show", &node])["state"] == "Up");
    gate.open(6);
    assert_eq!(cluster.wait(job), 6);
    let attempts = cluster.json(&["show", &job.to_string(), "--attempts"]);
    let first = attempts["items"].as_array().and_then(|items| items.last()).expect("attempts");
    assert_eq!(first["cause"]["kind"], "NodeLost", "{attempts}");
}
