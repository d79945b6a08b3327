//! The scheduler: which waiting tasks start now, and where.
//!
//! [`plan`] is a pure function of a view of the state. It changes nothing: what it returns becomes
//! real only when the plan is committed, and apply checks each placement again.
//!
//! - **Order.** Queues by priority; jobs of queues of equal priority together, by their own
//!   priority, then as submitted. Nothing overtakes on nodes that a job ahead could use: a task
//!   that would start if only others ended *claims* all of those nodes for the rest of the round.
//!   What waits for a limit, for its own array, or for nodes that are lost or drained claims
//!   nothing, since no end of another task would help it.
//! - **Packing.** The smallest room that fits, so that whole nodes and whole groups of GPUs stay
//!   free for gangs. A gang is placed whole or not at all.
//! - **Cost.** Pending jobs that are alike stand in one [`line`](lines::Lines), and nodes of one
//!   kind are sorted by what is free ([`stock::Stock`]), so that a round costs as much as it
//!   places, not as much as waits. Both indexes live in the [`Cache`], which is derived from the
//!   view alone: a plan with it equals a plan without it.

mod cache;
mod candidates;
mod chains;
mod choose;
mod claim;
mod explain;
mod gpus;
mod lines;
mod lint;
mod round;
mod site;
mod stock;

pub use cache::Cache;
pub use explain::{Change, Constraint, Explanation, GroupNumbers, Holder, Outlook, explain};
pub use lint::{Rule, Violation, lint};

use crate::command::Plan;
use crate::state::State;
use round::Round;
use yard_common::limits::CHAIN_TASKS_MAX;

#[cfg(test)]
mod tests;

/// What operators choose about the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tasks of one chain at most, 1 to `CHAIN_TASKS_MAX`; 1: no chains.
    pub chain_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { chain_max: CHAIN_TASKS_MAX }
    }
}

/// Work that a round may do: jobs looked at, and nodes looked at for them. A count and not a
/// time, so that a round is the same on every machine; the caller knows what a unit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u64);

impl Budget {
    /// As much as it takes.
    pub const UNLIMITED: Budget = Budget(u64::MAX);
}

/// What a round decided.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Whether every pending task was considered. If not, the budget or the bound on placements
    /// cut the round short: the plan is legal, and the next round goes on from there.
    pub complete: bool,
}

/// Decides what starts now, and where.
pub fn plan(
    cache: &mut Cache,
    view: &State,
    now_ms: u64,
    policy: &Policy,
    budget: Budget,
) -> Planned {
    cache.refresh(view, now_ms);
    let mut round = Round::new(cache, view, now_ms, policy, budget);
    let complete = round.run(None);
    Planned { plan: round.into_plan(), complete }
}
