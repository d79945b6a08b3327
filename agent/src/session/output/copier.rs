//! Sends the beginning and the end of each stream to the members that keep copies.
//!
//! **Invariants:** copies have connections of their own, and stand in the way of nothing else. What
//! a member was sent is remembered only once it has taken it; whatever is sent again is the same.
//! A stream that grows faster than its copies loses its middle, and never its end.

use super::keeper::Attempt;
use crate::logs::{AttemptLogs, Kind, Piece, Reader, Writer};
use crate::paths::Paths;
use crate::session::{Shared, link};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use yard_common::id::MemberId;
use yard_common::limits::{
    LOG_COPIES, LOG_COPY_BYTES_MAX, LOG_COPY_ENDING_MAX, LOG_COPY_HEAD_BYTES, LOG_COPY_PIECES_MAX,
    LOG_COPY_ROUND_BYTES, LOG_COPY_TAIL_BYTES, LOG_READ_BYTES_MAX,
};
use yard_core::agent::copy_holders;
use yard_proto::internal::{CopyLogsRequest, LogCopy};
use yard_proto::v1::LogStream;
use yard_runtime::identity::Principal;
use yard_runtime::tls::{ClientTls, Expect};

/// How long a member may take to take one message.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is tried to copy what an attempt wrote last.
const LAST: Duration = Duration::from_secs(60);
/// The least room that is worth a piece of a stream that does not fit whole.
const PIECE_LEAST: u64 = 64 * 1024;

/// A stream of a rank.
type StreamId = (Attempt, u32, Kind);

/// Sends copies, round by round.
pub(super) struct Copier {
    shared: Arc<Shared>,
    /// What each member was sent.
    lines: BTreeMap<MemberId, Line>,
    /// Attempts that have ended and may not be copied whole, with the end of the tries.
    ending: BTreeMap<Attempt, Instant>,
    rounds: usize,
}

/// One member that keeps copies.
#[derive(Debug, Default)]
struct Line {
    /// How far each stream was sent.
    sent: BTreeMap<StreamId, u64>,
    client: Option<(String, link::Client)>,
}

/// What one round asks of one member.
struct Share {
    member: MemberId,
    address: String,
    line: Line,
    attempts: Vec<Attempt>,
    /// Whose attempts have all they wrote with the member.
    whole: BTreeSet<Attempt>,
}

impl Copier {
    pub(super) fn new(shared: &Arc<Shared>) -> Copier {
        let (lines, ending) = (BTreeMap::new(), BTreeMap::new());
        Copier { shared: shared.clone(), lines, ending, rounds: 0 }
    }

    /// One round: everything that has grown, to every member that is to have it.
    pub(super) async fn round(mut self, running: Vec<Attempt>, ended: BTreeSet<Attempt>) -> Copier {
        let now = Instant::now();
        let room = LOG_COPY_ENDING_MAX.saturating_sub(self.ending.len());
        self.ending.extend(ended.into_iter().take(room).map(|attempt| (attempt, now + LAST)));
        // Two shares of a gang may be on one node.
        let wanted: BTreeSet<Attempt> =
            running.into_iter().chain(self.ending.keys().copied()).collect();
        let attempts: Vec<Attempt> = wanted.iter().copied().collect();
        if attempts.is_empty() {
            return self;
        }
        self.rounds = self.rounds.wrapping_add(1);
        let shares = self.shares(&attempts);
        let holders = |attempt: &Attempt, shares: &[Share]| {
            shares.iter().filter(|share| share.attempts.contains(attempt)).count()
        };
        let mut missing: BTreeMap<Attempt, usize> =
            self.ending.keys().map(|attempt| (*attempt, holders(attempt, &shares))).collect();
        let mut work = JoinSet::new();
        for share in shares {
            work.spawn(share.send(self.shared.paths.clone(), self.shared.tls.clone()));
        }
        while let Some(done) = work.join_next().await {
            // A share that was cut off begins anew with the next round.
            let Ok(share) = done else { continue };
            for attempt in &share.whole {
                if let Some(count) = missing.get_mut(attempt) {
                    *count -= 1;
                }
            }
            self.lines.insert(share.member, share.line);
        }
        self.ending.retain(|attempt, end| *end > now && missing.get(attempt) != Some(&0));
        let ending = &self.ending;
        for line in self.lines.values_mut() {
            let is_done =
                |attempt: &Attempt| missing.contains_key(attempt) && !ending.contains_key(attempt);
            line.sent.retain(|(attempt, ..), _| wanted.contains(attempt) && !is_done(attempt));
        }
        self
    }

