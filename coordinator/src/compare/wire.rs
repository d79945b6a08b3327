//! What members say to each other about what they hold, as bytes: CBOR with numbered fields.

use crate::raft::Acked;
use crate::storage::{Position, Vote};
use minicbor::{Decode, Encode};
use yard_common::id::{FeatureLevel, LogIndex, MemberId};
use yard_common::limits::{MEMBER_MESSAGE_BYTES_MAX, SCANS_KEPT_MAX, SLICES_PER_SCAN_MAX};
use yard_core::state::{Schema, State};

/// What a member has made of the log up to one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Opinion {
    /// The entry.
    #[n(0)]
    pub(crate) index: LogIndex,
    /// What the members agreed to understand.
    #[n(1)]
    pub(crate) level: FeatureLevel,
    /// The hash over all replies and events.
    #[n(2)]
    pub(crate) history: u64,
    /// The rolling digest of the records.
    #[n(3)]
    pub(crate) digest: u64,
    /// How it was hashed: it changes with the level, and with nothing else.
    #[n(4)]
    pub(crate) schema: u16,
}

impl Opinion {
    /// Whether this and another member's can be held against each other: they are of one entry, and
    /// hashed in one way.
    pub(crate) fn is_like(&self, other: &Opinion) -> bool {
        self.index == other.index && self.schema == other.schema
    }

    /// What a state stands for.
    pub(crate) fn of(index: LogIndex, state: &State) -> Opinion {
        let (level, history) = (state.feature_level, state.history_hash);
        let (digest, schema) = (state.digest.value, state.schema().number);
        Opinion { index, level, history, digest, schema }
    }
}

/// Hash these slices of the state as it is at this entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Order {
    #[n(0)]
    pub(crate) at: LogIndex,
    /// The first slice, and the one after the last.
    #[n(1)]
    pub(crate) from: u16,
    #[n(2)]
    pub(crate) to: u16,
    /// How they are hashed.
    #[n(3)]
    pub(crate) schema: u16,
}

impl Order {
    /// Whether it keeps its bounds.
    pub(crate) fn is_sound(&self) -> bool {
        self.from < self.to && self.to - self.from <= SLICES_PER_SCAN_MAX
    }

    /// Whether a state that is hashed in this way can be hashed as it says.
    pub(crate) fn fits(&self, schema: Schema) -> bool {
        self.is_sound() && self.schema == schema.number && self.to <= schema.slices
    }
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Scanned {
    #[n(0)]
    pub(crate) order: Order,
    /// One for each slice.
    #[n(1)]
    pub(crate) hashes: Vec<u64>,
}

/// What a member knows of another one: of its own folder, that is, as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Known {
    /// The highest vote that it ever had.
    #[n(0)]
    pub(crate) vote: Option<Vote>,
    /// What it acked last.
    #[n(1)]
    pub(crate) acked: Option<Acked>,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Own {
    /// Its vote, as it is on its disk.
    #[n(0)]
    pub(crate) vote: Option<Vote>,
    /// The last entry of its log.
    #[n(1)]
    pub(crate) last: Option<Position>,
    /// Whether its disk has too little room for new work.
    #[n(2)]
    pub(crate) is_full: bool,
    /// Bytes that are free there.
    #[n(3)]
    pub(crate) free_bytes: u64,
}

/// What do you hold?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Ask {
    /// Who asks.
    #[n(0)]
    pub(crate) from: MemberId,
    /// At this entry.
    #[n(1)]
    pub(crate) index: LogIndex,
    /// From a leader: and hash these slices.
    #[n(2)]
    pub(crate) order: Option<Order>,
    /// What the asker says of itself.
    #[n(3)]
    pub(crate) own: Own,
    /// What it knows of whom it asks.
    #[n(4)]
    pub(crate) known: Known,
}

/// This is what I hold.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Say {
    /// At the entry that was asked for, or at the last one if that comes earlier. None: it was
    /// too long ago.
    #[n(0)]
    pub(crate) opinion: Option<Opinion>,
    /// The latest orders that were carried out.
    #[n(1)]
    pub(crate) scanned: Vec<Scanned>,
    #[n(2)]
    pub(crate) own: Own,
    /// What it knows of the asker.
    #[n(3)]
    pub(crate) known: Known,
}

impl Say {
    /// Whether it keeps its bounds.
    pub(crate) fn is_sound(&self) -> bool {
        let sound = |scanned: &Scanned| {
            let order = &scanned.order;
            order.is_sound() && scanned.hashes.len() == usize::from(order.to - order.from)
        };
        self.scanned.len() <= SCANS_KEPT_MAX && self.scanned.iter().all(sound)
    }
}

/// A message, if it is within its bound.
pub(crate) fn unpack<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Option<T> {
    let fits = body.len() <= MEMBER_MESSAGE_BYTES_MAX;
    fits.then(|| minicbor::decode(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_in_another_way_is_no_difference() {
        let ours = Opinion::of(LogIndex(5), &State::default());
        let theirs = Opinion { schema: ours.schema + 1, history: 7, ..ours };
        assert!(!ours.is_like(&theirs), "nobody can say whether they differ");
        assert!(ours.is_like(&Opinion { history: 7, ..ours }), "they do differ");
        let schema = State::default().schema();
        let order = Order { at: LogIndex(5), from: 0, to: 4, schema: schema.number };
        assert!(order.fits(schema));
        assert!(!Order { schema: schema.number + 1, ..order }.fits(schema));
        let last = schema.slices;
        assert!(!Order { from: last - 1, to: last + 1, ..order }.fits(schema), "of a later schema");
    }
}
