//! What ranks wrote, from where the reader is, until there is no more.
//!
//! **Invariants:** offsets are those of the files, so that whoever asks again goes on where it
//! was. That the ranks have ended is asked before the last look at a file: what was written before
//! the end is read after it.

use super::place::{Place, Progress};
use super::{Answers, Cut, DataError, Said, blocking};
use crate::logs::{AttemptLogs, Kind, LogError, Piece, Reader, Times, Writer};
use crate::session::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use yard_common::limits::{LOG_READ_BYTES_MAX, LOG_STREAMS_MAX, TAIL_BYTES_MAX};
use yard_proto::internal::{LogData, LogEnd, LogGap, LogSource, LogWant};
use yard_proto::v1::LogStream;

/// The shortest and the longest wait between two looks at files that do not grow.
const WAIT_MS: (u64, u64) = (20, 500);
/// How long to wait for an assignment that nobody here has heard of: its set may be on its way.
const UNKNOWN: Duration = Duration::from_secs(5);

/// One stream that is wanted.
struct Source {
    local_rank: u32,
    kind: Kind,
    offset: u64,
    reader: Option<Arc<Reader>>,
    /// When its bytes were written, if that is asked for.
    times: Times,
    done: bool,
}

/// Answers a question about output.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: LogWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let place = Place::new(shared, want.assignment)?;
    let logs = AttemptLogs::new(&shared.paths, place.job, place.task, place.attempt);
    let sources = sources(&want.sources)?;
    let from = Begin { tail: want.tail_lines, since_wall_ms: want.since_wall_ms };
    let (follow, times, prepare) = (want.follow, want.times, want.prepare);
    let first_rank = None;
    let following = Following { place, logs, sources, from, follow, times, prepare, first_rank };
    following.run(answers).await
}

fn sources(wanted: &[LogSource]) -> Result<Vec<Source>, DataError> {
    let mut sources = Vec::new();
    for one in wanted {
        let kinds: &[Kind] = match one.stream() {
            LogStream::Stdout => &[Kind::Out],
            LogStream::Stderr => &[Kind::Err],
            LogStream::Unspecified => &[Kind::Out, Kind::Err],
        };
        let (local_rank, offset) = (one.local_rank, one.offset);
        let source = |kind: &Kind| {
            let (kind, times) = (*kind, Times::default());
            Source { local_rank, kind, offset, reader: None, times, done: false }
        };
        sources.extend(kinds.iter().map(source));
        if sources.len() > LOG_STREAMS_MAX {
            return Err(DataError::limit(format!("more than {LOG_STREAMS_MAX} streams")));
        }
    }
    if sources.is_empty() {
        return Err(DataError::not_found("no stream is named"));
    }
    Ok(sources)
}

/// An answer in progress.
struct Following {
    place: Place,
    logs: AttemptLogs,
    sources: Vec<Source>,
    from: Begin,
    follow: bool,
    /// Whether it is told when bytes were written.
    times: bool,
    /// Whether it is of what was written before the ranks.
    prepare: bool,
    first_rank: Option<u32>,
}

/// What is not wanted of the beginning.
#[derive(Clone, Copy, Debug)]
struct Begin {
    /// Only the last lines; 0: all.
    tail: u32,
    /// Only what was written from then on; 0: all.
    since_wall_ms: u64,
}

impl Following {
    async fn run(mut self, answers: &Answers) -> Result<(), Cut> {
        let (begun, mut wait_ms) = (Instant::now(), WAIT_MS.0);
        let mut progress = self.place.progress().await?;
        loop {
            let unknown = progress == Progress::Unknown;
            if unknown && (!self.follow || begun.elapsed() > UNKNOWN) {
                return Err(DataError::not_found("there is no such attempt on this node").into());
            }
            let last_look = !unknown && (!self.follow || progress == Progress::Over);
            let mut moved = false;
            for at in 0..self.sources.len() {
                moved |= self.look(at, last_look, progress, answers).await?;
            }
            if self.sources.iter().all(|source| source.done) {
                return Ok(());
            }
            if moved {
                wait_ms = WAIT_MS.0;
                continue;
            }
            if !last_look {
                sleep(Duration::from_millis(wait_ms)).await;
                wait_ms = (wait_ms * 2).min(WAIT_MS.1);
            }
            progress = self.place.progress().await?;
        }
    }

