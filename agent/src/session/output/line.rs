//! One directory of one user, and the process that writes to it: what has grown goes there, piece
//! by piece.
//!
//! **Invariants:** a piece goes where the size of the file says, so that a process that was cut off
//! and one that goes on write the same. Whatever is missing is said by a line of its own. A round
//! may stand still for as long as the directory does; nobody waits for it.

use super::keeper::Attempt;
use super::progress::{Progress, StreamId};
use crate::delivery::{Answer, Delivery, Target, ToWriter, read_frame, write_frame};
use crate::logs::{AttemptLogs, BOUNDED, Piece, Sent, Stream, bound_all};
use crate::paths::Paths;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use yard_common::limits::{
    DELIVERY_MESSAGE_BYTES_MAX, DELIVERY_PIECE_BYTES_MAX, LOG_READ_BYTES_MAX,
};

/// How long one round goes on while there is more.
const ROUND: Duration = Duration::from_secs(2);
/// Pieces of one stream in a row; then the next one has its turn.
const PIECES: usize = 4;

/// An attempt whose output is delivered.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) attempt: Attempt,
    pub(super) delivery: Delivery,
    /// Nothing more is written.
    pub(super) over: bool,
}

/// The line to one target.
pub(super) struct Line {
    target: Target,
    /// Our own program.
    program: PathBuf,
    paths: Paths,
    progress: Progress,
    writer: Option<Writing>,
    /// Streams whose place is known.
    known: BTreeMap<StreamId, Known>,
}

/// Where a stream is in its file.
struct Known {
    path: String,
    sent: Sent,
    /// The size of the file there.
    len: u64,
    /// Something went wrong since: more may be in the file that is not whole.
    is_doubtful: bool,
}

/// What came of a round.
pub(super) struct Rounded {
    pub(super) line: Line,
    /// Attempts of which all that there was is delivered, or some.
    pub(super) moved: Vec<Attempt>,
    /// Attempts of which everything is delivered.
    pub(super) whole: Vec<Attempt>,
    /// Attempts of which something could not be, and why.
    pub(super) failed: Vec<(Attempt, String)>,
}

/// Why a piece is not delivered.
enum Trouble {
    /// The system's answer, there, and for which file.
    Refused(Errno, String),
    /// Of the process that writes, or of the node's own disk.
    Here(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Here(error)
    }
}

impl Line {
    pub(super) fn new(
        target: &Target,
        program: PathBuf,
        paths: &Paths,
        progress: &Progress,
    ) -> Line {
        Line {
            target: target.clone(),
            program,
            paths: paths.clone(),
            progress: progress.clone(),
            writer: None,
            known: BTreeMap::new(),
        }
    }

    /// Where it leads.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Delivers what there is.
    pub(super) async fn round(mut self, items: Vec<Item>) -> Rounded {
        let end = Instant::now() + ROUND;
        let mut failed: BTreeMap<Attempt, String> = BTreeMap::new();
        let mut moving: BTreeSet<Attempt> = items.iter().map(|item| item.attempt).collect();
        while !moving.is_empty() && Instant::now() < end {
            for item in &items {
                if !moving.contains(&item.attempt) {
                    continue;
                }
                match self.deliver(item).await {
                    Ok(true) => {}
                    Ok(false) => drop(moving.remove(&item.attempt)),
                    Err(trouble) => {
                        moving.remove(&item.attempt);
                        failed.insert(item.attempt, self.told(&trouble));
                    }
                }
            }
        }
        let mut whole = Vec::new();
        let done = |item: &&Item| {
            item.over && !moving.contains(&item.attempt) && !failed.contains_key(&item.attempt)
        };
        let ended: Vec<&Item> = items.iter().filter(done).collect();
        for item in ended {
            match self.finish(item).await {
                Ok(()) => whole.push(item.attempt),
                Err(trouble) => drop(failed.insert(item.attempt, self.told(&trouble))),
            }
        }
        let moved = items.iter().map(|item| item.attempt);
        let moved = moved.filter(|attempt| !failed.contains_key(attempt)).collect();
        Rounded { line: self, moved, whole, failed: failed.into_iter().collect() }
    }

