//! The cluster's time never falls, whatever the clocks of leaders show (P8).

use super::{Invariant, Seen};
use crate::truth::Truth;

/// The latest time.
#[derive(Debug, Default)]
pub struct TimeNeverFalls {
    latest_ms: u64,
}

impl Invariant for TimeNeverFalls {
    fn name(&self) -> &'static str {
        "time_never_falls"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        let now_ms = step.state.now_ms();
        if now_ms < self.latest_ms {
            return Err(format!("from {} to {now_ms} ms", self.latest_ms));
        }
        // A leader adds what its own clock counted: no more than really passed, but for the rate
        // of its clock.
        let really_ms = truth.now_us / 1_000;
        if now_ms > really_ms + really_ms / 500 + 10 {
            return Err(format!("{now_ms} ms when {really_ms} ms had passed"));
        }
        self.latest_ms = now_ms;
        Ok(())
    }
}
