//! What is in the log, as whoever reads it sees it: entries that are on their way to the disk
//! count as if they were there.

use super::StorageError;
use super::record::{Entry, Position, Vote};
use crate::env::File;
use std::collections::VecDeque;
use std::sync::Arc;
use yard_common::id::LogIndex;
use yard_common::limits::LOG_CACHE_BYTES_MAX;

/// Where an entry is on the disk.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) file: Arc<dyn File>,
    pub(super) name: Arc<str>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// One entry.
struct Slot {
    position: Position,
    /// Tells it from an entry that stood here before it and was cut off.
    ticket: u64,
    /// In memory: until it is on the disk, and as long as there is room.
    entry: Option<Entry>,
    /// On the disk.
    place: Option<Place>,
    size: usize,
}

/// An entry, or where to read it.
pub(super) enum Found {
    Here(Entry),
    There(Place),
}

/// The log.
#[derive(Default)]
pub(super) struct Index {
    slots: VecDeque<Slot>,
    purged: Option<Position>,
    vote: Option<Vote>,
    next_ticket: u64,
    /// Bytes of all entries that ever came.
    written: u64,
    cached: usize,
    /// Entries up to this index are on the disk only.
    evicted: u64,
    /// Entries up to this index were in files that are gone.
    gone: u64,
}

/// What an entry takes in memory and on the disk, roughly.
fn size_of(entry: &Entry) -> usize {
    use super::record::Payload;
    64 + match &entry.payload {
        Payload::Blank => 0,
        Payload::Commands(bytes) => bytes.len(),
        Payload::Members(members) => members.peers.len() * 128,
    }
}

impl Index {
    /// The vote.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Sets the vote.
    pub(super) fn set_vote(&mut self, vote: Option<Vote>) {
        self.vote = vote;
    }

    /// The position before the first entry.
    pub(super) fn purged(&self) -> Option<Position> {
        self.purged
    }

    /// The last entry, or the position before the first if there is none.
    pub(super) fn last(&self) -> Option<Position> {
        self.slots.back().map(|slot| slot.position).or(self.purged)
    }

    /// The index of the last entry; 0 if there never was one.
    pub(super) fn last_index(&self) -> LogIndex {
        let last = self.last().map_or(LogIndex(0), |last| last.index);
        if self.slots.is_empty() { last.max(LogIndex(self.gone)) } else { last }
    }

    /// Entries up to this index were in files that are gone; they must turn out to be purged.
    pub(super) fn set_gone(&mut self, upto: LogIndex) {
        self.gone = upto.0;
    }

    /// Whether an entry that nobody purged is gone.
    pub(super) fn has_lost(&self) -> bool {
        self.purged.map_or(0, |purged| purged.index.0) < self.gone
    }

    /// Bytes of all entries that ever came, roughly.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Adds an entry at the end. Returns its ticket.
    pub(super) fn push(&mut self, entry: Entry, place: Option<Place>) -> Result<u64, StorageError> {
        let index = entry.position.index;
        let last = self.last_index();
        if last.0 != 0 && index.0 != last.0 + 1 {
            return Err(StorageError::Hole { index, last });
        }
        self.next_ticket += 1;
        let (ticket, size) = (self.next_ticket, size_of(&entry));
        self.written += size as u64;
        self.cached += size;
        let position = entry.position;
        self.slots.push_back(Slot { position, ticket, entry: Some(entry), place, size });
        self.evict();
        Ok(ticket)
    }

    /// Drops the entries after this index.
    pub(super) fn truncate(&mut self, after: LogIndex) {
        while let Some(slot) = self.slots.pop_back_if(|slot| slot.position.index > after) {
            self.forget(&slot);
        }
        self.evicted = self.evicted.min(after.0);
        self.gone = self.gone.min(after.0);
    }

