//! The check of the machine's owner: a program that says by its exit code whether all is well.
//!
//! It runs as the agent, with no environment, its own process group, and not for long: one that
//! does not end in time has failed, and all of its group is killed.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{self, Child};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};
use yard_common::limits::{CHECK_GOOD_MS, CHECK_MS, CHECK_OUTPUT_BYTES_MAX};

/// How long a good answer counts: a thousand jobs that come at once need no thousand checks.
const GOOD: Duration = Duration::from_millis(CHECK_GOOD_MS);

/// The check, which runs once at a time.
#[derive(Debug)]
pub(crate) struct Command {
    words: Vec<String>,
    good: Mutex<Option<Instant>>,
}

impl Command {
    pub(crate) fn new(words: Vec<String>) -> Command {
        Command { words, good: Mutex::new(None) }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        !self.words.is_empty()
    }

    /// Runs it, unless it has just found all well.
    ///
    /// # Errors
    /// Why the machine is not well, for people: the last line that the check wrote, or how it
    /// ended.
    pub(crate) async fn run(&self) -> Result<(), String> {
        let good = self.good.lock().await;
        if good.is_some_and(|at| at.elapsed() < GOOD) {
            return Ok(());
        }
        self.run_holding(good).await
    }

    /// Runs it, whatever it has found before: something has happened since.
    ///
    /// # Errors
    /// As [`Command::run`] does.
    pub(crate) async fn run_anew(&self) -> Result<(), String> {
        self.run_holding(self.good.lock().await).await
    }

    async fn run_holding(&self, mut good: MutexGuard<'_, Option<Instant>>) -> Result<(), String> {
        let outcome = run_for(&self.words, Duration::from_millis(CHECK_MS)).await;
        *good = outcome.is_ok().then(Instant::now);
        outcome
    }
}

async fn run_for(words: &[String], time: Duration) -> Result<(), String> {
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    let mut command = process::Command::new(program);
    command.args(rest).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let ended = timeout(time, finish(&mut child)).await;
    // What it left running is ended too, however it ended.
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
    match ended {
        Ok(outcome) => outcome.map_err(|why| format!("{program}: {why}")),
        Err(_) => {
            // It is killed: this does not take long.
            let _ = child.wait().await;
            Err(format!("{program}: not done within {} ms", time.as_millis()))
        }
    }
}

async fn finish(child: &mut Child) -> Result<(), String> {
    let mut output = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        let mut pipe = pipe.take(CHECK_OUTPUT_BYTES_MAX as u64);
        pipe.read_to_end(&mut output).await.map_err(|error| error.to_string())?;
        // Whoever writes more is not stopped by a full pipe.
        let mut rest = pipe.into_inner();
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map_err(|e| e.to_string())?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output);
    let last = output.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(last.map_or_else(|| status.to_string(), |line| line.chars().take(200).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(words: Vec<String>) -> Result<(), String> {
        Command::new(words).run().await
    }

    fn words(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(String::from).into()
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_the_last_line_says_why() {
        assert_eq!(run(Vec::new()).await, Ok(()));
        assert_eq!(run(words("echo fine")).await, Ok(()));
        let why = run(words("echo a; echo 'no link on ib0'; exit 2")).await.unwrap_err();
        assert_eq!(why, "/bin/sh: no link on ib0");
        let why = run(words("exit 3")).await.unwrap_err();
        assert_eq!(why, "/bin/sh: exit status: 3");
        let why = run(vec!["/does/not/exist".to_string()]).await.unwrap_err();
        assert!(why.starts_with("/does/not/exist: "), "{why}");
    }

    #[tokio::test]
    async fn a_good_answer_counts_for_a_moment_and_a_bad_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runs");
        let runs = || std::fs::read_to_string(&file).unwrap_or_default().len();
        let script = |code| words(&format!("printf x >> {}; exit {code}", file.display()));
        let good = Command::new(script(0));
        assert_eq!((good.run().await, good.run().await, runs()), (Ok(()), Ok(()), 1));
        assert_eq!((good.run_anew().await, good.run().await, runs()), (Ok(()), Ok(()), 2));
        let bad = Command::new(script(1));
        assert!(bad.run().await.is_err() && bad.run().await.is_err());
        assert_eq!(runs(), 4);
    }

    #[tokio::test]
    async fn it_gets_no_environment_and_may_write_as_it_likes() {
        let script = "[ -z \"$HOME$CARGO_MANIFEST_DIR\" ] || exit 9; yes | head -c 300000; exit 4";
        assert_eq!(run(words(script)).await.unwrap_err(), "/bin/sh: y");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let why = run_for(&words(&script), Duration::from_millis(300)).await.unwrap_err();
        assert!(why.ends_with("not done within 300 ms"), "{why}");
        let pid = std::fs::read_to_string(&file).unwrap();
        // It belongs to nobody now, so it is gone once it is reaped by whoever took it in; and a
        // kill takes a moment to reach it.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while lives() {
            assert!(std::time::Instant::now() < until, "it lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
