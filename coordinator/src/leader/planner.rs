//! Lets the scheduler run: over a clone of the state, where it may block, as soon as something
//! changed. One plan is on its way at a time.
//!
//! **Invariant.** A panic of the scheduler harms nothing: what it had is a clone, what comes out is
//! checked again by apply, and its cache is dropped.

use crate::env::run_blocking;
use crate::member::Member;
use crate::proposer::ProposeError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use yard_common::limits::PLAN_WORK_MAX;
use yard_core::command::{Actor, Command, Reply};
use yard_core::scheduler::{Budget, Cache, Planned, Policy, plan};
use yard_core::state::State;
use yard_runtime::backoff::Backoff;

/// The next round comes no sooner than so many times as long as the last one took: what changes
/// meanwhile is planned for together, and a busy cluster leaves its leader room for other work.
const REST: u32 = 2;
/// Pause after a plan that was not committed, or of which nothing was taken.
const AGAIN: Duration = Duration::from_millis(100);

/// What came of a round.
enum Round {
    /// Nothing to do until something changes.
    Idle,
    /// A plan was committed: there may be more to do.
    More,
    /// It did not help; not again at once.
    Futile,
    /// The scheduler panicked.
    Broken,
    /// The member has stopped.
    Stopped,
}

/// Runs until it is stopped.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let mut cache = Cache::default();
    let mut applied = member.raft.applied();
    let mut broken = Backoff::new(1_000, 60_000);
    loop {
        applied.borrow_and_update();
        let began = Instant::now();
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = round(&member, &mut cache) => round,
        };
        let rest_until = Instant::now() + began.elapsed() * REST;
        let wait = match round {
            Round::Stopped => return,
            Round::More => {
                broken.reset();
                continue;
            }
            Round::Idle => {
                broken.reset();
                None
            }
            Round::Futile => Some(AGAIN),
            Round::Broken => Some(broken.next(member.env.random())),
        };
        if let Some(wait) = wait {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => continue,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        // Over long since on a cluster where little happens.
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(rest_until) => {}
        }
    }
}

async fn round(member: &Member, cache: &mut Cache) -> Round {
    let (_, state) = member.raft.state();
    if state.pending.is_empty() {
        return Round::Idle;
    }
    let Some(now_ms) = member.raft.cluster_ms() else { return Round::Futile };
    if !member.raft.has_room() {
        // What starts now writes on for as long as it runs.
        return Round::Futile;
    }
    let now_ms = now_ms.max(state.now_ms());
    let began = Instant::now();
    let Some(planned) = decide(member, cache, state, now_ms).await else {
        member.counters.plans_broken.inc();
        return Round::Broken;
    };
    member.counters.plans.inc();
    let spent_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    member.counters.plan_us.inc_by(spent_us);
    let Planned { plan, complete } = planned;
    if plan.is_empty() {
        // Cut short and nothing found: the state is the same, and so is the next round.
        return if complete { Round::Idle } else { Round::Futile };
    }
    // Promises alone are made again with each round: they are no reason for another one.
    let starts = !plan.placements.is_empty() || !plan.stops.is_empty();
    match member.raft.propose(Actor::Leader, None, &Command::Plan(plan)).await {
        Ok(Ok(Reply::Planned { placements })) => {
            // What scheduler and apply see differently must not be tried without end.
            let refused = !placements.is_empty() && placements.iter().all(Result::is_err);
            match (refused, starts) {
                (true, _) => Round::Futile,
                (false, true) => Round::More,
                (false, false) => Round::Idle,
            }
        }
        Ok(Ok(_)) => Round::More,
        Ok(Err(rejection)) => {
            tracing::warn!(%rejection, "a plan was refused");
            Round::Futile
        }
        Err(ProposeError::Stopped) => Round::Stopped,
        Err(error) => {
            tracing::debug!(%error, "a plan was not committed");
            Round::Futile
        }
    }
}

/// Runs the scheduler where it may block. None if it panicked.
async fn decide(member: &Member, cache: &mut Cache, state: State, now_ms: u64) -> Option<Planned> {
    let mut own = std::mem::take(cache);
    let work = move || -> io::Result<(Cache, Planned)> {
        let (policy, budget) = (Policy::default(), Budget(PLAN_WORK_MAX));
        let planned = plan(&mut own, &state, now_ms, &policy, budget);
        Ok((own, planned))
    };
    match run_blocking(&*member.env, work).await {
        Ok((own, planned)) => {
            *cache = own;
            Some(planned)
        }
        Err(error) => {
            tracing::error!(%error, "the scheduler failed; it is tried again without its cache");
            None
        }
    }
}