    /// Sends the next piece of one stream, or its end. Returns whether anything was sent.
    async fn look(
        &mut self,
        at: usize,
        last_look: bool,
        progress: Progress,
        answers: &Answers,
    ) -> Result<bool, Cut> {
        if self.sources[at].done {
            return Ok(false);
        }
        if self.sources[at].reader.is_none() {
            self.open(at, progress == Progress::Over).await?;
        }
        let source = &mut self.sources[at];
        let (local_rank, offset) = (source.local_rank, source.offset);
        let stream = match source.kind {
            Kind::Out => LogStream::Stdout,
            Kind::Err => LogStream::Stderr,
        };
        let mut written_wall_ms = None;
        let piece = match source.reader.clone() {
            None => Piece::Bytes(Vec::new()),
            Some(reader) => {
                let times = self.times.then(|| std::mem::take(&mut source.times));
                let (piece, times, at) = blocking(move || piece(&reader, offset, times)).await?;
                source.times = times;
                written_wall_ms = at;
                piece
            }
        };
        let (stream, written_wall_ms) = (stream.into(), written_wall_ms.unwrap_or(0));
        match piece {
            Piece::Bytes(bytes) if bytes.is_empty() => {
                if last_look {
                    source.done = true;
                    let complete = progress == Progress::Over;
                    let end = LogEnd { local_rank, stream, offset, complete };
                    answers.send(Said::LogEnd(end)).await?;
                }
                return Ok(last_look);
            }
            Piece::Bytes(bytes) => {
                source.offset += bytes.len() as u64;
                let data = bytes.into();
                let data = LogData { local_rank, stream, offset, data, written_wall_ms };
                answers.send(Said::Log(data)).await?;
            }
            Piece::Gap { upto, why } => {
                source.offset = upto;
                let (len, reason) = (upto.saturating_sub(offset), why.to_string());
                let gap = LogGap { local_rank, stream, offset, len, reason };
                answers.send(Said::LogGap(gap)).await?;
            }
        }
        Ok(true)
    }

    /// Opens the file of a stream, if it is there by now.
    async fn open(&mut self, at: usize, over: bool) -> Result<(), DataError> {
        if self.first_rank.is_none() {
            let place = self.place.clone();
            self.first_rank = blocking(move || place.first_rank()).await?;
        }
        let Source { local_rank, kind, offset, .. } = self.sources[at];
        let (logs, from) = (self.logs.clone(), self.from);
        let (first_rank, prepare) = (self.first_rank, self.prepare);
        let opened = blocking(move || {
            let reader = match first_rank {
                _ if prepare => open(&logs, Writer::Prepare, kind)?,
                Some(first) => {
                    open(&logs, Writer::Rank(Place::global_rank(first, local_rank)?), kind)?
                }
                None => None,
            };
            let reader = match prepare {
                true => reader,
                false => instead(&logs, reader, local_rank, kind, over)?,
            };
            let Some(reader) = reader else { return Ok(None) };
            let offset = offset.max(from.offset(&reader)?);
            Ok(Some((reader, offset)))
        });
        if let Some((reader, offset)) = opened.await? {
            self.sources[at].reader = Some(Arc::new(reader));
            self.sources[at].offset = offset;
        }
        Ok(())
    }
}

fn open(logs: &AttemptLogs, writer: Writer, kind: Kind) -> Result<Option<Reader>, DataError> {
    match logs.open(writer, kind) {
        Ok(reader) => Ok(Some(reader)),
        Err(LogError::Missing) => Ok(None),
        Err(error) => Err(told(error)),
    }
}

/// What the first rank of a node shows where it never wrote anything: what its launcher said, or
/// why it was never started. The reader of a job that failed to start finds the reason so.
fn instead(
    logs: &AttemptLogs,
    rank: Option<Reader>,
    local_rank: u32,
    kind: Kind,
    over: bool,
) -> Result<Option<Reader>, DataError> {
    let wrote = match &rank {
        Some(reader) => reader.size().map_err(told)? > 0,
        None => false,
    };
    if wrote || !over || local_rank != 0 {
        return Ok(rank);
    }
    for writer in [Writer::Launcher, Writer::Prepare] {
        if let Some(reader) = open(logs, writer, kind)? {
            return Ok(Some(reader));
        }
    }
    Ok(rank)
}

