//! Questions to agents: the agent dials back to the member that asks, with a ticket.

use super::Answers;
use crate::member::Member;
use crate::peers::Asked;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};
use yard_common::id::NodeId;
use yard_common::limits::{TICKET_LIFE_MS, TICKETS_MAX};
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AgentData, DataCall, MemberData, member_data};

/// A ticket: 128 bits that nobody guesses.
type Ticket = [u8; 16];

/// Tickets that were not shown yet.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<BTreeMap<Ticket, Waiting>>);

/// A question that waits for its agent.
struct Waiting {
    node: NodeId,
    ends_ms: u64,
    question: member_data::What,
    /// What follows the question. Its end says that no more is wanted.
    more: Answers<MemberData>,
    opened: oneshot::Sender<Answer>,
}

/// What an agent answers to one question. Dropping it tells the agent that no more is wanted.
pub(crate) struct Answer {
    inbound: Streaming<AgentData>,
    _wanted: DropGuard,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum AskError {
    /// Its agent has no control stream at present.
    #[error("the agent of node {0} is not in touch at present; try again")]
    NotInTouch(NodeId),
    /// It was told and did not dial back.
    #[error("the agent of node {0} did not open a data stream; can it reach this member?")]
    NoDial(NodeId),
    /// Nobody leads.
    #[error("no leader answers at present; try again")]
    NoLeader,
    /// Too many questions.
    #[error("too many questions to agents wait; try again")]
    TooMany,
}

impl Tickets {
    /// Makes a ticket. What was not shown in time is dropped first.
    fn issue(
        &self,
        member: &Member,
        node: NodeId,
        question: member_data::What,
        more: Answers<MemberData>,
    ) -> Result<(Ticket, oneshot::Receiver<Answer>), AskError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = member.env.boot_ms();
        waiting.retain(|_, one| one.ends_ms > now_ms && !one.opened.is_closed());
        if waiting.len() >= TICKETS_MAX {
            return Err(AskError::TooMany);
        }
        let (high, low) = (member.env.random(), member.env.random());
        let ticket = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        let (opened, answer) = oneshot::channel();
        let ends_ms = now_ms + TICKET_LIFE_MS;
        waiting.insert(ticket, Waiting { node, ends_ms, question, more, opened });
        Ok((ticket, answer))
    }

    /// Takes a ticket that a node shows. It is gone then, whatever comes of it.
    fn redeem(&self, shown: &[u8], node: NodeId, now_ms: u64) -> Option<Waiting> {
        let ticket = Ticket::try_from(shown).ok()?;
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = waiting.remove(&ticket)?;
        (found.node == node && found.ends_ms > now_ms).then_some(found)
    }
}

/// Asks the agent of a node something, and waits until it begins to answer.
pub(crate) async fn ask(
    member: &Member,
    node: NodeId,
    question: member_data::What,
) -> Result<Answer, AskError> {
    ask_on(member, node, question, Box::pin(stream::pending())).await
}

/// Asks as [`ask`] does, and lets more follow. When that ends, no answer is wanted any more.
pub(crate) async fn ask_on(
    member: &Member,
    node: NodeId,
    question: member_data::What,
    more: Answers<MemberData>,
) -> Result<Answer, AskError> {
    let (ticket, answer) = member.tickets.issue(member, node, question, more)?;
    let call = DataCall {
        ticket: Bytes::copy_from_slice(&ticket),
        address: member.own_address(),
        member_id: member.id.0,
    };
    if !tell(member, node, call).await? {
        return Err(AskError::NotInTouch(node));
    }
    let answer = timeout(Duration::from_millis(TICKET_LIFE_MS), answer).await;
    answer.ok().and_then(Result::ok).ok_or(AskError::NoDial(node))
}

/// Hands the call to the agent's control stream, which is on the leader.
async fn tell(member: &Member, node: NodeId, call: DataCall) -> Result<bool, AskError> {
    if member.leads() {
        return Ok(member.sessions.call(node, call));
    }
    let leader = member.leader().and_then(|leader| member.address_of(leader));
    let leader = leader.ok_or(AskError::NoLeader)?;
    let to = yard_common::id::MemberId(leader.member_id);
    match member.peers.call_agent(to, &leader.address, node, call).await {
        Ok(Asked::Answer(told)) => Ok(told),
        Ok(Asked::NotLeader) => Err(AskError::NoLeader),
        Err(error) => {
            tracing::debug!(%to, %error, "the leader did not call an agent");
            Err(AskError::NoLeader)
        }
    }
}

/// Serves a data stream that an agent opened.
///
/// # Errors
/// If it shows no good ticket.
pub(crate) async fn dial_back(
    member: &Member,
    node: NodeId,
    mut inbound: Streaming<AgentData>,
) -> Result<Answers<MemberData>, Status> {
    let refused = || Status::permission_denied("the ticket is not good: unknown, used, or too old");
    let first = timeout(Duration::from_millis(TICKET_LIFE_MS), inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no ticket came"))??;
    let Some(What::Ticket(shown)) = first.and_then(|data| data.what) else {
        return Err(Status::invalid_argument("the ticket comes first"));
    };
    let now_ms = member.env.boot_ms();
    let waiting = member.tickets.redeem(&shown, node, now_ms).ok_or_else(refused)?;
    let wanted = CancellationToken::new();
    let answer = Answer { inbound, _wanted: wanted.clone().drop_guard() };
    // Whoever asked is gone: nothing is wanted any more.
    waiting.opened.send(answer).map_err(|_| Status::cancelled("the answer is wanted no more"))?;
    let question = MemberData { what: Some(waiting.question) };
    let stop = member.stop.clone();
    let over = async move {
        tokio::select! {
            () = wanted.cancelled() => (),
            () = stop.cancelled() => (),
        }
    };
    // The end of this stream says that no more is wanted.
    let rest = waiting.more.take_until(Box::pin(over));
    Ok(Box::pin(stream::iter([Ok(question)]).chain(rest)))
}

impl Answer {
    /// The next part of the answer; none: that was all.
    ///
    /// # Errors
    /// If the stream broke.
    pub(crate) async fn next(&mut self) -> Result<Option<What>, Status> {
        loop {
            match self.inbound.message().await? {
                Some(AgentData { what: Some(What::End(_)) }) => return Ok(None),
                // An agent that dies ends the stream as well, without a last word.
                None => return Err(Status::unavailable("it ended before the answer did")),
                Some(AgentData { what: Some(what) }) => return Ok(Some(what)),
                // Something of a newer version.
                Some(AgentData { what: None }) => {}
            }
        }
    }
}
