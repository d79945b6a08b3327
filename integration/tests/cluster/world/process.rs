//! Processes by id and time of start, from `/proc`: an id alone may be somebody else's by now.

use super::{await_some, await_true};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

/// Fields of `/proc/PID/stat` behind the name, which may contain anything.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(String::from).collect())
}

impl Process {
    /// The process of this id, unless it has ended.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        let fields = stat(pid)?;
        let started = fields.get(19)?.parse().ok()?;
        (fields[0] != "Z").then_some(Process { pid, started })
    }

    pub(crate) fn lives(self) -> bool {
        Process::find(self.pid) == Some(self)
    }

    pub(crate) fn parent(self) -> Option<Process> {
        Process::find(stat(self.pid)?.get(1)?.parse().ok()?)
    }

    /// The words that it was started with.
    pub(crate) fn words(self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    /// Whether it has a file open in a folder, or had one removed from there.
    pub(crate) fn holds_below(self, folder: &Path) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.into_iter().any(|target| target.starts_with(folder))
    }

    /// Bytes that it has read, of files, pipes and connections alike.
    pub(crate) fn bytes_read(self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Sends SIGKILL, if it still runs.
    pub(crate) fn kill(self) {
        self.send(Signal::KILL);
    }

    /// Sends SIGTERM, if it still runs.
    pub(crate) fn terminate(self) {
        self.send(Signal::TERM);
    }

    /// Stops it where it is, until it is told to go on.
    pub(crate) fn freeze(self) {
        self.send(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(self) {
        self.send(Signal::CONT);
    }

    fn send(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
            // It may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until nothing of it is left. A process of several threads that is killed is seen to
    /// be dead while some of them still hold its files, and the port that it listens at.
    pub(crate) fn await_end(self) {
        await_true(&format!("process {} has ended", self.pid), || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
            !self.lives() && threads.map_or(0, Iterator::count) <= 1
        });
    }

    /// The shim above a rank.
    pub(crate) fn shim(self) -> Process {
        let parents = std::iter::successors(Some(self), |process| process.parent());
        let mut shims = parents.filter(|process| process.words().contains(" shim "));
        shims.next().unwrap_or_else(|| panic!("process {} has no shim above it", self.pid))
    }
}

/// The process of a file of `yard dev`: id, time of start, boot.
pub(crate) fn of_file(path: &Path) -> Option<Process> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let process = Process::find(pid)?;
    (words.next()?.parse() == Ok(process.started)).then_some(process)
}

/// Waits for a file with a process id on each line: as many as there were starts.
pub(crate) fn await_pids(path: &Path, count: usize) -> Vec<i32> {
    await_some(&format!("{} has {count} lines", path.display()), || {
        let text = fs::read_to_string(path).ok()?;
        let lines: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

/// Processes with a path of this folder among the words that they were started with.
pub(crate) fn started_with(folder: &Path) -> Vec<Process> {
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let processes = pids.filter(|pid| *pid != own).filter_map(Process::find);
    let folder = folder.display().to_string();
    processes.filter(|process| process.words().contains(&folder)).collect()
}
