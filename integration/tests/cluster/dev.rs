//! `yard dev` itself: a first start, a stop with work, a new start, the end.

use crate::world::gate::Gate;
use crate::world::{COORDINATOR, Cluster, Home, process};
use serde_json::Value;

/// Names of the processes, and whether each runs.
fn states(home: &Home, code: i32) -> Vec<(String, bool)> {
    let status = home.yard(&["dev", "status", "-o", "json"]).exits(code).json();
    let items = status["items"].as_array().cloned().unwrap_or_default();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_string();
    items.iter().map(|item| (text(item, "name"), text(item, "state") == "running")).collect()
}

fn all(running: bool) -> Vec<(String, bool)> {
    [COORDINATOR, "n1", "n2"].map(|name| (name.to_string(), running)).into()
}

#[test]
fn from_nothing_to_nothing() {
    let home = Home::new();
    home.yard(&["dev", "status"]).exits(66);
    home.yard(&["run", "--", "true"]).exits(69).says(&["error"]);

    let first = home.yard(&["dev", "--detach"]).ok();
    first.says(&["n1 is up: ", "n2 is up: ", "context dev"]);
    assert_eq!(first.out, "", "talk goes to standard error");
    assert_eq!(states(&home, 0), all(true));
    assert_eq!(home.yard(&["run", "--", "echo", "hello"]).ok().out, "hello\n");
    // Again changes nothing but what is missing.
    home.yard(&["dev", "--detach"]).ok();
    let nodes = home.yard(&["node", "ls", "-o", "name"]).ok();
    assert_eq!(nodes.out, "n1\nn2\n");

    home.yard(&["dev", "reset"]).exits(64).says(&["--yes"]);
    home.yard(&["dev", "reset", "--yes"]).ok();
    assert!(!home.path("data/yard/dev").exists());
    home.yard(&["dev", "status"]).exits(66);
    assert_eq!(process::started_with(&home.path("data")), [], "processes are left");
    home.yard(&["ls"]).exits(69);
}

#[test]
fn a_stop_leaves_no_process_and_a_start_brings_the_job_back() {
    let cluster = Cluster::start(2);
    let gate = Gate::new(&cluster, "long");
    let job = gate.submit(&cluster, &["--nodes", "2"]);
    let ranks = [0, 1].map(|rank| gate.only_process(rank));
    let ended = cluster.submit(&["--", "bash", "-c", "exit 9"]);
    assert_eq!(cluster.wait(ended), 9);

    let stopped = cluster.yard(&["dev", "stop"]).ok();
    stopped.says(&["the development cluster is stopped"]);
    assert!(ranks.iter().all(|rank| !rank.lives()), "ranks run on after `yard dev stop`");
    // Gates and everything of the cluster lie below the home.
    let home = cluster.home.path("");
    assert_eq!(process::started_with(&home), [], "processes are left");
    assert_eq!(states(&cluster.home, 1), all(false));

    cluster.start_again();
    assert_eq!(states(&cluster.home, 0), all(true));
    for rank in [0, 1] {
        assert_eq!(gate.starts(rank, 2).len(), 2, "rank {rank} was started once more");
    }
    gate.open(5);
    assert_eq!(cluster.wait(job), 5);
    assert_eq!(cluster.job(job)["attempt"], 2);
    assert_eq!(cluster.wait(ended), 9, "what had ended stays as it was");
}

#[test]
fn two_first_starts_at_once_do_not_meet() {
    let homes = [Home::new(), Home::new(), Home::new()];
    let starts =
        homes.each_ref().map(|home| home.yard(&["dev", "--nodes", "1", "--detach"]).spawn());
    let ran = starts.map(|start| start.end());
    for home in &homes {
        home.yard(&["dev", "reset", "--yes"]).ok();
    }
    for ran in ran {
        assert_eq!(ran.code, 0, "{ran}");
    }
}

#[test]
fn a_reset_leaves_no_control_group() {
    let cluster = Cluster::start(1);
    cluster.yard(&["run", "--", "true"]).ok();
    let settings = std::fs::read_to_string(cluster.dev("n1.toml")).expect("there are settings");
    let name = settings.split("cgroup = \"").nth(1).and_then(|rest| rest.split('"').next());
    let name = name.expect("it has a name").to_string();
    let groups = || {
        let find = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name", &name])
            .output()
            .expect("find can be run");
        String::from_utf8_lossy(&find.stdout).into_owned()
    };
    let log = std::fs::read_to_string(cluster.dev("n1.log")).expect("there is a log");
    let uses_none = log.contains("cgroups=\"none");
    assert_eq!(groups().is_empty(), uses_none, "the agent's groups are where its log says: {log}");
    cluster.yard(&["dev", "reset", "--yes"]).ok();
    assert_eq!(groups(), "");
}
