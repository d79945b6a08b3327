//! Jobs that are asked for a checkpoint: who hears the signal, and who finds the file.

use crate::world::process::await_pids;
use crate::world::{Cluster, await_true};
use std::fs;

/// Two lines for a shell, of which the first is a program that the shell waits for. It does not
/// pass the signal on.
const LINES: &str = "sh -c 'trap \"echo worker\" USR1; echo $$ > $AT/bash; sleep 1000'\n\
                     echo after";

/// A program with two workers, which would end by the signal. It saves something when asked, and
/// goes on until it was asked twice.
const WORKERS: &str = r#"
import os, signal, sys
at, request = os.environ["AT"], os.environ["YARD_CHECKPOINT_REQUEST"]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.pause()
        os._exit(9)
    pids.append(pid)
open(at + "/python", "w").write(str(os.getpid()) + "\n")
for step in range(2):
    signal.sigwait([signal.SIGUSR1])
    text = open(request).read()
    os.remove(request)
    assert all(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in pids)
    open(f"{at}/saved{step}", "w").write(text)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
"#;

#[test]
fn a_checkpoint_is_asked_of_main_processes_and_of_whoever_looks_for_the_file() {
    let cluster = Cluster::start(1);
    let at = cluster.home.path("at");
    fs::create_dir(&at).expect("there is room");
    let place = format!("AT={}", at.display());
    let submit = |words: &[&str]| {
        let head = ["--set", "checkpoint.dir=/c", "--set", "checkpoint.signal=USR1"];
        cluster.submit(&[&head, &["--env", &place, "--"][..], words].concat())
    };
    let lines = submit(&["bash", "-c", LINES]);
    let program = submit(&["python3", "-c", WORKERS]);
    await_pids(&at.join("bash"), 1);
    await_pids(&at.join("python"), 1);
    for (step, job) in ["saved0", "saved1"].iter().zip([program, program]) {
        let ran = cluster.yard(&["checkpoint", &job.to_string()]).ok();
        assert!(ran.err.contains("asked 1 rank on 1 node"), "{ran}");
        await_true("it is saved", || {
            fs::read_to_string(at.join(step)).is_ok_and(|text| text == "user\n")
        });
    }
    assert_eq!(cluster.wait(program), 0);
    cluster.yard(&["checkpoint", &lines.to_string()]).ok();
    assert_eq!(cluster.wait(lines), 128 + 10);
    assert_eq!(cluster.yard(&["logs", &lines.to_string()]).ok().out, "");
    // What has ended, and what has no checkpoints.
    cluster.yard(&["checkpoint", &lines.to_string()]).exits(1);
    let none = cluster.submit(&["--env", &place, "--", "sh", "-c", "echo $$ > $AT/n; sleep 1000"]);
    await_pids(&at.join("n"), 1);
    let ran = cluster.yard(&["checkpoint", &none.to_string()]).exits(1);
    assert!(ran.says(&["checkpoint: { dir: /path }"]).err.contains("not asked on"));
}
