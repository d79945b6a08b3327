//! Jobs that do nothing: they are marked, the odd rank is named, and some end for it.

use crate::world::process::await_pids;
use crate::world::{Cluster, await_some, await_true};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// Submits a job from a file, small as all of them.
fn submit(cluster: &Cluster, text: &str) -> u64 {
    let file = cluster.home.work().join("job.yaml");
    let text = format!("resources: {{ cpus: 0.1, memory: 32MiB }}\n{text}");
    fs::write(&file, text).expect("a file can be written");
    let ran = cluster.yard(&["submit", &file.display().to_string()]).ok();
    ran.out.trim().parse().unwrap_or_else(|_| panic!("no id: {ran}"))
}

/// A folder that ranks share: each writes down who it is, and then reads from a pipe that nobody
/// writes to, which takes nothing of anything.
struct Hush(PathBuf);

impl Hush {
    fn new(cluster: &Cluster) -> Hush {
        let folder = cluster.home.path("hush");
        fs::create_dir(&folder).expect("a folder can be made");
        Hush(folder)
    }

    fn pipe(&self, rank: u32) -> PathBuf {
        self.0.join(format!("pipe-{rank}"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Lets a rank go on.
    fn wake(&self, rank: u32) {
        fs::write(self.pipe(rank), "x").expect("somebody reads");
    }
}

/// How far the attempt of a job is, as `why` has it.
fn progress(cluster: &Cluster, job: u64) -> Value {
    cluster.json(&["why", &job.to_string()])["progress"].clone()
}

/// Whether it was told that the job does nothing, and since when: each time.
fn told(cluster: &Cluster, job: u64) -> Vec<bool> {
    let out = cluster.yard(&["events", "-o", "json"]).ok().out;
    let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of = format!("{job}[0] attempt 1 ");
    let texts = lines.filter(|event| event["event"] == "silence");
    let texts = texts.filter_map(|event| event["text"].as_str().map(str::to_string));
    texts.filter(|text| text.starts_with(&of)).map(|text| text.contains("nothing")).collect()
}

#[test]
fn a_gang_that_does_nothing_is_marked_and_its_odd_rank_named() {
    let cluster = Cluster::start_patient(2);
    let hush = Hush::new(&cluster);
    let (quiet, again) = (hush.file("quiet"), hush.file("again"));
    let folder = hush.0.display();
    // Rank 0 writes a line now and then, falls silent when told, and writes again when woken.
    let script = format!(
        "mkfifo {folder}/pipe-$YARD_RANK; echo $$ >> {folder}/$YARD_RANK; \
         [ $YARD_RANK = 1 ] && exec cat {folder}/pipe-1; \
         until [ -e {quiet} ]; do echo line; sleep 0.3; done; cat {folder}/pipe-0; \
         until [ -e {again} ]; do echo line; sleep 0.3; done",
        quiet = quiet.display(),
        again = again.display(),
    );
    let text = format!("nodes: 2\nstall: {{ warn: 2s }}\ncommand: [bash, -c, {script:?}]\n");
    let job = submit(&cluster, &text);
    let ranks = [0, 1].map(|rank| await_pids(&hush.file(&rank.to_string()), 1));

    // One of two ranks does nothing, which is no silence of the job.
    let contrast = await_some("the odd rank is named", || {
        let contrast = progress(&cluster, job)["contrast"].clone();
        (contrast["kind"] == "Silent").then_some(contrast)
    });
    assert_eq!((&contrast["ranks"][0]["rank"], &contrast["ranks_known"]), (&1.into(), &2.into()));
    assert_eq!(contrast["ranks"][0]["node"], "n2", "{contrast}");
    await_true("its machine tells of it", || {
        progress(&cluster, job)["silent_nodes"] == serde_json::json!(["n2"])
    });
    assert_eq!(cluster.job(job)["silent_attempts"], 0);

    // Now none of them does.
    fs::write(&quiet, "").expect("a file can be written");
    await_true("the job is silent", || cluster.job(job)["silent_attempts"] == 1);
    let said = |words: &[&str], what: &str| {
        let ran = cluster.yard(words).ok();
        assert!(ran.out.contains(what), "{what:?} is not in {ran}");
    };
    said(&["ls"], "  silent ");
    said(&["why", &job.to_string()], "no rank wrote, computed or moved anything for");

    // It stays so, whoever of the cluster is replaced, and is told of once.
    for part in ["coordinator", "n1"] {
        cluster.kill(part);
        cluster.start_again();
    }
    await_true("both machines answer", || progress(&cluster, job)["silent_ms"].is_number());
    assert_eq!(cluster.job(job)["silent_attempts"], 1);

    hush.wake(0);
    await_true("it does something again", || cluster.job(job)["silent_attempts"] == 0);
    assert_eq!(told(&cluster, job).last(), Some(&false));
    assert!(told(&cluster, job).iter().filter(|silent| **silent).count() <= 1);
    assert_eq!([0, 1].map(|rank| await_pids(&hush.file(&rank.to_string()), 1)), ranks);
    fs::write(&again, "").expect("a file can be written");
    hush.wake(1);
    assert_eq!(cluster.wait(job), 0);
}

#[test]
fn a_job_that_does_nothing_ends_for_it_if_it_wants_to() {
    let cluster = Cluster::start_patient(1);
    let hush = Hush::new(&cluster);
    // The first attempt reads what never comes; the next one has read enough.
    let pipe = hush.pipe(0).display().to_string();
    let script = format!("[ $YARD_ATTEMPT = 2 ] || {{ mkfifo {pipe}; cat {pipe}; }}");
    let text = format!(
        "stall: {{ warn: 2s, kill: 3s }}\nstop: {{ grace: 1s }}\n\
         retry: {{ backoff: 1s..1s, on: {{ stalled: 1 }} }}\ncommand: [bash, -c, {script:?}]\n"
    );
    let job = submit(&cluster, &text);
    await_true("it is said when it ends", || {
        progress(&cluster, job)["stall_cluster_ms"].is_number()
    });
    assert_eq!(cluster.wait(job), 0);
    let attempts = cluster.json(&["show", &job.to_string(), "--attempts"]);
    let causes = attempts["items"].as_array().cloned().unwrap_or_default();
    let stalled = causes.iter().filter(|attempt| attempt["cause"]["kind"] == "Stalled").count();
    assert_eq!(stalled, 1, "{attempts}");

    // Nothing warns whoever does not want to know.
    let text = "stall: { warn: none }\ncommand: [sleep, '1000']\n";
    let calm = submit(&cluster, text);
    await_true("it is silent for long", || {
        let told = cluster.json(&["top"]);
        let items = told["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|item| item["silent_ms"].as_u64().is_some_and(|ms| ms > 4_000))
    });
    assert_eq!(cluster.job(calm)["silent_attempts"], 0);
    cluster.yard(&["cancel", &calm.to_string()]).ok();
    assert_eq!(cluster.wait(calm), 125);
}
