//! How the tasks of an array are dealt out to the places that they got.
//!
//! When far more tasks wait than run, each place gets a chain of several. The length follows
//! factoring (Hummel, Schonberg and Flynn, 1992): half of an even share of what waits, so that
//! chains get shorter towards the end of the array and all places run dry together.

use yard_common::id::TaskRange;

use crate::retry::Tries;
use crate::state::Job;

/// Tasks of one chain of an array of which `queued` tasks wait for `places` places, those that
/// its tasks hold already among them.
pub(super) fn chain_len(queued: u32, places: u32, chain_max: u32) -> u32 {
    (queued / places.saturating_mul(2).max(1)).clamp(1, chain_max.max(1))
}

/// The queued tasks of a job in order, in chains of the lengths that are asked for. A task that
/// was tried before runs alone: it may fail again, and would keep the rest of a chain waiting.
pub(super) fn deal(job: &Job, lens: impl IntoIterator<Item = u32>) -> Vec<Vec<TaskRange>> {
    let mut runs = job.tasks.queued().map(|(run, status)| (run, status.tries == Tries::default()));
    let mut rest = runs.next();
    let mut chains = Vec::new();
    for len in lens {
        let mut chain: Vec<TaskRange> = Vec::new();
        let mut missing = len;
        while let Some((run, fresh)) = rest {
            if missing == 0 || !fresh && !chain.is_empty() {
                break;
            }
            let taken = if fresh { run.len.min(missing) } else { 1 };
            let tasks = TaskRange { first: run.first, len: taken };
            match chain.last_mut() {
                Some(last) if last.end() == tasks.first => last.len += taken,
                Some(_) | None => chain.push(tasks),
            }
            rest = if taken < run.len {
                Some((TaskRange::between(tasks.end(), run.end()), fresh))
            } else {
                runs.next()
            };
            missing = if fresh { missing - taken } else { 0 };
        }
        if chain.is_empty() {
            break;
        }
        chains.push(chain);
    }
    chains
}
