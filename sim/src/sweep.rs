//! How a leader judges silence: it asks all members, and commits what their majority says.

use crate::clock::{SECOND, Us};
use crate::member::Role;
use crate::message::{Done, Message, Party, Said};
use crate::world::World;
use std::collections::BTreeMap;
use yard_common::id::{LeaderId, LeaseId, MemberId, NodeId};
use yard_common::state::NodeState;
use yard_core::command::{Command, NodeCommand};
use yard_core::job::IsolationClass;
use yard_core::lease::{Brake, BrakeRule, GiveUp, Judgement, Membership, Outcome, is_suspect};
use yard_core::state::{Node, State};

/// What a leader knows about silence.
#[derive(Debug, Default)]
pub struct Ballots {
    /// How long each node has been silent towards each member that said so.
    silent_ms: BTreeMap<NodeId, BTreeMap<MemberId, u64>>,
    /// Votes on nodes, with the membership that they are under.
    votes: BTreeMap<NodeId, (LeaseId, Membership, GiveUp)>,
    /// Since when a node is silent, by the leader's boot clock.
    since_ms: BTreeMap<NodeId, u64>,
    /// When the brake let a node go last.
    braked_ms: Option<u64>,
    /// The lease that each agent held when it said so last. A node that was given up comes back
    /// by this alone; its stream ends with each of its reports, which count for nothing.
    held: BTreeMap<NodeId, (LeaseId, Us)>,
}

impl World {
    /// Asks all members about all nodes, and acts on what they said before.
    pub fn sweep(&mut self, at: usize) {
        if !self.members[at].leads() {
            return;
        }
        self.judge_nodes(at);
        let Some(lead) = self.members[at].lead() else { return };
        let leader = lead.id;
        let votes = lead.ballots.votes.iter();
        let asks: Vec<(NodeId, LeaseId)> = votes.map(|(node, vote)| (*node, vote.0)).collect();
        let ask = Message::Sweep { leader, asks };
        self.send_to_members(at, &ask);
        self.send(Party::Member(at), Party::Member(at), ask);
    }

    /// A member is asked.
    pub fn on_sweep(
        &mut self,
        at: usize,
        from: Party,
        leader: LeaderId,
        asks: &[(NodeId, LeaseId)],
    ) {
        let now_us = self.now_us;
        let member = &mut self.members[at];
        if leader < member.disk.vote {
            return;
        }
        let local_ms = member.local_ms(now_us);
        let nodes = member.state.nodes.iter();
        let silent = nodes.map(|(id, _)| (id, member.keeper.silent_ms(id, local_ms))).collect();
        let mut said = Vec::new();
        let mut writes = Vec::new();
        for (node, lease) in asks {
            match member.keeper.ask(*node, *lease, local_ms) {
                Judgement::Persist(intent) => {
                    member.disk.promises.push(intent.record());
                    let count = member.disk.promises.len();
                    writes.push(Done::Promise { count, intent });
                }
                Judgement::Promised(promise) => said.push(Said::Promised(promise)),
                Judgement::Heard { silent_ms, .. } => {
                    said.push(Said::Heard { node: *node, silent_ms });
                }
                Judgement::Pending | Judgement::OtherLease { .. } => {}
            }
        }
        let swept = Message::Swept { leader, member: member.id, silent, said };
        for done in writes {
            self.sync(at, done);
        }
        self.send(Party::Member(at), from, swept);
    }

    /// A member answers.
    pub fn on_swept(
        &mut self,
        at: usize,
        leader: LeaderId,
        by: MemberId,
        silent: Vec<(NodeId, u64)>,
        said: &[Said],
    ) {
        let Some(lead) = self.members[at].lead().filter(|lead| lead.id == leader) else { return };
        let ballots = &mut lead.ballots;
        for (node, silent_ms) in silent {
            ballots.silent_ms.entry(node).or_default().insert(by, silent_ms);
        }
        for one in said {
            match one {
                Said::Promised(promise) => {
                    if let Some((_, _, vote)) = ballots.votes.get_mut(&promise.node) {
                        vote.on_promise(promise);
                    }
                }
                Said::Heard { node, silent_ms } => {
                    if let Some((_, _, vote)) = ballots.votes.get_mut(node) {
                        vote.on_heard(by, *silent_ms);
                    }
                }
            }
        }
    }

    /// Commits what follows from what the members said.
    fn judge_nodes(&mut self, at: usize) {
        let (now_us, local_ms) = (self.now_us, self.members[at].local_ms(self.now_us));
        let membership = self.members[at].disk.membership().clone();
        let member = &mut self.members[at];
        let Role::Leader(lead) = &mut member.role else { return };
        let mut commands = Vec::new();
        let mut braked = false;
        for (id, node) in member.state.nodes.iter() {
            let ballots = &mut lead.ballots;
            let silent_ms = ballots.silent_ms.entry(id).or_default();
            let suspect = is_suspect(&membership, silent_ms);
            if suspect {
                let quiet_ms = silent_ms.values().copied().min().unwrap_or(0);
                let since_ms = local_ms.saturating_sub(quiet_ms);
                ballots.since_ms.entry(id).or_insert(since_ms);
            } else {
                ballots.since_ms.remove(&id);
            }
            let holds = |(lease, at_us): &(LeaseId, Us)| {
                *lease == node.lease && now_us < at_us + 2 * SECOND
            };
            let held = ballots.held.get(&id).is_some_and(holds);
            match node.state {
                NodeState::Up if suspect => {
                    commands.push(NodeCommand::Suspect { node: id, lease: node.lease });
                }
                NodeState::Suspect if !suspect => {
                    commands.push(NodeCommand::Returned { node: id, lease: node.lease });
                }
                NodeState::Lost if held => {
                    commands.push(NodeCommand::Returned { node: id, lease: node.lease });
                }
                NodeState::Up | NodeState::Suspect | NodeState::Lost | NodeState::Removed => {}
            }
            if node.state == NodeState::Lost {
                ballots.votes.remove(&id);
                continue;
            }
            let stale =
                |vote: &(LeaseId, Membership, GiveUp)| vote.0 != node.lease || vote.1 != membership;
            if ballots.votes.get(&id).is_some_and(stale) {
                ballots.votes.remove(&id);
            }
            // Every node is asked about all the time: a promise that an earlier leader was given
            // would go unseen otherwise.
            let vote = ballots.votes.entry(id).or_insert_with(|| {
                (node.lease, membership.clone(), GiveUp::new(id, node.lease, membership.clone()))
            });
            match vote.2.outcome() {
                Outcome::Open => {}
                Outcome::Lift(lift) => commands.push(NodeCommand::Lift(lift)),
                Outcome::Lost(lost) => {
                    if ballots.may_give_up(&member.state, id, node, local_ms) {
                        commands.push(NodeCommand::Lost(lost));
                    } else {
                        braked = true;
                    }
                }
            }
        }
        if braked {
            self.reached("brake held a node back");
        }
        for command in commands {
            self.propose_own(at, Command::Node(command));
        }
    }
}

impl Ballots {
    /// An agent says which lease it holds.
    pub fn on_held(&mut self, node: NodeId, held: Option<LeaseId>, now_us: Us) {
        match held {
            Some(lease) => self.held.insert(node, (lease, now_us)),
            None => self.held.remove(&node),
        };
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
