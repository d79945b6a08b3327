//! One file of the log, and the records in its frames.

use super::StorageError;
use super::frame::{self, Scan};
use super::record::{FORMAT, Identity, Record, SegmentHead};
use crate::env::{File, Folder};
use std::sync::Arc;
use yard_common::limits::LOG_GROW_BYTES;

/// Before each record: its length, and its CRC for whoever reads it alone.
const PREFIX: usize = 8;

/// The file that the log is written to.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    pub(super) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// The file is as long as this; what is behind `end` is zeros.
    pub(super) allocated: u64,
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

impl Segment {
    /// Begins a file. It is durable when this returns.
    pub(super) fn create(
        folder: &dyn Folder,
        head: SegmentHead,
        previous: u32,
    ) -> Result<Segment, StorageError> {
        let name = name_of(head.number);
        let number = head.number;
        let file = folder.create(&name).map_err(StorageError::io("create", &name))?;
        let mut segment = Segment {
            number,
            name: name.as_str().into(),
            file,
            end: 0,
            allocated: 0,
            crc: previous,
        };
        let mut buffer = Vec::new();
        let at = frame::begin(&mut buffer);
        put(&mut buffer, &Record::Segment(head));
        segment.write(&mut buffer, at)?;
        folder.sync().map_err(StorageError::io("sync the folder of", &name))?;
        Ok(segment)
    }

    /// Completes the frame that was begun at `at` (the start of the buffer), writes and flushes it.
    /// Returns where it went.
    pub(super) fn write(&mut self, buffer: &mut Vec<u8>, at: usize) -> Result<u64, StorageError> {
        let crc = frame::finish(buffer, at, self.crc);
        let (from, end) = (self.end, self.end + buffer.len() as u64);
        if end > self.allocated {
            // Growing ahead: a flush that need not change the length of the file is quicker.
            self.allocated = end + LOG_GROW_BYTES;
            let padded = usize::try_from(self.allocated - from).unwrap_or(buffer.len());
            buffer.resize(padded, 0);
        }
        self.file.write_at(from, buffer).map_err(StorageError::io("write", &self.name))?;
        self.file.sync().map_err(StorageError::io("sync", &self.name))?;
        (self.end, self.crc) = (end, crc);
        Ok(from)
    }

    /// Reads a file that was written before. `last`: nothing follows it, so its end may be torn;
    /// it is cut then. `previous`: what its first frame continues, if known.
    pub(super) fn open(
        folder: &dyn Folder,
        number: u64,
        previous: Option<u32>,
        last: bool,
    ) -> Result<(Segment, Vec<u8>, Scan), StorageError> {
        let name = name_of(number);
        let file = folder.open(&name).map_err(StorageError::io("open", &name))?;
        let bytes = file.read_all().map_err(StorageError::io("read", &name))?;
        let scan = frame::scan(&name, &bytes, previous)?;
        let (end, mut allocated) = (scan.end as u64, bytes.len() as u64);
        if scan.torn {
            if !last {
                let what = "it ends in the middle, and another file follows it";
                return Err(StorageError::Damaged { file: name, offset: end, what });
            }
            file.truncate(end).map_err(StorageError::io("cut", &name))?;
            file.sync().map_err(StorageError::io("sync", &name))?;
            allocated = end;
        }
        let name = name.as_str().into();
        let segment = Segment { number, name, file, end, allocated, crc: scan.crc };
        Ok((segment, bytes, scan))
    }
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
