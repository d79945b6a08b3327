//! What ranks wrote: which streams an attempt has on this node, and bytes from an
//! offset. Files are appended to by the ranks themselves, so an offset stays good for the life
//! of the file, whatever happens to agent and shim.
//!
//! **Invariant:** a file is opened by a name that the list gave, in a directory that jobs cannot
//! write, and without following links.

use crate::paths::Paths;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
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
    /// Bytes so far.
    pub size: u64,
}

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
        let mut streams = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some((writer, kind)) = entry.file_name().to_str().and_then(parse_name) else {
                continue;
            };
            streams.push(Stream { writer, kind, size: entry.metadata()?.len() });
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
        let path = self.directory.join(name(writer, kind));
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)?;
        Ok(Reader { file })
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Reader {
    file: File,
}

impl Reader {
    /// Bytes so far.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn size(&self) -> Result<u64, LogError> {
        Ok(self.file.metadata()?.len())
    }

    /// At most `bytes_max` bytes from an offset, and never more than `LOG_READ_BYTES_MAX`. Empty
    /// at the end.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; bytes_max.min(LOG_READ_BYTES_MAX)];
        let mut len = 0;
        while len < bytes.len() {
            match self.file.read_at(&mut bytes[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }
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
        assert_eq!(reader.read(6, 100).unwrap(), b"world");
        assert_eq!(reader.read(0, 5).unwrap(), b"hello");
        assert_eq!(reader.read(99, 5).unwrap(), b"");
        assert_eq!(reader.size().unwrap(), 11);
        assert!(matches!(logs.open(Writer::Rank(1), Kind::Out), Err(LogError::Missing)));
    }

    #[test]
    fn a_link_is_not_followed() {
        let (_directory, logs) = logs();
        std::os::unix::fs::symlink("/etc/passwd", logs.directory.join("0.out")).unwrap();
        assert!(matches!(logs.open(Writer::Rank(0), Kind::Out), Err(LogError::Io(_))));
    }
}
