//! How the cluster is, and each of its members.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::proposer::{DiskReport, Leadership};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use yard_common::ErrorCode;
use yard_common::id::MemberId;
use yard_common::state::NodeState;
use yard_core::state::State;
use yard_proto::internal::{AboutResponse, LeaderView, Progress};
use yard_proto::{convert, v1};

/// What each member says of itself, or why it says nothing.
pub(super) type Told = BTreeMap<MemberId, Result<AboutResponse, String>>;

impl Api {
    /// As this member sees it, also while nobody leads.
    pub(super) async fn cluster_status(
        &self,
        _: &Who,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusResponse, Refusal> {
        let told = self.ask_members(request.brief).await;
        let (index, state) = self.raft.state();
        let leader = match *self.raft.leadership().borrow() {
            Leadership::Leader { id, .. } => Some((id.term, id.member)),
            // The term of another leader is known once its first entry is applied.
            Leadership::Follower { leader } => leader.map(|leader| {
                let known = state.leader.filter(|id| id.member == leader);
                (known.map_or(0, |id| id.term), leader)
            }),
        };
        Ok(v1::StatusResponse {
            cluster_id: convert::cluster_id_bytes(self.cluster),
            incarnation: state.incarnation.0,
            feature_level: state.feature_level.0,
            feature_level_max: self.build.feature_level_max.0,
            leader: leader.map(|(term, member)| v1::Leader { term, member_id: member.0 }),
            members: self.told_members(&state, leader.map(|(_, member)| member), &told),
            applied_index: index.0,
            committed_index: index.0,
            now: Some(self.now(&state).into()),
            answered_by: self.id.0,
            version: self.build.version.into(),
            counts: Some(counts(&state)),
            features: self.features.list().map(|feature| feature.name().to_string()).collect(),
            members_index: state.membership.id.0.0,
            alarms: self.alarms(),
        })
    }

    /// Disks that are full, as far as it was heard of, and what this member found to differ.
    fn alarms(&self) -> Vec<v1::Alarm> {
        let full = self.raft.disks().into_iter().filter(|(_, disk)| disk.is_full);
        let alarm = |(member, disk): (MemberId, DiskReport)| v1::Alarm {
            member_id: member.0,
            code: ErrorCode::DiskFull.to_string(),
            message: format!("the disk is full: {} MiB are free", disk.free_bytes >> 20),
        };
        let differs = self.raft.difference().map(|what| v1::Alarm {
            member_id: self.id.0,
            code: ErrorCode::MembersDiffer.to_string(),
            message: format!("it found another coordinator to differ, {what}"),
        });
        full.map(alarm).chain(differs).collect()
    }

    /// Asks all members at once, each with a deadline; with `brief` only itself.
    pub(super) async fn ask_members(&self, brief: bool) -> Told {
        let mut peers = self.raft.peers();
        peers.remove(&self.id);
        if brief {
            peers.clear();
        }
        let asked = peers.iter().map(|(id, peer)| async move {
            let answer = self.peers.about(*id, &peer.address).await;
            (*id, answer.map_err(|error| error.to_string()))
        });
        let mut told: Told = join_all(asked).await.into_iter().collect();
        told.insert(self.id, Ok(self.about_itself()));
        told
    }

    /// How this member is.
    pub(super) fn about_itself(&self) -> AboutResponse {
        let leads = self.raft.view().filter(|_| self.leads()).map(|view| LeaderView {
            term: view.term,
            last_index: view.last.0,
            progress: view
                .matched
                .iter()
                .map(|(id, index)| Progress { member_id: id.0, matched_index: index.0 })
                .collect(),
        });
        AboutResponse {
            version: self.build.version.into(),
            applied_index: self.raft.state().0.0,
            certificate_expires_wall_ms: self.certificate.ends_wall_ms(),
            flush_p99_us: self.raft.flush_p99_us(),
            leads,
            feature_level_max: self.build.feature_level_max.0,
        }
    }

    pub(super) fn told_members(
        &self,
        state: &State,
        leader: Option<MemberId>,
        told: &Told,
    ) -> Vec<v1::Member> {
        let mut addresses: BTreeMap<MemberId, String> =
            state.members.iter().map(|(id, record)| (*id, record.address.to_string())).collect();
        addresses.extend(self.raft.peers().into_iter().map(|(id, peer)| (id, peer.address)));
        let views = told.values().flatten().filter_map(|about| about.leads.as_ref());
        // An old leader may not know yet that it is none.
        let view = views.max_by_key(|view| view.term);
        let members = addresses.into_iter().map(|(id, address)| {
            let mut member = v1::Member { id: id.0, address, ..Default::default() };
            member.leaves = state.members.get(&id).is_some_and(|record| record.leaves);
            member.set_role(match state.membership.is_voter(id) {
                _ if leader == Some(id) => v1::MemberRole::Leader,
                true => v1::MemberRole::Follower,
                false => v1::MemberRole::Learner,
            });
            match told.get(&id) {
                Some(Ok(about)) => {
                    member.version.clone_from(&about.version);
                    member.feature_level_max = Some(about.feature_level_max);
                    member.applied_index = Some(about.applied_index);
                    member.flush_p99_us = about.flush_p99_us;
                    member.certificate_expires_wall_ms = Some(about.certificate_expires_wall_ms);
                }
                Some(Err(why)) => member.unreachable.clone_from(why),
                None => {}
            }
            if let Some(view) = view {
                let known = view.progress.iter().find(|known| known.member_id == id.0);
                member.matched_index = known.map(|known| known.matched_index);
                member.lag_entries =
                    known.map(|known| view.last_index.saturating_sub(known.matched_index));
            }
            member
        });
        members.collect()
    }
}

fn counts(state: &State) -> v1::ClusterCounts {
    let mut counts = v1::ClusterCounts {
        nodes: u32::try_from(state.nodes.len()).unwrap_or(u32::MAX),
        jobs: state.jobs.len() as u64,
        jobs_live: (state.jobs.len() as u64).saturating_sub(state.ended.len() as u64),
        allocations: state.allocations.len() as u64,
        ..v1::ClusterCounts::default()
    };
    for (_, node) in state.nodes.iter() {
        counts.gpus += node.facts.devices.len() as u64;
        if node.state == NodeState::Up {
            counts.nodes_up += 1;
            counts.gpus_free += node.free_devices().positions().count() as u64;
        }
    }
    counts
}
