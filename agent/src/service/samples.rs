//! Samples what assignments use, while any runs, and looks which of them do not end.

use crate::driver::Share;
use crate::session::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use yard_common::limits::STUCK_TOLD_MAX;
use yard_common::state::AssignmentState;
use yard_proto::v1;
use yard_runtime::shutdown::CancellationToken;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn take(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Whoever waits for the driver hears of its end.
        let Ok((_, shares)) = shared.driver.shares().await else { return };
        tell_stuck(&shared, &shares);
        let running = |share: &Share| {
            (share.state == AssignmentState::Running).then_some((share.id, share.ended))
        };
        let running: Vec<_> = shares.iter().filter_map(running).collect();
        let (paths, samples) = (shared.paths.clone(), shared.samples.clone());
        let taken = tokio::task::spawn_blocking(move || samples.take(&paths, &running)).await;
        if let Err(error) = taken {
            tracing::error!(%error, "no samples were taken");
        }
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
