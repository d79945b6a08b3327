//! Frames: what is written and flushed as a whole.
//!
//! ```text
//! magic 4 | length of body 4 | CRC of the frame before 4 | CRC of body 4 | CRC of these 16 bytes 4
//! body
//! end mark 1
//! ```
//! Integers are little-endian; the CRC of the body takes in the CRC of the frame before it, so
//! frames make a chain. Each frame is durable before the next one is written, and a file is made
//! long enough, by zeros, before a frame is written to it. So at most the last one can be torn by
//! a crash, and how it is torn can be told from damage: a whole sector of it was never written and
//! reads as zeros. Anything else that does not add up, a file that ends within a frame, and
//! anything that is followed by a frame that does add up, is damage: what it holds was promised to
//! somebody, and nobody may drop it.
//!
//! The first and the last byte of a frame may be alone in their sectors. To lose one of those is
//! to lose nothing: what the frame holds still adds up, and it counts as whole.

use super::StorageError;
use std::ops::Range;

/// Begins a frame. No UTF-8 text contains it.
const MAGIC: [u8; 4] = [0xff, b'Y', b'F', 0xfe];
/// Ends a frame, so that the last piece of it in a sector is never zeros only.
const END_MARK: u8 = 0xe5;
/// Length of the header.
const HEADER: usize = 20;
/// What a frame takes beyond its body.
pub(super) const OVERHEAD: usize = HEADER + 1;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Frames of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the bodies are.
    pub(super) bodies: Vec<Range<usize>>,
    /// Where the next frame goes.
    pub(super) end: usize,
    /// The CRC that the next frame continues.
    pub(super) crc: u32,
    /// Whether a torn frame follows at `end`.
    pub(super) torn: bool,
}

/// The fields of a header that adds up.
struct Header {
    body: usize,
    previous: u32,
    crc: u32,
}

