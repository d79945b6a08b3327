//! Messages that this member sends.

use super::acks::Acks;
use super::transport::{Lane, Letter, Question, Transport, TransportError};
use super::types::{
    Config, entry_to_ours, position_to_ours, position_to_raft, vote_to_ours, vote_to_raft,
};
use super::wire::{
    AppendAsk, AppendSay, SnapshotAsk, SnapshotSay, TransferAsk, TransferSay, VoteAsk, VoteSay,
    pack,
};
use crate::env::{Env, run_blocking};
use crate::storage::{Peer, Snapshot, StorageError};
use futures_util::future::{Either, select};
use minicbor::{Decode, Encode};
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use yard_common::id::MemberId;

/// How long the flush of entries at a follower may take. openraft's own limit is the period of
/// heartbeats: on a slow disk everything would be sent again and again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one piece of a snapshot may take, the last one apart.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Reaches all members.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) env: Arc<dyn Env>,
    pub(super) own: MemberId,
    pub(super) acks: Acks,
}

/// Reaches one member on one lane.
pub(super) struct Link {
    network: Network,
    to: MemberId,
    peer: Peer,
    lane: Lane,
}

impl Network {
    fn link(&self, to: u64, peer: &Peer, lane: Lane) -> Link {
        Link { network: self.clone(), to: MemberId(to), peer: peer.clone(), lane }
    }
}

impl RaftNetworkFactory<Config> for Network {
    type Network = Link;