impl Begin {
    /// Where to begin.
    fn offset(self, reader: &Reader) -> Result<u64, DataError> {
        let tail = match self.tail {
            0 => 0,
            lines => tail_offset(reader, lines)?,
        };
        let since = match self.since_wall_ms {
            0 => 0,
            since => since_offset(reader, since)?,
        };
        Ok(tail.max(since))
    }
}

/// Where the bytes begin that were written from a moment on. A stream without marks was written
/// within a second or so, when its file says.
fn since_offset(reader: &Reader, wall_ms: u64) -> Result<u64, DataError> {
    if reader.modified_wall_ms().is_some_and(|at| at < wall_ms) {
        return reader.size().map_err(told);
    }
    Ok(reader.times().since(wall_ms).unwrap_or(0))
}

/// The piece at an offset and, if times are given, by when its first byte had been written: the
/// piece then ends where that changes. What came since the last mark came now, or when the file was
/// written last.
fn piece(
    reader: &Reader,
    offset: u64,
    times: Option<Times>,
) -> Result<(Piece, Times, Option<u64>), DataError> {
    let Some(mut times) = times else {
        let piece = reader.read(offset, LOG_READ_BYTES_MAX).map_err(told)?;
        return Ok((piece, Times::default(), None));
    };
    if times.of(offset).is_none() {
        times = reader.times();
    }
    let mark = times.of(offset);
    let upto = mark.map_or(u64::MAX, |mark| mark.upto);
    let len = usize::try_from(upto - offset).unwrap_or(usize::MAX).min(LOG_READ_BYTES_MAX);
    let piece = reader.read(offset, len).map_err(told)?;
    let at = mark.map(|mark| mark.wall_ms).or_else(|| reader.modified_wall_ms());
    Ok((piece, times, at))
}

/// Where the last lines begin; at most `TAIL_BYTES_MAX` before the end, and behind what is missing.
fn tail_offset(reader: &Reader, lines: u32) -> Result<u64, DataError> {
    let size = reader.size().map_err(told)?;
    let mut least = size.saturating_sub(TAIL_BYTES_MAX);
    let (mut end, mut found) = (size, 0u32);
    while end > least {
        let wanted = end.saturating_sub(LOG_READ_BYTES_MAX as u64).max(least);
        let (begin, bytes) = last_part(reader, wanted, end)?;
        if begin > wanted {
            least = begin;
        }
        for (at, byte) in bytes.iter().enumerate().rev() {
            let offset = begin + at as u64;
            // The end of the last line does not begin another one.
            if *byte == b'\n' && offset + 1 < size {
                found += 1;
                if found == lines {
                    return Ok(offset + 1);
                }
            }
        }
        end = begin.min(end);
    }
    Ok(least)
}

/// The bytes of a part of a stream, as far as they follow each other up to its end, and where they
/// begin.
fn last_part(reader: &Reader, begin: u64, end: u64) -> Result<(u64, Vec<u8>), DataError> {
    let (mut begin, mut bytes) = (begin, Vec::new());
    loop {
        let at = begin + bytes.len() as u64;
        let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        if len == 0 {
            return Ok((begin, bytes));
        }
        match reader.read(at, len).map_err(told)? {
            Piece::Bytes(more) if more.is_empty() => return Ok((begin, bytes)),
            Piece::Bytes(more) => bytes.extend_from_slice(&more),
            // Of a file that became shorter a moment ago there is no last part.
            Piece::Gap { upto, .. } => (begin, bytes) = (upto.max(at + 1), Vec::new()),
        }
    }
}

