//! How a leader judges silence: it asks all members about all nodes, and commits what their
//! majority says. Every node is asked about all the time: a promise that an earlier leader was
//! given would go unseen otherwise.

use crate::member::Member;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use yard_common::id::{LeaderId, LeaseId, MemberId, NodeId};
use yard_common::state::NodeState;
use yard_core::command::{Actor, Command, NodeCommand};
use yard_core::job::IsolationClass;
use yard_core::lease::{Brake, BrakeRule, GiveUp, Membership, Outcome, is_suspect};
use yard_core::state::{Node, State};
use yard_proto::wire::{Said, Sweep, Swept};

/// Period of the questions.
const PERIOD: Duration = Duration::from_millis(500);
/// How long a member may take to answer; what comes later is said again at the next question.
const WAIT: Duration = Duration::from_millis(400);
/// How long an agent's word about its lease counts, in milliseconds.
const HELD_MS: u64 = 5_000;

/// Runs until it is stopped.
pub(super) async fn run(member: Arc<Member>, leader: LeaderId, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ballots = Ballots::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => (),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sweep(&member, leader, &mut ballots) => (),
        }
    }
}

/// Asks once, and acts on what was said.
async fn sweep(member: &Member, leader: LeaderId, ballots: &mut Ballots) {
    let (_, state) = member.raft.state();
    ballots.prepare(&state);
    let sweep = Sweep { leader, asks: ballots.asks() };
    for swept in ask(member, &state, &sweep).await {
        ballots.count(&swept);
    }
    let (_, state) = member.raft.state();
    let held = |node| member.sessions.held(node);
    let commands = ballots.judge(&state, held, member.env.boot_ms());
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

/// What the members say; who does not answer in time says nothing.
async fn ask(member: &Member, state: &State, sweep: &Sweep) -> Vec<Swept> {
    let peers = member.raft.peers();
    let others = peers.iter().filter(|(id, _)| **id != member.id);
    let questions = others.map(|(id, peer)| async move {
        let answer = member.peers.sweep(*id, &peer.address, sweep, WAIT).await;
        answer.map_err(|error| tracing::debug!(member = %id, %error, "no answer to a sweep")).ok()
    });
    let others = questions.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
    // Its own disk may take its time; the others are not to wait for it.
    let own = tokio::time::timeout(WAIT, member.leases.sweep(state, sweep));
    let (own, others) = tokio::join!(own, others);
    own.ok().into_iter().chain(others.into_iter().flatten()).collect()
}

/// What a leader knows about silence.
#[derive(Debug, Default)]
struct Ballots {
    /// How long each node has been silent towards each member that said so, in milliseconds.
    silent_ms: BTreeMap<NodeId, BTreeMap<MemberId, u64>>,
    /// Votes on nodes, with the lease and the membership that they are about.
    votes: BTreeMap<NodeId, (LeaseId, Membership, GiveUp)>,
    /// Since when a node is silent, by the leader's boot clock.
    since_ms: BTreeMap<NodeId, u64>,
    /// When the brake let a node go last.
    braked_ms: Option<u64>,
}

impl Ballots {
    /// Begins a vote on each node, and drops those that nobody needs.
    fn prepare(&mut self, state: &State) {
        let membership = &state.membership;
        self.silent_ms.retain(|id, _| state.nodes.get(*id).is_some());
        self.since_ms.retain(|id, _| state.nodes.get(*id).is_some());
        self.votes.retain(|id, (lease, under, _)| {
            let node = state.nodes.get(*id);
            node.is_some_and(|node| node.state != NodeState::Lost && node.lease == *lease)
                && under == membership
        });
        for (id, node) in state.nodes.iter().filter(|(_, node)| node.state != NodeState::Lost) {
            self.votes.entry(id).or_insert_with(|| {
                let vote = GiveUp::new(id, node.lease, membership.clone());
                (node.lease, membership.clone(), vote)
            });
        }
    }

    fn asks(&self) -> Vec<(NodeId, LeaseId)> {
        self.votes.iter().map(|(node, (lease, ..))| (*node, *lease)).collect()
    }

    /// Counts what a member said.
    fn count(&mut self, swept: &Swept) {
        for (node, silent_ms) in &swept.silent_ms {
            self.silent_ms.entry(*node).or_default().insert(swept.member, *silent_ms);
        }
        for said in &swept.said {
            match said {
                Said::Promised(promise) => {
                    // Nobody promises for others.
                    let own = promise.member == swept.member;
                    if let Some((_, _, vote)) = self.votes.get_mut(&promise.node).filter(|_| own) {
                        vote.on_promise(promise);
                    }
                }
                Said::Heard { node, silent_ms } => {
                    if let Some((_, _, vote)) = self.votes.get_mut(node) {
                        vote.on_heard(swept.member, *silent_ms);
                    }
                }
            }
        }
    }

    /// What follows from what was said.
    fn judge(
        &mut self,
        state: &State,
        held: impl Fn(NodeId) -> Option<(LeaseId, u64)>,
        now_ms: u64,
    ) -> Vec<NodeCommand> {
        let mut commands = Vec::new();
        for (id, node) in state.nodes.iter() {
            let silent_ms = self.silent_ms.entry(id).or_default();
            let suspect = is_suspect(&state.membership, silent_ms);
            if suspect {
                let quiet_ms = silent_ms.values().copied().min().unwrap_or(0);
                self.since_ms.entry(id).or_insert(now_ms.saturating_sub(quiet_ms));
            } else {
                self.since_ms.remove(&id);
            }
            let lease = node.lease;
            let holds =
                held(id).is_some_and(|(held, at_ms)| held == lease && now_ms <= at_ms + HELD_MS);
            match node.state {
                NodeState::Up if suspect => commands.push(NodeCommand::Suspect { node: id, lease }),
                NodeState::Suspect if !suspect => {
                    commands.push(NodeCommand::Returned { node: id, lease });
                }
                NodeState::Lost if holds => {
                    commands.push(NodeCommand::Returned { node: id, lease });
                }
                NodeState::Up | NodeState::Suspect | NodeState::Lost | NodeState::Removed => {}
            }
            let vote = self.votes.get(&id).filter(|_| node.state != NodeState::Lost);
            match vote.map_or(Outcome::Open, |(_, _, vote)| vote.outcome()) {
                Outcome::Open => {}
                Outcome::Lift(lift) => commands.push(NodeCommand::Lift(lift)),
                Outcome::Lost(lost) if self.may_give_up(state, id, node, now_ms) => {
                    commands.push(NodeCommand::Lost(lost));
                }
                Outcome::Lost(_) => tracing::debug!(node = %id, "the brake holds a node back"),
            }
        }
        commands
    }

    /// Whether the brake lets a silent node go. Nodes with strict jobs follow their lease.
    fn may_give_up(&mut self, state: &State, id: NodeId, node: &Node, now_ms: u64) -> bool {
        let strict = node.allocations.iter().any(|(allocation, ())| {
            let job = state.allocations[*allocation].job;
            state.jobs[job].plan.isolation.class == IsolationClass::Strict
        });
        if strict {
            return true;
        }
        let mut silences: Vec<u64> = self.since_ms.values().copied().collect();
        silences.sort_unstable();
        let since_ms = self.since_ms.get(&id).copied().unwrap_or(now_ms);
        let nodes = state.nodes.len() as u64;
        match BrakeRule::default().judge(since_ms, &silences, nodes, self.braked_ms) {
            Brake::Off => true,
            Brake::On { next_ms } if next_ms <= now_ms => {
                self.braked_ms = Some(now_ms);
                true
            }
            Brake::On { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::Amounts;
    use yard_common::id::{BootId, ClusterId, LogIndex, PoolId, PrincipalId, TokenId};
    use yard_core::command::{Access, Cluster, Envelope, Inventory, Scope, Stamp};
    use yard_core::lease::{Lift, Lost, Promise};

    const LEADER: LeaderId = LeaderId { term: 1, member: MemberId(1) };
    const NODE: NodeId = NodeId(0);
    const FIRST: LeaseId = LeaseId(1);

    /// Three members and one node.
    struct Lab(State);

    impl Lab {
        fn new() -> Lab {
            let mut lab = Lab(State::default());
            lab.does(Actor::Leader, Command::Cluster(Cluster::LeaderStarted));
            let cluster = ClusterId::from_u128(7);
            let first = Cluster::Initialise { cluster, admin: "ada".into(), unix: None };
            lab.does(Actor::Leader, Command::Cluster(first));
            let voters = [1, 2, 3].map(MemberId).into();
            lab.does(Actor::Leader, Command::Cluster(Cluster::Members { voters, joint: None }));
            let (token, secret_sha256) = (TokenId::from_u128(1), [7; 32]);
            let scope = Scope::Join(PoolId(0));
            let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
            lab.does(Actor::User(PrincipalId(0)), Command::Access(add));
            let inventory = Inventory {
                boot: BootId::from_u128(1),
                amounts: Amounts { cpu_milli: 1_000, memory_bytes: 1, disk_bytes: 1 },
                devices: Vec::new(),
                labels: Vec::new(),
                address: "n1".into(),
                version: "0.1.0".into(),
            };
            let name = "n1".to_string();
            let join = NodeCommand::Join { token, secret_sha256, name, inventory };
            lab.does(Actor::Bearer, Command::Node(join));
            lab
        }

        fn does(&mut self, actor: Actor, command: Command) {
            let index = LogIndex(self.0.applied.0 + 1);
            let stamp = Stamp { cluster_ms: 1, wall_ms: 1 };
            let envelope = Envelope { actor, leader: LEADER, stamp, request: None };
            self.0.apply(index, &envelope, &command).reply.unwrap();
        }

        fn swept(&self, member: u64, silent_ms: u64, promised: bool) -> Swept {
            let member = MemberId(member);
            let membership = self.0.membership.id;
            let lease = self.0.nodes[NODE].lease;
            let said = match promised {
                true => Said::Promised(Promise { member, node: NODE, lease, membership }),
                false => Said::Heard { node: NODE, silent_ms },
            };
            let silent_ms = vec![(NODE, silent_ms)];
            Swept { leader: LEADER, member, silent_ms, said: vec![said] }
        }
    }

    fn judged(ballots: &mut Ballots, lab: &Lab) -> Vec<NodeCommand> {
        ballots.judge(&lab.0, |_| None, 10_000)
    }

    #[test]
    fn a_majority_decides_and_a_minority_does_not() {
        let lab = Lab::new();
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        assert_eq!(ballots.asks(), [(NODE, FIRST)]);
        ballots.count(&lab.swept(1, 4_000, true));
        assert_eq!(judged(&mut ballots, &lab), []);
        // One member hears it well: it is alive, and gets the next lease.
        ballots.count(&lab.swept(3, 100, false));
        let lift = NodeCommand::Lift(Lift { node: NODE, lease: FIRST });
        assert_eq!(judged(&mut ballots, &lab), [lift]);
        ballots.count(&lab.swept(2, 4_000, true));
        let suspect = NodeCommand::Suspect { node: NODE, lease: FIRST };
        let membership = lab.0.membership.id;
        let lost = NodeCommand::Lost(Lost { node: NODE, lease: FIRST, membership });
        assert_eq!(judged(&mut ballots, &lab), [suspect, lost]);
    }

    #[test]
    fn nobody_promises_for_another_member() {
        let lab = Lab::new();
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        for member in [2, 3] {
            let forged = Swept { member: MemberId(1), ..lab.swept(member, 4_000, true) };
            ballots.count(&forged);
        }
        assert_eq!(judged(&mut ballots, &lab), []);
    }

    #[test]
    fn a_lost_node_comes_back_by_the_word_of_its_agent() {
        let mut lab = Lab::new();
        let membership = lab.0.membership.id;
        let lost = Lost { node: NODE, lease: FIRST, membership };
        lab.does(Actor::Leader, Command::Node(NodeCommand::Lost(lost)));
        let next = lab.0.nodes[NODE].lease;
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        assert_eq!(ballots.asks(), [], "of a lost node nothing is asked");
        let now_ms = 10_000;
        let old = |_| Some((FIRST, now_ms));
        assert_eq!(ballots.judge(&lab.0, old, now_ms), []);
        let late = |_| Some((next, now_ms - HELD_MS - 1));
        assert_eq!(ballots.judge(&lab.0, late, now_ms), []);
        let held = |_| Some((next, now_ms - 100));
        let returned = NodeCommand::Returned { node: NODE, lease: next };
        assert_eq!(ballots.judge(&lab.0, held, now_ms), [returned]);
    }

    #[test]
    fn a_vote_ends_with_its_lease_and_its_membership() {
        let mut lab = Lab::new();
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        ballots.count(&lab.swept(1, 4_000, true));
        ballots.count(&lab.swept(2, 4_000, true));
        let voters = [1, 2, 3, 4, 5].map(MemberId).into();
        lab.does(Actor::Leader, Command::Cluster(Cluster::Members { voters, joint: None }));
        ballots.prepare(&lab.0);
        assert_eq!(judged(&mut ballots, &lab), [], "the promises were under another membership");
    }
}
