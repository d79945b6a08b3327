//! Stories, told one step at a time: what the coordinator wants, what the machine does, and what
//! the agent says about it.

use super::machine::Progress;
use super::world::{FENCED_MS, LEASE_MS, World};
use crate::agent::*;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AllocationId, AttemptNumber, LeaseId, Sequence};

const OK: Progress = Progress::End(ExitCause::Exited(0));
const STOP: DesiredPhase = DesiredPhase::Stop { cause: ExitCause::Preempted, grace_ms: 10_000 };

/// The assignment that a story adds first.
const FIRST: AssignmentId = AssignmentId { allocation: AllocationId(0), group: 0 };
/// The one that it adds second: another group on the same node.
const SECOND: AssignmentId = AssignmentId { allocation: AllocationId(0), group: 1 };

/// A world in which the agent is connected, holds its lease, and has heard of one assignment.
fn begin(phase: DesiredPhase, isolation: Isolation, tasks: u32) -> World {
    let mut world = World::new();
    world.connect();
    world.renew();
    world.add(phase, isolation, tasks);
    world.deliver_set(usize::MAX);
    world
}

/// The same, once its first task runs.
fn begin_running(isolation: Isolation, tasks: u32) -> World {
    let mut world = begin(DesiredPhase::Run, isolation, tasks);
    does(&mut world, FIRST, Progress::Prepare);
    does(&mut world, FIRST, Progress::StartNext);
    assert_eq!(said(&mut world), ["0: started 0#1"]);
    world
}

/// The shim takes a step, and the agent hears of it.
fn does(world: &mut World, id: AssignmentId, progress: Progress) {
    assert!(world.machine.progress(id, progress, world.now_ms), "{id} cannot {progress:?}");
    world.deliver_events(usize::from(u8::MAX));
}

/// The coordinator changes its mind, and the agent hears of it.
fn wants(world: &mut World, id: AssignmentId, change: impl FnOnce(&mut DesiredAssignment)) {
    world.want(id, change);
    world.deliver_set(usize::MAX);
}

/// What the coordinator hears now, one line per fact.
fn said(world: &mut World) -> Vec<String> {
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
        }
        world.deliver_report();
    }
    world.acknowledge();
    lines
}

fn restart(world: &mut World) {
    world.crash();
    world.restart();
    world.connect();
}

#[test]
fn a_gang_is_prepared_waits_and_starts() {
    let mut world = begin(DesiredPhase::Prepare, Isolation::Fenced, 1);
    does(&mut world, FIRST, Progress::Prepare);
    assert_eq!(said(&mut world), ["0: ready"]);
    assert!(!world.machine.progress(FIRST, Progress::StartNext, world.now_ms));

    wants(&mut world, FIRST, |a| a.phase = DesiredPhase::Start);
    does(&mut world, FIRST, Progress::StartNext);
    does(&mut world, FIRST, OK);
    assert_eq!(said(&mut world), ["0: started 0#1", "0: exited 0#1 Exited(0)"]);

    // What ranks left behind is killed before the share is free.
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: reaped"]);
    assert!(world.machine.shims.is_empty(), "and nothing stays on the machine");

    // The record stays while the set has it, so that it does not look new.
    world.mint();
    world.deliver_set(usize::MAX);
    assert!(world.machine.shims.is_empty() && world.disk.records.len() == 1);
    world.drop_wanted(FIRST);
    world.deliver_set(usize::MAX);
    assert!(world.disk.records.is_empty());
}

/// One write to disk stands between the arrival of a lone task and its first instruction.
#[test]
fn a_lone_task_is_prepared_and_started_in_one_go() {
    let mut world = World::new();
    world.renew();
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    let set = world.sets.last().cloned().unwrap();
    let actions = world.agent.as_mut().unwrap().step(Input::Desired(set), 0);
    assert!(matches!(
        &actions[..],
        [
            Action::Persist(_),
            Action::Prepare(FIRST),
            Action::Start { id: FIRST, len: 1 },
            Action::SetTimer(FENCED_MS),
        ]
    ));
}

