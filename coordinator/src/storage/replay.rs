//! Reads the files of a log again: what the records say, one after the other.

use super::StorageError;
use super::index::{Index, Place};
use super::record::{Identity, Record, SegmentHead};
use super::segment::{Segment, check_head, next_crc, take};
use super::writer::{Durable, Full};
use crate::env::Folder;
use std::collections::VecDeque;
use std::sync::Arc;

/// A log that was read.
pub(super) struct Replayed {
    pub(super) index: Index,
    pub(super) full: VecDeque<Full>,
    pub(super) current: Segment,
    pub(super) highest: u64,
    pub(super) durable: Durable,
}

/// The log as far as it was read.
#[derive(Default)]
struct Replay {
    index: Index,
    begun: bool,
    /// The highest index in the present file.
    highest: u64,
    /// Whether the present file says that another one follows.
    closed: bool,
}

/// Reads the files with these numbers.
pub(super) fn replay(
    folder: &dyn Folder,
    identity: &Identity,
    numbers: &[u64],
    grow: u64,
) -> Result<Replayed, StorageError> {
    let mut replay = Replay::default();
    let mut full = VecDeque::new();
    let mut current: Option<Segment> = None;
    for (nth, number) in numbers.iter().enumerate() {
        let last = nth + 1 == numbers.len();
        if let Some(before) = &current
            && before.number + 1 != *number
        {
            let file = super::segment::name_of(before.number + 1);
            return Err(StorageError::Missing { file });
        }
        // The last frame may be missing, since a crash came before it was written, or torn. That
        // no other one is, shows the CRC that the next file continues.
        let previous = current.as_ref().map(|segment| match replay.closed {
            true => segment.crc,
            false => next_crc(segment.crc),
        });
        let (mut segment, bytes, scan) = Segment::open(folder, *number, previous, grow)?;
        if let Some(before) = current.take() {
            full.push_back(Full { name: before.name, highest: replay.highest });
        }
        (replay.highest, replay.closed) = (0, false);
        for (frame, body) in scan.bodies.iter().enumerate() {
            replay.frame(&segment, identity, frame, &bytes[body.clone()], body.start)?;
        }
        if scan.bodies.is_empty() {
            let (file, what) = (segment.name.to_string(), "its head is gone");
            return Err(StorageError::Damaged { file, offset: 0, what });
        }
        if last {
            segment.mend(&bytes, &scan)?;
        }
        current = Some(segment);
    }
    let missing = || StorageError::Missing { file: "the log".into() };
    let current = current.ok_or_else(missing)?;
    if replay.closed {
        let file = super::segment::name_of(current.number + 1);
        return Err(StorageError::Missing { file });
    }
    let index = replay.index;
    if index.has_lost() {
        return Err(StorageError::Missing { file: "the beginning of the log".into() });
    }
    let (vote, purged, last) = (index.vote(), index.purged(), index.last_index());
    let durable = Durable { vote, purged, last };
    Ok(Replayed { index, full, current, highest: replay.highest, durable })
}

impl Replay {
    /// What one frame says.
    fn frame(
        &mut self,
        segment: &Segment,
        identity: &Identity,
        frame: usize,
        body: &[u8],
        start: usize,
    ) -> Result<(), StorageError> {
        let mut at = 0;
        while at < body.len() {
            let offset = (start + at) as u64;
            let damaged = |what| {
                let file = segment.name.to_string();
                StorageError::Damaged { file, offset, what }
            };
            let (record, len) = take(&body[at..]).map_err(damaged)?;
            let is_head = matches!(record, Record::Segment(_));
            if self.closed {
                return Err(damaged("the file goes on after its last record"));
            }
            if is_head != (frame == 0 && at == 0) {
                return Err(damaged("a file begins with its head, and has no other"));
            }
            match record {
                Record::Segment(head) => {
                    check_head(&segment.name, head.format, &head.identity, identity)?;
                    segment.is_as_long_as(head.length).map_err(damaged)?;
                    self.head(segment, &head).map_err(damaged)?;
                }
                Record::Length(length) => segment.is_as_long_as(length).map_err(damaged)?,
                Record::Full => self.closed = true,
                Record::Vote(vote) => self.index.set_vote(Some(vote)),
                Record::Entry(entry) => {
                    let index = entry.position.index;
                    let (file, name) = (Arc::clone(&segment.file), Arc::clone(&segment.name));
                    self.index.push(entry, Some(Place { file, name, offset, len }))?;
                    self.highest = self.highest.max(index.0);
                }
                Record::Truncate(after) => self.index.truncate(after),
                Record::Purge(upto) => self.index.purge(upto),
            }
            at += len;
        }
        Ok(())
    }

    /// A file begins.
    fn head(&mut self, segment: &Segment, head: &SegmentHead) -> Result<(), &'static str> {
        if head.number != segment.number {
            return Err("the file has the name of another");
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.index.set_vote(head.vote);
            if let Some(purged) = head.purged {
                self.index.purge(purged);
            }
            self.index.set_gone(head.last);
        }
        let same = head.vote == self.index.vote()
            && head.purged == self.index.purged()
            && head.last == self.index.last_index();
        if same { Ok(()) } else { Err("the file does not continue the one before it") }
    }
}
