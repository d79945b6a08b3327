//! The life of an assignment when nothing breaks: prepare, start, recall, stop, deadlines.

use super::machine::Progress;
use super::script::*;
use super::world::{FENCED_MS, LEASE_MS, World};
use crate::agent::*;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::LeaseId;

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
