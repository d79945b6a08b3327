//! The setup of a pool: machines that do something before they take work.

use crate::world::gate::Gate;
use crate::world::{Cluster, await_some, await_true};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A cluster of one node, and what its setup leaves.
struct Lab {
    cluster: Cluster,
}

impl Lab {
    fn new() -> Lab {
        Lab { cluster: Cluster::start_patient(1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.home.path(name)
    }

    /// Gives the pool a script, which leaves a line in `ran` each time.
    fn set(&self, rest: &str, flags: &[&str]) {
        let file = self.path("setup.sh");
        let text = format!("echo x >> {}\n{rest}\n", self.path("ran").display());
        fs::write(&file, text).expect("a file can be written");
        let file = file.display().to_string();
        let words = [&["pool", "set", "default", "--setup", &file][..], flags].concat();
        self.cluster.yard(&words).ok();
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("ran")).unwrap_or_default().lines().count()
    }

    fn setup(&self) -> Value {
        self.cluster.json(&["node", "show", "n1"])["setup"].clone()
    }

    fn await_stage(&self, revision: u32, stage: &str) {
        await_true(&format!("revision {revision}: {stage}"), || {
            let setup = self.setup();
            setup["told_revision"] == revision && setup["stage"] == stage
        });
    }

    fn log(&self, flags: &[&str]) -> String {
        self.cluster.yard(&[&["node", "logs", "n1"], flags].concat()).ok().out
    }
}

#[test]
fn a_machine_takes_work_when_the_setup_of_its_pool_is_done() {
    let lab = Lab::new();
    let cluster = &lab.cluster;
    let (gate, before) = (lab.path("gate"), Gate::new(cluster, "before"));
    let held = before.submit(cluster, &[]);
    let rank = before.only_process(0);
    let wait =
        format!("echo waits for $WHAT\nuntil [ -e {} ]; do sleep 0.05; done", gate.display());
    lab.set(&wait, &["--setup-env", "WHAT=a gate", "--setup-timeout", "5m"]);
    lab.await_stage(1, "Running");
    let waits = cluster.submit(&["--", "true"]);
    let why = cluster.yard(&["why", &waits.to_string()]).ok();
    assert!(why.out.contains("1 where the setup of the pool is not done"), "{why}");
    let shown = cluster.yard(&["node", "show", "n1"]).ok();
    for part in ["reason   Setup\n", "setup    revision 1 runs, since ", "Setup since "] {
        assert!(shown.out.contains(part), "{part:?} is not in {shown}");
    }
    await_true("what it writes is shown", || lab.log(&[]) == "waits for a gate\n");
    assert!(rank.lives(), "what runs there goes on");
    fs::write(&gate, "").expect("a file can be written");
    assert_eq!(cluster.wait(waits), 0);
    before.open(0);
    assert_eq!(cluster.wait(held), 0);
    let pool = cluster.json(&["pool", "show", "default"]);
    assert_eq!(pool["setup"]["nodes_done"], 1, "{pool}");
    assert_eq!(pool["setup"]["variables"]["WHAT"], "a gate", "{pool}");

    // An agent that comes back does not do it again.
    cluster.kill("n1");
    cluster.start_again();
    assert_eq!(cluster.wait(cluster.submit(&["--", "true"])), 0);
    assert_eq!((lab.setup()["stage"].as_str(), lab.runs()), (Some("Done"), 1));

    lab.set("echo no mirror; exit 3", &[]);
    lab.await_stage(2, "Failed");
    let waits = cluster.submit(&["--", "true"]);
    let shown = cluster.yard(&["node", "show", "n1"]).ok();
    let told = "revision 2 failed with exit code 3: no mirror, takes no new work";
    assert!(shown.out.contains(told), "{shown}");
    let listed = cluster.yard(&["pool", "show", "default"]).ok();
    assert!(listed.out.contains("0 have done it, it failed on 1"), "{listed}");
    assert_eq!(
        (lab.log(&[]), lab.log(&["--previous"])),
        ("no mirror\n".to_string(), "waits for a gate\n".to_string())
    );
    let runs = lab.runs();
    cluster.yard(&["node", "check", "n1"]).ok();
    await_true("it is tried again", || lab.runs() > runs);
    assert_eq!(cluster.job(waits)["state"], "Queued");

    lab.set("", &[]);
    assert_eq!(cluster.wait(waits), 0, "what is mended is picked up");
    let conditions = await_some("the node is well", || {
        let node = cluster.json(&["node", "show", "n1"]);
        (node["health"] == Value::Array(Vec::new())).then(|| node["conditions"].clone())
    });
    assert_eq!(conditions, Value::Array(Vec::new()));
    cluster.yard(&["pool", "set", "default", "--no-setup"]).ok();
    assert_eq!(cluster.json(&["pool", "show", "default"])["setup"], Value::Null);
    assert_eq!(cluster.wait(cluster.submit(&["--", "true"])), 0);
}

#[test]
fn a_machine_whose_owner_refuses_the_setup_takes_no_work() {
    let lab = Lab::new();
    let cluster = &lab.cluster;
    let file = cluster.dev("n1.toml");
    let text = fs::read_to_string(&file).expect("there are settings");
    fs::write(&file, text + "\n[setup]\nallowed = false\n").expect("a file can be written");
    cluster.kill("n1");
    cluster.start_again();
    lab.set("", &[]);
    lab.await_stage(1, "Refused");
    assert_eq!(lab.runs(), 0);
    let job = cluster.submit(&["--", "true"]);
    assert_eq!(cluster.job(job)["state"], "Queued");
    let none = cluster.yard(&["node", "logs", "n1"]).run();
    assert!(none.code != 0 && none.err.contains("no setup ran here"), "{none}");
    cluster.yard(&["pool", "set", "default", "--no-setup"]).ok();
    assert_eq!(cluster.wait(job), 0);
}
