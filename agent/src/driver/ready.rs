//! Processes that stand by to be shims, so that no job waits for one to start: for its program to
//! be loaded, and for the kernel to move it into control groups, which takes milliseconds.
//!
//! Each is in groups of version 1 of its own, which get the name of the assignment when there is
//! one. Ranks are born in the group of version 2, which therefore need not exist before.

use crate::cgroup::{Group, Support};
use crate::paths::tag;
use crate::shim::GROUP;
use crate::shim::message::FromShim;
use crate::sys;
use crate::wire::{Wire, WireError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use yard_common::limits::SHIMS_READY;
use yard_core::agent::AssignmentId;

/// Between a job that took one and the start of the next, and between two starts: what a job does
/// first comes first.
const PAUSE_MS: u64 = 5;
/// Pause after one that could not be started.
const AGAIN_MS: u64 = 1_000;
/// How the groups of those that stand by are called; no assignment's tag is.
const NAME: &str = "ready-";

/// A process that is a shim, or about to be.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) wire: Wire,
    pub(super) child: Child,
    /// Whether it stood by before there was an assignment.
    pub(super) stood_by: bool,
}

/// One that stands by.
#[derive(Debug)]
struct StandBy {
    process: Process,
    group: Group,
    /// It has entered its groups.
    is_ready: bool,
}

impl StandBy {
    /// Takes in what it says. An error: it is no more, whatever it said before.
    fn hear(&mut self) -> Result<(), WireError> {
        loop {
            let said = self.process.wire.receive::<FromShim>()?;
            if said.is_empty() {
                return Ok(());
            }
            self.is_ready |= said.contains(&FromShim::Ready);
        }
    }
}

/// Those that stand by.
#[derive(Debug)]
pub(super) struct Ready {
    program: PathBuf,
    cgroups: Support,
    waiting: Vec<StandBy>,
    /// When the next is started, if one is missing.
    next_ms: u64,
    /// For names.
    count: u64,
    /// Those that end unused, to be reaped, and their groups.
    ending: Vec<(Child, Group)>,
}

impl Ready {
    /// None yet. What earlier agents left of their groups is removed.
    pub(super) fn new(program: &Path, cgroups: &Support) -> Ready {
        cgroups.remove_empty(|name| name.starts_with(NAME));
        Ready {
            program: program.to_path_buf(),
            cgroups: cgroups.clone(),
            waiting: Vec::new(),
            next_ms: 0,
            count: 0,
            ending: Vec::new(),
        }
    }

    /// Whether some are to be reaped.
    pub(super) fn is_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// When there is something to do by itself.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (self.waiting.len() < SHIMS_READY).then_some(self.next_ms)
    }

    /// Starts one if one is missing, and it is time.
    pub(super) fn refill(&mut self) {
        let ended = self
            .ending
            .extract_if(.., |(child, _)| matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        for (_, group) in ended {
            group.remove();
        }
        let now_ms = sys::boot_ms();
        if self.due_ms().is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        self.count += 1;
        let name = format!("{NAME}{}-{}", std::process::id(), self.count);
        match self.start(&name) {
            Ok(stand_by) => {
                self.waiting.push(stand_by);
                self.next_ms = now_ms + PAUSE_MS;
            }
            Err(error) => {
                // Without them each job waits for its own, which tells what is wrong.
                tracing::warn!(%error, "no shim stands by");
                self.cgroups.find(&name).remove();
                self.next_ms = now_ms + AGAIN_MS;
            }
        }
    }

    fn start(&self, name: &str) -> io::Result<StandBy> {
        let group = self.cgroups.group_v1(name).map_err(io::Error::other)?;
        let shims = self.cgroups.find(GROUP);
        let process = start(&self.program, group.v1().chain(shims.v2()), true)?;
        Ok(StandBy { process, group, is_ready: false })
    }

    /// A process for an assignment: one that stands by in groups of the assignment's name, or a new
    /// one if none is ready.
    pub(super) fn take(&mut self, id: AssignmentId) -> io::Result<Process> {
        self.next_ms = self.next_ms.max(sys::boot_ms() + PAUSE_MS);
        let own = self.cgroups.find(&tag(id));
        while let Some(at) = self.next_ready() {
            let StandBy { process, group, .. } = self.waiting.remove(at);
            match group.rename_v1(&own) {
                Ok(()) => return Ok(process),
                Err(error) => self.give_up(process, group, &error),
            }
        }
        let own = self.cgroups.group_v1(&tag(id)).map_err(io::Error::other)?;
        start(&self.program, own.v1(), false)
    }

    /// The first that is ready. Those that ended are forgotten.
    fn next_ready(&mut self) -> Option<usize> {
        let mut at = 0;
        while let Some(stand_by) = self.waiting.get_mut(at) {
            match stand_by.hear() {
                Ok(()) => {}
                Err(error) => {
                    let StandBy { process, group, .. } = self.waiting.remove(at);
                    self.give_up(process, group, &error);
                    continue;
                }
            }
            if self.waiting[at].is_ready {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// One that was taken for an assignment has ended: its groups make room for the next one's.
    pub(super) fn lost(&mut self, process: Process, id: AssignmentId, error: &io::Error) {
        let own = self.cgroups.find(&tag(id));
        own.v1().for_each(|group| drop(std::fs::remove_dir(group)));
        self.give_up(process, own, error);
    }

    /// Ends one: it sees the end of its connection.
    fn give_up(&mut self, process: Process, group: Group, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "a shim that stood by is lost");
        self.ending.push((process.child, group));
    }
}

impl Drop for Ready {
    /// Nothing of them stays: they have done nothing yet.
    fn drop(&mut self) {
        let waiting = self.waiting.drain(..).map(|one| (one.process.child, one.group));
        for (mut child, group) in waiting.chain(self.ending.drain(..)) {
            // Both fail only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
            group.remove();
        }
    }
}

/// Starts a process in these groups.
fn start<'a>(
    program: &Path,
    groups: impl Iterator<Item = &'a PathBuf>,
    stood_by: bool,
) -> io::Result<Process> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(program)
        .arg("shim")
        .args(groups)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Process { wire: Wire::new(ours)?, child, stood_by })
}
