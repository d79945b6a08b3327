//! What a member asks the others, over connections that are kept.
//!
//! **Invariants.** The other end has proved to be the member that is meant before a byte is sent.
//! Every question has a deadline. Questions of different kinds have connections of their own: a
//! heartbeat never waits behind a piece of a snapshot.

mod lines;

use self::lines::{Line, Lines};
use crate::env::Env;
use crate::member::attempts::Page;
use crate::pace::Pace;
use crate::raft::{Lane, Letter, Question, Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use yard_common::ErrorCode;
use yard_common::id::{AllocationId, Incarnation, LogIndex, MemberId, NodeId};
use yard_common::limits::MEMBER_FRAME_BYTES_MAX;
use yard_proto::LIFE;
use yard_proto::convert::error::Refused;
use yard_proto::internal::member_service_client::MemberServiceClient;
use yard_proto::internal::{
    AboutRequest, AboutResponse, CallAgentRequest, DataCall, ForwardRequest, RaftMessage,
    ReadIndexRequest, ReadLogCopyRequest, ReadLogCopyResponse, RecallRequest, SweepRequest,
    forward_response, read_index_response,
};
use yard_proto::wire::{Forward, Forwarded, Payload, PayloadError, Sweep, Swept};
use yard_runtime::identity::Principal;
use yard_runtime::tls::{ClientTls, ConnectError, Expect, channel_over};

/// An answer that only a leader gives.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// It.
    Answer(T),
    /// Whoever was asked does not lead.
    NotLeader,
}

/// Why a member gave no answer.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    /// Its address.
    #[error("its address is not legal")]
    Address(#[from] ConnectError),
    /// The question or the answer is not within its bounds.
    #[error("a message is not legal")]
    Payload(#[from] PayloadError),
    /// It, or the way to it.
    #[error("the call failed: {0}")]
    Call(Box<Status>),
    /// It is of another life of the cluster.
    #[error("it is of life {0} of the cluster")]
    OtherLife(Incarnation),
    /// It has as much to do as it takes. Nothing was done.
    #[error("it is busy")]
    Busy {
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// It took too long.
    #[error("it did not answer in time")]
    Late,
    /// It answered nothing that this version knows.
    #[error("its answer has a form that is not known")]
    Unknown,
}

/// Connections to the other members.
pub(crate) struct Peers {
    tls: Arc<ClientTls>,
    env: Arc<dyn Env>,
    lines: Lines,
    life: Incarnation,
    pace: Pace,
    shut_out: ShutOut,
}

impl Peers {
    /// Connections of a member of this life of the cluster.
    pub(crate) fn new(
        tls: Arc<ClientTls>,
        env: Arc<dyn Env>,
        life: Incarnation,
        pace: Pace,
    ) -> Peers {
        let lines = Lines::new(pace.silent());
        Peers { tls, env, lines, life, pace, shut_out: ShutOut::default() }
    }

    /// Waits until another member says that this one was removed. Returns who does.
    pub(crate) async fn shut_out(&self) -> MemberId {
        self.shut_out.wait().await
    }

    /// Makes new connections from now on: the certificate of this member is another one.
    pub(crate) fn reconnect(&self) {
        self.lines.clear();
    }

    fn client(
        &self,
        to: MemberId,
        address: &str,
        line: Line,
    ) -> Result<MemberServiceClient<Channel>, ConnectError> {
        let channel = self.lines.channel((to, line), address, || {
            let env = Arc::clone(&self.env);
            let dial = move |host, port| env.dial(host, port);
            channel_over(address, &self.tls, Expect::Only(Principal::Member(to)), dial)
        })?;
        let client = MemberServiceClient::new(channel);
        Ok(client
            .max_decoding_message_size(MEMBER_FRAME_BYTES_MAX)
            .max_encoding_message_size(MEMBER_FRAME_BYTES_MAX))
    }

    /// A question, with the life of the cluster that it is asked in.
    fn said<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(LIFE, self.life.0.into());
        request
    }

    /// A question on the line for work; whether anything comes back is kept in mind.
    async fn work<T>(
        &self,
        to: MemberId,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        let question = self.lines.ask((to, Line::Work));
        let answer = self.within(to, wait, call).await;
        match &answer {
            Err(PeerError::Late) => drop(question),
            Ok(_) | Err(_) => question.heard(),
        }
        answer
    }

    async fn within<T>(
        &self,
        to: MemberId,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        let answer = timeout(wait, call).await.map_err(|_| PeerError::Late)?;
        let head = match &answer {
            Ok(response) => response.metadata(),
            Err(status) => status.metadata(),
        };
        if let Some(other) = other_life(self.life, head) {
            return Err(PeerError::OtherLife(other));
        }
        answer.map(Response::into_inner).map_err(|status| {
            self.shut_out.look(to, &status);
            PeerError::Call(Box::new(status))
        })
    }

    /// A position of the log, from the leader.
    pub(crate) async fn read_index(
        &self,
        to: MemberId,
        address: &str,
    ) -> Result<Asked<LogIndex>, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let call = client.read_index(self.said(ReadIndexRequest {}));
        let response = self.work(to, self.pace.search(), call).await?;
        match response.answer.ok_or(PeerError::Unknown)? {
            read_index_response::Answer::Index(index) => Ok(Asked::Answer(LogIndex(index))),
            read_index_response::Answer::NotLeader(_) => Ok(Asked::NotLeader),
        }
    }

    /// A command, for the leader to propose.
    pub(crate) async fn forward(
        &self,
        to: MemberId,
        address: &str,
        forward: &Forward,
    ) -> Result<Asked<Forwarded>, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let request = self.said(ForwardRequest { payload: forward.to_payload()? });
        let response = self.work(to, self.pace.search(), client.forward(request)).await?;
        match response.answer.ok_or(PeerError::Unknown)? {
            forward_response::Answer::Payload(bytes) => {
                Ok(Asked::Answer(Forwarded::from_payload(&bytes)?))
            }
            forward_response::Answer::NotLeader(_) => Ok(Asked::NotLeader),
            forward_response::Answer::Busy(busy) => {
                Err(PeerError::Busy { retry_after_ms: busy.retry_after_ms })
            }
        }
    }

    /// The leader asks how silent nodes are.
    pub(crate) async fn sweep(
        &self,
        to: MemberId,
        address: &str,
        sweep: &Sweep,
    ) -> Result<Swept, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let request = self.said(SweepRequest { payload: sweep.to_payload()? });
        let response = self.work(to, self.pace.answer(), client.sweep(request)).await?;
        Ok(Swept::from_payload(&response.payload)?)
    }

    /// How a member is.
    pub(crate) async fn about(
        &self,
        to: MemberId,
        address: &str,
    ) -> Result<AboutResponse, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let call = client.about(self.said(AboutRequest {}));
        self.within(to, self.pace.answer(), call).await
    }

    /// A piece of what a member has copied of a rank's output.
    pub(crate) async fn log_copy(
        &self,
        to: MemberId,
        address: &str,
        request: ReadLogCopyRequest,
    ) -> Result<ReadLogCopyResponse, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let call = client.read_log_copy(self.said(request));
        self.within(to, self.pace.search(), call).await
    }

    /// What a member remembers of attempts, from an allocation on.
    pub(crate) async fn recall(
        &self,
        to: MemberId,
        address: &str,
        from: AllocationId,
    ) -> Result<Page, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let call = client.recall(self.said(RecallRequest { from_allocation_id: from.0 }));
        let response = self.within(to, self.pace.search(), call).await?;
        Ok(Page::from_payload(&response.payload)?)
    }

    /// The leader shall tell an agent to dial back. Whether its stream is open.
    pub(crate) async fn call_agent(
        &self,
        to: MemberId,
        address: &str,
        node: NodeId,
        call: DataCall,
    ) -> Result<Asked<bool>, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let request = self.said(CallAgentRequest { node_id: node.0, call: Some(call) });
        let response = self.work(to, self.pace.search(), client.call_agent(request)).await?;
        Ok(match response.not_leader {
            Some(_) => Asked::NotLeader,
            None => Asked::Answer(response.told),
        })
    }
}

