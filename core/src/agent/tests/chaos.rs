//! Random schedules. Goal: the rules hold in every interleaving that the strategy can make, and
//! once the faults stop every task is accounted for and nothing is left. Method: a list of
//! operations, each of which names its target by a number, so that a failing list shrinks.

use super::machine::Progress;
use super::world::World;
use crate::agent::{AssignmentId, DesiredPhase, Input, Isolation};
use crate::stall::News;
use proptest::prelude::*;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add { run: bool, isolation: u8, tasks: u32 },
    Start(u8),
    Stop { which: u8, grace_ms: u64 },
    Cut { which: u8, keep: u32 },
    Drop(u8),
    GiveNodeUp,
    LatestSet,
    AnySet(u8),
    Machine { which: u8, progress: Progress },
    Events(u8),
    Silence { which: u8, position: u32, silent: bool },
    Repeat(u8),
    Renew,
    PassTime(u64),
    Tick,
    Connect,
    Report,
    LoseReports,
    Acknowledge,
    CrashIn(u8),
    Restart,
    Reboot,
    Damage(u8),
}

fn any_progress() -> impl Strategy<Value = Progress> {
    let failed = ExitCause::PrepareFailed(PrepareStep::Mount);
    prop_oneof![
        4 => Just(Progress::Prepare),
        1 => Just(Progress::FailPrepare(failed)),
        6 => Just(Progress::StartNext),
        2 => Just(Progress::End(ExitCause::Exited(0))),
        1 => Just(Progress::End(ExitCause::Exited(3))),
        1 => Just(Progress::End(ExitCause::OutOfMemory)),
        1 => Just(Progress::Die),
        3 => Just(Progress::FinishKill),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let which = 0u8..8;
    let add = (any::<bool>(), 0u8..3, 1u32..5);
    prop_oneof![
        4 => add.prop_map(|(run, isolation, tasks)| Op::Add { run, isolation, tasks }),
        4 => which.clone().prop_map(Op::Start),
        2 => (which.clone(), prop_oneof![Just(0), Just(500), Just(5_000)])
            .prop_map(|(which, grace_ms)| Op::Stop { which, grace_ms }),
        2 => (which.clone(), 0u32..4).prop_map(|(which, keep)| Op::Cut { which, keep }),
        1 => which.clone().prop_map(Op::Drop),
        1 => Just(Op::GiveNodeUp),
        10 => Just(Op::LatestSet),
        3 => any::<u8>().prop_map(Op::AnySet),
        24 => (which.clone(), any_progress())
            .prop_map(|(which, progress)| Op::Machine { which, progress }),
        12 => (1u8..8).prop_map(Op::Events),
        4 => (which.clone(), 0u32..4, any::<bool>())
            .prop_map(|(which, position, silent)| Op::Silence { which, position, silent }),
        2 => which.prop_map(Op::Repeat),
        6 => Just(Op::Renew),
        4 => prop_oneof![Just(100u64), Just(1_000), Just(3_000), Just(61_000)]
            .prop_map(Op::PassTime),
        4 => Just(Op::Tick),
        3 => Just(Op::Connect),
        8 => Just(Op::Report),
        1 => Just(Op::LoseReports),
        4 => Just(Op::Acknowledge),
        3 => (0u8..12).prop_map(Op::CrashIn),
        5 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        1 => (0u8..8).prop_map(Op::Damage),
    ]
}

fn pick(ids: &[AssignmentId], which: u8) -> Option<AssignmentId> {
    // Late ones are the interesting ones: the others have ended mostly.
    ids.iter().rev().nth(usize::from(which) % ids.len().max(1)).copied()
}

/// A gang starts when it is ready, and only then.
fn start_if_ready(world: &mut World, id: AssignmentId) {
    let ready = world.told.get(&id).is_some_and(|told| told.ready);
    if ready && world.wanted[&id].phase == DesiredPhase::Prepare {
        world.want(id, |assignment| assignment.phase = DesiredPhase::Start);
    }
}

fn play(world: &mut World, op: Op) {
    let wanted: Vec<AssignmentId> = world.wanted.keys().copied().collect();
    let on_machine = world.machine.ids();
    match op {
        Op::Add { run, isolation, tasks } => {
            let phase = if run { DesiredPhase::Run } else { DesiredPhase::Prepare };
            let classes = [Isolation::Strict, Isolation::Fenced, Isolation::Tolerant];
            world.add(phase, classes[usize::from(isolation)], tasks);
        }
        Op::Start(which) => {
            if let Some(id) = pick(&wanted, which) {
                start_if_ready(world, id);
            }
        }
        Op::Stop { which, grace_ms } => {
            let Some(id) = pick(&wanted, which) else { return };
            world.want(id, |a| {
                a.phase = DesiredPhase::Stop { cause: ExitCause::Preempted, grace_ms };
            });
        }
        Op::Cut { which, keep } => {
            let Some(id) = pick(&wanted, which) else { return };
            world.want(id, |a| a.keep = a.keep.min(keep));
        }
        Op::Drop(which) => {
            if let Some(id) = pick(&wanted, which) {
                world.drop_wanted(id);
            }
        }
        Op::GiveNodeUp => world.give_node_up(),
        Op::LatestSet => world.deliver_set(usize::MAX),
        Op::AnySet(index) => world.deliver_set(usize::from(index) % world.sets.len().max(1)),
        Op::Machine { which, progress } => {
            if let Some(id) = pick(&on_machine, which) {
                world.machine.progress(id, progress, world.now_ms);
            }
        }
        Op::Events(count) => world.deliver_events(usize::from(count)),
        Op::Silence { which, position, silent } => {
            let Some(id) = pick(&on_machine, which) else { return };
            let news = if silent { News::Silent(1_000) } else { News::Active };
            world.step(Input::Silence { id, position, news });
        }
        Op::Repeat(which) => {
            if let Some(id) = pick(&on_machine, which) {
                world.machine.repeat(id);
            }
        }
        Op::Renew => world.renew(),
        Op::PassTime(ms) => world.pass_time(ms),
        Op::Tick => world.tick(),
        Op::Connect => world.connect(),
        Op::Report => world.deliver_report(),
        Op::LoseReports => world.wire.clear(),
        Op::Acknowledge => world.acknowledge(),
        Op::CrashIn(actions) => world.crash_in = Some(usize::from(actions)),
        Op::Restart => world.restart(),
        Op::Reboot => world.reboot(),
        Op::Damage(which) => {
            // A living agent would hear of the death first.
            if let (Some(id), None) = (pick(&on_machine, which), &world.agent) {
                world.machine.damage(id);
            }
        }
    }
}

/// Once the faults stop, what is wanted runs to its end, and what is not wanted disappears.
fn heal_and_check(world: &mut World) {
    world.settle();
    let wanted: Vec<AssignmentId> = world.wanted.keys().copied().collect();
    for id in &wanted {
        start_if_ready(world, *id);
    }
    world.settle();
    for id in &wanted {
        let told = &world.told[id];
        let waits = matches!(world.wanted[id].phase, DesiredPhase::Prepare);
        assert!(told.reaped || waits, "{id} is stuck: {told:?} {:?}", world.disk.records[id]);
    }
    world.wanted.clear();
    world.settle();
    assert!(world.disk.records.is_empty(), "records stay: {:?}", world.disk.records);
    assert!(world.disk.outbox.is_empty(), "reports stay: {:?}", world.disk.outbox);
    assert!(world.machine.shims.is_empty(), "shims stay: {:?}", world.machine.shims);
    for id in world.known.keys() {
        assert!(world.told.get(id).is_some_and(|told| told.reaped), "{id} was never reaped");
    }
}

proptest! {
    #[test]
    fn the_rules_hold_in_every_schedule(ops in prop::collection::vec(any_op(), 0..250)) {
        let mut world = World::new();
        for op in ops {
            play(&mut world, op);
        }
        heal_and_check(&mut world);
    }
}
