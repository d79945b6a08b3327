//! The open nodes of some kinds, best fit first.

use super::stock::{Free, Kind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use yard_common::id::NodeId;

/// Walks the open nodes of some kinds from the fullest to the emptiest, over those that are too
/// full by leaps.
pub(super) struct Candidates<'s> {
    kinds: &'s [Kind],
    need: Need,
    /// The next node of each kind.
    heads: BinaryHeap<Reverse<(bool, Free, usize)>>,
}

/// What a node must have free at least to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// In ten-thousandths.
    pub(super) gpu_parts: u64,
    /// In thousandths.
    pub(super) cpu_milli: u64,
}

impl<'s> Candidates<'s> {
    pub(super) fn new(
        kinds: &'s [Kind],
        of: impl IntoIterator<Item = usize>,
        need: Need,
    ) -> Candidates<'s> {
        let mut candidates = Candidates { kinds, need, heads: BinaryHeap::new() };
        let start = Free { gpu_parts: need.gpu_parts, cpu_milli: need.cpu_milli, node: NodeId(0) };
        for kind in of {
            candidates.push(kind, start);
        }
        candidates
    }

    /// Lets a kind take part with its first node at or after a point that has enough CPU.
    fn push(&mut self, kind: usize, mut from: Free) {
        let open = &self.kinds[kind].open;
        while let Some((free, ())) = open.range(from..).next() {
            if free.cpu_milli >= self.need.cpu_milli {
                // What needs no GPU goes to nodes without them first.
                let wastes_gpus = self.need.gpu_parts == 0 && !self.kinds[kind].gpus.is_empty();
                self.heads.push(Reverse((wastes_gpus, *free, kind)));
                return;
            }
            from = Free { gpu_parts: free.gpu_parts, cpu_milli: self.need.cpu_milli, ..from };
            from.node = NodeId(0);
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let Reverse((_, free, kind)) = self.heads.pop()?;
        if let Some(next) = free.node.0.checked_add(1) {
            self.push(kind, Free { node: NodeId(next), ..free });
        }
        Some(free.node)
    }
}