#[test]
fn neighbours_of_a_chain_that_end_alike_are_one_range() {
    let mut world = begin(DesiredPhase::Run, Isolation::Fenced, 4);
    world.machine.progress(FIRST, Progress::Prepare, 0);
    for status in [0, 0, 3, 0, 0] {
        world.machine.progress(FIRST, Progress::StartNext, 0);
        world.machine.progress(FIRST, Progress::End(ExitCause::Exited(status)), 0);
    }
    // The agent was busy and hears of it all at once.
    world.machine.events.clear();
    world.machine.repeat(FIRST);
    world.deliver_events(9);
    assert_eq!(
        said(&mut world),
        [
            "0: started 0-3#1,9#2",
            "0: exited 0-1#1 Exited(0)",
            "0: exited 2#1 Exited(3)",
            "0: exited 3#1 Exited(0)",
            "0: exited 9#2 Exited(0)",
        ]
    );
}

#[test]
fn the_tail_of_a_chain_is_recalled_but_not_what_has_started() {
    let mut world = begin_running(Isolation::Fenced, 4);
    wants(&mut world, FIRST, |a| a.keep = 0);
    world.deliver_events(9);
    assert_eq!(said(&mut world), ["0: recalled 1-3#1,9#2"]);
    does(&mut world, FIRST, OK);
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: exited 0#1 Exited(0)", "0: reaped"]);
}

/// The coordinator waits for an answer about the tail, also if the agent never saw it longer.
#[test]
fn a_tail_that_was_cut_before_it_came_is_recalled_too() {
    let mut world = World::new();
    world.connect();
    world.add(DesiredPhase::Prepare, Isolation::Fenced, 4);
    wants(&mut world, FIRST, |a| a.keep = 1);
    assert_eq!(said(&mut world), ["0: recalled 1-3#1,9#2"]);
    assert!(world.machine.shims.contains_key(&FIRST));
}

#[test]
fn an_assignment_that_is_first_heard_of_as_stopped_is_answered() {
    let mut world = begin(STOP, Isolation::Fenced, 1);
    assert_eq!(said(&mut world), ["0: recalled 0#1", "0: reaped"]);
    assert!(world.machine.shims.is_empty(), "the machine has never heard of it");
}

#[test]
fn a_recall_survives_the_agent() {
    let mut world = begin_running(Isolation::Fenced, 2);
    world.want(FIRST, |a| a.keep = 1);
    world.crash_in = Some(1);
    world.deliver_set(usize::MAX);
    assert!(world.agent.is_none(), "it died between writing and ordering");
    world.restart();
    world.connect();
    world.deliver_events(9);
    assert_eq!(said(&mut world), ["0: recalled 1#1"]);
}

#[test]
fn a_failed_step_blames_the_first_task_and_frees_the_rest() {
    let mut world = begin(DesiredPhase::Run, Isolation::Fenced, 2);
    let cause = ExitCause::PrepareFailed(PrepareStep::Mount);
    does(&mut world, FIRST, Progress::FailPrepare(cause));
    assert_eq!(said(&mut world), ["0: exited 0#1 PrepareFailed(Mount)", "0: recalled 1#1"]);
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: reaped"]);
}

/// Found by a random schedule: the shim had nothing left to recall when the order came.
#[test]
fn a_recall_may_cross_with_a_failure() {
    let mut world = begin(DesiredPhase::Run, Isolation::Fenced, 1);
    let cause = ExitCause::PrepareFailed(PrepareStep::Code);
    world.machine.progress(FIRST, Progress::FailPrepare(cause), 0);
    wants(&mut world, FIRST, |a| a.keep = 0);
    world.deliver_events(9);
    restart(&mut world);
    assert_eq!(said(&mut world), ["0: exited 0#1 PrepareFailed(Code)"]);
}

