//! What the agent's automaton keeps, on disk: an append-only log of changes, written anew when it
//! has grown.
//!
//! Format 1: see [`crate::frames`]; magic `yardkept`. A list of changes is one or more frames of
//! kind 2 with a last one of kind 3; a list without its end never happened. The first frame, of
//! kind 1, is what there was without records and reports.
//!
//! **Invariants:** what [`Store::persist`] has returned from is found again. A file with damage
//! before its end is refused: an agent must not go on under its old fence without its memory.

use crate::frames::{self, Chain, End};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_common::id::Sequence;
use yard_common::limits::{AGENT_LOG_BYTES_MAX, RECORD_BYTES_MAX};
use yard_core::agent::{Change, Kept};

const MAGIC: [u8; 8] = *b"yardkept";
const VERSION: u32 = 1;
const BASE: u16 = 1;
const MORE: u16 = 2;
const LAST: u16 = 3;
/// Changes of one frame: each is far below what a frame holds.
const FRAME_BYTES: usize = RECORD_BYTES_MAX / 4;

/// Why the store cannot be used. All of them end the agent.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system's answer.
    #[error("{path}: cannot {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is no store, or of a later release.
    #[error("{path} cannot be used")]
    Frame {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: frames::FrameError,
    },
    /// A part that was on disk is gone.
    #[error(
        "{path} is damaged at byte {at}: the agent's memory is lost; move the file away and join \
         the node anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// A frame holds something that this release does not know.
    #[error("{path} holds a record that this release does not understand")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: minicbor::decode::Error,
    },
}

/// The log of an agent.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    chain: Chain,
    /// Bytes since the file was written anew.
    grown: u64,
}

impl Store {
    /// Opens the log of an agent, or makes it with what a new one keeps.
    ///
    /// # Errors
    /// If the system refuses, or the file is damaged.
    pub fn open(path: &Path, fresh: impl FnOnce() -> Kept) -> Result<(Store, Kept), StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let kept = fresh();
                return Ok((Store::write(path, &kept)?, kept));
            }
            Err(source) => return Err(io_error(path, "read", source)),
        };
        let scan = frames::scan(&bytes, MAGIC, VERSION)
            .map_err(|source| StoreError::Frame { path: path.into(), source })?;
        if scan.end == End::Damaged {
            return Err(StoreError::Damaged { path: path.into(), at: scan.len });
        }
        let damaged = || StoreError::Damaged { path: path.into(), at: frames::HEADER_LEN };
        let mut frames = scan.frames.into_iter();
        let (kind, body) = frames.next().ok_or_else(damaged)?;
        if kind != BASE {
            return Err(damaged());
        }
        let unknown = |source| StoreError::Record { path: path.into(), source };
        let mut kept: Kept = minicbor::decode(&bytes[body]).map_err(unknown)?;
        let mut pending: Vec<Change> = Vec::new();
        for (kind, body) in frames {
            let changes: Vec<Change> = minicbor::decode(&bytes[body]).map_err(unknown)?;
            pending.extend(changes);
            if kind == LAST {
                pending.drain(..).for_each(|change| kept.apply(change));
            }
        }
        // Written anew rather than cut at the torn end: it is short, and surely whole.
        Ok((Store::write(path, &kept)?, kept))
    }

    /// Puts changes on disk, all or none. `after` is what is kept with them.
    ///
    /// # Errors
    /// If the system refuses. What is on disk is then unknown, and the agent must end.
    pub fn persist(&mut self, changes: &[Change], after: &Kept) -> Result<(), StoreError> {
        self.note(changes, after)?;
        self.file.sync_data().map_err(|source| io_error(&self.path, "flush", source))
    }

    /// Writes changes, all or none, so that they survive this process; they are on disk after the
    /// next [`Store::persist`]. `after` is what is kept with them.
    ///
    /// # Errors
    /// As for [`Store::persist`].
    pub fn note(&mut self, changes: &[Change], after: &Kept) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        push_changes(changes, LAST, &mut self.chain, &mut bytes);
        self.grown += bytes.len() as u64;
        if self.grown > AGENT_LOG_BYTES_MAX {
            *self = Store::write(&self.path, after)?;
            return Ok(());
        }
        let written = self.file.write_all(&bytes);
        written.map_err(|source| io_error(&self.path, "write", source))
    }

    /// Writes the file anew: what is there now, without how it came about.
    fn write(path: &Path, kept: &Kept) -> Result<Store, StoreError> {
        let new = path.with_extension("new");
        let failed = |what| {
            let new = new.clone();
            move |source| io_error(&new, what, source)
        };
        let (header, mut chain) = frames::header(MAGIC, VERSION);
        let mut bytes = header.to_vec();
        let mut base = Kept::new(kept.boot, kept.fence, kept.last);
        base.lease = kept.lease;
        if let Some(first) = kept.outbox.front() {
            base.last = Sequence(first.sequence.0 - 1);
        }
        chain.push(BASE, &encoded(&base), &mut bytes);
        let records = kept.records.values().cloned().map(Change::Recorded);
        let reports = kept.outbox.iter().cloned().map(Change::Reported);
        let changes: Vec<Change> = records.chain(reports).collect();
        push_changes(&changes, LAST, &mut chain, &mut bytes);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new).map_err(failed("create"))?;
        file.write_all(&bytes).map_err(failed("write"))?;
        file.sync_all().map_err(failed("flush"))?;
        std::fs::rename(&new, path).map_err(failed("rename"))?;
        if let Some(directory) = path.parent() {
            let opened = File::open(directory).and_then(|directory| directory.sync_all());
            opened.map_err(|source| io_error(directory, "flush", source))?;
        }
        Ok(Store { path: path.into(), file, chain, grown: 0 })
    }
}

