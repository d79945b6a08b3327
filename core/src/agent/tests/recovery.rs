//! Stale sets, dead agents, dead shims, reboots and lost messages.

use super::machine::Progress;
use super::script::*;
use super::world::LEASE_MS;
use crate::agent::*;
use yard_common::ExitCause;
use yard_common::id::{AttemptNumber, Incarnation, Sequence};
use yard_common::limits::{AGENT_OUTBOX_MAX, AGENT_SENDS_MAX};

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

/// Without a trace of its shim nobody can say how far the chain got in the meantime.
#[test]
fn a_start_without_a_witness_is_lost() {
    let mut world = begin_running(Isolation::Fenced, 2);
    world.crash();
    world.machine.progress(FIRST, OK, 0);
    world.machine.progress(FIRST, Progress::StartNext, 0);
    world.machine.damage(FIRST);
    restart(&mut world);
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: exited 0-1#1 Lost(Shim)", "0: reaped"]);
}

#[test]
fn a_stop_that_was_written_and_not_given_is_given_after_the_restart() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.want(FIRST, |a| a.phase = STOP);
    world.crash_in = Some(1);
    world.deliver_set(usize::MAX);
    assert!(world.agent.is_none() && !world.machine.shims[&FIRST].signalled);
    world.restart();
    assert!(world.machine.shims[&FIRST].signalled);
}

#[test]
fn what_only_prepares_gets_no_grace() {
    let mut world = begin(DesiredPhase::Prepare, Isolation::Fenced, 1);
    wants(&mut world, FIRST, |a| a.phase = STOP);
    assert!(world.machine.shims[&FIRST].kill_given && !world.machine.shims[&FIRST].signalled);
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
            // That it was acknowledged was not flushed.
            "0: started 0#1",
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

/// The restored state may grant the very GPUs that an attempt from after the backup still holds.
#[test]
fn a_restored_cluster_ends_what_it_does_not_know_before_anything_of_its_own_begins() {
    let mut world = begin_running(Isolation::Fenced, 1);
    let old = world.sets.len() - 1;
    world.begin_life(Incarnation(2));
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    let new = *world.wanted.keys().next().unwrap();
    world.deliver_set(usize::MAX);
    assert!(world.machine.shims[&FIRST].kill_given);
    assert!(!world.machine.shims.contains_key(&new), "the former life still has the machine");
    assert_eq!(world.disk.records[&new].order, Order::Nothing);
    restart(&mut world);
    assert!(!world.machine.shims.contains_key(&new), "also across a crash of the agent");
    does(&mut world, FIRST, Progress::FinishKill);
    assert!(world.machine.shims.contains_key(&new));
    // A member of the former life that still runs is not obeyed, whatever its generation.
    let obeyed = world.disk.clone();
    world.deliver_set(old);
    assert_eq!(world.disk, obeyed);
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
    for sequence in 1..=AGENT_OUTBOX_MAX as u64 {
        let report =
            Report { sequence: Sequence(sequence), assignment: FIRST, what: ReportKind::Ready };
        world.disk.apply(Change::Reported(report));
    }
    restart(&mut world);
    assert_eq!(world.wire.len() as u64, AGENT_SENDS_MAX);
    world.add(DesiredPhase::Run, Isolation::Fenced, 1);
    world.deliver_set(usize::MAX);
    assert!(!world.machine.shims.contains_key(&SECOND), "nothing new while the outbox is full");
    world.step(Input::Acknowledged(Sequence(AGENT_SENDS_MAX)));
    assert_eq!(world.wire.len() as u64, 2 * AGENT_SENDS_MAX);
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
fn a_restarted_agent_looks_at_the_deadlines_that_passed() {
    let mut world = begin_running(Isolation::Strict, 1);
    world.crash();
    world.pass_time(LEASE_MS);
    world.restart();
    assert!(world.machine.shims[&FIRST].kill_given);
}
