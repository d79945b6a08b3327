//! Words in which stories are told: what the coordinator wants, what the machine does, and what
//! the agent says about it.

use super::machine::Progress;
use super::world::World;
use crate::agent::*;
use yard_common::ExitCause;
use yard_common::id::AllocationId;

pub(super) const OK: Progress = Progress::End(ExitCause::Exited(0));
pub(super) const STOP: DesiredPhase =
    DesiredPhase::Stop { cause: ExitCause::Preempted, grace_ms: 10_000 };

/// The assignment that a story adds first.
pub(super) const FIRST: AssignmentId = AssignmentId { allocation: AllocationId(0), group: 0 };
/// The one that it adds second: another group on the same node.
pub(super) const SECOND: AssignmentId = AssignmentId { allocation: AllocationId(0), group: 1 };

/// A world in which the agent is connected, holds its lease, and has heard of one assignment.
pub(super) fn begin(phase: DesiredPhase, isolation: Isolation, tasks: u32) -> World {
    let mut world = World::new();
    world.connect();
    world.renew();
    world.add(phase, isolation, tasks);
    world.deliver_set(usize::MAX);
    world
}

/// The same, once its first task runs.
pub(super) fn begin_running(isolation: Isolation, tasks: u32) -> World {
    let mut world = begin(DesiredPhase::Run, isolation, tasks);
    does(&mut world, FIRST, Progress::Prepare);
    does(&mut world, FIRST, Progress::StartNext);
    assert_eq!(said(&mut world), ["0: started 0#1"]);
    world
}

/// The shim takes a step, and the agent hears of it.
pub(super) fn does(world: &mut World, id: AssignmentId, progress: Progress) {
    assert!(world.machine.progress(id, progress, world.now_ms), "{id} cannot {progress:?}");
    world.deliver_events(usize::from(u8::MAX));
}

/// The coordinator changes its mind, and the agent hears of it.
pub(super) fn wants(
    world: &mut World,
    id: AssignmentId,
    change: impl FnOnce(&mut DesiredAssignment),
) {
    world.want(id, change);
    world.deliver_set(usize::MAX);
}

/// What the coordinator hears now, one line per fact.
pub(super) fn said(world: &mut World) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(report) = world.wire.front().cloned() {
        let id = report.assignment;
        match &report.what {
            ReportKind::Ready => lines.push(format!("{id}: ready")),
            ReportKind::Started(chain) => lines.push(format!("{id}: started {chain}")),
            ReportKind::Exited(exits) => lines.extend(exits.iter().map(|exit| {
                let tasks = Chain(vec![exit.link]);
                let status = exit.status.map(|s| format!(" (was {s})")).unwrap_or_default();
                format!("{id}: exited {tasks} {}{status}", exit.cause)
            })),
            ReportKind::Recalled(chain) => lines.push(format!("{id}: recalled {chain}")),
            ReportKind::Reaped => lines.push(format!("{id}: reaped")),
            ReportKind::Silent { for_ms } => lines.push(format!("{id}: silent for {for_ms} ms")),
            ReportKind::Active => lines.push(format!("{id}: active")),
        }
        world.deliver_report();
    }
    world.acknowledge();
    lines
}

pub(super) fn restart(world: &mut World) {
    world.crash();
    world.restart();
    world.connect();
}
