//! The copy of one stream in one file: its beginning, and a ring with its end.
//!
//! ```text
//!   0      how much there is, with a checksum
//!   4096   the first 256 KiB of the stream
//!   ...    4 MiB: the byte at an offset lies at the rest of its division
//! ```
//!
//! Nothing is flushed: a copy is needed when a node is lost, and a second member has another one.

use crate::env::File;
use std::io;
use yard_common::limits::{LOG_COPY_HEAD_BYTES, LOG_COPY_TAIL_BYTES};

/// Where the beginning of the stream lies.
const HEAD_AT: u64 = 4_096;
/// Where the ring lies.
const RING_AT: u64 = HEAD_AT + LOG_COPY_HEAD_BYTES;
/// Five numbers and their checksum.
const RECORD_BYTES: usize = 44;
/// Begins every file; the last digit is the version of its form.
const MAGIC: u64 = u64::from_le_bytes(*b"ydcopy01");

/// How much of a stream there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes from its beginning on.
    pub(super) head_len: u64,
    /// Where the rest begins.
    pub(super) from: u64,
    /// Where the rest ends; there is none if it ends where it begins.
    pub(super) upto: u64,
    /// When it was written last.
    pub(super) wall_ms: u64,
}

impl Extent {
    /// What a file says of itself; none: it is none of ours, or was cut off.
    pub(super) fn read(file: &dyn File) -> io::Result<Option<Extent>> {
        let mut bytes = [0; RECORD_BYTES];
        if file.read_at(0, &mut bytes)? < RECORD_BYTES {
            return Ok(None);
        }
        let Some((numbers, sum)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
        if u32::from_le_bytes(*sum) != crc32fast::hash(numbers) {
            return Ok(None);
        }
        let mut found = [0; 5];
        for (number, bytes) in found.iter_mut().zip(numbers.chunks_exact(8)) {
            *number = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        let [magic, head_len, from, upto, wall_ms] = found;
        let legal = magic == MAGIC && head_len <= LOG_COPY_HEAD_BYTES && from <= upto;
        Ok(legal.then_some(Extent { head_len, from, upto, wall_ms }))
    }

    fn write(self, file: &dyn File) -> io::Result<()> {
        let mut bytes = [0; RECORD_BYTES];
        let numbers = [MAGIC, self.head_len, self.from, self.upto, self.wall_ms];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..RECORD_BYTES - 4]);
        bytes[RECORD_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        file.write_at(0, &bytes)
    }

    /// Bytes that it takes on the disk, at most.
    pub(super) fn bytes(self) -> u64 {
        HEAD_AT + self.head_len + (self.upto - self.from).min(LOG_COPY_TAIL_BYTES)
    }

    /// Takes a piece. What comes out of order, and is there already, is left as it is.
    pub(super) fn take(
        mut self,
        file: &dyn File,
        mut offset: u64,
        mut data: &[u8],
        wall_ms: u64,
    ) -> io::Result<Extent> {
        self.wall_ms = self.wall_ms.max(wall_ms);
        if offset <= self.head_len && self.head_len < LOG_COPY_HEAD_BYTES {
            let room = LOG_COPY_HEAD_BYTES - offset;
            let len = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (head, rest) = data.split_at(len);
            file.write_at(HEAD_AT + offset, head)?;
            (offset, data) = (offset + len as u64, rest);
            self.head_len = self.head_len.max(offset);
        }
        let first = self.upto.max(self.head_len);
        if offset < first {
            let known = data.len().min(usize::try_from(first - offset).unwrap_or(usize::MAX));
            (offset, data) = (offset + known as u64, &data[known..]);
        }
        if !data.is_empty() {
            if offset != self.upto {
                (self.from, self.upto) = (offset, offset);
            }
            // More than the ring holds would only be written over.
            let skip = data.len().saturating_sub(LOG_COPY_TAIL_BYTES as usize);
            write_ring(file, offset + skip as u64, &data[skip..])?;
            self.upto = offset + data.len() as u64;
            self.from = self.from.max(self.upto.saturating_sub(LOG_COPY_TAIL_BYTES));
        }
        self.write(file)?;
        Ok(self)
    }

    /// At most so many bytes from an offset on, and where they begin: later, if what is there is
    /// missing. Empty: there is nothing more.
    pub(super) fn piece(
        self,
        file: &dyn File,
        offset: u64,
        bytes_max: usize,
    ) -> io::Result<(u64, Vec<u8>)> {
        let (offset, at, end) = if offset < self.head_len {
            (offset, HEAD_AT + offset, self.head_len)
        } else {
            let offset = offset.max(self.from);
            let lap = offset % LOG_COPY_TAIL_BYTES;
            let lap_end = (offset - lap).saturating_add(LOG_COPY_TAIL_BYTES);
            (offset, RING_AT + lap, self.upto.min(lap_end))
        };
        let len = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(bytes_max)];
        let len = file.read_at(at, &mut bytes)?;
        bytes.truncate(len);
        Ok((offset, bytes))
    }
}

