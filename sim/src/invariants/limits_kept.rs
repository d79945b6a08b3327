//! What queues, workspaces and owners hold, counted from the allocations themselves, stays within
//! the limit where something is granted, and no array runs more tasks than it may (P3).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_core::event::Event;
use yard_core::state::{Holding, HoldingKey, State};

/// Keeps no books.
#[derive(Debug, Default)]
pub struct LimitsKept;

/// What a key holds, by the records.
fn held(state: &State, key: HoldingKey) -> Holding {
    let mut sum = Holding::default();
    for (_, allocation) in state.allocations.iter() {
        let Some(job) = state.jobs.get(allocation.job) else { continue };
        let counts = State::payers(job).keys().iter().any(|(of, _, _)| *of == key);
        if counts {
            sum.tasks += 1;
            sum.gpu_parts += allocation.shares.iter().map(|s| s.gpus.total_parts()).sum::<u64>();
        }
    }
    sum
}

impl Invariant for LimitsKept {
    fn name(&self) -> &'static str {
        "limits_kept"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        let state = step.state;
        for fact in &step.applied.events {
            let Event::Granted { job: id, .. } = fact else { continue };
            let Some(job) = state.jobs.get(*id) else { continue };
            let running = state.allocations.iter().filter(|(_, a)| a.job == *id).count() as u32;
            let max = job.plan.array.as_ref().and_then(|array| array.running_max);
            if max.is_some_and(|max| running > max) {
                return Err(format!("{running} tasks of array {id} run, {max:?} may"));
            }
            for (key, scope, _) in State::payers(job).keys() {
                let Some(limit) = state.holdings.limit(scope) else { continue };
                let sum = held(state, key);
                let tasks = limit.tasks.is_some_and(|max| sum.tasks > max);
                let gpus = limit.gpu_parts.is_some_and(|max| {
                    let own = state.allocations.iter().filter(|(_, a)| a.job == *id);
                    let mut shares = own.flat_map(|(_, a)| &a.shares);
                    sum.gpu_parts > max && shares.any(|share| !share.gpus.devices.is_empty())
                });
                if tasks || gpus {
                    return Err(format!("{key:?} holds {sum:?} under {limit:?}"));
                }
            }
        }
        Ok(())
    }
}
