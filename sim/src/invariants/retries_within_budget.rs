//! Nobody pays for another's fault: a task fails for good only when the budget of the fault that
//! ended it is spent, counted from the ends of its attempts (P9).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::cause::Fault;
use yard_common::id::{JobId, TaskIndex};
use yard_common::state::TaskState;
use yard_core::event::Event;

/// Ends of attempts by whose fault they were: user, machines, the last one of them.
#[derive(Debug, Default)]
pub struct RetriesWithinBudget {
    ends: BTreeMap<(JobId, TaskIndex), (u32, u32, Option<Fault>)>,
}

impl Invariant for RetriesWithinBudget {
    fn name(&self) -> &'static str {
        "retries_within_budget"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        for fact in &step.applied.events {
            match fact {
                Event::AttemptEnded { job, tasks, cause, .. } => {
                    for task in tasks.indices() {
                        let ends = self.ends.entry((*job, task)).or_default();
                        ends.2 = Some(cause.fault());
                        match cause.fault() {
                            Fault::User => ends.0 += 1,
                            Fault::Infra => ends.1 += 1,
                            Fault::None | Fault::Reclaim | Fault::Request => {}
                        }
                    }
                }
                Event::Tasks { job: id, tasks, state, .. } => {
                    let Some(job) = step.state.jobs.get(*id) else { continue };
                    let retry = &job.plan.retry;
                    for task in tasks.indices() {
                        let Some((user, infra, last)) = self.ends.get(&(*id, task)) else {
                            continue;
                        };
                        let spent = match last {
                            Some(Fault::User) => *user > u32::from(retry.user),
                            Some(Fault::Infra) => *infra > u32::from(retry.infra),
                            Some(Fault::None | Fault::Reclaim | Fault::Request) | None => continue,
                        };
                        let waits = matches!(state, TaskState::Queued | TaskState::Backoff);
                        // A dependency may fail it while it waits for a retry.
                        let failed = *state == TaskState::Failed
                            && job.tasks.get(task).and_then(|s| s.cause).map(|c| c.fault())
                                == *last
                            && job.plan.after.all().next().is_none();
                        if (waits && spent) || (failed && !spent) {
                            return Err(format!(
                                "{id}[{task}] is {state} after {user} faults of its \
                                user and {infra} of machines"
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
