//! The state as it is applied here, and who is told of it.

use crate::compare::{Opinion, Order};
use crate::storage::{Members, Position, SnapshotMeta};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast, watch};
use yard_common::id::LogIndex;
use yard_common::limits::{OPINIONS_KEPT_MAX, OUTCOMES_MAX};
use yard_core::command::{Command, Envelope};
use yard_core::event::Applied;
use yard_core::state::State;

/// Something that was applied here.
#[derive(Clone, Debug)]
pub enum Update {
    /// An entry.
    Entry(Arc<AppliedEntry>),
    /// A leader's snapshot took the place of the state: what was applied in between is unknown.
    Replaced(LogIndex),
}

/// An entry that was applied.
#[derive(Debug)]
pub struct AppliedEntry {
    /// Its index. The state that has it has all of its commands.
    pub index: LogIndex,
    /// Its commands in order, each with what came of it.
    pub outcomes: Vec<(Envelope, Command, Applied)>,
}

/// The state and how far it is.
pub(super) struct Inner {
    pub(super) state: State,
    pub(super) last: Option<Position>,
    pub(super) members: Members,
    pub(super) members_at: Option<Position>,
    /// What came of the latest entries.
    opinions: VecDeque<Opinion>,
    /// Slices that are to be hashed as they are at an entry, and the state once it is there.
    ordered: Option<Order>,
    captured: Option<(Order, State)>,
}

impl Inner {
    /// A state from a snapshot.
    pub(super) fn replace(&mut self, state: State, meta: SnapshotMeta) {
        let SnapshotMeta { last, members, members_at } = meta;
        (self.state, self.last) = (state, Some(last));
        (self.members, self.members_at) = (members, members_at);
        self.opinions.clear();
        self.note();
    }

    /// One more entry is applied.
    pub(super) fn note(&mut self) {
        let Some(last) = self.last else { return };
        self.opinions.push_back(Opinion::of(last.index, &self.state));
        if self.opinions.len() > OPINIONS_KEPT_MAX {
            self.opinions.pop_front();
        }
        if let Some(order) = self.ordered
            && order.at <= last.index
        {
            self.ordered = None;
            // Nobody knows any more how it was there.
            if order.at == last.index {
                self.captured = Some((order, self.state.clone()));
            }
        }
    }
}

/// The applied state, shared. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Shared {
    inner: Arc<Mutex<Inner>>,
    updates: broadcast::Sender<Update>,
    index: watch::Sender<LogIndex>,
    capture: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        let inner = Inner {
            state: State::default(),
            last: None,
            members: Members::default(),
            members_at: None,
            opinions: VecDeque::new(),
            ordered: None,
            captured: None,
        };
        Shared {
            inner: Arc::new(Mutex::new(inner)),
            updates: broadcast::Sender::new(OUTCOMES_MAX),
            index: watch::Sender::new(LogIndex(0)),
            capture: Arc::default(),
        }
    }

    /// Held for one entry at a time.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in here stops the member before anybody could act on a half-applied state.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last applied entry and the state there.
    pub(crate) fn state(&self) -> (LogIndex, State) {
        let inner = self.lock();
        (inner.last.map_or(LogIndex(0), |last| last.index), inner.state.clone())
    }

    /// What is applied from now on, with the state as of now: nothing falls between the two.
    pub(crate) fn subscribe(&self) -> (LogIndex, State, broadcast::Receiver<Update>) {
        let inner = self.lock();
        let updates = self.updates.subscribe();
        (inner.last.map_or(LogIndex(0), |last| last.index), inner.state.clone(), updates)
    }

    /// The index of the last applied entry, as it rises.
    pub(crate) fn index(&self) -> watch::Receiver<LogIndex> {
        self.index.subscribe()
    }

    /// What came of the entries up to this one, or of the last one if that comes earlier. None:
    /// it was too long ago.
    pub(crate) fn opinion(&self, index: LogIndex) -> Option<Opinion> {
        let inner = self.lock();
        let last = inner.opinions.back()?;
        let first = inner.opinions.front()?.index;
        let at = index.min(last.index).0.checked_sub(first.0)?;
        // One for each entry, so the place follows from the index.
        inner.opinions.get(usize::try_from(at).ok()?).copied()
    }

    /// Keeps the state as it is at an entry, for [`Shared::captured`].
    pub(crate) fn order(&self, order: Order) {
        let mut inner = self.lock();
        inner.ordered = Some(order).filter(|order| inner.last.is_none_or(|l| l.index < order.at));
        if inner.last.is_some_and(|last| last.index == order.at) {
            inner.captured = Some((order, inner.state.clone()));
            self.capture.notify_one();
        }
    }

    /// The state that was ordered, once it is there.
    pub(crate) async fn captured(&self) -> (Order, State) {
        loop {
            if let Some(captured) = self.lock().captured.take() {
                return captured;
            }
            self.capture.notified().await;
        }
    }

    /// Whether anybody wants to know of updates.
    pub(super) fn is_watched(&self) -> bool {
        self.updates.receiver_count() > 0
    }

    /// Tells everyone. To be called while `inner` is locked, so that updates come in order.
    pub(super) fn tell(&self, inner: &Inner, update: Option<Update>) {
        if let Some(update) = update {
            // Without subscribers there is nobody to tell.
            let _ = self.updates.send(update);
        }
        if inner.captured.is_some() {
            self.capture.notify_one();
        }
        self.index.send_replace(inner.last.map_or(LogIndex(0), |last| last.index));
    }
}
