//! What ranks wrote: the streams of all ranks of an attempt as one, from the agents that have them.

use super::Api;
use super::data::{Spot, SpotShare, failed, strange, streams};
use super::gate::Who;
use super::jobs::positions;
use super::refusal::Refusal;
use crate::sessions::{Answer, Answers, ask};
use futures_util::stream::{self, SelectAll};
use futures_util::{StreamExt, future};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;
use yard_common::id::AttemptNumber;
use yard_common::limits::LOG_RANKS_MAX;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{LogSource, LogWant, member_data};
use yard_proto::v1::{self, LogsResponse, logs_response};

impl Api {
    /// Reads logs, and goes on until the attempt has ended if that is asked for.
    pub(super) async fn read_logs(
        &self,
        who: &Who,
        request: v1::LogsRequest,
    ) -> Result<Answers<LogsResponse>, Refusal> {
        let view = self.view(who, None).await?;
        let (id, job) = view.job(request.job_id)?;
        let one = v1::TaskRange { first: request.task_index, len: 1 };
        let task = positions(job, Some(&one))?.map_or(request.task_index, |range| range.first);
        let spot = self.spot(&view, id, job, task, AttemptNumber(request.attempt))?;
        let wants = wants(&spot, &request)?;
        let head = v1::LogHead { attempt: spot.attempt.0, ranks: spot.ranks() };
        // One question for each machine, all at once.
        let asked = wants.into_iter().map(|(share, want)| async move {
            let answer = ask(self, share.node, member_data::What::Log(want)).await?;
            Ok::<_, Refusal>(share_stream(answer, share.first_rank))
        });
        let answers = future::try_join_all(asked).await?;
        let head = LogsResponse { what: Some(logs_response::What::Head(head)) };
        let merged: SelectAll<Answers<LogsResponse>> = stream::select_all(answers);
        let stop = self.stop.clone();
        let ends = async move { stop.cancelled().await };
        let rest = merged.take_until(Box::pin(ends));
        Ok(Box::pin(stream::iter([Ok(head)]).chain(rest)))
    }
}

/// What is asked of each machine.
fn wants<'a>(
    spot: &'a Spot,
    request: &v1::LogsRequest,
) -> Result<Vec<(&'a SpotShare, LogWant)>, Refusal> {
    let ranks: BTreeSet<u32> = request.ranks.iter().copied().collect();
    if let Some(rank) = ranks.iter().find(|rank| **rank >= spot.ranks()) {
        return Err(Refusal::no_such("rank", rank));
    }
    let count = if ranks.is_empty() { spot.ranks() as usize } else { ranks.len() };
    if count > LOG_RANKS_MAX {
        let problem = format!("{count} ranks at once; name at most {LOG_RANKS_MAX} of them");
        return Err(Refusal::invalid("ranks", &problem));
    }
    let offsets: BTreeMap<(u32, i32), u64> = request
        .positions
        .iter()
        .map(|position| ((position.rank, position.stream), position.offset))
        .collect();
    let mut found = Vec::new();
    for share in &spot.shares {
        let mut sources = Vec::new();
        for local_rank in 0..share.ranks {
            let rank = share.first_rank + local_rank;
            if !ranks.is_empty() && !ranks.contains(&rank) {
                continue;
            }
            for stream in streams(request.stream()) {
                let known = offsets.get(&(rank, *stream as i32)).copied();
                sources.push(LogSource {
                    local_rank,
                    stream: *stream as i32,
                    offset: known.unwrap_or(request.offset),
                });
            }
        }
        if !sources.is_empty() {
            let want = LogWant {
                assignment: Some(share.assignment),
                sources,
                tail_lines: request.tail_lines,
                follow: request.follow,
            };
            found.push((share, want));
        }
    }
    Ok(found)
}

/// The streams of one machine, with ranks counted through the attempt.
fn share_stream(answer: Answer, first_rank: u32) -> Answers<LogsResponse> {
    Box::pin(stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        match answer.next().await {
            Ok(Some(what)) => match translate(what, first_rank) {
                Ok(what) => Some((Ok(LogsResponse { what: Some(what) }), Some(answer))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            },
            Ok(None) => None,
            Err(status) => {
                let message = format!("the agent's stream broke: {}", status.message());
                Some((Err(Status::unavailable(message)), None))
            }
        }
    }))
}

fn translate(what: What, first_rank: u32) -> Result<logs_response::What, Refusal> {
    let rank = |local: u32| first_rank.saturating_add(local);
    Ok(match what {
        What::Log(log) => logs_response::What::Chunk(v1::LogChunk {
            rank: rank(log.local_rank),
            stream: log.stream,
            offset: log.offset,
            data: log.data,
        }),
        What::LogGap(gap) => logs_response::What::Gap(v1::LogGap {
            rank: rank(gap.local_rank),
            stream: gap.stream,
            offset: gap.offset,
            len: gap.len,
            reason: gap.reason,
        }),
        What::LogEnd(end) => logs_response::What::End(v1::LogEnd {
            rank: rank(end.local_rank),
            stream: end.stream,
            offset: end.offset,
            complete: end.complete,
        }),
        What::Error(error) => return Err(failed(&error)),
        What::Ticket(_) | What::Files(_) | What::File(_) | What::End(_) => return Err(strange()),
    })
}
