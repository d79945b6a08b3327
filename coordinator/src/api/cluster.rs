//! The calls about the cluster itself.

use super::Api;
use super::gate::Who;
use super::read::View;
use super::refusal::Refusal;
use super::serve::serve;
use crate::proposer::{DiskReport, Leadership};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::{FeatureLevel, MemberId, PrincipalId, QueueId};
use yard_common::state::NodeState;
use yard_core::command::{Actor, Cluster, Command, Role};
use yard_core::state::{State, UsageKey};
use yard_proto::convert::error::Refused;
use yard_proto::convert::page;
use yard_proto::v1::cluster_service_server::ClusterService;
use yard_proto::{convert, v1};

/// The highest feature level that this version understands.
const FEATURE_LEVEL_MAX: FeatureLevel = FeatureLevel(0);
/// How long another member may take to become the leader.
const HAND_OVER: Duration = Duration::from_secs(5);

serve!(ClusterService [EventsStream = v1::WatchResponse] {
    status: v1::StatusRequest => v1::StatusResponse = cluster_status;
    events: v1::EventsRequest => Self::EventsStream = watch_all;
    raise_feature_level: v1::RaiseFeatureLevelRequest => v1::Changed = raise_level;
    transfer_leader: v1::TransferLeaderRequest => v1::TransferLeaderResponse = hand_over;
    create_member_token: v1::CreateMemberTokenRequest => v1::CreateMemberTokenResponse = no_token;
    add_member: v1::AddMemberRequest => v1::MembersResponse = no_addition;
    remove_member: v1::RemoveMemberRequest => v1::MembersResponse = no_removal;
    usage: v1::UsageRequest => v1::UsageResponse = usage;
});

