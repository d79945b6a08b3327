//! A stream whose file system makes no holes: its beginning is in the stream's own file, its end in
//! two further ones, which begin where their names say. Whoever writes it is the only one who does,
//! so nothing is moved and nothing renamed; the oldest part goes when a new one comes.
//!
//! What cannot be written is missing, and nobody waits for it.

use super::Piece;
use crate::launch::open_stream;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use yard_common::limits::{LOG_BOUND_BYTES_LEAST, LOG_READ_BYTES_MAX};

/// The directory of the parts of a stream has the name of its file, and this.
pub(super) const SUFFIX: &str = ".parts";
/// Parts that are kept.
const KEPT: usize = 2;
/// Looks at parts that go meanwhile.
const TRIES: u32 = 100;

/// A stream as it is written.
#[derive(Debug)]
pub(crate) struct Parted {
    stream: PathBuf,
    /// What the beginning, and each part, may take.
    part_max: u64,
    /// Bytes so far, those that are missing included.
    len: u64,
    /// The file that is written to, and where it ends in the stream at the most.
    open: Option<(File, u64)>,
    /// Where the parts that there are begin.
    parts: Vec<u64>,
}

impl Parted {
    /// A stream of which there is nothing yet.
    pub(crate) fn new(stream: &Path, bytes_max: u64) -> io::Result<Parted> {
        let part_max = bytes_max.max(LOG_BOUND_BYTES_LEAST) / 4;
        let open = Some((open_stream(stream)?, part_max));
        Ok(Parted { stream: stream.into(), part_max, len: 0, open, parts: Vec::new() })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.open.as_ref().is_none_or(|(_, end)| *end <= self.len) {
                self.open = self.next_part().ok();
            }
            let Some((file, end)) = &mut self.open else {
                self.len += data.len() as u64;
                return;
            };
            let room = usize::try_from(*end - self.len).unwrap_or(usize::MAX);
            match file.write(&data[..data.len().min(room)]) {
                Ok(count) if count > 0 => {
                    self.len += count as u64;
                    data = &data[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    // The rest begins anew, behind what is missing.
                    self.open = None;
                    self.len += data.len() as u64;
                    return;
                }
            }
        }
    }

    fn next_part(&mut self) -> io::Result<(File, u64)> {
        let folder = folder(&self.stream);
        fs::create_dir_all(&folder)?;
        while self.parts.len() >= KEPT {
            let oldest = self.parts.remove(0);
            // One that stays is removed with the attempt.
            let _ = fs::remove_file(folder.join(name(oldest)));
        }
        let file = open_stream(&folder.join(name(self.len)))?;
        self.parts.push(self.len);
        Ok((file, self.len + self.part_max))
    }
}

