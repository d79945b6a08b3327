//! Append-only files of records: a header with magic and version, then frames.
//!
//! A frame is `length u32 | kind u16 | crc u32 | body`, little endian. The checksum covers the
//! checksum of the frame before it, so that a frame that is lost in the middle is noticed. A
//! reader skips kinds that it does not know: a newer release may add some without a new version.
//!
//! A torn tail, which a crash leaves, is told apart from damage: damage is a bad frame with a
//! good one behind it.

use std::ops::Range;
use thiserror::Error;
use yard_common::limits::RECORD_BYTES_MAX;

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of a frame around its body.
const FRAME_LEN: usize = 10;

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// It is shorter than its header, or begins with something else.
    #[error("the file does not begin as it should")]
    Header,
    /// It was written by a release that this one does not understand.
    #[error("the file has version {found}, this release reads up to {known}")]
    Version {
        /// The version of the file.
        found: u32,
        /// The highest version that is understood.
        known: u32,
    },
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole frame.
    Clean,
    /// In the middle of a frame: whoever wrote it died, or the machine did.
    Torn,
    /// A frame is bad, and others follow.
    Damaged,
}

/// What a file holds.
#[derive(Debug)]
pub struct Scan {
    /// The frames that are good, in order: kind, and where the body lies.
    pub frames: Vec<(u16, Range<usize>)>,
    /// How it ends.
    pub end: End,
    /// Bytes up to the end of the last good frame.
    pub len: usize,
    /// What the next frame continues.
    pub chain: Chain,
}

/// The checksum that the next frame continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain(u32);

/// The header of a new file, and what its first frame continues.
#[must_use]
pub fn header(magic: [u8; 8], version: u32) -> ([u8; HEADER_LEN], Chain) {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    (bytes, Chain(crc))
}

impl Chain {
    /// Appends a frame to a buffer.
    ///
    /// # Panics
    /// If the body is longer than `RECORD_BYTES_MAX`: whoever makes one keeps below it.
    pub fn push(&mut self, kind: u16, body: &[u8], out: &mut Vec<u8>) {
        assert!(body.len() <= RECORD_BYTES_MAX, "a record of {} bytes is too long", body.len());
        let len = body.len() as u32;
        self.0 = checksum(self.0, len, kind, body);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.0.to_le_bytes());
        out.extend_from_slice(body);
    }
}

/// Reads a file.
///
/// # Errors
/// If it does not begin with this magic and a version that is known.
pub fn scan(bytes: &[u8], magic: [u8; 8], known: u32) -> Result<Scan, FrameError> {
    let head = bytes.get(..HEADER_LEN).ok_or(FrameError::Header)?;
    let found = u32_at(head, 8).ok_or(FrameError::Header)?;
    let (expected, mut chain) = header(magic, found);
    if head != expected {
        return Err(FrameError::Header);
    }
    if found > known {
        return Err(FrameError::Version { found, known });
    }
    let (mut frames, mut at) = (Vec::new(), HEADER_LEN);
    while at < bytes.len() {
        let Some((kind, body, crc)) = frame_at(bytes, at, chain) else {
            let end = if goes_on(bytes, at) { End::Damaged } else { End::Torn };
            return Ok(Scan { frames, end, len: at, chain });
        };
        (at, chain) = (body.end, Chain(crc));
        frames.push((kind, body));
    }
    Ok(Scan { frames, end: End::Clean, len: at, chain })
}

/// The frame at a position, if it is whole and continues the chain.
fn frame_at(bytes: &[u8], at: usize, chain: Chain) -> Option<(u16, Range<usize>, u32)> {
    let (len, kind, crc) = head_at(bytes, at)?;
    let body = at + FRAME_LEN..at + FRAME_LEN + len;
    let content = bytes.get(body.clone())?;
    (checksum(chain.0, len as u32, kind, content) == crc).then_some((kind, body, crc))
}

/// Whether a good frame follows the bad one at `at`, going by the length that it claims.
fn goes_on(bytes: &[u8], at: usize) -> bool {
    let Some((len, _, crc)) = head_at(bytes, at) else { return false };
    frame_at(bytes, at + FRAME_LEN + len, Chain(crc)).is_some()
}

fn head_at(bytes: &[u8], at: usize) -> Option<(usize, u16, u32)> {
    let len = u32_at(bytes, at)? as usize;
    let kind = u16::from_le_bytes(bytes.get(at + 4..at + 6)?.try_into().ok()?);
    (len <= RECORD_BYTES_MAX).then_some((len, kind, u32_at(bytes, at + 6)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn checksum(previous: u32, len: u32, kind: u16, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&previous.to_le_bytes());
    hasher.update(&len.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"yardtest";

    /// A file of `count` frames, and where each of them ends.
    fn file(count: u16) -> (Vec<u8>, Vec<usize>) {
        let (head, mut chain) = header(MAGIC, 3);
        let mut bytes = head.to_vec();
        let mut ends = Vec::new();
        for kind in 0..count {
            chain.push(kind, &vec![kind as u8; 5 + kind as usize], &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = file(4);
        let scan = scan(&bytes, MAGIC, 3).unwrap();
        assert_eq!((scan.end, scan.len), (End::Clean, bytes.len()));
        let kinds: Vec<u16> = scan.frames.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0, 1, 2, 3]);
        assert_eq!(bytes[scan.frames[2].1.clone()], [2; 7]);
    }

    #[test]
    fn a_file_that_ends_anywhere_keeps_its_whole_frames() {
        let (bytes, ends) = file(4);
        for len in HEADER_LEN..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= len).count();
            let scan = scan(&bytes[..len], MAGIC, 3).unwrap();
            assert_eq!(scan.frames.len(), whole, "{len}");
            let clean = len == HEADER_LEN || ends.contains(&len);
            assert_eq!(scan.end, if clean { End::Clean } else { End::Torn }, "{len}");
        }
        assert_eq!(scan(&bytes[..9], MAGIC, 3).unwrap_err(), FrameError::Header);
    }

    #[test]
    fn a_flipped_bit_is_damage_if_something_follows() {
        let (bytes, ends) = file(4);
        for bit in HEADER_LEN * 8..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let scan = scan(&bad, MAGIC, 3).unwrap();
            assert_ne!(scan.end, End::Clean, "bit {bit}");
            let before = ends.iter().filter(|end| **end <= bit / 8).count();
            assert_eq!(scan.frames.len(), before, "bit {bit}");
        }
        let mut bad = bytes.clone();
        let body = ends[0] + FRAME_LEN;
        bad[body] ^= 1;
        assert_eq!(scan(&bad, MAGIC, 3).unwrap().end, End::Damaged);
    }

    #[test]
    fn a_lost_frame_is_noticed() {
        let (mut bytes, ends) = file(4);
        bytes.drain(ends[0]..ends[1]);
        assert_eq!(scan(&bytes, MAGIC, 3).unwrap().frames.len(), 1);
    }

    #[test]
    fn foreign_files_are_refused() {
        let (bytes, _) = file(1);
        assert_eq!(scan(&bytes, *b"yardelse", 3).unwrap_err(), FrameError::Header);
        let newer = FrameError::Version { found: 3, known: 2 };
        assert_eq!(scan(&bytes, MAGIC, 2).unwrap_err(), newer);
    }
}
