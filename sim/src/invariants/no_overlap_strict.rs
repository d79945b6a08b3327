//! Of a `strict` job no instruction of an older attempt runs once a newer one has begun, as long
//! as clock rates are within a thousandth and no machine stood still (P2).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_core::job::IsolationClass;

/// Keeps no books: the witness does.
#[derive(Debug, Default)]
pub struct NoOverlapStrict;

impl Invariant for NoOverlapStrict {
    fn name(&self) -> &'static str {
        "no_overlap_strict"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Started(run) = seen else { return Ok(()) };
        if !truth.is(run.job, IsolationClass::Strict) {
            return Ok(());
        }
        let overlaps = |other: &&crate::truth::Run| {
            other.attempt != run.attempt && other.until_us.is_none() && !other.was_frozen
        };
        match truth.runs_of(run.job, run.task).find(overlaps) {
            None => Ok(()),
            Some(other) => Err(format!(
                "{}[{}]#{} runs on machine {} while #{} starts on machine {}",
                run.job, run.task, other.attempt, other.machine, run.attempt, run.machine
            )),
        }
    }
}
