//! Processes that nobody can end, as people see them: who they are, and what they hold.

use crate::world::silence::Silence;
use crate::world::{Cluster, await_some, await_true};
use std::fs;

#[test]
fn what_does_not_end_is_told_and_holds_what_it_has() {
    let cluster = Cluster::start_patient(1);
    let Some(mut silence) = Silence::mount() else { return };
    let all = cluster.json(&["node", "show", "n1"])["amounts"]["cpu_milli"].as_u64();
    let all = all.expect("a node has CPUs") as f64 / 1000.0;
    let file = cluster.home.work().join("job.yaml");
    let text = format!(
        "command: [cat, {}]\nresources: {{ cpus: {all}, memory: 32MiB }}\nstop: {{ grace: 1s }}\n",
        silence.file().display()
    );
    fs::write(&file, text).expect("a file can be written");
    let ran = cluster.yard(&["submit", &file.display().to_string()]).ok();
    let hangs = ran.out.trim().to_string();
    // Before its request is taken it can still be killed.
    await_true("it hangs", || silence.is_asked());
    cluster.yard(&["cancel", &hangs]).ok();
    let shown = await_some("the node says what does not end", || {
        let out = cluster.yard(&["node", "show", "n1"]).ok().out;
        out.contains("killed and does not end").then_some(out)
    });
    let line = format!("killed and does not end: job {hangs}, cat (");
    assert!(shown.contains(&line) && shown.contains("in state D"), "{shown}");
    let why = cluster.yard(&["why", &hangs]).ok();
    assert!(why.out.contains("killed on n1 and does not end: cat ("), "{why}");
    assert_eq!(cluster.job(hangs.parse().expect("an id"))["state"], "Stopping");
    // What it has is nobody else's.
    let node = cluster.json(&["node", "show", "n1"]);
    assert_eq!(node["used"]["cpu_milli"], node["amounts"]["cpu_milli"], "{node}");
    let waits = cluster.submit(&["--", "true"]);
    let why = await_some("it is known why the next one waits", || {
        let why = cluster.yard(&["why", &waits.to_string()]).ok();
        why.out.contains("it waits: Resources\n").then_some(why)
    });
    let holds = format!("held by job {hangs} (1 node)\n");
    for part in ["1 of 1 node could ever give that, 0 can now\n", &holds] {
        assert!(why.out.contains(part), "{part:?} is not in {why}");
    }
    // Nor is it forgotten with the agent.
    cluster.kill("n1");
    cluster.start_again();
    await_true("the agent that is back says it too", || {
        cluster.yard(&["node", "show", "n1"]).ok().out.contains(&line)
    });
    assert_eq!(cluster.job(waits)["state"], "Queued");
    silence.abort();
    assert_eq!(cluster.wait(hangs.parse().expect("an id")), 125);
    assert_eq!(cluster.wait(waits), 0);
    await_true("the node has nothing to tell, and all is free", || {
        let used = &cluster.json(&["node", "show", "n1"])["used"]["cpu_milli"];
        let told = cluster.yard(&["node", "show", "n1"]).ok().out;
        let says = |what| told.contains(what);
        *used == 0 && !says("does not end") && !says("left behind")
    });
}