/// A task that saves its work on the signal and leaves with 0 was preempted, not done.
#[test]
fn what_ends_after_the_signal_has_the_cause_of_the_stop() {
    let mut world = begin_running(Isolation::Fenced, 2);
    wants(&mut world, FIRST, |a| a.phase = STOP);
    does(&mut world, FIRST, OK);
    assert_eq!(said(&mut world), ["0: recalled 1#1", "0: exited 0#1 Preempted (was Exited(0))"]);
}

#[test]
fn the_kill_comes_after_the_grace_and_a_shorter_grace_wins() {
    let mut world = begin_running(Isolation::Tolerant, 1);
    let killed = |world: &World| world.machine.shims[&FIRST].kill_given;
    wants(&mut world, FIRST, |a| a.phase = STOP);
    world.pass_time(4_000);
    let cancel = DesiredPhase::Stop { cause: ExitCause::Cancelled, grace_ms: 1_000 };
    wants(&mut world, FIRST, |a| a.phase = cancel);
    wants(&mut world, FIRST, |a| a.phase = STOP);
    world.pass_time(999);
    world.tick();
    assert!(!killed(&world));
    world.pass_time(1);
    world.tick();
    assert!(killed(&world));
    does(&mut world, FIRST, Progress::FinishKill);
    // The first cause stays: the later stop met a task that was ending.
    let heard = said(&mut world);
    assert_eq!(heard, ["0: exited 0#1 Preempted (was Signaled(9))", "0: reaped"]);
}

#[test]
fn each_isolation_has_its_own_deadline() {
    for (isolation, dies_after_ms) in [
        (Isolation::Strict, Some(LEASE_MS)),
        (Isolation::Fenced, Some(FENCED_MS)),
        (Isolation::Tolerant, None),
    ] {
        let mut world = begin_running(isolation, 2);
        world.pass_time(dies_after_ms.unwrap_or(10 * FENCED_MS) - 1);
        world.tick();
        assert!(!world.machine.shims[&FIRST].kill_given, "{isolation:?}");
        world.pass_time(1);
        world.tick();
        assert_eq!(world.machine.shims[&FIRST].kill_given, dies_after_ms.is_some());
        if dies_after_ms.is_some() {
            assert!(said(&mut world).is_empty(), "nothing is said while it may still run");
            does(&mut world, FIRST, Progress::FinishKill);
            assert_eq!(
                said(&mut world),
                [
                    "0: exited 0#1 Lost(LeaseExpired) (was Signaled(9))",
                    "0: recalled 1#1",
                    "0: reaped",
                ]
            );
        }
    }
}

/// The machine was frozen past the deadline, and an answer that was sent before came in late.
#[test]
fn a_frozen_machine_looks_at_its_deadlines_first() {
    let mut world = begin_running(Isolation::Strict, 1);
    world.pass_time(LEASE_MS);
    world.renew();
    assert!(world.machine.shims[&FIRST].kill_given);
}

#[test]
fn a_restarted_agent_looks_at_the_deadlines_that_passed() {
    let mut world = begin_running(Isolation::Strict, 1);
    world.crash();
    world.pass_time(LEASE_MS);
    world.restart();
    assert!(world.machine.shims[&FIRST].kill_given);
}

#[test]
fn a_maintenance_lease_spares_everyone() {
    let mut world = begin_running(Isolation::Strict, 1);
    let lease = Lease { maintenance_ms: 120_000, ..world.lease.unwrap() };
    world.lease = Some(lease);
    world.step(Input::Lease(lease));
    world.pass_time(119_999);
    world.tick();
    assert!(!world.machine.shims[&FIRST].kill_given);
    world.pass_time(1);
    world.tick();
    assert!(world.machine.shims[&FIRST].kill_given);
}

