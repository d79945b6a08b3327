//! Copies of what ranks wrote lately, for when their node is gone: two members keep them for each
//! job, outside of the log of the cluster.
//!
//! **Invariants.** Copies never take the room that the log needs: none are taken, and the oldest
//! go, while little of the disk is free. They are bounded in number, bytes and age. What goes wrong
//! with them ends nothing but the copy.

mod stream;

use crate::env::{Env, Folder, run_blocking};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use stream::Extent;
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{
    LOG_COPIES_BYTES_MAX, LOG_COPIES_LIFE_MS, LOG_COPIES_SPARED_BYTES, LOG_COPIES_STREAMS_MAX,
    LOG_READ_BYTES_MAX,
};

/// A stream of a rank. Displays as the name of its file: `812.3.1.0.out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId {
    pub(crate) job: JobId,
    pub(crate) task: TaskIndex,
    pub(crate) attempt: AttemptNumber,
    /// Within the attempt.
    pub(crate) rank: u32,
    /// Standard error, not output.
    pub(crate) is_err: bool,
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_err { "err" } else { "out" };
        write!(f, "{}.{}.{}.{}.{kind}", self.job.0, self.task, self.attempt.0, self.rank)
    }
}

impl FromStr for StreamId {
    type Err = ();

    fn from_str(name: &str) -> Result<StreamId, ()> {
        let parts: Vec<&str> = name.split('.').collect();
        let [job, task, attempt, rank, kind] = parts[..] else { return Err(()) };
        let id = StreamId {
            job: JobId(job.parse().map_err(|_| ())?),
            task: task.parse().map_err(|_| ())?,
            attempt: AttemptNumber(attempt.parse().map_err(|_| ())?),
            rank: rank.parse().map_err(|_| ())?,
            is_err: kind == "err",
        };
        if id.to_string() == name { Ok(id) } else { Err(()) }
    }
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) stream: StreamId,
    /// Of its first byte.
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: u64,
    streams: usize,
    life_ms: u64,
    /// What is left free on the disk.
    spared_bytes: u64,
}

const BOUNDS: Bounds = Bounds {
    bytes: LOG_COPIES_BYTES_MAX,
    streams: LOG_COPIES_STREAMS_MAX,
    life_ms: LOG_COPIES_LIFE_MS,
    spared_bytes: LOG_COPIES_SPARED_BYTES,
};

/// The copies of a member. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Copies {
    env: Arc<dyn Env>,
    book: Arc<Mutex<Book>>,
}

/// What there is. Whoever holds it may read and write files.
struct Book {
    path: PathBuf,
    /// Opened when it is used first: a member starts without it, too.
    folder: Option<Arc<dyn Folder>>,
    bounds: Bounds,
    streams: BTreeMap<StreamId, Extent>,
    /// The same by age.
    by_age: BTreeSet<(u64, StreamId)>,
    bytes: u64,
}

impl Copies {
    /// Those of a folder, which is made when the first copy comes.
    pub(crate) fn new(path: PathBuf, env: Arc<dyn Env>) -> Copies {
        let book = Book {
            path,
            folder: None,
            bounds: BOUNDS,
            streams: BTreeMap::new(),
            by_age: BTreeSet::new(),
            bytes: 0,
        };
        Copies { env, book: Arc::new(Mutex::new(book)) }
    }

