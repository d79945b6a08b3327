//! Who takes the lead when it is handed over.

use super::Member;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::timeout;
use yard_common::id::MemberId;

/// How long a member may take to say how far it is. Nobody writes less well meanwhile.
const WAIT: Duration = Duration::from_millis(200);

impl Member {
    /// The other voter that could take over best; none unless this member leads.
    ///
    /// A member that has just started has all of the log at once, and is busy with applying it for
    /// a while: as a leader it could do nothing until then. So each says how far it has applied.
    pub(crate) async fn successor(&self) -> Option<MemberId> {
        let candidates = self.raft.successors();
        if candidates.len() < 2 {
            return candidates.first().copied();
        }
        let asked = candidates.into_iter().enumerate().map(|(rank, id)| async move {
            let address = self.address_of(id)?.address;
            let about = timeout(WAIT, self.peers.about(id, &address)).await.ok()?.ok()?;
            Some((about.applied_index, std::cmp::Reverse(rank), id))
        });
        let best = join_all(asked).await.into_iter().flatten().max();
        // If none answers, the one with the most of the log is as good as any.
        best.map(|(_, _, id)| id).or_else(|| self.raft.successors().first().copied())
    }
}
