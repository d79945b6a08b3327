//! No plan of the scheduler breaks its own rules: nothing is passed over by a job behind it,
//! limits and throttles hold, gangs are whole; and a plan with the cache is the one without (P3).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_core::scheduler::{Budget, Cache, lint, plan};

/// Plans since the last one that was looked at: the audit of a plan costs more than the plan.
#[derive(Debug, Default)]
pub struct QueueOrder {
    plans: u64,
}

impl Invariant for QueueOrder {
    fn name(&self) -> &'static str {
        "queue_order"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Planned { state, planned, now_ms, policy } = seen else { return Ok(()) };
        self.plans += 1;
        if !self.plans.is_multiple_of(5) {
            return Ok(());
        }
        let fresh = plan(&mut Cache::default(), state, *now_ms, policy, Budget::UNLIMITED);
        if fresh != **planned {
            return Err(format!("with its cache {planned:?}, without {fresh:?}"));
        }
        match lint(state, *now_ms, policy, planned).first() {
            None => Ok(()),
            Some(found) => Err(format!("{found:?}")),
        }
    }
}
