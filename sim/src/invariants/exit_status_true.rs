//! What is reported of an end is what the witness saw: a success only if the ranks that decide
//! really exited with 0, a code, signal or lack of memory only if one of them ended so. What
//! nobody saw may be lost, but is never invented (P4).

use super::{Invariant, Seen};
use crate::truth::{Run, Truth};
use yard_common::ExitCause;
use yard_core::event::Event;
use yard_core::job::Decides;

/// Keeps no books: the witness does.
#[derive(Debug, Default)]
pub struct ExitStatusTrue;

impl Invariant for ExitStatusTrue {
    fn name(&self) -> &'static str {
        "exit_status_true"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        for fact in &step.applied.events {
            let Event::AttemptEnded { job, tasks, attempt, cause, .. } = fact else { continue };
            let Some(known) = truth.jobs.get(job) else { continue };
            let plan = &known.plan;
            for task in tasks.indices() {
                let runs = truth.runs_of(*job, task).filter(|run| run.attempt == *attempt);
                let ended = |run: &&Run| run.ending.is_some_and(|ending| ending.status == *cause);
                let ok = match cause {
                    ExitCause::Exited(0) => {
                        let well: Vec<_> = runs.filter(ended).collect();
                        let nodes: u32 = plan.shape.groups.iter().map(|g| g.nodes_min).sum();
                        let wanted = if plan.decides == Decides::FirstRank { 1 } else { nodes };
                        well.len() as u32 >= wanted
                    }
                    ExitCause::Exited(_) | ExitCause::OutOfMemory | ExitCause::Signaled(_) => {
                        runs.filter(ended).count() > 0
                    }
                    _ => true,
                };
                if !ok {
                    return Err(format!("{job}[{task}]#{attempt} did not end as {cause}"));
                }
            }
        }
        Ok(())
    }
}