    /// Who is sent what. Each round begins with another attempt, so that none is always the last.
    fn shares(&mut self, attempts: &[Attempt]) -> Vec<Share> {
        let roster = self.shared.rosters.watch().borrow().clone();
        let members: Vec<MemberId> = roster.members.iter().map(|(member, _)| *member).collect();
        self.lines.retain(|member, _| members.contains(member));
        let mut wanted: BTreeMap<MemberId, Vec<Attempt>> = BTreeMap::new();
        let first = self.rounds % attempts.len().max(1);
        for attempt in attempts[first..].iter().chain(&attempts[..first]) {
            let holders = copy_holders(attempt.job, members.iter().copied());
            for member in holders.into_iter().take(LOG_COPIES) {
                wanted.entry(member).or_default().push(*attempt);
            }
        }
        let mut shares = Vec::new();
        for (member, address) in roster.members {
            if let Some(attempts) = wanted.remove(&member) {
                let line = self.lines.remove(&member).unwrap_or_default();
                let whole = BTreeSet::new();
                shares.push(Share { member, address, line, attempts, whole });
            }
        }
        shares
    }
}

impl Share {
    /// Holds nothing of the agent: it may be cut off at its end, and nobody waits for it then.
    async fn send(mut self, paths: Paths, tls: Arc<ClientTls>) -> Share {
        let sent = std::mem::take(&mut self.line.sent);
        let attempts = self.attempts.clone();
        let collect = move || {
            let found = collect(&paths, &sent, &attempts);
            (sent, found)
        };
        let Ok((sent, found)) = spawn_blocking(collect).await else { return self };
        self.line.sent = sent;
        let mut untaken = BTreeSet::new();
        let mut messages = found.messages.into_iter();
        for message in messages.by_ref() {
            let pieces: Vec<(StreamId, u64)> = message.iter().map(upto).collect();
            match self.tell(&tls, message.clone()).await {
                Ok(refused) => {
                    for (at, (stream, upto)) in pieces.into_iter().enumerate() {
                        match refused.contains(&(at as u32)) {
                            true => drop(untaken.insert(stream.0)),
                            // Behind a piece that was refused, a stream goes on as if it had a gap.
                            false => drop(self.line.sent.insert(stream, upto)),
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(member = %self.member, error, "copies of output do not arrive");
                    self.line.client = None;
                    untaken.extend(pieces.into_iter().map(|(stream, _)| stream.0));
                    break;
                }
            }
        }
        untaken.extend(messages.flatten().map(|copy| upto(&copy).0.0));
        self.whole = found.whole.difference(&untaken).copied().collect();
        self
    }

    /// Sends one message. Returns which of its pieces the member did not take.
    async fn tell(
        &mut self,
        tls: &Arc<ClientTls>,
        copies: Vec<LogCopy>,
    ) -> Result<Vec<u32>, String> {
        let known = self.line.client.take().filter(|(address, _)| *address == self.address);
        let mut client = match known {
            Some((_, client)) => client,
            None => {
                let expect = Expect::Only(Principal::Member(self.member));
                link::client(&self.address, tls, expect).map_err(|e| e.to_string())?
            }
        };
        let answer = timeout(ANSWER, client.copy_logs(CopyLogsRequest { copies })).await;
        let answer = answer.map_err(|_| "the member does not answer".to_string())?;
        let answer = answer.map_err(|status| link::told(&status))?;
        self.line.client = Some((self.address.clone(), client));
        Ok(answer.into_inner().refused)
    }
}

/// What a round has to send.
#[derive(Debug, Default)]
struct Found {
    messages: Vec<Vec<LogCopy>>,
    /// Attempts of which nothing is left to send once this has been taken.
    whole: BTreeSet<Attempt>,
}

impl Found {
    fn push(&mut self, copy: LogCopy) {
        let fits = self.messages.last().is_some_and(|message| {
            let bytes: usize = message.iter().map(|copy| copy.data.len()).sum();
            message.len() < LOG_COPY_PIECES_MAX && bytes + copy.data.len() <= LOG_COPY_BYTES_MAX
        });
        if !fits {
            self.messages.push(Vec::new());
        }
        if let Some(message) = self.messages.last_mut() {
            message.push(copy);
        }
    }
}

/// Reads what has grown, as much as one round may send.
fn collect(paths: &Paths, sent: &BTreeMap<StreamId, u64>, attempts: &[Attempt]) -> Found {
    let mut found = Found::default();
    let mut room = LOG_COPY_ROUND_BYTES;
    for attempt in attempts {
        let logs = AttemptLogs::new(paths, attempt.job, attempt.task, attempt.attempt);
        let mut whole = true;
        for stream in logs.streams().unwrap_or_default() {
            let Writer::Rank(rank) = stream.writer else { continue };
            let id = (*attempt, rank, stream.kind);
            let from = sent.get(&id).copied().unwrap_or(0);
            if stream.size <= from {
                continue;
            }
            if room < PIECE_LEAST && room < stream.size - from {
                whole = false;
                continue;
            }
            // One that is gone meanwhile has nothing to copy.
            let Ok(reader) = logs.open(stream.writer, stream.kind) else { continue };
            for (begin, end) in ranges(from, stream.size, room) {
                room = room.saturating_sub(end - begin);
                read(&reader, id, (begin, end), &mut found);
            }
        }
        if whole {
            found.whole.insert(*attempt);
        }
    }
    found
}

/// The parts of a stream that are sent: all that is new if there is room for it, else what belongs
/// to its beginning, and its end.
fn ranges(from: u64, size: u64, room: u64) -> Vec<(u64, u64)> {
    let head = (from, LOG_COPY_HEAD_BYTES.min(from.saturating_add(room)).min(size));
    let head_len = head.1.saturating_sub(head.0);
    let tail_len = LOG_COPY_TAIL_BYTES.min(room - head_len);
    let tail = (size.saturating_sub(tail_len).max(head.1).max(from), size);
    [head, tail].into_iter().filter(|(begin, end)| begin < end).collect()
}

fn read(reader: &Reader, id: StreamId, (mut begin, end): (u64, u64), found: &mut Found) {
    let (attempt, rank, kind) = id;
    while begin < end {
        let len = usize::try_from(end - begin).unwrap_or(usize::MAX).min(LOG_READ_BYTES_MAX);
        match reader.read(begin, len) {
            Ok(Piece::Bytes(bytes)) if !bytes.is_empty() => {
                let stream = match kind {
                    Kind::Out => LogStream::Stdout,
                    Kind::Err => LogStream::Stderr,
                };
                let offset = begin;
                begin += bytes.len() as u64;
                found.push(LogCopy {
                    job_id: attempt.job.0,
                    task_index: attempt.task,
                    attempt: attempt.attempt.0,
                    rank,
                    stream: stream.into(),
                    offset,
                    data: bytes.into(),
                });
            }
            Ok(Piece::Gap { upto, .. }) if upto > begin => begin = upto,
            // It became shorter, or cannot be read; the next round looks again.
            Ok(_) | Err(_) => return,
        }
    }
}

/// The stream of a piece, and its end there.
fn upto(copy: &LogCopy) -> (StreamId, u64) {
    let attempt = Attempt {
        job: yard_common::id::JobId(copy.job_id),
        task: copy.task_index,
        attempt: yard_common::id::AttemptNumber(copy.attempt),
    };
    let kind = match copy.stream() {
        LogStream::Stderr => Kind::Err,
        LogStream::Stdout | LogStream::Unspecified => Kind::Out,
    };
    ((attempt, copy.rank, kind), copy.offset + copy.data.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{AttemptNumber, JobId};

    const HEAD: u64 = LOG_COPY_HEAD_BYTES;
    const TAIL: u64 = LOG_COPY_TAIL_BYTES;
    const ROOM: u64 = LOG_COPY_ROUND_BYTES;

    #[test]
    fn what_is_new_is_sent_or_its_beginning_and_its_end() {
        for (from, size, room, expected) in [
            (0, 10, ROOM, vec![(0, 10)]),
            (10, 10, ROOM, vec![]),
            (0, HEAD + 5, ROOM, vec![(0, HEAD), (HEAD, HEAD + 5)]),
            (HEAD + 5, HEAD + 9, ROOM, vec![(HEAD + 5, HEAD + 9)]),
            (7, 9 * TAIL, ROOM, vec![(7, HEAD), (8 * TAIL, 9 * TAIL)]),
            (TAIL, 9 * TAIL, 100, vec![(9 * TAIL - 100, 9 * TAIL)]),
            (0, 9 * TAIL, 100, vec![(0, 100)]),
        ] {
            assert_eq!(ranges(from, size, room), expected, "{from} {size} {room}");
        }
    }

    #[test]
    fn a_round_is_bounded_and_says_what_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let attempt = |task| Attempt { job: JobId(8), task, attempt: AttemptNumber(1) };
        let write = |task, name: &str, len: u64| {
            let at = paths.attempt_logs(JobId(8), task, AttemptNumber(1));
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join(name), vec![b'x'; len as usize]).unwrap();
        };
        for name in ["0.out", "1.out", "2.err"] {
            write(0, name, 2 * TAIL);
        }
        write(1, "0.out", 5);
        write(1, "launcher.err", 5);
        let attempts = [attempt(1), attempt(0), attempt(2)];
        let mut sent = BTreeMap::new();
        let found = collect(&paths, &sent, &attempts);
        let bytes: usize = found.messages.iter().flatten().map(|copy| copy.data.len()).sum();
        assert!(bytes as u64 <= ROOM && bytes as u64 > ROOM - TAIL, "{bytes}");
        assert_eq!(found.whole, [attempt(1), attempt(2)].into());
        for message in &found.messages {
            let bytes: usize = message.iter().map(|copy| copy.data.len()).sum();
            assert!(bytes <= LOG_COPY_BYTES_MAX && message.len() <= LOG_COPY_PIECES_MAX);
        }
        sent.extend(found.messages.iter().flatten().map(upto));
        // What did not fit goes with the next round, and then there is nothing more.
        let found = collect(&paths, &sent, &attempts);
        assert_eq!(found.whole.len(), 3);
        sent.extend(found.messages.iter().flatten().map(upto));
        assert!(collect(&paths, &sent, &attempts).messages.is_empty());
    }
}
