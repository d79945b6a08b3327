//! What ranks wrote: which streams an attempt has on this node, and bytes from an
//! offset. Files are appended to by the ranks themselves, so an offset stays good for the life
//! of the file, whatever happens to agent and shim.
//!
//! A file is bounded by a hole in its middle, see `bound`; what is missing is noted beside it, see
//! `cut`. Where there are no holes, a stream is in parts, see `parts`. Offsets are those of the
//! stream, whatever became of the file.
//!
//! **Invariant:** a file is opened by a name that the list gave, in a directory that jobs cannot
//! write, and without following links.

mod bound;
mod cut;
mod parts;
mod probe;
mod retention;
mod sent;
mod times;

pub(crate) use bound::{bound, bound_all, bound_behind, share_of};
pub(crate) use parts::Parted;
pub(crate) use probe::makes_holes;
pub use retention::{Freed, Retention};
pub(crate) use sent::Sent;
pub(crate) use times::Times;

use cut::Cut;

use crate::paths::Paths;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use thiserror::Error;
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{LOG_READ_BYTES_MAX, LOG_STREAMS_MAX};

/// Who wrote a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
    /// A rank of the gang, by its number in the whole.
    Rank(u32),
    /// The program that started the ranks.
    Launcher,
    /// The agent, on why the attempt could not be prepared.
    Prepare,
}

/// Standard output or error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One stream of an attempt on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// Who wrote it.
    pub writer: Writer,
    /// Which of the two.
    pub kind: Kind,
    /// Bytes so far, those that are not there any more included.
    pub size: u64,
}

impl Stream {
    /// The name of its file.
    fn name(&self) -> String {
        name(self.writer, self.kind)
    }
}

/// What there is at an offset of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes; empty at the end.
    Bytes(Vec<u8>),
    /// Bytes up to this offset are not there any more. The offset may be the one that was asked
    /// for: then it is not known how many are missing.
    Gap {
        /// Where it goes on.
        upto: u64,
        /// Why, for people.
        why: &'static str,
    },
}

/// Of a hole that bounds a file.
pub(crate) const BOUNDED: &str = "left out, as the output is longer than logs.max_per_rank";
/// Of a file that became shorter.
const TRUNCATED: &str = "the job cut its output off";

/// Why output cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// There is no such attempt or stream on this node.
    #[error("there is no such output on this node")]
    Missing,
    /// The system's answer.
    #[error("the output cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> LogError {
        match error.kind() {
            io::ErrorKind::NotFound => LogError::Missing,
            _ => LogError::Io(error),
        }
    }
}

/// The output of one attempt on this node.
#[derive(Clone, Debug)]
pub struct AttemptLogs {
    directory: PathBuf,
}

impl AttemptLogs {
    /// The output of an attempt of a task, whether or not there is any.
    #[must_use]
    pub fn new(paths: &Paths, job: JobId, task: TaskIndex, attempt: AttemptNumber) -> AttemptLogs {
        AttemptLogs { directory: paths.attempt_logs(job, task, attempt) }
    }

    /// Its streams in order, at most `LOG_STREAMS_MAX`.
    ///
    /// # Errors
    /// If there is none.
    pub fn streams(&self) -> Result<Vec<Stream>, LogError> {
        let (mut streams, mut in_parts) = (Vec::new(), BTreeSet::new());
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let Some((writer, kind)) = parse_name(name) else {
                in_parts.extend(name.strip_suffix(parts::SUFFIX).map(str::to_string));
                continue;
            };
            let base = Cut::read(&entry.path())?.base;
            let size = base.saturating_add(entry.metadata()?.len());
            streams.push(Stream { writer, kind, size });
        }
        for stream in streams.iter_mut().filter(|stream| in_parts.contains(&stream.name())) {
            let end = parts::end(&self.path(stream.writer, stream.kind));
            stream.size = end.map_or(stream.size, |(end, _)| end.max(stream.size));
        }
        streams.sort_unstable();
        streams.truncate(LOG_STREAMS_MAX);
        Ok(streams)
    }

    /// Opens a stream for reading.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(&self, writer: Writer, kind: Kind) -> Result<Reader, LogError> {
        let path = self.path(writer, kind);
        let file = open_plain(&path, OpenOptions::new().read(true))?;
        Ok(Reader { file, path })
    }

    /// The file of a stream.
    pub(crate) fn path(&self, writer: Writer, kind: Kind) -> PathBuf {
        self.directory.join(name(writer, kind))
    }

    /// A stream was longer than its file says: what the job writes from now on follows what was
    /// known of it.
    pub(crate) fn rebase(&self, stream: Stream, known: u64) -> io::Result<()> {
        rebase(&self.path(stream.writer, stream.kind), known)
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: PathBuf,
}

