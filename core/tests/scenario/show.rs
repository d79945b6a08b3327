//! What scripts show.

use yard_common::gpu::{GPU_PARTS, GpuGrant};
use yard_common::id::AllocationId;
use yard_core::command::{Placement, Rejection};
use yard_core::event::Event;
use yard_core::scheduler::Planned;
use yard_core::state::State;

fn grant(gpus: &GpuGrant) -> String {
    if gpus.devices.is_empty() {
        return String::new();
    }
    let positions: Vec<_> = gpus.devices.positions().map(|at| at.to_string()).collect();
    match gpus.parts {
        GPU_PARTS => format!("[gpu {}]", positions.join(" ")),
        parts => format!("[{parts} parts of gpu {}]", positions.join(" ")),
    }
}

fn placement(state: &State, placement: &Placement) -> String {
    let job = &state.jobs[placement.job];
    let tasks: Vec<_> = placement.tasks.iter().map(|range| range.to_string()).collect();
    let shape = state.shapes.get(job.shape);
    let shares = placement.shares.iter().map(|share| {
        let role = match shape.groups.len() {
            1 => String::new(),
            _ => format!("{}@", shape.groups[usize::from(share.group)].name),
        };
        format!("{role}{}{}", state.nodes[share.node].name, grant(&share.gpus))
    });
    let shares: Vec<_> = shares.collect();
    format!("{} {}[{}] on {}", placement.job, job.plan.name, tasks.join(","), shares.join(" "))
}

pub(crate) fn plan(state: &State, planned: &Planned) -> String {
    if planned.plan.is_empty() {
        return "nothing\n".into();
    }
    planned.plan.placements.iter().map(|p| format!("{}\n", placement(state, p))).collect()
}

pub(crate) fn committed(
    state: &State,
    planned: &Planned,
    replies: &[Result<AllocationId, Rejection>],
) -> String {
    if replies.is_empty() {
        return "nothing\n".into();
    }
    let pairs = planned.plan.placements.iter().zip(replies);
    let line = |(p, reply): (&Placement, &Result<AllocationId, Rejection>)| match reply {
        Ok(id) => format!("#{id}: {}\n", placement(state, p)),
        Err(why) => format!("refused ({why}): {}\n", placement(state, p)),
    };
    pairs.map(line).collect()
}

/// Every job with the states of its tasks.
pub(crate) fn jobs(state: &State) -> String {
    let line = |(id, job): (_, &yard_core::state::Job)| {
        let runs = job.tasks.iter().map(|(run, status)| format!("{run}:{}", status.phase.state()));
        let runs: Vec<_> = runs.collect();
        format!("{id} {} {} {}\n", job.plan.name, job.state, runs.join(" "))
    };
    state.jobs.iter().map(line).collect()
}

/// Every node with what is free on it.
pub(crate) fn nodes(state: &State) -> String {
    let line = |(_, node): (_, &yard_core::state::Node)| {
        let parts: Vec<_> =
            (0..node.facts.devices.len()).map(|at| node.free_parts(at).to_string()).collect();
        let gpus = match parts.len() {
            0 => String::new(),
            _ => format!(", gpu parts {}", parts.join(" ")),
        };
        let cpus = yard_common::Cpus(node.free().cpu_milli as u32);
        let idle = if node.is_idle() { " idle" } else { "" };
        format!("{} {}{idle}: {cpus} CPUs free{gpus}\n", node.name, node.state)
    };
    state.nodes.iter().map(line).collect()
}

/// What the last command led to; versions of desired sets are no part of a story.
pub(crate) fn events(events: &[Event]) -> String {
    let told = events.iter().filter(|event| !matches!(event, Event::Desired { .. }));
    told.map(|event| format!("{event:?}\n")).collect()
}
