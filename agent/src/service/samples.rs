//! Samples what assignments use, while any runs.

use crate::driver::Share;
use crate::session::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use yard_common::state::AssignmentState;
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
