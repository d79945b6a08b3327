//! Changes of the members, and of who leads. The leader alone makes them; any other member names
//! it, and the client follows.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::folder::FIRST_LIFE;
use crate::proposer::Leadership;
use crate::raft::LeaderView;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use yard_common::ErrorCode;
use yard_common::id::MemberId;
use yard_core::command::{Cluster, Command, Scope};
use yard_core::state::State;
use yard_proto::convert::error::Refused;
use yard_proto::{convert, v1};
use yard_runtime::identity::TokenKind;

/// How long another member may take to become the leader.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long a change may take until whoever asked hears how far it is.
const CHANGE: Duration = Duration::from_secs(20);
/// How long a new leader may take to hear of the others.
const HEAR: Duration = Duration::from_secs(1);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

impl Api {
    /// Whoever was asked does not lead; who does, if it is known.
    pub(super) fn not_leading(&self) -> Refusal {
        self.led_by(self.leader().filter(|leader| *leader != self.id))
    }

    fn led_by(&self, leader: Option<MemberId>) -> Refusal {
        let message = "this member does not lead";
        let refused = Refused::new(Code::Unavailable, ErrorCode::StaleLeader, message);
        match leader.and_then(|leader| self.address_of(leader)) {
            Some(leader) => refused.with("leader", leader.address).into(),
            None => refused.retry_after(100).into(),
        }
    }

    /// A token with which a machine joins as a member.
    pub(super) async fn member_token(
        &self,
        who: &Who,
        request: v1::CreateMemberTokenRequest,
    ) -> Result<v1::CreateMemberTokenResponse, Refusal> {
        let what = (TokenKind::Member, Scope::Member);
        let minted = self.mint(who, &request.request_id, what, request.life_ms).await?;
        Ok(v1::CreateMemberTokenResponse {
            token: Some(minted.text),
            token_id: convert::token_id_bytes(minted.id),
            expires_wall_ms: minted.expires_wall_ms,
        })
    }

    /// Lets a member vote.
    pub(super) async fn add_member(
        &self,
        who: &Who,
        request: v1::AddMemberRequest,
    ) -> Result<v1::MembersResponse, Refusal> {
        if !self.leads() {
            return Err(self.not_leading());
        }
        let id = MemberId(request.member_id);
        self.ask_for(who, Cluster::AddMember(id)).await?;
        let votes = |state: &State| {
            state.membership.joint.is_none() && state.membership.voters.contains(&id)
        };
        if self.becomes(votes).await {
            return Ok(self.members_now());
        }
        let lag = self.raft.view().and_then(|view| {
            view.matched.get(&id).map(|matched| view.last.0.saturating_sub(matched.0))
        });
        let why = match lag {
            Some(lag) => format!("it lacks {lag} entries of the log, or does not answer"),
            None => "it does not listen yet: run it".into(),
        };
        let message = format!("member {id} votes as soon as it can, which is not yet: {why}");
        Err(Refusal::new(Code::FailedPrecondition, ErrorCode::WrongState, message))
    }

