//! GPUs that fail under an assignment: what is ended, and what is blamed.

use super::machine::Progress;
use super::script::*;
use crate::agent::*;
use yard_common::ExitCause;

fn fault(xid: u32, ends: bool) -> Input {
    Input::Fault { id: FIRST, xid, ends }
}

#[test]
fn a_fault_that_ends_the_attempt_is_its_cause() {
    let mut world = begin_running(Isolation::Fenced, 2);
    world.step(fault(79, true));
    assert!(world.machine.shims[&FIRST].kill_given, "at once");
    // What the driver says next of the same event changes nothing.
    world.step(fault(45, false));
    does(&mut world, FIRST, Progress::FinishKill);
    let told = said(&mut world);
    assert!(told.iter().any(|one| one.starts_with("0: exited 0#1 GpuFault(xid 79)")), "{told:?}");
    assert!(told.contains(&"0: recalled 1#1".to_string()), "{told:?}");
    assert_eq!(told.last().unwrap(), "0: reaped");
}

#[test]
fn a_failure_after_a_fault_is_the_gpus_and_the_status_stays_known() {
    let mut world = begin_running(Isolation::Fenced, 2);
    world.step(fault(94, false));
    assert!(!world.machine.shims[&FIRST].kill_given);
    // An agent that dies in between must not forget it.
    restart(&mut world);
    does(&mut world, FIRST, Progress::End(ExitCause::Signaled(6)));
    let told = said(&mut world);
    let exit = "0: exited 0#1 GpuFault(xid 94) (was Signaled(6))".to_string();
    assert!(told.contains(&exit), "{told:?}");
    // The next task of the chain had no fault.
    does(&mut world, FIRST, Progress::StartNext);
    does(&mut world, FIRST, Progress::End(ExitCause::Exited(3)));
    assert!(said(&mut world).contains(&"0: exited 1#1 Exited(3)".to_string()));
}

#[test]
fn a_success_is_a_success_whatever_the_driver_said() {
    let mut world = begin_running(Isolation::Fenced, 1);
    world.step(fault(94, false));
    does(&mut world, FIRST, OK);
    assert!(said(&mut world).contains(&"0: exited 0#1 Exited(0)".to_string()));
    // What has ended has no faults any more.
    world.step(fault(79, true));
    does(&mut world, FIRST, Progress::FinishKill);
    assert_eq!(said(&mut world), ["0: reaped"]);
}
