//! What is missing of a stream's file, and where its bytes belong.
//!
//! A file of a rank is a window on its stream: a hole may have been made in the middle, so that it
//! does not fill the disk, and the job may have cut its own output off. A note beside the file says
//! so. It has one record, which is locked while it changes; a job cannot write it.
//!
//! **Invariant:** a hole is noted before it is made. So bytes that were read while the note stayed
//! the same are what the rank wrote.

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Three numbers and their checksum.
const RECORD_BYTES: usize = 28;
/// Reads of a record that is being written.
const TRIES: u32 = 100;

/// What is missing of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The offset in the stream of the first byte of the file.
    pub(crate) base: u64,
    /// Where the hole begins in the file.
    pub(crate) from: u64,
    /// Where it ends; there is none if it ends where it begins.
    pub(crate) upto: u64,
}

impl Cut {
    /// What is noted beside a file. A note that a loss of power has damaged is made up for by
    /// looking at the file: the hole is there, and only the base is forgotten.
    ///
    /// # Errors
    /// If it cannot be read. No note is no error.
    pub(crate) fn read(stream: &Path) -> io::Result<Cut> {
        let file = match File::open(beside(stream)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cut::default()),
            Err(error) => return Err(error),
        };
        for _ in 0..TRIES {
            if let Some(cut) = record(&file)? {
                return Ok(cut);
            }
            std::thread::yield_now();
        }
        Cut::found(stream)
    }

    /// The first hole of a file itself.
    fn found(stream: &Path) -> io::Result<Cut> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(nix::libc::O_NOFOLLOW).open(stream)?;
        let size = i64::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let from = match lseek(&file, 0, Whence::SeekHole) {
            Ok(from) if from < size => from,
            // The end of every file counts as one, and that of an empty one lies behind it.
            Ok(_) | Err(Errno::ENXIO) => return Ok(Cut::default()),
            Err(errno) => return Err(errno.into()),
        };
        let upto = match lseek(&file, from, Whence::SeekData) {
            Ok(upto) => upto,
            Err(Errno::ENXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        Ok(Cut { base: 0, from: from.cast_unsigned(), upto: upto.cast_unsigned() })
    }

    /// Changes what is noted; `None`: it stays. Returns what is noted afterwards.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn change(
        stream: &Path,
        change: impl FnOnce(Cut) -> Option<Cut>,
    ) -> io::Result<Cut> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(nix::libc::O_NOFOLLOW).open(beside(stream))?;
        // Dropped with the file.
        file.lock()?;
        let before = match record(&file)? {
            Some(before) => before,
            None if file.metadata()?.len() == 0 => Cut::default(),
            // Nobody else writes it now: it is damaged.
            None => Cut::found(stream)?,
        };
        let Some(after) = change(before) else { return Ok(before) };
        file.write_all_at(&after.bytes(), 0)?;
        Ok(after)
    }

    fn bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        for (at, number) in [self.base, self.from, self.upto].into_iter().enumerate() {
            bytes[8 * at..8 * (at + 1)].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8; RECORD_BYTES]) -> Option<Cut> {
        let (numbers, sum) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(numbers) {
            return None;
        }
        let number = |at: usize| {
            Some(u64::from_le_bytes(numbers.get(8 * at..8 * (at + 1))?.try_into().ok()?))
        };
        Some(Cut { base: number(0)?, from: number(1)?, upto: number(2)? })
    }
}

/// The record of a note; none: it is being written.
fn record(file: &File) -> io::Result<Option<Cut>> {
    let mut bytes = [0; RECORD_BYTES];
    let mut len = 0;
    while len < RECORD_BYTES {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => return Ok(None),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Cut::of(&bytes))
}

/// The note of a file.
fn beside(stream: &Path) -> PathBuf {
    let mut name = stream.as_os_str().to_os_string();
    name.push(".cut");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_beside_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        assert_eq!(Cut::read(&stream).unwrap(), Cut::default());
        let first = Cut { base: 7, from: 4_096, upto: 8_192 };
        assert_eq!(Cut::change(&stream, |_| Some(first)).unwrap(), first);
        assert_eq!(
            Cut::change(&stream, |before| (before != first).then_some(first)).unwrap(),
            first
        );
        assert_eq!(Cut::read(&stream).unwrap(), first);
    }

    #[test]
    fn a_damaged_note_is_made_up_for_by_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        std::fs::write(&stream, vec![b'x'; 4 << 20]).unwrap();
        super::super::bound(&stream, 1 << 20).unwrap();
        let cut = Cut::read(&stream).unwrap();
        assert!(cut.upto > cut.from, "{cut:?}");
        let mut bytes = std::fs::read(beside(&stream)).unwrap();
        bytes[9] ^= 1;
        std::fs::write(beside(&stream), bytes).unwrap();
        assert_eq!(Cut::read(&stream).unwrap(), cut);
        assert_eq!(Cut::change(&stream, Some).unwrap(), cut);
        assert_eq!(std::fs::read(beside(&stream)).unwrap(), cut.bytes(), "it is whole again");
        // One that was made and not written says that there is no hole yet.
        std::fs::write(beside(&stream), "").unwrap();
        assert_eq!(Cut::change(&stream, |_| None).unwrap(), Cut::default());
    }
}
