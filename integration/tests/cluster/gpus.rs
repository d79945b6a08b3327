//! GPUs through a stand-in of NVIDIA's library, loaded as the real one is: what a job sees, and
//! what happens when GPUs fail, hang, vanish, or are used by others.

use crate::world::gate::Gate;
use crate::world::process::await_pids;
use crate::world::{Cluster, Home, await_some, await_true, yard};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use yard_fake_nvml::{Gpu, Script};

/// Small jobs: all of a test run at once.
const SMALL: [&str; 5] = ["--cpus", "0.1", "--memory", "32MiB", "--"];
/// Looks often, and gives a call little time, so that tests are quick.
const HEALTH: &str = "\n[health]\nevery_ms = 200\ntimeout_ms = 1500\n";

/// A cluster of one node on a machine with GPUs that a script makes up.
struct Lab {
    cluster: Cluster,
    script: Script,
    library: PathBuf,
}

/// The stand-in, as the build left it.
fn library() -> PathBuf {
    let program = yard::program();
    let folder = program.parent().expect("it lies in a folder");
    let name = "libyard_fake_nvml.so";
    let places = [folder.join(name), folder.join("deps").join(name)];
    let found = places.into_iter().find(|place| place.exists());
    found.expect("the stand-in is missing: cargo build -p yard-fake-nvml")
}

impl Lab {
    fn new(gpus: u32, settings: &str) -> Lab {
        Lab::with(gpus, settings, |_| {})
    }

    /// With GPUs that are changed before anybody sees them.
    fn with(gpus: u32, settings: &str, change: impl FnOnce(&mut Vec<Gpu>)) -> Lab {
        let cluster = Cluster::start_patient(1);
        let folder = cluster.home.path("nvml");
        fs::create_dir(&folder).expect("a folder can be made");
        std::os::unix::fs::symlink(library(), folder.join("libnvidia-ml.so.1"))
            .expect("a link can be made");
        let mut script = Script::new(&folder.join("gpus"), gpus).expect("a file can be written");
        script.change(change).expect("a file can be written");
        let count = |gpu: &Gpu| gpu.mig.len().max(1);
        let devices: usize = script.gpus.iter().map(count).sum();
        let file = cluster.dev("n1.toml");
        let mut text = fs::read_to_string(&file).expect("there are settings");
        text.push_str(HEALTH);
        text.push_str(settings);
        fs::write(&file, text).expect("a file can be written");
        let lab = Lab { cluster, script, library: folder };
        lab.restart();
        await_true("the node has its GPUs", || lab.gpus().len() == devices);
        await_true("errors are listened to", || lab.script.is_listened_to());
        lab
    }

    /// Kills the agent and starts it again.
    fn restart(&self) {
        self.cluster.kill("n1");
        let words = ["dev", "--detach"];
        let yard = self.cluster.yard(&words).env("LD_LIBRARY_PATH", &self.library);
        yard.env("YARD_FAKE_NVML", &self.library.join("gpus")).ok();
    }

    fn node(&self) -> Value {
        self.cluster.json(&["node", "show", "n1"])
    }