#[test]
fn nothing_starts_without_the_lease_of_its_set() {
    let mut world = World::new();
    world.connect();
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    world.deliver_set(usize::MAX);
    let started = |world: &World| world.machine.shims[&FIRST].start_given;
    assert!(world.machine.shims.contains_key(&FIRST) && !started(&world), "only prepared");

    // The node was given up meanwhile: its new lease starts nothing of an old set.
    world.lease_id = LeaseId(2);
    world.renew();
    assert!(!started(&world));
    world.mint();
    world.deliver_set(usize::MAX);
    assert!(started(&world));

    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    world.pass_time(LEASE_MS);
    world.deliver_set(usize::MAX);
    assert!(!world.machine.shims[&SECOND].start_given, "the lease has run out");
    world.renew();
    assert!(world.machine.shims[&SECOND].start_given);
}

#[test]
fn a_set_that_is_not_newer_is_ignored() {
    let mut world = begin(DesiredPhase::Prepare, Isolation::Fenced, 1);
    wants(&mut world, FIRST, |a| a.phase = STOP);
    let stopped = world.disk.clone();
    world.deliver_set(0);
    world.deliver_set(1);
    assert_eq!(world.disk, stopped);
    restart(&mut world);
    world.deliver_set(0);
    assert_eq!(world.disk.fence, stopped.fence, "the fence outlives the agent");
    assert!(world.disk.records[&FIRST].stop.is_some());
}

/// It must have been here, or the gang would not have been ready. So it may have started.
#[test]
fn a_start_of_something_unknown_is_lost_and_not_obeyed() {
    let mut world = begin(DesiredPhase::Start, Isolation::Fenced, 1);
    assert!(said(&mut world).is_empty() && world.machine.shims.is_empty());
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: exited 0#1 Lost(Unknown)", "0: reaped"]);
    assert!(world.machine.starts.is_empty());
}

#[test]
fn a_restarted_agent_reports_the_exact_status_of_the_meantime() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.crash();
    world.machine.progress(FIRST, Progress::End(ExitCause::OutOfMemory), 0);
    restart(&mut world);
    assert_eq!(said(&mut world), ["0: exited 0#1 OutOfMemory"]);
}

/// The shim lives and has not got the start: it is the witness that nothing ran.
#[test]
fn a_start_that_was_written_and_not_given_is_given_after_the_restart() {
    let mut world = begin(DesiredPhase::Prepare, Isolation::Fenced, 1);
    does(&mut world, FIRST, Progress::Prepare);
    world.want(FIRST, |a| a.phase = DesiredPhase::Start);
    world.crash_in = Some(1);
    world.deliver_set(usize::MAX);
    assert!(world.agent.is_none() && !world.machine.shims[&FIRST].start_given);
    world.restart();
    assert!(world.machine.shims[&FIRST].start_given);
}

/// Without a trace of its shim nobody can say whether it ran.
#[test]
fn a_start_without_a_witness_is_lost() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.crash();
    world.machine.damage(FIRST);
    restart(&mut world);
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: exited 0#1 Lost(Shim)", "0: reaped"]);
}

#[test]
fn what_a_dead_shim_leaves_behind_is_lost_once_it_is_dead_too() {
    let mut world = begin_running(Isolation::Fenced, 2);
    does(&mut world, FIRST, Progress::Die);
    assert!(world.machine.runs(FIRST) && said(&mut world).is_empty());
    does(&mut world, FIRST, Progress::FinishKill);
    let heard = said(&mut world);
    assert_eq!(heard, ["0: exited 0#1 Lost(Shim)", "0: recalled 1#1", "0: reaped"]);
}

#[test]
fn a_reboot_keeps_what_was_written_and_loses_the_rest() {
    let mut world = begin_running(Isolation::Fenced, 3);
    world.crash();
    world.machine.progress(FIRST, OK, 0);
    world.machine.progress(FIRST, Progress::StartNext, 0);
    world.reboot();
    restart(&mut world);
    assert_eq!(
        said(&mut world),
        [
            "0: exited 0#1 Exited(0)",
            "0: exited 1#1 Lost(Reboot)",
            "0: recalled 2#1,9#2",
            "0: reaped",
        ]
    );
    assert!(world.machine.shims.is_empty());
}

