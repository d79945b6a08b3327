//! Who hears the signal that asks a job to stop: main processes, or everybody.

use crate::world::{LONG_MS, Node, eventually, id, one, output, wanted};
use yard_agent::logs::{Kind, Writer};
use yard_common::ExitCause;
use yard_core::agent::DesiredPhase;

/// Two lines for a shell: the second program runs as a child of it.
const LINES: &str = r#"command: |
  W='trap "echo worker; exit 3" TERM; echo on; while :; do sleep 0.01; done'
  sh -c "$W"
  echo after
"#;

/// A program with two workers, which it stops itself before it ends.
const WORKERS: &str = r#"command: |
  exec /usr/bin/python3 -u -c '
  import os, signal
  out = lambda text: os.write(1, (text + "\n").encode())
  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
  def worker():
      out("on")
      out("worker " + signal.Signals(signal.sigwait([signal.SIGTERM, signal.SIGUSR1])).name)
      os._exit(0)
  pids = []
  for _ in range(2):
      pid = os.fork()
      if pid == 0:
          worker()
      pids.append(pid)
  signal.sigwait([signal.SIGTERM])
  out("saved")
  for pid in pids:
      if "ASKED" not in os.environ:
          os.kill(pid, signal.SIGUSR1)
      os.waitpid(pid, 0)
  '
"#;

async fn stopped(yaml: &str, running: usize) -> (ExitCause, Vec<String>) {
    let mut node = Node::start().await;
    node.run(1, yaml).await;
    node.until(|heard| heard.started(id(1)) == 1).await;
    let root = node.root.path().to_path_buf();
    let out = || output(&root, 0, Writer::Rank(0), Kind::Out);
    eventually("it runs", || out().lines().filter(|line| *line == "on").count() == running);
    let stop = DesiredPhase::Stop { cause: ExitCause::Preempted, grace_ms: LONG_MS };
    node.desire(vec![wanted(1, one(), stop)], Vec::new()).await;
    node.until(|heard| heard.is_reaped(id(1))).await;
    let (cause, status, _) = node.heard.exits(id(1))[0];
    assert_eq!(cause, ExitCause::Preempted);
    let mut lines: Vec<String> = out().lines().skip(running).map(String::from).collect();
    lines.sort_unstable();
    (status.unwrap(), lines)
}

/// A shell that waits for a program does not pass the signal on: it ends, and the program with it.
/// Whoever wants to save something writes `exec`, a trap, or `stop: { to: all }`.
#[tokio::test]
async fn a_shell_ends_and_takes_along_what_it_waits_for() {
    let (status, lines) = stopped(LINES, 1).await;
    assert_eq!((status, lines), (ExitCause::Signaled(15), vec![]));
}

#[tokio::test]
async fn if_everybody_is_asked_everybody_hears_it() {
    let yaml = format!("{LINES}stop: {{ to: all }}\n");
    let (status, lines) = stopped(&yaml, 1).await;
    // The shell ends at once, and what it waited for still has its time.
    assert_eq!((status, lines), (ExitCause::Signaled(15), vec!["worker".to_string()]));
}

#[tokio::test]
async fn a_program_has_time_to_stop_its_workers() {
    let (status, lines) = stopped(WORKERS, 2).await;
    assert_eq!(status, ExitCause::Exited(0));
    assert_eq!(lines, ["saved", "worker SIGUSR1", "worker SIGUSR1"]);
}

#[tokio::test]
async fn workers_that_are_asked_too_end_before_their_program_does() {
    let yaml = format!("{WORKERS}stop: {{ to: all }}\nenv: {{ ASKED: '1' }}\n");
    let (status, lines) = stopped(&yaml, 2).await;
    assert_eq!(status, ExitCause::Exited(0));
    assert_eq!(lines, ["saved", "worker SIGTERM", "worker SIGTERM"]);
}
