//! Keeps the cluster's time: proposes a tick when a timer is due.

use crate::member::Member;
use crate::proposer::ProposeError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use yard_core::command::{Actor, Cluster, Command};

/// Pause after a tick that was not committed.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest sleep: the clock of a suspended machine runs on, a sleep does not.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until it is stopped.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let tick = Command::Cluster(Cluster::Tick);
    let mut applied = member.raft.applied();
    loop {
        applied.borrow_and_update();
        let (_, state) = member.raft.state();
        let (next_ms, now_ms) = (state.timers.next_ms(), member.raft.cluster_ms());
        let wait = match (next_ms, now_ms) {
            (Some(next_ms), Some(now_ms)) if next_ms <= now_ms => {
                match member.raft.propose(Actor::Leader, None, &tick).await {
                    Ok(_) => continue,
                    Err(ProposeError::Stopped) => return,
                    Err(_) => AGAIN,
                }
            }
            (Some(next_ms), Some(now_ms)) => Duration::from_millis(next_ms - now_ms).min(LOOK),
            (None, _) | (_, None) => LOOK,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => (),
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
