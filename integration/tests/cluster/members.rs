//! Several coordinators: from tokens to removal, with leaders that die and leaders that stop.

use crate::world::gate::Gate;
use crate::world::yard::Running;
use crate::world::{COORDINATOR, Cluster, Port, await_some, await_true};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cluster of `yard dev` with three coordinators.
pub(crate) struct Trio {
    pub(crate) cluster: Cluster,
    ports: [Port; 2],
}

impl Trio {
    fn start(nodes: u16) -> Trio {
        Trio::around(Cluster::start(nodes), "")
    }

    /// Adds two coordinators with these settings.
    pub(crate) fn around(cluster: Cluster, settings: &str) -> Trio {
        let trio = Trio::prepare(cluster, settings);
        trio.cluster.yard(&["dev", "--coordinators", "3", "--detach"]).ok();
        trio
    }

    /// One coordinator, and the settings of two more.
    fn prepare(cluster: Cluster, settings: &str) -> Trio {
        let ports = [Port::reserve(), Port::reserve()];
        for (port, part) in ports.iter().zip(["coordinator-2", "coordinator-3"]) {
            let (folder, address) = (cluster.dev(part), port.address());
            let text = format!("folder = {folder:?}\nlisten = {address:?}\n{settings}");
            fs::write(cluster.dev(&format!("{part}.toml")), text).expect("a file can be written");
        }
        Trio { cluster, ports }
    }

    /// The number of the leader, once there is one.
    pub(crate) fn leader(&self) -> u64 {
        await_some("a leader", || {
            let ran = self.cluster.yard(&["cluster", "status", "-o", "json"]).run();
            if ran.code == 0 { ran.json()["leader"].as_u64() } else { None }
        })
    }
}

/// What `yard dev` calls the process of a member: they joined in the order of their numbers.
pub(crate) fn part(member: u64) -> String {
    match member {
        1 => COORDINATOR.into(),
        member => format!("{COORDINATOR}-{member}"),
    }
}

/// The member of this number, as the status shows it.
pub(crate) fn member(cluster: &Cluster, id: u64) -> Option<Value> {
    let status = cluster.json(&["cluster", "status"]);
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members.into_iter().find(|member| member["id"] == id)
}

#[test]
fn leaders_are_killed_and_nobody_notices() {
    let trio = Trio::start(1);
    let cluster = &trio.cluster;
    let gate = Gate::new(cluster, "long");
    let script = format!("echo before; {}; ", gate.script());
    let words = ["run", "--cpus", "0.1", "--memory", "32MiB", "--", "bash", "-c", &script];
    let watching = cluster.yard(&words).spawn();
    let rank =
        await_some("the job runs", || (gate.starts(0, 1).len() == 1).then(|| gate.only_process(0)));
    let mut acked: Vec<u64> = (0..5).map(|_| cluster.submit(&["--", "true"])).collect();
    let mut killed = Vec::new();
    // As if the context were from the time of one coordinator: the others are known by what was
    // learnt.
    let config = cluster.home.path("config/yard/config.toml");
    let text = fs::read_to_string(&config).expect("there is a context");
    let known: Vec<&str> = text.lines().filter(|line| line.starts_with("addresses")).collect();
    let first = format!("addresses = [{:?}]", cluster.port.address());
    fs::write(&config, text.replace(known[0], &first)).expect("a file can be written");
    for _ in 0..3 {
        let leader = trio.leader();
        cluster.kill(&part(leader));
        // The next command of all: whoever is asked first may be the one that is gone.
        acked.push(cluster.submit(&["--", "true"]));
        let next = trio.leader();
        assert_ne!(next, leader);
        assert!(rank.lives(), "a leader took a rank with it");
        cluster.start_again();
        let back = || member(cluster, leader).is_some_and(|it| it["lag_entries"] == 0);
        await_true("the one that was killed is up to date", back);
        killed.push(leader);
    }
    for job in &acked {
        assert_eq!(cluster.wait(*job), 0);
        assert_eq!(cluster.job(*job)["attempt"], 1);
    }
    acked.sort_unstable();
    acked.dedup();
    assert_eq!(acked.len(), 8, "jobs with one number: {acked:?}, {killed:?}");
    assert_eq!(gate.only_process(0), rank, "another process");
    gate.open(3);
    let ran = watching.end();
    assert_eq!((ran.code, ran.out.as_str()), (3, "before\n"), "{ran}");
}

