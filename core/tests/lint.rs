//! The linter for plans can fail: each rule is broken once.

mod support;

use support::*;
use yard_common::id::*;
use yard_core::command::{Placement, Plan};
use yard_core::fit::Unfit;
use yard_core::job::Array;
use yard_core::scheduler::{Budget, Cache, Planned, Policy, Rule, lint, plan};

/// Three machines with room for all: two gangs, a job with GPUs, a small one behind them.
fn lab() -> Lab {
    let mut lab = Lab::new();
    for name in ["a", "b", "c"] {
        lab.join(name, 8, &["h100", "h100"]);
    }
    lab.submit(gang(2, 6));
    lab.submit(with_gpus(2));
    lab.submit(gang(3, 1));
    lab.submit(single());
    lab
}

fn planned(lab: &Lab) -> Planned {
    let mut cache = Cache::default();
    plan(&mut cache, &lab.state, lab.now_ms, &Policy::default(), Budget::UNLIMITED)
}

/// What the linter says about a plan after a change.
fn broken(lab: &Lab, change: impl FnOnce(&mut Plan)) -> Vec<Rule> {
    let mut planned = planned(lab);
    change(&mut planned.plan);
    let found = lint(&lab.state, lab.now_ms, &Policy::default(), &planned);
    found.into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn a_sound_plan_breaks_no_rule() {
    let lab = lab();
    assert_eq!(planned(&lab).plan.placements.len(), 4);
    assert_eq!(broken(&lab, |_| {}), []);
}

#[test]
fn half_a_gang_is_noticed() {
    let half = |plan: &mut Plan| plan.placements[0].shares.truncate(1);
    assert!(broken(&lab(), half).contains(&Rule::Group(0)));
    let twice = |plan: &mut Plan| plan.placements[0].shares[1] = plan.placements[0].shares[0];
    assert!(broken(&lab(), twice).contains(&Rule::Group(0)));
}

#[test]
fn what_does_not_fit_is_noticed() {
    let taken = |plan: &mut Plan| plan.placements[1].shares[0].gpus = devices([0]);
    let unfit = |rule: &Rule| matches!(rule, Rule::Unfit(_, Unfit::Gpus));
    assert!(broken(&lab(), taken).iter().any(unfit));
}

#[test]
fn a_task_that_is_placed_twice_is_noticed() {
    let twice = |plan: &mut Plan| plan.placements.push(plan.placements[3].clone());
    assert!(broken(&lab(), twice).contains(&Rule::Task(0)));
}

#[test]
fn the_order_is_noticed() {
    assert!(broken(&lab(), |plan| plan.placements.swap(0, 3)).contains(&Rule::OutOfOrder));
}

#[test]
fn a_job_that_is_left_out_is_noticed() {
    let rules = broken(&lab(), |plan| drop(plan.placements.remove(2)));
    assert!(rules.contains(&Rule::PassedOver), "it would have fitted");
    let overtakes = |rule: &Rule| matches!(rule, Rule::Overtakes(_, JobId(2)));
    assert!(rules.iter().any(overtakes), "the next one took what it could use");
}

#[test]
fn a_job_that_is_not_pending_is_noticed() {
    let unknown = |plan: &mut Plan| plan.placements[3].job = JobId(99);
    assert!(broken(&lab(), unknown).contains(&Rule::NotPending));
}

#[test]
fn throttles_limits_and_chains_are_noticed() {
    let mut lab = Lab::new();
    lab.join("a", 8, &[]);
    let mut plan = array(10);
    let tasks = TaskRange { first: 0, len: 10 };
    plan.array = Some(Array { tasks, running_max: Some(1), failures_max: None, shown: Vec::new() });
    lab.submit(plan);
    let again = |plan: &mut Plan| {
        let mut next = plan.placements[0].clone();
        next.tasks = vec![TaskRange::one(9)];
        plan.placements.push(next);
    };
    assert!(broken(&lab, again).contains(&Rule::Throttle(0)));
    let empty = |plan: &mut Plan| plan.placements[0].tasks.clear();
    assert!(broken(&lab, empty).contains(&Rule::Chain));
    let policy = Policy { chain_max: 1 };
    let long = planned(&lab);
    let found = lint(&lab.state, lab.now_ms, &policy, &long);
    assert_eq!(found.first().map(|violation| &violation.rule), Some(&Rule::Chain));
}

#[test]
fn machines_that_lie_apart_are_noticed() {
    let mut lab = Lab::new();
    lab.join("a", 8, &["h100"]);
    lab.join("b", 8, &["a100"]);
    let mut plan = gang(1, 1);
    plan.shape.groups[0].nodes_max = 2;
    plan.shape.groups[0].gpus = with_gpus(1).shape.groups[0].gpus.clone();
    lab.submit(plan);
    let both = |plan: &mut Plan| {
        let Placement { shares, .. } = &mut plan.placements[0];
        let mut other = shares[0];
        other.node = NodeId(1 - other.node.0);
        shares.push(other);
    };
    assert!(broken(&lab, both).contains(&Rule::Apart));
}