    fn gpus(&self) -> Vec<Value> {
        self.node()["gpus"].as_array().cloned().unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Gpu>)) {
        self.script.change(change).expect("a file can be written");
    }

    /// Conditions of the node: kind, and the GPU's number.
    fn conditions(&self) -> BTreeSet<(String, Option<usize>)> {
        let node = self.node();
        let gpus = node["gpus"].as_array().cloned().unwrap_or_default();
        let all = node["health"].as_array().cloned().unwrap_or_default();
        let number = |uuid: &Value| gpus.iter().position(|gpu| gpu["uuid"] == *uuid);
        all.iter().map(|one| (text(&one["kind"]), number(&one["gpu"]))).collect()
    }

    fn await_condition(&self, kind: &str, gpu: Option<usize>) {
        let what = format!("{kind} of {gpu:?}");
        await_true(&what, || self.conditions().contains(&(kind.to_string(), gpu)));
    }

    fn await_well(&self) {
        await_true("the node is well", || self.conditions().is_empty());
    }

    /// Runs a line of the shell on GPUs; what it wrote.
    fn run(&self, flags: &[&str], line: &str) -> String {
        let words = [&["run"][..], flags, &SMALL, &["bash", "-c", line]].concat();
        self.cluster.yard(&words).ok().out
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn uuid(number: u32) -> String {
    Gpu::new(number).uuid
}

#[test]
fn a_job_sees_its_gpus_and_no_others() {
    let lab = Lab::new(4, "");
    let all: Vec<String> = (0..4).map(uuid).collect();
    // As torch does it: each rank indexes what it sees by its local rank.
    let line = "cut -d, -f$((LOCAL_RANK + 1)) <<<\"$CUDA_VISIBLE_DEVICES\"";
    let flags = ["--gpus", "4", "--ranks-per-node", "4", "--launch", "torch"];
    let out = lab.run(&flags, line);
    let found: BTreeSet<&str> =
        out.lines().filter_map(|line| line.split_once("] ")).map(|(_, uuid)| uuid).collect();
    assert_eq!(found, all.iter().map(String::as_str).collect(), "{out}");
    assert_eq!(lab.run(&["--gpus", "1"], "echo $CUDA_VISIBLE_DEVICES"), format!("{}\n", all[0]));

    // Four at once have four different ones, and a fifth waits.
    let gate = Gate::new(&lab.cluster, "gate");
    let jobs: Vec<u64> = (0..4).map(|_| gate.submit(&lab.cluster, &["--gpus", "1"])).collect();
    gate.starts(0, 4);
    assert!(lab.gpus().iter().all(|gpu| gpu["parts_used"] == 10_000));
    let fifth = gate.submit(&lab.cluster, &["--gpus", "1"]);
    assert_eq!(lab.cluster.job(fifth)["state"], "Queued");
    gate.open(0);
    for job in jobs.into_iter().chain([fifth]) {
        assert_eq!(lab.cluster.wait(job), 0);
    }

    // Halves of one are accounted, and nothing keeps them apart.
    let gate = Gate::new(&lab.cluster, "halves");
    let halves = [0, 1].map(|_| gate.submit(&lab.cluster, &["--gpus", "0.5"]));
    gate.starts(0, 2);
    let parts: Vec<u64> =
        lab.gpus().iter().map(|gpu| gpu["parts_used"].as_u64().unwrap_or(0)).collect();
    assert_eq!(parts, [10_000, 0, 0, 0]);
    gate.open(0);
    for job in halves {
        assert_eq!(lab.cluster.wait(job), 0);
    }
}

#[test]
fn parts_of_a_gpu_that_is_split_are_shown() {
    let split = |gpus: &mut Vec<Gpu>| gpus[1].mig = vec!["1g.10gb".into(), "2g.20gb".into()];
    let lab = Lab::with(2, "", split);
    let told = |gpu: &Value| (text(&gpu["mig_profile"]), gpu["memory_bytes"].as_u64().unwrap_or(0));
    let shown: Vec<_> = lab.gpus().iter().map(told).collect();
    let (small, large) = (("1g.10gb".to_string(), 10 << 30), ("2g.20gb".to_string(), 20 << 30));
    assert_eq!(shown, [(String::new(), 80 << 30), small, large]);
    let facts = lab.node()["facts"]["gpus"].clone();
    assert_eq!(facts[2]["parent_uuid"], uuid(1), "{facts}");
    // Whole GPUs are asked for, so none of the parts is given.
    assert_eq!(lab.run(&["--gpus", "1"], "echo $CUDA_VISIBLE_DEVICES"), format!("{}\n", uuid(0)));
}

#[test]
fn a_gpu_that_falls_off_the_bus_costs_its_job_an_attempt_and_no_other_job_anything() {
    let mut lab = Lab::new(2, "");
    let (hit, other) = (Gate::new(&lab.cluster, "hit"), Gate::new(&lab.cluster, "other"));
    let job = hit.submit(&lab.cluster, &["--gpus", "1", "--set", "retry.backoff=1s..2s"]);
    let first = hit.only_process(0);
    let neighbour = other.submit(&lab.cluster, &["--gpus", "1"]);
    let beside = other.only_process(0);
    // The driver's code for what the job did itself changes nothing.
    lab.script.raise(0, 13).expect("a file can be written");
    lab.script.raise(0, 79).expect("a file can be written");
    first.await_end();
    lab.await_condition("GpuFault", Some(0));
    assert!(beside.lives(), "the job beside it goes on");
    let node = lab.node();
    assert_eq!(node["health"][0]["until_boot"], true);
    assert!(text(&node["health"][0]["why"]).contains("XID 79"), "{node}");
    assert_eq!(node["gpus"][0]["healthy"], false);
    assert_eq!(node["gpus"][1]["healthy"], true);
    let shown = await_some("the attempt has ended", || {
        let shown = lab.cluster.job(job);
        text(&shown["cause"]["text"]).contains("GpuFault(79)").then_some(shown)
    });
    assert_eq!(shown["cause"]["fault"], "Infra", "{shown}");
    // It runs again once the other GPU is free; an agent that restarts has not forgotten.
    lab.restart();
    other.open(0);
    assert_eq!(lab.cluster.wait(neighbour), 0);
    hit.starts(0, 2);
    hit.open(0);
    assert_eq!(lab.cluster.wait(job), 0);
    assert_eq!(lab.conditions(), [("GpuFault".to_string(), Some(0))].into());
    // A check does not bring back what only a boot does.
    lab.cluster.yard(&["node", "check", "n1"]).ok();
    await_true("the check is done", || lab.node()["check_done"] == 1);
    assert_eq!(lab.conditions(), [("GpuFault".to_string(), Some(0))].into());
}

#[test]
fn a_failure_by_a_contained_error_is_the_machines_and_a_reset_ends_a_fault() {
    let mut lab = Lab::new(1, "");
    let gate = Gate::new(&lab.cluster, "gate");
    let job = gate.submit(&lab.cluster, &["--gpus", "1", "--set", "retry.infra=0"]);
    gate.only_process(0);
    lab.script.raise(0, 94).expect("a file can be written");
    lab.await_condition("GpuResetDue", Some(0));
    gate.open(7);
    lab.cluster.wait(job);
    let shown = lab.cluster.job(job);
    assert_eq!(text(&shown["cause"]["text"]), "GpuFault(94)", "{shown}");
    assert_eq!(lab.gpus()[0]["healthy"], true, "it may be used until it is reset");

    lab.script.raise(0, 119).expect("a file can be written");
    lab.await_condition("GpuFault", Some(0));
    lab.cluster.yard(&["node", "undrain", "n1", "--gpu", &uuid(0)]).ok();
    lab.await_well();
    lab.run(&["--gpus", "1"], "true");
}

#[test]
fn what_the_driver_asks_for_is_told_until_it_is_done() {
    let mut lab = Lab::new(2, "");
    lab.change(|gpus| (gpus[0].remap, gpus[1].recovery) = (1, 1));
    lab.await_condition("GpuResetDue", Some(0));
    lab.await_condition("GpuFault", Some(1));
    assert_eq!(lab.run(&["--gpus", "1"], "echo $CUDA_VISIBLE_DEVICES"), format!("{}\n", uuid(0)));
    lab.change(|gpus| (gpus[0].remap, gpus[1].recovery) = (0, 0));
    lab.await_well();
    lab.change(|gpus| gpus[0].remap = 2);
    lab.await_condition("GpuFault", Some(0));
    assert_eq!(lab.run(&["--gpus", "1"], "echo $CUDA_VISIBLE_DEVICES"), format!("{}\n", uuid(1)));
}

#[test]
fn gpus_hang_vanish_come_back_and_appear() {
    let mut lab = Lab::new(2, "");
    lab.change(|gpus| gpus[1].hang = true);
    lab.await_condition("GpuUnresponsive", Some(1));
    // The agent does not hang with it: jobs run beside, and calls about the node are answered.
    assert_eq!(lab.run(&[], "echo here"), "here\n");
    lab.change(|gpus| gpus[1].hang = false);
    lab.await_well();
    let gone = lab.script.gpus[1].clone();
    lab.change(|gpus| drop(gpus.pop()));
    lab.await_condition("GpuGone", Some(1));
    assert_eq!(lab.run(&["--gpus", "1"], "echo $CUDA_VISIBLE_DEVICES"), format!("{}\n", uuid(0)));
    lab.change(|gpus| gpus.extend([gone, Gpu::new(7)]));
    lab.await_well();
    await_true("there is a third one", || lab.gpus().len() == 3);
    lab.change(|gpus| gpus[0].lost = true);
    lab.await_condition("GpuUnresponsive", Some(0));
    assert_eq!(lab.run(&["--gpus", "2"], "echo $YARD_NUM_GPUS"), "2\n");
}

/// A process of no job, for as long as this lives.
struct Stranger(Child);

impl Stranger {
    fn start() -> Stranger {
        Stranger(Command::new("sleep").arg("600").spawn().expect("it can be started"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gpu_that_others_use_is_not_granted_and_our_own_processes_are_no_others() {
    let mut lab = Lab::new(1, "");
    let gate = Gate::new(&lab.cluster, "gate");
    let job = gate.submit(&lab.cluster, &["--gpus", "1"]);
    let rank = gate.starts(0, 1)[0];
    lab.change(|gpus| gpus[0].pids = vec![u32::try_from(rank).expect("it is positive")]);
    await_true("its process is seen", || lab.node()["facts"]["gpus"][0]["processes"] == 1);
    assert_eq!(lab.node()["facts"]["gpus"][0]["foreign_pids"], Value::Array(Vec::new()));
    let stranger = Stranger::start();
    lab.change(|gpus| gpus[0].pids.push(stranger.0.id()));
    lab.await_condition("GpuForeign", Some(0));
    gate.open(0);
    assert_eq!(lab.cluster.wait(job), 0, "what runs goes on");
    let next = lab.cluster.submit(&["--gpus", "1", "--", "true"]);
    assert_eq!(lab.cluster.job(next)["state"], "Queued");
    drop(stranger);
    lab.change(|gpus| gpus[0].pids.clear());
    assert_eq!(lab.cluster.wait(next), 0);
    lab.await_well();
}

/// A check that fails while a file is there.
fn check(home: &Home) -> (PathBuf, String) {
    let file = home.path("sick");
    let script = format!("[ ! -e {0} ] || {{ echo bad fan; exit 1; }}", file.display());
    (file, format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n"))
}

#[test]
fn a_check_before_the_job_keeps_it_from_a_sick_machine() {
    let lab = Lab::new(1, "");
    let (file, settings) = check(&lab.cluster.home);
    append(&lab.cluster.dev("n1.toml"), &settings);
    lab.restart();
    assert_eq!(lab.run(&[], "echo well"), "well\n");
    fs::write(&file, "").expect("a file can be written");
    // A good answer counts for a moment.
    let job = await_some("a job is refused", || {
        let job = lab.cluster.submit(&["--set", "retry.infra=0", "--", "sleep", "0.2"]);
        (lab.cluster.wait(job) != 0).then_some(job)
    });
    let shown = lab.cluster.job(job);
    assert_eq!(text(&shown["cause"]["text"]), "PrepareFailed(NodeCheck)", "{shown}");
    lab.await_condition("CheckFailed", None);
    let node = lab.node();
    assert!(text(&node["health"][0]["why"]).ends_with("bad fan"), "{node}");
    assert_eq!(node["conditions"][0], "Unwell");
    fs::remove_file(&file).expect("a file can be removed");
    lab.cluster.yard(&["node", "check", "n1"]).ok();
    lab.await_well();
    assert_eq!(lab.run(&[], "echo well"), "well\n");
}

#[test]
fn a_check_after_a_failure_finds_what_the_job_met() {
    let lab = Lab::new(1, "");
    let (file, settings) = check(&lab.cluster.home);
    append(&lab.cluster.dev("n1.toml"), &settings);
    lab.restart();
    let line = format!("touch {}; exit 1", file.display());
    let job = lab.cluster.submit(&["--set", "retry.user=0", "--", "bash", "-c", &line]);
    assert_ne!(lab.cluster.wait(job), 0);
    // No other job is needed to see it.
    lab.await_condition("CheckFailed", None);
    fs::remove_file(&file).expect("a file can be removed");
    lab.cluster.yard(&["node", "check", "n1"]).ok();
    lab.await_well();
}

fn append(file: &Path, settings: &str) {
    let text = fs::read_to_string(file).expect("there are settings");
    fs::write(file, text + settings).expect("a file can be written");
}

#[test]
fn a_gpu_that_is_dirty_fails_the_check_before_a_job() {
    let mut lab = Lab::new(2, "");
    lab.change(|gpus| gpus[0].used = 40 << 30);
    // The job is refused there after its patience, and runs on the other one.
    let flags = ["--gpus", "1", "--set", "retry.backoff=1s..2s"];
    let out = lab.run(&flags, "echo $CUDA_VISIBLE_DEVICES");
    assert_eq!(out, format!("{}\n", uuid(1)));
    lab.await_condition("GpuDirty", Some(0));
}

#[test]
fn a_gpu_that_works_is_a_sign_of_life() {
    let mut lab = Lab::new(1, "");
    let (file, own) = (lab.cluster.home.work().join("job.yaml"), lab.cluster.home.path("rank"));
    // It waits for its GPU, and does nothing else.
    let script = format!("echo $$ > {}; exec sleep 1000", own.display());
    let text = format!(
        "resources: {{ cpus: 0.1, memory: 32MiB, gpus: 1 }}\nstall: {{ warn: 2s }}\n\
         command: [bash, -c, {script:?}]\n"
    );
    fs::write(&file, text).expect("a file can be written");
    let ran = lab.cluster.yard(&["submit", &file.display().to_string()]).ok();
    let job: u64 = ran.out.trim().parse().expect("the number of the job");
    let pid = await_pids(&own, 1)[0].unsigned_abs();
    lab.change(|gpus| (gpus[0].pids, gpus[0].used) = (vec![pid], 3 << 30));
    let used = await_some("the load of its GPU is told", || {
        let items = lab.cluster.json(&["top"])["items"].clone();
        items.as_array()?.iter().find(|item| item["gpu_busy_percent"] == 90).cloned()
    });
    assert_eq!((&used["gpus"], &used["gpu_memory_bytes"]), (&1.into(), &(3u64 << 30).into()));
    await_true("it does something", || lab.cluster.job(job)["silent_attempts"] == 0);
    lab.change(|gpus| gpus[0].pids.clear());
    await_true("it does nothing", || lab.cluster.job(job)["silent_attempts"] == 1);
    lab.cluster.yard(&["cancel", &job.to_string()]).ok();
    assert_eq!(lab.cluster.wait(job), 125);
}