fn field(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn crc_of(previous: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&previous.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Room for a frame at the end of a buffer; its body is appended next.
pub(super) fn begin(buffer: &mut Vec<u8>) -> usize {
    let at = buffer.len();
    buffer.resize(at + HEADER, 0);
    at
}

/// Completes the frame that was begun there, after its body. Returns its CRC.
pub(super) fn finish(buffer: &mut Vec<u8>, at: usize, previous: u32) -> u32 {
    let body = &buffer[at + HEADER..];
    let len = u32::try_from(body.len()).expect("frames are bounded far below 4 GiB");
    let crc = crc_of(previous, body);
    buffer[at..at + 4].copy_from_slice(&MAGIC);
    buffer[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
    buffer[at + 8..at + 12].copy_from_slice(&previous.to_le_bytes());
    buffer[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    let own = crc32fast::hash(&buffer[at..at + 16]);
    buffer[at + 16..at + 20].copy_from_slice(&own.to_le_bytes());
    buffer.push(END_MARK);
    crc
}

/// Whether a mark is there, or was alone in a sector that was never written.
fn is_mark(found: u8, mark: u8) -> bool {
    found == mark || found == 0
}

fn header(bytes: &[u8]) -> Option<Header> {
    let mut head: [u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    if !head.iter().zip(MAGIC).all(|(found, mark)| is_mark(*found, mark)) {
        return None;
    }
    head[..4].copy_from_slice(&MAGIC);
    if crc32fast::hash(&head[..16]) != field(&head, 16) {
        return None;
    }
    let body = field(&head, 4) as usize;
    Some(Header { body, previous: field(&head, 8), crc: field(&head, 12) })
}

/// The frame at the beginning of these bytes, if all of it adds up.
fn frame(bytes: &[u8]) -> Option<Header> {
    let header = header(bytes)?;
    let end = HEADER + header.body;
    let whole = bytes.get(HEADER..end).is_some_and(|b| crc_of(header.previous, b) == header.crc);
    (whole && bytes.get(end).is_some_and(|found| is_mark(*found, END_MARK))).then_some(header)
}

/// Whether a write of a frame at `at` that never ended can look like this.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    // Without its header nobody knows where it ends: only the sectors of the header count, and
    // they are whole sectors, since what was lost with it was lost as far as the sector goes.
    let (len, whole) = match header(&bytes[at..]) {
        Some(header) => (HEADER + header.body + 1, false),
        None => (HEADER, true),
    };
    if at + len > bytes.len() {
        return false;
    }
    let mut from = at;
    while from < at + len {
        let sector = (from / SECTOR + 1) * SECTOR;
        let to = if whole { bytes.len() } else { at + len }.min(sector);
        if bytes[from..to].iter().all(|byte| *byte == 0) {
            return true;
        }
        from = sector;
    }
    false
}

/// Whether a frame that adds up begins anywhere in these bytes.
fn any_frame(bytes: &[u8]) -> bool {
    bytes.windows(MAGIC.len()).enumerate().any(|(at, start)| {
        // The magic first: it is cheap, and rare.
        start == MAGIC && frame(&bytes[at..]).is_some()
    })
}

/// What may follow the broken frame at the beginning of these bytes. What is within a frame does
/// not follow it, whatever it looks like.
fn behind(bytes: &[u8]) -> &[u8] {
    let from = header(bytes).map_or(1, |header| HEADER + header.body);
    bytes.get(from..).unwrap_or_default()
}

/// Finds the frames of a file. `previous`: the CRC that the first frame continues, if known.
///
/// # Errors
/// If something is damaged; `name` goes into the message.
pub(super) fn scan(name: &str, bytes: &[u8], previous: Option<u32>) -> Result<Scan, StorageError> {
    let mut scan = Scan { bodies: Vec::new(), end: 0, crc: previous.unwrap_or(0), torn: false };
    let damaged = |at: usize, what: &'static str| {
        Err(StorageError::Damaged { file: name.into(), offset: at as u64, what })
    };
    loop {
        let at = scan.end;
        let rest = &bytes[at..];
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(scan);
        }
        match frame(rest) {
            Some(header) => {
                let first_of_unknown = at == 0 && previous.is_none();
                if header.previous != scan.crc && !first_of_unknown {
                    return damaged(at, "a frame does not continue the one before it");
                }
                let from = at + HEADER;
                scan.bodies.push(from..from + header.body);
                (scan.end, scan.crc) = (from + header.body + 1, header.crc);
            }
            None if any_frame(behind(rest)) => {
                return damaged(at, "a frame is broken, and good ones follow it");
            }
            None if is_torn(bytes, at) => {
                scan.torn = true;
                return Ok(scan);
            }
            None => return damaged(at, "the last frame is broken, and no crash can have done it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of frames with these bodies, and where each one ends.
    fn file(bodies: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut crc, mut ends) = (Vec::new(), 0, Vec::new());
        for body in bodies {
            let at = begin(&mut bytes);
            bytes.extend_from_slice(body);
            crc = finish(&mut bytes, at, crc);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn good(bytes: &[u8]) -> Scan {
        scan("f", bytes, Some(0)).unwrap()
    }

    #[test]
    fn frames_read_back_with_and_without_room_behind_them() {
        let (mut bytes, ends) = file(&[b"one", b"", &[7; 2_000]]);
        for room in [0, 1, 4_096] {
            bytes.resize(ends[2] + room, 0);
            let found = good(&bytes);
            assert_eq!((found.bodies.len(), found.end, found.torn), (3, ends[2], false));
            assert_eq!(&bytes[found.bodies[0].clone()], b"one");
        }
    }

    #[test]
    fn a_file_that_ends_within_a_frame_is_damaged() {
        let (bytes, ends) = file(&[b"one", &[1; 700], b"three"]);
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            match scan("f", &bytes[..cut], Some(0)) {
                Ok(found) => {
                    assert_eq!((found.bodies.len(), found.torn), (whole, false), "cut at {cut}");
                    assert!(cut == 0 || ends.contains(&cut), "cut at {cut}");
                }
                Err(error) => assert!(!ends.contains(&cut), "cut at {cut}: {error}"),
            }
        }
    }

    #[test]
    fn a_byte_of_zeros_or_ones_is_never_taken_for_a_crash() {
        // Frames at every place of a sector, so that first and last bytes stand alone, too.
        for shift in 0..SECTOR {
            let (mut bytes, ends) = file(&[&vec![7; shift], &[1; 700], b"last"]);
            bytes.resize(bytes.len() + SECTOR, 0);
            for at in (0..HEADER).flat_map(|nth| [ends[1] + nth, ends[2] - 1 - nth]) {
                for bad in [0, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = bad;
                    if let Ok(found) = scan("f", &bytes, Some(0)) {
                        assert_eq!((found.bodies.len(), found.torn), (3, false), "{shift} {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_within_a_torn_frame_does_not_follow_it() {
        let (inner, _) = file(&[b"inner"]);
        let mut body = vec![9; 1_200];
        body[1_000..1_000 + inner.len()].copy_from_slice(&inner);
        let (mut bytes, ends) = file(&[b"one", &body]);
        bytes.resize(bytes.len() + SECTOR, 0);
        bytes[SECTOR..2 * SECTOR].fill(0);
        let found = good(&bytes);
        assert_eq!((found.end, found.torn), (ends[0], true));
    }

    #[test]
    fn a_lost_sector_of_the_last_frame_is_torn_and_of_another_damage() {
        let (bytes, ends) = file(&[&[1; 1_500], &[2; 1_500]]);
        for sector in 0..bytes.len().div_ceil(SECTOR) {
            let mut lost = bytes.clone();
            let end = lost.len().min((sector + 1) * SECTOR);
            let from = (sector * SECTOR).max(ends[0]).min(end);
            lost[from..end].fill(0);
            if from < end {
                assert_eq!(good(&lost).bodies.len(), 1, "sector {sector}");
            }
            let mut lost = bytes.clone();
            let end = ends[0].min((sector + 1) * SECTOR);
            if sector * SECTOR < end {
                lost[sector * SECTOR..end].fill(0);
                let error = scan("f", &lost, Some(0)).unwrap_err();
                assert!(error.to_string().contains("good ones follow"), "{error}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_never_taken_for_a_crash() {
        let (mut bytes, _) = file(&[b"one", &[1; 700], b"three"]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let result = scan("f", &bytes, Some(0));
                assert!(matches!(result, Err(StorageError::Damaged { .. })), "{at} {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn frames_of_another_file_do_not_fit() {
        let (bytes, _) = file(&[b"one"]);
        assert!(scan("f", &bytes, Some(7)).is_err());
        assert_eq!(scan("f", &bytes, None).unwrap().bodies.len(), 1);
    }
}