    async fn new_client(&mut self, to: u64, peer: &Peer) -> Link {
        self.link(to, peer, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, to: u64, peer: &Peer) -> Link {
        self.link(to, peer, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, to: u64, peer: &Peer) -> Link {
        self.link(to, peer, Lane::Snapshot)
    }
}

impl Link {
    async fn ask<A, S>(
        &self,
        question: Question,
        ask: &A,
        deadline: Duration,
    ) -> Result<S, RPCError<Config>>
    where
        A: Encode<()>,
        S: for<'b> Decode<'b, ()>,
    {
        let lane = match question {
            Question::Vote | Question::PreVote | Question::Transfer | Question::Compare => {
                Lane::Control
            }
            Question::Append | Question::Snapshot => self.lane,
        };
        let (to, peer, body) = (self.to, self.peer.clone(), pack(ask));
        let letter = Letter { to, peer, lane, question, body, deadline };
        let answer = self.network.transport.ask(letter);
        let answer = match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(error, question, deadline))?,
            Err(_) => return Err(self.too_late(question, deadline)),
        };
        minicbor::decode(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    fn too_late(&self, question: Question, timeout: Duration) -> RPCError<Config> {
        let action = match question {
            Question::Append => RPCTypes::AppendEntries,
            Question::Vote | Question::PreVote => RPCTypes::Vote,
            Question::Snapshot => RPCTypes::InstallSnapshot,
            Question::Transfer | Question::Compare => RPCTypes::TransferLeader,
        };
        let (id, target) = (self.network.own.0, self.to.0);
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }

    fn explain(
        &self,
        error: TransportError,
        question: Question,
        deadline: Duration,
    ) -> RPCError<Config> {
        match error {
            TransportError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Timeout(_) => self.too_late(question, deadline),
            TransportError::Failed(..) => RPCError::Network(NetworkError::new(&error)),
        }
    }

    async fn ask_for_vote(
        &self,
        question: Question,
        rpc: VoteRequest<Config>,
        deadline: Duration,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        let last = rpc.last_log_id.as_ref().map(position_to_ours);
        let vote = vote_to_ours(&rpc.vote);
        let ask = VoteAsk { vote, last, transfer: rpc.leadership_transfer };
        let say: VoteSay = self.ask(question, &ask, deadline).await?;
        let last = say.last.map(position_to_raft);
        Ok(VoteResponse::new(vote_to_raft(say.vote), last, say.granted))
    }

    /// Sends a snapshot piece by piece.
    async fn send(
        &self,
        vote: VoteOf<Config>,
        snapshot: Snapshot,
        last_timeout: Duration,
    ) -> Result<SnapshotResponse<Config>, StreamingError<Config>> {
        let chunks = snapshot.chunks().max(1);
        let mut chunk = 0;
        while chunk < chunks {
            let last = chunk + 1 == chunks;
            let reading = snapshot.clone();
            let read = run_blocking(&*self.network.env, move || reading.chunk(chunk)).await;
            let bytes = read.map_err(|error: StorageError| {
                StreamingError::Network(NetworkError::new(&error))
            })?;
            let (vote, meta) = (vote_to_ours(&vote), snapshot.meta().clone());
            let ask = SnapshotAsk { vote, meta, chunk, last, bytes };
            let deadline = if last { last_timeout } else { CHUNK_TIMEOUT };
            match self.ask(Question::Snapshot, &ask, deadline).await? {
                SnapshotSay::Next => chunk += 1,
                SnapshotSay::Done(vote) => return Ok(SnapshotResponse::new(vote_to_raft(vote))),
                SnapshotSay::Again => break,
            }
        }
        // Another transfer came in between; openraft tries again after a pause.
        Err(StreamingError::Unreachable(Unreachable::from_string("the pieces came out of order")))
    }
}

impl RaftNetworkV2<Config> for Link {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Config>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Config>, RPCError<Config>> {
        let ask = AppendAsk {
            vote: vote_to_ours(&rpc.vote),
            previous: rpc.prev_log_id.as_ref().map(position_to_ours),
            entries: rpc.entries.into_iter().map(entry_to_ours).collect(),
            commit: rpc.leader_commit.as_ref().map(position_to_ours),
        };
        let deadline = match self.lane {
            Lane::Log => APPEND_TIMEOUT.max(option.hard_ttl()),
            Lane::Control | Lane::Snapshot => option.hard_ttl(),
        };
        let acks = &self.network.acks;
        // As of now: a heartbeat may be overtaken by the entries that its answer lacks.
        let acked = acks.of(self.to);
        let last = ask.entries.last().map(|entry| entry.position);
        let say = self.ask(Question::Append, &ask, deadline).await?;
        if let AppendSay::All = say
            && let Some(last) = last
        {
            acks.note(self.to, ask.vote, last);
        }
        Ok(match say {
            AppendSay::All => AppendEntriesResponse::Success,
            AppendSay::UpTo(last) => {
                AppendEntriesResponse::PartialSuccess(last.map(position_to_raft))
            }
            AppendSay::Conflict if acked.is_some_and(|a| a.covers(ask.vote, ask.previous)) => {
                tracing::error!(member = %self.to, "it lacks what it has acked: an older copy?");
                let text = format!("member {} lacks what it has acked", self.to);
                return Err(RPCError::Unreachable(Unreachable::from_string(text)));
            }
            AppendSay::Conflict => AppendEntriesResponse::Conflict,
            AppendSay::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_to_raft(vote)),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        self.ask_for_vote(Question::Vote, rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        self.ask_for_vote(Question::PreVote, rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Config>,
        snapshot: SnapshotOf<Config, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Config>, StreamingError<Config>> {
        let send = self.send(vote, snapshot.snapshot, option.hard_ttl());
        match select(pin!(send), pin!(cancel)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Config>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Config>, RPCError<Config>> {
        let ask = TransferAsk {
            from: vote_to_ours(rpc.from_leader()),
            to: MemberId(*rpc.to_node_id()),
            last: rpc.last_log_id().map(position_to_ours),
        };
        let say = self.ask(Question::Transfer, &ask, option.hard_ttl()).await?;
        Ok(match say {
            TransferSay::Yes => Ok(()),
            TransferSay::OtherVote { expected, actual } => Err(TransferLeaderError::VoteChanged {
                expected: vote_to_raft(expected),
                actual: vote_to_raft(actual),
            }),
            TransferSay::NotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: expected.map(position_to_raft),
                    actual: actual.map(position_to_raft),
                })
            }
        })
    }
}
