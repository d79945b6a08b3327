//! What a member asks the others, over connections that are kept.
//!
//! **Invariants.** The other end has proved to be the member that is meant before a byte is sent.
//! Every question has a deadline. Questions of different kinds have connections of their own: a
//! heartbeat never waits behind a piece of a snapshot.

mod lines;

use self::lines::{Line, Lines};
use crate::env::Env;
use crate::raft::{Lane, Letter, Question, Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use yard_common::id::{LogIndex, MemberId, NodeId};
use yard_common::limits::MEMBER_FRAME_BYTES_MAX;
use yard_proto::internal::member_service_client::MemberServiceClient;
use yard_proto::internal::{
    AboutRequest, AboutResponse, CallAgentRequest, DataCall, ForwardRequest, RaftMessage,
    ReadIndexRequest, ReadLogCopyRequest, ReadLogCopyResponse, SweepRequest, forward_response,
    read_index_response,
};
use yard_proto::wire::{Forward, Forwarded, Payload, PayloadError, Sweep, Swept};
use yard_runtime::identity::Principal;
use yard_runtime::tls::{ClientTls, ConnectError, Expect, channel_over};

/// How long the leader may take to confirm a read.
const READ_WAIT: Duration = Duration::from_secs(2);
/// How long the leader may take to commit a command.
const FORWARD_WAIT: Duration = Duration::from_secs(10);
/// How long a member may take to say how it is.
const ABOUT_WAIT: Duration = Duration::from_millis(500);
/// How long a member may take to show a piece of a copy.
const COPY_WAIT: Duration = Duration::from_secs(2);
/// How long the leader may take to tell an agent something.
const CALL_WAIT: Duration = Duration::from_secs(2);

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
    /// Whether it was said already that the others do not know this member any more.
    told_shut_out: Arc<AtomicBool>,
}

impl Peers {
    pub(crate) fn new(tls: Arc<ClientTls>, env: Arc<dyn Env>) -> Peers {
        Peers { tls, env, lines: Lines::default(), told_shut_out: Arc::default() }
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

    /// A question on the line for work; whether anything comes back is kept in mind.
    async fn work<T>(
        &self,
        to: MemberId,
        call: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let question = self.lines.ask((to, Line::Work));
        let answer = call.await;
        match &answer {
            Err(PeerError::Late) => drop(question),
            Ok(_) | Err(_) => question.heard(),
        }
        answer
    }

    /// A position of the log, from the leader.
    pub(crate) async fn read_index(
        &self,
        to: MemberId,
        address: &str,
    ) -> Result<Asked<LogIndex>, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let response =
            self.work(to, within(READ_WAIT, client.read_index(ReadIndexRequest {}))).await?;
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
        let request = ForwardRequest { payload: forward.to_payload()? };
        let response = self.work(to, within(FORWARD_WAIT, client.forward(request))).await?;
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
        wait: Duration,
    ) -> Result<Swept, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        let request = SweepRequest { payload: sweep.to_payload()? };
        let response = self.work(to, within(wait, client.sweep(request))).await?;
        Ok(Swept::from_payload(&response.payload)?)
    }

    /// How a member is.
    pub(crate) async fn about(
        &self,
        to: MemberId,
        address: &str,
    ) -> Result<AboutResponse, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        within(ABOUT_WAIT, client.about(AboutRequest {})).await
    }

    /// A piece of what a member has copied of a rank's output.
    pub(crate) async fn log_copy(
        &self,
        to: MemberId,
        address: &str,
        request: ReadLogCopyRequest,
    ) -> Result<ReadLogCopyResponse, PeerError> {
        let mut client = self.client(to, address, Line::Work)?;
        within(COPY_WAIT, client.read_log_copy(request)).await
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
        let request = CallAgentRequest { node_id: node.0, call: Some(call) };
        let response = self.work(to, within(CALL_WAIT, client.call_agent(request))).await?;
        Ok(match response.not_leader {
            Some(_) => Asked::NotLeader,
            None => Asked::Answer(response.told),
        })
    }
}

/// Another member refuses this one: it was removed, or the other one is far behind.
fn shut_out(told: &AtomicBool, by: MemberId) {
    if !told.swap(true, Ordering::Relaxed) {
        tracing::error!(
            member = %by,
            "another member says that this one is not part of the cluster any more; if it was \
             removed, stop it, and run `yard coordinator reset`"
        );
    }
}

async fn within<T>(
    wait: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match timeout(wait, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(PeerError::Call(Box::new(status))),
        Err(_) => Err(PeerError::Late),
    }
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
        let told = Arc::clone(&self.told_shut_out);
        let ask = async move {
            let unreachable =
                |error: ConnectError| TransportError::Unreachable(to, error.to_string());
            let mut client = client.map_err(unreachable)?;
            let message = RaftMessage { payload: body };
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
            match answer {
                Ok(Ok(response)) => Ok(response.into_inner().payload),
                Ok(Err(status)) if status.code() == Code::Unavailable => {
                    Err(TransportError::Unreachable(to, status.message().to_string()))
                }
                Ok(Err(status)) => {
                    if status.code() == Code::Unauthenticated {
                        shut_out(&told, to);
                    }
                    Err(TransportError::Failed(to, status.message().to_string()))
                }
                Err(_) => Err(TransportError::Timeout(to)),
            }
        };
        ask.boxed()
    }
}
