//! Following output: across agents and leaders that die, and from one attempt to the next.

use super::{assert_counted, counting};
use crate::members::{Trio, part};
use crate::world::gate::Gate;
use crate::world::{Cluster, await_true};

#[test]
fn lines_come_once_while_agents_and_leaders_are_killed() {
    let patient = Cluster::start_patient(1);
    let trio = Trio::around(patient, "longest_lease_ms = 60000\n");
    let cluster = &trio.cluster;
    let stop = cluster.home.path("stop");
    let job = cluster.submit(&["--", "bash", "-c", &counting(&stop)]).to_string();
    await_true("it runs", || cluster.json(&["show", &job])["state"] == "Running");
    let following = cluster.yard(&["logs", &job, "-f"]).spawn();
    for round in 0..6 {
        match round % 3 {
            2 => {
                let leader = trio.leader();
                cluster.kill(&part(leader));
                trio.leader();
            }
            _ => cluster.kill("n1"),
        }
        cluster.start_again();
        await_true("n1 is up", || {
            let shown = cluster.yard(&["node", "show", "n1", "-o", "json"]).run();
            shown.code == 0 && shown.json()["state"] == "Up"
        });
    }
    std::fs::write(&stop, "").expect("a file can be written");
    let ran = following.end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_counted(&ran.out);
    // Whoever comes later reads the same.
    assert_counted(&cluster.yard(&["logs", &job]).ok().out);
}

#[test]
fn the_next_attempt_is_announced_and_followed() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "second");
    let script = format!(
        "echo out $YARD_ATTEMPT; echo err $YARD_ATTEMPT >&2; [ $YARD_ATTEMPT = 2 ] || exit 3; {}",
        gate.script()
    );
    let retry = "retry={user: 1, backoff: 1s}";
    let job = cluster.submit(&["--set", retry, "--", "bash", "-c", &script]).to_string();
    let following = cluster.yard(&["logs", &job, "-f"]).spawn();
    gate.starts(0, 1);
    gate.open(0);
    let ran = following.end();
    assert_eq!((ran.code, ran.out.as_str()), (0, "out 1\nout 2\n"), "{ran}");
    ran.says(&["note: attempt 1 is over; attempt 2 follows", "err 1\n", "err 2\n"]);
    let previous = cluster.yard(&["logs", &job, "--previous"]).ok();
    assert_eq!(previous.out, "out 1\n");
    let errors = cluster.yard(&["logs", &job, "--stderr"]).ok();
    assert_eq!((errors.out.as_str(), errors.err.as_str()), ("", "err 2\n"));
}

#[test]
fn lines_tell_when_they_were_written_and_old_ones_are_left_out() {
    let cluster = Cluster::start(1);
    let gate = Gate::new(&cluster, "later");
    let wait = gate.script().replace("exit $(cat", "echo new; exit $(cat");
    let script = format!(r"printf '\033]0;old\007\n'; {wait}");
    let job = cluster.submit(&["--", "bash", "-c", &script]).to_string();
    let path = super::stream(&cluster, "n1", job.parse().expect("a number"), "0.out");
    let times = path.with_extension("out.times");
    await_true("the agent noted it", || times.metadata().is_ok_and(|found| found.len() == 16));
    gate.open(0);
    assert_eq!(cluster.wait(job.parse().expect("a number")), 0);
    let shown = cluster.yard(&["logs", &job, "--timestamps"]).ok().out;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    let (first, second) = (lines[0].split_once(' '), lines[1].split_once(' '));
    let (Some((first, "")), Some((second, "new"))) = (first, second) else { panic!("{shown:?}") };
    assert!(first.ends_with('Z') && first <= second, "{shown}");
    // Everything is younger than an hour, and nothing is of the future.
    let out = |since: &str| cluster.yard(&["logs", &job, "--since", since]).ok().out;
    assert_eq!(out("1h"), "\nnew\n");
    assert_eq!(out("2999-01-01T00:00:00Z"), "");
    // As it was written.
    assert_eq!(cluster.yard(&["logs", &job, "--raw"]).ok().out, "\x1b]0;old\x07\nnew\n");
    cluster.yard(&["logs", &job, "--since", "noon"]).exits(64).says(&["10m"]);
}
