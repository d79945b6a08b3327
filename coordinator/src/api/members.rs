//! What members ask each other.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use super::write::disk_full;
use crate::proposer::{ProposeError, ReadError};
use crate::raft::{AnswerError, Question};
use tonic::{Code, Request, Response, Status};
use yard_common::id::{AllocationId, MemberId, NodeId};
use yard_proto::internal::member_service_server::MemberService;
use yard_proto::internal::{
    self, Busy, NotLeader, RaftMessage, forward_response, read_index_response,
};
use yard_proto::wire::{Forward, Forwarded, Payload, Sweep};

/// When a member with too much to do is to be asked again, in milliseconds.
const BUSY_MS: u64 = 50;

#[tonic::async_trait]
impl MemberService for Api {
    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::Append, request).await
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::Vote, request).await
    }

    async fn pre_vote(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::PreVote, request).await
    }

    async fn snapshot(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::Snapshot, request).await
    }

    async fn transfer_leader(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::Transfer, request).await
    }

    async fn compare(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.consensus(Question::Compare, request).await
    }

    async fn read_index(
        &self,
        _: Request<internal::ReadIndexRequest>,
    ) -> Result<Response<internal::ReadIndexResponse>, Status> {
        let answer = match self.raft.read_barrier().await {
            Ok(index) => read_index_response::Answer::Index(index.0),
            Err(ReadError::NotLeader { hint }) => {
                read_index_response::Answer::NotLeader(self.not_leader(hint))
            }
            Err(error @ (ReadError::Overloaded | ReadError::Stopped)) => {
                return Err(Refusal::unavailable(error.to_string()).into());
            }
        };
        Ok(Response::new(internal::ReadIndexResponse { answer: Some(answer) }))
    }

    async fn forward(
        &self,
        request: Request<internal::ForwardRequest>,
    ) -> Result<Response<internal::ForwardResponse>, Status> {
        Ok(Response::new(self.take_over(&request.into_inner()).await?))
    }

    async fn sweep(
        &self,
        request: Request<internal::SweepRequest>,
    ) -> Result<Response<internal::SweepResponse>, Status> {
        let asked = Sweep::from_payload(&request.get_ref().payload).map_err(Refusal::from)?;
        if Who::of(&request).member()? != asked.leader.member {
            return Err(Status::permission_denied("a sweep in the name of another member"));
        }
        let (_, state) = self.raft.state();
        let swept = self.leases.sweep(&state, &asked).await;
        let payload = swept.to_payload().map_err(Refusal::from)?;
        Ok(Response::new(internal::SweepResponse { payload }))
    }

    async fn call_agent(
        &self,
        request: Request<internal::CallAgentRequest>,
    ) -> Result<Response<internal::CallAgentResponse>, Status> {
        let internal::CallAgentRequest { node_id, call } = request.into_inner();
        let call = call.ok_or_else(|| Refusal::invalid("call", "it is missing"))?;
        let not_leader = (!self.leads()).then(|| self.not_leader(self.leader()));
        let told = not_leader.is_none() && self.sessions.call(NodeId(node_id), call);
        Ok(Response::new(internal::CallAgentResponse { told, not_leader }))
    }

    async fn join(
        &self,
        request: Request<internal::JoinMemberRequest>,
    ) -> Result<Response<internal::JoinMemberResponse>, Status> {
        Ok(Response::new(self.join_member(request.into_inner()).await?))
    }

    async fn renew_certificate(
        &self,
        request: Request<internal::RenewMemberCertificateRequest>,
    ) -> Result<Response<internal::MemberCertificate>, Status> {
        let member = Who::of(&request).member()?;
        Ok(Response::new(self.renew_member(member, &request.into_inner().csr_der)?))
    }

    async fn about(
        &self,
        _: Request<internal::AboutRequest>,
    ) -> Result<Response<internal::AboutResponse>, Status> {
        Ok(Response::new(self.about_itself()))
    }

    async fn read_log_copy(
        &self,
        request: Request<internal::ReadLogCopyRequest>,
    ) -> Result<Response<internal::ReadLogCopyResponse>, Status> {
        Ok(Response::new(self.own_copy(request.into_inner()).await))
    }

    async fn recall(
        &self,
        request: Request<internal::RecallRequest>,
    ) -> Result<Response<internal::RecallResponse>, Status> {
        let from = AllocationId(request.get_ref().from_allocation_id);
        let payload = self.attempts.page(from).to_payload().map_err(Refusal::from)?;
        Ok(Response::new(internal::RecallResponse { payload }))
    }
}

impl Api {
    /// A message of the consensus. The gate has made sure that a member sent it.
    async fn consensus(
        &self,
        question: Question,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let body = request.into_inner().payload;
        let answer = self.raft.answer(question, &body).await.map_err(|error| match error {
            AnswerError::TooLong(_) | AnswerError::Unknown(_) => {
                Status::new(Code::InvalidArgument, error.to_string())
            }
            // Whoever asks tries again after a pause, as with a member that is away.
            AnswerError::Stopped(_) | AnswerError::Full => {
                Status::new(Code::Unavailable, error.to_string())
            }
        })?;
        Ok(Response::new(RaftMessage { payload: answer }))
    }

    fn not_leader(&self, hint: Option<MemberId>) -> NotLeader {
        NotLeader { leader: hint.and_then(|hint| self.address_of(hint)) }
    }

    /// Proposes what another member was asked.
    async fn take_over(
        &self,
        request: &internal::ForwardRequest,
    ) -> Result<internal::ForwardResponse, Refusal> {
        let Forward { actor, request, command } = Forward::from_payload(&request.payload)?;
        let answer = match self.raft.propose(actor, request, &command).await {
            Ok(outcome) => {
                let (index, _) = self.raft.state();
                let payload = Forwarded { index, outcome }.to_payload()?;
                forward_response::Answer::Payload(payload)
            }
            Err(ProposeError::NotLeader { hint }) => {
                forward_response::Answer::NotLeader(self.not_leader(hint))
            }
            Err(ProposeError::Overloaded) => {
                forward_response::Answer::Busy(Busy { retry_after_ms: BUSY_MS })
            }
            Err(
                error @ (ProposeError::TooLarge { .. }
                | ProposeError::Stopped
                | ProposeError::Unknown),
            ) => return Err(Refusal::unavailable(error.to_string())),
            Err(error @ ProposeError::DiskFull) => return Err(disk_full(&error)),
        };
        Ok(internal::ForwardResponse { answer: Some(answer) })
    }
}