/// Changes as frames, the last of them of this kind.
fn push_changes(changes: &[Change], kind: u16, chain: &mut Chain, bytes: &mut Vec<u8>) {
    let body = encoded(&changes);
    if body.len() <= FRAME_BYTES || changes.len() < 2 {
        return chain.push(kind, &body, bytes);
    }
    let (first, rest) = changes.split_at(changes.len() / 2);
    push_changes(first, MORE, chain, bytes);
    push_changes(rest, kind, chain, bytes);
}

fn encoded(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.into(), what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{AllocationId, BootId, Generation, Incarnation, LeaseId};
    use yard_core::agent::{AssignmentId, Fence, Report, ReportKind};

    fn fresh() -> Kept {
        Kept::new(BootId::from_u128(7), Fence::NONE, Sequence(0))
    }

    fn obeyed(generation: u64) -> Change {
        let fence = Fence { incarnation: Incarnation(1), generation: Generation(generation) };
        Change::Obeyed { fence, lease: LeaseId(1) }
    }

    fn reported(sequence: u64) -> Change {
        let assignment = AssignmentId { allocation: AllocationId(3), group: 0 };
        let what = ReportKind::Reaped;
        Change::Reported(Report { sequence: Sequence(sequence), assignment, what })
    }

    fn persist(store: &mut Store, kept: &mut Kept, changes: &[Change]) {
        changes.iter().for_each(|change| kept.apply(change.clone()));
        store.persist(changes, kept).unwrap();
    }

    #[test]
    fn what_was_persisted_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (mut store, mut kept) = Store::open(&path, fresh).unwrap();
        for round in 1..20 {
            persist(&mut store, &mut kept, &[obeyed(round), reported(round)]);
            let (again, found) = Store::open(&path, || panic!("there is one")).unwrap();
            assert_eq!(found, kept, "round {round}");
            store = again;
        }
        persist(&mut store, &mut kept, &[Change::Acknowledged(Sequence(19))]);
        assert_eq!(Store::open(&path, fresh).unwrap().1, kept);
    }

    #[test]
    fn a_list_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (mut store, mut kept) = Store::open(&path, fresh).unwrap();
        persist(&mut store, &mut kept, &[obeyed(1), reported(1)]);
        let (before, len) = (kept.clone(), std::fs::read(&path).unwrap().len());
        persist(&mut store, &mut kept, &[obeyed(2), reported(2)]);
        let bytes = std::fs::read(&path).unwrap();
        for cut in len..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(Store::open(&path, fresh).unwrap().1, before, "cut at {cut}");
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Store::open(&path, fresh).unwrap().1, kept);
    }

    #[test]
    fn damage_in_the_middle_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (mut store, mut kept) = Store::open(&path, fresh).unwrap();
        persist(&mut store, &mut kept, &[obeyed(1)]);
        let at = std::fs::read(&path).unwrap().len() - 1;
        persist(&mut store, &mut kept, &[obeyed(2)]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Store::open(&path, fresh), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_log_that_has_grown_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (mut store, mut kept) = Store::open(&path, fresh).unwrap();
        let mut sequence = 0;
        let mut shrunk = false;
        let mut longest = 0;
        while !shrunk {
            let from = sequence + 1;
            sequence += 10_000;
            let mut changes: Vec<Change> = (from..=sequence).map(reported).collect();
            changes.push(Change::Acknowledged(Sequence(sequence)));
            persist(&mut store, &mut kept, &changes);
            let len = std::fs::metadata(&path).unwrap().len();
            shrunk = len < longest;
            longest = longest.max(len);
            assert!(longest < 2 * AGENT_LOG_BYTES_MAX);
        }
        let (_, found) = Store::open(&path, fresh).unwrap();
        assert_eq!(found, kept);
    }
}
