//! After the last fault everything comes to its end within a bound of time: every job in a
//! terminal state, nothing held or left behind, no process on any machine, every node back, every
//! member at the same entry, every client answered (P1). The world asks; this is the question.

use crate::world::World;
use yard_common::state::NodeState;

impl World {
    /// What is not at its end yet; none if everything is.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        let (commands, wanted) = (self.stats.commands, self.scenario.commands);
        if commands < wanted {
            return Some(format!("only {commands} commands of {wanted} are applied"));
        }
        let at = self.latest_member()?;
        let state = &self.members[at].state;
        let job = state.jobs.iter().find(|(_, job)| !job.state.is_terminal());
        if let Some((id, job)) = job {
            let tasks: Vec<_> =
                job.tasks.iter().map(|(run, s)| format!("{run}:{:?}", s.phase)).collect();
            return Some(format!(
                "job {id} is {} [{}], {:?}",
                job.state,
                tasks.join(" "),
                job.waits
            ));
        }
        if let Some((id, _)) = state.allocations.iter().next() {
            return Some(format!("allocation {id} is still held"));
        }
        for (id, node) in state.nodes.iter() {
            if !node.leftovers.is_empty() {
                return Some(format!("node {id} still owes {:?}", node.leftovers));
            }
            if node.state != NodeState::Up {
                return Some(format!("node {id} is {}", node.state));
            }
        }
        for (at, machine) in self.machines.iter().enumerate() {
            if let Some((id, _)) = machine.shims.iter().next() {
                return Some(format!("machine {at} still has assignment {id}"));
            }
        }
        let behind = |member: &crate::member::Member| {
            member.up && member.enrolled && member.applied.index < self.seen_index
        };
        if let Some(at) = self.members.iter().position(behind) {
            return Some(format!("member {at} is behind"));
        }
        let asking = |client: &crate::client::Client| client.wish.is_some();
        self.clients.iter().any(asking).then(|| "a client still waits for an answer".into())
    }
}
