//! Removes directories, which may hold millions of files, on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use yard_common::limits::NODE_ASSIGNMENTS_MAX;

/// What is to be removed is renamed first, so that its place is free at once.
#[derive(Debug)]
pub(super) struct Cleaner {
    trash: PathBuf,
    queue: Option<SyncSender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
    count: u64,
}

impl Cleaner {
    /// Starts with what an earlier agent did not get to.
    pub(super) fn start(trash: PathBuf) -> std::io::Result<Cleaner> {
        std::fs::create_dir_all(&trash)?;
        let (queue, paths) = sync_channel::<PathBuf>(NODE_ASSIGNMENTS_MAX);
        let left = trash.clone();
        let run = move || {
            remove_children(&left);
            for path in paths {
                let _ = std::fs::remove_dir_all(path);
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
        // A full queue is no harm: the next start finds what is left.
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(grave);
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

fn remove_children(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}
