//! A cancel that was answered is never undone: its tasks get no further attempt, and at the end
//! they are cancelled, or had ended before (P1).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeSet;
use yard_common::id::{JobId, TaskIndex};
use yard_common::state::TaskState;
use yard_core::command::{Command, JobCommand};
use yard_core::event::Event;

/// Tasks that were cancelled while they had not ended.
#[derive(Debug, Default)]
pub struct CancelSticks {
    cancelled: BTreeSet<(JobId, TaskIndex)>,
    ended: BTreeSet<(JobId, TaskIndex)>,
}

impl Invariant for CancelSticks {
    fn name(&self) -> &'static str {
        "cancel_sticks"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Applied(step) => {
                let cancel = match (step.command, &step.applied.reply) {
                    (Command::Job(JobCommand::Cancel { job, tasks, .. }), Ok(_)) => step
                        .state
                        .jobs
                        .get(*job)
                        .map(|found| (*job, tasks.unwrap_or(found.tasks.range()))),
                    _ => None,
                };
                if let Some((job, range)) = cancel {
                    for task in range.indices().filter(|task| !self.ended.contains(&(job, *task))) {
                        self.cancelled.insert((job, task));
                    }
                }
                for fact in &step.applied.events {
                    match fact {
                        Event::Granted { job, tasks, .. } => {
                            for task in tasks.indices() {
                                if self.cancelled.contains(&(*job, task)) {
                                    return Err(format!("{job}[{task}] runs after its cancel"));
                                }
                            }
                        }
                        Event::Tasks { job, tasks, state, .. } if state.is_terminal() => {
                            self.ended.extend(tasks.indices().map(|task| (*job, task)));
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Seen::Over { state, .. } => {
                for (job, task) in &self.cancelled {
                    let status = state.jobs.get(*job).and_then(|job| job.tasks.get(*task));
                    let end = status.map(|status| status.phase.state());
                    if end.is_some_and(|end| end != TaskState::Cancelled) {
                        return Err(format!("{job}[{task}] was cancelled and is {end:?}"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
