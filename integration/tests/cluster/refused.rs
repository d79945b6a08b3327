//! Jobs that cannot run: too big, wrong, or ahead of their time.

use crate::world::{Cluster, Home};
use std::fs;

#[test]
fn a_job_that_is_too_big_waits_and_says_why() {
    let cluster = Cluster::start(2);
    let ran = cluster.yard(&["submit", "--cpus", "1000", "--", "hostname"]).ok();
    assert_eq!(ran.out, "0\n", "{ran}");
    ran.says(&["warning: 0 of the 2 machines of the cluster could ever run a share of it"]);

    let why = cluster.yard(&["why", "last"]).ok();
    assert!(!why.out.contains("at most 0 CPUs"), "both machines are idle: {why}");
    for part in [
        "job 0 (hostname) is Queued\n",
        "it waits: Unsatisfiable\n",
        "wants 1 node with 1000 CPUs",
        "0 of 2 nodes could ever give that, 0 can now\n",
        "the others: 2 with too few CPUs\n",
        " are free on any one\n",
    ] {
        assert!(why.out.contains(part), "{part:?} is not in {why}");
    }

    // More nodes than there are, each of which would do.
    let ran = cluster.yard(&["submit", "--nodes", "3", "--cpus", "0.1", "--", "hostname"]).ok();
    ran.says(&["warning: 2 of the 2 machines of the cluster could ever run a share of it"]);
    let why = cluster.json(&["why", "last"]);
    assert_eq!(why["reason"], "Unsatisfiable", "{why}");

    // Neither stands in the way of what fits.
    cluster.yard(&["run", "--cpus", "0.1", "--", "true"]).ok();
    for job in [0, 1] {
        assert_eq!(cluster.job(job)["state"], "Queued");
        cluster.yard(&["cancel", &job.to_string()]).ok();
        assert_eq!(cluster.job(job)["state"], "Cancelled");
        assert_eq!(cluster.wait(job), 125);
    }

    let words = ["submit", "--strict", "--cpus", "1000", "--", "hostname"];
    cluster.yard(&words).exits(64);
    assert_eq!(cluster.yard(&["ls", "--all", "-o", "name"]).ok().out, "0\n1\n2\n");
}

#[test]
fn what_did_not_run_says_why_in_words() {
    let cluster = Cluster::start(1);
    let submit = |words: &[&str], program: &str| {
        let words = [&["submit", "--cpus", "0.1"], words, &["--", program]].concat();
        cluster.yard(&words).ok();
    };
    let why = |job: &str, parts: &[&str]| {
        let why = cluster.yard(&["why", job]).ok();
        for part in parts {
            assert!(why.out.contains(part), "{part:?} is not in {why}");
        }
    };
    submit(&[], "/nonexistent/program");
    cluster.wait(0);
    let start = "attempt 1 ended: StartFailed(not found), first at rank 0 on n1, ";
    let program = "  the program /nonexistent/program: not found\n";
    let tail = "    | yard: /nonexistent/program did not start: not found\n";
    why("0", &[start, program, tail, "  next: nothing; it is not tried again\n"]);

    submit(&["--workdir", "/nonexistent/place"], "true");
    cluster.wait(1);
    let tail = "    | the working directory /nonexistent/place is not on node n1; set workdir: to ";
    why(
        "1",
        &[
            "PrepareFailed(Workdir)",
            tail,
            "  try: look at all that was written: yard logs 1 --prepare\n",
        ],
    );

    let file = cluster.home.work().join("after.yaml");
    let text = "after: { ok: [0] }\nresources: { cpus: 0.1 }\ncommand: 'true'\n";
    fs::write(&file, text).expect("a file can be written");
    cluster.yard(&["submit", "after.yaml"]).ok();
    cluster.wait(2);
    let waited = "  it waited for the success of job 0, which is Failed\n";
    why("2", &["it ended without a start: DependencyFailed\n", waited, "  try: yard why 0\n"]);

    submit(&["--hold"], "true");
    cluster.yard(&["cancel", "3", "--reason", "no more"]).ok();
    cluster.wait(3);
    why("3", &["it ended without a start: Cancelled\n", "  cancelled by ", ": no more\n"]);
    let show = cluster.yard(&["show", "3"]).ok();
    assert!(show.out.contains("cancelled  by ") && show.out.contains(": no more\n"), "{show}");

    let refused = cluster.yard(&["node", "undrain", "n1"]).run();
    refused.says(&["node n1 is neither drained nor cordoned"]);
}

