//! What assignments use, as it was sampled last.

use super::place::Place;
use super::{Answers, Cut};
use crate::session::Shared;
use std::sync::Arc;
use yard_common::limits::SAMPLES_MAX;
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::{AssignmentRef, AssignmentSample, RankSample, SampleList, SamplesWant};

/// Tells the latest of each assignment that runs. The others are left out.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: SamplesWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let mut samples = Vec::new();
    for wanted in want.assignments.into_iter().take(SAMPLES_MAX) {
        let place = Place::new(shared, Some(wanted))?;
        let Some(told) = shared.samples.latest(place.id) else { continue };
        let rates = told.rates;
        samples.push(AssignmentSample {
            assignment: Some(AssignmentRef {
                task_index: told.task,
                attempt: told.attempt.0,
                ..wanted
            }),
            age_ms: told.age_ms,
            cpu_milli: rates.map(|rates| rates.cpu_milli),
            memory_bytes: told.usage.memory_bytes,
            memory_peak_bytes: told.usage.memory_peak_bytes,
            read_bytes_per_s: told.usage.read_bytes.and(rates).map(|r| r.read_bytes_per_s),
            write_bytes_per_s: told.usage.written_bytes.and(rates).map(|r| r.write_bytes_per_s),
            log_bytes_per_s: rates.map(|rates| rates.log_bytes_per_s),
            processes: told.usage.processes,
            silent_ms: told.silent_ms,
            gpu_busy_percent: told.gpu.and_then(|gpu| gpu.busy_percent),
            gpu_memory_bytes: told.gpu.map(|gpu| gpu.used_bytes),
            gpus: told.gpu.map_or(0, |gpu| gpu.count),
            net_bytes_per_s: rates.and_then(|rates| rates.net_bytes_per_s),
            ranks: if want.ranks { ranks(&told.ranks) } else { Vec::new() },
        });
    }
    answers.send(Said::Samples(SampleList { samples })).await?;
    Ok(())
}

fn ranks(ranks: &[(u32, u64)]) -> Vec<RankSample> {
    ranks
        .iter()
        .map(|(rank, silent_ms)| RankSample { rank: *rank, silent_ms: *silent_ms })
        .collect()
}
