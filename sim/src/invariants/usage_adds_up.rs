//! What is billed is what was held: GPUs, from grant to release in the cluster's time, summed up
//! apart from the roll-up.

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::id::AllocationId;
use yard_core::command::Command;
use yard_core::event::Event;
use yard_core::state::State;

/// What is held since when, and the sum so far.
#[derive(Debug, Default)]
pub struct UsageAddsUp {
    held: BTreeMap<AllocationId, (u64, u64)>,
    gpu_part_ms: u128,
}

impl UsageAddsUp {
    /// A machine that was off holds nothing any more, while the rest of a gang still does.
    fn shrink(&mut self, state: &State, now_ms: u64) {
        for (id, (from_ms, parts)) in &mut self.held {
            let Some(held) = state.allocations.get(*id) else { continue };
            let now: u64 = held.shares.iter().map(|share| share.gpus.total_parts()).sum();
            let gone = u128::from(*parts - now);
            self.gpu_part_ms += u128::from(now_ms - *from_ms) * gone;
            *parts = now;
        }
    }
}

impl Invariant for UsageAddsUp {
    fn name(&self) -> &'static str {
        "usage_adds_up"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Applied(step) => {
                let now_ms = step.state.now_ms();
                if matches!(step.command, Command::Node(_)) {
                    self.shrink(step.state, now_ms);
                }
                for fact in &step.applied.events {
                    match fact {
                        Event::Granted { allocation, .. } => {
                            let held = step.state.allocations.get(*allocation);
                            let shares = held.map_or(&[][..], |held| &held.shares);
                            let parts = shares.iter().map(|share| share.gpus.total_parts()).sum();
                            self.held.entry(*allocation).or_insert((now_ms, parts));
                        }
                        Event::Freed(allocation) => {
                            if let Some((from_ms, parts)) = self.held.remove(allocation) {
                                self.gpu_part_ms +=
                                    u128::from(now_ms - from_ms) * u128::from(parts);
                            }
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Seen::Over { state, .. } => {
                let billed: u128 = state.usage.iter().map(|(_, row)| row.gpu_part_ms.get()).sum();
                if billed == self.gpu_part_ms {
                    return Ok(());
                }
                Err(format!("{billed} part-milliseconds of GPUs billed, {} held", self.gpu_part_ms))
            }
            _ => Ok(()),
        }
    }
}