#[test]
fn a_rolling_restart_fails_no_command() {
    let trio = Trio::start(1);
    let cluster = &trio.cluster;
    let over = AtomicBool::new(false);
    let acked = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut acked = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // Ends with another code than 0 if nobody answered in all of its patience.
                acked.push(cluster.submit(&["--", "true"]));
            }
            acked
        });
        for member in [1, 2, 3] {
            let process = cluster.part(&part(member));
            process.terminate();
            process.await_end();
            cluster.start_again();
            await_true("it is up to date", || {
                self::member(cluster, member).is_some_and(|it| it["lag_entries"] == 0)
            });
        }
        over.store(true, Ordering::Relaxed);
        client.join().expect("every command is answered")
    });
    let distinct: BTreeSet<u64> = acked.iter().copied().collect();
    assert_eq!(distinct.len(), acked.len(), "two jobs with one number: {acked:?}");
    for job in acked {
        assert_eq!(cluster.wait(job), 0);
    }
    let text = fs::read_to_string(cluster.dev("coordinator.log")).expect("there is a log");
    assert!(text.contains("hands the lead over"), "the first leader handed over: {text}");
}

#[test]
fn the_members_are_learnt_and_a_removed_leader_hands_over() {
    let trio = Trio::start(1);
    let cluster = &trio.cluster;
    let status = cluster.yard(&["cluster", "status"]).ok().out;
    assert!(status.contains("FLUSH P99") && status.contains("CERTIFICATE"), "{status}");
    let learnt = cluster.home.path("config/yard/contexts/dev/members.toml");
    let text = fs::read_to_string(&learnt).expect("the list was kept");
    assert_eq!(text.matches("127.0.0.1:").count(), 3, "{text}");
    // The agent joined when there was one; it renews its lease with all of them.
    await_true("the agent knows all members", || {
        let log = fs::read_to_string(cluster.dev("n1.log")).unwrap_or_default();
        let answered = |member| log.contains(&format!("renewals are answered member={member}"));
        (1..=3).all(answered)
    });
    cluster.yard(&["cluster", "transfer-leader", "2"]).ok().says(&["member 2 leads"]);
    assert_eq!(trio.leader(), 2);
    cluster.yard(&["cluster", "transfer-leader"]).ok();
    let leader = trio.leader();
    assert_ne!(leader, 2);
    cluster.yard(&["cluster", "transfer-leader", "9"]).exits(1);

    let gate = Gate::new(cluster, "held");
    let job = gate.submit(cluster, &[]);
    let rank = gate.only_process(0);
    let id = leader.to_string();
    let removed = cluster.part(&part(leader));
    cluster.yard(&["cluster", "remove", &id]).exits(64).says(&["--yes"]);
    cluster.yard(&["cluster", "remove", &id, "--yes"]).ok();
    assert_ne!(trio.leader(), leader);
    assert_eq!(member(cluster, leader), None);
    // Two are left, and each of them knows of the other alone.
    let text = fs::read_to_string(&learnt).expect("the list was kept");
    assert_eq!(text.matches("127.0.0.1:").count(), 2, "{text}");
    // The one that was removed hears of it.
    removed.await_end();
    let log = fs::read_to_string(cluster.dev(&format!("{}.log", part(leader))));
    let log = log.expect("there is a log");
    assert!(log.contains("was removed from the cluster") && log.contains("Y3008"), "{log}");
    assert!(rank.lives());
    gate.open(4);
    assert_eq!(cluster.wait(job), 4);
    // Done twice it is as done once; who never was there is another matter.
    cluster.yard(&["cluster", "remove", &id, "--yes"]).ok();
    cluster.yard(&["cluster", "remove", "9", "--yes"]).exits(66);
}

