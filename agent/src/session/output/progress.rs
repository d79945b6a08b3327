//! How far streams have been delivered: known to who delivers, and to who makes holes.

use super::keeper::Attempt;
use crate::logs::{Kind, Writer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A stream of an attempt on this node.
pub(super) type StreamId = (Attempt, Writer, Kind);

/// The first byte of each stream that has not been delivered. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<BTreeMap<StreamId, u64>>>);

impl Progress {
    /// Of a stream that nobody knows, nothing has been.
    pub(super) fn of(&self, stream: StreamId) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&stream).copied().unwrap_or(0)
    }

    pub(super) fn set(&self, stream: StreamId, upto: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, upto);
    }

    /// All of an attempt is delivered, or nothing more will be.
    pub(super) fn forget(&self, attempt: Attempt) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, ..), _| *of != attempt);
    }
}
