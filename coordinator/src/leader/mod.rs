//! The work of a leader: it lets the scheduler run, keeps time, judges silence, and takes the
//! control streams of agents.
//!
//! **Invariant.** All of it belongs to one leader id: it begins once the first entry of that
//! leader is applied, and is stopped before anything is begun for another.

mod clock;
mod planner;
mod silence;

use crate::member::Member;
use crate::proposer::Leadership;
use std::sync::Arc;
use std::time::Duration;
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
    let leads = |now: &Leadership| matches!(now, Leadership::Leader { id: now, .. } if *now == id);
    member.sessions.open(id);
    loop {
        let own = stop.child_token();
        let mut tasks = Tasks::new(own.clone());
        tasks.spawn("planner", planner::run(Arc::clone(member), own.clone()));
        tasks.spawn("clock", clock::run(Arc::clone(member), own.clone()));
        tasks.spawn("silence", silence::run(Arc::clone(member), id, own.clone()));
        let over = tokio::select! {
            () = stop.cancelled() => true,
            // It has changed, or there is nobody to say so any more.
            _ = leadership.wait_for(|now| !leads(now)) => true,
            ended = tasks.next_ended() => {
                tracing::error!(?ended, "a part of the leader's work ended by itself");
                false
            }
        };
        if over {
            member.sessions.close();
        }
        for ended in tasks.stop(GRACE).await {
            tracing::warn!(?ended, "a part of the leader's work had to be stopped");
        }
        if over {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
