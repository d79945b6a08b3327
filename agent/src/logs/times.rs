//! When bytes of a stream were written, to about a second: marks beside its file, made by the
//! agent as it looks at sizes. Ranks are not slowed by it.
//!
//! A mark says by when the stream was so long. There are at most `LOG_MARKS_MAX` of them: the newer
//! half stays as it is, of the older half every second one goes, again and again. So the last
//! half an hour of a busy stream is known to the second, and what is weeks old to minutes.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use yard_common::limits::LOG_MARKS_MAX;
use yard_runtime::files;

/// Two numbers.
const MARK_BYTES: usize = 16;

/// The stream had `upto` bytes by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) upto: u64,
    pub(crate) wall_ms: u64,
}

/// The marks of one stream, in the order of both numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times(Vec<Mark>);

impl Times {
    /// What is noted beside a stream's file; what cannot be read is nothing.
    pub(crate) fn read(stream: &Path) -> Times {
        let bytes =
            files::read(&beside(stream), 2 * LOG_MARKS_MAX * MARK_BYTES).unwrap_or_default();
        let mut marks: Vec<Mark> = Vec::new();
        for one in bytes.chunks_exact(MARK_BYTES) {
            let Some((upto, wall)) = one.split_first_chunk::<8>() else { continue };
            let Some(wall) = wall.first_chunk::<8>() else { continue };
            let mark = Mark { upto: u64::from_le_bytes(*upto), wall_ms: u64::from_le_bytes(*wall) };
            // What an agent wrote that was cut off on the way is left out.
            if marks.last().is_none_or(|last| rises(last, &mark)) {
                marks.push(mark);
            }
        }
        Times(marks)
    }

    /// Notes how long the stream is now.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn note(&mut self, stream: &Path, upto: u64, wall_ms: u64) -> io::Result<()> {
        let last = self.0.last();
        if upto <= last.map_or(0, |last| last.upto) {
            return Ok(());
        }
        // A clock that was put back does not make bytes older than those before them.
        let mark = Mark { upto, wall_ms: last.map_or(wall_ms, |last| last.wall_ms.max(wall_ms)) };
        self.0.push(mark);
        let options = || {
            let mut options = OpenOptions::new();
            options.create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
            options
        };
        let mut file = options().append(true).open(beside(stream))?;
        // Else an agent was cut off while it wrote, or the bound is reached.
        let whole = file.metadata()?.len() == ((self.0.len() - 1) * MARK_BYTES) as u64;
        if whole && self.0.len() <= LOG_MARKS_MAX {
            return file.write_all(&bytes(&[mark]));
        }
        if self.0.len() > LOG_MARKS_MAX {
            self.thin();
        }
        let new = beside(stream).with_extension("times-new");
        let mut file = options().write(true).truncate(true).open(&new)?;
        file.write_all(&bytes(&self.0))?;
        std::fs::rename(new, beside(stream))
    }

    fn thin(&mut self) {
        let newer = self.0.len() / 2;
        let mut at = 0;
        self.0.retain(|_| {
            at += 1;
            // The later mark of each pair stays: it holds for the bytes of both.
            at > newer || at % 2 == 0
        });
    }

    /// Where the bytes begin that were written from a moment on; none: nothing is known.
    pub(crate) fn since(&self, wall_ms: u64) -> Option<u64> {
        let first = self.0.partition_point(|mark| mark.wall_ms < wall_ms);
        match first {
            0 if self.0.is_empty() => None,
            0 => Some(0),
            first => Some(self.0[first - 1].upto),
        }
    }

    /// The mark of the byte at an offset: it and what follows up to there was written by then.
    pub(crate) fn of(&self, offset: u64) -> Option<Mark> {
        self.0.get(self.0.partition_point(|mark| mark.upto <= offset)).copied()
    }
}

fn rises(last: &Mark, next: &Mark) -> bool {
    next.upto > last.upto && next.wall_ms >= last.wall_ms
}

fn bytes(marks: &[Mark]) -> Vec<u8> {
    let one = |mark: &Mark| [mark.upto.to_le_bytes(), mark.wall_ms.to_le_bytes()].concat();
    marks.iter().flat_map(one).collect()
}

/// The marks of a file.
fn beside(stream: &Path) -> PathBuf {
    let mut name = stream.as_os_str().to_os_string();
    name.push(".times");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_finds_its_bytes_and_bytes_their_moment() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        let mut times = Times::read(&stream);
        assert_eq!((times.since(5), times.of(0)), (None, None));
        // Nothing is noted of a second in which nothing came, nor of a clock that was put back.
        for (upto, wall_ms) in [(10, 1_000), (10, 2_000), (30, 3_000), (40, 2_500)] {
            times.note(&stream, upto, wall_ms).unwrap();
        }
        assert_eq!(Times::read(&stream), times);
        for (wall_ms, offset) in [(0, 0), (1_000, 0), (1_001, 10), (3_000, 10), (3_001, 40)] {
            assert_eq!(times.since(wall_ms), Some(offset), "{wall_ms}");
        }
        for (offset, mark) in
            [(0, Some((10, 1_000))), (10, Some((30, 3_000))), (39, Some((40, 3_000))), (40, None)]
        {
            assert_eq!(times.of(offset).map(|mark| (mark.upto, mark.wall_ms)), mark, "{offset}");
        }
    }

    #[test]
    fn marks_are_bounded_and_the_newer_half_stays() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        let count = 3 * LOG_MARKS_MAX as u64;
        let mut times = Times::default();
        for at in 1..=count {
            times.note(&stream, at, 1_000 * at).unwrap();
            assert!(times.0.len() <= LOG_MARKS_MAX);
        }
        assert_eq!(Times::read(&stream), times);
        let newest: Vec<u64> =
            times.0.iter().rev().take(LOG_MARKS_MAX / 4).map(|m| m.upto).collect();
        let all = (0..newest.len() as u64).map(|back| count - back);
        assert!(newest.into_iter().eq(all), "the newest are all there");
        assert!(times.of(0).is_some_and(|mark| mark.upto < count / 2), "old bytes have a mark too");
    }

    #[test]
    fn half_a_mark_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("0.out");
        let mut times = Times::default();
        times.note(&stream, 10, 1_000).unwrap();
        let mut bytes = std::fs::read(beside(&stream)).unwrap();
        bytes.extend_from_slice(&[1; 7]);
        std::fs::write(beside(&stream), bytes).unwrap();
        assert_eq!(Times::read(&stream), times);
        // The next one does not stand askew behind it.
        times.note(&stream, 20, 2_000).unwrap();
        assert_eq!(Times::read(&stream), times);
    }
}
