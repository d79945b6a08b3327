//! Samples what assignments use, while any runs, tells when one of them falls silent, and looks
//! which of them do not end.

use crate::driver::Share;
use crate::samples::{Gpu, Gpus, Running};
use crate::session::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use yard_common::limits::STUCK_TOLD_MAX;
use yard_common::state::AssignmentState;
use yard_core::stall::News;
use yard_proto::v1;
use yard_runtime::shutdown::CancellationToken;

/// Before the first sample, and after one that could not be taken.
const SOON: Duration = Duration::from_secs(1);

pub(super) async fn take(shared: Arc<Shared>, stop: CancellationToken) {
    let mut next = SOON;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(next) => {}
        }
        // Whoever waits for the driver hears of its end.
        let Ok((_, shares)) = shared.driver.shares().await else { return };
        tell_stuck(&shared, &shares);
        let running = |share: &Share| {
            let runs = share.state == AssignmentState::Running;
            runs.then_some(Running { id: share.id, position: share.ended, silent: share.silent })
        };
        let running: Vec<Running> = shares.iter().filter_map(running).collect();
        let gpus = gpus(&shared.facts.borrow());
        let (paths, samples) = (shared.paths.clone(), shared.samples.clone());
        let taken = tokio::task::spawn_blocking(move || samples.take(&paths, &running, &gpus));
        let taken = match taken.await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "no samples were taken");
                next = SOON;
                continue;
            }
        };
        for (id, position, news) in taken.news {
            match news {
                News::Silent(for_ms) => {
                    tracing::info!(assignment = %id, for_ms, "its ranks do nothing");
                }
                News::Active => {
                    tracing::info!(assignment = %id, "its ranks do something again");
                }
            }
            if shared.driver.silence(id, position, news).await.is_err() {
                return;
            }
        }
        next = taken.next;
    }
}

/// Tells of those that do not end, if they are others than before.
fn tell_stuck(shared: &Shared, shares: &[Share]) {
    let told = |share: &Share| {
        let text = share.stuck.clone()?;
        Some(v1::StuckProcesses {
            job_id: share.job.0,
            allocation_id: share.id.allocation.0,
            group: share.id.group.into(),
            text,
            node: shared.name.clone(),
        })
    };
    let stuck: Vec<_> = shares.iter().filter_map(told).take(STUCK_TOLD_MAX).collect();
    shared.stuck.send_if_modified(|old| {
        let is_news = *old != stuck;
        *old = stuck;
        is_news
    });
}

/// What the GPUs of the machine do, as last looked at.
fn gpus(facts: &v1::NodeFacts) -> Gpus {
    let of = |gpu: &v1::GpuFacts| {
        let (busy_percent, used_bytes) = (gpu.busy_percent, gpu.memory_used_bytes);
        (gpu.uuid.clone(), Gpu { busy_percent, used_bytes, is_part: !gpu.parent_uuid.is_empty() })
    };
    facts.gpus.iter().map(of).collect()
}
