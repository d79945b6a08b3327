//! Worlds that differ from the view in one thing. They are copies that nobody commits.

use super::Question;
use crate::command::LimitScope;
use crate::job::Shape;
use crate::mutant;
use crate::state::{Holdings, Pending, State};
use crate::table::{Ordered, Shared};
use yard_common::Amounts;
use yard_common::id::{NodeId, QueueId};
use yard_common::state::NodeState;

fn nodes(view: &State) -> Vec<NodeId> {
    view.nodes.iter().map(|(id, _)| id).collect()
}

/// Silent nodes are back, and what is left behind is gone.
pub(super) fn without_doubt(view: &State) -> State {
    let mut world = view.clone();
    for id in nodes(view) {
        let silent = matches!(view.nodes[id].state, NodeState::Suspect | NodeState::Lost);
        if silent {
            world.nodes[id].state = NodeState::Up;
        }
        let leftovers: Vec<_> =
            view.nodes[id].leftovers.iter().map(|(_, left)| left.clone()).collect();
        for left in &leftovers {
            world.nodes[id].give_back(&left.amounts, &left.gpus);
        }
        if !leftovers.is_empty() {
            world.nodes[id].leftovers = Ordered::default();
        }
    }
    world
}

/// Drains that have not begun do not come.
pub(super) fn without_planned_drains(view: &State, now_ms: u64) -> State {
    let mut world = view.clone();
    for id in nodes(view) {
        if view.nodes[id].drain.as_ref().is_some_and(|drain| drain.at_ms > now_ms) {
            world.nodes[id].drain = None;
        }
    }
    world
}

/// The queue starts tasks.
pub(super) fn with_open_queue(view: &State, queue: QueueId) -> State {
    let mut world = view.clone();
    world.queues[queue].set.starts = true;
    world
}

/// Whether some task of the job would start in a cluster of the same machines, all of them in
/// use and empty, without other jobs and without limits.
pub(super) fn ever_starts(question: &Question<'_>) -> bool {
    let view = question.view;
    let mut world = view.clone();
    for id in nodes(view) {
        let old = &view.nodes[id];
        if old.state == NodeState::Removed {
            continue;
        }
        let node = &mut world.nodes[id];
        (node.state, node.cordoned, node.maintenance_until_ms) = (NodeState::Up, false, 0);
        (node.unwell, node.setup_due) = (false, false);
        if mutant!("full_is_never") {
            continue;
        }
        (node.drain, node.used) = (None, Amounts::ZERO);
        node.device_parts = Shared::from(vec![0; old.facts.devices.len()]);
        (node.allocations, node.leftovers) = (Ordered::default(), Ordered::default());
    }
    world.holdings = Holdings::default();
    world.pending = Pending::default();
    let job = &mut world.jobs[question.task.job];
    job.allocations = 0;
    let answer = Question { view: &world, ..*question }.ask();
    answer.starts || answer.placed > 0
}

/// The job asks for another shape.
pub(super) fn with_shape(question: &Question<'_>, shape: &Shape) -> State {
    let mut world = question.view.clone();
    let id = world.shapes.acquire(shape);
    world.jobs[question.task.job].shape = id;
    world
}

/// The bound of one amount of a limit is so high.
pub(super) fn with_limit(view: &State, scope: LimitScope, what: &str, bound: u64) -> State {
    let mut world = view.clone();
    let Some(mut limit) = view.holdings.limit(scope).copied() else { return world };
    match what {
        "cpus" => limit.amounts.cpu_milli = bound,
        "memory" => limit.amounts.memory_bytes = bound,
        "disk" => limit.amounts.disk_bytes = bound,
        "gpus" => limit.gpu_parts = Some(bound),
        "tasks" => limit.tasks = Some(bound),
        _ => {}
    }
    world.holdings.set_limit(scope, Some(limit));
    world
}
