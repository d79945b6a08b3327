//! Jobs and tasks reach one terminal state and never leave it; nothing of an ended job moves or
//! is granted any more (P1).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::id::{JobId, TaskIndex};
use yard_common::state::{JobState, TaskState};
use yard_core::event::Event;

/// The ends that were announced.
#[derive(Debug, Default)]
pub struct OneTerminalState {
    jobs: BTreeMap<JobId, JobState>,
    tasks: BTreeMap<(JobId, TaskIndex), TaskState>,
}

impl Invariant for OneTerminalState {
    fn name(&self) -> &'static str {
        "one_terminal_state"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Applied(step) => {
                for fact in &step.applied.events {
                    self.look(fact)?;
                }
            }
            Seen::Over { state, .. } => {
                for (job, end) in &self.jobs {
                    let now = state.jobs.get(*job).map(|job| job.state);
                    if now.is_some_and(|now| now != *end) {
                        return Err(format!("job {job} was {end} and is {now:?}"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl OneTerminalState {
    fn look(&mut self, fact: &Event) -> Result<(), String> {
        match fact {
            Event::Job { job, state } => {
                if let Some(end) = self.jobs.get(job) {
                    return Err(format!("job {job} was {end} and became {state}"));
                }
                if state.is_terminal() {
                    self.jobs.insert(*job, *state);
                }
            }
            Event::Tasks { job, tasks, state, .. } => {
                for task in tasks.indices() {
                    if let Some(end) = self.tasks.get(&(*job, task)) {
                        return Err(format!("{job}[{task}] was {end} and became {state}"));
                    }
                    if state.is_terminal() {
                        self.tasks.insert((*job, task), *state);
                    }
                }
            }
            Event::Granted { job, tasks, .. } => {
                let ended = tasks.indices().find(|task| self.tasks.contains_key(&(*job, *task)));
                if let Some(task) = ended {
                    return Err(format!("{job}[{task}] has ended and got resources"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