#[test]
fn shims_that_nobody_knows_are_killed_and_cleaned_up() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.crash();
    world.disk.records.clear();
    world.restart();
    assert!(world.machine.shims[&FIRST].kill_given);
    does(&mut world, FIRST, Progress::FinishKill);
    assert!(world.machine.shims.is_empty());
}

#[test]
fn what_leaves_the_set_is_killed_and_forgotten() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.drop_wanted(FIRST);
    world.deliver_set(usize::MAX);
    does(&mut world, FIRST, Progress::FinishKill);
    let cause = "StoppedWithGang (was Signaled(9))";
    assert_eq!(said(&mut world), [format!("0: exited 0#1 {cause}"), "0: reaped".to_owned()]);
    assert!(world.disk.records.is_empty());
}

/// No coordinator mints such a set. If one ever does, the higher attempt must win.
#[test]
fn of_two_attempts_of_a_task_the_lower_yields() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    let chain = Chain::one(0, AttemptNumber(2));
    world.made.get_mut(&SECOND).unwrap().chain = chain.clone();
    wants(&mut world, SECOND, |a| a.chain = chain);
    assert!(world.machine.shims[&FIRST].kill_given);
    assert!(!world.machine.shims[&SECOND].kill_given);
}

#[test]
fn something_else_under_a_known_id_is_not_started() {
    let mut world = begin_running(Isolation::Fenced, 1);
    wants(&mut world, FIRST, |a| a.chain = Chain::one(7, AttemptNumber(1)));
    assert!(world.machine.shims[&FIRST].kill_given);
}

#[test]
fn reports_are_sent_again_in_order_until_they_are_acknowledged() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.wire.clear();
    does(&mut world, FIRST, OK);
    does(&mut world, FIRST, Progress::FinishKill);
    let first_try: Vec<Report> = world.wire.iter().cloned().collect();
    assert_eq!(first_try.len(), 2);
    world.connect();
    assert_eq!(world.wire, first_try);
    world.step(Input::Acknowledged(first_try[0].sequence));
    restart(&mut world);
    assert_eq!(world.wire, &first_try[1..]);
    world.step(Input::Acknowledged(Sequence(u64::MAX)));
    assert!(world.disk.outbox.is_empty());
}

/// A coordinator that hears nothing must not make the agent's queue grow without end.
#[test]
fn sends_and_the_outbox_are_bounded() {
    let mut world = begin(DesiredPhase::Prepare, Isolation::Fenced, 1);
    world.crash();
    for sequence in 1..=OUTBOX_MAX as u64 {
        let report =
            Report { sequence: Sequence(sequence), assignment: FIRST, what: ReportKind::Ready };
        world.disk.apply(Change::Reported(report));
    }
    restart(&mut world);
    assert_eq!(world.wire.len() as u64, SENDS_MAX);
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    world.deliver_set(usize::MAX);
    assert!(!world.machine.shims.contains_key(&SECOND), "nothing new while the outbox is full");
    world.step(Input::Acknowledged(Sequence(SENDS_MAX)));
    assert_eq!(world.wire.len() as u64, 2 * SENDS_MAX);
    assert!(world.machine.shims.contains_key(&SECOND));
}

#[test]
fn what_is_kept_survives_its_bytes() {
    let mut world = begin_running(Isolation::Strict, 4);
    wants(&mut world, FIRST, |a| a.phase = STOP);
    does(&mut world, FIRST, OK);
    let bytes = minicbor::to_vec(&world.disk).unwrap();
    assert_eq!(minicbor::decode::<Kept>(&bytes).unwrap(), world.disk);
    assert!(!world.disk.outbox.is_empty() && !world.disk.records.is_empty());
}