    /// Takes a member out.
    pub(super) async fn remove_member(
        &self,
        who: &Who,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::MembersResponse, Refusal> {
        let id = MemberId(request.member_id);
        let (_, state) = self.raft.state();
        // Done twice it is as done once; whoever never was there is another matter.
        // Members of a life that began with a restore have numbers from its own on.
        let first = if state.incarnation > FIRST_LIFE { u64::from(state.incarnation.0) } else { 1 };
        if (first..=state.member_last).contains(&id.0) && !self.is_there(id, &state) {
            return Ok(self.members_now());
        }
        let works = |view: &LeaderView| {
            let rest = view.standing.without(id, &state.members);
            rest.is_empty() || view.standing.works(&rest)
        };
        let Some(view) = self.view_once(works).await.filter(|_| self.leads()) else {
            return Err(self.not_leading());
        };
        let rest = view.standing.without(id, &state.members);
        // Before anything is written down: what cannot be done now must not be done later, when
        // nobody expects it.
        if view.standing.voters.contains(&id) && !rest.is_empty() && !view.standing.works(&rest) {
            let answer = rest.intersection(&view.standing.answers).count();
            let message = format!(
                "of the {} voting members that would be left only {answer} answer, which is no \
                 majority; start the others first, or remove those",
                rest.len()
            );
            return Err(Refusal::new(Code::FailedPrecondition, ErrorCode::WrongState, message));
        }
        if id == self.id && !rest.is_empty() {
            let next = self.successor().await.filter(|next| rest.contains(next));
            self.hand_over_to(next).await?;
            return Err(self.led_by(next));
        }
        self.ask_for(who, Cluster::RemoveMember(id)).await?;
        if self.becomes(|state| !self.is_there(id, state)).await {
            return Ok(self.members_now());
        }
        Err(Refusal::unavailable(format!("member {id} is to leave, and is not gone yet")))
    }

    /// Another member is to lead.
    pub(super) async fn hand_over(
        &self,
        _: &Who,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Refusal> {
        if !self.leads() {
            return Err(self.not_leading());
        }
        let (_, state) = self.raft.state();
        let to = match request.member_id {
            0 => {
                let others = |view: &LeaderView| view.standing.answers.len() > 1;
                self.view_once(others).await;
                self.successor().await
            }
            id => Some(MemberId(id)).filter(|id| state.membership.is_voter(*id)),
        };
        // One that does not answer would be waited for, and nobody could write meanwhile.
        let answers = |view: &LeaderView| to.is_none_or(|to| view.standing.answers.contains(&to));
        if let Some(to) = to
            && !self.view_once(answers).await.as_ref().is_some_and(answers)
        {
            let message = format!("member {to} does not answer");
            return Err(Refusal::new(Code::FailedPrecondition, ErrorCode::WrongState, message));
        }
        let to = self.hand_over_to(to).await?;
        let (_, state) = self.raft.state();
        let term = state.leader.filter(|id| id.member == to).map_or(0, |id| id.term);
        Ok(v1::TransferLeaderResponse { leader: Some(v1::Leader { term, member_id: to.0 }) })
    }

    /// Whether a member is part of the cluster in any way.
    fn is_there(&self, id: MemberId, state: &State) -> bool {
        let known = state.membership.is_voter(id) || state.members.contains(&id);
        known || self.raft.peers().contains_key(&id)
    }

    /// What this leader knows of the others, once it is as wanted: one that has just taken the lead
    /// has not heard of anybody yet. After a while it is as it is.
    async fn view_once(&self, wanted: impl Fn(&LeaderView) -> bool) -> Option<LeaderView> {
        let until = Instant::now() + HEAR;
        loop {
            let view = self.raft.view()?;
            if wanted(&view) || Instant::now() >= until {
                return Some(view);
            }
            sleep(LOOK).await;
        }
    }

    async fn hand_over_to(&self, to: Option<MemberId>) -> Result<MemberId, Refusal> {
        let to = to.ok_or_else(|| {
            let message = "there is no other voting member that could lead";
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
        // Its first entry is applied here: it works by now.
        let works = |state: &State| state.leader.is_some_and(|leader| leader.member == to);
        let taken = async { leadership.wait_for(leads).await.is_ok() && self.becomes(works).await };
        match timeout(HAND_OVER, taken).await {
            Ok(true) => Ok(to),
            Ok(false) | Err(_) => {
                Err(Refusal::unavailable(format!("member {to} did not take the lead")))
            }
        }
    }

    /// Has a change written down. Done twice it is as done once, so that any request id will do.
    async fn ask_for(&self, who: &Who, change: Cluster) -> Result<(), Refusal> {
        let request = self.any_request_id();
        self.change(who, &request, Command::Cluster(change)).await.map(drop)
    }

    /// Waits until the members are as wanted. False: they are not yet.
    async fn becomes(&self, wanted: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + CHANGE;
        loop {
            if wanted(&self.raft.state().1) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    fn members_now(&self) -> v1::MembersResponse {
        let (index, state) = self.raft.state();
        let members = self.told_members(&state, self.leader(), &std::collections::BTreeMap::new());
        v1::MembersResponse { members, applied_index: index.0 }
    }
}