    /// Delivers some of an attempt. Returns whether there was anything.
    async fn deliver(&mut self, item: &Item) -> Result<bool, Trouble> {
        let of = item.attempt;
        let logs = AttemptLogs::new(&self.paths, of.job, of.task, of.attempt);
        let list = logs.clone();
        let streams = blocking(move || Ok(list.streams().unwrap_or_default())).await?;
        let (mut moved, mut refused) = (false, None);
        for stream in streams {
            let id = (of, stream.writer, stream.kind);
            if stream.size == 0 {
                continue;
            }
            for _ in 0..PIECES {
                match self.piece(item, id, &logs, stream).await {
                    Ok(true) => moved = true,
                    Ok(false) => break,
                    // Others may have a file that takes something.
                    Err(trouble @ Trouble::Refused(..)) => {
                        refused.get_or_insert(trouble);
                        break;
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        refused.map_or(Ok(moved), Err)
    }

    /// Delivers the next piece of a stream. Returns whether there was one.
    async fn piece(
        &mut self,
        item: &Item,
        id: StreamId,
        logs: &AttemptLogs,
        stream: Stream,
    ) -> Result<bool, Trouble> {
        let local = logs.path(stream.writer, stream.kind);
        let known = self.known.get(&id);
        if known.is_none_or(|known| known.is_doubtful) {
            let len_max = known.map(|known| known.len);
            let path = item.delivery.path(stream.writer, stream.kind);
            let known = self.open(path, len_max, local.clone()).await?;
            self.known.insert(id, known);
        }
        let Some(known) = self.known.get(&id) else { return Ok(false) };
        let Some(from) = known.sent.next(known.len) else { return Ok(false) };
        self.progress.set(id, from);
        if from >= stream.size {
            return Ok(false);
        }
        let (path, offset) = (known.path.clone(), known.len);
        let logs = logs.clone();
        let read = blocking(move || next_piece(&logs, stream, from)).await?;
        let (sent, data) = match read {
            Piece::Bytes(data) if data.is_empty() => return Ok(false),
            Piece::Bytes(data) => (None, data),
            Piece::Gap { upto, why } => {
                let marker = marker(upto - from, why);
                let target_at = offset + marker.len() as u64;
                let sent = Sent { stream_at: upto, target_at, marker: marker.clone() };
                // Noted first: whoever goes on after us knows what the line stands for.
                let noted = sent.clone();
                blocking(move || noted.note(&local)).await?;
                (Some(sent), marker.into_bytes())
            }
        };
        let len = data.len() as u64;
        let answer = self.ask(&ToWriter::Write { path, offset, data }).await;
        let Some(known) = self.known.get_mut(&id) else { return answer.map(|_| false) };
        match answer {
            Ok(_) => {
                known.len = offset + len;
                known.sent = sent.unwrap_or_else(|| known.sent.clone());
                if let Some(next) = known.sent.next(known.len) {
                    self.progress.set(id, next);
                }
                Ok(true)
            }
            Err(trouble) => {
                known.is_doubtful = true;
                Err(trouble)
            }
        }
    }

    /// Finds out where a stream is in its file, of which no more is whole than is given.
    async fn open(
        &mut self,
        path: String,
        len_max: Option<u64>,
        local: PathBuf,
    ) -> Result<Known, Trouble> {
        let open = ToWriter::Open { path: path.clone(), len_max };
        let Answer::Size(len) = self.ask(&open).await? else {
            return Err(Trouble::Refused(Errno::EPROTO, path));
        };
        let is_doubtful = false;
        let at = local.clone();
        let noted = blocking(move || Ok(Sent::read(&at))).await?;
        if let Some(sent) = noted {
            if sent.next(len).is_some() {
                return Ok(Known { path, sent, len, is_doubtful });
            }
            let begin = sent.target_at - (sent.marker.len() as u64).min(sent.target_at);
            if len >= begin && !sent.marker.is_empty() {
                // The line itself was cut off.
                let (data, offset) = (sent.marker.clone().into_bytes(), begin);
                self.ask(&ToWriter::Write { path: path.clone(), offset, data }).await?;
                return Ok(Known { path, len: sent.target_at, sent, is_doubtful });
            }
            // Somebody removed the file: it begins anew.
        }
        // What somebody else has written there stays.
        let sent = Sent { stream_at: 0, target_at: len, marker: String::new() };
        let noted = sent.clone();
        blocking(move || noted.note(&local)).await?;
        Ok(Known { path, sent, len, is_doubtful })
    }

    /// All of an attempt is there: makes it safe, and forgets it.
    async fn finish(&mut self, item: &Item) -> Result<(), Trouble> {
        let is = |id: &StreamId| id.0 == item.attempt;
        let paths: Vec<String> = self
            .known
            .iter()
            .filter(|(id, _)| is(id))
            .map(|(_, known)| known.path.clone())
            .collect();
        for path in paths {
            self.ask(&ToWriter::Close(path)).await?;
        }
        self.known.retain(|id, _| !is(id));
        self.progress.forget(item.attempt);
        let (of, bytes_max) = (item.attempt, item.delivery.bytes_max);
        let directory = of.directory(&self.paths);
        let logs = AttemptLogs::new(&self.paths, of.job, of.task, of.attempt);
        let work = move || {
            // What waited to be delivered was left by those who keep bounds.
            bound_all(&logs, bytes_max);
            Delivery::over(&directory)
        };
        Ok(blocking(work).await?)
    }

    async fn ask(&mut self, message: &ToWriter) -> Result<Answer, Trouble> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                self.known.values_mut().for_each(|known| known.is_doubtful = true);
                Writing::start(&self.program, &self.target).await?
            }
        };
        let answer = writer.ask(message).await?;
        self.writer = Some(writer);
        match answer {
            Answer::Failed(errno) => {
                Err(Trouble::Refused(Errno::from_raw(errno), message.path().to_string()))
            }
            answer @ (Answer::Size(_) | Answer::Done) => Ok(answer),
        }
    }

    /// What is wrong, for people.
    fn told(&self, trouble: &Trouble) -> String {
        let dir = &self.target.dir;
        match trouble {
            // What the system says of links and pipes helps nobody.
            Trouble::Refused(
                Errno::ELOOP | Errno::EINVAL | Errno::EISDIR | Errno::ENOTDIR | Errno::ENXIO,
                path,
            ) => format!("{dir}/{path}: something else is in the place of the file or its folder"),
            Trouble::Refused(errno, _) => format!("{dir}: {}", errno.desc()),
            Trouble::Here(error) => format!("{dir}: {error}"),
        }
    }
}

/// The process that writes. It ends with its input.
struct Writing {
    _child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Writing {
    async fn start(program: &PathBuf, target: &Target) -> io::Result<Writing> {
        let mut command = Command::new(program);
        command.arg("deliver").env_clear().current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let input = child.stdin.take().ok_or_else(gone)?;
        let output = child.stdout.take().ok_or_else(gone)?;
        let mut writing = Writing { _child: child, input, output };
        let mut frame = Vec::new();
        write_frame(&mut frame, target)?;
        writing.input.write_all(&frame).await?;
        Ok(writing)
    }

    async fn ask(&mut self, message: &ToWriter) -> io::Result<Answer> {
        let mut frame = Vec::new();
        write_frame(&mut frame, message)?;
        self.input.write_all(&frame).await?;
        let mut answer = vec![0; 4];
        self.output.read_exact(&mut answer).await?;
        let head = answer.first_chunk::<4>().copied().unwrap_or_default();
        let len = u32::from_le_bytes(head) as usize;
        if len > DELIVERY_MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.resize(4 + len, 0);
        self.output.read_exact(&mut answer[4..]).await?;
        read_frame(&mut answer.as_slice())?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// What comes next in a stream, as much as is written at a time.
fn next_piece(logs: &AttemptLogs, stream: Stream, from: u64) -> io::Result<Piece> {
    let reader = logs.open(stream.writer, stream.kind).map_err(io::Error::other)?;
    let mut data = Vec::new();
    while data.len() + LOG_READ_BYTES_MAX <= DELIVERY_PIECE_BYTES_MAX {
        let at = from.saturating_add(data.len() as u64);
        match reader.read(at, LOG_READ_BYTES_MAX).map_err(io::Error::other)? {
            Piece::Bytes(bytes) if !bytes.is_empty() => data.extend(bytes),
            Piece::Gap { upto, why } if data.is_empty() => return Ok(Piece::Gap { upto, why }),
            Piece::Bytes(_) | Piece::Gap { .. } => break,
        }
    }
    Ok(Piece::Bytes(data))
}

/// The line that stands where bytes are missing.
fn marker(bytes: u64, why: &str) -> String {
    let why = match why {
        BOUNDED => "they came faster than this directory took them",
        other => other,
    };
    match bytes {
        0 => format!("\n[bytes are missing here: {why}]\n"),
        bytes => format!("\n[{bytes} bytes are missing here: {why}]\n"),
    }
}

/// Runs what may wait for the node's own disk where nobody else waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
