//! One file of the log, and the records in its frames.

use super::StorageError;
use super::frame::{self, Scan};
use super::open::TEMPORARY;
use super::record::{FORMAT, Identity, Record, SegmentHead};
use crate::env::{File, Folder};
use std::sync::Arc;
use yard_common::limits::{LOG_GROW_BYTES, LOG_SEGMENT_BYTES};

/// Bytes between the end of a frame and the end of its file: room for the last frame, and for the
/// header of any other, which so can be read if the file was cut behind it.
const APART: u64 = 512;
/// Before each record: its length, and its CRC for whoever reads it alone.
const PREFIX: usize = 8;

/// How files of the log grow, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// A file that would be longer is full.
    pub(super) segment: u64,
    /// By so much at a time.
    pub(super) grow: u64,
}

impl Sizes {
    pub(super) const DEFAULT: Sizes = Sizes { segment: LOG_SEGMENT_BYTES, grow: LOG_GROW_BYTES };
}

/// The file that the log is written to.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    pub(super) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// The file is durably as long as this; what is behind `end` is zeros.
    allocated: u64,
    /// Whether something in the file says so.
    told: bool,
    grow: u64,
    /// What the next frame continues.
    pub(super) crc: u32,
}

/// The name of a segment.
pub(super) fn name_of(number: u64) -> String {
    format!("log-{number:020}")
}

/// The number of the segment with this name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("log-")?.parse().ok()
}

/// Appends a record to the body of a frame.
pub(super) fn put(buffer: &mut Vec<u8>, record: &Record) {
    let at = buffer.len();
    buffer.resize(at + PREFIX, 0);
    minicbor::encode(record, &mut *buffer).expect("writing to memory does not fail");
    let len = u32::try_from(buffer.len() - at - PREFIX).expect("entries are bounded");
    let crc = crc32fast::hash(&buffer[at + PREFIX..]);
    buffer[at..at + 4].copy_from_slice(&len.to_le_bytes());
    buffer[at + 4..at + PREFIX].copy_from_slice(&crc.to_le_bytes());
}

/// The first record of these bytes, and how many bytes it takes.
pub(super) fn take(bytes: &[u8]) -> Result<(Record, usize), &'static str> {
    let prefix = bytes.get(..PREFIX).ok_or("a record is cut off")?;
    let number = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    let end = PREFIX + number(0) as usize;
    let body = bytes.get(PREFIX..end).ok_or("a record is cut off")?;
    if crc32fast::hash(body) != number(4) {
        return Err("a record does not match its CRC");
    }
    let record = minicbor::decode(body).map_err(|_| "a record has a form that is not known")?;
    Ok((record, end))
}

/// The frame that ends a file after a frame with this CRC, and its own CRC, which the next file
/// continues whether or not a crash came before this was written.
fn last_frame(previous: u32) -> (Vec<u8>, u32) {
    let mut buffer = Vec::new();
    let at = frame::begin(&mut buffer);
    put(&mut buffer, &Record::Full);
    let crc = frame::finish(&mut buffer, at, previous);
    (buffer, crc)
}

/// The CRC that the file after this one continues.
pub(super) fn next_crc(last: u32) -> u32 {
    last_frame(last).1
}

impl Segment {
    /// Begins a file. It is durable, as long as its head says, and has its name when this returns.
    pub(super) fn create(
        folder: &dyn Folder,
        head: SegmentHead,
        previous: u32,
        grow: u64,
    ) -> Result<Segment, StorageError> {
        let name = name_of(head.number);
        let temporary = format!("{name}{TEMPORARY}");
        let file = folder.create(&temporary).map_err(StorageError::io("create", &temporary))?;
        let (number, length) = (head.number, head.length);
        let (mut buffer, crc) = first_frame(head, previous);
        let end = buffer.len() as u64;
        buffer.resize(usize::try_from(length).unwrap_or(buffer.len()), 0);
        let written = file.write_at(0, &buffer).map_err(StorageError::io("write", &temporary));
        if let Err(error) = written {
            // Whatever comes of it: what it holds is of no use, and the next try needs its name.
            let _ = folder.remove(&temporary);
            return Err(error);
        }
        let segment = Segment::new(number, file, end, length, crc, grow);
        segment.name_it(folder, &temporary)?;
        Ok(segment)
    }

    /// Begins a file in one that was made before, of zeros and of the length in the head.
    pub(super) fn begin_in(
        folder: &dyn Folder,
        reserve: &str,
        head: SegmentHead,
        previous: u32,
        grow: u64,
    ) -> Result<Segment, StorageError> {
        let file = folder.open(reserve).map_err(StorageError::io("open", reserve))?;
        let (number, length) = (head.number, head.length);
        let (buffer, crc) = first_frame(head, previous);
        file.write_at(0, &buffer).map_err(StorageError::io("overwrite", reserve))?;
        let segment = Segment::new(number, file, buffer.len() as u64, length, crc, grow);
        segment.name_it(folder, reserve)?;
        Ok(segment)
    }

    fn new(
        number: u64,
        file: Arc<dyn File>,
        end: u64,
        allocated: u64,
        crc: u32,
        grow: u64,
    ) -> Segment {
        let name = name_of(number).as_str().into();
        Segment { number, name, file, end, allocated, told: true, grow, crc }
    }