/// Whether another member said that this one was removed. Clones are the same.
#[derive(Clone, Default)]
struct ShutOut(watch::Sender<Option<MemberId>>);

impl ShutOut {
    /// Looks at a refusal of a member of the same life.
    fn look(&self, by: MemberId, status: &Status) {
        let removed = status.code() == Code::Unauthenticated
            && Refused::read(status).reason == ErrorCode::NotAMember.to_string();
        if removed {
            self.0.send_replace(Some(by));
        }
    }

    async fn wait(&self) -> MemberId {
        let mut said = self.0.subscribe();
        let by = said.wait_for(Option::is_some).await.ok().and_then(|by| *by);
        match by {
            Some(by) => by,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }
}

/// The life of whoever answers, if it is another one than this.
fn other_life(own: Incarnation, head: &MetadataMap) -> Option<Incarnation> {
    let told = head.get(LIFE)?.to_str().ok()?.parse().ok().map(Incarnation)?;
    (told != own).then_some(told)
}

impl Transport for Peers {
    fn ask(&self, letter: Letter) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let Letter { to, peer, lane, question, body, deadline } = letter;
        let line = match lane {
            Lane::Control => Line::Control,
            Lane::Log => Line::Log,
            Lane::Snapshot => Line::Snapshot,
        };
        let client = self.client(to, &peer.address, line);
        let (lines, end) = (self.lines.clone(), (to, line));
        let (life, shut_out) = (self.life, self.shut_out.clone());
        let message = self.said(RaftMessage { payload: body });
        let ask = async move {
            let unreachable =
                |error: ConnectError| TransportError::Unreachable(to, error.to_string());
            let mut client = client.map_err(unreachable)?;
            let answer = async move {
                match question {
                    Question::Append => client.append(message).await,
                    Question::Vote => client.vote(message).await,
                    Question::PreVote => client.pre_vote(message).await,
                    Question::Snapshot => client.snapshot(message).await,
                    Question::Transfer => client.transfer_leader(message).await,
                    Question::Compare => client.compare(message).await,
                }
            };
            let question = lines.ask(end);
            let answer = timeout(deadline, answer).await;
            if answer.is_ok() {
                question.heard();
            }
            let answer = answer.map_err(|_| TransportError::Timeout(to))?;
            let head = match &answer {
                Ok(response) => response.metadata(),
                Err(status) => status.metadata(),
            };
            if let Some(other) = other_life(life, head) {
                return Err(TransportError::Failed(to, PeerError::OtherLife(other).to_string()));
            }
            match answer {
                Ok(response) => Ok(response.into_inner().payload),
                Err(status) if status.code() == Code::Unavailable => {
                    Err(TransportError::Unreachable(to, status.message().to_string()))
                }
                Err(status) => {
                    shut_out.look(to, &status);
                    Err(TransportError::Failed(to, status.message().to_string()))
                }
            }
        };
        ask.boxed()
    }
}
