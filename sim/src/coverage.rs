//! Feared states that a run must have reached. A test that never gets there proves nothing.

use std::collections::BTreeMap;

/// Every point, by name. A run of `FULL_SEEDS` seeds or more fails if one was never reached.
pub const POINTS: &[&str] = &[
    "agent came back from maintenance",
    "agent died between writing and starting",
    "answered request asked again",
    "attempt ended for its silence",
    "brake held a node back",
    "cancel raced with the exit",
    "chain recalled",
    "dependency failed",
    "duplicate submit answered",
    "exit reported after the node was lost",
    "gang stopped by one failure",
    "in-doubt share reaped",
    "leader lost with uncommitted entries",
    "member replaced",
    "member restarted from a snapshot",
    "node lost",
    "node returned",
    "node went over to a new lease",
    "overlap of a fenced attempt",
    "promise lifted",
    "retry budget spent",
    "shim died under its ranks",
    "shim killed at its deadline",
    "snapshot installed",
    "snapshot sent to a member that was far behind",
    "stale leader refused",
    "strict attempt killed at its deadline",
    "two leaders in one term",
    "uncommitted entries of a lost leader cut",
    "unsynced entries lost",
    "vote moved within a term",
    "wall clock jumped",
];

/// Seeds from which on every point must have been reached.
pub const FULL_SEEDS: u64 = 1_000;

/// How often each point was reached.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// Counts a point.
    ///
    /// # Panics
    /// If the point is not listed.
    pub fn reach(&mut self, point: &'static str) {
        debug_assert!(POINTS.contains(&point), "the point '{point}' is not listed");
        *self.0.entry(point).or_default() += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, point: &str) -> u64 {
        self.0.get(point).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Coverage) {
        for (point, count) in &other.0 {
            *self.0.entry(point).or_default() += count;
        }
    }

    /// The points that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        POINTS.iter().copied().filter(|point| self.count(point) == 0).collect()
    }
}
