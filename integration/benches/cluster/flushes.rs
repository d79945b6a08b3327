//! Flushes of processes, counted by the kernel while they run: unlike `strace`, its tracing does
//! not slow down what is measured.

use crate::latency::wall;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TRACING: &str = "/sys/kernel/tracing";

/// Counts the flushes of processes, of those that they have started, and of those that they will.
pub(crate) struct Flushes {
    /// A buffer of our own: others may trace, too.
    instance: PathBuf,
}

impl Flushes {
    /// Begins to count.
    ///
    /// # Errors
    /// If the kernel does not trace, or does not let us.
    pub(crate) fn count(pids: &[u32]) -> io::Result<Flushes> {
        let tracing = Path::new(TRACING);
        if !tracing.join("instances").exists() {
            let mounted =
                Command::new("mount").args(["-t", "tracefs", "none", TRACING]).status()?;
            if !mounted.success() {
                return Err(io::Error::other("tracefs cannot be mounted"));
            }
        }
        let instance = tracing.join(format!("instances/yard-{}", std::process::id()));
        fs::create_dir(&instance)?;
        let flushes = Flushes { instance };
        flushes.set("trace_clock", "mono")?;
        flushes.set("options/event-fork", "1")?;
        let threads: Vec<String> = pids.iter().flat_map(|pid| threads(*pid)).collect();
        flushes.set("set_event_pid", &threads.join(" "))?;
        flushes.set("events/syscalls/sys_enter_fsync/enable", "1")?;
        flushes.set("events/syscalls/sys_enter_fdatasync/enable", "1")?;
        Ok(flushes)
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.instance.join(file), value)
    }

    /// When each flush began, as time since 1970.
    pub(crate) fn times(self) -> io::Result<Vec<Duration>> {
        // The tracer's clock beside ours.
        let now = wall();
        self.set("trace_marker", "now")?;
        let text = fs::read_to_string(self.instance.join("trace"))?;
        let marker = text.lines().rev().find(|line| line.contains("tracing_mark_write"));
        let marker = marker.and_then(time).ok_or_else(|| io::Error::other("the mark is lost"))?;
        let flushes = text.lines().filter(|line| line.contains("sys_f")).filter_map(time);
        Ok(flushes.filter_map(|at| (now + at).checked_sub(marker)).collect())
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
    }
}

/// The threads of a process, and of all that it has started.
fn threads(pid: u32) -> Vec<String> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        all.push(task.file_name().to_string_lossy().into_owned());
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        all.extend(children.flat_map(threads));
    }
    all
}

/// The time of a line: `NAME-PID [CPU] FLAGS SECONDS.MICROSECONDS: sys_fdatasync(fd: 9)`.
fn time(line: &str) -> Option<Duration> {
    let (at, _) = line.split_once(": ")?;
    let (seconds, micros) = at.split_whitespace().last()?.split_once('.')?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}
