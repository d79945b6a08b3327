//! The work of a leader: it lets the scheduler run, keeps time, judges silence, changes the
//! members, and takes the control streams of agents.
//!
//! **Invariant.** All of it belongs to one leader id: it begins once the first entry of that
//! leader is applied, and is stopped before anything is begun for another.

mod clock;
mod members;
mod planner;
mod silence;

use crate::member::Member;
use crate::proposer::Leadership;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use yard_common::id::LeaderId;
use yard_runtime::shutdown::Tasks;

/// How long the work may take to notice that it is over.
const GRACE: Duration = Duration::from_secs(5);
/// Pause before work that ended by itself begins anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs until the member stops.
pub(crate) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let mut leadership = member.raft.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if let Leadership::Leader { id, .. } = now {
            lead(&member, id, &stop).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Works as this leader, as long as it is one.
async fn lead(member: &Arc<Member>, id: LeaderId, stop: &CancellationToken) {
    let mut leadership = member.raft.leadership();
    member.sessions.open(id);
    loop {
        let own = stop.child_token();
        let mut tasks = Tasks::new(own.clone());
        tasks.spawn("planner", planner::run(Arc::clone(member), own.clone()));
        tasks.spawn("clock", clock::run(Arc::clone(member), own.clone()));
        tasks.spawn("members", members::run(Arc::clone(member), own.clone()));
        tasks.spawn("silence", silence::run(Arc::clone(member), id, own.clone()));
        let broken = tokio::select! {
            // A stop ends the parts as well, and is not their fault.
            biased;
            () = over(&mut leadership, id, stop) => false,
            ended = tasks.next_ended() => {
                tracing::error!(?ended, "a part of the leader's work ended by itself");
                true
            }
        };
        let stopped = async {
            for ended in tasks.stop(GRACE).await {
                tracing::warn!(?ended, "a part of the leader's work had to be stopped");
            }
        };
        tokio::pin!(stopped);
        if broken {
            let again = async {
                stopped.as_mut().await;
                tokio::time::sleep(AGAIN).await;
            };
            tokio::select! {
                // The lead may be lost while what broke is taken down.
                () = over(&mut leadership, id, stop) => {}
                () = again => continue,
            }
        }
        // First of all: agents must look for another leader at once, however long the rest takes.
        member.sessions.close();
        return stopped.await;
    }
}

/// The beat at which a part of the work is done, until it is to stop.
struct Beat {
    ticks: Interval,
    stop: CancellationToken,
}

impl Beat {
    fn every(period: Duration, stop: CancellationToken) -> Beat {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Beat { ticks, stop }
    }

    /// Waits for the next time. False: it is over.
    async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }

    /// Works until it is done. False: it is over before.
    async fn work(&self, work: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = work => true,
        }
    }
}

/// Waits until the member stops, or is not this leader any more.
async fn over(
    leadership: &mut watch::Receiver<Leadership>,
    id: LeaderId,
    stop: &CancellationToken,
) {
    let leads = |now: &Leadership| matches!(now, Leadership::Leader { id: now, .. } if *now == id);
    tokio::select! {
        () = stop.cancelled() => {}
        // It has changed, or there is nobody to say so any more.
        _ = leadership.wait_for(|now| !leads(now)) => {}
    }
}
