//! The setup of a pool in the state: who sets it, and what machines must tell before they take
//! work.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;
use yard_common::condition::ConditionKind;
use yard_common::id::*;
use yard_core::command::*;
use yard_core::fit::{Unfit, open};

fn setup(command: &str) -> Option<Setup> {
    Some(Setup { command: command.into(), variables: Vec::new(), timeout_ms: 60_000 })
}

fn set(lab: &mut Lab, setup: Option<Setup>) -> SetupId {
    let pool = lab.pool;
    lab.ok(lab.user(), Command::Holder(Holder::SetSetup(pool, setup)));
    lab.state.pools[pool].setup_id
}

fn tell(lab: &mut Lab, node: NodeId, change: impl FnOnce(&mut Inventory)) {
    let mut inventory = (*lab.state.nodes[node].facts).clone();
    change(&mut inventory);
    lab.ok(Actor::Node(node), Command::Node(NodeCommand::Update { node, inventory }));
}

fn report(id: SetupId, stage: SetupStage) -> Option<SetupReport> {
    Some(SetupReport { id, stage, since_wall_ms: 7 })
}

/// Whether the node takes work, in all places that say so.
fn is_open(lab: &mut Lab, node: NodeId) -> bool {
    let record = &lab.state.nodes[node];
    let now_ms = lab.state.now_ms();
    let found = open(record, now_ms, None);
    assert_eq!(found.is_ok(), record.takes_work(now_ms));
    assert!(found.is_ok() || found == Err(Unfit::Setup), "{found:?}");
    let job = lab.submit(single());
    let share = ShareChoice { node, group: 0, gpus: devices([]) };
    let placement = Placement { job, tasks: vec![TaskRange::one(0)], shares: vec![share] };
    let placed = lab.try_place(placement);
    assert_eq!(placed.is_ok(), found.is_ok());
    if let Ok(allocation) = placed {
        lab.run_to_end(node, allocation, yard_common::ExitCause::Exited(0));
    }
    assert_eq!(lab.state.check(), []);
    found.is_ok()
}

#[test]
fn a_machine_takes_work_once_it_has_done_what_its_pool_wants_now() {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &[]), lab.join("b", 4, &[]));
    let runs = lab.submit(single());
    let held = lab.place(runs, TaskRange::one(0), &[b]);
    assert!(is_open(&mut lab, a));
    let first = set(&mut lab, setup("one"));
    assert!(!is_open(&mut lab, a), "from the command on, before the node has heard of it");
    assert!(lab.state.allocations.contains(held), "what runs there goes on");
    for stage in [SetupStage::Running, SetupStage::Failed, SetupStage::Refused] {
        tell(&mut lab, a, |facts| facts.setup = report(first, stage));
        assert!(!is_open(&mut lab, a), "{stage:?}");
    }
    tell(&mut lab, a, |facts| facts.setup = report(first, SetupStage::Done));
    assert!(is_open(&mut lab, a) && !is_open(&mut lab, b));
    // The same again is no change, and another one is.
    assert_eq!(set(&mut lab, setup("one")), first);
    assert!(is_open(&mut lab, a));
    let second = set(&mut lab, setup("two"));
    assert_eq!(second.revision, 2);
    assert!(!is_open(&mut lab, a));
    tell(&mut lab, a, |facts| facts.setup = report(first, SetupStage::Done));
    assert!(!is_open(&mut lab, a), "that was the one before");
    tell(&mut lab, a, |facts| facts.setup = report(second, SetupStage::Done));
    assert!(is_open(&mut lab, a));
    // Another boot begins without it.
    let boot = inventory("x", 4, &[], 99).boot;
    tell(&mut lab, a, |facts| (facts.boot, facts.setup) = (boot, None));
    assert!(!is_open(&mut lab, a));
    let none = set(&mut lab, None);
    assert_eq!((none.revision, none.is_some()), (3, false));
    assert!(is_open(&mut lab, a) && is_open(&mut lab, b));
    // What was done of the first one counts for nothing when its text comes back.
    tell(&mut lab, a, |facts| facts.setup = report(first, SetupStage::Done));
    set(&mut lab, setup("one"));
    assert!(!is_open(&mut lab, a));
}

#[test]
fn a_machine_that_joins_begins_without_it_and_other_pools_are_not_concerned() {
    let mut lab = Lab::new();
    let a = lab.join("a", 4, &[]);
    let other = Holder::AddPool("other".into(), PoolChange::default());
    let Reply::Made(Object::Pool(other)) = lab.ok(lab.user(), Command::Holder(other)) else {
        panic!("a pool is made");
    };
    lab.ok(lab.user(), Command::Holder(Holder::SetSetup(other, setup("one"))));
    assert!(is_open(&mut lab, a));
    set(&mut lab, setup("two"));
    let b = lab.join("b", 4, &[]);
    assert!(!is_open(&mut lab, b));
}

#[test]
fn what_it_tells_of_a_setup_bars_nothing_by_itself() {
    let mut lab = Lab::new();
    let node = lab.join("a", 4, &[]);
    tell(&mut lab, node, |facts| {
        let (kind, why) = (ConditionKind::Setup, "an old one runs".to_string());
        let until_boot = false;
        facts.conditions =
            vec![Condition { kind, device: None, since_wall_ms: 1, why, until_boot }];
    });
    assert!(!lab.state.nodes[node].unwell && is_open(&mut lab, node));
}

#[test]
fn a_setup_without_bounds_is_refused() {
    let mut lab = Lab::new();
    let (user, pool) = (lab.user(), lab.pool);
    let refused = lab.refused(user, Command::Holder(Holder::SetSetup(pool, setup(" "))));
    assert!(refused.to_string().contains("setup.command"), "{refused}");
    assert_eq!(lab.state.pools[pool].setup_id, SetupId::default());
}
