//! What the scheduler keeps from one round to the next: nothing but indexes of the view.

use super::lines::Lines;
use super::stock::Seats;
use crate::state::{Job, Node, State};
use crate::table::Table;
use yard_common::id::{JobId, NodeId};

/// Indexes of the view of the last round. May be dropped at any time, and used with any view:
/// only what differs from the last one is looked at again.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// The tables that the indexes are of; none before the first round.
    seen: Option<Seen>,
    pub(super) seats: Seats,
    pub(super) lines: Lines,
    /// Nodes whose standing changes as time goes by, without a change of their record.
    timed: Vec<NodeId>,
}

#[derive(Clone, Debug)]
struct Seen {
    nodes: Table<NodeId, Node>,
    jobs: Table<JobId, Job>,
}

impl Cache {
    /// Brings the indexes in line with a view.
    pub(super) fn refresh(&mut self, view: &State, now_ms: u64) {
        let (nodes, none) = (view.nodes.records(), Table::default());
        let mut changed = std::mem::take(&mut self.timed);
        nodes.changed_since(self.seen.as_ref().map_or(&none, |seen| &seen.nodes), |id| {
            changed.push(id);
        });
        changed.sort_unstable();
        changed.dedup();
        for id in changed {
            let node = nodes.get(id);
            self.seats.reseat(id, node, now_ms);
            if node.is_some_and(|node| node.drain.is_some() || node.maintenance_until_ms > 0) {
                self.timed.push(id);
            }
        }
        self.seats.settle();
        match &self.seen {
            Some(seen) => self.lines.update(&seen.jobs, &view.jobs),
            None => self.lines = Lines::of(view),
        }
        self.seen = Some(Seen { nodes: nodes.clone(), jobs: view.jobs.clone() });
    }
}
