//! An agent obeys a desired set only if its (incarnation, generation) is above every set that was
//! ever obeyed on its machine, across crashes and reboots (P2).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_core::agent::Fence;

/// The highest fence of each machine.
#[derive(Debug, Default)]
pub struct FencesRise {
    highest: BTreeMap<usize, Fence>,
}

impl Invariant for FencesRise {
    fn name(&self) -> &'static str {
        "fences_rise"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Obeyed { machine, fence } = seen else { return Ok(()) };
        match self.highest.insert(*machine, *fence) {
            Some(before) if before >= *fence => {
                Err(format!("machine {machine} obeys {fence} after {before}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