impl Reader {
    /// Bytes so far, those that are not there any more included.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn size(&self) -> Result<u64, LogError> {
        let base = Cut::read(&self.path)?.base;
        let size = base.saturating_add(self.file.metadata()?.len());
        Ok(parts::end(&self.path).map_or(size, |(end, _)| end.max(size)))
    }

    /// When it was written last, in milliseconds since 1970.
    pub(crate) fn modified_wall_ms(&self) -> Option<u64> {
        let found = match parts::end(&self.path) {
            Some((_, found)) => found,
            None => self.file.metadata().ok()?,
        };
        let at = found.modified().ok()?;
        u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }

    /// When its bytes were written.
    pub(crate) fn times(&self) -> Times {
        Times::read(&self.path)
    }

    /// At most `bytes_max` bytes from an offset, and never more than `LOG_READ_BYTES_MAX`; or what
    /// is missing there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Piece, LogError> {
        let mut cut = Cut::read(&self.path)?;
        loop {
            let piece = self.look(offset, bytes_max, cut)?;
            // It was the reader that noticed, and noted it.
            if matches!(piece, Piece::Gap { upto, .. } if upto == offset) {
                return Ok(piece);
            }
            // A hole that was made meanwhile reads as zeros.
            let now = Cut::read(&self.path)?;
            if now == cut {
                return Ok(piece);
            }
            cut = now;
        }
    }

    fn look(&self, offset: u64, bytes_max: usize, cut: Cut) -> Result<Piece, LogError> {
        let Some(at) = offset.checked_sub(cut.base) else {
            return Ok(Piece::Gap { upto: cut.base, why: TRUNCATED });
        };
        if (cut.from..cut.upto).contains(&at) {
            return Ok(Piece::Gap { upto: cut.base.saturating_add(cut.upto), why: BOUNDED });
        }
        let mut len = bytes_max.min(LOG_READ_BYTES_MAX);
        if at < cut.from && cut.upto > cut.from {
            len = len.min(usize::try_from(cut.from - at).unwrap_or(len));
        }
        let bytes = self.bytes(at, len)?;
        if bytes.is_empty()
            && let Some(piece) = parts::piece(&self.path, offset, bytes_max)?
        {
            return Ok(piece);
        }
        if bytes.is_empty() && self.file.metadata()?.len() < at {
            rebase(&self.path, offset)?;
            return Ok(Piece::Gap { upto: offset, why: TRUNCATED });
        }
        Ok(Piece::Bytes(bytes))
    }

    fn bytes(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut len = 0;
        while len < bytes.len() {
            match self.file.read_at(&mut bytes[len..], at + len as u64) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// Opens a file of ours, and nothing that was put in its place. That other names lead to it does no
/// harm: its own can be changed by the agent alone, and a job may have made them of what it owns.
fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Nobody waits for the other end of a pipe.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no plain file")),
    }
}

/// The first byte of a file is from now on the one at this offset of the stream, unless somebody
/// noticed before.
fn rebase(path: &Path, known: u64) -> io::Result<()> {
    let len = std::fs::symlink_metadata(path)?.len();
    Cut::change(path, |cut| {
        let is_shorter = cut.base.saturating_add(len) < known;
        is_shorter.then_some(Cut { base: known, from: 0, upto: 0 })
    })?;
    Ok(())
}

fn name(writer: Writer, kind: Kind) -> String {
    let kind = match kind {
        Kind::Out => "out",
        Kind::Err => "err",
    };
    match writer {
        Writer::Rank(rank) => format!("{rank}.{kind}"),
        Writer::Launcher => format!("launcher.{kind}"),
        Writer::Prepare => format!("prepare.{kind}"),
    }
}