    /// Takes pieces; whether each was taken.
    pub(crate) async fn take(&self, pieces: Vec<Piece>) -> Vec<bool> {
        let (book, env) = (Arc::clone(&self.book), Arc::clone(&self.env));
        let (wall_ms, len) = (self.env.wall_ms(), pieces.len());
        let work = move || {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            let folder = book.open(&*env)?;
            book.make_room(&*folder, wall_ms)?;
            let taken = |piece: &Piece| book.take(&*folder, piece, wall_ms).is_ok();
            let taken = pieces.iter().map(taken).collect();
            book.shrink(&*folder, wall_ms);
            Ok::<_, io::Error>(taken)
        };
        run_blocking(&*self.env, work).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "copies of output are not taken");
            vec![false; len]
        })
    }

    /// The first piece of a stream from an offset on, and where it begins; empty: there is no
    /// more. None: there is no copy.
    pub(crate) async fn read(&self, stream: StreamId, offset: u64) -> Option<(u64, Bytes)> {
        let (book, env) = (Arc::clone(&self.book), Arc::clone(&self.env));
        let work = move || {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            let folder = book.open(&*env)?;
            let Some(extent) = book.streams.get(&stream) else { return Ok(None) };
            let file = folder.open(&stream.to_string())?;
            let (offset, bytes) = extent.piece(&*file, offset, LOG_READ_BYTES_MAX)?;
            Ok::<_, io::Error>(Some((offset, Bytes::from(bytes))))
        };
        run_blocking(&*self.env, work).await.unwrap_or_else(|error| {
            tracing::warn!(%stream, %error, "a copy of output cannot be read");
            None
        })
    }
}

impl Book {
    /// The folder. Looks it through the first time.
    fn open(&mut self, env: &dyn Env) -> io::Result<Arc<dyn Folder>> {
        if let Some(folder) = &self.folder {
            return Ok(Arc::clone(folder));
        }
        let folder = env.folder(&self.path)?;
        for name in folder.list()? {
            // Whatever is not ours stays.
            let Ok(stream) = name.parse() else { continue };
            let file = folder.open(&name)?;
            match Extent::read(&*file)? {
                Some(extent) => self.put(stream, extent),
                // It was cut off when it was made, or damaged.
                None => folder.remove(&name)?,
            }
        }
        self.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }

    fn put(&mut self, stream: StreamId, extent: Extent) {
        self.drop_entry(stream);
        self.bytes += extent.bytes();
        self.by_age.insert((extent.wall_ms, stream));
        self.streams.insert(stream, extent);
    }

    fn drop_entry(&mut self, stream: StreamId) {
        if let Some(extent) = self.streams.remove(&stream) {
            self.bytes -= extent.bytes();
            self.by_age.remove(&(extent.wall_ms, stream));
        }
    }

    fn take(&mut self, folder: &dyn Folder, piece: &Piece, wall_ms: u64) -> io::Result<()> {
        let name = piece.stream.to_string();
        let (file, extent) = match self.streams.get(&piece.stream) {
            Some(extent) => (folder.open(&name)?, *extent),
            None => (folder.create(&name)?, Extent::default()),
        };
        match extent.take(&*file, piece.offset, &piece.data, wall_ms) {
            Ok(extent) => {
                self.put(piece.stream, extent);
                Ok(())
            }
            Err(error) => {
                // What is in the file now, nobody knows.
                self.remove(folder, piece.stream);
                Err(error)
            }
        }
    }

    fn remove(&mut self, folder: &dyn Folder, stream: StreamId) {
        self.drop_entry(stream);
        if let Err(error) = folder.remove(&stream.to_string()) {
            tracing::debug!(%stream, %error, "a copy of output cannot be removed");
        }
    }

    fn remove_oldest(&mut self, folder: &dyn Folder) -> bool {
        let oldest = self.by_age.first().map(|(_, stream)| *stream);
        oldest.map(|stream| self.remove(folder, stream)).is_some()
    }

