//! What ranks wrote: the streams of all ranks of an attempt as one, from the agents that have them.

use super::Api;
use super::data::{Spot, SpotShare, streams};
use super::gate::Who;
use super::jobs::positions;
use super::refusal::Refusal;
use super::share::{Share, first_answer};
use crate::sessions::Answers;
use futures_util::StreamExt;
use futures_util::stream::{self, SelectAll};
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::AttemptNumber;
use yard_common::limits::LOG_RANKS_MAX;
use yard_proto::internal::{LogSource, LogWant};
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
        let alone = wants.len() == 1;
        let share = |(share, want): (&SpotShare, LogWant)| {
            Share::new(self, (share.node, share.first_rank), want, alone)
        };
        let mut shares: Vec<Share> = wants.into_iter().map(share).collect();
        for share in &mut shares {
            share.look_for_copies().await;
        }
        if !shares.iter().any(Share::has_copies) {
            first_answer(&mut shares).await?;
        }
        let head = LogsResponse { what: Some(logs_response::What::Head(head)) };
        let answers = shares.into_iter().map(Share::stream);
        let merged: SelectAll<Answers<LogsResponse>> = stream::select_all(answers);
        let stop = self.stop.clone();
        let ends = async move { stop.cancelled().await };
        let rest = merged.take_until(Box::pin(ends));
        let logs = Box::pin(stream::iter([Ok(head)]).chain(rest));
        Ok(self.while_admitted(who, Some(id), logs))
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
    let count = match (request.prepare, ranks.is_empty()) {
        (true, _) => spot.shares.len(),
        (false, true) => spot.ranks() as usize,
        (false, false) => ranks.len(),
    };
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
        // Before the ranks there is one of each machine, which its first rank stands for.
        let of_share = share.first_rank..share.first_rank.saturating_add(share.ranks);
        let is_named = ranks.is_empty() || of_share.clone().any(|rank| ranks.contains(&rank));
        let prepare = request.prepare && is_named;
        let local_ranks = if request.prepare { 0..u32::from(prepare) } else { 0..share.ranks };
        for local_rank in local_ranks {
            let rank = share.first_rank + local_rank;
            if !prepare && !ranks.is_empty() && !ranks.contains(&rank) {
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
                since_wall_ms: request.since_wall_ms,
                times: request.times,
                prepare,
            };
            found.push((share, want));
        }
    }
    Ok(found)
}
