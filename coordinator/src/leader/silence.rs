//! A leader asks all members about the silence of all nodes, and commits what follows from it.

use super::Beat;
use crate::member::Member;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use yard_common::id::LeaderId;
use yard_core::command::{Actor, Command};
use yard_core::lease::{Ballots, Verdict};
use yard_core::state::State;
use yard_proto::wire::{Sweep, Swept};

/// Period of the questions.
const PERIOD: Duration = Duration::from_millis(500);

/// Runs until it is stopped.
pub(super) async fn run(member: Arc<Member>, leader: LeaderId, stop: CancellationToken) {
    let (mut beat, mut ballots) = (Beat::every(PERIOD, stop), Ballots::default());
    while beat.next().await && beat.work(sweep(&member, leader, &mut ballots)).await {}
}

/// Asks once, and acts on what was said.
async fn sweep(member: &Member, leader: LeaderId, ballots: &mut Ballots) {
    let (_, state) = member.raft.state();
    ballots.prepare(&state);
    let sweep = Sweep { leader, asks: ballots.asks() };
    for swept in ask(member, &state, &sweep).await {
        ballots.count(swept.member, &swept.silent_ms, &swept.said);
    }
    let (_, state) = member.raft.state();
    let held = |node| member.sessions.held(node);
    let Verdict { commands, braked } = ballots.judge(&state, held, member.env.boot_ms());
    if !braked.is_empty() {
        tracing::debug!(nodes = ?braked, "the brake holds nodes back");
    }
    let proposals = commands.into_iter().map(|command| async move {
        let command = Command::Node(command);
        match member.raft.propose(Actor::Leader, None, &command).await {
            Ok(Ok(_)) => tracing::info!(?command, "judged a node"),
            Ok(Err(rejection)) => tracing::debug!(%rejection, ?command, "came too late"),
            Err(error) => tracing::debug!(%error, ?command, "was not committed"),
        }
    });
    proposals.collect::<FuturesUnordered<_>>().collect::<Vec<()>>().await;
}

/// What the members say; who does not answer in time says it at the next question.
async fn ask(member: &Member, state: &State, sweep: &Sweep) -> Vec<Swept> {
    let peers = member.raft.peers();
    let others = peers.iter().filter(|(id, _)| **id != member.id);
    let questions = others.map(|(id, peer)| async move {
        let answer = member.peers.sweep(*id, &peer.address, sweep).await;
        answer.map_err(|error| tracing::debug!(member = %id, %error, "no answer to a sweep")).ok()
    });
    let others = questions.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
    // Its own disk may take its time; the others are not to wait for it.
    let own = tokio::time::timeout(member.pace.answer(), member.leases.sweep(state, sweep));
    let (own, others) = tokio::join!(own, others);
    own.ok().into_iter().chain(others.into_iter().flatten()).collect()
}
