//! The audit of the whole state finds nothing: every index, count and sum is what the records
//! say (P8).

use super::{Invariant, Seen};
use crate::clock::{SECOND, Us};
use crate::truth::Truth;

/// The audit costs as much as hundreds of commands, so not every occasion is used. What is wrong
/// in the state stays wrong.
const PERIOD_US: Us = 8 * SECOND;

/// When the next audit is due.
#[derive(Debug, Default)]
pub struct StateCheck {
    next_us: Us,
}

impl Invariant for StateCheck {
    fn name(&self) -> &'static str {
        "state_check"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let state = match seen {
            Seen::Audit { state, .. } if truth.now_us >= self.next_us => state,
            Seen::Over { state, .. } => state,
            _ => return Ok(()),
        };
        self.next_us = truth.now_us + PERIOD_US;
        match state.check().first() {
            None => Ok(()),
            Some(found) => Err(format!("{found}")),
        }
    }
}
