//! The processes of a development cluster. They go on when the command that started them ends, and
//! are found again by their id and the time of their start.

use super::layout::Layout;
use crate::daemon::agent::program;
use crate::failure::Failure;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use yard_agent::process::{Fact, boot_id, fact};
use yard_runtime::files;

/// A file with the id of a process.
const PID_BYTES_MAX: usize = 256;
/// A log that is longer when its process starts is begun anew.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(5);

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) pid: i32,
    started: u64,
}

/// Starts a part, apart from this process and its terminal.
pub(super) fn start(layout: &Layout, part: &str, words: &[&str]) -> Result<Running, Failure> {
    let failed = |error: io::Error| Failure::local(&error, "");
    let log = layout.log(part);
    let long = std::fs::metadata(&log).is_ok_and(|found| found.len() > LOG_BYTES_MAX);
    let mut options = OpenOptions::new();
    options.create(true).append(!long).write(true).truncate(long).mode(files::PRIVATE);
    let log = options.open(log).map_err(failed)?;
    let mut command = Command::new(program()?);
    command.args(words).arg("--config").arg(layout.settings(part));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
    // Away from the terminal: Ctrl-C is for the command alone.
    command.process_group(0).current_dir("/");
    let child = command.spawn().map_err(failed)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let gone = || Failure::local(&io::Error::other(format!("{part} ended at once")), "");
    let pid = pid.ok_or_else(gone)?;
    let started = fact(pid).ok_or_else(gone)?.started;
    let boot = boot_id().map_err(failed)?;
    let text = format!("{pid} {started} {boot}\n");
    files::write_durably(&layout.pid(part), text.as_bytes(), files::PRIVATE)
        .map_err(|error| Failure::local(&error, ""))?;
    Ok(Running { pid, started })
}

/// The process of a part, if it runs.
pub(super) fn find(path: &Path) -> Option<Running> {
    let text = files::read_text(path, PID_BYTES_MAX).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [pid, started, boot] = words.as_slice() else { return None };
    // A number from before the machine started again means nothing.
    if boot_id().ok()?.to_string() != *boot {
        return None;
    }
    let running = Running { pid: pid.parse().ok()?, started: started.parse().ok()? };
    running.lives().then_some(running)
}

impl Running {
    /// Whether it still runs.
    pub(super) fn lives(&self) -> bool {
        // A process that was killed looks dead when its first thread is, while others still hold
        // its sockets and locks.
        let threads = || {
            let listed = std::fs::read_dir(format!("/proc/{}/task", self.pid));
            listed.map_or(0, Iterator::count)
        };
        let is_same = |fact: &Fact| fact.started == self.started;
        fact(self.pid).filter(is_same).is_some_and(|fact| !fact.zombie || threads() > 1)
    }

    /// Asks it to end, and waits until it has; in the end it is killed.
    pub(super) async fn stop(&self, patience: Duration) -> Result<(), Failure> {
        self.signal(Signal::TERM)?;
        if self.ends_within(patience).await {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        if self.ends_within(patience).await {
            return Ok(());
        }
        let error = io::Error::other(format!("process {} does not end", self.pid));
        Err(Failure::local(&error, "it may hang in a file system"))
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        // The descriptor is of this process or a later one of the same id; the look after it says
        // which.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        if !self.lives() {
            return Ok(());
        }
        match pidfd_send_signal(descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Failure::local(&error, "stop it as the user who started it")),
        }
    }

    async fn ends_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.lives() {
            if Instant::now() > end {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        assert_eq!(find(&path), None);
        let own = std::process::id() as i32;
        let started = fact(own).unwrap().started;
        let boot = boot_id().unwrap();
        std::fs::write(&path, format!("{own} {started} {boot}\n")).unwrap();
        assert_eq!(find(&path), Some(Running { pid: own, started }));
        std::fs::write(&path, format!("{own} {} {boot}\n", started + 1)).unwrap();
        assert_eq!(find(&path), None, "another process of the same id");
        std::fs::write(&path, format!("{own} {started} 0\n")).unwrap();
        assert_eq!(find(&path), None, "of another boot");
    }
}
