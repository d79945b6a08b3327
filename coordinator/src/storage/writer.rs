//! The one who writes the log: takes what is queued, writes it as one frame, flushes once.

use super::frame;
use super::index::{Index, Place};
use super::log::Done;
use super::record::{Entry, FORMAT, Identity, Position, Record, SegmentHead, Vote};
use super::reserve::{self, Reserve};
use super::segment::{Segment, Sizes, next_crc, put};
use super::{StorageError, frame::OVERHEAD};
use crate::env::{Env, Folder};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use yard_common::id::LogIndex;
use yard_common::limits::LOG_FLUSH_BYTES_MAX;

/// Something to be made durable, in order.
pub(super) struct Job {
    pub(super) what: What,
    /// Called when it is durable, or when it never will be.
    pub(super) done: Done,
}

/// What is to be made durable.
pub(super) enum What {
    /// Entries with their tickets.
    Append(Vec<(u64, Entry)>),
    Vote(Vote),
    Truncate(LogIndex),
    Purge(Position),
}

/// A file that is full.
pub(super) struct Full {
    pub(super) name: Arc<str>,
    /// The highest index that was ever written there.
    pub(super) highest: u64,
}

/// What is on the disk.
pub(super) struct Durable {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<Position>,
    pub(super) last: LogIndex,
}

/// Writes the log.
pub(super) struct Writer {
    pub(super) env: Arc<dyn Env>,
    pub(super) folder: Arc<dyn Folder>,
    pub(super) identity: Identity,
    pub(super) sizes: Sizes,
    pub(super) index: Arc<Mutex<Index>>,
    /// Since when a flush is on its way, by the boot clock; 0: none is.
    pub(super) busy_since_ms: Arc<AtomicU64>,
    /// What is kept for a full disk.
    pub(super) reserve: Reserve,
    /// Bytes that the current file can take without more of the disk.
    pub(super) left: Arc<AtomicU64>,
    /// Bytes of entries that wait.
    pub(super) queued: Arc<AtomicU64>,
    pub(super) full: VecDeque<Full>,
    pub(super) current: Segment,
    /// The highest index that was written to the current file.
    pub(super) highest: u64,
    pub(super) durable: Durable,
    pub(super) failed: Option<StorageError>,
}

/// Where an entry went, relative to its frame.
struct Put {
    index: LogIndex,
    ticket: u64,
    offset: usize,
    len: usize,
}