fn told(error: LogError) -> DataError {
    match error {
        LogError::Missing => DataError::not_found(error.to_string()),
        LogError::Io(source) => DataError::io(format!("the output cannot be read: {source}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;
    use yard_common::id::{AttemptNumber, JobId};

    fn logs(files: &[(&str, &str)]) -> (tempfile::TempDir, AttemptLogs) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let at = paths.attempt_logs(JobId(8), 3, AttemptNumber(1));
        std::fs::create_dir_all(&at).unwrap();
        for (name, text) in files {
            std::fs::write(at.join(name), text).unwrap();
        }
        (directory, AttemptLogs::new(&paths, JobId(8), 3, AttemptNumber(1)))
    }

    #[test]
    fn the_last_lines_begin_behind_a_line() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc\n", 9, 0),
            ("a\nb\nunfinished", 1, 4),
            ("\n\n\n", 2, 1),
            ("", 3, 0),
        ] {
            let (_directory, logs) = logs(&[("0.out", text)]);
            let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
            assert_eq!(tail_offset(&reader, lines).unwrap(), expected, "{text:?}, {lines}");
        }
    }

    #[test]
    fn lines_are_looked_for_across_pieces() {
        let long = "x".repeat(LOG_READ_BYTES_MAX);
        let text = format!("a\n{long}\nb\n");
        let (_directory, logs) = logs(&[("0.out", &text)]);
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        assert_eq!(tail_offset(&reader, 2).unwrap(), 2);
    }

    #[test]
    fn the_last_lines_are_behind_what_was_left_out() {
        let text: String = (0..400_000).map(|at| format!("line {at}\n")).collect();
        let (_directory, logs) = logs(&[("0.out", &text)]);
        crate::logs::bound(&logs.path(Writer::Rank(0), Kind::Out), 1 << 20).unwrap();
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        let offset = tail_offset(&reader, 3).unwrap() as usize;
        assert_eq!(&text[offset..], "line 399997\nline 399998\nline 399999\n");
        // More lines than there are begin where the newest part does.
        let offset = tail_offset(&reader, 399_999).unwrap();
        let Piece::Bytes(bytes) = reader.read(offset, 100).unwrap() else { panic!() };
        assert_eq!(bytes, text.as_bytes()[offset as usize..][..100]);
        assert!(matches!(reader.read(offset - 1, 100).unwrap(), Piece::Gap { .. }));
    }

    #[test]
    fn what_is_wanted_begins_at_a_moment() {
        let (_directory, logs) = logs(&[("0.out", "old new")]);
        let path = logs.path(Writer::Rank(0), Kind::Out);
        let reader = logs.open(Writer::Rank(0), Kind::Out).unwrap();
        let modified_ms = reader.modified_wall_ms().unwrap();
        let from = |tail, since_wall_ms| Begin { tail, since_wall_ms }.offset(&reader).unwrap();
        assert_eq!(from(0, modified_ms - 5_000), 0, "nothing is known, so nothing is kept back");
        let mut times = Times::default();
        times.note(&path, 4, modified_ms - 9_000).unwrap();
        times.note(&path, 7, modified_ms).unwrap();
        assert_eq!(from(0, modified_ms - 5_000), 4);
        assert_eq!(from(0, modified_ms + 1), 7);
        let (first, times, at) = piece(&reader, 0, Some(Times::default())).unwrap();
        assert_eq!((first, at), (Piece::Bytes(b"old ".into()), Some(modified_ms - 9_000)));
        let (second, _, at) = piece(&reader, 4, Some(times)).unwrap();
        assert_eq!((second, at), (Piece::Bytes(b"new".into()), Some(modified_ms)));
    }

    #[test]
    fn a_rank_that_never_spoke_shows_why() {
        let (_directory, logs) =
            logs(&[("0.err", ""), ("1.err", ""), ("launcher.err", "no mpirun"), ("0.out", "x")]);
        let text = |rank: u32, kind, over| {
            let own = open(&logs, Writer::Rank(rank), kind).unwrap();
            let shown = instead(&logs, own, rank, kind, over).unwrap().unwrap();
            match shown.read(0, 100).unwrap() {
                Piece::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                gap @ Piece::Gap { .. } => panic!("{gap:?}"),
            }
        };
        assert_eq!(text(0, Kind::Err, true), "no mpirun");
        assert_eq!(text(0, Kind::Err, false), "");
        assert_eq!(text(1, Kind::Err, true), "");
        assert_eq!(text(0, Kind::Out, true), "x");
    }
}
