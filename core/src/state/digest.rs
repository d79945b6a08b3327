//! A rolling digest of the records.
//!
//! The running hash over replies and events shows when two members decide differently. It does
//! not show a record that was damaged in memory and not read since. So each command also hashes
//! the next few records, in turn over all tables: members that applied the same commands hashed
//! the same records, and must have the same value.

use super::State;
use crate::encoding::hash_on;
use crate::table::Table;
use minicbor::{Decode, Encode};
use yard_common::id::{Dense, TaskRange};
use yard_common::limits::DIGEST_RECORDS_PER_APPLY;

/// Runs of one job that are hashed in one go: an array may have a million.
const RUNS_PER_STEP: usize = 16;

/// Where the scan is, and what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Digest {
    /// Hash of all that was scanned so far, in order.
    #[n(0)]
    pub value: u64,
    /// Complete scans of all tables.
    #[n(1)]
    pub laps: u64,
    /// The table that is being scanned.
    #[n(2)]
    table: u8,
    /// The next record in it.
    #[n(3)]
    record: u64,
    /// The next task of that record, if it is a job of which some runs were hashed.
    #[n(4)]
    task: u32,
}

/// Tables that are scanned.
const TABLES: u8 = 6;

impl Digest {
    fn mix<T: Encode<()>>(&mut self, value: &T) {
        self.value = hash_on(self.value, value);
    }

    /// Hashes the next record of a table. Returns false at the end of it.
    fn step<K: Dense, T: Clone + Encode<()>>(&mut self, table: &Table<K, T>) -> bool {
        let Some((id, record)) = table.iter_from(K::from_index(self.record as usize)).next() else {
            return false;
        };
        self.mix(&(id.index() as u64, record));
        self.record = id.index() as u64 + 1;
        true
    }

    /// Hashes a part of the next job.
    fn step_job(&mut self, state: &State) -> bool {
        let from = Dense::from_index(self.record as usize);
        let Some((id, job)) = state.jobs.iter_from(from).next() else { return false };
        let range = job.tasks.range();
        if self.record != id.0 {
            (self.record, self.task) = (id.0, 0);
        }
        if self.task <= range.first {
            self.mix(&(id, &job.plan, &*job.spec, job.owner, job.workspace));
            self.mix(&(job.queue, &job.waits, job.tasks.counts(), job.state, job.revision));
            self.task = range.first;
        }
        let rest = TaskRange::between(self.task, range.end());
        for (run, status) in job.tasks.within(rest).take(RUNS_PER_STEP) {
            self.mix(&(run, status));
            self.task = run.end();
        }
        if self.task >= range.end() {
            (self.record, self.task) = (id.0 + 1, 0);
        }
        true
    }

    /// Hashes the next few records.
    #[must_use]
    pub(crate) fn advanced(mut self, state: &State) -> Digest {
        for _ in 0..DIGEST_RECORDS_PER_APPLY {
            let more = match self.table {
                0 => self.step_job(state),
                1 => self.step(state.nodes.records()),
                2 => self.step(&state.allocations),
                3 => self.step(state.queues.records()),
                4 => self.step(state.principals.records()),
                _ => self.step(state.pools.records()),
            };
            if !more {
                (self.table, self.record, self.task) = ((self.table + 1) % TABLES, 0, 0);
                self.laps += u64::from(self.table == 0);
            }
        }
        self
    }
}
