//! The bound of each job on the node's disk: scratch and output of those that have one are measured
//! in turn, on a thread of its own, since a tree may be large and its disk slow.

use crate::disk;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use yard_common::limits::DISK_LOOK_MS;
use yard_core::agent::AssignmentId;

/// How much longer than a round took is rested: measuring takes its share of the disk, too.
const REST: u32 = 20;
/// How long the end of the agent waits for a measurement.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one assignment may use, and where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) directories: Vec<PathBuf>,
    pub(super) bytes_max: u64,
}

#[derive(Debug, Default)]
struct Books {
    bounds: BTreeMap<AssignmentId, Bound>,
    /// Those that were found beyond their bound.
    over: Vec<AssignmentId>,
    /// Something is being measured just now.
    measures: bool,
    ends: bool,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing panics while it holds them; and if so, they are still true.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that measures.
#[derive(Debug)]
pub(super) struct Meter {
    shared: Arc<Shared>,
    told: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    pub(super) fn start() -> io::Result<Meter> {
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        tell.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let run = {
            let shared = shared.clone();
            move || run(&shared, &tell)
        };
        let thread = std::thread::Builder::new().name("yard-disk".into()).spawn(run)?;
        Ok(Meter { shared, told, thread: Some(thread) })
    }

    /// From now on this one is measured.
    pub(super) fn watch(&self, id: AssignmentId, bound: Bound) {
        self.shared.books().bounds.insert(id, bound);
        self.shared.changed.notify_one();
    }

    /// It is gone.
    pub(super) fn forget(&self, id: AssignmentId) {
        let mut books = self.shared.books();
        books.bounds.remove(&id);
        books.over.retain(|over| *over != id);
    }

    /// Readable when some are beyond their bounds.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// Those that were found beyond their bounds since the last question.
    pub(super) fn over(&mut self) -> Vec<AssignmentId> {
        let mut sink = [0; 64];
        while self.told.read(&mut sink).is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.shared.books().over)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut books = self.shared.books();
        books.ends = true;
        self.shared.changed.notify_all();
        let waited =
            self.shared.changed.wait_timeout_while(books, PATIENCE, |books| books.measures);
        let hangs = waited.map_or(true, |(books, _)| books.measures);
        // A disk that does not answer must not keep the agent: the thread then ends with it.
        if let Some(thread) = self.thread.take().filter(|_| !hangs) {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, tell: &UnixStream) {
    while let Some(bounds) = wait(shared) {
        let begin = Instant::now();
        for (id, bound) in bounds {
            if !measure(shared, id, &bound, tell) {
                return;
            }
        }
        let rest = Duration::from_millis(DISK_LOOK_MS).max(begin.elapsed() * REST);
        let books = shared.books();
        drop(shared.changed.wait_timeout_while(books, rest, |books| !books.ends));
    }
}

/// Waits until there is something to measure. None: it is over.
fn wait(shared: &Shared) -> Option<BTreeMap<AssignmentId, Bound>> {
    let idle = |books: &mut Books| books.bounds.is_empty() && !books.ends;
    let books = shared.changed.wait_while(shared.books(), idle);
    let books = books.unwrap_or_else(PoisonError::into_inner);
    (!books.ends).then(|| books.bounds.clone())
}

/// Measures one. Returns whether to go on.
fn measure(shared: &Shared, id: AssignmentId, bound: &Bound, mut tell: &UnixStream) -> bool {
    {
        let mut books = shared.books();
        if books.ends {
            return false;
        }
        books.measures = true;
    }
    let mut left = bound.bytes_max;
    let is_over = bound.directories.iter().any(|directory| {
        let used = disk::usage(directory, left);
        let exceeds = used > left;
        left = left.saturating_sub(used);
        exceeds
    });
    let mut books = shared.books();
    books.measures = false;
    shared.changed.notify_all();
    // It may be gone by now.
    if is_over && books.bounds.contains_key(&id) && !books.over.contains(&id) {
        books.over.push(id);
        // A full pipe wakes as well.
        let _ = tell.write(&[1]);
    }
    !books.ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use yard_common::id::AllocationId;

    #[test]
    fn the_one_that_takes_too_much_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let id = |number| AssignmentId { allocation: AllocationId(number), group: 0 };
        let bound = |name: &str, bytes_max| {
            let at = directory.path().join(name);
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("file"), vec![1; 50_000]).unwrap();
            Bound { directories: vec![directory.path().join("missing"), at], bytes_max }
        };
        let mut meter = Meter::start().unwrap();
        meter.watch(id(1), bound("a", 1 << 20));
        meter.watch(id(2), bound("b", 40_000));
        let mut fds = [PollFd::new(meter.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)), Ok(1));
        assert_eq!(meter.over(), [id(2)]);
        meter.forget(id(2));
        assert_eq!(meter.over(), []);
    }
}
