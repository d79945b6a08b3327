//! What the others remember of attempts, for a member that was not there: one that joined, that a
//! snapshot brought up to date, or that was killed before it had written down the last of it.
//!
//! **Invariant.** Nothing of a job that is forgotten comes back in this way.

use super::Member;
use crate::peers::PeerError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use yard_common::id::{AllocationId, MemberId};

/// Pause before those are asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(10);

/// Asks once the member has caught up, and whenever something passed it by.
pub(crate) async fn run(member: Arc<Member>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = recall(&member) => {}
    }
}

async fn recall(member: &Member) {
    // Until then, jobs that others tell of may be unknown here.
    if member.caught_up.changes().wait_for(|there| *there).await.is_err() {
        return;
    }
    let (mut gaps, mut told) = (member.attempts.gaps(), BTreeSet::new());
    loop {
        let is_whole = ask_all(member, &mut told).await;
        tokio::select! {
            gap = gaps.changed() => match gap {
                Ok(()) => told.clear(),
                Err(_) => return,
            },
            () = sleep(AGAIN), if !is_whole => {}
        }
    }
}

/// Asks those that have not told everything yet. Whether all have now.
async fn ask_all(member: &Member, told: &mut BTreeSet<MemberId>) -> bool {
    let peers = member.raft.peers();
    let others = || peers.iter().filter(|(id, _)| **id != member.id);
    for (id, peer) in others() {
        if told.contains(id) {
            continue;
        }
        match ask(member, *id, &peer.address).await {
            Ok(()) => {
                told.insert(*id);
            }
            Err(error) => tracing::debug!(%id, %error, "a member does not tell of attempts"),
        }
    }
    others().all(|(id, _)| told.contains(id))
}

async fn ask(member: &Member, id: MemberId, address: &str) -> Result<(), PeerError> {
    let mut from = AllocationId(0);
    loop {
        let page = member.peers.recall(id, address, from).await?;
        let last = page.noted.last().map(|(id, _)| *id);
        let (_, state) = member.raft.state();
        let is_there = |job| state.jobs.get(job).is_some();
        let noted = page.noted.into_iter().filter(|(_, kept)| is_there(kept.job));
        member.attempts.told(noted.collect());
        match last {
            // Whoever tells the same again would go on for ever.
            Some(last) if page.has_more && last >= from => from = AllocationId(last.0 + 1),
            Some(_) | None => return Ok(()),
        }
    }
}