fn write_ring(file: &dyn File, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let lap = offset % LOG_COPY_TAIL_BYTES;
        let len = data.len().min((LOG_COPY_TAIL_BYTES - lap) as usize);
        file.write_at(RING_AT + lap, &data[..len])?;
        (offset, data) = (offset + len as u64, &data[len..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemoryDisk;
    use std::sync::Arc;

    const HEAD: u64 = LOG_COPY_HEAD_BYTES;
    const TAIL: u64 = LOG_COPY_TAIL_BYTES;

    fn file() -> Arc<dyn File> {
        MemoryDisk::default().folder().create("a").unwrap()
    }

    /// The bytes of a stream that differ at each offset.
    fn text(from: u64, upto: u64) -> Vec<u8> {
        (from..upto).map(|at| (at % 251) as u8).collect()
    }

    /// Everything that there is, as parts without a gap.
    fn all(extent: Extent, file: &dyn File) -> Vec<(u64, u64)> {
        let (mut at, mut parts) = (0, Vec::<(u64, u64)>::new());
        loop {
            let (offset, bytes) = extent.piece(file, at, 100_000).unwrap();
            if bytes.is_empty() {
                return parts;
            }
            let end = offset + bytes.len() as u64;
            assert_eq!(bytes, text(offset, end), "at {offset}");
            match parts.last_mut().filter(|last| last.1 == offset) {
                Some(last) => last.1 = end,
                None => parts.push((offset, end)),
            }
            at = end;
        }
    }

    fn take(extent: Extent, file: &dyn File, from: u64, upto: u64) -> Extent {
        extent.take(file, from, &text(from, upto), 1).unwrap()
    }

    #[test]
    fn a_short_stream_is_there_whole() {
        let file = file();
        let mut extent = Extent::default();
        assert_eq!(all(extent, &*file), []);
        for (from, upto) in [(0, 10), (10, HEAD + 7), (HEAD + 7, HEAD + TAIL - 1)] {
            extent = take(extent, &*file, from, upto);
            assert_eq!(all(extent, &*file), [(0, upto)]);
        }
        assert_eq!(Extent::read(&*file).unwrap(), Some(extent));
    }

    #[test]
    fn of_a_long_one_the_beginning_and_the_end_are() {
        let file = file();
        let mut extent = Extent::default();
        let step = 777_777;
        for at in 0..40 {
            extent = take(extent, &*file, at * step, (at + 1) * step);
            assert!(extent.bytes() <= HEAD_AT + HEAD + TAIL);
        }
        let end = 40 * step;
        assert_eq!(all(extent, &*file), [(0, HEAD), (end - TAIL, end)]);
        // One piece that is longer than all that is kept.
        extent = take(extent, &*file, end, end + 3 * TAIL);
        assert_eq!(all(extent, &*file), [(0, HEAD), (end + 2 * TAIL, end + 3 * TAIL)]);
    }

    #[test]
    fn what_is_left_out_between_pieces_is_missing() {
        let file = file();
        let extent = take(Extent::default(), &*file, 0, 100);
        let extent = take(extent, &*file, 10 * TAIL + 3, 10 * TAIL + 9);
        assert_eq!(all(extent, &*file), [(0, 100), (10 * TAIL + 3, 10 * TAIL + 9)]);
        // What comes again, as an agent that starts anew sends it, changes nothing.
        for (from, upto) in [(0, 100), (50, 60), (10 * TAIL + 3, 10 * TAIL + 9), (5, 7)] {
            assert_eq!(all(take(extent, &*file, from, upto), &*file), all(extent, &*file));
        }
        let extent = take(extent, &*file, 10 * TAIL + 5, 10 * TAIL + 20);
        assert_eq!(all(extent, &*file), [(0, 100), (10 * TAIL + 3, 10 * TAIL + 20)]);
    }

    #[test]
    fn a_damaged_record_is_no_copy() {
        let file = file();
        assert_eq!(Extent::read(&*file).unwrap(), None);
        take(Extent::default(), &*file, 0, 10);
        file.write_at(9, &[0xff]).unwrap();
        assert_eq!(Extent::read(&*file).unwrap(), None);
    }
}
