//! Usage roll-ups: what was held for how long, in exact integers.
//!
//! Rows by day, owner, queue and GPU model. Durations are counted in `cluster_ms`, so that a wrong
//! wall clock bills nobody; the wall clock only says which day it was.

use crate::table::Ordered;
use minicbor::{Decode, Encode};
use yard_common::Amounts;
use yard_common::id::{PrincipalId, QueueId};
use yard_common::limits::USAGE_ROWS_MAX;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct UsageKey {
    /// Days since 1970, UTC.
    #[n(0)]
    pub day: u32,
    /// Who used it.
    #[n(1)]
    pub owner: PrincipalId,
    /// Through which queue.
    #[n(2)]
    pub queue: QueueId,
    /// GPU model; empty without GPUs.
    #[n(3)]
    pub model: Box<str>,
}

/// An exact sum of amounts times milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Integral {
    #[n(0)]
    high: u64,
    #[n(1)]
    low: u64,
}

impl Integral {
    /// The sum.
    #[must_use]
    pub fn get(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn add(&mut self, amount: u64, for_ms: u64) {
        let sum = self.get().saturating_add(u128::from(amount) * u128::from(for_ms));
        *self = Integral { high: (sum >> 64) as u64, low: sum as u64 };
    }
}

/// One row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Usage {
    /// Thousandths of a CPU times milliseconds.
    #[n(0)]
    pub cpu_milli_ms: Integral,
    /// Bytes of memory times milliseconds.
    #[n(1)]
    pub memory_byte_ms: Integral,
    /// Ten-thousandths of a GPU times milliseconds.
    #[n(2)]
    pub gpu_part_ms: Integral,
    /// Of the GPU time, what attempts held that ended by a fault of the machines.
    #[n(3)]
    pub gpu_part_ms_lost: Integral,
}

/// What is added in one go.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// CPU and memory.
    pub amounts: Amounts,
    /// GPUs in ten-thousandths.
    pub gpu_parts: u64,
    /// Whether it was lost to a fault of the machines.
    pub lost: bool,
}

/// All rows.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct UsageTable {
    #[n(0)]
    rows: Ordered<UsageKey, Usage>,
}

impl UsageTable {
    /// The rows in order: oldest day first.
    pub fn iter(&self) -> impl Iterator<Item = (&UsageKey, &Usage)> {
        self.rows.iter()
    }

    /// Adds what was held for the `for_ms` milliseconds that end at `end_wall_ms`, split at
    /// midnight UTC. `key.day` is filled in here.
    pub(crate) fn add(&mut self, key: &UsageKey, held: &Held, for_ms: u64, end_wall_ms: u64) {
        let (mut left_ms, mut end_ms) = (for_ms, end_wall_ms);
        // A wall clock before the duration began cannot be split further: the rest is one day's.
        while left_ms > 0 {
            let since_midnight = (end_ms.max(1) - 1) % DAY_MS + 1;
            let part_ms = if end_ms == 0 { left_ms } else { left_ms.min(since_midnight) };
            let day = u32::try_from(end_ms.max(1).saturating_sub(1) / DAY_MS).unwrap_or(u32::MAX);
            self.add_to(UsageKey { day, ..key.clone() }, held, part_ms);
            left_ms -= part_ms;
            end_ms = end_ms.saturating_sub(part_ms);
        }
        while self.rows.len() > USAGE_ROWS_MAX {
            let Some(oldest) = self.rows.first().map(|(key, _)| key.clone()) else { break };
            self.rows.remove(&oldest);
        }
    }

    fn add_to(&mut self, key: UsageKey, held: &Held, for_ms: u64) {
        if self.rows.get(&key).is_none() {
            self.rows.insert(key.clone(), Usage::default());
        }
        let Some(row) = self.rows.get_mut(&key) else { return };
        row.cpu_milli_ms.add(held.amounts.cpu_milli, for_ms);
        row.memory_byte_ms.add(held.amounts.memory_bytes, for_ms);
        row.gpu_part_ms.add(held.gpu_parts, for_ms);
        if held.lost {
            row.gpu_part_ms_lost.add(held.gpu_parts, for_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_split_at_midnight() {
        let mut table = UsageTable::default();
        let key =
            UsageKey { day: 0, owner: PrincipalId(1), queue: QueueId(0), model: "h100".into() };
        let amounts = Amounts { cpu_milli: 500, memory_bytes: 7, disk_bytes: 0 };
        let held = Held { amounts, gpu_parts: 10_000, lost: false };
        table.add(&key, &held, DAY_MS + 300, 10 * DAY_MS + 100);
        let rows: Vec<_> =
            table.iter().map(|(key, row)| (key.day, row.cpu_milli_ms.get() / 500)).collect();
        assert_eq!(rows, [(8, 200), (9, u128::from(DAY_MS)), (10, 100)]);
    }

    #[test]
    fn a_wall_clock_near_zero_loses_nothing() {
        let mut table = UsageTable::default();
        let key = UsageKey { day: 0, owner: PrincipalId(1), queue: QueueId(0), model: "".into() };
        let amounts = Amounts { cpu_milli: 1, memory_bytes: 0, disk_bytes: 0 };
        table.add(&key, &Held { amounts, gpu_parts: 0, lost: false }, 5_000, 20);
        let sum: u128 = table.iter().map(|(_, row)| row.cpu_milli_ms.get()).sum();
        assert_eq!(sum, 5_000);
    }
}
