//! `yard run`: output, exit codes, and whose fault a failure is.

use crate::world::gate::Gate;
use crate::world::{Cluster, SMALL};

/// `yard run` of a small job.
fn run(cluster: &Cluster, flags: &[&str], script: &str) -> crate::world::yard::Ran {
    let words = [&["run"][..], &SMALL, flags, &["--", "bash", "-c", script]].concat();
    cluster.yard(&words).run()
}

#[test]
fn output_is_merged_and_tagged_by_rank() {
    let cluster = Cluster::start(2);
    let script = "echo rank $YARD_RANK of $YARD_WORLD_SIZE on $YARD_NODE_NAME; \
                  echo trouble $YARD_RANK >&2";
    let ran = run(&cluster, &["--nodes", "2", "--ranks-per-node", "2", "--name", "four"], script);
    assert_eq!(ran.code, 0, "{ran}");
    // The order of ranks is theirs.
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "[r0] rank 0 of 4 on n1",
            "[r1] rank 1 of 4 on n1",
            "[r2] rank 2 of 4 on n2",
            "[r3] rank 3 of 4 on n2",
        ],
        "{ran}"
    );
    ran.says(&[
        "job 0 (four) is submitted\n",
        "attempt 1 is placed on n1, n2\n",
        "[r0] trouble 0\n",
        "[r1] trouble 1\n",
        "[r2] trouble 2\n",
        "[r3] trouble 3\n",
        "attempt 1 has ended: Exited(0)\n",
        "job 0 is Succeeded (Exited(0))\n",
    ]);

    // The same again later, from the nodes.
    let later = cluster.yard(&["logs", "0"]).ok();
    let mut again: Vec<&str> = later.out.lines().collect();
    again.sort_unstable();
    assert_eq!(again, lines, "{later}");
    let one = cluster.yard(&["logs", "0", "--rank", "3", "--stderr"]).ok();
    assert_eq!((one.out.as_str(), one.err.as_str()), ("", "[r3] trouble 3\n"), "{one}");

    // One rank needs no tag, and its bytes come as they are.
    let ran = run(&cluster, &[], "printf 'a\\n\\n b'");
    assert_eq!((ran.code, ran.out.as_str()), (0, "a\n\n b\n"), "{ran}");
}

#[test]
fn a_failing_rank_gives_its_code_and_its_name() {
    let cluster = Cluster::start(2);
    // Rank 2 fails; the others would run forever, and are stopped and not blamed.
    let script = "[ $YARD_RANK = 2 ] || exec sleep 1000; echo last words >&2; exit 42";
    let ran = run(&cluster, &["--nodes", "2", "--ranks-per-node", "2"], script);
    assert_eq!(ran.code, 42, "{ran}");
    ran.says(&[
        "[r2] last words\n",
        "attempt 1 has ended: Exited(42)\n",
        "job 0 is Failed (Exited(42))\n",
        "attempt 1 ended: Exited(42), first at rank 2 on n2",
        "whose fault: yours: the code, or a limit that it ran into\n",
        "next: nothing; it is not tried again\n",
    ]);
    assert_eq!(ran.err.matches("last words").count(), 1, "it is shown once: {ran}");
    assert_eq!(cluster.wait(0), 42);
    let why = cluster.yard(&["why", "0"]).ok();
    let tail = "the last lines of its standard error:\n    | last words\n";
    assert!(why.out.contains(tail), "{why}");
    let attempts = cluster.json(&["show", "0", "--attempts"]);
    let shares = &attempts["items"][0]["shares"];
    for node in [0, 1] {
        assert_eq!(shares[node]["state"], "Exited", "{attempts}");
    }
    assert_eq!(shares[1]["exit"]["number"], 42, "{attempts}");
    let why = cluster.json(&["why", "0"]);
    assert_eq!(why["failure"]["rank"], 2, "{why}");
    assert_eq!(why["failure"]["node"], "n2", "{why}");
    assert_eq!(why["failure"]["cause"]["fault"], "User", "{why}");
}

#[test]
fn each_kind_of_end_has_its_code() {
    let cluster = Cluster::start(1);
    for signal in ["SEGV", "KILL", "TERM"] {
        let ran = run(&cluster, &["--name", "hit"], &format!("kill -{signal} $$"));
        let number = match signal {
            "SEGV" => 11,
            "KILL" => 9,
            _ => 15,
        };
        assert_eq!(ran.code, 128 + number, "{ran}");
        ran.says(&[&format!("ended: Signaled({number}), first at rank 0 on n1")]);
    }

    let ran = run(&cluster, &["--time-limit", "300ms"], "exec sleep 1000");
    assert_eq!(ran.code, 124, "{ran}");
    ran.says(&["is Failed (TimedOut)", "try: raise time_limit"]);

    let gate = Gate::new(&cluster, "cancelled");
    let job = gate.submit(&cluster, &[]);
    let rank = gate.only_process(0);
    let id = job.to_string();
    let watched = cluster.yard(&["wait", &id]).spawn();
    cluster.yard(&["cancel", &id, "--reason", "wrong data"]).ok();
    assert_eq!(watched.end().code, 125);
    assert!(!rank.lives(), "a cancelled rank runs on");
    assert_eq!(cluster.job(job)["state"], "Cancelled");

    // A limit of `wait` is not the job's.
    let gate = Gate::new(&cluster, "waited");
    let id = gate.submit(&cluster, &[]).to_string();
    cluster.yard(&["wait", &id, "--timeout", "100ms"]).exits(124);
    gate.open(0);
    cluster.yard(&["wait", &id]).ok();
}

#[test]
fn words_behind_a_job_are_its_arguments_and_nothing_that_is_run() {
    let cluster = Cluster::start(1);
    let script = "#!/bin/sh\n#YARD resources.cpus=0.1\necho \"$2\"\n";
    let python =
        "#!/usr/bin/env python3\n#YARD resources.cpus=0.1\nimport sys\nprint(sys.argv[2])\n";
    let block = "resources: { cpus: 0.1 }\ncommand: |\n  printf '%s+'\n";
    for (file, text, out) in
        [("a.sh", script, "b c\n"), ("a.py", python, "b c\n"), ("a.yaml", block, "touch+b c+\n")]
    {
        std::fs::write(cluster.home.work().join(file), text).expect("a file can be written");
        let ran = cluster.yard(&["run", file, "--", "touch", "b c"]).ok();
        assert_eq!(ran.out, out, "{file}: {ran}");
    }
}

#[test]
fn of_several_jobs_all_are_tried() {
    let cluster = Cluster::start(1);
    let ids = [0, 1, 2].map(|_| cluster.submit(&["--hold", "--", "true"]).to_string());
    cluster.yard(&["cancel", &ids[1]]).ok();
    let [first, second, third] = &ids;
    let ran = cluster.yard(&["cancel", second, first, third]).exits(1);
    ran.says(&[&format!("{second}: job {second} is Cancelled"), &format!("{third}: 1 task")]);
    for id in ids {
        assert_eq!(cluster.json(&["show", &id])["state"], "Cancelled");
    }
}

#[test]
fn a_job_that_cannot_start_says_what_is_missing() {
    let cluster = Cluster::start(1);
    let ran = run(&cluster, &["--workdir", "/nonexistent/place"], "true");
    assert_eq!(ran.code, 125, "{ran}");
    ran.says(&["PrepareFailed(Workdir)"]);
    let words = [&["run"][..], &SMALL, &["--", "/nonexistent/program"]].concat();
    let ran = cluster.yard(&words).run();
    assert_eq!(ran.code, 125, "{ran}");
    ran.says(&["StartFailed("]);
}
