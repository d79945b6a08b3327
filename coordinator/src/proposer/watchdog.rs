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

/// Period of its looks, in milliseconds.
const PERIOD_MS: u64 = 100;

/// Looks, one after the other, at which a flush took too long.
#[derive(Debug, Default)]
struct Looks(u64);

/// What is seen of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It has not taken long.
    Fine,
    /// It takes too long.
    Stuck,
    /// It takes so long that nothing but the end of the process helps.
    Hopeless,
}

impl Looks {
    /// Looks at a flush that has taken so long. A process that stood still finds one that began
    /// before, and that is about to end like everything else that it left behind: what counts is
    /// for how long it was seen to hang.
    fn see(&mut self, flushing_ms: u64, stuck_ms: u64) -> Seen {
        if flushing_ms < stuck_ms {
            self.0 = 0;
            return Seen::Fine;
        }
        let seen_ms = self.0 * PERIOD_MS;
        self.0 += 1;
        match flushing_ms > 2 * stuck_ms && seen_ms >= stuck_ms {
            true => Seen::Hopeless,
            false => Seen::Stuck,
        }
    }
}

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
        let mut ticks = interval(Duration::from_millis(PERIOD_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = 0;
        // What the log had when it was opened must be applied first: a snapshot of less is no help.
        let begun = self.log.ends().1.map_or(LogIndex(0), |last| last.index);
        let applied = self.shared.index();
        let (mut handed_over, mut looks) = (false, Looks::default());
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
            let seen = looks.see(if leads { stuck_ms } else { 0 }, self.stuck_ms);
            if seen == Seen::Fine {
                handed_over = false;
                continue;
            }
            // Alone there is nobody to hand over to: to wait is all that can be done.
            if self.consensus.voters().len() <= 1 {
                continue;
            }
            if seen == Seen::Hopeless {
                return self.fault.set(FatalError::StuckDisk(stuck_ms));
            }
            let successor = self.consensus.successors().first().copied();
            let successor = successor.filter(|_| !handed_over);
            if let Some(successor) = successor {
                tracing::warn!(stuck_ms, %successor, "the disk is stuck; handing over");
                handed_over = self.consensus.transfer(successor).await.is_ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_hangs_is_hopeless_after_as_long_again() {
        let mut looks = Looks::default();
        let seen: Vec<Seen> = (0..=11).map(|nth| looks.see(nth * PERIOD_MS, 500)).collect();
        assert!(seen[..5].iter().all(|seen| *seen == Seen::Fine), "{seen:?}");
        assert!(seen[5..11].iter().all(|seen| *seen == Seen::Stuck), "{seen:?}");
        assert_eq!(seen[11], Seen::Hopeless);
    }

    #[test]
    fn a_process_that_stood_still_gives_its_disk_the_time_to_go_on() {
        let mut looks = Looks::default();
        // It was stopped for a minute, in the middle of a flush.
        assert_eq!(looks.see(60_000, 500), Seen::Stuck);
        assert_eq!(looks.see(60_100, 500), Seen::Stuck);
        assert_eq!(looks.see(0, 500), Seen::Fine);
        assert_eq!(looks.see(60_000, 500), Seen::Stuck, "what was seen before counts no more");
        let more: Vec<Seen> = (1..=5).map(|nth| looks.see(60_000 + nth * 100, 500)).collect();
        assert_eq!(more, [Seen::Stuck, Seen::Stuck, Seen::Stuck, Seen::Stuck, Seen::Hopeless]);
    }
}
