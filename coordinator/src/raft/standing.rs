//! How the members are, as a leader sees it.

use super::types::{index_to_ours, members_to_ours};
use super::{Config, Consensus, MembersError};
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use yard_common::id::{LogIndex, MemberId};
use yard_common::limits::MEMBER_LAG_ENTRIES_MAX;
use yard_core::voters::Standing;

/// Who did not answer any of so many heartbeats in a row does not answer.
const SILENT_HEARTBEATS: u64 = 10;

/// What a leader knows of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderView {
    pub(crate) term: u64,
    /// The last entry of its log.
    pub(crate) last: LogIndex,
    /// The last entry that each member is known to have.
    pub(crate) matched: BTreeMap<MemberId, LogIndex>,
    pub(crate) standing: Standing,
}

impl Consensus {
    /// What this member knows of the others; none unless it leads.
    pub(crate) fn view(&self) -> Option<LeaderView> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let last = metrics.last_log_index.unwrap_or(0);
        let index = |id: &u64| match *id == self.own.0 {
            true => last,
            false => replication.get(id).and_then(Option::as_ref).map_or(0, |at| at.index),
        };
        let all: Vec<u64> = replication.keys().copied().chain([self.own.0]).collect();
        let matched: BTreeMap<MemberId, LogIndex> =
            all.iter().map(|id| (MemberId(*id), index_to_ours(index(id)))).collect();
        let ready = |id: &&u64| index(id).saturating_add(MEMBER_LAG_ENTRIES_MAX) >= last;
        let caught_up = all.iter().filter(ready).copied().map(MemberId).collect();
        let members = members_to_ours(metrics.membership_config.membership());
        let changing = members.joint.is_some()
            || metrics.membership_config != metrics.committed_membership_config;
        // During a change the old ones vote as well, also those that do not vote after it.
        let old = members.voters.clone();
        let voters = members.joint.unwrap_or(members.voters);
        let listens = |id: &MemberId| !voters.contains(id) && !old.contains(id);
        let learners = members.peers.into_keys().filter(listens).collect();
        let standing = Standing {
            leader: self.own,
            voters,
            changing,
            learners,
            answers: self.answers(&metrics),
            caught_up,
        };
        Some(LeaderView {
            term: metrics.current_term,
            last: index_to_ours(last),
            matched,
            standing,
        })
    }

    /// Who answered lately.
    fn answers(&self, metrics: &RaftMetrics<Config>) -> BTreeSet<MemberId> {
        let silent_ms = SILENT_HEARTBEATS * self.raft.config().heartbeat_interval;
        let silent = Duration::from_millis(silent_ms);
        let heard = metrics.heartbeat.iter().flatten().filter_map(|(id, at)| {
            at.as_ref().filter(|at| at.elapsed() < silent).map(|_| MemberId(*id))
        });
        heard.chain([self.own]).collect()
    }

    /// The other voters that could take over, as far as this leader knows: of those that answer
    /// the one with the most of the log first.
    pub(crate) fn successors(&self) -> Vec<MemberId> {
        let Some(LeaderView { matched, standing, .. }) = self.view() else { return Vec::new() };
        let fit = |id: &MemberId| {
            *id != self.own && standing.voters.contains(id) && standing.answers.contains(id)
        };
        let mut found: Vec<_> = matched.into_iter().filter(|(id, _)| fit(id)).collect();
        found.sort_by_key(|(_, index)| std::cmp::Reverse(*index));
        found.into_iter().map(|(id, _)| id).collect()
    }

    /// Takes a member that does not vote out of the cluster.
    pub(crate) async fn forget(&self, id: MemberId) -> Result<(), MembersError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
        self.explain(self.raft.change_membership(change, false).await.map(|_| ()))
    }
}
