//! The log as openraft wants to see it.

use super::fault::{FatalError, Fault};
use super::flushes::Flushes;
use super::types::{
    Config, RaftEntry, entry_to_ours, entry_to_raft, index_to_ours, position_to_ours,
    position_to_raft, vote_to_ours, vote_to_raft,
};
use crate::storage::{Log, StorageError};
use futures_util::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use tokio::time::Instant;
use yard_common::id::LogIndex;
use yard_common::limits::ENTRIES_READ_BYTES_MAX;

/// The log of this member.
#[derive(Clone)]
pub(super) struct LogStore {
    pub(super) log: Log,
    pub(super) fault: Fault,
    pub(super) flushes: Flushes,
}

impl LogStore {
    /// Remembers what ends the process, in our words; openraft gets the text.
    fn fail(&self, error: StorageError) -> io::Error {
        let text = error.to_string();
        self.fault.set(FatalError::Storage(error));
        io::Error::other(text)
    }

    async fn read(&self, from: u64, to: u64, max: usize) -> Result<Vec<RaftEntry>, io::Error> {
        let (from, to) = (index_to_ours(from), LogIndex(to.saturating_add(1)));
        let entries = self.log.read(from, to, max).await.map_err(|error| self.fail(error))?;
        Ok(entries.into_iter().map(entry_to_raft).collect())
    }
}

/// A range as `from .. to`.
fn ends(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Config> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = ends(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start, end, ENTRIES_READ_BYTES_MAX).await
    }

    /// Piece by piece: after a restart the whole log may have to be applied.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = ends(&range);
        let pieces = stream::unfold((self.clone(), from), move |(store, from)| async move {
            if from >= to {
                return None;
            }
            let piece = store.read(from, to, ENTRIES_READ_BYTES_MAX).await;
            // The first piece may begin after entries that were purged.
            let next = match &piece {
                Ok(entries) => entries.last().map(|entry| entry.log_id.index + 1)?,
                Err(_) => to,
            };
            Some((piece, (store, next)))
        });
        let entries = pieces.flat_map(|piece| match piece {
            Ok(entries) => stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        entries.boxed()
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Config>>, io::Error> {
        Ok(self.log.vote().map(vote_to_raft))
    }
}

impl RaftLogStorage<Config> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, io::Error> {
        let (purged, last) = self.log.ends();
        Ok(LogState {
            last_purged_log_id: purged.map(position_to_raft),
            last_log_id: last.map(position_to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Config>) -> Result<(), io::Error> {
        let saved = self.log.save_vote(vote_to_ours(vote)).await;
        saved.map_err(|error| self.fail(error))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Config>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(entry_to_ours).collect();
        let (store, begun) = (self.clone(), Instant::now());
        let done = move |outcome: Result<(), StorageError>| {
            store.flushes.record(begun.elapsed());
            callback.io_completed(outcome.map_err(|error| store.fail(error)));
        };
        let queued = self.log.append(entries, Box::new(done)).await;
        queued.map_err(|error| self.fail(error))
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Config>>) -> Result<(), io::Error> {
        let after = last.map_or(LogIndex(0), |last| index_to_ours(last.index));
        let queued = self.log.truncate_after(after).await;
        queued.map_err(|error| self.fail(error))
    }

    async fn purge(&mut self, upto: LogIdOf<Config>) -> Result<(), io::Error> {
        let queued = self.log.purge(position_to_ours(&upto)).await;
        queued.map_err(|error| self.fail(error))
    }
}
