//! The rolling scan: a leader says which slices of the state are hashed at which entry, and every
//! member hashes its own.

use super::wire::{Order, Scanned};
use crate::env::{Env, run_blocking};
use crate::raft::Shared;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use yard_common::id::LogIndex;
use yard_common::limits::{SCANS_KEPT_MAX, SLICES_PER_SCAN_MAX};
use yard_core::state::Schema;

/// Orders that were carried out here. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Scans(Arc<Mutex<VecDeque<Scanned>>>);

impl Scans {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Scanned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest ones.
    pub(super) fn latest(&self) -> Vec<Scanned> {
        self.lock().iter().cloned().collect()
    }

    fn keep(&self, scanned: Scanned) {
        let mut scans = self.lock();
        scans.push_back(scanned);
        while scans.len() > SCANS_KEPT_MAX {
            scans.pop_front();
        }
    }
}

/// Carries orders out, where it may block, until it is stopped.
pub(super) async fn run(shared: Shared, env: Arc<dyn Env>, scans: Scans, stop: CancellationToken) {
    loop {
        let (order, state) = tokio::select! {
            () = stop.cancelled() => return,
            captured = shared.captured() => captured,
        };
        // Of another way to hash: nobody would compare it.
        if !order.fits(state.schema()) {
            continue;
        }
        let hash = move || {
            let hashes = (order.from..order.to).map(|slice| state.slice_hash(slice)).collect();
            Ok::<_, std::io::Error>(Scanned { order, hashes })
        };
        match run_blocking(&*env, hash).await {
            Ok(scanned) => scans.keep(scanned),
            Err(error) => tracing::debug!(%error, "a scan was cut off"),
        }
    }
}

/// What a leader orders next.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The slice that is next.
    next: u16,
    /// Where the log was at the last order.
    before: Option<LogIndex>,
    last: Option<Order>,
}

impl Rounds {
    /// The next order, as the log is at `applied`; `scans`: what was carried out here. It is for
    /// an entry that nobody has applied yet if entries come fast, so that all members, wherever
    /// they are, can look at the state as it is there.
    pub(super) fn next(&mut self, applied: LogIndex, schema: Schema, scans: &[Scanned]) -> Order {
        let done = self.last.is_some_and(|last| scans.iter().any(|scan| scan.order == last));
        if done {
            self.next = self.last.map_or(0, |last| last.to % schema.slices);
        }
        let came = self.before.map_or(0, |before| applied.0.saturating_sub(before.0));
        self.before = Some(applied);
        let at = LogIndex(applied.0 + came / 4);
        let to = schema.slices.min(self.next + SLICES_PER_SCAN_MAX);
        let order = Order { at, from: self.next, to, schema: schema.number };
        self.last = Some(order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slices_come_in_turn_and_none_is_left_out() {
        let (mut rounds, schema) = (Rounds::default(), Schema { number: 1, slices: 99 });
        let (mut seen, mut scans) = (Vec::new(), Vec::new());
        while seen.last() != Some(&98) {
            let order = rounds.next(LogIndex(5), schema, &scans);
            assert!(order.fits(schema) && order.at == LogIndex(5), "{order:?}");
            let again = rounds.next(LogIndex(5), schema, &[]);
            assert_eq!(again, order, "what nobody carried out is ordered again");
            seen.extend(order.from..order.to);
            scans = vec![Scanned { order, hashes: Vec::new() }];
        }
        assert_eq!(seen, (0..99).collect::<Vec<_>>());
        assert_eq!(rounds.next(LogIndex(5), schema, &scans).from, 0, "and from the beginning");
    }

    #[test]
    fn a_busy_log_is_looked_at_where_nobody_is_yet() {
        let (mut rounds, schema) = (Rounds::default(), Schema { number: 1, slices: 99 });
        let mut next = |index, scans: &[Scanned]| rounds.next(LogIndex(index), schema, scans);
        assert_eq!(next(100, &[]).at, LogIndex(100));
        assert_eq!(next(1_100, &[]).at, LogIndex(1_350));
        assert_eq!(next(1_100, &[]).at, LogIndex(1_100));
    }
}
