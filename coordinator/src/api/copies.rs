//! Copies of what ranks wrote: agents bring them, and whoever asks for the output of a node that is
//! gone gets them.
//!
//! **Invariant.** An agent brings output of ranks that ran on its own node, and of no others.

use super::Api;
use super::data::share_out;
use super::refusal::Refusal;
use crate::copies::{Piece, StreamId};
use crate::member::Member;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::{AttemptNumber, JobId, MemberId, NodeId, TaskIndex};
use yard_common::limits::{
    LOG_COPY_BYTES_MAX, LOG_COPY_HEAD_BYTES, LOG_COPY_PIECES_MAX, LOG_COPY_TAIL_BYTES,
    LOG_READ_BYTES_MAX,
};
use yard_common::state::NodeState;
use yard_core::agent::copy_holders;
use yard_proto::internal::{self, LogCopy, ReadLogCopyRequest};
use yard_proto::v1::LogStream;

/// All that there can be of one stream.
const COPY_BYTES_MAX: usize = (LOG_COPY_HEAD_BYTES + LOG_COPY_TAIL_BYTES) as usize;

impl Api {
    /// Takes what an agent brings.
    pub(super) async fn take_copies(
        &self,
        node: NodeId,
        request: internal::CopyLogsRequest,
    ) -> Result<internal::CopyLogsResponse, Refusal> {
        let copies = request.copies;
        let bytes = copies.iter().map(|copy| copy.data.len()).sum::<usize>();
        if copies.len() > LOG_COPY_PIECES_MAX || bytes > LOG_COPY_BYTES_MAX + LOG_READ_BYTES_MAX {
            let problem = format!("{} copies with {bytes} bytes are too many", copies.len());
            return Err(Refusal::invalid("copies", &problem));
        }
        let mut known = BTreeMap::new();
        let (mut pieces, mut positions, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (position, copy) in (0u32..).zip(copies) {
            let (job, task) = (JobId(copy.job_id), copy.task_index);
            let attempt = AttemptNumber(copy.attempt);
            let ranks = known
                .entry((job, task, attempt))
                .or_insert_with(|| ranks_on(self, node, (job, task, attempt)));
            // No file is that long; what is counted from there on must not overflow.
            let is_beyond = copy.offset > u64::MAX / 2;
            if is_beyond || !ranks.contains(&copy.rank) {
                refused.push(position);
                continue;
            }
            positions.push(position);
            let stream = stream_id((job, task, attempt), copy.rank, copy.stream());
            let LogCopy { offset, data, .. } = copy;
            pieces.push(Piece { stream, offset, data });
        }
        let taken = self.copies.take(pieces).await;
        let untaken = positions.into_iter().zip(taken).filter(|(_, taken)| !taken);
        refused.extend(untaken.map(|(position, _)| position));
        Ok(internal::CopyLogsResponse { refused })
    }

    /// A piece of the copy that this member has.
    pub(super) async fn own_copy(
        &self,
        request: ReadLogCopyRequest,
    ) -> internal::ReadLogCopyResponse {
        let attempt = AttemptNumber(request.attempt);
        let of = (JobId(request.job_id), request.task_index, attempt);
        let stream = stream_id(of, request.rank, request.stream());
        match self.copies.read(stream, request.offset).await {
            Some((offset, data)) => internal::ReadLogCopyResponse { found: true, offset, data },
            None => internal::ReadLogCopyResponse::default(),
        }
    }
}

fn stream_id(
    (job, task, attempt): (JobId, TaskIndex, AttemptNumber),
    rank: u32,
    stream: LogStream,
) -> StreamId {
    StreamId { job, task, attempt, rank, is_err: stream == LogStream::Stderr }
}

/// The ranks of an attempt that are, or were, on a node, as far as this member knows.
fn ranks_on(
    member: &Member,
    node: NodeId,
    (id, task, attempt): (JobId, TaskIndex, AttemptNumber),
) -> BTreeSet<u32> {
    let (_, state) = member.raft.state();
    let Some(job) = state.jobs.get(id) else { return BTreeSet::new() };
    let status = job.tasks.get(task);
    let held = status.filter(|status| status.attempt == attempt);
    let held = held.and_then(|status| status.phase.allocation());
    let held = held.and_then(|held| Some((held, state.allocations.get(held)?)));
    let (allocation, shares) = match held {
        Some((allocation, record)) => {
            let shares = record.shares.iter().map(|share| (share.node, share.group));
            (allocation, shares.collect())
        }
        None => match member.attempts.find(id, task, attempt) {
            Some((allocation, kept)) if attempt.0 > 0 => (allocation, kept.shares),
            Some(_) | None => return BTreeSet::new(),
        },
    };
    let shares = share_out(job, allocation, &shares, (id, task, attempt));
    let on_it = shares.iter().filter(|share| share.node == node);
    on_it.flat_map(|share| share.first_rank..share.first_rank.saturating_add(share.ranks)).collect()
}

/// Whether a node is gone, so that nothing is to be had of it but copies.
pub(super) fn is_away(member: &Member, node: NodeId) -> bool {
    let (_, state) = member.raft.state();
    let found = state.nodes.get(node).map(|node| node.state);
    match found {
        Some(NodeState::Up | NodeState::Suspect) => false,
        Some(NodeState::Lost | NodeState::Removed) | None => true,
    }
}

/// Where the last lines of a text begin.
pub(super) fn last_lines_at(text: &[u8], lines: u32) -> usize {
    let breaks = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    // The end of the last line does not begin another one.
    let begins = breaks.map(|(at, _)| at + 1).filter(|at| *at < text.len());
    let nth = usize::try_from(lines).unwrap_or(usize::MAX).saturating_sub(1);
    begins.into_iter().nth(nth).unwrap_or(0)
}

/// Reads copies of the streams of one attempt, from whichever members have them.
pub(super) struct CopyReader {
    of: (JobId, TaskIndex, AttemptNumber),
    /// Members that did not answer; they are not asked again.
    silent: BTreeSet<MemberId>,
}

impl CopyReader {
    pub(super) fn new(job: JobId, task: TaskIndex, attempt: AttemptNumber) -> CopyReader {
        CopyReader { of: (job, task, attempt), silent: BTreeSet::new() }
    }

