//! Output in a directory of the user's, `logs.dir`.

use super::{assert_counted, counting, stream};
use crate::world::{Cluster, await_true};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;

const MAX: u64 = 1 << 20;

#[test]
fn all_of_it_is_there_though_its_node_keeps_less_and_its_agent_dies() {
    let cluster = Cluster::start(1);
    let share = cluster.home.path("share");
    let dir = format!("logs.dir={}", share.display());
    let there = |job: u64, name: &str| {
        fs::read_to_string(share.join(format!("{job}/attempt-1/{name}"))).unwrap_or_default()
    };
    let stop = cluster.home.path("stop");
    let counted = cluster.submit(&["--set", &dir, "--", "bash", "-c", &counting(&stop)]);
    await_true("its output arrives", || !there(counted, "0.out").is_empty());
    let file = stream(&cluster, "n1", counted, "0.out");
    let on_node = || file.metadata().expect("it is there").len();
    cluster.kill("n1");
    let before = on_node();
    await_true("the rank writes on", || on_node() > before + 100_000);
    cluster.start_again();

    // 3,000,000 lines have 23 MB.
    let bound = "logs.max_per_rank=1MiB";
    let script = "seq 3000000; echo told >&2";
    let flood = cluster.submit(&["--set", &dir, "--set", bound, "--", "bash", "-c", script]);
    assert_eq!(cluster.wait(flood), 0);
    fs::write(&stop, "").expect("a file can be written");
    assert_eq!(cluster.wait(counted), 0);
    let text: String = (1..=3_000_000).map(|line| format!("{line}\n")).collect();
    await_true("all of the flood is there", || there(flood, "0.out").len() >= text.len());
    assert!(there(flood, "0.out") == text, "it is what the rank wrote");
    await_true("and what it wrote last", || there(flood, "0.err") == "told\n");
    await_true("the count is there", || {
        there(counted, "0.out").lines().last().is_some_and(|line| line.starts_with("end "))
    });
    assert_counted(&there(counted, "0.out"));
    // The node keeps its own bound, and shows what it has.
    let kept = stream(&cluster, "n1", flood, "0.out");
    let blocks = || kept.metadata().expect("it is there").blocks();
    await_true("the node has no more than it may", || blocks() * 512 <= MAX);
    let shown = cluster.yard(&["logs", &flood.to_string(), "--tail", "1"]).ok();
    assert_eq!(shown.out, "3000000\n");
}

#[test]
fn a_directory_that_is_gone_is_told_of_and_gets_all_when_it_is_back() {
    let cluster = Cluster::start(1);
    let [share, away, go, end] = ["share", "away", "go", "end"].map(|name| cluster.home.path(name));
    let dir = format!("logs.dir={}", share.display());
    let until =
        |path: &std::path::Path| format!("until [ -e {} ]; do sleep 0.03; done", path.display());
    let script = format!("{}; echo said; {}", until(&go), until(&end));
    let job = cluster.submit(&["--set", &dir, "--", "bash", "-c", &script]);
    await_true("it runs", || cluster.job(job)["state"] == "Running");
    fs::rename(&share, &away).expect("a folder can be renamed");
    fs::write(&share, "something else").expect("a file can be written");
    fs::write(&go, "").expect("a file can be written");
    let name = job.to_string();
    await_true("people are told", || {
        let ran = cluster.yard(&["logs", &name, "--prepare"]).run();
        ran.code == 0 && ran.err.contains("output is not delivered to")
    });
    // The rank notices nothing, and its output is read from the node.
    assert_eq!(cluster.yard(&["logs", &name]).ok().out, "said\n");
    fs::write(&end, "").expect("a file can be written");
    assert_eq!(cluster.wait(job), 0);
    fs::remove_file(&share).expect("a file can be removed");
    fs::rename(&away, &share).expect("a folder can be renamed");
    let there = share.join(format!("{name}/attempt-1/0.out"));
    await_true("it arrives", || fs::read(&there).is_ok_and(|text| text == b"said\n"));
    let noted = share.join(format!("{name}/attempt-1/prepare-n1.err"));
    await_true("so does what was told", || noted.exists());
}

#[test]
fn what_a_job_puts_in_the_place_of_its_files_leads_nowhere() {
    let cluster = Cluster::start(1);
    let [share, outside] = ["share", "outside"].map(|name| cluster.home.path(name));
    fs::write(&outside, "kept").expect("a file can be written");
    let dir = format!("logs.dir={}", share.display());
    let folder = format!("{}/$YARD_JOB_ID/attempt-1", share.display());
    let script =
        format!("cd {folder}; ln -s {} 0.out; mkfifo 1.out; mkdir 2.out", outside.display());
    let prepare = format!("prepare={script}");
    let ranks = "ranks_per_node=4";
    let sets = ["--set", &dir, "--set", &prepare, "--set", ranks];
    let echo = ["--", "bash", "-c", "echo rank $YARD_RANK"];
    let job = cluster.submit(&[&sets[..], &echo[..]].concat());
    assert_eq!(cluster.wait(job), 0);
    let attempt = share.join(format!("{job}/attempt-1"));
    let read = |name: &str| fs::read_to_string(attempt.join(name)).unwrap_or_default();
    await_true("the others arrive", || read("3.out") == "rank 3\n");
    let name = job.to_string();
    let why = format!("{}/0.out: something else is in the place of", attempt.display());
    await_true("people are told", || {
        cluster.yard(&["logs", &name, "--prepare"]).run().err.contains(&why)
    });
    let shown = || cluster.json(&["node", "show", "n1"]);
    await_true("it is shown with the node", || shown()["facts"]["late"][0]["job_id"] == job);
    assert_eq!(fs::read(&outside).expect("it is there"), b"kept");
    for name in ["0.out", "1.out"] {
        fs::remove_file(attempt.join(name)).expect("it is there");
    }
    fs::remove_dir(attempt.join("2.out")).expect("it is there, and empty");
    for rank in 0..3 {
        let text = format!("rank {rank}\n");
        await_true("the rest arrives", || read(&format!("{rank}.out")) == text);
    }
    await_true("nothing is late any more", || shown()["facts"]["late"] == Value::Array(Vec::new()));
}

#[test]
fn what_was_written_before_the_ranks_is_shown() {
    let cluster = Cluster::start(1);
    let prepare = "prepare=echo prepares; echo loudly >&2";
    let job = cluster.submit(&["--set", prepare, "--", "echo", "ran"]).to_string();
    cluster.yard(&["wait", &job, "--timeout", "1m"]).ok();
    let ran = cluster.yard(&["logs", &job, "--prepare"]).ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("prepares\n", "loudly\n"));
    assert_eq!(cluster.yard(&["logs", &job]).ok().out, "ran\n");
    // A directory that cannot be made is why there is nothing else.
    let file = cluster.home.path("file");
    fs::write(&file, "").expect("a file can be written");
    let dir = format!("logs.dir={}/logs", file.display());
    let job = cluster.submit(&["--set", &dir, "--", "echo", "ran"]).to_string();
    cluster.yard(&["wait", &job, "--timeout", "1m"]).exits(125);
    let shown = cluster.json(&["show", &job]);
    assert_eq!(shown["cause"]["text"], "PrepareFailed(LogDir)", "{shown}");
    cluster.yard(&["logs", &job]).ok().says(&["on node n1: Not a directory", "make "]);
}
