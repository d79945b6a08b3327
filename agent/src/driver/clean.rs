//! Removes directories, which may hold millions of files, and control groups, for which the kernel
//! may let one wait, on a thread of its own.

use crate::cgroup::Group;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;
use yard_common::limits::NODE_ASSIGNMENTS_MAX;

/// How often, and how many times, a group is tried whose shim is about to end.
const AGAIN: Duration = Duration::from_millis(5);
const TRIES: u32 = 200;

/// What is to be removed.
#[derive(Debug)]
enum Waste {
    Directory(PathBuf),
    Group(Group),
}

/// Directories are renamed first, so that their place is free at once.
#[derive(Debug)]
pub(super) struct Cleaner {
    trash: PathBuf,
    queue: Option<SyncSender<Waste>>,
    thread: Option<JoinHandle<()>>,
    count: u64,
}

impl Cleaner {
    /// Starts with what an earlier agent did not get to.
    pub(super) fn start(trash: PathBuf) -> std::io::Result<Cleaner> {
        std::fs::create_dir_all(&trash)?;
        let (queue, queued) = sync_channel(NODE_ASSIGNMENTS_MAX);
        let left = trash.clone();
        let run = move || {
            remove_children(&left);
            for waste in queued {
                match waste {
                    Waste::Directory(path) => drop(std::fs::remove_dir_all(path)),
                    Waste::Group(group) => remove_group(&group),
                }
            }
        };
        let thread = std::thread::Builder::new().name("yard-clean".into()).spawn(run)?;
        // What is renamed later must not meet what is being removed.
        let count = u64::from(std::process::id()) << 32;
        Ok(Cleaner { trash, queue: Some(queue), thread: Some(thread), count })
    }

    /// Removes a directory; one that is not there is no error.
    pub(super) fn remove(&mut self, path: &Path) {
        self.count += 1;
        let grave = self.trash.join(self.count.to_string());
        if std::fs::rename(path, &grave).is_err() {
            return;
        }
        self.queue(Waste::Directory(grave));
    }

    /// Removes the group of a shim that has ended, or is about to.
    pub(super) fn remove_group(&self, group: Group) {
        self.queue(Waste::Group(group));
    }

    fn queue(&self, waste: Waste) {
        // A full queue is no harm: the next start finds what is left.
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(waste);
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove_group(group: &Group) {
    for _ in 0..TRIES {
        if group.remove() {
            return;
        }
        sleep(AGAIN);
    }
}

fn remove_children(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}
