//! Resources: who holds them, within which limits, in which order, and who pays.

use super::attempts::{run, start};
use super::*;
use yard_common::gpu::{DeviceSet, GpuGrant};
use yard_core::agent::AssignmentId;
use yard_core::scheduler::Planned;
use yard_sim::truth::Run;

planted! {
    "gang_all_or_nothing": a_gang_that_lost_a_share,
    "gang_all_or_nothing": a_node_that_holds_what_is_gone,
    "gpu_one_holder": a_gpu_with_two_holders,
    "limits_kept": a_grant_beyond_a_limit,
    "limits_kept": an_array_beyond_its_throttle,
    "queue_order": a_plan_that_passes_a_job_over,
    "reaped_before_granted": a_grant_of_what_is_not_reaped,
    "usage_adds_up": a_hold_that_is_not_billed,
}

fn a_gang_that_lost_a_share() -> Found {
    let mut lab = Lab::new();
    lab.submit(2, |_| ());
    lab.start();
    let mut shown = Shown::begun();
    assert_eq!(shown.audit(&lab.state), None);
    let held = lab.state.allocations.get_mut(lab.allocation()).expect("it was granted");
    held.shares.pop();
    shown.audit(&lab.state)
}

fn a_node_that_holds_what_is_gone() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    lab.start();
    let freed = vec![Event::Freed(lab.allocation())];
    lab.state.allocations.remove(lab.allocation());
    Shown::begun().facts(freed, &lab.state)
}

/// Two jobs run on a machine with grants of so much of one GPU.
fn two_holders_of(parts: u16) -> Found {
    let mut shown = Shown::begun();
    for allocation in [1, 2] {
        let grant = GpuGrant { devices: DeviceSet::one(2), parts };
        shown.truth.grants.insert((AllocationId(allocation), 0, 0), grant);
    }
    assert_eq!(start(&mut shown, run(0, 1, 1)), None);
    start(&mut shown, Run { job: JobId(2), ..run(0, 2, 1) })
}

fn a_gpu_with_two_holders() -> Found {
    two_holders_of(5_001)
}

#[test]
fn a_gpu_that_two_share() {
    assert_eq!(two_holders_of(5_000), None);
}

/// Two jobs start under a limit on tasks that comes too late to stop them.
fn two_grants_under(tasks: u64) -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    lab.submit(1, |_| ());
    let grants = lab.start();
    let limit = HolderLimit { tasks: Some(tasks), ..HolderLimit::default() };
    let set = Holder::SetLimit(LimitScope::Queue(QueueId(0)), Some(limit));
    lab.apply(ADMIN, Command::Holder(set));
    Shown::begun().facts(grants, &lab.state)
}

fn a_grant_beyond_a_limit() -> Found {
    two_grants_under(1)
}

#[test]
fn a_grant_at_a_limit() {
    assert_eq!(two_grants_under(2), None);
}

fn an_array_beyond_its_throttle() -> Found {
    let mut lab = Lab::new();
    let tasks = TaskRange { first: 0, len: 2 };
    let array = yard_core::job::Array {
        tasks,
        running_max: Some(2),
        failures_max: None,
        shown: Vec::new(),
    };
    let job = lab.submit(1, |plan| plan.array = Some(array));
    let grants = lab.start();
    assert_eq!(Shown::begun().facts(grants.clone(), &lab.state), None);
    let plan = lab.state.jobs.get_mut(job).expect("it was submitted").plan.make_mut();
    plan.array.as_mut().expect("it is an array").running_max = Some(1);
    Shown::begun().facts(grants, &lab.state)
}

fn a_plan_that_passes_a_job_over() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    lab.submit(1, |_| ());
    let (mut shown, policy) = (Shown::begun(), Policy::default());
    let mut see = |plan: Plan| {
        let planned = Planned { plan, complete: true };
        let (state, now_ms) = (&lab.state, lab.state.now_ms());
        shown.see(&Seen::Planned { state, planned: &planned, now_ms, policy: &policy })
    };
    // Every fifth plan is looked at.
    for _ in 0..9 {
        assert_eq!(see(lab.plan()), None);
    }
    let mut plan = lab.plan();
    plan.placements.remove(0);
    see(plan)
}

/// A share is granted on a machine where processes of another allocation hold a GPU.
fn a_grant_beside_processes_that_hold(position: usize) -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    let grants = lab.start();
    let share = lab.state.allocations.get(lab.allocation()).expect("it was granted").shares[0];
    assert!(share.gpus.devices.contains(0), "the first GPU is granted first");
    let mut shown = Shown::begun();
    let (machine, allocation) = (share.node.0 as usize, AllocationId(99));
    let held = GpuGrant::whole(DeviceSet::one(position));
    shown.truth.grants.insert((allocation, 0, machine), held);
    shown.truth.processes.insert((machine, AssignmentId { allocation, group: 0 }));
    shown.facts(grants, &lab.state)
}

fn a_grant_of_what_is_not_reaped() -> Found {
    a_grant_beside_processes_that_hold(0)
}

#[test]
fn a_grant_beside_what_is_not_reaped() {
    assert_eq!(a_grant_beside_processes_that_hold(1), None);
}

fn a_hold_that_is_not_billed() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    let grants = lab.start();
    let mut shown = Shown::begun();
    assert_eq!(shown.facts(grants, &lab.state), None);
    lab.apply(Actor::Leader, tick().1);
    // Watchers are told that it is free, but no bill says so.
    assert_eq!(shown.facts(vec![Event::Freed(lab.allocation())], &lab.state), None);
    shown.over(&lab.state)
}

#[test]
fn a_hold_that_lasts() {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    let grants = lab.start();
    let mut shown = Shown::begun();
    assert_eq!(shown.facts(grants, &lab.state), None);
    assert_eq!(shown.over(&lab.state), None);
}
