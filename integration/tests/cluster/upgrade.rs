//! Two versions of the program in one cluster: upgraded one by one as `docs/operating/upgrade.md`
//! says, back again, and across the point of no return.

use crate::members::{Trio, member, part};
use crate::world::gate::Gate;
use crate::world::yard::{next, program};
use crate::world::{Cluster, Port, await_true};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What nodes are called, to look at their agents.
const NODES: [&str; 2] = ["n1", "n2"];

/// The commands of a chapter of the page, in order.
fn commands(chapter: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating/upgrade.md");
    let text = fs::read_to_string(page).expect("the page can be read");
    let mut found = Vec::new();
    let (mut here, mut open) = (false, false);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            here = title == chapter;
        } else if line.starts_with("```") {
            open = !open;
        } else if here && open {
            let command = line.split('#').next().unwrap_or_default().trim();
            found.push(command.to_string());
        }
    }
    assert!(!found.is_empty(), "{chapter:?} has no commands");
    found
}

/// Does what a chapter of the page says. `restart` is what restarting means on this machine,
/// `program` what is installed.
fn follow(cluster: &Cluster, chapter: &str, program: &Path, restart: &dyn Fn()) {
    for command in commands(chapter) {
        match command.as_str() {
            "install -m 755 yard /usr/local/bin/yard" => cluster.home.install(program),
            "systemctl restart yard-coordinator" | "systemctl restart yard-agent" => restart(),
            command => {
                let words: Vec<&str> = command.split(' ').collect();
                assert_eq!(words[0], "yard", "the page has a command of another kind: {command}");
                cluster.yard(&words[1..]).ok();
            }
        }
    }
}

/// Stops a part in order, and starts it with the program that is installed.
fn restart(cluster: &Cluster, part: &str) {
    let process = cluster.part(part);
    process.terminate();
    process.await_end();
    cluster.start_again();
}

fn version(program: &Path, cluster: &Cluster) -> String {
    let told = cluster.home.yard_of(program, &["--version"]).ok().out;
    told.trim().strip_prefix("yard ").expect("it says what it is").to_string()
}

/// Installs a program and restarts one coordinator, as the page says; waits as it says.
fn upgrade_member(cluster: &Cluster, id: u64, program: &Path) {
    follow(cluster, "The coordinators", program, &|| restart(cluster, &part(id)));
    let version = version(program, cluster);
    await_true(&format!("member {id} is up to date at {version}"), || {
        member(cluster, id).is_some_and(|it| it["lag_entries"] == 0 && it["version"] == version)
    });
}

/// The same with an agent.
fn upgrade_agent(cluster: &Cluster, node: &str, program: &Path) {
    follow(cluster, "The agents", program, &|| restart(cluster, node));
    let version = version(program, cluster);
    await_true(&format!("{node} is up at {version}"), || {
        let it = cluster.json(&["node", "show", node]);
        it["state"] == "Up" && it["agent_version"] == version
    });
}

/// No member ever held something else than another one.
fn assert_agreed(cluster: &Cluster) {
    let status = cluster.json(&["cluster", "status"]);
    assert_eq!(status["alarms"].as_array().map(Vec::len), Some(0), "{status}");
    for id in 1..=3 {
        let log = fs::read_to_string(cluster.dev(&format!("{}.log", part(id))));
        let log = log.expect("every member has a log");
        for word in ["members differ", "cannot be compared", "panicked"] {
            assert!(!log.contains(word), "member {id}: {log}");
        }
    }
}

/// Lets a client end, also when the test fails: it is waited for.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While members of both versions are there.
fn between(trio: &Trio) {
    let cluster = &trio.cluster;
    let refused = cluster.yard(&["cluster", "raise-level", "--yes"]).exits(1);
    let version = version(&program(), cluster);
    let named = format!("member 1 (version {version}) understands levels up to 0");
    refused.says(&["[Y3007]", &named]);
    let status = cluster.yard(&["cluster", "status"]).ok().out;
    assert!(status.contains("until these members understand 1, too"), "{status}");
    // Clients of both versions, whoever leads.
    for program in [program(), next()] {
        let words = ["run", "--cpus", "0.1", "--memory", "32MiB", "--", "echo", "both"];
        let ran = cluster.home.yard_of(&program, &words).ok();
        assert_eq!(ran.out, "both\n");
        cluster.home.yard_of(&program, &["cluster", "status"]).ok();
    }
}

/// After the raise: who is too old is told so, and the others go on.
fn too_old(trio: &Trio) {
    let cluster = &trio.cluster;
    let third = cluster.part(&part(3));
    third.terminate();
    third.await_end();
    let settings = cluster.dev("coordinator-3.toml").display().to_string();
    let run = ["coordinator", "run", "--config", &settings];
    let version = version(&next(), cluster);
    let install = format!("install version {version} or a later one");
    for _ in 0..2 {
        let ended = cluster.home.yard_of(&program(), &run).exits(78);
        ended.says(&["[Y3007]", "the cluster is at feature level 1", &install, "nothing is lost"]);
    }
    let job = cluster.submit(&["--", "true"]);
    cluster.start_again();
    await_true("member 3 is back", || {
        member(cluster, 3).is_some_and(|it| it["lag_entries"] == 0 && it["reachable"] == true)
    });
    assert_eq!(cluster.wait(job), 0);

    let (port, folder) = (Port::reserve(), cluster.home.path("fourth").display().to_string());
    let (address, first) = (port.address(), cluster.port.address());
    let token = cluster.yard(&["cluster", "token"]).ok().out;
    let join = ["coordinator", "join", &first, "-", "--address", &address, "--folder", &folder];
    let refused = cluster.home.yard_of(&program(), &join).input(&token).exits(1);
    refused.says(&["(Y3007)", &install, "as good as before"]);
    cluster.yard(&join).input(&token).ok().says(&["this machine is member 4"]);
}

