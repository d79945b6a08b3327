//! A task runs at most once per attempt on each of its nodes, whatever crashed meanwhile (P2).

use super::{Invariant, Seen};
use crate::truth::Truth;

/// Keeps no books: the witness does.
#[derive(Debug, Default)]
pub struct StartOnce;

impl Invariant for StartOnce {
    fn name(&self) -> &'static str {
        "start_once"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Started(run) = seen else { return Ok(()) };
        let same = truth.runs_of(run.job, run.task).filter(|other| {
            other.attempt == run.attempt
                && other.machine == run.machine
                && other.assignment == run.assignment
        });
        match same.count() {
            1 => Ok(()),
            n => Err(format!(
                "{}[{}]#{} started {n} times on machine {}",
                run.job, run.task, run.attempt, run.machine
            )),
        }
    }
}
