//! What is done about output while nobody asks for it: its files are kept within their bounds, when
//! they grow is noted, members get copies for when this machine is gone, directories of users get
//! all of it, and what is old goes.
//!
//! Ranks write to files by themselves and notice nothing of it. All of it may be late, and none of
//! it ends the agent.

mod copier;
mod deliver;
mod keeper;
mod line;
mod progress;

use super::{Fatal, Shared};
use crate::delivery::Delivery;
use crate::logs::Retention;
use copier::Copier;
use deliver::Deliverer;
use keeper::{Attempt, Keeper};
use line::Rounded;
use progress::Progress;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval};
use yard_common::limits::{LATE_TOLD_MAX, LOG_COPY_ENDING_MAX};
use yard_proto::v1;
use yard_runtime::shutdown::CancellationToken;

/// How often sizes are looked at: so exact it is known when something was written.
const LOOK: Duration = Duration::from_secs(1);
/// How often copies are sent.
const COPY: Duration = Duration::from_secs(2);
/// How often old output is removed.
const REMOVE: Duration = Duration::from_secs(600);

/// Looks after output until it is stopped.
///
/// # Errors
/// If the driver has ended.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), Fatal> {
    let mut work = JoinSet::new();
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        fatal = look_after(&shared, &mut work) => Err(fatal),
    };
    work.abort_all();
    while work.join_next().await.is_some() {}
    result
}

/// Work that goes on beside the looks.
enum Done {
    Copied(Copier),
    Delivered(Box<Rounded>),
    /// Old output went; so much of what is left is to be delivered.
    Removed(Vec<(Attempt, Delivery)>),
    Told,
}

async fn look_after(shared: &Arc<Shared>, work: &mut JoinSet<Done>) -> Fatal {
    let progress = Progress::default();
    let mut keeper = Keeper::new(&shared.paths, progress.clone());
    let mut deliverer = Deliverer::new(&shared.paths, shared.program.clone(), progress);
    let mut copier = Some(Copier::new(shared));
    // Attempts that ended since the last round of copies.
    let mut ended: BTreeSet<Attempt> = BTreeSet::new();
    let mut running: Vec<Attempt> = Vec::new();
    let (mut looks, mut copies, mut removals) = (every(LOOK), every(COPY), every(REMOVE));
    let mut removes = false;
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let (Ok((_, shares)), Ok(released)) =
                    (shared.driver.shares().await, shared.driver.released().await)
                else {
                    return Fatal::Driver;
                };
                let look = move || {
                    let looked = keeper.look(&shares, released, wall_ms());
                    (keeper, looked)
                };
                let looked = spawn_blocking(look).await;
                let Ok((kept, looked)) = looked else { return Fatal::Driver };
                keeper = kept;
                running = looked.running;
                let room = LOG_COPY_ENDING_MAX.saturating_sub(ended.len());
                ended.extend(looked.ended.into_iter().take(room));
                let news = deliverer.go_on(looked.delivered, work);
                tell(shared, news, work);
                tell_late(shared, &deliverer);
                if !removes && deliverer.has_room_again() {
                    removals.reset_immediately();
                }
            }
            _ = copies.tick(), if copier.is_some() => {
                if let Some(copier) = copier.take() {
                    let (running, ended) = (running.clone(), std::mem::take(&mut ended));
                    work.spawn(async move { Done::Copied(copier.round(running, ended).await) });
                }
            }
            _ = removals.tick(), if !removes => {
                removes = true;
                begin_removal(shared, work);
            }
            Some(done) = work.join_next(), if !work.is_empty() => match done {
                Ok(Done::Copied(back)) => copier = Some(back),
                Ok(Done::Delivered(rounded)) => {
                    let news = deliverer.back(*rounded);
                    tell(shared, news, work);
                    tell_late(shared, &deliverer);
                }
                Ok(Done::Removed(left)) => {
                    removes = false;
                    deliverer.found(left);
                }
                Ok(Done::Told) => {}
                Err(error) => {
                    tracing::error!(%error, "the work on output was cut off");
                    copier.get_or_insert_with(|| Copier::new(shared));
                    deliverer.cut_off();
                    removes = false;
                }
            },
        }
    }
}

/// Removes old output, and looks what of the rest is to be delivered.
fn begin_removal(shared: &Arc<Shared>, work: &mut JoinSet<Done>) {
    let paths = shared.paths.clone();
    work.spawn(async move {
        // What it could not do, it does the next time.
        let removed = spawn_blocking(move || {
            remove(&Retention::new(&paths));
            deliver::left(&paths)
        });
        Done::Removed(removed.await.unwrap_or_default())
    });
}

/// Tells people of deliveries that do not work.
fn tell(shared: &Arc<Shared>, news: Vec<(Attempt, String)>, work: &mut JoinSet<Done>) {
    if !news.is_empty() {
        let paths = shared.paths.clone();
        work.spawn(async move {
            // It is in the agent's log in any case.
            let _ = spawn_blocking(move || deliver::tell(&paths, news)).await;
            Done::Told
        });
    }
}

/// Shows with the node, and with the job, whose output does not arrive.
fn tell_late(shared: &Shared, deliverer: &Deliverer) {
    let told = |(attempt, why): (&Attempt, &String)| v1::LateOutput {
        job_id: attempt.job.0,
        task_index: attempt.task,
        attempt: attempt.attempt.0,
        text: why.clone(),
        node: shared.name.clone(),
    };
    let late: Vec<_> = deliverer.late().iter().map(told).take(LATE_TOLD_MAX).collect();
    shared.late.send_if_modified(|old| {
        let is_news = *old != late;
        *old = late;
        is_news
    });
}

fn remove(retention: &Retention) {
    for freed in [retention.by_age(SystemTime::now()), retention.by_share()] {
        match freed {
            Ok(freed) if freed.attempts > 0 => {
                let (attempts, bytes) = (freed.attempts, freed.bytes);
                tracing::info!(attempts, bytes, "the output of jobs that have ended was removed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "old output cannot be removed"),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
