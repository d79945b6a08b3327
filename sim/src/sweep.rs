//! How a leader judges silence: it asks all members, and commits what their majority says.

use crate::member::Role;
use crate::message::{Done, Message, Party};
use crate::world::World;
use yard_common::id::{LeaderId, LeaseId, MemberId, NodeId};
use yard_core::command::Command;
use yard_core::lease::{Judgement, Said, Verdict};

impl World {
    /// Asks all members about all nodes, and acts on what they said before.
    pub fn sweep(&mut self, at: usize) {
        if !self.members[at].leads() {
            return;
        }
        self.judge_nodes(at);
        let Some(lead) = self.members[at].lead() else { return };
        let leader = lead.id;
        let ask = Message::Sweep { leader, asks: lead.ballots.asks() };
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
        lead.ballots.count(by, &silent, said);
    }

    /// Commits what follows from what the members said.
    fn judge_nodes(&mut self, at: usize) {
        let local_ms = self.members[at].local_ms(self.now_us);
        let member = &mut self.members[at];
        let Role::Leader(lead) = &mut member.role else { return };
        lead.ballots.prepare(&member.state);
        let held = |node| lead.held.get(&node).copied();
        let Verdict { commands, braked } = lead.ballots.judge(&member.state, held, local_ms);
        if !braked.is_empty() {
            self.reached("brake held a node back");
        }
        for command in commands {
            self.propose_own(at, Command::Node(command));
        }
    }
}