#[test]
fn a_join_that_was_cut_off_does_not_stop_a_development_cluster() {
    let trio = Trio::prepare(Cluster::start(1), "");
    let cluster = &trio.cluster;
    // Let in, and killed before it wrote down as whom.
    let (first, address) = (cluster.port.address(), trio.ports[0].address());
    let folder = cluster.home.path("lost");
    let lost = folder.display().to_string();
    let token = cluster.yard(&["cluster", "token"]).ok().out;
    let join = ["coordinator", "join", &first, "-", "--address", &address, "--folder", &lost];
    cluster.yard(&join).input(&token).ok().says(&["this machine is member 2"]);
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    cluster.yard(&["dev", "--coordinators", "3", "--detach"]).ok();
    assert_eq!(member(cluster, 2), None);
    for id in [1, 3, 4] {
        let role = member(cluster, id).map(|it| it["role"].clone());
        assert!(role == Some("Leader".into()) || role == Some("Follower".into()), "{id}: {role:?}");
    }
}

/// Runs a coordinator that joined by hand.
fn run(cluster: &Cluster, folder: &str, address: &str) -> Running {
    cluster.yard(&["coordinator", "run", "--folder", folder, "--listen", address]).spawn()
}

#[test]
fn a_second_machine_joins_a_cluster_with_jobs_and_leaves() {
    let cluster = Cluster::start(1);
    let jobs: Vec<u64> = (0..3).map(|_| cluster.submit(&["--", "true"])).collect();
    assert!(jobs.iter().all(|job| cluster.wait(*job) == 0));
    let (first, port) = (cluster.port.address(), Port::reserve());
    let address = port.address();
    let folder = cluster.home.path("second").display().to_string();
    let token = cluster.yard(&["cluster", "token"]).ok().out.trim().to_string();
    assert!(token.starts_with("yard-member-"), "{token}");
    let join = ["coordinator", "join", &first, "-", "--address", &address, "--folder", &folder];

    // Of another cluster: the secret is not sent.
    let (rest, cas) = token.rsplit_once('.').expect("three parts");
    let other: String = cas.chars().rev().collect();
    let foreign = cluster.yard(&join).input(&format!("{rest}.{other}")).exits(77);
    foreign.says(&["the secret was not sent"]);
    let wrong = cluster.yard(&["node", "invite"]).ok().out;
    cluster.yard(&join).input(&wrong).exits(64);
    assert!(!cluster.home.path("second").exists());

    cluster.yard(&join).input(&token).ok().says(&["this machine is member 2"]);
    // Again it finds out that it has joined; nobody else gets in with it.
    cluster.yard(&join).input(&token).ok().says(&["this machine is member 2"]);
    let third = cluster.home.path("third").display().to_string();
    let again =
        ["coordinator", "join", &first, "-", "--address", "127.0.0.1:1", "--folder", &third];
    cluster.yard(&again).input(&token).exits(77);
    assert!(!cluster.home.path("third").exists());

    let second = run(&cluster, &folder, &address);
    await_true("it has the whole log", || {
        member(&cluster, 2).is_some_and(|it| it["reachable"] == true && it["lag_entries"] == 0)
    });
    assert_eq!(member(&cluster, 2).map(|it| it["role"].clone()), Some("Learner".into()));
    let list = cluster.json(&["--address", &address, "ls", "--all"]);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3), "{list}");
    cluster.yard(&["cluster", "add", "2"]).ok().says(&["member 2 votes"]);
    let status = cluster.yard(&["cluster", "status"]).ok().out;
    assert!(status.contains("2 voters survive the loss of 0"), "{status}");

    let reset = ["coordinator", "reset", "--folder", &folder];
    cluster.yard(&[&reset[..], &["--yes"]].concat()).exits(1).says(&["stop it first"]);
    cluster.yard(&["cluster", "remove", "2", "--yes"]).ok();
    // One alone works on.
    let job = cluster.submit(&["--", "true"]);
    assert_eq!(cluster.wait(job), 0);
    drop(second);
    let asked = cluster.yard(&reset).exits(64);
    asked.says(&["member 2 of cluster", "all jobs are gone", "--yes"]);
    cluster.yard(&[&reset[..], &["--yes"]].concat()).ok();
    assert!(!cluster.home.path("second").exists());

    // It comes back as another member.
    let token = cluster.yard(&["cluster", "token"]).ok().out;
    cluster.yard(&join).input(&token).ok().says(&["this machine is member 3"]);
}
