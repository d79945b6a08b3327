//! Every execution of a task has a number of its own, one above the last, and ends once (P2).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::id::{JobId, TaskIndex};
use yard_core::event::Event;

/// The last attempt of each task, and whether it has ended.
#[derive(Debug, Default)]
pub struct AttemptsRise {
    last: BTreeMap<(JobId, TaskIndex), (u32, bool)>,
}

impl Invariant for AttemptsRise {
    fn name(&self) -> &'static str {
        "attempts_rise"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        for fact in &step.applied.events {
            match fact {
                Event::Granted { job, tasks, attempt, .. } => {
                    for task in tasks.indices() {
                        let last = self.last.insert((*job, task), (attempt.0, false));
                        if attempt.0 != last.map_or(0, |(number, _)| number) + 1 {
                            return Err(format!(
                                "{job}[{task}] got attempt {attempt} after {last:?}"
                            ));
                        }
                    }
                }
                Event::AttemptEnded { job, tasks, attempt, .. } => {
                    for task in tasks.indices() {
                        let last = self.last.insert((*job, task), (attempt.0, true));
                        if last != Some((attempt.0, false)) {
                            return Err(format!("{job}[{task}]#{attempt} ended after {last:?}"));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