impl Api {
    /// As this member sees it, also while nobody leads.
    async fn cluster_status(
        &self,
        _: &Who,
        _: v1::StatusRequest,
    ) -> Result<v1::StatusResponse, Refusal> {
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
            feature_level_max: FEATURE_LEVEL_MAX.0,
            leader: leader.map(|(term, member)| v1::Leader { term, member_id: member.0 }),
            members: self.told_members(&state, leader.map(|(_, member)| member)),
            applied_index: index.0,
            committed_index: index.0,
            now: Some(self.now(&state).into()),
            answered_by: self.id.0,
            version: env!("CARGO_PKG_VERSION").into(),
            counts: Some(counts(&state)),
            alarms: self.alarms(),
            features: self.features.list().map(|feature| feature.name().to_string()).collect(),
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

    fn told_members(&self, state: &State, leader: Option<MemberId>) -> Vec<v1::Member> {
        let told = self.raft.peers().into_iter().map(|(id, peer)| {
            let mut member = v1::Member { id: id.0, address: peer.address, ..Default::default() };
            if id == self.id {
                member.version = env!("CARGO_PKG_VERSION").into();
            }
            member.set_role(match state.membership.is_voter(id) {
                _ if leader == Some(id) => v1::MemberRole::Leader,
                true => v1::MemberRole::Follower,
                false => v1::MemberRole::Learner,
            });
            member
        });
        told.collect()
    }

    async fn raise_level(
        &self,
        _: &Who,
        request: v1::RaiseFeatureLevelRequest,
    ) -> Result<v1::Changed, Refusal> {
        let level = FeatureLevel(request.level);
        if level > FEATURE_LEVEL_MAX {
            let problem = format!("{level}; this version understands {FEATURE_LEVEL_MAX}");
            return Err(Refusal::invalid("level", &problem));
        }
        // The gate has made sure that an admin asks; in the log it is the leader's own doing.
        let command = Command::Cluster(Cluster::RaiseFeatureLevel(level));
        let written = self.write(Actor::Leader, &request.request_id, command).await?;
        Ok(v1::Changed { applied_index: written.index.0 })
    }

    async fn hand_over(
        &self,
        _: &Who,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Refusal> {
        if !self.leads() {
            let refused = Refused::plain(Code::Unavailable, "this member does not lead");
            let leader = self.leader().and_then(|leader| self.address_of(leader));
            return Err(match leader {
                Some(leader) => refused.with("leader", leader.address).into(),
                None => refused.into(),
            });
        }
        let to = match request.member_id {
            0 => self.raft.successor(),
            id => Some(MemberId(id)).filter(|id| self.raft.peers().contains_key(id)),
        };
        let to = to.ok_or_else(|| {
            let message = "there is no other member that could lead";
            Refusal::new(Code::FailedPrecondition, ErrorCode::WrongState, message)
        })?;
        if to != self.id {
            let asked = self.raft.transfer_leadership(to).await;
            asked.map_err(|error| Refusal::unavailable(error.to_string()))?;
        }
        let mut leadership = self.raft.leadership();
        let leads = |now: &Leadership| match now {
            Leadership::Leader { id, .. } => id.member == to,
            Leadership::Follower { leader } => *leader == Some(to),
        };
        match timeout(HAND_OVER, leadership.wait_for(leads)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => {
                return Err(Refusal::unavailable(format!("member {to} did not take the lead")));
            }
        }
        let (_, state) = self.raft.state();
        let term = state.leader.filter(|id| id.member == to).map_or(0, |id| id.term);
        Ok(v1::TransferLeaderResponse { leader: Some(v1::Leader { term, member_id: to.0 }) })
    }

    async fn no_token(
        &self,
        _: &Who,
        _: v1::CreateMemberTokenRequest,
    ) -> Result<v1::CreateMemberTokenResponse, Refusal> {
        Err(Refusal::not_yet("members that join"))
    }

    async fn no_addition(
        &self,
        _: &Who,
        _: v1::AddMemberRequest,
    ) -> Result<v1::MembersResponse, Refusal> {
        Err(Refusal::not_yet("members that join"))
    }

    async fn no_removal(
        &self,
        _: &Who,
        _: v1::RemoveMemberRequest,
    ) -> Result<v1::MembersResponse, Refusal> {
        Err(Refusal::not_yet("members that leave"))
    }

    async fn usage(
        &self,
        who: &Who,
        request: v1::UsageRequest,
    ) -> Result<v1::UsageResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let after = match page::after_name(request.page.as_ref()) {
            "" => None,
            key => Some(usage_key(key).ok_or(convert::ConvertError::BadKey)?),
        };
        let owner = match request.owner.as_str() {
            "" => None,
            // Whether there is such a user is nobody's business but an operator's.
            name => Some(convert::user_id(&view.state, name).ok()),
        };
        let queue = match request.queue.as_str() {
            "" => None,
            name => Some(convert::queue_id(&view.state, name)?),
        };
        let last_day = if request.last_day == 0 { u32::MAX } else { request.last_day };
        let rows = view.state.usage.iter().filter(|(key, _)| {
            after.as_ref().is_none_or(|after| *key > after)
                && (request.first_day..=last_day).contains(&key.day)
                && owner.is_none_or(|owner| owner == Some(key.owner))
                && queue.is_none_or(|queue| queue == key.queue)
                && sees_use(&view, key)
        });
        let told = rows.map(|(key, usage)| {
            let name = format!("{}/{}/{}/{}", key.day, key.owner, key.queue, key.model);
            (name, convert::usage_row(&view.state, key, usage))
        });
        let (rows, next_key) = super::read::page_of(told, request.page.as_ref());
        Ok(v1::UsageResponse { rows, page: Some(view.page_info(next_key)) })
    }
}

/// One's own, and everybody's for those who see the whole cluster.
fn sees_use(view: &View, key: &UsageKey) -> bool {
    key.owner == view.user || view.has_everywhere(Role::Viewer)
}

/// A row's key, as a page before has given it.
fn usage_key(text: &str) -> Option<UsageKey> {
    let mut parts = text.splitn(4, '/');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (day, owner, queue) = (number()?, PrincipalId(number()?), QueueId(number()?));
    Some(UsageKey { day, owner, queue, model: parts.next()?.into() })
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