    /// The first piece of a stream from an offset on, and where it begins; empty: no member has
    /// more. None: no member has a copy.
    pub(super) async fn read(
        &mut self,
        member: &Member,
        rank: u32,
        stream: LogStream,
        offset: u64,
    ) -> Option<(u64, Bytes)> {
        let peers = member.raft.peers();
        let mut best: Option<(u64, Bytes)> = None;
        for id in copy_holders(self.of.0, peers.keys().copied()) {
            if self.silent.contains(&id) {
                continue;
            }
            let found = if id == member.id {
                member.copies.read(stream_id(self.of, rank, stream), offset).await
            } else {
                let Some(peer) = peers.get(&id) else { continue };
                let request = self.request(rank, stream, offset);
                match member.peers.log_copy(id, &peer.address, request).await {
                    Ok(answer) => answer.found.then_some((answer.offset, answer.data)),
                    Err(error) => {
                        tracing::debug!(%id, %error, "a member does not show its copies");
                        self.silent.insert(id);
                        None
                    }
                }
            };
            let Some((at, data)) = found else { continue };
            if at == offset && !data.is_empty() {
                return Some((at, data));
            }
            // What another member begins with earlier is better.
            let is_better =
                |best: &(u64, Bytes)| !data.is_empty() && (best.1.is_empty() || at < best.0);
            if best.as_ref().is_none_or(is_better) {
                best = Some((at, data));
            }
        }
        best
    }

    /// The end of a stream as far as it is there without a gap, and where it begins. None: no
    /// member has a copy.
    pub(super) async fn read_end(
        &mut self,
        member: &Member,
        rank: u32,
        stream: LogStream,
        from: u64,
    ) -> Option<(u64, Vec<u8>)> {
        let (mut begin, mut bytes) = (from, Vec::new());
        let mut at = from;
        loop {
            let (offset, data) = self.read(member, rank, stream, at).await?;
            if data.is_empty() {
                return Some((begin, bytes));
            }
            if offset != at {
                (begin, bytes) = (offset, Vec::new());
            }
            bytes.extend_from_slice(&data);
            at = offset + data.len() as u64;
            let over = bytes.len().saturating_sub(COPY_BYTES_MAX);
            bytes.drain(..over);
            begin += over as u64;
        }
    }

    fn request(&self, rank: u32, stream: LogStream, offset: u64) -> ReadLogCopyRequest {
        let (job, task, attempt) = self.of;
        ReadLogCopyRequest {
            job_id: job.0,
            task_index: task,
            attempt: attempt.0,
            rank,
            stream: stream.into(),
            offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_behind_a_line() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\nb\nunfinished", 1, "unfinished"),
            ("", 3, ""),
        ] {
            assert_eq!(&text[last_lines_at(text.as_bytes(), lines)..], expected, "{text:?}");
        }
    }
}
