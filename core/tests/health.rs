//! Health of nodes in the state: what they tell, what operators hold back, and cordons that end.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::condition::ConditionKind;
use yard_common::id::*;
use yard_common::limits::{CONDITION_BYTES_MAX, CORDON_MS, HELD_BACK_MAX, REASON_BYTES_MAX};
use yard_core::command::*;

const BROKEN: ExitCause = ExitCause::PrepareFailed(PrepareStep::GpuCheck);

fn one(node: NodeId, gpu: usize) -> Placement {
    let share = ShareChoice { node, group: 0, gpus: devices([gpu]) };
    Placement { job: JobId(0), tasks: vec![TaskRange::one(0)], shares: vec![share] }
}

fn place(lab: &mut Lab, node: NodeId, gpu: usize) -> Result<AllocationId, Rejection> {
    let job = lab.submit(with_gpus(1));
    lab.try_place(Placement { job, ..one(node, gpu) })
}

/// The node tells what is wrong with it.
fn tell(lab: &mut Lab, node: NodeId, change: impl FnOnce(&mut Inventory)) -> Result<(), Rejection> {
    let mut inventory = (*lab.state.nodes[node].facts).clone();
    change(&mut inventory);
    let command = Command::Node(NodeCommand::Update { node, inventory });
    let outcome = lab.apply(Actor::Node(node), None, command).reply;
    outcome.map(drop)
}

fn condition(kind: ConditionKind, device: Option<u16>) -> Condition {
    Condition { kind, device, since_wall_ms: 5, why: "why".into(), until_boot: false }
}

#[test]
fn a_gpu_that_is_held_back_is_granted_to_nobody_and_the_other_one_is() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &["H100", "H100"]);
    let (user, gpu) = (lab.user(), "GPU-a-0".to_string());
    let reason = "noisy fan".to_string();
    let held = place(&mut lab, node, 0).unwrap();
    let drain = NodeCommand::DrainGpu { node, gpu: gpu.clone(), reason };
    lab.ok(user, Command::Node(drain));
    assert!(lab.state.allocations.contains(held), "what runs there goes on");
    lab.run_to_end(node, held, ExitCause::Exited(0));
    assert!(place(&mut lab, node, 0).is_err());
    assert_eq!(lab.state.nodes[node].free_devices().len(), 1);
    place(&mut lab, node, 1).unwrap();
    // Another boot may list them in another order.
    let boot = inventory("b", 8, &["H100"], 9).boot;
    tell(&mut lab, node, |facts| {
        facts.boot = boot;
        facts.devices.reverse();
    })
    .unwrap();
    assert!(place(&mut lab, node, 1).is_err());
    lab.ok(user, Command::Node(NodeCommand::UndrainGpu { node, gpu }));
    assert_eq!(lab.state.nodes[node].check, 1, "the node looks at it anew");
    place(&mut lab, node, 1).unwrap();
    assert_eq!(lab.state.check(), []);
}

#[test]
fn only_what_is_there_can_be_held_back() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &["H100"]);
    let user = lab.user();
    let drain = |gpu: &str, reason: String| {
        Command::Node(NodeCommand::DrainGpu { node, gpu: gpu.into(), reason })
    };
    lab.refused(user, drain("GPU-b-0", String::new()));
    lab.refused(user, drain("GPU-a-0", "x".repeat(REASON_BYTES_MAX + 1)));
    lab.refused(user, Command::Node(NodeCommand::UndrainGpu { node, gpu: "GPU-b-0".into() }));
    lab.ok(user, drain("GPU-a-0", "one".into()));
    lab.ok(user, drain("GPU-a-0", "two".into()));
    let held = &lab.state.nodes[node].held_back;
    assert_eq!((held.len(), &*held[0].reason), (1, "two"));
    // GPUs that went for good may fill the list.
    for boot in 2..2 + HELD_BACK_MAX as u128 - 1 {
        let other = inventory(&format!("b{boot}"), 8, &["H100"], boot);
        let uuid = other.devices[0].uuid.clone();
        tell(&mut lab, node, |facts| *facts = other).unwrap();
        lab.ok(user, drain(&uuid, String::new()));
    }
    let other = inventory("last", 8, &["H100"], 999);
    tell(&mut lab, node, |facts| *facts = other).unwrap();
    let refused = lab.refused(user, drain("GPU-last-0", String::new()));
    assert!(matches!(refused, Rejection::LimitReached { .. }), "{refused}");
}

