//! A machine that is gone: what its ranks wrote lately is still to be had.

use super::stream;
use crate::world::gate::Gate;
use crate::world::network::Network;
use crate::world::process;
use crate::world::trio::{MEMBERS, NODE, PORT, Setup, Trio};
use crate::world::{Cluster, SMALL, await_true};
use std::path::Path;

/// The copy of a rank's output, once its end is in it.
fn await_copy(member: &Path, job: u64, end: &[u8]) {
    let copy = member.join(format!("copies/{job}.0.1.0.out"));
    await_true("the member has a copy", || {
        let bytes = std::fs::read(&copy).unwrap_or_default();
        bytes.windows(end.len()).any(|part| part == end)
    });
}

#[test]
fn the_last_lines_outlive_their_machine() {
    let cluster = Cluster::start(2);
    let gate = Gate::new(&cluster, "moved");
    // 900,000 lines have 6.9 MB: more than the beginning and the end that are copied.
    let script = format!("[ $YARD_ATTEMPT = 1 ] && seq 900000; echo ready; {}", gate.script());
    let job = cluster.submit(&["--", "bash", "-c", &script]);
    gate.starts(0, 1);
    let node = cluster.job(job)["nodes_held"][0].as_str().expect("a node").to_string();
    stream(&cluster, &node, job, "0.out");
    await_copy(&cluster.dev(crate::world::COORDINATOR), job, b"900000\nready\n");
    // The machine is off, and its disk with it.
    cluster.kill(&node);
    let folder = cluster.dev(&node);
    for process in process::started_with(&folder) {
        process.kill();
    }
    std::fs::rename(folder.join("logs"), cluster.home.path("gone")).expect("it can be renamed");
    gate.starts(0, 2);
    let shown = cluster.yard(&["logs", &job.to_string(), "--attempt", "1"]).ok();
    shown.says(&["the machine is gone", "bytes of rank 0 is missing"]);
    assert!(shown.out.starts_with("1\n2\n3\n"), "{}", &shown.out[..100]);
    assert!(shown.out.ends_with("\n899999\n900000\nready\n"));
    let least = (256 << 10) + (4 << 20);
    assert!(shown.out.len() >= least - 16, "{} bytes", shown.out.len());
    let last = cluster.yard(&["logs", &job.to_string(), "--attempt", "1", "--tail", "2"]).ok();
    assert_eq!(last.out, "900000\nready\n");
    // The attempt that runs now is read where it is.
    assert_eq!(cluster.yard(&["logs", &job.to_string()]).ok().out, "ready\n");
    gate.open(0);
    assert_eq!(cluster.wait(job), 0);
    // Its agent ends what is left of the first attempt.
    cluster.start_again();
    await_true("the node is up", || cluster.json(&["node", "show", &node])["state"] == "Up");
}

#[test]
fn every_member_shows_the_copies_of_a_machine_that_is_cut_off() {
    let mut trio = Trio::start(Setup { node: true, ..Setup::default() });
    let gate = Gate::at(&trio.home, "cut");
    let script = format!("echo first; echo last; {}", gate.script());
    let words = [&["submit"][..], &SMALL, &["--", "bash", "-c", &script]].concat();
    let job = trio.yard(&words).ok().out.trim().to_string();
    gate.starts(0, 1);
    let has_copy = |member: &u8| {
        let copy = trio.folder(*member).join(format!("copies/{job}.0.1.0.out"));
        std::fs::read(copy).unwrap_or_default().windows(5).any(|part| part == b"last\n")
    };
    await_true("two members have a copy", || {
        MEMBERS.iter().filter(|member| has_copy(member)).count() == 2
    });
    // As if its power were cut: nothing answers, and nothing is closed.
    for member in MEMBERS {
        trio.network.cut(NODE, member);
        trio.network.cut(member, NODE);
    }
    let following = trio.yard(&["logs", &job, "--attempt", "1", "-f"]).spawn();
    await_true("the node is given up", || {
        let shown = trio.yard(&["node", "show", "n1", "-o", "json"]).run();
        shown.code == 0 && shown.json()["state"] == "Lost"
    });
    for member in MEMBERS {
        let at = format!("{}:{PORT}", Network::address(member));
        let ran = trio.yard(&["logs", &job, "--attempt", "1", "--address", &at]).ok();
        assert_eq!(ran.out, "first\nlast\n", "member {member}: {ran}");
        ran.says(&["the machine is gone"]);
    }
    let ran = following.end();
    assert_eq!((ran.code, ran.out.as_str()), (0, "first\nlast\n"), "{ran}");
    // A member that starts anew still knows which attempt that was.
    trio.kill(1);
    trio.start_again(1);
    trio.await_whole();
    let at = format!("{}:{PORT}", Network::address(1));
    let ran = trio.yard(&["logs", &job, "--attempt", "1", "--address", &at]).ok();
    assert_eq!(ran.out, "first\nlast\n", "{ran}");
    // Back again, it ends what is left of the first attempt, and runs the next.
    for member in MEMBERS {
        trio.network.heal(NODE, member);
        trio.network.heal(member, NODE);
    }
    gate.open(0);
    trio.yard(&["wait", &job, "--timeout", "1m"]).ok();
    await_true("no shim is left", || {
        std::fs::read_dir(trio.home.path("agent/shims")).is_ok_and(|mut left| left.next().is_none())
    });
}
