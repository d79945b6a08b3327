//! What a leader makes of silence: votes on all nodes, and the commands that follow from them.

use super::{Brake, BrakeRule, GiveUp, Lift, Membership, Outcome, Said, is_suspect};
use crate::command::NodeCommand;
use crate::job::IsolationClass;
use crate::state::{Node, State};
use std::collections::BTreeMap;
use yard_common::id::{LeaseId, MemberId, NodeId};
use yard_common::state::NodeState;

/// How long an agent's word about its lease counts, in milliseconds.
pub const HELD_MS: u64 = 5_000;

/// What a leader knows about silence.
#[derive(Debug, Default)]
pub struct Ballots {
    /// How long each node has been silent towards each member that said so, in milliseconds.
    silent_ms: BTreeMap<NodeId, BTreeMap<MemberId, u64>>,
    /// Votes on nodes, with the lease and the membership that they are about.
    votes: BTreeMap<NodeId, (LeaseId, Membership, GiveUp)>,
    /// Since when a node is silent, by the leader's boot clock.
    since_ms: BTreeMap<NodeId, u64>,
    /// When the brake let a node go last.
    braked_ms: Option<u64>,
}

/// What a leader does about silence now.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// To be proposed.
    pub commands: Vec<NodeCommand>,
    /// Nodes that a majority would give up, and the brake holds back.
    pub braked: Vec<NodeId>,
}

impl Ballots {
    /// Begins a vote on each node, and drops those that nobody needs. Every node is asked about
    /// all the time: a promise that an earlier leader was given would go unseen otherwise.
    pub fn prepare(&mut self, state: &State) {
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

    /// The leases that members are asked about.
    #[must_use]
    pub fn asks(&self) -> Vec<(NodeId, LeaseId)> {
        self.votes.iter().map(|(node, (lease, ..))| (*node, *lease)).collect()
    }

    /// Counts what a member said: how long each node has been silent towards it, in milliseconds,
    /// and what it makes of the leases that it was asked about.
    pub fn count(&mut self, by: MemberId, silent_ms: &[(NodeId, u64)], said: &[Said]) {
        for (node, silent_ms) in silent_ms {
            self.silent_ms.entry(*node).or_default().insert(by, *silent_ms);
        }
        for said in said {
            match said {
                Said::Promised(promise) => {
                    // Nobody promises for others.
                    let own = promise.member == by;
                    if let Some((_, _, vote)) = self.votes.get_mut(&promise.node).filter(|_| own) {
                        vote.on_promise(promise);
                    }
                }
                Said::Heard { node, silent_ms } => {
                    if let Some((_, _, vote)) = self.votes.get_mut(node) {
                        vote.on_heard(by, *silent_ms);
                    }
                }
            }
        }
    }

    /// What follows from what was said. `held`: the lease that a node's agent held when it said so
    /// last, and when that was, by the leader's boot clock as `now_ms` is.
    pub fn judge(
        &mut self,
        state: &State,
        held: impl Fn(NodeId) -> Option<(LeaseId, u64)>,
        now_ms: u64,
    ) -> Verdict {
        let Verdict { mut commands, mut braked } = Verdict::default();
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
            let away = node.is_away(state.now_ms());
            let holds =
                held(id).is_some_and(|(held, at_ms)| held == lease && now_ms <= at_ms + HELD_MS);
            match node.state {
                NodeState::Up if suspect && !away => {
                    commands.push(NodeCommand::Suspect { node: id, lease });
                }
                NodeState::Suspect if !suspect && !away => {
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
                // It cannot be given up before its time is over. If it is heard before that, the
                // promises must not keep it from a lease.
                Outcome::Lost(_) if node.maintenance_until_ms > state.now_ms() => {
                    if !suspect {
                        commands.push(NodeCommand::Lift(Lift { node: id, lease }));
                    }
                }
                Outcome::Lost(lost) if self.may_give_up(state, id, node, now_ms) => {
                    commands.push(NodeCommand::Lost(lost));
                }
                Outcome::Lost(_) => braked.push(id),
            }
        }
        Verdict { commands, braked }
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
    use crate::command::{Access, Actor, Cluster, Command, Envelope, Inventory, Scope, Stamp};
    use crate::lease::{Lost, Promise};
    use yard_common::Amounts;
    use yard_common::id::{BootId, ClusterId, LeaderId, LogIndex, PoolId, PrincipalId, TokenId};

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
                conditions: Vec::new(),
                checked: 0,
                setup: None,
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

        /// Counts what a member says of the node.
        fn count(&self, ballots: &mut Ballots, by: u64, silent_ms: u64, promised: bool) {
            self.count_from(ballots, by, by, silent_ms, promised);
        }

        /// The same, of a member that may speak for another one.
        fn count_from(
            &self,
            ballots: &mut Ballots,
            by: u64,
            named: u64,
            silent_ms: u64,
            promised: bool,
        ) {
            let (member, lease) = (MemberId(named), self.0.nodes[NODE].lease);
            let membership = self.0.membership.id;
            let said = match promised {
                true => Said::Promised(Promise { member, node: NODE, lease, membership }),
                false => Said::Heard { node: NODE, silent_ms },
            };
            ballots.count(MemberId(by), &[(NODE, silent_ms)], &[said]);
        }
    }

    fn judged(ballots: &mut Ballots, lab: &Lab) -> Vec<NodeCommand> {
        ballots.judge(&lab.0, |_| None, 10_000).commands
    }

    #[test]
    fn a_majority_decides_and_a_minority_does_not() {
        let lab = Lab::new();
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        assert_eq!(ballots.asks(), [(NODE, FIRST)]);
        lab.count(&mut ballots, 1, 4_000, true);
        assert_eq!(judged(&mut ballots, &lab), []);
        // One member hears it well: it is alive, and gets the next lease.
        lab.count(&mut ballots, 3, 100, false);
        let lift = NodeCommand::Lift(Lift { node: NODE, lease: FIRST });
        assert_eq!(judged(&mut ballots, &lab), [lift]);
        lab.count(&mut ballots, 2, 4_000, true);
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
            lab.count_from(&mut ballots, 1, member, 4_000, true);
        }
        assert_eq!(judged(&mut ballots, &lab), []);
    }

