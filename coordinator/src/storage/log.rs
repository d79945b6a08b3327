//! The log and the vote, for whoever uses them. Everything that is written goes through one queue,
//! in order, to one writer.

use super::StorageError;
use super::index::{Found, Index, Place};
use super::record::{Entry, Position, Record, Vote};
use super::segment::take;
use super::writer::{Job, What};
use crate::env::{Env, run_blocking};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use yard_common::id::LogIndex;

/// Called once, when something is durable or never will be.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// The log of one member. Clones are the same log; it closes with the last of them.
#[derive(Clone)]
pub struct Log {
    pub(super) env: Arc<dyn Env>,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) busy_since_ms: Arc<AtomicU64>,
    pub(super) left: Arc<AtomicU64>,
    pub(super) queued: Arc<AtomicU64>,
    /// The vote that is on the disk.
    pub(super) kept_vote: Arc<Mutex<Option<Vote>>>,
}

/// What can be seen of a log from outside, also after it has closed. Clones are of the same log.
#[derive(Clone)]
pub struct Gauge {
    index: Arc<Mutex<Index>>,
    left: Arc<AtomicU64>,
    queued: Arc<AtomicU64>,
    kept_vote: Arc<Mutex<Option<Vote>>>,
}

impl Gauge {
    /// Bytes that the last file can take without more of the disk.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    /// Bytes of entries that wait for the disk, roughly.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Acquire)
    }

    /// The vote that is on the disk, which [`Log::vote`] may be ahead of.
    #[must_use]
    pub fn kept_vote(&self) -> Option<Vote> {
        *self.kept_vote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last position.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).last()
    }
}

impl Log {
    /// A view of it that does not keep it open.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge {
            index: Arc::clone(&self.index),
            left: Arc::clone(&self.left),
            queued: Arc::clone(&self.queued),
            kept_vote: Arc::clone(&self.kept_vote),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn queue(&self, what: What, done: Done) -> Result<(), StorageError> {
        self.jobs.send(Job { what, done }).await.map_err(|_| StorageError::Closed)
    }

    /// Queues something, and waits until it is durable.
    async fn write(&self, what: What) -> Result<(), StorageError> {
        let (done, durable) = oneshot::channel();
        let done = move |outcome| {
            // Whoever waited may be gone.
            let _ = done.send(outcome);
        };
        self.queue(what, Box::new(done)).await?;
        durable.await.unwrap_or(Err(StorageError::Closed))
    }

    /// Adds entries at the end. They can be read when this returns; `done` is called when they
    /// are durable.
    ///
    /// # Errors
    /// If the entries leave a hole, or the log is closed.
    pub async fn append(&self, entries: Vec<Entry>, done: Done) -> Result<(), StorageError> {
        let mut tickets = Vec::with_capacity(entries.len());
        {
            let mut index = self.index();
            for entry in entries {
                tickets.push((index.push(entry.clone(), None)?, entry));
            }
        }
        let what = What::Append(tickets);
        self.queued.fetch_add(what.bytes() as u64, Ordering::AcqRel);
        self.queue(what, done).await
    }

    /// Drops the entries after this index. They are gone for good when this returns: a snapshot
    /// that takes their place may become durable next.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn truncate_after(&self, index: LogIndex) -> Result<(), StorageError> {
        self.index().truncate(index);
        self.write(What::Truncate(index)).await
    }

    /// Drops the entries up to this position, which a durable snapshot holds.
    ///
    /// # Errors
    /// If the log is closed.
    pub async fn purge(&self, upto: Position) -> Result<(), StorageError> {
        self.index().purge(upto);
        self.queue(What::Purge(upto), Box::new(|_| ())).await
    }

    /// Saves the vote. It is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn save_vote(&self, vote: Vote) -> Result<(), StorageError> {
        self.index().set_vote(Some(vote));
        self.write(What::Vote(vote)).await?;
        *self.kept_vote.lock().unwrap_or_else(PoisonError::into_inner) = Some(vote);
        Ok(())
    }

    /// The vote.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.index().vote()
    }

    /// The position before the first entry, and the last position.
    #[must_use]
    pub fn ends(&self) -> (Option<Position>, Option<Position>) {
        let index = self.index();
        (index.purged(), index.last())
    }

    /// Bytes of all entries since the log was opened, those that it had then included; roughly.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.index().written()
    }

    /// For how long the disk has been at its present flush, in milliseconds.
    #[must_use]
    pub fn flushing_ms(&self) -> u64 {
        match self.busy_since_ms.load(Ordering::Acquire) {
            0 => 0,
            since => self.env.boot_ms().saturating_sub(since),
        }
    }

    /// The entries from `from` up to and without `to`, as far as the log has them: as many as
    /// `bytes_max` allows, at least one if there is one.
    ///
    /// # Errors
    /// If the disk cannot be read or holds something else.
    pub async fn read(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let found = self.index().range(from, to, bytes_max);
        let here: Option<Vec<Entry>> = found
            .iter()
            .map(|found| match found {
                Found::Here(entry) => Some(entry.clone()),
                Found::There(_) => None,
            })
            .collect();
        if let Some(entries) = here {
            return Ok(entries);
        }
        let load = move || {
            let mut entries = Vec::with_capacity(found.len());
            for found in found {
                entries.push(match found {
                    Found::Here(entry) => entry,
                    Found::There(place) => load(&place)?,
                });
            }
            Ok(entries)
        };
        run_blocking(&*self.env, load).await
    }
}

/// Reads one entry from the disk, and checks it.
fn load(place: &Place) -> Result<Entry, StorageError> {
    let damaged =
        |what| StorageError::Damaged { file: place.name.to_string(), offset: place.offset, what };
    let mut bytes = vec![0; place.len];
    let read = place.file.read_at(place.offset, &mut bytes);
    let len = read.map_err(StorageError::io("read", &place.name))?;
    match take(&bytes[..len]).map_err(damaged)? {
        (Record::Entry(entry), _) => Ok(entry),
        _ => Err(damaged("there is no entry where one was written")),
    }
}
