//! Starts and ends that the agent has not been told of yet.
//!
//! They are held back for a moment while more may come: what is told at once costs the agent one
//! flush and the cluster one entry of its log, however many tasks it is about. Nothing that
//! somebody waits for is held back: an end after which nothing starts is told at once, with all
//! that was held back before it.

use super::message::{End, FromShim};
use super::run::Shim;
use crate::sys;
use yard_common::limits::SHIM_HOLD_MS;

/// What is held back.
#[derive(Debug, Default)]
pub(super) struct News {
    /// So many tasks have started.
    started: Option<u32>,
    /// Ends, and the position of the first of them.
    ends: Option<(u32, Vec<End>)>,
    /// When it is told at the latest.
    pub(super) due_ms: Option<u64>,
}

impl News {
    /// So many tasks have started.
    pub(super) fn started(&mut self, count: u32) {
        self.started = Some(count);
        self.due_ms.get_or_insert_with(|| sys::boot_ms() + SHIM_HOLD_MS);
    }

    /// A task has ended, the next after those that ended before.
    pub(super) fn ended(&mut self, position: u32, end: End) {
        self.ends.get_or_insert_with(|| (position, Vec::new())).1.push(end);
        self.due_ms.get_or_insert_with(|| sys::boot_ms() + SHIM_HOLD_MS);
    }

    /// What there is to tell, in the order in which it is true.
    pub(super) fn take(&mut self) -> impl Iterator<Item = FromShim> + use<> {
        let News { started, ends, .. } = std::mem::take(self);
        let ends = ends.map(|(first, ends)| FromShim::Ended(first, ends));
        started.map(FromShim::Started).into_iter().chain(ends)
    }
}

impl Shim {
    /// Tells what was held back, if it is due or nothing more comes for now.
    pub(super) fn tell_news(&mut self) {
        let Some(due_ms) = self.news.due_ms else { return };
        let goes_on = self.running.is_some() || self.may_start();
        if !goes_on || sys::boot_ms() >= due_ms {
            self.tell_all_news();
        }
    }

    /// Tells all that was held back. It comes before anything else that is told.
    pub(super) fn tell_all_news(&mut self) {
        let news = self.news.take();
        self.send_all(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::ExitCause;

    #[test]
    fn many_starts_and_ends_are_told_as_one_of_each() {
        let mut news = News::default();
        assert_eq!(news.take().count(), 0);
        let end =
            |code: u8| End { status: ExitCause::Exited(code.into()), stopped: false, rank: None };
        for position in 3..6u8 {
            news.started(u32::from(position) + 1);
            news.ended(u32::from(position), end(position));
        }
        assert!(news.due_ms.is_some());
        let told: Vec<FromShim> = news.take().collect();
        let ends = (3..6).map(end).collect();
        assert_eq!(told, [FromShim::Started(6), FromShim::Ended(3, ends)]);
        assert_eq!((news.take().count(), news.due_ms), (0, None));
    }
}
