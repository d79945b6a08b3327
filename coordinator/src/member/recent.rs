//! The latest events, for watches that go on from an index.
//!
//! Bounded: what falls out at the old end can be watched no more, and the watcher is told so.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use yard_common::id::LogIndex;
use yard_common::limits::EVENTS_KEPT_MAX;
use yard_core::command::Stamp;
use yard_core::event::Event;

/// What happened at one position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    /// The position.
    pub(crate) index: LogIndex,
    /// When.
    pub(crate) at: Stamp,
    /// What, in order.
    pub(crate) events: Vec<Event>,
}

/// The latest events. Written by one task, read by all watches.
pub(crate) struct Recent {
    ring: Mutex<Ring>,
    seen: watch::Sender<LogIndex>,
}

struct Ring {
    /// Everything from here on is there.
    first: u64,
    kept: VecDeque<Happened>,
    /// Events in all of `kept`.
    count: usize,
}

/// What a watch gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// What happened, oldest first, and where to go on. Everything before that is told.
    Some(Vec<Happened>, u64),
    /// It is not there any more; this is the first index that is.
    Compacted(u64),
}

impl Recent {
    /// Nothing yet; events after this position come.
    pub(crate) fn new(applied: LogIndex) -> Recent {
        let ring = Ring { first: applied.0 + 1, kept: VecDeque::new(), count: 0 };
        Recent { ring: Mutex::new(ring), seen: watch::Sender::new(applied) }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next position that was applied, with what happened there.
    pub(crate) fn push(&self, happened: Happened) {
        let index = happened.index;
        let mut ring = self.lock();
        if !happened.events.is_empty() {
            ring.count += happened.events.len();
            ring.kept.push_back(happened);
        }
        while ring.count > EVENTS_KEPT_MAX && ring.kept.len() > 1 {
            if let Some(oldest) = ring.kept.pop_front() {
                ring.count -= oldest.events.len();
                ring.first = oldest.index.0 + 1;
            }
        }
        drop(ring);
        self.seen.send_replace(index);
    }

    /// Positions were missed: whoever watches must list again.
    pub(crate) fn restart(&self, applied: LogIndex) {
        *self.lock() = Ring { first: applied.0 + 1, kept: VecDeque::new(), count: 0 };
        self.seen.send_replace(applied);
    }

    /// The last position that is told of, as it rises.
    pub(crate) fn seen(&self) -> watch::Receiver<LogIndex> {
        self.seen.subscribe()
    }

    /// What happened from a position on: at least one position if there is one, and not many more
    /// events than `events_max`.
    pub(crate) fn from(&self, index: u64, events_max: usize) -> Page {
        let ring = self.lock();
        if index < ring.first {
            return Page::Compacted(ring.first);
        }
        let start = ring.kept.partition_point(|happened| happened.index.0 < index);
        let mut found = Vec::new();
        let mut count = 0;
        for happened in ring.kept.iter().skip(start) {
            if count >= events_max {
                let next = happened.index.0;
                return Page::Some(found, next);
            }
            count += happened.events.len();
            found.push(happened.clone());
        }
        // Read under the lock of the ring: what is pushed later has a higher index.
        let next = found.last().map_or(index, |last: &Happened| last.index.0 + 1);
        Page::Some(found, next.max(self.seen.borrow().0.min(u64::MAX - 1) + 1).max(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;

    fn happened(index: u64, events: usize) -> Happened {
        let events = vec![Event::Freed(AllocationId(index)); events];
        Happened { index: LogIndex(index), at: Stamp::default(), events }
    }

    fn indices(page: Page) -> (Vec<u64>, u64) {
        match page {
            Page::Some(found, next) => (found.iter().map(|one| one.index.0).collect(), next),
            Page::Compacted(first) => panic!("compacted to {first}"),
        }
    }

    #[test]
    fn a_watch_gets_everything_once_and_in_order() {
        let recent = Recent::new(LogIndex(4));
        for index in 5..9 {
            recent.push(happened(index, usize::from(index != 6)));
        }
        assert_eq!(indices(recent.from(5, 100)), (vec![5, 7, 8], 9));
        assert_eq!(indices(recent.from(5, 1)), (vec![5], 7));
        assert_eq!(indices(recent.from(7, 1)), (vec![7], 8));
        assert_eq!(indices(recent.from(9, 1)), (vec![], 9));
        assert_eq!(indices(recent.from(50, 1)), (vec![], 50));
        assert_eq!(recent.from(4, 1), Page::Compacted(5));
    }

    #[test]
    fn what_is_too_old_is_compacted() {
        let recent = Recent::new(LogIndex(0));
        let half = EVENTS_KEPT_MAX / 2 + 1;
        recent.push(happened(1, half));
        recent.push(happened(2, half));
        assert_eq!(recent.from(1, 1), Page::Compacted(2));
        assert_eq!(indices(recent.from(2, 1)), (vec![2], 3));
        recent.restart(LogIndex(9));
        assert_eq!(recent.from(9, 1), Page::Compacted(10));
        assert_eq!(indices(recent.from(10, 1)), (vec![], 10));
    }
}
