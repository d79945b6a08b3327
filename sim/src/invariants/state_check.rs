//! The audit of the whole state finds nothing: every index, count and sum is what the records
//! say (P8).

use super::{Invariant, Seen};
use crate::truth::Truth;

/// Keeps no books.
#[derive(Debug, Default)]
pub struct StateCheck;

impl Invariant for StateCheck {
    fn name(&self) -> &'static str {
        "state_check"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let (Seen::Audit { state, .. } | Seen::Over { state, .. }) = seen else { return Ok(()) };
        match state.check().first() {
            None => Ok(()),
            Some(found) => Err(format!("{found}")),
        }
    }
}