#[test]
fn a_bad_file_gets_every_error_and_nothing_is_submitted() {
    let cluster = Cluster::start(1);
    let file = cluster.home.work().join("job.yaml");
    let text =
        "name: Not A Name\nndoes: 4\nresources:\n  memory: 64\ntime_limit: 10:30\ncommand: x\n";
    fs::write(&file, text).expect("a file can be written");
    for verb in ["submit", "run"] {
        let ran = cluster.yard(&[verb, "job.yaml"]).exits(64);
        assert_eq!(ran.out, "", "{ran}");
        ran.says(&[
            "error: 4 problems in the job\n",
            "job.yaml:1:7  name",
            "job.yaml:2:1  ndoes = 4  [Y1002]\n",
            "did you mean nodes?",
            "job.yaml:4:11  resources.memory = 64  [Y1006]\n",
            "job.yaml:5:13  time_limit = 10:30",
            "nothing was submitted",
        ]);
    }
    let empty = cluster.yard(&["ls", "--all", "-o", "name"]).ok();
    assert_eq!(empty.out, "", "something was submitted: {empty}");
}

#[test]
fn a_field_of_a_later_version_is_refused_by_name() {
    let cluster = Cluster::start(1);
    for (field, value) in [("image", "debian:13"), ("nodes", "1..2"), ("spares", "1")] {
        let set = format!("{field}={value}");
        let ran = cluster.yard(&["submit", "--set", &set, "--", "true"]).exits(64);
        ran.says(&[field, "[Y1014]", "not in this version"]);
        assert_eq!(ran.out, "", "{ran}");
    }
    assert_eq!(cluster.yard(&["ls", "--all", "-o", "name"]).ok().out, "");

    // With its line, and beside all other mistakes.
    let text = "ndoes: 4\nimage: debian:13\ncommand: x\n";
    fs::write(cluster.home.work().join("job.yaml"), text).expect("a file can be written");
    let ran = cluster.yard(&["submit", "job.yaml"]).exits(64);
    ran.says(&["job.yaml:1:1  ndoes = 4  [Y1002]", "job.yaml:2:8  image", "[Y1014]"]);
}

#[test]
fn what_does_not_exist_is_not_found() {
    let cluster = Cluster::start(1);
    for words in [
        &["show", "99"][..],
        &["why", "99"],
        &["logs", "99"],
        &["cancel", "99"],
        &["wait", "99"],
        &["show", "last"],
        &["show", "nobody-has-this-name"],
        &["node", "show", "n9"],
        &["queue", "show", "none"],
        &["user", "show", "nobody"],
    ] {
        let ran = cluster.yard(words).run();
        assert!(ran.code == 66, "{ran}");
    }
    // In a job it is a mistake like any other.
    cluster.yard(&["submit", "--queue", "none", "--", "true"]).exits(64).says(&["[Y2001]"]);
    cluster.yard(&["show", "a[b"]).exits(64);
    cluster.yard(&["no-such-verb"]).exits(64);
}

#[test]
fn a_file_that_is_no_job_is_told_so() {
    let home = Home::new();
    let deep = format!("command: x\nenv: {}1{}\n", "{a: ".repeat(5_000), "}".repeat(5_000));
    let long = format!("command: x\nlabels: {{ a: {} }}\n", "b".repeat(2 << 20));
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ncommand: *c\n";
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("a list", b"[1, 2]\n"),
        ("not closed", b"command: [x\n"),
        ("no text", b"command: \xff\xfe\n"),
        ("zero", b"command: \"a\\0b\"\n"),
        ("a wrong type", b"command: {}\nnodes: [1]\n"),
        ("twice", b"command: x\ncommand: y\n"),
        ("deep", deep.as_bytes()),
        ("long", long.as_bytes()),
        ("a bomb", bomb.as_bytes()),
    ] {
        fs::write(home.work().join("job.yaml"), bytes).expect("a file can be written");
        let ran = home.yard(&["submit", "job.yaml"]).run();
        assert_eq!(ran.code, 64, "{what}: {ran}");
        assert!(ran.err.starts_with("error") && ran.err.len() < 10_000, "{what}: {ran}");
    }
}
