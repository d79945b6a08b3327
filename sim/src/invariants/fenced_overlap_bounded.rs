//! Of a `fenced` job an older attempt may run on beside a newer one, cut off, for no longer than
//! its self-kill allows: 60 s after its last renewal, and the time that a kill takes (P2).

use super::{Invariant, Seen};
use crate::clock::{MS, SECOND};
use crate::truth::{Run, Truth};
use yard_core::job::IsolationClass;

/// 60 s by a clock that is slow by a thousandth, and the kill.
const OVERLAP_US_MAX: u64 = 60 * SECOND + 61 * MS + 200 * MS;

/// Keeps no books: the witness does.
#[derive(Debug, Default)]
pub struct FencedOverlapBounded;

impl Invariant for FencedOverlapBounded {
    fn name(&self) -> &'static str {
        "fenced_overlap_bounded"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Ended(run) = seen else { return Ok(()) };
        if !truth.is(run.job, IsolationClass::Fenced) || run.was_frozen {
            return Ok(());
        }
        let newer = |other: &&Run| other.attempt > run.attempt;
        let first = truth.runs_of(run.job, run.task).find(newer);
        let overlap_us = first.map_or(0, |other| truth.now_us.saturating_sub(other.from_us));
        if overlap_us > OVERLAP_US_MAX {
            return Err(format!(
                "{}[{}]#{} ran on for {} ms beside its successor",
                run.job,
                run.task,
                run.attempt,
                overlap_us / MS
            ));
        }
        Ok(())
    }
}