    /// Makes sure that the disk has room for more than copies.
    fn make_room(&mut self, folder: &dyn Folder, wall_ms: u64) -> io::Result<()> {
        self.shrink(folder, wall_ms);
        while folder.free_bytes()? < self.bounds.spared_bytes {
            if !self.remove_oldest(folder) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    /// Drops what is beyond the bounds, the oldest first.
    fn shrink(&mut self, folder: &dyn Folder, wall_ms: u64) {
        let Bounds { bytes, streams, life_ms, .. } = self.bounds;
        let is_old = |at: &(u64, StreamId)| at.0.saturating_add(life_ms) < wall_ms;
        while (self.bytes > bytes
            || self.streams.len() > streams
            || self.by_age.first().is_some_and(is_old))
            && self.remove_oldest(folder)
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MemoryDisk, TestEnv};
    use std::time::Duration;

    fn stream(job: u64, rank: u32) -> StreamId {
        let (task, attempt) = (3, AttemptNumber(1));
        StreamId { job: JobId(job), task, attempt, rank, is_err: rank % 2 == 1 }
    }

    fn piece(job: u64, offset: u64, text: &str) -> Piece {
        Piece { stream: stream(job, 0), offset, data: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn env(disk: &MemoryDisk) -> Arc<dyn Env> {
        Arc::new(TestEnv::new(disk.clone(), 1, 1_000_000))
    }

    fn copies(env: &Arc<dyn Env>) -> Copies {
        Copies::new(PathBuf::from("/copies"), Arc::clone(env))
    }

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    fn with(copies: &Copies, change: impl FnOnce(&mut Bounds)) {
        change(&mut copies.book.lock().unwrap().bounds);
    }

    async fn read(copies: &Copies, job: u64, offset: u64) -> Option<(u64, String)> {
        let (offset, bytes) = copies.read(stream(job, 0), offset).await?;
        Some((offset, String::from_utf8(bytes.into()).unwrap()))
    }

    #[test]
    fn streams_are_names_of_files() {
        for id in [stream(8, 0), stream(812, 1_023)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for other in ["8.3.1.0", "8.3.1.0.log", "08.3.1.0.out", "8.3.1.0.out.new", "lost+found"] {
            assert_eq!(other.parse::<StreamId>(), Err(()), "{other}");
        }
    }

    #[tokio::test]
    async fn what_was_taken_is_read_and_outlives_the_process() {
        let env = env(&MemoryDisk::default());
        let first = copies(&env);
        assert_eq!(read(&first, 8, 0).await, None);
        let taken = first.take(vec![piece(8, 0, "abc"), piece(9, 0, "x"), piece(8, 3, "de")]);
        assert_eq!(taken.await, [true, true, true]);
        for copies in [first, copies(&env)] {
            assert_eq!(read(&copies, 8, 1).await, Some((1, "bcde".into())));
            assert_eq!(read(&copies, 8, 5).await, Some((5, String::new())));
            assert_eq!(read(&copies, 7, 0).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_go_when_there_are_too_many_bytes_or_streams() {
        for bound in [(|bounds: &mut Bounds| bounds.streams = 2) as fn(&mut Bounds), |bounds| {
            bounds.bytes = 2 * 4_100
        }] {
            let copies = copies(&env(&MemoryDisk::default()));
            with(&copies, bound);
            for job in [5, 6, 7] {
                pass(1_000).await;
                copies.take(vec![piece(job, 0, "abc")]).await;
            }
            assert_eq!(read(&copies, 5, 0).await, None);
            assert!(read(&copies, 6, 0).await.is_some() && read(&copies, 7, 0).await.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_nobody_wrote_for_long_goes() {
        let copies = copies(&env(&MemoryDisk::default()));
        copies.take(vec![piece(5, 0, "abc")]).await;
        pass(LOG_COPIES_LIFE_MS + 1_000).await;
        copies.take(vec![piece(6, 0, "abc")]).await;
        assert_eq!(read(&copies, 5, 0).await, None);
        assert!(read(&copies, 6, 0).await.is_some());
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_gets_no_copies_and_is_given_room() {
        let disk = MemoryDisk::default();
        let copies = copies(&env(&disk));
        copies.take(vec![piece(5, 0, "abc")]).await;
        with(&copies, |bounds| bounds.spared_bytes = u64::MAX);
        disk.set_capacity(Some(1 << 20));
        assert_eq!(copies.take(vec![piece(6, 0, "abc")]).await, [false]);
        assert_eq!((read(&copies, 5, 0).await, read(&copies, 6, 0).await), (None, None));
        with(&copies, |bounds| bounds.spared_bytes = 1);
        assert_eq!(copies.take(vec![piece(6, 0, "abc")]).await, [true]);
    }
}
