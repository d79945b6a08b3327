//! The last lines that a failed rank wrote, from the machine that has them.

use super::Api;
use super::copies::{CopyReader, is_away, last_lines_at};
use super::data::share_out;
use crate::sessions::ask;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;
use yard_common::ExitCause;
use yard_common::id::{AttemptNumber, JobId, NodeId, TaskIndex};
use yard_common::limits::{FAILURE_TAIL_BYTES_MAX, FAILURE_TAIL_LINES};
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, LogSource, LogWant, member_data};
use yard_proto::v1::LogStream;

/// How long an explanation waits for them. They are a help; the rest of it is not kept back.
const PATIENCE: Duration = Duration::from_secs(2);

impl Api {
    /// The last lines of stderr of the rank that failed first in an attempt, or of what its machine
    /// wrote before the ranks if that failed; empty if nobody is to blame, or the machine does not
    /// answer in time.
    pub(super) async fn last_lines(&self, job: JobId, task: TaskIndex, attempt: u32) -> Bytes {
        let attempt = AttemptNumber(attempt);
        let found = self.attempts.find(job, task, attempt);
        let fault = found.and_then(|(id, kept)| Some((id, *kept.telling_of(task)?)));
        let Some((allocation, fault)) = fault.filter(|_| attempt.0 > 0) else {
            return Bytes::new();
        };
        let prepare = matches!(fault.cause, ExitCause::PrepareFailed(_));
        let Some(local_rank) = fault.rank.or(prepare.then_some(0)) else { return Bytes::new() };
        let assignment = AssignmentRef {
            allocation_id: allocation.0,
            group: fault.group.into(),
            job_id: job.0,
            task_index: task,
            attempt: attempt.0,
        };
        let stream = LogStream::Stderr.into();
        let want = LogWant {
            assignment: Some(assignment),
            sources: vec![LogSource { local_rank, stream, offset: 0 }],
            tail_lines: FAILURE_TAIL_LINES,
            prepare,
            ..LogWant::default()
        };
        let mut tail = Vec::new();
        let read = async {
            // Of what was written before the ranks there are no copies.
            if is_away(self, fault.node) && !prepare {
                let spot = (job, task, attempt);
                tail = self.copied_lines(spot, (fault.node, fault.group), local_rank).await?;
                return Some(());
            }
            let mut answer = ask(self, fault.node, member_data::What::Log(want)).await.ok()?;
            loop {
                match answer.next().await.ok()?? {
                    What::Log(log) => keep_end(&mut tail, &log.data),
                    What::LogGap(_) => {}
                    _ => return Some(()),
                }
            }
        };
        // What came until then is better than nothing.
        if timeout(PATIENCE, read).await.is_err() {
            tracing::debug!(node = %fault.node, %job, "the last lines did not come in time");
        }
        tail.into()
    }

    /// The last lines of a rank's stderr from the copies that members keep.
    async fn copied_lines(
        &self,
        (job, task, attempt): (JobId, TaskIndex, AttemptNumber),
        share: (NodeId, u8),
        local_rank: u32,
    ) -> Option<Vec<u8>> {
        let (_, state) = self.raft.state();
        let (allocation, kept) = self.attempts.find(job, task, attempt)?;
        let record = state.jobs.get(job)?;
        let shares = share_out(record, allocation, &kept.shares, (job, task, attempt));
        let at = kept.shares.iter().position(|one| *one == share)?;
        let rank = shares.get(at)?.first_rank.saturating_add(local_rank);
        let mut copies = CopyReader::new(job, task, attempt);
        let (_, text) = copies.read_end(self, rank, LogStream::Stderr, 0).await?;
        let text = &text[last_lines_at(&text, FAILURE_TAIL_LINES)..];
        let mut tail = Vec::new();
        keep_end(&mut tail, text);
        Some(tail)
    }
}

/// Adds data, and keeps the end of all.
fn keep_end(tail: &mut Vec<u8>, data: &[u8]) {
    tail.extend_from_slice(&data[data.len().saturating_sub(FAILURE_TAIL_BYTES_MAX)..]);
    tail.drain(..tail.len().saturating_sub(FAILURE_TAIL_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut tail = Vec::new();
        keep_end(&mut tail, b"abc");
        assert_eq!(tail, b"abc");
        keep_end(&mut tail, &vec![b'x'; FAILURE_TAIL_BYTES_MAX - 1]);
        assert_eq!((tail.len(), tail[0]), (FAILURE_TAIL_BYTES_MAX, b'c'));
        keep_end(&mut tail, &vec![b'y'; 2 * FAILURE_TAIL_BYTES_MAX]);
        assert_eq!((tail.len(), tail[0]), (FAILURE_TAIL_BYTES_MAX, b'y'));
    }
}