fn parse_name(name: &str) -> Option<(Writer, Kind)> {
    let (writer, kind) = name.split_once('.')?;
    let kind = match kind {
        "out" => Kind::Out,
        "err" => Kind::Err,
        _ => return None,
    };
    let writer = match writer {
        "launcher" => Writer::Launcher,
        "prepare" => Writer::Prepare,
        rank => Writer::Rank(rank.parse().ok()?),
    };
    (self::name(writer, kind) == name).then_some((writer, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> (tempfile::TempDir, AttemptLogs) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let logs = AttemptLogs::new(&paths, JobId(8), 3, AttemptNumber(1));
        std::fs::create_dir_all(&logs.directory).unwrap();
        (directory, logs)
    }

    fn bytes(reader: &Reader, offset: u64, len: usize) -> Vec<u8> {
        match reader.read(offset, len).unwrap() {
            Piece::Bytes(bytes) => bytes,
            gap @ Piece::Gap { .. } => panic!("{gap:?}"),
        }
    }

    #[test]
    fn streams_are_listed_in_the_order_of_ranks() {
        let (_directory, logs) = logs();
        for name in ["10.out", "2.err", "2.out", "launcher.err", "hostfile", "02.out", "x.out"] {
            std::fs::write(logs.directory.join(name), "abc").unwrap();
        }
        let found: Vec<_> =
            logs.streams().unwrap().into_iter().map(|s| (s.writer, s.kind, s.size)).collect();
        assert_eq!(
            found,
            [
                (Writer::Rank(2), Kind::Out, 3),
                (Writer::Rank(2), Kind::Err, 3),
                (Writer::Rank(10), Kind::Out, 3),
                (Writer::Launcher, Kind::Err, 3),
            ]
        );
    }

    #[test]
    fn bytes_are_read_from_an_offset() {
        let (_directory, logs) = logs();
        std::fs::write(logs.directory.join("0.out"), "hello world").unwrap();
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        assert_eq!(bytes(&reader, 6, 100), b"world");
        assert_eq!(bytes(&reader, 0, 5), b"hello");
        assert_eq!(bytes(&reader, 11, 5), b"");
        assert_eq!(reader.size().unwrap(), 11);
        assert!(matches!(logs.open(Writer::Rank(1), Kind::Out), Err(LogError::Missing)));
    }

    #[test]
    fn what_was_left_out_is_a_gap_and_offsets_stay() {
        let (_directory, logs) = logs();
        let path = logs.path(Writer::Rank(0), Kind::Out);
        let text: Vec<u8> = (0..1_000_000u32).flat_map(|at| at.to_le_bytes()).collect();
        std::fs::write(&path, &text).unwrap();
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        assert!(bound(&path, 1 << 20).unwrap());
        let (mut at, mut gaps) = (0, Vec::new());
        while at < text.len() {
            match reader.read(at as u64, 100_000).unwrap() {
                Piece::Bytes(bytes) => {
                    assert_eq!(bytes, text[at..at + bytes.len()], "at {at}");
                    at += bytes.len();
                }
                Piece::Gap { upto, .. } => {
                    gaps.push((at as u64, upto));
                    at = upto as usize;
                }
            }
        }
        let expected = (1 << 18, (text.len() as u64 - (1 << 19)) / 4_096 * 4_096);
        assert_eq!(gaps, [expected]);
        assert_eq!(reader.size().unwrap(), text.len() as u64);
    }

    #[test]
    fn output_that_the_job_cut_off_goes_on_behind_what_was_known() {
        let (_directory, logs) = logs();
        let path = logs.path(Writer::Rank(0), Kind::Out);
        std::fs::write(&path, "0123456789").unwrap();
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        assert_eq!(bytes(&reader, 0, 100), b"0123456789");
        OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        let gap = Piece::Gap { upto: 10, why: TRUNCATED };
        assert_eq!(reader.read(10, 100).unwrap(), gap);
        std::io::Write::write_all(
            &mut OpenOptions::new().append(true).open(&path).unwrap(),
            b"new",
        )
        .unwrap();
        assert_eq!(bytes(&reader, 10, 100), b"new");
        assert_eq!(reader.size().unwrap(), 13);
        // Whoever comes later is told of what is gone.
        assert_eq!(reader.read(4, 100).unwrap(), gap);
        assert_eq!(logs.streams().unwrap()[0].size, 13);
    }

    #[test]
    fn only_a_plain_file_is_read_or_cut() {
        let (_directory, logs) = logs();
        let path = |rank| logs.path(Writer::Rank(rank), Kind::Out);
        std::os::unix::fs::symlink("/etc/passwd", path(0)).unwrap();
        nix::unistd::mkfifo(&path(1), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path(2)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path(3)).unwrap());
        for rank in 0..4 {
            let opened = logs.open(Writer::Rank(rank), Kind::Out);
            assert!(matches!(opened, Err(LogError::Io(_))), "{rank}");
            assert!(bound(&path(rank), 1 << 20).is_err(), "{rank}");
        }
    }
}