    /// Drops the entries up to this position.
    pub(super) fn purge(&mut self, upto: Position) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.position.index <= upto.index) {
            self.forget(&slot);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.entry.is_some() {
            self.cached -= slot.size;
        }
    }

    fn first(&self) -> u64 {
        self.slots.front().map_or(0, |slot| slot.position.index.0)
    }

    fn slot(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.first())?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// An entry is on the disk.
    pub(super) fn placed(&mut self, index: LogIndex, ticket: u64, place: Place) {
        if let Some(slot) = self.slot(index.0)
            && slot.ticket == ticket
        {
            slot.place = Some(place);
        }
        self.evict();
    }

    /// Frees memory of the oldest entries that are on the disk.
    fn evict(&mut self) {
        while self.cached > LOG_CACHE_BYTES_MAX {
            let next = (self.evicted + 1).max(self.first());
            let Some(slot) = self.slot(next) else { return };
            if slot.place.is_none() {
                return;
            }
            let freed = slot.entry.take().map_or(0, |_| slot.size);
            self.cached -= freed;
            self.evicted = next;
        }
    }

    /// The entries from `from` up to and without `to`: as many as `bytes_max` allows, at least one
    /// if there is one.
    pub(super) fn range(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Vec<Found> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let skip = from.0.saturating_sub(self.first());
        for slot in self.slots.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            bytes += slot.size;
            if slot.position.index >= to || (!found.is_empty() && bytes > bytes_max) {
                break;
            }
            found.push(match (&slot.entry, &slot.place) {
                (Some(entry), _) => Found::Here(entry.clone()),
                (None, Some(place)) => Found::There(place.clone()),
                (None, None) => unreachable!("entries leave memory once they are on the disk"),
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Payload;
    use super::*;
    use crate::env::MemoryDisk;
    use bytes::Bytes;
    use yard_common::id::{LeaderId, MemberId};

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        let leader = LeaderId { term, member: MemberId(1) };
        let position = Position { leader, index: LogIndex(index) };
        Entry { position, payload: Payload::Commands(Bytes::from(vec![1; bytes])) }
    }

    fn place(disk: &MemoryDisk) -> Place {
        let file = disk.folder().open("f").unwrap();
        Place { file, name: "f".into(), offset: 0, len: 0 }
    }

    #[test]
    fn entries_stay_in_memory_until_they_are_on_the_disk() {
        let disk = MemoryDisk::default();
        disk.write("f", b"");
        let mut index = Index::default();
        let big = LOG_CACHE_BYTES_MAX / 2;
        let tickets: Vec<u64> =
            (1..=3).map(|nth| index.push(entry(1, nth, big), None).unwrap()).collect();
        let here = |index: &Index| {
            let all = index.range(LogIndex(1), LogIndex(9), usize::MAX);
            all.iter().filter(|found| matches!(found, Found::Here(_))).count()
        };
        assert_eq!(here(&index), 3, "nothing is durable");
        index.placed(LogIndex(1), tickets[1], place(&disk));
        assert_eq!(here(&index), 3, "the ticket of another entry");
        index.placed(LogIndex(1), tickets[0], place(&disk));
        assert_eq!(here(&index), 2);
        index.placed(LogIndex(2), tickets[1], place(&disk));
        assert_eq!(here(&index), 1);
        index.truncate(LogIndex(1));
        index.push(entry(2, 2, 10), None).unwrap();
        assert_eq!(here(&index), 1, "what replaces an entry is in memory again");
    }

    #[test]
    fn holes_are_refused_and_ranges_are_bounded() {
        let mut index = Index::default();
        for nth in 1..=5 {
            index.push(entry(1, nth, 100), None).unwrap();
        }
        assert!(index.push(entry(1, 7, 1), None).is_err());
        assert_eq!(index.range(LogIndex(2), LogIndex(9), 1).len(), 1);
        assert_eq!(index.range(LogIndex(2), LogIndex(4), usize::MAX).len(), 2);
        index.purge(entry(1, 3, 0).position);
        assert_eq!(index.range(LogIndex(0), LogIndex(9), usize::MAX).len(), 2);
        assert_eq!((index.written(), index.cached), (5 * 164, 2 * 164));
        index.purge(entry(1, 30, 0).position);
        assert_eq!(index.cached, 0);
        assert!(index.push(entry(2, 6, 1), None).is_err());
        index.push(entry(2, 31, 1), None).unwrap();
    }
}