#[test]
fn coordinators_are_upgraded_one_by_one_and_back_until_the_level_is_raised() {
    let trio = Trio::around(Cluster::start_to_upgrade(1), "longest_lease_ms = 60000\n");
    let cluster = &trio.cluster;
    let gate = Gate::new(cluster, "long");
    let job = gate.submit(cluster, &[]);
    let rank = gate.only_process(0);
    let over = AtomicBool::new(false);
    let acked = std::thread::scope(|scope| {
        let ending = Ending(&over);
        let client = scope.spawn(|| {
            let mut acked = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // Ends with another code than 0 if nobody answered in all of its patience.
                acked.push(cluster.submit(&["--", "true"]));
            }
            acked
        });
        for id in [2, 3, 1] {
            if id == 1 {
                between(&trio);
            }
            upgrade_member(cluster, id, &next());
        }
        // The level holds new things back, and the way back open.
        let early = cluster.yard(&["config", "set", "next", "1"]).exits(1);
        early.says(&["[Y2013]", "this needs feature level 1, the cluster is at 0"]);
        let leader = trio.leader();
        upgrade_member(cluster, leader, &program());
        upgrade_member(cluster, leader, &next());
        assert_agreed(cluster);
        drop(ending);
        client.join().expect("every command is answered")
    });
    let status = cluster.yard(&["cluster", "status"]).ok().out;
    assert!(status.contains("`yard cluster raise-level`"), "{status}");
    follow(cluster, "Raising the level", &next(), &|| ());
    cluster.yard(&["cluster", "raise-level", "1", "--yes"]).ok();
    cluster.yard(&["config", "set", "next", "set by the new command"]).ok();
    let settings = cluster.yard(&["config", "ls"]).ok().out;
    assert!(settings.contains("set by the new command"), "{settings}");
    too_old(&trio);
    let settings = cluster.yard(&["config", "ls"]).ok().out;
    assert!(settings.contains("set by the new command"), "{settings}");
    assert_agreed(cluster);

    let distinct: BTreeSet<u64> = acked.iter().copied().collect();
    assert_eq!(distinct.len(), acked.len(), "two jobs with one number: {acked:?}");
    let ids: Vec<String> = acked.iter().map(u64::to_string).collect();
    let wait: Vec<&str> = ["wait"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    cluster.yard(&wait).ok();
    assert_eq!(gate.only_process(0), rank, "another process");
    gate.open(5);
    assert_eq!(cluster.wait(job), 5);
    assert_eq!(cluster.job(job)["attempt"], 1);
}

/// A gang over both nodes, by agents of whatever versions there are.
fn gang_works(cluster: &Cluster) {
    let words = ["run", "--nodes", "2", "--cpus", "0.1", "--memory", "32MiB", "--", "true"];
    cluster.yard(&words).ok();
}

#[test]
fn agents_of_both_versions_work_with_coordinators_of_both_and_ranks_notice_nothing() {
    let cluster = Cluster::start_to_upgrade(2);
    gang_works(&cluster);
    // An agent of the next version, with a coordinator and another agent of this one.
    upgrade_agent(&cluster, "n1", &next());
    gang_works(&cluster);
    // Agents of both, with a coordinator of the next one.
    follow(&cluster, "The coordinators", &next(), &|| restart(&cluster, &part(1)));
    await_true("the coordinator is of the next version", || {
        member(&cluster, 1).is_some_and(|it| it["version"] == version(&next(), &cluster))
    });
    gang_works(&cluster);
    let both = Gate::new(&cluster, "both");
    let gang = both.submit(&cluster, &["--nodes", "2"]);
    let ones = NODES.map(|node| {
        let gate = Gate::new(&cluster, node);
        let only = format!("place.only_nodes=[{node}]");
        (gate.submit(&cluster, &["--set", &only]), gate)
    });
    let ranks = || {
        let of_ones = ones.iter().map(|(_, gate)| gate.only_process(0));
        [0, 1].map(|rank| both.only_process(rank)).into_iter().chain(of_ones).collect::<Vec<_>>()
    };
    let before = ranks();
    let shims: Vec<_> = before.iter().map(|rank| rank.shim()).collect();
    // Each agent takes over shims of the other version: forth on one machine, back on the other.
    upgrade_agent(&cluster, "n2", &next());
    upgrade_agent(&cluster, "n1", &program());
    assert_eq!(ranks(), before, "other processes");
    assert_eq!(before.iter().map(|rank| rank.shim()).collect::<Vec<_>>(), shims, "other shims");
    for (code, (job, gate)) in (31..).zip(&ones) {
        gate.open(code);
        assert_eq!(cluster.wait(*job), i32::from(code), "exact");
    }
    both.open(33);
    assert_eq!(cluster.wait(gang), 33);
    for job in ones.iter().map(|(job, _)| *job).chain([gang]) {
        assert_eq!(cluster.job(job)["attempt"], 1);
    }
}