impl Writer {
    /// Writes what comes, until nobody can send any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let mut bytes = job.what.bytes();
            let mut batch = vec![job];
            while bytes < LOG_FLUSH_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += job.what.bytes();
                batch.push(job);
            }
            self.write(batch);
        }
    }

    /// Makes a batch durable, and tells whoever waits.
    fn write(&mut self, batch: Vec<Job>) {
        let outcome = match &self.failed {
            Some(error) => Err(error.clone()),
            None => {
                self.busy_since_ms.store(self.env.boot_ms().max(1), Ordering::Release);
                let outcome = self.flush(&batch);
                self.busy_since_ms.store(0, Ordering::Release);
                outcome
            }
        };
        if let Err(error) = &outcome {
            // What the kernel could not write, it may have dropped: no second try.
            self.failed = Some(error.clone());
        }
        for job in batch {
            if let What::Append(_) = &job.what {
                self.queued.fetch_sub(job.what.bytes() as u64, Ordering::AcqRel);
            }
            (job.done)(outcome.clone());
        }
    }

    fn flush(&mut self, batch: &[Job]) -> Result<(), StorageError> {
        let mut buffer = Vec::new();
        let at = frame::begin(&mut buffer);
        let mut puts = Vec::new();
        for job in batch {
            encode(&job.what, &mut buffer, &mut puts);
        }
        let size = (buffer.len() + OVERHEAD) as u64;
        if self.current.end + size > self.sizes.segment {
            // On a full disk, the file goes on as far as it is long.
            match self.roll(None) {
                Err(error) if error.is_full() => {}
                rolled => rolled?,
            }
        }
        let from = match self.current.write(&mut buffer, at) {
            Err(error) if error.is_full() => {
                let turn = self.reserve.turn();
                let _one = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = self.reserve.take();
                if kept.is_none() {
                    return Err(error);
                }
                self.roll(kept)?;
                self.current.write(&mut buffer, at)?
            }
            written => written?,
        };
        self.left.store(self.current.left(), Ordering::Release);
        for job in batch {
            self.durable.note(&job.what);
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for put in puts {
            self.highest = self.highest.max(put.index.0);
            let place = Place {
                file: Arc::clone(&self.current.file),
                name: Arc::clone(&self.current.name),
                offset: from + put.offset as u64,
                len: put.len,
            };
            index.placed(put.index, put.ticket, place);
        }
        drop(index);
        self.drop_purged()
    }

    /// Goes on in a new file, or in one of so many bytes that was kept for a full disk.
    fn roll(&mut self, kept: Option<u64>) -> Result<(), StorageError> {
        let head = |length| SegmentHead {
            format: FORMAT,
            identity: self.identity,
            number: self.current.number + 1,
            vote: self.durable.vote,
            purged: self.durable.purged,
            last: self.durable.last,
            length,
        };
        let previous = next_crc(self.current.crc);
        let grow = self.sizes.grow;
        let next = match kept {
            None => Segment::create(&*self.folder, head(grow), previous, grow)?,
            Some(bytes) => {
                Segment::begin_in(&*self.folder, reserve::NAME, head(bytes), previous, grow)?
            }
        };
        let old = std::mem::replace(&mut self.current, next);
        self.full.push_back(Full { name: old.close()?, highest: self.highest });
        self.highest = 0;
        Ok(())
    }

    /// Removes the files at the beginning that hold nothing of the log any more. What says so is
    /// durable already.
    fn drop_purged(&mut self) -> Result<(), StorageError> {
        let purged = self.durable.purged.map_or(0, |position| position.index.0);
        while let Some(full) = self.full.pop_front_if(|full| full.highest <= purged) {
            self.folder.remove(&full.name).map_err(StorageError::io("remove", &full.name))?;
            // One by one, so that a crash never leaves a hole between files.
            self.folder.sync().map_err(StorageError::io("sync the folder of", &full.name))?;
        }
        Ok(())
    }
}

impl What {
    pub(super) fn bytes(&self) -> usize {
        match self {
            What::Append(entries) => {
                use super::record::Payload;
                let size = |entry: &Entry| match &entry.payload {
                    Payload::Commands(bytes) => bytes.len(),
                    Payload::Blank | Payload::Members(_) => 0,
                };
                entries.iter().map(|(_, entry)| 64 + size(entry)).sum()
            }
            What::Vote(_) | What::Truncate(_) | What::Purge(_) => 64,
        }
    }
}

impl Durable {
    /// This is on the disk now.
    pub(super) fn note(&mut self, what: &What) {
        match what {
            What::Append(entries) => {
                if let Some((_, entry)) = entries.last() {
                    self.last = entry.position.index;
                }
            }
            What::Vote(vote) => self.vote = Some(*vote),
            What::Truncate(after) => self.last = self.last.min(*after),
            What::Purge(upto) => {
                self.purged = self.purged.max(Some(*upto));
                self.last = self.last.max(upto.index);
            }
        }
    }
}

fn encode(what: &What, buffer: &mut Vec<u8>, puts: &mut Vec<Put>) {
    match what {
        What::Append(entries) => {
            for (ticket, entry) in entries {
                let offset = buffer.len();
                put(buffer, &Record::Entry(entry.clone()));
                let (index, ticket) = (entry.position.index, *ticket);
                puts.push(Put { index, ticket, offset, len: buffer.len() - offset });
            }
        }
        What::Vote(vote) => put(buffer, &Record::Vote(*vote)),
        What::Truncate(after) => put(buffer, &Record::Truncate(*after)),
        What::Purge(upto) => put(buffer, &Record::Purge(*upto)),
    }
}
