//! The state as it is applied here, and who is told of it.

use crate::storage::{Members, Position};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};
use yard_common::id::LogIndex;
use yard_common::limits::OUTCOMES_MAX;
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
}

/// The applied state, shared. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Shared {
    inner: Arc<Mutex<Inner>>,
    updates: broadcast::Sender<Update>,
    index: watch::Sender<LogIndex>,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        let inner = Inner {
            state: State::default(),
            last: None,
            members: Members::default(),
            members_at: None,
        };
        Shared {
            inner: Arc::new(Mutex::new(inner)),
            updates: broadcast::Sender::new(OUTCOMES_MAX),
            index: watch::Sender::new(LogIndex(0)),
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
        self.index.send_replace(inner.last.map_or(LogIndex(0), |last| last.index));
    }
}