/// What there is at an offset of a stream behind its own file. None: it has no parts.
pub(super) fn piece(stream: &Path, offset: u64, bytes_max: usize) -> io::Result<Option<Piece>> {
    for _ in 0..TRIES {
        let parts = list(stream)?;
        let behind = parts.partition_point(|(first, _)| *first <= offset);
        let next = parts.get(behind).map(|(first, _)| *first);
        let gap = next.map(|upto| Piece::Gap { upto, why: super::BOUNDED });
        let Some((first, path)) = behind.checked_sub(1).and_then(|at| parts.get(at)) else {
            return Ok(gap);
        };
        let mut bytes = vec![0; bytes_max.min(LOG_READ_BYTES_MAX)];
        let read = File::open(path).and_then(|file| file.read_at(&mut bytes, offset - first));
        match read {
            Ok(0) => return Ok(gap.or(Some(Piece::Bytes(Vec::new())))),
            Ok(len) => {
                bytes.truncate(len);
                return Ok(Some(Piece::Bytes(bytes)));
            }
            // It went since it was listed: now there is another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the parts of the output change all the time"))
}

/// Where a stream ends that has parts, and what the file system says of the last one.
pub(super) fn end(stream: &Path) -> Option<(u64, Metadata)> {
    let parts = list(stream).ok()?;
    let (first, path) = parts.last()?;
    let found = path.metadata().ok()?;
    Some((first.saturating_add(found.len()), found))
}

/// The parts in order, each with its first byte.
fn list(stream: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder(stream)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let entry = entry?;
        let first = entry.file_name().to_str().and_then(|name| name.parse().ok());
        parts.extend(first.map(|first| (first, entry.path())));
    }
    parts.sort_unstable();
    Ok(parts)
}

fn name(first: u64) -> String {
    first.to_string()
}

/// Where the parts of a stream are.
pub(super) fn folder(stream: &Path) -> PathBuf {
    let mut name = stream.as_os_str().to_os_string();
    name.push(SUFFIX);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::{AttemptLogs, Kind, Writer};
    use super::*;
    use crate::paths::Paths;
    use yard_common::id::{AttemptNumber, JobId};

    const MAX: u64 = 1 << 20;

    struct Node {
        _directory: tempfile::TempDir,
        logs: AttemptLogs,
        path: PathBuf,
    }

    fn node() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let logs = AttemptLogs::new(&paths, JobId(8), 3, AttemptNumber(1));
        let path = logs.path(Writer::Rank(0), Kind::Out);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Node { _directory: directory, logs, path }
    }

    fn text(from: u64, upto: u64) -> Vec<u8> {
        (from..upto).map(|at| (at % 251) as u8).collect()
    }

    impl Node {
        /// Everything that is there, as parts without a gap.
        fn all(&self) -> Vec<(u64, u64)> {
            let reader = self.logs.open(Writer::Rank(0), Kind::Out).unwrap();
            let (mut at, mut found) = (0, Vec::<(u64, u64)>::new());
            loop {
                match reader.read(at, 100_000).unwrap() {
                    Piece::Bytes(bytes) if bytes.is_empty() => break,
                    Piece::Bytes(bytes) => {
                        let end = at + bytes.len() as u64;
                        assert_eq!(bytes, text(at, end), "at {at}");
                        match found.last_mut().filter(|last| last.1 == at) {
                            Some(last) => last.1 = end,
                            None => found.push((at, end)),
                        }
                        at = end;
                    }
                    Piece::Gap { upto, .. } => {
                        assert!(upto > at);
                        at = upto;
                    }
                }
            }
            assert_eq!(reader.size().unwrap(), at);
            assert_eq!(self.logs.streams().unwrap()[0].size, at);
            found
        }
    }

    #[test]
    fn head_and_tail_stay_where_there_are_no_holes() {
        let node = node();
        let mut stream = Parted::new(&node.path, MAX).unwrap();
        assert_eq!(node.all(), []);
        let (mut len, step) = (0, 33_333);
        let mut grow = |upto: u64| {
            while len < upto {
                stream.write(&text(len, len + step));
                len += step;
            }
            len
        };
        let end = grow(MAX / 8);
        assert_eq!(node.all(), [(0, end)]);
        let end = grow(MAX / 2);
        assert_eq!(node.all(), [(0, end)], "nothing is missing yet");
        let end = grow(10 * MAX);
        let all = node.all();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0], all[1].1), ((0, MAX / 4), end));
        let kept = all[1].1 - all[1].0;
        assert!((MAX / 4..=MAX / 2).contains(&kept), "{kept}");
    }

    #[test]
    fn what_could_not_be_written_is_missing() {
        let node = node();
        let mut stream = Parted::new(&node.path, MAX).unwrap();
        stream.write(&text(0, MAX / 4));
        // No part can be made while something else is in the way.
        fs::write(folder(&node.path), "").unwrap();
        stream.write(&text(MAX / 4, MAX / 4 + 1_000));
        fs::remove_file(folder(&node.path)).unwrap();
        stream.write(&text(MAX / 4 + 1_000, MAX / 4 + 3_000));
        assert_eq!(node.all(), [(0, MAX / 4), (MAX / 4 + 1_000, MAX / 4 + 3_000)]);
    }
}