    fn name_it(&self, folder: &dyn Folder, from: &str) -> Result<(), StorageError> {
        self.file.sync().map_err(StorageError::io("sync", from))?;
        folder.rename(from, &self.name).map_err(StorageError::io("rename", from))?;
        folder.sync().map_err(StorageError::io("sync the folder of", &self.name))
    }

    /// How many bytes it can take without more of the disk.
    pub(super) fn left(&self) -> u64 {
        self.allocated.saturating_sub(self.end + APART)
    }

    /// Makes the file longer, by zeros. Not durable yet.
    fn extend(&self, to: u64) -> Result<(), StorageError> {
        let zeros = vec![0; usize::try_from(to - self.allocated).unwrap_or_default()];
        let written = self.file.write_at(self.allocated, &zeros);
        written.map_err(StorageError::io("write", &self.name))
    }

    /// Completes the frame that was begun at `at` (the start of the buffer), writes and flushes it.
    /// Returns where it went. If the disk is full, nothing was done.
    pub(super) fn write(&mut self, buffer: &mut Vec<u8>, at: usize) -> Result<u64, StorageError> {
        let need = self.end + buffer.len() as u64 + APART;
        if need > self.allocated {
            // A frame never goes beyond the end of its file: a file that ends within one was cut.
            self.extend(need + self.grow)?;
            self.file.sync().map_err(StorageError::io("sync", &self.name))?;
            (self.allocated, self.told) = (need + self.grow, false);
        }
        if !self.told {
            put(buffer, &Record::Length(self.allocated));
        }
        let crc = frame::finish(buffer, at, self.crc);
        let (from, end) = (self.end, self.end + buffer.len() as u64);
        self.file.write_at(from, buffer).map_err(StorageError::io("overwrite", &self.name))?;
        // Growing ahead: a flush that need not change the length of the file is quicker. On a full
        // disk what is there must do.
        let ahead = self.allocated + self.grow;
        let grown = match end + self.grow / 2 > self.allocated {
            true => match self.extend(ahead) {
                Err(error) if error.is_full() => false,
                extended => extended.map(|()| true)?,
            },
            false => false,
        };
        self.file.sync().map_err(StorageError::io("sync", &self.name))?;
        (self.end, self.crc, self.told) = (end, crc, !grown);
        if grown {
            self.allocated = ahead;
        }
        Ok(from)
    }

    /// Says that the next file is there. If it is gone later, it was lost.
    pub(super) fn close(self) -> Result<Arc<str>, StorageError> {
        let (buffer, _) = last_frame(self.crc);
        self.file.write_at(self.end, &buffer).map_err(StorageError::io("overwrite", &self.name))?;
        self.file.sync().map_err(StorageError::io("sync", &self.name))?;
        Ok(self.name)
    }

    /// Reads a file that was written before. `previous`: what its first frame continues, if known.
    /// Its end may be torn; `mend` makes it writable again.
    pub(super) fn open(
        folder: &dyn Folder,
        number: u64,
        previous: Option<u32>,
        grow: u64,
    ) -> Result<(Segment, Vec<u8>, Scan), StorageError> {
        let name = name_of(number);
        let file = folder.open(&name).map_err(StorageError::io("open", &name))?;
        let bytes = file.read_all().map_err(StorageError::io("read", &name))?;
        let scan = frame::scan(&name, &bytes, previous)?;
        let allocated = bytes.len() as u64;
        let segment = Segment::new(number, file, scan.end as u64, allocated, scan.crc, grow);
        Ok((segment, bytes, scan))
    }

    /// A length that the file has said of itself.
    pub(super) fn is_as_long_as(&self, length: u64) -> Result<(), &'static str> {
        if self.allocated < length { Err("the file is shorter than it was") } else { Ok(()) }
    }

    /// Makes the end of the last file writable: what was torn is zeros again, and its length is
    /// told with what is written next.
    pub(super) fn mend(&mut self, bytes: &[u8], scan: &Scan) -> Result<(), StorageError> {
        self.told = false;
        if scan.torn {
            mend(&*self.file, &self.name, bytes, scan)?;
        }
        // A process that was killed may have left what is not on the disk yet, and what is read
        // here counts as if it were.
        self.file.sync().map_err(StorageError::io("sync", &self.name))
    }
}

/// Overwrites a torn end with zeros.
pub(super) fn mend(
    file: &dyn File,
    name: &str,
    bytes: &[u8],
    scan: &Scan,
) -> Result<(), StorageError> {
    let torn = bytes[scan.end..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    file.write_at(scan.end as u64, &vec![0; torn]).map_err(StorageError::io("mend", name))?;
    file.sync().map_err(StorageError::io("sync", name))
}

/// The frame that a file begins with.
fn first_frame(head: SegmentHead, previous: u32) -> (Vec<u8>, u32) {
    let mut buffer = Vec::new();
    let at = frame::begin(&mut buffer);
    put(&mut buffer, &Record::Segment(head));
    let crc = frame::finish(&mut buffer, at, previous);
    (buffer, crc)
}

/// Checks that a file is ours.
pub(super) fn check_head(
    file: &str,
    format: u32,
    found: &Identity,
    wanted: &Identity,
) -> Result<(), StorageError> {
    if format != FORMAT {
        let file = file.into();
        return Err(StorageError::OtherFormat { file, found: format, known: FORMAT });
    }
    if found != wanted {
        let (found, wanted) = (Box::new(*found), Box::new(*wanted));
        return Err(StorageError::OtherIdentity { file: file.into(), found, wanted });
    }
    Ok(())
}