#[test]
fn what_bars_the_node_bars_it_and_what_is_for_people_does_not() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &["H100"]);
    tell(&mut lab, node, |facts| {
        facts.conditions = vec![condition(ConditionKind::GpuSlow, Some(0))];
    })
    .unwrap();
    let held = place(&mut lab, node, 0).unwrap();
    lab.run_to_end(node, held, ExitCause::Exited(0));
    tell(&mut lab, node, |facts| {
        facts.conditions = vec![condition(ConditionKind::CheckFailed, None)];
    })
    .unwrap();
    assert!(lab.state.nodes[node].unwell);
    assert!(place(&mut lab, node, 0).is_err());
    tell(&mut lab, node, |facts| facts.conditions.clear()).unwrap();
    place(&mut lab, node, 0).unwrap();
    assert_eq!(lab.state.check(), []);
}

#[test]
fn conditions_are_checked_where_they_come_in() {
    let mut lab = Lab::new();
    let node = lab.join("a", 8, &["H100"]);
    let mut refused = |conditions: Vec<Condition>| {
        let told = tell(&mut lab, node, |facts| facts.conditions = conditions);
        assert!(told.is_err());
    };
    let slow = || condition(ConditionKind::GpuSlow, Some(0));
    refused(vec![slow(), slow()]);
    refused(vec![condition(ConditionKind::GpuSlow, Some(1))]);
    refused(vec![condition(ConditionKind::ClockOff, None), slow()]);
    refused(vec![Condition { why: "x".repeat(CONDITION_BYTES_MAX + 1), ..slow() }]);
    assert!(lab.state.nodes[node].facts.conditions.is_empty());
}

/// Two jobs fail on the node.
fn cordon(lab: &mut Lab, node: NodeId) -> Vec<String> {
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = lab.submit(single());
        let allocation = lab.place(job, TaskRange::one(0), &[node]);
        lab.exit(node, allocation, BROKEN);
        lab.reap(node, allocation);
        jobs.push(job.to_string());
    }
    assert!(lab.state.nodes[node].cordoned);
    jobs
}

#[test]
fn a_cordoned_node_comes_back_by_a_clean_check_and_later_each_time() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    let jobs = cordon(&mut lab, node).join(", ");
    let reason = lab.state.nodes[node].cordon.as_ref().unwrap().reason.to_string();
    assert_eq!(reason, format!("attempts of jobs {jobs} failed here, at last: {BROKEN}"));
    // A check that an operator asks for is no way out before its time.
    lab.ok(lab.user(), Command::Node(NodeCommand::Check(node)));
    tell(&mut lab, node, |facts| facts.checked = 1).unwrap();
    assert!(lab.state.nodes[node].cordoned);
    lab.wait(CORDON_MS);
    assert_eq!(lab.state.nodes[node].check, 2, "it is asked");
    assert_eq!(lab.state.desired(node).unwrap().check, 2);
    // Not well: it is asked again later.
    tell(&mut lab, node, |facts| {
        facts.checked = 2;
        facts.conditions = vec![condition(ConditionKind::CheckFailed, None)];
    })
    .unwrap();
    assert!(lab.state.nodes[node].cordoned);
    lab.wait(CORDON_MS);
    assert_eq!(lab.state.nodes[node].check, 3);
    tell(&mut lab, node, |facts| {
        facts.checked = 3;
        facts.conditions.clear();
    })
    .unwrap();
    assert!(!lab.state.nodes[node].cordoned);
    assert_eq!(lab.state.nodes[node].cordon, None);

    cordon(&mut lab, node);
    lab.wait(CORDON_MS);
    assert_eq!(lab.state.nodes[node].check, 3, "twice as long");
    lab.wait(CORDON_MS);
    assert_eq!(lab.state.nodes[node].check, 4);
    tell(&mut lab, node, |facts| facts.checked = 4).unwrap();
    // A success makes up for it.
    let job = lab.submit(single());
    let allocation = lab.place(job, TaskRange::one(0), &[node]);
    lab.run_to_end(node, allocation, ExitCause::Exited(0));
    assert_eq!(lab.state.nodes[node].cordons, 0);
    assert_eq!(lab.state.check(), []);
}
