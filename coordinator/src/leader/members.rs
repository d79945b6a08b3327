//! A leader makes the members what the state says they are to be: it adds who joined, lets vote
//! who has caught up, and takes out who is to leave. One step at a time, each of which the next
//! leader can go on from.

use super::Beat;
use crate::member::Member;
use crate::raft::MembersError;
use crate::storage::Peer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use yard_common::id::MemberId;
use yard_core::command::{Actor, Cluster, Command};
use yard_core::voters::Step;

/// Period of its looks.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a step may take until the members are looked at again.
const STEP: Duration = Duration::from_secs(5);

/// Runs until it is stopped.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let mut beat = Beat::every(PERIOD, stop);
    while beat.next().await && beat.work(step(&member)).await {}
}

/// The record of a member that has left goes.
async fn left(member: &Member, id: MemberId) -> Result<(), MembersError> {
    let command = Command::Cluster(Cluster::MemberLeft(id));
    match member.raft.propose(Actor::Leader, None, &command).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(rejection)) => Err(MembersError::Refused(rejection.to_string())),
        Err(error) => Err(MembersError::Refused(error.to_string())),
    }
}

/// Takes the next step, if there is one.
async fn step(member: &Member) {
    let (_, state) = member.raft.state();
    let Some(view) = member.raft.view() else { return };
    let next = view.standing.next(&state.members);
    if next != Step::Nothing {
        tracing::info!(?next, "the members change");
    }
    let address = |id| {
        let record = state.members.get(id);
        record.map_or_else(String::new, |record| record.address.to_string())
    };
    let taken = async {
        match &next {
            Step::Nothing => Ok(()),
            Step::Listen(id) => member.raft.listen(*id, Peer { address: address(id) }).await,
            Step::Forget(id) => member.raft.forget(*id).await,
            Step::Vote(voters) => member.raft.change_membership(voters.clone()).await,
            Step::HandOver(to) => member.raft.transfer_leadership(*to).await,
            Step::Left(id) => left(member, *id).await,
        }
    };
    match timeout(STEP, taken).await {
        Ok(Ok(())) => {}
        // Whoever leads now goes on.
        Ok(Err(MembersError::NotLeader { .. } | MembersError::Stopped)) => {}
        Ok(Err(error)) => tracing::debug!(%error, ?next, "the members do not change yet"),
        Err(_) => tracing::warn!(?next, "a change of the members takes long"),
    }
}
