//! Keeps the file of a stream within its bound: the beginning and the newest part stay, the middle
//! becomes a hole. Offsets stay what they were, and whoever writes notices nothing.

use super::cut::Cut;
use super::{AttemptLogs, Stream, open_plain};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use yard_common::limits::{DELIVERY_LAG_BYTES_MAX, LOG_BOUND_BYTES_LEAST};

/// Holes begin and end at such offsets: file systems make none of parts of a block.
const BLOCK: u64 = 4_096;

/// Makes a hole in a file that takes more than it may. Returns whether it did.
///
/// # Errors
/// Those of the file system; `Unsupported` if it makes no holes. The file is then as it was.
pub(crate) fn bound(stream: &Path, bytes_max: u64) -> io::Result<bool> {
    make_hole(stream, bytes_max, u64::MAX)
}

/// As `bound`, but what lies behind `delivered` in the stream stays, as long as that is no more
/// than `DELIVERY_LAG_BYTES_MAX` beyond what the file may take.
///
/// # Errors
/// As `bound`.
pub(crate) fn bound_behind(stream: &Path, bytes_max: u64, delivered: u64) -> io::Result<bool> {
    let made = make_hole(stream, bytes_max, delivered)?;
    let last = bytes_max.max(LOG_BOUND_BYTES_LEAST).saturating_add(DELIVERY_LAG_BYTES_MAX);
    Ok(make_hole(stream, last, u64::MAX)? || made)
}

fn make_hole(stream: &Path, bytes_max: u64, delivered: u64) -> io::Result<bool> {
    let file = open_plain(stream, OpenOptions::new().read(true).write(true))?;
    let size = file.metadata()?.len();
    let cut = Cut::read(stream)?;
    let Some(hole) = hole(cut, size, bytes_max.max(LOG_BOUND_BYTES_LEAST), delivered) else {
        return Ok(false);
    };
    // Noted first: whoever reads meanwhile takes no zeros for output.
    let noted = Cut::change(stream, |before| (before == cut).then_some(hole))?;
    if noted != hole {
        return Ok(false);
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
    let made = fallocate(&file, flags, offset(hole.from)?, offset(hole.upto - hole.from)?);
    if let Err(errno) = made {
        Cut::change(stream, |now| (now == hole).then_some(cut))?;
        let is_missing = errno == Errno::EOPNOTSUPP || errno == Errno::ENOSYS;
        return Err(if is_missing { io::ErrorKind::Unsupported.into() } else { errno.into() });
    }
    Ok(true)
}

/// What one stream of a listing may take: both streams of a rank share what the rank may. They are
/// neighbours there.
pub(crate) fn share_of(streams: &[Stream], at: usize, bytes_max: u64) -> u64 {
    let neighbours = [at.checked_sub(1), at.checked_add(1)];
    let neighbours = neighbours.iter().flatten().filter_map(|at| streams.get(*at));
    let own = streams.get(at).map(|stream| stream.writer);
    let other = neighbours.filter(|other| Some(other.writer) == own).map(|other| other.size).max();
    bytes_max - other.unwrap_or(0).min(bytes_max / 2)
}

/// Makes holes in the output of an attempt. What fails is left as it is.
pub(crate) fn bound_all(logs: &AttemptLogs, bytes_max: u64) {
    let streams = logs.streams().unwrap_or_default();
    for (at, stream) in streams.iter().enumerate() {
        let own_max = share_of(&streams, at, bytes_max);
        if stream.size > own_max {
            let _ = bound(&logs.path(stream.writer, stream.kind), own_max);
        }
    }
}

/// The hole that a file of this size is to have; none: it is as it should be, or nothing more of it
/// is delivered. What is left is well within the bound, so that the next hole is not due at once.
fn hole(cut: Cut, size: u64, bytes_max: u64, delivered: u64) -> Option<Cut> {
    let hollow = cut.upto.saturating_sub(cut.from);
    if size.saturating_sub(hollow) <= bytes_max {
        return None;
    }
    let down = |at: u64| at / BLOCK * BLOCK;
    let from = if hollow > 0 { cut.from } else { down(bytes_max / 4) };
    let upto = size.saturating_sub(bytes_max / 2).min(delivered.saturating_sub(cut.base));
    let upto = down(upto);
    (upto > cut.upto.max(from)).then_some(Cut { base: cut.base, from, upto })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const MAX: u64 = 1 << 20;

    fn hole(cut: Cut, size: u64, bytes_max: u64) -> Option<Cut> {
        super::hole(cut, size, bytes_max, u64::MAX)
    }

    #[test]
    fn what_is_not_delivered_stays() {
        let none = Cut::default();
        for (base, delivered, upto) in [
            (0, 0, None),
            (0, MAX / 4, None),
            (0, MAX / 2 + 1, Some(MAX / 2)),
            (0, 9 * MAX, Some(7 * MAX / 2)),
            (MAX, MAX + MAX / 2, Some(MAX / 2)),
        ] {
            let cut = Cut { base, ..none };
            let made = super::hole(cut, 4 * MAX, MAX, delivered).map(|cut| cut.upto);
            assert_eq!(made, upto, "{base} {delivered}");
        }
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        let file = std::fs::File::create(&stream).unwrap();
        file.set_len(MAX + DELIVERY_LAG_BYTES_MAX).unwrap();
        assert!(!bound_behind(&stream, MAX, 0).unwrap());
        file.set_len(MAX + DELIVERY_LAG_BYTES_MAX + 1).unwrap();
        assert!(bound_behind(&stream, MAX, 0).unwrap(), "the disk can bear no more");
    }

    #[test]
    fn head_and_tail_stay_and_holes_only_grow() {
        let none = Cut::default();
        assert_eq!(hole(none, MAX, MAX), None);
        let first = hole(none, MAX + 1, MAX).unwrap();
        assert_eq!((first.from, first.upto), (MAX / 4, MAX / 2));
        // A quarter of the bound is free again.
        assert_eq!(hole(first, MAX + MAX / 4, MAX), None);
        let second = hole(first, MAX + MAX / 4 + 1, MAX).unwrap();
        assert_eq!(second.from, first.from);
        assert_eq!(second.upto, (MAX / 4 + MAX / 2 + 1) / BLOCK * BLOCK);
        let held = 100 * MAX - (hole(second, 100 * MAX, MAX).unwrap().upto - second.from);
        assert!(held <= MAX, "{held}");
    }

    #[test]
    fn a_file_that_is_too_long_gives_its_blocks_back() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        std::fs::write(&stream, vec![b'x'; 4 << 20]).unwrap();
        let before = std::fs::metadata(&stream).unwrap();
        assert!(bound(&stream, MAX).unwrap());
        let after = std::fs::metadata(&stream).unwrap();
        assert_eq!(after.len(), before.len(), "offsets stay");
        assert!(after.blocks() * 512 <= MAX, "{} blocks", after.blocks());
        assert!(!bound(&stream, MAX).unwrap());
        let cut = Cut::read(&stream).unwrap();
        let bytes = std::fs::read(&stream).unwrap();
        let (from, upto) = (cut.from as usize, cut.upto as usize);
        assert!(bytes[..from].iter().chain(&bytes[upto..]).all(|byte| *byte == b'x'));
        assert!(bytes[from..upto].iter().all(|byte| *byte == 0));
    }
}