    #[test]
    fn an_agent_that_was_away_for_longer_than_its_lease_gets_the_next_one() {
        let mut lab = Lab::new();
        let maintenance = NodeCommand::Maintenance { node: NODE, for_ms: 120_000 };
        lab.does(Actor::Node(NODE), Command::Node(maintenance));
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        for member in [1, 2, 3] {
            lab.count(&mut ballots, member, 9_000, true);
        }
        assert_eq!(judged(&mut ballots, &lab), [], "its silence means nothing");
        // It renews a lease that nobody answers any more: it is heard.
        for member in [1, 2] {
            ballots.count(MemberId(member), &[(NODE, 0)], &[]);
        }
        let lift = NodeCommand::Lift(Lift { node: NODE, lease: FIRST });
        assert_eq!(judged(&mut ballots, &lab), std::slice::from_ref(&lift));
        lab.does(Actor::Leader, Command::Node(lift));
        ballots.prepare(&lab.0);
        assert_eq!(judged(&mut ballots, &lab), []);
        // Back, and silent again: nothing is placed there, and nothing is given up yet.
        lab.does(Actor::Node(NODE), Command::Node(NodeCommand::Back(NODE)));
        for member in [1, 2, 3] {
            lab.count(&mut ballots, member, 9_000, true);
        }
        let lease = lab.0.nodes[NODE].lease;
        let suspect = NodeCommand::Suspect { node: NODE, lease };
        assert_eq!(judged(&mut ballots, &lab), [suspect]);
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
        assert_eq!(ballots.judge(&lab.0, old, now_ms).commands, []);
        let late = |_| Some((next, now_ms - HELD_MS - 1));
        assert_eq!(ballots.judge(&lab.0, late, now_ms).commands, []);
        let held = |_| Some((next, now_ms - 100));
        let returned = NodeCommand::Returned { node: NODE, lease: next };
        assert_eq!(ballots.judge(&lab.0, held, now_ms).commands, [returned]);
    }

    #[test]
    fn a_vote_ends_with_its_lease_and_its_membership() {
        let mut lab = Lab::new();
        let mut ballots = Ballots::default();
        ballots.prepare(&lab.0);
        lab.count(&mut ballots, 1, 4_000, true);
        lab.count(&mut ballots, 2, 4_000, true);
        let voters = [1, 2, 3, 4, 5].map(MemberId).into();
        lab.does(Actor::Leader, Command::Cluster(Cluster::Members { voters, joint: None }));
        ballots.prepare(&lab.0);
        assert_eq!(judged(&mut ballots, &lab), [], "the promises were under another membership");
    }
}
