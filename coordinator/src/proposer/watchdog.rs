//! Looks after the disk: takes snapshots when the log has grown, and does not let a leader sit on
//! a disk that does not answer.

use super::room::Room;
use crate::raft::{Consensus, FatalError, Fault, Role, Shared};
use crate::storage::Log;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use yard_common::id::LogIndex;
use yard_common::limits::LOG_SNAPSHOT_BYTES;

/// Period of its looks.
const PERIOD: Duration = Duration::from_millis(100);
/// The task.
pub(super) struct Watchdog {
    pub(super) consensus: Consensus,
    pub(super) log: Log,
    pub(super) shared: Shared,
    pub(super) room: Room,
    /// A flush that takes longer makes a leader hand over, in milliseconds; and as long again, and
    /// nobody has taken over, ends the process.
    pub(super) stuck_ms: u64,
    pub(super) fault: Fault,
    pub(super) stop: CancellationToken,
}

impl Watchdog {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = 0;
        // What the log had when it was opened must be applied first: a snapshot of less is no help.
        let begun = self.log.ends().1.map_or(LogIndex(0), |last| last.index);
        let applied = self.shared.index();
        let mut handed_over = false;
        let roles = self.consensus.roles();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => (),
            }
            let large = self.consensus.snapshot().map_or(0, |(_, bytes)| bytes);
            let caught_up = *applied.borrow() >= begun;
            // A snapshot that finds no room costs the member; the log goes on from its reserve.
            if caught_up
                && !self.room.is_low()
                && self.log.written() - written > LOG_SNAPSHOT_BYTES.max(large)
            {
                written = self.log.written();
                if self.consensus.take_snapshot().await.is_err() {
                    return;
                }
            }
            let stuck_ms = self.log.flushing_ms();
            let leads = matches!(roles.current(), Role::Leads(_));
            if stuck_ms < self.stuck_ms || !leads {
                handed_over = false;
                continue;
            }
            // Alone there is nobody to hand over to: to wait is all that can be done.
            if self.consensus.voters().len() <= 1 {
                continue;
            }
            if stuck_ms > 2 * self.stuck_ms {
                return self.fault.set(FatalError::StuckDisk(stuck_ms));
            }
            let successor = self.consensus.successor().filter(|_| !handed_over);
            if let Some(successor) = successor {
                tracing::warn!(stuck_ms, %successor, "the disk is stuck; handing over");
                handed_over = self.consensus.transfer(successor).await.is_ok();
            }
        }
    }
}
